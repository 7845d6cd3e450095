//! A unified diff as far as messages need it; git applies it.

/// The diff in the text of a mail or a file: from its first line to the end.
pub(super) fn of(text: &[u8]) -> Option<&[u8]> {
    let mut start = 0;
    let mut lines = text.split_inclusive(|byte| *byte == b'\n').peekable();
    while let Some(line) = lines.next() {
        let is_pair =
            line.starts_with(b"--- ") && lines.peek().is_some_and(|next| next.starts_with(b"+++ "));
        if is_pair || line.starts_with(b"diff --git ") {
            return Some(&text[start..]);
        }
        start += line.len();
    }
    None
}

/// Without the last line `-- ` and what follows: it looks like a removed line where the counts of a
/// hunk cannot be trusted.
pub(super) fn without_signature(diff: &[u8]) -> &[u8] {
    let mark = b"\n-- \n";
    let at = diff.windows(mark.len()).rposition(|window| window == mark);
    at.map_or(diff, |at| &diff[..=at])
}

/// git's words on a diff it cannot read, with the line they are about.
pub(super) fn why_damaged(error: &str, diff: &[u8]) -> String {
    let number =
        error.rsplit_once("at line ").or_else(|| error.rsplit_once(':')).and_then(|(_, n)| {
            n.trim().split(|c: char| !c.is_ascii_digit()).next()?.parse::<usize>().ok()
        });
    let line = number.and_then(|n| diff.split(|byte| *byte == b'\n').nth(n.checked_sub(1)?));
    let Some(line) = line else { return error.to_owned() };
    let text = String::from_utf8_lossy(line);
    let is_of_hunk = text.is_empty() || text.starts_with([' ', '+', '-', '\\', '@']);
    let why = if is_of_hunk {
        "lines before it are missing, or are too many"
    } else {
        "it begins with none of blank, + and -: a mail program or web page has wrapped lines or \
         dropped blanks"
    };
    format!("{error}, {text:?}: {why}")
}

/// The part of a diff that changes one place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hunk {
    /// The file it changes, without the directories that are stripped.
    pub(super) file: String,
    /// Its place among the hunks of that file, from 1.
    pub(super) number: usize,
    /// The first line it stands for in the old file, from 1.
    pub(super) start: usize,
    /// The lines it expects to find.
    pub(super) old: Vec<String>,
}

/// All hunks. Lines that belong to none are passed over.
pub(super) fn hunks(diff: &[u8], strip: u32) -> Vec<Hunk> {
    let text = String::from_utf8_lossy(diff);
    let (mut found, mut file, mut number) = (Vec::<Hunk>::new(), String::new(), 0);
    let (mut old_left, mut new_left) = (0_usize, 0_usize);
    for line in text.lines() {
        if old_left + new_left > 0
            && let Some(hunk) = found.last_mut()
        {
            let (kind, content) = match line.chars().next() {
                Some(kind @ (' ' | '-' | '+' | '\\')) => (kind, &line[1..]),
                // The blank of an empty line gets lost.
                _ => (' ', line),
            };
            if matches!(kind, ' ' | '-') {
                hunk.old.push(content.to_owned());
                old_left = old_left.saturating_sub(1);
            }
            if matches!(kind, ' ' | '+') {
                new_left = new_left.saturating_sub(1);
            }
        } else if let Some((start, old, new)) = line.strip_prefix("@@ -").and_then(counts) {
            number += 1;
            (old_left, new_left) = (old, new);
            found.push(Hunk { file: file.clone(), number, start, old: Vec::new() });
        } else if let Some(name) = line.strip_prefix("--- ") {
            (file, number) = (stripped(name, strip), 0);
        } else if let Some(name) = line.strip_prefix("+++ ")
            && file == "/dev/null"
        {
            file = stripped(name, strip);
        }
    }
    found
}

/// `12,7 +13,8 @@`: start and length of the old side, length of the new.
fn counts(text: &str) -> Option<(usize, usize, usize)> {
    let (old, rest) = text.split_once(" +")?;
    let (new, _) = rest.split_once(" @@")?;
    let pair = |text: &str| -> Option<(usize, usize)> {
        let (start, len) = text.split_once(',').unwrap_or((text, "1"));
        Some((start.parse().ok()?, len.parse().ok()?))
    };
    let ((start, old), (_, new)) = (pair(old)?, pair(new)?);
    Some((start, old, new))
}

/// A name of a `---` or `+++` line without its time and its first directories.
fn stripped(name: &str, strip: u32) -> String {
    let name = name.split('\t').next().unwrap_or_default().trim_end();
    if name == "/dev/null" {
        return name.to_owned();
    }
    name.split('/').skip(strip as usize).collect::<Vec<_>>().join("/")
}
