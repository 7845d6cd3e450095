//! The checks: what is planted, what has to be said.

use rustix::process::Signal;

use crate::exit;

/// One check.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) name: &'static str,
    /// Arguments of `vm-test`.
    pub(super) args: &'static [&'static str],
    /// A signal sent when these words are on the screen.
    pub(super) signal: Option<(&'static str, Signal, Whom)>,
    /// The cache it runs with.
    pub(super) place: Place,
    /// Longest file it may write, in bytes.
    pub(super) file_size_max: Option<u64>,
    /// The exit code; `None` is a death by SIGKILL.
    pub(super) code: Option<u8>,
    /// Words that have to be on the screen.
    pub(super) says: &'static [&'static str],
}

/// Who gets the signal.
#[derive(Clone, Copy, Debug)]
pub(super) enum Whom {
    Bench,
    Target,
    Qemu,
}

/// The cache of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The user's.
    Usual,
    /// One with the user's kernels and without images.
    EmptyImages,
}

const fn planted(
    name: &'static str,
    args: &'static [&'static str],
    code: u8,
    says: &'static [&'static str],
) -> Check {
    Check {
        name,
        args,
        signal: None,
        place: Place::Usual,
        file_size_max: None,
        code: Some(code),
        says,
    }
}

/// The stage line that says the guest is up.
const UP: &str = "    boot ";

/// Relative to the checkout, where the checks run.
const PLANTED_EXPECTATIONS: &str = "harness/planted-expectations.toml";

const WAITS: &[&str] = &["--exact", "planted::waits_for_ever"];

#[rustfmt::skip]
pub(super) const CHECKS: &[Check] = &[
    planted("passing test", &["--exact", "planted::passes"], exit::PASS,
        &["1 passed, 0 failed, 0 skipped"]),
    planted("passing test on its own host", &["--exact", "planted::passes_on_its_own_host"], exit::PASS,
        &["1 passed, 0 failed, 0 skipped"]),
    planted("more hosts than slots",
        &["--jobs", "8", "--repeat", "8", "--exact", "planted::passes_on_its_own_host"], exit::PASS,
        &["8 passed, 0 failed, 0 skipped"]),
    planted("machines side by side",
        &["--machines", "2", "--repeat", "60", "--exact", "planted::passes"], exit::PASS,
        &["machine 1:", "60 passed, 0 failed, 0 skipped"]),
    planted("test on a QEMU that reconnects", &["--exact", "planted::passes_on_a_reconnecting_qemu"],
        exit::PASS, &["1 passed, 0 failed, 0 skipped"]),
    planted("test with programs of packages", &["--exact", "planted::passes_with_programs"], exit::PASS,
        &["1 passed, 0 failed, 0 skipped"]),
    Check {
        place: Place::EmptyImages,
        ..planted("programs that cannot be had",
            &["--mirror", "http://127.0.0.1:1", "--exact", "planted::passes_with_programs", "planted::passes"],
            exit::BENCH_ERROR, &[
                "bench-error: the guest's programs `storage` cannot be had: cannot reach the mirror http://127.0.0.1:1",
                "--mirror URL",
                "1 passed, 1 failed, 0 skipped",
            ])
    },
    planted("need that cannot be met", &["planted::skips_on_an_old_kernel", "planted::passes"],
        exit::PASS, &["needs Linux 99.0 or newer", "4 passed, 0 failed, 1 skipped"]),
    planted("first failure is enough", &["--fail-fast", "--exact", "planted::fails", "planted::passes"],
        exit::FAIL, &["0 passed, 1 failed, 0 skipped"]),
    planted("failing assertion", &["--exact", "planted::fails"], exit::FAIL, &[
        "fail: harness/tests/guest/planted.rs:",
        "planted failure",
        "kernel     sensecheck: begin 1 planted::fails",
        "target 0:0 TEST UNIT READY cdb 000000000000 out 0 in 0 residual 0",
        "again: cargo xtask vm-test --exact 'planted::fails' --seed 1 --accel tcg",
        "0 passed, 1 failed, 0 skipped",
    ]),
    planted("accident", &["--exact", "planted::fails_by_accident"], exit::PASS, &[
        "accident: planted::fails_by_accident: fail",
        "0 known, 1 accidents",
    ]),
    planted("WARN of a test that asserts an accident", &["--exact", "planted::warns_by_accident"],
        exit::KERNEL_SPLAT, &["new: planted::warns_by_accident: kernel-splat"]),
    planted("unit that a failed test has deleted",
        &["--exact", "planted::deletes_its_unit_and_fails", "planted::passes"], exit::FAIL,
        &["new: planted::deletes_its_unit_and_fails", "1 passed, 1 failed, 0 skipped"]),
    planted("WARN", &["--exact", "planted::warns"], exit::KERNEL_SPLAT, &[
        "kernel-splat: WARNING: block/blk-settings.c",
        "blk_validate_limits",
    ]),
    planted("known WARN", &["--expectations", PLANTED_EXPECTATIONS, "--exact", "planted::warns"], exit::PASS, &[
        "(planted: known)",
        "known: planted::warns: kernel-splat WARNING: block/blk-settings.c",
        "1 known, 0 accidents",
        "0 passed, 0 failed, 0 skipped",
    ]),
    planted("known defect that is gone",
        &["--expectations", PLANTED_EXPECTATIONS, "--exact", "planted::passes"], exit::PASS,
        &["fixed (remove it from the expectations): planted::passes", "1 passed, 0 failed, 0 skipped"]),
    planted("known defect of another kernel",
        &["--expectations", PLANTED_EXPECTATIONS, "--exact", "planted::fails"], exit::FAIL,
        &["new: planted::fails"]),
    planted("expected WARN", &["--exact", "planted::warns_as_expected"], exit::PASS,
        &["1 passed, 0 failed, 0 skipped"]),
    planted("expected splat that does not come",
        &["--exact", "planted::expects_a_splat_that_does_not_come"], exit::FAIL,
        &["expected a kernel splat with \"planted splat\", but none came"]),
    planted("WARN among several tests", &["--jobs", "4", "planted::together"], exit::KERNEL_SPLAT, &[
        "while several tests ran; each runs again alone",
        "pass",
        "new: planted::together::warns: kernel-splat",
        "1 passed, 1 failed, 0 skipped",
    ]),
    planted("expected WARN among several tests", &["--jobs", "4", "planted::announced"], exit::PASS,
        &["2 passed, 0 failed, 0 skipped"]),
    planted("guest panic", &["--exact", "planted::panics_the_guest"], exit::GUEST_PANIC,
        &["guest-panic: Kernel panic - not syncing: sysrq triggered crash"]),
    planted("fresh guest after a panic",
        &["--exact", "planted::panics_the_guest", "planted::skips", "planted::passes"],
        exit::GUEST_PANIC,
        &["machine 1:", "1 passed, 1 failed, 1 skipped"]),
    planted("hang", &["--exact", "planted::hangs"], exit::HANG,
        &["hang: not over after 3 s", "futex_wait", "guest-tests state S"]),
    planted("D-state task", &["--exact", "planted::hangs_in_the_kernel"], exit::HANG,
        &["hang: not over after 3 s", "state D", "blk_execute_rq"]),
    planted("fault about every unit that never fires",
        &["--exact", "planted::has_a_rule_about_every_unit_that_never_fires"], exit::FAIL,
        &["faults that never fired: `never seen`"]),
    planted("all skipped", &["--exact", "planted::skips"], exit::NOTHING_RAN,
        &["(planted reason)", "0 passed, 0 failed, 1 skipped"]),
    planted("nothing but skips until a failure",
        &["--until-fail", "--exact", "planted::skips_on_an_old_kernel"], exit::NOTHING_RAN,
        &["0 passed, 0 failed, 10 skipped"]),
    planted("no such test", &["no-such-test"], exit::BENCH_ERROR,
        &["no test matches no-such-test", "--list"]),
    planted("target dies under a test", &["--exact", "planted::loses_its_target"], exit::TARGET_DIED,
        &["target-died: the target daemon ended: signal: 9 (SIGKILL)"]),
    planted("machine dies under a test", &["--exact", "planted::loses_its_machine"], exit::VM_DIED,
        &["vm-died:"]),
    planted("guest that does not come up",
        &["--boot-deadline", "2", "--append", "rdinit=/none panic=0", "--exact", "planted::passes"],
        exit::GUEST_PANIC,
        &["trying once more", "Kernel panic - not syncing"]),
    planted("two guests that do not come up",
        &["--boot-deadline", "1", "--append", "initcall_blacklist=virtio_console_init", "--exact",
            "planted::passes", "planted::passes_on_a_reconnecting_qemu"],
        exit::BOOT_TIMEOUT, &["0 passed, 2 failed, 0 skipped"]),
    planted("guest without a port for its agent",
        &["--boot-deadline", "1", "--append", "initcall_blacklist=virtio_console_init", "--exact", "planted::passes"],
        exit::BOOT_TIMEOUT,
        &["no word from the guest within 3 s", "trying once more"]),
    planted("fewer tests than pinned", &["--expect-tests", "2", "--exact", "planted::passes"],
        exit::BENCH_ERROR, &["1 tests were executed, 2 were expected"]),
    planted("full disk for the report", &["--junit", "/dev/full", "--exact", "planted::passes"],
        exit::BENCH_ERROR, &["cannot write /dev/full: No space left on device"]),
    Check {
        name: "full disk for the image",
        args: &["--exact", "planted::passes"],
        signal: None,
        place: Place::EmptyImages,
        file_size_max: Some(1 << 20),
        code: Some(exit::BENCH_ERROR),
        says: &["error: disk full: ", "SENSECHECK_CACHE"],
    },
    Check {
        name: "kill -9 of the target daemon",
        args: WAITS,
        signal: Some((UP, Signal::KILL, Whom::Target)),
        place: Place::Usual,
        file_size_max: None,
        code: Some(exit::TARGET_DIED),
        says: &["target-died: the target daemon ended: signal: 9 (SIGKILL)"],
    },
    Check {
        name: "kill -9 of QEMU",
        args: WAITS,
        signal: Some((UP, Signal::KILL, Whom::Qemu)),
        place: Place::Usual,
        file_size_max: None,
        code: Some(exit::VM_DIED),
        says: &["vm-died:"],
    },
    Check {
        name: "Ctrl-C",
        args: WAITS,
        signal: Some((UP, Signal::INT, Whom::Bench)),
        place: Place::Usual,
        file_size_max: None,
        code: Some(exit::INTERRUPTED),
        says: &["interrupted"],
    },
    Check {
        name: "Ctrl-C with machines side by side",
        args: &["--machines", "2", "--repeat", "60", "--exact", "planted::waits_for_ever"],
        signal: Some(("machine 1:", Signal::INT, Whom::Bench)),
        place: Place::Usual,
        file_size_max: None,
        code: Some(exit::INTERRUPTED),
        says: &["interrupted"],
    },
    Check {
        name: "kill -9 of the bench",
        args: WAITS,
        signal: Some((UP, Signal::KILL, Whom::Bench)),
        place: Place::Usual,
        file_size_max: None,
        code: None,
        says: &[],
    },
];
