//! `ocelli sim`: a board on a virtual clock.

use crate::cli::run::{seconds, versions};
use crate::cli::{Exit, Failure, VERSION, say};
use clap::Args;
use ocelli::board::Board;
use ocelli::cause::MissCause;
use ocelli::infer::simulated::Settings;
use ocelli::job::DropReason;
use ocelli::runtime::Host;
use ocelli::sched::Schedule;
use ocelli::sim::{self, Plan, Scenario, Simulation};
use ocelli::stats::{Histogram, Ledger};
use std::fmt::Write as _;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, Args)]
pub(super) struct Sim {
    /// The board file.
    board: PathBuf,
    /// What happens meanwhile: a scenario file (`ocelli schema scenario`).
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    /// Seconds on the virtual clock.
    #[arg(long = "for", value_name = "SECONDS", value_parser = seconds, default_value = "60")]
    time: Duration,
    /// Seed of everything that is drawn, together with the seeds on the board.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    seed: u64,
    /// Service time of a batch, intercept + slope a frame, in place of the board's accelerator. Needed where
    /// that is a real one.
    #[arg(long, value_name = "INTERCEPT_MS,SLOPE_MS", value_parser = service)]
    service: Option<Settings>,
    /// Write one JSON line a frame to a file, or to standard output (-).
    #[arg(long, value_name = "FILE|-")]
    results: Option<PathBuf>,
    /// Write a summary as JSON to a file, or to standard output (-).
    #[arg(long, value_name = "FILE|-")]
    summary: Option<PathBuf>,
}

fn service(text: &str) -> Result<Settings, String> {
    let wrong = || format!("{text:?} is not two times in milliseconds; say for example 2.5,1.2");
    let millis = |text: &str| {
        let ms: f64 = text.trim().parse().ok()?;
        (0.0..=60_000.0).contains(&ms).then(|| Duration::from_nanos((ms * 1e6).round() as u64))
    };
    let (intercept, slope) = text.split_once(',').ok_or_else(wrong)?;
    let (intercept, slope) = (millis(intercept).ok_or_else(wrong)?, millis(slope).ok_or_else(wrong)?);
    if (intercept + slope).is_zero() {
        return Err("a batch must take some time; say for example 2.5,1.2".to_owned());
    }
    Ok(Settings::linear(intercept, slope))
}

impl Sim {
    pub(super) fn act(self) -> Result<(), Failure> {
        let dash = |path: &Option<PathBuf>| path.as_deref() == Some(Path::new("-"));
        let (results_out, summary_out) = (dash(&self.results), dash(&self.summary));
        if results_out && summary_out {
            return Err(Failure::new(
                Exit::Usage,
                "--results and --summary can't both go to standard output; name a file for one",
            ));
        }
        let board = Arc::new(Board::load(&self.board)?);
        board.warnings.iter().for_each(|warning| log::warn!("{warning}"));
        let scenario = match &self.scenario {
            Some(path) => Scenario::load(path, &board)?,
            None => Scenario::default(),
        };
        self.warn(&board, &scenario);
        let service = self.service.clone().or_else(|| sim::service_of(&board)).ok_or_else(|| {
            let message = "is a real one, whose times a simulation does not know; say them with \
                           --service INTERCEPT_MS,SLOPE_MS, for example --service 2.5,1.2";
            Failure::new(Exit::Usage, format!("the accelerator of {} {message}", board.name))
        })?;
        let schedule = Schedule::admit(&board, sim::profile(&board, &service))
            .map_err(|refusal| Failure::new(Exit::Config, refusal))?;
        let mut results = self.results.as_deref().map(|path| Out::create("--results", path)).transpose()?;
        let summary = self.summary.as_deref().map(|path| Out::create("--summary", path)).transpose()?;

        let mut line = Vec::new();
        if let Some(results) = &mut results {
            sim::results::header(&mut line, &board, VERSION);
            results.write(&line)?;
        }
        let plan = Plan { service, scenario, seed: self.seed, time: self.time };
        let described = board.clone();
        let mut lines = sim::results::Lines::new(&described);
        let simulation = sim::simulate(board, schedule, plan, &mut |message| {
            let Some(results) = &mut results else { return Ok(()) };
            line.clear();
            lines.line(&mut line, message);
            results.write(&line)
        })?;
        results.map_or(Ok(()), Out::finish)?;
        if let Some(mut summary) = summary {
            let host = Host { versions: versions(), ..Host::default() };
            summary.write(format!("{:#}\n", simulation.to_json(&host)).as_bytes())?;
            summary.finish()?;
        }
        if results_out || summary_out { Ok(()) } else { say(&table(&described, &simulation)) }
    }

    /// What is left out, and what comes too late.
    fn warn(&self, board: &Board, scenario: &Scenario) {
        for stream in board.streams.iter().filter(|stream| stream.faults.is_some()) {
            log::warn!("{}: the board's faults are not simulated; put them into a scenario", stream.id);
        }
        let late = scenario.events.iter().filter(|event| event.at >= self.time).count();
        if late > 0 {
            log::warn!(
                "{late} events of the scenario come after the end, {} s; ask for more with --for",
                self.time.as_secs_f64()
            );
        }
    }
}

/// A file or standard output.
struct Out {
    to: BufWriter<Box<dyn Write>>,
    name: String,
}

impl Out {
    fn create(flag: &str, path: &Path) -> Result<Self, Failure> {
        let name = format!("{flag} {}", path.display());
        let to: Box<dyn Write> = if path == Path::new("-") {
            Box::new(std::io::stdout())
        } else {
            let remedy = "name a file in a folder that exists and may be written";
            let refused = |error| Failure::new(Exit::CantCreate, format!("{name}: {error}; {remedy}"));
            Box::new(std::fs::File::create(path).map_err(refused)?)
        };
        Ok(Self { to: BufWriter::with_capacity(1 << 16, to), name })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.to.write_all(bytes).map_err(|error| incomplete(&self.name, &error))
    }

    fn finish(mut self) -> Result<(), Failure> {
        self.to.flush().map_err(|error| incomplete(&self.name, &error))
    }
}

fn incomplete(name: &str, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Incomplete, format!("{name}: {error}"))
}

/// A line a stream, and one for all.
fn table(board: &Board, simulation: &Simulation) -> String {
    let finished = &simulation.finished;
    let width = board.streams.iter().map(|stream| stream.id.len()).max().unwrap_or(0).max(6);
    let mut text = format!(
        "{:<width$} {:>9} {:>9} {:>7} {:>9} {:>9} {:>9} {:>9}  late and dropped for\n",
        "stream", "captured", "met", "late", "dropped", "p50 ms", "p99.9 ms", "max ms"
    );
    for (stream, totals) in board.streams.iter().zip(finished.streams()) {
        row(&mut text, width, &stream.id, &totals.ledger, &totals.causes, &totals.latency);
    }
    row(&mut text, width, "all", &finished.total(), &finished.causes(), &finished.latency());
    let _ = write!(text, "digest {}", simulation.digest);
    text
}

fn row(
    text: &mut String,
    width: usize,
    name: &str,
    ledger: &Ledger,
    causes: &[u64; MissCause::ALL.len()],
    latency: &Histogram,
) {
    let ms = |d: Option<Duration>| d.map_or("-".to_owned(), |d| format!("{:.2}", d.as_secs_f64() * 1e3));
    let late = MissCause::ALL.into_iter().filter(|cause| causes[cause.index()] > 0).map(MissCause::as_str);
    let reasons = DropReason::ALL
        .into_iter()
        .filter(|reason| ledger.dropped[reason.index()] > 0)
        .map(DropReason::as_str);
    let reasons: Vec<&str> = late.chain(reasons).collect();
    let line = format!(
        "{name:<width$} {:>9} {:>9} {:>7} {:>9} {:>9} {:>9} {:>9}  {}",
        ledger.captured,
        ledger.met,
        ledger.late,
        ledger.dropped_total(),
        ms(latency.quantile(0.5)),
        ms(latency.quantile(0.999)),
        ms(latency.max()),
        reasons.join(" "),
    );
    text.push_str(line.trim_end());
    text.push('\n');
}
