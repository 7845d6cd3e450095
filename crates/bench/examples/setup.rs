//! Prepares what a guest needs, and says how long each step took.
//!
//! `cargo run -p bench --example setup -- stock [AGENT TESTS]`
#![expect(clippy::print_stdout, reason = "an example to look at")]

use std::{path::Path, time::Instant};

use bench::{
    apt,
    cache::Cache,
    doctor, image,
    kernel::{debian, manifest},
    progress::Progress,
    qemu,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let name = args.next().unwrap_or_else(|| "stock".to_owned());
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let (cache, progress) = (Cache::open()?, Progress::auto());
    let options = apt::Options::default();

    let begun = Instant::now();
    let kernels = manifest::Manifest::read(&manifest::manifest_path(&checkout))?;
    let kernel = debian::named(&cache, &kernels, &name, &options, &progress)?;
    println!("kernel {} in {:?}: {}", kernel.release, begun.elapsed(), kernel.vmlinux.display());
    println!("note: {:?}", kernel.note);

    let begun = Instant::now();
    let host = qemu::host(&cache, &progress)?;
    println!("QEMU {:?} in {:?}: {host:?}", host.version, begun.elapsed());
    let begun = Instant::now();
    let newer = qemu::fetch::Manifest::read(&checkout)?;
    let newer = qemu::fetch::reconnecting(&host, &cache, &newer, &options, &progress)?;
    println!("QEMU {:?} in {:?}: {newer:?}", newer.version, begun.elapsed());

    if let (Some(agent), Some(tests)) = (args.next(), args.next()) {
        let begun = Instant::now();
        let manifest = image::Manifest::read(&checkout)?;
        let (agent, tests) = (Path::new(&agent), Path::new(&tests));
        let image = image::build(&cache, &manifest, &kernel, agent, tests, &[], &progress)?;
        println!("image in {:?}: {image:?}", begun.elapsed());
    }
    println!("{}", doctor::render(&doctor::examine(&cache, &checkout, &options, None)));
    Ok(())
}
