//! The session of a front end that does as it should, with one command in it.

use std::{
    fs,
    os::{fd::OwnedFd, unix::fs::FileExt as _, unix::net::SocketAddr},
    time::Duration,
};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::{
    connection::Connection,
    message::{self, FEATURES, Files, Message, PROTOCOL_FEATURES, code, pair},
};

/// The first request queue.
const QUEUE: u32 = 2;
/// Entries of its ring.
const ENTRIES: u32 = 16;
/// Where its structures, its request and its response are in the memory.
const RING: u64 = QUEUE as u64 * 0x4000;
const REQUEST: u64 = 0x1_0000;
const RESPONSE: u64 = 0x1_1000;
/// A command is late after this: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(10);

/// This one, the timers', the front end's, and the worker's of the ring that runs.
const THREADS: usize = 4;

/// What this process has while a session runs in which one ring does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Census {
    descriptors: usize,
    /// Mappings of files for guests' memory and for what is in flight.
    mappings: usize,
}

impl Census {
    fn take() -> Self {
        let entries = |path| fs::read_dir(path).expect("our own").count();
        // The timers of a target that is gone end by themselves.
        let few = || (entries("/proc/self/task") == THREADS).then_some(());
        if let Err(error) = wait::until(PATIENCE, "no more threads than there should be", few) {
            panic!("{error}, there are {}", entries("/proc/self/task"));
        }
        let maps = fs::read_to_string("/proc/self/maps").expect("our own");
        Census {
            descriptors: entries("/proc/self/fd"),
            mappings: maps.lines().filter(|line| line.contains("/memfd:")).count(),
        }
    }
}

/// Has TEST UNIT READY executed, and counts what there is meanwhile.
pub(super) fn session(address: &SocketAddr, files: &Files) -> Census {
    let event = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("an eventfd");
    let (kick, call) = (event(), event());
    let mut connection = Connection::open(address);
    let offered = connection.ask(&Message::get(code::GET_FEATURES));
    // VIRTIO_SCSI_F_HOTPLUG and F_CHANGE, INDIRECT_DESC, EVENT_IDX, the protocol's own, VERSION_1.
    assert_eq!(
        offered,
        (1_u64 << 1 | 1 << 2 | 1 << 28 | 1 << 29 | 1 << 30 | 1 << 32).to_le_bytes()
    );
    // Answered, so that the session before this one has ended, and nothing else writes to the memory.
    write_command(files);
    // Not acknowledged before REPLY_ACK is.
    connection.send(&Message::get(code::SET_OWNER)).expect("a proper session");
    connection.ask(&Message::get(code::GET_PROTOCOL_FEATURES));
    for message in [
        Message::set(code::SET_PROTOCOL_FEATURES, &[PROTOCOL_FEATURES]),
        Message::set(code::SET_FEATURES, &[FEATURES]),
        message::table(&[message::region(0, 0)]).with(files.proper_memory()),
        Message::set(code::SET_VRING_NUM, &[pair(QUEUE, ENTRIES)]),
        Message::set(code::SET_VRING_BASE, &[pair(QUEUE, 0)]),
        Message::set(code::SET_VRING_ADDR, &message::ring_addresses(QUEUE)),
        Message::set(code::SET_VRING_CALL, &[u64::from(QUEUE)]).with(&call),
        Message::set(code::SET_VRING_KICK, &[u64::from(QUEUE)]).with(&kick),
        Message::set(code::SET_VRING_ENABLE, &[pair(QUEUE, 1)]),
    ] {
        let acknowledged = connection.ask(&message);
        assert_eq!(acknowledged, [0; 8], "refused: {message:x?}");
    }
    rustix::io::write(&kick, &1_u64.to_ne_bytes()).expect("an eventfd");
    await_used(files, &call);
    check_answer(files);
    let census = Census::take();
    let base = connection.ask(&Message::set(code::GET_VRING_BASE, &[u64::from(QUEUE)]));
    assert_eq!(base, pair(QUEUE, 1).to_le_bytes(), "one was available");
    census
}

/// The ring with one chain of a request and room for a response, all of it by the virtio specification.
fn write_command(files: &Files) {
    let memory = files.proper_memory();
    let write = |at, bytes: &[u8]| memory.write_all_at(bytes, at).expect("a memory file");
    let zeros = vec![0; usize::try_from(message::proper_len()).expect("64 bits")];
    write(0, &zeros);
    let descriptor = |address: u64, len: u32, flags: u16, next: u16| {
        [&address.to_le_bytes()[..], &len.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()]
            .concat()
    };
    write(RING, &descriptor(REQUEST, 51, 1, 1));
    write(RING + 16, &descriptor(RESPONSE, 108, 2, 0));
    // LUN 0 of target 0, and a CDB of zeros.
    write(REQUEST, &[1, 0, 0x40, 0]);
    write(RESPONSE, &[0xee; 108]);
    // Index 1; entry 0 is descriptor 0.
    write(RING + 0x1000 + 2, &[1]);
}

fn await_used(files: &Files, call: &OwnedFd) {
    let timeout = Timespec::try_from(PATIENCE).expect("a short time");
    while read(files, RING + 0x2000, 4)[2] == 0 {
        let mut fds = [PollFd::new(call, PollFlags::IN)];
        assert_eq!(poll(&mut fds, Some(&timeout)), Ok(1), "no command ends in {PATIENCE:?}");
        rustix::io::read(call, &mut [0; 8]).expect("it was written");
    }
}

fn check_answer(files: &Files) {
    // Behind the flags: index 1; descriptor 0, 108 bytes.
    assert_eq!(read(files, RING + 0x2002, 10), [1, 0, 0, 0, 0, 0, 108, 0, 0, 0]);
    // No sense, no residual, GOOD, VIRTIO_SCSI_S_OK.
    assert_eq!(read(files, RESPONSE, 12), [0; 12]);
}

fn read(files: &Files, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    files.proper_memory().read_exact_at(&mut bytes, at).expect("a memory file");
    bytes
}
