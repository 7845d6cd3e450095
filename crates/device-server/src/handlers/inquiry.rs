//! INQUIRY (SPC) and the VPD pages.

use scsi::{
    cdb,
    inquiry::{Identification, StandardInquiry, padded, version_descriptor},
    vpd::{BlockDeviceCharacteristics, BlockLimits, Designator, LogicalBlockProvisioning, VpdPage},
};
use zerocopy::IntoBytes;

use super::Execution;
use crate::{DeviceType, error::CommandError, unit::LogicalUnit};

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
        // No limit on transfers, and none of the commands the other fields are about.
        VpdPage::BlockLimits => BlockLimits::default().as_bytes().to_vec(),
        VpdPage::BlockDeviceCharacteristics => {
            BlockDeviceCharacteristics::NON_ROTATING.as_bytes().to_vec()
        }
        VpdPage::LogicalBlockProvisioning => {
            LogicalBlockProvisioning::default().as_bytes().to_vec()
        }
    };
    page.with_body(unit.peripheral(), &body)
}

fn designators(unit: &LogicalUnit) -> Vec<u8> {
    let specific = format!("{:16}{}", IDENTIFICATION.product, unit.designation.serial());
    let vendor = Designator::T10VendorId(padded(IDENTIFICATION.vendor), specific);
    [vendor, Designator::Naa(unit.designation.naa())].map(|each| each.encode()).concat()
}
