//! What goes wrong.

use serde::{Deserialize, Serialize};

use crate::{Code, Sense};

/// What goes wrong with a command or task management function; all that is said happens to it. The
/// steps, in their order: it is fetched; it waits ([`Effect::delay_us`], [`Effect::hold`]); it is
/// executed, with its data and its medium as the effect wants them; it is answered, as the effect wants
/// it or else as it went.
///
/// One that is given a status, sense or response is not executed, unless [`Effect::execute`] says so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct Effect {
    /// It waits so many microseconds before it begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_us: Option<u64>,
    /// With [`Effect::delay_us`] (or 0) the bounds of a time drawn at random for each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_up_to_us: Option<u64>,
    /// It waits until something else happens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// Whether it is executed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execute: Option<bool>,
    /// What becomes of the data to the initiator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_in: Option<DataIn>,
    /// Only so many bytes from the initiator are taken; the rest is residual.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_out_limit: Option<u64>,
    /// What becomes of the data on the medium. The command's answer does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write: Option<WriteFault>,
    /// SAM status. With CHECK CONDITION and without sense there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Code>,
    /// STATUS QUALIFIER.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_qualifier: Option<u16>,
    /// Sense data; the status is CHECK CONDITION unless another is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sense: Option<Sense>,
    /// Residual in bytes, whatever has moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub residual: Option<u32>,
    /// Response of virtio-scsi, to a command or a task management function.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<Code>,
    /// The logical unit is gone from now on, for this command too, and no event tells.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub vanish: bool,
    /// The socket of its I_T nexus is closed instead of an answer; a front end that comes back begins a new
    /// session.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub drop_socket: bool,
    /// What no device may do. Needs a daemon that was started with `--hostile`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostile: Option<Hostile>,
    /// The daemon ends without a word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub die: Option<DiePoint>,
}

/// What ends the wait of a command. A task management function can end it too, and a reset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hold {
    /// A control client's `release`.
    UntilReleased,
    /// Nothing: it is never completed.
    ForEver,
    /// That so many are held by this rule as the list is long; then they are carried out in this order,
    /// by position of arrival from 0.
    Order(Vec<u32>),
}

/// What becomes of data on its way to the initiator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum DataIn {
    /// Only so many bytes are sent, from the beginning; the rest is residual.
    Limit(u64),
    /// So many more bytes than there are, as far as the buffer has room, of value A5h.
    Extend(u64),
    /// A bit is turned in each byte from this one to the end.
    CorruptFrom(u64),
}

/// What becomes of data on its way to the medium. The initiator hears of success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum WriteFault {
    /// Nothing is written.
    Lost,
    /// Only the first so many bytes are written.
    Torn(u64),
    /// It is written so many blocks further, or nearer; what would lie beyond an end of the medium is
    /// not written.
    Misdirected(i64),
    /// It is written, with a bit turned in each byte from this one to the end.
    CorruptFrom(u64),
    /// The next so many commands that read any of its blocks still get what was there before; then it
    /// is written.
    Stale(u32),
}

/// Where in the life of a command the daemon ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiePoint {
    /// It is fetched; nothing of it is done.
    Fetched,
    /// It is executed: the medium is changed, the response is not written.
    Executed,
    /// The response is written, the descriptor chain is not used yet.
    Answered,
    /// The chain is used, and the driver knows.
    Completed,
}

/// What no device may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct Hostile {
    /// `sense_len` of the response, whatever sense there is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sense_len: Option<u32>,
    /// `response`, which need not be one that virtio knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<u8>,
    /// `len` of the used ring's entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used_len: Option<u32>,
    /// `id` of the used ring's entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used_id: Option<u32>,
    /// How often the used ring has the entry; left out, once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used_times: Option<u16>,
    /// An event that the driver of the same I_T nexus is sent before the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<RawEvent>,
}

/// An event as it lies in the driver's buffer (virtio 1.2, 5.6.6.3), whatever it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RawEvent {
    /// `event`: 1 is a transport reset, 3 a change of a parameter.
    pub event: u32,
    /// `lun`, byte by byte.
    pub lun: [u8; 8],
    /// `reason`: 0 to 2 are hard, rescan and removed.
    pub reason: u32,
}

impl Effect {
    /// This status instead of execution.
    pub fn status(status: impl Into<Code>) -> Self {
        Effect { status: Some(status.into()), ..Effect::default() }
    }

    /// CHECK CONDITION with this sense instead of execution.
    #[must_use]
    pub fn sense(sense: Sense) -> Self {
        Effect { sense: Some(sense), ..Effect::default() }
    }

    /// This response of virtio-scsi instead of execution.
    pub fn response(response: impl Into<Code>) -> Self {
        Effect { response: Some(response.into()), ..Effect::default() }
    }

    /// Execution, but this residual.
    #[must_use]
    pub fn residual(residual: u32) -> Self {
        Effect { residual: Some(residual), ..Effect::default() }
    }

    /// Execution after so many microseconds.
    #[must_use]
    pub fn delay_us(delay: u64) -> Self {
        Effect { delay_us: Some(delay), ..Effect::default() }
    }

    /// Execution once it is released.
    #[must_use]
    pub fn hold() -> Self {
        Effect { hold: Some(Hold::UntilReleased), ..Effect::default() }
    }

    /// Execution, but this becomes of the data to the initiator.
    #[must_use]
    pub fn data_in(data_in: DataIn) -> Self {
        Effect { data_in: Some(data_in), ..Effect::default() }
    }

    /// Execution, but this becomes of the data on the medium.
    #[must_use]
    pub fn write(write: WriteFault) -> Self {
        Effect { write: Some(write), ..Effect::default() }
    }

    /// The daemon ends at this point.
    #[must_use]
    pub fn die(die: DiePoint) -> Self {
        Effect { die: Some(die), ..Effect::default() }
    }

    /// The same, and it is executed before it is answered.
    #[must_use]
    pub fn executed(self) -> Self {
        Effect { execute: Some(true), ..self }
    }

    /// The same, with this residual.
    #[must_use]
    pub fn with_residual(self, residual: u32) -> Self {
        Effect { residual: Some(residual), ..self }
    }

    /// Whether it reaches beyond the logical unit: what waits keeps the removal and the error handling of
    /// its whole host waiting, and a daemon that ends takes every unit along.
    #[must_use]
    pub fn reaches_beyond_the_unit(&self) -> bool {
        let waits = self.hold.is_some() || self.delay_us.is_some() || self.delay_up_to_us.is_some();
        waits || self.die.is_some() || self.drop_socket || self.hostile.is_some()
    }

    /// Whether what it happens to is executed.
    #[must_use]
    pub fn executes(&self) -> bool {
        let answered = self.status.is_some() || self.sense.is_some() || self.response.is_some();
        self.execute.unwrap_or(!answered)
    }
}
