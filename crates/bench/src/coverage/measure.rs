//! Recorders and debug information put together.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
};

use guest_protocol::message::ModuleCode;
use kernel::debug_info::{DebugInfo, Object};

use super::{Error, Recorder, recorder::Epoch};

/// What a run reached of one source file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileCoverage {
    /// Relative to the kernel's tree.
    pub path: String,
    /// Every line with code, and who reached it first.
    pub lines: BTreeMap<u32, Option<String>>,
    /// Every function with code, in the order of the file.
    pub functions: Vec<FunctionCoverage>,
}

/// A function, and whether it was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionCoverage {
    /// Name.
    pub name: String,
    /// The line that declares it.
    pub line: u32,
    /// Who reached it first.
    pub first: Option<String>,
}

/// What of `files` the machines reached, a result for each file.
pub fn measure(
    machines: &[Arc<Recorder>],
    debug: &mut DebugInfo,
    files: &[String],
    kernel: &str,
) -> Result<Vec<FileCoverage>, Error> {
    let objects = objects(machines);
    let mut tally = Tally::new(files);
    for object in &objects {
        if let Some(object_info) = open(debug, object)? {
            tally.add(object, object_info)?;
        }
    }
    if let Some(file) = tally.files.iter().find(|file| file.lines.is_empty()) {
        return Err(Error::NoSuchFile { kernel: kernel.to_owned(), file: file.path.clone() });
    }
    for machine in machines {
        let log = |source| Error::Log { path: machine.path().to_owned(), source };
        let places = Places::new(machine.epochs(), debug)?;
        let blocks = machine.blocks().map_err(log)?;
        if blocks.is_empty() && machine.has_tested() {
            return Err(Error::Silent { path: machine.path().to_owned() });
        }
        for (number, block) in blocks {
            for (object, range) in places.resolve(number, block.range()) {
                tally.reach(object, &range, || machine.owner(number));
            }
        }
    }
    Ok(tally.files)
}

/// The kernel itself, which is not a module.
const VMLINUX: &str = "";

/// The kernel and every module that was loaded at some time.
fn objects(machines: &[Arc<Recorder>]) -> BTreeSet<String> {
    let epochs = machines.iter().flat_map(|machine| machine.epochs());
    let modules = epochs.flat_map(|epoch| epoch.modules).map(|module| module.name);
    modules.chain([VMLINUX.to_owned()]).collect()
}

/// The debug information of an object, if there is any. A module that came from elsewhere, or has
/// none, has no line to count.
fn open<'a>(debug: &'a mut DebugInfo, object: &str) -> Result<Option<&'a Object>, Error> {
    if object == VMLINUX { Ok(Some(debug.vmlinux()?)) } else { Ok(debug.module(object)?) }
}

/// Which line or function.
#[derive(Clone, Copy, Debug)]
enum Item {
    Line(u32),
    /// By its place among the file's functions.
    Function(usize),
}

/// Code of an item.
#[derive(Clone, Debug)]
struct Code {
    range: Range<u64>,
    file: usize,
    item: Item,
}

/// What was counted so far.
#[derive(Debug)]
struct Tally {
    files: Vec<FileCoverage>,
    /// By object, in the order of the addresses.
    code: BTreeMap<String, Vec<Code>>,
    /// The longest range of an object.
    longest: BTreeMap<String, u64>,
}

impl Tally {
    fn new(files: &[String]) -> Tally {
        let empty = |path: &String| FileCoverage {
            path: path.clone(),
            lines: BTreeMap::new(),
            functions: Vec::new(),
        };
        Tally {
            files: files.iter().map(empty).collect(),
            code: BTreeMap::new(),
            longest: BTreeMap::new(),
        }
    }

    /// Takes what `object` has of the files.
    fn add(&mut self, name: &str, object: &Object) -> Result<(), Error> {
        let mut code = Vec::new();
        for (file, coverage) in self.files.iter_mut().enumerate() {
            let Some(source) = object.source_file(&coverage.path)? else { continue };
            for (line, ranges) in source.lines {
                coverage.lines.insert(line, None);
                let item = Item::Line(line);
                code.extend(ranges.into_iter().map(|range| Code { range, file, item }));
            }
            for function in source.functions {
                let known = coverage
                    .functions
                    .iter()
                    .position(|known| known.name == function.name && known.line == function.line);
                let at = known.unwrap_or_else(|| {
                    let (name, line) = (function.name, function.line);
                    coverage.functions.push(FunctionCoverage { name, line, first: None });
                    coverage.functions.len() - 1
                });
                let item = Item::Function(at);
                let entries = function.entries.into_iter().map(|entry| entry..entry + 1);
                code.extend(entries.map(|range| Code { range, file, item }));
            }
        }
        code.sort_by_key(|code| code.range.start);
        let longest = code.iter().map(|code| code.range.end - code.range.start).max();
        self.longest.insert(name.to_owned(), longest.unwrap_or(0));
        self.code.insert(name.to_owned(), code);
        Ok(())
    }

    /// Something at these addresses of an object was reached.
    fn reach(&mut self, object: &str, reached: &Range<u64>, owner: impl Fn() -> String) {
        let Some(code) = self.code.get(object) else { return };
        let first = reached.start.saturating_sub(self.longest[object]);
        let from = code.partition_point(|code| code.range.start < first);
        let met = code[from..].iter().take_while(|code| code.range.start < reached.end);
        for code in met.filter(|code| code.range.end > reached.start) {
            let file = &mut self.files[code.file];
            let first = match code.item {
                Item::Line(line) => file.lines.get_mut(&line),
                Item::Function(at) => {
                    file.functions.get_mut(at).map(|function| &mut function.first)
                }
            };
            if let Some(first) = first
                && first.is_none()
            {
                *first = Some(owner());
            }
        }
    }
}

/// A section of a module where it was loaded.
#[derive(Clone, Debug)]
struct Placed {
    range: Range<u64>,
    module: String,
    /// Its start as an address of the object.
    address: u64,
}

/// Where the modules of one machine were, at each time.
#[derive(Debug)]
struct Places {
    vmlinux: Vec<Range<u64>>,
    epochs: Vec<(u64, Vec<Placed>)>,
}

impl Places {
    fn new(epochs: Vec<Epoch>, debug: &mut DebugInfo) -> Result<Places, Error> {
        let vmlinux = debug.vmlinux()?.sections().iter();
        let vmlinux = vmlinux.map(|s| s.address..s.address + s.len_bytes).collect();
        let mut placed = Vec::new();
        let mut before = Vec::new();
        for Epoch { end, modules } in epochs {
            placed.push((end, places(&modules, &before, debug)?));
            before = modules;
        }
        Ok(Places { vmlinux, epochs: placed })
    }

    /// What is at these addresses at the time of the block of this number: object, and addresses of
    /// the object.
    fn resolve(&self, number: u64, range: Range<u64>) -> Vec<(&str, Range<u64>)> {
        if self.vmlinux.iter().any(|section| section.contains(&range.start)) {
            return vec![(VMLINUX, range)];
        }
        let last = self.epochs.len().saturating_sub(1);
        let now = self.epochs.iter().position(|(end, _)| number < *end).unwrap_or(last);
        // What was unloaded meanwhile is on the list before.
        let lists = [Some(now), now.checked_sub(1)].into_iter().flatten();
        let lists = lists.filter_map(|at| self.epochs.get(at)).map(|(_, placed)| placed);
        for list in lists {
            let mut claims = list.iter().filter(|placed| placed.range.contains(&range.start));
            match (claims.next(), claims.next()) {
                (Some(placed), None) => {
                    let start = placed.address + (range.start - placed.range.start);
                    return vec![(&placed.module, start..start + (range.end - range.start))];
                }
                (None, _) => {}
                (Some(_), Some(_)) => return Vec::new(),
            }
        }
        Vec::new()
    }
}

/// Where the sections of `modules` are. What a module needs only while it is initialized is gone when
/// the next one is loaded, and that may be put in its place: it counts for a module that is not among
/// those `before`.
fn places(
    modules: &[ModuleCode],
    before: &[ModuleCode],
    debug: &mut DebugInfo,
) -> Result<Vec<Placed>, Error> {
    let mut places = Vec::new();
    for module @ ModuleCode { name, sections } in modules {
        let Some(object) = debug.module(name)? else { continue };
        let is_new = !before.contains(module);
        for (section, start) in sections {
            if section.starts_with(".init") && !is_new {
                continue;
            }
            let Some(section) = object.sections().iter().find(|known| known.name == *section)
            else {
                continue;
            };
            places.push(Placed {
                range: *start..start + section.len_bytes,
                module: name.clone(),
                address: section.address,
            });
        }
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: u64 = 0xffff_ffff_8100_0000;
    const MODULE: u64 = 0xffff_ffff_c000_0000;

    fn placed(start: u64, module: &str, address: u64) -> Placed {
        Placed { range: start..start + 0x100, module: module.to_owned(), address }
    }

    fn at(places: &Places, number: u64, address: u64) -> Option<(&str, u64)> {
        let found = places.resolve(number, address..address + 4);
        found.first().map(|(object, range)| (*object, range.start))
    }

    /// A module is looked for where it was when the block was met.
    #[test]
    fn addresses_are_those_of_the_time() {
        let places = Places {
            vmlinux: vec![KERNEL..KERNEL + 0x1000, KERNEL + 0x2000..KERNEL + 0x3000],
            epochs: vec![
                (10, vec![placed(MODULE, "sg", 0x7000)]),
                (20, vec![placed(MODULE, "sd_mod", 0x9000)]),
                (30, vec![placed(MODULE + 0x1000, "sd_mod", 0x9000)]),
            ],
        };
        assert_eq!(at(&places, 25, KERNEL + 8), Some(("", KERNEL + 8)));
        assert_eq!(at(&places, 9, MODULE + 8), Some(("sg", 0x7008)));
        assert_eq!(at(&places, 10, MODULE + 8), Some(("sd_mod", 0x9008)));
        // Unloaded before the guest looked again.
        assert_eq!(at(&places, 29, MODULE + 8), Some(("sd_mod", 0x9008)));
        // After the last word nothing has moved.
        assert_eq!(at(&places, 99, MODULE + 0x1008), Some(("sd_mod", 0x9008)));
        assert_eq!(at(&places, 5, MODULE + 0x1008), None);
    }

    #[test]
    fn what_two_modules_claim_counts_for_neither() {
        let both = vec![placed(MODULE, "a", 0x1000), placed(MODULE + 0x80, "b", 0x2000)];
        let places = Places { vmlinux: Vec::new(), epochs: vec![(10, both)] };
        assert_eq!(at(&places, 1, MODULE + 0x10), Some(("a", 0x1010)));
        assert_eq!(at(&places, 1, MODULE + 0x90), None);
        assert_eq!(at(&places, 1, MODULE + 0x110), Some(("b", 0x2090)));
    }

    #[test]
    fn lines_and_functions_belong_to_whoever_met_an_instruction_of_theirs_first() {
        let mut tally = Tally::new(&["a.c".to_owned()]);
        tally.files[0].lines.extend([(1, None), (2, None), (3, None)]);
        let function = FunctionCoverage { name: "f".to_owned(), line: 1, first: None };
        tally.files[0].functions.push(function);
        let code = |start, end, item| Code { range: start..end, file: 0, item };
        let code = vec![
            code(0x100, 0x130, Item::Function(0)),
            code(0x100, 0x110, Item::Line(1)),
            code(0x110, 0x120, Item::Line(2)),
            code(0x120, 0x130, Item::Line(3)),
        ];
        tally.longest.insert("m".to_owned(), 0x30);
        tally.code.insert("m".to_owned(), code);
        let reach = |tally: &mut Tally, range: Range<u64>, who: &str| {
            tally.reach("m", &range, || who.to_owned());
        };
        reach(&mut tally, 0x90..0x100, "before");
        reach(&mut tally, 0x11c..0x120, "one");
        reach(&mut tally, 0x10c..0x114, "two");
        reach(&mut tally, 0x130..0x140, "behind");
        let first: Vec<_> = tally.files[0].lines.values().map(Option::as_deref).collect();
        assert_eq!(first, [Some("two"), Some("one"), None]);
        assert_eq!(tally.files[0].functions[0].first.as_deref(), Some("one"));
    }
}
