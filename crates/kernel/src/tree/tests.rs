//! Trees that look like a kernel's to the bench, and whose make does in a shell what kbuild does:
//! everything around a build, in a fraction of a second.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use host::{apt, cache::Cache, progress::Progress};

use super::*;
use crate::request::{Wanted, get as get_kernel};

/// What kbuild's targets leave behind, as far as it is looked at.
const MAKEFILE: &str = r#"
export O
allnoconfig:
	grep -v CONFIG_REFUSED $(KCONFIG_ALLCONFIG) > $(O)/.config
olddefconfig:
	sed -i /CONFIG_DROPPED/d $(O)/.config
vmlinux:
	test ! -e broken.c || { echo "../broken.c:7:3: error: 'x' undeclared" >&2; exit 2; }
	test ! -e full || { echo "as: No space left on device" >&2; exit 2; }
	mkdir -p $(O)/include/config
	echo 7.2.99-test > $(O)/include/config/kernel.release
	cp version.elf $(O)/vmlinux
	echo kernel/drivers/scsi/sd_mod.ko > $(O)/modules.builtin
modules:
	echo made >> $(O)/modules-made
modules_install:
	mkdir -p $(INSTALL_MOD_PATH)/lib/modules/7.2.99-test/kernel
	echo module > $(INSTALL_MOD_PATH)/lib/modules/7.2.99-test/kernel/sg.ko
"#;

struct Fixture {
    dir: tempfile::TempDir,
    cache: Cache,
}

impl Fixture {
    fn new() -> Fixture {
        let dir = tempfile::tempdir().expect("temporary directory");
        let cache = Cache::at(&dir.path().join("cache")).expect("cache");
        let fixture = Fixture { dir, cache };
        fixture.write("Makefile", MAKEFILE);
        for name in ["Kconfig", "Kbuild", "scripts/kconfig/Makefile"] {
            fixture.write(name, "");
        }
        fs::copy("/proc/self/exe", fixture.tree().join("version.elf")).expect("an ELF file");
        fixture
    }

    fn tree(&self) -> PathBuf {
        self.dir.path().join("linux")
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.tree().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("directory");
        fs::write(&path, text).expect("write");
    }

    /// The bench's own symbols, those of a small machine included.
    fn config(&self) -> String {
        let dir = checkout().join("images/kernel/config");
        let read = |name: &str| fs::read_to_string(dir.join(name)).expect("a fragment");
        ["machine.config", "required.config", "suite.config"].map(read).concat()
    }

    fn get(&self) -> Result<Kernel, Error> {
        self.get_with(&[])
    }

    fn get_with(&self, variables: &[&str]) -> Result<Kernel, Error> {
        let variables = variables.iter().map(ToString::to_string).collect();
        let tree = Tree { dir: self.tree(), variables, config: None };
        let context = Context {
            cache: &self.cache,
            checkout: &checkout(),
            options: &apt::Options::default(),
            progress: &Progress::quiet(),
        };
        get_kernel(context, &Wanted::Tree(tree))
    }

    /// How often the modules were made.
    fn builds(&self) -> usize {
        let places = fs::read_dir(self.cache.path("builds")).expect("workspaces").flatten();
        let made = places.map(|place| place.path().join("linux/.objects/modules-made"));
        made.map(|path| fs::read_to_string(path).map_or(0, |text| text.lines().count())).sum()
    }
}

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn a_tree_with_a_configuration_becomes_a_kernel_and_stays_as_it_was() {
    let fixture = Fixture::new();
    fixture.write(".config", &fixture.config());
    // What a build in place leaves behind must not be seen by the build in the cache.
    fixture.write("include/config/auto.conf", "stale");
    let tree = fixture.tree();
    fs::set_permissions(&tree, fs::Permissions::from_mode(0o555)).expect("read-only");
    let before = fs::metadata(&tree).and_then(|metadata| metadata.modified()).expect("time");
    let kernel = fixture.get().expect("a kernel");
    assert_eq!(kernel.release, "7.2.99-test");
    assert_eq!(kernel.image.file_name().expect("name"), "vmlinux");
    assert!(kernel.config_has("CONFIG_BLK_DEV_UBLK"));
    assert!(kernel.modules_dir.join("kernel/sg.ko").exists());
    assert!(kernel.modules_dir.join("modules.builtin").exists());
    assert_eq!(kernel.note, None);
    let after = fs::metadata(&tree).and_then(|metadata| metadata.modified()).expect("time");
    assert_eq!(before, after);
    fs::set_permissions(&tree, fs::Permissions::from_mode(0o755)).expect("writable");
}

#[test]
fn nothing_is_built_again_until_something_changes() {
    let fixture = Fixture::new();
    fixture.write(".config", &fixture.config());
    let first = fixture.get().expect("a kernel");
    assert_eq!(fixture.get().expect("again").image, first.image);
    assert_eq!(fixture.builds(), 1);
    fixture.write("drivers/scsi/scsi_bsg.c", "int x;\n");
    fixture.get().expect("after an edit");
    assert_eq!(fixture.builds(), 2);
    fixture.write(".config", &format!("{}CONFIG_MORE=y\n", fixture.config()));
    assert!(fixture.get().expect("configured otherwise").config_has("CONFIG_MORE"));
    assert_eq!(fixture.builds(), 3);
}

#[test]
fn a_configuration_without_what_is_needed_is_refused_by_name() {
    let fixture = Fixture::new();
    let config = fixture.config().replace("CONFIG_DEVTMPFS=y\n", "# CONFIG_DEVTMPFS is not set\n");
    fixture.write(".config", &config);
    let error = fixture.get().expect_err("no devtmpfs").to_string();
    assert!(error.contains("CONFIG_DEVTMPFS=y (it is not set)"), "{error}");
    assert!(error.contains("--kernel-config bench"), "{error}");
    assert!(!kernels(&fixture), "a kernel was kept");
}

/// Whether the cache has any kernel.
fn kernels(fixture: &Fixture) -> bool {
    fs::read_dir(fixture.cache.path("kernels")).is_ok_and(|mut entries| entries.next().is_some())
}

#[test]
fn what_tests_lack_and_what_kconfig_dropped_is_told() {
    let fixture = Fixture::new();
    let config = fixture.config().replace("CONFIG_BLK_DEV_BSG=y\n", "");
    fixture.write(".config", &format!("{config}CONFIG_DROPPED=y\n"));
    let note = fixture.get().expect("a kernel").note.expect("a note");
    assert!(note.contains("CONFIG_BLK_DEV_BSG=y (it is not set)"), "{note}");
    assert!(
        note.contains("kconfig changed 1 symbols") && note.contains("CONFIG_DROPPED"),
        "{note}"
    );
}

#[test]
fn a_tree_without_a_configuration_gets_the_bench_own_and_says_so() {
    let fixture = Fixture::new();
    let kernel = fixture.get().expect("a kernel");
    assert!(kernel.config_has("CONFIG_SCSI_VIRTIO"));
    assert!(kernel.note.expect("a note").contains("has no .config"));
}

#[test]
fn a_symbol_of_ours_that_does_not_stick_is_an_error_that_names_it() {
    let fixture = Fixture::new();
    let makefile = MAKEFILE.replace("CONFIG_REFUSED", "CONFIG_CHR_DEV_SG");
    fixture.write("Makefile", &makefile);
    let error = fixture.get().expect_err("sg does not stick").to_string();
    assert!(error.contains("CONFIG_CHR_DEV_SG=y (it is not set)"), "{error}");
}

#[test]
fn the_first_error_of_the_compiler_is_shown_and_the_next_build_goes_on() {
    let fixture = Fixture::new();
    fixture.write("broken.c", "x");
    let error = fixture.get().expect_err("does not compile");
    let Error::Build { detail, log, .. } = &error else { panic!("{error}") };
    assert!(detail.starts_with("broken.c:7:3: error: 'x' undeclared"), "{detail}");
    assert!(fs::read_to_string(log).expect("the log").contains("undeclared"));
    assert!(!kernels(&fixture), "half a kernel was kept");
    fs::remove_file(fixture.tree().join("broken.c")).expect("corrected");
    fixture.get().expect("a kernel");
}

#[test]
fn a_full_disk_in_mid_build_is_called_so() {
    let fixture = Fixture::new();
    fixture.write("full", "");
    let error = fixture.get().expect_err("disk full").to_string();
    assert!(error.contains("disk full"), "{error}");
}

#[test]
fn what_is_no_tree_is_refused_with_what_is_missing() {
    let fixture = Fixture::new();
    fs::remove_file(fixture.tree().join("Makefile")).expect("removed");
    let error = fixture.get().expect_err("no Makefile").to_string();
    assert!(error.contains("no Makefile"), "{error}");
    fs::remove_dir_all(fixture.tree()).expect("removed");
    let error = fixture.get().expect_err("no directory").to_string();
    assert!(error.contains("linux"), "{error}");
}

#[test]
fn an_output_directory_of_the_user_is_built_in() {
    let fixture = Fixture::new();
    let objects = fixture.dir.path().join("out");
    fs::create_dir(&objects).expect("directory");
    fs::write(objects.join(".config"), fixture.config()).expect("write");
    let word = format!("O={}", objects.display());
    fixture.get_with(&[&word]).expect("a kernel");
    assert!(objects.join("vmlinux").exists());
    assert!(!fixture.cache.path("builds").join("linux").exists());
}
