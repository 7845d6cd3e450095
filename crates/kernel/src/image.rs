//! A kernel image the user has built or got elsewhere.

use std::{
    fs,
    io::Read,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use host::{
    cache::{Cache, at, identity},
    progress::Progress,
};

use object::Object as _;

use crate::{
    Built, Error, Kernel, STORED, Stored,
    config::Config,
    fragments::Fragments,
    manifest::{Arch, Version},
    place, vmlinux,
    workspace::digest,
};

/// What stands before and after the gzipped configuration in a kernel with `CONFIG_IKCONFIG`
/// (`kernel/configs.c`).
const IKCONFIG: (&[u8], &[u8]) = (b"IKCFG_ST", b"IKCFG_ED");
/// The start of `linux_banner` (`init/version.c`).
const BANNER: &[u8] = b"Linux version ";

/// An image and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFiles {
    /// A bzImage, or a vmlinux with a PVH entry.
    pub image: PathBuf,
    /// The directory with `kernel/` and `modules.builtin`, as `modules_install` makes it; without it,
    /// one is looked for where the image's build would have it.
    pub modules: Option<PathBuf>,
    /// Its configuration, if it is neither in the image nor beside it.
    pub config: Option<PathBuf>,
}

/// What an image says of itself.
struct Contents {
    /// The file as it is.
    bytes: Vec<u8>,
    /// The ELF file QEMU enters directly; without it the image is a bzImage that decompresses itself,
    /// which only takes longer.
    elf: Option<Vec<u8>>,
    release: String,
}

impl Contents {
    fn read(path: &Path) -> Result<Contents, Error> {
        let bad = |detail: String| Error::Input { what: path.display().to_string(), detail };
        let bytes = fs::read(path).map_err(|error| {
            bad(format!("{error}; give a bzImage, or a vmlinux with a PVH entry"))
        })?;
        let elf = match vmlinux::extract(&bytes) {
            Ok(elf) => Some(elf),
            Err(vmlinux::Error::NoPvh | vmlinux::Error::Compression(_))
                if !bytes.starts_with(b"\x7fELF") =>
            {
                None
            }
            Err(error) => return Err(bad(error.to_string())),
        };
        let release = release_of(elf.as_deref().unwrap_or(&bytes))
            .or_else(|| release_of_header(&bytes))
            .ok_or_else(|| bad("it does not say which release of Linux it is".to_owned()))?;
        Version::of_release(&release)
            .ok_or_else(|| bad(format!("its release {release:?} has no version number")))?;
        Ok(Contents { bytes, elf, release })
    }
}

/// The kernel of an image, prepared in the cache.
pub(crate) fn get(
    cache: &Cache,
    files: &ImageFiles,
    fragments: &Fragments,
    progress: &Progress,
) -> Result<Kernel, Error> {
    let path = &files.image;
    let contents = Contents::read(path)?;
    let modules = modules_dir(files, &contents.release)?;
    let (config, from) =
        configuration(files, contents.elf.as_deref(), modules.as_deref(), &contents.release)?;
    let parsed = Config::parse(&from, &config)
        .map_err(|error| Error::Input { what: from.clone(), detail: error.to_string() })?;
    let unmet = fragments.unmet_requirements(&parsed);
    if !unmet.is_empty() {
        let hint = "the bench cannot run tests without them: build the kernel with them set";
        return Err(Error::Symbols { config: from, symbols: unmet, hint: hint.to_owned() });
    }
    let mut notes: Vec<String> = fragments.limits(&parsed).into_iter().collect();
    let builtin = builtin_list(files, modules.as_deref());
    if builtin.is_none() {
        notes.push(format!(
            "no modules.builtin was found for {}: drivers built into it are not known, and tests that \
             need them are skipped; give `--modules DIR`",
            path.display()
        ));
    }
    let key = format!("{}-{}", contents.release, key(path, modules.as_deref(), &config)?);
    cache.entry(&place(&key), 0, progress, |dir| {
        match &contents.elf {
            Some(elf) => write(&dir.join("vmlinux"), elf)?,
            None => write(&dir.join("bzImage"), &contents.bytes)?,
        }
        write(&dir.join("config"), config.as_bytes())?;
        link_modules(dir, modules.as_deref(), &builtin.unwrap_or_default())?;
        if let Some(vmlinux) = debug_vmlinux(path, contents.elf.as_deref()) {
            let debug = dir.join("debug");
            fs::create_dir(&debug).map_err(at("make", &debug))?;
            let link = debug.join("vmlinux");
            symlink(&vmlinux, &link).map_err(at("link", &link))?;
        }
        let origin = path.display().to_string();
        let source = path.parent().unwrap_or(path).to_owned();
        let objects = modules.clone().unwrap_or_else(|| source.clone());
        let note = (!notes.is_empty()).then(|| notes.join("; "));
        let built = Some(Built { origin, source, objects, note });
        let release = contents.release.clone();
        let stored = Stored { release, arch: Arch::Amd64, packages: Vec::new(), built };
        let json = serde_json::to_vec_pretty(&stored).expect("plain data has a JSON form");
        write(&dir.join(STORED), &json)
    })?;
    let vanished = || Error::Damaged {
        dir: cache.path(&place(&key)),
        detail: "it was removed while in use".to_owned(),
    };
    Kernel::cached(cache, &path.display().to_string(), &key)?.ok_or_else(vanished)
}

/// `modules` in a kernel's directory: the user's modules, which stay where they are.
fn link_modules(dir: &Path, modules: Option<&Path>, builtin: &str) -> Result<(), Error> {
    let ours = dir.join("modules");
    fs::create_dir(&ours).map_err(at("make", &ours))?;
    write(&ours.join("modules.builtin"), builtin.as_bytes())?;
    let kernel = ours.join("kernel");
    match modules {
        Some(modules) => {
            let own = modules.join("kernel");
            let target = if own.is_dir() { &own } else { modules };
            symlink(target, &kernel).map_err(at("link", &kernel))?;
        }
        None => fs::create_dir(&kernel).map_err(at("make", &kernel))?,
    }
    Ok(())
}

fn write(path: &Path, content: &[u8]) -> Result<(), Error> {
    Ok(fs::write(path, content).map_err(at("write", path))?)
}

/// Another one if the image, the modules or the configuration changed.
fn key(image: &Path, modules: Option<&Path>, config: &str) -> Result<String, Error> {
    let mut parts = vec![identity(image).map_err(at("read", image))?, config.to_owned()];
    for name in ["", "kernel", "modules.order", "modules.builtin"] {
        // What is not there has no identity, and that is one too.
        let path = modules.map(|dir| dir.join(name));
        parts.push(path.and_then(|path| identity(&path).ok()).unwrap_or_default());
    }
    Ok(digest(parts))
}

/// The release in the banner of an uncompressed kernel.
fn release_of(elf: &[u8]) -> Option<String> {
    let found = |window: &[u8]| {
        let rest = window.strip_prefix(BANNER)?;
        let end = rest.iter().position(|byte| *byte == b' ')?;
        let release = std::str::from_utf8(&rest[..end]).ok()?;
        release.starts_with(|c: char| c.is_ascii_digit()).then(|| release.to_owned())
    };
    let starts = elf.windows(BANNER.len()).enumerate();
    starts
        .filter(|(_, window)| *window == BANNER)
        .find_map(|(start, _)| found(&elf[start..elf.len().min(start + 200)]))
}

/// The release in a bzImage's setup header: `kernel_version`, an offset less 0x200
/// (Documentation/arch/x86/boot.rst).
fn release_of_header(image: &[u8]) -> Option<String> {
    let field = image.get(0x20e..0x210)?;
    let start = usize::from(u16::from_le_bytes([field[0], field[1]])) + 0x200;
    let text = image.get(start..image.len().min(start + 200))?;
    let end = text.iter().position(|byte| matches!(byte, b' ' | 0))?;
    let release = std::str::from_utf8(&text[..end]).ok()?;
    release.starts_with(|c: char| c.is_ascii_digit()).then(|| release.to_owned())
}

/// The directories an image's build may have its other products in: the image's own, and the root of
/// the build if the image is where kbuild puts it.
fn places(image: &Path) -> Vec<PathBuf> {
    let image = fs::canonicalize(image).unwrap_or_else(|_| image.to_owned());
    let own = image.parent().map(Path::to_owned).unwrap_or_default();
    let below_root = Path::new("arch/x86/boot");
    let depth = below_root.components().count();
    let root = own.ends_with(below_root).then(|| own.ancestors().nth(depth)).flatten();
    std::iter::once(own.clone()).chain(root.map(Path::to_owned)).collect()
}

/// The vmlinux with debug information that belongs to an image: the image itself, or the one its build
/// left behind. The linker's build ID tells whether it is the same kernel.
fn debug_vmlinux(image: &Path, elf: Option<&[u8]>) -> Option<PathBuf> {
    let id = build_id(elf?)?;
    let near = places(image).into_iter().map(|place| place.join("vmlinux"));
    std::iter::once(image.to_owned()).chain(near).find_map(|path| {
        let bytes = fs::read(&path).ok()?;
        let is_same = build_id(&bytes).is_some_and(|other| other == id);
        let has_lines = object::File::parse(&*bytes).ok()?.section_by_name(".debug_line").is_some();
        (is_same && has_lines).then(|| fs::canonicalize(&path).ok()).flatten()
    })
}

fn build_id(elf: &[u8]) -> Option<Vec<u8>> {
    object::File::parse(elf).ok()?.build_id().ok()?.map(<[u8]>::to_vec)
}

/// Where the modules are: as given, the directory itself or a root with `lib/modules/RELEASE`.
fn modules_dir(files: &ImageFiles, release: &str) -> Result<Option<PathBuf>, Error> {
    let installed = format!("lib/modules/{release}");
    match &files.modules {
        Some(dir) => {
            let below = dir.join(&installed);
            let dir = if below.is_dir() { below } else { dir.clone() };
            if !dir.is_dir() {
                let detail = "it is not a directory; give the one that `make modules_install` made"
                    .to_owned();
                return Err(Error::Input { what: dir.display().to_string(), detail });
            }
            Ok(Some(fs::canonicalize(&dir).map_err(at("resolve", &dir))?))
        }
        None => {
            let near = places(&files.image)
                .into_iter()
                .flat_map(|place| [place.join(&installed), place.join("modules").join(release)]);
            Ok(near
                .chain([Path::new("/").join(&installed)])
                .find(|dir| dir.join("kernel").is_dir()))
        }
    }
}

fn builtin_list(files: &ImageFiles, modules: Option<&Path>) -> Option<String> {
    let dirs = modules.map(Path::to_owned).into_iter().chain(places(&files.image));
    dirs.map(|dir| dir.join("modules.builtin")).find_map(|path| fs::read_to_string(path).ok())
}

/// The configuration and where it was found.
fn configuration(
    files: &ImageFiles,
    elf: Option<&[u8]>,
    modules: Option<&Path>,
    release: &str,
) -> Result<(String, String), Error> {
    let read =
        |path: &Path| fs::read_to_string(path).map_err(at("read", path)).map_err(Error::from);
    if let Some(path) = &files.config {
        return Ok((read(path)?, path.display().to_string()));
    }
    if let Some(text) = elf.and_then(ikconfig) {
        return Ok((text, format!("in {}", files.image.display())));
    }
    let name = format!("config-{release}");
    let beside = places(&files.image)
        .into_iter()
        .flat_map(|place| [place.join(".config"), place.join(&name), place.join("config")]);
    let with_modules =
        modules.into_iter().flat_map(|dir| [dir.join("config"), dir.join("build/.config")]);
    match beside.chain(with_modules).find(|path| path.is_file()) {
        Some(path) => Ok((read(&path)?, path.display().to_string())),
        None => Err(Error::Input {
            what: files.image.display().to_string(),
            detail: "its configuration is neither in it (CONFIG_IKCONFIG) nor beside it; give it \
                     with `--kernel-config FILE`, so that tests can be chosen"
                .to_owned(),
        }),
    }
}

/// The configuration inside a kernel with `CONFIG_IKCONFIG`.
fn ikconfig(elf: &[u8]) -> Option<String> {
    let find = |needle: &[u8]| elf.windows(needle.len()).position(|window| window == needle);
    let start = find(IKCONFIG.0)? + IKCONFIG.0.len();
    let end = find(IKCONFIG.1)?;
    let mut text = String::new();
    flate2::read::GzDecoder::new(elf.get(start..end)?).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests;
