//! The program `sensecheck-ublk`, run as a user would: what it does to devices, what it says, and how it ends.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    os::unix::{fs::FileExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::mpsc::channel,
    thread,
    time::Duration,
};

use bsg::Access;
use harness::{
    BlockDevice, UblkDevice, declare,
    program::{self, Ran},
    wait,
};
use rstest::rstest;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use ublk::Control;

use super::{
    integrity::{INTEGRITY, protection},
    modes::SINCE_7_0,
    recorder::pattern,
    zoned_server::ZONED,
};

const PROGRAM: &str = "sensecheck-ublk";
const DEADLINE: Duration = Duration::from_secs(30);

/// A server that runs, `add` or `recover`. Dropping it kills it and deletes its device.
struct Serving {
    process: Child,
    stdout: BufReader<ChildStdout>,
    first: String,
    number: u32,
}

impl Serving {
    /// Starts the program and waits until it says that it serves.
    #[track_caller]
    fn start(arguments: &[&str]) -> Self {
        let mut process = Command::new(PROGRAM)
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{PROGRAM}: {error}"));
        let mut stdout = BufReader::new(process.stdout.take().expect("it is piped"));
        let mut first = String::new();
        stdout.read_line(&mut first).expect("its first line");
        let said = match serde_json::from_str::<Value>(&first) {
            Ok(json) => json["number"].as_u64().and_then(|number| number.try_into().ok()),
            Err(_) => first.trim_end().strip_prefix("/dev/ublkb").and_then(|n| n.parse().ok()),
        };
        let Some(number) = said else {
            let mut errors = String::new();
            let _best_effort = process.stderr.take().map(|mut e| e.read_to_string(&mut errors));
            panic!("{arguments:?} said {first:?} and {errors:?}");
        };
        Serving { process, stdout, first, number }
    }

    fn path(&self) -> PathBuf {
        format!("/dev/ublkb{}", self.number).into()
    }

    fn disk(&self) -> BlockDevice {
        BlockDevice::open(&self.path(), Access::ReadWrite)
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw).expect("a pid");
        kill_process(pid, signal).expect("it takes signals until it is waited for");
    }

    /// Waits for its end, and returns what else it has said.
    #[track_caller]
    fn ended(&mut self) -> (ExitStatus, String) {
        let process = &mut self.process;
        let status = wait::until(DEADLINE, "its end", || process.try_wait().transpose());
        let status = status.unwrap_or_else(|error| panic!("{error}")).expect("a child of ours");
        let mut said = String::new();
        self.stdout.read_to_string(&mut said).expect("its output");
        let stderr = self.process.stderr.as_mut().expect("it is piped");
        stderr.read_to_string(&mut said).expect("its errors");
        (status, said)
    }

    /// Sends a signal, upon which it has to end well and to leave nothing behind.
    #[track_caller]
    fn end(mut self, signal: Signal) {
        self.signal(signal);
        let (status, said) = self.ended();
        assert_eq!((status.code(), said.as_str()), (Some(0), ""));
        let left = UblkDevice::find(self.number);
        assert!(left.is_none(), "{left:?}");
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // Has it ended already, there is nothing to kill, and often nothing to delete.
        let _gone = self.process.kill().and_then(|()| self.process.wait());
        if UblkDevice::find(self.number).is_some() {
            drop(UblkDevice::adopt(self.number));
        }
    }
}

#[track_caller]
fn run(arguments: &[&str]) -> Ran {
    program::run(PROGRAM, arguments)
}

/// What `--json list` says of a device; `Null` if nothing.
#[track_caller]
fn listed(number: u32) -> Value {
    let ran = run(&["--json", "list"]);
    let all: Vec<Value> = serde_json::from_str(ran.ended_with(0)).expect("an array");
    all.into_iter().find(|device| device["number"] == number).unwrap_or_default()
}

#[track_caller]
fn await_state(number: u32, state: &str) {
    let reached = wait::until(DEADLINE, format!("{state} in the list"), || {
        (listed(number)["state"] == state).then_some(())
    });
    reached.unwrap_or_else(|error| panic!("{error}"));
}

/// A file of the test's own, which goes with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path = PathBuf::from(format!("/tmp/{name}-{}", std::process::id()));
        fs::write(&path, bytes).expect("/tmp takes files");
        Scratch(path)
    }

    fn name(&self) -> &str {
        self.0.to_str().expect("ASCII")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _gone = fs::remove_file(&self.0);
    }
}

/// Help names every command, and tells of exit codes; a bad command line is exit code 2, with what would be right.
#[rstest]
fn help_has_every_command_and_a_bad_command_line_ends_with_2() {
    declare!(Contract, SINCE_7_0);
    run(&["--help"]).says(&[
        "features",
        "list",
        "add",
        "recover",
        "del",
        "stop",
        "quiesce",
        "resize",
        "--json",
        "Examples:",
        "Exit codes: 0",
    ]);
    run(&["add", "--help"]).says(&["--ram", "--file", "--queues", "--mode", "--batch"]);
    for (bad, word) in [
        (&["add"][..], "--ram <SIZE>"),
        (&["add", "--ram", "1000"], "multiple of 512"),
        (&["add", "--ram", "1M", "--null", "1M"], "cannot be used with"),
        (&["add", "--ram", "1M", "--mode", "magic"], "zero-copy"),
        (&["add", "--ram", "1M", "--pi-offset", "8"], "--metadata-size <BYTES>"),
        (&["del"], "<NUMBERS>"),
        (&["no-such-command"], "unrecognized subcommand"),
    ] {
        let ran = run(bad);
        assert!(ran.ended_with(2).contains(word), "{bad:?}: {}", ran.said);
    }
}

/// `features` says what GET_FEATURES does.
#[rstest]
fn features_are_those_of_the_driver() {
    declare!(Contract, SINCE_7_0);
    let features = Control::open().and_then(|mut control| control.features()).expect("features");
    let json: Value = serde_json::from_str(run(&["--json", "features"]).ended_with(0)).expect("");
    assert_eq!(json["bits"], features.bits());
    let names: Vec<&str> =
        json["names"].as_array().expect("").iter().flat_map(Value::as_str).collect();
    assert!(names.contains(&"USER_COPY") && names.contains(&"ZONED"), "{names:?}");
    let plain = run(&["features"]);
    assert_eq!(plain.ended_with(0).lines().collect::<Vec<_>>(), names);
}

/// `add` serves in the foreground, says what as JSON if asked, is in the list with its process id, and ends well by either
/// signal: the device is gone then.
#[rstest]
#[case::interrupted(Signal::INT, &[])]
#[case::terminated(Signal::TERM, &["--batch", "--threads", "2"])]
fn added_device_is_served_until_a_signal(#[case] signal: Signal, #[case] how: &[&str]) {
    declare!(Contract, SINCE_7_0);
    let add = [&["--json", "add", "--ram", "1M", "--depth", "4"], how].concat();
    let serving = Serving::start(&add);
    let json: Value = serde_json::from_str(&serving.first).expect("JSON");
    let features = json["features"].as_array().expect("its features");
    assert_eq!(features.contains(&"BATCH_IO".into()), how.contains(&"--batch"), "{features:?}");
    assert_eq!((&json["state"], &json["bytes"]), (&"live".into(), &(1 << 20).into()));
    assert_eq!((&json["queues"], &json["depth"]), (&1.into(), &4.into()));
    assert_eq!(json["server_pid"], serving.process.id());
    assert_eq!(listed(serving.number), json);
    let line = format!("/dev/ublkb{} live 1048576 bytes 1 queues of 4", serving.number);
    run(&["list"]).says(&[&line]);
    let disk = serving.disk();
    assert_eq!(disk.sectors(), 2048);
    disk.write(8 * 512, &pattern(8, 8, 1)).expect("written");
    assert_eq!(disk.read(8 * 512, 4096).expect("read"), pattern(8, 8, 1));
    drop(disk);
    serving.end(signal);
}

/// `--zone-size` makes zones: the list says how many, and each is written in sequence, after which its report says so.
#[rstest]
fn zones_are_made_and_written_in_sequence() {
    declare!(Contract, ZONED);
    let serving = Serving::start(&["--json", "add", "--ram", "1M", "--zone-size", "64K"]);
    let json: Value = serde_json::from_str(&serving.first).expect("JSON");
    let zones = serde_json::json!({ "number": 16, "bytes": 65536 });
    assert_eq!((&json["zones"], &json["integrity"]), (&zones, &Value::Null));
    assert_eq!(listed(serving.number), json);
    let disk = serving.disk();
    disk.write(2 * 65536, &pattern(256, 8, 1)).expect("where its third zone begins");
    disk.write(2 * 65536 + 4096, &pattern(264, 8, 1)).expect("behind it");
    disk.write(3 * 65536 + 4096, &pattern(0, 8, 1)).expect_err("not where its fourth begins");
    let pointers: Vec<u64> =
        disk.report(0).expect("BLKREPORTZONE").iter().map(|z| z.wp - z.start).collect();
    assert_eq!((pointers.len(), &pointers[1..4]), (16, &[0, 16, 0][..]));
    drop(disk);
    serving.end(Signal::TERM);
}

/// `--metadata-size` and what goes with it make metadata with protection information, which the block layer fills in and
/// the server keeps.
#[rstest]
fn metadata_is_kept_beside_the_data() {
    declare!(Contract, INTEGRITY);
    let shape = ["--metadata-size", "16", "--csum-type", "crc16-t10dif", "--pi-offset", "8"];
    let add = [&["--json", "add", "--ram", "64K", "--tag-size", "2"], &shape[..]].concat();
    let serving = Serving::start(&add);
    let json: Value = serde_json::from_str(&serving.first).expect("JSON");
    let told = serde_json::json!({
        "metadata_size": 16, "csum_type": "crc16-t10dif", "pi_offset": 8, "tag_size": 2,
    });
    assert_eq!((&json["integrity"], &json["zones"]), (&told, &Value::Null));
    assert_eq!(listed(serving.number), json);
    let disk = serving.disk();
    let data = pattern(8, 2, 4);
    disk.write(8 * 512, &data).expect("written");
    let (back, metadata) = disk.read_with_metadata(8 * 512, 1024, 32, 8).expect("read");
    let expected = (8..).zip(data.chunks(512)).flat_map(|(sector, bytes)| {
        let guarded = [bytes, &[0; 8]].concat();
        [vec![0; 8], protection(sector, &guarded, 0)].concat()
    });
    assert_eq!((back == data, metadata), (true, expected.collect()));
    drop(disk);
    serving.end(Signal::TERM);
}

/// `--file` in each way in which data can move: what is written is in the file when the server has ended.
#[rstest]
fn file_has_what_was_written(
    #[values("copy", "get-data", "user-copy", "zero-copy", "auto-buf")] mode: &str,
) {
    declare!(Contract, SINCE_7_0);
    let file = Scratch::new("medium", &[0; 64 << 10]);
    let serving = Serving::start(&["add", "--file", file.name(), "--mode", mode, "--threads", "2"]);
    let disk = serving.disk();
    disk.write(16 * 512, &pattern(16, 32, 7)).expect("written");
    assert_eq!(disk.read(16 * 512, 16 << 10).expect("read"), pattern(16, 32, 7));
    drop(disk);
    serving.end(Signal::TERM);
    let mut stored = vec![0; 16 << 10];
    let medium = File::open(&file.0).expect("the file");
    medium.read_exact_at(&mut stored, 16 * 512).expect("its bytes");
    assert!(stored == pattern(16, 32, 7), "the file differs from what was written");
}

/// A device with `--recovery` outlives a server that is killed; `recover` serves it again, with the same data, and takes
/// no medium of another size.
#[rstest]
fn recover_goes_on_where_a_killed_server_was() {
    declare!(Contract, SINCE_7_0);
    let file = Scratch::new("medium", &[0; 64 << 10]);
    let mut first = Serving::start(&["add", "--file", file.name(), "--recovery", "reissue"]);
    let disk = first.disk();
    disk.write(0, &pattern(0, 8, 3)).expect("written");
    first.signal(Signal::KILL);
    first.ended();
    await_state(first.number, "quiesced");
    let number = first.number.to_string();
    let wrong = run(&["recover", &number, "--ram", "1M"]);
    let words = "has 128 sectors and the medium 2048: give the medium it had";
    assert!(wrong.ended_with(1).contains(words), "{}", wrong.said);
    let second = Serving::start(&["recover", &number, "--file", file.name()]);
    assert_eq!(second.number, first.number);
    assert_eq!(disk.read(0, 4096).expect("read"), pattern(0, 8, 3));
    drop(disk);
    second.end(Signal::INT);
}

/// `quiesce` ends a server and keeps the disk; `stop` ends one and the disk, unless somebody has it open and that was
/// asked for. The server says how to go on.
#[rstest]
fn server_is_told_when_another_ends_it() {
    declare!(Contract, SINCE_7_0);
    let mut serving = Serving::start(&["add", "--ram", "64K", "--recovery", "wait"]);
    let number = serving.number.to_string();
    run(&["quiesce", &number]).ended_with(0);
    let (status, said) = serving.ended();
    assert_eq!(status.code(), Some(0));
    assert!(said.contains(&format!("`sensecheck-ublk recover {number}`")), "{said}");
    await_state(serving.number, "quiesced");
    let mut next = Serving::start(&["recover", &number, "--ram", "64K"]);
    let disk = next.disk();
    let busy = run(&["stop", &number, "--unless-open"]);
    assert!(busy.ended_with(1).contains("cannot stop device"), "{}", busy.said);
    assert!(busy.said.contains("Somebody uses it"), "{}", busy.said);
    drop(disk);
    // The opener's last reference goes a moment after its close.
    let stopped = wait::until(DEADLINE, "TRY_STOP_DEV", || {
        (run(&["stop", &number, "--unless-open"]).code == Some(0)).then_some(())
    });
    stopped.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(next.ended().0.code(), Some(0));
    assert_eq!(listed(next.number)["state"], "dead");
    run(&["del", &number]).ended_with(0);
    assert_eq!(listed(next.number), Value::Null);
}

/// `resize` changes the disk; `del` takes several numbers, and frees them while their servers run.
#[rstest]
fn devices_are_resized_and_deleted_while_they_are_served() {
    declare!(Contract, SINCE_7_0);
    let mut servers = [1, 2].map(|_| Serving::start(&["add", "--ram", "64K"]));
    let disk = servers[0].disk();
    run(&["resize", &servers[0].number.to_string(), "32K"]).ended_with(0);
    assert_eq!(disk.sectors(), 64);
    drop(disk);
    let [one, two] = [0, 1].map(|at| servers[at].number.to_string());
    run(&["del", &one, &two]).ended_with(0);
    for server in &mut servers {
        assert!(UblkDevice::find(server.number).is_none());
        assert_eq!(server.ended().0.code(), Some(0));
    }
}

/// What is refused is exit code 1, with what was tried, why, and what helps; and nothing is left of it.
#[rstest]
fn refusals_say_what_helps() {
    declare!(Contract, SINCE_7_0);
    let before = run(&["--json", "list"]).said;
    let bad = Scratch::new("bad.toml", b"format = 1\nwords = \"scsi\"\n");
    let odd = Scratch::new("odd", &[0; 700]);
    for (arguments, words) in [
        (
            &["del", "99999"][..],
            &["cannot delete device 99999", "No such device", "`sensecheck-ublk list`"][..],
        ),
        (&["recover", "99999", "--ram", "64K"], &["GET_PARAMS", "`sensecheck-ublk list`"]),
        (&["resize", "99999", "64K"], &["cannot resize device 99999"]),
        (&["add", "--file", "/no/such/file"], &["cannot open /no/such/file", "No such file"]),
        (&["add", "--file", odd.name()], &["has 700 bytes", "`truncate -s 1G`"]),
        (&["add", "--null", "1M", "--zone-size", "64K"], &["give --ram"]),
        (&["add", "--ram", "1M", "--zone-size", "96K"], &["give a power of two"]),
        (&["add", "--ram", "1M", "--zone-size", "64K", "--mode", "copy"], &["leave out --mode"]),
        (
            &["add", "--ram", "64K", "--metadata-size", "15", "--csum-type", "crc64-nvme"],
            &["16 bytes of protection information", "give a larger --metadata-size"],
        ),
        (&["add", "--ram", "64K", "--scenario", "/none"], &["cannot read /none"]),
        (&["add", "--ram", "64K", "--scenario", bad.name()], &["is no scenario for ublk"]),
    ] {
        let ran = run(arguments);
        let said = ran.ended_with(1);
        assert!(said.starts_with("error: "), "{said}");
        for word in words {
            assert!(said.contains(word), "{arguments:?} did not say {word:?}: {said}");
        }
    }
    assert_eq!(run(&["--json", "list"]).said, before);
}

/// A number that is taken: EEXIST, and the device that has it goes on.
#[rstest]
fn number_in_use_is_refused() {
    declare!(Contract, SINCE_7_0);
    let serving = Serving::start(&["add", "--ram", "64K"]);
    let number = serving.number.to_string();
    let ran = run(&["add", "--ram", "64K", "--number", &number]);
    assert!(ran.ended_with(1).contains("ADD_DEV"), "{}", ran.said);
    assert_eq!(serving.disk().read(0, 512).expect("read"), [0; 512]);
    serving.end(Signal::TERM);
}

/// Somebody who may not open the driver's node is told what he would have to be.
#[rstest]
fn user_without_rights_is_told_so() {
    declare!(Contract, SINCE_7_0);
    let output = Command::new(PROGRAM).arg("features").uid(65534).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("/dev/ublk-control") && said.contains("Run it as root"), "{said}");
}

/// A scenario file has the device go wrong as it says.
#[rstest]
fn scenario_makes_the_device_go_wrong() {
    declare!(Contract, SINCE_7_0);
    let bad_spot = include_bytes!("../../../ublk-scenarios/bad-spot.toml");
    let scenario = Scratch::new("bad-spot.toml", bad_spot);
    let serving = Serving::start(&["add", "--ram", "64K", "--scenario", scenario.name()]);
    let disk = serving.disk();
    disk.read(0, 12 * 512).expect("up to the bad sector");
    assert_eq!(disk.read(12 * 512, 512).expect_err("bad").raw_os_error(), Some(61), "ENODATA");
    drop(disk);
    serving.end(Signal::TERM);

    let die = Scratch::new("die.toml", include_bytes!("../../../ublk-scenarios/die.toml"));
    let mut serving = Serving::start(&["add", "--ram", "64K", "--scenario", die.name()]);
    let disk = serving.disk();
    assert_eq!(disk.write(0, &[1; 512]).expect_err("its server dies").raw_os_error(), Some(5));
    assert_eq!(serving.ended().0.code(), Some(86));
    drop(disk);
    await_state(serving.number, "dead");
}

/// A request that is held keeps the first signal waiting; the second gives it up: it fails, the server ends with exit code
/// 1, and the device is gone.
#[rstest]
fn second_signal_ends_a_server_that_waits() {
    declare!(Contract, SINCE_7_0);
    let held = b"format = 1\nwords = \"ublk\"\n[[rule]]\nname = \"held\"\nwhen = { op = \"write\" }\neffect = { hold = \"for-ever\" }\n";
    let scenario = Scratch::new("held.toml", held);
    let mut serving = Serving::start(&["add", "--ram", "64K", "--scenario", scenario.name()]);
    let disk = serving.disk();
    let (send, written) = channel();
    thread::spawn(move || {
        let outcome = disk.write(0, &[1; 512]);
        drop(disk);
        let _over = send.send(outcome);
    });
    let inflight = Path::new("/sys/class/block").join(format!("ublkb{}/inflight", serving.number));
    let begun = wait::until(DEADLINE, "the write", || {
        let counts = fs::read_to_string(&inflight).ok()?;
        counts.split_whitespace().nth(1).is_some_and(|writes| writes != "0").then_some(())
    });
    begun.unwrap_or_else(|error| panic!("{error}"));
    serving.signal(Signal::TERM);
    let process = &mut serving.process;
    let ended =
        wait::until(Duration::from_millis(50), "its end", || process.try_wait().transpose());
    assert!(ended.is_err(), "it waits for the write");
    serving.signal(Signal::TERM);
    let failed = written.recv_timeout(DEADLINE).expect("it ends").expect_err("nobody did it");
    assert_eq!(failed.raw_os_error(), Some(5), "EIO");
    let (status, said) = serving.ended();
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("were given up"), "{said}");
    assert!(UblkDevice::find(serving.number).is_none(), "the device is gone");
}
