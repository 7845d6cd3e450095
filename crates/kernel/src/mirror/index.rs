//! What the last run saw: pairs of stamps, of a file in the tree and of its copy, whose contents were
//! the same.
//!
//! It only saves reading. A file whose stamps are not both in it is compared by content, so an index
//! that is lost, old or damaged costs time and nothing else.

use std::{collections::HashMap, fs, os::unix::ffi::OsStrExt, path::Path};

use super::Stamp;
use host::cache::{self, at};

/// Its name in the copy.
pub(super) const NAME: &str = ".sensecheck-mirror";

/// Its first line. The number changes when the format does.
const HEADER: &[u8] = b"sensecheck mirror 1\n";

/// Two stamps that belong to the same content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    /// Of the file in the tree.
    pub(super) source: Stamp,
    /// Of the file in the copy.
    pub(super) copy: Stamp,
}

/// Pairs by relative path, as bytes.
pub(super) type Index = HashMap<Vec<u8>, Pair>;

/// Reads the index of `copy`; empty if there is none that can be read.
pub(super) fn read(copy: &Path) -> Index {
    fs::read(copy.join(NAME)).ok().and_then(|bytes| parse(&bytes)).unwrap_or_default()
}

/// Replaces the index of `copy`, whole or not at all.
pub(super) fn write<'a>(
    copy: &Path,
    pairs: impl Iterator<Item = (&'a Path, Pair)>,
) -> Result<(), cache::Error> {
    let mut bytes = HEADER.to_vec();
    for (path, Pair { source, copy }) in pairs {
        bytes.extend_from_slice(path.as_os_str().as_bytes());
        bytes.push(0);
        for number in [source.size.into(), source.modified_ns, source.changed_ns]
            .into_iter()
            .chain([copy.size.into(), copy.modified_ns, copy.changed_ns])
        {
            bytes.extend_from_slice(&i128::to_le_bytes(number));
        }
    }
    let place = copy.join(NAME);
    let file = tempfile::NamedTempFile::new_in(copy).map_err(at("make a file in", copy))?;
    fs::write(file.path(), bytes).map_err(at("write", &place))?;
    file.persist(&place).map_err(|error| at("rename into", &place)(error.error))?;
    Ok(())
}

fn parse(bytes: &[u8]) -> Option<Index> {
    let mut rest = bytes.strip_prefix(HEADER)?;
    let mut index = Index::new();
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == 0)?;
        let (path, after) = (&rest[..end], &rest[end + 1..]);
        let (numbers, after) = after.split_first_chunk::<{ 6 * 16 }>()?;
        let mut numbers =
            numbers.as_chunks::<16>().0.iter().map(|number| i128::from_le_bytes(*number));
        let mut stamp = || {
            Some(Stamp {
                size: numbers.next()?.try_into().ok()?,
                modified_ns: numbers.next()?,
                changed_ns: numbers.next()?,
            })
        };
        index.insert(path.to_vec(), Pair { source: stamp()?, copy: stamp()? });
        rest = after;
    }
    Some(index)
}
