//! The bench tested by itself: planted defects, each with its exact exit code and its words on the
//! screen, and nothing left behind.
//!
//! Every check runs `vm-test` as a user would, in a process of its own with a runtime directory of its
//! own, so that whatever it leaves can be seen.

mod checks;
mod processes;

use std::{
    fs::{self, File},
    io,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use self::{
    checks::{CHECKS, Check, Place, Whom},
    processes::Processes,
};
use crate::exit;
use host::{cache::Cache, child::Child, interrupt};

/// Long beside any single check, under emulation on a busy host.
const DEADLINE: Duration = Duration::from_secs(240);

/// How long processes may take to be gone after the bench was killed.
const GONE_DEADLINE: Duration = Duration::from_secs(10);

/// Why a check could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A directory, a file or a process.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The cache.
    #[error(transparent)]
    Cache(#[from] host::cache::Error),
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let what = what.into();
    move |source| Error::Io { what, source }
}

/// Makes every check whose name contains `filter`, with `xtask` as the command line's executable, in
/// the directory of the checkout.
#[expect(clippy::print_stdout, reason = "a report to the user")]
pub fn run(xtask: &Path, workspace: &Path, filter: &str) -> Result<u8, Error> {
    let (mut passed, mut failed) = (0, 0);
    for check in CHECKS.iter().filter(|check| check.name.contains(filter)) {
        if interrupt::pending() {
            return Ok(exit::INTERRUPTED);
        }
        let start = Instant::now();
        let faults = make(xtask, workspace, check)?;
        let took = start.elapsed().as_secs_f64();
        if interrupt::pending() {
            return Ok(exit::INTERRUPTED);
        }
        if faults.is_empty() {
            passed += 1;
            println!("        pass  {took:>7.3} s  self-test {}", check.name);
        } else {
            failed += 1;
            println!("        fail  {took:>7.3} s  self-test {}", check.name);
            for fault in faults {
                println!("    {}", fault.replace('\n', "\n    "));
            }
        }
    }
    println!("self-test: {passed} passed, {failed} failed");
    Ok(match (passed, failed) {
        (0, 0) => exit::NOTHING_RAN,
        (_, 0) => exit::PASS,
        _ => exit::FAIL,
    })
}

/// Makes one check and returns what was wrong.
fn make(xtask: &Path, workspace: &Path, check: &Check) -> Result<Vec<String>, Error> {
    let dir = tempfile::tempdir().map_err(io_error("cannot make a directory"))?;
    let output = dir.path().join("output");
    let runtime = dir.path().join("runtime");
    fs::create_dir(&runtime).map_err(io_error("cannot make a directory"))?;
    let file = File::create(&output).map_err(io_error("cannot make a file"))?;

    let mut command = command(xtask, check, dir.path())?;
    command.args(["vm-test", "--accel", "tcg", "--seed", "1"]).args(check.args);
    command
        .current_dir(workspace)
        .env("XDG_RUNTIME_DIR", &runtime)
        .env("NO_COLOR", "1")
        .stdin(Stdio::null());
    command.stderr(file.try_clone().map_err(io_error("cannot share a file"))?).stdout(file);
    let (sender, ended) = mpsc::channel();
    let child = Child::spawn(command, move |status| {
        // The check may have given up meanwhile.
        let _ = sender.send(status);
    });
    let child = child.map_err(io_error(format!("cannot start {}", xtask.display())))?;
    let processes = Processes::below(&runtime);
    let mut faults = act(check, &child, &processes, &output);
    let status = ended.recv_timeout(if faults.is_empty() { DEADLINE } else { Duration::ZERO });
    drop(child);

    let text = fs::read(&output).map_err(io_error("cannot read the output"))?;
    let text = String::from_utf8_lossy(&text);
    match status {
        Ok(status) => faults.extend(wrong_exit(check, status)),
        Err(_) => faults.push("it did not end in time".to_owned()),
    }
    let absent = check.says.iter().filter(|words| !text.contains(**words));
    faults.extend(absent.map(|words| format!("it did not say {words:?}")));
    faults.extend(processes.wait_until_gone(GONE_DEADLINE));
    // After a `kill -9` the directory stays for the next run to sweep; its processes may not.
    if check.code.is_some() {
        faults.extend(left_behind(&runtime));
    }
    if !faults.is_empty() {
        faults.push(format!("its output was:\n{text}"));
    }
    Ok(faults)
}

fn wrong_exit(check: &Check, status: ExitStatus) -> Option<String> {
    let right = match check.code {
        Some(code) => status.code() == Some(code.into()),
        None => status.signal() == Some(Signal::KILL.as_raw()),
    };
    (!right).then(|| format!("it ended with {status}, expected {:?}", check.code))
}

/// The command with the surroundings the check wants.
fn command(xtask: &Path, check: &Check, dir: &Path) -> Result<Command, Error> {
    let mut command = match check.file_size_max {
        None => Command::new(xtask),
        Some(bytes) => {
            let mut command = Command::new("prlimit");
            command.arg(format!("--fsize={bytes}")).arg(xtask);
            command
        }
    };
    if check.place == Place::EmptyImages {
        // A cache that has the kernel but no image yet, so that one has to be written.
        let cache = dir.join("cache");
        let kernels = Cache::open()?.path("kernels");
        fs::create_dir(&cache).map_err(io_error("cannot make a directory"))?;
        std::os::unix::fs::symlink(&kernels, cache.join("kernels"))
            .map_err(io_error("cannot link the kernels"))?;
        command.env("SENSECHECK_CACHE", cache);
    }
    Ok(command)
}

/// Sends the check's signal once the output shows the awaited words.
fn act(check: &Check, child: &Child, processes: &Processes, output: &Path) -> Vec<String> {
    let Some((words, signal, whom)) = check.signal else { return Vec::new() };
    let shown = wait::until(DEADLINE, format_args!("{words:?} on the screen"), || {
        let shown = fs::read_to_string(output).is_ok_and(|text| text.contains(words));
        // Its end ends the wait too.
        (shown || child.wait(Duration::ZERO)).then_some(shown)
    });
    if !shown.unwrap_or(false) {
        return vec![format!("it never said {words:?}")];
    }
    let sent = match whom {
        Whom::Bench => child.signal(signal).map_err(|error| error.to_string()),
        Whom::Target => processes.signal("sensecheck-target", signal),
        Whom::Qemu => processes.signal("qemu-system", signal),
    };
    sent.err().into_iter().collect()
}

/// What a run left in its runtime directory.
fn left_behind(runtime: &Path) -> Vec<String> {
    let users = fs::read_dir(runtime).into_iter().flatten().filter_map(Result::ok);
    let runs =
        users.filter_map(|user| fs::read_dir(user.path()).ok()).flatten().filter_map(Result::ok);
    let paths: Vec<PathBuf> = runs.map(|run| run.path()).collect();
    paths.iter().map(|path| format!("it left {} behind", path.display())).collect()
}
