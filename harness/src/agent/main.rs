//! PID 1 of the guest: brings the machine up, then runs tests as the supervisor asks.
//!
//! It must not know what a test does: it starts processes, carries their output, their calls to the
//! bench and the kernel's log, and says how they ended.

#![forbid(unsafe_code)]
#![expect(clippy::print_stderr, reason = "standard error of PID 1 is the console")]

mod boot;
mod kmsg;
mod link;
mod module_code;
mod modules;
mod reaper;
mod run;
mod settle;
mod stacks;

use std::{process::ExitCode, sync::Arc};

use guest_protocol::message::{FromGuest, Hello, ToGuest};

use crate::{link::Link, run::Runs};

fn main() -> ExitCode {
    // A panic of PID 1 is a kernel panic, which the supervisor reports with the message above it.
    if !rustix::process::getpid().is_init() {
        eprintln!("agent: this is PID 1 of sensecheck's guest; it does nothing elsewhere");
        return ExitCode::from(2);
    }
    let (link, module_code, hello) = match boot::bring_up() {
        Ok(up) => up,
        Err(boot::Failure { link: Some(link), reason }) => {
            link.send(&FromGuest::Failed { reason });
            power_off()
        }
        Err(boot::Failure { link: None, reason }) => {
            eprintln!("agent: {reason}");
            power_off()
        }
    };
    let link = Arc::new(link);
    let kmsg = kmsg::follow(Arc::clone(&link));
    let runs = Runs::new(Arc::clone(&link), kmsg, reaper::start(), module_code);
    // What the boot left in the log belongs to no test: it goes before the first one can start.
    runs.end_boot();
    let hello = Hello { uptime_us: boot::monotonic_us(), ..hello };
    link.send(&FromGuest::Hello(hello));
    serve(&link, &runs);
    power_off()
}

/// Obeys the supervisor until it says power off or goes away.
fn serve(link: &Link, runs: &Runs) {
    while let Some(message) = link.receive() {
        match message {
            ToGuest::Run { run, test, env } => runs.start(run, test, env),
            ToGuest::Kill { run } => runs.kill(run),
            ToGuest::Blocked { run } => {
                let text = stacks::of_group(runs.group_of(run));
                link.send(&FromGuest::Stacks { run, text });
            }
            ToGuest::Answer { run, call, result } => runs.answer(run, call, result),
            ToGuest::PowerOff => return,
            ToGuest::Reboot => reboot(link),
        }
    }
}

/// No thread says anything any more: what was half said would be taken for the beginning of the hello.
fn reboot(link: &Link) -> ! {
    let _silence = link.silence();
    let error = rustix::system::reboot(rustix::system::RebootCommand::Restart);
    panic!("the machine did not boot again: {error:?}");
}

fn power_off() -> ! {
    let error = rustix::system::reboot(rustix::system::RebootCommand::PowerOff);
    panic!("the machine did not power off: {error:?}");
}
