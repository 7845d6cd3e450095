//! Programs of the kernel's own tests (`tools/testing/selftests`), compiled from the source of a kernel that is built.
//!
//! They are linked statically, to run in a guest that has no libraries.

use std::{
    fs,
    path::{Path, PathBuf},
};

use host::cache::at;
use serde::{Deserialize, Serialize};

use crate::{
    Error,
    kbuild::Kbuild,
    manifest::{Arch, Manifest, Source, manifest_path},
    recipe::workspace_of,
    request::Context,
    source,
    workspace::Workspace,
};

/// Which of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Selftest {
    /// A kernel of `images/kernels.toml` that is built, whose source has them.
    pub kernel: String,
    /// The directory below `tools/testing/selftests`.
    pub directory: String,
}

/// What identifies the source they are compiled from, as far as the manifest says it.
pub fn identity(checkout: &Path, selftest: &Selftest) -> Result<Option<String>, Error> {
    let (_, source) = source_of(checkout, selftest)?;
    Ok(source::locked_key(&source))
}

/// Compiles `programs` as their Makefile has it, with the headers and libraries of the packages unpacked in `root`, and
/// puts them into its `usr/bin`. Says what the reader of a report must know of the source.
pub fn build(
    context: Context<'_>,
    selftest: &Selftest,
    programs: &[String],
    root: &Path,
) -> Result<Option<String>, Error> {
    let Context { cache, checkout, options, progress } = context;
    let (arch, source) = source_of(checkout, selftest)?;
    let tree = source::get(cache, &source, arch, options, progress)?;
    let workspace = Workspace::open(cache, &workspace_of("selftests", &tree.key), progress)?;
    let made = |name: &str| {
        let dir = workspace.file(name);
        fs::create_dir_all(&dir).map_err(at("make", &dir)).map(|()| dir)
    };
    let headers = Kbuild {
        source: tree.dir.clone(),
        objects: made("headers")?,
        ..workspace.kbuild(arch, &[])
    };
    headers.prepare(progress)?;
    headers.make(&["headers"], &[], "making the kernel's headers", workspace.lock(), progress)?;

    let tests = Kbuild {
        source: tree.dir.join("tools/testing/selftests").join(&selftest.directory),
        objects: made(&selftest.directory)?,
        ..headers.clone()
    };
    // Words for the compiler; the Makefile has its own besides.
    let include = [headers.objects.join("usr/include"), root.join("usr/include")];
    let include = include.map(|dir| format!("-I{}", dir.display())).join(" ");
    let libraries = root.join("usr/lib").join(arch.libraries());
    let link = format!("-static -L{}", libraries.display());
    let environment = [
        ("OUTPUT", tests.objects.clone()),
        ("CFLAGS", PathBuf::from(include)),
        ("LDFLAGS", PathBuf::from(link)),
    ];
    let environment = environment.each_ref().map(|(name, value)| (*name, value.as_path()));
    let bin = root.join("usr/bin");
    fs::create_dir_all(&bin).map_err(at("make", &bin))?;
    for program in programs {
        let path = tests.objects.join(program);
        // Nothing tells make that the packages are others than last time.
        if path.exists() {
            fs::remove_file(&path).map_err(at("remove", &path))?;
        }
        let target = path.display().to_string();
        let what = format!("compiling {program} of the kernel's own tests");
        tests.make(&[&target], &environment, &what, workspace.lock(), progress)?;
        let to = bin.join(program);
        fs::copy(&path, &to).map_err(at("copy to", &to))?;
    }
    Ok(tree.note)
}

fn source_of(checkout: &Path, selftest: &Selftest) -> Result<(Arch, Source), Error> {
    let manifest = Manifest::read(&manifest_path(checkout))?;
    let arch = manifest.get(&selftest.kernel)?.arch;
    let recipe = manifest.recipe(&selftest.kernel).map_err(|detail| Error::Input {
        what: format!("kernel {} of images/kernels.toml", selftest.kernel),
        detail,
    })?;
    Ok((arch, recipe.source))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use host::{
        apt::fake::{Archive, Index},
        cache::Cache,
        progress::Progress,
        tools,
    };

    use super::*;

    /// The two makefiles that matter, and a program whose text comes from a header of the kernel and a library of a
    /// package.
    const TREE: [(&str, &str); 3] = [
        (
            "Makefile",
            "headers:\n\t@mkdir -p $(O)/usr/include\n\t@echo '#define KERNEL 7' >$(O)/usr/include/kernel.h\n",
        ),
        (
            "tools/testing/selftests/thing/Makefile",
            "CFLAGS += -Wall\n$(OUTPUT)/tool: tool.c\n\t@$(CC) $(CFLAGS) $(LDFLAGS) $< -o $@ -lpackage\n",
        ),
        (
            "tools/testing/selftests/thing/tool.c",
            "#include <kernel.h>\n#include <package.h>\nint main(void) { return KERNEL + package(); }\n",
        ),
    ];

    const MANIFEST: &str = "[matrix]\nseries = []\noldest-since = \"7.1\"\n[kernel.source]\narch = \"amd64\"\nabout = \"x\"\n\
         source = { package = \"linux-source-7.2\", suites = [\"trixie\"] }\n";

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        fs::write(path, text).expect("written");
    }

    fn run(command: &mut Command) {
        tools::check(command, "a tool").expect("it runs");
    }

    /// A program is compiled with what the kernel and the packages have, and needs nothing to run; an error is told with
    /// what the compiler said.
    #[test]
    fn a_program_of_the_tests_is_compiled_and_static() {
        let dir = tempfile::tempdir().expect("a directory");
        let (made, root, checkout) =
            (dir.path().join("made"), dir.path().join("root"), dir.path().join("checkout"));
        for (file, text) in TREE {
            write(&made.join("linux-source-7.2").join(file), text);
        }
        let tar = made.join("x.tar.xz");
        run(Command::new("tar").arg("-cJf").arg(&tar).arg("-C").arg(&made).arg("linux-source-7.2"));
        let archive = Archive::new();
        let content = fs::read(tar).expect("read");
        let file = ("usr/src/linux-source-7.2.tar.xz".to_owned(), content);
        let package = archive.package("linux-source-7.2", "7.2.12-1", &[file]);
        archive.publish("trixie", &[package], Index::Good);
        write(&manifest_path(&checkout), MANIFEST);
        write(&root.join("usr/include/package.h"), "int package(void);\n");
        write(&made.join("package.c"), "int package(void) { return 35; }\n");
        let library = root.join("usr/lib/x86_64-linux-gnu/libpackage.a");
        fs::create_dir_all(library.parent().expect("a directory")).expect("made");
        let object = made.join("package.o");
        run(Command::new("gcc").arg("-c").arg(made.join("package.c")).arg("-o").arg(&object));
        run(Command::new("ar").arg("rcs").arg(&library).arg(&object));

        let cache = Cache::at(&dir.path().join("cache")).expect("cache");
        let (options, progress) = (archive.options(), Progress::quiet());
        let context =
            Context { cache: &cache, checkout: &checkout, options: &options, progress: &progress };
        let selftest = Selftest { kernel: "source".into(), directory: "thing".into() };
        let build = || build(context, &selftest, &["tool".to_owned()], &root);
        assert_eq!(build().expect("compiled"), None);
        let tool = root.join("usr/bin/tool");
        assert_eq!(Command::new(&tool).status().expect("it runs").code(), Some(42));
        let said = tools::check(Command::new("ldd").arg(&tool), "ldd");
        assert!(said.is_err(), "it is static, of which ldd complains: {said:?}");

        write(&root.join("usr/include/package.h"), "#error another package\n");
        let error = build().expect_err("it cannot be compiled").to_string();
        assert!(error.contains("compiling tool of the kernel's own tests failed"), "{error}");
        assert!(error.contains("another package"), "{error}");
    }
}
