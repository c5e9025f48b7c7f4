//! `ocelli plan`: what fits on a board, and what would.

use crate::cli::profile::{kept, provisional};
use crate::cli::run::{open_backend, open_pool, stay_shallow, verify};
use crate::cli::{Exit, Failure, say};
use clap::{Args, ValueEnum};
use ocelli::board::{Board, MAX_STREAMS};
use ocelli::platform::Waker;
use ocelli::runtime::Choice;
use ocelli::sched::{Plan, Planned, Protection, Releases, Schedule};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, Args)]
pub(super) struct Ask {
    /// The board file.
    board: PathBuf,
    /// How the plan is printed.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Plan with this profile instead of the one that is kept.
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    /// What if there were one more stream like this one (may be repeated).
    #[arg(long, value_name = "STREAM")]
    add: Vec<String>,
    /// What if all streams had this latency bound in milliseconds.
    #[arg(long, value_name = "MS", value_parser = millis)]
    bound: Option<Duration>,
    /// What if all streams had this many frames per second.
    #[arg(long, value_name = "N", value_parser = period)]
    fps: Option<Duration>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// The longest bound and period that a board may have.
const LONGEST: f64 = 3_600_000.0;

pub(super) fn millis(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(ms) if ms > 0.001 && ms <= LONGEST => Ok(Duration::from_secs_f64(ms / 1e3)),
        _ => Err(format!("{text:?} is not a time in milliseconds; say for example 100 or 33.3")),
    }
}

fn period(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(fps) if fps > 1e3 / LONGEST && fps <= 1e3 => Ok(Duration::from_secs_f64(1.0 / fps)),
        _ => Err(format!("{text:?} is not a rate in frames per second; say for example 30 or 12.5")),
    }
}

impl Ask {
    pub(super) fn act(self) -> Result<(), Failure> {
        let mut board = Board::load(&self.board)?;
        verify(&board)?;
        self.suppose(&mut board)?;
        let mut backend = open_backend(&board, &Arc::default(), &Waker::new())?;
        let (choice, path) = match kept(&board, self.profile, backend.as_ref())? {
            Some((choice, path)) => (choice, Some(path)),
            None => {
                let _shallow = stay_shallow(&board)?;
                let pool = open_pool(&board, backend.as_ref())?;
                (provisional(&board, &pool, backend.as_mut(), || false)?, None)
            }
        };
        let plan = Plan::new(&board, &choice.profile);
        say(&match self.format {
            Format::Table => table(&plan, &choice, path.is_some()),
            Format::Json => format!("{:#}", to_json(&plan, &choice, path.as_deref())),
        })?;
        // The answer to "would it run": as a run would give it.
        Schedule::admit(&board, choice.profile).map_err(|refusal| Failure::new(Exit::Config, refusal))?;
        Ok(())
    }

    /// Makes the board what is asked about.
    fn suppose(&self, board: &mut Board) -> Result<(), Failure> {
        for id in &self.add {
            let Some(stream) = board.streams.iter().find(|stream| stream.id == *id) else {
                let known: Vec<&str> = board.streams.iter().map(|stream| stream.id.as_str()).collect();
                let message =
                    format!("--add {id}: the board has no such stream; it has {}", known.join(", "));
                return Err(Failure::new(Exit::Usage, message));
            };
            if board.streams.len() == MAX_STREAMS {
                let message = format!("--add {id}: a board has at most {MAX_STREAMS} streams");
                return Err(Failure::new(Exit::Usage, message));
            }
            let mut stream = stream.clone();
            stream.id = format!("{id}+{}", board.streams.len() + 1);
            board.streams.push(stream);
        }
        for stream in &mut board.streams {
            stream.latency_bound = self.bound.unwrap_or(stream.latency_bound);
            stream.period = self.fps.unwrap_or(stream.period);
        }
        Ok(())
    }
}

/// Whole microseconds, rounded up: a response is not promised shorter than it may be.
fn micros_up(d: Duration) -> u64 {
    u64::try_from(d.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX)
}

/// Whole microseconds, rounded down: slack is not promised longer than it is.
fn micros_down(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
}

fn to_json(plan: &Plan, choice: &Choice, kept: Option<&Path>) -> Value {
    let streams = plan.streams.iter().map(|Planned { id, response }| match response {
        Ok((response, slack)) => json!({
            "id": id,
            "worst_response_us": micros_up(*response),
            "slack_us": micros_down(*slack),
        }),
        Err(lack) => {
            json!({ "id": id, "worst_response_us": null, "slack_us": null, "lack": lack.to_string() })
        }
    });
    let remedy = plan.remedy.as_ref().map(|remedy| {
        json!({
            "give_up": remedy.give_up,
            "slow_down_to_fps": remedy.slow_down,
            "latency_bound_ms": remedy.bound,
        })
    });
    let arrangements = choice.candidates.iter().enumerate().map(|(index, candidate)| {
        json!({
            "units": candidate.units,
            "used": index == choice.used,
            "max_streams": candidate.fits.max_streams,
            "upper_bound": candidate.fits.upper_bound,
        })
    });
    json!({
        "admitted": plan.admitted,
        "provisional": kept.is_none(),
        "profile": kept,
        "releases": plan.releases.as_str(),
        "max_streams": plan.max_streams,
        "equal_groups": plan.groups.map(|(groups, streams)| json!({ "groups": groups, "streams": streams })),
        "upper_bound": plan.upper_bound,
        "critical_certain": plan.protection.as_ref().map(|found| *found != Protection::Uncertain),
        "blocking_us": match &plan.protection {
            Some(Protection::Certain { blocking, .. }) => Some(micros_down(*blocking)),
            Some(Protection::Uncertain) | None => None,
        },
        "streams": streams.collect::<Vec<_>>(),
        "arrangements": arrangements.collect::<Vec<_>>(),
        "remedy": remedy,
    })
}

fn table(plan: &Plan, choice: &Choice, kept: bool) -> String {
    let ms = |micros: u64| micros as f64 / 1e3;
    let width = plan.streams.iter().map(|stream| stream.id.len()).max().unwrap_or(0).max("stream".len());
    let mut text = format!("{:width$}  worst response ms   slack ms", "stream");
    for Planned { id, response } in &plan.streams {
        let _ = match response {
            Ok((response, slack)) => {
                let (response, slack) = (ms(micros_up(*response)), ms(micros_down(*slack)));
                write!(text, "\n{id:width$}  {response:17.3} {slack:10.3}")
            }
            Err(lack) => write!(text, "\n{id:width$}  does not fit: {lack}"),
        };
    }
    let fit = plan.streams.iter().filter(|stream| stream.response.is_ok()).count();
    let _ = write!(
        text,
        "\n{fit} of {} streams fit; of streams like these: {} guaranteed, more than {} impossible",
        plan.streams.len(),
        plan.max_streams,
        plan.upper_bound
    );
    if plan.releases != Releases::Free {
        let _ = write!(text, "; releases {}", plan.releases.as_str());
    }
    if let Some(units) = choice.said() {
        let _ = write!(text, "\n{units}");
    }
    if let Some(untimed) = plan.untimed {
        let stream = plan.streams.get(untimed.stream()).map_or("", |stream| stream.id.as_str());
        let _ = write!(text, "\ntriggers count for nothing here: {stream} {untimed}; planned for any phases");
    }
    if let Some((groups, streams)) = plan.groups {
        let _ = match groups {
            1 => write!(text, "\nall on one trigger: {streams} would fit"),
            _ => write!(text, "\nwith {groups} triggers, a period / {groups} apart: {streams} would fit"),
        };
    }
    match &plan.protection {
        Some(Protection::Certain { blocking, waiting }) => {
            let blocking = ms(micros_down(*blocking));
            let _ =
                write!(text, "\ncritical streams are safe behind batches of others of at most {blocking} ms");
            if !waiting.is_empty() {
                let until =
                    if kept { "while the guarantee is withdrawn" } else { "until a profile is measured" };
                let waiting = waiting.join(", ");
                let _ = write!(text, "; a single frame takes longer and is not served {until}: {waiting}");
            }
        }
        Some(Protection::Uncertain) => {
            text.push_str("\ncritical streams come first, but are not certain to be in time, even alone");
        }
        None => {}
    }
    if let Some(remedy) = &plan.remedy {
        let _ = write!(text, "\nto make all fit, one of: give up {}", remedy.give_up.join(", "));
        if let Some(fps) = remedy.slow_down {
            let _ = write!(text, "; slow these down to {fps} fps");
        }
        if let Some(bound) = remedy.bound {
            let _ = write!(text, "; give all a latency bound of {bound} ms");
        }
    }
    if !kept {
        text.push_str("\nprovisional: no guarantee; measure a profile with \"ocelli profile\"");
    }
    text
}
