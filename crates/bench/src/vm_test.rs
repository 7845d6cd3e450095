//! `cargo xtask vm-test`: from a checkout to results.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use guest_protocol::needs::VmShape;

use crate::{
    accel::{self, PROBE_DEADLINE, Probe, Verdict, Wish},
    cargo::{self, Binaries, BuildError},
    exit,
    expectations::{Expectations, ExpectationsError},
    image, outcome,
    plan::{self, Catalog, PlanError, Test},
    qemu::{self, Qemu, fetch},
    report::{self, Terminal},
    run_dir::RunDir,
    scheduler::{Bench, Options, Results},
    session::{BootError, Session, Settings},
    vm::{Accel, VmConfig},
};
use host::{
    apt,
    cache::{self, Cache},
    progress::Progress,
};
use kernel::{
    Kernel,
    request::{Context, Wanted},
};

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// The checkout.
    pub workspace: PathBuf,
    /// Parts of test names; empty runs all.
    pub filters: Vec<String>,
    /// Whether the filters are whole names.
    pub exact: bool,
    /// Whether to list the tests instead of running them.
    pub list: bool,
    /// The kernel.
    pub kernel: Wanted,
    /// Where packages come from.
    pub apt: apt::Options,
    /// How to execute guests.
    pub accel: Wish,
    /// How to run the tests.
    pub options: Options,
    /// Where JUnit XML goes.
    pub junit: Option<PathBuf>,
    /// Where KTAP goes.
    pub ktap: Option<PathBuf>,
    /// The expectations file, if not the checkout's own.
    pub expectations: Option<PathBuf>,
    /// How many tests have to be executed at least once; fewer is an error of the bench.
    pub expect_tests: Option<usize>,
}

/// Why no test could be run. Each says the next step.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each is the error of the stage it is named after")]
pub enum Error {
    #[error(transparent)]
    Cache(#[from] cache::Error),
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    #[error(transparent)]
    Qemu(#[from] qemu::Error),
    #[error(transparent)]
    Image(#[from] image::Error),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Expectations(#[from] ExpectationsError),
    #[error("cannot make a directory for this run: {0}")]
    RunDir(#[source] io::Error),
    #[error("cannot write {}: {source}", path.display())]
    Report { path: PathBuf, source: io::Error },
    #[error("cannot write JUnit: {0}")]
    Junit(#[from] quick_junit::SerializeError),
    #[error(
        "{ran} tests were executed, {expected} were expected: has a module lost its `mod` line?"
    )]
    TooFew { ran: usize, expected: usize },
    #[error("no test matches {}; `cargo xtask vm-test --list` shows them", filters.join(", "))]
    NoMatch { filters: Vec<String> },
}

/// A seed nobody chose; small enough to type again.
pub fn seed_from_clock() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.as_secs() % 1_000_000
}

/// Does it, and returns the exit code.
pub fn run(request: &Request) -> Result<u8, Error> {
    let start = Instant::now();
    let mut terminal = Terminal::new();
    let progress = Progress::auto();
    let cache = Cache::open()?;

    let stage = Instant::now();
    let binaries = cargo::build(&request.workspace)?;
    let tests = Catalog::of(&binaries.tests)?.select(&request.filters, request.exact);
    if request.list {
        terminal.list_tests(&tests);
        return Ok(exit::PASS);
    }
    if tests.is_empty() {
        return Err(Error::NoMatch { filters: request.filters.clone() });
    }
    let remark = format!("{} tests, seed {}", tests.len(), request.options.seed);
    terminal.stage("build", stage.elapsed(), &remark);

    let stage = Instant::now();
    let context = Context {
        cache: &cache,
        checkout: &request.workspace,
        options: &request.apt,
        progress: &progress,
    };
    let kernel = kernel::request::get(context, &request.kernel)?;
    terminal.stage("kernel", stage.elapsed(), &format!("{} {}", kernel.name, kernel.release));
    note(&terminal, kernel.note.as_deref());

    let stage = Instant::now();
    let qemu = qemu::host(&cache, &progress)?;
    let reconnecting = reconnecting(request, &tests, &cache, &qemu, &progress);
    terminal.stage("qemu", stage.elapsed(), &qemu::dotted(qemu.version));
    note(&terminal, qemu.note.as_deref());
    if let Ok(other) = &reconnecting
        && *other != qemu
    {
        let version = qemu::dotted(other.version);
        terminal.note(&format!("tests that need a reconnecting QEMU get {version}"));
        note(&terminal, other.note.as_deref());
    }

    let stage = Instant::now();
    let image = build_image(request, &cache, &kernel, &binaries, &tests, &progress)?;
    terminal.stage("image", stage.elapsed(), "");

    let mut run_dir = RunDir::new().map_err(Error::RunDir)?;
    let stage = Instant::now();
    let verdict = accel::decide(request.accel, &cache, &qemu, || {
        progress.note("probing KVM with a guest …");
        probe(&qemu, &kernel, &image.path, &binaries, run_dir.path(), &request.options)
    });
    let Verdict { accel, reason } = verdict;
    terminal.stage("accel", stage.elapsed(), &format!("{}: {reason}", accel.name()));

    let usual = request.workspace.join("harness/expectations.toml");
    let expectations = Expectations::read(request.expectations.as_ref().unwrap_or(&usual))?;
    let mut bench = Bench {
        options: &request.options,
        kernel: &kernel,
        qemu: &qemu,
        reconnecting_qemu: &reconnecting,
        image: &image.path,
        binaries: &binaries,
        accel,
        expectations: &expectations,
        run_dir: &mut run_dir,
        terminal: &mut terminal,
    };
    let results = bench.run(&tests);
    finish(request, &kernel.name, &terminal, &results, start.elapsed())
}

fn note(terminal: &Terminal, text: Option<&str>) {
    if let Some(text) = text {
        terminal.note(text);
    }
}

/// The QEMU for tests that need one which reconnects, or why there is none: those tests are skipped
/// then. Nothing is fetched if no test needs it.
fn reconnecting(
    request: &Request,
    tests: &[Test],
    cache: &Cache,
    host: &Qemu,
    progress: &Progress,
) -> Result<Qemu, String> {
    if host.can_reconnect() || !tests.iter().any(|test| test.needs.vm_shape().reconnect) {
        return Ok(host.clone());
    }
    let manifest = fetch::Manifest::read(&request.workspace).map_err(|error| error.to_string())?;
    fetch::reconnecting(host, cache, &manifest, &request.apt, progress)
        .map_err(|error| error.to_string())
}

fn build_image(
    request: &Request,
    cache: &Cache,
    kernel: &Kernel,
    binaries: &Binaries,
    tests: &[Test],
    progress: &Progress,
) -> Result<image::Image, Error> {
    let manifest = image::Manifest::read(&request.workspace)?;
    let modules = tests.iter().flat_map(|test| test.needs.modules.iter());
    let mut extra: Vec<String> = modules.map(|module| module.name.to_string()).collect();
    extra.sort();
    extra.dedup();
    let (agent, guest) = (&binaries.agent, &binaries.tests);
    Ok(image::build(cache, &manifest, kernel, agent, guest, &extra, progress)?)
}

/// Boots a guest under KVM to its agent's hello.
fn probe(
    qemu: &Qemu,
    kernel: &Kernel,
    image: &Path,
    binaries: &Binaries,
    dir: &Path,
    options: &Options,
) -> Probe {
    let shape = VmShape::default();
    let config = VmConfig {
        qemu,
        kernel,
        image,
        accel: Accel::Kvm,
        cpus: options.cpus,
        memory_mib: options.memory_mib,
        append: "",
        shape: &shape,
    };
    let settings = Settings {
        target: binaries.target.clone(),
        dir: dir.join("probe"),
        jobs: 1,
        seed: 0,
        deadline: Duration::ZERO,
        boot_deadline: PROBE_DEADLINE,
    };
    let first_line = |text: &str| text.lines().next().unwrap_or_default().to_owned();
    match Session::boot(&config, settings) {
        Ok(_) => Probe::Works,
        Err(BootError::Guest { panic: Some(line), .. }) => Probe::Unknown(line),
        Err(error @ (BootError::Guest { .. } | BootError::Vm(_))) => {
            Probe::Fails(first_line(&error.to_string()))
        }
        Err(error) => Probe::Unknown(first_line(&error.to_string())),
    }
}

fn finish(
    request: &Request,
    kernel: &str,
    terminal: &Terminal,
    results: &Results,
    took: Duration,
) -> Result<u8, Error> {
    // First: a report that cannot be written must not take the summary with it.
    terminal.summary(&results.records, took);
    let write = |path: &Path, text: String| {
        fs::write(path, text).map_err(|source| Error::Report { path: path.to_owned(), source })
    };
    if let Some(path) = &request.junit {
        write(path, report::junit(&results.records, kernel)?)?;
    }
    if let Some(path) = &request.ktap {
        write(path, report::ktap(&results.records))?;
    }
    if results.interrupted {
        terminal.note("interrupted");
        return Ok(exit::INTERRUPTED);
    }
    let code = outcome::exit_code(&results.records);
    let ran = plan::distinct_executed(&results.records);
    match request.expect_tests {
        Some(expected) if ran < expected && code == exit::PASS => {
            Err(Error::TooFew { ran, expected })
        }
        _ => Ok(code),
    }
}
