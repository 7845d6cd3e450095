//! Two defects in one command: which check comes first; and that a refusal leaves nothing behind.

use bsg::{Access, Buffer, Errno, Pointer, Request, UringFrame, V4Frame};
use harness::{Lun, assert::assert_good, declare, privilege};

use super::ways::{URING_CMD, execute, sg_io_v4, soon, uring_cmd};

type Defect<F> = (&'static str, fn(&mut F), Errno);

/// drivers/scsi/scsi_bsg.c:scsi_bsg_sg_io_fn, in its order.
const OF_SG_IO: [Defect<V4Frame>; 8] = [
    ("guard", |f| f.header.guard = 0x52, Errno::INVAL),
    ("protocol", |f| f.header.protocol = 0x8000_0000, Errno::INVAL),
    ("subprotocol", |f| f.header.subprotocol = 0x8000_0000, Errno::INVAL),
    ("directions", |f| f.header.dout_xfer_len = 512, Errno::OPNOTSUPP),
    ("CDB length", |f| f.header.request_len = 0x8006, Errno::INVAL),
    ("CDB address", |f| f.request = Pointer::Unmapped, Errno::FAULT),
    ("filter", |_| {}, Errno::PERM),
    ("data", |f| f.din = Pointer::Unmapped, Errno::FAULT),
];

/// scsi_bsg_uring_cmd, in its order.
const OF_URING_CMD: [Defect<UringFrame>; 10] = [
    ("protocol", |f| f.command.protocol = 0x8000_0000, Errno::INVAL),
    ("subprotocol", |f| f.command.subprotocol = 0x8000_0000, Errno::INVAL),
    ("no CDB", |f| f.command.request_len = 0, Errno::INVAL),
    ("directions", |f| f.command.dout_xfer_len = 512, Errno::OPNOTSUPP),
    ("iovec out", |f| f.command.dout_iovec_count = 0x8000_0000, Errno::OPNOTSUPP),
    ("iovec in", |f| f.command.din_iovec_count = 0x8000_0000, Errno::OPNOTSUPP),
    ("CDB length", |f| f.command.request_len = 0x8000_0006, Errno::INVAL),
    ("CDB address", |f| f.request = Pointer::Unmapped, Errno::FAULT),
    ("filter", |_| {}, Errno::PERM),
    ("data", |f| f.din = Pointer::Unmapped, Errno::FAULT),
];

/// An opcode nobody but CAP_SYS_RAWIO may send, with data.
fn forbidden() -> Request {
    Request::new(&[0xff; 6]).data_in(512)
}

/// Each defect with each later one: the earlier names the error. Data at a bad address is looked at last.
#[test]
fn sg_io_names_the_first_of_two_defects() {
    declare!(Quirk);
    let lun = Lun::fresh();
    let bsg = sg_io_v4(lun.device(), Access::ReadWrite);
    privilege::drop_sys_rawio();
    for (at, (name, first, errno)) in OF_SG_IO.iter().enumerate() {
        for (other, second, _) in &OF_SG_IO[at..] {
            let allowed = || Request::new(&[0x12, 0, 0, 0, 36, 0]).data_in(512);
            let is_last = *name == "data";
            let mut frame = V4Frame::from(if is_last { allowed() } else { forbidden() });
            second(&mut frame);
            first(&mut frame);
            frame.place();
            let before = frame.header;
            assert_eq!(bsg.sg_io(&mut frame), Err(*errno), "{name}, {other}");
            assert_eq!(frame.header, before, "{name}, {other}: the caller's structure");
        }
    }
    assert_eq!(lun.journal().entries, []);
}

/// As above. A CDB of no bytes and one that is too long are one field: the pair is left out.
#[test]
fn uring_cmd_names_the_first_of_two_defects() {
    declare!(Quirk, URING_CMD);
    let lun = Lun::fresh();
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    privilege::drop_sys_rawio();
    for (at, (name, first, errno)) in OF_URING_CMD.iter().enumerate() {
        for (other, second, _) in &OF_URING_CMD[at..] {
            let allowed = || Request::new(&[0x12, 0, 0, 0, 36, 0]).data_in(512);
            let is_last = *name == "data";
            let mut frame = UringFrame::from(if is_last { allowed() } else { forbidden() });
            second(&mut frame);
            first(&mut frame);
            let token = bsg.submit(frame).expect("submitted");
            let done = bsg.wait_for(token, soon()).expect("completed");
            let words = (done.res, done.res2, done.extra2);
            assert_eq!(words, (-errno.raw_os_error(), Some(0), Some(0)), "{name}, {other}");
        }
    }
    assert_eq!(lun.journal().entries, []);
}

/// More refusals than a queue has tags, at each exit: the request is freed at all of them. A leak shows as
/// a command that never gets one.
#[test]
fn refused_commands_leave_no_tag_behind() {
    declare!(Contract, URING_CMD);
    let lun = Lun::fresh();
    let v4 = sg_io_v4(lun.device(), Access::ReadWrite);
    let mut ring = uring_cmd(lun.device(), Access::ReadWrite);
    privilege::drop_sys_rawio();
    for turn in 0..400 {
        for (name, bend, errno) in &OF_SG_IO[4..7] {
            let mut frame = V4Frame::from(forbidden());
            bend(&mut frame);
            assert_eq!(v4.sg_io(&mut frame), Err(*errno), "{name}, turn {turn}");
        }
        for (name, bend, errno) in &OF_URING_CMD[6..9] {
            let mut frame = UringFrame::from(forbidden());
            bend(&mut frame);
            let token = ring.submit(frame).expect("submitted");
            let done = ring.wait_for(token, soon()).expect("completed");
            assert_eq!(done.res, -errno.raw_os_error(), "{name}, turn {turn}");
        }
        let inquiry = || Request::new(&[0x12, 0, 0, 0, 36, 0]).data_in(96);
        let mut frame = V4Frame::from(inquiry());
        frame.din = Pointer::Unmapped;
        assert_eq!(v4.sg_io(&mut frame), Err(Errno::FAULT), "turn {turn}");
        let mut frame = UringFrame::from(inquiry());
        frame.din = Pointer::Unmapped;
        let token = ring.submit(frame).expect("submitted");
        assert_eq!(ring.wait_for(token, soon()).expect("completed").res, -14, "turn {turn}");
    }
    assert_eq!(lun.journal().entries, []);
    assert_good(&execute(&mut ring, Request::new(&[0; 6])));
}

/// include/uapi/linux/io_uring.h: IORING_URING_CMD_FIXED is bit 0. No buffer is registered: EFAULT with data
/// (io_uring/rsrc.c:io_import_reg_buf); without data nobody asks for one.
#[test]
fn uring_cmd_with_an_unregistered_buffer_is_efault() {
    declare!(Contract, URING_CMD);
    let lun = Lun::fresh();
    let mut bsg = uring_cmd(lun.device(), Access::ReadWrite);
    let out = Buffer::zeroed(512).expect("a page of memory");
    for (request, res) in [
        (Request::new(&[0x12, 0, 0, 0, 36, 0]).data_in(36), -14),
        (Request::new(&[0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0]).data_out(&out), -14),
        (Request::new(&[0; 6]), 0),
    ] {
        let mut frame = UringFrame::from(request);
        frame.sqe.uring_cmd_flags = 1;
        let token = bsg.submit(frame).expect("submitted");
        assert_eq!(bsg.wait_for(token, soon()).expect("completed").res, res);
    }
    assert_eq!(lun.journal().entries.len(), 1, "what had no data");
}
