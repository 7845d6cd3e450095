//! The laws that hold for every implementation, tried on the device server: each on a unit of its own.

use std::{fs::File, num::NonZeroU64, path::PathBuf};

use device_server::{
    Begun, DataBuffers, Device, DeviceConfig, DeviceType, LuConfig, LunAddress, MediumConfig,
    NexusId, Outcome, PhysicalBlocks, Provisioning, SgList, TaskContext, TmfResponse,
};
use laws::{Completion, Transport, Unit};
use libtest_mimic::{Arguments, Trial};
use rustix::fs::{Advice, fadvise};
use scsi::task::{TaskAttribute, TaskManagementFunction};

const ADDRESS: LunAddress = LunAddress { target: 0, lun: 0 };

struct InProcess {
    device: Device,
    /// The file that is out of the page cache whenever a command begins.
    waits_for: Option<PathBuf>,
}

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
        InProcess { device: Device::new(config).expect("accepted"), waits_for: None }
    }

    /// Executes a command, and what it waits for afterwards, if this is what is tried.
    fn run(&self, nexus: NexusId, task: &TaskContext<'_>, data: &mut DataBuffers<'_>) -> Outcome {
        let Some(path) = &self.waits_for else {
            return self.device.execute(nexus, ADDRESS, task, data);
        };
        let file = File::open(path).expect("the medium");
        file.sync_data().expect("flushed");
        fadvise(&file, 0, NonZeroU64::new(u64::MAX >> 1), Advice::DontNeed).expect("evicted");
        match self.device.begin(nexus, ADDRESS, task, data) {
            Begun::Ended(outcome) => outcome,
            Begun::Waits(wait) => wait.end(None, data),
        }
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
        let outcome = self.run(nexus_id(nexus), &task, &mut buffers);
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
        let response = self.device.task_management(nexus_id(nexus), ADDRESS, function);
        assert_eq!(response, TmfResponse::FunctionComplete);
    }
}

/// Each law on a medium in RAM, on one in a file, and on one in a file that is waited for.
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
        let waiting = Trial::test(format!("{} in a file that is waited for", law.title()), || {
            let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
            let path = folder.path().join("medium");
            let medium = MediumConfig::File { path: path.clone() };
            law.check(&InProcess { waits_for: Some(path), ..InProcess::with(law.unit, medium) });
            Ok(())
        });
        [in_ram, in_a_file, waiting]
    })
}

fn main() {
    libtest_mimic::run(&Arguments::from_args(), trials().collect()).exit();
}
