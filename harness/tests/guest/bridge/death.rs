//! A server that dies with a command at the disk.

use std::{borrow::Cow, fs, path::PathBuf, sync::Arc, thread};

use bridge::Bridge;
use bsg::Access;
use harness::{
    BlockDevice, Feature, HostShape, Lun, Needs, ScsiDevice, ScsiHost, UblkDevice,
    child::{self, Child, Parent},
    declare,
};
use ublk::{DataMode, Features, Server, uapi::state};

use super::{PATIENT, config, thin};
use crate::bsg::cdb;

/// What holds a command needs a host of its own.
const OWN_HOST: Needs = Needs {
    host: ScsiHost::Own(HostShape::DEFAULT),
    features: Cow::Borrowed(&[Feature::KernelAtLeast(7, 1)]),
    ..Needs::DEFAULT
};

/// Passes the name of the unit to the server.
const HCTL: &str = "/tmp/bridge-dies";

/// The bridge to a unit, and a device whose requests the next server does if this one dies
/// (UBLK_F_USER_RECOVERY_REISSUE).
fn lasting(device: &ScsiDevice) -> (Arc<Bridge>, ublk::Config) {
    let (disk, config) = config(device, DataMode::AutoBuf);
    let bridge = Bridge::new(&device.bsg(), disk, PATIENT).expect("a bridge");
    let features = Features::USER_RECOVERY | Features::USER_RECOVERY_REISSUE;
    (Arc::new(bridge), config.with(features))
}

/// The child.
fn serve() -> ! {
    let mut parent = Parent::connect();
    let hctl = fs::read_to_string(PathBuf::from(HCTL)).expect("the parent has written it");
    let (bridge, config) = lasting(&ScsiDevice { hctl });
    let server = Server::start(&config, bridge).expect("started");
    parent.tell(&server.dev_id().to_string());
    parent.until_killed()
}

/// Documentation/block/ublk.rst, UBLK_F_USER_RECOVERY_REISSUE: what a dead server had is delivered to the next. The
/// command it had at the disk, in the memory of that request, ends first: until then the device keeps the request, and
/// no other server can come (ublk_drv.c:ublk_ctrl_start_recovery, EBUSY).
#[test]
fn write_of_a_dead_server_is_done_by_the_next() {
    declare!(Contract, OWN_HOST);
    if child::role().is_some() {
        serve();
    }
    let lun = Lun::with(thin());
    fs::write(HCTL, &lun.device().hctl).expect("written");
    let mut server = Child::start("server");
    let mut device = UblkDevice::adopt(server.hear().parse().expect("the number of a device"));
    let disk = BlockDevice::open(&device.block_path(), Access::ReadWrite);
    let data = cdb::pattern(96, 8, 3);
    lun.hold(1);
    let recovered = thread::scope(|scope| {
        let writer = scope.spawn(|| disk.write(96 * 512, &data));
        lun.held(1);
        server.kill();
        assert_ne!(device.state(), state::QUIESCED, "while the command is at the disk");
        lun.release();
        device.await_state(state::QUIESCED);
        let (bridge, config) = lasting(lun.device());
        let recovered = Server::recover(device.id(), &config, bridge).expect("recovered");
        writer.join().expect("no panic").expect("written");
        recovered
    });
    assert_eq!(disk.read(96 * 512, data.len()).expect("read"), data);
    let entries = lun.journal().entries;
    let writes = entries.iter().filter(|entry| entry.command == "WRITE(10)").count();
    assert_eq!(writes, 2, "by the dead server and by the next: {entries:?}");
    drop(disk);
    recovered.delete().expect("deleted");
}
