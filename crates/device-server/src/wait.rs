//! A command whose data is not at hand: executed up to the file it waits for, and ended when somebody has waited.

use std::{io, sync::Arc};

use crate::{
    Aborts, DataBuffers, Outcome,
    data::Moved,
    error::CommandError,
    handlers::{flush_failed, read_failed},
    medium::{FileOperation, FileWait},
    unit::LogicalUnit,
};

/// What becomes of a command that is begun.
#[derive(Debug)]
pub enum Begun {
    /// It has ended.
    Ended(Outcome),
    /// It ends when something is done that takes its time.
    Waits(Wait),
}

/// A command that has been executed but for an operation on a file. The caller does that, or has it done, with
/// the buffers the command was begun with.
#[derive(Debug)]
#[must_use]
pub struct Wait {
    unit: Arc<LogicalUnit>,
    file: FileWait,
    /// How it ends if all goes well.
    outcome: Outcome,
}

impl Wait {
    pub(crate) fn new(unit: Arc<LogicalUnit>, file: FileWait, outcome: Outcome) -> Self {
        Wait { unit, file, outcome }
    }

    /// What is to be done.
    #[must_use]
    pub fn file(&self) -> &FileWait {
        &self.file
    }

    /// Ends the command; `data` are the buffers it was begun with. The result is that of the operation: how many
    /// bytes it has moved, or nothing if it was not done, in which case it is done here, whatever time that takes.
    pub fn end(self, result: Option<io::Result<u64>>, data: &DataBuffers<'_>) -> Outcome {
        let moved = match (self.file.operation, result) {
            (FileOperation::Read { len, .. }, Some(Ok(moved))) if moved == len => Ok(()),
            // It may have been interrupted or cut short, and can be done again: that tells what is wrong, and where.
            (FileOperation::Read { offset, len }, _) => self
                .unit
                .medium
                .read_at(offset, data.data_in.slices(), len)
                .map_err(|error| (error.done, read_failed(&self.unit, offset, &error))),
            (FileOperation::SyncData, result) => result
                .unwrap_or_else(|| self.unit.medium.flush().map(|()| 0))
                // Linux tells of an error once: to ask again would be to hear that all is well.
                .map_or_else(|error| Err((0, flush_failed(&error))), |_| Ok(())),
        };
        match moved {
            Ok(()) => self.outcome,
            Err((data_in, error)) => self.failed(data_in, error),
        }
    }

    fn failed(&self, data_in: u64, error: CommandError) -> Outcome {
        let moved = Moved { data_in, ..Moved::default() };
        Outcome::new(Err(error), moved, Aborts::Nothing, self.unit.mode.get())
    }
}
