//! Which events a rule is about, with every name looked up.

use device_server::LunAddress;
use fault::When;
use scsi::{extent::concerned_blocks, task::TaskManagementFunction};
use scsi_fault::{BlockRange, Direction};

use crate::wire::CDB_SIZE;

/// Something a rule may be about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event<'a> {
    /// A command was fetched.
    Command {
        /// The I_T nexus it came over.
        nexus: u32,
        /// CDB, zero-padded.
        cdb: &'a [u8; CDB_SIZE],
        /// Where its buffers are.
        direction: Direction,
    },
    /// A task management function was fetched.
    TaskManagement {
        /// The I_T nexus it came over.
        nexus: u32,
        /// Which function.
        function: TaskManagementFunction,
    },
}

/// The condition of a rule that is installed at one logical unit.
#[derive(Clone, Debug)]
pub(crate) struct Condition {
    /// Whether it is about this unit at all.
    pub(super) here: bool,
    pub(super) nexus: Option<u32>,
    pub(super) what: What,
}

/// Which kind of event, and which of the kind.
#[derive(Clone, Debug)]
pub(super) enum What {
    Command(Box<CommandCondition>),
    /// This function, or any.
    TaskManagement(Option<TaskManagementFunction>),
}

#[derive(Clone, Debug, Default)]
pub(super) struct CommandCondition {
    pub(super) opcode: Option<u8>,
    pub(super) service_action: Option<u8>,
    /// Value and mask of the bytes that count.
    pub(super) bytes: Vec<(u8, u8)>,
    pub(super) lba: Option<BlockRange>,
    pub(super) direction: Option<Direction>,
}

/// SERVICE ACTION: bits 4 to 0 of byte 1.
const SERVICE_ACTION_BITS: u8 = 0x1f;

impl CommandCondition {
    fn matches(&self, cdb: &[u8; CDB_SIZE], direction: Direction) -> bool {
        self.opcode.is_none_or(|opcode| opcode == cdb[0])
            && self.service_action.is_none_or(|action| action == cdb[1] & SERVICE_ACTION_BITS)
            && self.direction.is_none_or(|wanted| wanted == direction)
            && self.bytes.iter().zip(cdb).all(|((value, mask), byte)| byte & mask == value & mask)
            && self.lba.is_none_or(|range| concerns(cdb, range))
    }
}

/// Whether a command concerns any block of a range.
fn concerns(cdb: &[u8], range: BlockRange) -> bool {
    concerned_blocks(cdb).is_some_and(|blocks| {
        let (first, end) = (blocks.start.0, blocks.start.0.saturating_add(blocks.blocks));
        first <= range.last && range.first < end
    })
}

impl When for Condition {
    type Event<'a> = Event<'a>;

    fn matches(&self, event: &Event<'_>) -> bool {
        let over = |nexus| self.nexus.is_none_or(|wanted| wanted == nexus);
        self.here
            && match (&self.what, *event) {
                (What::Command(condition), Event::Command { nexus, cdb, direction }) => {
                    over(nexus) && condition.matches(cdb, direction)
                }
                (What::TaskManagement(wanted), Event::TaskManagement { nexus, function }) => {
                    over(nexus) && wanted.is_none_or(|wanted| wanted == function)
                }
                _ => false,
            }
    }
}

impl Condition {
    /// Whether it is about this unit: an address that is said must be the unit's.
    pub(super) fn is_here(when: &scsi_fault::When, at: LunAddress) -> bool {
        when.target.is_none_or(|target| target == at.target)
            && when.lun.is_none_or(|lun| lun == at.lun)
    }
}
