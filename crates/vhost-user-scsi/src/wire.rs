//! Structures and numbers of virtio-scsi on the wire, little-endian as with VIRTIO_F_VERSION_1.
//!
//! Source: virtio 1.2, 5.6 SCSI Host Device, and the uapi header `linux/virtio_scsi.h`, against which
//! every size and offset is checked when this file is compiled.

use std::mem::{offset_of, size_of};

use scsi::task::{TaskAttribute, TaskManagementFunction};
use virtio_bindings::virtio_scsi as uapi;
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U16, U32, U64},
};

/// `cdb_size` of the configuration space: bytes of a CDB in a request. The default, never changed.
pub const CDB_SIZE: usize = 32;
/// `sense_size` of the configuration space: bytes of sense data in a response. The default, never
/// changed.
pub const SENSE_SIZE: usize = 96;

/// Index of the control queue (virtio 1.2, 5.6.2).
pub const CONTROL_QUEUE: usize = 0;
/// Index of the event queue.
pub const EVENT_QUEUE: usize = 1;
/// Index of the first request queue.
pub const FIRST_REQUEST_QUEUE: usize = 2;

/// Feature bit number: the device reports added and removed logical units.
pub const F_HOTPLUG: u32 = 1;
/// Feature bit number: the device reports changed parameters of logical units.
pub const F_CHANGE: u32 = 2;

/// `virtio_scsi_cmd_req`: the device-readable part of a command, 51 bytes, before data-out.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct CmdReq {
    /// Target and logical unit, see [`scsi::LunAddress::from_virtio`].
    pub lun: [u8; 8],
    /// Command identifier.
    pub tag: U64,
    /// Task attribute, see [`task_attribute`].
    pub task_attr: u8,
    /// SAM command priority.
    pub prio: u8,
    /// Command reference number.
    pub crn: u8,
    /// CDB, zero-padded.
    pub cdb: [u8; CDB_SIZE],
}

/// `virtio_scsi_cmd_resp`: the device-writable part of a command, 108 bytes, before data-in.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct CmdResp {
    /// Bytes written to `sense`.
    pub sense_len: U32,
    /// Bytes of the data buffers that were not transferred.
    pub resid: U32,
    /// SAM status qualifier.
    pub status_qualifier: U16,
    /// SAM status.
    pub status: u8,
    /// A [`Response`].
    pub response: u8,
    /// Sense data.
    pub sense: [u8; SENSE_SIZE],
}

/// `virtio_scsi_ctrl_tmf_req`: a task management function on the control queue, 24 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct CtrlTmfReq {
    /// [`T_TMF`].
    pub type_: U32,
    /// Which function, see [`task_management_function`].
    pub subtype: U32,
    /// Target and logical unit.
    pub lun: [u8; 8],
    /// Identifier of the command concerned, for ABORT TASK and QUERY TASK.
    pub tag: U64,
}

/// `virtio_scsi_ctrl_tmf_resp`, 1 byte.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct CtrlTmfResp {
    /// A [`Response`].
    pub response: u8,
}

/// `virtio_scsi_ctrl_an_req`: asynchronous notification query or subscription, 16 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct CtrlAnReq {
    /// [`T_AN_QUERY`] or [`T_AN_SUBSCRIBE`].
    pub type_: U32,
    /// Target and logical unit.
    pub lun: [u8; 8],
    /// MMC event classes the driver is interested in.
    pub event_requested: U32,
}

/// `virtio_scsi_ctrl_an_resp`, 5 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct CtrlAnResp {
    /// MMC event classes the device reports.
    pub event_actual: U32,
    /// A [`Response`].
    pub response: u8,
}

/// `virtio_scsi_event`: a buffer of the event queue, 16 bytes, written by the device.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Event {
    /// What happened; bit 31 says that earlier events were lost.
    pub event: U32,
    /// Target and logical unit.
    pub lun: [u8; 8],
    /// Depends on `event`.
    pub reason: U32,
}

/// `virtio_scsi_config`: the configuration space, 36 bytes. The front end makes it (QEMU from its
/// device's properties) and does not ask us.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Config {
    /// Number of request queues.
    pub num_queues: U32,
    /// Most data descriptors in a command.
    pub seg_max: U32,
    /// Hint: most 512-byte sectors in a transfer.
    pub max_sectors: U32,
    /// Hint: most commands in flight on a logical unit.
    pub cmd_per_lun: U32,
    /// Size of an [`Event`].
    pub event_info_size: U32,
    /// [`SENSE_SIZE`].
    pub sense_size: U32,
    /// [`CDB_SIZE`].
    pub cdb_size: U32,
    /// Highest channel: 0.
    pub max_channel: U16,
    /// Highest target.
    pub max_target: U16,
    /// Highest logical unit number.
    pub max_lun: U32,
}

/// `type` of a control request: task management function.
pub const T_TMF: u32 = 0;
/// `type` of a control request: asynchronous notification query.
pub const T_AN_QUERY: u32 = 1;
/// `type` of a control request: asynchronous notification subscription.
pub const T_AN_SUBSCRIBE: u32 = 2;

/// `event`: nothing happened; sent with [`EVENTS_MISSED`] alone (virtio 1.2, 5.6.6.3).
pub const T_NO_EVENT: u32 = 0;
/// `event`: a logical unit was reset, added or removed; `reason` says which.
pub const T_TRANSPORT_RESET: u32 = 1;
/// `event`: a parameter of a logical unit has changed; `reason` is ASC, and ASCQ in the next byte.
pub const T_PARAM_CHANGE: u32 = 3;
/// Flag in `event`: earlier events found no buffer and were lost.
pub const EVENTS_MISSED: u32 = 0x8000_0000;
/// `reason` of [`T_TRANSPORT_RESET`]: the logical unit was reset.
pub const EVT_RESET_HARD: u32 = 0;
/// `reason` of [`T_TRANSPORT_RESET`]: the logical unit was added.
pub const EVT_RESET_RESCAN: u32 = 1;
/// `reason` of [`T_TRANSPORT_RESET`]: the logical unit was removed.
pub const EVT_RESET_REMOVED: u32 = 2;

/// `response` of commands and control requests (virtio 1.2, 5.6.6.1 and 5.6.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Response {
    /// OK: `status` holds a SAM status. For task management: FUNCTION COMPLETE.
    Ok = 0,
    /// OVERRUN: the CDB asks for more data than the buffers hold.
    Overrun = 1,
    /// ABORTED by a task management function.
    Aborted = 2,
    /// BAD TARGET: never processed, because there is no such target.
    BadTarget = 3,
    /// RESET: cancelled by a reset.
    Reset = 4,
    /// BUSY: retry on the same path is likely to work.
    Busy = 5,
    /// TRANSPORT FAILURE: the connection to the target failed.
    TransportFailure = 6,
    /// TARGET FAILURE: do not retry on other paths.
    TargetFailure = 7,
    /// NEXUS FAILURE: other paths may give another result.
    NexusFailure = 8,
    /// FAILURE of another kind.
    Failure = 9,
    /// FUNCTION SUCCEEDED: the task asked for exists.
    FunctionSucceeded = 10,
    /// FUNCTION REJECTED: not supported.
    FunctionRejected = 11,
    /// INCORRECT LUN.
    IncorrectLun = 12,
}

impl Response {
    /// Every response, in order of number.
    pub const ALL: [Response; 13] = [
        Response::Ok,
        Response::Overrun,
        Response::Aborted,
        Response::BadTarget,
        Response::Reset,
        Response::Busy,
        Response::TransportFailure,
        Response::TargetFailure,
        Response::NexusFailure,
        Response::Failure,
        Response::FunctionSucceeded,
        Response::FunctionRejected,
        Response::IncorrectLun,
    ];

    /// The name as virtio's constants have it, behind `VIRTIO_SCSI_S_` and in words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Response::Ok => "OK",
            Response::Overrun => "OVERRUN",
            Response::Aborted => "ABORTED",
            Response::BadTarget => "BAD TARGET",
            Response::Reset => "RESET",
            Response::Busy => "BUSY",
            Response::TransportFailure => "TRANSPORT FAILURE",
            Response::TargetFailure => "TARGET FAILURE",
            Response::NexusFailure => "NEXUS FAILURE",
            Response::Failure => "FAILURE",
            Response::FunctionSucceeded => "FUNCTION SUCCEEDED",
            Response::FunctionRejected => "FUNCTION REJECTED",
            Response::IncorrectLun => "INCORRECT LUN",
        }
    }
}

/// The SAM task attribute of `task_attr`. Values the specification does not name count as SIMPLE, as
/// it allows for all (virtio 1.2, 5.6.6.1).
#[must_use]
pub fn task_attribute(task_attr: u8) -> TaskAttribute {
    match task_attr {
        1 => TaskAttribute::Ordered,
        2 => TaskAttribute::HeadOfQueue,
        3 => TaskAttribute::Aca,
        _ => TaskAttribute::Simple,
    }
}

/// The task management function of `subtype`, if it names one (virtio 1.2, 5.6.6.2).
#[must_use]
pub fn task_management_function(subtype: u32) -> Option<TaskManagementFunction> {
    Some(match subtype {
        0 => TaskManagementFunction::AbortTask,
        1 => TaskManagementFunction::AbortTaskSet,
        2 => TaskManagementFunction::ClearAca,
        3 => TaskManagementFunction::ClearTaskSet,
        4 => TaskManagementFunction::ITNexusReset,
        5 => TaskManagementFunction::LogicalUnitReset,
        6 => TaskManagementFunction::QueryTask,
        7 => TaskManagementFunction::QueryTaskSet,
        _ => return None,
    })
}

impl CmdResp {
    /// A response without status or sense: `response` tells it all.
    #[must_use]
    pub fn of_transport(response: Response, residual: u32) -> Self {
        CmdResp {
            sense_len: 0.into(),
            resid: residual.into(),
            status_qualifier: 0.into(),
            status: 0,
            response: response as u8,
            sense: [0; SENSE_SIZE],
        }
    }
}

/// Compares a structure with the uapi header's: size and the offset of every field.
macro_rules! same_layout {
    ($ours:ty, $theirs:ty, $size:literal, { $($field:ident = $offset:literal),* $(,)? }) => {
        const _: () = {
            assert!(size_of::<$ours>() == $size);
            assert!(size_of::<$theirs>() == $size);
            $(
                assert!(offset_of!($ours, $field) == $offset);
                assert!(offset_of!($theirs, $field) == $offset);
            )*
        };
    };
}

same_layout!(CmdReq, uapi::virtio_scsi_cmd_req, 51, {
    lun = 0, tag = 8, task_attr = 16, prio = 17, crn = 18, cdb = 19,
});
same_layout!(CmdResp, uapi::virtio_scsi_cmd_resp, 108, {
    sense_len = 0, resid = 4, status_qualifier = 8, status = 10, response = 11, sense = 12,
});
same_layout!(CtrlTmfReq, uapi::virtio_scsi_ctrl_tmf_req, 24, {
    type_ = 0, subtype = 4, lun = 8, tag = 16,
});
same_layout!(CtrlTmfResp, uapi::virtio_scsi_ctrl_tmf_resp, 1, { response = 0 });
same_layout!(CtrlAnReq, uapi::virtio_scsi_ctrl_an_req, 16, {
    type_ = 0, lun = 4, event_requested = 12,
});
same_layout!(CtrlAnResp, uapi::virtio_scsi_ctrl_an_resp, 5, { event_actual = 0, response = 4 });
same_layout!(Event, uapi::virtio_scsi_event, 16, { event = 0, lun = 4, reason = 12 });
same_layout!(Config, uapi::virtio_scsi_config, 36, {
    num_queues = 0, seg_max = 4, max_sectors = 8, cmd_per_lun = 12, event_info_size = 16,
    sense_size = 20, cdb_size = 24, max_channel = 28, max_target = 30, max_lun = 32,
});

/// Compares numbers with the uapi header's.
macro_rules! same_number {
    ($($ours:expr => $theirs:ident),* $(,)?) => {
        const _: () = { $( assert!($ours as u64 == uapi::$theirs as u64); )* };
    };
}

same_number! {
    CDB_SIZE => VIRTIO_SCSI_CDB_DEFAULT_SIZE, SENSE_SIZE => VIRTIO_SCSI_SENSE_DEFAULT_SIZE,
    F_HOTPLUG => VIRTIO_SCSI_F_HOTPLUG, F_CHANGE => VIRTIO_SCSI_F_CHANGE,
    T_TMF => VIRTIO_SCSI_T_TMF, T_AN_QUERY => VIRTIO_SCSI_T_AN_QUERY,
    T_AN_SUBSCRIBE => VIRTIO_SCSI_T_AN_SUBSCRIBE, T_NO_EVENT => VIRTIO_SCSI_T_NO_EVENT,
    T_TRANSPORT_RESET => VIRTIO_SCSI_T_TRANSPORT_RESET,
    T_PARAM_CHANGE => VIRTIO_SCSI_T_PARAM_CHANGE,
    EVENTS_MISSED => VIRTIO_SCSI_T_EVENTS_MISSED,
    EVT_RESET_HARD => VIRTIO_SCSI_EVT_RESET_HARD,
    EVT_RESET_RESCAN => VIRTIO_SCSI_EVT_RESET_RESCAN,
    EVT_RESET_REMOVED => VIRTIO_SCSI_EVT_RESET_REMOVED,
    Response::Ok => VIRTIO_SCSI_S_OK, Response::Overrun => VIRTIO_SCSI_S_OVERRUN,
    Response::Aborted => VIRTIO_SCSI_S_ABORTED, Response::BadTarget => VIRTIO_SCSI_S_BAD_TARGET,
    Response::Reset => VIRTIO_SCSI_S_RESET, Response::Busy => VIRTIO_SCSI_S_BUSY,
    Response::TransportFailure => VIRTIO_SCSI_S_TRANSPORT_FAILURE,
    Response::TargetFailure => VIRTIO_SCSI_S_TARGET_FAILURE,
    Response::NexusFailure => VIRTIO_SCSI_S_NEXUS_FAILURE, Response::Failure => VIRTIO_SCSI_S_FAILURE,
    Response::FunctionSucceeded => VIRTIO_SCSI_S_FUNCTION_SUCCEEDED,
    Response::FunctionRejected => VIRTIO_SCSI_S_FUNCTION_REJECTED,
    Response::IncorrectLun => VIRTIO_SCSI_S_INCORRECT_LUN,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn task_attributes_are_numbered_as_in_virtio() {
        assert_eq!(task_attribute(0), TaskAttribute::Simple);
        assert_eq!(task_attribute(1), TaskAttribute::Ordered);
        assert_eq!(task_attribute(2), TaskAttribute::HeadOfQueue);
        assert_eq!(task_attribute(3), TaskAttribute::Aca);
        assert_eq!(task_attribute(4), TaskAttribute::Simple);
    }

    #[test]
    fn task_management_functions_are_numbered_as_in_virtio() {
        use TaskManagementFunction as Tmf;
        let by_number = [
            (0, Some(Tmf::AbortTask)),
            (1, Some(Tmf::AbortTaskSet)),
            (2, Some(Tmf::ClearAca)),
            (3, Some(Tmf::ClearTaskSet)),
            (4, Some(Tmf::ITNexusReset)),
            (5, Some(Tmf::LogicalUnitReset)),
            (6, Some(Tmf::QueryTask)),
            (7, Some(Tmf::QueryTaskSet)),
            (8, None),
            (u32::MAX, None),
        ];
        for (subtype, function) in by_number {
            assert_eq!(task_management_function(subtype), function, "{subtype}");
        }
    }
}
