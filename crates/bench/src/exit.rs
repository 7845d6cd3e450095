//! Exit codes of the bench: one for each class of outcome, so that a script can tell a failing test
//! from a kernel that died and both from a bench that could not work.

/// All tests passed, were known to fail, or were accidents of today's behaviour.
pub const PASS: u8 = 0;
/// The command line was not understood (clap's own code).
pub const USAGE: u8 = 2;
/// The bench itself failed: no kernel, no QEMU, a broken image, a full disk.
pub const BENCH_ERROR: u8 = 10;
/// At least one assertion failed.
pub const FAIL: u8 = 11;
/// The kernel logged a WARN, BUG, Oops or sanitizer report nobody expected.
pub const KERNEL_SPLAT: u8 = 12;
/// The guest kernel panicked.
pub const GUEST_PANIC: u8 = 13;
/// A test did not end before its deadline.
pub const HANG: u8 = 14;
/// A target daemon died.
pub const TARGET_DIED: u8 = 15;
/// QEMU ended or was killed while tests were running, without a panic.
pub const VM_DIED: u8 = 16;
/// The guest did not come up.
pub const BOOT_TIMEOUT: u8 = 17;
/// No test ran: all were skipped, or the filter matched none.
pub const NOTHING_RAN: u8 = 18;
/// Interrupted by SIGINT or SIGTERM.
pub const INTERRUPTED: u8 = host::interrupt::EXIT_CODE;
