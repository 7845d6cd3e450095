//! The control queue: every task management function and asynchronous notification is answered,
//! because Linux waits for the answer without a limit, unless a fault says otherwise.

use std::{mem::size_of, sync::Arc};

use device_server::{Lookup, LunAddress, NexusId, TmfResponse};
use scsi::task::TaskManagementFunction as Tmf;
use scsi_fault::DiePoint;
use tracing::{debug, warn};
use zerocopy::{Immutable, IntoBytes, little_endian::U32};

use crate::{
    backend::{Ring, RingError},
    chain::Chain,
    faults::{Event, Fired, die},
    held::Held,
    journal::{TaskManagementRecord, now_us},
    target::Target,
    unit::{Running, StillInFlight, Turn, Which},
    wire::{
        CONTROL_QUEUE, CtrlAnReq, CtrlAnResp, CtrlTmfReq, CtrlTmfResp, Response, T_AN_QUERY,
        T_AN_SUBSCRIBE, T_TMF, task_management_function,
    },
};

/// Serves everything that is available on the queue.
pub(crate) fn serve(target: &Target, nexus: NexusId, ring: &Ring) {
    ring.drain(|ring| match fetch(target, nexus, ring)? {
        Fetched::Nothing => Ok(false),
        Fetched::Waits(together) => {
            together.into_iter().for_each(|turn| turn.take(target));
            Ok(true)
        }
        Fetched::Request(chain, request) => {
            answer(target, chain, request);
            Ok(true)
        }
    });
}

/// What a look at the queue brought.
enum Fetched {
    Nothing,
    /// A task management function that waits at its unit, unless it is the one that others have waited for:
    /// then their turns.
    Waits(Vec<Turn>),
    Request(Chain, Request),
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

/// A task management function between fetching and its answer.
#[derive(Debug)]
pub(crate) struct TaskManagement {
    function: Tmf,
    nexus: NexusId,
    address: LunAddress,
    tag: u64,
    /// Registration with every unit concerned, against a reset of it meanwhile. Empty while a unit
    /// holds it.
    running: Vec<Running>,
    fault: Option<Fired>,
    fetched_us: u64,
    /// Whether its unit has held it.
    held: bool,
}

fn fetch(target: &Target, nexus: NexusId, ring: &Ring) -> Result<Fetched, RingError> {
    let _fetching = target.fetching(nexus, CONTROL_QUEUE);
    let Some(chain) = ring.pop()? else { return Ok(Fetched::Nothing) };
    Ok(match parse(target, nexus, &chain) {
        Request::TaskManagement(mut management) if management.waits() => {
            management.running.clear();
            let unit = target.unit(management.address).expect("the fault came from it");
            Fetched::Waits(unit.wait(target.timers(), Held::TaskManagement(chain, management)))
        }
        request => Fetched::Request(chain, request),
    })
}

fn parse(target: &Target, nexus: NexusId, chain: &Chain) -> Request {
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
            Some(request) => parse_task_management(target, nexus, &request),
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

fn parse_task_management(target: &Target, nexus: NexusId, request: &CtrlTmfReq) -> Request {
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
        Tmf::ITNexusReset => begin_on_all(target, nexus, address.target),
        _ => target.unit(address).map(|unit| unit.begin(nexus, None)).into_iter().collect(),
    };
    let event = Event::TaskManagement { nexus: nexus.0, function };
    Request::TaskManagement(TaskManagement {
        function,
        nexus,
        address,
        tag: request.tag.get(),
        running,
        fault: target.unit(address).and_then(|unit| unit.decide(&event)),
        fetched_us: now_us(),
        held: false,
    })
}

fn begin_on_all(target: &Target, nexus: NexusId, number: u8) -> Vec<Running> {
    target.units_of(number).into_iter().map(|unit| unit.begin(nexus, None)).collect()
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
        Request::TaskManagement(management) => return management.carry_out(target, chain),
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
        respond_tmf(chain, response as u8);
    }
}

fn respond_tmf(chain: Chain, response: u8) {
    respond(chain, &CtrlTmfResp { response });
}

/// Gives the chain back with the response, or empty if it has no room for one.
fn respond<T: IntoBytes + Immutable>(chain: Chain, response: &T) {
    let answered = chain.write_header(response);
    let len = u32::try_from(size_of::<T>()).expect("responses are short");
    chain.complete(if answered { len } else { 0 });
}

impl TaskManagement {
    pub(crate) fn name(&self) -> &'static str {
        self.function.name()
    }

    pub(crate) fn nexus(&self) -> NexusId {
        self.nexus
    }

    pub(crate) fn tag(&self) -> u64 {
        self.tag
    }

    pub(crate) fn fetched_us(&self) -> u64 {
        self.fetched_us
    }

    /// It is in flight again after it was held.
    pub(crate) fn resume(&mut self, running: Running) {
        self.held = true;
        self.running = vec![running];
    }

    /// Does it, unless a fault keeps it from being done, and answers it.
    pub(crate) fn carry_out(mut self, target: &Target, chain: Chain) {
        if self.held && self.function == Tmf::ITNexusReset {
            // It was registered with the one unit that held it.
            self.running = begin_on_all(target, self.nexus, self.address.target);
        }
        self.die_at(DiePoint::Fetched);
        let conduct = self.fault.as_ref().map(|fired| &fired.rule.effect);
        let mut response = Response::Ok as u8;
        if conduct.is_none_or(|conduct| conduct.execute) {
            response = self.perform(target) as u8;
        }
        response = conduct.and_then(|conduct| conduct.answer.response).unwrap_or(response);
        self.die_at(DiePoint::Executed);
        debug!(function = ?self.function, address = ?self.address, response, "task management");
        target.count_control_request();
        self.respond(chain, response);
    }

    /// Whether it has to wait before it begins.
    fn waits(&self) -> bool {
        self.fault.as_ref().is_some_and(|fired| fired.rule.effect.wait.is_some())
    }

    /// What goes wrong with it.
    pub(crate) fn fault(&self) -> Option<&Fired> {
        self.fault.as_ref()
    }

    fn die_at(&self, point: DiePoint) {
        if self.fault.as_ref().is_some_and(|fired| fired.rule.effect.die == Some(point)) {
            die();
        }
    }

    /// Ends it without doing what it asks for, as complete.
    pub(crate) fn end(self, chain: Chain) {
        self.respond(chain, Response::Ok as u8);
    }

    /// Writes journal and response. It stays in flight until then.
    fn respond(self, chain: Chain, response: u8) {
        for running in &self.running {
            running.unit().record(|| TaskManagementRecord {
                fetched_us: self.fetched_us,
                completed_us: now_us(),
                function: self.function,
                tag: self.tag,
                nexus: self.nexus.0,
                held: self.held,
                rule: self.fault.as_ref().map(|fired| Arc::clone(&fired.rule)),
                response,
            });
        }
        self.die_at(DiePoint::Answered);
        respond_tmf(chain, response);
        self.die_at(DiePoint::Completed);
    }

    /// Ends the commands concerned that are held, waits for those that run, which end by themselves, and
    /// lets the device server do its part. The specification wants every command concerned completed
    /// first.
    fn perform(&self, target: &Target) -> Response {
        let concerned = match self.function {
            Tmf::AbortTask => Some((Which::Tag(self.nexus, self.tag), Response::Aborted)),
            Tmf::AbortTaskSet => Some((Which::CommandsOf(self.nexus), Response::Aborted)),
            Tmf::ClearTaskSet => Some((Which::Commands, Response::Aborted)),
            Tmf::ITNexusReset => Some((Which::CommandsOf(self.nexus), Response::Reset)),
            Tmf::LogicalUnitReset => Some((Which::Commands, Response::Reset)),
            Tmf::ClearAca | Tmf::QueryTask | Tmf::QueryTaskSet => None,
        };
        if let Some((which, response)) = concerned {
            let taken = self.running.iter().flat_map(|running| running.unit().take_held(which));
            let held: Vec<_> = taken.collect();
            let of: Vec<_> = held.iter().map(Held::nexus).collect();
            held.into_iter().for_each(|held| held.end(target, response));
            if self.function == Tmf::ClearTaskSet {
                target.device().commands_cleared(self.address, self.nexus, &of);
            }
            if let Err(StillInFlight(left)) = self.wait_for(target, which) {
                warn!(function = ?self.function, address = ?self.address, left, "commands did not end in time");
                return Response::Failure;
            }
        }
        match target.device().task_management(self.nexus, self.address, self.function) {
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
            Tmf::QueryTask => Which::Tag(self.nexus, self.tag),
            Tmf::QueryTaskSet => Which::CommandsOf(self.nexus),
            _ => return false,
        };
        self.running.iter().any(|running| running.unit().has(asked))
    }
}
