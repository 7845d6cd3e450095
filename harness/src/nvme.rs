//! A block device behind the kernel's own NVMe target, over its loop transport: NVMe commands that become requests of
//! the device, among them those that no system call makes, such as a zone append (drivers/nvme/target).

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    mem::offset_of,
    os::{fd::AsFd, unix::fs::symlink},
    path::{Path, PathBuf},
    time::Duration,
};

use bsg::Buffer;
use rustix::{
    io::Errno,
    ioctl::{Updater, ioctl},
    mount::{MountFlags, mount},
};

use crate::{modules::Modules, sysfs, wait};

const NAME: &str = "sensecheck";
const CONFIG: &str = "/sys/kernel/config";
const DEADLINE: Duration = Duration::from_secs(20);

/// `NVME_IOCTL_IO_CMD` (include/uapi/linux/nvme_ioctl.h), `_IOWR('N', 0x43, struct nvme_passthru_cmd)`.
const IO_CMD: u32 = 0xc048_4e43;

/// Zone Append (NVMe ZNS Command Set Specification): command dwords 10 and 11 are the zone's first LBA, the lower half of
/// dword 12 the number of blocks less one; the result is the LBA the data went to.
const ZONE_APPEND: u8 = 0x7d;

/// `struct nvme_passthru_cmd`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct PassthruCmd {
    opcode: u8,
    flags: u8,
    rsvd1: u16,
    nsid: u32,
    cdw2: u32,
    cdw3: u32,
    metadata: u64,
    addr: u64,
    metadata_len: u32,
    data_len: u32,
    cdw10: u32,
    cdw11: u32,
    cdw12: u32,
    cdw13: u32,
    cdw14: u32,
    cdw15: u32,
    timeout_ms: u32,
    result: u32,
}

const _: () = assert!(
    size_of::<PassthruCmd>() == 72
        && offset_of!(PassthruCmd, addr) == 24
        && offset_of!(PassthruCmd, data_len) == 36
        && offset_of!(PassthruCmd, cdw10) == 40
        && offset_of!(PassthruCmd, result) == 68
);

/// What came of an NVMe command that reached its controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Dword 0 of its completion.
    Done(u32),
    /// Its status code and type.
    Status(i32),
}

/// A namespace whose medium is a block device. Dropping it takes it down again.
#[derive(Debug)]
pub struct NvmeLoop {
    namespace: File,
    controller: PathBuf,
}

impl NvmeLoop {
    /// Gives a block device to the target, and connects to that. Needs the module `nvme_loop` in the image.
    #[track_caller]
    pub fn over(device: &Path) -> Self {
        let modules = Modules::of_image().and_then(|modules| modules.load("nvme_loop", ""));
        modules.unwrap_or_else(|error| panic!("{error}"));
        match mount("none", CONFIG, "configfs", MountFlags::empty(), None) {
            Ok(()) | Err(Errno::BUSY) => {}
            Err(error) => panic!("configfs: {error}"),
        }
        offer(device).unwrap_or_else(|error| panic!("the NVMe target: {error}"));
        let number = connect().unwrap_or_else(|error| panic!("the NVMe host: {error}"));
        let controller = PathBuf::from(format!("/sys/class/nvme/nvme{number}"));
        let node = PathBuf::from(format!("/dev/nvme{number}n1"));
        let open = || OpenOptions::new().read(true).write(true).open(&node).ok();
        let namespace = wait::until(DEADLINE, "the namespace's node", open);
        let namespace = namespace.unwrap_or_else(|error| panic!("{error}"));
        NvmeLoop { namespace, controller }
    }

    /// Appends whole blocks of 512 bytes to the zone that begins at an LBA.
    pub fn append(&self, zone: u32, data: &[u8]) -> io::Result<Answer> {
        let mut buffer = Buffer::copy_of(data)?;
        let blocks = u32::try_from(data.len() / 512).expect("short");
        let mut command = PassthruCmd {
            opcode: ZONE_APPEND,
            nsid: 1,
            addr: buffer.address(),
            data_len: blocks * 512,
            cdw10: zone,
            cdw12: blocks - 1,
            ..PassthruCmd::default()
        };
        // SAFETY: the kernel reads and writes the structure, as the number says, and reads `data_len` bytes at `addr`,
        // which are the buffer's: it outlives the call.
        let done = unsafe {
            let updater = Updater::<IO_CMD, PassthruCmd>::new(&mut command);
            ioctl(self.namespace.as_fd(), Status(updater))
        };
        drop(buffer);
        Ok(match done? {
            0 => Answer::Done(command.result),
            status => Answer::Status(status),
        })
    }
}

/// The ioctl, whose return value is a status.
struct Status<'a>(Updater<'a, IO_CMD, PassthruCmd>);

// SAFETY: it is the updater's, but for the return value, which is a number.
unsafe impl rustix::ioctl::Ioctl for Status<'_> {
    type Output = i32;
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> rustix::ioctl::Opcode {
        self.0.opcode()
    }

    fn as_ptr(&mut self) -> *mut rustix::ffi::c_void {
        self.0.as_ptr()
    }

    unsafe fn output_from_ptr(
        returned: rustix::ioctl::IoctlOutput,
        _pointer: *mut rustix::ffi::c_void,
    ) -> rustix::io::Result<i32> {
        Ok(returned)
    }
}

fn subsystem() -> PathBuf {
    Path::new(CONFIG).join("nvmet/subsystems").join(NAME)
}

fn port() -> PathBuf {
    Path::new(CONFIG).join("nvmet/ports/1")
}

fn offer(device: &Path) -> io::Result<()> {
    let (subsystem, port) = (subsystem(), port());
    fs::create_dir(&subsystem)?;
    fs::write(subsystem.join("attr_allow_any_host"), "1")?;
    let namespace = subsystem.join("namespaces/1");
    fs::create_dir(&namespace)?;
    fs::write(namespace.join("device_path"), device.display().to_string())?;
    fs::write(namespace.join("enable"), "1")?;
    fs::create_dir(&port)?;
    fs::write(port.join("addr_trtype"), "loop")?;
    symlink(&subsystem, port.join("subsystems").join(NAME))
}

/// The number of the controller.
fn connect() -> io::Result<u32> {
    const HOST: &str = "0a0a0a0a-0000-4000-8000-000000000001";
    let mut fabrics = OpenOptions::new().read(true).write(true).open("/dev/nvme-fabrics")?;
    let words = format!(
        "transport=loop,nqn={NAME},hostnqn=nqn.2014-08.org.nvmexpress:uuid:{HOST},hostid={HOST}"
    );
    fabrics.write_all(words.as_bytes())?;
    let mut said = String::new();
    fabrics.read_to_string(&mut said)?;
    let number = said.split(',').find_map(|word| word.strip_prefix("instance=")?.parse().ok());
    number.ok_or_else(|| io::Error::other(format!("it said {said:?}")))
}

/// Takes down what there is of it.
fn withdraw() -> io::Result<()> {
    let (subsystem, port) = (subsystem(), port());
    fs::remove_file(port.join("subsystems").join(NAME))?;
    fs::remove_dir(port)?;
    fs::write(subsystem.join("namespaces/1/enable"), "0")?;
    fs::remove_dir(subsystem.join("namespaces/1"))?;
    fs::remove_dir(subsystem)
}

impl Drop for NvmeLoop {
    fn drop(&mut self) {
        let ended = fs::write(self.controller.join("delete_controller"), "1");
        let ended = ended.and_then(|()| withdraw());
        if let Err(error) = ended {
            // A test that fails has said why already.
            assert!(std::thread::panicking(), "the NVMe target stays: {error}");
        }
        sysfs::vanish(&self.controller);
    }
}
