//! The other way round: from a source file to its lines, functions and their addresses.

use std::{collections::BTreeMap, ops::Range};

use gimli::{
    AttributeValue, DebuggingInformationEntry, Dwarf, Reader as _, Unit, UnitOffset, constants,
};

use super::{
    elf::Reader,
    object,
    paths::{Roots, join},
};

/// What the compiler made of one source file in one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceFile {
    /// Relative to the kernel's tree.
    pub path: String,
    /// The lines that have code, with the addresses of it. A line that was inlined into several
    /// places has several. A line whose statement begins where another's instruction stands, and
    /// has none of its own, shares that instruction.
    pub lines: BTreeMap<u32, Vec<Range<u64>>>,
    /// The functions that have code, in the order of the file.
    pub functions: Vec<Function>,
}

/// A function that has code: of its own, or where it was inlined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Name.
    pub name: String,
    /// The line that declares it.
    pub line: u32,
    /// All its code, split-off and inlined parts included. The compiler shares instructions between
    /// copies, so one of these may be executed and the function not.
    pub ranges: Vec<Range<u64>>,
    /// Where it is entered: its own entry, and that of each inlined copy.
    pub entries: Vec<u64>,
    /// Whether it has code only where it was inlined.
    pub is_only_inlined: bool,
}

type Entry = DebuggingInformationEntry<Reader>;
type Result<T> = std::result::Result<T, gimli::Error>;

/// The file called `path`, from all units that were compiled from it or, if it is a header, include
/// it.
pub(super) fn read(dwarf: &Dwarf<Reader>, roots: &Roots, path: &str) -> Result<Option<SourceFile>> {
    let mut collected = Collected::default();
    // A unit is named after the file it was compiled from; that is cheaper to see than all it
    // includes.
    for is_by_name in [true, false] {
        let mut headers = dwarf.units();
        while let Some(header) = headers.next()? {
            let unit = dwarf.unit(header)?;
            let (name, comp_dir) = object::names(&unit)?;
            if is_by_name && roots.relative(&comp_dir, &name) != path {
                continue;
            }
            let files = indices(dwarf, &unit, roots, &comp_dir, path)?;
            if !files.is_empty() {
                collected.add_lines(&unit, &files)?;
                collected.add_functions(dwarf, &unit, &files)?;
            }
        }
        if !collected.lines.is_empty() {
            break;
        }
    }
    Ok((!collected.lines.is_empty()).then(|| collected.finish(path)))
}

/// The numbers that a unit's line table has for `path`.
fn indices(
    dwarf: &Dwarf<Reader>,
    unit: &Unit<Reader>,
    roots: &Roots,
    comp_dir: &str,
    path: &str,
) -> Result<Vec<u64>> {
    let Some(program) = &unit.line_program else { return Ok(Vec::new()) };
    let header = program.header();
    let text = |value: AttributeValue<Reader>| -> Result<String> {
        Ok(dwarf.attr_string(unit, value)?.to_string_lossy()?.into_owned())
    };
    // Files are counted from zero since DWARF 5, from one before.
    let first = u64::from(header.version() < 5);
    let mut found = Vec::new();
    for (index, file) in (first..).zip(header.file_names()) {
        let mut name = text(file.path_name())?;
        if !path.ends_with(name.rsplit('/').next().unwrap_or(&name)) {
            continue;
        }
        if let Some(dir) = file.directory(header) {
            name = join(&text(dir)?, &name);
        }
        if roots.relative(comp_dir, &name) == path {
            found.push(index);
        }
    }
    Ok(found)
}

/// What was found so far.
#[derive(Default)]
struct Collected {
    lines: BTreeMap<u32, Vec<Range<u64>>>,
    /// Instructions that a line without any of its own begins at.
    shared: BTreeMap<u32, Vec<Range<u64>>>,
    /// By line and name: one function is in many units if a header has it.
    functions: BTreeMap<(u32, String), Function>,
}

impl Collected {
    fn add_lines(&mut self, unit: &Unit<Reader>, files: &[u64]) -> Result<()> {
        let Some(program) = unit.line_program.clone() else { return Ok(()) };
        let mut rows = program.rows();
        // The rows of one address, of which the last has the instruction.
        let mut here: Vec<(u64, u32)> = Vec::new();
        let mut address = 0;
        while let Some((_, row)) = rows.next_row()? {
            if row.address() != address || row.end_sequence() {
                self.add_rows(&here, address..row.address(), files);
                here.clear();
                address = row.address();
            }
            if !row.end_sequence() {
                let line = row.line().map_or(0, |line| u32::try_from(line.get()).unwrap_or(0));
                here.push((row.file_index(), line));
            }
        }
        Ok(())
    }

    fn add_rows(&mut self, rows: &[(u64, u32)], range: Range<u64>, files: &[u64]) {
        for (place, (file, line)) in rows.iter().enumerate() {
            // Line zero is code that belongs to no line.
            if *line == 0 || !files.contains(file) || range.is_empty() {
                continue;
            }
            let is_last = place + 1 == rows.len();
            let lines = if is_last { &mut self.lines } else { &mut self.shared };
            lines.entry(*line).or_default().push(range.clone());
        }
    }

    fn add_functions(
        &mut self,
        dwarf: &Dwarf<Reader>,
        unit: &Unit<Reader>,
        files: &[u64],
    ) -> Result<()> {
        let mut entries = unit.entries();
        while let Some(entry) = entries.next_dfs()? {
            let is_inlined = entry.tag() == constants::DW_TAG_inlined_subroutine;
            if !is_inlined && entry.tag() != constants::DW_TAG_subprogram {
                continue;
            }
            let ranges = ranges(dwarf, unit, entry)?;
            if ranges.is_empty() {
                continue;
            }
            let declared = declaration(dwarf, unit, entry)?;
            let Declaration { name: Some(name), file: Some(file), line: Some(line) } = declared
            else {
                continue;
            };
            if !files.contains(&file) {
                continue;
            }
            let function = self.functions.entry((line, name.clone())).or_insert_with(|| Function {
                name,
                line,
                ranges: Vec::new(),
                entries: Vec::new(),
                is_only_inlined: true,
            });
            function.entries.extend(entry_address(dwarf, unit, entry, &ranges)?);
            function.ranges.extend(ranges);
            function.is_only_inlined &= is_inlined;
        }
        Ok(())
    }

    fn finish(mut self, path: &str) -> SourceFile {
        for (line, ranges) in self.shared {
            self.lines.entry(line).or_insert(ranges);
        }
        let functions = self.functions.into_values().collect();
        SourceFile { path: path.to_owned(), lines: self.lines, functions }
    }
}

/// The addresses of a function or of one inlined copy.
fn ranges(dwarf: &Dwarf<Reader>, unit: &Unit<Reader>, entry: &Entry) -> Result<Vec<Range<u64>>> {
    let mut found = dwarf.die_ranges(unit, entry)?;
    let mut ranges = Vec::new();
    while let Some(range) = found.next()? {
        if range.begin < range.end {
            ranges.push(range.begin..range.end);
        }
    }
    Ok(ranges)
}

/// Where a function or an inlined copy is entered (DWARF 5, 2.18): said outright, or counted from its
/// lowest place, or there.
fn entry_address(
    dwarf: &Dwarf<Reader>,
    unit: &Unit<Reader>,
    entry: &Entry,
    ranges: &[Range<u64>],
) -> Result<Option<u64>> {
    let address = |name| match entry.attr_value(name) {
        Some(value) => dwarf.attr_address(unit, value),
        None => Ok(None),
    };
    let low = address(constants::DW_AT_low_pc)?.or(ranges.first().map(|range| range.start));
    if let Some(said) = address(constants::DW_AT_entry_pc)? {
        return Ok(Some(said));
    }
    let offset = entry.attr(constants::DW_AT_entry_pc).and_then(gimli::Attribute::udata_value);
    Ok(low.map(|low| low.wrapping_add(offset.unwrap_or(0))))
}

/// What a function is called and where it stands.
#[derive(Default)]
struct Declaration {
    name: Option<String>,
    file: Option<u64>,
    line: Option<u32>,
}

/// How many entries a copy is away from what it is a copy of: clone, abstract instance, declaration.
const MAX_HOPS: usize = 4;

/// Follows a copy to its origin. Without link-time optimization, which the kernel's usual build has
/// not, that is in the same unit.
fn declaration(dwarf: &Dwarf<Reader>, unit: &Unit<Reader>, entry: &Entry) -> Result<Declaration> {
    let mut declared = Declaration::default();
    let mut next: Option<UnitOffset<usize>> = None;
    for _ in 0..MAX_HOPS {
        let origin = next.map(|offset| unit.entry(offset)).transpose()?;
        let entry = origin.as_ref().unwrap_or(entry);
        if declared.name.is_none()
            && let Some(value) = entry.attr_value(constants::DW_AT_name)
        {
            declared.name = Some(dwarf.attr_string(unit, value)?.to_string_lossy()?.into_owned());
        }
        let number = |name| entry.attr(name).and_then(gimli::Attribute::udata_value);
        declared.file =
            declared.file.or_else(|| match entry.attr_value(constants::DW_AT_decl_file) {
                Some(AttributeValue::FileIndex(file)) => Some(file),
                _ => number(constants::DW_AT_decl_file),
            });
        let line = number(constants::DW_AT_decl_line).and_then(|line| u32::try_from(line).ok());
        declared.line = declared.line.or(line);
        let origin = [constants::DW_AT_abstract_origin, constants::DW_AT_specification]
            .into_iter()
            .find_map(|name| entry.attr_value(name));
        match origin {
            Some(AttributeValue::UnitRef(offset)) => next = Some(offset),
            _ => break,
        }
    }
    Ok(declared)
}
