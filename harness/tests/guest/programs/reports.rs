//! What our units say of themselves, decoded by sg3_utils.

use control::{DeviceType, LunAddress, LunSpec, PhysicalBlocks, Provisioning};
use harness::{Lun, declare};

use super::{STORAGE, on_bsg, sends_one, thin_disk};

#[test]
fn sg_inq_decodes_the_standard_inquiry_data() {
    declare!(Contract, STORAGE);
    on_bsg(&thin_disk(), "sg_inq", &[]).says(&[
        "PQual=0 PDT=0 RMB=0",
        "version=0x06 [SPC-4]",
        "HiSUP=1 Resp_data_format=2",
        "CmdQue=1",
        "length=96 (0x60) Peripheral device type: disk",
        "Vendor identification: SENSECHK",
        "Product identification: VIRTUAL DISK",
        "Product revision level: 0001",
    ]);
}

#[test]
fn sg_inq_decodes_the_serial_number() {
    declare!(Contract, STORAGE);
    let lun = thin_disk();
    // Host, target and LUN in hex; the shared host is the first.
    let LunAddress { target, lun: number } = lun.address();
    let number = format!("Unit serial number: 00000000{target:02x}{number:04x}");
    on_bsg(&lun, "sg_inq", &["--page=sn"])
        .says(&["VPD INQUIRY: Unit serial number VPD page", &number]);
}

#[test]
fn sg_vpd_decodes_the_list_of_pages() {
    declare!(Contract, STORAGE);
    let (ran, entry) = sends_one(&thin_disk(), "sg_vpd", &[]);
    ran.says(&[
        "Supported VPD pages [sv]",
        "Unit serial number [sn]",
        "Device identification [di]",
        "Block limits (SBC) [bl]",
        "Block device characteristics (SBC) [bdc]",
        "Logical block provisioning (SBC) [lbpv]",
    ]);
    assert_eq!(entry.cdb, "12010000fc00");
}

/// SPC-4, Device Identification: a T10 vendor ID based designator and one of NAA.
#[test]
fn sg_vpd_decodes_designators() {
    declare!(Contract, STORAGE);
    on_bsg(&thin_disk(), "sg_vpd", &["--page=di"]).says(&[
        "Addressed logical unit:",
        "designator type: T10 vendor identification, code set: ASCII",
        "vendor id: SENSECHK",
        "designator type: NAA, code set: Binary",
        "0x3",
    ]);
}

#[test]
fn sg_vpd_decodes_what_a_thin_disk_can_unmap() {
    declare!(Contract, STORAGE);
    let lun = thin_disk();
    on_bsg(&lun, "sg_vpd", &["--page=bl"]).says(&[
        "Write same non-zero (WSNZ): 1",
        "Maximum compare and write length: 0xff",
        "Maximum unmap block descriptor count: 0x100",
        "Optimal unmap granularity: 0x8",
        "Unmap granularity alignment valid: true",
        "Unmap granularity alignment: 0x0",
        "Maximum write same length: 0xffff",
    ]);
    on_bsg(&lun, "sg_vpd", &["--page=lbpv"]).says(&[
        "LBPU=1",
        "LBPWS=1",
        "LBPWS10=1",
        "LBPRZ=0x1",
        "Provisioning type: thin provisioned",
    ]);
    on_bsg(&lun, "sg_vpd", &["--page=bdc"]).says(&["Non-rotating medium", "ZONED=0"]);
}

#[test]
fn sg_readcap_decodes_both_capacities() {
    declare!(Contract, STORAGE);
    let lun = thin_disk();
    let (ran, entry) = sends_one(&lun, "sg_readcap", &[]);
    ran.says(&[
        "Last LBA=32767 (0x7fff), Number of logical blocks=32768",
        "Logical block length=512 bytes",
        "Device size: 16777216 bytes",
    ]);
    assert_eq!(entry.command, "READ CAPACITY(10)");
    let (ran, entry) = sends_one(&lun, "sg_readcap", &["--long"]);
    ran.says(&[
        "Protection: prot_en=0",
        "Logical block provisioning: lbpme=1, lbprz=1",
        "Last LBA=32767 (0x7fff)",
        "Logical blocks per physical block exponent=0",
    ]);
    assert_eq!(entry.command, "READ CAPACITY(16)");
}

/// SBC-3, READ CAPACITY(10): FFFFFFFFh sends the initiator to READ CAPACITY(16). 3 TiB are 6442450944
/// blocks.
#[test]
fn sg_readcap_finds_the_capacity_beyond_2_tib() {
    declare!(Contract, STORAGE);
    let lun = Lun::with(LunSpec {
        device_type: DeviceType::Processor,
        blocks: 6_442_450_944,
        provisioning: Provisioning::Thin,
        physical_blocks: PhysicalBlocks { exponent: 3, lowest_aligned: 0 },
        ..LunSpec::default()
    });
    on_bsg(&lun, "sg_readcap", &[]).says(&[
        "READ CAPACITY (10) indicates device capacity too large",
        "now trying 16 byte cdb variant",
        "Last LBA=6442450943 (0x17fffffff), Number of logical blocks=6442450944",
        "Logical blocks per physical block exponent=3",
        "so physical block length=4096 bytes",
    ]);
}

/// The pool of the shared host has units at a few LUNs of each target.
#[test]
fn sg_luns_decodes_the_list() {
    declare!(Contract, STORAGE);
    let lun = thin_disk();
    let (ran, entry) = sends_one(&lun, "sg_luns", &["--decode"]);
    let ours = format!("Peripheral device addressing: lun={}", lun.address().lun);
    ran.says(&["Lun list length = 32 which implies 4 lun entries", &ours]);
    assert_eq!((entry.command.as_str(), entry.status), ("REPORT LUNS", 0));
}

/// SPC-4, MODE SENSE(10); SBC-3, Caching mode page, and DPOFUA in the header.
#[test]
fn sg_modes_decodes_header_descriptor_and_pages() {
    declare!(Contract, STORAGE);
    let (ran, entry) = sends_one(&thin_disk(), "sg_modes", &[]);
    ran.says(&[
        "peripheral_type: disk [0x0]",
        "Mode parameter header from MODE SENSE(10):",
        "WP=0",
        "DpoFua=1, longlba=0",
        "Block descriptor length=8",
        "Direct access device block descriptors:",
        "00 00 00 80 00 00 00 02 00",
        "Caching, page_control: current",
        "00 08 12",
        "Control, page_control: current",
        "00 0a 0a",
    ]);
    assert_eq!(entry.cdb, "5a003f00000000200000");
}

#[test]
fn sg_modes_shows_write_protection() {
    declare!(Contract, STORAGE);
    let device_type = DeviceType::Disk;
    let lun = Lun::with(LunSpec { device_type, write_protect: true, ..LunSpec::default() });
    on_bsg(&lun, "sg_modes", &["--page=8"]).says(&["WP=1"]);
}

#[test]
fn sg_requests_decodes_that_there_is_nothing() {
    declare!(Contract, STORAGE);
    let (ran, entry) = sends_one(&thin_disk(), "sg_requests", &[]);
    ran.says(&[
        "Fixed format, current; Sense key: No Sense",
        "Additional sense: No additional sense information",
    ]);
    assert_eq!(entry.cdb, "03000000fc00");
}
