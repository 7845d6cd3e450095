//! What a logical unit holds: commands and task management functions that were fetched and not begun.
//! They wait without a thread, until they are released, ended by a task management function or a reset,
//! or worth nothing because their ring has stopped.

use control::HeldEntry;
use device_server::NexusId;
use scsi::task::TaskAttribute;

use crate::{
    chain::Chain, control_queue::TaskManagement, faults::Fired, journal::command_name,
    request_queue::Command, target::Target, unit::Running, wire::Response,
};

/// Something that is held.
#[derive(Debug)]
pub(crate) enum Held {
    Command(Command),
    TaskManagement(Chain, TaskManagement),
}

impl Held {
    /// The nexus it came from.
    pub(crate) fn nexus(&self) -> NexusId {
        match self {
            Held::Command(command) => command.nexus(),
            Held::TaskManagement(_, management) => management.nexus(),
        }
    }

    /// The tag of a command. A task management function has none of its own.
    pub(crate) fn tag(&self) -> Option<u64> {
        match self {
            Held::Command(command) => Some(command.tag()),
            Held::TaskManagement(..) => None,
        }
    }

    /// The task attribute of a command. A task management function is in no task set.
    pub(crate) fn attribute(&self) -> Option<TaskAttribute> {
        match self {
            Held::Command(command) => Some(command.attribute()),
            Held::TaskManagement(..) => None,
        }
    }

    pub(crate) fn chain(&self) -> &Chain {
        match self {
            Held::Command(command) => command.chain(),
            Held::TaskManagement(chain, _) => chain,
        }
    }

    /// What goes wrong with it.
    pub(crate) fn fault(&self) -> Option<&Fired> {
        match self {
            Held::Command(command) => command.fault(),
            Held::TaskManagement(_, management) => management.fault(),
        }
    }

    /// It is in flight again.
    pub(crate) fn runs(&mut self, running: Running) {
        match self {
            Held::Command(command) => command.resume(running),
            Held::TaskManagement(_, management) => management.resume(running),
        }
    }

    /// Does what it asks for.
    pub(crate) fn carry_out(self, target: &Target) {
        match self {
            Held::Command(command) => {
                if let Some(finished) = command.carry_out(target) {
                    finished.complete(target);
                }
            }
            Held::TaskManagement(chain, management) => management.carry_out(target, chain),
        }
    }

    /// Ends it without doing what it asks for. A command is answered with `response`; the tasks that a
    /// task management function concerns have ended, which makes it complete.
    pub(crate) fn end(self, target: &Target, response: Response) {
        match self {
            Held::Command(command) => command.end(target, response),
            Held::TaskManagement(chain, management) => management.end(chain),
        }
    }

    /// In the words of the control socket.
    pub(crate) fn entry(&self) -> HeldEntry {
        let rule = self.fault().map(|fired| fired.rule.name.clone()).unwrap_or_default();
        let (fetched_us, name, tag) = match self {
            Held::Command(command) => {
                (command.fetched_us(), command_name(command.cdb()), command.tag())
            }
            Held::TaskManagement(_, management) => {
                (management.fetched_us(), management.name().to_owned(), management.tag())
            }
        };
        HeldEntry { fetched_us, name, tag, rule }
    }
}
