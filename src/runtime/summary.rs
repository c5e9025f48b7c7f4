//! What a run amounts to: the ledger of every stream, latencies, copies, losses.

use crate::board::Board;
use crate::cause::MissCause;
use crate::job::DropReason;
use crate::pipeline::{CertificateTotals, Pipeline, StreamTotals};
use crate::publish::SinkReport;
use crate::publish::pictures::PicturesReport;
use crate::runtime::Interventions;
use crate::stats::{Copies, CopyStage, Histogram, Ledger};
use crate::stream::StreamState;
use crate::watchdog::Rung;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Key of records that could not be kept until their turn; no output may have such a name.
const OUT_OF_ORDER: &str = "(order)";
/// Schema version of the summary.
const VERSION: u32 = 1;

/// What a run stood on, and what was before it.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Name and version of each part.
    pub versions: Vec<(String, String)>,
    /// What is known of the run and the machine before; null where nobody asked.
    pub before: Value,
}

/// A run that has ended.
pub struct Finished {
    board: Arc<Board>,
    streams: Vec<StreamTotals>,
    utilisation: f64,
    provisional: bool,
    certificate: CertificateTotals,
    batches: crate::pipeline::BatchTotals,
    last_fault: Option<String>,
    copied: Vec<(CopyStage, u64)>,
    pub(super) outputs: Vec<SinkReport>,
    pub(super) pictures: Option<PicturesReport>,
    duration: Duration,
    /// Nanoseconds since 1970 at its end; a simulation has none.
    pub(super) ended_wall: Option<u64>,
    /// Cameras whose thread did not come back; their last frames may be missing here. And what else did not.
    pub stuck: Vec<String>,
    pub(super) interventions: Interventions,
    /// What the sensors said last, as the summary has it.
    pub(super) sensed: Option<Value>,
}

impl Finished {
    /// What a heart has come to after `duration`, on whatever clock, without outputs.
    pub(crate) fn new<P>(
        board: Arc<Board>,
        heart: &Pipeline<P>,
        copies: &Copies,
        duration: Duration,
    ) -> Self {
        Self {
            streams: heart.totals().cloned().collect(),
            utilisation: heart.schedule().utilisation(),
            provisional: heart.schedule().is_provisional(),
            certificate: heart.certificate(),
            batches: heart.batches().clone(),
            last_fault: heart.last_fault().map(|fault| fault.as_str().to_owned()),
            copied: CopyStage::ALL.into_iter().map(|stage| (stage, copies.bytes(stage))).collect(),
            board,
            outputs: Vec::new(),
            pictures: None,
            duration,
            ended_wall: None,
            stuck: Vec::new(),
            interventions: Interventions::default(),
            sensed: None,
        }
    }

    /// All streams together.
    #[must_use]
    pub fn total(&self) -> Ledger {
        let mut total = Ledger::default();
        self.streams.iter().for_each(|stream| total.add(&stream.ledger));
        total
    }

    /// Late frames of all streams by cause.
    #[must_use]
    pub fn causes(&self) -> [u64; MissCause::ALL.len()] {
        let mut total = [0; MissCause::ALL.len()];
        for stream in &self.streams {
            total.iter_mut().zip(stream.causes).for_each(|(total, late)| *total += late);
        }
        total
    }

    /// Each stream's totals, in the board's order.
    #[must_use]
    pub fn streams(&self) -> &[StreamTotals] {
        &self.streams
    }

    /// What became of each output, in the board's order.
    #[must_use]
    pub fn outputs(&self) -> &[SinkReport] {
        &self.outputs
    }

    /// What became of the pictures, where they were asked for.
    #[must_use]
    pub fn pictures(&self) -> Option<&PicturesReport> {
        self.pictures.as_ref()
    }

    /// What became of the guarantee.
    #[must_use]
    pub fn certificate(&self) -> CertificateTotals {
        self.certificate
    }

    /// What the supervisor did.
    #[must_use]
    pub fn interventions(&self) -> Interventions {
        self.interventions
    }

    /// Latencies of all streams.
    #[must_use]
    pub fn latency(&self) -> Histogram {
        let mut all = Histogram::default();
        self.streams.iter().for_each(|stream| all.add(&stream.latency));
        all
    }

    /// The summary as JSON.
    #[must_use]
    pub fn to_json(&self, host: &Host) -> Value {
        let streams: Vec<Value> = self
            .board
            .streams
            .iter()
            .zip(&self.streams)
            .map(|(stream, totals)| {
                let mut entry = Map::new();
                entry.insert("id".into(), json!(stream.id));
                entry.insert("state".into(), json!(totals.state.as_str()));
                if !totals.cause.is_empty() {
                    entry.insert("cause".into(), json!(totals.cause.as_str()));
                }
                entry.insert("failures".into(), json!(totals.failures));
                entry.insert("period_us".into(), json!(micros(stream.period)));
                entry.insert("latency_bound_us".into(), json!(micros(stream.latency_bound)));
                let on_rung = Rung::ALL.iter().zip(totals.on_rung).filter(|&(_, frames)| frames > 0);
                let on_rung: Map<String, Value> =
                    on_rung.map(|(rung, frames)| (rung.state().as_str().to_owned(), json!(frames))).collect();
                entry.insert("ladder".into(), json!({"changes": totals.rung_changes, "frames": on_rung}));
                entry.extend(account(&totals.ledger, &totals.causes, &totals.latency));
                Value::Object(entry)
            })
            .collect();
        let records_lost: u64 = self.streams.iter().map(|stream| stream.records_lost).sum();
        let mut results_lost: Map<String, Value> =
            self.outputs.iter().map(|sink| (sink.name.clone(), json!(sink.lost))).collect();
        results_lost.insert(OUT_OF_ORDER.into(), json!(records_lost));
        let copied: Map<String, Value> =
            self.copied.iter().map(|(stage, bytes)| (stage.as_str().into(), json!(bytes))).collect();
        let versions: Map<String, Value> =
            host.versions.iter().map(|(name, version)| (name.clone(), json!(version))).collect();
        json!({
            "v": VERSION,
            "board": self.board.name,
            "hash": self.board.digest,
            "duration_us": micros(self.duration),
            "ended_wall_ns": self.ended_wall,
            "admission": {
                "provisional": self.provisional,
                "utilisation": rounded(self.utilisation),
            },
            "certificate": {
                "holds": self.certificate.holds,
                "streams": self.certificate.streams,
                "revoked": self.certificate.revoked,
            },
            "total": Value::Object(account(&self.total(), &self.causes(), &self.latency())),
            "streams": streams,
            "batches": {
                "count": self.batches.batches,
                "jobs": self.batches.jobs,
                "faults": self.batches.faults,
                "last_fault": self.last_fault,
                "service_us": quantiles(&self.batches.service),
            },
            "copied_bytes": copied,
            "copied_bytes_note": "decoder_estimated is an estimate: one frame for each frame that a decoder copies inside",
            "results_lost": results_lost,
            "outputs": self.outputs.iter().map(|sink| json!({
                "name": sink.name,
                "written": sink.written,
                "lost": sink.lost,
                "error": sink.error,
            })).collect::<Vec<_>>(),
            "pictures": self.pictures.as_ref().map(|pictures| json!({
                "written": pictures.written,
                "skipped": pictures.skipped,
                "failed": pictures.failed,
                "error": pictures.error,
            })),
            "supervision": {
                "captures_given_up": self.interventions.captures_given_up,
                "captures_replaced": self.interventions.captures_replaced,
                "captures_quarantined": self.interventions.captures_quarantined,
                "accelerators_given_up": self.interventions.accelerators_given_up,
                "accelerators_replaced": self.interventions.accelerators_replaced,
                "threads_stuck": self.interventions.threads_stuck,
                "outputs_stuck": self.interventions.outputs_stuck,
                "pauses": self.interventions.pauses,
            },
            "telemetry": self.sensed,
            "stuck": self.stuck,
            "before": host.before,
            "versions": versions,
        })
    }

    /// Names of streams that are down at the end, or never came up.
    #[must_use]
    pub fn down(&self) -> Vec<&str> {
        let down = |state| matches!(state, StreamState::Down | StreamState::Starting);
        let pairs = self.board.streams.iter().zip(&self.streams);
        pairs.filter(|(_, totals)| down(totals.state)).map(|(stream, _)| stream.id.as_str()).collect()
    }
}

fn account(ledger: &Ledger, causes: &[u64; MissCause::ALL.len()], latency: &Histogram) -> Map<String, Value> {
    let dropped: Map<String, Value> = DropReason::ALL
        .into_iter()
        .filter(|reason| ledger.dropped[reason.index()] > 0)
        .map(|reason| (reason.as_str().into(), json!(ledger.dropped[reason.index()])))
        .collect();
    let mut entry = Map::new();
    entry.insert("captured".into(), json!(ledger.captured));
    entry.insert("met".into(), json!(ledger.met));
    entry.insert("late".into(), json!(ledger.late));
    let late = MissCause::ALL.into_iter().filter(|cause| causes[cause.index()] > 0);
    let late = late.map(|cause| (cause.as_str().into(), json!(causes[cause.index()])));
    entry.insert("late_by_cause".into(), Value::Object(late.collect()));
    entry.insert("dropped".into(), Value::Object(dropped));
    entry.insert("in_flight".into(), json!(ledger.in_flight));
    entry.insert("latency_us".into(), quantiles(latency));
    entry
}

/// Null where there is nothing to tell.
fn quantiles(latency: &Histogram) -> Value {
    let at = |quantile| latency.quantile(quantile).map(micros);
    json!({
        "p50": at(0.5),
        "p99": at(0.99),
        "p99_9": at(0.999),
        "max": latency.max().map(micros),
    })
}

pub(super) fn micros(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
}

fn rounded(x: f64) -> f64 {
    (x * 1e4).round() / 1e4
}
