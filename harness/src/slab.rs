//! What the kernel's caches of objects have in use.

use std::{fs, path::Path};

use crate::sysfs;

/// How many objects of a cache are in use (Documentation/ABI/testing/sysfs-kernel-slab: `objects`; it is told exactly
/// after `shrink`).
#[track_caller]
pub fn objects(cache: &str) -> u64 {
    let slab = Path::new("/sys/kernel/slab").join(cache);
    fs::write(slab.join("shrink"), "1").expect("a kernel with CONFIG_SLUB_DEBUG");
    let objects = sysfs::attribute(&slab.join("objects")).expect("as above");
    let count = objects.split(' ').next().expect("a number").parse();
    count.unwrap_or_else(|error| panic!("{objects}: {error}"))
}
