//! The other implementation: rust-vmm's `vhost-device-scsi`, from the registry.
//!
//! It serves files only, and drops what is written to them.

use std::{env, io, path::PathBuf, process::Command};

use host::{
    cache::{self, Cache},
    progress::Progress,
};

/// Crate and program.
pub const NAME: &str = "vhost-device-scsi";
/// The version that is measured: another one is another yardstick.
pub const VERSION: &str = "0.1.0";

/// About what a build leaves while it runs, in bytes.
const NEED: u64 = 500_000_000;

/// Why there is no peer.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The cache does not work.
    #[error(transparent)]
    Cache(#[from] cache::Error),
    /// cargo did not start.
    #[error("cannot run cargo: {0}")]
    Start(io::Error),
    /// It failed; it has said why itself.
    #[error("`cargo install {NAME}` failed, see cargo's messages above; --peer names a program")]
    Failed,
}

/// The peer's program, built into the cache if it is not there.
///
/// # Errors
/// It is not there and cannot be built.
pub fn install(cache: &Cache, progress: &Progress) -> Result<PathBuf, InstallError> {
    let name = format!("peers/{NAME}-{VERSION}");
    let root = cache.entry(&name, NEED, progress, |root| {
        let task = progress.task(&format!("installing {NAME} {VERSION} from the registry"), None);
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(["install", NAME, "--locked", "--version", VERSION, "--root"]).arg(root);
        // It is not built among our own objects, nor with flags that are meant for us.
        command.arg("--target-dir").arg(root.join("build"));
        command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
        // Away from this checkout, whose configuration of cargo is not for it.
        command.current_dir(root);
        let status = command.status().map_err(InstallError::Start)?;
        if !status.success() {
            return Err(InstallError::Failed);
        }
        let build = root.join("build");
        std::fs::remove_dir_all(&build).map_err(cache::at("remove", &build))?;
        task.done();
        Ok(())
    })?;
    Ok(root.join("bin").join(NAME))
}
