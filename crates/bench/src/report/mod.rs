//! Saying what came of a run: on the terminal as it happens, and as JUnit and KTAP files at the end.

mod details;
mod junit;
mod ktap;
mod terminal;

pub use junit::junit;
pub use ktap::ktap;
pub use terminal::Terminal;
