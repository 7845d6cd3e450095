//! A cpio archive in the format "newc", as the kernel's initramfs wants it.

use std::io::Write;

use cpio::newc::{Builder, ModeFileType, trailer};

use super::Device;

/// An archive being made, in memory.
#[derive(Debug)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    /// Inode numbers tell the kernel which names are one file; all of ours differ.
    inode: u32,
}

impl Archive {
    pub(crate) fn new() -> Archive {
        Archive { bytes: Vec::new(), inode: 0 }
    }

    pub(crate) fn directory(&mut self, name: &str) {
        let builder = self.builder(name).mode(0o755).nlink(2);
        self.write(builder.set_mode_file_type(ModeFileType::Directory), &[]);
    }

    pub(crate) fn file(&mut self, name: &str, mode: u32, content: &[u8]) {
        let builder = self.builder(name).mode(mode);
        self.write(builder.set_mode_file_type(ModeFileType::Regular), content);
    }

    pub(super) fn character_device(&mut self, device: &Device) {
        let builder = self.builder(&device.path).mode(device.mode);
        let builder = builder.rdev_major(device.major).rdev_minor(device.minor);
        self.write(builder.set_mode_file_type(ModeFileType::Char), &[]);
    }

    /// The archive with its trailer. Another may follow it directly.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        trailer(&mut self.bytes).expect("a Vec takes all");
        self.bytes
    }

    fn builder(&mut self, name: &str) -> Builder {
        self.inode += 1;
        Builder::new(name).ino(self.inode)
    }

    /// # Panics
    /// For 4 GiB and more, which the format cannot say and a guest could not hold.
    fn write(&mut self, builder: Builder, content: &[u8]) {
        let size = u32::try_from(content.len()).expect("a file of an initramfs is below 4 GiB");
        let mut writer = builder.write(&mut self.bytes, size);
        writer.write_all(content).expect("a Vec takes all");
        writer.finish().expect("a Vec takes all");
    }
}
