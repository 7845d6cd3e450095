//! Keeps 64 commands in flight on one SCSI device, until a thousand have completed:
//!
//! ```text
//! cargo run -p bsg --example in_flight -- /dev/bsg/0:0:0:0
//! ```

use std::{
    env,
    error::Error,
    io::{self, Write},
    path::Path,
    time::{Duration, Instant},
};

use bsg::{Access, BsgUring, Request, Shape, UringFrame};

/// Commands in flight.
pub(crate) const DEPTH: u32 = 64;

/// Commands in all.
pub(crate) const COMMANDS: u32 = 1000;

/// Has the device execute INQUIRY commands, and returns how many it answered with GOOD.
pub(crate) fn run(node: &Path) -> Result<u32, Box<dyn Error>> {
    let mut ring = BsgUring::with_shape(node, Access::ReadOnly, &Shape::big(DEPTH))?;
    for _ in 0..DEPTH {
        let inquiry = Request::new(&[0x12, 0, 0, 0, 36, 0]).data_in(36);
        ring.push(UringFrame::from(inquiry))?;
    }
    // One system call for all of them.
    ring.flush()?;
    let mut pushed = DEPTH;
    let mut good = 0;
    while ring.in_flight() > 0 {
        let done = ring.wait(Instant::now() + Duration::from_secs(60))?;
        let completion = done.completion()?;
        good += u32::from((completion.device_status, completion.host_status) == (0, 0));
        if pushed < COMMANDS {
            // The same command again, in the same memory; handed over by the next wait.
            ring.push(done.frame)?;
            pushed += 1;
        }
    }
    Ok(good)
}

fn main() -> Result<(), Box<dyn Error>> {
    let node = env::args_os().nth(1).ok_or("name a node: in_flight /dev/bsg/H:C:T:L")?;
    let started = Instant::now();
    let good = run(Path::new(&node))?;
    let micros = started.elapsed().as_micros() / u128::from(COMMANDS);
    writeln!(io::stdout(), "{good} of {COMMANDS} commands, {micros} µs each")?;
    Ok(())
}
