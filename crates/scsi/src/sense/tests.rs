use proptest::prelude::*;
use rstest::rstest;

use super::*;

/// Key, ASC and ASCQ with the name, from T10's list of additional sense codes.
#[rstest]
#[case(Sense::NO_ADDITIONAL_SENSE_INFORMATION, (0x0, 0x00, 0x00))]
#[case(Sense::LOGICAL_UNIT_NOT_READY_INITIALIZING_COMMAND_REQUIRED, (0x2, 0x04, 0x02))]
#[case(Sense::WRITE_ERROR, (0x3, 0x0c, 0x00))]
#[case(Sense::UNRECOVERED_READ_ERROR, (0x3, 0x11, 0x00))]
#[case(Sense::PARAMETER_LIST_LENGTH_ERROR, (0x5, 0x1a, 0x00))]
#[case(Sense::MISCOMPARE_DURING_VERIFY_OPERATION, (0xe, 0x1d, 0x00))]
#[case(Sense::INVALID_COMMAND_OPERATION_CODE, (0x5, 0x20, 0x00))]
#[case(Sense::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE, (0x5, 0x21, 0x00))]
#[case(Sense::INVALID_FIELD_IN_CDB, (0x5, 0x24, 0x00))]
#[case(Sense::LOGICAL_UNIT_NOT_SUPPORTED, (0x5, 0x25, 0x00))]
#[case(Sense::INVALID_FIELD_IN_PARAMETER_LIST, (0x5, 0x26, 0x00))]
#[case(Sense::WRITE_PROTECTED, (0x7, 0x27, 0x00))]
#[case(Sense::POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED, (0x6, 0x29, 0x00))]
#[case(Sense::CAPACITY_DATA_HAS_CHANGED, (0x6, 0x2a, 0x09))]
#[case(Sense::SAVING_PARAMETERS_NOT_SUPPORTED, (0x5, 0x39, 0x00))]
#[case(Sense::REPORTED_LUNS_DATA_HAS_CHANGED, (0x6, 0x3f, 0x0e))]
#[case(Sense::INTERNAL_TARGET_FAILURE, (0x4, 0x44, 0x00))]
#[case(Sense::INVALID_MESSAGE_ERROR, (0x5, 0x49, 0x00))]
fn constants_are_what_the_standard_says(#[case] sense: Sense, #[case] triple: (u8, u8, u8)) {
    assert_eq!(sense.triple(), triple);
}

#[test]
fn rows_are_unique_and_in_order() {
    let codes: Vec<_> = table::TABLE.iter().map(|row| (row.asc, row.ascq)).collect();
    assert!(codes.is_sorted_by(|left, right| left < right), "{codes:x?}");
}

/// A constant's name is the standard's text with every run of other characters made one underscore.
#[test]
fn constants_are_named_as_the_standard_names_them() {
    for ((constant, sense), row) in table::CONSTANTS.iter().zip(table::TABLE) {
        let words: Vec<_> = row
            .name
            .split(|letter: char| !letter.is_ascii_alphanumeric())
            .filter(|word| !word.is_empty())
            .collect();
        assert_eq!(*constant, words.join("_"));
        assert_eq!(sense.name(), Some(row.name));
        assert_eq!(table::from_name(&row.name.to_lowercase()), Some(*sense));
    }
}

#[test]
fn fixed_format_points_to_a_field() {
    let sense = Sense::INVALID_FIELD_IN_CDB.with_field_pointer(FieldPointer::cdb_bit(1, 7));
    let bytes = [0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0, 0, 0xcf, 0, 1];
    assert_eq!(sense.encode(SenseFormat::Fixed), bytes);
    assert_eq!(Sense::decode(&bytes), Ok(sense));
}

#[test]
fn descriptor_format_points_to_a_field() {
    let sense = Sense::INVALID_FIELD_IN_CDB.with_field_pointer(FieldPointer::cdb_byte(2));
    let bytes = [0x72, 5, 0x24, 0, 0, 0, 0, 8, 2, 6, 0, 0, 0xc0, 0, 2, 0];
    assert_eq!(sense.encode(SenseFormat::Descriptor), bytes);
    assert_eq!(Sense::decode(&bytes), Ok(sense));
}

#[test]
fn information_is_valid_in_both_formats() {
    let sense = Sense::UNRECOVERED_READ_ERROR.with_information(0x0102_0304);
    let fixed = [0xf0, 0, 3, 1, 2, 3, 4, 10, 0, 0, 0, 0, 0x11, 0, 0, 0, 0, 0];
    assert_eq!(sense.encode(SenseFormat::Fixed), fixed);
    assert_eq!(Sense::decode(&fixed), Ok(sense));
    let descriptor = [0x72, 3, 0x11, 0, 0, 0, 0, 12, 0, 10, 0x80, 0, 0, 0, 0, 0, 1, 2, 3, 4];
    assert_eq!(sense.encode(SenseFormat::Descriptor), descriptor);
    assert_eq!(Sense::decode(&descriptor), Ok(sense));
}

/// SPC, INFORMATION field of fixed format: VALID is zero if the value does not fit.
#[test]
fn fixed_format_drops_information_beyond_32_bits() {
    let sense = Sense::UNRECOVERED_READ_ERROR.with_information(0x1_0000_0000);
    let bytes = sense.encode(SenseFormat::Fixed);
    assert_eq!(bytes[..8], [0x70, 0, 3, 0, 0, 0, 0, 10]);
}

#[test]
fn deferred_errors_have_the_odd_response_codes() {
    let sense = Sense { deferred: true, ..Sense::WRITE_ERROR };
    assert_eq!(sense.encode(SenseFormat::Fixed)[0], 0x71);
    assert_eq!(sense.encode(SenseFormat::Descriptor)[0], 0x73);
    assert_eq!(Sense::decode(&sense.encode(SenseFormat::Descriptor)), Ok(sense));
}

#[test]
fn what_is_no_sense_data_is_refused() {
    assert_eq!(Sense::decode(&[]), Err(SenseError::TooShort(0)));
    assert_eq!(Sense::decode(&[0; 18]), Err(SenseError::ResponseCode(0)));
    assert_eq!(Sense::decode(&[0x7f; 18]), Err(SenseError::ResponseCode(0x7f)));
    assert_eq!(Sense::decode(&[0x72, 5, 0x24]), Err(SenseError::TooShort(3)));
    // ADDITIONAL SENSE LENGTH ends before ASC.
    let short = [0x70, 0, 5, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0x24, 0, 0, 0, 0, 0];
    assert_eq!(Sense::decode(&short), Err(SenseError::TooShort(12)));
    // An information descriptor of four bytes, and a descriptor longer than ADDITIONAL SENSE LENGTH.
    let descriptor = [0x72, 5, 0x24, 0, 0, 0, 0, 6, 0, 4, 0, 0, 0, 0];
    assert_eq!(Sense::decode(&descriptor), Err(SenseError::Descriptor(8)));
    let overlong = [0x72, 5, 0x24, 0, 0, 0, 0, 4, 9, 8, 0, 0, 0, 0];
    assert_eq!(Sense::decode(&overlong), Err(SenseError::Descriptor(8)));
}

#[test]
fn sense_data_cut_by_a_transport_keeps_what_is_there() {
    let sense = Sense::INVALID_FIELD_IN_CDB
        .with_information(7)
        .with_field_pointer(FieldPointer::cdb_byte(2));
    let whole = sense.encode(SenseFormat::Descriptor);
    let cut = Sense::decode(&whole[..24]).expect("cut");
    assert_eq!(cut, Sense { specific: None, ..sense });
    let fixed = sense.encode(SenseFormat::Fixed);
    assert_eq!(Sense::decode(&fixed[..14]), Ok(Sense { specific: None, ..sense }));
}

#[test]
fn displays_codes_and_name() {
    assert_eq!(Sense::WRITE_PROTECTED.to_string(), "7/27/00 WRITE PROTECTED");
    assert_eq!(Sense::new(SenseKey::VendorSpecific, 0x80, 0x01).to_string(), "9/80/01");
}

fn any_sense() -> impl Strategy<Value = Sense> {
    let pointer = (any::<bool>(), any::<u16>(), proptest::option::of(0..8u8))
        .prop_map(|(in_cdb, byte, bit)| FieldPointer { in_cdb, byte, bit });
    let fields = (
        any::<bool>(),
        proptest::option::of(0..=u64::from(u32::MAX)),
        proptest::option::of(1..=u64::from(u32::MAX)),
        proptest::option::of(pointer),
    );
    (any::<(u8, u8)>(), fields).prop_map(|((asc, ascq), (deferred, information, command, at))| {
        Sense {
            deferred,
            information,
            command_specific: command,
            specific: at.map(SenseKeySpecific::FieldPointer),
            ..Sense::new(SenseKey::IllegalRequest, asc, ascq)
        }
    })
}

proptest! {
    #[test]
    fn both_formats_round_trip(sense in any_sense()) {
        for format in [SenseFormat::Fixed, SenseFormat::Descriptor] {
            let bytes = sense.encode(format);
            prop_assert!(bytes.len() <= SENSE_LEN_MAX);
            prop_assert_eq!(Sense::decode(&bytes), Ok(sense));
        }
    }

    #[test]
    fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..260), code in 0x70..0x74u8) {
        let _ = Sense::decode(&bytes);
        if let Some(first) = bytes.first_mut() {
            *first = code;
        }
        let _ = Sense::decode(&bytes);
    }
}
