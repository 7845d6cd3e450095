//! What a device is made of, and logical units made as new.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use device_server::{ConfigError, Device, DeviceConfig, LuConfig, LunAddress};
use scsi::Status;

use crate::fixture::{Bench, UNIT, disk};

fn new(units: Vec<(LunAddress, LuConfig)>) -> Result<Device, ConfigError> {
    Device::new(DeviceConfig { units, ..DeviceConfig::default() })
}

#[test]
fn a_contradictory_configuration_is_refused() {
    let refused = |config| new(vec![(UNIT, config)]).expect_err("refused");
    assert!(matches!(refused(LuConfig { block_len: 520, ..disk() }), ConfigError::BlockLen(520)));
    assert!(matches!(refused(LuConfig { blocks: 0, ..disk() }), ConfigError::Blocks { .. }));
    let huge = LuConfig { blocks: u64::MAX / 2, ..disk() };
    assert!(matches!(refused(huge), ConfigError::Blocks { .. }));
    let twice = new(vec![(UNIT, disk()), (UNIT, disk())]).expect_err("refused");
    assert!(matches!(twice, ConfigError::DuplicateAddress(UNIT)));
    let address = LunAddress { target: 0, lun: 0x4000 };
    let high = new(vec![(address, disk())]).expect_err("refused");
    assert!(matches!(high, ConfigError::LunTooHigh(_)));
}

#[test]
fn reset_makes_a_unit_as_new_with_what_it_is_given() {
    let bench = Bench::new(disk());
    let write = [0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0];
    assert_eq!(bench.transfer(&write, &mut [1; 512], &mut []).status, Status::Good);
    let config = LuConfig { block_len: 4096, blocks: 2, write_protect: true, ..disk() };
    bench.device.reset_lu(UNIT, config.clone()).expect("reset");
    assert_eq!(bench.receive(&[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0]), [0; 4096]);
    assert_eq!(bench.receive(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0]), [0, 0, 0, 1, 0, 0, 16, 0]);
    assert_eq!(bench.transfer(&write, &mut [1; 4096], &mut []).status, Status::CheckCondition);
    assert_eq!(bench.device.addresses(), [(UNIT, config)]);
}

#[test]
fn a_refused_reset_changes_nothing() {
    let bench = Bench::new(disk());
    let write = [0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0];
    assert_eq!(bench.transfer(&write, &mut [1; 512], &mut []).status, Status::Good);
    let bad = LuConfig { blocks: 0, ..disk() };
    assert!(matches!(bench.device.reset_lu(UNIT, bad), Err(ConfigError::Blocks { .. })));
    let elsewhere = LunAddress { lun: 9, ..UNIT };
    assert!(matches!(bench.device.reset_lu(elsewhere, disk()), Err(ConfigError::NoSuchUnit(_))));
    assert_eq!(bench.receive(&[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0]), [1; 512]);
    assert_eq!(bench.device.addresses(), [(UNIT, disk())]);
}

#[test]
fn addresses_are_in_order_and_designators_differ() {
    let mut units = Vec::new();
    for (target, lun) in [(1, 0), (0, 1), (0, 0), (255, 16383)] {
        units.push((LunAddress { target, lun }, disk()));
    }
    let device = new(units.clone()).expect("accepted");
    units.sort_by_key(|(address, _)| *address);
    assert_eq!(device.addresses(), units);
    let mut pages = Vec::new();
    let mut bench = Bench { device, address: UNIT };
    for (address, _) in units {
        bench.address = address;
        pages.push(bench.receive(&[0x12, 1, 0x83, 0, 255, 0]));
    }
    pages.sort();
    pages.dedup();
    assert_eq!(pages.len(), 4);
}

/// A command sees one unit from beginning to end, the old one or the new one.
#[test]
fn a_unit_is_replaced_under_running_commands() {
    let bench = Bench::new(disk());
    let done = AtomicBool::new(false);
    let read_all = || {
        let mut lens = BTreeSet::new();
        let mut data = vec![0; 64 * 4096];
        while !done.load(Ordering::Relaxed) {
            let read = [0x28, 0, 0, 0, 0, 0, 0, 0, 64, 0];
            let outcome = bench.transfer(&read, &mut [], &mut data);
            assert_eq!((outcome.status, outcome.overrun), (Status::Good, false));
            lens.insert(outcome.data_in_len);
        }
        lens
    };
    thread::scope(|scope| {
        let readers = [scope.spawn(read_all), scope.spawn(read_all)];
        for round in 0..2000 {
            let block_len = if round % 2 == 0 { 4096 } else { 512 };
            bench.device.reset_lu(UNIT, LuConfig { block_len, ..disk() }).expect("reset");
        }
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            let lens = reader.join().expect("no assertion failed");
            assert!(lens.is_subset(&BTreeSet::from([64 * 512, 64 * 4096])), "{lens:?}");
        }
    });
}
