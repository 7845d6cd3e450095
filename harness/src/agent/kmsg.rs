//! The kernel's log: every record goes to the supervisor, marks delimit the runs.

use std::{
    fs::File,
    io::{ErrorKind, Read, Write},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Duration,
};

use guest_protocol::message::{FromGuest, KernelRecord, MARK_BEGIN, MARK_END, RunId};

use crate::link::Link;

/// Records of `/dev/kmsg` are cut by the kernel well below this.
const RECORD_LEN_MAX: usize = 8192;

/// How long the kernel may take to show a mark that was written to its log.
const MARK_DEADLINE: Duration = Duration::from_secs(10);

/// The follower's side that runs use: marks.
#[derive(Clone)]
pub(crate) struct Kmsg {
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    /// Runs whose end mark was read and sent to the supervisor.
    ended: Mutex<Vec<RunId>>,
    changed: Condvar,
}

/// Starts the thread that follows the log from its first record.
pub(crate) fn follow(link: Arc<Link>) -> Kmsg {
    let seen = Arc::new(Seen::default());
    let kmsg = Kmsg { seen: Arc::clone(&seen) };
    thread::spawn(move || match File::open("/dev/kmsg") {
        Ok(file) => forward(file, &link, &seen),
        Err(error) => {
            link.send(&FromGuest::Failed { reason: format!("cannot open /dev/kmsg: {error}") });
        }
    });
    kmsg
}

fn forward(mut file: File, link: &Link, seen: &Seen) {
    let mut record = vec![0; RECORD_LEN_MAX];
    loop {
        match file.read(&mut record) {
            Ok(len) => {
                let text = String::from_utf8_lossy(&record[..len]);
                let Some(record) = parse(&text) else { continue };
                let ended = ended_run(&record.text);
                link.send(&FromGuest::Kernel(record));
                if let Some(run) = ended {
                    seen.ended.lock().expect("no thread panics with it").push(run);
                    seen.changed.notify_all();
                }
            }
            // Records were overwritten before they were read; the next read goes on with the oldest
            // one left. The supervisor sees the gap in the sequence numbers.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                link.send(&FromGuest::Failed { reason: format!("cannot read /dev/kmsg: {error}") });
                return;
            }
        }
    }
}

impl Kmsg {
    /// Writes the begin mark of a run.
    pub(crate) fn begin(&self, run: RunId, test: &str) {
        mark(&format!("{MARK_BEGIN} {run} {test}"));
    }

    /// Writes the end mark of a run and waits until everything up to it was sent.
    pub(crate) fn end(&self, run: RunId) {
        mark(&format!("{MARK_END} {run}"));
        let ended = self.seen.ended.lock().expect("no thread panics with it");
        let waited = self
            .seen
            .changed
            .wait_timeout_while(ended, MARK_DEADLINE, |ended| !ended.contains(&run));
        let (mut ended, timeout) = waited.expect("no thread panics with it");
        if timeout.timed_out() {
            eprintln!("agent: the end mark of run {run} did not come back from /dev/kmsg");
        }
        ended.retain(|other| *other != run);
    }
}

fn mark(text: &str) {
    let written = File::options()
        .write(true)
        .open("/dev/kmsg")
        // Level 6 (informational), facility 1 (user): kept in the log, quiet on the console.
        .and_then(|mut file| file.write_all(format!("<14>{text}\n").as_bytes()));
    if let Err(error) = written {
        eprintln!("agent: cannot write a mark to /dev/kmsg: {error}");
    }
}

fn ended_run(text: &str) -> Option<RunId> {
    text.strip_prefix(MARK_END)?.trim().parse().ok()
}

/// One record: `priority,sequence,microseconds,flags[,…];text`, then lines of properties.
fn parse(record: &str) -> Option<KernelRecord> {
    let (prefix, text) = record.split_once(';')?;
    let mut fields = prefix.split(',');
    let priority: u64 = fields.next()?.parse().ok()?;
    let seq = fields.next()?.parse().ok()?;
    let at_us = fields.next()?.parse().ok()?;
    let text = text.lines().next().unwrap_or_default().to_owned();
    let level = u8::try_from(priority & 7).ok()?;
    let facility = u8::try_from(priority >> 3).ok()?;
    Some(KernelRecord { seq, at_us, level, facility, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_prefix_text_and_properties() {
        let record = "6,339,5140900,-;NET: Registered protocol; family 10\n SUBSYSTEM=net\n";
        let parsed = parse(record).expect("a record");
        assert_eq!((parsed.level, parsed.seq, parsed.at_us), (6, 339, 5_140_900));
        assert_eq!(parsed.facility, 0);
        assert_eq!(parse("14,1,2,-;mark").expect("a record").facility, 1);
        assert_eq!(parsed.text, "NET: Registered protocol; family 10");
        assert_eq!(ended_run("sensecheck: end 12"), Some(12));
        assert_eq!(ended_run("sensecheck: begin 12 x"), None);
    }
}
