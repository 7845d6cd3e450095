//! The kernel's passthrough as the way from a law to a unit.

use std::{
    any::Any,
    cell::RefCell,
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
};

use bsg::{Access, Request, SgIoctl};
use harness::ScsiDevice;
use laws::{Completion, Law, Transport};

use crate::bsg::ways::{Way, execute, transferred};

/// A unit as its nexuses see it.
pub(super) struct Passthrough {
    nexuses: Vec<Nexus>,
    /// OPERATION CODE and SERVICE ACTION of what was GOOD.
    good: RefCell<BTreeSet<(u8, u8)>>,
}

struct Nexus {
    way: RefCell<Box<dyn bsg::Passthrough>>,
    /// Task management functions go through sg.
    functions: SgIoctl,
}

impl Passthrough {
    /// A device for each nexus, and the way to them.
    #[track_caller]
    pub(super) fn to(devices: &[ScsiDevice], way: Way) -> Self {
        let nexus = |device: &ScsiDevice| {
            let functions = SgIoctl::open(device.sg(), Access::ReadWrite);
            Nexus {
                way: RefCell::new(way.open(device)),
                functions: functions.unwrap_or_else(|error| panic!("{error}")),
            }
        };
        Passthrough { nexuses: devices.iter().map(nexus).collect(), good: RefCell::default() }
    }

    /// The commands that have ended with GOOD, by OPERATION CODE and SERVICE ACTION, which is 0 where there are none.
    pub(super) fn good(&self) -> BTreeSet<(u8, u8)> {
        self.good.borrow().clone()
    }

    /// How a law is broken, if it is.
    pub(super) fn breach(&self, law: &Law) -> Option<String> {
        catch_unwind(AssertUnwindSafe(|| law.check(self))).err().map(|panic| words(&*panic))
    }
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words").to_owned()
}

impl Transport for Passthrough {
    fn execute(&self, nexus: usize, cdb: &[u8], data_out: &[u8], data_in_len: usize) -> Completion {
        let request = Request::new(cdb);
        let request = match (data_out.len(), data_in_len) {
            (0, 0) => request,
            (0, len) => request.data_in(len),
            (_, 0) => request.data_out(data_out),
            _ => panic!("{cdb:02x?} moves data both ways, which no law needs"),
        };
        let done = execute(&mut **self.nexuses[nexus].way.borrow_mut(), request);
        assert_eq!(done.host_status, 0, "{cdb:02x?}: {done:?}");
        if done.device_status == 0 {
            // SPC-4: SERVICE ACTION IN(16) and MAINTENANCE IN.
            let has_actions = matches!(cdb[0], 0x9e | 0xa3);
            let action = if has_actions { cdb[1] & 0x1f } else { 0 };
            self.good.borrow_mut().insert((cdb[0], action));
        }
        let data = if data_in_len > 0 { transferred(&done).to_vec() } else { Vec::new() };
        Completion {
            status: u8::try_from(done.device_status).expect("a status is a byte"),
            residual: u64::try_from(done.residual).expect("no more than was offered"),
            sense: done.sense,
            data,
        }
    }

    fn logical_unit_reset(&self, nexus: usize) {
        let done = self.nexuses[nexus].functions.reset_logical_unit();
        done.unwrap_or_else(|error| panic!("LOGICAL UNIT RESET: {error}"));
    }
}
