//! What a logical unit has answered, bounded.

use std::{collections::VecDeque, fmt::Write};

use control::{JournalEntry, JournalPage};
use rustix::time::{ClockId, clock_gettime};
use scsi::command::Command;

use crate::wire::{CDB_SIZE, Response};

/// Entries a journal keeps. The oldest goes when one more comes.
pub const JOURNAL_LEN_MAX: usize = 4096;

/// One answered command, as compact as it is kept. Fields as in [`JournalEntry`].
#[derive(Clone, Debug)]
pub struct Record {
    /// When its descriptor was fetched, CLOCK_MONOTONIC in microseconds.
    pub fetched_us: u64,
    /// When it was answered.
    pub completed_us: u64,
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
    pub response: Response,
}

/// The journal of a logical unit.
#[derive(Debug, Default)]
pub struct Journal {
    records: VecDeque<Record>,
    dropped: u64,
}

impl Journal {
    /// Appends a record.
    pub fn push(&mut self, record: Record) {
        if self.records.len() == JOURNAL_LEN_MAX {
            self.records.pop_front();
            self.dropped += 1;
        }
        self.records.push_back(record);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Journal::default();
    }

    /// The journal as records and the number of those lost.
    #[must_use]
    pub fn snapshot(&self) -> (Vec<Record>, u64) {
        (self.records.iter().cloned().collect(), self.dropped)
    }
}

/// A snapshot in the words of the control socket.
#[must_use]
pub fn page((records, dropped): (Vec<Record>, u64)) -> JournalPage {
    JournalPage { dropped, entries: records.into_iter().map(entry).collect() }
}

fn entry(record: Record) -> JournalEntry {
    let command = Command::lookup(&record.cdb);
    let cdb_len = command.map_or_else(|| padded_cdb_len(&record.cdb), Command::cdb_len);
    JournalEntry {
        fetched_us: record.fetched_us,
        completed_us: record.completed_us,
        command: command.map_or_else(|| hex(&record.cdb[..1]), |command| command.name().to_owned()),
        cdb: hex(&record.cdb[..cdb_len.min(CDB_SIZE)]),
        data_out_len: record.data_out_len.into(),
        data_in_len: record.data_in_len.into(),
        status: record.status,
        sense: hex(&record.sense),
        residual: record.residual,
        response: record.response as u8,
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

    fn record(lba: u8) -> Record {
        let mut cdb = [0; CDB_SIZE];
        cdb[0] = 0x28;
        cdb[5] = lba;
        cdb[8] = 1;
        Record {
            fetched_us: 1,
            completed_us: 2,
            cdb,
            data_out_len: 0,
            data_in_len: 512,
            status: 2,
            sense: vec![0x70, 0, 0x0a].into(),
            residual: 512,
            response: Response::Overrun,
        }
    }

    #[test]
    fn page_names_commands_and_prints_bytes_in_hex() {
        let mut journal = Journal::default();
        journal.push(record(7));
        let page = page(journal.snapshot());
        let expected = JournalEntry {
            fetched_us: 1,
            completed_us: 2,
            command: "READ(10)".into(),
            cdb: "28000000000700000100".into(),
            data_out_len: 0,
            data_in_len: 512,
            status: 2,
            sense: "70000a".into(),
            residual: 512,
            response: 1,
        };
        assert_eq!(page, JournalPage { dropped: 0, entries: vec![expected] });
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
            let entry = entry(unknown);
            assert_eq!((entry.command.as_str(), entry.cdb.len()), (name, digits));
        }
        let mut variable = record(0);
        variable.cdb = [0; CDB_SIZE];
        variable.cdb[0] = 0x7f;
        variable.cdb[7] = 255;
        assert_eq!(entry(variable).cdb.len(), 64);
    }

    #[test]
    fn journal_keeps_the_newest_and_counts_the_rest() {
        let mut journal = Journal::default();
        for _ in 0..3 {
            journal.push(record(1));
        }
        for _ in 0..JOURNAL_LEN_MAX {
            journal.push(record(2));
        }
        let (records, dropped) = journal.snapshot();
        assert_eq!((records.len(), dropped), (4096, 3));
        assert!(records.iter().all(|record| record.cdb[5] == 2));
        journal.clear();
        let (records, dropped) = journal.snapshot();
        assert_eq!((records.len(), dropped), (0, 0));
    }
}
