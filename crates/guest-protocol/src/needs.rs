//! What a test declares: its class and what it needs around it.
//!
//! Declarations are constants in the test binary (`declare!` in the harness), so the scheduler
//! knows every shape before anything boots.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Serialize};

/// A string that is a literal in a declaration and owned after a trip through JSON.
pub type Text = Cow<'static, str>;

/// How binding the behaviour is that a test asserts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Documented, or part of the user-space ABI. A failure is a defect.
    Contract,
    /// Surprising, but relied upon. A failure is a defect or a deliberate change of behaviour.
    Quirk,
    /// Today's behaviour, free to change. A failure is reported and never fails a user's own kernel.
    Accident,
}

impl Class {
    /// The word used in lists and reports.
    pub fn name(self) -> &'static str {
        match self {
            Class::Contract => "contract",
            Class::Quirk => "quirk",
            Class::Accident => "accident",
        }
    }
}

/// The SCSI host a test works on.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum ScsiHost {
    /// The host every test of the virtual machine shares; its logical units come from a pool.
    #[default]
    Shared,
    /// A host of its own: own daemon, own vhost-user socket, plugged for this test alone. Required
    /// of every test that holds a command, wakes the error handler, or stops the target.
    Own(HostShape),
}

/// Properties of a test's own `vhost-user-scsi-pci` device. `None` leaves QEMU's default.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct HostShape {
    /// Request queues (`num_queues`).
    pub queues: Option<u16>,
    /// Descriptors in each ring (`virtqueue_size`), which is also the number of tags.
    pub tags: Option<u16>,
    /// Commands outstanding per logical unit (`cmd_per_lun`).
    pub cmd_per_lun: Option<u32>,
    /// Longest transfer in units of 512 bytes (`max_sectors`).
    pub max_sectors: Option<u32>,
    /// I_T nexuses, each a device on a socket of its own to the same daemon; `None` is one.
    pub nexuses: Option<u16>,
}

impl HostShape {
    /// QEMU's defaults.
    pub const DEFAULT: HostShape =
        HostShape { queues: None, tags: None, cmd_per_lun: None, max_sectors: None, nexuses: None };

    /// How many I_T nexuses it has.
    pub fn nexus_count(&self) -> u16 {
        self.nexuses.unwrap_or(1)
    }
}

/// A kernel module with parameters, loaded before the first test of the virtual machine runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Module {
    /// Name as in `/proc/modules`, for example `scsi_debug`.
    pub name: Text,
    /// Parameters as given to `insmod`, for example `max_queue=1 delay=0`.
    pub params: Text,
}

/// Something the kernel or the bench must have. An absent feature skips the test with the reason.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Feature {
    /// A kernel configuration symbol that is `y` or `m`, for example `CONFIG_BLK_DEV_UBLK`.
    Config(Text),
    /// A kernel at least this new, as (major, minor).
    KernelAtLeast(u32, u32),
    /// A parameter of a module, loaded or built in, which the running kernel has. What a patch of ours
    /// adds to a driver is known by the parameter that turns it on.
    ModuleParameter {
        /// Name as in `/sys/module`, for example `virtio_scsi`.
        module: Text,
        /// Name of its parameter.
        name: Text,
    },
    /// A QEMU that reconnects a vhost-user-scsi device to a restarted daemon (8.2 or newer).
    Reconnect,
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Feature::Config(symbol) => f.write_str(symbol),
            Feature::KernelAtLeast(major, minor) => write!(f, "Linux {major}.{minor} or newer"),
            Feature::ModuleParameter { module, name } => {
                write!(f, "the module parameter {module}.{name}")
            }
            Feature::Reconnect => {
                f.write_str("a QEMU that reconnects vhost-user-scsi (8.2 or newer)")
            }
        }
    }
}

impl Feature {
    /// Why a test that needs it is skipped, whoever finds it absent. What is behind the colon is about
    /// this kernel or this machine; what stands before is the same everywhere.
    pub fn missing(&self, detail: &str) -> String {
        format!("needs {self}: {detail}")
    }
}

/// The part of a skip's reason that is the same on every kernel and machine.
pub fn skip_reason(text: &str) -> &str {
    text.split_once(": ").map_or(text, |(reason, _)| reason)
}

/// Everything a test needs around it. The default is the shared virtual machine and its shared host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Needs {
    /// The SCSI host.
    pub host: ScsiHost,
    /// A virtual machine that runs this test and nothing else.
    pub own_vm: bool,
    /// Virtual CPUs; `None` takes what the run was given.
    pub cpus: Option<u16>,
    /// Guest memory in MiB; `None` takes what the run was given.
    pub memory_mib: Option<u32>,
    /// Words appended to the kernel command line.
    pub kernel_args: Cow<'static, [Text]>,
    /// Modules beyond the standard set.
    pub modules: Cow<'static, [Module]>,
    /// What the kernel and the bench must have.
    pub features: Cow<'static, [Feature]>,
    /// A set of `images/programs.toml`, whose programs the guest has in `/bin`.
    pub programs: Option<Text>,
    /// Seconds until the test is called hung, before scaling for emulation; `None` takes the default.
    pub deadline_s: Option<u32>,
}

impl Needs {
    /// The shared virtual machine with its shared SCSI host.
    pub const DEFAULT: Needs = Needs {
        host: ScsiHost::Shared,
        own_vm: false,
        cpus: None,
        memory_mib: None,
        kernel_args: Cow::Borrowed(&[]),
        modules: Cow::Borrowed(&[]),
        features: Cow::Borrowed(&[]),
        programs: None,
        deadline_s: None,
    };

    /// The part that decides which tests can share a virtual machine.
    pub fn vm_shape(&self) -> VmShape {
        VmShape {
            cpus: self.cpus,
            memory_mib: self.memory_mib,
            kernel_args: self.kernel_args.to_vec(),
            modules: self.modules.to_vec(),
            reconnect: self.features.contains(&Feature::Reconnect),
            programs: self.programs.clone(),
        }
    }
}

/// The properties of a virtual machine that is booted for a group of tests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VmShape {
    /// Virtual CPUs, if a test asked.
    pub cpus: Option<u16>,
    /// Guest memory in MiB, if a test asked.
    pub memory_mib: Option<u32>,
    /// Words appended to the kernel command line.
    pub kernel_args: Vec<Text>,
    /// Modules loaded with parameters at boot.
    pub modules: Vec<Module>,
    /// Whether the QEMU must be one that reconnects.
    pub reconnect: bool,
    /// The set of programs its image has beside the tests.
    pub programs: Option<Text>,
}

/// Environment variable with the file that the test binary's `manifest` test writes the declarations
/// to, as a JSON list.
pub const MANIFEST_ENV: &str = "SENSECHECK_MANIFEST";

/// What one test function declares; rstest cases below it share the declaration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Declaration {
    /// Path of the test function without the crate name, for example `bsg::inquiry::standard`.
    pub path: String,
    /// How binding the asserted behaviour is.
    pub class: Class,
    /// What the test needs around it.
    pub needs: Needs,
}

impl Declaration {
    /// Whether libtest's `name` is this function or one of its rstest cases.
    pub fn covers(&self, name: &str) -> bool {
        name.strip_prefix(self.path.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declaration(path: &str) -> Declaration {
        Declaration { path: path.into(), class: Class::Contract, needs: Needs::DEFAULT }
    }

    #[test]
    fn a_declaration_covers_its_cases_and_no_longer_names() {
        let declared = declaration("bsg::inquiry");
        assert!(declared.covers("bsg::inquiry"));
        assert!(declared.covers("bsg::inquiry::case_1_uring"));
        assert!(!declared.covers("bsg::inquiry_vpd"));
        assert!(!declared.covers("bsg"));
    }

    #[test]
    fn a_reason_is_the_same_whatever_kernel_lacks_the_feature() {
        let feature = Feature::KernelAtLeast(7, 1);
        let [old, older] =
            ["6.18.15", "6.12.117"].map(|it| feature.missing(&format!("this is {it}")));
        assert_eq!(old, "needs Linux 7.1 or newer: this is 6.18.15");
        assert_eq!(skip_reason(&old), "needs Linux 7.1 or newer");
        assert_eq!(skip_reason(&old), skip_reason(&older));
        assert_eq!(skip_reason("planted reason"), "planted reason");
    }

    #[test]
    fn needs_survive_json() {
        let needs = Needs {
            host: ScsiHost::Own(HostShape { tags: Some(1), ..HostShape::default() }),
            features: Cow::Borrowed(&[Feature::KernelAtLeast(7, 1), Feature::Reconnect]),
            programs: Some("fio".into()),
            ..Needs::DEFAULT
        };
        let text = serde_json::to_string(&needs).expect("needs serialize");
        assert_eq!(serde_json::from_str::<Needs>(&text).expect("needs parse"), needs);
    }
}
