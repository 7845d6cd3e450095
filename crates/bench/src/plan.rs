//! Which tests run, in what order, and which of them share a virtual machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::{Command, Stdio},
};

use guest_protocol::{
    message::Hello,
    needs::{Class, Declaration, Feature, MANIFEST_ENV, Needs, ScsiHost, VmShape},
};

use crate::{
    outcome::{Outcome, TestRecord, Verdict},
    qemu::Qemu,
};
use kernel::Kernel;

/// Tests below these modules run when they are called for: planted defects, for the bench's test of itself, and
/// measurements, which are no tests of a kernel; and what takes long.
const APART: [&str; 3] = ["planted::", "measured::", "long::"];

/// libtest's name of the test that writes the declarations.
const MANIFEST: &str = "manifest";

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The test binary could not be asked.
    #[error("cannot list the tests of {binary}: {reason}")]
    List {
        /// The binary.
        binary: String,
        /// Why.
        reason: String,
    },
    /// A test without a declaration.
    #[error("test {0} declares no class: begin it with `declare!(…)`")]
    Undeclared(String),
    /// A declaration that names no test.
    #[error("{0} is declared but is no test: is its `#[test]` or `#[rstest]` missing?")]
    NoTest(String),
}

/// A test that can be run.
#[derive(Clone, Debug)]
pub struct Test {
    /// libtest's full name.
    pub name: String,
    /// Path of the test function: the name without rstest's case.
    pub function: String,
    /// How binding the asserted behaviour is.
    pub class: Class,
    /// What it needs around it.
    pub needs: Needs,
}

impl Test {
    /// What is filed for it if it cannot run.
    pub fn skipped(&self, reason: String) -> TestRecord {
        TestRecord::without_run(self.name.clone(), self.class, Outcome::Skip(reason))
    }
}

/// Every test of a binary.
#[derive(Debug)]
pub struct Catalog {
    tests: Vec<Test>,
}

impl Catalog {
    /// Asks the binary, which runs on the host as in the guest, for its tests and declarations.
    pub fn of(binary: &Path) -> Result<Self, PlanError> {
        let error =
            |reason: String| PlanError::List { binary: binary.display().to_string(), reason };
        let names = ask(binary, &["--list", "--format", "terse"], None).map_err(error)?;
        let file = tempfile::NamedTempFile::new().map_err(|source| error(source.to_string()))?;
        ask(binary, &["--exact", MANIFEST], Some(file.path())).map_err(error)?;
        let text = std::fs::read(file.path()).map_err(|source| error(source.to_string()))?;
        let declared = serde_json::from_slice(&text).map_err(|source| error(source.to_string()))?;
        let names = names.lines().filter_map(|line| line.strip_suffix(": test"));
        Self::new(names.filter(|name| *name != MANIFEST), declared)
    }

    fn new<'a>(
        names: impl Iterator<Item = &'a str>,
        declared: Vec<Declaration>,
    ) -> Result<Self, PlanError> {
        let mut uses: BTreeMap<&str, u32> =
            declared.iter().map(|declaration| (declaration.path.as_str(), 0)).collect();
        let mut tests = Vec::new();
        for name in names {
            // A module may be called like a function beside it; the longest path is the test's own.
            let covers = declared.iter().filter(|declaration| declaration.covers(name));
            let declaration = covers.max_by_key(|declaration| declaration.path.len());
            let declaration = declaration.ok_or_else(|| PlanError::Undeclared(name.to_owned()))?;
            *uses.entry(&declaration.path).or_default() += 1;
            let Declaration { path, class, needs } = declaration.clone();
            tests.push(Test { name: name.to_owned(), function: path, class, needs });
        }
        match uses.iter().find(|(_, count)| **count == 0) {
            Some((path, _)) => Err(PlanError::NoTest((*path).to_owned())),
            None => Ok(Catalog { tests }),
        }
    }

    /// The tests whose name contains one of the filters (or is one, if `exact`), or all without a
    /// filter. What stands apart is chosen only by a filter that begins like its module.
    pub fn select(&self, filters: &[String], exact: bool) -> Vec<Test> {
        let wanted = |test: &&Test| {
            let apart = APART.iter().find(|module| test.name.starts_with(**module));
            let named = |filter: &String| {
                let matches =
                    if exact { test.name == *filter } else { test.name.contains(filter.as_str()) };
                matches && apart.is_none_or(|module| filter.starts_with(module))
            };
            (filters.is_empty() && apart.is_none()) || filters.iter().any(named)
        };
        self.tests.iter().filter(wanted).cloned().collect()
    }
}

fn ask(binary: &Path, args: &[&str], manifest: Option<&Path>) -> Result<String, String> {
    let mut command = Command::new(binary);
    command.args(args).stdin(Stdio::null());
    if let Some(path) = manifest {
        command.env(MANIFEST_ENV, path);
    }
    let output = command.output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        Ok(text)
    } else {
        Err(format!("{}: {text}{}", output.status, String::from_utf8_lossy(&output.stderr)))
    }
}

/// Why a test cannot run with this kernel and this QEMU, if so. `reconnecting` is the QEMU that
/// reconnects, or why there is none.
pub fn unmet(
    needs: &Needs,
    kernel: &Kernel,
    reconnecting: &Result<Qemu, String>,
) -> Option<String> {
    let hotplug = ["CONFIG_HOTPLUG_PCI_ACPI", "CONFIG_HOTPLUG_PCI_PCIE"];
    if needs.host != ScsiHost::Shared && !hotplug.iter().any(|symbol| kernel.config_has(symbol)) {
        let reason = "needs a SCSI host of its own, which is plugged into the running guest";
        let symbols = hotplug.join(" nor ");
        return Some(format!("{reason}: kernel {} has neither {symbols}", kernel.release));
    }
    needs.features.iter().find_map(|feature| match feature {
        Feature::Config(symbol) => (!kernel.config_has(symbol))
            .then(|| feature.missing(&format!("kernel {} does not have it", kernel.release))),
        Feature::KernelAtLeast(major, minor) => {
            let version = kernel.version;
            let too_old = (version.major, version.minor) < (*major, *minor);
            too_old.then(|| feature.missing(&format!("this is {}", kernel.release)))
        }
        Feature::Reconnect => reconnecting.as_ref().err().map(|reason| feature.missing(reason)),
        // The guest knows, see `unmet_in_guest`.
        Feature::ModuleParameter { .. } => None,
    })
}

/// Why a test cannot run in a guest that has booted, if so.
pub fn unmet_in_guest(needs: &Needs, guest: &Hello) -> Option<String> {
    needs.features.iter().find_map(|feature| match feature {
        Feature::ModuleParameter { module, name } => {
            let parameter = format!("{module}.{name}");
            (!guest.module_parameters.contains(&parameter)).then(|| {
                feature.missing(&format!(
                    "kernel {} does not have it, `--kernel patched` has those of our own patches",
                    guest.release
                ))
            })
        }
        Feature::Config(_) | Feature::KernelAtLeast(..) | Feature::Reconnect => None,
    })
}

/// Tests that share a virtual machine.
#[derive(Clone, Debug)]
pub struct Group {
    /// What the machine has to be.
    pub shape: VmShape,
    /// Places in the list of tests, in order of execution.
    pub members: Vec<usize>,
    /// Whether they run one after the other.
    pub alone: bool,
}

/// Puts tests with equal shapes together, in the order given; tests that want a machine of their own
/// get one each.
pub fn group(tests: &[Test], order: &[usize]) -> Vec<Group> {
    let mut shared: Vec<Group> = Vec::new();
    let mut own = Vec::new();
    for &member in order {
        let needs = &tests[member].needs;
        let shape = needs.vm_shape();
        if needs.own_vm {
            own.push(Group { shape, members: vec![member], alone: true });
        } else if let Some(group) = shared.iter_mut().find(|group| group.shape == shape) {
            group.members.push(member);
        } else {
            shared.push(Group { shape, members: vec![member], alone: false });
        }
    }
    shared.extend(own);
    shared
}

/// How many different tests were executed.
pub fn distinct_executed(records: &[TestRecord]) -> usize {
    let executed = records.iter().filter(|record| record.verdict != Verdict::Skipped);
    executed.map(|record| record.name.as_str()).collect::<BTreeSet<_>>().len()
}

/// A permutation of `0..count` from a seed: the same on every machine.
pub fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    fastrand::Rng::with_seed(seed).shuffle(&mut order);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(path: &str, needs: Needs) -> Declaration {
        Declaration { path: path.into(), class: Class::Contract, needs }
    }

    #[test]
    fn every_test_has_a_declaration_and_every_declaration_a_test() {
        let one = || vec![declared("a::b", Needs::DEFAULT)];
        assert!(Catalog::new(["a::b::case_1"].into_iter(), one()).is_ok());
        assert!(matches!(Catalog::new(["a::c"].into_iter(), one()), Err(PlanError::Undeclared(_))));
        assert!(matches!(Catalog::new([].into_iter(), one()), Err(PlanError::NoTest(_))));
    }

    #[test]
    fn a_test_has_its_own_declaration_and_not_that_of_a_namesake_of_its_module() {
        let own = Needs { own_vm: true, ..Needs::DEFAULT };
        let list = vec![declared("a::flush", Needs::DEFAULT), declared("a::flush::twice", own)];
        let catalog = Catalog::new(["a::flush", "a::flush::twice"].into_iter(), list);
        let tests = catalog.expect("both are declared").select(&["twice".into()], false);
        assert!(tests[0].needs.own_vm);
        assert_eq!(tests[0].function, "a::flush::twice");
    }

    #[test]
    fn a_parameter_is_looked_for_in_the_guest() {
        let parameter =
            Feature::ModuleParameter { module: "virtio_scsi".into(), name: "patched".into() };
        let needs = Needs { features: vec![parameter].into(), ..Needs::DEFAULT };
        let guest = |parameters: &[&str]| Hello {
            version: 0,
            release: "7.2.12".into(),
            cpus: 1,
            uptime_us: 0,
            init_us: 0,
            missing_modules: Vec::new(),
            module_parameters: parameters.iter().map(ToString::to_string).collect(),
            tainted: 0,
        };
        assert_eq!(unmet_in_guest(&needs, &guest(&["virtio_scsi.patched"])), None);
        let reason = unmet_in_guest(&needs, &guest(&["scsi.patched", "virtio_scsi.patched2"]));
        let reason = reason.expect("it is absent");
        assert!(reason.starts_with("needs the module parameter virtio_scsi.patched: "), "{reason}");
        assert_eq!(unmet_in_guest(&Needs::DEFAULT, &guest(&[])), None);
    }

    #[test]
    fn planted_defects_run_only_when_called_by_module() {
        let needs = || Needs::DEFAULT;
        let list = vec![declared("a::panics", needs()), declared("planted::panics", needs())];
        let catalog =
            Catalog::new(["a::panics", "planted::panics"].into_iter(), list).expect("declared");
        let names = |filters: &[&str], exact: bool| {
            let filters: Vec<_> = filters.iter().map(ToString::to_string).collect();
            catalog.select(&filters, exact).into_iter().map(|test| test.name).collect::<Vec<_>>()
        };
        assert_eq!(names(&[], false), ["a::panics"]);
        assert_eq!(names(&["panics"], false), ["a::panics"]);
        assert!(names(&["panics"], true).is_empty());
        assert_eq!(names(&["planted::panics"], true), ["planted::panics"]);
    }

    #[test]
    fn equal_shapes_share_a_machine_and_own_machines_hold_one() {
        let test = |name: &str, needs: Needs| Test {
            name: name.into(),
            function: name.into(),
            class: Class::Contract,
            needs,
        };
        let two_cpus = || Needs { cpus: Some(2), ..Needs::DEFAULT };
        let own = Needs { own_vm: true, ..Needs::DEFAULT };
        let programs = Needs { programs: Some("tools".into()), ..Needs::DEFAULT };
        let tests = [
            test("a", Needs::DEFAULT),
            test("b", two_cpus()),
            test("c", own),
            test("d", Needs::DEFAULT),
            test("e", two_cpus()),
            test("f", programs),
        ];
        let groups = group(&tests, &[0, 1, 2, 3, 4, 5]);
        let members: Vec<_> = groups.iter().map(|group| group.members.clone()).collect();
        assert_eq!(members, [vec![0, 3], vec![1, 4], vec![5], vec![2]]);
    }

    #[test]
    fn a_seed_gives_one_permutation() {
        let order = shuffled(20, 7);
        assert_eq!(order, shuffled(20, 7));
        assert_ne!(order, shuffled(20, 8));
        let mut sorted = order;
        sorted.sort_unstable();
        assert_eq!(sorted, (0..20).collect::<Vec<_>>());
    }
}
