//! Debug information of a packaged kernel, from the package `linux-image-…-dbg`.
//!
//! It is large and few runs need it: it is fetched when first asked for. Of the 2 GB in it only
//! `vmlinux` and the modules of block and SCSI devices are kept.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use host::{
    apt::{self, Apt, DAY, Package, Pin, Suite, Validity},
    cache::{at, disk_full},
    tools,
};

use crate::{
    Error, Kernel,
    debug_info::{self, DebugFiles},
    manifest::{Manifest, Source, manifest_path},
    request::Context,
    source,
};

/// Room for what is kept.
const KEPT: u64 = 700_000_000;
/// Where kept modules are.
const KEPT_MODULES: &str = "kernel";
/// What is kept beside `vmlinux`, of the package's modules.
const MODULES: [&str; 3] = ["kernel/block", "kernel/drivers/block", "kernel/drivers/scsi"];

/// The debug files of a packaged kernel, from the cache or else from the mirror.
pub fn get(context: Context<'_>, kernel: &Kernel) -> Result<DebugFiles, Error> {
    let Context { cache, progress, .. } = context;
    let release = &kernel.release;
    let place = format!("debug/{release}-{}", kernel.origin.replace([':', '~'], "-"));
    let finder = Finder { context, kernel, suites: suites(context)? };
    let dir = cache.path(&place);
    if !dir.exists() {
        let (suite, package) = finder.package(&format!("linux-image-{release}-dbg"))?;
        cache.entry(&place, package.size + KEPT, progress, |dir| {
            let debs = dir.join("debs");
            fs::create_dir(&debs).map_err(at("make", &debs))?;
            let wanted = std::slice::from_ref(&package);
            for deb in suite.download(wanted, &debs, progress)? {
                let mut task = progress.task(&format!("unpacking {}", package.name), None);
                unpack(&deb, dir, release, || task.alive())?;
                task.done();
            }
            fs::remove_dir_all(&debs).map_err(at("remove", &debs))?;
            check(kernel, &dir.join("vmlinux"))
        })?;
    }
    // Without source all but the error codes is known, and a reader is told.
    let source = match finder.source() {
        Ok(source) => Some(source),
        Err(error) => {
            progress.note(&format!("the source of kernel {release} is not at hand: {error}"));
            None
        }
    };
    Ok(DebugFiles { vmlinux: dir.join("vmlinux"), modules: dir.join(KEPT_MODULES), source })
}

/// All suites that kernels come from.
fn suites(context: Context<'_>) -> Result<Vec<String>, Error> {
    let manifest = Manifest::read(&manifest_path(context.checkout))?;
    let packages = manifest.kernel.into_values().filter_map(|entry| entry.packages);
    let mut suites: Vec<String> = packages.flat_map(|packages| packages.suites).collect();
    suites.sort();
    suites.dedup();
    Ok(suites)
}

/// Finds packages of the kernel's own version.
struct Finder<'a> {
    context: Context<'a>,
    kernel: &'a Kernel,
    suites: Vec<String>,
}

impl Finder<'_> {
    /// The package in the version the kernel's packages have: another would tell of other code.
    fn package(&self, name: &str) -> Result<(Suite, Package), Error> {
        let Context { cache, options, progress, .. } = self.context;
        let apt = Apt::open(cache, options)?;
        let mut trouble = None;
        for suite in &self.suites {
            let suite = apt.suite(suite, self.kernel.arch.debian(), Validity::Enforced)?;
            let found = suite.refresh(DAY, progress).and_then(|()| suite.show(&[name]));
            let is_of_kernel = |package: &Package| package.version == self.kernel.origin;
            match found.map(|shown| shown.into_iter().find(is_of_kernel)) {
                Ok(Some(package)) => return Ok((suite, package)),
                Ok(None) => {
                    let what = format!("{name} {}", self.kernel.origin);
                    trouble = trouble.or(Some(suite.no_such_package(what)));
                }
                Err(error) => trouble = Some(error),
            }
        }
        let none = apt::Error::NoSuchPackage {
            mirror: apt.mirror().to_owned(),
            suite: self.suites.join(", "),
            what: name.to_owned(),
        };
        Err(trouble.unwrap_or(none).into())
    }

    /// The root of the source the packages were built from.
    fn source(&self) -> Result<std::path::PathBuf, Error> {
        let Context { cache, options, progress, .. } = self.context;
        let version = self.kernel.version;
        let name = format!("linux-source-{}.{}", version.major, version.minor);
        let manifest = Manifest::read(&manifest_path(self.context.checkout))?;
        let mut locked = manifest.kernel.into_values().filter_map(|entry| entry.source?.lock);
        let is_it = |pin: &Pin| pin.name == name && pin.version == self.kernel.origin;
        let lock = match locked.find(is_it) {
            Some(lock) => lock,
            None => self.package(&name)?.1.pin(),
        };
        let source = Source { package: name, suites: self.suites.clone(), lock: Some(lock) };
        Ok(source::get(cache, &source, self.kernel.arch, options, progress)?.dir)
    }
}

/// Unpacks what is kept into `dir`: `vmlinux` and `kernel/`.
fn unpack(deb: &Path, dir: &Path, release: &str, mut alive: impl FnMut()) -> Result<(), Error> {
    let root = format!("./usr/lib/debug/lib/modules/{release}");
    let mut reader = Command::new("dpkg-deb");
    reader.arg("--fsys-tarfile").arg(deb).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut reader = reader
        .spawn()
        .map_err(|source| tools::Error::Start { program: "dpkg-deb".to_owned(), source })?;
    let archive = reader.stdout.take().map_or_else(Stdio::null, Stdio::from);
    let mut tar = Command::new("tar");
    let depth = root.split('/').count();
    tar.arg("-x").arg("-C").arg(dir).arg(format!("--strip-components={depth}"));
    tar.arg(format!("{root}/vmlinux"));
    tar.args(MODULES.iter().map(|modules| format!("{root}/{modules}")));
    let tick = Duration::from_millis(200);
    let unpacked = tools::watch_with(&mut tar, "tar", archive, tick, |_| alive());
    // With tar gone it has nobody to write to.
    let _ = reader.kill();
    let _ = reader.wait();
    let output = unpacked?;
    if output.text().contains("No space left on device") {
        return Err(disk_full(dir, KEPT).into());
    }
    // A kernel whose drivers are built in has no such directories, and tar says so. Anything else it
    // says may have left half a file.
    let is_about_absence = |line: &str| {
        line.ends_with(": Not found in archive") || line.contains(": Exiting with failure status")
    };
    if !output.status.success() && !output.stderr.lines().all(is_about_absence) {
        return Err(tools::failed(&tar, &output).into());
    }
    if !dir.join("vmlinux").exists() {
        let what = "vmlinux with debug information";
        return Err(Error::Layout { release: release.to_owned(), what });
    }
    let modules = dir.join(KEPT_MODULES);
    fs::create_dir_all(&modules).map_err(at("make", &modules))?;
    Ok(())
}

/// The package must tell of the very build that is booted.
fn check(kernel: &Kernel, vmlinux: &Path) -> Result<(), Error> {
    let booted = debug_info::build_id(&kernel.image)?;
    let described = debug_info::build_id(vmlinux)?;
    if booted.is_some() && booted != described {
        let release = kernel.release.clone();
        return Err(Error::Layout { release, what: "debug information of this very build" });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
