//! The task set of a unit: how many commands it takes, and in which order they start (SAM, Task attributes).
//! It is one for all nexuses, as TST of the Control mode page says.

use std::sync::Arc;

use device_server::NexusId;
use scsi::{Status, task::TaskAttribute};

use super::{Held, Target, Tasks, Unit, Until, Waiting};

/// What of a task set decides whether one of its commands may start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Precedence {
    /// Whether a command is HEAD OF QUEUE.
    head_of_queue: bool,
    /// Sequence of the oldest command.
    oldest: u64,
    /// Sequence of the oldest command that is ORDERED.
    oldest_ordered: u64,
}

impl Precedence {
    /// Of a task set with these commands, by sequence of arrival and task attribute.
    pub(super) fn among(commands: impl IntoIterator<Item = (u64, TaskAttribute)>) -> Self {
        let none = Precedence { head_of_queue: false, oldest: u64::MAX, oldest_ordered: u64::MAX };
        commands.into_iter().fold(none, |before, (sequence, attribute)| Precedence {
            head_of_queue: before.head_of_queue || attribute == TaskAttribute::HeadOfQueue,
            oldest: before.oldest.min(sequence),
            oldest_ordered: match attribute {
                TaskAttribute::Ordered => before.oldest_ordered.min(sequence),
                _ => before.oldest_ordered,
            },
        })
    }

    /// Whether this command may start, which may be one of the set. SIMPLE waits for every HEAD OF QUEUE and
    /// for what is older and ORDERED, ORDERED for every HEAD OF QUEUE and all that is older. ACA without an
    /// auto contingent allegiance is refused at once.
    pub(super) fn lets_start(self, sequence: u64, attribute: TaskAttribute) -> bool {
        match attribute {
            TaskAttribute::HeadOfQueue | TaskAttribute::Aca => true,
            TaskAttribute::Simple => !self.head_of_queue && self.oldest_ordered > sequence,
            TaskAttribute::Ordered => !self.head_of_queue && self.oldest >= sequence,
        }
    }
}

/// Whether others may have to wait for a command with this attribute, or it for others.
pub(super) fn has_order(attribute: TaskAttribute) -> bool {
    matches!(attribute, TaskAttribute::Ordered | TaskAttribute::HeadOfQueue)
}

impl Tasks {
    /// Who is in the task set: everything that was accepted and has not ended.
    pub(super) fn commands(&self) -> impl Iterator<Item = (NexusId, u64, TaskAttribute)> {
        let running = self
            .running
            .iter()
            .filter_map(|request| Some((request.nexus, request.sequence, request.attribute?)));
        let held = self.held.iter().filter_map(|waiting| {
            Some((waiting.held.nexus(), waiting.sequence, waiting.held.attribute()?))
        });
        running.chain(held)
    }

    pub(super) fn precedence(&self) -> Precedence {
        Precedence::among(self.commands().map(|(_, sequence, attribute)| (sequence, attribute)))
    }

    /// The status of a command of this nexus that the task set has no room for (SAM, Status codes): an
    /// initiator without a command in the set cannot know when there will be room.
    pub(super) fn has_no_room(&self, nexus: NexusId) -> Option<Status> {
        let max = self.commands_max?;
        // Task management functions are among these.
        if self.running.len() + self.held.len() < max || self.commands().count() < max {
            return None;
        }
        let has_one = self.commands().any(|(of, ..)| of == nexus);
        Some(if has_one { Status::TaskSetFull } else { Status::Busy })
    }

    /// What waits with this sequence, if it has to wait for commands that come before it.
    pub(super) fn may_not_start_yet(&mut self, sequence: u64) -> Option<&mut Waiting> {
        if self.with_order == 0 {
            return None;
        }
        let precedence = self.precedence();
        let waiting = self.held.iter_mut().find(|waiting| waiting.sequence == sequence)?;
        let attribute = waiting.held.attribute()?;
        (!precedence.lets_start(sequence, attribute)).then_some(waiting)
    }

    /// Drops what waits and is none of these.
    pub(super) fn keep_only(&mut self, mut kept: impl FnMut(&Waiting) -> bool) {
        let with_order = &mut self.with_order;
        self.held.retain(|waiting| {
            let stays = kept(waiting);
            if !stays && waiting.held.attribute().is_some_and(has_order) {
                *with_order -= 1;
            }
            stays
        });
    }
}

impl Unit {
    /// Starts the commands that have waited for others and need no longer, unless somebody does so already,
    /// who then starts these too. One after the other: each that ends may let others start.
    pub(crate) fn start_waiting(self: &Arc<Self>, target: &Target) {
        let mut tasks = self.tasks();
        if std::mem::replace(&mut tasks.starting, true) {
            return;
        }
        while let Some(held) = self.next_to_start(&mut tasks) {
            drop(tasks);
            held.carry_out(target);
            tasks = self.tasks();
        }
        tasks.starting = false;
    }

    fn next_to_start(self: &Arc<Self>, tasks: &mut Tasks) -> Option<Held> {
        let waits = |waiting: &Waiting| matches!(waiting.until, Until::Preceding);
        let first = tasks.held.iter().position(waits)?;
        let precedence = tasks.precedence();
        let may_start = |waiting: &Waiting| {
            let attribute = waiting.held.attribute();
            attribute.is_some_and(|of| precedence.lets_start(waiting.sequence, of))
        };
        let mut from_there = tasks.held.iter().skip(first);
        let at = first + from_there.position(|waiting| waits(waiting) && may_start(waiting))?;
        let waiting = tasks.held.remove(at).expect("it is there");
        Some(self.resume(tasks, waiting))
    }
}

#[cfg(test)]
mod tests {
    use device_server::{Device, DeviceConfig, LuConfig, LunAddress};
    use scsi_fault::{Effect, Rule};

    use super::*;
    use crate::{
        backend::{QueueHandler as _, ring_with_a_command},
        target::Settings,
        unit::Which,
        wire::FIRST_REQUEST_QUEUE,
    };

    const ADDRESS: LunAddress = LunAddress { target: 0, lun: 0 };

    /// A command that is released keeps its place: what came after it is younger still.
    #[test]
    fn released_command_is_as_old_as_it_was() {
        let units = vec![(ADDRESS, LuConfig::default())];
        let device = Device::new(DeviceConfig { identifier: 0, units }).expect("a fine device");
        let target = Target::new(device, Settings::new(1, 1)).expect("a thread");
        let rules = vec![Rule::new("hold", Effect::hold())];
        target.set_faults(ADDRESS, &control::Faults { seed: 0, rules }).expect("nothing runs");
        target.serve(0, FIRST_REQUEST_QUEUE, &ring_with_a_command());
        let unit = target.unit(ADDRESS).expect("the unit");
        let younger = unit.begin(NexusId(0), Some(9));
        let waits =
            || !unit.tasks().precedence().lets_start(younger.sequence, TaskAttribute::Ordered);
        assert!(waits());
        let released = unit.take_held(Which::All).pop().expect("one is held");
        assert!(waits(), "it runs now");
        released.carry_out(&target);
        assert!(!waits());
    }
}
