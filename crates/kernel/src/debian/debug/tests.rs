//! Which package the debug information comes from, and what is kept of it, from an archive with
//! made-up packages.

use host::{
    apt::fake::{Archive, Index},
    cache::Cache,
    progress::Progress,
};
use sha2::{Digest, Sha256};

use super::*;
use crate::manifest::Version;

const RELEASE: &str = "7.2.12+test-cloud-amd64";
const DEBUG_PACKAGE: &str = "linux-image-7.2.12+test-cloud-amd64-dbg";
/// A packaged kernel that may come from two suites.
const STOCK: &str = "\
[kernel.stock]
arch = \"amd64\"
about = \"x\"
packages = { flavour = \"cloud-amd64\", suites = [\"trixie-backports\", \"sid\"], minimum = \"7.1\" }
";

/// A kernel of version 7.2.12-1 whose image has the build id 0101.
struct Fixture {
    archive: Archive,
    dir: tempfile::TempDir,
    cache: Cache,
    kernel: Kernel,
}

impl Fixture {
    fn new() -> Fixture {
        let dir = tempfile::tempdir().expect("temporary directory");
        let cache = Cache::at(&dir.path().join("cache")).expect("cache");
        let image = dir.path().join("vmlinux");
        fs::write(&image, elf("0101")).expect("write");
        let kernel = Kernel {
            origin: "7.2.12-1".to_owned(),
            version: Version::of_release(RELEASE).expect("a version"),
            image,
            is_packaged: true,
            ..Kernel::for_test(RELEASE, dir.path(), "")
        };
        let fixture = Fixture { archive: Archive::new(), dir, cache, kernel };
        fixture.manifest(STOCK);
        fixture
    }

    fn manifest(&self, text: &str) {
        fs::create_dir_all(self.dir.path().join("images")).expect("directory");
        fs::write(self.dir.path().join("images/kernels.toml"), text).expect("write");
    }

    /// The debug package with these files below the directory of the release.
    fn package(&self, files: &[(&str, &[u8])]) -> Pin {
        let root = "usr/lib/debug/lib/modules/7.2.12+test-cloud-amd64";
        let files = files.iter().map(|(name, text)| (format!("{root}/{name}"), text.to_vec()));
        self.archive.package(DEBUG_PACKAGE, "7.2.12-1", &files.collect::<Vec<_>>())
    }

    /// The package of the kernel's source.
    fn source(&self) -> Pin {
        let made = self.dir.path().join("made");
        fs::create_dir_all(made.join("linux-source-7.2")).expect("directory");
        fs::write(made.join("linux-source-7.2/Makefile"), "VERSION = 7\n").expect("write");
        let archive = made.join("x.tar.xz");
        let mut tar = Command::new("tar");
        tar.arg("-cJf").arg(&archive).arg("-C").arg(&made).arg("linux-source-7.2");
        tools::check(&mut tar, "tar").expect("tar runs");
        let content = fs::read(archive).expect("read");
        let file = ("usr/src/linux-source-7.2.tar.xz".to_owned(), content);
        self.archive.package("linux-source-7.2", "7.2.12-1", &[file])
    }

    /// What the two suites list.
    fn publish(&self, backports: &[Pin], sid: &[Pin]) {
        self.archive.publish("trixie-backports", backports, Index::Good);
        self.archive.publish("sid", sid, Index::Good);
    }

    /// Asks for the files; also the lines that a person has seen.
    fn get(&self) -> (Result<DebugFiles, Error>, Vec<String>) {
        let (progress, recorded) = Progress::recording();
        let options = &self.archive.options();
        let (cache, checkout, progress) = (&self.cache, self.dir.path(), &progress);
        let files = get(Context { cache, checkout, options, progress }, &self.kernel);
        (files, recorded.lines())
    }

    /// The error, which leaves nothing behind.
    fn refused(&self) -> Error {
        let error = self.get().0.expect_err("refused");
        assert!(!self.cache.path("debug").exists(), "something was kept");
        let left = fs::read_dir(self.cache.path("tmp")).map_or(0, Iterator::count);
        assert_eq!(left, 0, "temporary files were kept");
        error
    }
}

/// An ELF file with this build id, in hexadecimal.
fn elf(build_id: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (source, file) = (dir.path().join("x.c"), dir.path().join("x"));
    fs::write(&source, "int x;\n").expect("write");
    let mut cc = Command::new("cc");
    cc.args(["-nostdlib", "-static", "-Wl,-e,0"]).arg(format!("-Wl,--build-id=0x{build_id}"));
    tools::check(cc.arg("-o").arg(&file).arg(&source), "gcc").expect("cc runs");
    fs::read(file).expect("read")
}

/// As the archive would list it with another version.
fn in_version(pin: &Pin, version: &str) -> Pin {
    Pin { version: version.to_owned(), sha256: "0".repeat(64), ..pin.clone() }
}

/// The names of the files below `dir`, in order.
fn names(dir: &Path) -> Vec<String> {
    let mut command = Command::new("find");
    command.args([".", "-type", "f"]).current_dir(dir);
    let output = tools::check(&mut command, "findutils").expect("find runs");
    let mut names: Vec<String> = output.stdout.lines().map(str::to_owned).collect();
    names.sort();
    names
}

/// One suite has another version only, which tells of other code. Of the package, what nobody
/// here asks for is left out.
#[test]
fn package_of_the_kernels_own_version_is_fetched_once() {
    let fixture = Fixture::new();
    let vmlinux = elf("0101");
    let files: &[(&str, &[u8])] = &[
        ("vmlinux", &vmlinux),
        ("kernel/block/a.ko.debug", b"a"),
        ("kernel/drivers/block/b.ko.debug", b"b"),
        ("kernel/drivers/scsi/device_handler/c.ko.debug", b"c"),
        ("kernel/drivers/net/d.ko.debug", b"d"),
        ("kernel/fs/e.ko.debug", b"e"),
    ];
    let package = fixture.package(files);
    fixture.publish(std::slice::from_ref(&package), &[in_version(&package, "7.2.13-1")]);
    let (files, seen) = fixture.get();
    let files = files.expect("debug files");
    assert_eq!(fs::read(&files.vmlinux).expect("vmlinux"), vmlinux);
    let kept = ["./block/a.ko.debug", "./drivers/block/b.ko.debug"];
    let kept = [&kept[..], &["./drivers/scsi/device_handler/c.ko.debug"]].concat();
    assert_eq!(names(&files.modules), kept);
    assert_eq!(names(files.vmlinux.parent().expect("a directory")).len(), 4, "packages were kept");
    // Coverage does without source, and a reader is told what is missing.
    assert_eq!(files.source, None);
    let note = "the source of kernel 7.2.12+test-cloud-amd64 is not at hand: ";
    let note = seen.iter().find(|line| line.starts_with(note)).expect("a note");
    assert!(note.contains("linux-source-7.2 7.2.12-1"), "{note}");

    let requests = fixture.archive.requests();
    assert_eq!(fixture.get().0.expect("debug files"), files);
    assert_eq!(fixture.archive.requests(), requests, "the mirror was asked again");
}

#[test]
fn rebuilt_kernel_of_the_same_release_has_debug_files_of_its_own() {
    let mut fixture = Fixture::new();
    let package = fixture.package(&[("vmlinux", &elf("0101"))]);
    fixture.publish(std::slice::from_ref(&package), &[]);
    let (first, _) = fixture.get();
    fixture.kernel.origin = "7.2.12-1~bpo13+1".to_owned();
    let error = fixture.get().0.expect_err("the mirror has the other version only");
    assert!(error.to_string().contains("7.2.12-1~bpo13+1"), "{error}");
    fixture.kernel.origin = "7.2.12-1".to_owned();
    assert_eq!(fixture.get().0.expect("from the cache"), first.expect("debug files"));
}

#[test]
fn package_that_no_suite_has_is_named_with_its_version() {
    let fixture = Fixture::new();
    let package = fixture.package(&[("vmlinux", b"")]);
    fixture.publish(&[in_version(&package, "7.2.13-1")], &[]);
    let error = fixture.refused();
    assert!(matches!(error, Error::Apt(apt::Error::NoSuchPackage { .. })), "{error:?}");
    let wanted = "linux-image-7.2.12+test-cloud-amd64-dbg 7.2.12-1";
    assert!(error.to_string().contains(wanted), "{error}");
}

/// What cannot be read may have had the package: that is the trouble, not that others do not have it.
#[test]
fn suite_that_cannot_be_read_is_told_only_if_no_other_has_the_package() {
    for (unreadable, other) in [("sid", "trixie-backports"), ("trixie-backports", "sid")] {
        let fixture = Fixture::new();
        fixture.archive.publish(unreadable, &[], Index::Unsigned);
        fixture.archive.publish(other, &[], Index::Good);
        let error = fixture.refused();
        assert!(matches!(error, Error::Apt(apt::Error::Signature { .. })), "{error:?}");

        let fixture = Fixture::new();
        let package = fixture.package(&[("vmlinux", &elf("0101"))]);
        fixture.archive.publish(unreadable, &[], Index::Unsigned);
        fixture.archive.publish(other, &[package], Index::Good);
        fixture.get().0.expect("debug files");
    }
}

#[test]
fn debug_information_of_another_build_is_refused() {
    let fixture = Fixture::new();
    let package = fixture.package(&[("vmlinux", &elf("0202"))]);
    fixture.publish(&[package], &[]);
    let error = fixture.refused().to_string();
    assert!(error.contains("debug information of this very build"), "{error}");
}

/// An image without a build id, such as a bzImage, cannot be compared.
#[test]
fn image_without_a_build_id_takes_what_the_package_has() {
    let fixture = Fixture::new();
    fs::write(&fixture.kernel.image, "no ELF file").expect("write");
    let package = fixture.package(&[("vmlinux", &elf("0202"))]);
    fixture.publish(&[package], &[]);
    fixture.get().0.expect("debug files");
}

#[test]
fn package_without_vmlinux_is_refused() {
    let fixture = Fixture::new();
    let package = fixture.package(&[("kernel/block/a.ko.debug", b"a")]);
    fixture.publish(&[package], &[]);
    let error = fixture.refused().to_string();
    assert!(error.contains("have no vmlinux with debug information"), "{error}");
}

#[test]
fn kernel_whose_drivers_are_built_in_has_debug_files_without_modules() {
    let fixture = Fixture::new();
    let package = fixture.package(&[("vmlinux", &elf("0101")), ("kernel/fs/e.ko.debug", b"e")]);
    fixture.publish(&[package], &[]);
    let files = fixture.get().0.expect("debug files");
    let mut info = debug_info::DebugInfo::new(files);
    assert!(info.module("scsi_mod").expect("no module is no error").is_none());
}

/// tar leaves what it had of a file when its input ended.
#[test]
fn package_that_ends_early_is_an_error_although_its_files_are_there() {
    let fixture = Fixture::new();
    // Half of what does not compress is half a file.
    let noise: Vec<u8> = (0_u32..8_000)
        .flat_map(|n| apt::hex(&Sha256::digest(n.to_le_bytes())).into_bytes())
        .collect();
    fixture.package(&[("vmlinux", &noise)]);
    let deb = fixture.archive.deb(DEBUG_PACKAGE);
    let whole = fs::read(&deb).expect("read");
    let unpacked = |bytes: &[u8]| {
        fs::write(&deb, bytes).expect("write");
        let dir = tempfile::tempdir().expect("temporary directory");
        let result = unpack(&deb, dir.path(), RELEASE, || {});
        let len = fs::metadata(dir.path().join("vmlinux")).expect("a file").len();
        (result, len)
    };
    let (result, len) = unpacked(&whole);
    result.expect("it is whole");
    assert_eq!(len, 512_000);
    let (result, len) = unpacked(&whole[..whole.len() / 2]);
    assert!(len < 512_000, "{len}");
    let error = result.expect_err("it is not whole").to_string();
    assert!(error.contains("Unexpected EOF in archive"), "{error}");
}

#[test]
fn source_is_that_of_the_kernels_version_with_or_without_a_lock() {
    let locked = |pin: &Pin| {
        format!(
            "{STOCK}[kernel.source]\narch = \"amd64\"\nabout = \"x\"\nsource = {{ package = \
             \"linux-source-7.2\", suites = [\"trixie-backports\"], lock = {{ name = \"{}\", version \
             = \"{}\", sha256 = \"{}\" }} }}\n",
            pin.name, pin.version, pin.sha256
        )
    };
    let fixture = Fixture::new();
    let package = fixture.package(&[("vmlinux", &elf("0101"))]);
    let source = fixture.source();
    let newer = in_version(&source, "7.2.13-1");
    fixture.publish(&[package.clone(), source.clone(), newer.clone()], &[]);
    for manifest in [locked(&newer), STOCK.to_owned(), locked(&source)] {
        fixture.manifest(&manifest);
        let (files, seen) = fixture.get();
        let tree = files.expect("debug files").source.unwrap_or_else(|| panic!("{seen:?}"));
        assert_eq!(fs::read_to_string(tree.join("Makefile")).expect("read"), "VERSION = 7\n");
        let sources = fs::read_dir(fixture.cache.path("sources")).expect("sources");
        let sources: Vec<String> = sources
            .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
            .collect();
        assert_eq!(sources, [format!("linux-source-7.2-7.2.12-1-{}", &source.sha256[..12])]);
    }
    // The lock says all that is needed: no index is read.
    fixture.publish(&[package], &[]);
    fs::remove_dir_all(fixture.cache.path("apt")).expect("the indexes");
    let requests = fixture.archive.requests();
    assert!(fixture.get().0.expect("debug files").source.is_some());
    assert_eq!(fixture.archive.requests(), requests, "the mirror was asked");
}
