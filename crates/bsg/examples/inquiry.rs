//! Asks a SCSI device through a ring who it is:
//!
//! ```text
//! cargo run -p bsg --example inquiry -- /dev/bsg/0:0:0:0
//! ```

use std::{
    env,
    error::Error,
    io::{self, Write},
    path::Path,
};

use bsg::{Access, BsgUring, Passthrough, Request};

/// Vendor, product and revision (SPC-6, standard INQUIRY data, bytes 8 to 35).
pub(crate) fn who_is(node: &Path) -> Result<String, Box<dyn Error>> {
    let mut ring = BsgUring::open(node, Access::ReadOnly)?;
    let done = ring.execute(Request::new(&[0x12, 0, 0, 0, 36, 0]).data_in(36))?;
    // An executed command is no success yet.
    if (done.device_status, done.host_status) != (0, 0) {
        return Err(format!("INQUIRY failed: {done:?}").into());
    }
    Ok(String::from_utf8_lossy(&done.data[8..36]).into_owned())
}

fn main() -> Result<(), Box<dyn Error>> {
    let node = env::args_os().nth(1).ok_or("name a node: inquiry /dev/bsg/H:C:T:L")?;
    writeln!(io::stdout(), "{}", who_is(Path::new(&node))?)?;
    Ok(())
}
