//! QEMU's command line and the guest kernel's.

use std::{path::Path, sync::Arc};

use guest_protocol::{
    message::{LOAD_ARG, PORT_NAME},
    needs::{HostShape, VmShape},
};
use serde_json::{Map, Value};

use crate::{coverage::Recorder, qemu::Qemu};
use kernel::Kernel;

/// Name of the serial console's log in the directory of the machine.
pub(super) const CONSOLE_LOG: &str = "console.log";

/// How the guest's instructions are executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Accel {
    /// The host's virtualization.
    Kvm,
    /// QEMU's translator.
    Tcg,
}

impl Accel {
    /// QEMU's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Accel::Kvm => "kvm",
            Accel::Tcg => "tcg",
        }
    }

    /// By what factor a deadline that fits real hardware has to be stretched.
    pub fn slowdown(self) -> u32 {
        match self {
            Accel::Kvm => 1,
            Accel::Tcg => 3,
        }
    }
}

/// A place on the PCI bus that holds a SCSI host.
#[derive(Debug)]
pub struct Slot {
    /// Bus name in QEMU, for a slot behind a root port.
    pub bus: &'static str,
    /// Device number on the root bus, as QEMU's `addr` wants it.
    addr: &'static str,
    /// sysfs directory of the device or root port; the SCSI host is somewhere below.
    pub sysfs: &'static str,
}

/// Where the machine's shared SCSI host is.
pub const SHARED_SLOT: Slot =
    Slot { bus: "pcie.0", addr: "3", sysfs: "/sys/devices/pci0000:00/0000:00:03.0" };

/// Root ports that take the hosts of single tests.
pub const SPARE_SLOTS: [Slot; 6] = [
    Slot { bus: "spare0", addr: "4", sysfs: "/sys/devices/pci0000:00/0000:00:04.0" },
    Slot { bus: "spare1", addr: "5", sysfs: "/sys/devices/pci0000:00/0000:00:05.0" },
    Slot { bus: "spare2", addr: "6", sysfs: "/sys/devices/pci0000:00/0000:00:06.0" },
    Slot { bus: "spare3", addr: "7", sysfs: "/sys/devices/pci0000:00/0000:00:07.0" },
    Slot { bus: "spare4", addr: "8", sysfs: "/sys/devices/pci0000:00/0000:00:08.0" },
    Slot { bus: "spare5", addr: "9", sysfs: "/sys/devices/pci0000:00/0000:00:09.0" },
];

/// Always on the kernel command line.
///
/// `panic=-1` reboots at once, which `-no-reboot` turns into QEMU's end; without `printk.devkmsg=on`
/// the kernel would drop the marks of quick tests; a synchronous scan means that every unit is there
/// when virtio_scsi has loaded; `no_timer_check` skips a calibration that stalls when emulated CPUs
/// do not get their turn ("8254 timer not connected to IO-APIC").
const KERNEL_ARGS: &str =
    "console=ttyS0 loglevel=5 panic=-1 printk.devkmsg=on scsi_mod.scan=sync no_timer_check";

/// Everything that makes a machine.
#[derive(Debug)]
pub struct VmConfig<'a> {
    /// The QEMU to run.
    pub qemu: &'a Qemu,
    /// The kernel to boot.
    pub kernel: &'a Kernel,
    /// The initramfs.
    pub image: &'a Path,
    /// How to execute it.
    pub accel: Accel,
    /// Virtual CPUs.
    pub cpus: u16,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Words the user appends to the kernel command line.
    pub append: &'a str,
    /// What the tests of this machine need of it.
    pub shape: &'a VmShape,
    /// Who records which code of the kernel the machine reaches.
    pub recorder: Option<&'a Arc<Recorder>>,
}

impl VmConfig<'_> {
    /// QEMU's arguments; `dir` holds the sockets and logs of this machine, `shared_socket` is where
    /// the daemon of the shared SCSI host listens.
    pub(super) fn arguments(&self, dir: &Path, shared_socket: &Path) -> Vec<String> {
        let mut args = ["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]
            .map(String::from)
            .to_vec();
        let mut option = |name: &str, value: String| args.extend([format!("-{name}"), value]);

        option("machine", format!("q35,accel={},memory-backend=memory", self.accel.name()));
        let cpu = match self.accel {
            Accel::Kvm => "host",
            // QEMU 7.2 leaves garbage in the flags after CMPXCHG16B; an interrupt before the next
            // instruction that sets them puts it into the kernel's stack, and DF with it. Kernels
            // whose allocator uses the instruction (6.12) crash at random by that.
            Accel::Tcg => "max,cx16=off",
        };
        option("cpu", cpu.into());
        option("smp", self.cpus.to_string());
        option("m", format!("{}M", self.memory_mib));
        // vhost-user devices read and write guest memory from another process.
        option(
            "object",
            format!("memory-backend-memfd,id=memory,size={}M,share=on", self.memory_mib),
        );
        option("bios", self.qemu.qboot.display().to_string());
        option("kernel", self.kernel.image.display().to_string());
        option("initrd", self.image.display().to_string());
        option("append", self.kernel_command_line());
        if let Some(recorder) = self.recorder {
            option("plugin", recorder.plugin_option());
        }

        let path = |name: &str| dir.join(name).display().to_string();
        option("chardev", format!("file,id=console,path={}", path(CONSOLE_LOG)));
        option("serial", "chardev:console".into());
        option("chardev", format!("socket,id=qmp,path={}", path("qmp.sock")));
        option("mon", "chardev=qmp,mode=control".into());
        option("device", "virtio-serial-pci,addr=2".into());
        option("chardev", format!("socket,id=agent,path={}", path("agent.sock")));
        option("device", format!("virtserialport,chardev=agent,name={PORT_NAME}"));
        option("chardev", format!("socket,id=shared-socket,path={}", shared_socket.display()));
        let mut device = host_device("shared", "shared-socket", HostShape::default());
        device.insert("addr".into(), SHARED_SLOT.addr.into());
        option("device", Value::Object(device).to_string());
        for (chassis, slot) in SPARE_SLOTS.iter().enumerate() {
            let (bus, addr) = (slot.bus, slot.addr);
            option(
                "device",
                format!("pcie-root-port,id={bus},addr={addr},chassis={}", chassis + 1),
            );
        }
        args
    }

    fn kernel_command_line(&self) -> String {
        let mut words = vec![KERNEL_ARGS.to_owned()];
        for module in &self.shape.modules {
            words.push(format!("{LOAD_ARG}{}", module.name));
            words.extend(
                module.params.split_whitespace().map(|param| format!("{}.{param}", module.name)),
            );
        }
        let recorder = self.recorder.iter();
        words.extend(recorder.flat_map(|recorder| recorder.kernel_arguments()).map(str::to_owned));
        words.extend(self.shape.kernel_args.iter().map(ToString::to_string));
        words.extend((!self.append.is_empty()).then(|| self.append.to_owned()));
        words.join(" ")
    }
}

/// A vhost-user-scsi device as QEMU's `-device` and `device_add` take it.
pub(super) fn host_device(id: &str, chardev: &str, shape: HostShape) -> Map<String, Value> {
    let mut device = Map::new();
    device.insert("driver".into(), "vhost-user-scsi-pci".into());
    device.insert("id".into(), id.into());
    device.insert("chardev".into(), chardev.into());
    let mut set = |name: &str, value: Option<u64>| {
        if let Some(value) = value {
            device.insert(name.into(), value.into());
        }
    };
    set("num_queues", Some(shape.queues.unwrap_or(1).into()));
    set("virtqueue_size", shape.tags.map(u64::from));
    set("cmd_per_lun", shape.cmd_per_lun.map(u64::from));
    set("max_sectors", shape.max_sectors.map(u64::from));
    device
}
