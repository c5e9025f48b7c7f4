//! Results as text: one JSON object a line.
//!
//! Every line carries the schema's version (`"v":1`) and its `type`:
//!
//! | type | when | what |
//! |---|---|---|
//! | `header` | first in every file and connection | the board, its streams, models and sets, a pair of clock readings |
//! | `frame` | once for every captured frame that reached the heart | times, outcome, detections |
//! | `set` | once for every closed set | its members' results, or why there are none |
//! | `event` | when a stream changes its state | the new state and the cause |
//! | `certificate` | when the guarantee is given or withdrawn | whether it stands, for how many streams, why |
//! | `supervision` | when the supervisor saw that something does not work, or healed it | what, and why |
//! | `lost` | before the next line, when records are missing from this output | how many |
//!
//! Rules that readers may rely on: every key is always there, `null` where it does not apply, so an empty
//! list of detections ("looked and saw nothing") can't be taken for `null` ("did not look"). Keys ending in
//! `_ns` of one kind, `captured_ns`, `finished_ns`, `at_ns`, `instant_ns` and `monotonic_ns`, are nanoseconds
//! of `CLOCK_MONOTONIC` and may be subtracted from each other; `wall_ns` is nanoseconds since 1970, sampled
//! once when the record was handed to the output, right after `finished_ns`, and may jump. Latencies are
//! rounded up to whole microseconds, so that a miss by a nanosecond is no zero. New keys and new types may
//! come within a version; a key that changes its meaning makes a new version.

use crate::board::Board;
use crate::cause::MissCause;
use crate::detection::Detection;
use crate::job::{DropReason, Outcome};
use crate::publish::recent::Recent;
use crate::record::{
    Action, Certificate, Event, Intervention, Message, Missing, Record, Scope, Served, SetRecord,
};
use crate::stream::{Criticality, ModelId, StreamId, StreamState};
use crate::time::Instant;
use schemars::JsonSchema;
use serde::Serialize;
use std::borrow::Cow;
use std::time::Duration;

/// Version of the schema.
pub const VERSION: u8 = 1;

/// The JSON Schema of a line of results.
#[must_use]
pub fn schema() -> String {
    let schema = schemars::schema_for!(Line);
    serde_json::to_string_pretty(&schema).expect("a schema is plain data")
}

/// Appends the line that starts a file or connection. `monotonic` and `wall` were read together.
pub(crate) fn header(out: &mut Vec<u8>, board: &Board, version: &str, monotonic: Instant, wall: u64) {
    let streams = board.streams.iter().map(|stream| StreamLine {
        id: &stream.id,
        model: model_id(board, stream.model),
        period_us: ceil_us(stream.period),
        latency_bound_us: ceil_us(stream.latency_bound),
        criticality: stream.criticality,
        width: stream.width,
        height: stream.height,
    });
    let models = board.models.iter().map(|model| ModelLine {
        id: &model.id,
        sha256: &model.sha256,
        labels: &model.labels,
    });
    let sets = board.sets.iter().map(|set| SetLine {
        id: &set.id,
        streams: set.streams.iter().map(|stream| stream_id(board, *stream)).collect(),
    });
    line(
        out,
        Body::Header(Header {
            ocelli: version,
            board: &board.name,
            digest: &board.digest,
            clock: Clock { monotonic_ns: monotonic.as_nanos(), wall_ns: wall },
            streams: streams.collect(),
            models: models.collect(),
            sets: sets.collect(),
        }),
    );
}

/// Appends the line for one message that was handed to the output at `wall`. `recent` was told of all messages
/// before.
pub(crate) fn message(out: &mut Vec<u8>, board: &Board, recent: &Recent, wall: u64, message: &Message) {
    let body = match message {
        Message::Frame(record) => Body::Frame(Frame::new(board, wall, record)),
        Message::Set(record) => Body::Set(SetClosed::new(board, recent, wall, record)),
        Message::Event(event) => Body::Event(Changed::new(board, wall, event)),
        Message::Certificate(certificate) => Body::Certificate(Certified::new(wall, certificate)),
        Message::Intervention(intervention) => Body::Supervision(Intervened::new(wall, intervention)),
    };
    line(out, body);
}

/// Appends the line that stands for `count` records which this output lost.
pub(super) fn lost(out: &mut Vec<u8>, count: u64) {
    line(out, Body::Lost(Gap { count }));
}

fn line(out: &mut Vec<u8>, body: Body) {
    serde_json::to_writer(&mut *out, &Line { v: VERSION, body }).expect("plain data into memory");
    out.push(b'\n');
}

/// One line of results of ocelli.
#[derive(Serialize, JsonSchema)]
#[schemars(title = "ocelli results, one line")]
struct Line<'a> {
    /// Version of this schema.
    #[schemars(extend("const" = VERSION))]
    v: u8,
    #[serde(flatten)]
    body: Body<'a>,
}

#[derive(Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Body<'a> {
    /// First line of a file or connection.
    Header(Header<'a>),
    /// The end of one captured frame.
    Frame(Frame<'a>),
    /// Results of one instant across cameras.
    Set(SetClosed<'a>),
    /// A stream changed its state.
    Event(Changed<'a>),
    /// The guarantee was given or withdrawn.
    Certificate(Certified<'a>),
    /// The supervisor saw that something does not work, or healed it.
    Supervision(Intervened<'a>),
    /// Records that are missing here, because this output could not take them.
    Lost(Gap),
}

#[derive(Serialize, JsonSchema)]
struct Header<'a> {
    /// Version of ocelli.
    ocelli: &'a str,
    /// Name of the board.
    board: &'a str,
    /// SHA-256 of everything that describes the board.
    digest: &'a str,
    /// Both clocks, read together when the line was written.
    clock: Clock,
    /// The cameras.
    streams: Vec<StreamLine<'a>>,
    /// The networks.
    models: Vec<ModelLine<'a>>,
    /// Cameras whose results belong together.
    sets: Vec<SetLine<'a>>,
}

#[derive(Serialize, JsonSchema)]
struct Clock {
    /// Nanoseconds of CLOCK_MONOTONIC.
    monotonic_ns: u64,
    /// Nanoseconds since 1970.
    wall_ns: u64,
}

#[derive(Serialize, JsonSchema)]
struct StreamLine<'a> {
    /// Name, as in `stream` of other lines.
    id: &'a str,
    /// Its network.
    model: &'a str,
    /// Shortest time between frames.
    period_us: u64,
    /// Results must be out this long after capture.
    latency_bound_us: u64,
    /// How much depends on it.
    criticality: Criticality,
    /// Pixels; boxes are in this frame.
    width: u32,
    /// Pixels; boxes are in this frame.
    height: u32,
}

#[derive(Serialize, JsonSchema)]
struct ModelLine<'a> {
    /// Name, as in `model` of other lines.
    id: &'a str,
    /// SHA-256 of its file.
    sha256: &'a str,
    /// Names of its classes.
    labels: &'a [String],
}

#[derive(Serialize, JsonSchema)]
struct SetLine<'a> {
    /// Name, as in `set` of other lines.
    id: &'a str,
    /// Its members.
    streams: Vec<&'a str>,
}

#[derive(Serialize, JsonSchema)]
struct Frame<'a> {
    /// Which camera.
    stream: &'a str,
    /// The source's frame number; gaps are frames that the source lost.
    sequence: u64,
    /// When it was captured, CLOCK_MONOTONIC.
    captured_ns: u64,
    /// When its record was handed to the outputs, CLOCK_MONOTONIC.
    finished_ns: u64,
    /// Wall clock right after `finished_ns`.
    wall_ns: u64,
    /// From capture to finish; null without a result.
    latency_us: Option<u64>,
    /// Finish minus deadline, negative when early; null without a result.
    lateness_us: Option<i64>,
    /// How it ended.
    #[schemars(extend("enum" = ["met", "late", "dropped"]))]
    outcome: &'static str,
    /// Why it was dropped; null when it was not.
    #[schemars(extend("enum" = reasons()))]
    reason: Option<&'static str>,
    /// Which stage made it late; null when it was not.
    #[schemars(extend("enum" = causes()))]
    cause: Option<&'static str>,
    /// Service of the stream at that moment.
    #[schemars(extend("enum" = states()))]
    state: &'static str,
    /// Age of the stream's last good result before this one; null when there was none.
    last_good_age_us: Option<u64>,
    /// Its network; null without a result.
    model: Option<&'a str>,
    /// Frames in its batch; null without a result.
    batch: Option<u16>,
    /// Where its latency went; the parts add up to `latency_us`. Null without a result.
    timing: Option<Timing>,
    /// What was seen, best score first; null when nobody looked.
    detections: Option<Vec<Seen<'a>>>,
}

#[derive(Serialize, JsonSchema)]
struct Timing {
    /// From capture until it reached the scheduler.
    capture_us: u64,
    /// Waiting for the accelerator.
    queue_us: u64,
    /// On the accelerator, pre-processing included.
    service_us: u64,
    /// Decoding and publishing.
    decode_us: u64,
}

#[derive(Serialize, JsonSchema)]
struct Seen<'a> {
    /// Its class.
    label: Cow<'a, str>,
    /// Confidence, 0 to 1, four digits.
    score: f64,
    /// Left, top, width and height in pixels of the frame, two digits.
    #[serde(rename = "box")]
    frame: [f64; 4],
}

#[derive(Serialize, JsonSchema)]
struct SetClosed<'a> {
    /// Which set.
    set: &'a str,
    /// The earliest capture among the members with a result, CLOCK_MONOTONIC.
    instant_ns: u64,
    /// When the set was closed, CLOCK_MONOTONIC.
    finished_ns: u64,
    /// Wall clock right after `finished_ns`.
    wall_ns: u64,
    /// Latest capture minus earliest capture among the members with a result.
    skew_us: u64,
    /// Whether every member has a result.
    complete: bool,
    /// Every camera of the set.
    members: Vec<Member<'a>>,
}

#[derive(Serialize, JsonSchema)]
struct Member<'a> {
    /// Which camera.
    stream: &'a str,
    /// Its frame; null when none belongs to the instant, or when that was still on its way.
    sequence: Option<u64>,
    /// When its frame was captured, CLOCK_MONOTONIC; null when none belongs to the instant.
    captured_ns: Option<u64>,
    /// How that frame ended.
    #[schemars(extend("enum" = ["met", "late", "dropped", serde_json::Value::Null]))]
    outcome: Option<&'static str>,
    /// Why it was dropped.
    #[schemars(extend("enum" = reasons()))]
    reason: Option<&'static str>,
    /// Why it has no result: its source is `down`, the stream is `shed`, its source has `ended`, its frame was
    /// `lost` (`reason` says why), it has no frame near the instant (`not_due`), or its frame had not ended at
    /// the set's deadline (`late`). Null when it has one.
    #[schemars(extend("enum" = missing()))]
    missing: Option<&'static str>,
    /// Service of the stream when the set was closed.
    #[schemars(extend("enum" = states()))]
    state: &'static str,
    /// Its network; null without a result.
    model: Option<&'a str>,
    /// What was seen, as in the frame's own line; null without a result, and where that line is missing in this
    /// output.
    detections: Option<Vec<Seen<'a>>>,
}

#[derive(Serialize, JsonSchema)]
struct Changed<'a> {
    /// Which camera.
    stream: &'a str,
    /// When, CLOCK_MONOTONIC.
    at_ns: u64,
    /// Wall clock when the event was handed to this output.
    wall_ns: u64,
    /// The state that it changed to.
    #[schemars(extend("enum" = states()))]
    state: &'static str,
    /// Why.
    cause: &'a str,
}

#[derive(Serialize, JsonSchema)]
struct Certified<'a> {
    /// When, CLOCK_MONOTONIC.
    at_ns: u64,
    /// Wall clock when it was handed to this output.
    wall_ns: u64,
    /// Whether every frame of those streams is certain to be in time from now on.
    holds: bool,
    /// How many streams it is about.
    streams: u16,
    /// The assumptions, or why it does not stand.
    cause: &'a str,
}

#[derive(Serialize, JsonSchema)]
struct Intervened<'a> {
    /// When, CLOCK_MONOTONIC.
    at_ns: u64,
    /// Wall clock when it was handed to this output.
    wall_ns: u64,
    /// What it is about: one `capture` thread, the `accelerator`, one `output`'s thread, a `thread` that everything
    /// goes through, or the whole `process`.
    #[schemars(extend("enum" = scopes()))]
    scope: &'static str,
    /// Which one: the name of the stream, backend, output or thread.
    subject: &'a str,
    /// What was seen or done: it does not come back in its time and is not waited for (`given_up`), another is in
    /// its place (`replaced`), or none can be yet (`not_replaced`); it does not move and nothing but a restart
    /// could help (`stuck`), it moves again (`recovered`); it stood still as a whole (`paused`).
    #[schemars(extend("enum" = actions()))]
    action: &'static str,
    /// Why.
    cause: &'a str,
}

#[derive(Serialize, JsonSchema)]
struct Gap {
    /// How many records.
    count: u64,
}

fn reasons() -> Vec<Option<&'static str>> {
    DropReason::ALL.iter().map(|reason| Some(reason.as_str())).chain([None]).collect()
}

fn causes() -> Vec<Option<&'static str>> {
    MissCause::ALL.iter().map(|cause| Some(cause.as_str())).chain([None]).collect()
}

fn missing() -> Vec<Option<&'static str>> {
    Missing::WORDS.into_iter().map(Some).chain([None]).collect()
}

fn scopes() -> Vec<&'static str> {
    Scope::ALL.iter().map(|scope| scope.as_str()).collect()
}

fn actions() -> Vec<&'static str> {
    Action::ALL.iter().map(|action| action.as_str()).collect()
}

fn states() -> Vec<&'static str> {
    StreamState::ALL.iter().map(|state| state.as_str()).collect()
}

impl<'a> Frame<'a> {
    fn new(board: &'a Board, wall: u64, record: &'a Record) -> Self {
        let (outcome, reason) = words(record.outcome);
        let served = record.served.as_ref();
        Self {
            stream: stream_id(board, record.stream),
            sequence: record.sequence,
            captured_ns: record.captured.as_nanos(),
            finished_ns: record.finished.as_nanos(),
            wall_ns: wall,
            latency_us: served.map(|_| ceil_us(record.finished.since(record.captured))),
            lateness_us: served.map(|_| {
                let late = record.finished.lateness(record.deadline).as_nanos();
                late.saturating_add(999).div_euclid(1000)
            }),
            outcome,
            reason,
            cause: record.cause.map(MissCause::as_str),
            state: record.state.as_str(),
            last_good_age_us: record.last_good_age.map(ceil_us),
            model: served.map(|served| model_id(board, served.model)),
            batch: served.map(|served| served.batch),
            timing: served.map(|served| Timing::new(record, served)),
            detections: served.map(|served| Seen::all(board, served.model, &served.detections)),
        }
    }
}

impl Timing {
    /// The way's stations are rounded, not its parts, so that the parts add up.
    fn new(record: &Record, served: &Served) -> Self {
        let reached = |at: Instant| ceil_us(at.since(record.captured));
        let (arrived, submitted) = (reached(served.arrived), reached(served.submitted));
        let (completed, finished) = (reached(served.completed), reached(record.finished));
        Self {
            capture_us: arrived,
            queue_us: submitted.saturating_sub(arrived),
            service_us: completed.saturating_sub(submitted),
            decode_us: finished.saturating_sub(completed),
        }
    }
}

impl<'a> Seen<'a> {
    fn all(board: &'a Board, model: ModelId, detections: &[Detection]) -> Vec<Self> {
        let labels = board.models.get(model.index()).map_or(&[][..], |model| &model.labels);
        detections.iter().map(|detection| Seen::new(labels, detection)).collect()
    }

    fn new(labels: &'a [String], detection: &Detection) -> Self {
        let &Detection { score, x, y, width, height, .. } = detection;
        Self {
            label: label(labels, detection.label),
            score: digits(score, 1e4),
            frame: [x, y, width, height].map(|pixels| digits(pixels, 1e2)),
        }
    }
}

impl<'a> SetClosed<'a> {
    fn new(board: &'a Board, recent: &Recent, wall: u64, record: &SetRecord) -> Self {
        let members = record.members.iter().map(|member| {
            let result = member.frame.filter(|_| member.missing.is_none());
            let seen = result.and_then(|(sequence, _)| recent.seen(member.stream, sequence));
            let (outcome, reason) =
                member.frame.map_or((None, None), |(_, outcome)| (Some(words(outcome).0), words(outcome).1));
            Member {
                stream: stream_id(board, member.stream),
                sequence: member.frame.map(|(sequence, _)| sequence),
                captured_ns: member.captured.map(Instant::as_nanos),
                outcome,
                reason,
                missing: member.missing.map(Missing::as_str),
                state: member.state.as_str(),
                model: seen.map(|(model, _)| model_id(board, model)),
                detections: seen.map(|(model, detections)| Seen::all(board, model, detections)),
            }
        });
        Self {
            set: board.sets.get(usize::from(record.set)).map_or("", |set| &set.id),
            instant_ns: record.instant.as_nanos(),
            finished_ns: record.finished.as_nanos(),
            wall_ns: wall,
            skew_us: ceil_us(record.skew),
            complete: record.members.iter().all(|member| member.missing.is_none()),
            members: members.collect(),
        }
    }
}

impl<'a> Changed<'a> {
    fn new(board: &'a Board, wall: u64, event: &'a Event) -> Self {
        Self {
            stream: stream_id(board, event.stream),
            at_ns: event.at.as_nanos(),
            wall_ns: wall,
            state: event.state.as_str(),
            cause: &event.cause,
        }
    }
}

impl<'a> Certified<'a> {
    fn new(wall: u64, certificate: &'a Certificate) -> Self {
        Self {
            at_ns: certificate.at.as_nanos(),
            wall_ns: wall,
            holds: certificate.holds,
            streams: certificate.streams,
            cause: &certificate.cause,
        }
    }
}

impl<'a> Intervened<'a> {
    fn new(wall: u64, intervention: &'a Intervention) -> Self {
        Self {
            at_ns: intervention.at.as_nanos(),
            wall_ns: wall,
            scope: intervention.scope.as_str(),
            subject: &intervention.subject,
            action: intervention.action.as_str(),
            cause: &intervention.cause,
        }
    }
}

/// The class's name, or its number where the manifest names fewer classes than the network has.
pub(super) fn label(labels: &[String], index: u16) -> Cow<'_, str> {
    labels.get(usize::from(index)).map_or_else(|| Cow::Owned(format!("#{index}")), |name| name.into())
}

pub(super) fn words(outcome: Outcome) -> (&'static str, Option<&'static str>) {
    match outcome {
        Outcome::Met => ("met", None),
        Outcome::Late => ("late", None),
        Outcome::Dropped(reason) => ("dropped", Some(reason.as_str())),
    }
}

fn stream_id(board: &Board, id: StreamId) -> &str {
    board.streams.get(id.index()).map_or("", |stream| &stream.id)
}

fn model_id(board: &Board, id: ModelId) -> &str {
    board.models.get(id.index()).map_or("", |model| &model.id)
}

fn ceil_us(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX)
}

fn digits(value: f32, scale: f64) -> f64 {
    (f64::from(value) * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::samples;
    use serde_json::Value;
    use std::collections::BTreeSet;

    fn parsed(write: impl FnOnce(&mut Vec<u8>)) -> Value {
        let mut out = Vec::new();
        write(&mut out);
        assert_eq!(out.iter().filter(|&&byte| byte == b'\n').count(), 1, "one line");
        serde_json::from_slice(&out).unwrap()
    }

    fn all_types() -> Vec<Value> {
        let board = samples::board();
        let at = Instant::from_nanos(1);
        let recent = Recent::new(&board);
        vec![
            parsed(|out| header(out, &board, "0.1.0", at, 7)),
            parsed(|out| message(out, &board, &recent, 9, &Message::Frame(samples::served(3)))),
            parsed(|out| message(out, &board, &recent, 9, &Message::Frame(samples::dropped(4)))),
            parsed(|out| message(out, &board, &recent, 9, &Message::Set(samples::set()))),
            parsed(|out| {
                message(out, &board, &recent, 9, &Message::Event(samples::event("unplugged \"front\"\n")))
            }),
            parsed(|out| message(out, &board, &recent, 9, &Message::Certificate(samples::certificate()))),
            parsed(|out| message(out, &board, &recent, 9, &Message::Intervention(samples::intervention()))),
            parsed(|out| lost(out, 12)),
        ]
    }

    #[test]
    fn a_served_frame() {
        let frame = parsed(|out| {
            message(
                out,
                &samples::board(),
                &Recent::new(&samples::board()),
                99,
                &Message::Frame(samples::served(3)),
            )
        });
        let expected = serde_json::json!({
            "v": 1, "type": "frame", "stream": "front", "sequence": 3,
            "captured_ns": 1_000_000_000_u64, "finished_ns": 1_041_230_001_u64, "wall_ns": 99,
            "latency_us": 41_231, "lateness_us": -58_769, "outcome": "met", "reason": null, "cause": null, "state": "full",
            "last_good_age_us": 74_231, "model": "person", "batch": 2,
            "timing": {"capture_us": 2001, "queue_us": 8000, "service_us": 30_000, "decode_us": 1230},
            "detections": [
                {"label": "person", "score": 0.8877, "box": [10.25, 20.33, 30.0, 40.5]},
                {"label": "#7", "score": 0.5, "box": [0.0, 0.0, 1.0, 1.0]}
            ]
        });
        assert_eq!(frame, expected);
    }

    #[test]
    fn a_set_holds_what_its_members_saw() {
        let board = samples::board();
        let mut recent = Recent::new(&board);
        recent.note(&Message::Frame(samples::served(3)));
        let set = parsed(|out| message(out, &board, &recent, 9, &Message::Set(samples::set())));
        let frame = parsed(|out| message(out, &board, &recent, 9, &Message::Frame(samples::served(3))));
        let [front, rear] = &set["members"].as_array().unwrap()[..] else { panic!("two members") };
        assert_eq!(front["detections"], frame["detections"]);
        assert_eq!((&front["model"], &front["missing"]), (&"person".into(), &Value::Null));
        assert_eq!((&rear["detections"], &rear["missing"]), (&Value::Null, &"not_due".into()));
        assert_eq!(set["complete"], false);
    }

    #[test]
    fn a_miss_by_a_nanosecond_is_no_zero() {
        let mut record = samples::served(0);
        for (by, expected) in [(1, 1), (1000, 1), (1001, 2)] {
            record.finished = record.deadline + Duration::from_nanos(by);
            assert_eq!(Frame::new(&samples::board(), 0, &record).lateness_us, Some(expected));
        }
        record.finished = record.deadline.saturating_sub(Duration::from_nanos(1));
        assert_eq!(Frame::new(&samples::board(), 0, &record).lateness_us, Some(0));
    }

    #[test]
    fn a_dropped_frame_has_a_reason_and_no_numbers() {
        let frame = parsed(|out| {
            message(
                out,
                &samples::board(),
                &Recent::new(&samples::board()),
                0,
                &Message::Frame(samples::dropped(4)),
            )
        });
        assert_eq!((&frame["outcome"], &frame["reason"]), (&"dropped".into(), &"hopeless".into()));
        for key in ["latency_us", "lateness_us", "model", "batch", "timing", "detections"] {
            assert_eq!(frame.get(key), Some(&Value::Null), "{key}");
        }
    }

    #[test]
    fn numbers_that_are_not_finite_stay_json() {
        let seen = Detection { score: f32::NAN, x: f32::INFINITY, ..Detection::default() };
        assert!(serde_json::to_string(&Seen::new(&[], &seen)).unwrap().contains("null"));
    }

    /// Every line has exactly the keys that the schema requires for its type, and words from its lists.
    #[test]
    fn lines_follow_the_schema() {
        let schema: Value = serde_json::from_str(&schema()).unwrap();
        let kinds = schema["oneOf"].as_array().unwrap();
        let mut seen = BTreeSet::new();
        for line in all_types() {
            let kind = kinds
                .iter()
                .find(|kind| kind["properties"]["type"]["const"] == line["type"])
                .unwrap_or_else(|| panic!("{} is not in the schema", line["type"]));
            let properties = resolved(&schema, kind)["properties"].as_object().unwrap().clone();
            let mut keys: BTreeSet<_> = properties.keys().cloned().collect();
            keys.extend(["v".to_owned(), "type".to_owned()]);
            assert_eq!(keys, line.as_object().unwrap().keys().cloned().collect());
            for (key, value) in line.as_object().unwrap() {
                if let Some(words) = properties.get(key).and_then(|property| property["enum"].as_array()) {
                    assert!(words.contains(value), "{key}: {value}");
                }
            }
            seen.insert(line["type"].to_string());
        }
        assert_eq!(seen.len(), kinds.len(), "a type has no sample");
    }

    fn resolved<'a>(schema: &'a Value, kind: &'a Value) -> &'a Value {
        let Some(name) = kind["$ref"].as_str() else { return kind };
        schema.pointer(name.trim_start_matches('#')).unwrap()
    }
}
