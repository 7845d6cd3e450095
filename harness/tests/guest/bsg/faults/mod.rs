//! Faults on command: each effect, said in a scenario file and in Rust, seen through bsg. Opcodes, senses and
//! statuses are literals of SPC-4, SBC-3 and SAM-5; responses those of virtio 1.2, 5.6.6.1; host statuses those
//! of include/scsi/scsi_status.h as drivers/scsi/virtio_scsi.c:virtscsi_complete_cmd chooses them.

mod answers;
mod choice;
mod data;
mod death;
mod functions;
mod hostile;
mod media;
mod waits;
mod whole;

use std::borrow::Cow;

use bsg::{Completion, Passthrough, Request};
use harness::{Feature, HostShape, Lun, Needs, ScsiHost};
use scsi_fault::{Rule, Scenario};

use super::{
    cdb::{self, Size},
    ways::execute,
};

/// A scenario of harness/scenarios that says the same as these rules.
macro_rules! scenario {
    ($name:literal, $seed:expr, $rules:expr) => {
        $crate::bsg::faults::same_in_both(
            include_str!(concat!("../../../../scenarios/", $name, ".toml")),
            $seed,
            $rules,
        )
    };
}
use scenario;

/// For rules that reach beyond a unit.
const OWN_HOST: Needs = Needs {
    host: ScsiHost::Own(HostShape::DEFAULT),
    features: Cow::Borrowed(&[Feature::KernelAtLeast(7, 1)]),
    ..Needs::DEFAULT
};

/// A scenario as a file, which is what these rules are in Rust.
#[track_caller]
fn same_in_both(text: &str, seed: u64, rules: Vec<Rule>) -> Scenario {
    let parsed = Scenario::parse(text).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(parsed, Scenario::new(seed, rules));
    parsed
}

/// A fresh unit with these faults.
#[track_caller]
fn unit_with(scenario: &Scenario) -> Lun {
    let lun = Lun::fresh();
    lun.scenario(scenario);
    lun
}

/// READ(10) of so many blocks.
fn read(lba: u32, blocks: u8) -> Request {
    Request::new(&cdb::read(Size::Ten, lba, blocks)).data_in(usize::from(blocks) * cdb::BLOCK)
}

/// WRITE(10) of blocks that say where they belong.
fn write(lba: u32, blocks: u8, mark: u32) -> Request {
    Request::new(&cdb::write(Size::Ten, lba, blocks)).data_out(&cdb::pattern(lba, blocks, mark))
}

/// TEST UNIT READY.
fn test_unit_ready() -> Request {
    Request::new(&[0; 6])
}

/// What READ(10) brings of blocks that are good to read.
#[track_caller]
fn contents(way: &mut dyn Passthrough, lba: u32, blocks: u8) -> Vec<u8> {
    let done = execute(way, read(lba, blocks));
    harness::assert::assert_good(&done);
    done.data
}

/// Device and host status.
fn statuses(done: &Completion) -> (u32, u32) {
    (done.device_status, done.host_status)
}
