//! INQUIRY (SPC) and the VPD pages.

use scsi::{
    cdb,
    inquiry::{Identification, StandardInquiry, padded, version_descriptor},
    vpd::{
        BlockDeviceCharacteristics, BlockLimits, Designator, ExtendedInquiry, LBPRZ, LBPU, LBPWS,
        LBPWS10, LogicalBlockProvisioning, PROVISIONING_THIN, UGAVALID, VpdPage, WSNZ,
    },
};
use zerocopy::IntoBytes;

use super::{
    Execution,
    provisioning::{UNMAP_DESCRIPTORS_MAX, WRITE_SAME_MAX},
};
use crate::{DeviceType, error::CommandError, medium::GRANULE, unit::LogicalUnit};

/// Who every unit says it is.
pub(super) const IDENTIFICATION: Identification =
    Identification { vendor: "SENSECHK", product: "VIRTUAL DISK", revision: "0001" };

pub(super) fn inquiry(execution: &mut Execution<'_, '_, '_>) -> Result<(), CommandError> {
    let cdb = execution.cdb::<cdb::Inquiry>();
    let data = match (cdb.flags & cdb::EVPD != 0, cdb.page_code) {
        (false, 0) => standard(execution.unit),
        (false, _) => return Err(CommandError::field(2)),
        (true, code) => {
            let page = VpdPage::from_code(code).ok_or(CommandError::field(2))?;
            vpd(execution.unit, page)
        }
    };
    execution.data.send(&data, cdb.allocation_length.get());
    Ok(())
}

fn standard(unit: &LogicalUnit) -> Vec<u8> {
    use version_descriptor::{SAM_5, SBC_3, SPC_4};
    let descriptors: &[u16] = match unit.config.device_type {
        DeviceType::Disk => &[SAM_5, SPC_4, SBC_3],
        DeviceType::Processor => &[SAM_5, SPC_4],
    };
    StandardInquiry::new(unit.peripheral(), IDENTIFICATION, descriptors).as_bytes().to_vec()
}

fn vpd(unit: &LogicalUnit, page: VpdPage) -> Vec<u8> {
    let body = match page {
        VpdPage::SupportedPages => VpdPage::ALL.map(VpdPage::code).to_vec(),
        VpdPage::UnitSerialNumber => unit.designation.serial().into_bytes(),
        VpdPage::DeviceIdentification => designators(unit),
        VpdPage::ExtendedInquiry => {
            ExtendedInquiry::new(unit.medium.has_volatile_cache()).as_bytes().to_vec()
        }
        VpdPage::BlockLimits => block_limits(unit).as_bytes().to_vec(),
        VpdPage::BlockDeviceCharacteristics => {
            BlockDeviceCharacteristics::NON_ROTATING.as_bytes().to_vec()
        }
        VpdPage::LogicalBlockProvisioning => logical_block_provisioning(unit).as_bytes().to_vec(),
    };
    page.with_body(unit.peripheral(), &body)
}

/// No limit on transfers.
fn block_limits(unit: &LogicalUnit) -> BlockLimits {
    let physical = 1 << unit.config.physical_blocks.exponent;
    let limits = BlockLimits {
        flags: WSNZ,
        compare_and_write_max: u8::MAX,
        transfer_granularity: if physical == 1 { 0 } else { physical }.into(),
        write_same_max: WRITE_SAME_MAX.into(),
        ..BlockLimits::default()
    };
    if !unit.is_thin() {
        return limits;
    }
    let granule = GRANULE / u64::from(unit.block_len.bytes());
    BlockLimits {
        unmap_lba_max: u32::MAX.into(),
        unmap_descriptor_max: u32::from(UNMAP_DESCRIPTORS_MAX).into(),
        unmap_granularity: u32::try_from(granule).expect("few blocks").into(),
        unmap_alignment: UGAVALID.into(),
        ..limits
    }
}

fn logical_block_provisioning(unit: &LogicalUnit) -> LogicalBlockProvisioning {
    if !unit.is_thin() {
        return LogicalBlockProvisioning::default();
    }
    LogicalBlockProvisioning {
        flags: LBPU | LBPWS | LBPWS10 | LBPRZ,
        provisioning_type: PROVISIONING_THIN,
        ..LogicalBlockProvisioning::default()
    }
}

fn designators(unit: &LogicalUnit) -> Vec<u8> {
    let specific = format!("{:16}{}", IDENTIFICATION.product, unit.designation.serial());
    let vendor = Designator::T10VendorId(padded(IDENTIFICATION.vendor), specific);
    [vendor, Designator::Naa(unit.designation.naa())].map(|each| each.encode()).concat()
}
