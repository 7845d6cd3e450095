//! Asks the C compiler what a kernel header says and compares it with our structures.
//!
//! Headers grow: what the installed one does not have yet is left out, and named on stderr.
//! `SENSECHECK_UAPI_INCLUDE`, a colon-separated list of folders, puts other headers first.

use std::{collections::BTreeSet, env, fs, process::Command};

/// One number of ours and the C expression it must be equal to.
#[derive(Debug)]
pub(crate) struct Item {
    /// The structure; the size of one that lacks a field in the header is not compared.
    pub(crate) group: &'static str,
    /// C expression of an integer type, on one line.
    pub(crate) expression: String,
    /// Our value.
    pub(crate) ours: u64,
}

/// Items for the size of a structure and the offsets of its fields, which are named alike in Rust
/// and C.
#[macro_export]
macro_rules! layout_items {
    ($items:expr, $ours:ty, $theirs:literal, [$($field:ident),* $(,)?]) => {{
        $($items.push($crate::c_probe::Item {
            group: $theirs,
            expression: format!("__builtin_offsetof(struct {}, {})", $theirs, stringify!($field)),
            ours: ::std::mem::offset_of!($ours, $field) as u64,
        });)*
        $items.push($crate::c_probe::Item {
            group: $theirs,
            expression: format!("sizeof(struct {})", $theirs),
            ours: size_of::<$ours>() as u64,
        });
    }};
}

/// Compares the items with the headers and returns how many were compared.
///
/// # Panics
/// If a number differs, or the compiler fails for another reason than a name the header lacks.
#[expect(clippy::print_stderr, reason = "a skip names its reason")]
pub(crate) fn compare(includes: &[&str], items: &[Item]) -> usize {
    let (theirs, lacking) = ask(includes, items);
    let lacking_groups: BTreeSet<&str> = lacking.iter().map(|at| items[*at].group).collect();
    for group in &lacking_groups {
        let of_group = lacking.iter().filter(|at| items[**at].group == *group);
        let names: Vec<&str> = of_group.map(|at| items[*at].expression.as_str()).collect();
        eprintln!("not compared, for {includes:?} lack them: {}", names.join(", "));
    }
    let mut compared = 0;
    for (item, theirs) in items.iter().zip(theirs) {
        let Some(theirs) = theirs else { continue };
        if item.expression.starts_with("sizeof") && lacking_groups.contains(item.group) {
            eprintln!("not compared: {} is {theirs} in an older header", item.expression);
            continue;
        }
        assert_eq!(
            item.ours, theirs,
            "{}: ours on the left, the header's on the right",
            item.expression
        );
        compared += 1;
    }
    compared
}

/// The value of each expression, and the indices of those the headers lack.
fn ask(includes: &[&str], items: &[Item]) -> (Vec<Option<u64>>, BTreeSet<usize>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (source, program) = (folder.path().join("probe.c"), folder.path().join("probe"));
    let mut lacking = BTreeSet::new();
    loop {
        let mut text = String::from("#include <stdio.h>\n");
        text.extend(includes.iter().map(|include| format!("#include <{include}>\n")));
        text.push_str("int main(void) {\n");
        let first_line = text.lines().count() + 1;
        for (at, item) in items.iter().enumerate() {
            let expression = if lacking.contains(&at) { "0" } else { item.expression.as_str() };
            text.push_str(&format!("printf(\"%llu\\n\", (unsigned long long)({expression}));\n"));
        }
        text.push_str("return 0; }\n");
        fs::write(&source, text).expect("the probe is written");

        let mut compiler = Command::new(env::var_os("CC").unwrap_or_else(|| "cc".into()));
        compiler.env("LC_ALL", "C").args(["-w", "-fmax-errors=0", "-o"]).arg(&program).arg(&source);
        if let Some(folders) = env::var_os("SENSECHECK_UAPI_INCLUDE") {
            for folder in env::split_paths(&folders) {
                compiler.arg("-isystem").arg(folder);
            }
        }
        let output = compiler.output().expect("a C compiler is installed: rustc links with it");
        if output.status.success() {
            break;
        }
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        let missing = missing_lines(&errors);
        assert!(!missing.is_empty(), "the probe does not compile:\n{errors}");
        lacking.extend(missing.iter().map(|line| line - first_line));
    }
    let output = Command::new(&program).output().expect("the probe runs");
    let text = String::from_utf8(output.stdout).expect("the probe prints numbers");
    let values: Vec<u64> =
        text.lines().map(|line| line.parse().expect("the probe prints numbers")).collect();
    assert_eq!(values.len(), items.len());
    let values =
        values.into_iter().enumerate().map(|(at, v)| (!lacking.contains(&at)).then_some(v));
    (values.collect(), lacking)
}

/// Lines of the probe with a name the headers lack.
///
/// # Panics
/// If an error is of another kind.
fn missing_lines(errors: &str) -> BTreeSet<usize> {
    let kinds = ["no member named", "undeclared", "incomplete type", "undefined type"];
    errors
        .lines()
        .filter(|line| line.contains("error:"))
        .map(|line| {
            assert!(
                kinds.iter().any(|kind| line.contains(kind)),
                "the probe does not compile: {errors}"
            );
            let number = line.split("probe.c:").nth(1).and_then(|rest| rest.split(':').next());
            number.and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("no line in: {line}"))
        })
        .collect()
}
