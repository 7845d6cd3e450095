//! The conversation on the virtio-serial port.
//!
//! The guest speaks first ([`FromGuest::Hello`]). After that the host sends [`ToGuest`] at will; the
//! guest streams kernel records, test output and results as they happen. Everything a test asks of
//! the bench travels as a [`Call`] and comes back as an [`Answer`]; the guest has no other way out.

use control::{Faults, JournalPage, LunAddress, LunSpec};
use serde::{Deserialize, Serialize};

/// Environment variable of a test that is run again after [`Call::Reboot`]: what it has noted.
pub const REBOOTED_ENV: &str = "SENSECHECK_REBOOTED";

/// Name of the virtio-serial port, under `/sys/class/virtio-ports/*/name`.
pub const PORT_NAME: &str = "sensecheck.agent";

/// Environment variable with the path of the agent's socket, for test processes.
pub const CALL_SOCKET_ENV: &str = "SENSECHECK_BENCH";

/// Word of the kernel command line that is followed by names of modules, separated by commas, which
/// the agent loads beside the standard ones.
pub const LOAD_ARG: &str = "sensecheck.load=";

/// Word of the kernel command line that makes the agent send [`FromGuest::ModuleCode`].
pub const MODULE_CODE_ARG: &str = "sensecheck.module-code";

/// First words of the marks the agent writes to `/dev/kmsg`, followed by the run's number.
pub const MARK_BEGIN: &str = "sensecheck: begin";
/// See [`MARK_BEGIN`].
pub const MARK_END: &str = "sensecheck: end";

/// Number of one execution of one test, unique within a virtual machine.
pub type RunId = u32;

/// From the supervisor to the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum ToGuest {
    /// Runs one test in a process of its own.
    Run {
        /// Number of this execution.
        run: RunId,
        /// libtest's full name of the test.
        test: String,
        /// Extra environment of the test process, for example `PROPTEST_RNG_SEED`.
        env: Vec<(String, String)>,
    },
    /// Kills the process group of a run. It still answers with [`FromGuest::Finished`], unless a
    /// process is stuck in the kernel.
    Kill {
        /// Which execution.
        run: RunId,
    },
    /// Reports the stacks of blocked tasks: sysrq-w into the kernel log, and `/proc/*/stack` of the
    /// run's processes in [`FromGuest::Stacks`].
    Blocked {
        /// Which execution.
        run: RunId,
    },
    /// The answer to a [`FromGuest::Call`].
    Answer {
        /// Which execution asked.
        run: RunId,
        /// The call's number.
        call: u64,
        /// The answer, or why there is none.
        result: Result<Answer, String>,
    },
    /// Powers the machine off.
    PowerOff,
    /// Boots the machine again, and says [`FromGuest::Hello`] again. Nothing is said before.
    Reboot,
}

/// From the agent to the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum FromGuest {
    /// The machine is up, its modules are loaded and its SCSI host has scanned its units.
    Hello(Hello),
    /// Start-up failed in the guest: a module did not load, a device did not appear.
    Failed {
        /// What failed and why.
        reason: String,
    },
    /// One record of the kernel log, including the marks.
    Kernel(KernelRecord),
    /// Where the code of all loaded modules is: after each that the agent loads, and before the end of a
    /// run that has loaded or unloaded one. Only if the kernel command line has [`MODULE_CODE_ARG`].
    ModuleCode {
        /// Every module that is loaded now.
        modules: Vec<ModuleCode>,
    },
    /// Output of a test process, standard output and error together.
    Output {
        /// Which execution.
        run: RunId,
        /// The bytes, invalid UTF-8 replaced.
        text: String,
    },
    /// A test asks the bench for something.
    Call {
        /// Which execution asks.
        run: RunId,
        /// Chosen by the agent, echoed in the answer.
        call: u64,
        /// What it asks for.
        request: Call,
    },
    /// Answer to [`ToGuest::Blocked`].
    Stacks {
        /// Which execution.
        run: RunId,
        /// Text: process, thread, state and kernel stack of each thread of the run.
        text: String,
    },
    /// A run is over: its processes are gone, deferred kernel work has settled, and every kernel
    /// record up to the end mark was sent before this.
    Finished {
        /// Which execution.
        run: RunId,
        /// How the test process ended.
        exit: Exit,
        /// Time from start to exit of the process in microseconds, on the guest's clock.
        duration_us: u64,
    },
}

/// What the guest is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Hello {
    /// The agent's [`crate::PROTOCOL_VERSION`].
    pub version: u32,
    /// `uname -r`.
    pub release: String,
    /// Online CPUs.
    pub cpus: u32,
    /// Guest CLOCK_MONOTONIC when this was sent, in microseconds: time since the kernel started.
    pub uptime_us: u64,
    /// Guest CLOCK_MONOTONIC when the agent started, in microseconds.
    pub init_us: u64,
    /// Standard modules the image does not have, so that tests which need them can be skipped.
    pub missing_modules: Vec<String>,
    /// Parameters of the loaded and built-in modules, each as `module.parameter`, so that tests which
    /// need one can be skipped.
    pub module_parameters: Vec<String>,
    /// Value of `/proc/sys/kernel/tainted`.
    pub tainted: u64,
}

/// One record of `/dev/kmsg`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct KernelRecord {
    /// Sequence number.
    pub seq: u64,
    /// The guest's scheduler clock in microseconds, which stays close to its CLOCK_MONOTONIC.
    pub at_us: u64,
    /// Log level, 0 (emergency) to 7 (debug).
    pub level: u8,
    /// Syslog facility: 0 is the kernel itself, anything else was written by a process.
    pub facility: u8,
    /// The text without its prefix.
    pub text: String,
}

/// Where the code of a loaded module is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ModuleCode {
    /// Name, as in `/proc/modules`.
    pub name: String,
    /// The sections with code, by name, and the address each was loaded at. What a module needs only
    /// while it is initialized is listed too, though it is gone by now.
    pub sections: Vec<(String, u64)>,
}

/// How a test process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exit {
    /// `exit(code)`.
    Code(i32),
    /// Killed by a signal.
    Signal(i32),
}

/// Exit code of a test process whose test passed.
pub const EXIT_PASS: i32 = 0;
/// Exit code of a test process whose test asked to be skipped; the reason is its [`Call::Skip`].
pub const EXIT_SKIP: i32 = 77;

/// What a test can ask of the bench.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Call {
    /// A fresh logical unit for the rest of the test. Answered with [`Answer::Lun`].
    Lun {
        /// What it is to be.
        spec: LunSpec,
    },
    /// Makes a leased unit new again, as it was leased. Answered with [`Answer::Done`] once it is.
    Renew {
        /// Which unit.
        address: LunAddress,
    },
    /// Where the test's SCSI host is. Answered with [`Answer::Host`].
    Host,
    /// The journal of a leased unit. Answered with [`Answer::Journal`].
    Journal {
        /// Which unit.
        address: LunAddress,
    },
    /// What is to go wrong on a leased unit. On a shared host a rule that reaches beyond the unit is refused.
    /// Answered with [`Answer::Done`] once it is in force.
    Faults {
        /// Which unit.
        address: LunAddress,
        /// What goes wrong.
        faults: Faults,
        /// Whether the test may pass although one of the rules has not fired.
        may_stay_unfired: bool,
    },
    /// Carries out what a leased unit holds until it is released. Answered with [`Answer::Done`] once it
    /// is.
    Release {
        /// Which unit.
        address: LunAddress,
        /// In which order, by position of arrival from 0; left out: in order of arrival.
        order: Option<Vec<u32>>,
    },
    /// Whatever else can be said to the test's own target. Refused on a shared host. Answered with
    /// [`Answer::Done`].
    Control {
        /// The words of its control socket; only what has nothing to tell.
        command: control::Command,
    },
    /// Says what goes wrong on every unit of the test's own target, also on those that are plugged later. Refused
    /// on a shared host. Answered with [`Answer::Done`].
    AllFaults {
        /// Instead of those before.
        faults: Faults,
        /// Names of the rules that need fire on no unit.
        may_stay_unfired: Vec<String>,
    },
    /// The test's own target: stop it (SIGSTOP), continue it, or kill it. Refused on a shared host.
    /// Answered with [`Answer::Done`] once the process is in that state.
    Target {
        /// What happens to it.
        signal: TargetSignal,
    },
    /// The PCI function of the test's own host: asks the guest to give it up, or plugs another in its place once it
    /// has. Refused on a shared host. Answered with [`Answer::Done`] when QEMU has been told; where the host is
    /// afterwards, [`Call::Host`] says.
    Adapter {
        /// Whether it is to be there.
        plugged: bool,
    },
    /// Boots the machine again, and runs the test again from its beginning, with its units, its host and
    /// [`REBOOTED_ENV`]. Refused unless the machine is the test's own. Not answered.
    Reboot {
        /// For the test to read then.
        note: String,
    },
    /// The kernel log of this test will hold a splat that contains this text, and must.
    ExpectSplat {
        /// Text within one kernel line.
        pattern: String,
    },
    /// The test cannot run here. The process exits with [`EXIT_SKIP`] afterwards.
    Skip {
        /// Why, in a fragment that reads after "skipped: ".
        reason: String,
    },
    /// Kills QEMU with SIGKILL. For the bench's own tests of itself.
    KillVm,
}

/// What happens to a target daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetSignal {
    /// SIGSTOP: every command stays unanswered.
    Stop,
    /// SIGCONT.
    Continue,
    /// SIGKILL.
    Kill,
    /// SIGKILL, and another daemon with the same units in its place. Media in files keep what they have. Only
    /// a QEMU that reconnects goes on with it.
    Restart,
    /// Nothing yet: a fault is about to end it, and its end is not the test's failure.
    ExpectDeath,
    /// Waits until a fault has ended it, and starts another with the same units in its place, as `Restart`
    /// does.
    Succeed,
}

/// What the bench answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Answer {
    /// To [`Call::Lun`].
    Lun(Lease),
    /// To [`Call::Host`].
    Host(HostPlace),
    /// To [`Call::Journal`].
    Journal(JournalPage),
    /// To a call whose success has nothing to tell.
    Done,
}

/// The SCSI host of a test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct HostPlace {
    /// The sysfs directory of the PCI slot that holds its HBA, for example
    /// `/sys/devices/pci0000:00/0000:00:03.0`; the `hostN` directory is somewhere below. A host with
    /// several nexuses has an HBA for each.
    pub slots: Vec<String>,
    /// Whether the host was plugged for this test, so that its first scan may still be on its way; the
    /// first scan of the shared host is over before any test starts.
    pub plugged: bool,
}

/// A logical unit that belongs to one test until it ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Lease {
    /// Target and LUN on its host.
    pub address: LunAddress,
    /// Whether the guest saw another device type or capacity before and must rescan the unit.
    pub rescan: bool,
}
