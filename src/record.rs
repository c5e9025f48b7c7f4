//! What leaves the runtime: one record a frame, one a set, and events.

use crate::cause::MissCause;
use crate::detection::Detections;
use crate::job::{DropReason, Outcome};
use crate::stream::{ModelId, StreamId, StreamState};
use crate::time::Instant;
use std::time::Duration;

/// Most streams in one set.
pub const MAX_SET: usize = 32;

/// A frame's end: with detections when it was served, with a reason when it was not.
#[derive(Clone, Debug)]
pub struct Record {
    /// Which camera.
    pub stream: StreamId,
    /// The source's frame number.
    pub sequence: u64,
    /// When the frame was captured.
    pub captured: Instant,
    /// When its result had to be out.
    pub deadline: Instant,
    /// When the record was handed to the outputs.
    pub finished: Instant,
    /// How it ended.
    pub outcome: Outcome,
    /// Why its result was late; `None` when it was not.
    pub cause: Option<MissCause>,
    /// The stream's service at that moment.
    pub state: StreamState,
    /// Age of the stream's last good result before this one, measured from that result's capture to this
    /// record's finish.
    pub last_good_age: Option<Duration>,
    /// What the served frame went through.
    pub served: Option<Served>,
}

/// How a served frame came to its result.
#[derive(Clone, Debug)]
pub struct Served {
    /// Which network.
    pub model: ModelId,
    /// Frames in its batch.
    pub batch: u16,
    /// When the frame reached the heart.
    pub arrived: Instant,
    /// When its batch was handed to the backend.
    pub submitted: Instant,
    /// When the backend was done.
    pub completed: Instant,
    /// What was seen.
    pub detections: Detections,
}

/// Results of the same instant across cameras.
#[derive(Clone, Debug)]
pub struct SetRecord {
    /// The set's position in the board's list of sets.
    pub set: u8,
    /// The instant that the members belong to: the earliest member's capture.
    pub instant: Instant,
    /// Latest capture minus earliest capture among the members present.
    pub skew: Duration,
    /// When the set was closed: its last member's result, or its deadline.
    pub finished: Instant,
    /// Every stream of the set, in the board's order.
    pub members: heapless::Vec<SetMember, MAX_SET>,
}

/// One camera's part in a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetMember {
    /// Which camera.
    pub stream: StreamId,
    /// Its frame and how that ended; `None` when no frame of it belongs to the instant, or that has not ended.
    pub frame: Option<(u64, Outcome)>,
    /// When that frame was captured, ended or not.
    pub captured: Option<Instant>,
    /// Why there is no result of it; `None` when there is one.
    pub missing: Option<Missing>,
    /// Its service when the set was closed.
    pub state: StreamState,
}

/// Why a set has no result of one of its cameras.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The source has failed.
    Down,
    /// The stream is shed.
    Shed,
    /// The source has come to its end.
    Ended,
    /// Its frame was dropped.
    Lost(DropReason),
    /// No frame of it is near the instant: it is slower, or its phase has slipped.
    NotDue,
    /// Its frame had not come, or was still on its way, at the set's deadline.
    Late,
}

impl Missing {
    /// The words of [`Missing::as_str`].
    pub const WORDS: [&'static str; 6] = ["down", "shed", "ended", "lost", "not_due", "late"];

    /// The word used in records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        Self::WORDS[match self {
            Self::Down => 0,
            Self::Shed => 1,
            Self::Ended => 2,
            Self::Lost(_) => 3,
            Self::NotDue => 4,
            Self::Late => 5,
        }]
    }
}

/// Something that happened to a stream, not to a frame.
#[derive(Clone, Debug)]
pub struct Event {
    /// When.
    pub at: Instant,
    /// Which camera.
    pub stream: StreamId,
    /// The state that it changed to.
    pub state: StreamState,
    /// Why, in words.
    pub cause: heapless::String<160>,
}

/// Whether the guarantee stands: given at the start of a run whose board was admitted with one, withdrawn when
/// a premise fails, given again when all have held for a while.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// When.
    pub at: Instant,
    /// Whether it stands from now on.
    pub holds: bool,
    /// How many streams it is about.
    pub streams: u16,
    /// Its assumptions, or why it does not stand, in words.
    pub cause: heapless::String<160>,
}

/// What an intervention of the supervisor is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One camera's thread.
    Capture,
    /// The accelerator.
    Accelerator,
    /// One output's thread.
    Output,
    /// A thread that everything goes through.
    Thread,
    /// The whole process.
    Process,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Capture, Self::Accelerator, Self::Output, Self::Thread, Self::Process];

    /// The word used in records and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Capture => "capture",
            Self::Accelerator => "accelerator",
            Self::Output => "output",
            Self::Thread => "thread",
            Self::Process => "process",
        }
    }
}

/// What the supervisor saw or did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It does not come back in its time: it is not waited for any longer, and what it holds is quarantined.
    GivenUp,
    /// Another is in its place.
    Replaced,
    /// There is none to put in its place; tried again later.
    NotReplaced,
    /// It does not move, and nothing but a restart could help.
    Stuck,
    /// It moves again.
    Recovered,
    /// It stood still as a whole, as by SIGSTOP or a virtual machine's pause; nobody is blamed for that time.
    Paused,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::GivenUp, Self::Replaced, Self::NotReplaced, Self::Stuck, Self::Recovered, Self::Paused];

    /// The word used in records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::GivenUp => "given_up",
            Self::Replaced => "replaced",
            Self::NotReplaced => "not_replaced",
            Self::Stuck => "stuck",
            Self::Recovered => "recovered",
            Self::Paused => "paused",
        }
    }
}

/// The supervisor saw that something does not work, or healed it.
#[derive(Clone, Debug)]
pub struct Intervention {
    /// When.
    pub at: Instant,
    /// What it is about.
    pub scope: Scope,
    /// Which one: the name of the stream, backend, output or thread.
    pub subject: heapless::String<64>,
    /// What was seen or done.
    pub action: Action,
    /// Why, in words.
    pub cause: heapless::String<160>,
}

/// Anything that an output can be handed.
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a box would be an allocation a frame, and nearly all are frames"
)]
pub enum Message {
    /// A frame ended.
    Frame(Record),
    /// A set was closed.
    Set(SetRecord),
    /// A stream changed its state.
    Event(Event),
    /// The guarantee was given or withdrawn.
    Certificate(Certificate),
    /// The supervisor saw or did something.
    Intervention(Intervention),
}
