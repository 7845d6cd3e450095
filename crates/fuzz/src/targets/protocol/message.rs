//! What a front end says: messages as the vhost-user specification lays them out, and such as it does not.

use std::{
    fs::{self, File},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use fastrand::Rng;
use rustix::{
    event::{EventfdFlags, eventfd},
    fs::{MemfdFlags, memfd_create},
    pipe::pipe,
};

use crate::mutate::{number, once_in, one};

/// Most descriptors of a message,
pub(super) const FILES_MAX: usize = 40;
/// and most that are received: with more the header is lost (vhost, recv_into_iovec_all), and the device waits
/// for the rest of another.
const FILES_TAKEN_MAX: usize = 32;

/// Numbers of requests (vhost-user, Front-end message types).
pub(super) mod code {
    pub(crate) const GET_FEATURES: u32 = 1;
    pub(crate) const SET_FEATURES: u32 = 2;
    pub(crate) const SET_OWNER: u32 = 3;
    pub(crate) const RESET_OWNER: u32 = 4;
    pub(crate) const SET_MEM_TABLE: u32 = 5;
    pub(crate) const SET_LOG_BASE: u32 = 6;
    pub(crate) const SET_VRING_NUM: u32 = 8;
    pub(crate) const SET_VRING_ADDR: u32 = 9;
    pub(crate) const SET_VRING_BASE: u32 = 10;
    pub(crate) const GET_VRING_BASE: u32 = 11;
    pub(crate) const SET_VRING_KICK: u32 = 12;
    pub(crate) const SET_VRING_CALL: u32 = 13;
    pub(crate) const SET_VRING_ERR: u32 = 14;
    pub(crate) const GET_PROTOCOL_FEATURES: u32 = 15;
    pub(crate) const SET_PROTOCOL_FEATURES: u32 = 16;
    pub(crate) const GET_QUEUE_NUM: u32 = 17;
    pub(crate) const SET_VRING_ENABLE: u32 = 18;
    pub(crate) const GET_CONFIG: u32 = 24;
    pub(crate) const GET_INFLIGHT_FD: u32 = 31;
    pub(crate) const SET_INFLIGHT_FD: u32 = 32;
    pub(crate) const GET_MAX_MEM_SLOTS: u32 = 36;
    pub(crate) const ADD_MEM_REG: u32 = 37;
    pub(crate) const REM_MEM_REG: u32 = 38;
    /// The last there is, and some beyond.
    pub(crate) const END: u32 = 50;
}

/// VERSION 1.
const VERSION: u32 = 1;
/// NEED_REPLY.
const NEED_REPLY: u32 = 8;

/// VIRTIO_F_VERSION_1, and what makes the protocol's own features possible.
pub(super) const FEATURES: u64 = 1 << 32 | 1 << 30;
/// MQ, REPLY_ACK, INFLIGHT_SHMFD, CONFIGURE_MEM_SLOTS.
pub(super) const PROTOCOL_FEATURES: u64 = 1 | 1 << 3 | 1 << 12 | 1 << 15;

/// Where the front end sees its memory: apart from where the guest does.
pub(super) const USER: u64 = 0x7000_0000;

/// A message to the device.
#[derive(Debug)]
pub(super) struct Message<'a> {
    pub(super) code: u32,
    flags: u32,
    /// The length the header tells, if that is not the payload's.
    told: Option<u32>,
    payload: Vec<u8>,
    /// Descriptors, and what they are.
    pub(super) files: Vec<(&'static str, BorrowedFd<'a>)>,
}

impl<'a> Message<'a> {
    /// A request for something.
    pub(super) fn get(code: u32) -> Self {
        Message { code, flags: VERSION, told: None, payload: Vec::new(), files: Vec::new() }
    }

    /// A message with these words that is to be acknowledged.
    pub(super) fn set(code: u32, words: &[u64]) -> Self {
        let payload = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        Message { flags: VERSION | NEED_REPLY, payload, ..Self::get(code) }
    }

    pub(super) fn with(self, file: &'a impl AsFd) -> Self {
        Message { files: vec![("", file.as_fd())], ..self }
    }

    /// Header and payload.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let len = u32::try_from(self.payload.len()).expect("short");
        let header = [self.code, self.flags, self.told.unwrap_or(len)].map(u32::to_le_bytes);
        [header.as_flattened(), &self.payload].concat()
    }

    /// Whether its end is found where it is.
    pub(super) fn is_honest(&self) -> bool {
        self.files.len() <= FILES_TAKEN_MAX
            && self.told.is_none_or(|told| told as usize == self.payload.len())
    }
}

/// Two 32-bit words, as vring states are.
pub(super) fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

/// Descriptors of all kinds. What is in them remembers nothing that matters.
pub(super) struct Files {
    all: Vec<(&'static str, OwnedFd)>,
    /// Files that can be memory, with their lengths.
    memory: Vec<(File, u64)>,
}

/// Names of memory files end in their length.
const MEMORY_NAME: &str = "sensecheck-fuzz-";

fn memory(len: u64) -> anyhow::Result<(File, u64)> {
    let file = File::from(memfd_create(format!("{MEMORY_NAME}{len}"), MemfdFlags::CLOEXEC)?);
    file.set_len(len)?;
    Ok((file, len))
}

impl Files {
    pub(super) fn new() -> anyhow::Result<Self> {
        let memory = [proper_len(), 0x1000, 0x1800, 0, 0x10_0000]
            .into_iter()
            .map(memory)
            .collect::<Result<_, _>>()?;
        let event = |flags| eventfd(0, EventfdFlags::CLOEXEC | flags);
        let full = event(EventfdFlags::empty())?;
        rustix::io::write(&full, &(u64::MAX - 1).to_ne_bytes())?;
        let (read, write) = pipe()?;
        let (unread, closed) = pipe()?;
        drop(unread);
        let (socket, _) = UnixStream::pair()?;
        let all = vec![
            ("eventfd", event(EventfdFlags::NONBLOCK)?),
            ("another eventfd", event(EventfdFlags::NONBLOCK)?),
            ("semaphore", event(EventfdFlags::SEMAPHORE)?),
            ("full eventfd", full),
            ("reading end", read),
            ("writing end", write),
            ("writing end without a reader", closed),
            ("socket without a peer", socket.into()),
            ("/dev/null", File::options().read(true).write(true).open("/dev/null")?.into()),
            ("/", File::open("/")?.into()),
        ];
        Ok(Files { all, memory })
    }

    /// The memory of a proper session.
    pub(super) fn proper_memory(&self) -> &File {
        &self.memory[0].0
    }

    fn any(&self, rng: &mut Rng) -> (&'static str, BorrowedFd<'_>) {
        match once_in(rng, 3) {
            true => ("memory", one(rng, &self.memory).0.as_fd()),
            false => {
                let (name, file) = one(rng, &self.all);
                (name, file.as_fd())
            }
        }
    }

    fn event(&self, rng: &mut Rng) -> (&'static str, BorrowedFd<'_>) {
        let (name, file) = one(rng, &self.all[..2]);
        (name, file.as_fd())
    }

    /// Of no file more is mapped than there is.
    pub(super) fn check_mappings(&self) {
        let maps = fs::read_to_string("/proc/self/maps").expect("our own");
        let ours = maps
            .lines()
            .filter_map(|line| line.split_once(MEMORY_NAME).map(|(map, len)| (line, map, len)));
        for (line, map, len) in ours {
            let len: u64 = len.trim_end_matches(" (deleted)").parse().expect("its length");
            let hex = |text: &str| u64::from_str_radix(text, 16).expect("hexadecimal");
            let mut fields = map.split_whitespace();
            let (start, end) =
                fields.next().and_then(|range| range.split_once('-')).expect("a range");
            let offset = hex(fields.nth(1).expect("an offset"));
            let end = offset + (hex(end) - hex(start));
            assert!(end <= len.next_multiple_of(0x1000), "mapped beyond the end: {line}");
        }
    }
}

/// Bytes of memory of a proper session.
pub(super) const fn proper_len() -> u64 {
    0x2_0000
}

/// A front end that knows what it has said.
pub(super) struct Speaker<'a> {
    files: &'a Files,
    /// What it says first, last to first.
    script: Vec<Message<'a>>,
}

impl<'a> Speaker<'a> {
    /// Most begin as a proper front end does, and get more or less far.
    pub(super) fn new(rng: &mut Rng, files: &'a Files) -> Self {
        let mut script = Vec::new();
        if !once_in(rng, 6) {
            script.extend([
                Message::get(code::GET_FEATURES),
                Message::set(code::SET_FEATURES, &[FEATURES]),
                Message::get(code::GET_PROTOCOL_FEATURES),
                Message::set(code::SET_PROTOCOL_FEATURES, &[PROTOCOL_FEATURES]),
            ]);
            if rng.bool() {
                script.push(table(&[region(0, 0)]).with(files.proper_memory()));
                for queue in 0..4 {
                    if rng.bool() {
                        script.extend(ring(queue, files.event(rng).1, files.event(rng).1));
                    }
                }
            }
            script.reverse();
        }
        Speaker { files, script }
    }

    /// What it says next.
    pub(super) fn next(&mut self, rng: &mut Rng) -> Message<'a> {
        let mut message = match self.script.pop() {
            Some(message) => message,
            None if once_in(rng, 30) => self.nonsense(rng),
            None => self.sense(rng),
        };
        if rng.bool() {
            message.flags ^= NEED_REPLY;
        }
        if once_in(rng, 40) {
            self.spoil(rng, &mut message);
        }
        message
    }

    /// A message that is what it should be, with values that need not be.
    fn sense(&self, rng: &mut Rng) -> Message<'a> {
        let queue = if once_in(rng, 30) { rng.u32(..) } else { rng.u32(0..4) };
        let state = |code, value| Message::set(code, &[pair(queue, value)]);
        match rng.u8(0..24) {
            0 => Message::get(*one(rng, GETS)),
            1 => Message::set(code::SET_FEATURES, &[FEATURES ^ flip(rng)]),
            2 => Message::set(code::SET_PROTOCOL_FEATURES, &[PROTOCOL_FEATURES ^ flip(rng)]),
            3 => Message::get(*one(rng, &[code::SET_OWNER, code::RESET_OWNER])),
            4 | 5 => self.memory_table(rng),
            6 => state(code::SET_VRING_NUM, *one(rng, &[16, 16, 1, 32768, 0, 15, 65536])),
            7 | 8 => Message::set(code::SET_VRING_ADDR, &addresses(rng, queue)),
            9 => state(
                code::SET_VRING_BASE,
                if once_in(rng, 8) { rng.u32(..) } else { rng.u32(0..3) },
            ),
            10 | 11 => state(code::GET_VRING_BASE, 0),
            12..=14 => self.vring_file(rng, code::SET_VRING_KICK, queue),
            15 => self.vring_file(rng, code::SET_VRING_CALL, queue),
            16 => self.vring_file(rng, code::SET_VRING_ERR, queue),
            17..=19 => state(code::SET_VRING_ENABLE, u32::from(!once_in(rng, 4))),
            20 => Message::set(code::GET_INFLIGHT_FD, &inflight(rng)),
            21 => {
                let file = self.some_memory(rng);
                Message { files: vec![file], ..Message::set(code::SET_INFLIGHT_FD, &inflight(rng)) }
            }
            22 => {
                let file = self.some_memory(rng);
                let words = [&[0][..], &any_region(rng)].concat();
                Message { files: vec![file], ..Message::set(code::ADD_MEM_REG, &words) }
            }
            _ => Message::set(code::REM_MEM_REG, &[&[0][..], &any_region(rng)].concat()),
        }
    }

    fn some_memory(&self, rng: &mut Rng) -> (&'static str, BorrowedFd<'a>) {
        if once_in(rng, 12) {
            self.files.any(rng)
        } else {
            ("memory", one(rng, &self.files.memory).0.as_fd())
        }
    }

    fn memory_table(&self, rng: &mut Rng) -> Message<'a> {
        let regions: Vec<_> =
            (0..rng.usize(0..4))
                .map(|at| {
                    if once_in(rng, 3) { any_region(rng) } else { region(at as u64 * 0x10_0000, 0) }
                })
                .collect();
        let files = regions.iter().map(|_| match once_in(rng, 8) {
            true => self.some_memory(rng),
            false => ("memory", self.files.proper_memory().as_fd()),
        });
        let files = files.collect();
        Message { files, ..table(&regions) }
    }

    fn vring_file(&self, rng: &mut Rng, code: u32, queue: u32) -> Message<'a> {
        // INVALID FD: there is none.
        let none = once_in(rng, 6);
        let message = Message::set(code, &[u64::from(queue & 0xff) | u64::from(none) << 8]);
        let file = if once_in(rng, 4) { self.files.any(rng) } else { self.files.event(rng) };
        if none { message } else { Message { files: vec![file], ..message } }
    }

    /// A message of any kind with anything in it.
    fn nonsense(&self, rng: &mut Rng) -> Message<'a> {
        let code = rng.u32(0..code::END);
        let words: Vec<u64> = (0..rng.usize(0..12)).map(|_| number(rng)).collect();
        let files = (0..rng.usize(0..3)).map(|_| self.files.any(rng)).collect();
        Message { files, ..Message::set(code, &words) }
    }

    /// Makes a message worse.
    fn spoil(&self, rng: &mut Rng, message: &mut Message<'a>) {
        match rng.u8(0..7) {
            0 => message.told = Some(u32::try_from(number(rng) & 0x1fff).expect("13 bits")),
            1 => message.told = Some(rng.u32(..)),
            2 => message.flags = rng.u32(..),
            3 => message.payload.truncate(rng.usize(0..=message.payload.len())),
            4 => message.payload.extend((0..rng.usize(0..64)).map(|_| rng.u8(..))),
            5 => {
                let more = *one(rng, &[1, 2, FILES_MAX]);
                let more = more.min(FILES_MAX - message.files.len());
                message.files.extend((0..more).map(|_| self.files.any(rng)));
            }
            _ => {
                if let Some(at) =
                    message.payload.len().checked_sub(1).map(|last| rng.usize(0..=last))
                {
                    message.payload[at] = rng.u8(..);
                }
            }
        }
    }
}

/// Requests for something without a body.
const GETS: &[u32] = &[
    code::GET_FEATURES,
    code::GET_PROTOCOL_FEATURES,
    code::GET_QUEUE_NUM,
    code::GET_MAX_MEM_SLOTS,
    code::GET_CONFIG,
    code::SET_LOG_BASE,
];

/// No bit, or one.
fn flip(rng: &mut Rng) -> u64 {
    if rng.bool() { 0 } else { 1 << rng.u32(0..64) }
}

/// Guest address, length, front end's address, offset.
type Region = [u64; 4];

/// All of the proper memory, so far behind its usual place, from an offset on.
pub(super) fn region(behind: u64, offset: u64) -> Region {
    [behind, proper_len(), USER + behind, offset]
}

fn any_region(rng: &mut Rng) -> Region {
    let mut region = region(u64::from(rng.u8(0..3)) * 0x10_0000, 0);
    region[1] = *one(rng, &[proper_len(), 0x1000, 0x1800, 0x2000, 0x10_0000]);
    if once_in(rng, 3) {
        region[rng.usize(0..4)] = number(rng);
    }
    region
}

/// SET_MEM_TABLE without its files.
pub(super) fn table(regions: &[Region]) -> Message<'static> {
    let words = [&[regions.len() as u64][..], regions.as_flattened()].concat();
    Message::set(code::SET_MEM_TABLE, &words)
}

/// Where rings of a proper session lie, from where the front end sees its memory.
pub(super) fn ring_addresses(queue: u32) -> [u64; 5] {
    let base = USER + u64::from(queue) * 0x4000;
    // Index and flags; descriptors, used, available, log.
    [pair(queue, 0), base, base + 0x2000, base + 0x1000, 0]
}

/// Starts a ring of 16 entries in the proper memory.
fn ring<'a>(queue: u32, call: BorrowedFd<'a>, kick: BorrowedFd<'a>) -> [Message<'a>; 6] {
    let file = |code, file| Message {
        files: vec![("eventfd", file)],
        ..Message::set(code, &[queue.into()])
    };
    [
        Message::set(code::SET_VRING_NUM, &[pair(queue, 16)]),
        Message::set(code::SET_VRING_BASE, &[pair(queue, 0)]),
        Message::set(code::SET_VRING_ADDR, &ring_addresses(queue)),
        file(code::SET_VRING_CALL, call),
        file(code::SET_VRING_KICK, kick),
        Message::set(code::SET_VRING_ENABLE, &[pair(queue, 1)]),
    ]
}

fn addresses(rng: &mut Rng, queue: u32) -> [u64; 5] {
    let mut addresses = ring_addresses(queue & 3);
    addresses[0] = pair(queue, 0);
    if once_in(rng, 4) {
        let at = rng.usize(0..5);
        addresses[at] = match rng.bool() {
            true => number(rng),
            false => addresses[at].wrapping_add(rng.u64(0..0x2_0000)),
        };
    }
    addresses
}

/// Length, offset, queues and entries. The structure ends with padding that is sent.
fn inflight(rng: &mut Rng) -> [u64; 3] {
    let queues = if once_in(rng, 6) { rng.u16(..) } else { 4 };
    let entries = if once_in(rng, 6) { rng.u16(..) } else { 16 };
    let len = if once_in(rng, 4) { number(rng) } else { 0x1000 };
    let offset = if once_in(rng, 6) { number(rng) } else { 0 };
    [len, offset, u64::from(queues) | u64::from(entries) << 16]
}
