//! The other end: guest memory in a memfd, rings laid out by hand from the virtio specification, and a
//! vhost-user front end that hands them to the device. Nothing here is shared with the device's code.

use std::{
    cell::Cell,
    fs::File,
    io::Read,
    net::Shutdown,
    os::{fd::AsRawFd, unix::net::UnixStream},
    path::Path,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::BorrowedFd,
    fs::{MemfdFlags, memfd_create},
};
use vhost::{
    VhostBackend, VhostUserMemoryRegionInfo, VringConfigData,
    vhost_user::{
        Frontend, VhostUserFrontend,
        message::{
            VhostUserHeaderFlag, VhostUserInflight, VhostUserProtocolFeatures,
            VhostUserVirtioFeatures,
        },
    },
};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Bytes of guest memory.
pub(crate) const MEMORY_LEN: u64 = 16 << 20;
/// Entries of each ring.
pub(crate) const RING_LEN: u16 = 128;

const F_EVENT_IDX: u64 = 1 << 29;
const F_INDIRECT_DESC: u64 = 1 << 28;
const F_VERSION_1: u64 = 1 << 32;

const DESC_NEXT: u16 = 1;
const DESC_WRITE: u16 = 2;
const DESC_INDIRECT: u16 = 4;

/// Each ring has its structures in 64 KiB of its own, below the data.
const RING_AREA: u64 = 0x1_0000;
const AVAILABLE: u64 = 0x4000;
const USED: u64 = 0x6000;
const DATA: u64 = 0x40_0000;

/// A wait is over after this, and the test has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a descriptor says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptor {
    pub(crate) address: u64,
    pub(crate) len: u32,
    pub(crate) flags: u16,
    pub(crate) next: u16,
}

/// What the device gave back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) head: u16,
    pub(crate) len: u32,
}

/// A guest with its front end.
pub(crate) struct Guest {
    pub(crate) frontend: Frontend,
    pub(crate) features: u64,
    memory: GuestMemoryMmap,
    data_end: Cell<u64>,
    rings: Vec<Ring>,
    event_idx: bool,
    inflight: Option<Inflight>,
}

/// The memory that says what is in flight, which the front end keeps.
pub(crate) struct Inflight {
    pub(crate) description: VhostUserInflight,
    pub(crate) file: File,
}

struct Ring {
    base: u64,
    kick: EventFd,
    call: EventFd,
    next_descriptor: Cell<u16>,
    available: Cell<u16>,
    kicked: Cell<u16>,
    used: Cell<u16>,
}

/// Negotiates; returns the front end and the features offered.
fn negotiate(socket: &Path, queues: u16, event_idx: bool, inflight: bool) -> (Frontend, u64) {
    let mut frontend = Frontend::connect(socket, queues.into()).expect("the device listens");
    frontend.set_owner().expect("owner");
    let features = frontend.get_features().expect("features");
    let wanted = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
        | F_VERSION_1
        | F_INDIRECT_DESC
        | if event_idx { F_EVENT_IDX } else { 0 };
    assert_eq!(features & wanted, wanted, "offered: {features:#x}");
    let offered = frontend.get_protocol_features().expect("protocol features");
    // MQ, REPLY_ACK, INFLIGHT_SHMFD, CONFIGURE_MEM_SLOTS. QEMU warns about CONFIG.
    assert_eq!(offered.bits(), 1 << 0 | 1 << 3 | 1 << 12 | 1 << 15);
    let mut acked = offered;
    acked.set(VhostUserProtocolFeatures::INFLIGHT_SHMFD, inflight);
    frontend.set_protocol_features(acked).expect("protocol features");
    frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    assert!(frontend.get_queue_num().expect("queue number") >= u64::from(queues));
    frontend.set_features(wanted).expect("features");
    (frontend, features)
}

impl Guest {
    /// Connects to the device and starts control, event and `request_queues` request queues, all with
    /// EVENT_IDX.
    pub(crate) fn connect(socket: &Path, request_queues: u16) -> Guest {
        Self::connect_with(socket, request_queues, true, false)
    }

    /// The same with a front end that keeps the memory that says what is in flight.
    pub(crate) fn connect_with_inflight(socket: &Path, request_queues: u16) -> Guest {
        Self::connect_with(socket, request_queues, true, true)
    }

    pub(crate) fn connect_with(
        socket: &Path,
        request_queues: u16,
        event_idx: bool,
        inflight: bool,
    ) -> Guest {
        let queues = 2 + request_queues;
        let (frontend, features) = negotiate(socket, queues, event_idx, inflight);
        let mut guest = Guest {
            frontend,
            features,
            memory: new_memory(),
            data_end: Cell::new(DATA),
            rings: Vec::new(),
            event_idx,
            inflight: None,
        };
        guest.share_memory();
        if inflight {
            let asked = VhostUserInflight::new(0, 0, queues, RING_LEN);
            let (description, file) = guest.frontend.get_inflight_fd(&asked).expect("inflight");
            guest.inflight = Some(Inflight { description, file });
            guest.share_inflight();
        }
        for index in 0..queues {
            guest.rings.push(Ring {
                base: u64::from(index) * RING_AREA,
                kick: EventFd::new(EFD_NONBLOCK).expect("eventfd"),
                call: EventFd::new(EFD_NONBLOCK).expect("eventfd"),
                next_descriptor: Cell::new(0),
                available: Cell::new(0),
                kicked: Cell::new(0),
                used: Cell::new(0),
            });
            guest.start_ring(index.into(), 0);
        }
        guest
    }

    /// Hangs up, without a word about the rings, as if the device had died, and waits until it leaves
    /// them alone. The guest goes on.
    pub(crate) fn lose_device(&mut self) {
        let connection = borrow(&self.frontend).try_clone_to_owned().expect("a descriptor");
        let mut connection = UnixStream::from(connection);
        // An error means that the device is gone already; it closes its end when it has ended.
        if connection.shutdown(Shutdown::Write).is_ok() {
            let _gone = connection.read_to_end(&mut Vec::new());
        }
        // A connection to nobody; the old one is closed with the old front end.
        let (nobody, _) = UnixStream::pair().expect("sockets");
        self.frontend = Frontend::from_stream(nobody, self.rings.len() as u64);
    }

    /// Connects to the device that has taken the place of a lost one, as QEMU does: each ring begins
    /// where the guest got its last answer.
    pub(crate) fn reconnect(&mut self, socket: &Path) {
        let queues = u16::try_from(self.rings.len()).expect("a few");
        (self.frontend, _) = negotiate(socket, queues, self.event_idx, self.inflight.is_some());
        self.share_memory();
        self.share_inflight();
        for queue in 0..self.rings.len() {
            self.start_ring(queue, self.used_index(queue));
        }
    }

    pub(crate) fn inflight(&self) -> &Inflight {
        self.inflight.as_ref().expect("connected with it")
    }

    pub(crate) fn share_inflight(&mut self) {
        if let Some(Inflight { description, file }) = &self.inflight {
            self.frontend.set_inflight_fd(description, file.as_raw_fd()).expect("inflight");
        }
    }

    fn share_memory(&self) {
        self.frontend.set_mem_table(&[self.region()]).expect("memory table");
    }

    /// How its memory is described to the device: one region from guest address 0 on.
    pub(crate) fn region(&self) -> VhostUserMemoryRegionInfo {
        let region = self.memory.iter().next().expect("one region");
        VhostUserMemoryRegionInfo::from_guest_region(region).expect("a mapped file")
    }

    /// Zeroes a stopped ring, as a driver does that resets the device and sets up its queues anew.
    pub(crate) fn clear_ring(&self, queue: usize) {
        let ring = &self.rings[queue];
        self.write(ring.base, &[0; 0x8000]);
        for index in [&ring.next_descriptor, &ring.available, &ring.kicked, &ring.used] {
            index.set(0);
        }
    }

    /// Writes an entry of the used ring, and not its index.
    pub(crate) fn write_used_entry(&self, queue: usize, index: u16, used: Used) {
        let entry = self.rings[queue].base + USED + 4 + 8 * u64::from(index % RING_LEN);
        self.write(entry, &u32::from(used.head).to_le_bytes());
        self.write(entry + 4, &used.len.to_le_bytes());
    }

    /// Writes the index of the used ring.
    pub(crate) fn write_used_index(&self, queue: usize, index: u16) {
        self.write(self.rings[queue].base + USED + 2, &index.to_le_bytes());
    }

    pub(crate) fn start_ring(&mut self, queue: usize, base: u16) {
        self.frontend.set_vring_base(queue, base).expect("ring base");
        self.try_start_ring_at(queue, self.rings[queue].base).expect("a ring in the memory");
    }

    /// Starts a ring at an offset from where the front end sees the memory.
    pub(crate) fn try_start_ring_at(
        &mut self,
        queue: usize,
        offset: u64,
    ) -> Result<(), vhost::Error> {
        let ring = &self.rings[queue];
        self.frontend.set_vring_num(queue, RING_LEN).expect("ring size");
        let start = self.region().userspace_addr + offset;
        let config = VringConfigData {
            queue_max_size: RING_LEN,
            queue_size: RING_LEN,
            flags: 0,
            desc_table_addr: start,
            avail_ring_addr: start + AVAILABLE,
            used_ring_addr: start + USED,
            log_addr: None,
        };
        self.frontend.set_vring_addr(queue, &config)?;
        self.frontend.set_vring_call(queue, &ring.call)?;
        self.frontend.set_vring_kick(queue, &ring.kick)?;
        self.frontend.set_vring_enable(queue, true)
    }

    /// Stops a ring and returns the next available index the device would have looked at.
    pub(crate) fn stop_ring(&self, queue: usize) -> u16 {
        u16::try_from(self.frontend.get_vring_base(queue).expect("ring base")).expect("16 bits")
    }

    /// Gives the device a new eventfd for interrupts of a running ring.
    pub(crate) fn replace_call(&mut self, queue: usize) {
        self.rings[queue].call = EventFd::new(EFD_NONBLOCK).expect("eventfd");
        self.frontend.set_vring_call(queue, &self.rings[queue].call).expect("call");
    }

    /// Room for `len` bytes of data; the oldest is used again after some MiB.
    pub(crate) fn allocate(&self, len: u64) -> u64 {
        let mut address = self.data_end.get();
        if address + len > MEMORY_LEN {
            address = DATA;
        }
        assert!(address + len <= MEMORY_LEN, "{len} bytes are too many for this guest");
        self.data_end.set(address + len.next_multiple_of(64));
        address
    }

    pub(crate) fn write(&self, address: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(address)).expect("guest memory");
    }

    pub(crate) fn read(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read_slice(&mut bytes, GuestAddress(address)).expect("guest memory");
        bytes
    }

    /// A device-readable piece of memory with these bytes.
    pub(crate) fn out(&self, bytes: &[u8]) -> Descriptor {
        let address = self.allocate(bytes.len() as u64);
        self.write(address, bytes);
        let len = u32::try_from(bytes.len()).expect("short");
        Descriptor { address, len, flags: 0, next: 0 }
    }

    /// A device-writable piece of memory filled with `0xee`.
    pub(crate) fn room(&self, len: u32) -> Descriptor {
        let address = self.allocate(len.into());
        self.write(address, &vec![0xee; len as usize]);
        Descriptor { address, len, flags: DESC_WRITE, next: 0 }
    }

    /// Writes descriptors linked one to the next, makes them available and kicks. Returns the head.
    pub(crate) fn submit(&self, queue: usize, descriptors: &[Descriptor]) -> u16 {
        let head = self.place(queue, descriptors);
        self.make_available(queue, head);
        self.kick(queue);
        head
    }

    /// Writes descriptors linked one to the next, without making them available.
    pub(crate) fn place(&self, queue: usize, descriptors: &[Descriptor]) -> u16 {
        let ring = &self.rings[queue];
        let count = u16::try_from(descriptors.len()).expect("few descriptors");
        if ring.next_descriptor.get() + count > RING_LEN {
            ring.next_descriptor.set(0);
        }
        let head = ring.next_descriptor.get();
        ring.next_descriptor.set(head + count);
        let indices = head..head + count;
        for (index, descriptor) in indices.zip(descriptors) {
            let last = index + 1 == head + count;
            let (flags, next) = if last { (0, 0) } else { (DESC_NEXT, index + 1) };
            self.put(
                ring.base,
                index,
                Descriptor { flags: descriptor.flags | flags, next, ..*descriptor },
            );
        }
        head
    }

    /// Writes descriptors into an indirect table and returns the descriptor of the table.
    pub(crate) fn indirect(&self, descriptors: &[Descriptor]) -> Descriptor {
        let table = self.allocate(16 * descriptors.len() as u64);
        let count = u16::try_from(descriptors.len()).expect("few descriptors");
        for (index, descriptor) in (0..count).zip(descriptors) {
            let flags = if index + 1 == count { 0 } else { DESC_NEXT };
            self.put(
                table,
                index,
                Descriptor { flags: descriptor.flags | flags, next: index + 1, ..*descriptor },
            );
        }
        Descriptor { address: table, len: u32::from(count) * 16, flags: DESC_INDIRECT, next: 0 }
    }

    /// Writes one descriptor into a ring's table exactly as given.
    pub(crate) fn put_raw(&self, queue: usize, index: u16, descriptor: Descriptor) {
        self.put(self.rings[queue].base, index, descriptor);
    }

    fn put(&self, table: u64, index: u16, descriptor: Descriptor) {
        let mut bytes = Vec::new();
        bytes.extend(descriptor.address.to_le_bytes());
        bytes.extend(descriptor.len.to_le_bytes());
        bytes.extend(descriptor.flags.to_le_bytes());
        bytes.extend(descriptor.next.to_le_bytes());
        self.write(table + 16 * u64::from(index), &bytes);
    }

    /// Puts a head into the available ring, without kicking.
    pub(crate) fn make_available(&self, queue: usize, head: u16) {
        let ring = &self.rings[queue];
        let index = ring.available.get();
        let entry = ring.base + AVAILABLE + 4 + 2 * u64::from(index % RING_LEN);
        self.write(entry, &head.to_le_bytes());
        ring.available.set(index.wrapping_add(1));
        self.set_available_index(queue, ring.available.get());
    }

    /// Writes the index of the available ring.
    pub(crate) fn set_available_index(&self, queue: usize, index: u16) {
        let address = GuestAddress(self.rings[queue].base + AVAILABLE + 2);
        self.memory.store(index.to_le(), address, Ordering::SeqCst).expect("guest memory");
    }

    /// Kicks if the device asked for it, by the rules of EVENT_IDX or those without it, so that a
    /// kick the device forgot to ask for is a command that never ends.
    pub(crate) fn kick(&self, queue: usize) {
        let ring = &self.rings[queue];
        std::sync::atomic::fence(Ordering::SeqCst);
        let (old, new) = (ring.kicked.replace(ring.available.get()), ring.available.get());
        let wanted = if self.event_idx {
            let event = self.load(ring.base + USED + 4 + 8 * u64::from(RING_LEN));
            new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
        } else {
            self.load(ring.base + USED) & 1 == 0
        };
        if wanted {
            self.kick_anyway(queue);
        }
    }

    pub(crate) fn kick_anyway(&self, queue: usize) {
        self.rings[queue].kick.write(1).expect("eventfd");
    }

    fn load(&self, address: u64) -> u16 {
        u16::from_le(
            self.memory.load(GuestAddress(address), Ordering::SeqCst).expect("guest memory"),
        )
    }

    /// Index of the used ring.
    pub(crate) fn used_index(&self, queue: usize) -> u16 {
        self.load(self.rings[queue].base + USED + 2)
    }

    /// The next used entry if there is one.
    pub(crate) fn try_used(&self, queue: usize) -> Option<Used> {
        let ring = &self.rings[queue];
        let index = ring.used.get();
        if self.used_index(queue) == index {
            return None;
        }
        ring.used.set(index.wrapping_add(1));
        let entry = self.read(ring.base + USED + 4 + 8 * u64::from(index % RING_LEN), 8);
        let word = |at: usize| u32::from_le_bytes(entry[at..at + 4].try_into().expect("4 bytes"));
        Some(Used { head: u16::try_from(word(0)).expect("a head is 16 bits"), len: word(4) })
    }

    /// Waits for the next used entry by interrupt, as a driver does: nothing is found by luck.
    #[track_caller]
    pub(crate) fn used(&self, queue: usize) -> Used {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.ask_for_interrupt(queue);
            if let Some(used) = self.try_used(queue) {
                return used;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(self.interrupted(queue, left), "queue {queue}: no interrupt in {PATIENCE:?}");
        }
    }

    /// With EVENT_IDX: writes `used_event`, which asks for an interrupt at the next used entry.
    fn ask_for_interrupt(&self, queue: usize) {
        let ring = &self.rings[queue];
        let address = GuestAddress(ring.base + AVAILABLE + 4 + 2 * u64::from(RING_LEN));
        self.memory
            .store(ring.used.get().to_le(), address, Ordering::SeqCst)
            .expect("guest memory");
        std::sync::atomic::fence(Ordering::SeqCst);
    }

    /// How many interrupts have come since they were last taken.
    pub(crate) fn take_interrupts(&self, queue: usize) -> u64 {
        self.rings[queue].call.read().unwrap_or(0)
    }

    /// Waits for an interrupt of the queue and takes it.
    pub(crate) fn interrupted(&self, queue: usize, patience: Duration) -> bool {
        let call = &self.rings[queue].call;
        // The eventfd lives as long as `self`.
        let fd = borrow(call);
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        let timeout = Timespec::try_from(patience).expect("a short time");
        poll(&mut fds, Some(&timeout)).expect("poll") == 1 && call.read().is_ok()
    }
}

fn borrow(fd: &impl AsRawFd) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open as long as its owner, whose lifetime the result has.
    unsafe { BorrowedFd::borrow_raw(fd.as_raw_fd()) }
}

fn new_memory() -> GuestMemoryMmap {
    let file = File::from(memfd_create("guest", MemfdFlags::CLOEXEC).expect("memfd"));
    file.set_len(MEMORY_LEN).expect("memfd");
    let len = usize::try_from(MEMORY_LEN).expect("64 bits");
    let range = (GuestAddress(0), len, Some(FileOffset::new(file, 0)));
    GuestMemoryMmap::from_ranges_with_files([range]).expect("guest memory")
}
