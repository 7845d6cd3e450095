//! Which commands and task management functions.

use serde::{Deserialize, Serialize};

use crate::Code;

/// What a rule is about: everything that is said must hold. Without [`When::task_management`] it is
/// about commands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct When {
    /// Number of the target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<u8>,
    /// Number of the logical unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lun: Option<u16>,
    /// I_T nexus it came over: the position of its socket on the daemon's command line, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nexus: Option<u32>,
    /// OPERATION CODE, or the name of a command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Code>,
    /// SERVICE ACTION, in bits 4 to 0 of byte 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_action: Option<u8>,
    /// Bytes of the CDB, from byte 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cdb: Option<CdbBytes>,
    /// Logical blocks, of which the command must concern at least one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lba: Option<BlockRange>,
    /// Where the buffers of the command are, whatever its CDB says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// A task management function by number of virtio or by name; `any` is any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_management: Option<Code>,
}

/// Bytes of a CDB: it matches where the bits of `mask` are as in `value`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct CdbBytes {
    /// Bytes in hex.
    pub value: String,
    /// Bits that count, in hex; where it is shorter, all do.
    #[serde(default)]
    pub mask: String,
}

/// Logical blocks, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BlockRange {
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
}

/// Which buffers an initiator offers with a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// None.
    None,
    /// A Data-In Buffer.
    In,
    /// A Data-Out Buffer.
    Out,
}

impl When {
    /// Any command.
    #[must_use]
    pub fn any() -> Self {
        When::default()
    }

    /// Commands with this OPERATION CODE or name.
    pub fn command(command: impl Into<Code>) -> Self {
        When { command: Some(command.into()), ..When::default() }
    }

    /// A task management function by number of virtio or by name; `any` is any.
    pub fn task_management(function: impl Into<Code>) -> Self {
        When { task_management: Some(function.into()), ..When::default() }
    }

    /// The same, with this SERVICE ACTION.
    #[must_use]
    pub fn service_action(self, service_action: u8) -> Self {
        When { service_action: Some(service_action), ..self }
    }

    /// The same, on this target.
    #[must_use]
    pub fn target(self, target: u8) -> Self {
        When { target: Some(target), ..self }
    }

    /// The same, on this logical unit.
    #[must_use]
    pub fn lun(self, lun: u16) -> Self {
        When { lun: Some(lun), ..self }
    }

    /// The same, over this I_T nexus.
    #[must_use]
    pub fn nexus(self, nexus: u32) -> Self {
        When { nexus: Some(nexus), ..self }
    }

    /// The same, concerning at least one of these blocks.
    #[must_use]
    pub fn lba(self, first: u64, last: u64) -> Self {
        When { lba: Some(BlockRange { first, last }), ..self }
    }

    /// The same, with these buffers.
    #[must_use]
    pub fn direction(self, direction: Direction) -> Self {
        When { direction: Some(direction), ..self }
    }

    /// The same, with these bytes of the CDB where the bits of the mask are set. Both in hex.
    #[must_use]
    pub fn cdb(self, value: &str, mask: &str) -> Self {
        When { cdb: Some(CdbBytes { value: value.to_owned(), mask: mask.to_owned() }), ..self }
    }
}
