//! ublk devices that do not outlive their test.

use std::{path::PathBuf, thread, time::Duration};

use ublk::{Control, Errno, Features, uapi::DevInfo};

use crate::wait;

/// How long the deletion of a device, or a change of its state, may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// A device that this test made, or took over from a server it killed. It is deleted at the end of
/// the test, however the test ends.
#[derive(Debug)]
pub struct UblkDevice {
    control: Control,
    info: DevInfo,
    deleted: bool,
}

impl UblkDevice {
    /// `ADD_DEV`. Nobody serves the device yet.
    #[track_caller]
    pub fn add(info: &DevInfo) -> Self {
        let mut control = open();
        let info = control.add(info).unwrap_or_else(|error| panic!("{error}"));
        if Features::from_bits_retain(info.flags).contains(Features::UNPRIVILEGED_DEV) {
            control.say_path();
        }
        UblkDevice { control, info, deleted: false }
    }

    /// A device of another process.
    #[track_caller]
    pub fn adopt(dev_id: u32) -> Self {
        let mut control = open();
        let mut info = control.info(dev_id);
        if info.as_ref().is_err_and(|error| error.errno() == Some(Errno::INVAL)) {
            // A device of the unprivileged has to be named by its path, whoever asks.
            control.say_path();
            info = control.info(dev_id);
        }
        let info = info.unwrap_or_else(|error| panic!("{error}"));
        UblkDevice { control, info, deleted: false }
    }

    /// Whether there is a device of this number; if so, what it is.
    #[track_caller]
    pub fn find(dev_id: u32) -> Option<DevInfo> {
        match open().info(dev_id) {
            Ok(info) => Some(info),
            Err(error) if error.errno() == Some(Errno::NODEV) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.info.dev_id
    }

    /// What the driver said of it when this value was made.
    pub fn info(&self) -> &DevInfo {
        &self.info
    }

    /// Its state now.
    #[track_caller]
    pub fn state(&mut self) -> u16 {
        self.control.info(self.info.dev_id).unwrap_or_else(|error| panic!("{error}")).state
    }

    /// Waits until it is in this state (UBLK_S_DEV_*, include/uapi/linux/ublk_cmd.h).
    #[track_caller]
    pub fn await_state(&mut self, state: u16) {
        let what = format!("state {state}");
        let reached = wait::until(DEADLINE, what, || (self.state() == state).then_some(()));
        reached.unwrap_or_else(|error| panic!("{error}"));
    }

    /// `START_USER_RECOVERY` of a device whose state says that it is without its server, as soon as nobody has the char
    /// device.
    #[track_caller]
    pub fn start_recovery(&mut self) {
        let begun = self.control.start_recovery_when_free(self.info.dev_id, DEADLINE);
        begun.unwrap_or_else(|error| panic!("{error}"));
    }

    /// The block device, `/dev/ublkbN`.
    pub fn block_path(&self) -> PathBuf {
        format!("/dev/ublkb{}", self.info.dev_id).into()
    }

    /// The control plane.
    pub fn control(&mut self) -> &mut Control {
        &mut self.control
    }

    /// `DEL_DEV`, now instead of at the end.
    #[track_caller]
    pub fn delete(mut self) {
        self.remove().unwrap_or_else(|error| panic!("{error}"));
    }

    fn remove(&mut self) -> Result<(), ublk::Error> {
        self.deleted = true;
        match self.control.delete(self.info.dev_id) {
            // The test has deleted it by other means.
            Err(error) if error.errno() == Some(Errno::NODEV) => Ok(()),
            other => other,
        }
    }
}

fn open() -> Control {
    let mut control = Control::open().unwrap_or_else(|error| panic!("{error}"));
    control.set_timeout(DEADLINE);
    control
}

impl Drop for UblkDevice {
    fn drop(&mut self) {
        if self.deleted {
            return;
        }
        let removed = self.remove();
        // A test that is failing already says why itself.
        if !thread::panicking() {
            removed.unwrap_or_else(|error| panic!("{error}"));
        }
    }
}
