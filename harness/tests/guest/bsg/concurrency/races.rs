//! A command that is changed while it is read: by another processor, between any two of the kernel's looks at it. What
//! comes of it is what comes of the old one or of the new one, and the journal says which.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use bsg::{
    Access, BsgUring, Error, Pointer, Region, Request, Shape, UringCompletion, UringFrame, V4Frame,
};
use harness::{Feature, Lun, Needs, declare, privilege, wait};
use rstest::rstest;

use super::{
    super::{
        cdb::{self, Size},
        ways::{sg_io_v4, soon},
    },
    LIMIT,
};

/// One processor sends, another changes what is sent.
const TWO_CPUS: Needs = Needs {
    cpus: Some(2),
    features: Cow::Borrowed(&[Feature::KernelAtLeast(7, 1)]),
    ..Needs::DEFAULT
};

/// So often at least, and until both outcomes have been seen.
const ROUNDS: usize = 50;
/// So often at most: the journal has them all.
const MOST_ROUNDS: usize = 1000;

/// A ring with one entry, so that each command lies where the one before lay.
#[track_caller]
fn ring(lun: &Lun, polled: bool) -> BsgUring {
    // Its thread soon sleeps: there are no more than two processors for three of us.
    let shape = Shape { sqpoll_idle_ms: polled.then_some(1), ..Shape::big(1) };
    BsgUring::with_shape(lun.device().bsg(), Access::ReadWrite, &shape).expect("a ring")
}

/// Sends one command and waits for it. On a polled ring a completion may be there before its slot is free
/// (io_uring/sqpoll.c:__io_sq_thread, io_uring/io_uring.c:io_submit_sqes).
#[track_caller]
fn complete(bsg: &mut BsgUring, frame: impl Fn() -> UringFrame) -> UringCompletion {
    let submitted = wait::until(LIMIT, "the slot", || match bsg.submit(frame()) {
        Err(Error::Push(_)) => None,
        other => Some(other),
    });
    let token = submitted.unwrap_or_else(|error| panic!("{error}")).expect("submitted");
    bsg.wait_for(token, soon()).expect("completed")
}

/// Ends the other thread, also when this one panics.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Changes the one for the other, and back, while commands are sent, and returns what came of each.
fn while_changing<V: Copy + Sync, T: Ord>(
    values: [V; 2],
    change: impl Fn(V) + Sync,
    mut send: impl FnMut() -> T,
) -> Vec<T> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for value in values.iter().cycle().take_while(|_| !over.load(Ordering::Relaxed)) {
                change(*value);
                // Each of them gets its share of the time.
                thread::yield_now();
            }
        });
        let _over = Over(&over);
        let mut seen = Vec::new();
        while seen.len() < MOST_ROUNDS
            && (seen.len() < ROUNDS || BTreeSet::from_iter(&seen).len() < 2)
        {
            seen.push(send());
        }
        seen
    })
}

/// Who reads the CDB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reader {
    SgIo,
    Ring,
    PolledRing,
}

/// drivers/scsi/scsi_ioctl.c:scsi_cmd_allowed looks at the copy that is sent: an opcode that may not be sent
/// (SYNCHRONIZE CACHE(16), 91h), written over one that may (TEST UNIT READY, 0), is refused or is not seen at all.
#[rstest]
fn opcode_that_changes_is_the_one_that_was_allowed(
    #[values(Reader::SgIo, Reader::Ring, Reader::PolledRing)] reader: Reader,
) {
    declare!(Contract, TWO_CPUS);
    let lun = Lun::fresh();
    privilege::drop_sys_rawio();
    let mut bsg = ring(&lun, reader == Reader::PolledRing);
    let ioctl = sg_io_v4(lun.device(), Access::ReadWrite);
    let region = Region::zeroed(4096).expect("a page");
    let cdb = || Pointer::In(Arc::clone(&region), 0);
    let send = || {
        let request = || Request::new(&[0; 16]);
        if reader == Reader::SgIo {
            let mut frame = V4Frame { request: cdb(), ..V4Frame::from(request()) };
            ioctl.sg_io(&mut frame).map_or_else(|errno| -errno.raw_os_error(), |()| 0)
        } else {
            let frame = || {
                let mut frame = UringFrame::from(request());
                frame.request = cdb();
                frame
            };
            complete(&mut bsg, frame).res
        }
    };
    let seen = while_changing([0x91, 0], |opcode| region.write(0, &[opcode]), send);
    assert_eq!(BTreeSet::from_iter(seen.iter().copied()), BTreeSet::from([-1, 0]));
    let journal = lun.journal();
    let commands: BTreeSet<_> = journal.entries.iter().map(|entry| entry.cdb.as_str()).collect();
    assert_eq!(commands, BTreeSet::from(["000000000000"]));
    assert_eq!(journal.entries.len(), seen.iter().filter(|res| **res == 0).count());
}

/// io_uring/io_uring.c:io_init_req, drivers/scsi/scsi_bsg.c:scsi_bsg_uring_cmd: the entry of a command is read where it lies.
/// A length that changes there is the old one or the new one, in every use of it.
#[rstest]
#[case::cdb_one_too_long(false, 56, [10, 33], [0, -22])]
#[case::cdb_far_too_long(false, 56, [10, u32::MAX], [0, -22])]
#[case::no_cdb(false, 56, [10, 0], [0, -22])]
#[case::data_beyond_its_memory(false, 104, [512, 0x1000_0000], [0, -14])]
#[case::both_directions(false, 88, [0, 512], [0, -95])]
#[case::both_directions_polled(true, 88, [0, 512], [0, -95])]
fn length_that_changes_is_the_old_or_the_new_one(
    #[case] polled: bool,
    #[case] offset: u32,
    #[case] lengths: [u32; 2],
    #[case] results: [i32; 2],
) {
    declare!(Contract, TWO_CPUS);
    let lun = Lun::fresh();
    let mut bsg = ring(&lun, polled);
    let read = || Request::new(&cdb::read(Size::Ten, 0, 1)).data_in(512);
    assert_eq!(complete(&mut bsg, || read().into()).res, 0);
    let word = bsg.loose_word(offset);
    let send = || complete(&mut bsg, || read().into()).res;
    let seen = while_changing(lengths, |length| word.store(length), send);
    assert_eq!(BTreeSet::from_iter(seen.iter().copied()), BTreeSet::from(results));
    let journal = lun.journal();
    let sent: BTreeSet<_> =
        journal.entries.iter().map(|entry| (entry.cdb.as_str(), entry.data_in_len)).collect();
    assert_eq!(sent, BTreeSet::from([("28000000000000000100", 512)]));
    assert_eq!(journal.entries.len(), 1 + seen.iter().filter(|res| **res == 0).count());
}

/// As above, where both lengths are good: the device is offered the one or the other, and the residual is what it left of
/// that (virtio 1.2, 5.6.6.1).
#[rstest]
fn length_of_data_that_changes_is_the_one_the_device_has(#[values(false, true)] polled: bool) {
    declare!(Contract, TWO_CPUS);
    let lun = Lun::fresh();
    let mut bsg = ring(&lun, polled);
    let read = || Request::new(&cdb::read(Size::Ten, 0, 1)).data_in(1024);
    assert_eq!(complete(&mut bsg, || read().into()).res, 0);
    let word = bsg.loose_word(104);
    let seen = while_changing(
        [512, 1024],
        |length| word.store(length),
        || {
            let done = complete(&mut bsg, || read().into());
            done.completion().expect("executed").residual
        },
    );
    let offered = lun.journal().entries.into_iter().skip(1).map(|entry| entry.data_in_len);
    let left: Vec<_> = offered.map(|len| i64::try_from(len).expect("short") - 512).collect();
    assert_eq!(seen, left);
    assert_eq!(BTreeSet::from_iter(seen), BTreeSet::from([0, 512]));
}
