//! A target that is killed and restarted under load. QEMU reconnects, and the commands in flight are found in the
//! memory both share (vhost-user, Inflight I/O tracking): each is carried out, perhaps twice, and none is lost.

use std::{borrow::Cow, collections::BTreeMap};

use bsg::{Access, BsgUring, Request, UringFrame};
use control::{LunSpec, Medium};
use guest_protocol::message::TargetSignal;
use harness::{Feature, HostShape, Lun, Needs, ScsiHost, assert::assert_good, bench, declare};

use super::{
    block,
    cdb::{self, Size},
    ways::{soon, uring_cmd},
};

const RECONNECTS: Needs = Needs {
    host: ScsiHost::Own(HostShape::DEFAULT),
    features: Cow::Borrowed(&[Feature::Reconnect, Feature::KernelAtLeast(7, 1)]),
    deadline_s: Some(300),
    ..Needs::DEFAULT
};

const ROUNDS: u32 = 50;
const IN_FLIGHT: u32 = 16;
/// So many of them the daemon has fetched and not answered when it is killed.
const HELD: u64 = 8;

/// Writes a round's blocks, each where the round before has written too.
fn submit(bsg: &mut BsgUring, round: u32) -> BTreeMap<u64, u32> {
    let write = |lba| {
        let data = cdb::pattern(lba, 1, round);
        Request::new(&cdb::write(Size::Ten, lba, 1)).data_out(&data).timeout_ms(60_000)
    };
    let submitted = (0..IN_FLIGHT).map(|lba| {
        let token = bsg.submit(UringFrame::from(write(lba))).expect("submitted");
        (token, lba)
    });
    submitted.collect()
}

#[test]
fn acknowledged_writes_survive_fifty_kills() {
    declare!(Contract, RECONNECTS);
    let medium = Medium::File { path: "restart".into() };
    let lun = Lun::with(LunSpec { medium, ..LunSpec::default() });
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    for round in 1..=ROUNDS {
        // The daemon that is killed has begun none of these, and its successor holds nothing.
        lun.hold(HELD);
        let mut writes = submit(&mut bsg, round);
        lun.held(usize::try_from(HELD).expect("a few"));
        bench::signal_target(TargetSignal::Restart);
        while !writes.is_empty() {
            let done = bsg.wait(soon()).expect("completed");
            let lba = writes.remove(&done.token).expect("a write of this round");
            assert_good(&done.completion().expect("executed"));
            // Acknowledged: it is there, whoever serves now.
            assert!(lba < IN_FLIGHT);
        }
        for lba in 0..IN_FLIGHT {
            let seen = block::read(&mut bsg, Size::Ten, lba, 1);
            assert_eq!(seen, cdb::pattern(lba, 1, round), "block {lba} after kill {round}");
        }
    }
}
