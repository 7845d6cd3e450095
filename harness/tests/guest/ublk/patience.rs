//! A request that takes longer than the block layer waits for it.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    sync::{Arc, mpsc::Receiver},
    time::{Duration, Instant},
};

use bsg::Access;
use harness::{
    BlockDevice, Child, UblkDevice,
    child::{self, Parent},
    declare, privilege,
};
use rstest::rstest;
use ublk::{Faults, Features, RamTarget, Server};
use ublk_fault::{Effect, OpName, Rule, When};

use super::{modes::SINCE_7_0, recorder::unscanned};

const SECTORS: u64 = 64;
/// The block layer looks at its clocks once a second (block/blk-timeout.c:blk_rq_timeout).
const DEADLINE: Duration = Duration::from_secs(8);
/// queue/io_timeout, in milliseconds.
const TIMEOUT_MS: &str = "100";
const UNPRIVILEGED: &str = "unprivileged";

/// The child: a server that keeps reads. Tells its device's number, and `held`.
fn serve(role: &str) -> ! {
    let mut parent = Parent::connect();
    let rule = Rule::new("held", Effect::never()).when(When::op(OpName::Read));
    let faults = Faults::new(vec![rule], 0).expect("sound");
    let mut config = unscanned(SECTORS).faults(&faults);
    if role == UNPRIVILEGED {
        privilege::drop_sys_admin();
        config = config.with(Features::UNPRIVILEGED_DEV);
    }
    let server = Server::start(&config, Arc::new(RamTarget::new(SECTORS))).expect("started");
    parent.tell(&server.dev_id().to_string());
    faults.wait_held(1, DEADLINE).expect("held");
    parent.tell("held");
    parent.until_killed();
}

/// A server that has kept a read for longer than it may take: its device, itself, what the read comes to, and since when.
struct Kept {
    device: UblkDevice,
    server: Child,
    read: Receiver<std::io::Result<Vec<u8>>>,
    since: Instant,
}

#[track_caller]
fn keep(role: &str) -> Kept {
    let mut server = Child::start(role);
    let device = UblkDevice::adopt(server.hear().parse().expect("the number of a device"));
    let disk = BlockDevice::open(&device.block_path(), Access::ReadOnly);
    let name = device.block_path().file_name().expect("a name").to_owned();
    let limit = std::path::Path::new("/sys/block").join(name).join("queue/io_timeout");
    fs::write(limit, TIMEOUT_MS).expect("root may do this");
    let read = BlockDevice::beside(move || disk, |disk| disk.read(0, 512));
    assert_eq!(server.hear(), "held");
    Kept { device, server, read, since: Instant::now() }
}

/// ublk_drv.c:ublk_timeout: the server of an unprivileged device is killed (SIGKILL, 9) for a request it does not answer in
/// time, which fails with EIO (5) and frees the device; a privileged one may take as long as it likes.
#[rstest]
fn unprivileged_server_is_killed_for_a_late_answer_and_a_privileged_one_is_not() {
    declare!(Contract, SINCE_7_0);
    if let Some(role) = child::role() {
        serve(&role);
    }
    let mut patient = keep("privileged");
    let killed = keep(UNPRIVILEGED);
    let outcome = killed.read.recv_timeout(DEADLINE).expect("the read ends");
    assert_eq!(outcome.expect_err("it fails").raw_os_error(), Some(5));
    assert_eq!(killed.server.wait().signal(), Some(9));
    killed.device.delete();
    // The other is older: its time was over before.
    assert!(patient.since < killed.since);
    let early = patient.read.try_recv();
    assert!(early.is_err(), "nobody has answered: {early:?}");
    assert_eq!(patient.device.state(), 1, "LIVE");
    patient.server.kill();
    let outcome = patient.read.recv_timeout(DEADLINE).expect("the read ends");
    assert_eq!(outcome.expect_err("it fails").raw_os_error(), Some(5));
    patient.device.delete();
}
