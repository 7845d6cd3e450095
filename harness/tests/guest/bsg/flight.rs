//! Several commands in flight at once.

use std::collections::BTreeMap;

use bsg::{Access, Request, UringFrame};
use harness::{assert::assert_good, declare};
use rstest::rstest;

use super::{
    block,
    cdb::{self, Size},
    ways::{URING_CMD, Unit, soon, uring_cmd},
};

/// include/uapi/linux/io_uring.h: `user_data` is returned with the completion it belongs to, in
/// whatever order they come. Each of 32 reads, all submitted by one system call, brings its own block.
#[rstest]
fn commands_in_flight_complete_with_their_own_user_data(
    #[values(Unit::Ours, Unit::ScsiDebug)] unit: Unit,
) {
    declare!(Contract, URING_CMD);
    const LBA: u32 = 0x2000;
    const COUNT: u8 = 32;
    let mut bsg = uring_cmd(&unit.device(), Access::ReadWrite);
    block::write(&mut bsg, Size::Ten, LBA, COUNT, &cdb::pattern(LBA, COUNT, 7));

    let mut blocks = BTreeMap::new();
    for lba in LBA..LBA + u32::from(COUNT) {
        let request = Request::new(&cdb::read(Size::Ten, lba, 1)).data_in(512);
        let token = bsg.push(UringFrame::from(request)).expect("room in the queue");
        assert_eq!(blocks.insert(token, lba), None);
    }
    assert_eq!(bsg.flush().expect("submitted"), usize::from(COUNT));
    while !blocks.is_empty() {
        let done = bsg.wait(soon()).expect("completed");
        let lba = blocks.remove(&done.token).expect("a command that was in flight");
        let completion = done.completion().expect("executed");
        assert_good(&completion);
        assert_eq!(completion.data, cdb::pattern(lba, 1, 7), "block {lba:#x}");
    }
    assert_eq!(bsg.in_flight(), 0);
}

/// Refused commands complete beside executed ones, each with its own result: nothing of one submission
/// reaches another.
#[rstest]
fn refused_commands_complete_beside_executed_ones() {
    declare!(Contract, URING_CMD);
    let mut bsg = uring_cmd(&Unit::Ours.device(), Access::ReadWrite);
    let mut expected = BTreeMap::new();
    for round in 0..8 {
        let mut frame = UringFrame::from(Request::new(&[0; 6]));
        let res = match round % 2 {
            0 => 0,
            _ => {
                frame.command.request_len = 33;
                -22
            }
        };
        expected.insert(bsg.push(frame).expect("room in the queue"), res);
    }
    assert_eq!(bsg.flush().expect("submitted"), 8);
    let mut seen = BTreeMap::new();
    while seen.len() < expected.len() {
        let done = bsg.wait(soon()).expect("completed");
        assert_eq!(seen.insert(done.token, done.res), None, "completed twice");
    }
    assert_eq!(seen, expected);
}
