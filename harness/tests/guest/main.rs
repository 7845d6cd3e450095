//! Every test that runs inside the guest, by subject.

#![forbid(unsafe_code)]

mod bridge;
mod bsg;
mod laws;
mod leaks;
mod long;
mod measured;
mod needs;
mod planted;
mod programs;
mod ublk;

/// Tells the bench what the tests declare; runs on the host.
#[test]
fn manifest() {
    harness::write_manifest();
}
