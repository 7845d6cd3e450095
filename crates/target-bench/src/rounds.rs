//! Measuring: rounds in which everybody has a turn at everything.
//!
//! Each round starts the daemons anew, so that where things happen to lie in their memory spreads the
//! figures of one run too, and begins with another daemon.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use host::{interrupt, progress::Progress};
use tempfile::TempDir;

use crate::{
    Error, Wait,
    aim::Medium,
    cpus::{self, Cpus, Pinned},
    daemon::Daemon,
    image, life,
    memory::Memory,
    peer,
    report::{Report, Setting},
    session::Session,
    statistics::percentile,
    workload::{Operation, WORKLOADS, Workload},
};

/// Before each measurement caches and predictors get so long to settle.
const WARM_UP: Duration = Duration::from_millis(20);
/// A daemon that has not answered after this will not.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Where images are by default: a tmpfs everywhere.
const IMAGE_DIR: &str = "/dev/shm";

/// Names of what is measured beside commands.
pub(crate) const IDLE: &str = "idle-256-luns";
pub(crate) const START: &str = "start-16384-luns";
/// The cost of the journal, told from this workload: one that does next to nothing else.
pub(crate) const JOURNAL: &str = "journal-tur-qd32";
pub(crate) const JOURNAL_WORKLOAD: &str = "tur-qd32";

/// The other implementation.
#[derive(Clone, Debug)]
pub enum Peer {
    /// Its program.
    Program(PathBuf),
    /// There is none, and why.
    Absent(String),
}

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// `sensecheck-target`.
    pub ours: PathBuf,
    /// What it is compared with.
    pub peer: Peer,
    /// How often each is measured.
    pub rounds: u32,
    /// How long, each time.
    pub sample: Duration,
    /// Where, if the user knows better.
    pub cpus: Option<Cpus>,
    /// How the driver waits.
    pub wait: Wait,
    /// Parts of names of what is wanted; empty for everything.
    pub filters: Vec<String>,
    /// Where the images go [default: `/dev/shm`].
    pub image_dir: Option<PathBuf>,
    /// Whether files are put out of the page cache before they are measured.
    pub uncached: bool,
}

/// Whom a figure is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    Ours(Medium),
    /// Ours without a journal, in memory.
    Unrecorded,
    /// It has a file.
    Peer,
}

/// Figures of one measurement.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Sample {
    /// CPU time of the daemon for each command, in microseconds.
    pub(crate) cpu_us: f64,
    /// Thousands of commands a second.
    pub(crate) kiops: f64,
    /// Latencies that half and 99 of 100 commands do not exceed, in microseconds.
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

/// A line of the report: a workload on a medium.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    pub(crate) workload: &'static Workload,
    pub(crate) medium: Medium,
}

impl Line {
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.workload.name, self.medium.name())
    }
}

/// All figures, in the order of rounds.
pub(crate) type Samples = BTreeMap<(&'static str, Subject), Vec<Sample>>;

/// What is wanted.
#[derive(Debug)]
struct Plan {
    lines: Vec<Line>,
    idle: bool,
    start: bool,
}

impl Plan {
    fn new(filters: &[String]) -> Result<Plan, Error> {
        let media = [Medium::Ram, Medium::File];
        let all = WORKLOADS
            .iter()
            .flat_map(|workload| media.into_iter().map(move |medium| Line { workload, medium }));
        let all: Vec<Line> = all.collect();
        let mut names: Vec<String> = all.iter().map(Line::name).collect();
        names.extend([IDLE.to_owned(), START.to_owned()]);
        let unknown = |filter: &&String| !names.iter().any(|name| name.contains(filter.as_str()));
        if let Some(filter) = filters.iter().find(unknown) {
            return Err(Error::NoSuch { filter: filter.clone(), names });
        }
        let wanted = |name: &str| {
            filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()))
        };
        let lines = all.into_iter().filter(|line| wanted(&line.name())).collect();
        Ok(Plan { lines, idle: wanted(IDLE), start: wanted(START) })
    }

    /// Workloads, each with those who have a turn at it.
    fn turns(&self, peer: bool) -> Vec<(&'static Workload, Vec<Subject>)> {
        let mut turns: Vec<(&'static Workload, Vec<Subject>)> = Vec::new();
        for line in &self.lines {
            match turns.last_mut().filter(|(workload, _)| workload.name == line.workload.name) {
                Some((_, subjects)) => subjects.push(Subject::Ours(line.medium)),
                None => turns.push((line.workload, vec![Subject::Ours(line.medium)])),
            }
            if line.medium == Medium::Ram && line.workload.name == JOURNAL_WORKLOAD {
                turns.last_mut().expect("just pushed").1.push(Subject::Unrecorded);
            }
        }
        for (workload, subjects) in &mut turns {
            if peer && workload.operation != Operation::Write {
                subjects.push(Subject::Peer);
            }
        }
        turns
    }
}

/// Directories of a run: sockets and logs, and images.
#[derive(Debug)]
pub(crate) struct Place {
    own: TempDir,
    images: TempDir,
}

impl Place {
    fn new(image_dir: Option<&Path>) -> Result<Place, Error> {
        let dir = image_dir.unwrap_or(Path::new(IMAGE_DIR));
        let made = Error::file("make a directory in", dir);
        let images = tempfile::Builder::new().prefix("target-bench-").tempdir_in(dir);
        let own = TempDir::with_prefix("target-bench-");
        let own = own.map_err(Error::system("make a temporary directory"))?;
        Ok(Place { own, images: images.map_err(made)? })
    }

    pub(crate) fn socket(&self, name: &str) -> PathBuf {
        self.own.path().join(format!("{name}.sock"))
    }

    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.own.path().join(format!("{name}.log"))
    }

    fn image(&self, name: &str) -> PathBuf {
        self.images.path().join(name)
    }
}

/// A daemon with a guest.
struct Running<'m> {
    // Dropped first: the daemon sees its front end leave.
    session: Session<'m>,
    daemon: Daemon,
    /// Its medium, if that is a file.
    image: Option<PathBuf>,
}

/// Measures, from the main thread: what it starts ends with the thread that started it.
///
/// # Errors
/// Whatever keeps a daemon from being measured.
pub fn run(request: &Request, progress: &Progress) -> Result<Report, Error> {
    let plan = Plan::new(&request.filters)?;
    let cpus = request.cpus.map_or_else(cpus::choose, Ok)?;
    let _pinned = Pinned::to(cpus.driver)?;
    let place = Place::new(request.image_dir.as_deref())?;
    let turns = plan.turns(matches!(request.peer, Peer::Program(_)));
    let load_before = load_average();
    let mut task = progress.task("measuring", None);
    let (mut samples, mut idle, mut start) = (Samples::new(), Vec::new(), Vec::new());
    for round in 0..request.rounds {
        let step = |what: &str| format!("round {} of {}, {what}", round + 1, request.rounds);
        task.step(&step("filling media"));
        one_round(request, cpus, &place, &turns, round, &mut samples, |what| {
            task.step(&step(what));
            task.alive();
        })?;
        if plan.idle {
            idle.push(life::idle_mb(&request.ours, &place, cpus)?);
        }
        if plan.start {
            start.push(life::start_seconds(&request.ours, &place, cpus)?);
        }
    }
    task.done();
    let setting = Setting {
        rounds: request.rounds,
        sample_ms: request.sample.as_millis(),
        cpus: cpus.to_string(),
        wait: request.wait,
        load_average: [load_before, load_average()],
        images: place.images.path().parent().unwrap_or(Path::new("")).to_owned(),
        peer: match &request.peer {
            Peer::Program(_) => None,
            Peer::Absent(why) => Some(why.clone()),
        },
        uncached: request.uncached,
    };
    Ok(Report::new(setting, &plan.lines, &samples, &idle, &start))
}

fn one_round(
    request: &Request,
    cpus: Cpus,
    place: &Place,
    turns: &[(&'static Workload, Vec<Subject>)],
    round: u32,
    samples: &mut Samples,
    mut step: impl FnMut(&str),
) -> Result<(), Error> {
    let mut subjects: Vec<Subject> = turns.iter().flat_map(|(_, all)| all.clone()).collect();
    subjects.sort();
    subjects.dedup();
    let memories: Result<Vec<_>, _> = subjects.iter().map(|_| Memory::new()).collect();
    let memories = memories?;
    let mut running = BTreeMap::new();
    for (subject, memory) in subjects.iter().zip(&memories) {
        running.insert(*subject, set_up(request, *subject, cpus, place, memory)?);
    }
    // All reads come before the first write, and what they bring is looked at before.
    for (workload, subjects) in turns {
        for subject in subjects {
            let running = running.get_mut(subject).expect("started above");
            if workload.operation == Operation::Read {
                blame(running.session.verify_medium(workload), &running.daemon)?;
            }
        }
    }
    for (workload, subjects) in turns {
        step(workload.name);
        let mut order = subjects.clone();
        order.rotate_left(round as usize % subjects.len());
        for subject in order {
            if interrupt::pending() {
                return Err(Error::Interrupted);
            }
            let running = running.get_mut(&subject).expect("started above");
            let sample = measure(running, workload, request);
            let sample = blame(sample, &running.daemon)?;
            samples.entry((workload.name, subject)).or_default().push(sample);
        }
    }
    Ok(())
}

/// A daemon that has died explains an error better than the error does.
fn blame<T>(result: Result<T, Error>, daemon: &Daemon) -> Result<T, Error> {
    result.map_err(|error| daemon.ended().unwrap_or(error))
}

/// Starts a daemon with a filled medium, and a guest that finds its unit ready.
fn set_up<'m>(
    request: &Request,
    subject: Subject,
    cpus: Cpus,
    place: &Place,
    memory: &'m Memory,
) -> Result<Running<'m>, Error> {
    let (name, program) = match (subject, &request.peer) {
        (Subject::Ours(Medium::Ram), _) => ("ram", &request.ours),
        (Subject::Unrecorded, _) => ("unrecorded", &request.ours),
        (Subject::Ours(Medium::File), _) => ("file", &request.ours),
        (Subject::Peer, Peer::Program(path)) => ("peer", path),
        (Subject::Peer, Peer::Absent(_)) => unreachable!("it has no turns"),
    };
    let (socket, image) = (place.socket(name), place.image(name));
    let mut command = Command::new(program);
    match subject {
        Subject::Ours(Medium::Ram) | Subject::Unrecorded => {
            command.arg("--socket").arg(&socket);
            command.arg("--disk").arg(image::IMAGE_LEN.to_string());
        }
        Subject::Ours(Medium::File) => {
            command.arg("--socket").arg(&socket);
            // What a process has mapped stays in the page cache. Thin media are not.
            let thin = if request.uncached { ",thin" } else { "" };
            command.arg("--disk").arg(format!("file={}{thin}", image.display()));
        }
        Subject::Peer => {
            command.arg("--socket-path").arg(&socket).arg(&image);
        }
    }
    let in_memory = matches!(subject, Subject::Ours(Medium::Ram) | Subject::Unrecorded);
    if !in_memory {
        image::write(&image)?;
    }
    if subject == Subject::Unrecorded {
        command.args(["--journal-len", "0"]);
    }
    let name = match subject {
        Subject::Unrecorded => "sensecheck-target (no journal)".to_owned(),
        Subject::Ours(medium) => format!("sensecheck-target ({})", medium.name()),
        Subject::Peer => peer::NAME.to_owned(),
    };
    // The peer refuses to bind a path that exists.
    let _absent = fs::remove_file(&socket);
    let daemon = Daemon::start(&name, command, cpus.daemon, &place.log("daemon"))?;
    let mut session = connect(&daemon, &socket, memory)?;
    blame(session.wake_unit(), &daemon)?;
    if in_memory {
        blame(session.fill_medium(), &daemon)?;
    }
    Ok(Running { session, daemon, image: (!in_memory).then_some(image) })
}

/// Connects as soon as the daemon listens, and introduces a guest.
pub(crate) fn connect<'m>(
    daemon: &Daemon,
    socket: &Path,
    memory: &'m Memory,
) -> Result<Session<'m>, Error> {
    let what = format!("its socket {}", socket.display());
    let stream = wait::until(START_LIMIT, what, || match UnixStream::connect(socket) {
        Ok(stream) => Some(Ok(stream)),
        Err(_) => daemon.ended().map(Err),
    });
    let stream = stream.map_err(|source| {
        let (name, said) = (daemon.name().to_owned(), daemon.said());
        Error::NotReady { name, source, said }
    })??;
    blame(Session::open(daemon.name(), memory, stream), daemon)
}

fn measure(
    running: &mut Running<'_>,
    workload: &Workload,
    request: &Request,
) -> Result<Sample, Error> {
    running.session.run(workload, request.wait, WARM_UP)?;
    if let (Some(image), true) = (&running.image, request.uncached) {
        image::evict(image)?;
    }
    let before = running.daemon.cpu_time()?;
    let run = running.session.run(workload, request.wait, request.sample)?;
    let cpu = running.daemon.cpu_time()? - before;
    let mut latencies = run.latencies_ns;
    latencies.sort_unstable();
    // More commands than a u32 counts take hours.
    let count = f64::from(u32::try_from(latencies.len()).unwrap_or(u32::MAX));
    let at = |percent| percentile(&latencies, percent).map_or(f64::NAN, |ns| f64::from(ns) / 1e3);
    Ok(Sample {
        cpu_us: cpu.as_secs_f64() * 1e6 / count,
        kiops: count / run.elapsed.as_secs_f64() / 1e3,
        p50_us: at(50),
        p99_us: at(99),
    })
}

/// Processes that want to run, averaged over a minute. An unknown one is said to be so.
fn load_average() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(filters: &[&str]) -> Result<Plan, Error> {
        Plan::new(&filters.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn filters_choose_lines_by_part_of_a_name() {
        let everything = plan(&[]).expect("all");
        assert_eq!(everything.lines.len(), 2 * WORKLOADS.len());
        assert!(everything.idle && everything.start);
        let names = |plan: &Plan| plan.lines.iter().map(Line::name).collect::<Vec<_>>();
        let some = plan(&["read-1m", "tur-qd1/ram"]).expect("three");
        assert_eq!(names(&some), ["tur-qd1/ram", "read-1m-qd4/ram", "read-1m-qd4/file"]);
        assert!(!some.idle && !some.start);
        assert!(plan(&["idle"]).expect("one").idle);
        let error = plan(&["read", "raed"]).expect_err("a typo").to_string();
        assert!(error.contains("`raed`") && error.contains("read-4k-qd32/file"), "{error}");
    }

    #[test]
    fn peer_has_a_turn_at_each_workload_but_writes() {
        let plan = plan(&["4k-qd32"]).expect("two workloads");
        let (ram, file) = (Subject::Ours(Medium::Ram), Subject::Ours(Medium::File));

        let turns = |peer| -> Vec<_> {
            plan.turns(peer).into_iter().map(|(load, who)| (load.name, who)).collect()
        };
        let with =
            [("read-4k-qd32", vec![ram, file, Subject::Peer]), ("write-4k-qd32", vec![ram, file])];
        assert_eq!(turns(true), with);
        assert_eq!(turns(false)[0].1, [ram, file]);
        let journal = Plan::new(&["tur-qd32/ram".to_owned()]).expect("one").turns(false);
        assert_eq!(journal[0].1, [ram, Subject::Unrecorded]);
    }
}
