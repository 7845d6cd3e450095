//! Assertions on completions. Expected values are literals in the tests.

use bsg::Completion;

/// GOOD, and nothing to complain of from driver or host.
#[track_caller]
pub fn assert_good(completion: &Completion) {
    let seen = (completion.device_status, completion.driver_status, completion.host_status);
    assert_eq!(seen, (0, 0, 0), "(device, driver, host) status of {completion:?}");
}

/// CHECK CONDITION with current fixed-format sense of this key and additional sense code.
#[track_caller]
pub fn assert_sense(completion: &Completion, key: u8, asc: u8, ascq: u8) {
    let sense = &completion.sense;
    assert_eq!(completion.device_status, 0x02, "CHECK CONDITION expected: {completion:?}");
    assert_eq!(completion.host_status, 0, "host status: {completion:?}");
    assert!(sense.len() >= 14, "sense of {} bytes is too short: {sense:02x?}", sense.len());
    // SPC-6 4.4.3: byte 0 is the response code 70h (VALID in bit 7), byte 2 the key, 12 and 13 the code.
    let seen = (sense[0] & 0x7f, sense[2] & 0x0f, sense[12], sense[13]);
    assert_eq!(seen, (0x70, key, asc, ascq), "(response code, key, asc, ascq) of {sense:02x?}");
}

/// CHECK CONDITION with these bytes of sense data, all of them.
#[track_caller]
pub fn assert_sense_bytes(completion: &Completion, expected: &[u8]) {
    assert_eq!(completion.device_status, 0x02, "CHECK CONDITION expected: {completion:?}");
    assert_eq!(completion.host_status, 0, "host status: {completion:?}");
    assert_eq!(completion.sense, expected, "sense data: {:02x?}", completion.sense);
}

/// An error of the host adapter, `DID_*`, and no status of the device.
#[track_caller]
pub fn assert_host_error(completion: &Completion, host_status: u32) {
    let seen = (completion.device_status, completion.driver_status, completion.host_status);
    assert_eq!(seen, (0, 0, host_status), "(device, driver, host) status of {completion:?}");
}
