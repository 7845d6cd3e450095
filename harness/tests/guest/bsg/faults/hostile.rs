//! A device that does what none may do. Each has a machine of its own, for a queue may be unusable afterwards.

use bsg::Access;
use harness::{Lun, Needs, assert::assert_good, bench, declare};
use scsi_fault::{Effect, Hostile, Rule, When};

use super::{OWN_HOST, contents, execute, read, scenario, statuses, test_unit_ready, unit_with};
use crate::bsg::{events::KernelLog, ways::uring_cmd};

const OWN_VM: Needs = Needs { own_vm: true, ..OWN_HOST };

fn on_read(name: &str, hostile: Hostile) -> Vec<Rule> {
    let effect = Effect { hostile: Some(hostile), ..Effect::default() };
    vec![Rule::new(name, effect).when(When::command("READ(10)"))]
}

/// drivers/scsi/virtio_scsi.c:virtscsi_vq_done does not ask how much was written.
#[test]
fn used_length_beyond_the_buffers_is_not_believed() {
    declare!(Quirk, OWN_VM);
    let hostile = Hostile { used_len: Some(4_294_967_295), ..Hostile::default() };
    let lun = unit_with(&scenario!("hostile-used-len", 0, on_read("long", hostile)));
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    assert_eq!(contents(&mut bsg, 0, 1), [0; 512]);
    assert_eq!(lun.fired("long"), 1);
    assert_eq!(contents(&mut bsg, 0, 1), [0; 512]);
}

/// drivers/scsi/virtio_scsi.c:virtscsi_complete_cmd takes what it does not know for a failure: DID_ERROR is 7.
#[test]
fn response_without_a_name_is_a_failure() {
    declare!(Quirk, OWN_VM);
    let hostile = Hostile { response: Some(254), ..Hostile::default() };
    let lun = unit_with(&scenario!("hostile-response", 0, on_read("unknown", hostile)));
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    assert_eq!(statuses(&execute(&mut bsg, read(0, 1))).1, 7);
    assert_eq!(lun.fired("unknown"), 1);
    assert_good(&execute(&mut bsg, test_unit_ready()));
}

/// drivers/virtio/virtio_ring.c:virtqueue_get_buf_ctx_split: what is given back twice is no head any more, and the
/// queue is broken. Whatever is sent then ends at once: DID_BAD_TARGET is 4.
#[test]
fn command_that_comes_back_twice_breaks_the_queue() {
    declare!(Quirk, OWN_VM);
    let hostile = Hostile { used_times: Some(2), ..Hostile::default() };
    let lun = unit_with(&scenario!("hostile-used-times", 0, on_read("twice", hostile)));
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    let mut log = KernelLog::begin();
    assert_eq!(contents(&mut bsg, 0, 1), [0; 512]);
    log.wait_for(&["is not a head!"], 1);
    assert_eq!(statuses(&execute(&mut bsg, test_unit_ready())), (0, 4));
    assert_eq!(lun.fired("twice"), 1);
}

/// drivers/virtio/virtio_ring.c:virtqueue_get_buf_ctx_split: an id the ring does not have breaks the queue. The command
/// never comes back (drivers/scsi/virtio_scsi.c:virtscsi_eh_timed_out waits on), and only a new boot frees the machine of
/// it.
#[test]
fn id_out_of_range_breaks_the_queue_until_the_next_boot() {
    declare!(Quirk, OWN_VM);
    if bench::rebooted().is_none() {
        let hostile = Hostile { used_id: Some(65535), ..Hostile::default() };
        let lun = unit_with(&scenario!("hostile-used-id", 0, on_read("nobody's", hostile)));
        let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
        let mut log = KernelLog::begin();
        bsg.submit(read(0, 1).into()).expect("submitted");
        log.wait_for(&["id 65535 out of range"], 1);
        let mut other = uring_cmd(lun.device(), Access::ReadWrite);
        assert_eq!(statuses(&execute(&mut other, test_unit_ready())), (0, 4));
        assert_eq!(lun.fired("nobody's"), 1);
        bench::reboot("broken");
    }
    let lun = Lun::fresh();
    assert_good(&execute(&mut uring_cmd(lun.device(), Access::ReadWrite), test_unit_ready()));
}
