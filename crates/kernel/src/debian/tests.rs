//! Locked, vanished and floating kernels, from an archive with made-up ones.

use std::time::{Duration, SystemTime};

use super::*;
use crate::vmlinux::tests::{bz_image, elf, gzip};
use host::apt::fake::{Archive, Index};

const SUITE: &str = "trixie-backports";

fn release(version: &str) -> String {
    format!("{version}+test-cloud-amd64")
}

/// The three packages of a kernel, in the pool.
fn kernel(archive: &Archive, version: &str, signed: bool) -> Vec<Pin> {
    let release = release(version);
    let dir = format!("usr/lib/modules/{release}");
    let image = bz_image(&gzip(&elf(b"Xen\0", 18)));
    let (package, file) = if signed { ("binary", "") } else { ("binary-unsigned", ".unsigned") };
    let put = |part: &str, files: &[(String, Vec<u8>)]| {
        archive.package(&format!("linux-{part}-{release}"), &format!("{version}-1"), files)
    };
    vec![
        put(package, &[(format!("{dir}/vmlinuz{file}"), image)]),
        put("modules", &[(format!("{dir}/kernel/fs/x.ko"), b"x".to_vec())]),
        put("base", &[(format!("{dir}/config"), b"CONFIG_A=y\n".to_vec())]),
    ]
}

struct Fixture {
    archive: Archive,
    dir: tempfile::TempDir,
    cache: Cache,
}

impl Fixture {
    fn new() -> Fixture {
        let dir = tempfile::tempdir().expect("temporary directory");
        let cache = Cache::at(dir.path()).expect("cache");
        Fixture { archive: Archive::new(), dir, cache }
    }

    /// Asks for the kernel of `entry`.
    fn get(&self, entry: &Packages) -> Result<Kernel, Error> {
        let options = &self.archive.options();
        let wanted = Wanted { name: "k", arch: Arch::Amd64, entry, options };
        get(&self.cache, wanted, &Progress::quiet())
    }

    fn publish(&self, packages: &[Vec<Pin>], index: Index) {
        self.archive.publish(SUITE, &packages.concat(), index);
    }

    fn nothing_is_kept(&self) {
        assert!(!self.cache.path("kernels").exists(), "a kernel was kept");
        let tmp = fs::read_dir(self.cache.path("tmp")).map_or(0, Iterator::count);
        assert_eq!(tmp, 0, "temporary files were kept");
    }

    /// Makes everything known of the mirror an hour old.
    fn an_hour_passes(&self) {
        let hour_ago = SystemTime::now() - Duration::from_secs(3600);
        for root in fs::read_dir(self.dir.path().join("apt")).expect("private roots").flatten() {
            let stamp = fs::File::options().append(true).open(root.path().join("updated"));
            stamp.and_then(|stamp| stamp.set_modified(hour_ago)).expect("the stamp");
        }
    }
}

fn entry(lock: Option<LockedKernel>) -> Packages {
    Packages {
        flavour: "cloud-amd64".to_owned(),
        suites: vec![SUITE.to_owned()],
        minimum: "7.1".parse().expect("a version"),
        series: None,
        lock,
    }
}

fn locked(version: &str, packages: &[Pin]) -> Packages {
    entry(Some(LockedKernel { release: release(version), packages: packages.to_vec() }))
}

#[test]
fn locked_kernel_is_fetched_once_and_then_needs_no_mirror() {
    let fixture = Fixture::new();
    let (wanted, newer) =
        (kernel(&fixture.archive, "7.2.12", true), kernel(&fixture.archive, "7.2.13", true));
    fixture.publish(&[wanted.clone(), newer], Index::Good);
    let got = fixture.get(&locked("7.2.12", &wanted)).expect("a kernel");
    assert_eq!(got.release, "7.2.12+test-cloud-amd64");
    assert_eq!(got.origin, "7.2.12-1");
    assert_eq!(got.note, None);
    assert!(got.config_has("CONFIG_A") && !got.config_has("CONFIG_B"));
    assert_eq!(fs::read(&got.image).expect("vmlinux"), elf(b"Xen\0", 18));
    assert!(got.modules_dir.join("kernel/fs/x.ko").exists());

    let requests = fixture.archive.requests();
    fs::remove_dir_all(fixture.dir.path().join("apt")).expect("not needed any more");
    let again = fixture.get(&locked("7.2.12", &wanted)).expect("the cached kernel");
    assert_eq!(again.image, got.image);
    assert_eq!(fixture.archive.requests(), requests, "the mirror was asked again");
}

#[test]
fn vanished_kernel_is_replaced_by_the_newest_of_its_series_and_every_run_says_so() {
    let fixture = Fixture::new();
    let gone = kernel(&fixture.archive, "7.2.12", true);
    let (old, series, other) = (
        kernel(&fixture.archive, "7.2.9", true),
        kernel(&fixture.archive, "7.2.14", true),
        kernel(&fixture.archive, "7.3.1", true),
    );
    fixture.publish(&[old, series, other], Index::Good);
    let requests = |fixture: &Fixture| fixture.archive.requests();
    let mut before = 0;
    for round in 0..2 {
        let got = fixture.get(&locked("7.2.12", &gone)).expect("a replacement");
        assert_eq!(got.release, release("7.2.14"));
        let note = got.note.expect("a note");
        for word in ["7.2.12+test-cloud-amd64", "7.2.14+test", "images/kernels.toml"] {
            assert!(note.contains(word), "{note}");
        }
        assert!(round == 0 || requests(&fixture) == before, "the choice was not remembered");
        before = requests(&fixture);
    }
}

#[test]
fn kernel_dropped_since_the_index_was_read_is_replaced_too() {
    let fixture = Fixture::new();
    let (wanted, later) =
        (kernel(&fixture.archive, "7.2.12", true), kernel(&fixture.archive, "7.2.13", true));
    fixture.publish(std::slice::from_ref(&wanted), Index::Good);
    let options = fixture.archive.options();
    let apt = Apt::open(&fixture.cache, &options).expect("apt");
    let suite = apt.suite(SUITE, "amd64", Validity::Enforced).expect("suite");
    suite.refresh(Duration::ZERO, &Progress::quiet()).expect("the old index");
    fixture.an_hour_passes();
    for pin in &wanted {
        fs::remove_file(fixture.archive.deb(&pin.name)).expect("remove");
    }
    fixture.publish(&[later], Index::Good);
    let got = fixture.get(&locked("7.2.12", &wanted)).expect("a replacement");
    assert_eq!(got.release, release("7.2.13"));
    assert!(got.note.is_some());
}

#[test]
fn without_any_of_its_series_a_vanished_kernel_is_an_error() {
    let fixture = Fixture::new();
    let gone = kernel(&fixture.archive, "7.2.12", true);
    fixture.publish(&[kernel(&fixture.archive, "7.3.1", true)], Index::Good);
    let error = fixture.get(&locked("7.2.12", &gone)).expect_err("another series");
    assert!(matches!(error, Error::NoneSuitable { .. }), "{error:?}");
    assert!(error.to_string().contains("7.2") && error.to_string().contains("--kernel"), "{error}");
}

#[test]
fn tampered_kernel_leaves_nothing_behind() {
    let fixture = Fixture::new();
    let wanted = kernel(&fixture.archive, "7.2.12", true);
    fixture.publish(std::slice::from_ref(&wanted), Index::Good);
    let deb = fixture.archive.deb(&wanted[1].name);
    let mut bytes = fs::read(&deb).expect("the package");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&deb, bytes).expect("write");
    let error = fixture.get(&locked("7.2.12", &wanted)).expect_err("tampered");
    assert!(matches!(error, Error::Apt(apt::Error::Checksum { .. })), "{error:?}");
    fixture.nothing_is_kept();
}

#[test]
fn other_content_than_locked_is_never_used() {
    let fixture = Fixture::new();
    let wanted = kernel(&fixture.archive, "7.2.12", true);
    fixture.publish(std::slice::from_ref(&wanted), Index::Good);
    let mut lock = wanted;
    lock[0].sha256 = "0".repeat(64);
    let error = fixture.get(&locked("7.2.12", &lock)).expect_err("other content");
    assert!(matches!(error, Error::Apt(apt::Error::Checksum { .. })), "{error:?}");
    fixture.nothing_is_kept();
}

#[test]
fn locked_kernel_is_taken_from_an_expired_index_and_a_floating_one_is_not() {
    let fixture = Fixture::new();
    let wanted = kernel(&fixture.archive, "7.2.12", true);
    fixture.publish(std::slice::from_ref(&wanted), Index::Expired);
    let error = fixture.get(&entry(None)).expect_err("who knows what is newest");
    assert!(matches!(error, Error::Apt(apt::Error::Expired { .. })), "{error:?}");
    fixture.get(&locked("7.2.12", &wanted)).expect("its content is locked");
}

#[test]
fn floating_kernel_is_the_newest_by_number_signed_or_not() {
    let fixture = Fixture::new();
    let packages = [
        kernel(&fixture.archive, "7.0.20", true),
        kernel(&fixture.archive, "7.2.9", true),
        kernel(&fixture.archive, "7.2.12", false),
        // Half a kernel: its modules have not arrived yet.
        kernel(&fixture.archive, "7.3.1", true)[..1].to_vec(),
    ];
    fixture.publish(&packages, Index::Good);
    let mut entry = entry(None);
    entry.suites.push("sid".to_owned());
    let got = fixture.get(&entry).expect("a kernel");
    assert_eq!(got.release, release("7.2.12"));
    let note = got.note.expect("sid cannot be read");
    assert!(note.contains("suite sid is left out"), "{note}");
}

#[test]
fn kernel_below_the_minimum_is_not_suitable() {
    let fixture = Fixture::new();
    fixture.publish(&[kernel(&fixture.archive, "7.0.20", true)], Index::Good);
    let error = fixture.get(&entry(None)).expect_err("too old");
    assert!(matches!(error, Error::NoneSuitable { .. }), "{error:?}");
    assert!(error.to_string().contains("≥ 7.1"), "{error}");
}

#[test]
fn signed_image_is_preferred() {
    let fixture = Fixture::new();
    let packages =
        [kernel(&fixture.archive, "7.2.12", false), kernel(&fixture.archive, "7.2.12", true)];
    fixture.publish(&[packages[0][..1].to_vec(), packages[1].clone()], Index::Good);
    let options = fixture.archive.options();
    let apt = Apt::open(&fixture.cache, &options).expect("apt");
    let mut notes = Vec::new();
    let found =
        newest(&apt, Arch::Amd64, &entry(None), &mut notes, &Progress::quiet()).expect("a kernel");
    let names: Vec<&str> = found.packages.iter().map(|package| package.name.as_str()).collect();
    assert_eq!(names[0], "linux-binary-7.2.12+test-cloud-amd64");
    assert_eq!(names.len(), 3);
}

#[test]
fn without_the_mirror_an_older_choice_is_used_with_a_note() {
    let fixture = Fixture::new();
    fixture.publish(&[kernel(&fixture.archive, "7.2.12", true)], Index::Good);
    fixture.get(&entry(None)).expect("a kernel");
    let two_days_ago = SystemTime::now() - 2 * DAY;
    let selection = fixture.cache.path("selections/k.json");
    let file = fs::File::options().append(true).open(selection).expect("the choice");
    file.set_modified(two_days_ago).expect("older");
    fs::remove_dir_all(fixture.dir.path().join("apt")).expect("the index");
    fixture.publish(&[], Index::Unsigned);
    let got = fixture.get(&entry(None)).expect("the older choice");
    assert_eq!(got.release, release("7.2.12"));
    assert!(got.note.expect("a note").contains("as found earlier"));
}
