//! One ELF file with DWARF: from a place to functions and lines.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use gimli::{Reader as _, Unit};

use super::{
    Error, SourceFile,
    elf::{self, Reader, Section, Symbol},
    lines,
    paths::Roots,
};

/// A function on the way to an address, and where in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The function's name.
    pub function: Option<String>,
    /// Its source file, relative to the kernel's tree.
    pub file: Option<String>,
    /// Line, counted from one.
    pub line: Option<u32>,
}

/// `vmlinux` or a module, with its debug information.
pub struct Object {
    path: PathBuf,
    contents: elf::Contents,
    dwarf: Arc<gimli::Dwarf<Reader>>,
    context: addr2line::Context<Reader>,
    roots: Roots,
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Object").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Object {
    /// Reads a `vmlinux`, or a module whose units say where the tree's root is.
    pub fn open(path: &Path) -> Result<Object, Error> {
        Object::open_with(path, None)
    }

    /// Reads an object of a kernel whose roots are known.
    pub(super) fn open_with(path: &Path, roots: Option<Roots>) -> Result<Object, Error> {
        let (contents, dwarf) = elf::read(path)?;
        let dwarf = Arc::new(dwarf);
        let damaged =
            |error: gimli::Error| Error::Dwarf { path: path.to_owned(), detail: error.to_string() };
        let roots = match roots {
            Some(roots) => roots,
            None => find_roots(&dwarf).map_err(damaged)?.unwrap_or_default(),
        };
        let context = addr2line::Context::from_arc_dwarf(dwarf.clone()).map_err(damaged)?;
        Ok(Object { path: path.to_owned(), contents, dwarf, context, roots })
    }

    pub(super) fn roots(&self) -> &Roots {
        &self.roots
    }

    /// The file it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is in memory when the object is, with the addresses it has here.
    pub fn sections(&self) -> &[Section] {
        &self.contents.sections
    }

    /// The address of a place in a section, if the section is that long.
    pub fn address(&self, section: &str, offset: u64) -> Option<u64> {
        let section = self.contents.sections.iter().find(|known| known.name == section)?;
        (offset < section.len_bytes).then_some(section.address + offset)
    }

    /// What is called `name`: more than one if files have static functions of the same name.
    pub fn symbols(&self, name: &str) -> &[Symbol] {
        self.contents.symbols.get(name).map_or(&[], Vec::as_slice)
    }

    /// The addresses that `name+offset/len` of a kernel's message can mean, usually one.
    ///
    /// The kernel counts the length up to the next symbol (`kallsyms_lookup_size_offset`), alignment
    /// included, so of several candidates those are taken whose end is nearest below it. In a
    /// backtrace an address is where a call returns to: for the call itself, subtract one before
    /// asking for its frames.
    pub fn symbol_plus(&self, name: &str, offset: u64, len_bytes: Option<u64>) -> Vec<u64> {
        let fits = |symbol: &&Symbol| len_bytes.is_none_or(|len| symbol.len_bytes <= len);
        let candidates: Vec<&Symbol> = self.symbols(name).iter().filter(fits).collect();
        let longest = candidates.iter().map(|symbol| symbol.len_bytes).max();
        candidates
            .into_iter()
            .filter(|symbol| len_bytes.is_none() || Some(symbol.len_bytes) == longest)
            .map(|symbol| symbol.address + offset)
            .collect()
    }

    /// The function an address is in, innermost inlined one first, the one that was called last.
    /// Empty if DWARF knows nothing of it, as of assembler code without lines.
    pub fn frames(&self, address: u64) -> Result<Vec<Frame>, Error> {
        let found = self.context.find_frames(address).skip_all_loads();
        let mut found = found.map_err(|error| self.damaged(error))?;
        let mut frames = Vec::new();
        while let Some(frame) = found.next().map_err(|error| self.damaged(error))? {
            let name = frame.function.as_ref().map(|function| function.raw_name());
            let name = name.transpose().map_err(|error| self.damaged(error))?;
            let location = frame.location.as_ref();
            frames.push(Frame {
                function: name.map(|name| name.into_owned()),
                // addr2line joins it with the unit's directory by itself.
                file: location.and_then(|at| at.file).map(|file| self.roots.relative("", file)),
                line: location.and_then(|at| at.line),
            });
        }
        Ok(frames)
    }

    /// The lines and functions of a source file, named relative to the kernel's tree; `None` if this
    /// object has no code of it.
    pub fn source_file(&self, path: &str) -> Result<Option<SourceFile>, Error> {
        lines::read(&self.dwarf, &self.roots, path).map_err(|error| self.damaged(error))
    }

    fn damaged(&self, error: gimli::Error) -> Error {
        Error::Dwarf { path: self.path.clone(), detail: error.to_string() }
    }
}

/// Where the tree's root is, by the first unit that tells.
fn find_roots(dwarf: &gimli::Dwarf<Reader>) -> Result<Option<Roots>, gimli::Error> {
    let mut headers = dwarf.units();
    while let Some(header) = headers.next()? {
        let unit = dwarf.unit(header)?;
        let (name, comp_dir) = names(&unit)?;
        if let Some(roots) = Roots::of_unit(&name, &comp_dir) {
            return Ok(Some(roots));
        }
    }
    Ok(None)
}

/// The source a unit was compiled from, and the directory its compiler ran in.
pub(super) fn names(unit: &Unit<Reader>) -> Result<(String, String), gimli::Error> {
    let text = |reader: &Option<Reader>| match reader {
        Some(reader) => Ok(reader.to_string_lossy()?.into_owned()),
        None => Ok::<_, gimli::Error>(String::new()),
    };
    Ok((text(&unit.name)?, text(&unit.comp_dir)?))
}
