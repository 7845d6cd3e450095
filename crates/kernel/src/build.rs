//! From a workspace with source in it to a kernel in the cache: configured, verified, built, copied
//! out.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use host::{
    cache::{Cache, at},
    progress::Progress,
    tools,
};

use crate::{
    Built, Error, KERNELS, Kernel, STORED, Stored,
    config::{Config, Fragment, Modules, ParseError, Value, unmet},
    fragments::Fragments,
    kbuild::Kbuild,
    place, unused,
    workspace::{Done, Workspace, digest},
};

/// Room for the objects and the result of a small kernel with debug information.
const SPACE: u64 = 1_500_000_000;
/// How many changed symbols a note names.
const NAMED: usize = 8;

/// What a kernel is built with.
#[derive(Clone, Debug)]
pub(crate) enum Configuration {
    /// These symbols over `allnoconfig`; each has to stick.
    Fragments(Fragment),
    /// A whole configuration of the user's.
    Whole {
        /// Where it came from, for messages.
        from: PathBuf,
        /// Its text.
        text: String,
    },
}

impl Configuration {
    fn text(&self) -> String {
        match self {
            Configuration::Fragments(fragment) => fragment.to_string(),
            Configuration::Whole { text, .. } => text.clone(),
        }
    }
}

/// Everything a kernel depends on: the identity of its source, its configuration, how it is built.
pub(crate) fn inputs(
    source: &str,
    configuration: &Configuration,
    kbuild: &Kbuild,
) -> Result<String, Error> {
    let variables = kbuild.variables.join(" ");
    Ok(digest([source, &configuration.text(), &variables, &kbuild.compiler()?]))
}

/// One build.
#[derive(Debug)]
pub(crate) struct Build<'a> {
    pub(crate) cache: &'a Cache,
    pub(crate) progress: &'a Progress,
    /// What the kernel is called in reports.
    pub(crate) name: String,
    /// What it is made of, for reports.
    pub(crate) origin: String,
    /// The identity of the source, another one if anything in it changed.
    pub(crate) source: String,
    pub(crate) workspace: &'a Workspace,
    pub(crate) kbuild: Kbuild,
    pub(crate) configuration: Configuration,
    /// What the bench and the suite want of a configuration.
    pub(crate) fragments: &'a Fragments,
}

impl Build<'_> {
    /// The kernel, built unless it was.
    pub(crate) fn run(&self) -> Result<Kernel, Error> {
        let inputs = self.inputs()?;
        if let Some(done) = self.workspace.done(&inputs)
            && let Some(kernel) = Kernel::cached(self.cache, &self.name, &done.kernel)?
        {
            return Ok(kernel);
        }
        self.kbuild.prepare(self.progress)?;
        self.workspace.begin()?;
        self.enough_space()?;
        let note = self.configure()?;
        let config = self.config()?;
        let is_direct = config.has("CONFIG_PVH");
        let mut targets = vec![if is_direct { "vmlinux" } else { "bzImage" }];
        if config.has("CONFIG_MODULES") {
            targets.push("modules");
        }
        self.make(&targets, &[], &format!("building kernel {}", self.name))?;
        let key = self.publish(&inputs, is_direct, &config, note)?;
        self.workspace.finish(&Done { inputs, kernel: key.clone() })?;
        let vanished = || Error::Damaged {
            dir: self.cache.path(&place(&key)),
            detail: "it was removed while in use".to_owned(),
        };
        Kernel::cached(self.cache, &self.name, &key)?.ok_or_else(vanished)
    }

    fn inputs(&self) -> Result<String, Error> {
        inputs(&self.source, &self.configuration, &self.kbuild)
    }

    fn enough_space(&self) -> Result<(), Error> {
        let is_first = !self.kbuild.objects.join("vmlinux").exists();
        match host::cache::available(&self.kbuild.objects) {
            Some(free) if is_first && free < SPACE => {
                Err(host::cache::disk_full(&self.kbuild.objects, SPACE).into())
            }
            _ => Ok(()),
        }
    }

    /// Makes `targets` in the workspace.
    pub(crate) fn make(
        &self,
        targets: &[&str],
        environment: &[(&str, &Path)],
        what: &str,
    ) -> Result<(), Error> {
        self.kbuild.make(targets, environment, what, self.workspace.lock(), self.progress)
    }

    fn config(&self) -> Result<Config, Error> {
        let path = self.kbuild.objects.join(".config");
        let text = fs::read_to_string(&path).map_err(at("read", &path))?;
        Config::parse(&path.display().to_string(), &text).map_err(bad_config)
    }

    /// Makes `.config`, and says what a reader of the report must know about it.
    pub(crate) fn configure(&self) -> Result<Option<String>, Error> {
        let objects = &self.kbuild.objects;
        fs::create_dir_all(objects).map_err(at("make", objects))?;
        let wanted = self.workspace.file("wanted.config");
        let text = self.configuration.text();
        // Configured alike already: make would only look at everything again.
        let is_configured = objects.join(".config").exists()
            && fs::read_to_string(&wanted).is_ok_and(|earlier| earlier == text);
        let name = format!("configuring kernel {}", self.name);
        match &self.configuration {
            Configuration::Fragments(fragment) => {
                if !is_configured {
                    // Under another name until it is verified.
                    let path = self.workspace.file("unverified.config");
                    fs::write(&path, &text).map_err(at("write", &path))?;
                    self.make(&["allnoconfig"], &[("KCONFIG_ALLCONFIG", &path)], &name)?;
                    self.stuck(fragment)?;
                    fs::rename(&path, &wanted).map_err(at("rename into", &wanted))?;
                }
                Ok(None)
            }
            Configuration::Whole { from, text } => {
                if !is_configured {
                    let path = objects.join(".config");
                    fs::write(&path, text).map_err(at("write", &path))?;
                    self.make(&["olddefconfig"], &[], &name)?;
                    fs::write(&wanted, text).map_err(at("write", &wanted))?;
                }
                self.usable(from, text)
            }
        }
    }

    /// Each symbol of our own fragments has to have the value it was given.
    fn stuck(&self, fragment: &Fragment) -> Result<(), Error> {
        let unmet = unmet(&self.config()?, fragment, Modules::NotEnough);
        if unmet.is_empty() {
            return Ok(());
        }
        Err(Error::Symbols {
            config: format!("the configuration {}", fragment.name),
            symbols: unmet.iter().map(ToString::to_string).collect(),
            hint: "kconfig did not take these values: their dependencies are missing, or this \
                   kernel does not have them; correct the fragments in images/kernel/config"
                .to_owned(),
        })
    }

    /// A user's configuration has to have what the bench cannot work without.
    fn usable(&self, from: &Path, text: &str) -> Result<Option<String>, Error> {
        let config = self.config()?;
        let unmet = self.fragments.unmet_requirements(&config);
        if !unmet.is_empty() {
            return Err(Error::Symbols {
                config: format!("the configuration {}", from.display()),
                symbols: unmet,
                hint:
                    "set them, give another configuration with `--kernel-config FILE`, or take the \
                       bench's own with `--kernel-config bench`"
                        .to_owned(),
            });
        }
        let before = Config::parse(&from.display().to_string(), text).map_err(bad_config)?;
        let mut notes = Vec::new();
        let lost = changed(&before, &config);
        if !lost.is_empty() {
            let named = lost[..lost.len().min(NAMED)].join(", ");
            let more = if lost.len() > NAMED { ", …" } else { "" };
            notes.push(format!(
                "kconfig changed {} symbols of {}: {named}{more}",
                lost.len(),
                from.display()
            ));
        }
        notes.extend(self.fragments.limits(&config));
        Ok((!notes.is_empty()).then(|| notes.join("; ")))
    }

    /// Copies what a run needs out of the objects; returns the kernel's name in the cache.
    fn publish(
        &self,
        inputs: &str,
        is_direct: bool,
        config: &Config,
        note: Option<String>,
    ) -> Result<String, Error> {
        let release = self.kbuild.release()?;
        let objects = &self.kbuild.objects;
        let vmlinux = objects.join("vmlinux");
        let identity = host::cache::identity(&vmlinux).map_err(at("read", &vmlinux))?;
        let key = format!("{release}-{}", digest([inputs, &identity]));
        self.cache.entry(&place(&key), 0, self.progress, |dir| {
            if is_direct {
                strip(&vmlinux, &dir.join("vmlinux"))?;
            } else {
                copy(&objects.join("arch/x86/boot/bzImage"), &dir.join("bzImage"))?;
            }
            copy(&objects.join(".config"), &dir.join("config"))?;
            if config.has("CONFIG_DEBUG_INFO") {
                fs::create_dir(dir.join("debug")).map_err(at("make", dir))?;
                copy(&vmlinux, &dir.join("debug/vmlinux"))?;
            }
            self.install_modules(dir, config, &release)?;
            let stored = Stored {
                release: release.clone(),
                arch: self.kbuild.arch,
                packages: Vec::new(),
                built: Some(Built {
                    origin: self.origin.clone(),
                    source: self.kbuild.source.clone(),
                    objects: objects.clone(),
                    note,
                }),
            };
            let json = serde_json::to_vec_pretty(&stored).expect("plain data has a JSON form");
            let path = dir.join(STORED);
            Ok::<(), Error>(fs::write(&path, json).map_err(at("write", &path))?)
        })?;
        unused::sweep(self.cache, KERNELS, &self.cache.path(&place(&key)));
        Ok(key)
    }

    /// The modules and the list of what is built in, as `modules` in `dir`.
    fn install_modules(&self, dir: &Path, config: &Config, release: &str) -> Result<(), Error> {
        let modules = dir.join("modules");
        if config.has("CONFIG_MODULES") {
            let root = dir.join("root");
            let environment = [
                ("INSTALL_MOD_PATH", root.as_path()),
                ("INSTALL_MOD_STRIP", Path::new("1")),
                // Dependencies are taken from the modules themselves.
                ("DEPMOD", Path::new("true")),
            ];
            self.make(&["modules_install"], &environment, "installing modules")?;
            let made = root.join("lib/modules").join(release);
            fs::rename(&made, &modules).map_err(at("rename", &made))?;
            fs::remove_dir_all(&root).map_err(at("remove", &root))?;
        }
        let kernel = modules.join("kernel");
        fs::create_dir_all(&kernel).map_err(at("make", &kernel))?;
        let builtin = modules.join("modules.builtin");
        if !builtin.exists() {
            copy(&self.kbuild.objects.join("modules.builtin"), &builtin)?;
        }
        Ok(())
    }
}

/// Symbols that were set and are no longer what they were.
fn changed(before: &Config, after: &Config) -> Vec<String> {
    let lost = before.settings().filter(|(symbol, value)| {
        matches!(value, Value::Yes | Value::Module) && after.get(symbol) != *value
    });
    lost.map(|(symbol, _)| symbol.to_owned()).collect()
}

fn bad_config(error: ParseError) -> Error {
    Error::Input { what: error.file.clone(), detail: error.to_string() }
}

/// Copies an ELF file without its debug information.
pub(crate) fn strip(from: &Path, to: &Path) -> Result<(), Error> {
    let mut command = Command::new("objcopy");
    command.arg("--strip-debug").arg(from).arg(to);
    tools::check(&mut command, "binutils").map(drop).map_err(Error::Tool)
}

fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    fs::copy(from, to).map(drop).map_err(at("copy", from)).map_err(Error::from)
}
