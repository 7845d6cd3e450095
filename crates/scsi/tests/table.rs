//! Laws of the command table, and its rows against literals from the standards.

use scsi::{
    Command, DataDirection, FieldPointer,
    command::{UnknownCommand, group_cdb_len},
};

/// Operation code, service action, CDB length, data, name: T10's list of operation codes, and the
/// CDB tables of SPC-4 and SBC-3.
const STANDARD: &[(u8, Option<u16>, usize, DataDirection, &str)] = &[
    (0x00, None, 6, DataDirection::None, "TEST UNIT READY"),
    (0x03, None, 6, DataDirection::In, "REQUEST SENSE"),
    (0x08, None, 6, DataDirection::In, "READ(6)"),
    (0x0a, None, 6, DataDirection::Out, "WRITE(6)"),
    (0x12, None, 6, DataDirection::In, "INQUIRY"),
    (0x15, None, 6, DataDirection::Out, "MODE SELECT(6)"),
    (0x16, None, 6, DataDirection::None, "RESERVE(6)"),
    (0x17, None, 6, DataDirection::None, "RELEASE(6)"),
    (0x1a, None, 6, DataDirection::In, "MODE SENSE(6)"),
    (0x1b, None, 6, DataDirection::None, "START STOP UNIT"),
    (0x25, None, 10, DataDirection::In, "READ CAPACITY(10)"),
    (0x28, None, 10, DataDirection::In, "READ(10)"),
    (0x2a, None, 10, DataDirection::Out, "WRITE(10)"),
    (0x2f, None, 10, DataDirection::Out, "VERIFY(10)"),
    (0x34, None, 10, DataDirection::None, "PRE-FETCH(10)"),
    (0x35, None, 10, DataDirection::None, "SYNCHRONIZE CACHE(10)"),
    (0x3b, None, 10, DataDirection::Out, "WRITE BUFFER"),
    (0x3c, None, 10, DataDirection::In, "READ BUFFER"),
    (0x41, None, 10, DataDirection::Out, "WRITE SAME(10)"),
    (0x42, None, 10, DataDirection::Out, "UNMAP"),
    (0x4d, None, 10, DataDirection::In, "LOG SENSE"),
    (0x55, None, 10, DataDirection::Out, "MODE SELECT(10)"),
    (0x56, None, 10, DataDirection::None, "RESERVE(10)"),
    (0x57, None, 10, DataDirection::None, "RELEASE(10)"),
    (0x5a, None, 10, DataDirection::In, "MODE SENSE(10)"),
    (0x5e, Some(0x00), 10, DataDirection::In, "PERSISTENT RESERVE IN (READ KEYS)"),
    (0x5e, Some(0x01), 10, DataDirection::In, "PERSISTENT RESERVE IN (READ RESERVATION)"),
    (0x5e, Some(0x02), 10, DataDirection::In, "PERSISTENT RESERVE IN (REPORT CAPABILITIES)"),
    (0x5e, Some(0x03), 10, DataDirection::In, "PERSISTENT RESERVE IN (READ FULL STATUS)"),
    (0x5f, Some(0x00), 10, DataDirection::Out, "PERSISTENT RESERVE OUT (REGISTER)"),
    (0x5f, Some(0x01), 10, DataDirection::Out, "PERSISTENT RESERVE OUT (RESERVE)"),
    (0x5f, Some(0x02), 10, DataDirection::Out, "PERSISTENT RESERVE OUT (RELEASE)"),
    (0x5f, Some(0x03), 10, DataDirection::Out, "PERSISTENT RESERVE OUT (CLEAR)"),
    (0x5f, Some(0x04), 10, DataDirection::Out, "PERSISTENT RESERVE OUT (PREEMPT)"),
    (0x5f, Some(0x05), 10, DataDirection::Out, "PERSISTENT RESERVE OUT (PREEMPT AND ABORT)"),
    (
        0x5f,
        Some(0x06),
        10,
        DataDirection::Out,
        "PERSISTENT RESERVE OUT (REGISTER AND IGNORE EXISTING KEY)",
    ),
    (0x88, None, 16, DataDirection::In, "READ(16)"),
    (0x89, None, 16, DataDirection::Out, "COMPARE AND WRITE"),
    (0x8a, None, 16, DataDirection::Out, "WRITE(16)"),
    (0x8f, None, 16, DataDirection::Out, "VERIFY(16)"),
    (0x90, None, 16, DataDirection::None, "PRE-FETCH(16)"),
    (0x91, None, 16, DataDirection::None, "SYNCHRONIZE CACHE(16)"),
    (0x93, None, 16, DataDirection::Out, "WRITE SAME(16)"),
    (0x9e, Some(0x10), 16, DataDirection::In, "READ CAPACITY(16)"),
    (0x9e, Some(0x12), 16, DataDirection::In, "GET LBA STATUS"),
    (0xa0, None, 12, DataDirection::In, "REPORT LUNS"),
    (0xa3, Some(0x0c), 12, DataDirection::In, "REPORT SUPPORTED OPERATION CODES"),
    (0xa3, Some(0x0d), 12, DataDirection::In, "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS"),
    (0xa8, None, 12, DataDirection::In, "READ(12)"),
    (0xaa, None, 12, DataDirection::Out, "WRITE(12)"),
];

fn cdb(opcode: u8, service_action: Option<u16>) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[0] = opcode;
    cdb[1] = service_action.map_or(0, |code| u8::try_from(code).expect("five bits"));
    cdb
}

#[test]
fn rows_are_what_the_standards_say() {
    assert_eq!(Command::ALL.len(), STANDARD.len());
    for (command, &(opcode, service_action, len, direction, name)) in
        Command::ALL.iter().zip(STANDARD)
    {
        assert_eq!(command.name(), name);
        assert_eq!(command.opcode(), opcode, "{name}");
        assert_eq!(command.spec().service_action, service_action, "{name}");
        assert_eq!(command.cdb_len(), len, "{name}");
        assert_eq!(command.direction(), direction, "{name}");
        assert_eq!(Command::lookup(&cdb(opcode, service_action)), Some(*command), "{name}");
    }
}

#[test]
fn rows_are_unique_and_in_order() {
    let keys: Vec<_> =
        Command::ALL.iter().map(|each| (each.opcode(), each.spec().service_action)).collect();
    assert!(keys.is_sorted_by(|left, right| left < right), "{keys:x?}");
}

#[test]
fn names_round_trip() {
    for command in Command::ALL {
        assert_eq!(Command::from_name(command.name()), Some(*command));
    }
    assert_eq!(Command::from_name("READ(11)"), None);
}

#[test]
fn every_opcode_outside_the_table_is_unknown() {
    for opcode in 0..=u8::MAX {
        let known = STANDARD.iter().any(|row| row.0 == opcode);
        let found = Command::identify(&cdb(opcode, None));
        assert_eq!(found == Err(UnknownCommand::Opcode), !known, "{opcode:02x}");
    }
    assert_eq!(Command::identify(&[]), Err(UnknownCommand::Opcode));
}

#[test]
fn a_known_opcode_with_an_unknown_service_action_is_told_apart() {
    for (opcode, known) in [
        (0x9e, &[0x10, 0x12][..]),
        (0xa3, &[0x0c, 0x0d]),
        (0x5e, &[0, 1, 2, 3]),
        (0x5f, &[0, 1, 2, 3, 4, 5, 6]),
    ] {
        for service_action in 0..=0x1f {
            let found = Command::identify(&cdb(opcode, Some(service_action)));
            match known.contains(&service_action) {
                true => assert!(found.is_ok()),
                false => assert_eq!(found, Err(UnknownCommand::ServiceAction)),
            }
        }
        // A byte that is not there is zero.
        let cut = Command::identify(&[opcode]);
        assert_eq!(cut.is_ok(), known.contains(&0));
    }
}

/// SPC, Operation code: GROUP CODE.
#[test]
fn cdb_length_follows_from_the_group_code() {
    for (opcodes, len) in [
        (0x00..=0x1f, 6),
        (0x20..=0x5f, 10),
        (0x60..=0x7f, 0),
        (0x80..=0x9f, 16),
        (0xa0..=0xbf, 12),
        (0xc0..=0xff, 0),
    ] {
        for opcode in opcodes {
            assert_eq!(group_cdb_len(opcode), len, "{opcode:02x}");
        }
    }
}

/// Walks every bit of every CDB behind operation code and service action: it passes the check
/// exactly if it is a usage bit other than NACA, and the pointer names its byte otherwise.
#[test]
fn every_bit_outside_the_usage_data_is_refused_where_it_is() {
    for command in Command::ALL {
        let spec = command.spec();
        let last = command.cdb_len() - 1;
        let first_bit = if spec.service_action.is_some() { 5 } else { 0 };
        for byte in 1..=last {
            for bit in if byte == 1 { first_bit } else { 0 }..8u8 {
                let mut cdb = cdb(command.opcode(), spec.service_action);
                cdb[byte] |= 1 << bit;
                let used = spec.usage[byte] & 1 << bit != 0 && byte != last;
                let checked = spec.check(&cdb);
                assert_eq!(checked.is_ok(), used, "{} byte {byte} bit {bit}", command.name());
                if let Err(pointer) = checked {
                    assert!(pointer.in_cdb);
                    assert_eq!(usize::from(pointer.byte), byte);
                    assert!(pointer.bit >= Some(bit));
                }
            }
        }
    }
}

/// SPC, Field pointer: the leftmost bit of the field in error.
#[test]
fn a_field_of_several_bits_is_pointed_at_by_its_first() {
    let check = |cdb: &[u8]| Command::lookup(cdb).expect("known").spec().check(cdb);
    // RDPROTECT 001b of READ(10) is bits 7 to 5 of byte 1.
    let read_10 = [0x28, 0x20, 0, 0, 0, 0, 0, 0, 1, 0];
    assert_eq!(check(&read_10), Err(FieldPointer { in_cdb: true, byte: 1, bit: Some(7) }));
    // GROUP NUMBER 1 of WRITE(16) is bits 4 to 0 of byte 14.
    let write_16 = [0x8a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0];
    assert_eq!(check(&write_16), Err(FieldPointer { in_cdb: true, byte: 14, bit: Some(4) }));
    // NACA of TEST UNIT READY is bit 2 of byte 5.
    assert_eq!(
        check(&[0, 0, 0, 0, 0, 4]),
        Err(FieldPointer { in_cdb: true, byte: 5, bit: Some(2) })
    );
    // The first of two.
    let both = [0x28, 0x04, 0, 0, 0, 0, 0x80, 0, 1, 0];
    assert_eq!(check(&both), Err(FieldPointer { in_cdb: true, byte: 1, bit: Some(2) }));
}

#[test]
fn a_cdb_that_is_too_short_points_behind_its_end() {
    let spec = Command::Read10.spec();
    let pointer = FieldPointer { in_cdb: true, byte: 9, bit: None };
    assert_eq!(spec.check(&[0x28, 0, 0, 0, 0, 0, 0, 0, 0]), Err(pointer));
}

/// SPC, one_command parameter data: operation code, service action and evaluated bits.
#[test]
fn usage_data_carries_the_service_action() {
    assert_eq!(
        Command::ReadCapacity16.spec().usage_data(),
        [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0x04]
    );
    assert_eq!(
        Command::Read10.spec().usage_data(),
        [0x28, 0x18, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0x04]
    );
}

/// SBC-3, clause 5: what reads, writes, verifies, unmaps or asks about blocks. TEST UNIT READY and INQUIRY (SPC)
/// do none of it, and READ CAPACITY tells of the unit.
#[test]
fn commands_that_reach_the_medium_are_those_of_blocks() {
    let reaches = |opcode: u8, service_action: u8| {
        let command = Command::lookup(&[opcode, service_action, 0, 0, 0, 0]);
        command.unwrap_or_else(|| panic!("{opcode:02x}")).spec().reaches_medium()
    };
    for opcode in
        [0x08, 0x0a, 0x28, 0x2a, 0x2f, 0x35, 0x41, 0x42, 0x88, 0x89, 0x8a, 0x8f, 0x91, 0x93]
    {
        assert!(reaches(opcode, 0), "{opcode:02x}");
    }
    for opcode in [0x00, 0x03, 0x12, 0x15, 0x16, 0x1a, 0x1b, 0x25, 0x4d, 0xa0] {
        assert!(!reaches(opcode, 0), "{opcode:02x}");
    }
    assert!(reaches(0x9e, 0x12) && !reaches(0x9e, 0x10));
}
