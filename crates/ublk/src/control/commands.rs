//! Every control command as a function (`drivers/block/ublk_drv.c:ublk_ctrl_uring_cmd` of Linux 7.3).

use std::{ops::Range, process, sync::Arc, time::Duration};

use rustix::io::Errno;
use uring_cmd::Region;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::{Control, len_u16};
use crate::{
    error::Error,
    features::Features,
    uapi::{ANY_DEVICE, CtrlCmd, DevInfo, Params, ShmemBufReg, ctrl, shmem, state},
};

/// Bytes of a mask of CPUs: those of 4096.
const CPU_MASK_LEN: usize = 512;

/// Room for one structure, zeroed.
fn room<T>() -> Vec<u8> {
    vec![0; size_of::<T>()]
}

/// The structure that fills an answer.
fn value<T: FromBytes>(bytes: &[u8]) -> T {
    T::read_from_bytes(bytes).expect("the buffer was made to fit")
}

impl Control {
    /// `GET_FEATURES`: what the driver knows. It takes no path, as it is about no device.
    pub fn features(&mut self) -> Result<Features, Error> {
        let says_path = std::mem::take(&mut self.says_path);
        let command = CtrlCmd::for_device(ANY_DEVICE);
        let answer =
            self.exchange("GET_FEATURES", ctrl::GET_FEATURES, command, &0_u64.to_le_bytes());
        self.says_path = says_path;
        Ok(Features::from_bits_retain(value(&answer?.payload)))
    }

    /// `ADD_DEV`: makes a device and returns it as the driver did. It takes no path, as there is none yet.
    pub fn add(&mut self, info: &DevInfo) -> Result<DevInfo, Error> {
        let says_path = std::mem::take(&mut self.says_path);
        let command = CtrlCmd::for_device(info.dev_id);
        let answer = self.exchange("ADD_DEV", ctrl::ADD_DEV, command, info.as_bytes());
        self.says_path = says_path;
        Ok(value(&answer?.payload))
    }

    /// `GET_DEV_INFO`.
    pub fn info(&mut self, dev_id: u32) -> Result<DevInfo, Error> {
        let command = CtrlCmd::for_device(dev_id);
        let answer =
            self.exchange("GET_DEV_INFO", ctrl::GET_DEV_INFO, command, &room::<DevInfo>())?;
        Ok(value(&answer.payload))
    }

    /// `GET_DEV_INFO2`, which always says the path: whoever does not know whether the device is one of
    /// [`Features::UNPRIVILEGED_DEV`] asks so.
    pub fn info2(&mut self, dev_id: u32) -> Result<DevInfo, Error> {
        let command = CtrlCmd::for_device(dev_id);
        let answer =
            self.exchange("GET_DEV_INFO2", ctrl::GET_DEV_INFO2, command, &room::<DevInfo>())?;
        Ok(value(&answer.payload))
    }

    /// `GET_QUEUE_AFFINITY`: the CPUs whose requests come on this queue.
    pub fn queue_affinity(&mut self, dev_id: u32, queue: u16) -> Result<Vec<u32>, Error> {
        let command = CtrlCmd { data: queue.into(), ..CtrlCmd::for_device(dev_id) };
        let op = ctrl::GET_QUEUE_AFFINITY;
        let answer = self.exchange("GET_QUEUE_AFFINITY", op, command, &[0; CPU_MASK_LEN])?;
        let bit = |cpu: &u32| answer.payload[*cpu as usize / 8] >> (cpu % 8) & 1 == 1;
        let cpus = len_u16(8 * CPU_MASK_LEN);
        Ok((0..u32::from(cpus)).filter(bit).collect())
    }

    /// `SET_PARAMS`. Only before the start.
    pub fn set_params(&mut self, dev_id: u32, params: &Params) -> Result<(), Error> {
        let command = CtrlCmd::for_device(dev_id);
        self.exchange("SET_PARAMS", ctrl::SET_PARAMS, command, params.as_bytes()).map(drop)
    }

    /// `GET_PARAMS`.
    pub fn params(&mut self, dev_id: u32) -> Result<Params, Error> {
        let mut params = Params::new_zeroed();
        params.len = u32::from(len_u16(size_of::<Params>()));
        let command = CtrlCmd::for_device(dev_id);
        let answer = self.exchange("GET_PARAMS", ctrl::GET_PARAMS, command, params.as_bytes())?;
        Ok(value(&answer.payload))
    }

    /// `START_DEV` on behalf of this process. Waits for every queue to have fetched every tag.
    pub fn start(&mut self, dev_id: u32) -> Result<(), Error> {
        let command = CtrlCmd { data: process::id().into(), ..CtrlCmd::for_device(dev_id) };
        self.plain("START_DEV", ctrl::START_DEV, command)
    }

    /// `STOP_DEV`: removes the block device and gives all fetches back. Waits for requests to be
    /// committed, so the server must go on serving.
    pub fn stop(&mut self, dev_id: u32) -> Result<(), Error> {
        self.plain("STOP_DEV", ctrl::STOP_DEV, CtrlCmd::for_device(dev_id))
    }

    /// `TRY_STOP_DEV`: as `STOP_DEV`, unless somebody has the block device open (EBUSY).
    pub fn try_stop(&mut self, dev_id: u32) -> Result<(), Error> {
        self.plain("TRY_STOP_DEV", ctrl::TRY_STOP_DEV, CtrlCmd::for_device(dev_id))
    }

    /// `DEL_DEV`: stops the device, removes it, and waits until its number is free, that is until
    /// its char device is closed.
    pub fn delete(&mut self, dev_id: u32) -> Result<(), Error> {
        self.plain("DEL_DEV", ctrl::DEL_DEV, CtrlCmd::for_device(dev_id))
    }

    /// `DEL_DEV_ASYNC`: as `DEL_DEV`, but without waiting for the number.
    pub fn delete_async(&mut self, dev_id: u32) -> Result<(), Error> {
        self.plain("DEL_DEV_ASYNC", ctrl::DEL_DEV_ASYNC, CtrlCmd::for_device(dev_id))
    }

    /// `START_USER_RECOVERY`: asks whether another server may come. EBUSY while the char device is open.
    pub fn start_recovery(&mut self, dev_id: u32) -> Result<(), Error> {
        let op = ctrl::START_USER_RECOVERY;
        self.plain("START_USER_RECOVERY", op, CtrlCmd::for_device(dev_id))
    }

    /// The same, as soon as the char device counts as closed. That is a moment after the state has told that the server is
    /// gone (drivers/block/ublk_drv.c:ublk_ch_release_work_fn clears UB_STATE_OPEN last). A device that has a server is
    /// EBUSY at once, one that somebody holds open without serving it when `patience` is over.
    pub fn start_recovery_when_free(
        &mut self,
        dev_id: u32,
        patience: Duration,
    ) -> Result<(), Error> {
        let is_busy = |begun: &Result<(), Error>| {
            begun.as_ref().is_err_and(|error| error.errno() == Some(Errno::BUSY))
        };
        let begun = self.start_recovery(dev_id);
        let is_without = |state| matches!(state, state::QUIESCED | state::FAIL_IO);
        if !is_busy(&begun) || !is_without(self.info(dev_id)?.state) {
            return begun;
        }
        let begun = wait::until(patience, "the char device", || {
            Some(self.start_recovery(dev_id)).filter(|begun| !is_busy(begun))
        });
        // The last word is the driver's, who says what is in the way.
        begun.unwrap_or_else(|_| self.start_recovery(dev_id))
    }

    /// `END_USER_RECOVERY` on behalf of this process: the device is served again. Waits for every queue to have
    /// fetched every tag.
    pub fn end_recovery(&mut self, dev_id: u32) -> Result<(), Error> {
        let command = CtrlCmd { data: process::id().into(), ..CtrlCmd::for_device(dev_id) };
        self.plain("END_USER_RECOVERY", ctrl::END_USER_RECOVERY, command)
    }

    /// `UPDATE_SIZE`: the block device has so many sectors from now on.
    pub fn update_size(&mut self, dev_id: u32, sectors: u64) -> Result<(), Error> {
        let command = CtrlCmd { data: sectors, ..CtrlCmd::for_device(dev_id) };
        self.plain("UPDATE_SIZE", ctrl::UPDATE_SIZE, command)
    }

    /// `QUIESCE_DEV`: gives all fetches back and keeps the block device, for the next server. EBUSY if each tag of a
    /// queue is with the server for so long; in milliseconds, and zero is for ever.
    pub fn quiesce(&mut self, dev_id: u32, patience: Duration) -> Result<(), Error> {
        let data = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        let command = CtrlCmd { data, ..CtrlCmd::for_device(dev_id) };
        self.plain("QUIESCE_DEV", ctrl::QUIESCE_DEV, command)
    }

    /// `REG_BUF`: requests whose data lies in this memory, because the application shares it, need no copy
    /// ([`Features::SHMEM_ZC`]). Returns the index of the buffer. The driver pins its pages.
    ///
    /// # Panics
    /// If the range is not inside the region.
    pub fn register_shared(
        &mut self,
        dev_id: u32,
        region: &Arc<Region>,
        range: Range<usize>,
        read_only: bool,
    ) -> Result<u16, Error> {
        assert!(range.start <= range.end && range.end <= region.len(), "{range:?}");
        let wide = |len: usize| u64::try_from(len).expect("an address has 64 bits");
        let buffer = ShmemBufReg {
            addr: region.address() + wide(range.start),
            len: wide(range.len()),
            flags: if read_only { shmem::READ_ONLY } else { 0 },
            reserved: 0,
        };
        let command = CtrlCmd::for_device(dev_id);
        let answer = self.exchange("REG_BUF", ctrl::REG_BUF, command, buffer.as_bytes())?;
        Ok(u16::try_from(answer.res).expect("the driver has 65536 indices"))
    }

    /// `UNREG_BUF`.
    pub fn unregister_shared(&mut self, dev_id: u32, index: u16) -> Result<(), Error> {
        let command = CtrlCmd { data: index.into(), ..CtrlCmd::for_device(dev_id) };
        self.plain("UNREG_BUF", ctrl::UNREG_BUF, command)
    }

    fn plain(&mut self, name: &'static str, op: u32, command: CtrlCmd) -> Result<(), Error> {
        self.exchange(name, op, command, &[]).map(drop)
    }
}
