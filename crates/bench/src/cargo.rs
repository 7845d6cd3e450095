//! Building what a run needs: the agent and the test binary for the guest, the daemon for the host.

use std::{
    env, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

/// The guest's binaries are static, so that the image needs no libraries; the gnu target does that
/// without a second toolchain.
const GUEST_TARGET: &str = "x86_64-unknown-linux-gnu";

/// Static, and at a fixed address: relocating itself costs a process some 10 ms under emulation.
const GUEST_FLAGS: &str = "-C target-feature=+crt-static -C relocation-model=static";

/// Why there is nothing to run.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// cargo did not start.
    #[error("cannot run cargo: {0}")]
    Start(io::Error),
    /// It failed; it has said why itself.
    #[error("the build failed: see cargo's messages above")]
    Failed,
    /// It built something else.
    #[error("cargo built no executable called {0}")]
    Missing(String),
}

/// The executables of a run.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// PID 1 of the guest.
    pub agent: PathBuf,
    /// Every test that runs inside the guest.
    pub tests: PathBuf,
    /// `sensecheck-ublk`, which tests run.
    pub ublk: PathBuf,
    /// `sensecheck-target`.
    pub target: PathBuf,
}

/// Builds everything, with cargo's own progress on standard error.
pub fn build(workspace: &Path) -> Result<Binaries, BuildError> {
    let guest = ["--profile", "guest", "--target", GUEST_TARGET];
    let mut command = cargo(workspace);
    command.args(guest).args(["--package", "harness", "--bin", "agent", "--test", "guest"]);
    command.args(["--package", "ublk-tool", "--bin", "sensecheck-ublk"]);
    command.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", GUEST_FLAGS);
    let built = executables(command)?;
    let target = daemon(workspace)?;
    let found = |name| find(&built, name);
    let (agent, tests, ublk) = (found("agent")?, found("guest")?, found("sensecheck-ublk")?);
    Ok(Binaries { agent, tests, ublk, target })
}

/// Builds `sensecheck-ublk` for the guest as its users build it, and returns its path.
pub fn released_ublk(workspace: &Path) -> Result<PathBuf, BuildError> {
    let mut command = cargo(workspace);
    command.args(["--release", "--target", GUEST_TARGET]);
    command.args(["--package", "ublk-tool", "--bin", "sensecheck-ublk"]);
    command.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", GUEST_FLAGS);
    find(&executables(command)?, "sensecheck-ublk")
}

/// Builds `sensecheck-target` alone, and returns its path.
pub fn daemon(workspace: &Path) -> Result<PathBuf, BuildError> {
    let mut command = cargo(workspace);
    command.args(["--release", "--package", "vhost-user-scsi", "--bin", "sensecheck-target"]);
    find(&executables(command)?, "sensecheck-target")
}

fn cargo(workspace: &Path) -> Command {
    let program = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command
        .current_dir(workspace)
        .arg("build")
        .args(["--message-format", "json-render-diagnostics"]);
    // Flags meant for the host's own build would break the static one.
    command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    command
}

/// Builds a library that is loaded at run time, and returns its path.
pub(crate) fn library(workspace: &Path, package: &str, name: &str) -> Result<PathBuf, BuildError> {
    let mut command = cargo(workspace);
    command.args(["--release", "--package", package]);
    let is_library = |message: &Value| message["target"]["name"] == name;
    let files = messages(command)?.into_iter().filter(is_library);
    let path = |message: Value| Some(PathBuf::from(message["filenames"][0].as_str()?));
    files.filter_map(path).next_back().ok_or_else(|| BuildError::Missing(name.to_owned()))
}

/// Runs cargo and returns (target name, path) of every executable it reports.
fn executables(command: Command) -> Result<Vec<(String, PathBuf)>, BuildError> {
    let executable = |message: Value| {
        let path = message["executable"].as_str()?;
        Some((message["target"]["name"].as_str()?.to_owned(), PathBuf::from(path)))
    };
    Ok(messages(command)?.into_iter().filter_map(executable).collect())
}

/// Runs cargo and returns what it reports, one JSON value for each line.
fn messages(mut command: Command) -> Result<Vec<Value>, BuildError> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(BuildError::Start)?;
    if !output.status.success() {
        return Err(BuildError::Failed);
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

fn find(built: &[(String, PathBuf)], name: &str) -> Result<PathBuf, BuildError> {
    let found = built.iter().find(|(target, _)| target == name);
    found.map(|(_, path)| path.clone()).ok_or_else(|| BuildError::Missing(name.to_owned()))
}
