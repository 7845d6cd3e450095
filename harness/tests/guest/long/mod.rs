//! Tests that take longer than an ordinary run may: `cargo xtask ci nightly` runs them, and who calls them by name
//! (`long::`).

mod batches;
mod closing;
mod cycles;
mod deadlock;
mod takeover;
mod times;
