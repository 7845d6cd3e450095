//! The control queue: every task management function and asynchronous notification is answered,
//! because Linux waits for the answer without a limit.

use std::mem::size_of;

use device_server::{Lookup, LunAddress, TmfResponse};
use scsi::task::TaskManagementFunction as Tmf;
use tracing::{debug, warn};
use zerocopy::{Immutable, IntoBytes, little_endian::U32};

use crate::{
    backend::{Ring, RingError},
    chain::Chain,
    target::Target,
    unit::{Running, StillInFlight, Which},
    wire::{
        CONTROL_QUEUE, CtrlAnReq, CtrlAnResp, CtrlTmfReq, CtrlTmfResp, Response, T_AN_QUERY,
        T_AN_SUBSCRIBE, T_TMF, task_management_function,
    },
};

/// Serves everything that is available on the queue.
pub(crate) fn serve(target: &Target, ring: &Ring) {
    ring.drain(|ring| match fetch(target, ring)? {
        None => Ok(false),
        Some((chain, request)) => {
            answer(target, chain, request);
            Ok(true)
        }
    });
}

/// A control request.
enum Request {
    TaskManagement(TaskManagement),
    /// Answered without further ado.
    Refused(Response),
    /// Asynchronous notification: the unit reports no MMC events, which is the whole answer.
    Notification(Response),
    Malformed {
        reason: &'static str,
        /// Whether the response is that of an asynchronous notification.
        notification: bool,
    },
}

struct TaskManagement {
    function: Tmf,
    address: LunAddress,
    tag: u64,
    /// Registration with every unit concerned, against a reset of it meanwhile.
    running: Vec<Running>,
}

fn fetch(target: &Target, ring: &Ring) -> Result<Option<(Chain, Request)>, RingError> {
    let _fetching = target.fetching(CONTROL_QUEUE);
    Ok(ring.pop()?.map(|chain| {
        let request = parse(target, &chain);
        (chain, request)
    }))
}

fn parse(target: &Target, chain: &Chain) -> Request {
    let malformed = |reason, notification| Request::Malformed { reason, notification };
    let control_type = chain.read_header().map(|word: U32| word.get());
    let notification = matches!(control_type, Some(T_AN_QUERY | T_AN_SUBSCRIBE));
    if chain.fault().is_some() {
        return malformed("descriptor chain", notification);
    }
    match control_type {
        Some(T_TMF) => match chain.read_header::<CtrlTmfReq>() {
            _ if (chain.writable_len() as usize) < size_of::<CtrlTmfResp>() => {
                malformed("no room for a response", false)
            }
            None => malformed("shorter than a task management request", false),
            Some(request) => parse_task_management(target, &request),
        },
        Some(T_AN_QUERY | T_AN_SUBSCRIBE) => match chain.read_header::<CtrlAnReq>() {
            _ if (chain.writable_len() as usize) < size_of::<CtrlAnResp>() => {
                malformed("no room for a response", true)
            }
            None => malformed("shorter than a notification request", true),
            Some(request) => {
                Request::Notification(lookup(target, &request.lun).err().unwrap_or(Response::Ok))
            }
        },
        Some(_) => malformed("unknown type", false),
        None => malformed("shorter than its type", false),
    }
}

fn parse_task_management(target: &Target, request: &CtrlTmfReq) -> Request {
    let function = task_management_function(request.subtype.get());
    let mut lun = request.lun;
    if function == Some(Tmf::ITNexusReset) {
        // Addresses the whole target; the logical unit is ignored (virtio 1.2, 5.6.6.2).
        lun[2..4].fill(0);
    }
    let address = match lookup(target, &lun) {
        Ok(address) => address,
        Err(Response::IncorrectLun) if function == Some(Tmf::ITNexusReset) => {
            LunAddress { target: lun[1], lun: 0 }
        }
        Err(response) => return Request::Refused(response),
    };
    let Some(function) = function else { return Request::Refused(Response::FunctionRejected) };
    let running = match function {
        Tmf::ITNexusReset => target.units_of(address.target).map(|unit| unit.begin(None)).collect(),
        _ => target.unit(address).map(|unit| unit.begin(None)).into_iter().collect(),
    };
    Request::TaskManagement(TaskManagement { function, address, tag: request.tag.get(), running })
}

/// The logical unit a `lun` field addresses, or the response that says what is wrong with it.
fn lookup(target: &Target, lun: &[u8; 8]) -> Result<LunAddress, Response> {
    let address = LunAddress::from_virtio(lun).ok_or(Response::BadTarget)?;
    match target.device().lookup(address.target, address.lun) {
        Lookup::NoTarget => Err(Response::BadTarget),
        Lookup::AbsentUnit => Err(Response::IncorrectLun),
        Lookup::Unit => Ok(address),
    }
}

fn answer(target: &Target, chain: Chain, request: Request) {
    let (response, notification) = match request {
        Request::TaskManagement(management) => {
            let response = management.carry_out(target);
            debug!(function = ?management.function, address = ?management.address, ?response, "task management");
            target.count_control_request();
            // Kept in flight until the response is written.
            respond_tmf(chain, response);
            return;
        }
        Request::Refused(response) => {
            target.count_control_request();
            (response, false)
        }
        Request::Notification(response) => {
            target.count_control_request();
            (response, true)
        }
        Request::Malformed { reason, notification } => {
            debug!(
                reason,
                fault = chain.fault().map(tracing::field::display),
                "malformed control request"
            );
            target.count_malformed();
            (Response::Failure, notification)
        }
    };
    if notification {
        respond(chain, &CtrlAnResp { event_actual: 0.into(), response: response as u8 });
    } else {
        respond_tmf(chain, response);
    }
}

fn respond_tmf(chain: Chain, response: Response) {
    respond(chain, &CtrlTmfResp { response: response as u8 });
}

/// Gives the chain back with the response, or empty if it has no room for one.
fn respond<T: IntoBytes + Immutable>(chain: Chain, response: &T) {
    let answered = chain.write_header(response);
    let len = u32::try_from(size_of::<T>()).expect("responses are short");
    chain.complete(if answered { len } else { 0 });
}

impl TaskManagement {
    /// Waits for the commands concerned, which end by themselves, then lets the device server do its
    /// part. The specification wants every command concerned completed first.
    fn carry_out(&self, target: &Target) -> Response {
        let concerned = match self.function {
            Tmf::AbortTask => Some(Which::Tag(self.tag)),
            Tmf::AbortTaskSet | Tmf::ClearTaskSet | Tmf::LogicalUnitReset | Tmf::ITNexusReset => {
                Some(Which::Commands)
            }
            Tmf::ClearAca | Tmf::QueryTask | Tmf::QueryTaskSet => None,
        };
        if let Some(which) = concerned
            && let Err(StillInFlight(left)) = self.wait_for(target, which)
        {
            warn!(function = ?self.function, address = ?self.address, left, "commands did not end in time");
            return Response::Failure;
        }
        match target.device().task_management(target.nexus(), self.address, self.function) {
            TmfResponse::FunctionRejected => Response::FunctionRejected,
            TmfResponse::IncorrectLogicalUnitNumber => Response::IncorrectLun,
            TmfResponse::FunctionSucceeded => Response::FunctionSucceeded,
            TmfResponse::FunctionComplete if self.finds_task() => Response::FunctionSucceeded,
            TmfResponse::FunctionComplete => Response::Ok,
        }
    }

    fn wait_for(&self, target: &Target, which: Which) -> Result<(), StillInFlight> {
        self.running
            .iter()
            .try_for_each(|running| running.unit().wait_for(which, target.wait_limit()))
    }

    /// Whether this is a query, and what it asks for is in flight.
    fn finds_task(&self) -> bool {
        let asked = match self.function {
            Tmf::QueryTask => Which::Tag(self.tag),
            Tmf::QueryTaskSet => Which::Commands,
            _ => return false,
        };
        self.running.iter().any(|running| running.unit().has(asked))
    }
}
