//! What no device may do, and what the guest's drivers make of it. A wrong descriptor id breaks the queue, and its
//! command never ends: that is seen on rings of our own alone (vhost-user-scsi, tests/transport/faults.rs), for which
//! `hostile-used-id.toml` is the file.

use bsg::Access;
use harness::{Needs, assert::assert_good, declare};
use scsi_fault::{Code, Effect, Hostile, Rule, Scenario, When};

use super::{OWN_HOST, execute, read, same_in_both, statuses, unit_with};
use crate::bsg::ways::uring_cmd;

const OWN_VM: Needs = Needs { own_vm: true, ..OWN_HOST };

#[track_caller]
fn lies(text: &str, name: &str, hostile: Hostile) -> Scenario {
    let effect = Effect { hostile: Some(hostile), ..Effect::default() }.executed();
    same_in_both(text, 0, vec![Rule::new(name, effect).when(When::command(Code::from("READ(10)")))])
}

/// drivers/scsi/virtio_scsi.c:virtscsi_complete_cmd does not look at the length of the used ring's entry: neither more
/// nor less data than there is comes of it.
#[test]
fn length_of_a_used_entry_is_not_believed() {
    declare!(Contract, OWN_HOST);
    let hostile = Hostile { used_len: Some(u32::MAX), ..Hostile::default() };
    let text = include_str!("../../../../scenarios/hostile-used-len.toml");
    let lun = unit_with(&lies(text, "long use", hostile));
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    let done = execute(&mut bsg, read(0, 1));
    assert_good(&done);
    assert_eq!((done.residual, done.data), (0, vec![0; 512]));
    assert_eq!(lun.fired("long use"), 1);
    assert_good(&execute(&mut bsg, read(0, 1)));
}

/// virtscsi_complete_cmd: a response it does not know is a failure of the host, DID_ERROR (7).
#[test]
fn unknown_response_is_a_host_error() {
    declare!(Contract, OWN_HOST);
    let hostile = Hostile { response: Some(200), ..Hostile::default() };
    let text = include_str!("../../../../scenarios/hostile-response.toml");
    let lun = unit_with(&lies(text, "unknown response", hostile));
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    assert_eq!(statuses(&execute(&mut bsg, read(0, 1))), (0, 7));
    assert_good(&execute(&mut bsg, read(0, 1)));
}

/// drivers/virtio/virtio_ring.c:virtqueue_get_buf_ctx_split: the command ends with the first of two entries; the second
/// names what is no head any more, and the queue is used no longer. So nothing is sent after it.
#[test]
fn command_that_is_given_back_twice_ends_once() {
    declare!(Quirk, OWN_VM);
    let hostile = Hostile { used_times: Some(2), ..Hostile::default() };
    let text = include_str!("../../../../scenarios/hostile-used-times.toml");
    let lun = unit_with(&lies(text, "used twice", hostile));
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    let done = execute(&mut bsg, read(0, 1));
    assert_good(&done);
    assert_eq!(done.data, [0; 512]);
    assert_eq!((lun.fired("used twice"), bsg.in_flight()), (1, 0));
}
