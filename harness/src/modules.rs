//! Kernel modules of the guest image.
//!
//! `/modules/order` has a line for each module, dependencies before dependents: the name, the file
//! below `/modules`, and the names it depends on, separated by commas (the image builder takes them
//! from the modules' own `depends=`). As with modprobe, words such as `scsi_debug.max_queue=1` on
//! the kernel command line are parameters of the module. `/modules/builtin` names the wanted modules that
//! are part of the kernel: sysfs shows only those of them that have parameters.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::CString,
    fs::{self, File},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    fs::OFlags,
    io::Errno,
    system::{delete_module, finit_module},
};

use crate::wait;

const DIR: &str = "/modules";

/// How long something may go on using a module that nothing needs any more.
const UNLOAD_DEADLINE: Duration = Duration::from_secs(30);

/// The modules the image has.
#[derive(Debug, Default)]
pub struct Modules {
    modules: BTreeMap<String, Module>,
    builtin: BTreeSet<String>,
}

#[derive(Debug)]
struct Module {
    file: PathBuf,
    depends: Vec<String>,
}

impl Modules {
    /// Reads the list in the image.
    pub fn of_image() -> Result<Self, String> {
        let read = |name| {
            let path = Path::new(DIR).join(name);
            fs::read_to_string(&path)
                .map_err(|error| format!("cannot read {}: {error}", path.display()))
        };
        Self::parse(&read("order")?, &read("builtin")?)
    }

    fn parse(order: &str, builtin: &str) -> Result<Self, String> {
        let mut modules = BTreeMap::new();
        for line in order.lines() {
            let mut words = line.split_whitespace();
            let (Some(name), Some(file)) = (words.next(), words.next()) else {
                return Err(format!("module list has a line without a file: {line:?}"));
            };
            let depends = words.next().into_iter().flat_map(|list| list.split(',')).map(canonical);
            let module = Module { file: Path::new(DIR).join(file), depends: depends.collect() };
            modules.insert(canonical(name), module);
        }
        Ok(Modules { modules, builtin: builtin.lines().map(canonical).collect() })
    }

    /// Whether the image has the module or the kernel has it built in.
    pub fn has(&self, name: &str) -> bool {
        let name = canonical(name);
        self.modules.contains_key(&name) || self.builtin.contains(&name) || is_loaded(&name)
    }

    /// Loads a module after what it depends on. `params` are added behind those of the kernel command
    /// line. A module that is loaded already or built in is left as it is.
    pub fn load(&self, name: &str, params: &str) -> Result<(), String> {
        self.load_with(name, params, &mut || {})
    }

    /// As [`Modules::load`], and calls `loaded` after each module, that is also those it depends on.
    pub fn load_with(
        &self,
        name: &str,
        params: &str,
        loaded: &mut dyn FnMut(),
    ) -> Result<(), String> {
        let name = canonical(name);
        if self.builtin.contains(&name) || is_loaded(&name) {
            return Ok(());
        }
        let module = self
            .modules
            .get(&name)
            .ok_or_else(|| format!("the guest image has no module {name}"))?;
        for dependency in &module.depends {
            self.load_with(dependency, "", loaded)?;
        }
        let cmdline = fs::read_to_string("/proc/cmdline").map_err(|error| error.to_string())?;
        let params = format!("{} {params}", params_of(&cmdline, &name));
        let params = CString::new(params.trim()).map_err(|error| error.to_string())?;
        let file = File::open(&module.file)
            .map_err(|error| format!("cannot open {}: {error}", module.file.display()))?;
        match finit_module(&file, &params, 0) {
            Ok(()) | Err(Errno::EXIST) => {
                loaded();
                Ok(())
            }
            Err(error) => Err(format!("module {name} does not load: {error}")),
        }
    }
}

/// Unloads a module, as soon as nothing uses it any more.
pub fn unload(name: &str) -> Result<(), String> {
    let c_name = CString::new(canonical(name)).map_err(|error| error.to_string())?;
    let nonblock = OFlags::NONBLOCK.bits().cast_signed();
    let unloaded =
        wait::until(
            UNLOAD_DEADLINE,
            format_args!("the last user of {name}"),
            || match delete_module(&c_name, nonblock) {
                Err(Errno::AGAIN) => None,
                outcome => Some(outcome),
            },
        );
    let outcome = unloaded.map_err(|error| error.to_string())?;
    outcome.map_err(|error| format!("module {name} does not unload: {error}"))
}

/// Whether a module is loaded, or built in with a directory of its own in sysfs.
pub fn is_loaded(name: &str) -> bool {
    Path::new("/sys/module").join(canonical(name)).exists()
}

/// The kernel's spelling: modules are loaded by either, and listed with underscores.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// The words of a command line that are parameters of a module, without the prefix.
fn params_of(cmdline: &str, name: &str) -> String {
    let of_module = cmdline.split_whitespace().filter_map(|word| {
        let (module, param) = word.split_once('.')?;
        (canonical(module) == name).then_some(param)
    });
    of_module.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_names_files_and_dependencies() {
        let list =
            "scsi_common scsi_common.ko\nscsi_mod scsi_mod.ko scsi-common\nsg sg.ko scsi_mod\n";
        let modules = Modules::parse(list, "sd_mod\n").expect("parses");
        assert_eq!(modules.modules["scsi_mod"].depends, ["scsi_common"]);
        assert_eq!(modules.modules["sg"].file, Path::new("/modules/sg.ko"));
        assert!(modules.has("scsi-common") && modules.has("sd-mod"));
        assert!(!modules.has("no_such_module"));
        assert!(Modules::parse("alone\n", "").is_err());
    }

    #[test]
    fn parameters_come_from_the_command_line_as_for_modprobe() {
        let cmdline = "console=ttyS0 scsi_debug.max_queue=1 scsi-debug.delay=0 other.x=1\n";
        assert_eq!(params_of(cmdline, "scsi_debug"), "max_queue=1 delay=0");
        assert_eq!(params_of(cmdline, "console"), "");
    }
}
