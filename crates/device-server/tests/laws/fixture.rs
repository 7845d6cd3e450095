//! A device with one unit, and what the tests ask of it.

use device_server::{
    DataBuffers, Device, DeviceConfig, DeviceType, LuConfig, LunAddress, NexusId, Outcome, SgList,
    TaskContext,
};
use scsi::{Status, task::TaskAttribute};
use vm_memory::VolatileSlice;

/// Where [`Bench::new`] puts its unit.
pub(crate) const UNIT: LunAddress = LunAddress { target: 3, lun: 0x0102 };

/// A device and the address commands go to.
pub(crate) struct Bench {
    pub(crate) device: Device,
    pub(crate) address: LunAddress,
}

/// A disk of 64 blocks of 512 bytes.
pub(crate) fn disk() -> LuConfig {
    LuConfig { device_type: DeviceType::Disk, blocks: 64, ..LuConfig::default() }
}

impl Bench {
    pub(crate) fn new(config: LuConfig) -> Bench {
        let config = DeviceConfig { identifier: 0xa1b2_c3d4, units: vec![(UNIT, config)] };
        Bench { device: Device::new(config).expect("accepted"), address: UNIT }
    }

    /// Runs a command without data.
    pub(crate) fn run(&self, cdb: &[u8]) -> Outcome {
        self.transfer(cdb, &mut [], &mut [])
    }

    /// Runs a command with buffers of one piece each.
    pub(crate) fn transfer(&self, cdb: &[u8], out: &mut [u8], data_in: &mut [u8]) -> Outcome {
        self.scattered(cdb, &mut [out], &mut [data_in])
    }

    /// Runs a command with buffers of several pieces.
    pub(crate) fn scattered(
        &self,
        cdb: &[u8],
        out: &mut [&mut [u8]],
        data_in: &mut [&mut [u8]],
    ) -> Outcome {
        let mut data = DataBuffers {
            data_out: out.iter_mut().map(|piece| VolatileSlice::from(&mut **piece)).collect(),
            data_in: data_in.iter_mut().map(|piece| VolatileSlice::from(&mut **piece)).collect(),
        };
        self.execute(cdb, TaskAttribute::Simple, &mut data)
    }

    pub(crate) fn execute(
        &self,
        cdb: &[u8],
        attribute: TaskAttribute,
        data: &mut DataBuffers<'_>,
    ) -> Outcome {
        let task = TaskContext { tag: 1, attribute, cdb };
        self.device.execute(NexusId(0), self.address, &task, data)
    }

    /// What a command sends into a buffer with room for all of it.
    #[track_caller]
    pub(crate) fn receive(&self, cdb: &[u8]) -> Vec<u8> {
        let mut buffer = vec![0xee; 4096];
        let outcome = self.transfer(cdb, &mut [], &mut buffer);
        assert_eq!(outcome.status, Status::Good, "{:02x?}", outcome.sense);
        assert!(!outcome.overrun);
        let len = usize::try_from(outcome.data_in_len).expect("short");
        assert!(buffer[len..].iter().all(|byte| *byte == 0xee), "wrote behind its count");
        buffer.truncate(len);
        buffer
    }

    /// The sense bytes of a command that must fail without moving anything.
    #[track_caller]
    pub(crate) fn refused(&self, cdb: &[u8]) -> Vec<u8> {
        let (mut out, mut data_in) = (vec![0xaa; 64 * 4096], vec![0xee; 64 * 4096]);
        let mut data = DataBuffers {
            data_out: SgList::from(&mut out[..]),
            data_in: SgList::from(&mut data_in[..]),
        };
        let outcome = self.execute(cdb, TaskAttribute::Simple, &mut data);
        assert_eq!(outcome.status, Status::CheckCondition);
        assert_eq!((outcome.data_in_len, outcome.data_out_len), (0, 0));
        assert!(!outcome.overrun);
        assert!(data_in.iter().all(|byte| *byte == 0xee), "moved data");
        outcome.sense.expect("CHECK CONDITION comes with sense data")
    }
}

/// Fixed format sense data without further fields.
pub(crate) fn sense(key: u8, asc: u8, ascq: u8) -> [u8; 18] {
    [0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, ascq, 0, 0, 0, 0]
}

/// INVALID FIELD IN CDB, the field beginning at this byte.
pub(crate) fn invalid_byte(byte: u8) -> [u8; 18] {
    [0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0, 0, 0xc0, 0, byte]
}

/// INVALID FIELD IN CDB, the field beginning at this bit.
pub(crate) fn invalid_bit(byte: u8, bit: u8) -> [u8; 18] {
    [0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0, 0, 0xc8 | bit, 0, byte]
}

/// Blocks whose every byte tells the block, so that a wrong address is visible.
pub(crate) fn pattern(first: u8, blocks: u8, block_len: usize) -> Vec<u8> {
    (first..first + blocks).flat_map(|block| vec![block; block_len]).collect()
}
