//! The way from a test to the bench: calls over the agent's socket.
//!
//! Outside the guest there is no bench, and every call panics with a word on how to run the test.

use std::{
    env,
    os::unix::net::UnixStream,
    process,
    sync::{Mutex, OnceLock},
    time::Duration,
};

use control::{Faults, JournalPage, LunAddress, LunSpec};
use guest_protocol::{
    frame,
    message::{
        Answer, CALL_SOCKET_ENV, Call, EXIT_SKIP, HostPlace, Lease, REBOOTED_ENV, TargetSignal,
    },
};

use crate::wait;

/// How long a guest may take to shut down and boot.
const REBOOT_DEADLINE: Duration = Duration::from_secs(60);

/// How long QEMU may take to let go of a device after the guest has.
const ADAPTER_DEADLINE: Duration = Duration::from_secs(20);

static STREAM: OnceLock<Mutex<UnixStream>> = OnceLock::new();

/// Makes one call. The bench answers within its own deadlines; a dead bench takes the guest with it.
fn call(request: Call) -> Result<Answer, String> {
    let stream = STREAM.get_or_init(|| {
        let path = env::var_os(CALL_SOCKET_ENV)
            .expect("this test runs inside the guest: use `cargo xtask vm-test`");
        Mutex::new(UnixStream::connect(path).expect("the agent listens"))
    });
    // A panic while the lock was held is a failed call; the stream is at a message boundary or dead.
    let stream = stream.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    frame::write(&*stream, &request).expect("the agent takes calls");
    let answer = frame::read::<Result<Answer, String>>(&*stream).expect("the agent answers");
    answer.expect("the agent answers before it closes the socket")
}

/// Calls whose success has nothing to tell.
#[track_caller]
fn done(request: Call) {
    match call(request.clone()) {
        Ok(Answer::Done) => {}
        other => panic!("the bench refused {request:?}: {other:?}"),
    }
}

/// A fresh logical unit, for the rest of the test. [`crate::Lun`] is the way to use it.
#[track_caller]
pub fn lease(spec: LunSpec) -> Lease {
    match call(Call::Lun { spec }) {
        Ok(Answer::Lun(lease)) => lease,
        other => panic!("the bench gave no logical unit: {other:?}"),
    }
}

/// Makes a leased unit new again.
#[track_caller]
pub fn renew(address: LunAddress) {
    done(Call::Renew { address });
}

/// Where the test's SCSI host is.
#[track_caller]
pub fn host() -> HostPlace {
    match call(Call::Host) {
        Ok(Answer::Host(place)) => place,
        other => panic!("the bench named no host: {other:?}"),
    }
}

/// What a leased unit was asked and answered.
#[track_caller]
pub fn journal(address: LunAddress) -> JournalPage {
    match call(Call::Journal { address }) {
        Ok(Answer::Journal(page)) => page,
        other => panic!("the bench gave no journal: {other:?}"),
    }
}

/// Says what goes wrong on a leased unit from now on. Unless `may_stay_unfired`, the test fails if one of
/// the rules never fires.
#[track_caller]
pub fn faults(address: LunAddress, faults: Faults, may_stay_unfired: bool) {
    done(Call::Faults { address, faults, may_stay_unfired });
}

/// Carries out what a leased unit holds until it is released, in order of arrival or in another.
#[track_caller]
pub fn release(address: LunAddress, order: Option<Vec<u32>>) {
    done(Call::Release { address, order });
}

/// Says something to the test's own target daemon: plug, unplug, resize, an event.
#[track_caller]
pub fn control(command: control::Command) {
    done(Call::Control { command });
}

/// Says what goes wrong on every unit of the test's own target from now on. The test fails if one of these rules has
/// fired on none of its units, but for those named in `may_stay_unfired`.
#[track_caller]
pub fn all_faults(faults: Faults, may_stay_unfired: &[&str]) {
    let may_stay_unfired = may_stay_unfired.iter().map(ToString::to_string).collect();
    done(Call::AllFaults { faults, may_stay_unfired });
}

/// From now on the end of the test's own target daemon is what the test wants; [`succeed_target`] puts another in its
/// place.
#[track_caller]
pub fn expect_target_death() {
    signal_target(TargetSignal::ExpectDeath);
}

/// Waits until the daemon has ended, and starts another with the same units and no faults. Panics if it lives on.
#[track_caller]
pub fn succeed_target() {
    signal_target(TargetSignal::Succeed);
}

/// Stops, continues or kills the test's own target daemon.
#[track_caller]
pub fn signal_target(signal: TargetSignal) {
    done(Call::Target { signal });
}

/// Asks the guest to give up the PCI function of the test's own host. [`host`] names its slot until
/// [`plug_adapter`].
#[track_caller]
pub fn pull_adapter() {
    done(Call::Adapter { plugged: false });
}

/// Plugs another in its place, when the guest has given it up.
#[track_caller]
pub fn plug_adapter() {
    // The guest has done with it before QEMU has.
    let plug = || call(Call::Adapter { plugged: true }).ok();
    let plugged = wait::until(ADAPTER_DEADLINE, "QEMU to have done with the device", plug);
    assert_eq!(plugged.unwrap_or_else(|error| panic!("{error}")), Answer::Done);
}

/// Boots the test's own machine again and has this test run again from its beginning, with the same units. Then [`rebooted`]
/// gives back the note.
pub fn reboot(note: &str) -> ! {
    done(Call::Reboot { note: note.to_owned() });
    wait::until(REBOOT_DEADLINE, "the end of the machine", || None::<()>)
        .expect("the machine boots again and takes this process along");
    unreachable!("nothing else ends the wait")
}

/// What the test has noted before the machine booted again, if it has.
pub fn rebooted() -> Option<String> {
    env::var(REBOOTED_ENV).ok()
}

/// Says that this test makes the kernel print a splat with this text in one of its lines. The test
/// fails if none comes.
#[track_caller]
pub fn expect_splat(pattern: &str) {
    done(Call::ExpectSplat { pattern: pattern.to_owned() });
}

/// Kills QEMU. For the bench's tests of itself.
#[track_caller]
pub fn kill_vm() {
    done(Call::KillVm);
}

/// Ends the test as skipped, with a reason that reads after "skipped: ".
pub fn skip(reason: &str) -> ! {
    done(Call::Skip { reason: reason.to_owned() });
    process::exit(EXIT_SKIP);
}
