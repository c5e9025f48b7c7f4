//! Putting results of the same instant side by side, last of all, so that no camera waits for another.
//!
//! Which frames belong together. Of a set's cameras that are served, the one with the shortest period (the
//! first of them in the set) *leads*: its captures are the set's instants, save those less than half that
//! period, P/2, after the one before. Every other frame goes to the nearest instant, if that is less than P/2
//! away; where two frames of a camera go to one instant, the nearer is taken; of equals, the older one. A frame
//! stands in one set only. Frames that no instant is near (the leader is silent, or has slipped) make one of
//! their own, the oldest first. So cameras with one trigger meet within its tolerance, and free-running ones
//! stay paired the same way until their drift makes another frame the nearest: then one frame is left out, or
//! one instant has none.
//!
//! When a set is closed. As soon as nothing is awaited: every camera's frame has ended, or none can come any
//! more. A camera that is shed, down or at its end is named at once, and so is a slower one that is not due.
//! Nothing waits for a nearer frame than the one that is there. At the latest it is closed at its deadline,
//! with the missing members named; what comes for it later is in no set.
//!
//! Captures of one camera closer than P/8 count as one, so that a camera that bursts fills no queue here; a
//! stamp that lies before the last closed instant belongs to no set.

use crate::board::{Board, Set};
use crate::job::{DropReason, Outcome};
use crate::record::{Missing, SetMember, SetRecord};
use crate::stream::{StreamId, StreamState};
use crate::time::Instant;
use std::collections::VecDeque;
use std::time::Duration;

/// Most instants of one set that may be open at once; one more closes the oldest.
const MOST_OPEN: usize = 256;
/// Captures of one camera that are told apart, a shortest period.
const APART: u32 = 8;

/// All sets of a board.
#[derive(Debug)]
pub struct Aligner {
    groups: Vec<Group>,
    /// Per stream: the group it is a member of, and its position there.
    places: Vec<Option<(usize, usize)>>,
    /// Whether no more frames come.
    closing: bool,
}

#[derive(Debug)]
struct Group {
    members: Vec<Member>,
    deadline: Duration,
    /// Half the shortest period: captures further apart than this are different instants.
    reach: Duration,
    /// The last closed instant, and whether the leader made it.
    closed: Option<(Instant, bool)>,
    /// Whether something has happened since the last look.
    changed: bool,
}

#[derive(Debug)]
struct Member {
    stream: StreamId,
    period: Duration,
    state: StreamState,
    /// Frames in no closed set, by capture.
    frames: VecDeque<Frame>,
    /// Latest capture.
    newest: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    sequence: u64,
    captured: Instant,
    outcome: Option<Outcome>,
}

/// The oldest instant of a group.
#[derive(Clone, Copy, Debug)]
struct Oldest {
    instant: Instant,
    /// Its deadline counts from here: the first capture that may belong to it.
    first: Instant,
    /// The leader's next instant, as far as it is known.
    next: Option<Instant>,
    /// Whether the leader made it.
    led: bool,
}

impl Aligner {
    /// Nothing open. All memory is allocated here.
    #[must_use]
    pub fn new(board: &Board) -> Self {
        let mut places = vec![None; board.streams.len()];
        let groups = board.sets.iter().enumerate().map(|(index, set)| {
            for (position, stream) in set.streams.iter().enumerate() {
                places[stream.index()] = Some((index, position));
            }
            Group::new(board, set)
        });
        Self { groups: groups.collect(), places, closing: false }
    }

    /// Whether a stream is a member of a set.
    #[must_use]
    pub fn has(&self, stream: StreamId) -> bool {
        self.places[stream.index()].is_some()
    }

    /// A frame was captured (or is known to be lost: settle it too).
    pub fn captured(&mut self, stream: StreamId, sequence: u64, captured: Instant) {
        if let Some((group, position)) = self.places[stream.index()] {
            self.groups[group].enter(position, Frame { sequence, captured, outcome: None });
        }
    }

    /// A frame has ended.
    pub fn settled(&mut self, stream: StreamId, sequence: u64, outcome: Outcome) {
        let Some((group, position)) = self.places[stream.index()] else { return };
        let group = &mut self.groups[group];
        if let Some(frame) = group.members[position].frames.iter_mut().find(|f| f.sequence == sequence) {
            frame.outcome = Some(outcome);
            group.changed = true;
        }
    }

    /// A stream's service changed.
    pub fn stream_changed(&mut self, stream: StreamId, state: StreamState) {
        if let Some((group, position)) = self.places[stream.index()] {
            self.groups[group].members[position].state = state;
            self.groups[group].changed = true;
        }
    }

    /// No more frames come: whatever is open is due.
    pub fn close(&mut self) {
        self.closing = true;
        self.groups.iter_mut().for_each(|group| group.changed = true);
    }

    /// A set that is complete, or whose deadline has passed.
    pub fn poll(&mut self, now: Instant) -> Option<SetRecord> {
        let closing = self.closing;
        let mut groups = self.groups.iter_mut().enumerate();
        groups.find_map(|(index, group)| group.poll(index as u8, now, closing))
    }

    /// When the next deadline of a set is.
    #[must_use]
    pub fn poll_at(&self) -> Option<Instant> {
        self.groups.iter().filter_map(Group::due_at).min()
    }
}

impl Group {
    fn new(board: &Board, set: &Set) -> Self {
        let period = |stream: &StreamId| board.streams[stream.index()].period;
        let shortest = set.streams.iter().map(period).min().unwrap_or_default();
        let instants = set.deadline.as_nanos().div_ceil(shortest.as_nanos().max(1)) + 2;
        let most = usize::try_from(instants).unwrap_or(MOST_OPEN).min(MOST_OPEN);
        let member = |stream: &StreamId| Member {
            stream: *stream,
            period: period(stream),
            state: StreamState::Starting,
            frames: VecDeque::with_capacity(most * APART as usize),
            newest: None,
        };
        Self {
            members: set.streams.iter().map(member).collect(),
            deadline: set.deadline,
            reach: shortest / 2,
            closed: None,
            changed: false,
        }
    }

    fn enter(&mut self, position: usize, frame: Frame) {
        self.changed = true;
        let at = frame.captured;
        let next = self.lead_after(None);
        let reach = self.reach;
        let past = |(instant, led)| at <= instant || is_near(at, instant, led, next, reach);
        if self.closed.is_some_and(past) {
            return;
        }
        let apart = self.reach * 2 / APART;
        let member = &mut self.members[position];
        member.newest = member.newest.max(Some(at));
        let place = member.frames.partition_point(|other| other.captured <= at);
        let before = place.checked_sub(1).and_then(|place| member.frames.get(place));
        let same = |other: Option<&Frame>| other.is_some_and(|other| distance(other.captured, at) < apart);
        let full = member.frames.len() == member.frames.capacity();
        if !full && !same(before) && !same(member.frames.get(place)) {
            member.frames.insert(place, frame);
        }
    }

    /// The member whose captures are the instants.
    fn leader(&self) -> Option<&Member> {
        let served = self.members.iter().filter(|member| member.state.is_served());
        served.min_by_key(|member| member.period)
    }

    /// The leader's first capture that lies at least half a period after an instant, or its first at all.
    fn lead_after(&self, instant: Option<Instant>) -> Option<Instant> {
        let from = instant.map_or(Instant::default(), |instant| instant + self.reach);
        let frames = &self.leader()?.frames;
        frames.iter().map(|frame| frame.captured).find(|&captured| captured >= from)
    }

    fn first(&self) -> Option<Instant> {
        self.members.iter().filter_map(|member| member.frames.front()).map(|frame| frame.captured).min()
    }

    fn due_at(&self) -> Option<Instant> {
        self.first().map(|first| first + self.deadline)
    }

    fn oldest(&self) -> Option<Oldest> {
        let first = self.first()?;
        let lead = self.lead_after(None);
        Some(match lead.filter(|lead| lead.since(first) < self.reach) {
            Some(instant) => Oldest { instant, first, next: self.lead_after(lead), led: true },
            None => Oldest { instant: first, first, next: lead, led: false },
        })
    }

    fn poll(&mut self, index: u8, now: Instant, closing: bool) -> Option<SetRecord> {
        if !self.changed && self.due_at().is_none_or(|due| now < due) {
            return None;
        }
        let Some(oldest) = self.oldest() else {
            self.changed = false;
            return None;
        };
        let due = closing
            || now >= oldest.first + self.deadline
            || self.members.iter().any(|member| member.frames.len() == member.frames.capacity())
            || self.members.iter().all(|member| match member.choose(&oldest, self.reach) {
                Some(frame) => frame.outcome.is_some(),
                None => !member.is_awaited(oldest.instant, self.reach),
            });
        if !due {
            self.changed = false;
            return None;
        }
        let record = self.record(index, &oldest, now);
        self.forget(&oldest);
        Some(record)
    }

    fn record(&self, set: u8, oldest: &Oldest, now: Instant) -> SetRecord {
        let members = self.members.iter().map(|member| member.part(oldest, self.reach));
        let members: heapless::Vec<SetMember, { crate::record::MAX_SET }> = members.collect();
        let stamps = || members.iter().filter(|m| m.missing.is_none()).filter_map(|m| m.captured);
        let earliest = stamps().min().unwrap_or(oldest.instant);
        let skew = stamps().max().unwrap_or(earliest).since(earliest);
        SetRecord { set, instant: earliest, skew, finished: now, members }
    }

    /// Closes an instant: its frames, and those that came too late for it, stand in no other.
    fn forget(&mut self, oldest: &Oldest) {
        let &Oldest { instant, next, led, .. } = oldest;
        self.closed = self.closed.max(Some((instant, led)));
        for member in &mut self.members {
            let chosen = member.choose(oldest, self.reach).map(|frame| frame.captured);
            while let Some(front) = member.frames.front()
                && (chosen.is_some_and(|chosen| front.captured <= chosen)
                    || front.captured <= instant
                    || is_near(front.captured, instant, led, next, self.reach))
            {
                member.frames.pop_front();
            }
        }
    }
}

impl Member {
    /// The frame that belongs to an instant.
    fn choose(&self, oldest: &Oldest, reach: Duration) -> Option<&Frame> {
        let &Oldest { instant, next, led, .. } = oldest;
        let in_reach = self.frames.iter().take_while(|frame| frame.captured < instant + reach);
        in_reach
            .filter(|frame| is_near(frame.captured, instant, led, next, reach))
            .min_by_key(|frame| distance(frame.captured, instant))
    }

    /// Whether a frame for an instant that has none yet may come: frames come in order of their captures, and
    /// not sooner one after the other than a period, less a little jitter.
    fn is_awaited(&self, instant: Instant, reach: Duration) -> bool {
        let may_come = self.state.is_served() || self.state == StreamState::Starting;
        may_come
            && self.newest.is_none_or(|newest| {
                newest <= instant && newest + self.period.saturating_sub(reach / 4) < instant + reach
            })
    }

    fn part(&self, oldest: &Oldest, reach: Duration) -> SetMember {
        let frame = self.choose(oldest, reach);
        let missing = match frame.map(|frame| frame.outcome) {
            Some(Some(Outcome::Met | Outcome::Late)) => None,
            Some(Some(Outcome::Dropped(DropReason::Shed))) => Some(Missing::Shed),
            Some(Some(Outcome::Dropped(reason))) => Some(Missing::Lost(reason)),
            Some(None) => Some(Missing::Late),
            None => Some(match self.state {
                StreamState::Down => Missing::Down,
                StreamState::Shed => Missing::Shed,
                StreamState::Ended => Missing::Ended,
                _ if self.is_awaited(oldest.instant, reach) => Missing::Late,
                _ => Missing::NotDue,
            }),
        };
        SetMember {
            stream: self.stream,
            frame: frame.and_then(|frame| Some((frame.sequence, frame.outcome?))),
            captured: frame.map(|frame| frame.captured),
            missing,
            state: self.state,
        }
    }
}

/// Whether a capture goes to an instant: `next` is the leader's next one. One that the leader did not make gets
/// only what the leader's do not.
fn is_near(at: Instant, instant: Instant, led: bool, next: Option<Instant>, reach: Duration) -> bool {
    distance(at, instant) < reach
        && next.is_none_or(|next| match led {
            true => distance(at, instant) <= distance(at, next),
            false => distance(at, next) >= reach,
        })
}

fn distance(a: Instant, b: Instant) -> Duration {
    a.max(b).since(a.min(b))
}
