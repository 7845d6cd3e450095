//! Task management functions: what they answer when no task is in flight.

use device_server::{LunAddress, NexusId, TmfResponse};
use rstest::rstest;
use scsi::task::TaskManagementFunction as Function;

use crate::fixture::{Bench, UNIT, disk};

#[rstest]
#[case(Function::AbortTask, TmfResponse::FunctionComplete)]
#[case(Function::AbortTaskSet, TmfResponse::FunctionComplete)]
#[case(Function::ClearAca, TmfResponse::FunctionRejected)]
#[case(Function::ClearTaskSet, TmfResponse::FunctionComplete)]
#[case(Function::ITNexusReset, TmfResponse::FunctionComplete)]
#[case(Function::LogicalUnitReset, TmfResponse::FunctionComplete)]
#[case(Function::QueryTask, TmfResponse::FunctionComplete)]
#[case(Function::QueryTaskSet, TmfResponse::FunctionComplete)]
fn functions_on_a_unit_without_tasks(#[case] function: Function, #[case] response: TmfResponse) {
    let device = Bench::new(disk()).device;
    assert_eq!(device.task_management(NexusId(0), UNIT, function), response);
}

#[test]
fn functions_on_an_absent_unit_have_an_incorrect_lun() {
    let device = Bench::new(disk()).device;
    let absent = LunAddress { lun: 1, ..UNIT };
    let answer = device.task_management(NexusId(0), absent, Function::LogicalUnitReset);
    assert_eq!(answer, TmfResponse::IncorrectLogicalUnitNumber);
    let answer = device.task_management(NexusId(0), absent, Function::ITNexusReset);
    assert_eq!(answer, TmfResponse::FunctionComplete);
}
