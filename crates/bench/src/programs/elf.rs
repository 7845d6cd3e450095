//! What ELF programs need besides themselves, as the dynamic linker would find it.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs,
    path::{Path, PathBuf},
};

use object::{
    Endianness, elf,
    elf::FileHeader64,
    read::elf::{ElfFile, ProgramHeader},
};

use super::{Error, resolve};
use host::cache::at;

/// Where packages have libraries.
const LIBRARIES: [&str; 4] = ["usr/lib", "lib", "usr/lib64", "lib64"];

/// What a set of programs needs.
#[derive(Debug, Default)]
pub(super) struct Closure {
    /// By the name the linker looks for.
    pub(super) libraries: BTreeMap<String, PathBuf>,
    /// By the place where the kernel looks for them, without the leading slash.
    pub(super) linkers: BTreeMap<String, PathBuf>,
}

/// Everything that `programs` (name and file) need, from the unpacked packages in `root`. `set` is for
/// messages.
pub(super) fn closure(
    root: &Path,
    set: &str,
    programs: &BTreeMap<&str, PathBuf>,
) -> Result<Closure, Error> {
    let mut available = BTreeMap::new();
    for dir in LIBRARIES {
        collect(&root.join(dir), &mut available)?;
    }
    let mut closure = Closure::default();
    let mut open: Vec<(String, PathBuf)> =
        programs.iter().map(|(name, file)| ((*name).to_owned(), file.clone())).collect();
    while let Some((name, file)) = open.pop() {
        let content = fs::read(&file).map_err(at("read", &file))?;
        let wants = Wants::of(&content).map_err(|detail| Error::NotElf {
            set: set.to_owned(),
            program: name.clone(),
            detail,
        })?;
        let find = |library: &str| {
            let place = available.get(library).and_then(|place| resolve(root, place));
            place.ok_or_else(|| Error::NoLibrary {
                set: set.to_owned(),
                library: library.to_owned(),
                needed_by: name.clone(),
            })
        };
        if let Some(linker) = wants.linker {
            let file_name = linker.rsplit('/').next().unwrap_or(&linker);
            closure.linkers.insert(linker.trim_start_matches('/').to_owned(), find(file_name)?);
        }
        for library in wants.libraries {
            if let Entry::Vacant(place) = closure.libraries.entry(library) {
                let file = find(place.key())?;
                open.push((place.key().clone(), file.clone()));
                place.insert(file);
            }
        }
    }
    Ok(closure)
}

/// Adds the files below `dir` by name. What lies nearer the top counts: further down are variants for
/// some processors, and plugins.
fn collect(dir: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<(), Error> {
    if !dir.is_dir() {
        return Ok(());
    }
    let mut below = Vec::new();
    for entry in fs::read_dir(dir).map_err(at("read", dir))? {
        let entry = entry.map_err(at("read", dir))?;
        let path = entry.path();
        if entry.file_type().map_err(at("look at", &path))?.is_dir() {
            below.push(path);
        } else {
            files.entry(entry.file_name().to_string_lossy().into_owned()).or_insert(path);
        }
    }
    below.iter().try_for_each(|dir| collect(dir, files))
}

/// What one file asks for.
#[derive(Debug, PartialEq, Eq)]
struct Wants {
    linker: Option<String>,
    libraries: Vec<String>,
}

impl Wants {
    fn of(content: &[u8]) -> Result<Wants, String> {
        let words = |error: object::read::Error| error.to_string();
        let file = ElfFile::<FileHeader64<Endianness>>::parse(content).map_err(words)?;
        let endian = file.endian();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut linker = None;
        for header in file.elf_program_headers() {
            linker = linker.or(header.interpreter(endian, content).map_err(words)?.map(text));
        }
        let table = file.elf_dynamic_table().map_err(words)?;
        let needed = table.iter().filter(|entry| entry.tag == elf::DT_NEEDED);
        let libraries = needed.map(|entry| table.string(entry).map(text));
        Ok(Wants { linker, libraries: libraries.collect::<Result<_, _>>().map_err(words)? })
    }
}
