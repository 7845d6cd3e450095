//! Faults of a whole target: of its units, of those that are plugged later, of logical units that are absent.

use control::{Command, Faults, LunAddress, LunSpec};
use fault::Times;
use scsi_fault::{Effect, Hostile, RawEvent, Rule, When};

use crate::{
    driver::{DISK, Daemon, EVENT_QUEUE, REQUEST_QUEUE, TEST_UNIT_READY, UNIT, request},
    guest::Guest,
};

/// SAM-5, Status codes: RESERVATION CONFLICT is 18h.
const CONFLICT: u8 = 0x18;
const CHECK_CONDITION: u8 = 0x02;
/// LUN 300 of target 3.
const OTHER_TARGET: [u8; 8] = [1, 3, 0x41, 0x2c, 0, 0, 0, 0];

/// The field of a LUN of target 0.
fn lun(number: u16) -> [u8; 8] {
    let [high, low] = number.to_be_bytes();
    [1, 0, 0x40 | high, low, 0, 0, 0, 0]
}

fn conflicts(when: When) -> Vec<Rule> {
    vec![Rule::new("conflict", Effect::status("RESERVATION CONFLICT")).when(when)]
}

fn all_faults(daemon: &Daemon, rules: Vec<Rule>) {
    let command = Command::AllFaults { faults: Faults { seed: 0, rules } };
    daemon.client().done(command).expect("sound rules");
}

fn ready(guest: &Guest, lun: [u8; 8]) -> u8 {
    guest.command(lun, &TEST_UNIT_READY, &[], 0).status
}

/// Once for each unit of target 0, and for no other's.
#[test]
fn targets_rule_counts_for_each_of_its_units() {
    let daemon = Daemon::start();
    let guest = daemon.guest();
    all_faults(&daemon, conflicts(When::any().target(0)));
    for unit in [UNIT, DISK] {
        assert_eq!((ready(&guest, unit), ready(&guest, unit)), (CONFLICT, 0));
    }
    assert_eq!(ready(&guest, OTHER_TARGET), 0);
}

/// An absent LUN answers LOGICAL UNIT NOT SUPPORTED (SPC-4: 5/25/00) once its fault is over, and has a journal.
#[test]
fn rule_without_a_lun_is_about_absent_ones_too() {
    let daemon = Daemon::start();
    let guest = daemon.guest();
    assert_eq!(ready(&guest, lun(40)), CHECK_CONDITION);
    all_faults(&daemon, conflicts(When::any()));
    for number in [40, 41] {
        assert_eq!(ready(&guest, lun(number)), CONFLICT);
        let after = guest.command(lun(number), &TEST_UNIT_READY, &[], 0);
        assert_eq!((after.sense[2], after.sense[12], after.sense[13]), (5, 0x25, 0));
    }
    let journal = daemon.client().journal(LunAddress { target: 0, lun: 41 }).expect("kept");
    let rules: Vec<_> = journal.entries.into_iter().map(|entry| entry.rule).collect();
    assert_eq!(rules, [Some("conflict".to_owned()), None]);
    // A target without any unit answers nothing, so nothing befalls it.
    assert_eq!(guest.command([1, 9, 0x40, 0, 0, 0, 0, 0], &TEST_UNIT_READY, &[], 0).response, 3);
}

#[test]
fn unit_that_is_plugged_later_has_the_faults_of_all() {
    let daemon = Daemon::start();
    let (guest, mut client) = (daemon.guest(), daemon.client());
    all_faults(&daemon, conflicts(When::any().lun(9)));
    let address = LunAddress { target: 0, lun: 9 };
    let plug = || Command::Plug { address, spec: LunSpec::default(), silent: true };
    client.done(plug()).expect("nothing is there");
    assert_eq!((ready(&guest, lun(9)), ready(&guest, lun(9))), (CONFLICT, 0));
    assert_eq!(client.journal(address).expect("there").rules[0].fired, 1);
    all_faults(&daemon, Vec::new());
    let address = LunAddress { target: 0, lun: 10 };
    client.done(Command::Plug { address, spec: LunSpec::default(), silent: true }).expect("free");
    assert_eq!(ready(&guest, lun(10)), 0, "nothing goes wrong any more");
}

/// What waits at an absent LUN is released and aborted as anywhere else.
#[test]
fn commands_are_held_at_an_absent_unit() {
    let daemon = Daemon::start();
    let (guest, mut client) = (daemon.guest(), daemon.client());
    let rule = Rule::new("held", Effect::hold()).when(When::any().lun(40)).times(Times::First(2));
    all_faults(&daemon, vec![rule]);
    let address = LunAddress { target: 0, lun: 40 };
    let mut hold = |tag| {
        let response = guest.room(108);
        let head = guest.out(&request(lun(40), tag, &TEST_UNIT_READY));
        guest.submit(REQUEST_QUEUE, &[head, response]);
        while client.journal(address).map_or(0, |page| page.held.len()) == 0 {
            std::thread::yield_now();
        }
        response
    };
    let released = hold(1);
    daemon.client().release(address).expect("kept");
    guest.used(REQUEST_QUEUE);
    // The response is OK, and the status CHECK CONDITION.
    assert_eq!(guest.read(released.address, 12)[10..], [CHECK_CONDITION, 0]);
    let aborted = hold(2);
    daemon.client().abort_held(address).expect("kept");
    guest.used(REQUEST_QUEUE);
    assert_eq!(guest.read(aborted.address, 12)[11], 2, "ABORTED");
}

/// A driver that asks for every LUN does not have the daemon grow with it, and leaves room for what is plugged.
#[test]
fn absent_units_are_not_kept_without_end() {
    let daemon = Daemon::start();
    let (guest, mut client) = (daemon.guest(), daemon.client());
    all_faults(&daemon, conflicts(When::any()));
    let befallen = (1000..2000).filter(|number| ready(&guest, lun(*number)) == CONFLICT).count();
    assert_eq!(befallen, 256);
    let address = LunAddress { target: 0, lun: 9 };
    let plug = Command::Plug { address, spec: LunSpec::default(), silent: true };
    client.done(plug).expect("there is room");
    assert_eq!(ready(&guest, lun(9)), CONFLICT);
}

#[test]
fn rules_that_make_no_sense_befall_nobody() {
    let daemon = Daemon::start();
    let guest = daemon.guest();
    let mut rules = conflicts(When::any());
    rules.extend(conflicts(When::any()));
    let command = Command::AllFaults { faults: Faults { seed: 0, rules } };
    let refusal = daemon.client().done(command).expect_err("two of one name").to_string();
    assert!(refusal.contains("conflict"), "{refusal}");
    assert_eq!((ready(&guest, UNIT), ready(&guest, lun(40))), (0, CHECK_CONDITION));
}

/// virtio 1.2, 5.6.6.3: `event`, `lun` and `reason`, all of the rule's choice, before the answer.
#[test]
fn event_is_sent_byte_by_byte() {
    let daemon = Daemon::start();
    let guest = daemon.guest();
    let buffer = guest.room(16);
    guest.submit(EVENT_QUEUE, &[buffer]);
    // The control queue has the same worker: when it has answered, the buffer is known.
    guest.task_management(UNIT, 7, 0);
    let event = RawEvent { event: 0x0102_0304, lun: [9, 8, 7, 6, 5, 4, 3, 2], reason: 0xfedc_ba98 };
    let hostile = Hostile { event: Some(event), ..Hostile::default() };
    let effect = Effect { hostile: Some(hostile), ..Effect::default() };
    all_faults(&daemon, vec![Rule::new("wild", effect)]);
    assert_eq!(ready(&guest, UNIT), 0);
    guest.used(EVENT_QUEUE);
    let bytes = [4, 3, 2, 1, 9, 8, 7, 6, 5, 4, 3, 2, 0x98, 0xba, 0xdc, 0xfe];
    assert_eq!(guest.read(buffer.address, 16), bytes);
}
