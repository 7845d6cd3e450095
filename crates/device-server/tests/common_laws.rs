//! The laws that hold for every implementation, tried on the device server: each on a unit of its own.

use device_server::{
    DataBuffers, Device, DeviceConfig, DeviceType, LuConfig, LunAddress, MediumConfig, NexusId,
    PhysicalBlocks, Provisioning, SgList, TaskContext, TmfResponse,
};
use laws::{Completion, Transport, Unit};
use libtest_mimic::{Arguments, Trial};
use scsi::task::{TaskAttribute, TaskManagementFunction};

const ADDRESS: LunAddress = LunAddress { target: 0, lun: 0 };

struct InProcess(Device);

impl InProcess {
    fn with(unit: Unit, medium: MediumConfig) -> Self {
        let config = LuConfig {
            device_type: DeviceType::Disk,
            block_len: unit.block_len,
            blocks: laws::BLOCKS,
            medium,
            provisioning: if unit.thin { Provisioning::Thin } else { Provisioning::Full },
            physical_blocks: PhysicalBlocks { exponent: unit.physical_exponent, lowest_aligned: 0 },
            ..LuConfig::default()
        };
        let config = DeviceConfig { identifier: 1, units: vec![(ADDRESS, config)] };
        InProcess(Device::new(config).expect("accepted"))
    }
}

fn nexus_id(nexus: usize) -> NexusId {
    NexusId(u32::try_from(nexus).expect("few"))
}

impl Transport for InProcess {
    fn execute(&self, nexus: usize, cdb: &[u8], data_out: &[u8], data_in_len: usize) -> Completion {
        let (mut out, mut data) = (data_out.to_vec(), vec![0xee; data_in_len]);
        let mut buffers = DataBuffers {
            data_out: SgList::from(&mut out[..]),
            data_in: SgList::from(&mut data[..]),
        };
        let task = TaskContext { tag: 1, attribute: TaskAttribute::Simple, cdb };
        let outcome = self.0.execute(nexus_id(nexus), ADDRESS, &task, &mut buffers);
        assert!(!outcome.overrun, "{cdb:02x?} wants larger buffers");
        assert_eq!(out, data_out, "data-out was written to");
        let moved = usize::try_from(outcome.data_in_len).expect("short");
        assert!(data[moved..].iter().all(|byte| *byte == 0xee), "wrote behind its count");
        data.truncate(moved);
        let offered = data_out.len() + data_in_len;
        Completion {
            status: outcome.status.code(),
            sense: outcome.sense.unwrap_or_default(),
            data,
            residual: offered as u64 - outcome.data_in_len - outcome.data_out_len,
        }
    }

    fn logical_unit_reset(&self, nexus: usize) {
        let function = TaskManagementFunction::LogicalUnitReset;
        let response = self.0.task_management(nexus_id(nexus), ADDRESS, function);
        assert_eq!(response, TmfResponse::FunctionComplete);
    }
}

/// Each law on a medium in RAM and on one in a file.
fn trials() -> impl Iterator<Item = Trial> {
    laws::all().flat_map(|law| {
        let in_ram = Trial::test(format!("{} in RAM", law.title()), || {
            law.check(&InProcess::with(law.unit, MediumConfig::Ram));
            Ok(())
        });
        let in_a_file = Trial::test(format!("{} in a file", law.title()), || {
            let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
            let medium = MediumConfig::File { path: folder.path().join("medium") };
            law.check(&InProcess::with(law.unit, medium));
            Ok(())
        });
        [in_ram, in_a_file]
    })
}

fn main() {
    libtest_mimic::run(&Arguments::from_args(), trials().collect()).exit();
}
