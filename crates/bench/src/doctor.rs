//! What a host has and lacks for a run. Looks only: installs nothing, fetches nothing.

use std::{fmt, fmt::Write as _, fs, path::Path, process::Command};

use crate::{
    accel::Verdict,
    programs,
    qemu::{self, Lookup, Qemu, fetch},
    vm::Accel,
};
use host::{
    apt::{self, Apt, os_release_value},
    cache::{self, Cache},
    progress::Bytes,
    tools,
};
use kernel::{kbuild, request};

/// Kernel, newer QEMU, images, and the room to unpack them.
const DISK: u64 = 1_500_000_000;
/// A guest, its daemon and a linker at once.
const MEMORY: u64 = 2_000_000_000;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Nothing to do.
    Ok,
    /// Runs work, but slower, or not all tests run, or the first run has to fetch something.
    Warning,
    /// No run works without it.
    Missing,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Status::Ok => "ok",
            Status::Warning => "warning",
            Status::Missing => "MISSING",
        })
    }
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it came out.
    pub status: Status,
    /// What was found.
    pub detail: String,
    /// What to do about it.
    pub next_step: Option<String>,
}

impl Check {
    fn ok(name: &'static str, detail: impl Into<String>) -> Check {
        Check { name, status: Status::Ok, detail: detail.into(), next_step: None }
    }

    fn warning(name: &'static str, detail: impl Into<String>, next: impl Into<String>) -> Check {
        Check { name, status: Status::Warning, detail: detail.into(), next_step: Some(next.into()) }
    }

    fn missing(name: &'static str, detail: impl Into<String>, next: impl Into<String>) -> Check {
        Check { name, status: Status::Missing, detail: detail.into(), next_step: Some(next.into()) }
    }

    /// From an error of this crate, whose text is the cause, a semicolon, and the next step.
    fn of_error(name: &'static str, status: Status, error: &dyn std::error::Error) -> Check {
        let text = error.to_string();
        let (detail, next_step) = match text.split_once("; ") {
            Some((detail, next)) => (detail.to_owned(), Some(next.to_owned())),
            None => (text, None),
        };
        Check { name, status, detail, next_step }
    }
}

/// Looks at everything. `verdict` is what became of booting a guest under KVM; `None` if that has
/// not been tried.
pub fn examine(
    cache: &Cache,
    checkout: &Path,
    options: &apt::Options,
    verdict: Option<&Verdict>,
) -> Vec<Check> {
    let mut checks = vec![system(), cargo(), compiler()];
    checks.push(archive(cache, options));
    let (check, host) = host_qemu(cache);
    checks.push(check);
    checks.push(reconnecting_qemu(cache, checkout, host.as_ref()));
    checks.push(kernel(cache, checkout));
    checks.push(guest_programs(cache, checkout));
    checks.push(kernel_builds());
    checks.push(kvm(verdict));
    checks.push(io_uring());
    checks.push(memory(&fs::read_to_string("/proc/meminfo").unwrap_or_default()));
    checks.push(disk(cache));
    checks.push(signing());
    checks
}

/// Whether a run can work at all.
pub fn is_ready(checks: &[Check]) -> bool {
    checks.iter().all(|check| check.status != Status::Missing)
}

/// The report as lines of text.
pub fn render(checks: &[Check]) -> String {
    let width = checks.iter().map(|check| check.name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for check in checks {
        let line = writeln!(text, "{:8} {:width$}  {}", check.status, check.name, check.detail);
        line.expect("a String takes all");
        if let Some(next) = &check.next_step {
            writeln!(text, "{:8} {:width$}  → {next}", "", "").expect("a String takes all");
        }
    }
    text
}

fn system() -> Check {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = os_release_value(&text, "PRETTY_NAME").unwrap_or("an unknown system").to_owned();
    let version = os_release_value(&text, "VERSION_ID").and_then(|id| id.parse::<u32>().ok());
    match (os_release_value(&text, "ID"), version) {
        // Testing and unstable have no number.
        (Some("debian"), None | Some(12..)) => Check::ok("system", name),
        _ => Check::warning(
            "system",
            format!("{name}; Debian 12 and 13 are what this is tried on"),
            "where a package is missing, use what your distribution calls it, or a Debian container",
        ),
    }
}

fn cargo() -> Check {
    match tools::check(Command::new("cargo").arg("--version"), "cargo") {
        Ok(output) => Check::ok("cargo", output.stdout.trim()),
        Err(_) => Check::missing("cargo", "not on PATH", "install Rust with rustup"),
    }
}

fn compiler() -> Check {
    // Static binaries for the guest need the C library's archive as well as the linker's driver.
    let install = tools::install_command(&["gcc", "libc6-dev"]);
    let mut command = Command::new("cc");
    match tools::check(command.arg("-print-file-name=libc.a"), "gcc") {
        // The bare name comes back when there is no such file.
        Ok(output) if Path::new(output.stdout.trim()).is_absolute() => {
            Check::ok("C linker", format!("cc, {}", output.stdout.trim()))
        }
        Ok(_) => Check::missing("C linker", "cc has no static C library", install),
        Err(_) => Check::missing("C linker", "cc does not work", install),
    }
}

fn archive(cache: &Cache, options: &apt::Options) -> Check {
    let name = "Debian mirror";
    match Apt::open(cache, options) {
        Ok(apt) => Check::ok(name, format!("{}, keys {}", apt.mirror(), apt.keyring().display())),
        // With everything in the cache, no mirror is needed.
        Err(error) => Check::of_error(name, Status::Warning, &error),
    }
}

fn host_qemu(cache: &Cache) -> (Check, Option<Qemu>) {
    let name = "QEMU";
    let install = || tools::install_command(&qemu::PACKAGES);
    let check = match qemu::find(cache) {
        Ok(Lookup::Found(qemu)) => {
            let detail = format!("{} ({})", qemu::dotted(qemu.version), qemu.binary.display());
            return (Check::ok(name, detail), Some(qemu));
        }
        Ok(Lookup::NoProgram) => {
            Check::missing(name, "qemu-system-x86_64 is not on PATH", install())
        }
        Ok(Lookup::NoFirmware(_)) => {
            Check::missing(name, "its firmware qboot.rom is missing", install())
        }
        Err(error) => Check::of_error(name, Status::Missing, &error),
    };
    (check, None)
}

fn reconnecting_qemu(cache: &Cache, checkout: &Path, host: Option<&Qemu>) -> Check {
    let name = "QEMU ≥ 8.2";
    if host.is_some_and(Qemu::can_reconnect) {
        return Check::ok(name, "the host's own");
    }
    match fetch::Manifest::read(checkout).and_then(|manifest| fetch::cached(cache, &manifest)) {
        Ok(Some(qemu)) => Check::ok(name, format!("{} in the cache", qemu::dotted(qemu.version))),
        Ok(None) => Check::warning(
            name,
            "not in the cache",
            "the first run with a test that restarts its target fetches it (12 MB)",
        ),
        Err(error) => Check::of_error(name, Status::Warning, &error),
    }
}

fn kernel(cache: &Cache, checkout: &Path) -> Check {
    let name = "kernel stock";
    match request::cached(cache, checkout, "stock") {
        Ok(Some(kernel)) => Check::ok(name, format!("{} in the cache", kernel.release)),
        Ok(None) => {
            Check::warning(name, "not in the cache", "the first run fetches it (about 50 MB)")
        }
        Err(error) => Check::of_error(name, Status::Missing, &error),
    }
}

/// Tests that run programs of packages need these, and say so where they are missing.
fn guest_programs(cache: &Cache, checkout: &Path) -> Check {
    let name = "guest programs";
    let absent = || -> Result<Vec<String>, programs::Error> {
        let manifest = programs::Manifest::read(checkout)?;
        let mut absent = Vec::new();
        for set in manifest.names() {
            if programs::cached(cache, &manifest, set)?.is_none() {
                absent.push(set.to_owned());
            }
        }
        Ok(absent)
    };
    match absent() {
        Ok(absent) if absent.is_empty() => Check::ok(name, "in the cache"),
        Ok(absent) => Check::warning(
            name,
            format!("not in the cache: {}", absent.join(", ")),
            "the first run with a test that needs them fetches them (40 MB)",
        ),
        Err(error) => Check::of_error(name, Status::Warning, &error),
    }
}

/// Only `--kernel-tree` and kernels built from source need these.
fn kernel_builds() -> Check {
    let name = "kernel builds";
    match kbuild::missing_packages() {
        Ok(missing) if missing.is_empty() => Check::ok(name, "everything is installed"),
        Ok(missing) => Check::warning(
            name,
            format!("packages are missing: {}", missing.join(" ")),
            tools::install_command(&missing),
        ),
        Err(error) => Check::of_error(name, Status::Warning, &error),
    }
}

fn kvm(verdict: Option<&Verdict>) -> Check {
    let node = Path::new("/dev/kvm");
    let usable =
        rustix::fs::access(node, rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK)
            .is_ok();
    match verdict {
        Some(verdict) if verdict.accel == Accel::Kvm => Check::ok("KVM", verdict.reason.clone()),
        Some(verdict) => Check::warning(
            "KVM",
            format!("guests are emulated: {}", verdict.reason),
            "nothing needs doing; runs take longer than under KVM",
        ),
        None if usable => Check::warning(
            "KVM",
            "/dev/kvm is there; whether guests run under it has not been tried yet",
            "the first run tries",
        ),
        None if node.exists() => Check::warning(
            "KVM",
            "/dev/kvm is there, and not yours to use",
            "join the group that owns it (`sudo adduser $USER kvm`, then log in again)",
        ),
        None => Check::warning(
            "KVM",
            "no /dev/kvm: guests are emulated",
            "nothing needs doing; runs take longer than under KVM",
        ),
    }
}

fn io_uring() -> Check {
    match io_uring::IoUring::new(2) {
        Ok(_) => Check::ok("io_uring", "allowed on this host"),
        Err(error) => Check::warning(
            "io_uring",
            format!("not allowed on this host ({error}); tests inside the guest do not need it"),
            "in a container, use a seccomp profile that allows io_uring",
        ),
    }
}

/// `meminfo` is the text of `/proc/meminfo`.
fn memory(meminfo: &str) -> Check {
    let kilobytes = meminfo.lines().find_map(|line| {
        line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    });
    match kilobytes.map(|kilobytes| kilobytes.saturating_mul(1024)) {
        Some(bytes) if bytes >= MEMORY => {
            Check::ok("memory", format!("{} available", Bytes(bytes)))
        }
        Some(bytes) => Check::warning(
            "memory",
            format!("{} available, {} is comfortable", Bytes(bytes), Bytes(MEMORY)),
            "end other programs, or run with less guest memory (`--mem`)",
        ),
        None => Check::warning("memory", "unknown: /proc/meminfo does not tell", "mount /proc"),
    }
}

fn disk(cache: &Cache) -> Check {
    let place = cache.root().display();
    match cache::available(cache.root()) {
        Some(bytes) if bytes >= DISK => {
            Check::ok("cache", format!("{place}, {} free", Bytes(bytes)))
        }
        bytes => Check::warning(
            "cache",
            format!("{place} has {} free of {} wanted", Bytes(bytes.unwrap_or(1)), Bytes(DISK)),
            format!("free space there or set {} to a directory on another disk", cache::CACHE_ENV),
        ),
    }
}

/// `cargo xtask test` signs archives of its own to see bad signatures refused.
fn signing() -> Check {
    match tools::find("gpg") {
        Some(path) => Check::ok("gpg", path.display().to_string()),
        None => Check::warning(
            "gpg",
            "not on PATH; the host tests of `cargo xtask test` sign with it, runs do not",
            tools::install_command(&["gnupg"]),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_shows_status_finding_and_next_step() {
        let checks = [
            Check::ok("cargo", "cargo 1.95.0"),
            Check::missing("QEMU", "not on PATH", "apt-get install qemu-system-x86"),
        ];
        assert_eq!(
            render(&checks),
            "ok       cargo  cargo 1.95.0\n\
             MISSING  QEMU   not on PATH\n         \
             \u{20}      → apt-get install qemu-system-x86\n"
        );
        assert!(!is_ready(&checks));
        assert!(is_ready(&checks[..1]));
    }

    #[test]
    fn error_becomes_finding_and_next_step() {
        let error = apt::Error::NoMirror;
        let check = Check::of_error("mirror", Status::Warning, &error);
        assert!(check.detail.contains("no Debian mirror is known"), "{check:?}");
        assert!(check.next_step.expect("a next step").contains("--mirror URL"));
    }

    #[test]
    fn little_memory_is_a_warning() {
        let with =
            |kilobytes: u64| memory(&format!("MemTotal: 1 kB\nMemAvailable: {kilobytes} kB\n"));
        assert_eq!(with(8_000_000).status, Status::Ok);
        let little = with(1_000_000);
        assert_eq!(little.status, Status::Warning);
        assert!(little.detail.starts_with("1.0 GB available"), "{little:?}");
    }

    #[test]
    fn kvm_that_failed_its_trial_is_not_ok() {
        let verdict = |accel| Verdict { accel, reason: "a guest hung".to_owned() };
        assert_eq!(kvm(Some(&verdict(Accel::Kvm))).status, Status::Ok);
        let tcg = kvm(Some(&verdict(Accel::Tcg)));
        assert_eq!(tcg.status, Status::Warning);
        assert!(tcg.detail.contains("a guest hung"));
    }

    #[test]
    fn everything_is_looked_at_on_any_host() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let cache = Cache::at(dir.path()).expect("cache");
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let checks = examine(&cache, &checkout, &apt::Options::default(), None);
        assert_eq!(checks.len(), 14);
        let kernel = checks.iter().find(|check| check.name == "kernel stock").expect("the kernel");
        assert_eq!(kernel.status, Status::Warning, "the cache is empty");
        for check in &checks {
            assert!(check.status == Status::Ok || check.next_step.is_some(), "{check:?}");
        }
    }
}
