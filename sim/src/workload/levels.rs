//! The levels at which clients read, drawn for each read; and how many rows were judged at each.

use std::time::Duration;

use stoa_client::{ConfirmBy, OnStale, ReadError, ReadLevel};
use stoa_protocol::ErrorCode;

use crate::chance::Chance;
use crate::history::Seen;
use crate::plan::Plan;

/// Bounds of staleness that are asked for, in milliseconds: nothing, less than a round takes, less and more than a fresh
/// replica's age, and more than an election takes.
const BOUNDS_MS: [u64; 5] = [0, 2, 100, 500, 2_000];

/// One client's levels.
pub(super) struct Levels {
    chance: Chance,
    lease_reads: bool,
    /// Whether clocks stop in this run: ages are told by clocks that must not, so none is asked for or believed.
    ageless: bool,
    /// Whether nodes of an earlier program take part, which do not know every level.
    upgrades: bool,
}

/// Rows that were judged, by level.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LevelCounts {
    /// Local, of any age.
    pub local: u64,
    /// Local, at most so old.
    pub bounded: u64,
    /// Those of them that were served with the mark of being older.
    pub stale: u64,
    /// Linearizable by read index.
    pub read_index: u64,
    /// Linearizable by heartbeat.
    pub heartbeat: u64,
    /// Linearizable by lease.
    pub lease: u64,
}

impl Levels {
    /// The levels of a client, out of a stream of their own.
    pub(super) fn new(plan: &Plan, client: usize) -> Self {
        Self {
            chance: Chance::new(plan.seed, &format!("levels {client}")),
            lease_reads: plan.lease_reads,
            ageless: plan.faults.iter().any(|kind| kind.stops_clocks()),
            upgrades: plan.upgrades(),
        }
    }

    /// The level of the next read.
    pub(super) fn draw(&self) -> ReadLevel {
        let kind = self.chance.below(10);
        let max_staleness = Duration::from_millis(*self.chance.pick(&BOUNDS_MS));
        let on_stale = *self.chance.pick(&[OnStale::Serve, OnStale::Refuse]);
        match kind {
            0..=2 => ReadLevel::default(),
            3..=5 if self.ageless => ReadLevel::default(),
            3..=5 => ReadLevel::Local { max_staleness: Some(max_staleness), on_stale },
            6 => ReadLevel::Linearizable { by: ConfirmBy::Heartbeat },
            7..=8 if self.lease_reads => ReadLevel::Linearizable { by: ConfirmBy::Lease },
            _ => ReadLevel::Linearizable { by: ConfirmBy::ReadIndex },
        }
    }
}

impl Levels {
    /// The age that an answer told, if it can be held against it.
    pub(super) fn age(&self, told: Option<Duration>) -> Option<Duration> {
        told.filter(|_| !self.ageless)
    }

    /// Whether a read at this level was refused by a program that does not know it.
    pub(super) fn is_unknown(&self, level: ReadLevel, error: &ReadError) -> bool {
        let by_heartbeat = level == ReadLevel::Linearizable { by: ConfirmBy::Heartbeat };
        let unread = matches!(error, ReadError::Rejected { error, .. } if error.code == ErrorCode::BadRequest);
        self.upgrades && by_heartbeat && unread
    }
}

impl LevelCounts {
    /// Counts a row.
    pub(super) fn note(&mut self, seen: &Seen) {
        self.stale += u64::from(seen.stale);
        *match seen.level {
            ReadLevel::Local { max_staleness: None, .. } => &mut self.local,
            ReadLevel::Local { .. } => &mut self.bounded,
            ReadLevel::Linearizable { by: ConfirmBy::ReadIndex } => &mut self.read_index,
            ReadLevel::Linearizable { by: ConfirmBy::Heartbeat } => &mut self.heartbeat,
            ReadLevel::Linearizable { by: ConfirmBy::Lease } => &mut self.lease,
        } += 1;
    }
}

impl std::ops::AddAssign for LevelCounts {
    fn add_assign(&mut self, other: Self) {
        self.local += other.local;
        self.bounded += other.bounded;
        self.stale += other.stale;
        self.read_index += other.read_index;
        self.heartbeat += other.heartbeat;
        self.lease += other.lease;
    }
}

impl std::fmt::Display for LevelCounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { local, bounded, stale, read_index, heartbeat, lease } = self;
        write!(
            f,
            "{local} local, {bounded} bounded ({stale} marked stale), {read_index} by read index, {heartbeat} by heartbeat, {lease} \
             by lease"
        )
    }
}
