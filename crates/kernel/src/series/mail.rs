//! From files to mails: decompressing, splitting, decoding, and the diff in each.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::Stdio,
};

use super::{Patch, ReadError, Series, diff, git, select, subject::Subject};
use crate::compression::Format;
use host::tools;

/// One mail, or one file that is a diff and no mail.
#[derive(Clone, Debug)]
pub(super) struct Mail {
    pub(super) subject: Subject,
    pub(super) author: String,
    pub(super) message_id: Option<String>,
    /// The mail it answers, or is threaded under.
    pub(super) in_reply_to: Option<String>,
    /// `None` if it is a cover letter, an answer, or something else without a diff.
    pub(super) diff: Option<Vec<u8>>,
    /// What git calls the commit the author started from, if the mail says so.
    pub(super) base_commit: Option<String>,
    strip: u32,
    files: Vec<PathBuf>,
    pub(super) note: Option<String>,
}

impl Mail {
    /// As a patch.
    pub(super) fn into_patch(self) -> Patch {
        Patch {
            number: self.subject.number,
            subject: self.subject.title,
            author: self.author,
            files: self.files,
            strip: self.strip,
            diff: self.diff.unwrap_or_default(),
        }
    }
}

/// Reads a series.
///
/// `path` is a file: an mbox, also compressed, with one patch or a whole thread in any order, or a
/// bare diff. Or it is a directory: a quilt series if it has a file `series`, a maildir, or one of
/// files that end in `.patch`, `.diff`, `.eml` or `.mbox`, taken in the order of their names unless
/// their subjects are numbered.
pub fn read(path: &Path) -> Result<Series, ReadError> {
    let unreadable = |source| ReadError::Unreadable { path: path.to_owned(), source };
    let scratch = tempfile::tempdir().map_err(ReadError::Temporary)?;
    let reader = Reader { scratch: scratch.path() };
    if !fs::metadata(path).map_err(unreadable)?.is_dir() {
        return select::series(path, reader.file(path, 1)?);
    }
    let list = path.join("series");
    if list.is_file() {
        let mut mails = Vec::new();
        for (file, strip) in quilt(&list)? {
            mails.extend(reader.file(&file, strip)?);
        }
        return select::listed(path, mails);
    }
    let mut mails = Vec::new();
    for file in files(path)? {
        mails.extend(reader.file(&file, 1)?);
    }
    select::series(path, mails)
}

/// The files and strip levels that a quilt `series` file lists.
fn quilt(list: &Path) -> Result<Vec<(PathBuf, u32)>, ReadError> {
    let unreadable = |source| ReadError::Unreadable { path: list.to_owned(), source };
    let text = String::from_utf8_lossy(&fs::read(list).map_err(unreadable)?).into_owned();
    let dir = list.parent().unwrap_or(list);
    let mut found = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        let wrong = |detail| ReadError::SeriesFile { path: list.to_owned(), line, detail };
        let mut words =
            text.split('#').next().unwrap_or_default().split_whitespace().map(str::to_owned);
        let Some(name) = words.next() else { continue };
        let mut strip = 1;
        for word in words {
            strip = match word.strip_prefix("-p").map(str::parse) {
                Some(Ok(strip)) => strip,
                _ => return Err(wrong(format!("{word} is no option of a patch; -p0 or -p1 is"))),
            };
        }
        let file = dir.join(&name);
        if !file.is_file() {
            return Err(wrong(format!("there is no file {name} beside it")));
        }
        found.push((file, strip));
    }
    Ok(found)
}

/// The mails and patches of a directory, by name.
fn files(dir: &Path) -> Result<Vec<PathBuf>, ReadError> {
    let list = |dir: &Path| -> Result<Vec<PathBuf>, ReadError> {
        let read = fs::read_dir(dir).and_then(|entries| {
            entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()
        });
        let mut paths =
            read.map_err(|source| ReadError::Unreadable { path: dir.to_owned(), source })?;
        paths.retain(|path| path.is_file());
        paths.sort();
        Ok(paths)
    };
    let is_maildir = dir.join("cur").is_dir() && dir.join("new").is_dir();
    if is_maildir {
        return Ok([list(&dir.join("cur"))?, list(&dir.join("new"))?].concat());
    }
    let mut paths = list(dir)?;
    paths.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let name =
            [".gz", ".xz", ".zst"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
        [".patch", ".diff", ".eml", ".mbox", ".mbx"].iter().any(|end| name.ends_with(end))
    });
    Ok(paths)
}

/// Whether the text begins with the header of a mail.
fn is_mail(text: &[u8]) -> bool {
    ["from", "subject", "date", "message-id"].iter().any(|name| header(text, name).is_some())
}

/// The value of a header, unfolded.
fn header(text: &[u8], name: &str) -> Option<String> {
    let mut found: Option<String> = None;
    for line in text.split(|byte| *byte == b'\n') {
        let line = String::from_utf8_lossy(line);
        if line.is_empty() {
            break;
        }
        if line.starts_with([' ', '\t']) {
            if let Some(value) = &mut found {
                value.push_str(&line);
            }
            continue;
        }
        if found.is_some() {
            break;
        }
        if let Some((key, value)) = line.split_once(':')
            && key.eq_ignore_ascii_case(name)
        {
            found = Some(value.trim().to_owned());
        } else if !line.starts_with("From ") && !is_header(&line) {
            break;
        }
    }
    found
}

fn is_header(line: &str) -> bool {
    line.split_once(':')
        .is_some_and(|(key, _)| !key.is_empty() && key.bytes().all(|b| b.is_ascii_graphic()))
}

/// The first `<…>` of a header's value.
fn message_id(text: &[u8], name: &str) -> Option<String> {
    let value = header(text, name)?;
    let (_, rest) = value.split_once('<')?;
    Some(rest.split_once('>')?.0.to_owned())
}

/// Reads files into mails, with a directory for what git's programs write.
struct Reader<'a> {
    scratch: &'a Path,
}

impl Reader<'_> {
    fn file(&self, path: &Path, strip: u32) -> Result<Vec<Mail>, ReadError> {
        let unreadable = |source| ReadError::Unreadable { path: path.to_owned(), source };
        let mut bytes = fs::read(path).map_err(unreadable)?;
        if let Ok(format) = Format::of(&bytes) {
            let mut plain = Vec::new();
            format
                .undo(&bytes, &mut plain)
                .map_err(|detail| ReadError::Compressed { path: path.to_owned(), detail })?;
            bytes = plain;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !bytes.starts_with(b"From ") && !is_mail(&bytes) {
            return Ok(vec![self.bare(&name, &bytes, strip)?]);
        }
        self.split(&bytes)?.iter().map(|mail| self.mail(mail, strip)).collect()
    }

    /// The mails of an mbox in order; carriage returns at the ends of lines are gone.
    fn split(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, ReadError> {
        let mbox = self.write("mbox", bytes)?;
        let into = tempfile::tempdir_in(self.scratch).map_err(ReadError::Temporary)?;
        let mut command = git::command(self.scratch);
        // -b: what does not begin with a From line is a single mail. An archive's mbox quotes From
        // lines in the way that --mboxrd undoes.
        command.args(["mailsplit", "-b", "--mboxrd"]);
        command.arg(format!("-o{}", into.path().display())).arg(&mbox);
        tools::check(&mut command, "git")?;
        let mut mails = Vec::new();
        let read = |path: &Path| fs::read(path).map_err(ReadError::Temporary);
        for number in 1.. {
            let path = into.path().join(format!("{number:04}"));
            if !path.exists() {
                break;
            }
            mails.push(read(&path)?);
        }
        Ok(mails)
    }

    /// Decodes one mail. git undoes format=flowed (RFC 3676), also where a mail program says so and
    /// does not do it: if that damages the diff, the mail is taken as it is.
    fn mail(&self, bytes: &[u8], strip: u32) -> Result<Mail, ReadError> {
        let decoded = self.decoded(bytes, strip);
        let content_type = header(bytes, "content-type").unwrap_or_default().to_lowercase();
        if !content_type.contains("format=flowed") {
            return decoded;
        }
        decoded.or_else(|_| match self.decoded(&unflowed(bytes), strip) {
            Ok(mail) => {
                let note = "the mail says format=flowed and is not; taken as it is";
                Ok(Mail { note: Some(note.to_owned()), ..mail })
            }
            Err(ReadError::Damaged { patch, detail }) => {
                let detail = format!("{detail}; the mail is format=flowed, which wraps lines");
                Err(ReadError::Damaged { patch, detail })
            }
            Err(error) => Err(error),
        })
    }

    fn decoded(&self, bytes: &[u8], strip: u32) -> Result<Mail, ReadError> {
        let mail = self.write("mail", bytes)?;
        let mailinfo = |charset| -> Result<Result<String, tools::Error>, ReadError> {
            let mut command = git::command(self.scratch);
            command.args(["mailinfo", "-k", "--quoted-cr=strip", charset, "message", "patch"]);
            command.stdin(Stdio::from(File::open(&mail).map_err(ReadError::Temporary)?));
            let program = "git mailinfo".to_owned();
            let output = match command.output() {
                Ok(output) => output,
                Err(source) => return Err(tools::Error::Start { program, source }.into()),
            };
            let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
            if output.status.success() {
                return Ok(Ok(text(&output.stdout)));
            }
            let (status, output) = (output.status, text(&output.stderr));
            Ok(Err(tools::Error::Failed { program, status, output }))
        };
        // -u makes UTF-8 of author and subject; git 2.47 does not where --encoding says so. A mail that
        // lies about its character set is taken as it is.
        let stdout = match mailinfo("-u")? {
            Ok(stdout) => stdout,
            Err(_) => mailinfo("-n")??,
        };
        let field = |name: &str| {
            let line = stdout.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().trim().to_owned()
        };
        let read = |name: &str| fs::read(self.scratch.join(name)).map_err(ReadError::Temporary);
        let author = match (field("Author:"), field("Email:")) {
            (name, email) if email.is_empty() => name,
            (name, email) => format!("{name} <{email}>").trim_start().to_owned(),
        };
        let mut subject = Subject::parse(&field("Subject:"));
        if subject.title.is_empty() {
            "(no subject)".clone_into(&mut subject.title);
        }
        let (message, patch) = (read("message")?, read("patch")?);
        let mail = Mail {
            base_commit: base_commit(&message).or_else(|| base_commit(&patch)),
            subject,
            author,
            message_id: message_id(bytes, "message-id"),
            in_reply_to: message_id(bytes, "in-reply-to"),
            diff: None,
            strip,
            files: Vec::new(),
            note: None,
        };
        // The diff in an answer is a proposal, or a quotation without marks.
        if mail.subject.is_reply {
            return Ok(Mail { diff: diff::of(&patch).map(<[u8]>::to_vec), ..mail });
        }
        self.with_diff(mail, &patch)
    }

    /// A file that is no mail.
    fn bare(&self, name: &str, bytes: &[u8], strip: u32) -> Result<Mail, ReadError> {
        let text = String::from_utf8_lossy(bytes);
        let text = text.replace("\r\n", "\n");
        let mail = Mail {
            subject: Subject { title: name.to_owned(), ..Subject::parse("") },
            author: String::new(),
            message_id: None,
            in_reply_to: None,
            diff: None,
            base_commit: base_commit(bytes),
            strip,
            files: Vec::new(),
            note: None,
        };
        // Only a file whose every line ends so was changed on its way.
        let has_carriage_returns =
            bytes.contains(&b'\n') && text.matches('\n').count() == count(bytes, b"\r\n");
        if has_carriage_returns {
            return self.with_diff(mail, &without_carriage_returns(bytes));
        }
        self.with_diff(mail, bytes)
    }

    /// Adds the diff that `text` has, and the files it changes.
    fn with_diff(&self, mail: Mail, text: &[u8]) -> Result<Mail, ReadError> {
        let Some(found) = diff::of(text) else { return Ok(mail) };
        let diff = diff::without_signature(found);
        let file = self.write("diff", diff)?;
        let error = match git::files(self.scratch, mail.strip, &file)? {
            Ok(files) => return Ok(Mail { diff: Some(diff.to_vec()), files, ..mail }),
            Err(error) => error,
        };
        let detail = diff::why_damaged(&error, diff);
        let number = mail.subject.number.map(|number| format!("{number} ")).unwrap_or_default();
        let patch = format!("patch {number}\"{}\"", mail.subject.title);
        Err(ReadError::Damaged { patch, detail })
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, ReadError> {
        let path = self.scratch.join(name);
        fs::write(&path, bytes).map_err(ReadError::Temporary)?;
        Ok(path)
    }
}

/// The mail with the header's `format=flowed` made ineffective.
fn unflowed(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mark = b"format=flowed";
    if let Some(at) = bytes.windows(mark.len()).position(|w| w.eq_ignore_ascii_case(mark)) {
        bytes[at..at + mark.len()].copy_from_slice(b"format=fixed ");
    }
    bytes
}

fn count(bytes: &[u8], what: &[u8]) -> usize {
    bytes.windows(what.len()).filter(|window| window == &what).count()
}

fn without_carriage_returns(bytes: &[u8]) -> Vec<u8> {
    let lines: Vec<&[u8]> = bytes
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .collect();
    lines.join(&b'\n')
}

/// The value of `base-commit:`, which `git format-patch --base` writes.
fn base_commit(text: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(text);
    let value = text.lines().find_map(|line| line.strip_prefix("base-commit:"))?.trim();
    let is_hash = (7..=64).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_hexdigit());
    is_hash.then(|| value.to_owned())
}

#[cfg(test)]
mod tests;
