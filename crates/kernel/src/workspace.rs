//! A directory of the cache in which one kernel is built, again and again: the source, and in it the
//! objects.
//!
//! A workspace can be copied with its objects, see [`OBJECTS`].

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use host::{
    apt,
    cache::{Cache, Lock, at},
    progress::Progress,
    tools,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Error, kbuild::Kbuild, manifest::Arch, mirror::OBJECTS, unused};

/// Written after a build: what it was made of.
const DONE: &str = "done.json";
const WORKSPACES: &str = "builds";

/// A workspace, locked.
#[derive(Debug)]
pub(crate) struct Workspace {
    dir: PathBuf,
    lock: Lock,
}

/// A finished build.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Done {
    /// Everything the kernel depends on, as a digest.
    pub(crate) inputs: String,
    /// The kernel's name in the cache.
    pub(crate) kernel: String,
}

impl Done {
    /// The finished build in the workspace `name`, which nobody has to hold: what is finished stays in
    /// the cache.
    pub(crate) fn look(cache: &Cache, name: &str, inputs: &str) -> Option<Done> {
        Done::read(&cache.path(&format!("{WORKSPACES}/{name}")), inputs)
    }

    fn read(workspace: &Path, inputs: &str) -> Option<Done> {
        let done: Done = serde_json::from_slice(&fs::read(workspace.join(DONE)).ok()?).ok()?;
        (done.inputs == inputs).then_some(done)
    }
}

impl Workspace {
    /// The workspace `name`; waits for another run that uses it.
    pub(crate) fn open(cache: &Cache, name: &str, progress: &Progress) -> Result<Self, Error> {
        let place = format!("{WORKSPACES}/{name}");
        let lock = cache.lock(&place, progress)?;
        let dir = cache.path(&place);
        unused::sweep(cache, WORKSPACES, &dir);
        fs::create_dir_all(&dir).map_err(at("make", &dir))?;
        unused::stamp(&dir);
        Ok(Workspace { dir, lock })
    }

    pub(crate) fn lock(&self) -> &Lock {
        &self.lock
    }

    /// The source tree.
    pub(crate) fn source(&self) -> PathBuf {
        self.dir.join("linux")
    }

    /// A file beside the source.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// How make is called in this workspace.
    pub(crate) fn kbuild(&self, arch: Arch, variables: &[String]) -> Kbuild {
        Kbuild {
            source: self.source(),
            objects: self.source().join(OBJECTS),
            arch,
            variables: variables.to_vec(),
            log: self.file("build.log"),
        }
    }

    /// Makes the source tree, unless it is there: hard links to the files of `tree`, and copies of the
    /// objects of `built`, if there are any.
    pub(crate) fn seed(
        &self,
        tree: &Path,
        built: Option<&Path>,
        progress: &Progress,
    ) -> Result<(), Error> {
        let source = self.source();
        if source.exists() {
            return Ok(());
        }
        let task = progress.task("preparing the source", None);
        let aside = self.dir.join("new");
        if aside.exists() {
            fs::remove_dir_all(&aside).map_err(at("remove the left-over", &aside))?;
        }
        copy(&["-a", "--link"], tree, &aside)?;
        let objects = aside.join(OBJECTS);
        if objects.exists() {
            fs::remove_dir_all(&objects).map_err(at("remove", &objects))?;
        }
        if let Some(built) = built.filter(|built| built.exists()) {
            copy(&["-a", "--reflink=auto"], built, &objects)?;
            let old = built.parent().unwrap_or(built);
            relocate(&objects.join("tools"), &old.display().to_string(), &source)?;
        }
        fs::create_dir_all(&objects).map_err(at("make", &objects))?;
        fs::rename(&aside, &source).map_err(at("rename into", &source))?;
        task.done();
        Ok(())
    }

    /// Whether the last build in it was finished.
    pub(crate) fn is_sound(&self) -> bool {
        self.file(DONE).exists()
    }

    /// The finished build, unless its inputs are others now.
    pub(crate) fn done(&self, inputs: &str) -> Option<Done> {
        Done::read(&self.dir, inputs)
    }

    /// From now on nothing is finished here.
    pub(crate) fn begin(&self) -> Result<(), Error> {
        for name in [DONE, "build.log"] {
            let path = self.file(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(at("remove", &path)(error).into());
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(crate) fn finish(&self, done: &Done) -> Result<(), Error> {
        let json = serde_json::to_vec_pretty(done).expect("plain data has a JSON form");
        let path = self.file(DONE);
        Ok(fs::write(&path, json).map_err(at("write", &path))?)
    }
}

/// Copies a directory.
fn copy(options: &[&str], from: &Path, to: &Path) -> Result<(), Error> {
    let mut command = Command::new("cp");
    command.args(options).arg(from).arg(to);
    let output = tools::run(&mut command, "coreutils").map_err(Error::Tool)?;
    if output.status.success() {
        return Ok(());
    }
    if output.text().contains("No space left on device") {
        return Err(host::cache::disk_full(to, 0).into());
    }
    Err(Error::Tool(tools::failed(&command, &output)))
}

/// Programs of the host below `tools` are built by absolute paths, unlike all the rest. With the old
/// ones objtool would be built again, and after it every object it has looked at.
fn relocate(dir: &Path, from: &str, to: &Path) -> Result<(), Error> {
    if !dir.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(dir).map_err(at("read", dir))? {
        let path = entry.map_err(at("read", dir))?.path();
        if path.is_dir() && !path.is_symlink() {
            relocate(&path, from, to)?;
        } else if path.extension().is_some_and(|extension| extension == "cmd") {
            let text = fs::read_to_string(&path).map_err(at("read", &path))?;
            let text = text.replace(from, &to.display().to_string());
            fs::write(&path, text).map_err(at("write", &path))?;
        }
    }
    Ok(())
}

/// A short name for all of `parts`.
pub(crate) fn digest<P: AsRef<[u8]>>(parts: impl IntoIterator<Item = P>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        let part = part.as_ref();
        hash.update(u64::try_from(part.len()).expect("a length").to_le_bytes());
        hash.update(part);
    }
    apt::hex(&hash.finalize())[..12].to_owned()
}
