//! When handlers flush: a medium that records its calls, and fails to flush when told to.

use std::{
    io,
    sync::{Arc, Mutex},
};

use scsi::{LunAddress, task::TaskAttribute};
use vm_memory::VolatileSlice;

use crate::{
    DataBuffers, LuConfig, NexusId, SgList, TaskContext,
    data::Mover,
    device::execute_on,
    error::CommandError,
    medium::{Medium, MediumError},
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

    fn flush(&self) -> io::Result<()> {
        self.call("flush");
        if self.flush_fails { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
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
    let recorder = Arc::new(Recorder { calls: Mutex::default(), volatile, flush_fails });
    let address = LunAddress { target: 0, lun: 0 };
    let mut unit = LogicalUnit::new(0, address, LuConfig::default()).expect("accepted");
    unit.medium = recorder.clone();
    let (mut out, mut data_in) = ([0; 512], [0; 512]);
    let buffers = DataBuffers {
        data_out: SgList::from(&mut out[..]),
        data_in: SgList::from(&mut data_in[..]),
    };
    let task = TaskContext { tag: 0, attribute: TaskAttribute::Simple, cdb };
    let result =
        execute_on(NexusId(0), &unit, &*unit.medium, &[0], &task, &mut Mover::new(&buffers));
    let calls = recorder.calls.lock().expect("no test panics in a call").clone();
    (result, calls)
}

const READ: [u8; 10] = [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0];
const READ_FUA: [u8; 10] = [0x28, 8, 0, 0, 0, 0, 0, 0, 1, 0];
const WRITE: [u8; 10] = [0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0];
const WRITE_FUA: [u8; 10] = [0x2a, 8, 0, 0, 0, 0, 0, 0, 1, 0];
const SYNCHRONIZE: [u8; 10] = [0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0];

#[test]
fn fua_and_synchronize_cache_get_past_a_volatile_cache() {
    assert_eq!(run(&READ, true, false), (Ok(()), vec!["read"]));
    assert_eq!(run(&READ_FUA, true, false), (Ok(()), vec!["flush", "read"]));
    assert_eq!(run(&WRITE, true, false), (Ok(()), vec!["write"]));
    assert_eq!(run(&WRITE_FUA, true, false), (Ok(()), vec!["write", "flush"]));
    assert_eq!(run(&SYNCHRONIZE, true, false), (Ok(()), vec!["flush"]));
}

#[test]
fn without_a_volatile_cache_there_is_nothing_to_flush() {
    assert_eq!(run(&READ_FUA, false, true), (Ok(()), vec!["read"]));
    assert_eq!(run(&WRITE_FUA, false, true), (Ok(()), vec!["write"]));
    assert_eq!(run(&SYNCHRONIZE, false, true), (Ok(()), vec![]));
}

#[test]
fn a_flush_that_fails_fails_the_command() {
    assert_eq!(run(&WRITE_FUA, true, true).0, Err(CommandError::FlushFailed));
    assert_eq!(run(&READ_FUA, true, true), (Err(CommandError::FlushFailed), vec!["flush"]));
    assert_eq!(run(&SYNCHRONIZE, true, true).0, Err(CommandError::FlushFailed));
}
