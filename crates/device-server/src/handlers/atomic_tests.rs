//! That nothing comes between what a command reads and what it writes: a medium that gives others time
//! to come.

use std::{
    collections::BTreeSet,
    io,
    sync::{
        Arc, Mutex,
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::Duration,
};

use rstest::rstest;
use scsi::{LunAddress, task::TaskAttribute};
use vm_memory::VolatileSlice;

use crate::{
    DataBuffers, LuConfig, NexusId, SgList, TaskContext, admission,
    data::Mover,
    handlers::Execution,
    medium::{Extent, Medium, MediumError},
    unit::LogicalUnit,
};

/// How long a command that has read waits for another one to write.
const MOMENT: Duration = Duration::from_millis(40);

/// Zeros, whatever is written.
#[derive(Debug)]
struct Slow {
    reads: Sender<()>,
    written: Mutex<Receiver<()>>,
    writes: Sender<()>,
    calls: Mutex<Vec<String>>,
}

impl Slow {
    fn call(&self, name: &str) {
        let thread = thread::current();
        let call = format!("{} {name}", thread.name().unwrap_or("?"));
        self.calls.lock().expect("no test panics in a call").push(call);
    }
}

impl Medium for Slow {
    fn read_at(&self, _: u64, into: &[VolatileSlice<'_>], len: u64) -> Result<(), MediumError> {
        let len = usize::try_from(len).expect("short");
        into[0].copy_from(&vec![0u8; len]);
        self.call("reads");
        self.reads.send(()).expect("the test waits");
        // What matters is the order of the calls, whether anybody came or not.
        let _ = self.written.lock().expect("one reads at a time").recv_timeout(MOMENT);
        Ok(())
    }

    fn write_at(&self, _: u64, _: &[VolatileSlice<'_>], _: u64) -> Result<(), MediumError> {
        self.call("writes");
        self.writes.send(()).expect("the medium is there");
        Ok(())
    }

    fn make_room(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn verify(&self, _: u64, _: u64) -> Result<(), MediumError> {
        Ok(())
    }

    fn unmap(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn extent(&self, _: u64, len: u64) -> io::Result<Extent> {
        Ok(Extent { mapped: true, len })
    }

    fn has_volatile_cache(&self) -> bool {
        false
    }
}

fn run(unit: &LogicalUnit, cdb: &[u8]) {
    let mut out = [0; 1024];
    let buffers = DataBuffers { data_out: SgList::from(&mut out[..]), ..DataBuffers::default() };
    let task = TaskContext { tag: 0, attribute: TaskAttribute::Simple, cdb };
    let (nexus, nexuses) = (NexusId(0), BTreeSet::from([NexusId(0)]));
    let mut mover = Mover::new(&buffers);
    let mut execution = Execution::new(nexus, &nexuses, unit, &*unit.medium, &[0], cdb, &mut mover);
    admission::execute(&mut execution, &task).expect("good");
}

/// COMPARE AND WRITE of block 0 by `a`, and what `b` sends as soon as `a` has read.
fn order(of_b: &[u8]) -> Vec<String> {
    let ((reads, has_read), (writes, written)) = (mpsc::channel(), mpsc::channel());
    let calls = Mutex::default();
    let medium = Arc::new(Slow { reads, written: Mutex::new(written), writes, calls });
    let address = LunAddress { target: 0, lun: 0 };
    let unit = LogicalUnit::new(0, address, LuConfig::default()).expect("accepted");
    let unit = &unit.with_medium(medium.clone());
    thread::scope(|scope| {
        let named = |name: &str| thread::Builder::new().name(name.into());
        let compare = [0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0];
        named("a").spawn_scoped(scope, move || run(unit, &compare)).expect("a thread");
        has_read.recv().expect("a reads");
        named("b").spawn_scoped(scope, move || run(unit, of_b)).expect("a thread");
    });
    medium.calls.lock().expect("no test panics in a call").clone()
}

#[rstest]
#[case::write(&[0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0], &["b writes"])]
#[case::write_same(&[0x41, 0, 0, 0, 0, 0, 0, 0, 1, 0], &["b writes"])]
#[case::compare_and_write(&[0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], &["b reads", "b writes"])]
fn nothing_comes_between_comparing_and_writing(#[case] of_b: &[u8], #[case] expected: &[&str]) {
    assert_eq!(order(of_b), [&["a reads", "a writes"], expected].concat());
}

/// What it does to other blocks does not have to wait, and does not.
#[test]
fn other_blocks_are_written_meanwhile() {
    let write = [0x2a, 0, 0, 0, 0, 1, 0, 0, 1, 0];
    assert_eq!(order(&write), ["a reads", "b writes", "a writes"]);
}
