//! `cargo xtask kernels`.
#![expect(clippy::print_stdout, reason = "the list is the task")]

use bench::exit;
use host::{apt, cache::Cache, progress::Progress};
use kernel::{
    manifest::{Manifest, manifest_path},
    request::{self, Context},
};

/// Lists the kernels that have a name, and what is at hand.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Ask the mirror which versions it carries, too; each is a name for `vm-test --kernel`.
    #[arg(long)]
    versions: bool,

    /// URL of a Debian mirror [default: the host's own].
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    let checkout = crate::workspace();
    let cache = Cache::open()?;
    let manifest = Manifest::read(&manifest_path(&checkout))?;
    let width = manifest.kernel.keys().map(String::len).max().unwrap_or(0);
    for (name, entry) in &manifest.kernel {
        let kind = if entry.packages.is_some() { "packaged" } else { "built" };
        let cached = request::cached(&cache, &checkout, name)?;
        let at_hand =
            cached.map_or_else(String::new, |kernel| format!(" (at hand: {})", kernel.release));
        println!("{name:<width$}  {kind:<8}  {}{at_hand}", entry.about);
    }
    if args.versions {
        let options = apt::Options { mirror: args.mirror.clone(), keyring: None };
        let progress = Progress::auto();
        let context =
            Context { cache: &cache, checkout: &checkout, options: &options, progress: &progress };
        let found = request::versions(context)?;
        let words: Vec<String> = found.iter().map(ToString::to_string).collect();
        println!("versions on the mirror: {}", words.join(" "));
    }
    Ok(exit::PASS)
}
