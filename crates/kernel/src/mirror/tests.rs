use std::{
    collections::BTreeMap,
    fs::FileTimes,
    os::unix::fs::MetadataExt,
    process::Command,
    time::{Duration, SystemTime},
};

use proptest::prelude::*;

use super::*;

/// A tree and a place for its copy.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        let bench = Bench { dir: tempfile::tempdir().expect("temporary directory") };
        for name in ["Makefile", "Kconfig", "Kbuild", "scripts/kconfig/Makefile", "block/bsg.c"] {
            bench.write(name, name);
        }
        bench.write(".gitignore", ".*\n*.o\n/vmlinux\n/include/generated/\n!.gitignore\n");
        bench
    }

    fn tree(&self) -> PathBuf {
        self.dir.path().join("tree")
    }

    fn copy(&self) -> PathBuf {
        self.dir.path().join("cache/copy")
    }

    fn write(&self, name: &str, content: &str) {
        write_file(&self.tree().join(name), content);
    }

    fn update(&self) -> Changes {
        update(&self.tree(), None, &self.copy(), &Progress::quiet()).expect("an update")
    }

    /// An update so much later that no stamp is young.
    fn update_later(&self) -> Changes {
        let later_ns = now_ns() + 3600 * 1_000_000_000;
        update_at(later_ns, &self.tree(), None, &self.copy(), &Progress::quiet())
            .expect("an update")
    }

    fn copied(&self, name: &str) -> String {
        fs::read_to_string(self.copy().join(name)).expect("it is in the copy")
    }
}

fn write_file(path: &Path, content: &str) {
    fs::create_dir_all(path.parent().expect("a parent")).expect("directory");
    fs::write(path, content).expect("write");
}

/// Returns when the clock that stamps files has moved on: by its ticks, two writes can look like one.
fn next_tick(dir: &Path) {
    let stamp = || {
        write_file(&dir.join("clock"), "");
        list::stamp(&fs::metadata(dir.join("clock")).expect("metadata")).changed_ns
    };
    let now_ns = stamp();
    while stamp() == now_ns {}
}

fn modified(path: &Path) -> SystemTime {
    fs::metadata(path).expect("metadata").modified().expect("a time")
}

fn set_modified(path: &Path, time: SystemTime) {
    let file = File::options().append(true).open(path).expect("open");
    file.set_times(FileTimes::new().set_modified(time)).expect("set the time");
}

fn names(paths: &[PathBuf]) -> Vec<&str> {
    paths.iter().map(|path| path.to_str().expect("UTF-8")).collect()
}

/// Every file and link with its content, and the index left out.
fn content(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    for entry in list::everything(root).expect("a walk").entries {
        let text = match entry.kind {
            Kind::Link { target } => format!("-> {}", target.display()),
            Kind::File { .. } => fs::read_to_string(root.join(&entry.path)).expect("read"),
        };
        found.insert(entry.path, text);
    }
    found.remove(Path::new(index::NAME));
    found
}

#[test]
fn source_is_copied_and_what_was_built_is_not() {
    let bench = Bench::new();
    let source = content(&bench.tree());
    for product in [
        ".config",
        ".config.old",
        ".git/HEAD",
        "vmlinux",
        "include/config/auto.conf",
        "include/generated/autoconf.h",
        "arch/x86/include/generated/asm/x.h",
        "block/bsg.o",
        "block/.bsg.o.cmd",
        "block/bsg.mod.c",
        "block/modules.order",
        ".vscode/settings.json",
    ] {
        bench.write(product, "product");
    }
    let changes = bench.update();
    assert_eq!(content(&bench.copy()), source);
    assert_eq!(changes.added.len(), source.len());
    assert_eq!(changes.to_string(), "6 new, 0 changed, 0 gone, 0 as before");
}

#[test]
fn nearer_gitignore_overrules_the_one_above() {
    let bench = Bench::new();
    bench.write("fs/.gitignore", "!keep.o\n/made.c\n");
    for name in ["fs/keep.o", "fs/drop.o", "fs/made.c", "fs/deep/made.c", "block/keep.o"] {
        bench.write(name, "x");
    }
    bench.update();
    let copied = content(&bench.copy());
    let has = |name: &str| copied.contains_key(Path::new(name));
    assert!(has("fs/keep.o") && has("fs/deep/made.c"), "{copied:?}");
    assert!(!has("fs/drop.o") && !has("fs/made.c") && !has("block/keep.o"), "{copied:?}");
}

/// Debian's source packages: everything but their `debian` is hidden, and no dot file is shown.
#[test]
fn rule_that_hides_the_whole_tree_is_passed_over() {
    let bench = Bench::new();
    bench.write(".gitignore", ".*\n*.o\n/*\n!/debian/\n");
    bench.write("block/.kunitconfig", "x");
    bench.write("block/bsg.o", "x");
    bench.update();
    let copied = content(&bench.copy());
    assert_eq!(copied.len(), 7, "{copied:?}");
    assert_eq!(bench.copied("block/.kunitconfig"), "x");
    assert_eq!(bench.copied("block/bsg.c"), "block/bsg.c");
}

#[test]
fn tree_without_gitignore_is_copied_without_its_products() {
    let bench = Bench::new();
    fs::remove_file(bench.tree().join(".gitignore")).expect("remove");
    let source = content(&bench.tree());
    for product in ["block/bsg.o", "block/.bsg.o.cmd", "vmlinux", "Module.symvers", ".git/HEAD"] {
        bench.write(product, "product");
    }
    bench.update();
    assert_eq!(content(&bench.copy()), source);
}

fn git(tree: &Path, arguments: &[&str]) {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=x", "-c", "user.email=x@y.example", "-C"]).arg(tree);
    let output = command.args(arguments).output().expect("git runs");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

/// A dirty worktree, with a tracked file that an ignore rule hides; git's own files stay as they are.
#[test]
fn what_git_tracks_is_source_though_ignored() {
    let bench = Bench::new();
    bench.write("firmware/blob.o", "blob");
    bench.write(".config", "tracked by mistake");
    git(&bench.tree(), &["init", "-q"]);
    git(&bench.tree(), &["add", "--force", "."]);
    git(&bench.tree(), &["commit", "-q", "-m", "x"]);
    bench.write("firmware/built.o", "built");
    bench.write("block/bsg.c", "edited");
    let git_dir = content(&bench.tree().join(".git").join("refs"));
    let index = fs::metadata(bench.tree().join(".git/index")).expect("an index");
    // git takes this for a word on everything it tracks.
    bench.write(".gitignore", ".*\n*.o\n/*\n!.gitignore\n");
    let changes = bench.update();
    assert_eq!(changes.notes, Vec::<String>::new());
    assert_eq!(changes.added.len(), 7, "{changes:?}");
    assert_eq!(bench.copied("firmware/blob.o"), "blob");
    assert_eq!(bench.copied("block/bsg.c"), "edited");
    assert!(!bench.copy().join("firmware/built.o").exists());
    assert!(!bench.copy().join(".config").exists() && !bench.copy().join(".git").exists());
    let after = fs::metadata(bench.tree().join(".git/index")).expect("an index");
    assert_eq!((after.ino(), after.ctime_nsec()), (index.ino(), index.ctime_nsec()));
    assert_eq!(content(&bench.tree().join(".git").join("refs")), git_dir);
}

#[test]
fn worktree_whose_repository_is_gone_is_copied_with_a_note() {
    let bench = Bench::new();
    bench.write(".git", "gitdir: ../vanished/.git/worktrees/tree\n");
    let changes = bench.update();
    assert!(bench.copy().join("block/bsg.c").exists());
    assert!(changes.notes[0].contains("git cannot say"), "{:?}", changes.notes);
}

#[test]
fn second_update_finds_nothing_to_do() {
    let bench = Bench::new();
    bench.update();
    let changes = bench.update();
    assert!(changes.is_empty(), "{changes:?}");
    assert_eq!(changes.unchanged, 6);
}

/// make compares times: the copy must look newer than what was built from it before.
#[test]
fn file_that_goes_back_to_an_older_version_becomes_younger_in_the_copy() {
    let bench = Bench::new();
    bench.write("block/bsg.c", "version 2");
    bench.update();
    let built = modified(&bench.copy().join("block/bsg.c"));
    bench.write("block/bsg.c", "version 1");
    set_modified(&bench.tree().join("block/bsg.c"), SystemTime::now() - Duration::from_secs(9999));
    let changes = bench.update();
    assert_eq!(names(&changes.changed), ["block/bsg.c"]);
    assert_eq!(bench.copied("block/bsg.c"), "version 1");
    assert!(modified(&bench.copy().join("block/bsg.c")) >= built, "it would not be built again");
    assert!(bench.update().is_empty());
}

#[test]
fn file_that_was_only_touched_keeps_its_time_in_the_copy() {
    let bench = Bench::new();
    bench.update();
    let before = modified(&bench.copy().join("block/bsg.c"));
    set_modified(&bench.tree().join("block/bsg.c"), SystemTime::now() + Duration::from_secs(9999));
    let changes = bench.update();
    assert!(changes.is_empty(), "{changes:?}");
    assert_eq!(modified(&bench.copy().join("block/bsg.c")), before);
}

#[test]
fn edit_is_seen_though_size_and_time_are_the_same() {
    let bench = Bench::new();
    bench.write("block/bsg.c", "one");
    let path = bench.tree().join("block/bsg.c");
    let time = modified(&path);
    bench.update_later();
    next_tick(bench.dir.path());
    bench.write("block/bsg.c", "two");
    set_modified(&path, time);
    assert_eq!(names(&bench.update_later().changed), ["block/bsg.c"]);
    assert_eq!(bench.copied("block/bsg.c"), "two");
}

#[test]
fn what_vanished_or_changed_its_kind_is_replaced() {
    let bench = Bench::new();
    for name in ["a/only.c", "file", "dir/x", "link-to-be", "deep/er/x"] {
        bench.write(name, name);
    }
    bench.update();
    let tree = bench.tree();
    for dir in ["a", "dir", "deep/er"] {
        fs::remove_dir_all(tree.join(dir)).expect("remove");
    }
    for file in ["file", "link-to-be"] {
        fs::remove_file(tree.join(file)).expect("remove");
    }
    bench.write("file/now/a/directory", "x");
    bench.write("dir", "now a file");
    symlink("dir", tree.join("link-to-be")).expect("link");
    let changes = bench.update();
    assert_eq!(content(&bench.copy()), content(&tree));
    assert_eq!(names(&changes.removed), ["a/only.c", "deep/er/x", "dir/x", "file"]);
    assert_eq!(names(&changes.changed), ["link-to-be"]);
    assert!(!bench.copy().join("a").exists() && !bench.copy().join("deep").exists());
}

#[test]
fn executable_bit_follows_and_the_rest_of_the_mode_is_ours() {
    let bench = Bench::new();
    let source = bench.tree().join("block/bsg.c");
    let mode =
        |mode| fs::set_permissions(&source, fs::Permissions::from_mode(mode)).expect("chmod");
    let copied =
        || fs::metadata(bench.copy().join("block/bsg.c")).expect("metadata").mode() & 0o777;
    mode(0o500);
    bench.update();
    assert_eq!(copied(), 0o755);
    mode(0o400);
    bench.update();
    assert_eq!(copied(), 0o644);
    mode(0o500);
    assert_eq!(names(&bench.update().changed), ["block/bsg.c"]);
    assert_eq!(copied(), 0o755);
    mode(0o444);
    bench.update();
    assert_eq!(copied(), 0o644);
    assert!(bench.update().is_empty());
}

/// A patch that was applied to the copy, files it left, a write that a crash cut short.
#[test]
fn what_was_done_to_the_copy_is_undone() {
    let bench = Bench::new();
    // Known to the index, so that nothing but the copy's own stamps can tell.
    bench.update_later();
    assert_eq!(index::read(&bench.copy()).len(), 6);
    let source = content(&bench.tree());
    let copy = bench.copy();
    next_tick(bench.dir.path());
    write_file(&copy.join("block/bsg.c"), "BLOCK/BSG.C");
    write_file(&copy.join("Kconfig"), "Kcon");
    write_file(&copy.join("fs/new/file.c.rej"), "x");
    fs::remove_file(copy.join("Makefile")).expect("remove");
    symlink("/", copy.join("outside")).expect("link");
    let _socket = std::os::unix::net::UnixListener::bind(copy.join("socket")).expect("a socket");
    let changes = bench.update();
    assert_eq!(content(&copy), source);
    assert_eq!(names(&changes.changed), ["Kconfig", "block/bsg.c"]);
    assert_eq!(names(&changes.added), ["Makefile"]);
    assert_eq!(names(&changes.removed), ["fs/new/file.c.rej", "outside", "socket"]);
    assert!(!copy.join("fs").exists());
}

#[test]
fn index_vouches_for_settled_files_only() {
    let bench = Bench::new();
    bench.update();
    assert_eq!(index::read(&bench.copy()), Index::new(), "all of them were written just now");
    // The tree's files are old enough, those of the copy are not.
    next_tick(bench.dir.path());
    let later_ns = now_ns() + SETTLED_NS;
    next_tick(bench.dir.path());
    fs::remove_dir_all(bench.copy()).expect("remove");
    update_at(later_ns, &bench.tree(), None, &bench.copy(), &Progress::quiet()).expect("an update");
    assert_eq!(index::read(&bench.copy()), Index::new());
    bench.update_later();
    assert_eq!(index::read(&bench.copy()).len(), 6);
    // The copy's files are old enough, one of the tree is not.
    next_tick(bench.dir.path());
    let later_ns = now_ns() + SETTLED_NS;
    next_tick(bench.dir.path());
    set_modified(&bench.tree().join("Kconfig"), SystemTime::now());
    update_at(later_ns, &bench.tree(), None, &bench.copy(), &Progress::quiet()).expect("an update");
    assert_eq!(index::read(&bench.copy()).len(), 5);
    bench.update_later();
    // Nothing was to be done: the index stays, whatever the time.
    bench.update();
    assert_eq!(index::read(&bench.copy()).len(), 6);
    bench.write("Kconfig", "edited");
    bench.update();
    assert_eq!(index::read(&bench.copy()).len(), 0, "all of them are young by this clock");
}

/// What makes an update quick: a false index is believed, so nothing that it knows is read.
#[test]
fn file_known_to_the_index_is_not_read() {
    let bench = Bench::new();
    bench.update_later();
    bench.update_later();
    bench.write("block/bsg.c", "BLOCK/BSG.C");
    let stamp = |root: &Path| {
        list::entry(&root.into(), "block/bsg.c".into()).expect("read").expect("it").stamp
    };
    let pair = Pair { source: stamp(&bench.tree()), copy: stamp(&bench.copy()) };
    index::write(&bench.copy(), [(Path::new("block/bsg.c"), pair)].into_iter()).expect("write");
    assert!(bench.update_later().is_empty());
    assert_eq!(bench.copied("block/bsg.c"), "block/bsg.c");
    // Either side's stamp is enough to be read again.
    next_tick(bench.dir.path());
    write_file(&bench.copy().join("block/bsg.c"), "block/BSG.C");
    assert_eq!(names(&bench.update_later().changed), ["block/bsg.c"]);
    assert_eq!(bench.copied("block/bsg.c"), "BLOCK/BSG.C");
}

#[test]
fn index_reads_back_and_damage_makes_it_empty() {
    let stamp = |size| Stamp { size, modified_ns: -5, changed_ns: i128::from(u64::MAX) };
    let pair = Pair { source: stamp(1), copy: stamp(2) };
    let bench = Bench::new();
    bench.update();
    index::write(&bench.copy(), [(Path::new("a b\nc"), pair)].into_iter()).expect("write");
    assert_eq!(index::read(&bench.copy()), Index::from([(b"a b\nc".to_vec(), pair)]));
    for damage in ["", "sensecheck mirror 1\nx", "sensecheck mirror 1\nx\0short", "other"] {
        write_file(&bench.copy().join(index::NAME), damage);
        assert_eq!(index::read(&bench.copy()), Index::new(), "{damage:?}");
    }
    assert!(bench.update().is_empty());
}

#[test]
fn links_are_copied_and_lead_to_the_same_place() {
    let bench = Bench::new();
    let tree = bench.tree();
    write_file(&bench.dir.path().join("elsewhere/x.c"), "outside");
    for (target, name) in [
        ("bsg.c", "block/near.c"),
        ("../block", "scripts/inside"),
        ("../../elsewhere", "block/outside"),
        ("nowhere", "broken"),
        ("/absolute", "absolute"),
    ] {
        symlink(target, tree.join(name)).expect("link");
    }
    bench.update();
    let target = |name: &str| fs::read_link(bench.copy().join(name)).expect("a link");
    assert_eq!(target("block/near.c"), Path::new("bsg.c"));
    assert_eq!(target("scripts/inside"), Path::new("../block"));
    assert_eq!(target("broken"), Path::new("nowhere"));
    assert_eq!(target("absolute"), Path::new("/absolute"));
    assert_eq!(bench.copied("block/outside/x.c"), "outside");
    assert!(bench.update().is_empty());
}

#[test]
fn overlay_takes_the_place_of_the_trees_files() {
    let bench = Bench::new();
    bench.update_later();
    let overlay = Overlay {
        root: bench.dir.path().join("overlay"),
        files: vec!["block/bsg.c".into(), "fs/new.o".into()],
        removed: vec!["Kbuild".into()],
    };
    write_file(&overlay.root.join("block/bsg.c"), "patched");
    write_file(&overlay.root.join("fs/new.o"), "a patch may well bring what is ignored");
    write_file(&overlay.root.join("unlisted"), "x");
    let update = |overlay| {
        update(&bench.tree(), overlay, &bench.copy(), &Progress::quiet()).expect("an update")
    };
    let changes = update(Some(&overlay));
    assert_eq!(names(&changes.changed), ["block/bsg.c"]);
    assert_eq!(names(&changes.added), ["fs/new.o"]);
    assert_eq!(names(&changes.removed), ["Kbuild"]);
    assert_eq!(bench.copied("block/bsg.c"), "patched");

    // Made anew with the same content, as by applying the series again: nothing is to be built.
    let before = modified(&bench.copy().join("block/bsg.c"));
    write_file(&overlay.root.join("block/bsg.c"), "patched");
    assert!(update(Some(&overlay)).is_empty());
    assert_eq!(modified(&bench.copy().join("block/bsg.c")), before);
    update(None);
    assert_eq!(content(&bench.copy()), content(&bench.tree()));
}

#[test]
fn socket_is_left_out_and_told() {
    let bench = Bench::new();
    let path = bench.tree().join("block/socket");
    let _socket = std::os::unix::net::UnixListener::bind(path).expect("a socket");
    let changes = bench.update();
    assert!(changes.notes[0].contains("block/socket"), "{:?}", changes.notes);
    assert_eq!(changes.added.len(), 6);
}

#[test]
fn what_is_no_kernel_tree_is_refused_by_name() {
    let bench = Bench::new();
    let refused = |tree: &Path, copy: &Path| {
        update(tree, None, copy, &Progress::quiet()).expect_err("it is refused").to_string()
    };
    let (tree, copy) = (bench.tree(), bench.copy());
    let file = refused(&tree.join("Makefile"), &copy);
    assert!(file.contains("Makefile is not a directory"), "{file}");
    let inside = refused(&tree.join("block"), &copy);
    assert!(inside.contains("it has no Makefile; give the top directory"), "{inside}");

    let output = bench.dir.path().join("output");
    write_file(&output.join("Makefile"), "include");
    symlink("../tree", output.join("source")).expect("link");
    let told = refused(&output, &copy);
    assert!(told.contains("it has no Kconfig; it looks like the output directory"), "{told}");

    for (tree, copy) in [(&tree, tree.join("new/copy")), (&tree, tree.clone())] {
        let told = refused(tree, &copy);
        assert!(told.contains("lie in each other; set SENSECHECK_CACHE"), "{told}");
    }
    assert!(!tree.join("new").exists(), "the tree was written to");
    assert!(!copy.exists());
}

/// One edit of a tree: of a few names, so that files, directories and links take each other's place.
#[derive(Clone, Debug)]
enum Edit {
    Write(String, String),
    Link(String, String),
    Remove(String),
    Update,
}

fn edit() -> impl Strategy<Value = Edit> {
    let path = "[ab](/[ab](/[ab])?)?";
    prop_oneof![
        4 => (path, "[xy]{1,2}").prop_map(|(path, content)| Edit::Write(path, content)),
        1 => (path, "[abc]").prop_map(|(path, target)| Edit::Link(path, target)),
        2 => path.prop_map(Edit::Remove),
        2 => Just(Edit::Update),
    ]
}

/// Makes way for `path`: nothing stands there, and its parents are directories.
fn clear(tree: &Path, path: &str) -> PathBuf {
    let place = tree.join(path);
    let between = place.ancestors().take_while(|parent| *parent != tree);
    for parent in between.collect::<Vec<_>>().into_iter().rev() {
        let is_parent = parent != place;
        match fs::symlink_metadata(parent) {
            Ok(metadata) if metadata.is_dir() && is_parent => {}
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(parent).expect("remove"),
            Ok(_) => fs::remove_file(parent).expect("remove"),
            Err(_) => {}
        }
    }
    fs::create_dir_all(place.parent().expect("a parent")).expect("directory");
    place
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn copy_is_the_tree_after_any_edits(edits in prop::collection::vec(edit(), 1..30)) {
        let bench = Bench::new();
        for edit in edits {
            match edit {
                Edit::Write(path, text) => write_file(&clear(&bench.tree(), &path), &text),
                Edit::Link(path, to) => symlink(to, clear(&bench.tree(), &path)).expect("link"),
                Edit::Remove(path) => drop(clear(&bench.tree(), &path)),
                Edit::Update => drop(bench.update()),
            }
        }
        let last = bench.update();
        prop_assert_eq!(last.added.len() + last.changed.len() + last.unchanged, content(&bench.tree()).len());
        prop_assert_eq!(content(&bench.copy()), content(&bench.tree()));
        prop_assert!(bench.update().is_empty());
    }
}
