//! The kernel under test.

use guest_protocol::needs::Feature;
use rustix::system::uname;

use crate::bench;

/// Whether its release is at least `major.minor`.
#[track_caller]
pub fn at_least(major: u32, minor: u32) -> bool {
    version_of(&release()).expect("a release begins with two numbers") >= (major, minor)
}

/// Skips the test on a kernel older than `major.minor`, in the words of a test that declares the need:
/// for a body whose cases do not all need the same.
#[track_caller]
pub fn require(major: u32, minor: u32) {
    if !at_least(major, minor) {
        let needed = Feature::KernelAtLeast(major, minor);
        bench::skip(&needed.missing(&format!("this is {}", release())));
    }
}

fn release() -> String {
    uname().release().to_string_lossy().into_owned()
}

/// The first two numbers of a release such as `7.2.12+deb13-cloud-amd64` or `7.3-rc1`.
fn version_of(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_begins_with_major_and_minor() {
        assert_eq!(version_of("7.2.12+deb13-cloud-amd64"), Some((7, 2)));
        assert_eq!(version_of("7.10-rc1"), Some((7, 10)));
        assert_eq!(version_of("next"), None);
    }
}
