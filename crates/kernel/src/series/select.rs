//! Which of many mails are the series: the patches of its newest version, in order.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
};

use super::{ReadError, Series, mail::Mail, subject::Number};

/// Patches by number.
type Numbered = BTreeMap<u32, Mail>;

/// The series in the mails of a list, which come in any order.
pub(super) fn series(path: &Path, mails: Vec<Mail>) -> Result<Series, ReadError> {
    let mut pile = Pile::sort(path, mails)?;
    let mut notes = std::mem::take(&mut pile.notes);
    let Some((version, mut newest)) = pile.versions.pop_last() else {
        let patches = newest_of_each(std::mem::take(&mut pile.unnumbered), &mut notes);
        if patches.is_empty() {
            return Err(ReadError::NoPatch { path: path.to_owned(), found: pile.found() });
        }
        return Ok(finish(patches, pile.base_commit, notes));
    };
    let of =
        newest.values().filter_map(|mail| mail.subject.number).map(|n| n.of).max().unwrap_or(0);
    let missing =
        |newest: &Numbered| -> Vec<u32> { (1..=of).filter(|n| !newest.contains_key(n)).collect() };
    if !missing(&newest).is_empty() {
        pile.fill_from_older(version, of, &mut newest, &mut notes);
    }
    let missing = missing(&newest);
    if !missing.is_empty() {
        let words = |numbers: &[u32]| {
            let words: Vec<String> =
                numbers.iter().map(|n| Number { n: *n, of }.to_string()).collect();
            words.join(", ")
        };
        // Whoever gives a single mail means that one.
        if pile.count > 1 {
            let empty: Vec<u32> =
                missing.iter().copied().filter(|n| pile.empty.contains(&(version, *n))).collect();
            return Err(ReadError::Missing {
                path: path.to_owned(),
                missing: words(&missing),
                version,
                empty: if empty.is_empty() {
                    String::new()
                } else {
                    format!(" ({}: the mail has no diff)", words(&empty))
                },
            });
        }
        notes.push(format!("a part of a series only: {} are not there", words(&missing)));
    }
    for (version, patches) in &pile.versions {
        notes.push(format!("left out: version {version}, {} patches", patches.len()));
    }
    if version > 1 {
        notes.push(format!("taken: version {version}"));
    }
    for mail in &pile.unnumbered {
        notes.push(format!(
            "left out, as it has no number in the series: \"{}\"",
            mail.subject.title
        ));
    }
    Ok(finish(newest.into_values().collect(), pile.base_commit, notes))
}

/// The patches of a quilt series, in the order of its file.
pub(super) fn listed(path: &Path, mails: Vec<Mail>) -> Result<Series, ReadError> {
    if mails.is_empty() {
        let found = "its file `series` lists none".to_owned();
        return Err(ReadError::NoPatch { path: path.to_owned(), found });
    }
    if let Some(mail) = mails.iter().find(|mail| mail.diff.is_none()) {
        let found = format!("\"{}\" has no diff", mail.subject.title);
        return Err(ReadError::NoPatch { path: path.to_owned(), found });
    }
    let base_commit = mails.iter().find_map(|mail| mail.base_commit.clone());
    Ok(finish(mails, base_commit, Vec::new()))
}

fn finish(mails: Vec<Mail>, base_commit: Option<String>, mut notes: Vec<String>) -> Series {
    for mail in &mails {
        notes.extend(mail.note.iter().map(|note| format!("\"{}\": {note}", mail.subject.title)));
    }
    Series { patches: mails.into_iter().map(Mail::into_patch).collect(), base_commit, notes }
}

/// Of patches without numbers that have the same subject, the newest version; all others as they are.
fn newest_of_each(mails: Vec<Mail>, notes: &mut Vec<String>) -> Vec<Mail> {
    let newest = |mail: &Mail| {
        let same = mails.iter().filter(|other| other.subject.title == mail.subject.title);
        same.map(|other| other.subject.version).max().unwrap_or(1)
    };
    let is_newest: Vec<bool> =
        mails.iter().map(|mail| mail.subject.version == newest(mail)).collect();
    let mut seen = HashSet::new();
    let mut taken = Vec::new();
    for (mail, is_newest) in mails.into_iter().zip(is_newest) {
        if !is_newest {
            let (version, title) = (mail.subject.version, &mail.subject.title);
            notes.push(format!("left out: version {version} of \"{title}\""));
        } else if seen.insert((mail.subject.title.clone(), mail.diff.clone())) {
            taken.push(mail);
        }
    }
    taken
}

/// The mails, sorted.
#[derive(Default)]
struct Pile {
    /// How many there are.
    count: usize,
    replies: usize,
    covers: usize,
    others: usize,
    versions: BTreeMap<u32, Numbered>,
    /// Patches without a number, in the order in which they came.
    unnumbered: Vec<Mail>,
    /// Version and number of patches that came without a diff.
    empty: HashSet<(u32, u32)>,
    base_commit: Option<String>,
    notes: Vec<String>,
}

impl Pile {
    fn sort(path: &Path, mails: Vec<Mail>) -> Result<Pile, ReadError> {
        let mut pile = Pile { count: mails.len(), ..Pile::default() };
        let newest = mails.iter().filter(|mail| !mail.subject.is_reply);
        let newest = newest.max_by_key(|mail| (mail.subject.version, mail.base_commit.is_some()));
        pile.base_commit = newest.and_then(|mail| mail.base_commit.clone());
        for mail in mails {
            let (version, number) = (mail.subject.version, mail.subject.number);
            match (number, &mail.diff) {
                _ if mail.subject.is_reply => {
                    pile.replies += 1;
                    if mail.diff.is_some() {
                        let title = &mail.subject.title;
                        pile.notes.push(format!("left out: a diff in an answer to \"{title}\""));
                    }
                }
                (Some(Number { n: 0, .. }), _) => pile.covers += 1,
                (Some(number), Some(_)) => pile.add(path, version, number, mail)?,
                (Some(number), None) => drop(pile.empty.insert((version, number.n))),
                (None, Some(_)) => pile.unnumbered.push(mail),
                (None, None) => pile.others += 1,
            }
        }
        Ok(pile)
    }

    /// Adds a numbered patch. The same mail comes twice when it went to two lists.
    fn add(
        &mut self,
        path: &Path,
        version: u32,
        number: Number,
        mail: Mail,
    ) -> Result<(), ReadError> {
        let numbered = self.versions.entry(version).or_default();
        match numbered.get(&number.n) {
            Some(other) if other.diff != mail.diff => Err(ReadError::Ambiguous {
                path: path.to_owned(),
                number,
                version,
                one: other.subject.title.clone(),
                other: mail.subject.title,
            }),
            _ => {
                numbered.insert(number.n, mail);
                Ok(())
            }
        }
    }

    /// A new version of a few patches, posted in answer to the old ones, replaces those alone.
    fn fill_from_older(
        &self,
        version: u32,
        of: u32,
        newest: &mut Numbered,
        notes: &mut Vec<String>,
    ) {
        let Some((older, patches)) = self.versions.last_key_value() else { return };
        let ids: HashSet<&String> =
            patches.values().filter_map(|mail| mail.message_id.as_ref()).collect();
        let is_threaded = newest
            .values()
            .any(|mail| mail.in_reply_to.as_ref().is_some_and(|id| ids.contains(id)));
        let is_same = patches.values().all(|mail| mail.subject.number.is_some_and(|n| n.of == of));
        if !is_threaded || !is_same {
            return;
        }
        let replaced: Vec<String> = newest.keys().map(ToString::to_string).collect();
        notes.push(format!(
            "version {version} replaces only {} of {of}; the others are taken from version {older}",
            replaced.join(", ")
        ));
        for (n, mail) in patches {
            newest.entry(*n).or_insert_with(|| mail.clone());
        }
    }

    /// What there is instead of patches.
    fn found(&self) -> String {
        let parts = [
            (self.covers, "cover letters"),
            (self.replies, "answers"),
            (self.empty.len(), "patches without a diff"),
            (self.others, "other mails or files"),
        ];
        let parts: Vec<String> = parts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        if parts.is_empty() { "it is empty".to_owned() } else { parts.join(", ") }
    }
}

#[cfg(test)]
mod tests;
