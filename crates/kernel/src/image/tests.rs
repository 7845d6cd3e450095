//! Images with what a kernel's build puts around them.

use std::io::Write as _;

use super::*;
use crate::vmlinux::tests::{bz_image, elf, gzip};

const RELEASE: &str = "7.2.99-test";

/// An ELF file with a PVH entry that says which Linux it is, with a configuration inside if given.
fn vmlinux_file(config: Option<&str>) -> Vec<u8> {
    let mut file = elf(b"Xen\0", 18);
    file.extend(format!("Linux version %s\0Linux version {RELEASE} (a@b) #1\0").bytes());
    if let Some(config) = config {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(config.as_bytes()).expect("gzip");
        file.extend(b"IKCFG_ST");
        file.extend(packed.finish().expect("gzip"));
        file.extend(b"IKCFG_ED");
    }
    file
}

struct Fixture {
    dir: tempfile::TempDir,
    cache: Cache,
}

impl Fixture {
    fn new() -> Fixture {
        let dir = tempfile::tempdir().expect("temporary directory");
        let cache = Cache::at(&dir.path().join("cache")).expect("cache");
        Fixture { dir, cache }
    }

    fn put(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("directory");
        fs::write(&path, content).expect("write");
        path
    }

    fn get(&self, image: &Path, modules: Option<&Path>) -> Result<Kernel, Error> {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let fragments = Fragments::read(&checkout).expect("fragments");
        let modules = modules.map(Path::to_owned);
        let files = ImageFiles { image: image.to_owned(), modules, config: None };
        get(&self.cache, &files, &fragments, &Progress::quiet())
    }
}

/// All the bench and its tests want.
fn config() -> String {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../images/kernel/config");
    let read = |name: &str| fs::read_to_string(dir.join(name)).expect("a fragment");
    ["required.config", "suite.config"].map(read).concat()
}

#[test]
fn a_vmlinux_with_its_configuration_inside_needs_nothing_else() {
    let fixture = Fixture::new();
    let image = fixture.put("vmlinux", &vmlinux_file(Some(&config())));
    fixture.put("modules.builtin", b"kernel/drivers/scsi/sg.ko\n");
    let kernel = fixture.get(&image, None).expect("a kernel");
    assert_eq!(kernel.release, RELEASE);
    assert_eq!(kernel.image.file_name().expect("name"), "vmlinux");
    assert!(kernel.config_has("CONFIG_SCSI_DEBUG"));
    let builtin = fs::read_to_string(kernel.modules_dir.join("modules.builtin")).expect("a list");
    assert!(builtin.contains("sg.ko"));
    assert_eq!(kernel.note, None);
}

#[test]
fn a_bz_image_finds_configuration_and_modules_where_its_build_has_them() {
    let fixture = Fixture::new();
    let packed = bz_image(&gzip(&vmlinux_file(None)));
    let image = fixture.put("build/arch/x86/boot/bzImage", &packed);
    fixture.put("build/.config", config().as_bytes());
    fixture.put("build/modules.builtin", b"");
    let module = fixture.put(&format!("build/lib/modules/{RELEASE}/kernel/sg.ko"), b"module");
    let kernel = fixture.get(&image, None).expect("a kernel");
    assert_eq!(fs::read(kernel.modules_dir.join("kernel/sg.ko")).expect("linked"), b"module");
    // The directory that modules_install was told does as well as the one it made.
    let root = fixture.dir.path().join("build");
    let again = fixture.get(&image, Some(&root)).expect("a kernel");
    assert_eq!(again.modules_dir, kernel.modules_dir);
    // A module that was built again is another kernel.
    fs::remove_file(module).expect("removed");
    fixture.put(&format!("build/lib/modules/{RELEASE}/kernel/sg.ko"), b"other");
    let other = fixture.get(&image, None).expect("a kernel");
    assert_ne!(other.modules_dir, kernel.modules_dir);
}

#[test]
fn what_is_missing_is_said_with_the_option_that_gives_it() {
    let fixture = Fixture::new();
    let image = fixture.put("a/vmlinux", &vmlinux_file(None));
    let error = fixture.get(&image, None).expect_err("no configuration").to_string();
    assert!(error.contains("--kernel-config FILE"), "{error}");

    let without = config().replace("CONFIG_VIRTIO_CONSOLE=y\n", "");
    let image = fixture.put("b/vmlinux", &vmlinux_file(Some(&without)));
    let error = fixture.get(&image, None).expect_err("no console").to_string();
    assert!(error.contains("CONFIG_VIRTIO_CONSOLE=y (it is not set)"), "{error}");

    let image = fixture.put("c/vmlinux", &vmlinux_file(Some(&config())));
    let note = fixture.get(&image, None).expect("a kernel").note.expect("a note");
    assert!(note.contains("--modules DIR"), "{note}");

    let image = fixture.put("d/vmlinux", b"no kernel at all");
    let error = fixture.get(&image, None).expect_err("no kernel").to_string();
    assert!(error.contains("not an x86 bzImage"), "{error}");
}
