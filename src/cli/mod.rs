//! What can be asked for, and how it can end.

mod bench;
mod cameras;
mod engine;
mod guards;
mod plan;
mod profile;
mod run;
mod sim;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use ocelli::board::{self, Board};
use ocelli::config::{Kind, Problems};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

/// Exit codes, after sysexits.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Wrong arguments.
    Usage = 64,
    /// A model that can't be used.
    Data = 65,
    /// A file that isn't there.
    NoInput = 66,
    /// Not one camera, or no accelerator.
    Unavailable = 69,
    /// A defect of ours.
    Internal = 70,
    /// The system refused what the board requires.
    Refused = 71,
    /// An output can't be created.
    CantCreate = 73,
    /// An output is incomplete.
    Incomplete = 74,
    /// The machine was too busy for a measurement; it may work later.
    Disturbed = 75,
    /// We may not use what is there.
    Forbidden = 77,
    /// The board can't run as it is written.
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed.
#[derive(Debug)]
pub struct Failure {
    /// The process's exit code.
    pub exit: Exit,
    /// What to tell; empty when everything has been said.
    pub message: String,
}

impl Failure {
    fn new(exit: Exit, message: impl ToString) -> Self {
        Self { exit, message: message.to_string() }
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::new(exit_of(problems.kind()), problems)
    }
}

/// The exit code for what is wrong with a text.
fn exit_of(kind: Kind) -> Exit {
    match kind {
        Kind::MissingInput => Exit::NoInput,
        Kind::Model => Exit::Data,
        Kind::Board => Exit::Config,
    }
}

/// Many cameras, one accelerator, every result before its deadline.
///
/// Ocelli pulls frames from the cameras that a board file names, batches them into a detector and publishes
/// every result within the stream's latency bound of capture, or says which frame was lost and why.
#[derive(Debug, Parser)]
#[command(name = "ocelli", version = VERSION, long_version = long_version(), max_term_width = 100)]
#[command(after_help = EXIT_CODES)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("OCELLI_COMMIT"), ")");

const EXIT_CODES: &str = "\
Exit codes:
   0  an orderly end, also with streams down (the summary names them)
  64  wrong arguments                   65  a model that can't be used
  66  a file that isn't there           69  no camera or no accelerator could be opened
  70  a defect of ocelli                71  the system refused what the board requires
  73  an output can't be created        74  an output is incomplete
  75  the machine was too busy to measure  77  no permission for a single camera
  78  the board can't run as written

OCELLI_LOG=error|warn|info|debug sets how much is said on standard error (info).";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a board until it is stopped (Ctrl-C, SIGTERM), its videos end, or its time is up.
    Run(run::Run),
    /// Run a board on a virtual clock, without cameras and accelerator: hours in seconds, the same each time.
    Sim(sim::Sim),
    /// Measure how long the board's accelerator takes for each batch size, and keep it: admission's ground.
    Profile(profile::Measure),
    /// Tell which streams are certain to be in time, how many could be, and what to change.
    Plan(plan::Ask),
    /// Find out how many streams like the board's are in time, on real threads and the board's accelerator.
    Bench(bench::Bench),
    /// Show the cameras that are plugged in, what they offer, and lines for a board file.
    Cameras(cameras::Cameras),
    /// Build, look at and verify the plans of a board with TensorRT.
    #[command(subcommand)]
    Engine(engine::Engine),
    /// Check board files without opening any device, and show what they resolve to.
    Check {
        /// Board files.
        #[arg(required = true)]
        boards: Vec<PathBuf>,
    },
    /// Print the JSON Schema of board files, for editors; or of another kind of file.
    Schema {
        /// Which file's schema.
        #[arg(value_enum, default_value = "board")]
        of: SchemaOf,
    },
    /// Print completions for a shell.
    Completions {
        /// Which shell.
        shell: Shell,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SchemaOf {
    /// Board files (boards/*.toml).
    Board,
    /// Model manifests (models/*.toml).
    Model,
    /// Scenario files (boards/scenarios/*.toml).
    Scenario,
    /// A line of the results.
    Results,
}

impl Arguments {
    /// Does what was asked for.
    pub fn act(self) -> Result<(), Failure> {
        match self.command {
            Command::Run(run) => run.act(),
            Command::Sim(sim) => sim.act(),
            Command::Profile(measure) => measure.act(),
            Command::Plan(ask) => ask.act(),
            Command::Bench(bench) => bench.act(),
            Command::Cameras(cameras) => cameras.act(),
            Command::Engine(engine) => engine.act(),
            Command::Check { boards } => check(&boards),
            Command::Schema { of } => {
                let schema = match of {
                    SchemaOf::Board => format!("{:#}", board::schema()),
                    SchemaOf::Model => format!("{:#}", ocelli::model::schema()),
                    SchemaOf::Scenario => format!("{:#}", ocelli::sim::schema()),
                    SchemaOf::Results => ocelli::publish::schema(),
                };
                say(schema.trim_end())
            }
            Command::Completions { shell } => {
                let mut text = Vec::new();
                clap_complete::generate(shell, &mut Self::command(), "ocelli", &mut text);
                say(String::from_utf8_lossy(&text).trim_end())
            }
        }
    }
}

/// Checks every board, tells of all problems, and fails with the first one's code.
fn check(boards: &[PathBuf]) -> Result<(), Failure> {
    let mut first = None;
    for path in boards {
        match Board::load(path).map_err(Failure::from).and_then(|board| {
            run::verify(&board)?;
            Ok(board)
        }) {
            Ok(board) => {
                let mut text = format!("{}: ok\n{board}", path.display());
                for warning in &board.warnings {
                    let _ = write!(text, "\nwarning: {warning}");
                }
                say(text.trim_end())?;
            }
            Err(failure) => {
                log::error!("{}", failure.message);
                first.get_or_insert(failure.exit);
            }
        }
    }
    first.map_or(Ok(()), |exit| Err(Failure::new(exit, "")))
}

/// Writes to standard output; a reader that has gone is no error.
fn say(text: &str) -> Result<(), Failure> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Incomplete, format!("standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Versions of ocelli and of the libraries it stands on.
fn long_version() -> String {
    let mut text = VERSION.to_owned();
    for (name, version) in run::versions().into_iter().skip(1) {
        let _ = write!(text, "\n{name} {version}");
    }
    text
}
