//! What a kernel's DWARF says: which function and line an address is, and which addresses a source
//! file's lines have.
//!
//! ```text
//! DebugFiles   where the files of one kernel are
//! DebugInfo    those files, each opened when first asked for
//! Object       one of them: vmlinux, or a module
//! SourceFile   the lines and functions of one source file in one object
//! ```
//!
//! Addresses of `vmlinux` are those it was linked for, which a kernel booted with `nokaslr` has. A
//! module has none before it is loaded: its sections get places of their own here, and
//! [`Object::address`] and [`Object::sections`] lead from a section and an offset, which do not
//! change, to an address of the object. File names are relative to the root of the kernel's tree
//! (`drivers/scsi/scsi_bsg.c`), wherever it was built.

mod elf;
mod lines;
mod object;
mod paths;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

pub use self::{
    elf::{Section, Symbol, build_id},
    lines::{Function, SourceFile},
    object::{Frame, Object},
};

/// Where the debug information of one kernel is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DebugFiles {
    /// The ELF file with DWARF, at the addresses the kernel was linked for.
    pub vmlinux: PathBuf,
    /// The directory below which the modules are, `NAME.ko` or `NAME.ko.debug`.
    pub modules: PathBuf,
    /// The root of the source, patched as it was built, if it is at hand.
    pub source: Option<PathBuf>,
}

/// Why debug information cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file or directory cannot be read.
    #[error("cannot read {}: {source}; fetch or build the kernel again", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not the ELF file it should be.
    #[error("{}: {detail}; it has to be a vmlinux or a kernel module", path.display())]
    Elf {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// It was built without debug information, or stripped.
    #[error("{} has no debug information; build it with CONFIG_DEBUG_INFO_DWARF5=y", path.display())]
    NoDebugInfo {
        /// The file.
        path: PathBuf,
    },
    /// Its DWARF does not parse.
    #[error(
        "the debug information of {} is damaged: {detail}; fetch or build the kernel again",
        path.display()
    )]
    Dwarf {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
}

/// The debug information of one kernel, each file read when first asked for and then kept.
#[derive(Debug)]
pub struct DebugInfo {
    files: DebugFiles,
    /// Module files by the module's name.
    places: Option<BTreeMap<String, PathBuf>>,
    vmlinux: Option<Object>,
    modules: BTreeMap<String, Object>,
}

impl DebugInfo {
    /// Reads nothing yet.
    pub fn new(files: DebugFiles) -> DebugInfo {
        DebugInfo { files, places: None, vmlinux: None, modules: BTreeMap::new() }
    }

    /// Where the files are.
    pub fn files(&self) -> &DebugFiles {
        &self.files
    }

    /// The kernel itself.
    pub fn vmlinux(&mut self) -> Result<&Object, Error> {
        if self.vmlinux.is_none() {
            self.vmlinux = Some(Object::open(&self.files.vmlinux)?);
        }
        Ok(self.vmlinux.as_ref().expect("just opened"))
    }

    /// The module called `name`, as `/proc/modules` or an Oops calls it; `None` if there is no file
    /// of it.
    pub fn module(&mut self, name: &str) -> Result<Option<&Object>, Error> {
        let name = module_name(name);
        if !self.modules.contains_key(&name) {
            if self.places.is_none() {
                self.places = Some(find_modules(&self.files.modules)?);
            }
            let place = self.places.as_ref().and_then(|places| places.get(&name)).cloned();
            let Some(place) = place else { return Ok(None) };
            // A module's units need not say where the tree's root is; those of vmlinux do.
            let roots = self.vmlinux()?.roots().clone();
            self.modules.insert(name.clone(), Object::open_with(&place, Some(roots))?);
        }
        Ok(self.modules.get(&name))
    }
}

/// The kernel takes `-` and `_` in a module's name for the same (`KBUILD_MODNAME`).
fn module_name(file: &str) -> String {
    file.replace('-', "_")
}

/// All module files below `dir`.
fn find_modules(dir: &Path) -> Result<BTreeMap<String, PathBuf>, Error> {
    let mut found = BTreeMap::new();
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        let read = |source| Error::Read { path: dir.clone(), source };
        for entry in fs::read_dir(&dir).map_err(read)? {
            let entry = entry.map_err(read)?;
            let path = entry.path();
            // A link, such as `build` in an installed modules directory, may lead anywhere.
            if entry.file_type().map_err(read)?.is_dir() {
                left.push(path);
            } else if let Some(name) = path.file_name().and_then(OsStr::to_str)
                && let Some(stem) = name.strip_suffix(".ko").or(name.strip_suffix(".ko.debug"))
            {
                found.insert(module_name(stem), path);
            }
        }
    }
    Ok(found)
}
