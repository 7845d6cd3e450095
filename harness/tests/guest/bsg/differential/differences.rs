//! In what the ways into the kernel differ. What is not here is the same.

use bsg::Errno;

use super::{
    Bytes, Entry, Outcome, Run, Seen,
    cases::{Case, Step},
};
use crate::bsg::ways::Way;

/// SAM-5, Status codes.
const CHECK_CONDITION: u32 = 0x02;
/// include/scsi/sg.h.
const DRIVER_SENSE: u32 = 0x08;

/// What this way makes of a case of which `SG_IO` v4 has made `reference`.
pub(super) fn as_seen_by(way: Way, case: &Case, reference: &Run) -> Run {
    let mut entries: Vec<Entry> = reference.entries.clone();
    let steps = case.steps.iter().zip(&reference.outcomes);
    let outcomes = steps.map(|(step, outcome)| match way {
        Way::SgIoV4 => outcome.clone(),
        Way::UringCmd => over_uring_cmd(step, outcome),
        Way::SgV3 => over_sg_v3(step, outcome),
    });
    let outcomes: Vec<_> = outcomes.collect();
    // A step that a way may refuse alone is the last one and meets no fault.
    if let (Some(Err(_)), Some(Ok(_))) = (outcomes.last(), reference.outcomes.last()) {
        entries.pop();
    }
    Run { outcomes, entries, functions: reference.functions.clone() }
}

fn over_uring_cmd(step: &Step, outcome: &Outcome) -> Outcome {
    // drivers/scsi/scsi_bsg.c:scsi_bsg_uring_cmd wants a CDB; bsg.c:bsg_sg_io takes none for TEST UNIT READY.
    if step.cdb.is_empty() {
        return Err(Errno::INVAL);
    }
    let mut seen = outcome.clone()?;
    // scsi_bsg.c:scsi_bsg_uring_task_cb returns sense data with CHECK CONDITION alone.
    if seen.device_status != CHECK_CONDITION {
        seen.sense.clear();
    }
    Ok(seen)
}

fn over_sg_v3(step: &Step, outcome: &Outcome) -> Outcome {
    // drivers/scsi/sg.c:sg_new_write: no CDB is shorter than six bytes.
    if step.cdb.len() < 6 {
        return Err(Errno::MSGSIZE);
    }
    let Seen { device_status, mut sense, .. } = outcome.clone()?;
    // drivers/scsi/scsi_lib.c:scsi_io_completion_nz_result notes the length of sense data, and nobody takes it back
    // from a command that is sent again and fails without any: `SG_IO` v4 returns so many zeros.
    if sense.first().is_some_and(|code| code & 0x70 != 0x70) {
        sense.clear();
    }
    // sg.c:sg_new_read sees CHECK CONDITION in bit 1 of any status, whether or not there was sense data: it
    // is eight zeros then.
    let capacity = usize::try_from(step.sense_capacity).expect("short");
    let sense = match sense.is_empty() && device_status & CHECK_CONDITION != 0 {
        true => vec![0; capacity.min(8)],
        false => sense,
    };
    // It sets the driver status where it has returned sense data, and only there.
    let driver_status = if sense.is_empty() { 0 } else { DRIVER_SENSE };
    Ok(Seen { driver_status, sense, ..outcome.clone()? })
}

/// An outcome without what is left to chance. Where a device says that more has come than has, there is in the
/// buffer what was there before; and sg v3 reads into one of its own that it uses again and again
/// (drivers/scsi/sg.c:sg_link_reserve).
pub(super) fn without_lies(way: Way, step: &Step, outcome: &Outcome) -> Outcome {
    let mut seen = outcome.clone()?;
    let lies = step.fault.as_ref().is_some_and(|effect| effect.residual.is_some());
    if way == Way::SgV3 && lies {
        seen.data = Bytes::default();
    }
    Ok(seen)
}
