//! How CDBs lie in memory.
//!
//! Fields that are reserved, obsolete or not evaluated are private: the command table refuses bits
//! in them. Every struct begins with OPERATION CODE and ends with CONTROL.

#![expect(
    missing_debug_implementations,
    reason = "every struct derives Debug; the lint means items that zerocopy's derives make of fields"
)]

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    byteorder::big_endian::{U16, U32, U64},
};

use crate::{BlockRange, Lba};

macro_rules! cdb {
    ($(#[$doc:meta])* $name:ident, $len:literal {
        $($(#[$field_doc:meta])* $visibility:vis $field:ident: $type:ty,)+
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
        #[repr(C)]
        pub struct $name {
            /// OPERATION CODE.
            pub opcode: u8,
            $($(#[$field_doc])* $visibility $field: $type,)+
            /// CONTROL.
            pub control: u8,
        }
        const _: () = assert!(size_of::<$name>() == $len);
    };
}

cdb! {
    /// TEST UNIT READY (SPC).
    TestUnitReady, 6 { reserved: [u8; 4], }
}
cdb! {
    /// REQUEST SENSE (SPC).
    RequestSense, 6 {
        /// DESC in bit 0.
        pub flags: u8,
        reserved: [u8; 2],
        /// ALLOCATION LENGTH in bytes.
        pub allocation_length: u8,
    }
}
cdb! {
    /// READ(6) and WRITE(6) (SBC).
    ReadWrite6, 6 {
        /// LOGICAL BLOCK ADDRESS: 21 bits, with the upper three reserved.
        pub lba: [u8; 3],
        /// TRANSFER LENGTH in blocks; 0 means 256.
        pub transfer_length: u8,
    }
}
cdb! {
    /// READ(10) and WRITE(10) (SBC).
    ReadWrite10, 10 {
        /// DPO in bit 4, FUA in bit 3.
        pub flags: u8,
        /// LOGICAL BLOCK ADDRESS.
        pub lba: U32,
        group: u8,
        /// TRANSFER LENGTH in blocks.
        pub transfer_length: U16,
    }
}
cdb! {
    /// READ(12) and WRITE(12) (SBC).
    ReadWrite12, 12 {
        /// DPO in bit 4, FUA in bit 3.
        pub flags: u8,
        /// LOGICAL BLOCK ADDRESS.
        pub lba: U32,
        /// TRANSFER LENGTH in blocks.
        pub transfer_length: U32,
        group: u8,
    }
}
cdb! {
    /// READ(16) and WRITE(16) (SBC).
    ReadWrite16, 16 {
        /// DPO in bit 4, FUA in bit 3.
        pub flags: u8,
        /// LOGICAL BLOCK ADDRESS.
        pub lba: U64,
        /// TRANSFER LENGTH in blocks.
        pub transfer_length: U32,
        group: u8,
    }
}
cdb! {
    /// SYNCHRONIZE CACHE(10) (SBC).
    SynchronizeCache10, 10 {
        /// IMMED in bit 1.
        pub flags: u8,
        /// LOGICAL BLOCK ADDRESS.
        pub lba: U32,
        group: u8,
        /// NUMBER OF LOGICAL BLOCKS; 0 means all from `lba` on.
        pub blocks: U16,
    }
}
cdb! {
    /// SYNCHRONIZE CACHE(16) (SBC).
    SynchronizeCache16, 16 {
        /// IMMED in bit 1.
        pub flags: u8,
        /// LOGICAL BLOCK ADDRESS.
        pub lba: U64,
        /// NUMBER OF LOGICAL BLOCKS; 0 means all from `lba` on.
        pub blocks: U32,
        group: u8,
    }
}
cdb! {
    /// VERIFY(10) (SBC).
    Verify10, 10 {
        /// DPO in bit 4, BYTCHK in bits 2 and 1.
        pub flags: u8,
        /// LOGICAL BLOCK ADDRESS.
        pub lba: U32,
        group: u8,
        /// VERIFICATION LENGTH in blocks.
        pub blocks: U16,
    }
}
cdb! {
    /// VERIFY(16) (SBC).
    Verify16, 16 {
        /// DPO in bit 4, BYTCHK in bits 2 and 1.
        pub flags: u8,
        /// LOGICAL BLOCK ADDRESS.
        pub lba: U64,
        /// VERIFICATION LENGTH in blocks.
        pub blocks: U32,
        group: u8,
    }
}
cdb! {
    /// WRITE SAME(10) (SBC).
    WriteSame10, 10 {
        /// ANCHOR in bit 4, UNMAP in bit 3.
        pub flags: u8,
        /// LOGICAL BLOCK ADDRESS.
        pub lba: U32,
        group: u8,
        /// NUMBER OF LOGICAL BLOCKS.
        pub blocks: U16,
    }
}
cdb! {
    /// WRITE SAME(16) (SBC).
    WriteSame16, 16 {
        /// ANCHOR in bit 4, UNMAP in bit 3, NDOB in bit 0.
        pub flags: u8,
        /// LOGICAL BLOCK ADDRESS.
        pub lba: U64,
        /// NUMBER OF LOGICAL BLOCKS.
        pub blocks: U32,
        group: u8,
    }
}
cdb! {
    /// COMPARE AND WRITE (SBC).
    CompareAndWrite, 16 {
        /// DPO in bit 4, FUA in bit 3.
        pub flags: u8,
        /// LOGICAL BLOCK ADDRESS.
        pub lba: U64,
        reserved: [u8; 3],
        /// NUMBER OF LOGICAL BLOCKS, half of what the data-out buffer holds.
        pub blocks: u8,
        group: u8,
    }
}
cdb! {
    /// UNMAP (SBC).
    Unmap, 10 {
        /// ANCHOR in bit 0.
        pub flags: u8,
        reserved: [u8; 4],
        group: u8,
        /// PARAMETER LIST LENGTH in bytes.
        pub parameter_list_length: U16,
    }
}
cdb! {
    /// GET LBA STATUS (SBC).
    GetLbaStatus, 16 {
        /// SERVICE ACTION.
        pub service_action: u8,
        /// STARTING LOGICAL BLOCK ADDRESS.
        pub lba: U64,
        /// ALLOCATION LENGTH in bytes.
        pub allocation_length: U32,
        reserved: u8,
    }
}
cdb! {
    /// PERSISTENT RESERVE IN (SPC).
    PersistentReserveIn, 10 {
        /// SERVICE ACTION.
        pub service_action: u8,
        reserved: [u8; 5],
        /// ALLOCATION LENGTH in bytes.
        pub allocation_length: U16,
    }
}
cdb! {
    /// PERSISTENT RESERVE OUT (SPC).
    PersistentReserveOut, 10 {
        /// SERVICE ACTION.
        pub service_action: u8,
        /// SCOPE in bits 7 to 4, TYPE below.
        pub scope_type: u8,
        reserved: [u8; 2],
        /// PARAMETER LIST LENGTH in bytes.
        pub parameter_list_length: U32,
    }
}
cdb! {
    /// LOG SENSE (SPC).
    LogSense, 10 {
        /// SP in bit 0.
        pub flags: u8,
        /// PC in bits 7 and 6, PAGE CODE below.
        pub page: u8,
        /// SUBPAGE CODE.
        pub subpage_code: u8,
        reserved: u8,
        /// PARAMETER POINTER.
        pub parameter_pointer: U16,
        /// ALLOCATION LENGTH in bytes.
        pub allocation_length: U16,
    }
}
cdb! {
    /// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC).
    ReportSupportedTaskManagementFunctions, 12 {
        /// SERVICE ACTION.
        pub service_action: u8,
        /// REPD in bit 7.
        pub flags: u8,
        reserved: [u8; 3],
        /// ALLOCATION LENGTH in bytes.
        pub allocation_length: U32,
        reserved_10: u8,
    }
}
cdb! {
    /// INQUIRY (SPC).
    Inquiry, 6 {
        /// EVPD in bit 0.
        pub flags: u8,
        /// PAGE CODE.
        pub page_code: u8,
        /// ALLOCATION LENGTH in bytes.
        pub allocation_length: U16,
    }
}
cdb! {
    /// MODE SENSE(6) (SPC).
    ModeSense6, 6 {
        /// DBD in bit 3.
        pub flags: u8,
        /// PC in bits 7 and 6, PAGE CODE below.
        pub page: u8,
        /// SUBPAGE CODE.
        pub subpage_code: u8,
        /// ALLOCATION LENGTH in bytes.
        pub allocation_length: u8,
    }
}
cdb! {
    /// MODE SENSE(10) (SPC).
    ModeSense10, 10 {
        /// LLBAA in bit 4, DBD in bit 3.
        pub flags: u8,
        /// PC in bits 7 and 6, PAGE CODE below.
        pub page: u8,
        /// SUBPAGE CODE.
        pub subpage_code: u8,
        reserved: [u8; 3],
        /// ALLOCATION LENGTH in bytes.
        pub allocation_length: U16,
    }
}
cdb! {
    /// MODE SELECT(6) (SPC).
    ModeSelect6, 6 {
        /// PF in bit 4, SP in bit 0.
        pub flags: u8,
        reserved: [u8; 2],
        /// PARAMETER LIST LENGTH in bytes.
        pub parameter_list_length: u8,
    }
}
cdb! {
    /// MODE SELECT(10) (SPC).
    ModeSelect10, 10 {
        /// PF in bit 4, SP in bit 0.
        pub flags: u8,
        reserved: [u8; 5],
        /// PARAMETER LIST LENGTH in bytes.
        pub parameter_list_length: U16,
    }
}
cdb! {
    /// WRITE BUFFER and READ BUFFER (SPC).
    Buffer, 10 {
        /// MODE in bits 4 to 0.
        pub mode: u8,
        /// BUFFER ID and BUFFER OFFSET, which mean nothing to the echo buffer.
        ignored: [u8; 4],
        /// PARAMETER LIST LENGTH or ALLOCATION LENGTH in bytes, 24 bits.
        pub len: [u8; 3],
    }
}
cdb! {
    /// START STOP UNIT (SBC).
    StartStopUnit, 6 {
        /// IMMED in bit 0.
        pub flags: u8,
        reserved: u8,
        power_condition_modifier: u8,
        /// POWER CONDITION in bits 7 to 4, NO_FLUSH in bit 2, LOEJ in bit 1, START in bit 0.
        pub start: u8,
    }
}
cdb! {
    /// READ CAPACITY(10) (SBC).
    ReadCapacity10, 10 { reserved: [u8; 8], }
}
cdb! {
    /// READ CAPACITY(16) (SBC).
    ReadCapacity16, 16 {
        /// SERVICE ACTION.
        pub service_action: u8,
        obsolete: [u8; 8],
        /// ALLOCATION LENGTH in bytes.
        pub allocation_length: U32,
        reserved: u8,
    }
}
cdb! {
    /// REPORT LUNS (SPC).
    ReportLuns, 12 {
        reserved: u8,
        /// SELECT REPORT.
        pub select_report: u8,
        reserved_3: [u8; 3],
        /// ALLOCATION LENGTH in bytes.
        pub allocation_length: U32,
        reserved_10: u8,
    }
}
cdb! {
    /// REPORT SUPPORTED OPERATION CODES (SPC).
    ReportSupportedOperationCodes, 12 {
        /// SERVICE ACTION.
        pub service_action: u8,
        /// RCTD in bit 7, REPORTING OPTIONS in bits 2 to 0.
        pub options: u8,
        /// REQUESTED OPERATION CODE.
        pub requested_opcode: u8,
        /// REQUESTED SERVICE ACTION.
        pub requested_service_action: U16,
        /// ALLOCATION LENGTH in bytes.
        pub allocation_length: U32,
        reserved: u8,
    }
}

/// FUA in byte 1 of READ and WRITE.
pub const FUA: u8 = 0x08;
/// DESC in byte 1 of REQUEST SENSE.
pub const DESC: u8 = 0x01;
/// EVPD in byte 1 of INQUIRY.
pub const EVPD: u8 = 0x01;
/// DBD in byte 1 of MODE SENSE.
pub const DBD: u8 = 0x08;
/// LLBAA in byte 1 of MODE SENSE(10).
pub const LLBAA: u8 = 0x10;
/// BYTCHK in byte 1 of VERIFY.
pub const BYTCHK: u8 = 0x06;
/// UNMAP in byte 1 of WRITE SAME.
pub const UNMAP: u8 = 0x08;
/// NDOB in byte 1 of WRITE SAME(16).
pub const NDOB: u8 = 0x01;
/// PF in byte 1 of MODE SELECT.
pub const PF: u8 = 0x10;
/// NO_FLUSH in byte 4 of START STOP UNIT.
pub const NO_FLUSH: u8 = 0x04;
/// START in byte 4 of START STOP UNIT.
pub const START: u8 = 0x01;
/// REPD in byte 2 of REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS.
pub const REPD: u8 = 0x80;
/// RCTD in byte 2 of REPORT SUPPORTED OPERATION CODES.
pub const RCTD: u8 = 0x80;
/// REPORTING OPTIONS in byte 2 of REPORT SUPPORTED OPERATION CODES.
pub const REPORTING_OPTIONS: u8 = 0x07;

/// The CDB at the beginning of these bytes; `None` if there are too few.
#[must_use]
pub fn parse<T: FromBytes + KnownLayout + Immutable + Unaligned>(cdb: &[u8]) -> Option<&T> {
    T::ref_from_prefix(cdb).ok().map(|(parsed, _)| parsed)
}

/// What READ and WRITE of every length ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The blocks.
    pub range: BlockRange,
    /// FUA: past any volatile cache.
    pub force_unit_access: bool,
}

impl Transfer {
    fn new(lba: u64, blocks: u64, flags: u8) -> Transfer {
        Transfer {
            range: BlockRange { start: Lba(lba), blocks },
            force_unit_access: flags & FUA != 0,
        }
    }
}

impl ReadWrite6 {
    /// The parsed form.
    #[must_use]
    pub fn transfer(&self) -> Transfer {
        let [high, middle, low] = self.lba;
        let lba = u32::from_be_bytes([0, high & 0x1f, middle, low]);
        let blocks = if self.transfer_length == 0 { 256 } else { self.transfer_length.into() };
        Transfer::new(lba.into(), blocks, 0)
    }
}

macro_rules! transfer {
    ($($name:ident)+) => {$(
        impl $name {
            /// The parsed form.
            #[must_use]
            pub fn transfer(&self) -> Transfer {
                Transfer::new(self.lba.get().into(), self.transfer_length.get().into(), self.flags)
            }
        }
    )+};
}
transfer! { ReadWrite10 ReadWrite12 }

impl ReadWrite16 {
    /// The parsed form.
    #[must_use]
    pub fn transfer(&self) -> Transfer {
        Transfer::new(self.lba.get(), self.transfer_length.get().into(), self.flags)
    }
}
