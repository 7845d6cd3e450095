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

/// Without the signature of a mail, a line `-- ` and some words: it looks like a removed line where
/// the counts of a hunk cannot be trusted. What has lines of a diff after it, or nothing, is one.
pub(super) fn without_signature(diff: &[u8]) -> &[u8] {
    let mark = b"\n-- \n";
    let Some(at) = diff.windows(mark.len()).rposition(|window| window == mark) else { return diff };
    let mut words = diff[at + mark.len()..].split(|byte| *byte == b'\n').filter(|w| !w.is_empty());
    let is_of_diff = |line: &&[u8]| matches!(line.first(), Some(b' ' | b'+' | b'-' | b'\\'));
    let is_signature = words.clone().next().is_some() && !words.any(|line| is_of_diff(&line));
    if is_signature { &diff[..=at] } else { diff }
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
    let mut old_left = 0_usize;
    for line in text.lines() {
        if old_left > 0
            && let Some(hunk) = found.last_mut()
        {
            let (kind, content) = match line.chars().next() {
                Some(kind @ (' ' | '-' | '+' | '\\')) => (kind, &line[1..]),
                // The blank of an empty line gets lost.
                _ => (' ', line),
            };
            if matches!(kind, ' ' | '-') {
                hunk.old.push(content.to_owned());
                old_left -= 1;
            }
        } else if let Some((start, old)) = line.strip_prefix("@@ -").and_then(counts) {
            number += 1;
            old_left = old;
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

/// `12,7 +13,8 @@`: start and length of the old side. What a hunk adds behind its last old line begins
/// with `+` and is not mistaken for anything.
fn counts(text: &str) -> Option<(usize, usize)> {
    let (old, rest) = text.split_once(" +")?;
    rest.split_once(" @@")?;
    let (start, len) = old.split_once(',').unwrap_or((old, "1"));
    Some((start.parse().ok()?, len.parse().ok()?))
}

/// A name of a `---` or `+++` line without its time and its first directories.
fn stripped(name: &str, strip: u32) -> String {
    let name = name.split('\t').next().unwrap_or_default().trim_end();
    if name == "/dev/null" {
        return name.to_owned();
    }
    name.split('/').skip(strip as usize).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn diff_begins_at_its_first_header() {
        let diff = "--- a/x.c\n+++ b/x.c\n@@ -1 +1 @@\n-a\n+b\n";
        for before in ["", "Why.\n", "---\n 1 file changed\n\n", "--- a rule ---\n+++\n\n"] {
            let text = format!("{before}{diff}");
            assert_eq!(of(text.as_bytes()), Some(diff.as_bytes()), "{before:?}");
        }
        // A file that moves has no lines, and one in git's form has its mode before them.
        let moved = "diff --git a/x.c b/y.c\nrename from x.c\nrename to y.c\n";
        let text = format!("Why.\n{moved}{diff}");
        assert_eq!(of(text.as_bytes()), text.strip_prefix("Why.\n").map(str::as_bytes));
        assert_eq!(of(b"--- a/x.c\nno diff\n+++ b/x.c\n"), None);
    }

    /// A patch may remove a line that looks like the mark of a signature.
    #[test]
    fn only_the_last_signature_is_cut_off() {
        let diff = b"@@ -1,2 +1 @@\n a\n-- \n@@ -9 +8 @@\n-b\n";
        let signed = [&diff[..], b"-- \n2.43.0\n"].concat();
        assert_eq!(without_signature(&signed), diff);
        for whole in [
            "-a\n+b\n",
            " a\n-- \n",
            " a\n-- \n\n",
            " a\n-- \n\n b\n",
            "-- \n@@ -9 +8 @@\n-b\n",
            "-- \n\\ No newline at end of file\n",
        ] {
            let whole = format!("@@ -1,2 +1 @@\n{whole}");
            assert_eq!(without_signature(whole.as_bytes()), whole.as_bytes());
        }
    }

    /// Newer versions of git name the file beside the line.
    #[test]
    fn damaged_line_is_shown_with_what_is_wrong_with_it() {
        let lost = "lines before it are missing, or are too many";
        let wrapped = "it begins with none of blank, + and -: a mail program or web page has \
                       wrapped lines or dropped blanks";
        let diff = b"--- a/x\n+++ b/x\n@@ -1,2 +1 @@\nwrapped\n\n\\ No newline\n- a\n+b\n c\n";
        for (error, told) in [
            ("corrupt patch at line 4", format!("\"wrapped\": {wrapped}")),
            ("corrupt patch at <stdin>:4", format!("\"wrapped\": {wrapped}")),
            ("corrupt patch at line 5", format!("\"\": {lost}")),
            (
                "patch fragment without header at line 3: @@ -1,2 +1 @@",
                format!("\"@@ -1,2 +1 @@\": {lost}"),
            ),
            ("corrupt patch at line 6", format!("\"\\\\ No newline\": {lost}")),
            ("corrupt patch at line 7", format!("\"- a\": {lost}")),
            ("corrupt patch at line 8", format!("\"+b\": {lost}")),
            ("corrupt patch at line 9", format!("\" c\": {lost}")),
        ] {
            assert_eq!(why_damaged(error, diff), format!("{error}, {told}"));
        }
        for error in ["corrupt patch at line 99", "corrupt patch at line 0", "No valid patches"] {
            assert_eq!(why_damaged(error, diff), error);
        }
    }

    fn hunk(file: &str, number: usize, start: usize, old: &[&str]) -> Hunk {
        let old = old.iter().map(ToString::to_string).collect();
        Hunk { file: file.to_owned(), number, start, old }
    }

    #[test]
    fn hunks_are_counted_for_each_file_and_hold_the_old_lines() {
        let text = "diff --git a/x.c b/x.c\n--- a/x.c\t2026-01-22 09:56:53\n+++ b/x.c\n\
                    @@ -12,3 +13,4 @@ int f(void)\n a\n-b\n+c\n+d\n e\n\
                    @@ -40 +41 @@\n--- not a file\n+++ nor this\n\
                    --- a/y.c\n+++ b/y.c\n@@ -7,2 +7,0 @@\n-f\n-g\n";
        let expected = [
            hunk("x.c", 1, 12, &["a", "b", "e"]),
            hunk("x.c", 2, 40, &["-- not a file"]),
            hunk("y.c", 1, 7, &["f", "g"]),
        ];
        assert_eq!(hunks(text.as_bytes(), 1), expected);
    }

    /// Lines that were added at the end of a hunk belong to it, however much they look like a header.
    #[test]
    fn hunk_ends_with_what_it_adds() {
        let text =
            "--- a/x.c\n+++ b/x.c\n@@ -1,1 +1,3 @@\n a\n+b\n+@@ -5 +5 @@\n@@ -9 +11 @@\n-z\n";
        let expected = [hunk("x.c", 1, 1, &["a"]), hunk("x.c", 2, 9, &["z"])];
        assert_eq!(hunks(text.as_bytes(), 1), expected);
        let text = "--- a/x.c\n+++ b/x.c\n@@ -1 +1,2 @@\n-a\n+++ b\n+++ c\n@@ -9 +11 @@\n-z\n";
        let expected = [hunk("x.c", 1, 1, &["a"]), hunk("x.c", 2, 9, &["z"])];
        assert_eq!(hunks(text.as_bytes(), 1), expected);
    }

    #[test]
    fn new_file_has_the_name_of_the_other_side() {
        let text = "--- /dev/null\n+++ b/fs/new.c\n@@ -0,0 +1 @@\n+a\n";
        assert_eq!(hunks(text.as_bytes(), 1), [hunk("fs/new.c", 1, 0, &[])]);
        let text = "--- a/old.c\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n";
        assert_eq!(hunks(text.as_bytes(), 1), [hunk("old.c", 1, 1, &["a"])]);
    }

    #[test]
    fn names_lose_as_many_directories_as_is_said() {
        for (strip, name) in [(0, "a/fs/x.c"), (1, "fs/x.c"), (2, "x.c")] {
            let text = "--- a/fs/x.c\n+++ b/fs/x.c\n@@ -1 +1 @@\n-a\n+b\n";
            assert_eq!(hunks(text.as_bytes(), strip), [hunk(name, 1, 1, &["a"])]);
        }
    }

    /// Mail programs drop the blank of an empty line.
    #[test]
    fn empty_line_in_a_hunk_is_context() {
        let text = "--- a/x.c\n+++ b/x.c\n@@ -1,3 +1,3 @@\n a\n\n-b\n+c\n@@ -9 +9 @@\n-z\n+y\n";
        let expected = [hunk("x.c", 1, 1, &["a", "", "b"]), hunk("x.c", 2, 9, &["z"])];
        assert_eq!(hunks(text.as_bytes(), 1), expected);
    }

    #[test]
    fn lines_that_are_no_hunks_header_are_passed_over() {
        for line in [
            "@@ -a +1 @@",
            "@@ -1 @@",
            "@@ -1,x +1 @@",
            "@@ -1 +1",
            "@@ -99999999999999999999 +1 @@",
        ] {
            let text = format!("--- a/x.c\n+++ b/x.c\n{line}\n-a\n+b\n");
            assert_eq!(hunks(text.as_bytes(), 1), [], "{line}");
        }
    }
}
