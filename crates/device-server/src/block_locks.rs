//! Who changes which blocks: a command that reads and then writes must not meet another one's write in
//! between.
//!
//! The mutex is held to look at the list, never while data moves. Whoever waits does so for a command
//! that is moving data now, in order of arrival; each command locks once, so that nobody waits for
//! each other.

use std::sync::{Condvar, Mutex, MutexGuard};

use scsi::BlockRange;

/// The locks of a logical unit.
#[derive(Debug, Default)]
pub(crate) struct BlockLocks {
    list: Mutex<List>,
    released: Condvar,
}

#[derive(Debug, Default)]
struct List {
    next: u64,
    waiting: u32,
    /// Those that hold a lock or wait for one, in order of arrival.
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    number: u64,
    range: BlockRange,
    exclusive: bool,
}

impl Entry {
    fn excludes(&self, other: &Entry) -> bool {
        (self.exclusive || other.exclusive) && self.range.overlaps(other.range)
    }
}

/// A lock that is held until dropped.
#[derive(Debug)]
pub(crate) struct BlockLock<'a> {
    locks: &'a BlockLocks,
    number: u64,
}

impl BlockLocks {
    /// Locks blocks to be written, together with other writes.
    pub(crate) fn write(&self, range: BlockRange) -> BlockLock<'_> {
        self.lock(range, false)
    }

    /// Locks blocks against every write.
    pub(crate) fn exclusive(&self, range: BlockRange) -> BlockLock<'_> {
        self.lock(range, true)
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().expect("no holder panics")
    }

    fn lock(&self, range: BlockRange, exclusive: bool) -> BlockLock<'_> {
        let mut list = self.list();
        let entry = Entry { number: list.next, range, exclusive };
        list.next += 1;
        list.entries.push(entry);
        let earlier = |other: &&Entry| other.number < entry.number;
        while list.entries.iter().take_while(earlier).any(|other| other.excludes(&entry)) {
            list.waiting += 1;
            list = self.released.wait(list).expect("no holder panics");
            list.waiting -= 1;
        }
        BlockLock { locks: self, number: entry.number }
    }
}

impl Drop for BlockLock<'_> {
    fn drop(&mut self) {
        let mut list = self.locks.list();
        list.entries.retain(|entry| entry.number != self.number);
        if list.waiting > 0 {
            self.locks.released.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Duration};

    use scsi::Lba;

    use super::*;

    fn range(start: u64, blocks: u64) -> BlockRange {
        BlockRange { start: Lba(start), blocks }
    }

    #[test]
    fn writes_and_distant_locks_exclude_nobody() {
        let locks = BlockLocks::default();
        let _one = locks.write(range(0, 8));
        let _two = locks.write(range(4, 8));
        let _three = locks.exclusive(range(12, 4));
        let _empty = locks.exclusive(range(2, 0));
        assert_eq!(locks.list().entries.len(), 4);
    }

    #[test]
    fn an_exclusive_lock_waits_and_is_waited_for_in_order() {
        let locks = BlockLocks::default();
        let (done, order) = mpsc::channel();
        let waiting = |count| {
            while locks.list().waiting < count {
                thread::yield_now();
            }
        };
        thread::scope(|scope| {
            let first = locks.write(range(0, 8));
            let take = |name, exclusive| {
                let (done, locks) = (done.clone(), &locks);
                scope.spawn(move || {
                    let _lock = locks.lock(range(7, 2), exclusive);
                    done.send(name).expect("the test listens");
                });
            };
            take("exclusive", true);
            waiting(1);
            // It would share with the first, but does not overtake.
            take("write", false);
            waiting(2);
            assert!(order.recv_timeout(Duration::from_millis(20)).is_err());
            drop(first);
            assert_eq!(order.recv(), Ok("exclusive"));
            assert_eq!(order.recv(), Ok("write"));
        });
        assert!(locks.list().entries.is_empty());
    }
}
