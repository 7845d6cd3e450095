//! Which CPU the daemon runs on, and which this process.

use std::{fmt, fs, io, str::FromStr};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::Error;

/// Two CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpus {
    /// Where daemons run.
    pub daemon: usize,
    /// Where the front end runs.
    pub driver: usize,
}

impl FromStr for Cpus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no pair of CPUs; example: 2,3");
        let (daemon, driver) = text.split_once(',').ok_or_else(wrong)?;
        let number =
            |text: &str| text.parse().ok().filter(|cpu| *cpu < CpuSet::MAX_CPU).ok_or_else(wrong);
        let cpus = Cpus { daemon: number(daemon)?, driver: number(driver)? };
        if cpus.daemon == cpus.driver { Err(wrong()) } else { Ok(cpus) }
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "daemons on CPU {}, driver on CPU {}", self.daemon, self.driver)
    }
}

/// The first CPU this process may use, and the first that does not share its core.
pub(crate) fn choose() -> Result<Cpus, Error> {
    let allowed = allowed()?;
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
    pick(&cpus, siblings).ok_or_else(|| {
        Error::Cpus(format!(
            "the daemon and the driver need a core each, and this process may use CPU {cpus:?}; run \
             it where it has two, or name two with --cpus"
        ))
    })
}

fn pick(cpus: &[usize], siblings: impl Fn(usize) -> Vec<usize>) -> Option<Cpus> {
    let daemon = *cpus.first()?;
    let same_core = siblings(daemon);
    let driver = cpus.iter().find(|cpu| **cpu != daemon && !same_core.contains(cpu))?;
    Some(Cpus { daemon, driver: *driver })
}

/// CPUs that share a core with this one. Where the kernel does not say, none do.
fn siblings(cpu: usize) -> Vec<usize> {
    let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
    fs::read_to_string(path).map(|list| parse_list(&list)).unwrap_or_default()
}

/// A list of CPUs as the kernel writes it: `0-3,8`.
fn parse_list(text: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

fn allowed() -> Result<CpuSet, Error> {
    sched_getaffinity(None).map_err(|error| system("read the CPUs of this process", error))
}

/// The calling thread, and whatever it starts, runs on one CPU until this is dropped.
#[derive(Debug)]
pub(crate) struct Pinned {
    before: CpuSet,
}

impl Pinned {
    pub(crate) fn to(cpu: usize) -> Result<Self, Error> {
        let before = allowed()?;
        let mut set = CpuSet::new();
        set.set(cpu);
        sched_setaffinity(None, &set).map_err(|error| system("run on a CPU of its own", error))?;
        Ok(Pinned { before })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // They were allowed before; if that has changed, the kernel has moved this thread already.
        let _ = sched_setaffinity(None, &self.before);
    }
}

fn system(action: &'static str, error: rustix::io::Errno) -> Error {
    Error::system(action)(io::Error::from(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn driver_gets_a_core_of_its_own() {
        // Siblings as on many desktops: 0 and 1 share a core.
        let pairs = |cpu: usize| vec![cpu & !1, cpu | 1];
        assert_eq!(pick(&[0, 1, 2, 3], pairs), Some(Cpus { daemon: 0, driver: 2 }));
        assert_eq!(pick(&[1, 2], pairs), Some(Cpus { daemon: 1, driver: 2 }));
        assert_eq!(pick(&[0, 1], pairs), None);
        assert_eq!(pick(&[0, 1], |_| vec![]), Some(Cpus { daemon: 0, driver: 1 }));
        assert_eq!(pick(&[5], |_| vec![]), None);
    }

    #[test]
    fn lists_of_the_kernel_are_read() {
        assert_eq!(parse_list("0\n"), [0]);
        assert_eq!(parse_list("0-2,8\n"), [0, 1, 2, 8]);
    }

    #[test]
    fn pair_is_two_different_cpus() {
        assert_eq!("2,3".parse(), Ok(Cpus { daemon: 2, driver: 3 }));
        for wrong in ["", "2", "2,2", "a,b", "2,3,4", "0,99999"] {
            assert!(wrong.parse::<Cpus>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn pinned_thread_runs_there_and_is_let_go() {
        let before = allowed().expect("CPUs");
        let cpu = (0..CpuSet::MAX_CPU).find(|cpu| before.is_set(*cpu)).expect("one");
        let pinned = Pinned::to(cpu).expect("pinned");
        assert_eq!(allowed().expect("CPUs").count(), 1);
        drop(pinned);
        assert_eq!(allowed().expect("CPUs"), before);
    }
}
