//! What a test says of itself, collected at link time.
//!
//! A declaration sits in the test's body but is a constant of the binary, so the bench knows the
//! needs of every test before anything boots. libtest knows the names; `linkme` joins the two.

use std::{env, fs};

use guest_protocol::needs::{Declaration, MANIFEST_ENV};

/// Every declaration of the test binary.
#[linkme::distributed_slice]
pub static DECLARATIONS: [fn() -> Declaration];

/// Declares a test's class and needs; the first line of its body.
///
/// ```text
/// #[rstest]
/// fn inquiry_returns_36_bytes() {
///     declare!(Contract);
///     // or: declare!(Contract, Needs { own_vm: true, ..Needs::DEFAULT });
///     …
/// }
/// ```
#[macro_export]
macro_rules! declare {
    ($class:ident) => {
        $crate::declare!($class, $crate::Needs::DEFAULT)
    };
    ($class:ident, $needs:expr) => {
        fn here() {}
        #[$crate::linkme::distributed_slice($crate::DECLARATIONS)]
        #[linkme(crate = $crate::linkme)]
        static DECLARATION: fn() -> $crate::Declaration = || $crate::Declaration {
            path: $crate::declaration::path_of(&here),
            class: $crate::Class::$class,
            needs: $needs,
        };
    };
}

/// Path of the test function that contains `inner`, as libtest names it: without the crate, without
/// closures (proptest's), and once where rstest puts the function into a wrapper of its own name.
pub fn path_of<T>(_inner: &T) -> String {
    strip(std::any::type_name::<T>())
}

fn strip(name: &str) -> String {
    let mut segments: Vec<&str> = name.split("::").filter(|part| *part != "{{closure}}").collect();
    segments.pop();
    if let [.., wrapper, function] = segments[..]
        && wrapper == function
    {
        segments.pop();
    }
    segments.get(1..).unwrap_or_default().join("::")
}

/// Writes all declarations to the file the bench asks for. The body of the test binary's `manifest`
/// test, which the bench runs on the host.
pub fn write_manifest() {
    let mut declarations: Vec<_> = DECLARATIONS.iter().map(|declare| declare()).collect();
    declarations.sort_by(|a, b| a.path.cmp(&b.path));
    for pair in declarations.windows(2) {
        assert_ne!(pair[0].path, pair[1].path, "declared twice");
    }
    let path = env::var_os(MANIFEST_ENV).expect("run by cargo xtask vm-test, which names a file");
    let text = serde_json::to_vec(&declarations).expect("declarations are plain data");
    fs::write(path, text).expect("the bench's file can be written");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_what_libtest_calls_the_function() {
        assert_eq!(strip("guest::bsg::inquiry::here"), "bsg::inquiry");
        assert_eq!(strip("guest::bsg::inquiry::inquiry::here"), "bsg::inquiry");
        assert_eq!(strip("guest::bsg::law::{{closure}}::here"), "bsg::law");
        assert_eq!(strip("guest::law::here"), "law");
    }
}
