//! Whatever an initiator sends: no panic, no more moved than offered, and RSOC lists exactly what is
//! not refused as unknown.

use device_server::{
    DataBuffers, DeviceType, LuConfig, LunAddress, NexusId, Provisioning, SgList, TaskContext,
};
use proptest::prelude::*;
use scsi::{
    Sense, Status,
    task::{TaskAttribute, TaskManagementFunction},
};

use crate::fixture::{Bench, UNIT, disk, invalid_bit};

/// Random bytes, and CDBs of known commands with a few bytes spoilt so that they get further.
fn any_cdb() -> impl Strategy<Value = Vec<u8>> {
    let known = proptest::sample::select(scsi::Command::ALL).prop_flat_map(|command| {
        proptest::collection::vec((0..32usize, any::<u8>()), 0..8).prop_map(move |spoilt| {
            let mut cdb = command.spec().usage_data();
            cdb[1..].fill(0);
            cdb[1] = command.spec().service_action.map_or(0, |code| code.to_be_bytes()[1]);
            cdb.resize(32, 0);
            for (index, byte) in spoilt {
                cdb[index] = byte;
            }
            cdb
        })
    });
    prop_oneof![3 => known, 1 => proptest::collection::vec(any::<u8>(), 0..33)]
}

fn any_attribute() -> impl Strategy<Value = TaskAttribute> {
    proptest::sample::select(
        &[
            TaskAttribute::Simple,
            TaskAttribute::Ordered,
            TaskAttribute::HeadOfQueue,
            TaskAttribute::Aca,
        ][..],
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn outcomes_are_sane(
        cdb in any_cdb(),
        attribute in any_attribute(),
        out_len in 0..3000usize,
        in_len in 0..3000usize,
        write_protect: bool,
        lun in prop_oneof![Just(UNIT.lun), any::<u16>()],
    ) {
        let mut bench = Bench::new(LuConfig { write_protect, ..disk() });
        bench.address = LunAddress { lun, ..UNIT };
        let (mut out, mut data_in) = (vec![1; out_len], vec![0xee; in_len]);
        let mut data = DataBuffers {
            data_out: SgList::from(&mut out[..]),
            data_in: SgList::from(&mut data_in[..]),
        };
        let outcome = bench.execute(&cdb, attribute, &mut data);
        prop_assert!(outcome.data_in_len <= in_len as u64);
        prop_assert!(outcome.data_out_len <= out_len as u64);
        prop_assert!(outcome.data_in_len == 0 || outcome.data_out_len == 0);
        prop_assert_eq!(outcome.sense.is_some(), outcome.status == Status::CheckCondition);
        if let Some(sense) = &outcome.sense {
            prop_assert!(sense.len() <= 252);
            prop_assert!(Sense::decode(sense).is_ok());
            prop_assert!(!outcome.overrun);
        }
        let written = usize::try_from(outcome.data_in_len).expect("small");
        prop_assert!(data_in[written..].iter().all(|byte| *byte == 0xee));
    }
}

/// Data-out that is a parameter list more often than not: zeros with some bytes set.
fn any_data_out() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(0x08), Just(0x0a), 0..4u8, any::<u8>()];
    (0..1100usize, proptest::collection::vec((0..64usize, byte), 0..12)).prop_map(|(len, set)| {
        let mut data = vec![0; len];
        for (index, byte) in set {
            if let Some(place) = data.get_mut(index) {
                *place = byte;
            }
        }
        data
    })
}

/// A step of a session: who sends what, and now and then something else happens.
fn any_step() -> impl Strategy<Value = (u32, Vec<u8>, Vec<u8>, usize, u8)> {
    (0..3u32, any_cdb(), any_data_out(), 0..3000usize, any::<u8>())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever went before: state of one command meets the next, of three initiators.
    #[test]
    fn sessions_are_sane(
        steps in proptest::collection::vec(any_step(), 1..60),
        thin: bool,
        block_len in proptest::sample::select(vec![512u32, 4096]),
    ) {
        let provisioning = if thin { Provisioning::Thin } else { Provisioning::Full };
        let bench = Bench::new(LuConfig { provisioning, block_len, ..disk() });
        for (nexus, cdb, mut out, in_len, event) in steps {
            let nexus = NexusId(nexus);
            match event {
                0..8 => bench.device.nexus_lost(nexus),
                8..12 => bench.device.forget_nexus(nexus),
                12..24 => {
                    let function = TaskManagementFunction::ALL[usize::from(event % 8)];
                    bench.device.task_management(nexus, UNIT, function);
                }
                _ => {}
            }
            let out_len = out.len() as u64;
            let mut data_in = vec![0xee; in_len];
            let mut data = DataBuffers {
                data_out: SgList::from(&mut out[..]),
                data_in: SgList::from(&mut data_in[..]),
            };
            let task = TaskContext { tag: 0, attribute: TaskAttribute::Simple, cdb: &cdb };
            let outcome = bench.device.execute(nexus, UNIT, &task, &mut data);
            prop_assert!(outcome.data_in_len <= in_len as u64);
            prop_assert!(outcome.data_out_len <= out_len);
            prop_assert!(outcome.data_in_len == 0 || outcome.data_out_len == 0);
            prop_assert_eq!(outcome.sense.is_some(), outcome.status == Status::CheckCondition);
            let status =
                [Status::Good, Status::ConditionMet, Status::CheckCondition, Status::ReservationConflict];
            prop_assert!(status.contains(&outcome.status));
            if let Some(sense) = &outcome.sense {
                prop_assert!(Sense::decode(sense).is_ok());
                prop_assert!(!outcome.overrun);
            }
        }
    }
}

#[test]
fn rsoc_lists_exactly_what_is_not_refused_as_unknown() {
    for device_type in [DeviceType::Disk, DeviceType::Processor] {
        let bench = Bench::new(LuConfig { device_type, ..disk() });
        let data = bench.receive(&[0xa3, 0x0c, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0]);
        let listed: Vec<_> = data[4..].chunks(8).map(|each| (each[0], each[3])).collect();
        for opcode in 0..=u8::MAX {
            let with_service_actions = matches!(opcode, 0x5e | 0x5f | 0x9e | 0xa3);
            for service_action in 0..if with_service_actions { 0x20 } else { 1 } {
                let mut cdb = [0; 32];
                (cdb[0], cdb[1]) = (opcode, service_action);
                let outcome = bench.transfer(&cdb, &mut [0; 4096], &mut [0; 4096]);
                // SERVICE ACTION is bits 4 to 0 of byte 1.
                let unknown = outcome.sense.is_some_and(|bytes| {
                    let opcode =
                        Sense::decode(&bytes).expect("sense data").triple() == (5, 0x20, 0);
                    opcode || with_service_actions && bytes == invalid_bit(1, 4)
                });
                let is_listed = listed.contains(&(opcode, service_action));
                assert_eq!(is_listed, !unknown, "{opcode:02x}/{service_action:02x}");
            }
        }
    }
}
