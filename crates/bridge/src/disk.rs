//! What a disk says of itself.

use std::path::Path;

use bsg::{Access, BsgIoctl, Passthrough, Request};
use scsi::{
    Command, Sense, SenseKey, Status,
    capacity::Capacity16,
    cdb::{EVPD, Inquiry, ModeSense10, ReadCapacity16, ReportSupportedOperationCodes},
    mode::{CachingPage, DPOFUA, Header10, WCE, WP},
    vpd::{self, BlockLimits, LBPRZ, LBPU, LBPWS, LogicalBlockProvisioning, UGAVALID, VpdPage},
};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::error::Error;

/// How blocks are given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unmapping {
    /// By UNMAP.
    Unmap,
    /// By WRITE SAME(16) with its UNMAP bit.
    WriteSame,
}

/// What a unit says of itself, in blocks unless said otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// LOGICAL BLOCK LENGTH IN BYTES.
    pub block_len: u32,
    /// How many there are.
    pub blocks: u64,
    /// LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT.
    pub physical_exponent: u8,
    /// WP: it takes no writes.
    pub write_protected: bool,
    /// WCE: what is written may be in a volatile cache.
    pub write_cache: bool,
    /// DPOFUA: it knows FUA.
    pub force_unit_access: bool,
    /// MAXIMUM TRANSFER LENGTH; 0 for no limit.
    pub transfer_max: u32,
    /// How blocks are given back, if they can be.
    pub unmapping: Option<Unmapping>,
    /// MAXIMUM UNMAP LBA COUNT; 0 if it does not say.
    pub unmap_max: u32,
    /// OPTIMAL UNMAP GRANULARITY; 0 if it does not say.
    pub unmap_granularity: u32,
    /// UNMAP GRANULARITY ALIGNMENT; 0 if it does not say.
    pub unmap_alignment: u32,
    /// Whether it knows WRITE SAME(16).
    pub write_same: bool,
    /// MAXIMUM WRITE SAME LENGTH; 0 if it does not say.
    pub write_same_max: u64,
    /// What WRITE SAME(16) of zeroes unmaps reads as zeroes (LBPWS, LBPRZ).
    pub unmapped_is_zero: bool,
}

/// Room for any answer here.
const ANSWER_LEN: u16 = 0x200;
/// SERVICE ACTION of READ CAPACITY(16).
const READ_CAPACITY_16: u8 = 0x10;
/// SERVICE ACTION of REPORT SUPPORTED OPERATION CODES.
const REPORT_SUPPORTED_OPERATION_CODES: u8 = 0x0c;
/// REPORTING OPTIONS: one operation code without service actions.
const ONE_OPCODE: u8 = 0x01;
/// SUPPORT in the answer: as a standard says, and in another way.
const SUPPORTED: [u8; 2] = [0x03, 0x05];
/// LBPME in byte 0 of the provisioning bits of READ CAPACITY(16).
const LBPME: u8 = 0x80;
/// LBPRZ beside it.
const CAPACITY_LBPRZ: u8 = 0x40;
/// A unit attention condition is told once for each of its causes.
const ATTENTIONS_MAX: usize = 8;

/// A unit that is asked one thing after the other.
struct Interview(BsgIoctl);

/// Why a question has no answer.
enum Silence {
    /// The unit does not know the question: ILLEGAL REQUEST.
    Unknown,
    Failed(Error),
}

impl From<Silence> for Error {
    fn from(silence: Silence) -> Self {
        match silence {
            Silence::Unknown => Error::Unfit("no answer to what every disk has to know".into()),
            Silence::Failed(error) => error,
        }
    }
}

impl Interview {
    fn ask(&mut self, what: &'static str, cdb: &[u8]) -> Result<Vec<u8>, Silence> {
        let mut told = String::new();
        for _ in 0..ATTENTIONS_MAX {
            let request = Request::new(cdb).data_in(ANSWER_LEN.into());
            let done = self.0.execute(request).map_err(|error| Silence::Failed(error.into()))?;
            if (done.host_status, done.device_status) == (0, Status::Good.code().into()) {
                let mut data = done.data;
                let missing = usize::try_from(done.residual).unwrap_or(0);
                data.truncate(data.len().saturating_sub(missing));
                return Ok(data);
            }
            let sense = Sense::decode(&done.sense);
            told = match &sense {
                Ok(sense) => sense.to_string(),
                Err(_) => {
                    format!("status {:#04x}, host {}", done.device_status, done.host_status)
                }
            };
            match sense.map(|sense| sense.key) {
                Ok(SenseKey::UnitAttention) => {}
                Ok(SenseKey::IllegalRequest) => return Err(Silence::Unknown),
                _ => break,
            }
        }
        Err(Silence::Failed(Error::Asked { what, why: told }))
    }

    /// A page of vital product data without its header; empty if the unit has none.
    fn page(&mut self, page: VpdPage) -> Result<Vec<u8>, Error> {
        let mut cdb = Inquiry::new_zeroed();
        cdb.opcode = Command::Inquiry.opcode();
        (cdb.flags, cdb.page_code) = (EVPD, page.code());
        cdb.allocation_length = ANSWER_LEN.into();
        match self.ask("INQUIRY", cdb.as_bytes()) {
            Ok(data) => Ok(vpd::split(&data).map_or_else(Vec::new, |(_, body)| body.to_vec())),
            Err(Silence::Unknown) => Ok(Vec::new()),
            Err(Silence::Failed(error)) => Err(error),
        }
    }

    fn capacity(&mut self) -> Result<Capacity16, Error> {
        let mut cdb = ReadCapacity16::new_zeroed();
        cdb.opcode = Command::ReadCapacity16.opcode();
        cdb.service_action = READ_CAPACITY_16;
        cdb.allocation_length = u32::from(ANSWER_LEN).into();
        let data = self.ask("READ CAPACITY(16)", cdb.as_bytes())?;
        let short = |_| Error::Unfit(format!("{} bytes of capacity data", data.len()));
        Ok(Capacity16::read_from_prefix(&data).map_err(short)?.0)
    }

    /// DEVICE-SPECIFIC PARAMETER and the flags of the Caching page; zero if the unit has none.
    fn mode(&mut self) -> Result<(u8, u8), Error> {
        let mut cdb = ModeSense10::new_zeroed();
        cdb.opcode = Command::ModeSense10.opcode();
        cdb.page = CachingPage::CODE;
        cdb.allocation_length = ANSWER_LEN.into();
        match self.ask("MODE SENSE(10)", cdb.as_bytes()) {
            Ok(data) => Ok(mode_of(&data)),
            Err(Silence::Unknown) => Ok((0, 0)),
            Err(Silence::Failed(error)) => Err(error),
        }
    }

    fn knows(&mut self, command: Command) -> Result<bool, Error> {
        let mut cdb = ReportSupportedOperationCodes::new_zeroed();
        cdb.opcode = Command::ReportSupportedOperationCodes.opcode();
        cdb.service_action = REPORT_SUPPORTED_OPERATION_CODES;
        (cdb.options, cdb.requested_opcode) = (ONE_OPCODE, command.opcode());
        cdb.allocation_length = u32::from(ANSWER_LEN).into();
        match self.ask("REPORT SUPPORTED OPERATION CODES", cdb.as_bytes()) {
            Ok(data) => Ok(data.get(1).is_some_and(|byte| SUPPORTED.contains(&(byte & 0x07)))),
            Err(Silence::Unknown) => Ok(false),
            Err(Silence::Failed(error)) => Err(error),
        }
    }
}

fn mode_of(data: &[u8]) -> (u8, u8) {
    let Ok((header, rest)) = Header10::ref_from_prefix(data) else { return (0, 0) };
    let page = rest.get(usize::from(header.block_descriptor_length.get())..);
    let caching = page.and_then(|page| CachingPage::ref_from_prefix(page).ok());
    let flags = caching.filter(|(page, _)| page.page_code & 0x3f == CachingPage::CODE);
    (header.device_specific, flags.map_or(0, |(page, _)| page.flags))
}

impl Disk {
    /// Asks the unit behind a bsg node.
    ///
    /// # Errors
    /// The node cannot be opened, the unit is not ready, or what it says is no disk's.
    pub fn ask(node: &Path) -> Result<Self, Error> {
        let mut unit = Interview(BsgIoctl::open(node, Access::ReadWrite)?);
        let capacity = unit.capacity()?;
        let (device_specific, caching) = unit.mode()?;
        let limits = unit.page(VpdPage::BlockLimits)?;
        let provisioning = match capacity.provisioning[0] & LBPME {
            0 => Vec::new(),
            _ => unit.page(VpdPage::LogicalBlockProvisioning)?,
        };
        let write_same = unit.knows(Command::WriteSame16)?;
        Disk::of(&capacity, (device_specific, caching), &limits, &provisioning, write_same)
    }

    fn of(
        capacity: &Capacity16,
        (device_specific, caching): (u8, u8),
        limits: &[u8],
        provisioning: &[u8],
        write_same: bool,
    ) -> Result<Self, Error> {
        // A page that is shorter than it has become has nothing to say there.
        let mut page = BlockLimits::default();
        let len = limits.len().min(size_of::<BlockLimits>());
        page.as_mut_bytes()[..len].copy_from_slice(&limits[..len]);
        let flags = LogicalBlockProvisioning::ref_from_prefix(provisioning)
            .map_or(0, |(page, _)| page.flags);
        let block_len = capacity.block_len.get();
        if !block_len.is_power_of_two() || !(512..=4096).contains(&block_len) {
            return Err(Error::Unfit(format!("blocks of {block_len} bytes")));
        }
        let last = capacity.last_lba.get();
        let blocks = last.checked_add(1).filter(|blocks| {
            blocks.checked_mul(u64::from(block_len)).is_some_and(|bytes| bytes <= i64::MAX as u64)
        });
        let blocks = blocks.ok_or_else(|| Error::Unfit(format!("a last block of {last}")))?;
        let alignment = page.unmap_alignment.get();
        Ok(Disk {
            block_len,
            blocks,
            physical_exponent: capacity.exponents & 0x0f,
            write_protected: device_specific & WP != 0,
            write_cache: caching & WCE != 0,
            force_unit_access: device_specific & DPOFUA != 0,
            transfer_max: page.transfer_max.get(),
            unmapping: match flags {
                flags if flags & LBPU != 0 && page.unmap_descriptor_max.get() > 0 => {
                    Some(Unmapping::Unmap)
                }
                flags if flags & LBPWS != 0 => Some(Unmapping::WriteSame),
                _ => None,
            },
            unmap_max: page.unmap_lba_max.get(),
            unmap_granularity: page.unmap_granularity.get(),
            unmap_alignment: match alignment & UGAVALID {
                0 => 0,
                _ => alignment & !UGAVALID,
            },
            write_same,
            write_same_max: page.write_same_max.get(),
            unmapped_is_zero: flags & LBPWS != 0
                && (flags & LBPRZ != 0 || capacity.provisioning[0] & CAPACITY_LBPRZ != 0),
        })
    }
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
