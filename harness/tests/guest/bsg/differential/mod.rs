//! One case, every way into the kernel: the same commands with the same data, the same faults and equally
//! fresh units have the same outcome, but for the [`differences`] that are written down.

mod cases;
mod differences;
mod fixed;

use std::{borrow::Cow, cell::RefCell, collections::BTreeSet, fmt};

use bsg::{Buffer, Data, Errno, Passthrough, Request};
use control::{JournalPage, LunSpec};
use harness::{
    Feature, HostShape, Lun, Needs, ScsiDevice, ScsiHost, declare, property, regressions,
};
use scsi_fault::Rule;

use self::{
    cases::{BLOCKS, Case, Step, Transfer},
    differences::{as_seen_by, without_lies},
    fixed::Fixed,
};
use super::{
    retries::{TAGS, spend_retries},
    ways::Way,
};

/// Some faults wake the error handler, all requests are used once, and two thousand cases take minutes.
const OWN_HOST: Needs = Needs {
    host: ScsiHost::Own(HostShape { queues: Some(1), tags: Some(TAGS), ..HostShape::DEFAULT }),
    features: Cow::Borrowed(&[Feature::KernelAtLeast(7, 1)]),
    deadline_s: Some(150),
    ..Needs::DEFAULT
};

/// The ways under test. `SG_IO` v4 tells most, and is what the others are compared with.
const PATHS: [Path; 4] =
    [Path::Fixed, Path::Way(Way::UringCmd), Path::Way(Way::SgV3), Path::Way(Way::SgIoV4)];

/// A way, or one of the forms it has.
#[derive(Clone, Copy, Debug)]
enum Path {
    Way(Way),
    /// A ring, with the data in a registered buffer.
    Fixed,
}

impl Path {
    /// Whose differences it shares.
    fn way(self) -> Way {
        match self {
            Path::Way(way) => way,
            Path::Fixed => Way::UringCmd,
        }
    }

    fn open(self, device: &ScsiDevice) -> Box<dyn Passthrough> {
        match self {
            Path::Way(way) => way.open(device),
            Path::Fixed => Box::new(Fixed::open(device)),
        }
    }
}

/// What the initiator learns of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    device_status: u32,
    driver_status: u32,
    host_status: u32,
    sense: Vec<u8>,
    residual: i64,
    /// Data that has come; nothing where none was to come.
    data: Bytes,
}

/// Data, told in runs of equal bytes.
#[derive(Clone, Default, PartialEq, Eq)]
struct Bytes(Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs: Vec<&[u8]> = self.0.chunk_by(|a, b| a == b).collect();
        write!(f, "{} bytes", self.0.len())?;
        for run in runs.iter().take(16) {
            write!(f, " {:02x}×{}", run[0], run.len())?;
        }
        f.write_str(if runs.len() > 16 { " …" } else { "" })
    }
}

/// What became of a command: what is seen, or how the kernel refused it.
type Outcome = Result<Seen, Errno>;

/// What the unit has of a command: rule, name, CDB, lengths, and its answer.
type Entry = (Option<String>, String, String, u64, u64, u8, String, u32, u8);

/// What one way has made of a case.
#[derive(Debug)]
struct Run {
    outcomes: Vec<Outcome>,
    entries: Vec<Entry>,
    /// Function and response.
    functions: Vec<(String, u8)>,
}

impl Run {
    fn new(outcomes: Vec<Outcome>, page: JournalPage) -> Self {
        let entries = page.entries.into_iter().map(|e| {
            (
                e.rule,
                e.command,
                e.cdb,
                e.data_out_len,
                e.data_in_len,
                e.status,
                e.sense,
                e.residual,
                e.response,
            )
        });
        let functions = page.task_management.into_iter().map(|e| (e.function, e.response));
        Run { outcomes, entries: entries.collect(), functions: functions.collect() }
    }
}

/// Bytes around a buffer, and in it before data comes.
const CANARY: u8 = 0xc5;

/// A buffer at this offset in its pages.
fn buffer(offset: usize, len: usize) -> Buffer {
    let mut buffer = Buffer::at_offset(offset, len).expect("memory");
    buffer.pages_mut().fill(CANARY);
    buffer
}

fn request(step: &Step) -> Request {
    let data = match step.transfer {
        Transfer::None => Data::None,
        Transfer::In(len) => Data::In(buffer(step.offset, len)),
        Transfer::Out(len, mark) => {
            let mut buffer = buffer(step.offset, len);
            // Of a period that no block length is a multiple of: a block in another's place shows.
            for (byte, at) in buffer.iter_mut().zip((0..251_u8).cycle()) {
                *byte = at ^ mark;
            }
            Data::Out(buffer)
        }
    };
    Request::new(&step.cdb).data(data).sense_capacity(step.sense_capacity)
}

fn execute(way: &mut dyn Passthrough, step: &Step) -> Outcome {
    let done = match way.execute(request(step)) {
        Ok(done) => done,
        Err(error) => return Err(error.errno().unwrap_or_else(|| panic!("{error}"))),
    };
    let data = match step.transfer {
        Transfer::In(len) => {
            let missing = usize::try_from(done.residual).expect("a residual is never negative");
            let come = len.checked_sub(missing).expect("a residual is within the buffer");
            Bytes(done.data[..come].to_vec())
        }
        Transfer::None | Transfer::Out(..) => Bytes::default(),
    };
    Ok(Seen {
        device_status: done.device_status,
        driver_status: done.driver_status,
        host_status: done.host_status,
        sense: done.sense,
        residual: done.residual,
        data,
    })
}

/// A unit and its nodes. They stay open: a ring that is closed interrupts its task once more
/// (io_uring/io_uring.c:io_ring_exit_work), and sg v3 sends a command again that is interrupted.
struct Subject {
    lun: Lun,
    nodes: [Box<dyn Passthrough>; PATHS.len()],
}

impl Subject {
    fn new(block_len: u32) -> Self {
        let spec = LunSpec { blocks: BLOCKS.into(), block_len, ..LunSpec::default() };
        let lun = Lun::with(spec);
        Subject { nodes: PATHS.map(|path| path.open(lun.device())), lun }
    }
}

/// Runs a case over one way, on the unit as new.
fn run(way: &mut dyn Passthrough, case: &Case, lun: &Lun) -> Run {
    lun.renew();
    let outcomes = case.steps.iter().enumerate().map(|(number, step)| {
        if let Some(effect) = &step.fault {
            // Whether each has fired is looked at below: not where a way refuses its command.
            lun.possible_faults(0, [Rule::new(format!("step {number}"), effect.clone())]);
        }
        execute(way, step)
    });
    let outcomes = outcomes.collect();
    Run::new(outcomes, lun.journal())
}

/// Each fault of a command that was carried out has befallen it.
#[track_caller]
fn assert_fired(case: &Case, run: &Run) {
    let fired: BTreeSet<&str> = run.entries.iter().filter_map(|entry| entry.0.as_deref()).collect();
    for (number, (step, outcome)) in case.steps.iter().zip(&run.outcomes).enumerate() {
        if step.fault.is_some() && outcome.is_ok() {
            let name = format!("step {number}");
            assert!(fired.contains(name.as_str()), "{name} met no fault: {run:?}");
        }
    }
}

#[track_caller]
fn check(case: &Case, Subject { lun, nodes }: &mut Subject) {
    let runs: Vec<_> = nodes.iter_mut().map(|node| run(&mut **node, case, lun)).collect();
    let reference = runs.last().expect("there are ways");
    assert_fired(case, reference);
    for (path, run) in PATHS.iter().zip(&runs) {
        let way = path.way();
        let expected = as_seen_by(way, case, reference);
        for (number, (step, expected)) in case.steps.iter().zip(&expected.outcomes).enumerate() {
            let seen = &without_lies(way, step, &run.outcomes[number]);
            let expected = &without_lies(way, step, expected);
            assert_eq!(seen, expected, "{path:?}, step {number}, {step:?}");
        }
        assert_eq!(run.entries, expected.entries, "{path:?}: journal of {case:?}");
        assert_eq!(run.functions, expected.functions, "{path:?}: functions of {case:?}");
    }
}

/// drivers/scsi/scsi_bsg.c, sg.c: statuses, sense data, residual and data are those of the command, and its
/// retries those of the midlayer, whichever way it has come.
#[test]
fn every_way_gives_the_same_outcome() {
    declare!(Contract, OWN_HOST);
    let subjects = RefCell::new([512, 4096].map(Subject::new));
    let others = [Lun::fresh(), Lun::fresh()];
    let _stay_open = {
        let subjects = subjects.borrow();
        spend_retries(&[&subjects[0].lun, &subjects[1].lun, &others[0], &others[1]])
    };
    property::check(regressions!("differential"), &cases::case(), |case| {
        check(&case, &mut subjects.borrow_mut()[usize::from(case.long_blocks)]);
    });
}
