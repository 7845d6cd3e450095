//! A medium that does not keep what it was given: the medium of one command, with a fault of that command's
//! and with what earlier faults have left behind.

use std::{
    io,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

use scsi_fault::WriteFault;
use vm_memory::{Bytes, VolatileSlice};

use super::{Extent, Medium, MediumError};
use crate::{SgList, unit::LogicalUnit};

/// Writes that were acknowledged and have not reached the medium: so many more reads see what was there
/// before.
#[derive(Debug, Default)]
pub(crate) struct StaleWrites {
    /// How many there are, so that a command need not take the lock to hear of none.
    count: AtomicUsize,
    writes: Mutex<Vec<StaleWrite>>,
}

#[derive(Debug)]
struct StaleWrite {
    offset: u64,
    data: Vec<u8>,
    reads_left: u32,
}

impl StaleWrite {
    fn overlaps(&self, offset: u64, len: u64) -> bool {
        self.offset < offset + len && offset < self.offset + self.data.len() as u64
    }
}

impl StaleWrites {
    /// Whether every write has reached the medium.
    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    fn writes(&self) -> MutexGuard<'_, Vec<StaleWrite>> {
        self.writes.lock().expect("no holder panics")
    }

    fn add(&self, write: StaleWrite) {
        let mut writes = self.writes();
        writes.push(write);
        self.count.store(writes.len(), Ordering::Release);
    }

    /// Takes out, oldest first, what is meant.
    fn take(&self, meant: impl FnMut(&mut StaleWrite) -> bool) -> Vec<StaleWrite> {
        let mut writes = self.writes();
        let taken = writes.extract_if(.., meant).collect();
        self.count.store(writes.len(), Ordering::Release);
        taken
    }
}

/// The medium as one command sees it.
#[derive(Debug)]
pub(crate) struct FaultyMedium<'a> {
    unit: &'a LogicalUnit,
    fault: Option<WriteFault>,
}

impl<'a> FaultyMedium<'a> {
    /// The medium of a unit, with this fault.
    pub(crate) fn of(unit: &'a LogicalUnit, fault: Option<WriteFault>) -> Self {
        FaultyMedium { unit, fault }
    }

    /// Whether it is just the unit's medium.
    pub(crate) fn is_sound(&self) -> bool {
        self.fault.is_none() && self.unit.stale.is_empty()
    }

    fn medium(&self) -> &'a dyn Medium {
        &*self.unit.medium
    }

    /// Writes bytes of our own.
    fn write_bytes(&self, offset: u64, bytes: &mut [u8]) -> Result<(), MediumError> {
        let len = bytes.len() as u64;
        self.medium().write_at(offset, &[VolatileSlice::from(bytes)], len)
    }

    /// Brings to the medium what earlier writes of these blocks have not.
    fn settle(&self, offset: u64, len: u64) -> Result<(), MediumError> {
        for mut write in self.unit.stale.take(|write| write.overlaps(offset, len)) {
            self.write_bytes(write.offset, &mut write.data)
                .map_err(|error| of_another(error.source))?;
        }
        Ok(())
    }

    /// Writes somewhere else, as far as there is a place.
    fn misdirect(
        &self,
        blocks: i64,
        offset: u64,
        from: &[VolatileSlice<'_>],
        len: u64,
    ) -> Result<(), MediumError> {
        let by = i128::from(blocks) * i128::from(self.unit.block_len.bytes());
        let capacity = self.unit.block_len.bytes_of(self.unit.blocks()).unwrap_or(u64::MAX);
        let (begin, end) = (i128::from(offset) + by, i128::from(offset) + i128::from(len) + by);
        let begin_inside = begin.clamp(0, i128::from(capacity));
        let end_inside = end.clamp(begin_inside, i128::from(capacity));
        let number = |value: i128| u64::try_from(value).expect("clamped to the medium");
        let mut bytes = copied(from, len);
        let skipped = usize::try_from(begin_inside - begin).unwrap_or(usize::MAX).min(bytes.len());
        let kept = usize::try_from(end_inside - begin_inside).expect("no more than was copied");
        self.write_bytes(number(begin_inside), &mut bytes[skipped..][..kept])
    }
}

/// A failure of the medium that is not about the blocks of this command: nothing of its own has moved.
fn of_another(source: io::Error) -> MediumError {
    MediumError { done: 0, source }
}

/// The first `len` bytes of guest memory, out of the guest's reach.
fn copied(from: &[VolatileSlice<'_>], len: u64) -> Vec<u8> {
    let len = usize::try_from(len).expect("no more than the slices have");
    let mut bytes = vec![0; len];
    let mut done = 0;
    for slice in from {
        done += slice.read(&mut bytes[done..], 0).unwrap_or(0);
        if done == len {
            break;
        }
    }
    bytes
}

impl Medium for FaultyMedium<'_> {
    fn read_at(
        &self,
        offset: u64,
        into: &[VolatileSlice<'_>],
        len: u64,
    ) -> Result<(), MediumError> {
        self.medium().read_at(offset, into, len)?;
        let seen_often_enough = |write: &mut StaleWrite| {
            if write.overlaps(offset, len) {
                write.reads_left -= 1;
            }
            write.reads_left == 0
        };
        for mut write in self.unit.stale.take(seen_often_enough) {
            self.write_bytes(write.offset, &mut write.data)
                .map_err(|error| MediumError { done: len, source: error.source })?;
        }
        Ok(())
    }

    fn write_at(
        &self,
        offset: u64,
        from: &[VolatileSlice<'_>],
        len: u64,
    ) -> Result<(), MediumError> {
        self.settle(offset, len)?;
        match self.fault {
            None => self.medium().write_at(offset, from, len),
            Some(WriteFault::Lost) => Ok(()),
            Some(WriteFault::Torn(kept)) => self.medium().write_at(offset, from, kept.min(len)),
            Some(WriteFault::Misdirected(blocks)) => self.misdirect(blocks, offset, from, len),
            Some(WriteFault::CorruptFrom(at)) => {
                let mut bytes = copied(from, len);
                SgList::from(&mut bytes[..]).corrupt(at, len);
                self.write_bytes(offset, &mut bytes)
            }
            Some(WriteFault::Stale(0)) => self.medium().write_at(offset, from, len),
            Some(WriteFault::Stale(reads_left)) => {
                self.unit.stale.add(StaleWrite { offset, data: copied(from, len), reads_left });
                Ok(())
            }
        }
    }

    fn make_room(&self, len: u64) -> io::Result<()> {
        self.medium().make_room(len)
    }

    fn flush(&self) -> io::Result<()> {
        self.medium().flush()
    }

    fn fetch_ahead(&self, offset: u64, len: u64) {
        self.medium().fetch_ahead(offset, len);
    }

    fn verify(&self, offset: u64, len: u64) -> Result<(), MediumError> {
        self.medium().verify(offset, len)
    }

    fn unmap(&self, offset: u64, len: u64) -> io::Result<()> {
        self.settle(offset, len).map_err(|error| error.source)?;
        match self.fault {
            Some(WriteFault::Lost) => Ok(()),
            _ => self.medium().unmap(offset, len),
        }
    }

    fn extent(&self, offset: u64, len: u64) -> io::Result<Extent> {
        self.medium().extent(offset, len)
    }

    fn has_volatile_cache(&self) -> bool {
        self.medium().has_volatile_cache()
    }
}
