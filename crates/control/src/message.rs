//! The messages themselves. Field names are kebab-case; unknown fields are refused.

use std::{num::NonZeroU32, path::PathBuf};

use fault::RuleCount;
use scsi_fault::Rule;
use serde::{Deserialize, Serialize};

/// One line from a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Request {
    /// Chosen by the client, echoed in the response.
    pub id: u64,
    /// What to do.
    pub command: Command,
}

/// One line to a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Response {
    /// The id of the request; 0 if the request could not be parsed.
    pub id: u64,
    /// The answer, or why the request was refused. A refused request has changed nothing.
    pub result: Result<Reply, String>,
}

/// What a client can ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Opens the conversation. Answered with [`Reply::Hello`].
    Hello {
        /// The client's [`crate::CONTROL_VERSION`].
        version: u32,
    },
    /// Makes a logical unit of the pool as new: the given properties, a zeroed medium, default mode
    /// pages, no unit attention, no faults, an empty journal. Waits for commands that run on it (see
    /// the barrier in the crate's documentation); those that are held end as aborted, and task
    /// management functions that are held end as complete. Answered with [`Reply::Done`].
    ResetLun {
        /// Which unit.
        address: LunAddress,
        /// What it becomes.
        spec: LunSpec,
    },
    /// What is to go wrong on a unit from now on, in place of what was said before; every rule counts
    /// from nothing. What is held stays held. Answered with [`Reply::Done`] behind the barrier.
    Faults {
        /// Which unit.
        address: LunAddress,
        /// What goes wrong.
        faults: Faults,
    },
    /// The same for every unit the rules are about: those that are there and those that are plugged later. Rules about
    /// commands are also about logical units that are absent, the first 256 that something is asked of. Each counts
    /// for itself.
    /// Answered with [`Reply::Done`] behind the barrier of each.
    AllFaults {
        /// What goes wrong.
        faults: Faults,
    },
    /// Carries out what a unit holds until it is released. Answered with [`Reply::Done`] when each has been
    /// answered.
    Release {
        /// Which unit.
        address: LunAddress,
        /// In which order, by position of arrival from 0; each that is held is named once. Left out: in
        /// order of arrival.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        order: Option<Vec<u32>>,
    },
    /// Adds a logical unit where there is none. Answered with [`Reply::Done`] when commands reach it.
    Plug {
        /// Where.
        address: LunAddress,
        /// What it is.
        spec: LunSpec,
        /// Whether no event tells the driver.
        #[serde(default)]
        silent: bool,
    },
    /// Removes a logical unit; its journal stays readable. Answered with [`Reply::Done`] behind the barrier.
    Unplug {
        /// Which unit.
        address: LunAddress,
        /// Whether no event tells the driver.
        #[serde(default)]
        silent: bool,
    },
    /// Gives a logical unit another number of blocks; what it holds stays. Answered with [`Reply::Done`]
    /// behind the barrier. Initiators learn of it by a unit attention condition.
    Resize {
        /// Which unit.
        address: LunAddress,
        /// Number of logical blocks.
        blocks: u64,
        /// Whether no event tells the driver.
        #[serde(default)]
        silent: bool,
    },
    /// Establishes a unit attention condition. Answered with [`Reply::Done`] behind the barrier.
    UnitAttention {
        /// Which unit.
        address: LunAddress,
        /// For which I_T nexus; left out, for each that has sent something.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        nexus: Option<u32>,
        /// The standard's text of its additional sense code.
        sense: String,
    },
    /// Makes a logical unit ready or not. Answered with [`Reply::Done`] behind the barrier.
    Readiness {
        /// Which unit.
        address: LunAddress,
        /// What it is from now on.
        readiness: Readiness,
    },
    /// Sends an event to every driver, whether or not it is true. Answered with [`Reply::Done`].
    Event {
        /// Which unit it is about.
        address: LunAddress,
        /// What it says.
        event: Event,
    },
    /// Ends everything that waits on a unit without carrying it out, whatever it waits for: commands as
    /// aborted, task management functions as complete. Answered with [`Reply::Done`].
    AbortHeld {
        /// Which unit.
        address: LunAddress,
    },
    /// What a unit has answered since its last reset, and what it holds. Answered with
    /// [`Reply::Journal`].
    Journal {
        /// Which unit.
        address: LunAddress,
    },
    /// Counters of the whole daemon. Answered with [`Reply::Statistics`].
    Statistics,
}

/// The answer to an accepted request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Reply {
    /// To [`Command::Hello`].
    Hello(Hello),
    /// To a command whose success has nothing to tell.
    Done,
    /// To [`Command::Journal`].
    Journal(JournalPage),
    /// To [`Command::Statistics`].
    Statistics(Statistics),
}

/// What the daemon is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Hello {
    /// The daemon's [`crate::CONTROL_VERSION`].
    pub version: u32,
    /// Process id of the daemon.
    pub pid: u32,
    /// The logical units of the pool, in order of target and LUN.
    pub luns: Vec<LunState>,
}

/// A logical unit of the pool and what it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LunState {
    /// Where it is.
    pub address: LunAddress,
    /// What it is.
    pub spec: LunSpec,
}

/// Target and logical unit number, as in virtio-scsi's 8-byte `lun` field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LunAddress {
    /// Target, 0 to 255.
    pub target: u8,
    /// Logical unit number; the pool keeps below 256, because the guest does not strip the
    /// addressing method from an event's LUN.
    pub lun: u16,
}

/// What a logical unit is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LunSpec {
    /// PERIPHERAL DEVICE TYPE it reports.
    pub device_type: DeviceType,
    /// LOGICAL BLOCK LENGTH IN BYTES: 512 or 4096.
    pub block_len: u32,
    /// Number of logical blocks, at least 1.
    pub blocks: u64,
    /// Where the blocks are kept.
    pub medium: Medium,
    /// Whether the medium refuses writes (DATA PROTECT, WRITE PROTECTED) and says so (WP, MODE SENSE).
    pub write_protect: bool,
    /// Whether blocks can be unmapped.
    #[serde(default)]
    pub provisioning: Provisioning,
    /// How blocks lie in physical blocks, as READ CAPACITY(16) reports it.
    #[serde(default)]
    pub physical_blocks: PhysicalBlocks,
    /// Most commands of its task set: one more is refused with TASK SET FULL, or BUSY if its initiator has
    /// none in the set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_set_max: Option<NonZeroU32>,
}

/// Logical block provisioning of a unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Provisioning {
    /// Every block is mapped, always.
    #[default]
    Full,
    /// What is not mapped takes no space and reads as zeros. Granules are of 4096 bytes.
    Thin,
}

/// Physical blocks of a unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PhysicalBlocks {
    /// LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT, 0 to 15.
    pub exponent: u8,
    /// LOWEST ALIGNED LOGICAL BLOCK ADDRESS.
    pub lowest_aligned: u16,
}

impl Default for LunSpec {
    /// 16 MiB of RAM in 512-byte blocks behind a device type that `sd` ignores.
    fn default() -> Self {
        LunSpec {
            device_type: DeviceType::Processor,
            block_len: 512,
            blocks: 32_768,
            medium: Medium::Ram,
            write_protect: false,
            provisioning: Provisioning::Full,
            physical_blocks: PhysicalBlocks::default(),
            task_set_max: None,
        }
    }
}

/// PERIPHERAL DEVICE TYPE of a logical unit. The block commands work on both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceType {
    /// 00h, direct access block device: the guest's `sd` attaches.
    Disk,
    /// 03h, processor device: the guest makes a bsg node and attaches no disk driver, so nothing but
    /// the test's own commands reaches the unit.
    Processor,
}

/// Where the blocks of a logical unit are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Medium {
    /// Anonymous memory of the daemon, zeroed at reset.
    Ram,
    /// A file the daemon creates if absent, extends sparsely to the needed size, and keeps.
    File {
        /// Path of the file.
        path: PathBuf,
    },
}

/// Whether a logical unit processes commands that want its medium (SPC, TEST UNIT READY).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Readiness {
    /// It does.
    Ready,
    /// It waits for START STOP UNIT.
    Stopped,
    /// It is becoming ready.
    BecomingReady {
        /// PROGRESS INDICATION in 65536ths, if it tells.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        progress: Option<u16>,
    },
}

/// An event of virtio-scsi (virtio 1.2, 5.6.6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Event {
    /// Transport reset, rescan: the unit was added.
    Added,
    /// Transport reset, removed: the unit is gone.
    Removed,
    /// Transport reset, hard: the unit was reset.
    Reset,
    /// A parameter has changed.
    ParameterChanged {
        /// ADDITIONAL SENSE CODE of the unit attention condition.
        asc: u8,
        /// ADDITIONAL SENSE CODE QUALIFIER.
        ascq: u8,
    },
}

/// What goes wrong on a logical unit. The default is nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Faults {
    /// Where chance comes from.
    #[serde(default)]
    pub seed: u64,
    /// The rules, in the order they are asked.
    pub rules: Vec<Rule>,
}

/// A piece of a logical unit's journal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct JournalPage {
    /// Entries lost because the journal is bounded; they were older than all others.
    pub dropped: u64,
    /// The commands in order of completion. See [`Self::canonical`].
    pub entries: Vec<JournalEntry>,
    /// The task management functions in order of their answers.
    pub task_management: Vec<TaskManagementEntry>,
    /// What is held now, in order of arrival.
    pub held: Vec<HeldEntry>,
    /// What has become of each rule.
    pub rules: Vec<RuleCount>,
}

impl JournalPage {
    /// The canonical journal: the commands in the order in which they came to the unit, without tags, times and
    /// numbers. It is a function of that order and of the seed of the faults, over however many queues, while the
    /// order of completion depends on how long each was delayed.
    #[must_use]
    pub fn canonical(&self) -> Vec<JournalEntry> {
        let mut entries = self.entries.clone();
        entries.sort_by_key(|entry| entry.arrival);
        for entry in &mut entries {
            (entry.arrival, entry.fetched_us, entry.completed_us, entry.tag) = (0, 0, 0, 0);
        }
        entries
    }
}

/// One answered command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct JournalEntry {
    /// Tells in which order commands came to the unit, which is the order in which faults are decided: a later one
    /// has a larger number.
    pub arrival: u64,
    /// Host CLOCK_MONOTONIC when the descriptor was fetched, in microseconds.
    pub fetched_us: u64,
    /// Host CLOCK_MONOTONIC when the used entry was written, in microseconds.
    pub completed_us: u64,
    /// Identifier the initiator gave the command.
    pub tag: u64,
    /// I_T nexus it came over.
    pub nexus: u32,
    /// Whether it was held before it ended.
    pub held: bool,
    /// Name of the rule that fired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Name of the command, for example `READ(10)`, or the opcode in hex if it is unknown.
    pub command: String,
    /// The CDB in lower-case hex, two digits a byte.
    pub cdb: String,
    /// Bytes the initiator offered to the device.
    pub data_out_len: u64,
    /// Bytes the initiator could take from the device.
    pub data_in_len: u64,
    /// SAM status byte.
    pub status: u8,
    /// Sense data in lower-case hex; empty without sense.
    pub sense: String,
    /// `residual` of the virtio-scsi response in bytes.
    pub residual: u32,
    /// `response` byte of the virtio-scsi response.
    pub response: u8,
}

/// One answered task management function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TaskManagementEntry {
    /// Host CLOCK_MONOTONIC when the descriptor was fetched, in microseconds.
    pub fetched_us: u64,
    /// Host CLOCK_MONOTONIC when the used entry was written, in microseconds.
    pub completed_us: u64,
    /// Name of the function, for example `ABORT TASK`.
    pub function: String,
    /// Identifier of the command it concerns, if it concerns one.
    pub tag: u64,
    /// I_T nexus it came over.
    pub nexus: u32,
    /// Whether it was held before it was answered.
    pub held: bool,
    /// Name of the rule that fired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// `response` byte of the virtio-scsi response.
    pub response: u8,
}

/// A command or task management function that is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct HeldEntry {
    /// Host CLOCK_MONOTONIC when the descriptor was fetched, in microseconds; 0 where no journals are kept.
    pub fetched_us: u64,
    /// Name of the command or function, as in the other entries.
    pub name: String,
    /// Identifier of the command, or of the one the function concerns.
    pub tag: u64,
    /// Name of the rule that holds it.
    pub rule: String,
}

/// Counters of the daemon since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Statistics {
    /// Commands answered on the request queues.
    pub commands: u64,
    /// Task management functions and asynchronous notifications answered on the control queue.
    pub control_requests: u64,
    /// Descriptor chains that were no valid request and were returned unexecuted.
    pub malformed: u64,
    /// Commands that waited for the host's storage while their queue went on.
    pub storage_waits: u64,
}
