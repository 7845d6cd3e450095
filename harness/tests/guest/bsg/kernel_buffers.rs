//! Buffers that a driver has registered with the ring: a ublk device whose requests go to a SCSI unit without a copy.

use std::{fs::File, sync::Arc, thread};

use bsg::{Access, Either, Node, Pointer, Request, Ring, Shape, UringCompletion, UringFrame};
use control::LunSpec;
use harness::{BlockDevice, Lun, UblkDevice, declare, sysfs};
use rstest::rstest;
use ublk::{
    Config, QueueCommand,
    uapi::{attr, param_type},
};

use super::{
    block,
    cdb::{self, Size},
    ways::{URING_CMD, Way, soon},
};

/// `UBLK_F_SUPPORT_ZERO_COPY` (include/uapi/linux/ublk_cmd.h).
const SUPPORT_ZERO_COPY: u64 = 1;

/// Blocks of the device, all of which each of its requests moves.
const BLOCKS: u8 = 8;
const LEN: u32 = 4096;

/// Serves the device from a SCSI unit, and keeps the results of what it tried.
struct Proxy {
    ring: Ring<Either<QueueCommand, UringFrame>>,
    node: Node,
    /// Results of each request: a block in, a block out, a block that ends a byte behind the buffer, all of it.
    seen: Vec<[i32; 4]>,
}

impl Proxy {
    /// Sends a queue command and waits for it.
    fn queue(&mut self, command: QueueCommand) -> (i32, QueueCommand) {
        self.ring.push(Either::First(command)).expect("room");
        loop {
            match self.ring.wait(soon()) {
                Ok(done) => match done.operation.expect("one completion each") {
                    Either::First(command) => return (done.cqe.res, command),
                    Either::Second(frame) => panic!("a command that was not sent: {frame:?}"),
                },
                // Nobody has asked the device for anything yet.
                Err(bsg::WaitError::Deadline { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Sends a SCSI command for `len` bytes at an offset of the registered buffer.
    fn scsi(&mut self, to_device: bool, at: u64, len: u32) -> i32 {
        let blocks = u8::try_from(len / 512).expect("few");
        let cdb = match to_device {
            true => cdb::write(Size::Ten, 0, blocks),
            false => cdb::read(Size::Ten, 0, blocks),
        };
        let mut frame = UringFrame::from(Request::new(&cdb)).aim(&self.node, 2);
        if to_device {
            (frame.command.dout_xfer_len, frame.dout) = (len, Pointer::Fixed(at));
        } else {
            (frame.command.din_xfer_len, frame.din) = (len, Pointer::Fixed(at));
        }
        self.ring.push(Either::Second(frame)).expect("room");
        let done = self.ring.wait(soon()).expect("completed");
        let cqe = done.cqe;
        let Some(Either::Second(frame)) = done.operation else { panic!("stray: {cqe:?}") };
        let done = bsg::Completed { cqe, operation: Some(frame) };
        let done = UringCompletion::new(done).expect("a command with its completion");
        if let Ok(completion) = done.completion() {
            harness::assert::assert_good(&completion);
        }
        done.res
    }

    /// Serves requests until the device is deleted.
    fn serve(mut self, device: Arc<File>) -> Vec<[i32; 4]> {
        let mut command = QueueCommand::fetch(device, 1);
        loop {
            let (res, fetched) = self.queue(command);
            if res == -19 {
                return self.seen;
            }
            assert_eq!(res, 0, "a request");
            let (res, registered) = self.queue(fetched.register_buffer(0));
            assert_eq!(res, 0, "registered");
            let block_in = self.scsi(false, 0, 512);
            let to_device = block_in != 0;
            let block_out = self.scsi(true, 0, 512);
            let behind = self.scsi(to_device, u64::from(LEN) - 511, 512);
            let all = self.scsi(to_device, 0, LEN);
            self.seen.push([block_in, block_out, behind, all]);
            let (res, unregistered) = self.queue(registered.unregister_buffer(0));
            assert_eq!(res, 0, "unregistered");
            command = unregistered.commit_and_fetch(LEN.cast_signed());
        }
    }
}

/// io_uring/rsrc.c:io_buffer_register_bvec and io_import_fixed: the buffer of a request that reads takes data from the
/// device and gives none, that of one that writes the other way round; what is not inside it is EFAULT. Its address is
/// an offset. The data goes between the two devices' pages without passing through this process.
#[rstest]
fn buffer_a_driver_has_registered_is_good_for_its_own_direction() {
    declare!(Contract, URING_CMD);
    let lun = Lun::with(LunSpec { blocks: BLOCKS.into(), ..LunSpec::default() });
    let data = cdb::pattern(0, BLOCKS, 1);
    block::write(&mut *Way::SgIoV4.open(lun.device()), Size::Ten, 0, BLOCKS, &data);

    let mut config = Config::disk(BLOCKS.into()).queues(1, 1);
    config.info.flags = SUPPORT_ZERO_COPY;
    config.params.types = param_type::BASIC;
    config.params.basic.attrs &= !attr::VOLATILE_CACHE;
    let mut device = UblkDevice::add(&config.info);
    let id = device.id();
    device.control().set_params(id, &config.params).expect("SET_PARAMS");
    let path = format!("/dev/ublkc{id}");
    sysfs::appear(path.as_ref());
    let char_device = File::options().read(true).write(true).open(&path).expect("the char device");
    let node = Node::open(lun.device().bsg(), Access::ReadWrite).expect("the node opens");
    let server = thread::spawn(move || {
        let mut ring = Ring::new(&Shape::big(8)).expect("a ring");
        ring.register_buffers(&[None]).expect("a table");
        Proxy { ring, node, seen: Vec::new() }.serve(Arc::new(char_device))
    });
    device.control().start(id).expect("START_DEV");

    let disk = BlockDevice::open(&device.block_path(), Access::ReadWrite);
    assert_eq!(disk.read(0, 4096).expect("read"), data);
    let other = cdb::pattern(0, BLOCKS, 2);
    disk.write(0, &other).expect("written");
    let unit = block::read(&mut *Way::SgIoV4.open(lun.device()), Size::Ten, 0, BLOCKS);
    assert_eq!(unit, other, "what the unit has");
    drop(disk);
    device.delete();
    let seen = server.join().expect("the server ends");
    let (reading, writing) = ([0, -14, -14, 0], [-14, 0, -14, 0]);
    assert!(seen.contains(&reading) && seen.contains(&writing), "{seen:?}");
    assert!(seen.iter().all(|results| [reading, writing].contains(results)), "{seen:?}");
}
