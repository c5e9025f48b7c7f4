//! `ocelli profile`: service times, measured at length and kept.

use crate::cli::run::{decoders, open_backend, open_pool, seconds, stay_shallow, verify};
use crate::cli::{Exit, Failure, say};
use clap::Args;
use ocelli::board::Board;
use ocelli::infer::Backend;
use ocelli::platform::Waker;
use ocelli::pool::{FrameRef, Pool};
use ocelli::runtime::{self, Arrangement, Choice, Decodings, Kept, Key, Stored, UnitTimes};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, Args)]
pub(super) struct Measure {
    /// The board file.
    board: PathBuf,
    /// Keep the profile here instead of in /var/lib/ocelli or the user's state folder.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Measure for this many seconds, and longer where 100 batches of each size need it.
    #[arg(long = "for", value_name = "SECONDS", value_parser = seconds, default_value = "30")]
    time: Duration,
}

impl Measure {
    pub(super) fn act(self) -> Result<(), Failure> {
        let board = Board::load(&self.board)?;
        verify(&board)?;
        let path = self.output.or_else(|| Stored::place(&board)).ok_or_else(|| {
            let message = "neither XDG_STATE_HOME nor HOME is set; say --output FILE";
            Failure::new(Exit::CantCreate, message)
        })?;
        // As it will be while it serves.
        let _shallow = stay_shallow(&board)?;
        let mut backend = open_backend(&board, &Arc::default(), &Waker::new())?;
        // What is wrong with a manifest is said as such, before anything is measured.
        decoders(&board, backend.as_ref())?;
        let name = backend.capabilities().name.clone();
        let pool = open_pool(&board, backend.as_ref())?;
        log::info!("measuring the accelerator ({name}), {} s or longer", self.time.as_secs_f64());
        let measured =
            runtime::measure_fully(&board, &pool, backend.as_mut(), self.time).map_err(unmeasurable)?;
        let stored = Stored::new(&board, Key::new(&board, &name), measured);
        stored.save(&path).map_err(|error| Failure::new(Exit::CantCreate, error))?;
        let units = stored.choice(&board).said();
        say(&[Some(table(&stored)), units].into_iter().flatten().collect::<Vec<_>>().join("\n"))?;
        log::info!("kept in {}", path.display());
        Ok(())
    }
}

/// What is used by the profile that is asked for, or else by the one that is kept, with its file's name, if it is of this
/// board, device and backend. A kept one that is not is named, and left alone.
///
/// # Errors
/// When the profile that is asked for is foreign or unreadable.
pub(super) fn kept(
    board: &Board,
    asked: Option<PathBuf>,
    backend: &dyn Backend<FrameRef>,
) -> Result<Option<(Choice, PathBuf)>, Failure> {
    let must = asked.is_some();
    let Some(path) = asked.or_else(|| Stored::find(board)) else {
        return Ok(None);
    };
    let here = Key::new(board, &backend.capabilities().name);
    let why = match Stored::load(&path) {
        Err(why) => why,
        Ok(stored) => match stored.key.differences(&here).as_slice() {
            [] => {
                log::info!("profile {}", path.display());
                return Ok(Some((stored.choice(board), path)));
            }
            differences => {
                format!("{}: a profile of something else: {}", path.display(), differences.join("; "))
            }
        },
    };
    let message = format!("{why}; measure this board's with \"ocelli profile\"");
    if must {
        return Err(Failure::new(Exit::Config, message));
    }
    log::warn!("{message}; a provisional one is measured now");
    Ok(None)
}

/// What is used by a profile measured in a few seconds, good for a first plan.
pub(super) fn provisional(
    board: &Board,
    pool: &Pool,
    backend: &mut dyn Backend<FrameRef>,
    stop: impl FnMut() -> bool,
) -> Result<Choice, Failure> {
    decoders(board, backend)?;
    log::info!("measuring the accelerator ({}), a few seconds", backend.capabilities().name);
    runtime::measure(board, pool, backend, stop).map_err(unmeasurable)
}

/// That there are no service times, and why.
fn unmeasurable(why: String) -> Failure {
    Failure::new(Exit::Unavailable, format!("the accelerator can't be measured: {why}"))
}

/// Milliseconds for people.
fn table(stored: &Stored) -> String {
    let mut text = format!("{}, {} ({})", stored.key.device, stored.key.backend, stored.key.settings);
    for Kept { units: Arrangement(units), .. } in &stored.arrangements {
        let names: Vec<&str> = units.iter().map(|unit| unit.unit.as_str()).collect();
        for UnitTimes { unit, services, .. } in units {
            for (model, table) in stored.key.models.iter().zip(services) {
                let _ = write!(text, "\nmodel {}, {}", model.id, model.frames);
                if stored.arrangements.len() > 1 {
                    let _ = write!(text, "; {unit}, at work: {}", names.join(", "));
                }
                let _ = write!(text, "\n batch   runs    p50 ms    p99 ms  p99.9 ms    max ms");
                for timing in table {
                    let _ = write!(text, "\n{:6} {:6}", timing.jobs, timing.runs);
                    for ns in [timing.p50_ns, timing.p99_ns, timing.p99_9_ns, timing.max_ns] {
                        let _ = write!(text, " {:9.3}", ns as f64 / 1e6);
                    }
                }
            }
        }
    }
    for (model, Decodings { empty, crowd }) in stored.key.models.iter().zip(&stored.decodings) {
        let _ = write!(text, "\nmodel {}, decoding a frame's results", model.id);
        let _ = write!(text, "\n   seen   runs    p50 ms    p90 ms    p99 ms    max ms");
        for (seen, timing) in [("nothing", empty), ("a crowd", crowd)] {
            let _ = write!(text, "\n{seen} {:5}", timing.runs);
            for ns in [timing.p50_ns, timing.p90_ns, timing.p99_ns, timing.max_ns] {
                let _ = write!(text, " {:9.3}", ns as f64 / 1e6);
            }
        }
    }
    text
}
