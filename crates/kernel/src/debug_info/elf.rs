//! The ELF side: sections with a place each, symbols, and DWARF with its relocations applied.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use gimli::{EndianArcSlice, LittleEndian, SectionId};
use object::{
    Object as _, ObjectKind, ObjectSection, ObjectSymbol, RelocationKind, RelocationTarget,
    SectionFlags, SymbolKind, elf::SHF_ALLOC, read::ReadCache,
};

use super::Error;

/// How DWARF is read. It owns its bytes, so that an object is a value like any other.
pub(super) type Reader = EndianArcSlice<LittleEndian>;

/// A section that is in memory when the kernel or module is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Name, for example `.text`.
    pub name: String,
    /// Where it starts, as an address of the object.
    pub address: u64,
    /// Length in bytes.
    pub len_bytes: u64,
}

/// A place with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// An address of the object.
    pub address: u64,
    /// Length in bytes; zero if the assembler was not told.
    pub len_bytes: u64,
}

/// What is in an ELF file.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) sections: Vec<Section>,
    /// Code and data by name; static functions of different files may share one.
    pub(super) symbols: BTreeMap<String, Vec<Symbol>>,
}

/// Sections of a module are placed this far apart, none at zero, which DWARF takes for "removed by
/// the linker". No section is longer.
const STRIDE: u64 = 1 << 32;

type File<'a> = object::File<'a, &'a ReadCache<fs::File>>;

/// Reads a `vmlinux` or a module.
pub(super) fn read(path: &Path) -> Result<(Contents, gimli::Dwarf<Reader>), Error> {
    let file =
        fs::File::open(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let cache = ReadCache::new(file);
    let elf = |detail: String| Error::Elf { path: path.to_owned(), detail };
    let file = File::parse(&cache).map_err(|error| elf(error.to_string()))?;
    if !file.is_little_endian() {
        return Err(elf("a big-endian ELF file".to_owned()));
    }
    let is_relocatable = match file.kind() {
        ObjectKind::Relocatable => true,
        ObjectKind::Executable | ObjectKind::Dynamic => false,
        kind => return Err(elf(format!("an ELF file of kind {kind:?}"))),
    };
    let places = places(&file, is_relocatable).map_err(elf)?;
    let load = |id: SectionId| -> Result<Reader, String> {
        let bytes = match file.section_by_name(id.name()) {
            Some(section) if is_used(id) => debug_section(&file, &section, &places)?,
            _ => Arc::default(),
        };
        Ok(EndianArcSlice::new(bytes, LittleEndian))
    };
    let dwarf = gimli::Dwarf::load(load).map_err(elf)?;
    let has_units = dwarf.units().next().is_ok_and(|unit| unit.is_some());
    if !has_units {
        return Err(Error::NoDebugInfo { path: path.to_owned() });
    }
    let sections = places.values().cloned().collect();
    Ok((Contents { sections, symbols: symbols(&file, &places, is_relocatable) }, dwarf))
}

/// What the linker made of a build's content (`--build-id`), to tell whether two files are of one
/// build; `None` if it was not asked to. A file that is no ELF file, as a bzImage, has none.
pub fn build_id(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let read = |source| Error::Read { path: path.to_owned(), source };
    let cache = ReadCache::new(fs::File::open(path).map_err(read)?);
    let Ok(file) = File::parse(&cache) else { return Ok(None) };
    let id = file
        .build_id()
        .map_err(|error| Error::Elf { path: path.to_owned(), detail: error.to_string() })?;
    Ok(id.map(<[u8]>::to_vec))
}

/// Where variables live takes a fifth of a `vmlinux` and is not asked for here.
fn is_used(id: SectionId) -> bool {
    !matches!(id, SectionId::DebugLoc | SectionId::DebugLocLists)
}

/// The sections in memory by their index, each with its place.
fn places(file: &File<'_>, is_relocatable: bool) -> Result<BTreeMap<usize, Section>, String> {
    let mut places = BTreeMap::new();
    for section in file.sections() {
        let is_in_memory = match section.flags() {
            SectionFlags::Elf { sh_flags, .. } => sh_flags.contains(SHF_ALLOC),
            _ => false,
        };
        if !is_in_memory {
            continue;
        }
        let index = section.index().0;
        let address = match is_relocatable {
            true => STRIDE * (u64::try_from(index).expect("a section number")),
            false => section.address(),
        };
        let name = section.name().map_err(|error| error.to_string())?.to_owned();
        if section.size() >= STRIDE {
            return Err(format!("section {name} has {} bytes", section.size()));
        }
        places.insert(index, Section { name, address, len_bytes: section.size() });
    }
    Ok(places)
}

fn symbols(
    file: &File<'_>,
    places: &BTreeMap<usize, Section>,
    is_relocatable: bool,
) -> BTreeMap<String, Vec<Symbol>> {
    let mut symbols: BTreeMap<String, Vec<Symbol>> = BTreeMap::new();
    for symbol in file.symbols() {
        let is_place = matches!(
            symbol.kind(),
            SymbolKind::Text | SymbolKind::Data | SymbolKind::Label | SymbolKind::Unknown
        );
        let Some(section) = symbol.section_index().and_then(|index| places.get(&index.0)) else {
            continue;
        };
        // A name that is not UTF-8 is none an Oops could print.
        let Ok(name) = symbol.name() else { continue };
        if is_place && !name.is_empty() {
            let base = if is_relocatable { section.address } else { 0 };
            let symbol = Symbol { address: base + symbol.address(), len_bytes: symbol.size() };
            symbols.entry(name.to_owned()).or_default().push(symbol);
        }
    }
    symbols
}

/// The bytes of a section of DWARF, decompressed, and relocated if it is of a module.
fn debug_section<'a>(
    file: &File<'a>,
    section: &object::Section<'a, '_, &'a ReadCache<fs::File>>,
    places: &BTreeMap<usize, Section>,
) -> Result<Arc<[u8]>, String> {
    let data = section.uncompressed_data().map_err(|error| error.to_string())?;
    if file.kind() != ObjectKind::Relocatable {
        return Ok(data.into());
    }
    let mut data = data.into_owned();
    for (offset, relocation) in section.relocations() {
        // R_X86_64_32 and R_X86_64_64 of the psABI; no other makes sense in what is not loaded.
        if relocation.kind() != RelocationKind::Absolute {
            return Err(format!("a relocation in {:?} is not absolute", section.name()));
        }
        let RelocationTarget::Symbol(index) = relocation.target() else {
            return Err(format!("a relocation in {:?} has no symbol", section.name()));
        };
        let symbol = file.symbol_by_index(index).map_err(|error| error.to_string())?;
        let place = symbol.section_index().and_then(|index| places.get(&index.0));
        // A section that is not in memory, as those of DWARF, begins at zero.
        let base = place.map_or(0, |section| section.address);
        let value = base.wrapping_add(symbol.address()).wrapping_add_signed(relocation.addend());
        let len = usize::from(relocation.size() / 8);
        let field = usize::try_from(offset).ok().and_then(|at| data.get_mut(at..at + len));
        let field =
            field.ok_or_else(|| format!("{:?} ends before a relocation", section.name()))?;
        field.copy_from_slice(&value.to_le_bytes()[..len]);
    }
    Ok(data.into())
}
