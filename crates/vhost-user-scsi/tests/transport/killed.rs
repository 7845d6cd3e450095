//! `kill -9` under load: a guest writes, the daemon dies at any moment and is started again.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use control::{Client, Faults, LunAddress};
use fault::Times;
use scsi_fault::{Effect, Rule};

use crate::{
    driver::{REQUEST_QUEUE, pattern, read_10, request, write_10},
    guest::Guest,
};

const ROUNDS: u32 = 50;
const QUEUES: usize = 2;
/// Commands in flight on each queue.
const DEPTH: usize = 16;
const BLOCKS: u32 = 2048;
const PATIENCE: Duration = Duration::from_secs(20);
const ADDRESS: LunAddress = LunAddress { target: 0, lun: 0 };
/// LUN 0 of target 0.
const DISK: [u8; 8] = [1, 0, 0x40, 0, 0, 0, 0, 0];

struct Daemon(Child, Client);

impl Daemon {
    fn start(directory: &Path) -> Daemon {
        let disk = format!("1M,file={}", directory.join("disk").display());
        let mut child = Command::new(env!("CARGO_BIN_EXE_sensecheck-target"))
            .arg("--socket")
            .arg(directory.join("scsi"))
            .arg("--control")
            .arg(directory.join("control"))
            .args(["--disk", &disk])
            .env_remove("RUST_LOG")
            .stderr(Stdio::piped())
            .spawn()
            .expect("the daemon runs");
        // Every third command takes its time, so that others overtake it.
        let late = Rule::new("late", Effect::delay_us(300)).times(Times::Every(3));
        let log = BufReader::new(child.stderr.take().expect("piped"));
        let mut lines = log.lines().map(|line| line.expect("UTF-8"));
        assert!(lines.any(|line| line.contains("ready")), "the daemon ended");
        let mut client = Client::connect(&directory.join("control"), PATIENCE).expect("it listens");
        client.faults(ADDRESS, Faults { seed: 0, rules: vec![late] }).expect("nothing runs");
        Daemon(child, client)
    }

    /// From now on it is quick.
    fn hurry(&mut self) {
        self.1.faults(ADDRESS, Faults::default()).expect("what runs ends");
    }

    fn kill(self) {
        drop(self);
    }
}

impl Drop for Daemon {
    /// Also when the test fails: whoever waits for its output would wait for the daemon's end.
    fn drop(&mut self) {
        self.0.kill().expect("it is our child");
        self.0.wait().expect("it is our child");
    }
}

/// A write on its way.
struct Write {
    lba: u32,
    seed: u32,
    response: u64,
}

/// The load: writes to random blocks, never two to the same block at once.
struct Load {
    random: u64,
    /// What was written last to each block, as far as it was answered.
    answered: HashMap<u32, u32>,
    /// Writes in flight by queue and head.
    flying: HashMap<(usize, u16), Write>,
    seed: u32,
}

impl Load {
    fn random(&mut self) -> u64 {
        // xorshift64
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn send(&mut self, guest: &Guest, queue: usize) {
        let lba = loop {
            let lba = u32::try_from(self.random() % u64::from(BLOCKS)).expect("small");
            if self.flying.values().all(|write| write.lba != lba) {
                break lba;
            }
        };
        self.seed += 1;
        let response = guest.room(108);
        let chain = [
            guest.out(&request(DISK, self.seed.into(), &write_10(lba, 1))),
            guest.out(&pattern(1, self.seed)),
            response,
        ];
        let head = guest.submit(queue, &[guest.indirect(&chain)]);
        let write = Write { lba, seed: self.seed, response: response.address };
        assert!(self.flying.insert((queue, head), write).is_none(), "head {head} is in use");
    }

    /// Takes an answer; true if there was one.
    fn take(&mut self, guest: &Guest, queue: usize) -> bool {
        let Some(used) = guest.try_used(queue) else { return false };
        let write = self.flying.remove(&(queue, used.head)).expect("answered once");
        assert_eq!(used.len, 108);
        assert_eq!(guest.read(write.response + 10, 2), [0, 0], "status and response");
        self.answered.insert(write.lba, write.seed);
        true
    }

    fn run(&mut self, guest: &Guest, how_long: Duration) {
        let end = Instant::now() + how_long;
        while Instant::now() < end {
            for queue in REQUEST_QUEUE..REQUEST_QUEUE + QUEUES {
                while self.take(guest, queue) {}
                while self.flying.keys().filter(|(of, _)| *of == queue).count() < DEPTH {
                    self.send(guest, queue);
                }
            }
        }
    }

    fn finish(&mut self, guest: &Guest) {
        let end = Instant::now() + PATIENCE;
        while !self.flying.is_empty() {
            assert!(Instant::now() < end, "{} commands are lost", self.flying.len());
            for queue in REQUEST_QUEUE..REQUEST_QUEUE + QUEUES {
                while self.take(guest, queue) {}
            }
        }
    }
}

/// Every write that was answered is there, every other one is answered by the next daemon, and no block
/// is a mixture.
#[test]
fn nothing_is_lost_when_the_daemon_is_killed_under_load() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("scsi");
    let seed = u64::from(std::process::id()) << 20 | 1;
    let mut load = Load { random: seed, answered: HashMap::new(), flying: HashMap::new(), seed: 0 };
    let mut daemon = Daemon::start(directory.path());
    let mut guest = Guest::connect_with_inflight(&socket, 2);
    let mut in_flight = 0;
    for round in 1..=ROUNDS {
        let how_long = Duration::from_micros(load.random() % 20_000);
        load.run(&guest, how_long);
        daemon.kill();
        guest.lose_device();
        // Those whose answer came just before the end.
        for queue in REQUEST_QUEUE..REQUEST_QUEUE + QUEUES {
            while load.take(&guest, queue) {}
        }
        in_flight += load.flying.len();
        daemon = Daemon::start(directory.path());
        guest.reconnect(&socket);
        load.finish(&guest);
        daemon.hurry();
        for (lba, written) in &load.answered {
            let answer = guest.command(DISK, &read_10(*lba, 1), &[], 512);
            assert_eq!(
                answer.data_in,
                pattern(1, *written),
                "seed {seed}, round {round}, LBA {lba}"
            );
        }
    }
    assert!(in_flight > 0, "the daemon always died idle");
    daemon.kill();
}
