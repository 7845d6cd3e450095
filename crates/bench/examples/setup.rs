//! Fetches a kernel by name and prints what came of it: `cargo run -p bench --example setup stock`.
#![expect(clippy::print_stdout, reason = "an example to look at")]

use std::{path::Path, time::Instant};

use bench::{
    apt,
    cache::Cache,
    kernel::{debian, manifest},
    progress::Progress,
    qemu,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let name = std::env::args().nth(1).unwrap_or_else(|| "stock".to_owned());
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let begun = Instant::now();
    let cache = Cache::open()?;
    let manifest = manifest::Manifest::read(&manifest::manifest_path(&checkout))?;
    let options = apt::Options::default();
    let kernel = debian::named(&cache, &manifest, &name, &options, &Progress::auto())?;
    println!("{kernel:.0?}", kernel = (&kernel.release, &kernel.vmlinux, &kernel.note));
    println!("ublk: {}", kernel.config_has("CONFIG_BLK_DEV_UBLK"));
    let begun_qemu = Instant::now();
    let host = qemu::host(&cache, &Progress::auto())?;
    println!("{host:?}");
    let wanted = qemu::fetch::Manifest::read(&checkout)?;
    let newer = qemu::fetch::reconnecting(&host, &cache, &wanted, &options, &Progress::auto())?;
    println!("{newer:?} {:?}", begun_qemu.elapsed());
    println!("{:?}", begun.elapsed());
    Ok(())
}
