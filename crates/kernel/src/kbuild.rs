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
/// Programs of a build with `LLVM=1`, and their packages.
const LLVM_PROGRAMS: [(&str, &str); 3] =
    [("clang", "clang"), ("ld.lld", "lld"), ("llvm-objcopy", "llvm")];
/// The compiler without LLVM.
const GCC: &str = "gcc";
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
        let mut missing = missing_packages()?;
        missing.extend(self.missing_llvm());
        install(&missing, progress)
    }

    /// What follows `LLVM=` if LLVM's tools are asked for: `1`, a suffix such as `-16`, or a directory
    /// (Documentation/kbuild/llvm.rst).
    fn llvm(&self) -> Option<&str> {
        let value = self.variables.iter().rev().find_map(|word| word.strip_prefix("LLVM="))?;
        (!matches!(value, "" | "0")).then_some(value)
    }

    /// What LLVM's programs are called, given their plain name.
    fn llvm_program(value: &str, plain: &str) -> String {
        match value {
            directory if directory.ends_with('/') => format!("{directory}{plain}"),
            suffix if suffix.starts_with('-') => format!("{plain}{suffix}"),
            _ => plain.to_owned(),
        }
    }

    /// Packages of LLVM's programs that are asked for and not there. What stands in a directory of the
    /// user's is of no package.
    fn missing_llvm(&self) -> Vec<String> {
        let Some(value) = self.llvm().filter(|value| !value.ends_with('/')) else {
            return Vec::new();
        };
        let missing = LLVM_PROGRAMS
            .iter()
            .filter(|(plain, _)| tools::find(&Self::llvm_program(value, plain)).is_none());
        missing.map(|(_, package)| Self::llvm_program(value, package)).collect()
    }

    /// The command of the compiler.
    fn compiler_command(&self) -> String {
        let named = self.variables.iter().rev().find_map(|word| word.strip_prefix("CC="));
        let of_llvm = || self.llvm().map(|value| Self::llvm_program(value, "clang"));
        named.map(str::to_owned).or_else(of_llvm).unwrap_or_else(|| GCC.to_owned())
    }

    /// Sees to it that there is a compiler. The rest of the tools need not be there to find a kernel that is
    /// built already.
    pub(crate) fn prepare_compiler(&self, progress: &Progress) -> Result<(), Error> {
        let command = self.compiler_command();
        let program = command.split_whitespace().next().unwrap_or_default();
        if tools::find(program).is_some() || Path::new(program).is_file() {
            return Ok(());
        }
        let names_it = self.variables.iter().any(|word| word.starts_with("CC="));
        let packages = match self.llvm() {
            _ if names_it => Vec::new(),
            Some(_) => self.missing_llvm(),
            None => vec![GCC.to_owned()],
        };
        if packages.is_empty() {
            return Err(Error::NoCompiler { compiler: command });
        }
        install(&packages, progress)
    }

    /// The compiler, as far as another one means another kernel.
    pub(crate) fn compiler(&self) -> Result<String, Error> {
        let command = self.compiler_command();
        let mut words = command.split_whitespace();
        let mut version = Command::new(words.next().unwrap_or(GCC));
        let output =
            tools::run(version.args(words).arg("--version"), GCC).map_err(|error| match error {
                tools::Error::Missing { .. } => Error::NoCompiler { compiler: command.clone() },
                error => Error::Tool(error),
            })?;
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
            command.arg(format!("CC=ccache {}", self.compiler_command()));
        }
        command.args(&self.variables).args(targets);
        command
    }
}

fn install(packages: &[String], progress: &Progress) -> Result<(), Error> {
    if packages.is_empty() {
        return Ok(());
    }
    tools::install(packages, "a tool that builds kernels", Installer::here(), progress)
        .map_err(Error::Tool)
}

/// Debian packages a build needs that this host lacks.
pub fn missing_packages() -> Result<Vec<String>, Error> {
    let missing = PROGRAMS.iter().filter(|(program, _)| tools::find(program).is_none());
    let mut packages: Vec<String> = missing.map(|(_, package)| (*package).to_owned()).collect();
    packages.extend(missing_headers()?.into_iter().map(str::to_owned));
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

    fn compiling(variables: &[&str]) -> Kbuild {
        let variables = variables.iter().map(|&word| word.to_owned()).collect();
        Kbuild { variables, ..Kbuild::compiling(Arch::Amd64) }
    }

    /// Documentation/kbuild/llvm.rst: `LLVM=1`, `LLVM=-14`, `LLVM=/path/to/llvm/`; CC= goes before.
    #[test]
    fn the_compiler_is_the_one_the_variables_name() {
        for (variables, command) in [
            (&[][..], "gcc"),
            (&["LLVM=1"], "clang"),
            (&["LLVM=0"], "gcc"),
            (&["LLVM=-16"], "clang-16"),
            (&["LLVM=/opt/llvm/bin/"], "/opt/llvm/bin/clang"),
            (&["LLVM=1", "CC=ccache gcc-12"], "ccache gcc-12"),
            (&["CC=a", "CC=b"], "b"),
        ] {
            assert_eq!(compiling(variables).compiler_command(), command, "{variables:?}");
        }
    }

    #[test]
    fn llvm_of_a_version_is_packages_of_that_version() {
        let missing = compiling(&["LLVM=-99"]).missing_llvm();
        assert_eq!(missing, ["clang-99", "lld-99", "llvm-99"]);
        assert_eq!(compiling(&["LLVM=/no/such/dir/"]).missing_llvm(), [""; 0]);
    }

    #[test]
    fn a_compiler_of_the_users_that_is_not_there_is_named() {
        let progress = Progress::quiet();
        for words in [&["CC=no-such-cc -m64"][..], &["LLVM=/no/such/dir/"]] {
            let error = compiling(words).prepare_compiler(&progress).expect_err("not there");
            let text = error.to_string();
            let name =
                if words[0].starts_with("CC") { "no-such-cc -m64" } else { "/no/such/dir/clang" };
            assert!(text.starts_with(&format!("there is no compiler `{name}`")), "{text}");
        }
        compiling(&[]).prepare_compiler(&progress).expect("gcc links Rust programs");
    }

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
