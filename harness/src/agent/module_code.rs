//! Where the code of modules is, for a bench that measures coverage.

use std::{fs, path::Path, sync::Mutex};

use guest_protocol::message::{FromGuest, MODULE_CODE_ARG, ModuleCode};

use crate::link::Link;

/// Tells the bench when modules come and go.
pub(crate) struct Reporter {
    /// `/proc/modules` when it was last told; `None` if nobody asked for it.
    told: Option<Mutex<String>>,
}

impl Reporter {
    /// Speaks if the kernel command line asks for it.
    pub(crate) fn new() -> Self {
        let cmdline = fs::read_to_string("/proc/cmdline").unwrap_or_default();
        let is_wanted = cmdline.split_whitespace().any(|word| word == MODULE_CODE_ARG);
        Reporter { told: is_wanted.then(Mutex::default) }
    }

    /// Sends the list if it is not what was sent last.
    pub(crate) fn tell(&self, link: &Link) {
        let Some(told) = &self.told else { return };
        let mut told = told.lock().expect("no thread panics with a lock");
        let now = loaded();
        if *told != now {
            link.send(&FromGuest::ModuleCode { modules: read() });
            *told = now;
        }
    }
}

/// Names and addresses of what is loaded. The count of users, which changes all the time, is left
/// out.
fn loaded() -> String {
    let text = fs::read_to_string("/proc/modules").unwrap_or_default();
    let lines = text.lines().map(|line| {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap_or_default();
        format!("{name} {}\n", words.next_back().unwrap_or_default())
    });
    lines.collect()
}

/// What sysfs says of every module. A built-in one has no sections.
fn read() -> Vec<ModuleCode> {
    let names = |dir: &Path| -> Vec<String> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    };
    let root = Path::new("/sys/module");
    let mut modules = Vec::new();
    for name in names(root) {
        let dir = root.join(&name).join("sections");
        // Reading each costs a moment under emulation, and most hold no code.
        let code = names(&dir).into_iter().filter(|section| section.contains("text"));
        let sections: Vec<(String, u64)> = code
            .filter_map(|section| {
                let text = fs::read_to_string(dir.join(&section)).ok()?;
                let address = u64::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok()?;
                Some((section, address))
            })
            .collect();
        if !sections.is_empty() {
            modules.push(ModuleCode { name, sections });
        }
    }
    modules
}
