//! `sensecheck-target` as a process: start, stop, sockets, complaints.

use std::{
    fs,
    io::{BufRead, BufReader},
    ops::Deref,
    os::unix::{
        fs::{MetadataExt, chown},
        net::{UnixListener, UnixStream},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use control::{Client, DeviceType, LunAddress};
use rstest::rstest;
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);
const PROGRAM: &str = env!("CARGO_BIN_EXE_sensecheck-target");

struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Place {
        Place { directory: tempfile::tempdir().expect("a directory") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The daemon on sockets `scsi` and `control` of this place.
    fn command(&self, arguments: &[&str]) -> Command {
        self.command_of(Path::new(PROGRAM), arguments)
    }

    fn command_of(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.arg("--socket").arg(self.path("scsi")).arg("--control").arg(self.path("control"));
        command.args(arguments).env_remove("RUST_LOG").stdin(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// Starts it and waits until it is ready. Nobody reads its stderr afterwards, which must not
    /// trouble it.
    fn start(&self, arguments: &[&str]) -> Daemon {
        Self::start_command(&mut self.command(arguments))
    }

    fn start_command(command: &mut Command) -> Daemon {
        let begun = Instant::now();
        let mut child = command.spawn().expect("the daemon runs");
        // Reading until "ready" waits without polling; an end without it is the end of the stream.
        let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let mut log = String::new();
        for line in lines {
            log += &line.expect("UTF-8");
            log.push('\n');
            if log.contains("ready") {
                return Daemon { child: Guarded(child), started_in: begun.elapsed() };
            }
        }
        panic!("the daemon ended with {:?}:\n{log}", child.wait());
    }

    fn client(&self) -> Client {
        Client::connect(&self.path("control"), PATIENCE).expect("the daemon listens")
    }

    /// Runs a daemon that is expected to refuse; returns its exit code and words.
    fn refused(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.command(arguments).output().expect("the daemon runs");
        (output.status.code(), String::from_utf8(output.stderr).expect("UTF-8"))
    }
}

/// A process that does not outlive its test.
struct Guarded(Child);

impl Deref for Guarded {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // Errors say that it has ended, as it should have.
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}

struct Daemon {
    child: Guarded,
    started_in: Duration,
}

impl Daemon {
    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("it runs");
    }

    /// Waits for the end, which a helper thread reports.
    fn ended(mut self) -> (ExitStatus, Duration) {
        let begun = Instant::now();
        let (sender, receiver) = std::sync::mpsc::channel();
        let pid = Pid::from_child(&self.child);
        thread::spawn(move || {
            let status = self.child.0.wait().expect("our child");
            sender.send(status).expect("somebody waits");
        });
        let status = receiver.recv_timeout(PATIENCE).unwrap_or_else(|_| {
            kill_process(pid, Signal::KILL).expect("it runs");
            panic!("the daemon did not end in {PATIENCE:?}");
        });
        (status, begun.elapsed())
    }
}

#[rstest]
#[case::sigterm(Signal::TERM)]
#[case::sigint(Signal::INT)]
fn signal_ends_it_with_0_and_without_its_sockets(#[case] signal: Signal) {
    let place = Place::new();
    let daemon = place.start(&["--luns", "2"]);
    let _front_end = UnixStream::connect(place.path("scsi")).expect("it listens");
    let client = place.client();
    assert_eq!(client.hello().pid, daemon.child.id());
    daemon.signal(signal);
    let (status, took) = daemon.ended();
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(!place.path("scsi").exists() && !place.path("control").exists());
}

#[test]
fn start_is_quick_with_a_pool() {
    let place = Place::new();
    let times: Vec<_> = (0..5)
        .map(|_| {
            let daemon = place.start(&["--targets", "4", "--luns", "8", "--disks", "2"]);
            daemon.signal(Signal::TERM);
            let started_in = daemon.started_in;
            daemon.ended();
            started_in
        })
        .collect();
    // The best of five, because the machine may be busy; the aim is 50 ms.
    assert!(times.iter().min().expect("five") < &Duration::from_millis(50), "{times:?}");
}

#[test]
fn pool_and_disks_are_what_was_asked_for() {
    let place = Place::new();
    let file = place.path("disk.img");
    let disk = format!("1M,block=4096,file={},ro", file.display());
    let daemon = place.start(&["--targets", "2", "--luns", "2", "--disk", &disk, "--disks", "1"]);
    let client = place.client();
    let units: Vec<_> = client
        .hello()
        .luns
        .iter()
        .map(|unit| {
            let spec = &unit.spec;
            let address = (unit.address.target, unit.address.lun);
            (address, spec.device_type, spec.block_len, spec.blocks, spec.write_protect)
        })
        .collect();
    let pool = |target, lun| ((target, lun), DeviceType::Processor, 512, 32_768, false);
    assert_eq!(
        units,
        [
            pool(0, 0),
            pool(0, 1),
            pool(1, 0),
            pool(1, 1),
            ((2, 0), DeviceType::Disk, 4096, 256, true),
            ((2, 1), DeviceType::Disk, 512, 32_768, false),
        ]
    );
    assert_eq!(fs::metadata(file).expect("created").len(), 1 << 20);
    daemon.signal(Signal::TERM);
    daemon.ended();
}

#[test]
fn sockets_of_a_killed_daemon_are_taken_over() {
    let place = Place::new();
    let killed = place.start(&["--luns", "1"]);
    killed.signal(Signal::KILL);
    killed.ended();
    assert!(place.path("scsi").exists());
    let daemon = place.start(&["--luns", "1"]);
    assert_eq!(place.client().hello().pid, daemon.child.id());
    daemon.signal(Signal::TERM);
    daemon.ended();
}

#[test]
fn living_sockets_are_not_taken_over() {
    let place = Place::new();
    let daemon = place.start(&["--luns", "1"]);
    let (code, words) = place.refused(&["--luns", "1"]);
    assert_eq!(code, Some(1));
    assert!(words.contains("another process is listening there"), "{words}");
    assert_eq!(place.client().hello().pid, daemon.child.id(), "the first is unharmed");
    daemon.signal(Signal::TERM);
    daemon.ended();
}

#[test]
fn control_socket_that_cannot_be_bound_leaves_no_other_socket_behind() {
    let place = Place::new();
    let _other = UnixListener::bind(place.path("control")).expect("a free path");
    let (code, words) = place.refused(&["--luns", "1"]);
    assert_eq!(code, Some(1));
    assert!(words.contains("another process is listening there"), "{words}");
    assert!(!place.path("scsi").exists());
}

#[test]
fn missing_directory_is_named() {
    let output = Command::new(PROGRAM)
        .args(["--socket", "/nonexistent/scsi", "--disks", "1"])
        .output()
        .expect("the daemon runs");
    assert_eq!(output.status.code(), Some(1));
    let words = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(
        words,
        "error: /nonexistent/scsi: directory /nonexistent does not exist; create it first\n"
    );
}

#[test]
fn unusable_medium_is_named() {
    let place = Place::new();
    let disk = "1M,file=/nonexistent/disk.img";
    let (code, words) = place.refused(&["--disk", disk]);
    assert_eq!(code, Some(1));
    assert!(words.contains("/nonexistent/disk.img"), "{words}");
    assert!(!place.path("scsi").exists());
}

#[test]
fn bad_command_line_ends_with_2_and_a_reason() {
    let place = Place::new();
    for (arguments, reason) in [
        (&[][..], "nothing to serve"),
        (&["--disk", "12"], "no whole number of 512-byte blocks"),
        (&["--wat"], "--wat"),
    ] {
        let (code, words) = place.refused(arguments);
        assert_eq!(code, Some(2), "{words}");
        assert!(words.contains(reason), "{words}");
    }
}

#[test]
fn help_tells_addresses_examples_and_exit_codes() {
    let output = Command::new(PROGRAM).arg("--help").output().expect("the daemon runs");
    assert_eq!(output.status.code(), Some(0));
    let help = String::from_utf8(output.stdout).expect("UTF-8");
    for word in ["--disk", "Examples:", "Exit codes:", "vhost-user-scsi-pci", "Addresses:"] {
        assert!(help.contains(word), "{word} is missing in\n{help}");
    }
}

/// Nobody, where the test runs as root; otherwise whoever runs it is an ordinary user.
#[test]
fn ordinary_user_can_run_it() {
    const NOBODY: u32 = 65_534;
    let place = Place::new();
    // In a directory of the user's own, with copies of what may lie where the user cannot look.
    let (program, scenario) = (place.path("program"), place.path("bad-disk.toml"));
    // By another process: a child of another test's that had it open for writing would keep it from running.
    let copied = Command::new("cp").arg(PROGRAM).arg(&program).status();
    assert!(copied.expect("cp runs").success());
    let scenarios = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../harness/scenarios");
    fs::copy(scenarios.join("bad-disk.toml"), &scenario).expect("room");
    let disk = place.path("disk.img");
    let scenario = scenario.to_str().expect("UTF-8");
    let disk_argument = format!("1M,file={}", disk.display());
    let mut command =
        place.command_of(&program, &["--scenario", scenario, "--disk", &disk_argument]);
    if geteuid().is_root() {
        chown(place.directory.path(), Some(NOBODY), Some(NOBODY)).expect("we are root");
        command.uid(NOBODY).gid(NOBODY);
    }
    let daemon = Place::start_command(&mut command);
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.child.id()));
    let status = status.expect("it runs");
    assert!(status.contains("\nCapEff:\t0000000000000000\n"), "{status}");
    let owner = fs::metadata(&disk).expect("created").uid();
    assert!(owner != 0 && status.contains(&format!("\nUid:\t{owner}\t{owner}\t")), "{status}");
    let _front_end = UnixStream::connect(place.path("scsi")).expect("it listens");
    let mut client = place.client();
    let rules = client.journal(LunAddress { target: 0, lun: 0 }).expect("the disk").rules;
    assert_eq!(rules.len(), 3, "{rules:?}");
    daemon.signal(Signal::TERM);
    let (status, _) = daemon.ended();
    assert_eq!(status.code(), Some(0));
    assert!(!place.path("scsi").exists() && !place.path("control").exists());
}

/// The medium in a file outlives the daemon.
#[test]
fn file_medium_is_kept() {
    let place = Place::new();
    let path: &Path = &place.path("disk.img");
    fs::write(path, [7; 1024]).expect("our directory");
    let daemon = place.start(&["--disk", &format!("file={}", path.display())]);
    assert_eq!(place.client().hello().luns[0].spec.blocks, 2);
    daemon.signal(Signal::TERM);
    daemon.ended();
    assert_eq!(fs::read(path).expect("kept"), [7; 1024]);
}
