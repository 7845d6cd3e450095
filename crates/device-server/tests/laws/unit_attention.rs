//! Unit attention conditions and readiness as whoever runs the device establishes them.

use device_server::{
    DataBuffers, Device, DeviceConfig, Health, LunAddress, NexusId, Nexuses, Readiness, SgList,
    TaskContext,
};
use scsi::{
    Sense, Status,
    task::{TaskAttribute, TaskManagementFunction},
};

use crate::fixture::{Bench, UNIT, disk, sense};

const FIRST: NexusId = NexusId(0);
const SECOND: NexusId = NexusId(1);
const TEST_UNIT_READY: [u8; 6] = [0; 6];

/// The sense data of a command without data, if it does not end with GOOD.
fn run(device: &Device, nexus: NexusId, address: LunAddress, cdb: &[u8]) -> Option<Vec<u8>> {
    let mut data_in = [0; 64];
    let mut data =
        DataBuffers { data_in: SgList::from(&mut data_in[..]), ..DataBuffers::default() };
    let task = TaskContext { tag: 1, attribute: TaskAttribute::Simple, cdb };
    let outcome = device.execute(nexus, address, &task, &mut data);
    assert_eq!(outcome.status == Status::Good, outcome.sense.is_none());
    outcome.sense
}

fn ready(device: &Device, nexus: NexusId) -> Option<Vec<u8>> {
    run(device, nexus, UNIT, &TEST_UNIT_READY)
}

#[test]
fn a_new_unit_has_nothing_to_report_and_a_replaced_one_neither() {
    let device = Bench::new(disk()).device;
    assert_eq!(ready(&device, FIRST), None);
    device
        .establish_unit_attention(UNIT, Nexuses::All, Sense::CAPACITY_DATA_HAS_CHANGED)
        .expect("there");
    device.reset_lu(UNIT, disk()).expect("accepted");
    assert_eq!(ready(&device, FIRST), None);
}

#[test]
fn a_condition_reaches_those_it_is_for() {
    let device = Bench::new(disk()).device;
    assert_eq!((ready(&device, FIRST), ready(&device, SECOND)), (None, None));
    let establish = |nexuses, condition| {
        device.establish_unit_attention(UNIT, nexuses, condition).expect("there");
    };
    establish(Nexuses::One(SECOND), Sense::CAPACITY_DATA_HAS_CHANGED);
    assert_eq!(ready(&device, FIRST), None);
    assert_eq!(ready(&device, SECOND), Some(sense(6, 0x2a, 9).to_vec()));
    establish(Nexuses::All, Sense::MICROCODE_HAS_BEEN_CHANGED);
    establish(Nexuses::All, Sense::MICROCODE_HAS_BEEN_CHANGED);
    for nexus in [FIRST, SECOND] {
        assert_eq!(ready(&device, nexus), Some(sense(6, 0x3f, 1).to_vec()));
        assert_eq!(ready(&device, nexus), None);
    }
    // A nexus nobody has heard of has missed it.
    assert_eq!(ready(&device, NexusId(2)), None);
    let elsewhere = LunAddress { lun: 9, ..UNIT };
    assert!(
        device.establish_unit_attention(elsewhere, Nexuses::All, Sense::POWER_ON_OCCURRED).is_err()
    );
}

fn two_units() -> (Device, [LunAddress; 2]) {
    let addresses = [UNIT, LunAddress { lun: 5, ..UNIT }];
    let units = addresses.map(|address| (address, disk())).to_vec();
    let config = DeviceConfig { units, ..DeviceConfig::default() };
    (Device::new(config).expect("accepted"), addresses)
}

/// SAM, I_T nexus loss: every unit tells the one initiator.
#[test]
fn a_lost_nexus_learns_it_from_every_unit() {
    let (device, addresses) = two_units();
    assert_eq!(ready(&device, SECOND), None);
    device.nexus_lost(FIRST);
    let reset = |device: &Device| {
        device.task_management(FIRST, UNIT, TaskManagementFunction::ITNexusReset);
    };
    for round in 0..2 {
        for address in addresses {
            let lost = Some(sense(6, 0x29, 7).to_vec());
            assert_eq!(run(&device, FIRST, address, &TEST_UNIT_READY), lost, "round {round}");
            assert_eq!(run(&device, FIRST, address, &TEST_UNIT_READY), None);
            assert_eq!(run(&device, SECOND, address, &TEST_UNIT_READY), None);
        }
        reset(&device);
    }
}

#[test]
fn a_forgotten_nexus_is_told_nothing() {
    let device = Bench::new(disk()).device;
    device.nexus_lost(FIRST);
    device.forget_nexus(FIRST);
    device.establish_unit_attention(UNIT, Nexuses::All, Sense::POWER_ON_OCCURRED).expect("there");
    assert_eq!(ready(&device, FIRST), None);
}

/// SAM: once reported, or once the list was asked for, no unit reports it again.
#[test]
fn changed_luns_are_reported_by_one_unit_only() {
    let (device, [one, other]) = two_units();
    assert_eq!((ready(&device, FIRST), ready(&device, SECOND)), (None, None));
    let change = || {
        for address in [one, other] {
            let sense = Sense::REPORTED_LUNS_DATA_HAS_CHANGED;
            device.establish_unit_attention(address, Nexuses::All, sense).expect("there");
        }
    };
    let changed = Some(sense(6, 0x3f, 0x0e).to_vec());
    let report_luns = [0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0];
    change();
    assert_eq!(run(&device, FIRST, one, &TEST_UNIT_READY), changed);
    assert_eq!(run(&device, FIRST, other, &TEST_UNIT_READY), None);
    assert_eq!(run(&device, SECOND, other, &report_luns), None);
    assert_eq!(run(&device, SECOND, one, &TEST_UNIT_READY), None);
    change();
    assert_eq!(run(&device, SECOND, other, &[3, 0, 0, 0, 64, 0]), None);
    assert_eq!(run(&device, SECOND, one, &TEST_UNIT_READY), None);
    assert_eq!(run(&device, FIRST, other, &TEST_UNIT_READY), changed);
}

#[test]
fn cleared_commands_are_told_to_those_whose_they_were() {
    let device = Bench::new(disk()).device;
    device.commands_cleared(UNIT, FIRST, &[FIRST, SECOND]);
    assert_eq!(ready(&device, FIRST), None);
    assert_eq!(ready(&device, SECOND), Some(sense(6, 0x2f, 0).to_vec()));
    assert_eq!(ready(&device, SECOND), None);
}

/// SPC, TEST UNIT READY and REQUEST SENSE: progress is in the SENSE KEY SPECIFIC field.
#[test]
fn becoming_ready_tells_its_progress() {
    let bench = Bench::new(disk());
    let set = |readiness| bench.device.set_readiness(UNIT, readiness).expect("there");
    set(Readiness::BecomingReady { progress: Some(0x8000) });
    let becoming = [0x70, 0, 2, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x04, 0x01, 0, 0x80, 0x80, 0];
    assert_eq!(bench.refused(&TEST_UNIT_READY), becoming);
    assert_eq!(bench.receive(&[3, 0, 0, 0, 252, 0]), becoming);
    // START STOP UNIT does not hurry it.
    assert_eq!(bench.run(&[0x1b, 0, 0, 0, 1, 0]).status, Status::Good);
    assert_eq!(bench.refused(&[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0]), becoming);
    set(Readiness::BecomingReady { progress: None });
    assert_eq!(bench.refused(&TEST_UNIT_READY), sense(2, 4, 1));
    set(Readiness::Stopped);
    assert_eq!(bench.refused(&TEST_UNIT_READY), sense(2, 4, 2));
    set(Readiness::Ready);
    assert_eq!(bench.run(&TEST_UNIT_READY).status, Status::Good);
}

/// SPC, Temperature and Informational Exceptions log pages: what is set is what they report.
#[test]
fn log_pages_report_the_health_that_was_set() {
    let bench = Bench::new(disk());
    // FAILURE PREDICTION THRESHOLD EXCEEDED.
    let health = Health { temperature: 71, exception: (0x5d, 0x00) };
    bench.device.set_health(UNIT, health).expect("there");
    let temperature = bench.receive(&[0x4d, 0, 0x4d, 0, 0, 0, 0, 0, 255, 0]);
    let parameters = [[0, 0, 0x23, 2, 0, 71], [0, 1, 0x23, 2, 0, 60]].concat();
    assert_eq!(temperature, [&[0x8d, 0, 0, 12][..], &parameters].concat());
    let exceptions = bench.receive(&[0x4d, 0, 0x6f, 0, 0, 0, 0, 0, 255, 0]);
    assert_eq!(exceptions, [0xaf, 0, 0, 8, 0, 0, 0x23, 4, 0x5d, 0x00, 71, 0]);
    bench.device.reset_lu(UNIT, disk()).expect("accepted");
    assert_eq!(bench.receive(&[0x4d, 0, 0x6f, 0, 0, 0, 0, 0, 255, 0])[8..10], [0, 0]);
}
