//! LOG SENSE, REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS, REPORT SUPPORTED OPERATION CODES (SPC).

use crate::{
    Initiator,
    initiator::Ended::{Check, Good},
    laws,
};

laws! { "reports"
    DISK One: every_supported_log_page_is_there, log_pages_that_are_not_are_refused,
        log_parameters_begin_at_the_pointer, temperature_is_below_its_reference,
        task_management_functions_are_those_that_work,
        every_command_reported_answers_for_itself;
}

fn log_sense(page: u8, subpage: u8, pointer: u8, len: u8) -> [u8; 10] {
    // PC 01b: cumulative values.
    [0x4d, 0, 0x40 | page, subpage, 0, 0, pointer, 0, len, 0]
}

fn every_supported_log_page_is_there(initiator: &Initiator<'_>) {
    let supported = initiator.receive(&log_sense(0, 0, 0, 255));
    assert_eq!(supported, [0x00, 0, 0, 3, 0x00, 0x0d, 0x2f]);
    for page in &supported[4..] {
        let data = initiator.receive(&log_sense(*page, 0, 0, 255));
        assert_eq!((data[0] & 0x3f, data[1]), (*page, 0));
        assert_eq!(usize::from(data[2]) << 8 | usize::from(data[3]), data.len() - 4);
        assert_eq!(initiator.receive(&log_sense(*page, 0, 0, 3)), data[..3]);
    }
}

fn log_pages_that_are_not_are_refused(initiator: &Initiator<'_>) {
    let refused = |cdb: &[u8]| initiator.ask_expecting(cdb, Check(5, 0x24, 0)).specific();
    assert_eq!(refused(&log_sense(0x3e, 0, 0, 255)), [0xcd, 0, 2]);
    assert_eq!(refused(&log_sense(0x0d, 0x77, 0, 255)), [0xc0, 0, 3]);
    // SP: there is nothing to save.
    assert_eq!(refused(&[0x4d, 1, 0x4d, 0, 0, 0, 0, 0, 255, 0]), [0xc8, 0, 1]);
}

fn log_parameters_begin_at_the_pointer(initiator: &Initiator<'_>) {
    let whole = initiator.receive(&log_sense(0x0d, 0, 0, 255));
    let behind = initiator.receive(&log_sense(0x0d, 0, 1, 255));
    assert_eq!(behind[..4], [whole[0], 0, 0, 6]);
    assert_eq!(behind[4..], whole[10..]);
    for page in [0x00, 0x0d, 0x2f] {
        let refused = initiator.ask_expecting(&log_sense(page, 0, 2, 255), Check(5, 0x24, 0));
        assert_eq!(refused.specific(), [0xc0, 0, 5]);
    }
}

/// Parameters 0000h and 0001h of two bytes; FFh would be unknown.
fn temperature_is_below_its_reference(initiator: &Initiator<'_>) {
    let data = initiator.receive(&log_sense(0x0d, 0, 0, 255));
    assert_eq!((&data[4..6], data[7], &data[10..12], data[13]), (&[0, 0][..], 2, &[0, 1][..], 2));
    assert!(data[9] < data[15] && data[15] < 0xff, "{data:02x?}");
    let exceptions = initiator.receive(&log_sense(0x2f, 0, 0, 255));
    assert_eq!(exceptions[8..11], [0, 0, data[9]], "no exception, the same temperature");
}

/// ATS, ATSS, CTSS, LURS and QTS; QTSS and ITNRS. CLEAR ACA is for units with NORMACA.
fn task_management_functions_are_those_that_work(initiator: &Initiator<'_>) {
    let cdb = |flags, len| [0xa3, 0x0d, flags, 0, 0, 0, 0, 0, 0, len, 0, 0];
    assert_eq!(initiator.receive(&cdb(0, 255)), [0xdc, 0x03, 0, 0]);
    let extended = initiator.receive(&cdb(0x80, 255));
    assert_eq!((extended.len(), &extended[..4]), (16, &[0xdc, 0x03, 0, 12][..]));
    assert_eq!(extended[4..], [0; 12], "no timeouts reported");
    // ALLOCATION LENGTH has to have room for four bytes.
    assert_eq!(initiator.ask_expecting(&cdb(0, 3), Check(5, 0x24, 0)).specific(), [0xc0, 0, 6]);
    // And it is true.
    initiator.reset();
    initiator.test_unit_ready(Check(6, 0x29, 0x03));
}

fn every_command_reported_answers_for_itself(initiator: &Initiator<'_>) {
    let all = initiator.receive(&[0xa3, 0x0c, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0]);
    for descriptor in all[4..].chunks(8) {
        let (opcode, service_action) = (descriptor[0], descriptor[3]);
        let cdb = [0xa3, 0x0c, 3, opcode, 0, service_action, 0, 0, 0, 64, 0, 0];
        let one = initiator.receive(&cdb);
        assert_eq!((one[1] & 7, one[3]), (3, descriptor[7]), "{opcode:02x}/{service_action:02x}");
        assert_eq!((one[4], one.len()), (opcode, 4 + usize::from(one[3])));
    }
    initiator.test_unit_ready(Good);
}
