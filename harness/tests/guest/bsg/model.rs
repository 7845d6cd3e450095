//! Any writes and reads against a model of the medium.

mod faults;

use std::cell::RefCell;

use bsg::{Passthrough, Request};
use control::LunSpec;
use harness::{Lun, assert::assert_sense, declare, property, regressions};
use proptest::{collection::vec, prelude::*};

use super::{
    block::{read, write},
    cdb::{self, BLOCK, Size},
    ways::{URING_CMD, Way, execute},
};

/// Blocks of the unit: few, so that writes overlap and the end is near.
const BLOCKS: u8 = 32;

#[derive(Clone, Debug)]
struct Step {
    write: bool,
    way: usize,
    size: Size,
    lba: u8,
    blocks: u8,
    mark: u32,
}

fn step() -> impl Strategy<Value = Step> {
    let size = proptest::sample::select(Size::ALL.to_vec());
    (any::<bool>(), 0..Way::ALL.len(), size, 0..BLOCKS, 1..=8_u8, any::<u32>()).prop_map(
        |(write, way, size, lba, blocks, mark)| Step { write, way, size, lba, blocks, mark },
    )
}

/// A unit of few blocks, its nodes, and what it holds.
struct Subject {
    lun: Lun,
    nodes: [Box<dyn Passthrough>; Way::ALL.len()],
    model: Vec<u8>,
}

impl Subject {
    fn new() -> RefCell<Self> {
        let lun = Lun::with(LunSpec { blocks: BLOCKS.into(), ..LunSpec::default() });
        let nodes = Way::ALL.map(|way| way.open(lun.device()));
        RefCell::new(Subject { lun, nodes, model: vec![0; BLOCK * usize::from(BLOCKS)] })
    }

    /// As new: what one case leaves is not the next one's.
    fn renew(&mut self) -> &mut Self {
        self.lun.renew();
        self.model.fill(0);
        self
    }
}

/// SBC-3, Medium and LBA mapping: a block holds what was last written to it, over any way and by any
/// CDB; a command that reaches beyond the last block moves nothing (5/21/00).
#[test]
fn any_writes_and_reads_behave_like_an_array_of_blocks() {
    declare!(Contract, URING_CMD);
    let subject = Subject::new();
    property::check(regressions!("medium"), &vec(step(), 1..8), |steps| {
        let mut subject = subject.borrow_mut();
        let Subject { nodes, model, .. } = subject.renew();
        for step in steps {
            check(&mut *nodes[step.way], &step, model);
        }
    });
}

/// As above where devices fail as these do: what is written is what each fault leaves of it, whatever the
/// initiator is told, and other blocks are as they were.
#[test]
fn any_faults_leave_what_they_say_in_an_array_of_blocks() {
    declare!(Contract, URING_CMD);
    let subject = Subject::new();
    let steps = vec((step(), faults::fault()), 1..6);
    property::check(regressions!("faulty-medium"), &steps, |steps| {
        let mut subject = subject.borrow_mut();
        let Subject { lun, nodes, model } = subject.renew();
        for (step, fault) in steps {
            let inside = step.lba + step.blocks <= BLOCKS;
            match fault {
                Some(fault) if inside => {
                    faults::check(lun, &mut *nodes[step.way], &step, fault, model);
                }
                _ => check(&mut *nodes[step.way], &step, model),
            }
        }
        assert_eq!(read(&mut *nodes[0], Size::Ten, 0, BLOCKS), *model);
    });
}

fn check(way: &mut dyn Passthrough, step: &Step, model: &mut [u8]) {
    let Step { write: is_write, size, lba, blocks, mark, .. } = *step;
    let from = BLOCK * usize::from(lba);
    let data = cdb::pattern(lba.into(), blocks, mark);
    let stored = model.get_mut(from..from + data.len());
    match (stored, is_write) {
        (Some(stored), true) => {
            write(way, size, lba.into(), blocks, &data);
            stored.copy_from_slice(&data);
        }
        (Some(stored), false) => assert_eq!(read(way, size, lba.into(), blocks), stored),
        (None, true) => {
            let request = Request::new(&cdb::write(size, lba.into(), blocks)).data_out(&data);
            assert_sense(&execute(way, request), 0x05, 0x21, 0x00);
        }
        (None, false) => {
            let request = Request::new(&cdb::read(size, lba.into(), blocks)).data_in(data.len());
            assert_sense(&execute(way, request), 0x05, 0x21, 0x00);
        }
    }
}
