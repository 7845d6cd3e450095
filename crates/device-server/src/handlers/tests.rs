//! When handlers flush: a medium that records its calls, and fails to flush when told to.

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, Mutex},
};

use scsi::{LunAddress, task::TaskAttribute};
use vm_memory::VolatileSlice;

use crate::{
    DataBuffers, LuConfig, NexusId, SgList, TaskContext, admission,
    data::Mover,
    error::CommandError,
    handlers::Execution,
    medium::{Extent, Medium, MediumError},
    mode_values::ModeValues,
    unit::LogicalUnit,
};

#[derive(Debug)]
struct Recorder {
    calls: Mutex<Vec<&'static str>>,
    volatile: bool,
    flush_fails: bool,
}

impl Recorder {
    fn call(&self, name: &'static str) {
        self.calls.lock().expect("no test panics in a call").push(name);
    }
}

impl Medium for Recorder {
    fn read_at(&self, _: u64, _: &[VolatileSlice<'_>], _: u64) -> Result<(), MediumError> {
        self.call("read");
        Ok(())
    }

    fn write_at(&self, _: u64, _: &[VolatileSlice<'_>], _: u64) -> Result<(), MediumError> {
        self.call("write");
        Ok(())
    }

    fn make_room(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.call("flush");
        if self.flush_fails { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn verify(&self, _: u64, _: u64) -> Result<(), MediumError> {
        self.call("verify");
        Ok(())
    }

    fn fetch_ahead(&self, offset: u64, len: u64) {
        // LuConfig::default() has 32768 blocks.
        self.call(match (offset, len) {
            (512, 1024) => "fetch two from 1",
            (16_776_704, 512) => "fetch the last",
            _ => "fetch something else",
        });
    }

    fn unmap(&self, _: u64, _: u64) -> io::Result<()> {
        self.call("unmap");
        Ok(())
    }

    fn extent(&self, _: u64, len: u64) -> io::Result<Extent> {
        Ok(Extent { mapped: true, len })
    }

    fn has_volatile_cache(&self) -> bool {
        self.volatile
    }
}

/// What a command of one block returns, and the calls it made.
fn run(
    cdb: &[u8],
    volatile: bool,
    flush_fails: bool,
) -> (Result<(), CommandError>, Vec<&'static str>) {
    run_caching(cdb, volatile, flush_fails, false)
}

/// The same, with WCE cleared first if it shall be.
fn run_caching(
    cdb: &[u8],
    volatile: bool,
    flush_fails: bool,
    write_through: bool,
) -> (Result<(), CommandError>, Vec<&'static str>) {
    let recorder = Arc::new(Recorder { calls: Mutex::default(), volatile, flush_fails });
    let address = LunAddress { target: 0, lun: 0 };
    let unit = LogicalUnit::new(0, address, LuConfig::default()).expect("accepted");
    let unit = unit.with_medium(recorder.clone());
    let (mut out, mut data_in) = ([0; 512], [0; 512]);
    let buffers = DataBuffers {
        data_out: SgList::from(&mut out[..]),
        data_in: SgList::from(&mut data_in[..]),
    };
    let task = TaskContext { tag: 0, attribute: TaskAttribute::Simple, cdb };
    if write_through {
        let values = unit.mode.get();
        unit.mode.set(ModeValues { caching: 0, ..values });
    }
    let mut mover = Mover::new(&buffers);
    let (nexus, nexuses) = (NexusId(0), BTreeSet::from([NexusId(0)]));
    let mut execution =
        Execution::new(nexus, &nexuses, &unit, &*unit.medium, &[0], cdb, &mut mover);
    let result = admission::execute(&mut execution, &task);
    let calls = recorder.calls.lock().expect("no test panics in a call").clone();
    (result, calls)
}

const READ: [u8; 10] = [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0];
const READ_FUA: [u8; 10] = [0x28, 8, 0, 0, 0, 0, 0, 0, 1, 0];
const WRITE: [u8; 10] = [0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0];
const WRITE_FUA: [u8; 10] = [0x2a, 8, 0, 0, 0, 0, 0, 0, 1, 0];
const SYNCHRONIZE: [u8; 10] = [0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const SYNCHRONIZE_16: [u8; 16] = [0x91, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

#[test]
fn fua_and_synchronize_cache_get_past_a_volatile_cache() {
    assert_eq!(run(&READ, true, false), (Ok(()), vec!["read"]));
    assert_eq!(run(&READ_FUA, true, false), (Ok(()), vec!["flush", "read"]));
    assert_eq!(run(&WRITE, true, false), (Ok(()), vec!["write"]));
    assert_eq!(run(&WRITE_FUA, true, false), (Ok(()), vec!["write", "flush"]));
    assert_eq!(run(&SYNCHRONIZE, true, false), (Ok(()), vec!["flush"]));
    assert_eq!(run(&SYNCHRONIZE_16, true, false), (Ok(()), vec!["flush"]));
}

#[test]
fn without_a_volatile_cache_there_is_nothing_to_flush() {
    assert_eq!(run(&READ_FUA, false, true), (Ok(()), vec!["read"]));
    assert_eq!(run(&WRITE_FUA, false, true), (Ok(()), vec!["write"]));
    assert_eq!(run(&SYNCHRONIZE, false, true), (Ok(()), vec![]));
}

/// SBC, WCE: with it cleared, a write ends when the medium has the data.
#[test]
fn without_write_cache_enabled_every_write_is_flushed() {
    assert_eq!(run_caching(&WRITE, true, false, true), (Ok(()), vec!["write", "flush"]));
    assert_eq!(run_caching(&READ, true, false, true), (Ok(()), vec!["read"]));
    assert_eq!(run_caching(&WRITE, false, false, true), (Ok(()), vec!["write"]));
}

/// SBC, PRE-FETCH: the blocks are fetched, with no length all that there are; no reading, and no flush.
#[test]
fn pre_fetch_asks_the_medium_for_the_blocks() {
    let met = Err(CommandError::ConditionMet);
    let ten = |lba: u16, blocks| {
        let [high, low] = lba.to_be_bytes();
        run(&[0x34, 0, 0, 0, high, low, 0, 0, blocks, 0], true, false)
    };
    assert_eq!(ten(1, 2), (met, vec!["fetch two from 1"]));
    assert_eq!(ten(0x7fff, 0), (met, vec!["fetch the last"]));
    assert_eq!(ten(0x7fff, 2), (Err(CommandError::OutOfRange), vec![]));
    let sixteen = [0x90, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0];
    assert_eq!(run(&sixteen, true, false), (met, vec!["fetch two from 1"]));
}

/// SBC, START STOP UNIT: stopping makes cached data durable, unless NO_FLUSH.
#[test]
fn stopping_flushes() {
    assert_eq!(run(&[0x1b, 0, 0, 0, 0, 0], true, false), (Ok(()), vec!["flush"]));
    assert_eq!(run(&[0x1b, 0, 0, 0, 4, 0], true, false), (Ok(()), vec![]));
    assert_eq!(run(&[0x1b, 0, 0, 0, 1, 0], true, false), (Ok(()), vec![]));
    assert_eq!(run(&[0x1b, 0, 0, 0, 0, 0], true, true).0, Err(CommandError::FlushFailed));
}

#[test]
fn a_flush_that_fails_fails_the_command() {
    assert_eq!(run(&WRITE_FUA, true, true).0, Err(CommandError::FlushFailed));
    assert_eq!(run(&READ_FUA, true, true), (Err(CommandError::FlushFailed), vec!["flush"]));
    assert_eq!(run(&SYNCHRONIZE, true, true).0, Err(CommandError::FlushFailed));
    assert_eq!(run(&SYNCHRONIZE_16, true, true).0, Err(CommandError::FlushFailed));
}
