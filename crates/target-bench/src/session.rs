//! A guest at work: it has introduced itself to a daemon and sends commands on one request queue.

use std::{
    hint,
    os::{fd::AsRawFd, unix::net::UnixStream},
    time::{Duration, Instant},
};

use serde::Serialize;
use vhost::{
    VhostBackend, VringConfigData,
    vhost_user::{
        Frontend, VhostUserFrontend,
        message::{VhostUserHeaderFlag, VhostUserProtocolFeatures, VhostUserVirtioFeatures},
    },
};
use vm_memory::VolatileRef;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use crate::{
    Error, image,
    memory::{DATA_MAX, Memory, SlotPlace, data_place},
    ring::{Piece, RING_LEN, Ring},
    workload::{Operation, Workload},
};

const F_INDIRECT_DESC: u64 = 1 << 28;
const F_EVENT_IDX: u64 = 1 << 29;
const F_VERSION_1: u64 = 1 << 32;

/// Control, event and one request queue (virtio 1.2, 5.6.2).
const QUEUES: usize = 3;
const REQUEST_QUEUE: usize = 2;

/// Lengths of `virtio_scsi_cmd_req` and `virtio_scsi_cmd_resp`, and where things are in them
/// (virtio 1.2, 5.6.6.1).
const REQUEST_LEN: u32 = 51;
const RESPONSE_LEN: u32 = 108;
const CDB: usize = 19;
/// Status qualifier, status and response, four bytes, are all zero for GOOD.
const OUTCOME: usize = 8;

/// READ(10) and WRITE(10), SBC-4 5.13 and 5.40; the LOGICAL BLOCK ADDRESS is bytes 2 to 5.
const READ_10: u8 = 0x28;
const WRITE_10: u8 = 0x2a;
const CDB_LBA: usize = 2;

/// An answer that has not come after this never will.
const PATIENCE: Duration = Duration::from_secs(10);

/// How the driver learns of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wait {
    /// It looks all the time and declines interrupts.
    Poll,
    /// It asks for an interrupt and sleeps.
    Interrupt,
}

/// What a run of commands came to.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) elapsed: Duration,
    /// Of each command, in nanoseconds, in the order of the answers.
    pub(crate) latencies_ns: Vec<u32>,
}

/// A connected guest.
pub(crate) struct Session<'m> {
    name: String,
    memory: &'m Memory,
    rings: Vec<Ring<'m>>,
    interrupt: Epoll,
    frontend: Frontend,
}

impl<'m> Session<'m> {
    /// Introduces itself to the daemon at the other end: shared memory, and queues that run.
    pub(crate) fn open(
        name: &str,
        memory: &'m Memory,
        stream: UnixStream,
    ) -> Result<Session<'m>, Error> {
        memory.clear_rings();
        let rings: Result<Vec<_>, _> = (0..QUEUES).map(|queue| Ring::new(memory, queue)).collect();
        let rings = rings?;
        let call = rings[REQUEST_QUEUE].call.as_raw_fd();
        let interrupt = Epoll::new().and_then(|epoll| {
            let event = EpollEvent::new(EventSet::IN, 0);
            epoll.ctl(ControlOperation::Add, call, event).map(|()| epoll)
        });
        let interrupt = interrupt.map_err(Error::system("wait for an eventfd"))?;
        let frontend = Frontend::from_stream(stream, QUEUES as u64);
        let mut session = Session { name: name.to_owned(), memory, rings, interrupt, frontend };
        session.negotiate()?;
        session.start_rings()?;
        Ok(session)
    }

    fn negotiate(&mut self) -> Result<(), Error> {
        let name = self.name.clone();
        let failed = |message| {
            let name = name.clone();
            move |source| Error::Protocol { name, message, source }
        };
        let frontend = &mut self.frontend;
        frontend.set_owner().map_err(failed("SET_OWNER"))?;
        let wanted = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
            | F_VERSION_1
            | F_INDIRECT_DESC
            | F_EVENT_IDX;
        let offered = frontend.get_features().map_err(failed("GET_FEATURES"))?;
        if offered & wanted != wanted {
            let what = "VERSION_1, INDIRECT_DESC, EVENT_IDX and protocol features";
            return Err(Error::Lacks { name, what });
        }
        let offered = frontend.get_protocol_features().map_err(failed("GET_PROTOCOL_FEATURES"))?;
        let wanted_if_offered =
            VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK;
        let chosen = offered & wanted_if_offered;
        frontend.set_protocol_features(chosen).map_err(failed("SET_PROTOCOL_FEATURES"))?;
        if chosen.contains(VhostUserProtocolFeatures::REPLY_ACK) {
            frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        }
        frontend.set_features(wanted).map_err(failed("SET_FEATURES"))?;
        let memory = self.memory.description();
        frontend.set_mem_table(&[memory]).map_err(failed("SET_MEM_TABLE"))?;
        Ok(())
    }

    fn start_rings(&mut self) -> Result<(), Error> {
        for (queue, ring) in self.rings.iter().enumerate() {
            let failed = |message| {
                let name = self.name.clone();
                move |source| Error::Protocol { name, message, source }
            };
            let place = ring.place();
            let config = VringConfigData {
                queue_max_size: RING_LEN,
                queue_size: RING_LEN,
                flags: 0,
                desc_table_addr: self.memory.host_address(place.descriptors),
                avail_ring_addr: self.memory.host_address(place.available),
                used_ring_addr: self.memory.host_address(place.used),
                log_addr: None,
            };
            let frontend = &mut self.frontend;
            frontend.set_vring_num(queue, RING_LEN).map_err(failed("SET_VRING_NUM"))?;
            frontend.set_vring_addr(queue, &config).map_err(failed("SET_VRING_ADDR"))?;
            frontend.set_vring_base(queue, 0).map_err(failed("SET_VRING_BASE"))?;
            frontend.set_vring_call(queue, &ring.call).map_err(failed("SET_VRING_CALL"))?;
            frontend.set_vring_kick(queue, &ring.kick).map_err(failed("SET_VRING_KICK"))?;
            frontend.set_vring_enable(queue, true).map_err(failed("SET_VRING_ENABLE"))?;
        }
        // Messages are taken in order, and this one has an answer: all queues run now. A kick before
        // that is lost on the peer.
        self.frontend.get_features().map(drop).map_err(|source| {
            let name = self.name.clone();
            Error::Protocol { name, message: "GET_FEATURES", source }
        })
    }

    /// Writes the command that `slot` stands for from now on. Its data lies in the guest's memory as
    /// that of a process does: no two descriptors are adjacent.
    fn prepare(&self, slot: u16, lun: u16, cdb: &[u8], load: &Workload) {
        let place = SlotPlace::of(slot);
        let mut request = [0; REQUEST_LEN as usize];
        // Target 0, flat addressing as Linux writes it; the command's identifier.
        let [high, low] = lun.to_be_bytes();
        request[..4].copy_from_slice(&[1, 0, high | 0x40, low]);
        request[8..10].copy_from_slice(&slot.to_le_bytes());
        request[CDB..CDB + cdb.len()].copy_from_slice(cdb);
        self.memory.write(place.request, &request);

        let header = |address, len, writable| Piece { address, len, writable };
        let data = |writable| {
            let len = u32::try_from(load.segment_len).expect("64 KiB at most");
            segments(slot, load).map(move |address| Piece { address, len, writable })
        };
        let mut chain = vec![header(place.request, REQUEST_LEN, false)];
        if load.operation == Operation::Write {
            chain.extend(data(false));
        }
        chain.push(header(place.response, RESPONSE_LEN, true));
        if load.operation == Operation::Read {
            chain.extend(data(true));
        }
        self.rings[REQUEST_QUEUE].describe(slot, place.table, &chain);
    }

    fn outcome(&self, slot: u16) -> VolatileRef<'m, u32> {
        self.memory.at(SlotPlace::of(slot).response + OUTCOME)
    }

    /// One command, answered. Returns response and status.
    pub(crate) fn command(
        &mut self,
        lun: u16,
        cdb: &[u8],
        load: &Workload,
    ) -> Result<(u8, u8), Error> {
        self.prepare(0, lun, cdb, load);
        let outcome = self.outcome(0);
        outcome.store(u32::MAX);
        let ring = &mut self.rings[REQUEST_QUEUE];
        ring.decline_interrupts();
        ring.add(0);
        ring.publish()?;
        while self.rings[REQUEST_QUEUE].reap().is_none() {
            self.pause(Wait::Poll, 1)?;
        }
        let [_, _, status, response] = outcome.load().to_le_bytes();
        Ok((response, status))
    }

    /// Waits until the unit is ready, past what it has to say first: unit attentions.
    pub(crate) fn wake_unit(&mut self) -> Result<(), Error> {
        let mut last = (0, 0);
        for _ in 0..8 {
            last = self.command(0, &[0; 6], &plain(Operation::TestUnitReady, 0))?;
            if last == (0, 0) {
                return Ok(());
            }
        }
        Err(self.refused("TEST UNIT READY", last))
    }

    /// Fills the medium with what [`image::fill`] says.
    pub(crate) fn fill_medium(&mut self) -> Result<(), Error> {
        let load = plain(Operation::Write, image::FILL_LEN);
        let mut bytes = vec![0; load.len];
        for lba in image::lbas() {
            image::fill(lba, &mut bytes);
            for (address, part) in segments(0, &load).zip(bytes.chunks(load.segment_len)) {
                self.memory.write(address, part);
            }
            let outcome = self.command(0, &cdb(WRITE_10, lba, load.len), &load)?;
            if outcome != (0, 0) {
                return Err(self.refused("WRITE(10)", outcome));
            }
        }
        Ok(())
    }

    /// Reads some of it, as a workload does, and compares: a daemon that is fast because it does
    /// nothing is not measured.
    pub(crate) fn verify_medium(&mut self, load: &Workload) -> Result<(), Error> {
        let load = Workload { operation: Operation::Read, ..*load };
        let mut random = fastrand::Rng::with_seed(load.len as u64);
        let (mut expected, mut found) = (vec![0; load.len], vec![0; load.segment_len]);
        for _ in 0..8 {
            let lba = random_lba(&mut random, load.len);
            let outcome = self.command(0, &cdb(READ_10, lba, load.len), &load)?;
            if outcome != (0, 0) {
                return Err(self.refused("READ(10)", outcome));
            }
            image::fill(lba, &mut expected);
            for (address, part) in segments(0, &load).zip(expected.chunks(load.segment_len)) {
                self.memory.read(address, &mut found);
                if found != part {
                    let what = format!("READ(10) of {} bytes at block {lba}", load.len);
                    return Err(Error::Wrong { name: self.name.clone(), what });
                }
            }
        }
        Ok(())
    }

    /// Keeps so many commands of a workload in flight for `limit`, and waits for the last answer.
    pub(crate) fn run(
        &mut self,
        load: &Workload,
        wait: Wait,
        limit: Duration,
    ) -> Result<Run, Error> {
        let mut slots = self.slots(load);
        if wait == Wait::Poll {
            self.rings[REQUEST_QUEUE].decline_interrupts();
        }
        let mut random = fastrand::Rng::with_seed(1);
        let mut latencies_ns = Vec::with_capacity(1 << 20);
        let begun = Instant::now();
        for (index, slot) in (0..).zip(&mut slots) {
            slot.send(begun, load, &mut random);
            self.rings[REQUEST_QUEUE].add(index);
        }
        self.rings[REQUEST_QUEUE].publish()?;
        let mut in_flight = load.queue_depth;
        while in_flight > 0 {
            // One look at the clock for all that has come: it costs as much as a command.
            let mut now = None;
            while let Some(index) = self.rings[REQUEST_QUEUE].reap() {
                let now = *now.get_or_insert_with(Instant::now);
                let Some(slot) = slots.get_mut(usize::from(index)) else {
                    let what = format!("command {index}, which was not sent, is answered");
                    return Err(Error::Wrong { name: self.name.clone(), what });
                };
                if slot.outcome.load() != 0 {
                    let [_, _, status, response] = slot.outcome.load().to_le_bytes();
                    return Err(self.refused(load.name, (response, status)));
                }
                let took = now.duration_since(slot.sent).as_nanos();
                latencies_ns.push(u32::try_from(took).unwrap_or(u32::MAX));
                if now.duration_since(begun) < limit {
                    slot.send(now, load, &mut random);
                    self.rings[REQUEST_QUEUE].add(index);
                } else {
                    in_flight -= 1;
                }
            }
            match now {
                Some(_) => self.rings[REQUEST_QUEUE].publish()?,
                None => self.pause(wait, in_flight)?,
            }
        }
        Ok(Run { elapsed: begun.elapsed(), latencies_ns })
    }

    fn slots(&self, load: &Workload) -> Vec<Slot<'m>> {
        let cdb = match load.operation {
            Operation::TestUnitReady => [0; 10],
            Operation::Read => cdb(READ_10, 0, load.len),
            Operation::Write => cdb(WRITE_10, 0, load.len),
        };
        assert!(load.len * usize::from(load.queue_depth) <= DATA_MAX, "no room for {}", load.name);
        let slot = |slot| {
            self.prepare(slot, 0, &cdb, load);
            Slot {
                lba: self.memory.at(SlotPlace::of(slot).request + CDB + CDB_LBA),
                outcome: self.outcome(slot),
                sent: Instant::now(),
            }
        };
        (0..load.queue_depth).map(slot).collect()
    }

    /// Returns when there may be an answer.
    fn pause(&mut self, wait: Wait, in_flight: u16) -> Result<(), Error> {
        let silent = |name: &str| Error::Silent {
            name: name.to_owned(),
            in_flight,
            seconds: PATIENCE.as_secs(),
        };
        let ring = &mut self.rings[REQUEST_QUEUE];
        match wait {
            Wait::Poll => {
                let begun = Instant::now();
                loop {
                    for _ in 0..256 {
                        if ring.has_answer() {
                            return Ok(());
                        }
                        hint::spin_loop();
                    }
                    if begun.elapsed() > PATIENCE {
                        return Err(silent(&self.name));
                    }
                }
            }
            Wait::Interrupt => {
                if !ring.ask_for_interrupt() {
                    return Ok(());
                }
                let limit_ms = i32::try_from(PATIENCE.as_millis()).expect("seconds");
                let mut events = [EpollEvent::default()];
                match self.interrupt.wait(limit_ms, &mut events) {
                    Ok(0) => Err(silent(&self.name)),
                    Ok(_) => ring.call.read().map(drop).map_err(Error::system("read an eventfd")),
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => Ok(()),
                    Err(error) => Err(Error::system("wait for an interrupt")(error)),
                }
            }
        }
    }

    fn refused(&self, what: &str, (response, status): (u8, u8)) -> Error {
        Error::Refused { name: self.name.clone(), what: what.to_owned(), response, status }
    }
}

/// A command that is sent again and again.
struct Slot<'m> {
    lba: VolatileRef<'m, u32>,
    outcome: VolatileRef<'m, u32>,
    sent: Instant,
}

impl Slot<'_> {
    /// Makes it ready for the ring.
    #[inline]
    fn send(&mut self, now: Instant, load: &Workload, random: &mut fastrand::Rng) {
        if load.operation != Operation::TestUnitReady {
            self.lba.store(random_lba(random, load.len).to_be());
        }
        // Neither GOOD nor anything else a daemon says: it has to be overwritten.
        self.outcome.store(u32::MAX);
        self.sent = now;
    }
}

/// A command for no measurement.
fn plain(operation: Operation, len: usize) -> Workload {
    Workload { name: "", operation, len, segment_len: 64 << 10, queue_depth: 1 }
}

/// A place on the medium, a multiple of `len`.
#[inline]
fn random_lba(random: &mut fastrand::Rng, len: usize) -> u32 {
    let (places, blocks) = (image::IMAGE_LEN / len, len / image::BLOCK_LEN);
    u32::try_from(random.usize(..places) * blocks).expect("a small disk")
}

/// A READ(10) or WRITE(10).
fn cdb(operation: u8, lba: u32, len: usize) -> [u8; 10] {
    let blocks = u16::try_from(len / image::BLOCK_LEN).expect("at most 32 MiB");
    let [b2, b3, b4, b5] = lba.to_be_bytes();
    let [b7, b8] = blocks.to_be_bytes();
    [operation, 0, b2, b3, b4, b5, 0, b7, b8, 0]
}

/// Addresses of the data of a command, in the order of the data: from the last to the first.
fn segments(slot: u16, load: &Workload) -> impl Iterator<Item = usize> + use<> {
    let (count, len) = (load.len / load.segment_len, load.segment_len);
    let base = data_place(slot, load.len);
    (0..count).rev().map(move |index| base + index * len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cdbs_are_those_of_sbc() {
        let read = [0x28, 0, 0x01, 0x02, 0x03, 0x04, 0, 0x08, 0x00, 0];
        assert_eq!(cdb(READ_10, 0x0102_0304, 1 << 20), read);
        assert_eq!(cdb(WRITE_10, 8, 4096), [0x2a, 0, 0, 0, 0, 8, 0, 0, 8, 0]);
    }

    #[test]
    fn data_descriptors_are_not_adjacent() {
        let load = Workload { segment_len: 4096, ..plain(Operation::Read, 3 * 4096) };
        let base = data_place(1, load.len);
        let found: Vec<_> = segments(1, &load).collect();
        assert_eq!(found, [base + 8192, base + 4096, base]);
    }

    #[test]
    fn random_places_are_whole_and_on_the_medium() {
        let mut random = fastrand::Rng::with_seed(3);
        let lbas: Vec<_> = (0..1000).map(|_| random_lba(&mut random, 4096)).collect();
        assert!(lbas.iter().all(|lba| lba % 8 == 0 && *lba < (128 << 20) / 512));
        assert!(lbas.iter().collect::<std::collections::BTreeSet<_>>().len() > 900);
    }
}
