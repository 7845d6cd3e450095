//! Sets from an archive of our own, with programs made by the C compiler.

use std::process::Command;

use host::apt::fake;

use super::*;
use crate::image::tests::read_back;

const LINKER: &str = "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2";

/// A program `tool` that needs `libdirect.so.1`, which needs `libdeep.so.2`, which needs nothing.
struct Elves {
    tool: Vec<u8>,
    direct: Vec<u8>,
    deep: Vec<u8>,
}

impl Elves {
    fn new() -> Elves {
        let dir = tempfile::tempdir().expect("temporary directory");
        let make = |out: &str, source: &str, arguments: &[&str]| {
            fs::write(dir.path().join("source.c"), source).expect("write");
            let mut cc = Command::new("cc");
            cc.current_dir(dir.path()).args(["-nostdlib", "-o", out, "source.c"]).args(arguments);
            let output = cc.output().expect("the C compiler runs");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            fs::read(dir.path().join(out)).expect("the output")
        };
        let deep = make("deep", "void deep(void) {}", &["-shared", "-Wl,-soname,libdeep.so.2"]);
        let source = "void deep(void); void direct(void) { deep(); }";
        let direct = make("direct", source, &["-shared", "-Wl,-soname,libdirect.so.1", "deep"]);
        let source = "void direct(void); void _start(void) { direct(); }";
        let link = ["direct", "-Wl,--allow-shlib-undefined"];
        Elves { tool: make("tool", source, &link), direct, deep }
    }
}

struct Fixture {
    _dir: tempfile::TempDir,
    cache: Cache,
    archive: fake::Archive,
    packages: Vec<Pin>,
    elves: Elves,
}

impl Fixture {
    /// An archive with the program in a package `tools`, its libraries in others.
    fn new() -> Fixture {
        let dir = tempfile::tempdir().expect("temporary directory");
        let cache = Cache::at(&dir.path().join("cache")).expect("cache");
        let elves = Elves::new();
        let archive = fake::Archive::new();
        let lib = |name: &str| format!("usr/lib/x86_64-linux-gnu/{name}");
        let tools = [
            ("usr/sbin/tool".to_owned(), elves.tool.clone()),
            ("etc/tool.conf".to_owned(), b"colour = blue".to_vec()),
            ("usr/bin/script".to_owned(), b"#!/bin/sh".to_vec()),
            (LINKER.to_owned(), b"the linker".to_vec()),
        ];
        let deep = [
            (lib("glibc-hwcaps/x86-64-v3/libdeep.so.2"), b"of another processor".to_vec()),
            (lib("libdeep.so.2"), elves.deep.clone()),
        ];
        let direct = [(lib("libdirect.so.1"), elves.direct.clone())];
        let packages = vec![
            archive.package("tools", "1.0-1", &tools),
            archive.package("libdirect1", "1.0-1", &direct),
            archive.package("libdeep2", "1.0-1", &deep),
        ];
        archive.publish("trixie", &packages, fake::Index::Good);
        Fixture { _dir: dir, cache, archive, packages, elves }
    }

    fn manifest(&self, change: impl FnOnce(&mut Set)) -> Manifest {
        let mut set = Set {
            suite: "trixie".into(),
            arch: "amd64".into(),
            programs: vec!["tool".into()],
            files: vec!["etc/tool.conf".into()],
            modules: vec!["ext4".into()],
            selftest: None,
            packages: self.packages.clone(),
        };
        change(&mut set);
        Manifest { sets: BTreeMap::from([("tools".into(), set)]), checkout: PathBuf::new() }
    }

    fn get(&self, manifest: &Manifest) -> Result<Programs, Error> {
        get(&self.cache, manifest, "tools", &self.archive.options(), &Progress::quiet())
    }

    #[track_caller]
    fn fails(&self, change: impl FnOnce(&mut Set)) -> String {
        let text = self.get(&self.manifest(change)).expect_err("it cannot work").to_string();
        let left = fs::read_dir(self.cache.path("tmp")).expect("tmp").count();
        assert_eq!((self.cache.path("programs").exists(), left), (false, 0), "{text}");
        text
    }
}

#[test]
fn a_set_has_programs_libraries_linker_and_files_and_is_fetched_once() {
    let fixture = Fixture::new();
    let manifest = fixture.manifest(|_| {});
    assert_eq!(cached(&fixture.cache, &manifest, "tools").expect("readable"), None);
    let programs = fixture.get(&manifest).expect("a set");
    assert_eq!((programs.modules.clone(), programs.note.clone()), (vec!["ext4".to_owned()], None));
    let entries = read_back(&programs.archive);
    let files: Vec<(&str, u32, &[u8])> = entries
        .iter()
        .map(|(name, (mode, _, content))| (name.as_str(), *mode, content.as_slice()))
        .collect();
    let Elves { tool, direct, deep } = &fixture.elves;
    let expected: [(&str, u32, &[u8]); 8] = [
        ("bin/tool", 0o100_755, tool),
        ("etc", 0o040_755, b""),
        ("etc/tool.conf", 0o100_644, b"colour = blue"),
        ("lib", 0o040_755, b""),
        ("lib/libdeep.so.2", 0o100_755, deep),
        ("lib/libdirect.so.1", 0o100_755, direct),
        ("lib64", 0o040_755, b""),
        ("lib64/ld-linux-x86-64.so.2", 0o100_755, b"the linker"),
    ];
    assert!(files == expected, "{:?}", entries.keys());

    let before = fixture.archive.requests();
    assert_eq!(fixture.get(&manifest).expect("a set"), programs);
    assert_eq!(cached(&fixture.cache, &manifest, "tools").expect("readable"), Some(programs));
    assert_eq!(fixture.archive.requests(), before);
}

#[test]
fn a_library_that_no_package_has_is_named_with_who_needs_it() {
    let fixture = Fixture::new();
    let text = fixture.fails(|set| drop(set.packages.pop()));
    assert!(text.contains("libdirect.so.1 needs libdeep.so.2"), "{text}");
    assert!(text.contains("add the package that has it to images/programs.toml"), "{text}");
}

#[test]
fn what_the_packages_lack_or_cannot_be_executed_is_named() {
    let fixture = Fixture::new();
    let text = fixture.fails(|set| set.programs.push("nonesuch".into()));
    assert!(
        text.contains("no package of the program set `tools` has a program nonesuch"),
        "{text}"
    );
    let text = fixture.fails(|set| set.files.push("etc/nonesuch".into()));
    assert!(text.contains("`tools` has etc/nonesuch"), "{text}");
    let text = fixture.fails(|set| set.programs.push("script".into()));
    assert!(text.contains("script of the program set `tools` cannot be used"), "{text}");
}

#[test]
fn a_set_that_is_not_in_the_manifest_is_told_with_those_that_are() {
    let fixture = Fixture::new();
    let manifest = fixture.manifest(|_| {});
    let (options, quiet) = (fixture.archive.options(), Progress::quiet());
    let text = get(&fixture.cache, &manifest, "toolz", &options, &quiet).expect_err("none");
    assert!(text.to_string().contains("\"toolz\"; images/programs.toml has: tools"), "{text}");
}

/// What took a locked package's place is told on each run, with the lock it would be.
#[test]
fn a_locked_package_that_has_left_the_mirror_is_replaced_and_that_is_told() {
    let mut fixture = Fixture::new();
    let manifest = fixture.manifest(|_| {});
    let newer =
        [("usr/lib/x86_64-linux-gnu/libdirect.so.1".to_owned(), fixture.elves.direct.clone())];
    fixture.packages[1] = fixture.archive.package("libdirect1", "1.1-1", &newer);
    fixture.archive.publish("trixie", &fixture.packages, fake::Index::Good);
    for _ in 0..2 {
        let note = fixture.get(&manifest).expect("a set").note.expect("a note");
        assert!(note.contains("(libdirect1 1.1-1 for 1.0-1)"), "{note}");
        let lock = note.rsplit(' ').next().expect("a path");
        let lock = fs::read_to_string(lock).expect("the lock");
        let lock: BTreeMap<String, Vec<Pin>> = toml::from_str(&lock).expect("as in the manifest");
        assert_eq!(lock["packages"], fixture.packages);
    }
}

#[test]
fn a_mirror_that_does_not_answer_or_has_not_all_is_told_with_the_next_step() {
    let fixture = Fixture::new();
    let manifest = fixture.manifest(|_| {});
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", nobody.local_addr().expect("an address"));
    drop(nobody);
    let options = apt::Options { mirror: Some(url.clone()), ..fixture.archive.options() };
    let text = get(&fixture.cache, &manifest, "tools", &options, &Progress::quiet());
    let text = text.expect_err("nobody answers").to_string();
    assert!(text.contains("the guest's programs `tools` cannot be had"), "{text}");
    assert!(text.contains(&url) && text.contains("--mirror URL"), "{text}");

    fixture.archive.publish("trixie", &fixture.packages[..2], fake::Index::Good);
    let text = fixture.fails(|_| {});
    assert!(text.contains("has no package libdeep2"), "{text}");
}

#[test]
fn a_damaged_entry_of_the_cache_is_told() {
    let fixture = Fixture::new();
    let manifest = fixture.manifest(|_| {});
    let programs = fixture.get(&manifest).expect("a set");
    let dir = programs.archive.parent().expect("a directory");
    fs::write(dir.join(STORED), "{").expect("write");
    let text = fixture.get(&manifest).expect_err("damaged").to_string();
    assert!(
        text.contains("remove that directory") && text.contains(&*dir.to_string_lossy()),
        "{text}"
    );
}

#[test]
fn links_of_the_packages_lead_within_them() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let root = dir.path();
    fs::create_dir_all(root.join("etc/alternatives")).expect("directory");
    fs::write(root.join("etc/real"), "").expect("write");
    let link = |target: &str, name: &str| {
        std::os::unix::fs::symlink(target, root.join(name)).expect("a link");
    };
    link("/etc/alternatives/second", "first");
    link("../real", "etc/alternatives/second");
    link("circle", "circle");
    link("/etc", "directory");
    assert_eq!(
        resolve(root, &root.join("first")).and_then(|path| fs::canonicalize(path).ok()),
        fs::canonicalize(root.join("etc/real")).ok()
    );
    for name in ["circle", "directory", "nonesuch"] {
        assert_eq!(resolve(root, &root.join(name)), None, "{name}");
    }
}

#[test]
fn checked_in_manifest_is_valid() {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let manifest = Manifest::read(&checkout).expect("images/programs.toml");
    assert_eq!(manifest.names().collect::<Vec<_>>(), ["fio", "kublk", "storage"]);
    for set in manifest.sets.values() {
        assert!(set.packages.iter().all(|pin| pin.sha256.len() == 64), "{:?}", set.packages);
    }
}
