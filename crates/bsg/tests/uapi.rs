//! Our structures against the C headers, and against bytes written down by hand.

mod c_probe;

use bsg::uapi::{BsgUringCmd, Res2, SgIoHdr, SgIoV4};
use zerocopy::{FromZeros, IntoBytes};

#[test]
fn bsg_structures_are_those_of_the_header() {
    let mut items = Vec::new();
    layout_items!(
        items,
        SgIoV4,
        "sg_io_v4",
        [
            guard,
            protocol,
            subprotocol,
            request_len,
            request,
            request_tag,
            request_attr,
            request_priority,
            request_extra,
            max_response_len,
            response,
            dout_iovec_count,
            dout_xfer_len,
            din_iovec_count,
            din_xfer_len,
            dout_xferp,
            din_xferp,
            timeout,
            flags,
            usr_ptr,
            spare_in,
            driver_status,
            transport_status,
            device_status,
            retry_delay,
            info,
            duration,
            response_len,
            din_resid,
            dout_resid,
            generated_tag,
            spare_out,
            padding,
        ]
    );
    layout_items!(
        items,
        BsgUringCmd,
        "bsg_uring_cmd",
        [
            request,
            request_len,
            protocol,
            subprotocol,
            max_response_len,
            response,
            dout_xferp,
            dout_xfer_len,
            dout_iovec_count,
            din_xferp,
            din_xfer_len,
            din_iovec_count,
            timeout_ms,
            reserved,
        ]
    );
    let compared = c_probe::compare(&["linux/types.h", "linux/bsg.h"], &items);
    assert!(compared >= 34, "sg_io_v4 is in every header, but only {compared} numbers were found");
}

#[test]
fn the_sg_structure_is_that_of_the_header() {
    let mut items = Vec::new();
    layout_items!(
        items,
        SgIoHdr,
        "sg_io_hdr",
        [
            interface_id,
            dxfer_direction,
            cmd_len,
            mx_sb_len,
            iovec_count,
            dxfer_len,
            dxferp,
            cmdp,
            sbp,
            timeout,
            flags,
            pack_id,
            usr_ptr,
            status,
            masked_status,
            msg_status,
            sb_len_wr,
            host_status,
            driver_status,
            resid,
            duration,
            info,
        ]
    );
    assert_eq!(c_probe::compare(&["scsi/sg.h"], &items), 23);
}

/// The header of a distribution may be older than 7.1, so the bytes are written down too.
#[test]
fn bsg_uring_cmd_has_the_documented_bytes() {
    let command = BsgUringCmd {
        request: 0x0807_0605_0403_0201,
        request_len: 0x0c0b_0a09,
        max_response_len: 0x1817_1615,
        response: 0x201f_1e1d_1c1b_1a19,
        dout_xfer_len: 0x2c2b_2a29,
        din_xferp: 0x3837_3635_3433_3231,
        timeout_ms: 0x4443_4241,
        ..BsgUringCmd::new_zeroed()
    };
    let mut expected = [0; 80];
    for (at, byte) in (1..).enumerate().take(80) {
        // Where the fields above lie: 0-11, 20-31, 40-43, 48-55, 64-67.
        if matches!(at, 0..12 | 20..32 | 40..44 | 48..56 | 64..68) {
            expected[at] = byte;
        }
    }
    assert_eq!(command.as_bytes(), expected);
}

#[test]
fn res2_is_taken_apart_at_the_documented_bits() {
    let res2 = Res2::from(0x0000_0040_1207_0802);
    assert_eq!(
        res2,
        Res2 {
            device_status: 0x02,
            driver_status: 0x08,
            host_status: 0x07,
            sense_len_wr: 18,
            residual: 64,
        }
    );
    assert_eq!(Res2::from(0xffff_fffe_0000_0000).residual, 0xffff_fffe);
}
