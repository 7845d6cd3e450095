//! Commands of ublk that wait for each other. Where they do, nothing ends them, and the guest is lost.

use std::{
    borrow::Cow,
    mem,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use bsg::Access;
use harness::{
    BlockDevice, Child, Feature, Needs, UblkDevice,
    child::{self, Parent},
    declare, wait,
};
use rstest::rstest;
use ublk::{
    Buffer, Config, Control, Faults, Features, Region, Server,
    uapi::{CtrlCmd, ShmemBufReg, ctrl},
};
use ublk_fault::{Effect, OpName, Rule, When};
use zerocopy::IntoBytes;

use crate::ublk::{
    killed::{Fate, Point, kill_at, serve_to_the_point},
    protocol::{DEADLINE, MOMENT},
    recorder::{Recorder, unscanned},
};

/// The child: a server that keeps a write, has somebody register memory, and leaves its device. Tells the device's number,
/// and `left`.
fn register_and_leave() -> ! {
    let mut parent = Parent::connect();
    let rule = Rule::new("held", Effect::hold()).when(When::op(OpName::Write));
    let faults = Faults::new(vec![rule], 0).expect("sound");
    let server = Server::start(&shared_reissue().faults(&faults), Arc::new(Recorder::new(64)));
    let server = server.expect("started");
    parent.tell(&server.dev_id().to_string());
    faults.wait_held(1, DEADLINE).expect("held");
    let region = Region::zeroed(4096).expect("a page");
    region.fill(1);
    let memory = ShmemBufReg { addr: region.address(), len: 4096, flags: 0, reserved: 0 };
    let memory = Buffer::copy_of(memory.as_bytes()).expect("memory").into();
    let mut registrar = Control::open().expect("opened");
    let command = CtrlCmd { len: 24, ..CtrlCmd::for_device(server.dev_id()) };
    let token = registrar.begin(ctrl::REG_BUF, command, memory).expect("submitted");
    assert!(registrar.finish(token, Instant::now() + MOMENT).is_err(), "a request is held");
    server.leave();
    parent.tell("left");
    parent.until_killed();
}

fn shared_reissue() -> Config {
    let reissue = Features::USER_RECOVERY | Features::USER_RECOVERY_REISSUE;
    unscanned(64).with(reissue | Features::SHMEM_ZC)
}

const SHARED_AND_ALONE: Needs = Needs {
    own_vm: true,
    deadline_s: Some(5),
    features: Cow::Borrowed(&[Feature::KernelAtLeast(7, 1)]),
    ..Needs::DEFAULT
};

/// A request that waits for the next server cannot be waited for by what keeps the next server out: REG_BUF, which lets
/// requests drain, beside a server that leaves and whose request is the next one's (UBLK_F_USER_RECOVERY_REISSUE).
#[rstest]
fn registration_of_memory_does_not_keep_the_next_server_out() {
    declare!(Contract, SHARED_AND_ALONE);
    if child::role().is_some() {
        register_and_leave();
    }
    let mut first = Child::start("server");
    let id: u32 = first.hear().parse().expect("a number");
    let path = format!("/dev/ublkb{id}");
    let client = thread::spawn(move || {
        BlockDevice::open(path.as_ref(), Access::ReadWrite).write(0, &[0x24; 512])
    });
    assert_eq!(first.hear(), "left");
    let free = wait::until(Duration::from_secs(1), "QUIESCED beside REG_BUF", || {
        UblkDevice::find(id).filter(|info| info.state == 2)
    });
    if let Err(error) = free {
        // It waits in the kernel, and nothing can end it.
        mem::forget(first);
        panic!("{error}");
    }
    let target = Arc::new(Recorder::new(64));
    let server = Server::recover(id, &shared_reissue(), target).expect("recovered");
    client.join().expect("no panic").expect("written");
    server.delete().expect("deleted");
}

/// A request that is committed with its data registered still is done when the data is let go; by the death of the server
/// as well, which lets go of everything.
#[rstest]
fn committed_request_of_a_killed_server_is_done(#[values(Fate::Gone, Fate::Waits)] fate: Fate) {
    declare!(Contract, SHARED_AND_ALONE);
    if child::role().is_some() {
        serve_to_the_point();
    }
    kill_at(Point::Committed, fate);
}
