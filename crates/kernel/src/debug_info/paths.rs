//! Names of source files, relative to the root of the kernel's tree.

/// The directories a kernel was built from and in, as its debug information writes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Roots {
    /// Each ends with `/`; the longest first.
    prefixes: Vec<String>,
}

/// A file that every kernel is built from. Where it is tells where the others are.
const KNOWN: &str = "init/main.c";
/// The same for modules.
const KNOWN_OF_MODULE: &str = "scripts/module-common.c";

impl Roots {
    /// From the compiler's name for a unit's source and the directory it ran in, if this is a unit
    /// that tells.
    pub(super) fn of_unit(name: &str, comp_dir: &str) -> Option<Roots> {
        let path = join(comp_dir, name);
        let source = [KNOWN, KNOWN_OF_MODULE].iter().find_map(|known| {
            path.strip_suffix(known).filter(|root| root.is_empty() || root.ends_with('/'))
        })?;
        // Generated files are in the directory of the build.
        let mut prefixes = vec![source.to_owned(), join(comp_dir, "") + "/"];
        prefixes.retain(|prefix| prefix.len() > 1);
        prefixes.sort_by_key(|prefix| std::cmp::Reverse(prefix.len()));
        prefixes.dedup();
        Some(Roots { prefixes })
    }

    /// `file`, as the compiler wrote it when it ran in `comp_dir`, relative to the tree's root. One
    /// that is not of the tree keeps its name.
    pub(super) fn relative(&self, comp_dir: &str, file: &str) -> String {
        let path = join(comp_dir, file);
        let stripped = self.prefixes.iter().find_map(|prefix| path.strip_prefix(prefix.as_str()));
        stripped.unwrap_or(&path).to_owned()
    }
}

/// `dir/file`, or `file` if that is absolute; without `.` and `..` where they can be resolved, and
/// without a `/` at the end.
pub(super) fn join(dir: &str, file: &str) -> String {
    let whole = if file.starts_with('/') || dir.is_empty() {
        file.to_owned()
    } else {
        format!("{dir}/{file}")
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let root = if whole.starts_with('/') { "/" } else { "" };
    format!("{root}{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_relative_to_the_tree_wherever_it_was_built() {
        for (comp_dir, main, file, expected) in [
            // In the tree itself.
            ("/src/linux", "init/main.c", "drivers/scsi/sd.c", "drivers/scsi/sd.c"),
            ("/src/linux", "init/main.c", "./include/linux/bio.h", "include/linux/bio.h"),
            // O= somewhere else.
            ("/out", "/src/linux/init/main.c", "/src/linux/block/bsg.c", "block/bsg.c"),
            ("/out", "/src/linux/init/main.c", "./include/generated/a.h", "include/generated/a.h"),
            // O= below the tree: kbuild writes ../
            ("/src/linux/out", "../init/main.c", "../block/bsg.c", "block/bsg.c"),
            ("/src/linux/out", "../init/main.c", "include/generated/a.h", "include/generated/a.h"),
            // Debian maps the prefix away.
            ("debian/build/amd64", "init/main.c", "block/bsg.c", "block/bsg.c"),
            ("", "init/main.c", "block/bsg.c", "block/bsg.c"),
            // Not of the tree.
            ("/src/linux", "init/main.c", "/usr/lib/gcc/x/stdarg.h", "/usr/lib/gcc/x/stdarg.h"),
            ("/src/linux", "init/main.c", "/src/linux-other/a.c", "/src/linux-other/a.c"),
        ] {
            let roots = Roots::of_unit(main, comp_dir).expect("a unit that tells");
            assert_eq!(roots.relative(comp_dir, file), expected, "{file} in {comp_dir}");
        }
    }

    #[test]
    fn only_a_known_file_tells_where_the_root_is() {
        assert_eq!(Roots::of_unit("drivers/block/brd.c", "/src"), None);
        assert_eq!(Roots::of_unit("/src/arch/um/xinit/main.c", "/src"), None);
        assert!(Roots::of_unit("/src/scripts/module-common.c", "/out").is_some());
    }
}
