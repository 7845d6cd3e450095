//! What is said of the figures: a table for people, JSON for programs.

use std::{fmt::Write, path::PathBuf};

use serde::Serialize;

use crate::{
    Wait,
    aim::{self, Medium},
    peer,
    rounds::{self, Line, Sample, Samples, Subject},
    statistics::Spread,
    table::{columns, number, with_spread},
    workload::Operation,
};

/// How it was measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Setting {
    pub(crate) rounds: u32,
    pub(crate) sample_ms: u128,
    pub(crate) cpus: String,
    pub(crate) wait: Wait,
    /// Before and after.
    pub(crate) load_average: [Option<f64>; 2],
    pub(crate) images: PathBuf,
    /// Whether they were out of the page cache.
    pub(crate) uncached: bool,
    /// Why there is no peer, if there is none.
    pub(crate) peer: Option<String>,
}

/// Everything that was found out.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    setting: Setting,
    commands: Vec<Row>,
    life: Vec<LifeRow>,
}

/// A workload on a medium.
#[derive(Clone, Debug, Serialize)]
struct Row {
    name: String,
    ours: Figures,
    /// None without a peer, and for writes, which it does not do.
    peer: Option<Figures>,
    /// CPU time for a command, the peer's being 1.
    ratio: Option<Spread>,
    /// At most this ratio is aimed at.
    aim: Option<f64>,
}

#[derive(Clone, Debug, Serialize)]
struct Figures {
    cpu_us: Spread,
    kiops: Spread,
    p50_us: Spread,
    p99_us: Spread,
    /// What they are made of, by round.
    samples: Vec<Sample>,
}

#[derive(Clone, Debug, Serialize)]
struct LifeRow {
    name: &'static str,
    unit: &'static str,
    figure: Spread,
    aim: f64,
}

impl Figures {
    fn of(samples: &[Sample]) -> Option<Figures> {
        let spread = |field: fn(&Sample) -> f64| Spread::of(samples.iter().map(field));
        Some(Figures {
            cpu_us: spread(|sample| sample.cpu_us)?,
            kiops: spread(|sample| sample.kiops)?,
            p50_us: spread(|sample| sample.p50_us)?,
            p99_us: spread(|sample| sample.p99_us)?,
            samples: samples.to_vec(),
        })
    }
}

impl Row {
    fn new(line: &Line, samples: &Samples) -> Option<Row> {
        let of = |subject| samples.get(&(line.workload.name, subject)).map(Vec::as_slice);
        let ours = of(Subject::Ours(line.medium)).unwrap_or_default();
        let peer = of(Subject::Peer).unwrap_or_default();
        let cpu = |samples: &[Sample]| samples.iter().map(|s| s.cpu_us).collect::<Vec<_>>();
        let load = line.workload;
        let aim = aim::ratio(load.operation, line.medium, load.len);
        Some(Row {
            name: line.name(),
            ours: Figures::of(ours)?,
            peer: Figures::of(peer),
            ratio: Spread::of_ratios(&cpu(ours), &cpu(peer)),
            // Nothing to hold a write against.
            aim: (load.operation != Operation::Write).then_some(aim),
        })
    }

    fn cells(&self) -> Vec<String> {
        let Row { ours, peer, .. } = self;
        let both = |field: fn(&Figures) -> Spread| {
            [Some(ours), peer.as_ref()]
                .map(|figures| figures.map_or("-".into(), |figures| number(field(figures).median)))
        };
        let [kiops, peer_kiops] = both(|figures| figures.kiops);
        let [p50, peer_p50] = both(|figures| figures.p50_us);
        let [p99, peer_p99] = both(|figures| figures.p99_us);
        vec![
            self.name.clone(),
            with_spread(ours.cpu_us),
            peer.as_ref().map_or("-".into(), |peer| with_spread(peer.cpu_us)),
            self.ratio.map_or("-".into(), with_spread),
            self.ratio.zip(self.aim).map_or("-".into(), |(ratio, aim)| verdict(ratio.median, aim)),
            kiops,
            peer_kiops,
            p50,
            peer_p50,
            p99,
            peer_p99,
        ]
    }
}

/// What the journal costs: the difference to a daemon without one, by round.
fn journal_ns(samples: &Samples) -> Vec<f64> {
    let of = |subject| samples.get(&(rounds::JOURNAL_WORKLOAD, subject));
    let pairs = of(Subject::Ours(Medium::Ram)).zip(of(Subject::Unrecorded));
    let pairs = pairs.into_iter().flat_map(|(with, without)| with.iter().zip(without));
    pairs.map(|(with, without)| (with.cpu_us - without.cpu_us) * 1e3).collect()
}

impl Report {
    pub(crate) fn new(
        setting: Setting,
        lines: &[Line],
        samples: &Samples,
        idle_mb: &[f64],
        start_seconds: &[f64],
    ) -> Report {
        let life = |name, unit, figures: &[f64], aim| {
            let figure = Spread::of(figures.iter().copied())?;
            Some(LifeRow { name, unit, figure, aim })
        };
        let journal = life(rounds::JOURNAL, "ns a command", &journal_ns(samples), aim::JOURNAL_NS);
        let idle = life(rounds::IDLE, "MB resident", idle_mb, aim::IDLE_MB);
        let start = life(rounds::START, "s to the first answer", start_seconds, aim::START_SECONDS);
        let commands = lines.iter().filter_map(|line| Row::new(line, samples)).collect();
        Report { setting, commands, life: [journal, idle, start].into_iter().flatten().collect() }
    }

    /// For programs: every figure, and the settings.
    ///
    /// # Panics
    /// Never: all of it can be said in JSON.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("names and numbers")
    }

    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = self.head();
        if !self.commands.is_empty() {
            let titles = [
                "",
                "CPU µs/command",
                "peer",
                "ratio",
                "aim",
                "kIOPS",
                "peer",
                "p50 µs",
                "peer",
                "p99 µs",
                "peer",
            ];
            let mut rows = vec![titles.map(String::from).to_vec()];
            rows.extend(self.commands.iter().map(Row::cells));
            text.push_str(&columns(&rows));
        }
        for row in &self.life {
            let LifeRow { name, unit, figure, aim } = row;
            let verdict = verdict(figure.median, *aim);
            let _ = writeln!(text, "{name}: {} {unit}, aim {verdict}", with_spread(*figure));
        }
        if let Some(why) = &self.setting.peer {
            let _ = writeln!(text, "Nothing to compare with: {why}.");
        }
        text
    }

    fn head(&self) -> String {
        let Setting { rounds, sample_ms, cpus, wait, load_average, images, uncached, .. } =
            &self.setting;
        let wait = match wait {
            Wait::Poll => "polls",
            Wait::Interrupt => "waits for interrupts",
        };
        let load = load_average
            .map(|load| load.map_or("unknown".into(), |load| format!("{load:.1}")))
            .join(" before, ");
        format!(
            "{rounds} rounds of {sample_ms} ms; {cpus}, which {wait}; files in {}{}; load average {load} \
             after.\nMedians, with quartiles in brackets. The ratio is of CPU, {} being 1; it has a file \
             in both lines and cannot write.\n",
            images.display(),
            if *uncached { ", not cached" } else { "" },
            peer::NAME
        )
    }
}

fn verdict(figure: f64, aim: f64) -> String {
    format!("≤ {} {}", number(aim), if figure <= aim { "met" } else { "missed" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::WORKLOADS;

    fn sample(cpu_us: f64) -> Sample {
        Sample { cpu_us, kiops: 100.0, p50_us: 8.0, p99_us: 20.0 }
    }

    fn report(peer: Option<String>) -> Report {
        let setting = Setting {
            rounds: 3,
            sample_ms: 200,
            cpus: "daemons on CPU 0, driver on CPU 1".into(),
            wait: Wait::Poll,
            load_average: [Some(0.5), None],
            images: "/dev/shm".into(),
            uncached: false,
            peer: peer.clone(),
        };
        let find = |name| WORKLOADS.iter().find(|load| load.name == name).expect("a workload");
        let (read, write) = (find("read-4k-qd32"), find("write-4k-qd32"));
        let mut samples = Samples::new();
        for (cpu, theirs) in [(1.0, 2.0), (1.5, 2.0), (3.0, 6.0)] {
            let ours = Subject::Ours(Medium::Ram);
            samples.entry((read.name, ours)).or_default().push(sample(cpu));
            samples.entry((write.name, ours)).or_default().push(sample(cpu));
            if peer.is_none() {
                samples.entry((read.name, Subject::Peer)).or_default().push(sample(theirs));
            }
        }
        let lines = [read, write].map(|workload| Line { workload, medium: Medium::Ram });
        Report::new(setting, &lines, &samples, &[21.0], &[])
    }

    #[test]
    fn table_holds_ours_against_the_peer_and_the_aims() {
        let table = report(None).table();
        let line = |name| table.lines().find(|line| line.starts_with(name)).expect("a line");
        let read: Vec<_> = line("read-4k-qd32/ram").split("  ").filter(|c| !c.is_empty()).collect();
        assert_eq!(read[1].trim(), "1.50 [1.25 2.25]", "{table}");
        assert_eq!(read[2].trim(), "2.00 [2.00 4.00]", "{table}");
        assert_eq!(read[3].trim(), "0.50 [0.50 0.62]", "{table}");
        assert_eq!(read[4].trim(), "≤ 0.50 met", "{table}");
        assert!(line("write-4k").contains(" - "), "{table}");
        assert!(line("idle-256").ends_with("aim ≤ 20.0 missed"), "{table}");
        assert!(table.contains("load average 0.5 before, unknown after"), "{table}");
    }

    #[test]
    fn absent_peer_is_no_zero() {
        let report = report(Some("no network".into()));
        assert!(report.table().contains("Nothing to compare with: no network."));
        let json: serde_json::Value = serde_json::from_str(&report.json()).expect("JSON");
        assert!(json["commands"][0]["peer"].is_null() && json["commands"][0]["ratio"].is_null());
        assert_eq!(json["commands"][0]["ours"]["cpu_us"]["median"], 1.5);
        assert_eq!(json["commands"][0]["ours"]["samples"][2]["cpu_us"], 3.0);
    }
}
