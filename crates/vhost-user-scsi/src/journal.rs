//! What a logical unit has answered, bounded.

use std::{collections::VecDeque, fmt::Write, sync::Arc};

use control::{JournalEntry, JournalPage, TaskManagementEntry};
use rustix::time::{ClockId, clock_gettime};
use scsi::{command::Command, task::TaskManagementFunction};

use crate::{
    faults::{Condition, Conduct},
    wire::CDB_SIZE,
};

/// A rule that fired.
pub(crate) type FiredRule = fault::Rule<Condition, Conduct>;

/// Entries a journal keeps if nothing else is said. The oldest goes when one more comes.
pub const JOURNAL_LEN: usize = 4096;

/// One answered request, as compact as it is kept.
#[derive(Clone, Debug)]
pub enum Record {
    /// A command.
    Command(CommandRecord),
    /// A task management function.
    TaskManagement(TaskManagementRecord),
}

/// One answered task management function. Fields as in [`TaskManagementEntry`].
#[derive(Clone, Debug)]
pub struct TaskManagementRecord {
    /// When its descriptor was fetched, CLOCK_MONOTONIC in microseconds.
    pub fetched_us: u64,
    /// When it was answered.
    pub completed_us: u64,
    /// Which function.
    pub function: TaskManagementFunction,
    /// Identifier of the command it concerns.
    pub tag: u64,
    /// I_T nexus it came over.
    pub nexus: u32,
    /// Whether it was held.
    pub held: bool,
    /// The rule that fired.
    pub(crate) rule: Option<Arc<FiredRule>>,
    /// Its response.
    pub response: u8,
}

/// One answered command. Fields as in [`JournalEntry`].
#[derive(Clone, Debug)]
pub struct CommandRecord {
    /// Which of what came to the unit it was.
    pub arrival: u64,
    /// When its descriptor was fetched, CLOCK_MONOTONIC in microseconds.
    pub fetched_us: u64,
    /// When it was answered.
    pub completed_us: u64,
    /// Its identifier.
    pub tag: u64,
    /// I_T nexus it came over.
    pub nexus: u32,
    /// Whether it was held.
    pub held: bool,
    /// The rule that fired.
    pub(crate) rule: Option<Arc<FiredRule>>,
    /// CDB, zero-padded.
    pub cdb: [u8; CDB_SIZE],
    /// Length of the data-out buffer in bytes.
    pub data_out_len: u32,
    /// Length of the data-in buffer in bytes.
    pub data_in_len: u32,
    /// SAM status.
    pub status: u8,
    /// Sense data.
    pub sense: Box<[u8]>,
    /// Residual in bytes.
    pub residual: u32,
    /// Response of the transport.
    pub response: u8,
}

impl From<CommandRecord> for Record {
    fn from(record: CommandRecord) -> Self {
        Record::Command(record)
    }
}

impl From<TaskManagementRecord> for Record {
    fn from(record: TaskManagementRecord) -> Self {
        Record::TaskManagement(record)
    }
}

/// The journal of a logical unit.
#[derive(Debug)]
pub struct Journal {
    records: VecDeque<Record>,
    len_max: usize,
    dropped: u64,
}

impl Journal {
    /// One that keeps so many records.
    #[must_use]
    pub fn new(len_max: usize) -> Self {
        Journal { records: VecDeque::new(), len_max, dropped: 0 }
    }

    /// Appends a record.
    pub fn push(&mut self, record: Record) {
        if self.records.len() == self.len_max {
            self.dropped += 1;
            if self.records.pop_front().is_none() {
                return;
            }
        }
        self.records.push_back(record);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Journal::new(self.len_max);
    }

    /// The journal in the words of the control socket. What is held is no part of it.
    #[must_use]
    pub fn page(&self) -> JournalPage {
        let mut page = JournalPage { dropped: self.dropped, ..JournalPage::default() };
        for record in &self.records {
            match record {
                Record::Command(record) => page.entries.push(entry(record)),
                Record::TaskManagement(record) => {
                    page.task_management.push(task_management_entry(record));
                }
            }
        }
        page
    }
}

fn task_management_entry(record: &TaskManagementRecord) -> TaskManagementEntry {
    TaskManagementEntry {
        fetched_us: record.fetched_us,
        completed_us: record.completed_us,
        function: record.function.name().to_owned(),
        tag: record.tag,
        nexus: record.nexus,
        held: record.held,
        rule: rule_name(record.rule.as_ref()),
        response: record.response,
    }
}

fn rule_name(rule: Option<&Arc<FiredRule>>) -> Option<String> {
    rule.map(|rule| rule.name.clone())
}

/// Name of the command in a CDB, or its opcode in hex if it is unknown.
pub(crate) fn command_name(cdb: &[u8; CDB_SIZE]) -> String {
    Command::lookup(cdb).map_or_else(|| hex(&cdb[..1]), |command| command.name().to_owned())
}

fn entry(record: &CommandRecord) -> JournalEntry {
    let command = Command::lookup(&record.cdb);
    let cdb_len = command.map_or_else(|| padded_cdb_len(&record.cdb), Command::cdb_len);
    JournalEntry {
        arrival: record.arrival,
        fetched_us: record.fetched_us,
        completed_us: record.completed_us,
        tag: record.tag,
        nexus: record.nexus,
        held: record.held,
        rule: rule_name(record.rule.as_ref()),
        command: command_name(&record.cdb),
        cdb: hex(&record.cdb[..cdb_len.min(CDB_SIZE)]),
        data_out_len: record.data_out_len.into(),
        data_in_len: record.data_in_len.into(),
        status: record.status,
        sense: hex(&record.sense),
        residual: record.residual,
        response: record.response,
    }
}

/// Length of the CDB of an unknown command by its group code (SPC-4, 4.2.5.1); groups without a
/// defined length count whole.
fn padded_cdb_len(cdb: &[u8; CDB_SIZE]) -> usize {
    match cdb[0] {
        0x7f => 8 + usize::from(cdb[7]),
        0x00..=0x1f => 6,
        0x20..=0x5f => 10,
        0x80..=0x9f => 16,
        0xa0..=0xbf => 12,
        0x60..=0x7e | 0xc0..=0xff => CDB_SIZE,
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a String takes everything");
    }
    text
}

/// CLOCK_MONOTONIC of the host in microseconds.
#[must_use]
pub fn now_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).expect("the monotonic clock starts at 0");
    let nanoseconds = u64::try_from(now.tv_nsec).expect("nanoseconds are not negative");
    seconds * 1_000_000 + nanoseconds / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(lba: u8) -> CommandRecord {
        let mut cdb = [0; CDB_SIZE];
        cdb[0] = 0x28;
        cdb[5] = lba;
        cdb[8] = 1;
        CommandRecord {
            arrival: 5,
            fetched_us: 1,
            completed_us: 2,
            tag: 9,
            nexus: 3,
            held: true,
            rule: None,
            cdb,
            data_out_len: 0,
            data_in_len: 512,
            status: 2,
            sense: vec![0x70, 0, 0x0a].into(),
            residual: 512,
            response: 1,
        }
    }

    #[test]
    fn page_names_commands_and_prints_bytes_in_hex() {
        let mut journal = Journal::new(JOURNAL_LEN);
        journal.push(record(7).into());
        let page = journal.page();
        let expected = JournalEntry {
            arrival: 5,
            fetched_us: 1,
            completed_us: 2,
            tag: 9,
            nexus: 3,
            held: true,
            rule: None,
            command: "READ(10)".into(),
            cdb: "28000000000700000100".into(),
            data_out_len: 0,
            data_in_len: 512,
            status: 2,
            sense: "70000a".into(),
            residual: 512,
            response: 1,
        };
        assert_eq!(page, JournalPage { entries: vec![expected], ..JournalPage::default() });
    }

    #[test]
    fn page_names_task_management_functions() {
        let mut journal = Journal::new(JOURNAL_LEN);
        let record = TaskManagementRecord {
            fetched_us: 3,
            completed_us: 4,
            function: TaskManagementFunction::AbortTask,
            tag: 77,
            nexus: 1,
            held: false,
            rule: None,
            response: 11,
        };
        journal.push(record.into());
        let expected = TaskManagementEntry {
            fetched_us: 3,
            completed_us: 4,
            function: "ABORT TASK".into(),
            tag: 77,
            nexus: 1,
            held: false,
            rule: None,
            response: 11,
        };
        let page = journal.page();
        assert_eq!(page, JournalPage { task_management: vec![expected], ..JournalPage::default() });
    }

    #[test]
    fn unknown_commands_are_printed_by_opcode_with_the_cdb_of_their_group() {
        for (opcode, name, digits) in [
            (0x1f, "1f", 12),
            (0x5d, "5d", 20),
            (0x9d, "9d", 32),
            (0xbd, "bd", 24),
            (0xff, "ff", 64),
        ] {
            let mut unknown = record(0);
            unknown.cdb[0] = opcode;
            let entry = entry(&unknown);
            assert_eq!((entry.command.as_str(), entry.cdb.len()), (name, digits));
        }
        let mut variable = record(0);
        variable.cdb = [0; CDB_SIZE];
        variable.cdb[0] = 0x7f;
        variable.cdb[7] = 255;
        assert_eq!(entry(&variable).cdb.len(), 64);
    }

    #[test]
    fn journal_keeps_the_newest_and_counts_the_rest() {
        let mut journal = Journal::new(JOURNAL_LEN);
        for _ in 0..3 {
            journal.push(record(1).into());
        }
        for _ in 0..JOURNAL_LEN {
            journal.push(record(2).into());
        }
        let page = journal.page();
        assert_eq!((page.entries.len(), page.dropped), (4096, 3));
        assert!(page.entries.iter().all(|entry| entry.cdb == "28000000000200000100"));
        journal.clear();
        assert_eq!(journal.page(), JournalPage::default());
    }
}
