//! What a device answers, as the initiator is told it: statuses, sense data of each length, residuals.

use bsg::{Access, Buffer, Data, Errno, Raw, Request, UringFrame, V4Frame};
use fault::Times;
use harness::{HostShape, Lun, Needs, ScsiHost, declare};
use rstest::rstest;
use scsi_fault::{Effect, Rule, Sense, When};

use super::{
    cdb::{self, Size},
    ways::{URING_CMD, Way, execute, sg_io_v4, soon, uring_cmd},
};

/// A host whose transfers have at most 64 blocks.
const SHORT: Needs = Needs {
    host: ScsiHost::Own(HostShape { max_sectors: Some(64), ..HostShape::DEFAULT }),
    ..Needs::DEFAULT
};

fn always(lun: &Lun, effect: Effect) {
    lun.faults([Rule::new("chosen", effect).when(When::any()).times(Times::Always)]);
}

/// Room for 252 bytes of sense data between canaries.
fn room() -> Buffer {
    let mut room = Buffer::at_offset(64, 252).expect("a page of memory");
    room.pages_mut().fill(0xa5);
    room
}

/// Only so many bytes, those of the sense data, are written.
#[track_caller]
fn assert_written(room: &Buffer, sense: &[u8], what: &str) {
    let mut expected = vec![0xa5; room.pages().len()];
    expected[64..64 + sense.len()].copy_from_slice(sense);
    assert!(room.pages() == expected, "{what}: {:02x?}", &room.pages()[..200]);
}

/// Fixed (70h) or descriptor format (72h) with so many bytes behind byte 7, of which 96 fit in virtio's field
/// (virtio 1.2, 5.6.4: `sense_size`).
fn sense(format: u8, additional: u8) -> Vec<u8> {
    let head = match format {
        0x70 => [0x70, 0, 5, 0, 0, 0, 0, additional],
        _ => [format, 5, 0x20, 0, 0, 0, 0, additional],
    };
    let rest = (0..additional).map(|at| 0x40 + at % 0x40);
    head.into_iter().chain(rest).take(96).collect()
}

/// `max_response_len` in all sizes: what is written is the smallest of it, 8 + ADDITIONAL SENSE LENGTH, and 96
/// (drivers/scsi/scsi_lib.c:scsi_complete and include/scsi/scsi_cmnd.h: SCSI_SENSE_BUFFERSIZE), whatever the
/// room; and it is told as the length.
#[rstest]
fn sense_of_each_length_is_cut_to_its_room(
    #[values((0x70, 0), (0x70, 10), (0x70, 244), (0x72, 0), (0x72, 87), (0x72, 88))] form: (u8, u8),
) {
    declare!(Contract, URING_CMD);
    let lun = Lun::fresh();
    let sense = sense(form.0, form.1);
    always(&lun, Effect::sense(Sense::raw(&sense)));
    let v4 = sg_io_v4(lun.device(), Access::ReadWrite);
    let mut ring = uring_cmd(lun.device(), Access::ReadWrite);
    for max in [0, 1, 5, 8, 17, 18, 95, 96, 97, 252, 0x100, 0x1_0000, 0x8000_0000, u32::MAX] {
        let len = sense.len().min(usize::try_from(max).expect("64 bits"));
        let mut frame = V4Frame::from(Request::new(&[0; 6]));
        frame.header.max_response_len = max;
        frame.response = room().into();
        v4.sg_io(&mut frame).expect("executed");
        let header = frame.header;
        let told = (header.device_status, header.driver_status, header.response_len as usize);
        assert_eq!(told, (2, 8, len), "SG_IO, {max}");
        assert_written(frame.response.buffer().expect("room"), &sense[..len], "SG_IO");

        let mut frame = UringFrame::from(Request::new(&[0; 6]));
        frame.command.max_response_len = max;
        frame.response = room().into();
        let token = ring.submit(frame).expect("submitted");
        let done = ring.wait_for(token, soon()).expect("completed");
        let words = (done.res, done.res2, done.extra2);
        assert_eq!(words, (0, Some(0x0802 | (len as u64) << 24), Some(0)), "uring_cmd, {max}");
        assert_written(done.frame.response.buffer().expect("room"), &sense[..len], "uring_cmd");
    }
}

/// Statuses of SAM-5 that end a command at once. SG_INFO_CHECK goes with all but GOOD; DRIVER_SENSE with none
/// of these.
#[test]
fn each_status_arrives_as_it_is() {
    declare!(Contract, URING_CMD);
    let lun = Lun::fresh();
    let mut v4 = sg_io_v4(lun.device(), Access::ReadWrite);
    let mut ring = uring_cmd(lun.device(), Access::ReadWrite);
    for (name, status) in
        [("GOOD", 0), ("CONDITION MET", 4), ("RESERVATION CONFLICT", 0x18), ("TASK ABORTED", 0x40)]
    {
        always(&lun, Effect::status(name));
        let done = execute(&mut ring, Request::new(&[0; 6]));
        let raw = Raw::Uring { res: 0, res2: status.into(), extra2: 0 };
        assert_eq!(done.raw, raw, "{name}");
        assert_eq!(lun.fired("chosen"), 1, "{name} is not sent again");
        let done = execute(&mut v4, Request::new(&[0; 6]));
        let told = (done.device_status, done.driver_status, done.host_status, done.info);
        assert_eq!(told, (status, 0, 0, Some(u32::from(status != 0))), "{name}");
        // TASK ABORTED is retried (scsi_error.c:scsi_decide_disposition), where there is a budget to do so:
        // SG_IO has that of whoever had the request before.
        if name != "TASK ABORTED" {
            assert_eq!(lun.fired("chosen"), 2, "{name} is not sent again");
        }
    }
}

/// Sense data beside another status than CHECK CONDITION: SG_IO returns what it has
/// (scsi_bsg.c:scsi_bsg_sg_io_fn looks at the length), uring_cmd does not (scsi_bsg_uring_task_cb looks at
/// the status). DRIVER_SENSE is the status' in both.
#[test]
fn sense_beside_another_status_is_returned_by_sg_io_alone() {
    declare!(Quirk, URING_CMD);
    let lun = Lun::fresh();
    let sense = sense(0x70, 10);
    let effect =
        Effect { sense: Some(Sense::raw(&sense)), ..Effect::status("RESERVATION CONFLICT") };
    always(&lun, effect);
    let mut v4 = sg_io_v4(lun.device(), Access::ReadWrite);
    let done = execute(&mut v4, Request::new(&[0; 6]));
    assert_eq!((done.device_status, done.driver_status, done.info), (0x18, 0, Some(1)));
    assert_eq!(done.sense, sense);
    let mut ring = uring_cmd(lun.device(), Access::ReadWrite);
    let done = execute(&mut ring, Request::new(&[0; 6]));
    assert_eq!(done.raw, Raw::Uring { res: 0, res2: 0x18, extra2: 0 });
}

/// Without a response pointer no sense data is told; the statuses are.
#[test]
fn sense_without_a_pointer_is_not_counted() {
    declare!(Contract, URING_CMD);
    let lun = Lun::fresh();
    let v4 = sg_io_v4(lun.device(), Access::ReadWrite);
    let mut frame = V4Frame::from(Request::new(&[0xff; 6]).sense_capacity(0));
    frame.header.max_response_len = 252;
    v4.sg_io(&mut frame).expect("executed");
    let header = frame.header;
    assert_eq!((header.device_status, header.driver_status, header.response_len), (2, 8, 0));
    let mut ring = uring_cmd(lun.device(), Access::ReadWrite);
    let mut frame = UringFrame::from(Request::new(&[0xff; 6]).sense_capacity(0));
    frame.command.max_response_len = 252;
    let token = ring.submit(frame).expect("submitted");
    let done = ring.wait_for(token, soon()).expect("completed");
    assert_eq!((done.res, done.res2), (0, Some(0x0802)));
}

/// A residual is told up to the buffer's length (drivers/scsi/virtio_scsi.c:virtscsi_compute_resid), in both
/// directions, from buffers that are mapped (aligned) and copied (not).
#[rstest]
fn residual_is_at_most_the_buffer(
    #[values(Way::SgIoV4, Way::UringCmd, Way::SgV3)] way: Way,
    #[values(0, 1)] offset: usize,
) {
    declare!(Contract);
    let lun = Lun::fresh();
    let mut way = way.open(lun.device());
    let buffer = || Buffer::at_offset(offset, 512).expect("a page of memory");
    for (claimed, told) in [(0, 0), (1, 1), (511, 511), (512, 512), (513, 512), (u32::MAX, 512)] {
        always(&lun, Effect::residual(claimed));
        let read = Request::new(&cdb::read(Size::Ten, 0, 1)).data(Data::In(buffer()));
        assert_eq!(execute(&mut *way, read).residual, told, "in, {claimed}");
        let write = Request::new(&cdb::write(Size::Ten, 0, 1)).data(Data::Out(buffer()));
        assert_eq!(execute(&mut *way, write).residual, told, "out, {claimed}");
    }
}

/// drivers/scsi/scsi_bsg.c: a CDB of 1 to 32 bytes (include/scsi/scsi_cmnd.h: `cmnd`) reaches the unit as it is, and what
/// is behind it is 0 (virtio 1.2, 5.6.6.1: `cdb` has 32 bytes). FFh is an opcode whose CDBs the journal has whole.
#[rstest]
fn cdb_of_each_length_arrives_whole(#[values(Way::SgIoV4, Way::UringCmd)] way: Way) {
    declare!(Contract);
    let lun = Lun::fresh();
    always(&lun, Effect::status("GOOD"));
    let mut way = way.open(lun.device());
    // The longest first: a shorter one must not end in what is left of it.
    for len in (1..=32).rev() {
        let cdb: Vec<u8> = (0..len).map(|at| 0xff - at).collect();
        let done = execute(&mut *way, Request::new(&cdb));
        assert_eq!((done.device_status, done.host_status), (0, 0), "{len}");
        let entry = lun.journal().entries.pop().expect("it has arrived");
        let digits: String = cdb.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(entry.cdb, format!("{digits:0<64}"), "{len}");
    }
}

/// drivers/scsi/virtio_scsi.c:virtscsi_complete_cmd takes status and sense data of every response, and the host status
/// beside them (virtio 1.2, 5.6.6.1; include/scsi/scsi_status.h).
#[rstest]
fn sense_beside_a_failed_response_is_returned(#[values(Way::SgIoV4, Way::UringCmd)] way: Way) {
    declare!(Contract);
    let lun = Lun::fresh();
    let sense = sense(0x70, 10);
    let mut way = way.open(lun.device());
    for (response, host_status) in [("ABORTED", 5), ("BAD TARGET", 4), ("TARGET FAILURE", 4)] {
        let effect =
            Effect { response: Some(response.into()), ..Effect::sense(Sense::raw(&sense)) };
        always(&lun, effect);
        let read = Request::new(&cdb::read(Size::Ten, 0, 1)).data_in(512);
        let done = execute(&mut *way, read);
        let statuses = (done.device_status, done.driver_status, done.host_status);
        assert_eq!((statuses, done.sense), ((2, 8, host_status), sense.clone()), "{response}");
    }
}

/// block/blk-map.c:blk_rq_map_user: what is longer than the host's `max_sectors` is EINVAL, and is not sent without its
/// data.
#[rstest]
fn data_that_is_too_long_is_not_sent(#[values(Way::SgIoV4, Way::UringCmd)] way: Way) {
    declare!(Contract, SHORT);
    let lun = Lun::fresh();
    let mut way = way.open(lun.device());
    let read = |blocks: u8| {
        Request::new(&cdb::read(Size::Ten, 0, blocks)).data_in(usize::from(blocks) * 512)
    };
    let refused = way.execute(read(65)).expect_err("too long");
    assert_eq!(refused.errno(), Some(Errno::INVAL), "{refused}");
    assert_eq!(lun.journal().entries, []);
    assert_eq!(execute(&mut *way, read(64)).residual, 0);
}
