//! The kernel's structures, by hand: `include/uapi/linux/bsg.h`, `include/scsi/sg.h`.
//!
//! Offsets are checked here at compile time and in the tests against the C header.

use uring_cmd::assert_layout;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// `SG_IO`.
pub const SG_IO: u32 = 0x2285;
/// `SG_SCSI_RESET`, with the address of an `int` that says what is reset.
pub const SG_SCSI_RESET: u32 = 0x2284;
/// `SG_SCSI_RESET_DEVICE`: the logical unit.
pub const SG_SCSI_RESET_DEVICE: i32 = 1;
/// `SG_SCSI_RESET_NO_ESCALATE`, beside it: if that fails, nothing larger is reset.
pub const SG_SCSI_RESET_NO_ESCALATE: i32 = 0x100;
/// [`SgIoV4::guard`]: 'Q'.
pub const GUARD: i32 = 0x51;
/// `BSG_FLAG_Q_AT_TAIL` in [`SgIoV4::flags`]; the default is the head.
pub const FLAG_Q_AT_TAIL: u32 = 0x10;
/// `BSG_FLAG_Q_AT_HEAD`, which the kernel does not look at.
pub const FLAG_Q_AT_HEAD: u32 = 0x20;
/// [`SgIoHdr::interface_id`]: 'S'.
pub const INTERFACE_ID: i32 = 0x53;
/// `SG_DXFER_NONE`.
pub const DXFER_NONE: i32 = -1;
/// `SG_DXFER_TO_DEV`.
pub const DXFER_TO_DEV: i32 = -2;
/// `SG_DXFER_FROM_DEV`.
pub const DXFER_FROM_DEV: i32 = -3;
/// `SG_FLAG_DIRECT_IO` in [`SgIoHdr::flags`].
pub const FLAG_DIRECT_IO: u32 = 1;
/// `SG_INFO_CHECK` in `info`: a status is not zero.
pub const INFO_CHECK: u32 = 1;
/// `DRIVER_SENSE`: the driver status of a CHECK CONDITION.
pub const DRIVER_SENSE: u32 = 8;

/// `struct sg_io_v4`. `[i]` is read by the kernel, `[o]` written; `drivers/scsi/scsi_bsg.c` leaves
/// some `[o]` fields alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SgIoV4 {
    /// `[i]` [`GUARD`].
    pub guard: i32,
    /// `[i]` 0: SCSI.
    pub protocol: u32,
    /// `[i]` 0: SCSI command; 2: SCSI transport.
    pub subprotocol: u32,
    /// `[i]` CDB length in bytes; only the low 16 bits are looked at.
    pub request_len: u32,
    /// `[i]` address of the CDB.
    pub request: u64,
    /// `[i]` ignored.
    pub request_tag: u64,
    /// `[i]` ignored.
    pub request_attr: u32,
    /// `[i]` ignored.
    pub request_priority: u32,
    /// `[i]` ignored.
    pub request_extra: u32,
    /// `[i]` room for sense data in bytes.
    pub max_response_len: u32,
    /// `[i]` address for sense data; 0 wants none.
    pub response: u64,
    /// `[i]` ignored.
    pub dout_iovec_count: u32,
    /// `[i]` bytes to the device.
    pub dout_xfer_len: u32,
    /// `[i]` ignored.
    pub din_iovec_count: u32,
    /// `[i]` bytes from the device.
    pub din_xfer_len: u32,
    /// `[i]` address of data to the device.
    pub dout_xferp: u64,
    /// `[i]` address for data from the device.
    pub din_xferp: u64,
    /// `[i]` milliseconds; 0 takes the device's default; never less than 7 s.
    pub timeout: u32,
    /// `[i]` [`FLAG_Q_AT_TAIL`].
    pub flags: u32,
    /// Echoed.
    pub usr_ptr: u64,
    /// Ignored.
    pub spare_in: u32,
    /// `[o]` [`DRIVER_SENSE`] for a CHECK CONDITION, else 0.
    pub driver_status: u32,
    /// `[o]` host byte, `DID_*`.
    pub transport_status: u32,
    /// `[o]` SAM status.
    pub device_status: u32,
    /// `[o]` not written.
    pub retry_delay: u32,
    /// `[o]` [`INFO_CHECK`].
    pub info: u32,
    /// `[o]` not written.
    pub duration: u32,
    /// `[o]` bytes of sense data written.
    pub response_len: u32,
    /// `[o]` bytes of `din_xfer_len` not transferred; written unless data went to the device.
    pub din_resid: i32,
    /// `[o]` bytes of `dout_xfer_len` not transferred; written if data went to the device.
    pub dout_resid: i32,
    /// `[o]` not written.
    pub generated_tag: u64,
    /// `[o]` not written.
    pub spare_out: u32,
    /// Unused.
    pub padding: u32,
}

assert_layout!(SgIoV4, 160 {
    guard: 0, protocol: 4, subprotocol: 8, request_len: 12, request: 16, request_tag: 24,
    request_attr: 32, request_priority: 36, request_extra: 40, max_response_len: 44, response: 48,
    dout_iovec_count: 56, dout_xfer_len: 60, din_iovec_count: 64, din_xfer_len: 68, dout_xferp: 72,
    din_xferp: 80, timeout: 88, flags: 92, usr_ptr: 96, spare_in: 104, driver_status: 108,
    transport_status: 112, device_status: 116, retry_delay: 120, info: 124, duration: 128,
    response_len: 132, din_resid: 136, dout_resid: 140, generated_tag: 144, spare_out: 152,
    padding: 156,
});

/// `struct bsg_uring_cmd`, the payload at byte 48 of a 128-byte submission entry. Linux 7.1 and newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BsgUringCmd {
    /// Address of the CDB.
    pub request: u64,
    /// CDB length in bytes, 1 to 32.
    pub request_len: u32,
    /// 0: SCSI.
    pub protocol: u32,
    /// 0: SCSI command.
    pub subprotocol: u32,
    /// Room for sense data in bytes.
    pub max_response_len: u32,
    /// Address for sense data; 0 wants none.
    pub response: u64,
    /// Address of data to the device.
    pub dout_xferp: u64,
    /// Bytes to the device.
    pub dout_xfer_len: u32,
    /// Must be 0.
    pub dout_iovec_count: u32,
    /// Address for data from the device.
    pub din_xferp: u64,
    /// Bytes from the device.
    pub din_xfer_len: u32,
    /// Must be 0.
    pub din_iovec_count: u32,
    /// Milliseconds; 0 is 60 s.
    pub timeout_ms: u32,
    /// Not looked at.
    pub reserved: [u8; 12],
}

assert_layout!(BsgUringCmd, 80 {
    request: 0, request_len: 8, protocol: 12, subprotocol: 16, max_response_len: 20, response: 24,
    dout_xferp: 32, dout_xfer_len: 40, dout_iovec_count: 44, din_xferp: 48, din_xfer_len: 56,
    din_iovec_count: 60, timeout_ms: 64, reserved: 68,
});

/// `struct sg_io_hdr` on 64-bit, version 3 of the sg interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SgIoHdr {
    /// `[i]` [`INTERFACE_ID`].
    pub interface_id: i32,
    /// `[i]` `DXFER_*`.
    pub dxfer_direction: i32,
    /// `[i]` CDB length in bytes.
    pub cmd_len: u8,
    /// `[i]` room for sense data in bytes.
    pub mx_sb_len: u8,
    /// `[i]` 0: `dxferp` is flat.
    pub iovec_count: u16,
    /// `[i]` bytes of data.
    pub dxfer_len: u32,
    /// `[i]` address of data.
    pub dxferp: u64,
    /// `[i]` address of the CDB.
    pub cmdp: u64,
    /// `[i]` address for sense data.
    pub sbp: u64,
    /// `[i]` milliseconds.
    pub timeout: u32,
    /// `[i]` `SG_FLAG_*`.
    pub flags: u32,
    /// Echoed.
    pub pack_id: i32,
    /// Padding of the C compiler.
    pub pad0: u32,
    /// Echoed.
    pub usr_ptr: u64,
    /// `[o]` SAM status.
    pub status: u8,
    /// `[o]` `(status & 0x3e) >> 1`.
    pub masked_status: u8,
    /// `[o]` SCSI-2 message byte.
    pub msg_status: u8,
    /// `[o]` bytes of sense data written.
    pub sb_len_wr: u8,
    /// `[o]` host byte, `DID_*`.
    pub host_status: u16,
    /// `[o]` [`DRIVER_SENSE`] for a CHECK CONDITION if there is room for sense data, else 0.
    pub driver_status: u16,
    /// `[o]` bytes of `dxfer_len` not transferred.
    pub resid: i32,
    /// `[o]` milliseconds.
    pub duration: u32,
    /// `[o]` `SG_INFO_*`.
    pub info: u32,
    /// Padding of the C compiler.
    pub pad1: u32,
}

assert_layout!(SgIoHdr, 88 {
    interface_id: 0, dxfer_direction: 4, cmd_len: 8, mx_sb_len: 9, iovec_count: 10, dxfer_len: 12,
    dxferp: 16, cmdp: 24, sbp: 32, timeout: 40, flags: 44, pack_id: 48, usr_ptr: 56, status: 64,
    masked_status: 65, msg_status: 66, sb_len_wr: 67, host_status: 68, driver_status: 70, resid: 72,
    duration: 76, info: 80,
});

impl Default for SgIoV4 {
    /// A SCSI command of length 0 without data.
    fn default() -> Self {
        SgIoV4 { guard: GUARD, ..SgIoV4::new_zeroed() }
    }
}

impl Default for BsgUringCmd {
    /// A SCSI command of length 0 without data.
    fn default() -> Self {
        BsgUringCmd::new_zeroed()
    }
}

impl Default for SgIoHdr {
    /// A SCSI command of length 0 without data.
    fn default() -> Self {
        SgIoHdr { interface_id: INTERFACE_ID, dxfer_direction: DXFER_NONE, ..SgIoHdr::new_zeroed() }
    }
}

/// The first extra word of a completion on a bsg node, decoded
/// (`scsi_bsg.c:scsi_bsg_uring_task_cb`, `bsg.h:bsg_scsi_res2_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Res2 {
    /// Bits 0 to 7: SAM status.
    pub device_status: u8,
    /// Bits 8 to 15: [`DRIVER_SENSE`] for a CHECK CONDITION, else 0.
    pub driver_status: u8,
    /// Bits 16 to 23: `DID_*`.
    pub host_status: u8,
    /// Bits 24 to 31: bytes of sense data written.
    pub sense_len_wr: u8,
    /// Bits 32 to 63: bytes not transferred.
    pub residual: u32,
}

impl From<u64> for Res2 {
    fn from(raw: u64) -> Self {
        let [device_status, driver_status, host_status, sense_len_wr, r0, r1, r2, r3] =
            raw.to_le_bytes();
        let residual = u32::from_le_bytes([r0, r1, r2, r3]);
        Res2 { device_status, driver_status, host_status, sense_len_wr, residual }
    }
}
