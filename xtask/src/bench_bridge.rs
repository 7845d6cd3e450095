//! `cargo xtask bench bridge`.

use bench::passthrough::{Figure, Measured};
use target_bench::{
    statistics::Spread,
    table::{columns, number, with_spread},
};

use crate::bench_passthrough;

/// The test that measures one round.
const TEST: &str = "measured::bridge::bridge";
/// What the others are held against: the same device, whose driver copies.
const REFERENCE: &str = "copy";

const EXAMPLES: &str = "\
CPU time of a write of 4 KiB to 1 MiB from an application through /dev/ublkbN and a server to a SCSI disk in memory, of
application, server and kernel together; the disk's own driver (sd) beside it. The ways take turns in one guest. Without
a copy the time of a KiB falls with the length; with one it has a floor. Requests that the kernel had to copy on their
way (bounced) are counted by a probe of it. Under emulation ratios mean something, absolute figures little.
Figures are no verdict. Exit codes: 0 measured, 130 interrupted, others as vm-test has them.";

/// Measures what a byte costs through a ublk device whose medium is a SCSI disk, with and without copies.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
#[group(skip)]
pub(crate) struct Args {
    #[command(flatten)]
    shared: bench_passthrough::Args,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    bench_passthrough::measure(&args.shared, TEST, false, table)
}

/// KiB of what was measured, which its name begins with.
fn kib(what: &str) -> f64 {
    let number = what.split(' ').next().and_then(|number| number.parse::<u32>().ok());
    f64::from(number.expect("the guest's names begin with KiB"))
}

/// A block for each length, a row for each way.
fn table(measured: &Measured) -> String {
    let Measured { kernel, rounds } = measured;
    let mut text = format!(
        "{kernel}; {} rounds. CPU time of a write, medians with quartiles in brackets; the ratio is to `{REFERENCE}`, \
         round by round; bounced requests of a hundred writes.\n",
        rounds.len()
    );
    let first = rounds.first().map_or(&[][..], Vec::as_slice);
    let mut rows = vec![["", "µs/write", "µs/KiB", "ratio", "bounced"].map(String::from).to_vec()];
    for Figure { what, way, .. } in first {
        let of = |way: &str| -> Vec<&Figure> {
            rounds.iter().flatten().filter(|f| f.what == *what && f.way == way).collect()
        };
        let micros = |way: &str| -> Vec<f64> { of(way).iter().map(|f| f.micros).collect() };
        let each: Vec<f64> = micros(way).iter().map(|micros| micros / kib(what)).collect();
        let bounced: Option<Vec<f64>> = of(way).iter().map(|f| f.bounced).collect();
        let median = |figures| Spread::of(figures).map(|spread: Spread| number(spread.median));
        let ratio = Spread::of_ratios(&micros(way), &micros(REFERENCE));
        let cells = [
            Spread::of(micros(way)).map(with_spread),
            median(each),
            ratio.map(|ratio| number(ratio.median)),
            bounced.and_then(median),
        ];
        let cells = cells.map(|cell| cell.unwrap_or("-".into()));
        rows.push([vec![format!("{what:<9} {way}")], cells.to_vec()].concat());
    }
    text.push_str(&columns(&rows));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_held_against_that_of_the_copying_device() {
        let figure = |way: &str, micros, bounced| Figure {
            what: "64 KiB".into(),
            way: way.into(),
            micros,
            bounced,
            ..Figure::default()
        };
        let rounds = vec![vec![figure(REFERENCE, 128.0, Some(0.0)), figure("no copy", 32.0, None)]];
        let text = table(&Measured { kernel: "stock, Linux 7.2".into(), rounds });
        let lines: Vec<&str> = text.lines().skip(2).collect();
        let cells = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert!(text.starts_with("stock, Linux 7.2; 1 rounds."), "{text}");
        assert_eq!(cells(lines[0])[6..], ["2.00", "1.00", "0.00"], "{text}");
        assert_eq!(cells(lines[1])[7..], ["0.50", "0.25", "-"], "{text}");
    }
}
