//! What a command costs on each way into the kernel. `cargo xtask bench passthrough` runs it, round by round; an
//! ordinary run of the tests leaves it out.

mod bridge;
mod ublk;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bsg::{
    Access, BsgIoctl, BsgUring, Data, Region, Request, SgIoctl, Shape, UringCompletion, UringFrame,
    V3Frame, V4Frame, uapi::Res2,
};
use guest_protocol::figure::Figure;
use harness::{Lun, declare};

use crate::bsg::ways::{URING_CMD, soon};

/// Commands of one measurement, a multiple of [`BATCH`].
const COMMANDS: u32 = 1024;
/// And before it, so that everything is in its place.
const WARM_UP: u32 = 64;
/// Commands handed over with one system call.
const BATCH: u32 = 64;
/// Bytes of READ(10)'s data.
const READ_LEN: usize = 4096;

/// A command that is measured.
#[derive(Clone, Copy)]
struct Measured {
    name: &'static str,
    cdb: &'static [u8],
    len: usize,
}

const MEASURED: [Measured; 2] = [
    Measured { name: "INQUIRY", cdb: &[0x12, 0, 0, 0, 36, 0], len: 36 },
    Measured { name: "READ(10) 4 KiB", cdb: &[0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0], len: READ_LEN },
];

impl Measured {
    /// The command, with memory of its own.
    fn request(self) -> Request {
        Request::new(self.cdb).data_in(self.len)
    }

    /// The command with its data in the `slot`-th part of a registered buffer.
    fn fixed(self, region: &Arc<Region>, slot: u32) -> UringFrame {
        let start = slot as usize * READ_LEN;
        let slice = region.slice(start..start + self.len);
        UringFrame::from(Request::new(self.cdb).data(Data::SliceIn(slice)).fixed(0))
    }
}

/// How long `step`, which executes some commands and says how many, takes for each.
fn micros_each(mut step: impl FnMut() -> u32) -> f64 {
    let mut run = |commands| {
        let start = Instant::now();
        let mut done = 0;
        while done < commands {
            done += step();
        }
        (start.elapsed(), done)
    };
    run(WARM_UP);
    let (took, done): (Duration, u32) = run(COMMANDS);
    took.as_secs_f64() * 1e6 / f64::from(done)
}

fn sg_v3(lun: &Lun, what: Measured) -> f64 {
    let sg = SgIoctl::open(lun.device().sg(), Access::ReadWrite).expect("the node opens");
    let mut frame = V3Frame::from(what.request());
    micros_each(|| {
        sg.sg_io(&mut frame).expect("executed");
        let done = frame.header;
        assert_eq!((done.status, done.host_status, done.resid), (0, 0, 0));
        1
    })
}

fn bsg_v4(lun: &Lun, what: Measured) -> f64 {
    let bsg = BsgIoctl::open(lun.device().bsg(), Access::ReadWrite).expect("the node opens");
    let mut frame = V4Frame::from(what.request());
    micros_each(|| {
        bsg.sg_io(&mut frame).expect("executed");
        let done = frame.header;
        assert_eq!((done.device_status, done.transport_status, done.din_resid), (0, 0, 0));
        1
    })
}

/// The commands of a batch, which come back to be sent again.
fn uring(
    lun: &Lun,
    frames: impl IntoIterator<Item = UringFrame>,
    register: Option<&Arc<Region>>,
) -> f64 {
    let shape = Shape::big(BATCH);
    let mut ring = BsgUring::with_shape(lun.device().bsg(), Access::ReadWrite, &shape)
        .expect("the node opens");
    if let Some(region) = register {
        ring.register_buffers(&[Some(region.clone())]).expect("registered");
    }
    let mut frames: Vec<UringFrame> = frames.into_iter().collect();
    micros_each(|| {
        let count = u32::try_from(frames.len()).expect("a batch");
        for frame in frames.drain(..) {
            ring.push(frame).expect("room");
        }
        ring.flush().expect("submitted");
        for _ in 0..count {
            let done = ring.wait(soon()).expect("completed");
            assert_good(&done);
            frames.push(done.frame);
        }
        count
    })
}

fn assert_good(done: &UringCompletion) {
    let outcome = Res2::from(done.res2.expect("a big completion"));
    let expected =
        Res2 { device_status: 0, driver_status: 0, host_status: 0, sense_len_wr: 0, residual: 0 };
    assert_eq!((done.res, outcome), (0, expected));
}

/// One round: every way once, beginning with another one each time.
#[test]
#[expect(clippy::print_stdout, reason = "the figures are the output")]
fn passthrough() {
    declare!(Accident, URING_CMD);
    let lun = &Lun::fresh();
    let region = &Region::zeroed(BATCH as usize * READ_LEN).expect("memory");
    type Run<'a> = (&'a str, Box<dyn Fn(Measured) -> f64 + 'a>);
    let plain =
        |count| move |what: Measured| uring(lun, (0..count).map(|_| what.request().into()), None);
    let fixed = |count| {
        move |what: Measured| {
            uring(lun, (0..count).map(|slot| what.fixed(region, slot)), Some(region))
        }
    };
    let ways: [Run<'_>; 6] = [
        ("sg v3", Box::new(|what| sg_v3(lun, what))),
        ("bsg v4", Box::new(|what| bsg_v4(lun, what))),
        ("uring_cmd", Box::new(plain(1))),
        ("uring_cmd, fixed buffer", Box::new(fixed(1))),
        ("uring_cmd, batch of 64", Box::new(plain(BATCH))),
        ("uring_cmd, fixed, batch of 64", Box::new(fixed(BATCH))),
    ];
    let first = std::process::id() as usize % ways.len();
    for what in MEASURED {
        let mut micros = [0.0; 6];
        for at in (0..ways.len()).map(|at| (at + first) % ways.len()) {
            micros[at] = (ways[at].1)(what);
        }
        for ((way, _), micros) in ways.iter().zip(micros) {
            let (what, way) = (what.name.into(), (*way).into());
            println!("{}", Figure { what, way, micros, ..Figure::default() }.line());
        }
    }
}
