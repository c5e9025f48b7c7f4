//! `ocelli bench`: how many streams like the board's are in time.

use crate::cli::plan::millis;
use crate::cli::run::{ask_realtime, open_backend, open_pool, seconds, stay_shallow, verify, versions};
use crate::cli::{Exit, Failure, say};
use clap::{Args, ValueEnum};
use ocelli::bench::report::{self, Circumstances};
use ocelli::bench::{self, Opened, Percentile, Releases, Settings, Sources, Trouble, chart};
use ocelli::board::{Board, MAX_STREAMS};
use ocelli::platform::Waker;
use ocelli::runtime::Host;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, Args)]
pub(super) struct Bench {
    /// The board file: streams are made like its own, in their order and again from the start.
    board: PathBuf,
    /// The share of all captured frames, and of each stream's, that must be in time.
    #[arg(long, value_enum, default_value = "p99.9")]
    percentile: PercentileName,
    /// Measure as if all streams had this latency bound in milliseconds.
    #[arg(long, value_name = "MS", value_parser = millis)]
    bound: Option<Duration>,
    /// When frames are released.
    #[arg(long, value_enum, default_value = "staggered")]
    releases: ReleasesName,
    /// Where frames come from.
    #[arg(long, value_enum, default_value = "memory")]
    sources: SourcesName,
    /// Seed of what is drawn.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    seed: u64,
    /// Length of a probe; longer where the percentile needs more frames.
    #[arg(long = "for", value_name = "SECONDS", value_parser = seconds, default_value = "5")]
    time: Duration,
    /// Confirmation runs at the number found, all of which must pass.
    #[arg(long, value_name = "RUNS", default_value_t = 3)]
    confirm: usize,
    /// Length of a confirmation run; by default so long that the percentile means something for each stream.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    confirm_for: Option<Duration>,
    /// Time to measure the accelerator, and again for the bare loop; longer where 10 batches of each size
    /// need it.
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "5")]
    profile_for: Duration,
    /// Times that a run is repeated that was not in time while its sources alone were late.
    #[arg(long, value_name = "TIMES", default_value_t = 3)]
    retries: usize,
    /// Try no more streams than this.
    #[arg(long, value_name = "STREAMS", default_value_t = MAX_STREAMS, value_parser = most)]
    most: usize,
    /// Measure finer than one stream: raise the rate of all at the number found.
    #[arg(long)]
    finer: bool,
    /// Leave out the runs at 1.5 and 2 times the number found.
    #[arg(long)]
    no_overload: bool,
    /// How the result is printed.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Write latency over streams as a chart (SVG), with runs at fractions of the number found.
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PercentileName {
    /// 99 of 100.
    #[value(name = "p99")]
    P99,
    /// 999 of 1000.
    #[value(name = "p99.9")]
    P99_9,
    /// All of them.
    Max,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ReleasesName {
    /// Evenly over the period.
    Staggered,
    /// All at once, on one hardware trigger.
    Aligned,
    /// On two hardware triggers half a period apart, in turns.
    Groups,
    /// Anywhere in the period, drawn from the seed.
    Random,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SourcesName {
    /// Frames that lie in memory, of the board's sizes, formats and periods.
    Memory,
    /// The board's own sources, decoders and all.
    Board,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

fn most(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(streams) if (1..=MAX_STREAMS).contains(&streams) => Ok(streams),
        _ => Err(format!("{text:?} is not a number of streams from 1 to {MAX_STREAMS}")),
    }
}

/// Why there is no result to print.
struct Stopped(Failure);

impl From<Trouble> for Stopped {
    fn from(trouble: Trouble) -> Self {
        Self(Failure::new(
            match trouble {
                Trouble::Accelerator(_) => Exit::Unavailable,
                Trouble::Model(_) => Exit::Data,
                Trouble::Thread(_) | Trouble::Died => Exit::Internal,
            },
            trouble,
        ))
    }
}

impl Bench {
    pub(super) fn act(self) -> Result<(), Failure> {
        let mut board = Board::load(&self.board)?;
        for stream in &mut board.streams {
            stream.latency_bound = self.bound.unwrap_or(stream.latency_bound);
        }
        board.warnings.iter().for_each(|warning| log::warn!("{warning}"));
        verify(&board)?;
        let chart = self.chart.as_deref().map(create).transpose()?;
        ask_realtime(&board)?;
        let _shallow = stay_shallow(&board)?;
        let settings = self.settings();
        let mut accelerator = String::new();
        let mut open = |board: &Board, waker: &Waker| {
            let backend = open_backend(board, &Arc::default(), waker).map_err(Stopped)?;
            accelerator.clone_from(&backend.capabilities().name);
            let pool = open_pool(board, backend.as_ref()).map_err(Stopped)?;
            Ok(Opened { backend, pool })
        };
        let found = bench::measure(&board, &settings, &mut open, &mut |probe| {
            log::info!("{}", report::line(probe));
        })
        .map_err(|Stopped(failure)| failure)?;
        let host = Host { versions: versions(), ..Host::default() };
        let at = Circumstances { accelerator, host, load_average: load_average() };
        say(&match self.format {
            Format::Table => report::table(&board, &settings, &found, &at),
            Format::Json => format!("{:#}", report::to_json(&board, &settings, &found, &at)),
        })?;
        if let Some((mut file, path)) = chart {
            let text = chart::svg(&board, &found);
            std::io::Write::write_all(&mut file, text.as_bytes())
                .map_err(|error| Failure::new(Exit::Incomplete, format!("{}: {error}", path.display())))?;
        }
        found.invalid.map_or(Ok(()), |why| Err(Failure::new(Exit::Disturbed, why)))
    }

    fn settings(&self) -> Settings {
        Settings {
            percentile: match self.percentile {
                PercentileName::P99 => Percentile::P99,
                PercentileName::P99_9 => Percentile::P99_9,
                PercentileName::Max => Percentile::Max,
            },
            releases: match self.releases {
                ReleasesName::Staggered => Releases::Staggered,
                ReleasesName::Aligned => Releases::Aligned,
                ReleasesName::Groups => Releases::Groups,
                ReleasesName::Random => Releases::Random,
            },
            sources: match self.sources {
                SourcesName::Memory => Sources::Memory,
                SourcesName::Board => Sources::Board,
            },
            seed: self.seed,
            probe: self.time,
            confirmations: self.confirm,
            confirmation: self.confirm_for,
            profile: self.profile_for,
            retries: self.retries,
            most: self.most,
            finer: self.finer,
            overload: !self.no_overload,
            sweep: self.chart.is_some(),
        }
    }
}

/// Creates the chart's file now: what can't be written at the end should fail before minutes of measuring.
fn create(path: &Path) -> Result<(std::fs::File, PathBuf), Failure> {
    let remedy = "name a file in a folder that exists and may be written";
    let refused =
        |error| Failure::new(Exit::CantCreate, format!("--chart {}: {error}; {remedy}", path.display()));
    Ok((std::fs::File::create(path).map_err(refused)?, path.to_owned()))
}

/// Over 1, 5 and 15 minutes.
fn load_average() -> Option<[f64; 3]> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    let mut fields = text.split_ascii_whitespace().map(str::parse);
    Some([fields.next()?.ok()?, fields.next()?.ok()?, fields.next()?.ok()?])
}
