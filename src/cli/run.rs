//! `ocelli run`: from a board file to a summary.

use crate::cli::guards::{self, Guards};
use crate::cli::profile::{kept, provisional};
use crate::cli::{Exit, Failure, VERSION};
use clap::Args;
use ocelli::board::{Asked, BackendSpec, Board, Output, OutputTo};
use ocelli::capture;
use ocelli::decode::{Decoder, blank_outputs};
use ocelli::infer::onnxruntime::{self, OnnxRuntime};
use ocelli::infer::simulated::{self, Simulated};
use ocelli::infer::{Backend, InferError};
use ocelli::platform::idle::Shallow;
use ocelli::platform::sensors::Sensors;
use ocelli::platform::{Waker, clock, realtime};
use ocelli::pool::{FrameRef, Pool, PoolError};
use ocelli::publish::{self, pictures};
use ocelli::runtime::{self, Finished, Host, Parts, Proof, Running, Supervised};
use ocelli::sched::Schedule;
use ocelli::stats::Copies;
use ocelli::telemetry::{Control, Duties, End};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, Args)]
pub(super) struct Run {
    /// The board file.
    board: PathBuf,
    /// Stop after this many seconds of running.
    #[arg(long = "for", value_name = "SECONDS", value_parser = seconds)]
    time: Option<Duration>,
    /// Write one JSON line a frame to a file, or to standard output (-), beside the board's outputs.
    #[arg(long, value_name = "FILE|-")]
    results: Option<PathBuf>,
    /// Write a summary as JSON at the end.
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,
    /// Write annotated pictures (JPEG) of every stream into a folder, one every few seconds.
    #[arg(long, value_name = "DIR")]
    pictures: Option<PathBuf>,
}

pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time in seconds; say for example 20 or 0.5");
    let seconds: f64 = text.parse().map_err(|_| wrong())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(time) if time > Duration::ZERO => Ok(time),
        _ => Err(wrong()),
    }
}

/// Versions of the libraries that are linked, or that would be loaded.
pub(super) fn versions() -> Vec<(String, String)> {
    vec![
        ("ocelli".to_owned(), VERSION.to_owned()),
        ("gstreamer".to_owned(), capture::gstreamer_version()),
        ("onnxruntime-interface".to_owned(), format!("1.{}", onnxruntime::API_VERSION)),
    ]
}

impl Run {
    pub(super) fn act(self) -> Result<(), Failure> {
        let mut board = Board::load(&self.board)?;
        board.warnings.iter().for_each(|warning| log::warn!("{warning}"));
        // First: a signal from here on ends the run in order, with its watchdog disarmed.
        let mut control = Control::new()
            .map_err(|error| Failure::new(Exit::Internal, format!("no event loop: {error}")))?;
        // Before anything that takes long: a former process may have left the watchdog armed.
        let mut guards = Guards::mount(&board)?;
        let ended =
            self.prepare(&mut board).and_then(|summary| self.run(board, summary, &mut control, &mut guards));
        guards.release(&ended);
        ended
    }

    /// What can be refused before anything is opened or measured: what can't be written at the end should fail
    /// now.
    fn prepare(&self, board: &mut Board) -> Result<Option<(std::fs::File, PathBuf)>, Failure> {
        verify(board)?;
        self.check_files(board)?;
        let summary = self.summary.as_deref().map(create).transpose()?;
        self.add_results(board)?;
        ask_realtime(board)?;
        Ok(summary)
    }

    fn run(
        &self,
        board: Board,
        summary: Option<(std::fs::File, PathBuf)>,
        control: &mut Control,
        guards: &mut Guards,
    ) -> Result<(), Failure> {
        let _shallow = stay_shallow(&board)?;
        let board = Arc::new(board);
        let copies = Arc::new(Copies::default());
        let waker = Waker::new();
        let mut backend = open_backend(&board, &copies, &waker)?;
        let decoders = decoders(&board, backend.as_ref())?;
        let accelerator = backend.capabilities().name.clone();
        let pool = open_pool(&board, backend.as_ref())?;
        let schedule = match admit(&board, &pool, backend.as_mut(), control) {
            Err(_) if control.asked_to_stop().is_some() => {
                log::info!("asked to stop before the run began: there is nothing to sum up");
                return Ok(());
            }
            admitted => admitted?,
        };
        if let BackendSpec::Simulated { hang_at: hang_at @ Some(_), .. } = board.accelerator.backend {
            // Its batches count from the beginning of the run, not from the measurements before it.
            backend = open_hanging(&board, &copies, &waker, hang_at)?;
        }
        let outputs = publish::start(&board.outputs, &board, VERSION)
            .map_err(|error| Failure::new(Exit::CantCreate, error))?;
        let pictures = self
            .pictures
            .as_deref()
            .map(|folder| pictures::start(folder, &board, &copies, clock::now()))
            .transpose()
            .map_err(|error| Failure::new(Exit::CantCreate, error))?;

        let longest = board.streams.iter().map(|stream| stream.latency_bound).max().unwrap_or_default();
        let proof = Arc::new(Proof::new(clock::now(), longest));
        let mut versions = versions();
        versions.push(("backend".to_owned(), accelerator));
        let sources = board.streams.iter().map(capture::open).collect();
        let parts = Parts {
            board: board.clone(),
            schedule,
            pool,
            sources,
            backend,
            waker,
            decoders,
            outputs,
            pictures,
            copies: copies.clone(),
            supervised: Some(supervised(&board, &copies, guards.sign(&proof))),
            sensors: Some(sensors(&board)),
        };
        let ledger = guards.last.take().map(|last| last.begin(clock::now()));
        let ledger = guards::kept(&guards.service, ledger.transpose())?;
        let mut duties = Duties { service: guards.service.clone(), proof, ledger, ready: false };
        let mut running = Running::start(parts, || control.asked_to_stop().is_some())
            .map_err(|error| Failure::new(Exit::Internal, format!("can't start a thread: {error}")))?;
        guards.begun();
        let end = control.watch(&mut running, &board, self.time, &mut duties);
        log::info!("{}: stopping", why(end));
        guards.stopping()?;
        let finished = running.stop().ok_or_else(|| {
            Failure::new(
                Exit::Internal,
                "a thread died or hangs; the lines above say where; please report this",
            )
        })?;
        report(&finished);
        // A run that has broken did not end in order.
        if let Some(ledger) = duties.ledger.take().filter(|_| end != End::Broken) {
            ledger.finish(&finished, why(end));
        }
        if let Some((mut file, path)) = summary {
            let host = Host { versions, before: guards.before() };
            write_summary(&mut file, &finished, &host)
                .map_err(|error| Failure::new(Exit::Incomplete, format!("{}: {error}", path.display())))?;
        }
        judge(end, &board, &finished)
    }

    /// Refuses files that would overwrite each other, or the board.
    fn check_files(&self, board: &Board) -> Result<(), Failure> {
        let outputs = board.outputs.iter().filter_map(|output| match &output.to {
            OutputTo::File(path) => Some((path.as_path(), output.name.as_str())),
            OutputTo::Stdout | OutputTo::Socket(_) => None,
        });
        let mut taken = vec![(self.board.as_path(), "the board")];
        taken.extend(outputs);
        for (path, name) in [(&self.results, "--results"), (&self.summary, "--summary")] {
            let Some(path) = path.as_deref() else { continue };
            if let Some((_, other)) = taken.iter().find(|(taken, _)| same_file(taken, path)) {
                let what = format!("{name} {}: that is the file of {other}; name another", path.display());
                return Err(Failure::new(Exit::Usage, what));
            }
            taken.push((path, name));
        }
        Ok(())
    }

    /// Adds the results that the command line asks for to the board's outputs.
    fn add_results(&self, board: &mut Board) -> Result<(), Failure> {
        let Some(path) = &self.results else { return Ok(()) };
        let to = if path.as_os_str() == "-" { OutputTo::Stdout } else { OutputTo::File(path.clone()) };
        if board.outputs.iter().any(|output| output.to == to) {
            return Err(Failure::new(
                Exit::Usage,
                format!("--results {}: the board writes there already", path.display()),
            ));
        }
        let mut name = "results".to_owned();
        while board.outputs.iter().any(|output| output.name == name) {
            name.push('+'); // No board may use it in a name.
        }
        board.outputs.push(Output { name, to });
        Ok(())
    }
}

/// How the board's cameras and its accelerator are replaced.
fn supervised(board: &Arc<Board>, copies: &Arc<Copies>, alive: Box<dyn FnMut() + Send>) -> Supervised {
    let (cameras, accelerator, copies) = (board.clone(), board.clone(), copies.clone());
    Supervised {
        source: Arc::new(move |stream| capture::open(&cameras.streams[stream.index()])),
        backend: Arc::new(move |waker| {
            open_backend(&accelerator, &copies, waker).map_err(|failure| failure.message)
        }),
        alive,
    }
}

/// Asks whether the system allows the real-time scheduling that the board asks for; says once what it refuses.
pub(super) fn ask_realtime(board: &Board) -> Result<(), Failure> {
    let refused = realtime::probe(&board.realtime).map_err(|why| Failure::new(Exit::Config, why))?;
    match refused.fifo {
        Some(refused) if board.realtime.fifo == Asked::Required => Err(Failure::new(Exit::Refused, refused)),
        fifo => {
            fifo.iter().chain(&refused.timer_slack).for_each(|refused| log::warn!("{refused}"));
            Ok(())
        }
    }
}

/// Keeps idle CPUs from sleeping deeply for as long as this is held, where the board asks for it.
pub(super) fn stay_shallow(board: &Board) -> Result<Option<Shallow>, Failure> {
    if board.realtime.shallow_idle == Asked::No {
        return Ok(None);
    }
    match Shallow::request() {
        Ok(shallow) => Ok(Some(shallow)),
        Err(refused) if board.realtime.shallow_idle == Asked::Required => {
            Err(Failure::new(Exit::Refused, refused))
        }
        Err(refused) => {
            log::warn!("{refused}");
            Ok(None)
        }
    }
}

/// Checks every network's file against its manifest.
pub(super) fn verify(board: &Board) -> Result<(), Failure> {
    board.models.iter().try_for_each(|model| {
        model.verify().map_err(|error| Failure::new(super::exit_of(error.kind()), error))
    })
}

/// A decoder a model.
///
/// # Errors
/// When a network's outputs are not as its manifest says.
pub(super) fn decoders(board: &Board, backend: &dyn Backend<FrameRef>) -> Result<Vec<Decoder>, Failure> {
    let rows = &backend.capabilities().output_rows;
    let each = board.models.iter().zip(rows).map(|(model, rows)| Decoder::new(model, rows));
    each.collect::<Result<_, _>>().map_err(|error| Failure::new(Exit::Data, error))
}

/// The board's accelerator, without hangs on purpose. `copies` counts frames that have to be copied for it.
pub(super) fn open_backend(
    board: &Board,
    copies: &Arc<Copies>,
    waker: &Waker,
) -> Result<Box<dyn Backend<FrameRef>>, Failure> {
    open_hanging(board, copies, waker, None)
}

/// The same, where a simulated one hangs at this batch of all that it is given.
fn open_hanging(
    board: &Board,
    copies: &Arc<Copies>,
    waker: &Waker,
    hang_at: Option<u64>,
) -> Result<Box<dyn Backend<FrameRef>>, Failure> {
    match &board.accelerator.backend {
        &BackendSpec::Simulated { intercept, slope, jitter, seed, fail_every, .. } => {
            let blank: Vec<_> = board.models.iter().map(blank_outputs).collect();
            let settings =
                simulated::Settings { intercept, slope, jitter, seed, fail_every, hang_at, in_flight: 1 };
            Ok(Box::new(Simulated::new(settings, board.accelerator.max_batch, blank)))
        }
        BackendSpec::OnnxRuntime { library, sessions, threads } => {
            let settings = onnxruntime::Settings {
                library: library.as_deref(),
                sessions: *sessions,
                threads: *threads,
                max_batch: board.accelerator.max_batch,
            };
            let mut frames = vec![Vec::new(); board.models.len()];
            for stream in &board.streams {
                frames[stream.model.index()].push((stream.format, stream.width, stream.height));
            }
            let opened = OnnxRuntime::open(&settings, &board.models, &frames, waker);
            Ok(Box::new(opened.map_err(|error| refused(error, Exit::Refused))?))
        }
        BackendSpec::TensorRt { .. } => open_tensorrt(board, copies, waker),
    }
}

/// Why an accelerator or a plan can't be had; `system` is the code where the system is the reason.
pub(super) fn refused(error: InferError, system: Exit) -> Failure {
    let exit = match error {
        InferError::Unavailable { .. } => Exit::Unavailable,
        InferError::Model { .. } => Exit::Data,
        InferError::System(_) => system,
    };
    Failure::new(exit, error)
}

/// The machine's, and those of the GPU that the board names by CUDA's number.
fn sensors(board: &Board) -> Sensors {
    let sensors = Sensors::new(board, Path::new("/"));
    #[cfg(feature = "tensorrt")]
    if let BackendSpec::TensorRt { device, .. } = board.accelerator.backend {
        match ocelli::infer::tensorrt::cuda::uuid(device) {
            Ok(uuid) => return sensors.of_gpu(uuid),
            Err(why) => {
                log::warn!("sensors: GPU {device} is taken in the order of the bus: it has no UUID ({why})")
            }
        }
    }
    sensors
}

#[cfg(feature = "tensorrt")]
fn open_tensorrt(
    board: &Board,
    copies: &Arc<Copies>,
    waker: &Waker,
) -> Result<Box<dyn Backend<FrameRef>>, Failure> {
    use crate::cli::engine::tensorrt::announce;
    use ocelli::infer::tensorrt::{Building, Progress, Settings, TensorRt};
    let BackendSpec::TensorRt { device, engine_cache, contexts, dla, build_plans } =
        &board.accelerator.backend
    else {
        return Err(Failure::new(Exit::Internal, "the board's accelerator is not TensorRT"));
    };
    let progress = |model: &str| Progress::new(announce(model.to_owned()));
    let by = format!("ocelli {VERSION}");
    let settings = Settings {
        device: *device,
        lanes: *contexts,
        dla,
        max_batch: board.accelerator.max_batch,
        cache: engine_cache,
        frame_bytes: runtime::shares(board, 1).iter().map(|share| share.slot_bytes).max().unwrap_or(0),
        build: build_plans.then_some(Building { progress: &progress, by: &by }),
    };
    let opened = TensorRt::open(&settings, &board.models, copies, waker);
    Ok(Box::new(opened.map_err(|error| refused(error, Exit::Refused))?))
}

#[cfg(not(feature = "tensorrt"))]
fn open_tensorrt(_: &Board, _: &Arc<Copies>, _: &Waker) -> Result<Box<dyn Backend<FrameRef>>, Failure> {
    let why = "accelerator.backend = \"tensorrt\": this ocelli was built without TensorRT; build it with --features \
               tensorrt, or use backend = \"onnxruntime\"";
    Err(Failure::new(Exit::Unavailable, why))
}

pub(super) fn open_pool(board: &Board, backend: &dyn Backend<FrameRef>) -> Result<Pool, Failure> {
    let shares = runtime::shares(board, backend.capabilities().in_flight());
    let bytes: usize = shares.iter().map(|share| share.slots * share.slot_bytes).sum();
    log::info!("pool: {} slots, {} MiB", shares.iter().map(|s| s.slots).sum::<usize>(), bytes >> 20);
    let make = |lock| Pool::read_by(backend.reader(), &shares, lock);
    let made = match make(board.realtime.lock_memory != Asked::No) {
        Err(refused @ PoolError::Lock { .. }) if board.realtime.lock_memory == Asked::Try => {
            log::warn!("{refused}");
            make(false)
        }
        made => made,
    };
    let pool = made.map_err(|error| Failure::new(Exit::Refused, error))?;
    if let Some(why) = pool.unseen() {
        log::warn!(
            "the accelerator can't read the frame pool where it lies ({why}): each frame is copied for it, which costs the \
             exec thread time; copied_bytes.accelerator in the summary counts that"
        );
    }
    Ok(pool)
}

fn admit(
    board: &Board,
    pool: &Pool,
    backend: &mut dyn Backend<FrameRef>,
    control: &mut Control,
) -> Result<Schedule, Failure> {
    let choice = match kept(board, None, backend)? {
        Some((choice, _)) => choice,
        None => provisional(board, pool, backend, || control.asked_to_stop().is_some())?,
    };
    if let Some(units) = choice.said() {
        log::info!("{units}");
    }
    let schedule =
        Schedule::admit(board, choice.profile).map_err(|refusal| Failure::new(Exit::Config, refusal))?;
    log::info!(
        "admission: the streams need {:.0} % of the accelerator ({})",
        schedule.utilisation() * 100.0,
        if schedule.is_provisional() {
            "provisional: no guarantee"
        } else {
            "guaranteed while cameras, board and service times are as stated"
        }
    );
    for (stream, admitted) in board.streams.iter().zip(schedule.streams()) {
        if !admitted.served {
            log::warn!("{}: shed: no room on the accelerator; its frames are counted and dropped", stream.id);
        }
    }
    Ok(schedule)
}

/// Why a run ends, in words.
fn why(end: End) -> &'static str {
    match end {
        End::Signal(name) => name,
        End::TimeUp => "time is up",
        End::AllEnded => "all videos have ended",
        End::NoneOpened => "not one camera could be opened",
        End::Broken => "a thread has died",
    }
}

fn report(finished: &Finished) {
    let total = finished.total();
    let latency = finished.latency();
    let millis =
        |d: Option<Duration>| d.map_or("-".to_owned(), |d| format!("{:.1} ms", d.as_secs_f64() * 1e3));
    log::info!(
        "captured {} = met {} + late {} + dropped {} + in flight {}; latency p50 {}, p99.9 {}, max {}",
        total.captured,
        total.met,
        total.late,
        total.dropped_total(),
        total.in_flight,
        millis(latency.quantile(0.5)),
        millis(latency.quantile(0.999)),
        millis(latency.max()),
    );
    for name in finished.down() {
        log::warn!("{name} is down at the end");
    }
    for name in &finished.stuck {
        log::warn!("{name}: its thread did not stop; its last frames may be missing from the ledger");
    }
    for output in finished.outputs() {
        if let Some(error) = &output.error {
            log::warn!(
                "output {}: {error}; {} results written, {} lost",
                output.name,
                output.written,
                output.lost
            );
        }
    }
    if let Some(pictures) = finished.pictures() {
        log::info!("pictures: {} written, {} skipped", pictures.written, pictures.skipped);
        if let Some(error) = &pictures.error {
            log::warn!("pictures: {error}; {} failed", pictures.failed);
        }
    }
}

/// The exit code that a run deserves.
fn judge(end: End, board: &Board, finished: &Finished) -> Result<(), Failure> {
    if end == End::Broken {
        return Err(Failure::new(Exit::Internal, "a thread died; please report this"));
    }
    if end == End::NoneOpened {
        return Err(Failure::new(Exit::Unavailable, "not one camera could be opened; see above"));
    }
    if finished.streams().iter().any(|stream| stream.records_lost > 0) {
        return Err(Failure::new(
            Exit::Incomplete,
            "records could not be kept until their turn: results_lost",
        ));
    }
    // Who reads a socket may come and go; a file must hold everything.
    let outputs = board.outputs.iter().zip(finished.outputs());
    let mut incomplete: Vec<&str> = outputs
        .filter(|(output, report)| report.lost > 0 && !matches!(output.to, OutputTo::Socket(_)))
        .map(|(output, _)| output.name.as_str())
        .collect();
    if finished.pictures().is_some_and(|pictures| pictures.failed > 0) {
        incomplete.push("pictures");
    }
    if incomplete.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Exit::Incomplete, format!("incomplete outputs: {}", incomplete.join(", "))))
}

/// Whether two paths lead to one regular file, which need not be there yet.
fn same_file(a: &Path, b: &Path) -> bool {
    let name = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match (std::fs::metadata(a), std::fs::metadata(b)) {
        (Ok(a), Ok(b)) => a.is_file() && (a.dev(), a.ino()) == (b.dev(), b.ino()),
        (Err(_), Err(_)) => name(a) == name(b),
        _ => false,
    }
}

/// Opens the file to write at the end; what is in it stays until then.
fn create(path: &Path) -> Result<(std::fs::File, PathBuf), Failure> {
    match std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(path) {
        Ok(file) => Ok((file, path.to_owned())),
        Err(error) => Err(Failure::new(
            Exit::CantCreate,
            format!(
                "--summary {}: {error}; name a file in a folder that exists and may be written",
                path.display()
            ),
        )),
    }
}

fn write_summary(file: &mut std::fs::File, finished: &Finished, host: &Host) -> std::io::Result<()> {
    use std::io::Write;
    let text = format!("{:#}\n", finished.to_json(host));
    file.write_all(text.as_bytes())?;
    // Only files can be cut and synced; a terminal or pipe has everything by now.
    if file.metadata()?.is_file() {
        file.set_len(text.len() as u64)?;
        file.sync_all()?;
    }
    Ok(())
}
