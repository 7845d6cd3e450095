//! Which kernel modules go into the image, and in which order they load.
//!
//! The packages ship no `modules.dep`; what a module needs is taken from its own `.modinfo`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use object::{Object, ObjectSection};
use serde::{Deserialize, Serialize};

use super::Error;
use host::cache::at;
use kernel::compression::Format;

/// A module of the image, decompressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Module {
    /// With underscores, as in `/proc/modules`.
    pub(crate) name: String,
    /// Modules of the image to be loaded before it.
    pub(crate) depends: Vec<String>,
    /// The `.ko` file's content.
    pub(crate) content: Vec<u8>,
}

/// A wanted module the image cannot have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Missing {
    /// With underscores.
    pub name: String,
    /// Why, for the tests that are skipped.
    pub reason: String,
}

/// The modules of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Closure {
    /// In load order: dependencies before dependents.
    pub(crate) modules: Vec<Module>,
    /// Wanted, and part of the kernel itself.
    pub(crate) builtin: BTreeSet<String>,
    /// Wanted, and not to be had.
    pub(crate) missing: Vec<Missing>,
}

/// The kernel's spelling: `-` and `_` mean the same in a module's name.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// The modules a kernel has.
#[derive(Debug)]
struct Index {
    files: BTreeMap<String, PathBuf>,
    builtin: BTreeSet<String>,
}

impl Index {
    fn read(modules_dir: &Path) -> Result<Index, Error> {
        let mut files = BTreeMap::new();
        collect(&modules_dir.join("kernel"), &mut files)?;
        let path = modules_dir.join("modules.builtin");
        let list = match fs::read_to_string(&path) {
            Ok(list) => list,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(at("read", &path)(error).into()),
        };
        let builtin = list.lines().filter_map(|line| module_name(Path::new(line))).collect();
        Ok(Index { files, builtin })
    }
}

/// Every module of a kernel, in the order of their names.
pub(crate) fn module_files(modules_dir: &Path) -> Result<Vec<PathBuf>, Error> {
    Ok(Index::read(modules_dir)?.files.into_values().collect())
}

/// Adds all modules under `dir`.
fn collect(dir: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<(), Error> {
    for entry in fs::read_dir(dir).map_err(at("read", dir))? {
        let entry = entry.map_err(at("read", dir))?;
        let path = entry.path();
        if entry.file_type().map_err(at("look at", &path))?.is_dir() {
            collect(&path, files)?;
        } else if let Some(name) = module_name(&path) {
            files.insert(name, path);
        }
    }
    Ok(())
}

/// The module's name if the path is that of a module, compressed or not.
fn module_name(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let (stem, compression) = file.split_once(".ko")?;
    matches!(compression, "" | ".xz" | ".zst" | ".gz").then(|| canonical(stem))
}

/// `wanted` and all they depend on, from `modules_dir`.
pub(crate) fn closure(modules_dir: &Path, wanted: &[String]) -> Result<Closure, Error> {
    let index = Index::read(modules_dir)?;
    let mut walk = Walk { index: &index, begun: BTreeMap::new(), closure: Closure::default() };
    for name in wanted {
        if let Some(reason) = walk.add(name)? {
            walk.closure.missing.push(Missing { name: canonical(name), reason });
        }
    }
    Ok(walk.closure)
}

struct Walk<'a> {
    index: &'a Index,
    /// Modules come across so far, each with the reason why it cannot be had, if any.
    begun: BTreeMap<String, Option<String>>,
    closure: Closure,
}

impl Walk<'_> {
    /// Adds a module after its dependencies. Returns the reason if it cannot be had.
    fn add(&mut self, name: &str) -> Result<Option<String>, Error> {
        let name = canonical(name);
        if self.index.builtin.contains(&name) {
            self.closure.builtin.insert(name);
            return Ok(None);
        }
        if let Some(known) = self.begun.get(&name) {
            return Ok(known.clone());
        }
        let Some(path) = self.index.files.get(&name) else {
            return Ok(Some(format!("the kernel has no module {name}")));
        };
        // Before its dependencies: soft ones may form a circle.
        self.begun.insert(name.clone(), None);
        let content = read_module(path)?;
        let info = ModInfo::of(&content).map_err(|detail| damaged(path, &detail))?;
        let mut depends = Vec::new();
        for dependency in &info.depends {
            if let Some(reason) = self.add(dependency)? {
                let reason = Some(format!("{name} needs {dependency}: {reason}"));
                self.begun.insert(name, reason.clone());
                return Ok(reason);
            }
            depends.push(dependency);
        }
        for dependency in &info.soft_before {
            // Soft: done without where it is missing.
            if self.add(dependency)?.is_none() {
                depends.push(dependency);
            }
        }
        let builtin = &self.index.builtin;
        let depends =
            depends.into_iter().filter(|name| !builtin.contains(*name)).cloned().collect();
        self.closure.modules.push(Module { name, depends, content });
        for after in &info.soft_after {
            // Likewise.
            let _ = self.add(after)?;
        }
        Ok(None)
    }
}

fn damaged(path: &Path, detail: &str) -> Error {
    Error::Module { path: path.to_owned(), detail: detail.to_owned() }
}

/// The content of a module's file, decompressed.
fn read_module(path: &Path) -> Result<Vec<u8>, Error> {
    let data = fs::read(path).map_err(at("read", path))?;
    if data.starts_with(b"\x7fELF") {
        return Ok(data);
    }
    let format =
        Format::of(&data).map_err(|method| damaged(path, &format!("compressed with {method}")))?;
    let mut content = Vec::new();
    format.undo(&data, &mut content).map_err(|detail| damaged(path, &detail))?;
    Ok(content)
}

/// What a module says about its relation to others.
#[derive(Debug, Default, PartialEq, Eq)]
struct ModInfo {
    depends: Vec<String>,
    soft_before: Vec<String>,
    soft_after: Vec<String>,
}

impl ModInfo {
    /// Reads the section `.modinfo`: strings `key=value`, each ended by a zero byte.
    fn of(content: &[u8]) -> Result<ModInfo, String> {
        let file = object::File::parse(content).map_err(|error| error.to_string())?;
        let section = file.section_by_name(".modinfo").ok_or("no section .modinfo")?;
        let data = section.data().map_err(|error| error.to_string())?;
        let mut info = ModInfo::default();
        for string in data.split(|byte| *byte == 0) {
            let string = String::from_utf8_lossy(string);
            match string.split_once('=') {
                Some(("depends", list)) => info.depends.extend(names(list.split(','))),
                Some(("softdep", list)) => info.add_soft(list),
                _ => {}
            }
        }
        Ok(info)
    }

    /// A soft dependency, as in `pre: crc32c aes post: foo`.
    fn add_soft(&mut self, list: &str) {
        let mut list_for = None;
        for word in list.split_whitespace() {
            match (word, list_for) {
                ("pre:" | "post:", _) => list_for = Some(word),
                (name, Some("pre:")) => self.soft_before.push(canonical(name)),
                (name, Some(_)) => self.soft_after.push(canonical(name)),
                (_, None) => {}
            }
        }
    }
}

fn names<'a>(words: impl Iterator<Item = &'a str>) -> impl Iterator<Item = String> {
    words.filter(|word| !word.is_empty()).map(canonical)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;

    use object::write;

    use super::*;

    /// A relocatable ELF file with only a `.modinfo`.
    pub(crate) fn module_file(modinfo: &[&str]) -> Vec<u8> {
        let mut file = write::Object::new(
            object::BinaryFormat::Elf,
            object::Architecture::X86_64,
            object::Endianness::Little,
        );
        let section =
            file.add_section(Vec::new(), b".modinfo".to_vec(), object::SectionKind::ReadOnlyData);
        let data: Vec<u8> = modinfo.iter().flat_map(|s| [s.as_bytes(), b"\0"].concat()).collect();
        file.append_section_data(section, &data, 1);
        file.write().expect("an object file")
    }

    fn compress_xz(data: &[u8]) -> Vec<u8> {
        let options = lzma_rust2::XzOptions::with_preset(1);
        let mut writer = lzma_rust2::XzWriter::new(Vec::new(), options).expect("xz");
        writer.write_all(data).expect("xz");
        writer.finish().expect("xz")
    }

    /// A modules directory with SCSI's real relations, each module compressed in another way.
    pub(crate) fn modules_dir() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("temporary directory");
        let scsi = dir.path().join("kernel/drivers/scsi");
        fs::create_dir_all(&scsi).expect("directory");
        let put = |name: &str, data: &[u8]| fs::write(scsi.join(name), data).expect("write");
        put("scsi_common.ko", &module_file(&["depends=", "name=scsi_common"]));
        put("scsi_mod.ko.xz", &compress_xz(&module_file(&["depends=scsi-common"])));
        let zstd = ruzstd::encoding::compress_to_vec(
            &module_file(&["depends=scsi_mod,scsi_common"])[..],
            ruzstd::encoding::CompressionLevel::Fastest,
        );
        put("sd-mod.ko.zst", &zstd);
        put("orphan.ko", &module_file(&["depends=gone"]));
        put("soft.ko", &module_file(&["depends=", "softdep=pre: scsi_common gone post: soft2"]));
        put("soft2.ko", &module_file(&["depends=soft", "softdep=pre: soft"]));
        put("README", b"not a module");
        fs::write(dir.path().join("modules.builtin"), "kernel/drivers/virtio/virtio-ring.ko\n")
            .expect("write");
        dir
    }

    fn of(wanted: &[&str]) -> Closure {
        let dir = modules_dir();
        let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
        closure(dir.path(), &wanted).expect("a closure")
    }

    fn order(closure: &Closure) -> Vec<&str> {
        closure.modules.iter().map(|module| module.name.as_str()).collect()
    }

    #[test]
    fn dependencies_come_before_dependents_and_once() {
        let closure = of(&["sd_mod", "scsi_mod", "sd-mod"]);
        assert_eq!(order(&closure), ["scsi_common", "scsi_mod", "sd_mod"]);
        assert_eq!(closure.modules[2].depends, ["scsi_mod", "scsi_common"]);
        assert!(closure.modules.iter().all(|module| module.content.starts_with(b"\x7fELF")));
        assert_eq!(closure.missing, []);
    }

    #[test]
    fn built_in_module_is_neither_in_the_image_nor_missing() {
        let closure = of(&["virtio_ring"]);
        assert_eq!(order(&closure), [""; 0]);
        assert_eq!(closure.builtin, BTreeSet::from(["virtio_ring".to_owned()]));
        assert_eq!(closure.missing, []);
    }

    #[test]
    fn missing_module_is_data_with_a_reason() {
        let closure = of(&["nonesuch", "orphan"]);
        assert_eq!(order(&closure), [""; 0]);
        let reasons: Vec<(&str, &str)> =
            closure.missing.iter().map(|m| (m.name.as_str(), m.reason.as_str())).collect();
        assert_eq!(
            reasons,
            [
                ("nonesuch", "the kernel has no module nonesuch"),
                ("orphan", "orphan needs gone: the kernel has no module gone"),
            ]
        );
    }

    #[test]
    fn soft_dependencies_are_taken_where_they_exist_and_may_form_a_circle() {
        let closure = of(&["soft"]);
        assert_eq!(order(&closure), ["scsi_common", "soft", "soft2"]);
        assert_eq!(closure.modules[1].depends, ["scsi_common"]);
        assert_eq!(closure.missing, []);
    }

    #[test]
    fn damaged_module_is_an_error_that_names_it() {
        let dir = modules_dir();
        let path = dir.path().join("kernel/drivers/scsi/scsi_mod.ko.xz");
        let whole = fs::read(&path).expect("read");
        fs::write(&path, &whole[..whole.len() / 2]).expect("write");
        let error = closure(dir.path(), &["scsi_mod".to_owned()]).expect_err("damaged");
        assert!(error.to_string().contains("scsi_mod.ko.xz"), "{error}");
    }
}
