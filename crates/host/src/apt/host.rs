//! What the host already knows about Debian: its mirror, its keyring, its way to the network.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::Error;
use crate::tools;

/// Where Debian's package `debian-archive-keyring` puts the keys: Debian 13 and newer, then older.
const KEYRINGS: [&str; 2] = [
    "/usr/share/keyrings/debian-archive-keyring.pgp",
    "/usr/share/keyrings/debian-archive-keyring.gpg",
];

/// The keyring of Debian's archive.
pub(super) fn keyring(chosen: Option<&Path>) -> Result<PathBuf, Error> {
    let candidates: Vec<PathBuf> = match chosen {
        Some(path) => vec![path.to_owned()],
        None => KEYRINGS.iter().map(PathBuf::from).collect(),
    };
    candidates.iter().find(|path| path.is_file()).cloned().ok_or_else(|| Error::NoKeyring {
        looked_for: candidates
            .iter()
            .map(|path| path.display().to_string())
            .collect::<Vec<_>>()
            .join(", "),
    })
}

/// The mirror from which the host itself installs Debian's main archive.
pub(super) fn mirror() -> Result<String, Error> {
    // One line for each index on disk. A host that never updated has none.
    let format = "$(ORIGIN)|$(LABEL)|$(COMPONENT)|$(CREATED_BY)|$(REPO_URI)";
    let mut command = Command::new("apt-get");
    command.args(["indextargets", "--format", format]).env_remove("APT_CONFIG");
    let listed = tools::run(&mut command, "apt")?;
    if let Some(uri) = main_archive(&listed.stdout) {
        return Ok(uri);
    }
    // The URLs that an update would read; no network is touched. Only on Debian itself: elsewhere
    // they are another distribution's.
    let os_release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    if os_release_value(&os_release, "ID") != Some("debian") {
        return Err(Error::NoMirror);
    }
    let mut command = Command::new("apt-get");
    command.args(["--print-uris", "update"]).env_remove("APT_CONFIG");
    let printed = tools::run(&mut command, "apt")?;
    let codename = os_release_value(&os_release, "VERSION_CODENAME").unwrap_or("sid");
    archive_of_codename(&printed.stdout, codename).ok_or(Error::NoMirror)
}

/// The repository of Debian's main archive among lines `origin|label|component|created-by|URI`.
/// Security and backports have labels of their own.
fn main_archive(lines: &str) -> Option<String> {
    lines.lines().find_map(|line| {
        let fields: Vec<&str> = line.split('|').collect();
        match fields[..] {
            ["Debian", "Debian", "main", "Packages", uri] => {
                Some(uri.trim_end_matches('/').to_owned())
            }
            _ => None,
        }
    })
}

/// The repository that has `dists/<codename>` among the quoted URIs of `--print-uris update`.
fn archive_of_codename(printed: &str, codename: &str) -> Option<String> {
    let tail = format!("/dists/{codename}/InRelease");
    printed.lines().find_map(|line| {
        let uri = line.strip_prefix('\'')?.split('\'').next()?;
        Some(uri.strip_suffix(&tail)?.to_owned())
    })
}

/// The value of `key` in the text of `/etc/os-release`.
pub fn os_release_value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| Some(line.strip_prefix(key)?.strip_prefix('=')?.trim_matches('"')))
}

/// The host's settings that decide how the network is reached, in apt's configuration syntax.
///
/// Only these are taken over. The rest of the host's configuration must not reach the private root:
/// its hooks would act on the host.
pub(super) fn network_settings() -> Result<String, Error> {
    let mut command = Command::new("apt-config");
    let dump = tools::check(command.arg("dump").env_remove("APT_CONFIG"), "apt")?;
    Ok(only_network(&dump.stdout))
}

fn only_network(dump: &str) -> String {
    const PREFIXES: [&str; 5] =
        ["Acquire::http", "Acquire::https", "Acquire::ftp", "Acquire::Force", "Acquire::Retries"];
    let mut kept = String::new();
    for line in dump.lines().filter(|line| PREFIXES.iter().any(|prefix| line.starts_with(prefix))) {
        kept.push_str(line);
        kept.push('\n');
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn main_archive_is_not_security_nor_backports() {
        let lines = "Debian|Debian-Security|main|Packages|http://s.example/debian-security/\n\
                     Debian Backports|Debian Backports|main|Packages|http://b.example/debian/\n\
                     Debian|Debian|main|Sources|http://src.example/debian/\n\
                     Debian|Debian|main|Packages|http://m.example/debian/\n";
        assert_eq!(main_archive(lines).as_deref(), Some("http://m.example/debian"));
        assert_eq!(main_archive("Ubuntu|Ubuntu|main|Packages|http://u.example/ubuntu/\n"), None);
    }

    #[test]
    fn archive_is_found_before_the_first_update() {
        let printed = "'http://s.example/debian-security/dists/trixie-security/InRelease' x 0 \n\
                       'http://m.example/debian/dists/trixie-updates/InRelease' x 0 \n\
                       'http://m.example/debian/dists/trixie/InRelease' x 0 \n";
        let found = archive_of_codename(printed, "trixie");
        assert_eq!(found.as_deref(), Some("http://m.example/debian"));
        assert_eq!(archive_of_codename(printed, "bookworm"), None);
    }

    #[test]
    fn hooks_of_the_host_are_not_taken_over() {
        let dump = "APT::Update::Post-Invoke:: \"rm -f /var/cache/apt/archives/*.deb\";\n\
                    Acquire::http::Proxy \"http://proxy.example:3128\";\n\
                    Acquire::GzipIndexes \"true\";\n\
                    Acquire::https::CaInfo \"/etc/ca.pem\";\n";
        assert_eq!(
            only_network(dump),
            "Acquire::http::Proxy \"http://proxy.example:3128\";\n\
             Acquire::https::CaInfo \"/etc/ca.pem\";\n"
        );
    }

    #[test]
    fn os_release_values_lose_their_quotes() {
        let text = "PRETTY_NAME=\"Debian\"\nVERSION_ID=\"12\"\nID=debian\n";
        assert_eq!(os_release_value(text, "ID"), Some("debian"));
        assert_eq!(os_release_value(text, "VERSION_ID"), Some("12"));
        assert_eq!(os_release_value(text, "VERSION_CODENAME"), None);
    }

    #[test]
    fn keyring_that_is_not_there_is_told_with_the_command() {
        let text = keyring(Some(Path::new("/nowhere/keys.gpg"))).expect_err("absent").to_string();
        assert!(text.contains("/nowhere/keys.gpg"), "{text}");
        assert!(text.contains("install --no-install-recommends debian-archive-keyring"), "{text}");
    }
}
