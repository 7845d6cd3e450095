//! Any writes and reads against a model of the medium.

use bsg::{Passthrough, Request};
use control::LunSpec;
use harness::{Lun, assert::assert_sense, declare};
use proptest::{prelude::*, test_runner::TestRunner};

use super::{
    block::{read, write},
    cdb::{self, BLOCK, Size},
    ways::{Way, execute},
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

/// SBC-3, Medium and LBA mapping: a block holds what was last written to it, over any way and by any
/// CDB; a command that reaches beyond the last block moves nothing (5/21/00).
#[test]
fn any_writes_and_reads_behave_like_an_array_of_blocks() {
    declare!(Contract);
    let lun = Lun::with(LunSpec { blocks: BLOCKS.into(), ..LunSpec::default() });
    let mut ways = Way::ALL.map(|way| way.open(lun.device()));
    // One medium for all cases: the model goes on where the last case ended.
    let model = std::cell::RefCell::new(vec![0; BLOCK * usize::from(BLOCKS)]);
    let ways = std::cell::RefCell::new(&mut ways);
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    let law = TestRunner::new(config).run(&prop::collection::vec(step(), 1..8), |steps| {
        for step in steps {
            let way = &mut *ways.borrow_mut()[step.way];
            check(way, &step, &mut model.borrow_mut());
        }
        Ok(())
    });
    law.unwrap_or_else(|error| panic!("{error}"));
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
