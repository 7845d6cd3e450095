//! The modules every test may rely on, and those the command line asks for.

use std::{fs, path::Path};

use guest_protocol::message::LOAD_ARG;
use harness::{modules::Modules, sysfs};

/// What every test may rely on, if the kernel has it.
const STANDARD: [&str; 4] = ["virtio_scsi", "sd_mod", "sg", "ublk_drv"];

/// Loads the modules, and calls `loaded` after each. Returns the standard ones that neither the image nor the kernel has.
pub(crate) fn load_standard(mut loaded: impl FnMut()) -> Result<Vec<String>, String> {
    let modules = Modules::of_image()?;
    let (present, missing): (Vec<_>, Vec<_>) =
        STANDARD.into_iter().partition(|name| modules.has(name));
    let cmdline = fs::read_to_string("/proc/cmdline").map_err(|error| error.to_string())?;
    let asked = cmdline.split_whitespace().filter_map(|word| word.strip_prefix(LOAD_ARG));
    for name in present.into_iter().chain(asked.flat_map(|list| list.split(','))) {
        modules.load_with(name, "", &mut loaded)?;
    }
    Ok(missing.into_iter().map(str::to_owned).collect())
}

/// The parameters of the loaded and built-in modules, each as `module.parameter`.
pub(crate) fn parameters() -> Vec<String> {
    let modules = Path::new("/sys/module");
    let of = |module: String| {
        let names = sysfs::entries(&modules.join(&module).join("parameters"));
        names.into_iter().map(move |name| format!("{module}.{name}"))
    };
    sysfs::entries(modules).into_iter().flat_map(of).collect()
}
