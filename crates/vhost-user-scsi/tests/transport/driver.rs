//! What a virtio-scsi driver does with the rings: requests and responses byte by byte as in virtio 1.2,
//! 5.6.6, and a device to send them to.

use std::{path::PathBuf, sync::Arc, time::Duration};

use control::{Client, Faults};
use device_server::{Device, DeviceConfig, DeviceType, LuConfig, LunAddress};
use fault::Times;
use scsi_fault::{Effect, Rule};
use tempfile::TempDir;
use vhost_user_scsi::{
    backend::FrontEnd,
    control_server::ControlServer,
    socket::{self, SocketPath},
    target::{Settings, Target},
};

use crate::guest::{Descriptor, Guest};

pub(crate) const CONTROL_QUEUE: usize = 0;
pub(crate) const EVENT_QUEUE: usize = 1;
pub(crate) const REQUEST_QUEUE: usize = 2;

/// LUN 0 of target 0, a processor device, as Linux writes the field.
pub(crate) const UNIT: [u8; 8] = [1, 0, 0x40, 0, 0, 0, 0, 0];
/// LUN 1 of target 0, a disk.
pub(crate) const DISK: [u8; 8] = [1, 0, 0x40, 1, 0, 0, 0, 0];

pub(crate) const TEST_UNIT_READY: [u8; 6] = [0; 6];

/// So many of the next commands are held, until they are released.
pub(crate) fn holding(commands: u64) -> Faults {
    let rule = Rule::new("hold", Effect::hold()).times(Times::First(commands));
    Faults { seed: 0, rules: vec![rule] }
}

/// The daemon's inside on sockets of its own: target 0 with LUN 0 (processor) and 1 (disk), target 3
/// with LUN 300 (processor); two ports of four request queues each.
pub(crate) struct Daemon {
    pub(crate) target: Arc<Target>,
    pub(crate) socket: PathBuf,
    pub(crate) other_socket: PathBuf,
    pub(crate) control: PathBuf,
    servers: Option<(Vec<FrontEnd>, ControlServer)>,
    _paths: Vec<SocketPath>,
    _directory: TempDir,
}

impl Daemon {
    pub(crate) fn start() -> Daemon {
        // As long as the library's own.
        Self::start_with_limit(Duration::from_secs(3))
    }

    /// With this limit on waiting for commands in flight.
    pub(crate) fn start_with_limit(limit: Duration) -> Daemon {
        Self::start_with(Settings { wait_limit: limit, ..Settings::new(2, 4) })
    }

    /// With settings of two ports and four request queues each.
    pub(crate) fn start_with(settings: Settings) -> Daemon {
        let unit = LuConfig::default();
        let disk = LuConfig { device_type: DeviceType::Disk, ..unit.clone() };
        let units = vec![
            (LunAddress { target: 0, lun: 0 }, unit.clone()),
            (LunAddress { target: 0, lun: 1 }, disk),
            (LunAddress { target: 3, lun: 300 }, unit),
        ];
        let device = Device::new(DeviceConfig { identifier: 0, units }).expect("a fine device");
        let target = Target::new(device, Settings { hostile: true, ..settings }).expect("a thread");
        let directory = tempfile::tempdir().expect("a directory");
        let place = |name| directory.path().join(name);
        let (socket, other_socket, control) = (place("scsi"), place("other"), place("control"));
        let (listeners, mut paths): (Vec<_>, Vec<_>) = [&socket, &other_socket]
            .map(|socket| socket::bind(socket).expect("our directory"))
            .into_iter()
            .unzip();
        let front_ends = (0..)
            .zip(listeners)
            .map(|(port, listener)| FrontEnd::start(target.clone(), port, listener, || ()))
            .collect::<Result<_, _>>()
            .expect("threads");
        let (listener, control_path) = socket::bind(&control).expect("our directory");
        paths.push(control_path);
        let control_server = ControlServer::start(target.clone(), listener).expect("threads");
        Daemon {
            target,
            socket,
            other_socket,
            control,
            servers: Some((front_ends, control_server)),
            _paths: paths,
            _directory: directory,
        }
    }

    pub(crate) fn guest(&self) -> Guest {
        Guest::connect(&self.socket, 4)
    }

    /// A guest on the other port.
    pub(crate) fn other_guest(&self) -> Guest {
        Guest::connect(&self.other_socket, 4)
    }

    /// Stops the servers, if they still run.
    pub(crate) fn stop(&mut self) {
        if let Some((front_ends, control)) = self.servers.take() {
            for front_end in front_ends {
                front_end.stop().expect("no failure before");
            }
            control.stop().expect("no failure before");
        }
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.control, Duration::from_secs(20)).expect("it listens")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The answer to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) used_len: u32,
    pub(crate) residual: u32,
    pub(crate) status_qualifier: u16,
    pub(crate) status: u8,
    pub(crate) response: u8,
    pub(crate) sense: Vec<u8>,
    pub(crate) data_in: Vec<u8>,
}

/// The 51 bytes before data-out.
pub(crate) fn request(lun: [u8; 8], tag: u64, cdb: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(51);
    bytes.extend(lun);
    bytes.extend(tag.to_le_bytes());
    bytes.extend([0, 0, 0]); // task_attr, prio, crn
    bytes.extend(cdb);
    bytes.resize(51, 0);
    bytes
}

/// The 24 bytes of a task management request.
pub(crate) fn task_management_request(lun: [u8; 8], subtype: u32, tag: u64) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.extend(subtype.to_le_bytes());
    bytes.extend(lun);
    bytes.extend(tag.to_le_bytes());
    bytes
}

/// The 16 bytes of an asynchronous notification request.
pub(crate) fn notification_request(kind: u32, lun: [u8; 8], events: u32) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend(lun);
    bytes.extend(events.to_le_bytes());
    bytes
}

impl Guest {
    /// Sends a command and waits for the answer. `data_out` and `room_in` may be empty.
    #[track_caller]
    pub(crate) fn command(
        &self,
        lun: [u8; 8],
        cdb: &[u8],
        data_out: &[u8],
        room_in: u32,
    ) -> Answer {
        self.command_on(REQUEST_QUEUE, lun, cdb, data_out, room_in)
    }

    #[track_caller]
    pub(crate) fn command_on(
        &self,
        queue: usize,
        lun: [u8; 8],
        cdb: &[u8],
        data_out: &[u8],
        room_in: u32,
    ) -> Answer {
        let mut descriptors = vec![self.out(&request(lun, 1, cdb))];
        if !data_out.is_empty() {
            descriptors.push(self.out(data_out));
        }
        let response = self.room(108);
        descriptors.push(response);
        let data_in = self.room(room_in);
        if room_in > 0 {
            descriptors.push(data_in);
        }
        let head = self.submit(queue, &descriptors);
        let used = self.used(queue);
        assert_eq!(used.head, head);
        self.answer(used.len, response, data_in)
    }

    /// Reads an answer out of its two buffers.
    pub(crate) fn answer(
        &self,
        used_len: u32,
        response: Descriptor,
        data_in: Descriptor,
    ) -> Answer {
        let bytes = self.read(response.address, 108);
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        Answer {
            used_len,
            residual: word(4),
            status_qualifier: u16::from_le_bytes([bytes[8], bytes[9]]),
            status: bytes[10],
            response: bytes[11],
            sense: bytes[12..12 + word(0) as usize].to_vec(),
            data_in: self.read(data_in.address, data_in.len as usize),
        }
    }

    /// Sends bytes to the control queue; returns the used length and the room for the answer.
    #[track_caller]
    pub(crate) fn control(&self, bytes: &[u8], room: u32) -> (u32, Vec<u8>) {
        let answer = self.room(room);
        let mut descriptors = vec![self.out(bytes)];
        if room > 0 {
            descriptors.push(answer);
        }
        let head = self.submit(CONTROL_QUEUE, &descriptors);
        let used = self.used(CONTROL_QUEUE);
        assert_eq!(used.head, head);
        (used.len, self.read(answer.address, room as usize))
    }

    /// Sends a task management function and returns the response byte.
    #[track_caller]
    pub(crate) fn task_management(&self, lun: [u8; 8], subtype: u32, tag: u64) -> u8 {
        let (used_len, answer) = self.control(&task_management_request(lun, subtype, tag), 1);
        assert_eq!(used_len, 1);
        answer[0]
    }
}

/// READ(10) or WRITE(10) by opcode.
pub(crate) fn transfer_10(opcode: u8, lba: u32, blocks: u16) -> [u8; 10] {
    let [l3, l2, l1, l0] = lba.to_be_bytes();
    let [b1, b0] = blocks.to_be_bytes();
    [opcode, 0, l3, l2, l1, l0, 0, b1, b0, 0]
}

pub(crate) fn read_10(lba: u32, blocks: u16) -> [u8; 10] {
    transfer_10(0x28, lba, blocks)
}

pub(crate) fn write_10(lba: u32, blocks: u16) -> [u8; 10] {
    transfer_10(0x2a, lba, blocks)
}

/// INQUIRY with this ALLOCATION LENGTH.
pub(crate) fn inquiry(allocation_length: u16) -> [u8; 6] {
    let [high, low] = allocation_length.to_be_bytes();
    [0x12, 0, 0, high, low, 0]
}

/// Bytes that tell from which block and position they are.
pub(crate) fn pattern(blocks: u32, seed: u32) -> Vec<u8> {
    (0..blocks * 128)
        .flat_map(|word| (word.wrapping_mul(0x9e37_79b9) ^ seed).to_le_bytes())
        .collect()
}
