//! Coverage of a program compiled here, from logs written here: who reached what is known in advance.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    process::Command,
};

use coverage_log::Block;
use guest_protocol::message::ModuleCode;
use kernel::debug_info::{DebugFiles, DebugInfo};

use super::*;

/// Built into the kernel.
const MAIN: &str = "\
int reached(int x)
{
\tif (x > 3)
\t\treturn -22;
\treturn x + 1;
}
int never(int x)
{
\treturn x * 3;
}
";
/// Of a file of its own.
const ALONE: &str = "int alone(int x)\n{\n\treturn x * 5;\n}\n";
/// A module.
const THING: &str = "int of_thing(int x)\n{\n\treturn x * 7;\n}\n";
/// Where the module is loaded.
const PLACE: u64 = 0xffff_ffff_c000_0000;

/// A tree with a kernel and a module, and the recorder of one machine.
struct Bench {
    dir: tempfile::TempDir,
    coverage: Coverage,
    machine: Arc<Recorder>,
    count: u64,
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir().expect("temporary directory");
        for (name, text) in
            [("init/main.c", MAIN), ("block/alone.c", ALONE), ("drivers/thing.c", THING)]
        {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("a directory")).expect("directory");
            fs::write(path, text).expect("write");
        }
        fs::create_dir(dir.path().join("modules")).expect("directory");
        let kernel = ["-static", "-no-pie", "-Wl,-Ttext=0xffffffff81000000", "-Wl,-e,reached"];
        let kernel = [&kernel[..], &["-o", "vmlinux", "init/main.c", "block/alone.c"]].concat();
        for args in [&kernel[..], &["-r", "-o", "modules/thing.ko", "drivers/thing.c"]] {
            let mut cc = Command::new("cc");
            cc.args(["-O2", "-g", "-fno-pic", "-fno-pie", "-mcmodel=kernel", "-nostdlib"]);
            let output = cc.args(args).current_dir(dir.path()).output().expect("cc runs");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        let coverage = Coverage::new(PathBuf::from("plugin.so"));
        let machine = coverage.machine(&dir.path().join("machine")).expect("a recorder");
        Bench { dir, coverage, machine, count: 0 }
    }

    fn files(&self) -> DebugFiles {
        let dir = self.dir.path();
        let (vmlinux, modules) = (dir.join("vmlinux"), dir.join("modules"));
        DebugFiles { vmlinux, modules, source: Some(dir.to_owned()) }
    }

    fn log(&self) -> File {
        File::options().write(true).open(self.machine.path()).expect("the log")
    }

    /// Writes a word of the log, as QEMU's plugin does.
    fn write(&self, word: u64, value: u64) {
        self.log().write_all_at(&value.to_le_bytes(), 8 * word).expect("write");
    }

    /// The code at this address is met.
    fn meets(&mut self, address: u64) {
        let word = Block { address, len_bytes: 1 }.to_word().expect("of the kernel");
        self.count += 1;
        self.write(1 + self.count, word);
        self.write(1, self.count);
    }

    /// The function of the kernel is entered.
    fn enters(&mut self, function: &str) {
        let mut debug = DebugInfo::new(self.files());
        let symbol = debug.vmlinux().expect("vmlinux").symbols(function)[0];
        self.meets(symbol.address);
    }

    fn measure(&self, files: &[&str]) -> Result<Vec<FileCoverage>, Error> {
        let files: Vec<String> = files.iter().map(ToString::to_string).collect();
        let mut debug = DebugInfo::new(self.files());
        measure(&self.coverage.machines(), &mut debug, &files, "k")
    }

    fn report(&self, files: &[&str], lcov: Option<PathBuf>) -> Result<Report, Error> {
        let files = files.iter().map(ToString::to_string).collect();
        Report::of(
            &self.coverage,
            &Wish { files, lcov },
            &Unreachable::default(),
            self.files(),
            "k",
        )
    }
}

/// Functions and who reached each first.
fn functions(file: &FileCoverage) -> Vec<(&str, Option<&str>)> {
    file.functions.iter().map(|f| (f.name.as_str(), f.first.as_deref())).collect()
}

fn first(file: &FileCoverage, line: u32) -> Option<&str> {
    file.lines[&line].as_deref()
}

#[test]
fn function_belongs_to_the_first_test_that_entered_it_and_to_no_other() {
    let mut bench = Bench::new();
    bench.machine.belongs_to(BOOT);
    bench.meets(0xffff_ffff_8200_0000);
    bench.machine.belongs_to("t1");
    bench.enters("reached");
    bench.machine.belongs_to("t2");
    bench.enters("reached");
    bench.machine.belongs_to("t3");
    let files = bench.measure(&["init/main.c"]).expect("measured");
    assert_eq!(functions(&files[0]), [("reached", Some("t2")), ("never", None)]);
    assert_eq!(first(&files[0], 9), None);
}

#[test]
fn what_is_reached_before_and_after_the_tests_is_no_tests() {
    let mut bench = Bench::new();
    bench.enters("reached");
    bench.machine.belongs_to(BOOT);
    bench.enters("reached");
    bench.machine.belongs_to("t1");
    bench.enters("never");
    let files = bench.measure(&["init/main.c"]).expect("measured");
    assert_eq!(functions(&files[0]), [("reached", Some("(boot)")), ("never", Some("(power-off)"))]);
}

#[test]
fn machine_booted_earlier_is_first() {
    let mut bench = Bench::new();
    bench.enters("reached");
    bench.machine.belongs_to("t1");
    let second = bench.coverage.machine(&bench.dir.path().join("second")).expect("a recorder");
    (bench.machine, bench.count) = (second, 0);
    bench.enters("reached");
    bench.enters("alone");
    bench.machine.belongs_to("t2");
    let files = bench.measure(&["init/main.c", "block/alone.c"]).expect("measured");
    assert_eq!(functions(&files[0])[0], ("reached", Some("t1")));
    assert_eq!(functions(&files[1]), [("alone", Some("t2"))]);
}

#[test]
fn module_is_measured_where_it_was_loaded() {
    let mut bench = Bench::new();
    bench.meets(PLACE);
    bench.machine.belongs_to("too early to be it");
    let sections = vec![(".text".to_owned(), PLACE + 0x1000)];
    bench.machine.modules(vec![ModuleCode { name: "thing".to_owned(), sections }]);
    bench.meets(PLACE + 0x1000);
    bench.machine.belongs_to("t1");
    let files = bench.measure(&["drivers/thing.c"]).expect("measured");
    assert_eq!(functions(&files[0]), [("of_thing", Some("t1"))]);
}

/// What was never reached is none of so many, and what has no code is an error.
#[test]
fn file_that_was_never_executed_is_nought_and_one_that_is_not_there_an_error() {
    let mut bench = Bench::new();
    bench.enters("reached");
    bench.machine.belongs_to("t1");
    let lcov = bench.dir.path().join("lcov");
    let text = bench.report(&["block/alone.c"], Some(lcov.clone())).expect("measured").text();
    let row = text.lines().nth(1).expect("a row");
    let words: Vec<&str> = row.split_whitespace().collect();
    assert_eq!((words[0], words[1]), ("block/alone.c", "0"), "{text}");
    assert_eq!(words[4..9], ["0.0", "%", "0", "of", "1"], "{text}");
    assert!(text.contains("\n     3 - \treturn x * 5;\n"), "{text}");
    let lcov = fs::read_to_string(lcov).expect("a tracefile");
    assert!(lcov.contains("FNDA:0,alone\n") && lcov.contains("\nDA:3,0\n"), "{lcov}");

    let error = bench.measure(&["init/main.c", "block/none.c"]).expect_err("refused").to_string();
    assert!(error.starts_with("the kernel k has no code of block/none.c; "), "{error}");
}

/// None of these is a run that reached nothing.
#[test]
fn damaged_log_is_an_error() {
    let bench = || {
        let mut bench = Bench::new();
        bench.enters("reached");
        bench.machine.belongs_to("t1");
        bench.measure(&["init/main.c"]).expect("it is whole");
        bench
    };
    let told = |bench: &Bench| {
        let error = bench.report(&["init/main.c"], None).expect_err("refused");
        assert!(matches!(error, Error::Log { .. }), "{error:?}");
        assert!(error.to_string().contains("machine/coverage.log: "), "{error}");
    };
    for len in [0, 15, 23] {
        let bench = bench();
        bench.log().set_len(len).expect("cut");
        told(&bench);
    }
    let bench = bench();
    bench.write(0, 0);
    told(&bench);
}

#[test]
fn machine_that_ran_tests_and_wrote_nothing_is_an_error() {
    let bench = Bench::new();
    bench.machine.belongs_to(BOOT);
    let files = bench.measure(&["init/main.c"]).expect("it did not come up");
    assert_eq!(functions(&files[0]), [("reached", None), ("never", None)]);
    bench.machine.belongs_to("t1");
    let error = bench.measure(&["init/main.c"]).expect_err("refused");
    assert!(matches!(error, Error::Silent { .. }), "{error:?}");
}

#[test]
fn blocks_that_found_no_room_are_told() {
    let mut bench = Bench::new();
    bench.enters("reached");
    bench.machine.belongs_to("t1");
    let text = bench.report(&["init/main.c"], None).expect("measured").text();
    assert!(!text.contains("no room"), "{text}");
    bench.write(1, (4 << 20) + 5);
    let text = bench.report(&["init/main.c"], None).expect("measured").text();
    assert!(text.contains("\n5 blocks found no room in a machine's log: "), "{text}");
}
