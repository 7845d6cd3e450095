//! Running kbuild: its tools, its progress, its log, its first error.
//!
//! It must not know where the source comes from, nor what is done with the result.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use host::{
    cache::{self, Lock, at},
    progress::Progress,
    tools::{self, Installer},
};

use crate::{Error, manifest::Arch};

/// Programs a kernel's build runs on the host, and the Debian packages that have them.
#[cfg(not(test))]
const PROGRAMS: &[(&str, &str)] = &[
    ("make", "make"),
    ("gcc", "gcc"),
    ("ld", "binutils"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("bc", "bc"),
    ("xz", "xz-utils"),
];
/// Trees of tests only look like a kernel's.
#[cfg(test)]
const PROGRAMS: &[(&str, &str)] = &[("make", "make")];
/// Programs of a build with `LLVM=1`.
const LLVM_PROGRAMS: [(&str, &str); 3] =
    [("clang", "clang"), ("ld.lld", "lld"), ("llvm-objcopy", "llvm")];
/// Headers a kernel's build compiles programs of the host with: objtool, and the signing of modules.
#[cfg(not(test))]
const HEADERS: &[(&str, &str)] =
    &[("libelf.h", "libelf-dev"), ("openssl/evp.h", "libssl-dev"), ("stdio.h", "libc6-dev")];
#[cfg(test)]
const HEADERS: &[(&str, &str)] = &[("stdio.h", "libc6-dev")];
/// How many lines of an error are shown.
const SHOWN: usize = 12;

/// One directory of objects, and how make is called for it.
#[derive(Clone, Debug)]
pub(crate) struct Kbuild {
    /// The kernel's source, which is only read.
    pub(crate) source: PathBuf,
    /// Where everything is written.
    pub(crate) objects: PathBuf,
    /// The kernel's architecture.
    pub(crate) arch: Arch,
    /// `VARIABLE=VALUE` words of the user for make, for example `LLVM=1`.
    pub(crate) variables: Vec<String>,
    /// Gets what make prints.
    pub(crate) log: PathBuf,
}

impl Kbuild {
    /// As a build without variables compiles, wherever that is.
    pub(crate) fn compiling(arch: Arch) -> Kbuild {
        let none = PathBuf::new();
        let (source, objects, log) = (none.clone(), none.clone(), none);
        Kbuild { source, objects, arch, variables: Vec::new(), log }
    }

    /// Installs what the build needs and this host lacks, or says how to.
    pub(crate) fn prepare(&self, progress: &Progress) -> Result<(), Error> {
        let missing = missing_packages(self.is_llvm())?;
        if missing.is_empty() {
            return Ok(());
        }
        tools::install(&missing, "a tool that builds kernels", Installer::here(), progress)
            .map_err(Error::Tool)
    }

    /// Whether the variables ask for LLVM's tools.
    fn is_llvm(&self) -> bool {
        self.variables.iter().any(|word| word.starts_with("LLVM=") && word != "LLVM=0")
    }

    /// The compiler, as far as another one means another kernel.
    pub(crate) fn compiler(&self) -> Result<String, Error> {
        let named = self.variables.iter().rev().find_map(|word| word.strip_prefix("CC="));
        let compiler = named.unwrap_or(if self.is_llvm() { "clang" } else { "gcc" });
        let mut words = compiler.split_whitespace();
        let mut command = Command::new(words.next().unwrap_or("gcc"));
        let output =
            tools::run(command.args(words).arg("--version"), "gcc").map_err(Error::Tool)?;
        Ok(output.stdout.lines().next().unwrap_or_default().to_owned())
    }

    /// Makes `targets`, showing `what`. `lock` stays held as long as make runs, even without us.
    pub(crate) fn make(
        &self,
        targets: &[&str],
        environment: &[(&str, &Path)],
        what: &str,
        lock: &Lock,
        progress: &Progress,
    ) -> Result<(), Error> {
        let mut command = self.command(targets);
        command.envs(environment.iter().copied());
        let stdin = lock.file().map_err(at("share the lock of", &self.objects))?;
        let mut log = fs::File::options()
            .append(true)
            .create(true)
            .open(&self.log)
            .map_err(at("open", &self.log))?;
        let mut task = progress.task(what, None);
        let mut written = Ok(());
        let mut steps = 0_u32;
        let tick = Duration::from_millis(200);
        let output = tools::watch_with(&mut command, "make", Stdio::from(stdin), tick, |line| {
            let Some(line) = line else { return task.alive() };
            if written.is_ok() {
                written = writeln!(log, "{line}");
            }
            if line.starts_with("  ") {
                steps += 1;
                task.step(&format!(
                    "step {steps}, {}",
                    line.split_whitespace().collect::<Vec<_>>().join(" ")
                ));
            }
            task.alive();
        });
        let output = output.map_err(Error::Tool)?;
        written.map_err(at("write", &self.log))?;
        if output.status.success() {
            task.done();
            return Ok(());
        }
        drop(task);
        let text = format!("{}{}", output.stdout, output.stderr);
        Err(self.failed(what, &output.stderr, &text))
    }

    fn failed(&self, what: &str, stderr: &str, text: &str) -> Error {
        if text.contains("No space left on device") || text.contains("Disk quota exceeded") {
            return cache::disk_full(&self.objects, 0).into();
        }
        let detail =
            first_error(stderr).or_else(|| first_error(text)).unwrap_or_else(|| last(text));
        Error::Build { what: what.to_owned(), detail, log: self.log.clone() }
    }

    /// The release this configuration's kernel will have.
    pub(crate) fn release(&self) -> Result<String, Error> {
        let path = self.objects.join("include/config/kernel.release");
        let text = fs::read_to_string(&path).map_err(at("read", &path))?;
        Ok(text.trim().to_owned())
    }

    fn command(&self, targets: &[&str]) -> Command {
        let mut command = Command::new("make");
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        command
            .arg("-C")
            .arg(&self.source)
            .arg(format!("O={}", self.objects.display()))
            .arg(format!("ARCH={}", self.arch.kbuild()))
            .arg(format!("-j{jobs}"))
            // Whoever builds, wherever and whenever: the same source gives the same kernel.
            .env("KBUILD_BUILD_USER", "sensecheck")
            .env("KBUILD_BUILD_HOST", "sensecheck")
            .env("KBUILD_BUILD_TIMESTAMP", "1970-01-01")
            .env("KBUILD_BUILD_VERSION", "1");
        // The caller's own make must not tell this one what to do.
        for variable in ["MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "KBUILD_OUTPUT", "ARCH"] {
            command.env_remove(variable);
        }
        let names_compiler = self.variables.iter().any(|word| word.starts_with("CC="));
        if tools::find("ccache").is_some() && !names_compiler {
            let compiler = if self.is_llvm() { "clang" } else { "gcc" };
            command.arg(format!("CC=ccache {compiler}"));
        }
        command.args(&self.variables).args(targets);
        command
    }
}

/// Debian packages a build needs that this host lacks.
pub fn missing_packages(with_llvm: bool) -> Result<Vec<&'static str>, Error> {
    let llvm: &[_] = if with_llvm { &LLVM_PROGRAMS } else { &[] };
    let programs = PROGRAMS.iter().chain(llvm);
    let missing = programs.filter(|(program, _)| tools::find(program).is_none());
    let mut packages: Vec<&'static str> = missing.map(|(_, package)| *package).collect();
    packages.extend(missing_headers()?);
    Ok(packages)
}

/// Packages whose headers the compiler does not find.
fn missing_headers() -> Result<Vec<&'static str>, Error> {
    if tools::find("gcc").is_none() {
        return Ok(HEADERS.iter().map(|(_, package)| *package).collect());
    }
    let mut missing = Vec::new();
    for &(header, package) in HEADERS {
        let mut command = Command::new("gcc");
        // -E with -include: nothing is compiled, the header only has to be found.
        command.args(["-E", "-xc", "-include", header, "-o", "/dev/null", "/dev/null"]);
        if !tools::run(&mut command, "gcc").map_err(Error::Tool)?.status.success() {
            missing.push(package);
        }
    }
    Ok(missing)
}

/// The first error in what make printed, with what belongs to it.
fn first_error(text: &str) -> Option<String> {
    let lines: Vec<&str> = text.lines().collect();
    let is_error = |line: &&str| {
        line.contains(" error: ")
            || line.contains("undefined reference to")
            || line.starts_with("ERROR: ")
            || line.starts_with("*** ")
            || (line.contains("***") && !line.contains("] Error ") && !line.contains("Waiting for"))
    };
    let first = lines.iter().position(is_error)?;
    let block: Vec<&str> = lines[first..]
        .iter()
        .take_while(|line| !line.starts_with("make[") && !line.starts_with("  CC "))
        .take(SHOWN)
        .map(|line| line.strip_prefix("../").unwrap_or(line))
        .collect();
    Some(if block.is_empty() { lines[first].to_owned() } else { block.join("\n") })
}

/// The last lines of what make printed.
fn last(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(SHOWN)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_is_shown_with_its_lines_and_without_what_make_says_about_it() {
        let text = "  CC      a.o\n  CC      b.o\n../b.c: In function 'f':\n\
                    ../b.c:3:9: error: 'x' undeclared (first use in this function)\n\
                    \x20   3 | return x;\n      |        ^\nmake[3]: *** [b.o] Error 1\n\
                    ../c.c:1:1: error: later\n";
        let shown = first_error(text).expect("an error");
        assert!(shown.starts_with("b.c:3:9: error: 'x' undeclared"), "{shown}");
        assert!(shown.ends_with('^'), "{shown}");
    }

    #[test]
    fn errors_of_the_linker_and_of_kbuild_itself_count() {
        let linker = "  LD      vmlinux\nld: init/main.o: undefined reference to `no_such'\n";
        assert!(first_error(linker).expect("an error").contains("no_such"));
        let old = "***\n*** Compiler is too old.\n***   Your GCC version: 5.0.0\n***\n";
        assert!(first_error(old).expect("an error").contains("too old"));
        assert_eq!(first_error("  CC      fs/fserror.o\nmake: *** [a] Error 2\n"), None);
        assert_eq!(last("a\nb\n"), "a\nb");
    }
}
