//! Watches over a worker: whether it lives, goes on, and stays as small as it is.
#![expect(clippy::print_stdout, reason = "progress and results are what the program is for")]

use std::{
    env, fs,
    fs::File,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;

use crate::{
    Args, Enough,
    targets::{self, Target},
    worker::{Progress, SESSION_LIMIT},
};

/// How often something is said.
const REPORT_INTERVAL: Duration = Duration::from_secs(2);
/// After that much of its work a worker has all that it needs: caches, arenas of the allocator.
const WARM_AT: f64 = 0.25;
/// From then on it grows by so many bytes at most.
const GROWTH_MAX: u64 = 24 << 20;
/// It never has more bytes than this in memory.
const SIZE_MAX: u64 = 512 << 20;

/// What became of a worker.
struct Watched {
    executions: u64,
    session: u64,
    took: Duration,
    /// Bytes in memory when it was warm, and at the end.
    sizes: (u64, u64),
    /// What is wrong, if anything.
    failure: Option<String>,
}

/// Works on all targets asked for; false if one has failed.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let mut sound = true;
    for target in targets::ALL {
        if args.target.as_ref().is_some_and(|name| name != target.name) {
            continue;
        }
        let watched = watch(args, target)?;
        let Watched { executions, took, sizes: (warm, end), .. } = watched;
        println!(
            "{:<10} {executions:>9} executions in {:.1} s, {:.0} a second, {} KiB in memory, {} when warm",
            target.name,
            took.as_secs_f64(),
            per_second(executions, took),
            end >> 10,
            warm >> 10,
        );
        if let Some(failure) = &watched.failure {
            sound = false;
            tell(args, target, watched.session, failure)?;
        }
    }
    Ok(sound)
}

fn per_second(executions: u64, took: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let executions = executions as f64;
    executions / took.as_secs_f64().max(1e-9)
}

/// This program again, on this target with this seed.
fn program(args: &Args, target: &Target) -> anyhow::Result<Command> {
    let mut command = Command::new(env::current_exe().context("cannot find this program")?);
    command.arg(target.name).args(["--seed", &args.seed.to_string()]).stdin(Stdio::null());
    Ok(command)
}

fn watch(args: &Args, target: &Target) -> anyhow::Result<Watched> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("progress");
    fs::write(&path, [0; 16])?;
    let progress = Progress::open(&path)?;
    let mut command = program(args, target)?;
    command.arg("--worker").arg(&path);
    match args.enough() {
        Enough::Executions(wanted) => command.args(["--executions", &wanted.to_string()]),
        Enough::After(limit) => command.args(["--seconds", &limit.as_secs_f64().to_string()]),
    };
    // What it says of its end is had again when the session is repeated.
    let said = File::create(directory.path().join("said"))?;
    let mut child = command.stderr(said).spawn()?;
    let watched = Watch::new(args.enough(), target).run(&mut child, &progress);
    if watched.as_ref().is_ok_and(|watched| watched.failure.is_some()) {
        let said = fs::read_to_string(directory.path().join("said")).unwrap_or_default();
        print!("{said}");
    }
    watched
}

/// What is known of a worker while it works.
struct Watch<'a> {
    enough: Enough,
    target: &'a Target,
    start: Instant,
    said: Instant,
    at: (u64, u64),
    moved: Instant,
    /// Bytes in memory when it was warm, and now.
    sizes: (u64, u64),
}

impl<'a> Watch<'a> {
    fn new(enough: Enough, target: &'a Target) -> Self {
        let start = Instant::now();
        Watch { enough, target, start, said: start, at: (0, 0), moved: start, sizes: (0, 0) }
    }

    fn run(mut self, child: &mut Child, progress: &Progress) -> anyhow::Result<Watched> {
        let ended = loop {
            // A short time, so that a short run has some looks too.
            let ended =
                wait::until(Duration::from_millis(50), "the end", || child.try_wait().transpose());
            if let Ok(ended) = ended {
                break Ok(ended?);
            }
            if let Some(failure) = self.look(child, progress)? {
                child.kill()?;
                child.wait()?;
                break Err(failure);
            }
        };
        self.at = progress.read()?;
        let (warm, now) = self.sizes;
        let failure = match ended {
            Err(failure) => Some(failure),
            Ok(status) if !status.success() => Some(of(status)),
            Ok(_) if warm > 0 && now > warm + GROWTH_MAX => {
                Some(format!("it grew from {} to {} KiB", warm >> 10, now >> 10))
            }
            Ok(_) => None,
        };
        let (session, executions) = self.at;
        Ok(Watched { executions, session, took: self.start.elapsed(), sizes: self.sizes, failure })
    }

    /// What is wrong with it, if anything.
    fn look(&mut self, child: &Child, progress: &Progress) -> anyhow::Result<Option<String>> {
        let at = progress.read()?;
        if at != self.at {
            (self.at, self.moved) = (at, Instant::now());
        }
        if self.moved.elapsed() > SESSION_LIMIT {
            return Ok(Some(format!("it hangs: no session ended in {SESSION_LIMIT:?}")));
        }
        if let Some(size) = size_of_process(child.id()) {
            self.sizes.1 = size;
            if self.sizes.0 == 0 && self.done() >= WARM_AT {
                self.sizes.0 = size;
            }
            if size > SIZE_MAX {
                return Ok(Some(format!("it has grown to {} KiB", size >> 10)));
            }
        }
        if self.said.elapsed() >= REPORT_INTERVAL {
            self.said = Instant::now();
            println!(
                "{:<10} {:>3.0} %, {} executions",
                self.target.name,
                self.done() * 100.0,
                at.1
            );
        }
        Ok(None)
    }

    /// How much of the work is done, from 0 to 1.
    fn done(&self) -> f64 {
        match self.enough {
            Enough::After(limit) => self.start.elapsed().as_secs_f64() / limit.as_secs_f64(),
            #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
            Enough::Executions(wanted) => self.at.1 as f64 / wanted as f64,
        }
        .min(1.0)
    }
}

fn of(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match status.signal() {
        Some(signal) => format!("it was ended by signal {signal}"),
        None => format!("it ended with {status}"),
    }
}

/// Bytes of a process in memory; `None` if it has just gone.
fn size_of_process(id: u32) -> Option<u64> {
    let statm = fs::read_to_string(format!("/proc/{id}/statm")).ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Writes down what was sent, and says how it is sent again.
fn tell(args: &Args, target: &Target, session: u64, failure: &str) -> anyhow::Result<()> {
    let again =
        format!("cargo xtask fuzz {} --seed {} --session {session}", target.name, args.seed);
    fs::create_dir_all(&args.artifacts)?;
    let path = args.artifacts.join(format!("{}-{}-{session}.txt", target.name, args.seed));
    fs::write(&path, format!("{failure}\n{again}\n"))?;
    let mut command = program(args, target)?;
    command.args(["--session", &session.to_string()]);
    let mut child = command.stderr(File::options().append(true).open(&path)?).spawn()?;
    let ended =
        wait::until(SESSION_LIMIT, "the end of the repetition", || child.try_wait().transpose());
    let repeated = match ended {
        Ok(status) => !status?.success(),
        Err(_hangs) => {
            child.kill()?;
            child.wait()?;
            true
        }
    };
    println!("{:<10} FAILED in session {session}: {failure}", target.name);
    println!("           what was sent: {}", path.display());
    println!("           again: {again}");
    if !repeated {
        println!("           alone the session is survived: it is a matter of time or of growth");
    }
    Ok(())
}
