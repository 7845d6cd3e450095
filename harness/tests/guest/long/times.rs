//! The time a command has whose caller names none, waited for to its end.

use std::{thread, time::Instant};

use bsg::{Completion, Request};
use fault::Times;
use harness::{Lun, Needs, declare};
use rstest::rstest;
use scsi_fault::{Effect, Rule, When};

use crate::bsg::{
    events::KernelLog,
    retries::{OWN_HOST, spend_retries},
    ways::{Way, execute},
};

/// Who sends, and what it has then, in seconds.
const DEFAULTS: [(Way, u64); 3] = [(Way::SgIoV4, 60), (Way::UringCmd, 60), (Way::SgV3, 30)];

/// block/bsg.c:bsg_timeout and drivers/scsi/scsi_bsg.c:scsi_bsg_uring_cmd: 60 s (include/linux/blkdev.h:
/// BLK_DEFAULT_SG_TIMEOUT). drivers/scsi/sg.c:sg_new_write sets none, so that it has the queue's, 30 s
/// (block/blk-timeout.c:blk_add_timer, blk-mq.c:blk_mq_init_allocated_queue). A unit that is BUSY for ever has a command
/// sent again until then, and the log says how long that was (drivers/scsi/scsi_lib.c:scsi_cmd_runtime_exceeced).
#[rstest]
fn command_whose_caller_names_no_time_has_that_of_its_way() {
    declare!(Contract, Needs { deadline_s: Some(100), ..OWN_HOST });
    let luns = [(); 4].map(|()| Lun::fresh());
    let _stay_open = spend_retries(&luns.each_ref());
    let mut log = KernelLog::begin();
    let send = |lun: &Lun, way: Way| -> (Completion, u64) {
        let busy = Rule::new("busy", Effect::status("BUSY"));
        lun.faults([busy.when(When::any()).times(Times::Always)]);
        let begun = Instant::now();
        let request = Request::new(&[0; 6]).timeout_ms(0);
        (execute(&mut *way.open(lun.device()), request), begun.elapsed().as_secs())
    };
    thread::scope(|scope| {
        let senders = luns
            .iter()
            .zip(DEFAULTS)
            .map(|(lun, (way, limit_s))| (way, limit_s, scope.spawn(move || send(lun, way))));
        for (way, limit_s, sender) in Vec::from_iter(senders) {
            let (done, taken_s) = sender.join().expect("no panic");
            assert_eq!((done.device_status, done.host_status), (0x08, 0), "{way:?}");
            assert!((limit_s..limit_s + 15).contains(&taken_s), "{way:?} took {taken_s} s");
        }
    });
    let records = log.records_with("timing out command");
    for (lun, (way, limit_s)) in luns.iter().zip(DEFAULTS) {
        let unit = format!(" {}: ", lun.device().hctl);
        let of_unit: Vec<_> = records.iter().filter(|record| record.contains(&unit)).collect();
        assert_eq!(of_unit.len(), 1, "{way:?}: {records:?}");
        assert!(of_unit[0].contains(&format!("waited {limit_s}s")), "{way:?}: {of_unit:?}");
    }
}
