//! START STOP UNIT (SBC). There is no medium to load or eject, and no power condition but started and
//! stopped.

use scsi::cdb;

use super::{Execution, block};
use crate::{Readiness, error::CommandError};

/// IMMED makes no difference: starting and stopping take no time. A unit that is becoming ready on its
/// own is not hurried.
pub(super) fn start_stop_unit(execution: &mut Execution<'_, '_, '_>) -> Result<(), CommandError> {
    let cdb = execution.cdb::<cdb::StartStopUnit>();
    let readiness = &execution.unit.readiness;
    if cdb.start & cdb::START == 0 {
        if cdb.start & cdb::NO_FLUSH == 0 {
            block::flush(execution.medium)?;
        }
        readiness.set(Readiness::Stopped);
    } else if readiness.get() == Readiness::Stopped {
        readiness.set(Readiness::Ready);
    }
    Ok(())
}
