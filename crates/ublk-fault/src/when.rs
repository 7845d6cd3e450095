//! Which requests.

use serde::{Deserialize, Serialize};

/// What a rule is about: everything that is said must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct When {
    /// What the request wants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub op: Option<OpName>,
    /// The queue it comes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<u16>,
    /// Its tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<u16>,
    /// Sectors of 512 bytes, of which it must concern at least one. A flush concerns none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sectors: Option<SectorRange>,
}

/// Sectors, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SectorRange {
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
}

/// What a request wants, `UBLK_IO_OP_*` (`include/uapi/linux/ublk_cmd.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OpName {
    /// Data is read.
    Read,
    /// Data is written.
    Write,
    /// What was written becomes durable.
    Flush,
    /// Data is no longer needed.
    Discard,
    /// Data becomes zeroes.
    WriteZeroes,
    /// A zone is opened.
    ZoneOpen,
    /// A zone is closed.
    ZoneClose,
    /// A zone becomes full.
    ZoneFinish,
    /// Data is written at a write pointer.
    ZoneAppend,
    /// All zones become empty.
    ZoneResetAll,
    /// A zone becomes empty.
    ZoneReset,
    /// Zones are told of.
    ReportZones,
}

impl OpName {
    /// The driver's number for it.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            OpName::Read => 0,
            OpName::Write => 1,
            OpName::Flush => 2,
            OpName::Discard => 3,
            OpName::WriteZeroes => 5,
            OpName::ZoneOpen => 10,
            OpName::ZoneClose => 11,
            OpName::ZoneFinish => 12,
            OpName::ZoneAppend => 13,
            OpName::ZoneResetAll => 14,
            OpName::ZoneReset => 15,
            OpName::ReportZones => 18,
        }
    }
}

/// A request as the server got it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The driver's number of what it wants.
    pub op: u8,
    /// The queue it came on.
    pub queue: u16,
    /// Its tag.
    pub tag: u16,
    /// Its first sector.
    pub first_sector: u64,
    /// Its length in sectors.
    pub sectors: u32,
}

impl When {
    /// Any request.
    #[must_use]
    pub fn any() -> Self {
        When::default()
    }

    /// Requests that want this.
    #[must_use]
    pub fn op(op: OpName) -> Self {
        When { op: Some(op), ..When::default() }
    }

    /// The same, concerning at least one of these sectors.
    #[must_use]
    pub fn sectors(self, first: u64, last: u64) -> Self {
        When { sectors: Some(SectorRange { first, last }), ..self }
    }
}

impl fault::When for When {
    type Event<'a> = Event;

    fn matches(&self, event: &Event) -> bool {
        let end = event.first_sector.saturating_add(event.sectors.into());
        self.op.is_none_or(|op| op.number() == event.op)
            && self.queue.is_none_or(|queue| queue == event.queue)
            && self.tag.is_none_or(|tag| tag == event.tag)
            && self
                .sectors
                .is_none_or(|wanted| event.first_sector <= wanted.last && wanted.first < end)
    }
}

#[cfg(test)]
mod tests {
    use fault::When as _;

    use super::*;

    const READ_8_TO_15: Event = Event { op: 0, queue: 1, tag: 2, first_sector: 8, sectors: 8 };

    #[test]
    fn a_range_is_met_at_its_ends_and_not_behind_them() {
        let meets = |first, last| When::any().sectors(first, last).matches(&READ_8_TO_15);
        assert!(meets(0, 8) && meets(15, 99) && meets(9, 9) && meets(0, u64::MAX));
        assert!(!meets(0, 7) && !meets(16, 99));
    }

    #[test]
    fn all_that_is_said_must_hold() {
        let read = When::op(OpName::Read);
        assert!(read.matches(&READ_8_TO_15));
        assert!(!When::op(OpName::Write).matches(&READ_8_TO_15));
        assert!(!When { queue: Some(0), ..read.clone() }.matches(&READ_8_TO_15));
        assert!(!When { tag: Some(3), ..read }.matches(&READ_8_TO_15));
    }

    #[test]
    fn a_flush_meets_no_range() {
        let flush = Event { op: 2, first_sector: 0, sectors: 0, ..READ_8_TO_15 };
        assert!(!When::any().sectors(0, u64::MAX).matches(&flush));
        assert!(When::op(OpName::Flush).matches(&flush));
    }
}
