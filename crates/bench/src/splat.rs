//! Recognizing kernel splats: the reports a kernel prints when it finds itself broken.

use guest_protocol::message::KernelRecord;

/// One report, from its first line to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Splat {
    /// The line that names the defect, for example `UBSAN: array-index-out-of-bounds in …`.
    pub headline: String,
    /// Every line of the report, the headline included.
    pub lines: Vec<String>,
}

/// What a headline begins with (after "rcu: ", "watchdog: " and the like), and whether the kernel can
/// be trusted to run further tests after it. The first that fits decides: lockdep's reports
/// (kernel/locking/lockdep.c) are warnings too, but it is off after its first one.
const HEADLINES: [(&str, Trust); 21] = [
    ("WARNING: possible ", Trust::Lost),
    ("WARNING: inconsistent lock state", Trust::Lost),
    ("WARNING: suspicious RCU usage", Trust::Lost),
    ("WARNING: bad unlock balance detected", Trust::Lost),
    ("WARNING: bad contention detected", Trust::Lost),
    ("WARNING: held lock freed", Trust::Lost),
    ("WARNING: lock held when returning to user space", Trust::Lost),
    ("WARNING: Nested lock was not taken", Trust::Lost),
    ("WARNING: ", Trust::Keeps),
    ("UBSAN: ", Trust::Keeps),
    ("BUG: ", Trust::Damaged),
    ("kernel BUG at ", Trust::Damaged),
    ("Oops: ", Trust::Damaged),
    ("general protection fault", Trust::Damaged),
    ("Kernel panic - not syncing", Trust::Lost),
    ("INFO: task ", Trust::Lost),
    ("INFO: rcu", Trust::Lost),
    ("INFO: trying to register non-static key", Trust::Lost),
    ("Watchdog detected hard LOCKUP", Trust::Lost),
    ("list_add corruption", Trust::Lost),
    ("list_del corruption", Trust::Lost),
];

/// Prefixes a subsystem puts before its headline.
const SUBSYSTEMS: [&str; 3] = ["rcu: ", "watchdog: ", "workqueue: "];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Trust {
    Keeps,
    Lost,
    /// Lost, and a task with it: the test that caused it may never end.
    Damaged,
}

/// What a headline says of the kernel, without a subsystem before it.
fn trust_of(headline: &str) -> Option<Trust> {
    HEADLINES.iter().find(|(start, _)| headline.starts_with(start)).map(|(_, trust)| *trust)
}

fn trust_after(line: &str) -> Option<Trust> {
    let line = SUBSYSTEMS.iter().find_map(|prefix| line.strip_prefix(prefix)).unwrap_or(line);
    trust_of(line)
}

/// Whether a line is a headline after which no further test should run on the kernel.
fn is_spoiling(line: &str) -> bool {
    matches!(trust_after(line), Some(Trust::Lost | Trust::Damaged))
}

/// Whether a record is the headline of a splat. What a process wrote to the log is none, whatever it
/// looks like.
pub fn announces_splat(record: &KernelRecord) -> bool {
    record.facility == 0 && trust_after(&record.text).is_some()
}

/// Whether a record says that the kernel may be damaged.
pub fn spoils_the_kernel(record: &KernelRecord) -> bool {
    record.facility == 0 && is_spoiling(&record.text)
}

impl Splat {
    /// Whether one of its lines contains a text.
    pub fn contains(&self, text: &str) -> bool {
        self.lines.iter().any(|line| line.contains(text))
    }

    /// Whether it says that something is stuck: the consequence of a hang, not its cause.
    pub fn is_about_a_hang(&self) -> bool {
        ["INFO: task ", "INFO: rcu", "BUG: soft lockup"]
            .iter()
            .any(|words| self.headline.contains(words))
    }

    /// Whether the kernel may be damaged (dead tasks, held locks, lockdep off), so that no further
    /// test should run on it.
    pub fn spoils_the_kernel(&self) -> bool {
        self.lines.iter().any(|line| is_spoiling(line))
    }
}

/// Whether a record announces damage after which a test may never end. A watchdog's remark that a CPU
/// is stuck is none: it names its subsystem first.
pub fn announces_damage(record: &KernelRecord) -> bool {
    record.facility == 0 && trust_of(&record.text) == Some(Trust::Damaged)
}

/// Finds the splats in a log. What a WARN says of itself may come between its ruler and its headline,
/// and belongs to it.
pub fn find(log: &[KernelRecord]) -> Vec<Splat> {
    let mut splats: Vec<Splat> = Vec::new();
    let mut open = false;
    // Lines since a "cut here" that no headline has followed yet.
    let mut preface: Vec<String> = Vec::new();
    let mut cut = false;
    for record in log {
        let line = record.text.as_str();
        if ends_report(line) {
            open = false;
            cut = line.contains(CUT_HERE);
            preface.clear();
        } else if announces_splat(record) && !(open && continues(splats.last(), line)) {
            preface.push(line.to_owned());
            splats.push(Splat { headline: line.to_owned(), lines: std::mem::take(&mut preface) });
            (open, cut) = (true, false);
        } else if let (true, Some(splat)) = (open, splats.last_mut()) {
            splat.lines.push(line.to_owned());
        } else if cut && record.facility == 0 {
            preface.push(line.to_owned());
        }
    }
    splats
}

/// Whether a headline belongs to the report that is open: an Oops has several. Others have no end of
/// their own (hung tasks, lockdep) and must not take the next report in.
fn continues(open: Option<&Splat>, line: &str) -> bool {
    let within_bug = open.is_some_and(|splat| {
        ["BUG: ", "kernel BUG at "].iter().any(|start| splat.headline.starts_with(start))
    });
    (within_bug && line.starts_with("Oops: ")) || line.starts_with("Kernel panic - not syncing")
}

/// Begins the report of a WARN or BUG.
const CUT_HERE: &str = "[ cut here ]";

/// The lines that close (or precede) a report.
fn ends_report(line: &str) -> bool {
    let ruler = line.len() > 20 && line.bytes().all(|byte| byte == b'=');
    ruler
        || line.starts_with("---[ end ")
        || line.contains(CUT_HERE)
        || line.starts_with("sensecheck: ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(text: &str) -> Vec<KernelRecord> {
        let record = |text: &str| KernelRecord {
            seq: 0,
            at_us: 0,
            level: 4,
            facility: 0,
            text: text.into(),
        };
        text.lines().map(record).collect()
    }

    #[test]
    fn an_oops_is_one_splat_with_all_its_headlines() {
        let text = "usb 1-1: fine\n\
            BUG: kernel NULL pointer dereference, address: 0000000000000010\n\
            #PF: supervisor read access in kernel mode\n\
            Oops: Oops: 0000 [#1] SMP NOPTI\n\
            ---[ end trace 0000000000000000 ]---\n\
            later words";
        let splats = find(&log(text));
        assert_eq!(splats.len(), 1);
        assert_eq!(splats[0].lines.len(), 3);
        assert!(splats[0].spoils_the_kernel());
    }

    #[test]
    fn two_warnings_are_two_splats_and_leave_the_kernel_usable() {
        let text = "------------[ cut here ]------------\n\
            WARNING: drivers/scsi/x.c:12 at f+0x1/0x2, CPU#0: a/1\n\
            ---[ end trace 0000000000000000 ]---\n\
            ------------[ cut here ]------------\n\
            UBSAN: array-index-out-of-bounds in io_uring/rsrc.c:1:2\n\
            ---[ end trace ]---";
        let splats = find(&log(text));
        let headlines: Vec<_> = splats.iter().map(|splat| &splat.headline[..8]).collect();
        assert_eq!(headlines, ["WARNING:", "UBSAN: a"]);
        assert!(splats.iter().all(|splat| !splat.spoils_the_kernel()));
    }

    #[test]
    fn a_report_without_an_end_does_not_take_the_next_one_in() {
        let text = "INFO: task a:1 blocked for more than 120 seconds.\n\
            task:a state:D\n\
            BUG: unable to handle page fault for address: ffffffffffffff00\n\
            Oops: Oops: 0000 [#1] SMP NOPTI\n\
            ---[ end trace 0000000000000000 ]---";
        let splats = find(&log(text));
        assert_eq!(splats.len(), 2);
        assert!(!splats[0].contains("BUG: ") && splats[1].contains("Oops: "));
    }

    #[test]
    fn what_a_warning_says_before_its_headline_belongs_to_it() {
        let text = "------------[ cut here ]------------\n\
            refcount_t: underflow; use-after-free.\n\
            WARNING: lib/refcount.c:28 at refcount_warn_saturate+0x1/0x2, CPU#0: a/1\n\
            ---[ end trace 0000000000000000 ]---";
        let splats = find(&log(text));
        assert_eq!(splats.len(), 1);
        assert!(splats[0].contains("underflow; use-after-free"));
        assert!(splats[0].headline.starts_with("WARNING: lib/refcount.c"));
    }

    #[test]
    fn lockdep_is_off_after_its_report_and_the_debug_kernels_greeting_is_none() {
        let report = find(&log("WARNING: possible circular locking dependency detected"));
        assert!(report[0].spoils_the_kernel());
        assert_eq!(find(&log("DMA-API: preallocated 65536 debug entries")), []);
    }

    #[test]
    fn subsystems_put_their_name_before_the_headline() {
        for line in [
            "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
            "watchdog: BUG: soft lockup - CPU#0 stuck for 26s!",
            "INFO: task guest-tests:71 blocked for more than 120 seconds.",
        ] {
            assert_eq!(find(&log(line)).len(), 1, "{line}");
        }
        assert_eq!(find(&log("sd 0:0:0:0: WARNING: not at the start")), []);
        let mut from_a_process = log("WARNING: says a process");
        from_a_process[0].facility = 1;
        assert_eq!(find(&from_a_process), []);
    }
}
