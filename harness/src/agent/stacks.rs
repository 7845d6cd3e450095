//! What the tasks of a hung run are doing.

use std::{fmt::Write as _, fs, path::Path};

use rustix::process::Pid;

use crate::link::write_value;

/// Asks the kernel to log all blocked tasks (sysrq-w), and reads state and kernel stack of every
/// thread of a process group.
pub(crate) fn of_group(group: Option<Pid>) -> String {
    let mut text = String::new();
    if let Err(error) = write_value("/proc/sysrq-trigger", "w") {
        writeln!(text, "sysrq-w failed: {error}").expect("a String takes everything");
    }
    let Some(group) = group else {
        text.push_str("the run has no process\n");
        return text;
    };
    for process in numbered("/proc") {
        if group_of(&process) == Some(group.as_raw_nonzero().get()) {
            for thread in numbered(&format!("/proc/{process}/task")) {
                describe(&mut text, &process, &thread);
            }
        }
    }
    text
}

fn describe(text: &mut String, process: &str, thread: &str) {
    let dir = Path::new("/proc").join(process).join("task").join(thread);
    let read = |name: &str| {
        fs::read_to_string(dir.join(name)).unwrap_or_else(|error| format!("({error})"))
    };
    let stat = read("stat");
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).unwrap_or('?');
    let (name, stack) = (read("comm"), read("stack"));
    writeln!(text, "{process}/{thread} {} state {state}", name.trim())
        .expect("a String takes everything");
    for line in stack.lines() {
        writeln!(text, "    {line}").expect("a String takes everything");
    }
}

/// Names of a directory's entries that are numbers.
fn numbered(dir: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let names = entries
        .filter_map(Result::ok)
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())).collect()
}

/// Process group of a process: third field behind the parenthesised name in `/proc/PID/stat`.
fn group_of(process: &str) -> Option<i32> {
    let stat = fs::read_to_string(Path::new("/proc").join(process).join("stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(2)?.parse().ok()
}
