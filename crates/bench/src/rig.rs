//! What runs need whichever kernel they boot: tests, QEMU, expectations; and running them on one
//! kernel.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, Instant},
};

use guest_protocol::needs::VmShape;

use crate::{
    accel::{self, PROBE_DEADLINE, Probe, Verdict, Wish},
    cargo::{self, Binaries, BuildError},
    coverage::Coverage,
    decode::Decoder,
    expectations::{Expectations, ExpectationsError},
    image::{self, Images, Ingredients},
    plan::{Catalog, PlanError, Test},
    programs,
    qemu::{self, Qemu, fetch},
    report::Terminal,
    run_dir::RunDir,
    scheduler::{Bench, Desk, Options, Results},
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

/// What the user asked for, whichever kernel.
#[derive(Clone, Debug)]
pub struct Request {
    /// The checkout.
    pub workspace: PathBuf,
    /// Parts of test names; empty runs all.
    pub filters: Vec<String>,
    /// Whether the filters are whole names.
    pub exact: bool,
    /// Where packages come from.
    pub apt: apt::Options,
    /// How to execute guests.
    pub accel: Wish,
    /// How to run the tests.
    pub options: Options,
    /// `sensecheck-ublk` as its users build it: its speed is measured.
    pub released_ublk: bool,
    /// The expectations file, if not the checkout's own.
    pub expectations: Option<PathBuf>,
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
    #[error("no test matches {}; `cargo xtask vm-test --list` shows them", filters.join(", "))]
    NoMatch { filters: Vec<String> },
}

/// Everything a run needs besides a kernel.
#[derive(Debug)]
pub struct Rig {
    /// The user's screen.
    pub terminal: Terminal,
    /// The tests chosen.
    pub tests: Vec<Test>,
    request: Request,
    cache: Cache,
    progress: Progress,
    binaries: Binaries,
    expectations: Expectations,
    expectations_path: PathBuf,
    /// How long cargo took.
    build: Duration,
    /// The host's QEMU, and the one that reconnects or why there is none; found with the first kernel.
    qemu: Option<(Qemu, Result<Qemu, String>)>,
}

impl Rig {
    /// Builds the tests and chooses those asked for.
    pub fn new(request: &Request) -> Result<Rig, Error> {
        let terminal = Terminal::new();
        let cache = Cache::open()?;
        let stage = Instant::now();
        let mut binaries = cargo::build(&request.workspace)?;
        if request.released_ublk {
            binaries.ublk = cargo::released_ublk(&request.workspace)?;
        }
        let tests = Catalog::of(&binaries.tests)?.select(&request.filters, request.exact);
        let build = stage.elapsed();
        let usual = || request.workspace.join("harness/expectations.toml");
        let expectations_path = request.expectations.clone().unwrap_or_else(usual);
        let expectations = Expectations::read(&expectations_path)?;
        Ok(Rig {
            terminal,
            tests,
            request: request.clone(),
            cache,
            progress: Progress::auto(),
            binaries,
            expectations,
            expectations_path,
            build,
            qemu: None,
        })
    }

    /// Says what will be run; an error if that is nothing.
    pub fn begin(&self) -> Result<(), Error> {
        if self.tests.is_empty() {
            return Err(Error::NoMatch { filters: self.request.filters.clone() });
        }
        let remark = format!("{} tests, seed {}", self.tests.len(), self.request.options.seed);
        self.terminal.stage("build", self.build, &remark);
        Ok(())
    }

    /// The files that decide results: the executables, and which failures are known.
    pub fn deciding_files(&self) -> [&Path; 5] {
        let Binaries { agent, tests, ublk, target } = &self.binaries;
        [agent, tests, ublk, target, &self.expectations_path]
    }

    /// Those of them that decide what a test does; the other says what is made of it.
    pub fn executables(&self) -> impl Iterator<Item = &Path> {
        self.deciding_files().into_iter().filter(|file| *file != self.expectations_path)
    }

    /// Known defects of kernels.
    pub fn expectations(&self) -> &Expectations {
        &self.expectations
    }

    /// How the tests run.
    pub fn options(&self) -> &Options {
        &self.request.options
    }

    /// What a command that runs a test of the next run again needs beside test and seed.
    pub fn repeat_with(&mut self, words: String) {
        self.request.options.repro = words;
    }

    /// Counts the tests of the next run instead of telling of each, see [`Terminal::count`].
    pub fn count(&mut self, title: &str, tests: usize) {
        self.terminal.count(self.progress.task(title, None), tests);
    }

    /// What getting a kernel takes.
    pub fn context(&self) -> Context<'_> {
        Context {
            cache: &self.cache,
            checkout: &self.request.workspace,
            options: &self.request.apt,
            progress: &self.progress,
        }
    }

    /// Gets a kernel, and says which and how long it took.
    pub fn kernel(&self, wanted: &Wanted) -> Result<Kernel, Error> {
        let stage = Instant::now();
        let kernel = kernel::request::get(self.context(), wanted)?;
        let remark = format!("{} {}", kernel.name, kernel.release);
        self.terminal.stage("kernel", stage.elapsed(), &remark);
        self.note(kernel.note.as_deref());
        Ok(kernel)
    }

    /// Runs the tests on a kernel.
    pub fn run(&mut self, kernel: &Kernel) -> Result<Results, Error> {
        self.run_recorded(kernel, None)
    }

    /// As [`Rig::run`], and records which code of the kernel is reached.
    pub fn run_recorded(
        &mut self,
        kernel: &Kernel,
        coverage: Option<&Coverage>,
    ) -> Result<Results, Error> {
        let tests = self.tests.clone();
        self.run_on(kernel, &tests, coverage)
    }

    /// Runs some of the tests on a kernel.
    pub fn run_these(&mut self, kernel: &Kernel, tests: &[Test]) -> Result<Results, Error> {
        self.run_on(kernel, tests, None)
    }

    /// As [`Rig::run_these`], with a word more on the kernel's command line.
    pub fn run_with(
        &mut self,
        kernel: &Kernel,
        tests: &[Test],
        word: &str,
    ) -> Result<Results, Error> {
        self.request.options.append = word.to_owned();
        self.run_on(kernel, tests, None)
    }

    /// Another that says nothing, for runs beside others: it has one machine at a time.
    pub fn beside(&self) -> Rig {
        let mut terminal = Terminal::new();
        terminal.mute();
        let mut request = self.request.clone();
        request.options.machines = 1;
        Rig {
            terminal,
            tests: self.tests.clone(),
            request,
            cache: self.cache.clone(),
            progress: self.progress.clone(),
            binaries: self.binaries.clone(),
            expectations: self.expectations.clone(),
            expectations_path: self.expectations_path.clone(),
            build: self.build,
            qemu: self.qemu.clone(),
        }
    }

    fn run_on(
        &mut self,
        kernel: &Kernel,
        tests: &[Test],
        coverage: Option<&Coverage>,
    ) -> Result<Results, Error> {
        let (qemu, reconnecting) = self.qemu()?;
        let stage = Instant::now();
        let mut run_dir = RunDir::new().map_err(Error::RunDir)?;
        let images = self.images(kernel, run_dir.path())?;
        self.terminal.stage("image", stage.elapsed(), "");

        let stage = Instant::now();
        let Verdict { accel, reason } =
            accel::decide(self.request.accel, &self.cache, &qemu, || {
                self.progress.note("probing KVM with a guest …");
                self.probe(&qemu, kernel, images.plain(), run_dir.path())
            });
        let remark = format!("{}: {reason}", accel.name());
        self.terminal.stage("accel", stage.elapsed(), &remark);

        let bench = Bench {
            options: &self.request.options,
            kernel,
            qemu: &qemu,
            reconnecting_qemu: &reconnecting,
            images: &images,
            binaries: &self.binaries,
            accel,
            coverage,
            expectations: &self.expectations,
            decoder: Mutex::new(Decoder::new(kernel)),
            run_dir: &run_dir,
            desk: Mutex::new(Desk { terminal: &mut self.terminal, results: Results::default() }),
        };
        let results = bench.run(tests);
        if results.kept {
            run_dir.keep();
        }
        Ok(results)
    }

    fn note(&self, text: Option<&str>) {
        if let Some(text) = text {
            self.terminal.note(text);
        }
    }

    fn qemu(&mut self) -> Result<(Qemu, Result<Qemu, String>), Error> {
        if let Some(known) = &self.qemu {
            return Ok(known.clone());
        }
        let stage = Instant::now();
        let qemu = qemu::host(&self.cache, &self.progress)?;
        let reconnecting = self.reconnecting(&qemu);
        self.terminal.stage("qemu", stage.elapsed(), &qemu::dotted(qemu.version));
        self.note(qemu.note.as_deref());
        if let Ok(other) = &reconnecting
            && *other != qemu
        {
            let version = qemu::dotted(other.version);
            self.terminal.note(&format!("tests that need a reconnecting QEMU get {version}"));
            self.note(other.note.as_deref());
        }
        Ok(self.qemu.insert((qemu, reconnecting)).clone())
    }

    /// The QEMU for tests that need one which reconnects, or why there is none: those tests are
    /// skipped then. Nothing is fetched if no test needs it.
    fn reconnecting(&self, host: &Qemu) -> Result<Qemu, String> {
        let is_needed = self.tests.iter().any(|test| test.needs.vm_shape().reconnect);
        if host.can_reconnect() || !is_needed {
            return Ok(host.clone());
        }
        let manifest =
            fetch::Manifest::read(&self.request.workspace).map_err(|error| error.to_string())?;
        fetch::reconnecting(host, &self.cache, &manifest, &self.request.apt, &self.progress)
            .map_err(|error| error.to_string())
    }

    fn images(&self, kernel: &Kernel, dir: &Path) -> Result<Images, Error> {
        let manifest = image::Manifest::read(&self.request.workspace)?;
        let Binaries { agent, tests: binary, ublk, .. } = &self.binaries;
        let ingredients = Ingredients { kernel, agent, tests: binary, ublk, extra_modules: &[] };
        let (cache, progress) = (&self.cache, &self.progress);
        let get = |name: &str| {
            let manifest = programs::Manifest::read(&self.request.workspace)?;
            let programs = programs::get(cache, &manifest, name, &self.request.apt, progress)?;
            self.note(programs.note.as_deref());
            Ok(programs)
        };
        Ok(Images::build(cache, &manifest, ingredients, &self.tests, dir, get, progress)?)
    }

    /// Boots a guest under KVM to its agent's hello.
    fn probe(&self, qemu: &Qemu, kernel: &Kernel, image: &Path, dir: &Path) -> Probe {
        let shape = VmShape::default();
        let config = VmConfig {
            qemu,
            kernel,
            image,
            accel: Accel::Kvm,
            cpus: self.request.options.cpus,
            memory_mib: self.request.options.memory_mib,
            append: "",
            shape: &shape,
            recorder: None,
        };
        let settings = Settings {
            target: self.binaries.target.clone(),
            dir: dir.join("probe"),
            jobs: 1,
            seed: 0,
            cases: 0,
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
}
