//! `cargo xtask bench ublk`.

use bench::{
    passthrough::{Figure, Measured},
    programs,
};
use clap::ValueEnum;
use host::{apt, cache::Cache, progress::Progress};
use target_bench::{
    statistics::Spread,
    table::{columns, number, with_spread},
};

use crate::bench_passthrough;

/// The test that measures one round of ours.
const ALONE: &str = "measured::ublk::null";
/// The same of both.
const BESIDE: &str = "measured::ublk::null_beside_kublk";
/// The set of programs with the other server.
const SET: &str = "kublk";
const OURS: &str = "ours";
const PEER: &str = "kublk";

const EXAMPLES: &str = "\
Examples:
  Both servers, every figure in a file:
    cargo xtask bench ublk --json ublk.json
  Two queues, each with an application of its own:
    cargo xtask bench ublk --smp 2
  Ours alone, quickly, while working on it:
    cargo xtask bench ublk --peer none --rounds 3

Requests of an application that keeps 1, 8 or 32 of them in flight, by io_uring and past the page cache, on devices of
sensecheck-ublk and of kublk that have nothing behind them. Both run in one guest and have turns of some milliseconds;
each queue has a CPU. kublk is what the kernel's own tests of ublk have, compiled from the source of the kernel `source`
as their Makefile has it (a minute, once). Ratios above 1 mean that ours is better. Where nobody needs the data, ours leaves
it where it is; kublk copies it in user copy mode, and has a NOP of io_uring look at the buffer where it is registered.
Under emulation ratios mean something, absolute figures little.
Figures are no verdict. Exit codes: 0 measured, 130 interrupted, others as vm-test has them.";

/// Measures sensecheck-ublk with a null target, beside kublk of the kernel's own tests, in a guest.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
#[group(skip)]
pub(crate) struct Args {
    /// What ours is compared with.
    #[arg(long, value_enum, default_value_t = PeerArg::Auto)]
    peer: PeerArg,

    #[command(flatten)]
    shared: bench_passthrough::Args,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PeerArg {
    /// kublk; if it cannot be had, that is said and ours is measured alone.
    Auto,
    /// Nothing.
    None,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    let test = match args.peer {
        PeerArg::None => ALONE,
        PeerArg::Auto => {
            let progress = Progress::auto();
            match peer(&args.shared.apt(), &progress) {
                Ok(()) => BESIDE,
                Err(_) if host::interrupt::pending() => return Ok(bench::exit::INTERRUPTED),
                Err(error) => {
                    progress.note(&format!("measuring ours alone: {error}"));
                    ALONE
                }
            }
        }
    };
    bench_passthrough::measure(&args.shared, test, true, table)
}

/// Has the other server in the cache.
fn peer(options: &apt::Options, progress: &Progress) -> anyhow::Result<()> {
    let manifest = programs::Manifest::read(&crate::workspace())?;
    programs::get(&Cache::open()?, &manifest, SET, options, progress)?;
    Ok(())
}

/// What is compared: its name, how a figure says it, and whether more of it is better.
type Column = (&'static str, fn(&Figure) -> Option<f64>, bool);

const COLUMNS: [Column; 3] = [
    ("IOPS", |figure| Some(1e6 / figure.micros), true),
    ("server CPU µs", |figure| figure.server_micros, false),
    ("all CPU µs", |figure| figure.cpu_micros, false),
];

/// A row for each load in each mode.
fn table(measured: &Measured) -> String {
    let Measured { kernel, rounds } = measured;
    let mut text = format!(
        "{kernel}; {} rounds. Medians with quartiles in brackets, of ours and of {PEER}; the ratio is round by round, and above \
         1 where ours is better. CPU time of a request: the server's; its and the application's, with what the kernel does \
         for them.\n",
        rounds.len()
    );
    let mut names: Vec<&str> = Vec::new();
    for figure in rounds.first().into_iter().flatten() {
        if !names.contains(&figure.what.as_str()) {
            names.push(&figure.what);
        }
    }
    let mut head = vec![String::new()];
    for (name, _, _) in COLUMNS {
        head.extend([name, PEER, "ratio"].map(String::from));
    }
    let mut rows = vec![head];
    for what in names {
        let mut row = vec![what.to_owned()];
        for (_, of, more_is_better) in COLUMNS {
            row.extend(cells(rounds, what, of, more_is_better));
        }
        rows.push(row);
    }
    text.push_str(&columns(&rows));
    text
}

/// Ours, theirs, and the ratio.
fn cells(
    rounds: &[Vec<Figure>],
    what: &str,
    of: fn(&Figure) -> Option<f64>,
    more_is_better: bool,
) -> [String; 3] {
    let all = |way: &str| -> Vec<f64> {
        let figures = rounds.iter().flatten().filter(|f| f.what == what && f.way == way);
        figures.filter_map(of).collect()
    };
    let (ours, theirs) = (all(OURS), all(PEER));
    let ratio = match more_is_better {
        true => Spread::of_ratios(&ours, &theirs),
        false => Spread::of_ratios(&theirs, &ours),
    };
    let cell = |figures| Spread::of(figures).map_or("-".into(), with_spread);
    [cell(ours), cell(theirs), ratio.map_or("-".into(), |ratio| number(ratio.median))]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(way: &str, micros: f64, server: f64) -> Figure {
        Figure {
            what: "read, copy".into(),
            way: way.into(),
            micros,
            server_micros: Some(server),
            cpu_micros: None,
            ..Figure::default()
        }
    }

    fn row(rounds: Vec<Vec<Figure>>) -> Vec<String> {
        let text = table(&Measured { kernel: "stock, Linux 7.2".into(), rounds });
        assert!(text.starts_with("stock, Linux 7.2; 1 rounds."), "{text}");
        let line = text.lines().nth(2).expect("a row");
        line.split_whitespace().map(str::to_owned).collect()
    }

    /// Twice the requests at half the server's time is 2 both ways; what is not measured has no ratio.
    #[test]
    fn ratios_are_above_one_where_ours_is_better() {
        let row = row(vec![vec![figure(OURS, 10.0, 4.0), figure(PEER, 20.0, 8.0)]]);
        let ratios: Vec<&str> =
            row.iter().map(String::as_str).filter(|cell| *cell == "2.00" || *cell == "-").collect();
        assert_eq!(ratios, ["2.00", "2.00", "-", "-", "-"], "{row:?}");
    }

    #[test]
    fn ours_alone_has_figures_and_no_ratio() {
        let row = row(vec![vec![figure(OURS, 10.0, 4.0)]]);
        assert_eq!(row.iter().filter(|cell| *cell == "-").count(), 7, "{row:?}");
    }
}
