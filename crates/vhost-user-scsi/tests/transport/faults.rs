//! Faults that only the other end of the rings can see: fields that no kernel passes on, and how far a command
//! got when the daemon died. Offsets of the response are those of virtio 1.2, 5.6.6.1.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use control::{Client, Faults, JournalEntry, JournalPage, LunAddress, LunSpec};
use fault::Times;
use rstest::rstest;
use rustix::process::{Pid, Signal, kill_process};
use scsi_fault::{Code, Effect, Hostile, Rule, Sense, When};
use vhost_user_scsi::target::Settings;

use crate::{
    driver::{Daemon, REQUEST_QUEUE, TEST_UNIT_READY, UNIT, pattern, read_10, request, write_10},
    guest::Guest,
};

const ADDRESS: LunAddress = LunAddress { target: 0, lun: 0 };
const PATIENCE: Duration = Duration::from_secs(20);

fn scenario(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../harness/scenarios/{name}.toml"))
}

/// Linux ignores the status qualifier, and cuts sense data at 96 bytes as this transport does.
#[test]
fn response_has_the_status_qualifier_and_as_much_sense_as_there_is_room() {
    let daemon = Daemon::start();
    let (guest, mut client) = (daemon.guest(), daemon.client());
    let effect = Effect {
        status: Some(Code::from(0x42)),
        status_qualifier: Some(0x1234),
        sense: Some(Sense::raw(&[0x5a; 100])),
        ..Effect::default()
    };
    let faults = Faults { seed: 0, rules: vec![Rule::new("odd", effect)] };
    client.faults(ADDRESS, faults).expect("LUN 0");
    let answer = guest.command(UNIT, &TEST_UNIT_READY, &[], 0);
    assert_eq!((answer.status, answer.status_qualifier, answer.response), (0x42, 0x1234, 0));
    assert_eq!(answer.sense, [0x5a; 96]);
    assert_eq!(guest.command(UNIT, &TEST_UNIT_READY, &[], 0).status, 0);
}

/// The same seed and the same commands in the same order give the same journal, whatever other units do
/// meanwhile.
#[test]
fn journal_is_a_function_of_seed_and_arrival() {
    let daemon = Daemon::start();
    let (guest, mut client) = (daemon.guest(), daemon.client());
    let sense = Effect::sense(Sense::named("UNRECOVERED READ ERROR"));
    let rules = vec![
        Rule::new("unlucky", sense).times(Times::Ratio { hits: 1, of: 3 }),
        Rule::new("lost", Effect::write(scsi_fault::WriteFault::Lost))
            .when(When::command("WRITE(10)"))
            .times(Times::Ratio { hits: 1, of: 2 }),
    ];
    let mut run = |seed, noise: bool| {
        client.reset_lun(ADDRESS, LunSpec::default()).expect("LUN 0");
        client.faults(ADDRESS, Faults { seed, rules: rules.clone() }).expect("LUN 0");
        for lba in 0..40 {
            guest.command(UNIT, &write_10(lba, 1), &pattern(1, lba), 0);
            if noise {
                guest.command(crate::driver::DISK, &TEST_UNIT_READY, &[], 0);
            }
            guest.command(UNIT, &read_10(lba, 1), &[], 512);
        }
        client.journal(ADDRESS).expect("LUN 0").canonical()
    };
    let first = run(7, false);
    assert_eq!(first, run(7, true));
    assert_ne!(first, run(8, false));
    assert!(first.iter().any(|entry| entry.rule.as_deref() == Some("unlucky")));
    assert!(first.iter().any(|entry| entry.rule.as_deref() == Some("lost")));
}

/// Of commands that race each other over four queues, the canonical journal has the order in which they were counted:
/// it is each third that has met the rule, the first among them.
#[test]
fn canonical_journal_has_the_order_in_which_rules_were_asked() {
    const OF_QUEUE: usize = 120;
    let daemon = Daemon::start();
    let (guest, mut client) = (daemon.guest(), daemon.client());
    let rules = vec![Rule::new("third", Effect::status("BUSY")).times(Times::Every(3))];
    client.faults(ADDRESS, Faults { seed: 0, rules }).expect("LUN 0");
    let queues = REQUEST_QUEUE..REQUEST_QUEUE + 4;
    for number in 0..OF_QUEUE as u64 {
        for queue in queues.clone() {
            let chain = [guest.out(&request(UNIT, number, &TEST_UNIT_READY)), guest.room(108)];
            let head = guest.place(queue, &[guest.indirect(&chain)]);
            guest.make_available(queue, head);
        }
    }
    queues.clone().for_each(|queue| guest.kick(queue));
    for queue in queues {
        for _ in 0..OF_QUEUE {
            guest.used(queue);
        }
    }
    let journal = client.journal(ADDRESS).expect("LUN 0").canonical();
    assert_eq!(journal.len(), 4 * OF_QUEUE);
    let wrong = |(at, entry): &(usize, &JournalEntry)| entry.rule.is_some() != (at % 3 == 0);
    assert_eq!(journal.iter().enumerate().find(wrong), None);
}

/// The same over two queues, with every way to count and with delays: commands that come in a fixed order, each
/// while those before it may still wait, are told of in that order, however long each took and whichever queue
/// it took.
#[test]
fn journal_is_a_function_of_arrival_over_two_queues() {
    const COMMANDS: u32 = 60;
    let daemon = Daemon::start();
    let (guest, mut client) = (daemon.guest(), daemon.client());
    let delay = |to| Effect { delay_us: Some(1), delay_up_to_us: Some(to), ..Effect::default() };
    let rules = vec![
        Rule::new("first", Effect::status("BUSY")).times(Times::First(5)).nth(2),
        Rule::new("every", Effect::status("TASK SET FULL")).times(Times::Every(7)),
        Rule::new("unlucky", Effect::sense(Sense::named("UNRECOVERED READ ERROR")))
            .when(When::command("READ(10)"))
            .times(Times::Ratio { hits: 1, of: 3 }),
        Rule::new("slow", delay(30_000)).times(Times::Ratio { hits: 1, of: 2 }),
    ];
    let mut run = |seed, queue_of: fn(u32) -> usize| {
        client.reset_lun(ADDRESS, LunSpec::default()).expect("LUN 0");
        client.faults(ADDRESS, Faults { seed, rules: rules.clone() }).expect("LUN 0");
        let begun = Instant::now();
        let mut page = |condition: &dyn Fn(&JournalPage) -> bool| loop {
            let page = client.journal(ADDRESS).expect("LUN 0");
            if condition(&page) {
                return page;
            }
            assert!(begun.elapsed() < PATIENCE, "{page:?}");
        };
        for number in 0..COMMANDS {
            let cdb = if number % 3 == 0 { &TEST_UNIT_READY[..] } else { &read_10(number, 1) };
            let head = guest.out(&request(UNIT, number.into(), cdb));
            let room = if number % 3 == 0 { vec![] } else { vec![guest.room(512)] };
            guest.submit(queue_of(number), &[vec![head, guest.room(108)], room].concat());
            // It has come to the unit before the next one does.
            page(&|page| page.entries.len() + page.held.len() > number as usize);
        }
        for number in 0..COMMANDS {
            guest.used(queue_of(number));
        }
        page(&|page| page.entries.len() == COMMANDS as usize).canonical()
    };
    let alternating = |number| REQUEST_QUEUE + (number % 2) as usize;
    let first = run(7, alternating);
    assert_eq!(first, run(7, alternating));
    assert_eq!(first, run(7, |number| REQUEST_QUEUE + usize::from(number % 5 > 2)));
    assert_ne!(first, run(8, alternating));
    for (name, fired) in
        [("first", 5..=5), ("every", 8..=9), ("unlucky", 5..=30), ("slow", 10..=50)]
    {
        let entries = first.iter().filter(|entry| entry.rule.as_deref() == Some(name));
        assert!(fired.contains(&entries.clone().count()), "{name}: {}", entries.count());
    }
}

/// Faults that make no sense are refused, and those of before stay.
#[test]
fn refused_faults_change_nothing() {
    let daemon = Daemon::start();
    let (guest, mut client) = (daemon.guest(), daemon.client());
    let busy = Rule::new("busy", Effect::status("BUSY")).nth(2);
    client.faults(ADDRESS, Faults { seed: 0, rules: vec![busy] }).expect("sound");
    assert_eq!(guest.command(UNIT, &TEST_UNIT_READY, &[], 0).status, 0);
    for (rules, words) in [
        (vec![Rule::new("x", Effect::status("BSY"))], "rule `x`: there is no status `BSY`"),
        (vec![Rule::new("", Effect::status(8))], "rule 1 has no name"),
        (vec![Rule::new("x", Effect::default())], "the effect is nothing"),
    ] {
        let error = client.faults(ADDRESS, Faults { seed: 0, rules }).expect_err(words);
        assert!(error.to_string().contains(words), "{error}");
    }
    assert_eq!(guest.command(UNIT, &TEST_UNIT_READY, &[], 0).status, 0x08, "its second event");
}

/// Where in a write's life the daemon dies: whether the medium has it, the response is there, the chain used.
#[rstest]
#[case::fetched("die-fetched", false, false, 0)]
#[case::executed("die-executed", true, false, 0)]
#[case::answered("die-answered", true, true, 0)]
#[case::completed("die-completed", true, true, 1)]
fn daemon_dies_at_the_point(
    #[case] name: &str,
    #[case] written: bool,
    #[case] answered: bool,
    #[case] used: u16,
) {
    let directory = tempfile::tempdir().expect("a directory");
    let place = |name: &str| directory.path().join(name);
    fs::write(place("disk"), vec![0; 1 << 20]).expect("our directory");
    let mut child = Command::new(env!("CARGO_BIN_EXE_sensecheck-target"))
        .arg("--socket")
        .arg(place("scsi"))
        .arg("--scenario")
        .arg(scenario(name))
        .arg(format!("--disk=file={}", place("disk").display()))
        .stderr(Stdio::null())
        .spawn()
        .expect("the daemon runs");
    let begun = Instant::now();
    while !place("scsi").exists() {
        assert!(begun.elapsed() < PATIENCE, "the daemon does not listen");
        thread::yield_now();
    }
    let guest = Guest::connect(&place("scsi"), 1);
    let data = pattern(2, 4);
    let response = guest.room(108);
    let out = [request(UNIT, 1, &write_10(8, 2)), data.clone()].concat();
    let head = guest.out(&out);
    guest.submit(REQUEST_QUEUE, &[head, response]);
    let status = child.wait().expect("our child");
    assert_eq!(status.signal(), Some(9));
    let disk = fs::read(place("disk")).expect("the disk");
    let expected = if written { data } else { vec![0; 1024] };
    assert_eq!(disk[4096..5120], expected);
    // The response of a write that went well is zeros; the room is filled with another value.
    let untouched = guest.read(response.address, 108) == vec![0xee; 108];
    assert_eq!(untouched, !answered);
    assert_eq!(guest.used_index(REQUEST_QUEUE), used);
}

/// What waits keeps a daemon from ending as little as an idle one: it is told to by SIGTERM.
#[rstest]
fn daemon_ends_at_once_although_commands_wait(#[values("hold", "never")] name: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    let place = |name: &str| directory.path().join(name);
    let mut child = Command::new(env!("CARGO_BIN_EXE_sensecheck-target"))
        .arg("--socket")
        .arg(place("scsi"))
        .arg("--control")
        .arg(place("control"))
        .arg("--scenario")
        .arg(scenario(name))
        .args(["--disk", "1M"])
        .stderr(Stdio::null())
        .spawn()
        .expect("the daemon runs");
    let begun = Instant::now();
    while !place("control").exists() {
        assert!(begun.elapsed() < PATIENCE, "the daemon does not listen");
        thread::yield_now();
    }
    let guest = Guest::connect(&place("scsi"), 1);
    let head = guest.out(&request(UNIT, 1, &read_10(0, 1)));
    let (response, data) = (guest.room(108), guest.room(512));
    guest.submit(REQUEST_QUEUE, &[head, response, data]);
    let mut client = Client::connect(&place("control"), PATIENCE).expect("it listens");
    while client.journal(ADDRESS).expect("LUN 0").held.is_empty() {
        assert!(begun.elapsed() < PATIENCE, "nothing is held");
    }
    let told = Instant::now();
    kill_process(Pid::from_child(&child), Signal::TERM).expect("it runs");
    let status = child.wait().expect("our child");
    assert_eq!(status.code(), Some(0));
    assert!(told.elapsed() < Duration::from_secs(1), "{:?}", told.elapsed());
    assert_eq!(guest.used_index(REQUEST_QUEUE), 0, "nothing was answered");
    assert_eq!(guest.read(data.address, 512), [0xee; 512]);
}

/// Exit code and words of `--check`.
fn check(path: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sensecheck-target"));
    let output = command.arg("--check").arg(path).args(more).output().expect("the daemon runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn scenario_is_checked_and_nothing_else_is_done() {
    let directory = tempfile::tempdir().expect("a directory");
    let run = |path: &Path| check(path, &[]);
    let (code, said, complaint) = run(&scenario("bad-disk"));
    assert_eq!((code, complaint.as_str()), (Some(0), ""));
    assert!(said.ends_with("sound, 3 rule(s): bad spot, forgetful, slow\n"), "{said}");
    let path = directory.path().join("bad.toml");
    fs::write(&path, "format = 1\nwords = \"scsi\"\n[[rule]]\nname = \"x\"\nefect = {}\n")
        .expect("our directory");
    let (code, said, complaint) = run(&path);
    assert_eq!((code, said.as_str()), (Some(1), ""));
    assert!(complaint.contains("bad.toml") && complaint.contains("`efect`"), "{complaint}");
    assert!(complaint.contains("line 5"), "{complaint}");
    assert_eq!(run(&directory.path().join("none.toml")).0, Some(1));
    for serving in [&["--disk", "1M"][..], &["--socket", "s"], &["--queues", "2"]] {
        assert_eq!(check(&scenario("bad-disk"), serving).0, Some(2), "{serving:?}");
    }
}

/// What is sound is what a daemon with the same switch takes.
#[test]
fn hostile_scenario_is_sound_with_the_switch() {
    let (code, said, complaint) = check(&scenario("hostile"), &["--hostile"]);
    assert_eq!((code, complaint.as_str()), (Some(0), ""));
    assert!(said.ends_with("sound, 1 rule(s): long sense\n"), "{said}");
    let (code, said, complaint) = check(&scenario("hostile"), &[]);
    assert_eq!((code, said.as_str()), (Some(1), ""));
    assert!(complaint.contains("rule `long sense`: `hostile` needs --hostile"), "{complaint}");
}

/// The number of threads stays what it is, however many commands wait, and whatever they wait for.
#[test]
fn waiting_takes_no_thread() {
    let daemon = Daemon::start();
    let (guest, mut client) = (daemon.guest(), daemon.client());
    guest.command(UNIT, &TEST_UNIT_READY, &[], 0);
    let threads = || fs::read_dir("/proc/self/task").expect("ours").count();
    let wait = |name: &str, effect: Effect| {
        Rule::new(name, effect).when(When::command("TEST UNIT READY")).times(Times::First(20))
    };
    let delayed = Effect { delay_us: Some(1), delay_up_to_us: Some(300_000), ..Effect::default() };
    let rules = vec![wait("held", Effect::hold()), wait("delayed", delayed)];
    client.faults(ADDRESS, Faults { seed: 1, rules }).expect("sound");
    let before = threads();
    let sent: Vec<_> = (0..40)
        .map(|tag| {
            let response = guest.room(108);
            let head = guest.out(&request(UNIT, tag, &TEST_UNIT_READY));
            guest.submit(REQUEST_QUEUE, &[head, response])
        })
        .collect();
    let begun = Instant::now();
    while client.journal(ADDRESS).expect("LUN 0").entries.len() < 21 {
        assert!(begun.elapsed() < PATIENCE);
        // Tests beside this one come and go with threads of their own; ours would be one for each.
        assert!(threads() < before + 20, "{} threads", threads());
    }
    client.release(ADDRESS).expect("20 are held");
    for _ in sent {
        guest.used(REQUEST_QUEUE);
    }
}

fn install(client: &mut Client, effect: Effect) {
    let faults = Faults { seed: 0, rules: vec![Rule::new("f", effect)] };
    client.faults(ADDRESS, faults).expect("sound");
}

/// The used ring may have another id, another length, an entry twice or none; the response lie about its sense.
#[test]
fn hostile_device_lies_in_ring_and_response() {
    let daemon = Daemon::start();
    let (guest, mut client) = (daemon.guest(), daemon.client());
    let send = |tag| {
        let response = guest.room(108);
        let head = guest.out(&request(UNIT, tag, &TEST_UNIT_READY));
        (guest.submit(REQUEST_QUEUE, &[head, response]), response)
    };
    let hostile = |hostile| Effect { hostile: Some(hostile), ..Effect::default() };

    let wrong = Hostile { used_id: Some(77), used_len: Some(7), ..Hostile::default() };
    install(&mut client, hostile(wrong));
    send(1);
    let used = guest.used(REQUEST_QUEUE);
    assert_eq!((used.head, used.len), (77, 7));

    install(&mut client, hostile(Hostile { used_times: Some(2), ..Hostile::default() }));
    let (head, _) = send(2);
    for _ in 0..2 {
        let used = guest.used(REQUEST_QUEUE);
        assert_eq!((used.head, used.len), (head, 108));
    }

    let lying = Hostile { sense_len: Some(4096), response: Some(77), ..Hostile::default() };
    install(&mut client, hostile(lying));
    let (_, response) = send(3);
    guest.used(REQUEST_QUEUE);
    let bytes = guest.read(response.address, 12);
    assert_eq!((&bytes[..4], bytes[11]), (&4096_u32.to_le_bytes()[..], 77));

    install(&mut client, hostile(Hostile { used_times: Some(0), ..Hostile::default() }));
    send(4);
    let (head, _) = send(5);
    assert_eq!(guest.used(REQUEST_QUEUE).head, head, "the one before has vanished");
}

/// What no device may do is refused where nobody has asked for it.
#[test]
fn hostile_faults_need_a_hostile_daemon() {
    let directory = tempfile::tempdir().expect("a directory");
    let start = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sensecheck-target"));
        command
            .arg("--socket")
            .arg(directory.path().join("scsi"))
            .args(["--disk", "1M"])
            .args(more);
        command.arg("--scenario").arg(scenario("hostile")).stderr(Stdio::piped());
        command.spawn().expect("the daemon runs")
    };
    let refused = start(&[]).wait_with_output().expect("our child");
    let complaint = String::from_utf8(refused.stderr).expect("UTF-8");
    assert_eq!(refused.status.code(), Some(1));
    assert!(complaint.contains("`hostile` needs --hostile"), "{complaint}");
    let mut child = start(&["--hostile"]);
    let begun = Instant::now();
    while !directory.path().join("scsi").exists() {
        assert!(begun.elapsed() < PATIENCE, "the daemon does not listen");
        thread::yield_now();
    }
    child.kill().expect("it runs");
    child.wait().expect("our child");
}

/// The front end finds its socket closed; the command is never completed, and the next session works.
#[test]
fn socket_is_dropped() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    let guest = daemon.guest();
    install(&mut client, Effect { drop_socket: true, ..Effect::default() });
    let response = guest.room(108);
    let head = guest.out(&request(UNIT, 1, &TEST_UNIT_READY));
    guest.submit(REQUEST_QUEUE, &[head, response]);
    // A port serves one front end at a time: the next is served because the first has lost its session.
    let next = daemon.guest();
    assert_eq!(guest.used_index(REQUEST_QUEUE), 0);
    assert_eq!(guest.read(response.address, 108), vec![0xee; 108]);
    assert_eq!(next.command(UNIT, &TEST_UNIT_READY, &[], 0).status, 0);
}

/// Keeps four queues full of commands until told to stop; how many were answered.
fn load(guest: &Guest, ends: &AtomicBool) -> u64 {
    const IN_FLIGHT: usize = 32;
    let queues = REQUEST_QUEUE..REQUEST_QUEUE + 4;
    let chain = [guest.out(&request(UNIT, 1, &TEST_UNIT_READY)), guest.room(108)];
    let chain = guest.indirect(&chain);
    let send = |queue| {
        let head = guest.place(queue, &[chain]);
        guest.make_available(queue, head);
        guest.kick(queue);
    };
    queues.clone().for_each(|queue| (0..IN_FLIGHT).for_each(|_| send(queue)));
    let mut answered = 0;
    while !ends.load(Ordering::Relaxed) {
        for queue in queues.clone() {
            while guest.try_used(queue).is_some() {
                answered += 1;
                send(queue);
            }
        }
    }
    for queue in queues {
        (0..IN_FLIGHT).for_each(|_| assert!(guest.used(queue).len >= 108));
    }
    answered + 4 * IN_FLIGHT as u64
}

/// The barrier under load: once a rule is installed, whatever comes later on any queue meets it, and once it is gone
/// nothing does; and however many commands come, the change has its turn.
#[test]
fn rules_come_and_go_under_load_on_four_queues() {
    let daemon = Daemon::start_with(Settings { journal_len: 256, ..Settings::new(2, 4) });
    let guest = daemon.guest();
    let mut client = daemon.client();
    let ends = Arc::new(AtomicBool::new(false));
    let driver = thread::spawn({
        let ends = Arc::clone(&ends);
        move || load(&guest, &ends)
    });
    let last_arrival = |page: &JournalPage| page.entries.iter().map(|entry| entry.arrival).max();
    for round in 0..60 {
        let busy = round % 2 == 0;
        let rule = Rule::new("busy", Effect::status("BUSY")).times(Times::Always);
        let rules = if busy { vec![rule] } else { vec![] };
        client.faults(ADDRESS, Faults { seed: 0, rules }).expect("it has its turn");
        let last = last_arrival(&client.journal(ADDRESS).expect("LUN 0"));
        let begun = Instant::now();
        let later: Vec<_> = loop {
            assert!(begun.elapsed() < PATIENCE, "nothing comes after a change");
            let entries = client.journal(ADDRESS).expect("LUN 0").entries;
            let later = entries.into_iter().filter(|entry| Some(entry.arrival) > last);
            let later: Vec<_> = later.collect();
            if !later.is_empty() {
                break later;
            }
        };
        let expected = if busy { (8, true) } else { (0, false) };
        let other = later.iter().find(|e| (e.status, e.rule.is_some()) != expected);
        assert_eq!(other, None, "round {round}");
    }
    ends.store(true, Ordering::Relaxed);
    assert!(driver.join().expect("the driver does not panic") > 1000);
}
