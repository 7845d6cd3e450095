//! What of reservations concerns whoever runs the device: commands to abort, nexuses that are lost.

use device_server::{
    Aborts, DataBuffers, Device, NexusId, Outcome, SgList, TaskContext, TmfResponse,
};
use scsi::{
    Status,
    task::{TaskAttribute, TaskManagementFunction},
};

use crate::fixture::{Bench, UNIT, disk};

fn run(device: &Device, nexus: u32, cdb: &[u8], out: &[u8]) -> Outcome {
    let mut out = out.to_vec();
    let mut data = DataBuffers { data_out: SgList::from(&mut out[..]), ..DataBuffers::default() };
    let task = TaskContext { tag: 1, attribute: TaskAttribute::Simple, cdb };
    device.execute(NexusId(nexus), UNIT, &task, &mut data)
}

/// PERSISTENT RESERVE OUT with these keys.
fn reserve_out(device: &Device, nexus: u32, action: u8, keys: [u8; 2]) -> Outcome {
    let list = [&[0; 7][..], &keys[..1], &[0; 7], &keys[1..], &[0; 8]].concat();
    // TYPE 5h: Write Exclusive - Registrants Only.
    run(device, nexus, &[0x5f, action, 5, 0, 0, 0, 0, 0, 24, 0], &list)
}

/// SPC: the commands of every preempted nexus, and with PREEMPT none.
#[test]
fn preempt_and_abort_names_the_nexuses_it_has_preempted() {
    for (action, expected) in
        [(4, Aborts::Nothing), (5, Aborts::Nexuses(vec![NexusId(1), NexusId(3)]))]
    {
        let device = Bench::new(disk()).device;
        for (nexus, key) in [(0, 7), (1, 8), (2, 9), (3, 8)] {
            assert_eq!(reserve_out(&device, nexus, 6, [0, key]).status, Status::Good);
        }
        let outcome = reserve_out(&device, 0, action, [7, 8]);
        assert_eq!((outcome.status, outcome.aborts), (Status::Good, expected));
        let nobody = reserve_out(&device, 0, action, [7, 8]);
        assert_eq!((nobody.status, nobody.aborts), (Status::ReservationConflict, Aborts::Nothing));
        let own = reserve_out(&device, 0, action, [7, 7]);
        assert_eq!((own.status, own.aborts), (Status::Good, Aborts::Nothing));
    }
}

const RESERVE: [u8; 6] = [0x16, 0, 0, 0, 0, 0];
const TEST_UNIT_READY: [u8; 6] = [0; 6];

/// SPC-2: RESERVE ends with its nexus. SPC: a registration does not.
#[test]
fn a_lost_nexus_keeps_its_registration_only() {
    type Loss = fn(&Device);
    let losses: [Loss; 3] = [
        |device| device.nexus_lost(NexusId(0)),
        |device| device.forget_nexus(NexusId(0)),
        |device| {
            let function = TaskManagementFunction::ITNexusReset;
            let response = device.task_management(NexusId(0), UNIT, function);
            assert_eq!(response, TmfResponse::FunctionComplete);
        },
    ];
    for lose in losses {
        let device = Bench::new(disk()).device;
        assert_eq!(run(&device, 0, &RESERVE, &[]).status, Status::Good);
        assert_eq!(run(&device, 1, &TEST_UNIT_READY, &[]).status, Status::ReservationConflict);
        lose(&device);
        assert_eq!(run(&device, 1, &TEST_UNIT_READY, &[]).status, Status::Good);

        let device = Bench::new(disk()).device;
        assert_eq!(reserve_out(&device, 0, 6, [0, 7]).status, Status::Good);
        assert_eq!(reserve_out(&device, 0, 1, [7, 0]).status, Status::Good);
        lose(&device);
        let write = [0x2a, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(run(&device, 1, &write, &[]).status, Status::ReservationConflict);
    }
}

/// A reservation is of one unit; a unit made as new has none.
#[test]
fn a_replaced_unit_is_not_reserved() {
    let device = Bench::new(disk()).device;
    assert_eq!(run(&device, 0, &RESERVE, &[]).status, Status::Good);
    device.reset_lu(UNIT, disk()).expect("accepted");
    assert_eq!(run(&device, 1, &TEST_UNIT_READY, &[]).status, Status::Good);
}
