//! Which file takes which structure.
//!
//! The two `SG_IO` structures have their addresses at different offsets, and another driver would see other ones in
//! a ring's entry: what is an address of ours on one node is any number on another. A node is therefore looked at
//! before anything is sent to it; that keeps the frames safe.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
    sync::Arc,
};

use rustix::fs::{major, minor};

use crate::{Access, Error};

/// An open bsg node.
#[derive(Clone, Debug)]
pub struct Node(Arc<File>);

impl Node {
    /// Opens a node, for example `/dev/bsg/0:0:0:0`. [`Error::WrongNode`] if it is something else.
    pub fn open(path: impl AsRef<Path>, access: Access) -> Result<Self, Error> {
        let path = path.as_ref();
        let file = open(path, access)?;
        if class(&file).as_deref() != Some("bsg") {
            return Err(Error::WrongNode { path: path.to_owned(), expected: "a bsg node" });
        }
        Ok(Node(Arc::new(file)))
    }

    pub(crate) fn file(&self) -> &File {
        &self.0
    }
}

/// Opens a node that takes the v3 structure: sg, or a SCSI block device.
pub(crate) fn open_sg(path: &Path, access: Access) -> Result<File, Error> {
    let file = open(path, access)?;
    if !matches!(class(&file).as_deref(), Some("scsi_generic" | "block")) {
        return Err(Error::WrongNode { path: path.to_owned(), expected: "an sg node or a disk" });
    }
    Ok(file)
}

fn open(path: &Path, access: Access) -> Result<File, Error> {
    OpenOptions::new()
        .read(true)
        .write(access == Access::ReadWrite)
        .open(path)
        .map_err(|source| Error::Open { path: path.to_owned(), source })
}

/// Name of a device's class in sysfs; `None` for what is no device, or if sysfs does not say.
fn class(file: &File) -> Option<String> {
    let class = || -> io::Result<Option<String>> {
        let metadata = file.metadata()?;
        let kind = metadata.file_type();
        if !kind.is_char_device() && !kind.is_block_device() {
            return Ok(None);
        }
        let folder = if kind.is_block_device() { "block" } else { "char" };
        let (major, minor) = (major(metadata.rdev()), minor(metadata.rdev()));
        let class = fs::read_link(format!("/sys/dev/{folder}/{major}:{minor}/subsystem"))?;
        Ok(class.file_name().map(|name| name.to_string_lossy().into_owned()))
    };
    // Whatever the reason, it is not known to be the node that is needed.
    class().ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_device_or_a_file_is_no_bsg_node() {
        for path in ["/dev/null", "/proc/version"] {
            let refused = Node::open(path, Access::ReadOnly).expect_err("no bsg node");
            assert_eq!(refused.to_string(), format!("{path} is not a bsg node"));
            let refused = open_sg(Path::new(path), Access::ReadOnly).expect_err("no sg node");
            assert_eq!(refused.to_string(), format!("{path} is not an sg node or a disk"));
        }
        let missing = Node::open("/dev/bsg/none", Access::ReadOnly).expect_err("no node");
        assert!(matches!(missing, Error::Open { .. }), "{missing}");
    }

    #[test]
    fn classes_are_those_of_sysfs() {
        let null = File::open("/dev/null").expect("the null device");
        assert_eq!(class(&null).as_deref(), Some("mem"));
    }
}
