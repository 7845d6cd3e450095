//! Small programs, compiled here as the kernel compiles itself, with lines known in advance.

use std::{collections::BTreeSet, fs, process::Command};

use super::*;

/// What is compiled; its lines are counted below.
const HEADER: &str = "\
static inline int twice(int x)
{
\tasm volatile(\"\" : : : \"memory\");
\treturn x * 2;
}
";
const SOURCE: &str = "\
#include \"include/twice.h\"
int counter;
__attribute__((section(\".init.text\"))) int begin(int x)
{
\tcounter = 7;
\treturn x + 1;
}
static int helper(int x)
{
\treturn x + counter;
}
int outer(int x)
{
\tif (x > 3)
\t\treturn -22;
\tcounter = twice(x);
\treturn helper(counter);
}
int unused_here(int);
";
/// A unit that says where the tree's root is.
const MAIN: &str = "int main_of_init(void)\n{\n\treturn 0;\n}\n";

/// A tree with these files.
fn tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("temporary directory");
    for (name, text) in [
        ("include/twice.h", HEADER),
        ("drivers/scsi/thing.c", SOURCE),
        ("init/main.c", MAIN),
        ("scripts/module-common.c", MAIN),
    ] {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("directory");
        fs::write(path, text).expect("write");
    }
    dir
}

fn cc(tree: &Path, args: &[&str]) {
    let mut command = Command::new("cc");
    command.args(["-O2", "-fno-pic", "-fno-pie", "-mcmodel=kernel", "-nostdlib", "-I."]).args(args);
    let output = command.current_dir(tree).output().expect("cc runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A module, that is a relocatable file, of the thing.
fn module(tree: &Path, options: &[&str]) -> PathBuf {
    let modules = tree.join("modules/kernel/drivers/scsi");
    fs::create_dir_all(&modules).expect("directory");
    let out = modules.join("thing-mod.ko");
    let name = out.to_str().expect("UTF-8");
    cc(tree, &[options, &["-r", "-o", name, "drivers/scsi/thing.c"]].concat());
    out
}

/// A kernel, that is an executable linked for a high address.
fn vmlinux(tree: &Path, options: &[&str]) -> PathBuf {
    let link = ["-static", "-no-pie", "-Wl,-Ttext=0xffffffff81000000", "-Wl,-e,main_of_init", "-o"];
    let files = ["vmlinux", "init/main.c", "drivers/scsi/thing.c"];
    cc(tree, &[options, &link[..], &files[..]].concat());
    tree.join("vmlinux")
}

/// The forms in which kernels come: DWARF versions, plain and compressed sections.
const FORMS: &[&[&str]] = &[&["-gdwarf-5"], &["-gdwarf-4"], &["-gdwarf-5", "-gz=zlib"]];

fn functions(frames: &[Frame]) -> Vec<(&str, &str)> {
    let known = frames.iter().map(|frame| (frame.function.as_deref(), frame.file.as_deref()));
    known.map(|(function, file)| (function.expect("a name"), file.expect("a file"))).collect()
}

/// The addresses of each line lead back to the file, if only through what was inlined there.
fn assert_round_trip(object: &Object, file: &SourceFile) {
    for (line, ranges) in &file.lines {
        for range in ranges {
            let frames = object.frames(range.start).expect("DWARF");
            let is_of_file = |frame: &Frame| frame.file.as_deref() == Some(file.path.as_str());
            assert!(frames.iter().any(is_of_file), "{line}: {frames:?}");
        }
    }
}

fn assert_thing(object: &Object) {
    let file = object.source_file("drivers/scsi/thing.c").expect("DWARF").expect("in there");
    let lines: BTreeSet<u32> = file.lines.keys().copied().collect();
    for line in [5, 6, 10, 14, 16, 17] {
        assert!(lines.contains(&line), "line {line} has code: {lines:?}");
    }
    for line in [1, 2, 11, 19] {
        assert!(!lines.contains(&line), "line {line} has none: {lines:?}");
    }
    let names: Vec<_> =
        file.functions.iter().map(|f| (f.name.as_str(), f.line, f.is_only_inlined)).collect();
    assert_eq!(names, [("begin", 3, false), ("helper", 8, true), ("outer", 12, false)]);
    assert_round_trip(object, &file);

    assert_eq!(file.functions[0].entries, [object.symbols("begin")[0].address]);
    let entered = object.frames(file.functions[1].entries[0]).expect("DWARF");
    assert!(functions(&entered).contains(&("helper", "drivers/scsi/thing.c")), "{entered:?}");

    let inlined = &file.functions[1].ranges[0];
    let frames = object.frames(inlined.start).expect("DWARF");
    let (thing, header) = ("drivers/scsi/thing.c", "include/twice.h");
    assert_eq!(functions(&frames), [("helper", thing), ("outer", thing)]);
    assert_eq!(frames[1].line, Some(17));

    let included = object.source_file(header).expect("DWARF").expect("in there");
    assert_eq!(included.functions[0].name, "twice");
    assert!(included.lines.contains_key(&4), "{:?}", included.lines);
    assert_round_trip(object, &included);
    assert_eq!(object.source_file("drivers/scsi/other.c").expect("DWARF"), None);
}

#[test]
fn kernel_and_module_say_which_line_an_address_is() {
    for form in FORMS {
        let tree = tree();
        let files = DebugFiles {
            vmlinux: vmlinux(tree.path(), form),
            modules: tree.path().join("modules"),
            source: None,
        };
        module(tree.path(), form);
        let mut info = DebugInfo::new(files);
        assert_thing(info.vmlinux().expect("vmlinux"));
        assert_thing(info.module("thing_mod").expect("module").expect("its file"));
        assert!(info.module("other").expect("no error").is_none());
    }
}

/// Both sections of a module begin at zero in the file.
#[test]
fn sections_of_a_module_are_told_apart() {
    let tree = tree();
    let object = Object::open(&module(tree.path(), &["-g"])).expect("module");
    for (section, function) in [(".text", "outer"), (".init.text", "begin")] {
        let address = object.address(section, 0).expect("the section");
        let frames = object.frames(address).expect("DWARF");
        assert_eq!(frames.last().and_then(|f| f.function.as_deref()), Some(function));
        let symbol = object.symbols(function)[0];
        assert_eq!(symbol.address, address);
        assert_eq!(object.address(section, symbol.len_bytes + 4096), None);
        assert_eq!(object.symbol_plus(function, 2, Some(symbol.len_bytes)), [address + 2]);
        assert!(object.symbol_plus(function, 2, Some(0)).is_empty());
    }
    assert_eq!(object.address(".fixup", 0), None);
}

#[test]
fn file_without_debug_information_is_told_what_to_do() {
    let tree = tree();
    let error = Object::open(&module(tree.path(), &["-g0"])).expect_err("stripped").to_string();
    assert!(error.contains("CONFIG_DEBUG_INFO_DWARF5=y"), "{error}");
    let text = tree.path().join("init/main.c");
    let error = Object::open(&text).expect_err("C").to_string();
    assert!(error.contains("vmlinux or a kernel module"), "{error}");
    let error = Object::open(&tree.path().join("none")).expect_err("absent").to_string();
    assert!(error.contains("cannot read"), "{error}");
}

/// A truncated file is an error, never a panic and never half an answer.
#[test]
fn truncated_files_are_errors() {
    let tree = tree();
    let whole = fs::read(module(tree.path(), &["-g"])).expect("module");
    let cut = tree.path().join("cut.ko");
    for len in (0..whole.len()).step_by(97) {
        fs::write(&cut, &whole[..len]).expect("write");
        Object::open(&cut).expect_err("a truncated file");
    }
}
