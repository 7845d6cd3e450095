//! The image, read back with the cpio reader, from a kernel of made-up modules.

use std::{collections::BTreeMap, io::Read};

use cpio::newc::Reader;

use guest_protocol::needs::{Class, Needs};

use super::*;
use crate::{
    plan::Test,
    programs::{self, Programs},
};

struct Fixture {
    dir: tempfile::TempDir,
    modules: tempfile::TempDir,
    cache: Cache,
    agent: PathBuf,
    tests: PathBuf,
    ublk: PathBuf,
}

impl Fixture {
    fn new() -> Fixture {
        let dir = tempfile::tempdir().expect("temporary directory");
        let cache = Cache::at(&dir.path().join("cache")).expect("cache");
        let [agent, tests, ublk] = ["agent", "tests", "ublk"].map(|name| {
            let path = dir.path().join(name);
            fs::write(&path, format!("the {name}")).expect("write");
            path
        });
        Fixture { dir, modules: modules::tests::modules_dir(), cache, agent, tests, ublk }
    }

    fn kernel(&self) -> Kernel {
        Kernel::for_test("7.2.12-test", self.modules.path(), "")
    }

    fn build(&self, extra: &[&str]) -> Image {
        let manifest = Manifest {
            directories: vec!["dev".to_owned(), "bin".to_owned(), "modules".to_owned()],
            modules: vec!["sd_mod".to_owned(), "virtio_ring".to_owned(), "nonesuch".to_owned()],
            devices: vec![Device {
                path: "dev/console".to_owned(),
                major: 5,
                minor: 1,
                mode: 0o600,
            }],
        };
        let extra: Vec<String> = extra.iter().map(ToString::to_string).collect();
        let ingredients = Ingredients {
            kernel: &self.kernel(),
            agent: &self.agent,
            tests: &self.tests,
            ublk: &self.ublk,
            extra_modules: &extra,
        };
        build(&self.cache, &manifest, ingredients, &Progress::quiet()).expect("an image")
    }
}

/// Mode, device numbers, content.
pub(crate) type Entry = (u32, (u32, u32), Vec<u8>);

/// Names and entries, over all archives of the file.
pub(crate) fn read_back(path: &Path) -> BTreeMap<String, Entry> {
    let bytes = fs::read(path).expect("the image");
    let mut rest = &bytes[..];
    let mut entries = BTreeMap::new();
    while !rest.is_empty() {
        let mut reader = Reader::new(rest).expect("an entry");
        let entry = reader.entry();
        if entry.is_trailer() {
            rest = reader.finish().expect("the end of an archive");
            continue;
        }
        let (name, mode) = (entry.name().to_owned(), entry.mode());
        let device = (entry.rdev_major(), entry.rdev_minor());
        let mut content = Vec::new();
        reader.read_to_end(&mut content).expect("content");
        assert!(entries.insert(name.clone(), (mode, device, content)).is_none(), "{name} twice");
        rest = reader.finish().expect("the next entry");
    }
    entries
}

#[test]
fn image_has_init_tests_console_and_modules_in_order() {
    let fixture = Fixture::new();
    let image = fixture.build(&[]);
    let entries = read_back(&image.path);
    assert_eq!(entries["init"], (0o100_755, (0, 0), b"the agent".to_vec()));
    assert_eq!(entries["bin/guest-tests"], (0o100_755, (0, 0), b"the tests".to_vec()));
    assert_eq!(entries["bin/sensecheck-ublk"].2, b"the ublk");
    assert_eq!(entries["dev/console"], (0o020_600, (5, 1), Vec::new()));
    assert_eq!(entries["dev"].0, 0o040_755);
    assert!(entries["modules/scsi_mod.ko"].2.starts_with(b"\x7fELF"));
    let order = String::from_utf8(entries["modules/order"].2.clone()).expect("text");
    assert_eq!(
        order,
        "scsi_common scsi_common.ko\n\
         scsi_mod scsi_mod.ko scsi_common\n\
         sd_mod sd_mod.ko scsi_mod,scsi_common\n"
    );
    assert_eq!(image.contents.modules, ["scsi_common", "scsi_mod", "sd_mod"]);
    assert_eq!(image.contents.builtin, ["virtio_ring"]);
    assert_eq!(image.contents.missing.len(), 1);
    assert_eq!(image.contents.missing[0].name, "nonesuch");
}

#[test]
fn image_is_remade_exactly_when_a_binary_changes() {
    let fixture = Fixture::new();
    let first = fixture.build(&[]);
    assert_eq!(fixture.build(&[]), first);
    let before = fs::metadata(&fixture.tests).and_then(|m| m.modified()).expect("a time");
    fs::write(&fixture.tests, b"new tests").expect("write");
    // Of the same size, and written within the same second.
    let file = fs::File::options().append(true).open(&fixture.tests).expect("the tests");
    file.set_modified(before + Duration::from_nanos(1)).expect("a later time");
    let second = fixture.build(&[]);
    assert_ne!(second.path, first.path);
    assert_eq!(read_back(&second.path)["bin/guest-tests"].2, b"new tests");
}

#[test]
fn extra_modules_are_added_to_the_standard_ones() {
    let fixture = Fixture::new();
    let image = fixture.build(&["soft2", "sd_mod"]);
    assert_eq!(image.contents.modules, ["scsi_common", "scsi_mod", "sd_mod", "soft", "soft2"]);
}

#[test]
fn absent_program_is_named() {
    let fixture = Fixture::new();
    fs::remove_file(&fixture.tests).expect("remove");
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let manifest = Manifest::read(&checkout).expect("images/initramfs.toml");
    let ingredients = Ingredients {
        kernel: &fixture.kernel(),
        agent: &fixture.agent,
        tests: &fixture.tests,
        ublk: &fixture.ublk,
        extra_modules: &[],
    };
    let built = build(&fixture.cache, &manifest, ingredients, &Progress::quiet());
    let text = built.expect_err("no tests").to_string();
    assert!(text.contains(&fixture.tests.display().to_string()), "{text}");
}

/// A machine gets the programs its tests need, and no other. What cannot be had is told of these tests alone.
#[test]
fn programs_are_in_the_images_of_those_who_need_them() {
    let fixture = Fixture::new();
    let mut archive = Archive::new();
    archive.file("bin/tool", 0o755, b"a tool");
    let path = fixture.cache.write("programs.cpio", &archive.finish()).expect("written");
    let needs = |programs: Option<&'static str>| Needs {
        programs: programs.map(Into::into),
        ..Needs::DEFAULT
    };
    let of = [None, Some("tools"), Some("gone")].map(needs);
    let tests = of.clone().map(|needs| Test {
        name: "t".into(),
        function: "t".into(),
        class: Class::Contract,
        needs,
    });
    let get = |name: &str| match name {
        "tools" => {
            Ok(Programs { archive: path.clone(), modules: vec!["sd_mod".into()], note: None })
        }
        _ => Err(programs::Error::UnknownSet { name: name.into(), known: vec!["tools".into()] }),
    };
    let kernel = fixture.kernel();
    let Fixture { agent, tests: binary, ublk, .. } = &fixture;
    let ingredients =
        Ingredients { kernel: &kernel, agent, tests: binary, ublk, extra_modules: &[] };
    let manifest = Manifest { directories: vec!["bin".into()], modules: vec![], devices: vec![] };
    let quiet = Progress::quiet();
    let images = Images::build(
        &fixture.cache,
        &manifest,
        ingredients,
        &tests,
        fixture.dir.path(),
        get,
        &quiet,
    );
    let images = images.expect("images");
    let [plain, tools, gone] = of.map(|needs| images.of(&needs.vm_shape()));
    assert_eq!(plain.as_deref(), Ok(images.plain()));
    let names = |image: &Path| read_back(image).into_keys().collect::<Vec<_>>();
    let plain = names(plain.expect("an image"));
    assert!(!plain.iter().any(|name| name == "bin/tool" || name.starts_with("modules/sd_mod")));
    let tools = tools.expect("an image");
    assert!(tools.starts_with(fixture.dir.path()) && !tools.starts_with(fixture.cache.root()));
    let entries = read_back(tools);
    assert_eq!(entries["bin/tool"], (0o100_755, (0, 0), b"a tool".to_vec()));
    assert_eq!(entries["init"].2, b"the agent");
    let tools = names(tools);
    let has = |name: &str| tools.iter().any(|there| there == name);
    assert!(has("bin/tool") && has("modules/sd_mod.ko"), "{tools:?}");
    assert!(gone.expect_err("no such set").contains("\"gone\""));
}
