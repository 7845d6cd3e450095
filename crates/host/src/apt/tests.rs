//! The private root against an archive of our own: what apt refuses, and what we make of it.

use std::net::TcpListener;

use super::{
    fake::{Archive, Index},
    *,
};

fn cache() -> (tempfile::TempDir, Cache) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let cache = Cache::at(dir.path()).expect("cache");
    (dir, cache)
}

fn suite_of(cache: &Cache, options: &Options) -> Suite {
    let apt = Apt::open(cache, options).expect("apt");
    apt.suite("trixie", "amd64", Validity::Enforced).expect("a suite")
}

fn refreshed(archive: &Archive) -> Result<(), Error> {
    let (_dir, cache) = cache();
    suite_of(&cache, &archive.options()).refresh(Duration::ZERO, &Progress::quiet())
}

#[test]
fn index_is_read_searched_and_downloaded_from() {
    let archive = Archive::new();
    let pin = archive.package("tool-one", "1:2.0-3", &[("usr/share/one".into(), b"1".to_vec())]);
    archive.publish("trixie", std::slice::from_ref(&pin), Index::Good);
    let (dir, cache) = cache();
    let quiet = Progress::quiet();
    let suite = suite_of(&cache, &archive.options());
    suite.refresh(Duration::ZERO, &quiet).expect("a good archive");
    assert_eq!(suite.search("^tool-").expect("search"), ["tool-one"]);
    let packages = suite.show(&["tool-one", "nonesuch"]).expect("show");
    assert_eq!(packages.iter().map(Package::pin).collect::<Vec<_>>(), [pin]);
    assert_eq!(suite.show(&["nonesuch"]).expect("show"), []);

    let into = dir.path().join("debs");
    fs::create_dir(&into).expect("directory");
    let files = suite.download(&packages, &into, &quiet).expect("download");
    unpack(&files[0], &dir.path().join("root")).expect("unpack");
    assert_eq!(fs::read(dir.path().join("root/usr/share/one")).expect("the file"), b"1");
}

#[test]
fn fresh_index_is_not_read_again() {
    let archive = Archive::new();
    archive.publish("trixie", &[], Index::Good);
    let (_dir, cache) = cache();
    let suite = suite_of(&cache, &archive.options());
    suite.refresh(DAY, &Progress::quiet()).expect("a good archive");
    let before = archive.requests();
    suite.refresh(DAY, &Progress::quiet()).expect("nothing to do");
    assert_eq!(archive.requests(), before);
}

#[test]
fn unsigned_index_is_refused() {
    let archive = Archive::new();
    archive.publish("trixie", &[], Index::Unsigned);
    let error = refreshed(&archive).expect_err("unsigned");
    assert!(matches!(error, Error::Signature { .. }), "{error:?}");
}

#[test]
fn index_signed_with_a_foreign_key_is_refused() {
    let (archive, other) = (Archive::new(), Archive::new());
    archive.publish("trixie", &[], Index::Good);
    let options = Options { keyring: other.options().keyring, ..archive.options() };
    let (_dir, cache) = cache();
    let error = suite_of(&cache, &options)
        .refresh(Duration::ZERO, &Progress::quiet())
        .expect_err("a foreign key");
    assert!(matches!(error, Error::Signature { .. }), "{error:?}");
    assert!(error.to_string().contains("debian-archive-keyring"), "{error}");
}

#[test]
fn expired_index_is_refused_unless_contents_are_pinned() {
    let archive = Archive::new();
    archive.publish("trixie", &[], Index::Expired);
    let error = refreshed(&archive).expect_err("expired");
    assert!(matches!(error, Error::Expired { .. }), "{error:?}");
    assert!(error.to_string().contains("clock"), "{error}");
    let (_dir, cache) = cache();
    let apt = Apt::open(&cache, &archive.options()).expect("apt");
    let pinned = apt.suite("trixie", "amd64", Validity::Pinned).expect("a suite");
    pinned.refresh(Duration::ZERO, &Progress::quiet()).expect("its age does not matter");
}

#[test]
fn suite_the_mirror_lacks_is_not_found() {
    let error = refreshed(&Archive::new()).expect_err("an empty archive");
    assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
    assert!(error.to_string().contains("--mirror URL"), "{error}");
}

#[test]
fn mirror_that_does_not_answer_is_a_network_error() {
    let archive = Archive::new();
    // A port that was free a moment ago refuses connections.
    let port = TcpListener::bind("127.0.0.1:0").expect("port").local_addr().expect("address");
    let options = Options { mirror: Some(format!("http://{port}")), ..archive.options() };
    let (_dir, cache) = cache();
    let error = suite_of(&cache, &options)
        .refresh(Duration::ZERO, &Progress::quiet())
        .expect_err("nobody listens");
    assert!(matches!(error, Error::Network { .. }), "{error:?}");
    assert!(error.to_string().contains("--mirror URL"), "{error}");
}

#[test]
fn tampered_package_is_a_bad_checksum() {
    let archive = Archive::new();
    let pin = archive.package("tool", "1", &[]);
    archive.publish("trixie", &[pin], Index::Good);
    let mut deb = fs::read(archive.deb("tool")).expect("the package");
    let last = deb.len() - 1;
    deb[last] ^= 1;
    fs::write(archive.deb("tool"), deb).expect("write");
    let (dir, cache) = cache();
    let suite = suite_of(&cache, &archive.options());
    suite.refresh(Duration::ZERO, &Progress::quiet()).expect("the index is good");
    let packages = suite.show(&["tool"]).expect("show");
    let error = suite.download(&packages, dir.path(), &Progress::quiet()).expect_err("tampered");
    assert!(matches!(error, Error::Checksum { .. }), "{error:?}");
}

#[test]
fn downloaded_file_is_checked_against_its_package_once_more() {
    let archive = Archive::new();
    let pin = archive.package("tool", "1", &[]);
    archive.publish("trixie", &[pin], Index::Good);
    let (dir, cache) = cache();
    let suite = suite_of(&cache, &archive.options());
    suite.refresh(Duration::ZERO, &Progress::quiet()).expect("a good archive");
    let mut packages = suite.show(&["tool"]).expect("show");
    packages[0].sha256 = "0".repeat(64);
    let error =
        suite.download(&packages, dir.path(), &Progress::quiet()).expect_err("not that file");
    assert!(matches!(error, Error::Checksum { .. }), "{error:?}");
}

#[test]
fn pin_with_other_content_than_the_index_is_a_bad_checksum() {
    let archive = Archive::new();
    let pin = archive.package("tool", "1", &[]);
    archive.publish("trixie", std::slice::from_ref(&pin), Index::Good);
    let (_dir, cache) = cache();
    let suite = suite_of(&cache, &archive.options());
    suite.refresh(Duration::ZERO, &Progress::quiet()).expect("a good archive");
    let other = Pin { sha256: "0".repeat(64), ..pin };
    let error = suite.pinned(&other).expect_err("other content");
    assert!(matches!(error, Error::Checksum { .. }), "{error:?}");
}

#[test]
fn apts_words_are_understood() {
    let root = Path::new("/");
    let of = |output: &str| error::from_output(output, "http://m.example", "suite sid", root);
    let full = "E: Failed to fetch http://m.example/x  Error writing to file - write (28: No space left on device)";
    assert!(matches!(of(full), Error::Cache(crate::cache::Error::DiskFull { .. })));
    let lock = "E: Could not get lock /x/lists/lock. It is held by process 7 (apt-get)";
    assert!(matches!(of(lock), Error::Busy { .. }));
    let name = "E: Failed to fetch http://m.example/x  Temporary failure resolving 'm.example'";
    assert!(matches!(of(name), Error::Network { .. }));
    let newer = "E: The repository 'http://m.example sid InRelease' is not signed.";
    assert!(matches!(of(newer), Error::Signature { .. }));
    let gateway = "E: Failed to fetch http://m.example/InRelease  503  Service Unavailable\n\
                   E: The repository 'http://m.example sid InRelease' is not signed.";
    assert!(matches!(of(gateway), Error::Network { .. }));
    let error = of("E: The dog ate it");
    assert!(matches!(error, Error::Other { .. }) && error.to_string().contains("dog"), "{error}");
}

#[test]
fn versions_compare_as_in_debian() {
    let is = |a, b| compare_versions(a, b).expect("dpkg");
    assert_eq!(is("1:8.2~rc1", "1:8.2"), Ordering::Less);
    assert_eq!(is("1:10.0.2+ds-2", "1:8.2~"), Ordering::Greater);
    assert_eq!(is("1.0", "1.0"), Ordering::Equal);
}
