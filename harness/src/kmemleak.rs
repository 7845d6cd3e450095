//! Memory that the kernel has and nobody refers to any more (Documentation/dev-tools/kmemleak.rst).

use std::{
    fs, io,
    time::{Duration, Instant},
};

use crate::wait;

/// Commands are written here, and what is lost is read. A machine has it with `kmemleak=on` on its command line.
const ACCOUNT: &str = "/sys/kernel/debug/kmemleak";

/// Younger memory is not told of: somebody may be about to store its address (mm/kmemleak.c: MSECS_MIN_AGE).
const AGE: Duration = Duration::from_millis(5100);

/// What is lost, an entry of the account each: size, task and stack of whoever took it. Takes five seconds and more.
///
/// # Errors
/// There is no account, or it has ended for want of memory.
pub fn lost() -> Result<Vec<String>, String> {
    let told = |error: io::Error| format!("{ACCOUNT}: {error}");
    let begin = Instant::now();
    let is_old = || (begin.elapsed() >= AGE).then_some(());
    wait::until(2 * AGE, "the age of an object", is_old).map_err(|error| error.to_string())?;
    // The first scan that meets an object takes its checksum, the second tells whether it is still the same.
    for _ in 0..2 {
        fs::write(ACCOUNT, "scan").map_err(told)?;
    }
    let text = fs::read_to_string(ACCOUNT).map_err(told)?;
    // It is told once, to whoever lost it.
    fs::write(ACCOUNT, "clear").map_err(told)?;
    Ok(entries(&text))
}

/// The entries of objects that others than the idle task and the first process, which started the machine, have taken
/// (mm/kmemleak.c:print_unreferenced).
fn entries(text: &str) -> Vec<String> {
    let mut entries: Vec<String> = Vec::new();
    for line in text.split_inclusive('\n') {
        if line.starts_with("unreferenced object") {
            entries.push(String::new());
        }
        // What stands before the first is no entry.
        if let Some(entry) = entries.last_mut() {
            entry.push_str(line);
        }
    }
    entries.retain(|entry| !entry.contains(", pid 0, ") && !entry.contains(", pid 1, "));
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_started_the_machine_is_not_told() {
        let entry = |pid: u32| {
            format!(
                "unreferenced object 0xffff888005f3a400 (size 1024):\n  comm \"x\", pid {pid}, \
                 jiffies 4294937296\n  backtrace (crc 1):\n    f+0x1/0x2\n"
            )
        };
        let text = [0, 1, 11, 12].map(entry).concat();
        assert_eq!(entries(&text), [entry(11), entry(12)]);
        assert_eq!(entries(""), [""; 0]);
    }
}
