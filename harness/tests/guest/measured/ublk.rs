//! What a request costs a ublk server that does nothing with it: ours, and beside it that of the kernel's own tests.
//! `cargo xtask bench ublk` runs it, round by round.

use std::{
    borrow::Cow,
    fs::File,
    io::{BufRead, BufReader},
    os::unix::fs::OpenOptionsExt,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use guest_protocol::figure::Figure;
use harness::{Needs, UblkDevice, declare, program};
use nix::{sys::time::TimeValLike, time::ClockId, unistd::Pid};
use rustix::{
    fs::OFlags,
    process::{Signal, kill_process},
    thread::{CpuSet, sched_setaffinity},
};
use ublk::{Buffer, Control, CqeSize, DataMode, Ring, Shape, SqeSize, Transfer};

/// Requests that each queue of a server takes at once: more than any load has.
const DEPTH: &str = "64";
/// Each measurement is as many pieces, between which the other server has its turn.
const PIECES: u32 = 4;

/// What an application does.
struct Load {
    name: &'static str,
    writes: bool,
    len: usize,
    /// At once.
    depth: u32,
    /// Requests of a piece, on each CPU.
    count: u32,
}

const LOADS: [Load; 6] = [
    Load { name: "read 4 KiB qd 1", writes: false, len: 4 << 10, depth: 1, count: 300 },
    Load { name: "write 4 KiB qd 1", writes: true, len: 4 << 10, depth: 1, count: 300 },
    Load { name: "read 4 KiB qd 32", writes: false, len: 4 << 10, depth: 32, count: 1536 },
    Load { name: "write 4 KiB qd 32", writes: true, len: 4 << 10, depth: 32, count: 1536 },
    Load { name: "read 128 KiB qd 8", writes: false, len: 128 << 10, depth: 8, count: 256 },
    Load { name: "write 128 KiB qd 8", writes: true, len: 128 << 10, depth: 8, count: 256 },
];

/// Each mode with our word for it and kublk's.
const MODES: [(DataMode, &str, &[&str]); 4] = [
    (DataMode::Copy, "copy", &[]),
    (DataMode::UserCopy, "user-copy", &["--user_copy"]),
    (DataMode::ZeroCopy, "zero-copy", &["--zero_copy"]),
    (DataMode::AutoBuf, "auto-buf", &["--auto_zc"]),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Program {
    Ours,
    Kublk,
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Program::Ours => "ours",
            Program::Kublk => "kublk",
        }
    }
}

fn cpu_time(clock: ClockId) -> Duration {
    let time = clock.now().expect("the process is there");
    Duration::from_nanos(u64::try_from(time.num_nanoseconds()).expect("since its start"))
}

/// A server that runs. Dropping it kills it and deletes its device.
struct Server {
    program: Program,
    process: Child,
    number: u32,
    clock: ClockId,
}

impl Server {
    /// Starts a program and waits until it says that it serves.
    #[track_caller]
    fn start(program: Program, mode: (&str, &[&str]), queues: usize) -> Self {
        let queues = queues.to_string();
        let mut command = match program {
            Program::Ours => {
                let mut command = Command::new("sensecheck-ublk");
                command.args(["add", "--null", "250G", "--mode", mode.0]);
                command.args(["--queues", &queues, "--depth", DEPTH]);
                command
            }
            Program::Kublk => {
                let mut command = Command::new("kublk");
                command.args(["add", "--type", "null", "--foreground"]).args(mode.1);
                command.args(["--queues", &queues, "--depth", DEPTH]);
                command
            }
        };
        let mut process = command
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut said = String::new();
        let stdout = process.stdout.as_mut().expect("it is piped");
        BufReader::new(stdout).read_line(&mut said).expect("its first line");
        // `/dev/ublkb0`, and `dev id 0: nr_hw_queues …`.
        let begin = if program == Program::Ours { "/dev/ublkb" } else { "dev id " };
        let number = said.strip_prefix(begin).and_then(|rest| rest.split([':', '\n']).next());
        let number = number.and_then(|number| number.parse().ok());
        let number = number.unwrap_or_else(|| panic!("{command:?} said {said:?}"));
        let pid = i32::try_from(process.id()).expect("process ids are positive i32s");
        let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid)).expect("it runs");
        Server { program, process, number, clock }
    }

    fn disk(&self) -> Arc<File> {
        let path = format!("/dev/ublkb{}", self.number);
        let direct = OFlags::DIRECT.bits().cast_signed();
        let file = File::options().read(true).write(true).custom_flags(direct).open(&path);
        Arc::new(file.unwrap_or_else(|error| panic!("{path}: {error}")))
    }

    /// Has it end, and its device with it.
    #[track_caller]
    fn end(mut self) {
        match self.program {
            Program::Ours => {
                let pid = rustix::process::Pid::from_child(&self.process);
                kill_process(pid, Signal::TERM).expect("it runs");
            }
            Program::Kublk => {
                program::run("kublk", &["del", "--number", &self.number.to_string()]).ended_with(0);
            }
        }
        let status = self.process.wait().expect("a child of ours");
        assert_eq!(status.code(), Some(0), "exit code of {}", self.program.name());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Has it ended already, there is nothing to kill, and nothing to delete.
        let _gone = self.process.kill().and_then(|()| self.process.wait());
        if UblkDevice::find(self.number).is_some() {
            drop(UblkDevice::adopt(self.number));
        }
    }
}

/// Applications of one device, a thread and a ring for each CPU.
fn run(disk: &Arc<File>, load: &Load, count: u32, cpus: usize) {
    thread::scope(|scope| {
        for cpu in 0..cpus {
            scope.spawn(move || {
                let mut set = CpuSet::new();
                set.set(cpu);
                sched_setaffinity(None, &set).expect("the CPU is there");
                apply(disk, load, count);
            });
        }
    });
}

fn apply(disk: &Arc<File>, load: &Load, count: u32) {
    let shape = Shape {
        sqe: SqeSize::Bytes64,
        cqe: CqeSize::Bytes16,
        single_issuer: true,
        defer_taskrun: true,
        ..Shape::big(load.depth)
    };
    let mut ring = Ring::new(&shape).expect("a ring");
    let mut left = count;
    // Far from each other: neighbours that are submitted together would become one request.
    for slot in 0..load.depth.min(count) {
        let buffer = Buffer::zeroed(load.len).expect("memory");
        let offset = u64::from(slot) << 20;
        let transfer = Transfer::of(disk.clone(), offset, load.writes, buffer, slot.into());
        ring.push(transfer).expect("room");
        left -= 1;
    }
    while ring.in_flight() > 0 {
        ring.submit_and_wait(None).expect("completions");
        while let Some(done) = ring.try_next() {
            assert_eq!(usize::try_from(done.cqe.res), Ok(load.len), "{}", load.name);
            if left > 0 {
                left -= 1;
                ring.push(done.operation.expect("it comes back")).expect("room");
            }
        }
    }
}

/// Sums of several pieces.
#[derive(Clone, Copy, Default)]
struct Sum {
    requests: u32,
    wall: Duration,
    server: Duration,
    application: Duration,
}

impl Sum {
    fn piece(&mut self, server: &Server, disk: &Arc<File>, load: &Load, cpus: usize) {
        let own = ClockId::CLOCK_PROCESS_CPUTIME_ID;
        let before = (Instant::now(), cpu_time(server.clock), cpu_time(own));
        run(disk, load, load.count, cpus);
        self.wall += before.0.elapsed();
        self.server += cpu_time(server.clock) - before.1;
        self.application += cpu_time(own) - before.2;
        self.requests += load.count * u32::try_from(cpus).expect("few");
    }

    fn figure(&self, load: &Load, mode: &str, program: Program) -> Figure {
        let each = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(self.requests);
        Figure {
            what: format!("{}, {mode}", load.name),
            way: program.name().into(),
            micros: each(self.wall),
            server_micros: Some(each(self.server)),
            cpu_micros: Some(each(self.server + self.application)),
            ..Figure::default()
        }
    }
}

/// One round: every load in each mode, the servers in turns, another one first each time.
#[expect(clippy::print_stdout, reason = "the figures are the output")]
fn round(programs: &[Program]) {
    let cpus = thread::available_parallelism().expect("it is known").get();
    let features = Control::open().and_then(|mut control| control.features()).expect("features");
    let first = std::process::id() as usize % programs.len();
    for (mode, ours, kublk) in MODES {
        if !features.contains(mode.features()) {
            continue;
        }
        let start = |program: &Program| {
            let server = Server::start(*program, (ours, kublk), cpus);
            // In this order: a device that is open cannot be deleted.
            (server.disk(), server)
        };
        let servers: Vec<_> = programs.iter().map(start).collect();
        for load in &LOADS {
            let mut sums = vec![Sum::default(); servers.len()];
            for (disk, _) in &servers {
                run(disk, load, 2 * load.depth, cpus);
            }
            for piece in 0..PIECES as usize * servers.len() {
                let at = (piece + first) % servers.len();
                sums[at].piece(&servers[at].1, &servers[at].0, load, cpus);
            }
            for ((_, server), sum) in servers.iter().zip(sums) {
                println!("{}", sum.figure(load, ours, server.program).line());
            }
        }
        for (disk, server) in servers {
            drop(disk);
            server.end();
        }
    }
}

const ALONE: Needs = Needs { deadline_s: Some(120), ..Needs::DEFAULT };

/// What a request costs our server.
#[test]
fn null() {
    declare!(Accident, ALONE);
    round(&[Program::Ours]);
}

/// What a request costs our server, and kublk (tools/testing/selftests/ublk/null.c).
#[test]
fn null_beside_kublk() {
    declare!(Accident, Needs { programs: Some(Cow::Borrowed("kublk")), ..ALONE });
    round(&[Program::Ours, Program::Kublk]);
}
