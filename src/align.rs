//! Putting results of the same instant side by side, last of all, so that no camera waits for another.
//!
//! A set's members are frames whose captures lie within half the shortest period of the set's streams of the
//! first one's. It is closed when every member that is expected has ended, or at its deadline; a member that
//! is shed, down or at its end is named at once, not waited for. A frame belongs to one set only.

use crate::board::{Board, Set};
use crate::job::Outcome;
use crate::record::{SetMember, SetRecord};
use crate::stream::{StreamId, StreamState};
use crate::time::Instant;
use std::collections::VecDeque;
use std::time::Duration;

/// Most instants of one set that may be open at once; one more closes the oldest.
const MOST_OPEN: usize = 256;

/// All sets of a board.
#[derive(Debug)]
pub struct Aligner {
    groups: Vec<Group>,
    /// Per stream: the group it is a member of, and its position there.
    places: Vec<Option<(usize, usize)>>,
    states: Vec<StreamState>,
    /// Whether no more frames come.
    closing: bool,
}

#[derive(Debug)]
struct Group {
    streams: Vec<StreamId>,
    deadline: Duration,
    /// Captures further apart than this are different instants.
    reach: Duration,
    open: VecDeque<OpenSet>,
    /// Instants that can be open before the first one's deadline.
    most: usize,
    /// Captures up to here belong to sets that are closed.
    closed: Option<Instant>,
}

#[derive(Debug)]
struct OpenSet {
    instant: Instant,
    members: heapless::Vec<Option<Member>, { crate::record::MAX_SET }>,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    sequence: u64,
    captured: Instant,
    outcome: Option<Outcome>,
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
        Self {
            groups: groups.collect(),
            states: vec![StreamState::Starting; places.len()],
            places,
            closing: false,
        }
    }

    /// A frame was captured (or is known to be lost: settle it too).
    pub fn captured(&mut self, stream: StreamId, sequence: u64, captured: Instant) {
        if let Some((group, position)) = self.places[stream.index()] {
            self.groups[group].enter(position, Member { sequence, captured, outcome: None });
        }
    }

    /// A frame has ended.
    pub fn settled(&mut self, stream: StreamId, sequence: u64, outcome: Outcome) {
        let Some((group, position)) = self.places[stream.index()] else { return };
        for open in &mut self.groups[group].open {
            if let Some(member) = open.members[position].as_mut().filter(|m| m.sequence == sequence) {
                member.outcome = Some(outcome);
            }
        }
    }

    /// A stream's service changed.
    pub fn stream_changed(&mut self, stream: StreamId, state: StreamState) {
        self.states[stream.index()] = state;
    }

    /// No more frames come: whatever is open is due.
    pub fn close(&mut self) {
        self.closing = true;
    }

    /// A set that is complete, or whose deadline has passed.
    pub fn poll(&mut self, now: Instant) -> Option<SetRecord> {
        let (states, closing) = (&self.states, self.closing);
        self.groups.iter_mut().enumerate().find_map(|(index, group)| {
            let oldest = group.open.front()?;
            let due = closing
                || group.open.len() == group.most
                || now >= oldest.instant + group.deadline
                || group.streams.iter().zip(&oldest.members).all(|(stream, member)| match member {
                    Some(member) => member.outcome.is_some(),
                    None => {
                        let state = states[stream.index()];
                        !state.is_served() && state != StreamState::Starting
                    }
                });
            if !due {
                return None;
            }
            let closed = group.open.pop_front()?;
            group.closed = Some(closed.instant + group.reach);
            Some(closed.record(index as u8, &group.streams, states, now))
        })
    }

    /// When the next deadline of a set is.
    #[must_use]
    pub fn poll_at(&self) -> Option<Instant> {
        self.groups.iter().filter_map(|g| g.open.front().map(|open| open.instant + g.deadline)).min()
    }
}

impl Group {
    fn new(board: &Board, set: &Set) -> Self {
        let shortest = set.streams.iter().map(|s| board.streams[s.index()].period).min().unwrap_or_default();
        let instants = set.deadline.as_nanos().div_ceil(shortest.as_nanos().max(1)) + 2;
        let most = usize::try_from(instants).unwrap_or(MOST_OPEN).min(MOST_OPEN);
        Self {
            streams: set.streams.clone(),
            deadline: set.deadline,
            reach: shortest / 2,
            open: VecDeque::with_capacity(most),
            most,
            closed: None,
        }
    }

    fn enter(&mut self, position: usize, member: Member) {
        if self.closed.is_some_and(|closed| member.captured < closed) {
            return;
        }
        let reach = self.reach;
        let nearest = self
            .open
            .iter_mut()
            .filter(|open| open.members[position].is_none())
            .map(|open| (distance(open.instant, member.captured), open))
            .filter(|&(away, _)| away < reach)
            .min_by_key(|&(away, _)| away);
        if let Some((_, open)) = nearest {
            open.members[position] = Some(member);
            return;
        }
        if self.open.len() < self.most {
            let mut members = heapless::Vec::new();
            // Boards allow at most MAX_SET members, so this always fits.
            let _ = members.resize(self.streams.len(), None);
            members[position] = Some(member);
            let at = self.open.partition_point(|open| open.instant <= member.captured);
            self.open.insert(at, OpenSet { instant: member.captured, members });
        }
    }
}

impl OpenSet {
    fn record(self, set: u8, streams: &[StreamId], states: &[StreamState], now: Instant) -> SetRecord {
        let stamps = || self.members.iter().flatten().map(|member| member.captured);
        let earliest = stamps().min().unwrap_or(self.instant);
        let latest = stamps().max().unwrap_or(self.instant);
        let members = streams.iter().zip(&self.members).map(|(&stream, member)| SetMember {
            stream,
            frame: member.and_then(|m| m.outcome.map(|outcome| (m.sequence, outcome))),
            state: states[stream.index()],
        });
        SetRecord {
            set,
            instant: earliest,
            skew: latest.since(earliest),
            finished: now,
            members: members.collect(),
        }
    }
}

fn distance(a: Instant, b: Instant) -> Duration {
    a.max(b).since(a.min(b))
}
