//! Memory goes back when much of it has come out of use: after a mass delete, or a snapshot under which much was
//! overwritten. What is done is local to a replica and shows in no answer, digest or snapshot, and it is done in steps.
//!
//! 1. More than a quarter of the row numbers of a group, of the units of its index, or of the slots of one size in the arena,
//!    are free, and 256 KiB of them ([`crate::StoreOptions::tidy_bytes_min`]): borders are drawn ([`crate::numbers`]). Or as
//!    many units would be free if segments of the index merged.
//! 2. The index is gone through, a segment a step.
//!
//!    | what | when it is to move | how it moves |
//!    |---|---|---|
//!    | segments | they have few entries, beside others that have | they merge into one (`index/writer/tidy.rs`) |
//!    | a segment | it lies beyond the border of units | a copy takes its place |
//!    | a row | it lies beyond its border | as a new version that says the same |
//!    | a value or key in the arena | it lies beyond its border | with a new version of its row |
//!
//!    At the end the directory is as large as the deepest segment needs. No reader sees a difference.
//! 3. What they leave comes back once no reader can be looking at it, as everything that is overwritten does. If many units
//!    of the index are among it, all this begins anew with a border for them.
//! 4. All numbers beyond a border have come back: nobody can reach what lies there, and the system gets its pages, 4 MiB a
//!    step.
//!
//! While a snapshot is read nothing moves: what a row leaves would stay for the snapshot, so that memory would grow instead.
//! A step belongs to the commands before it: each row of theirs pays for some of its work, so that apply takes so many times
//! as long at the most. Where no commands come, the node calls [`crate::Partition::tidy`].

use stoa_protocol::FeatureGroupId;

use crate::Partition;
use crate::group_writer::Values;

/// Rows that are looked at for each row of a command.
const LOOKS_PER_ROW: usize = 8;

/// Looks that may be owed to the next steps by the commands so far: what a few segments take.
const CREDIT_MAX: i64 = 1 << 14;

/// Bytes that a step gives back: a few hundred microseconds of the kernel's.
const RELEASE_BYTES: usize = 4 << 20;

/// What it costs to give back as much, counted in looks at rows.
const RELEASE_COST: usize = 2_000;

/// How far the moving has come.
#[derive(Debug, Default)]
pub(crate) struct Tidy {
    phase: Phase,
    /// Looks that may be spent.
    credit: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    #[default]
    Idle,
    /// The segment of hash `from` of a group is the next.
    Moving { group: FeatureGroupId, from: u64, values: Values },
    /// All has moved; what was left comes back, and then goes.
    Leaving,
}

impl Partition {
    /// Gives memory back that has come out of use, if there is much of it: does a part of the work, as long as it takes to
    /// look at so many rows or a few hundred more. Says whether there is more to do, now or later; for times in which no
    /// command comes, as each command does some of it.
    pub fn tidy(&mut self, rows_max: usize) -> bool {
        self.reclaim();
        let credit = std::mem::replace(&mut self.tidy.credit, rows_max as i64);
        self.spend();
        self.tidy.credit = credit;
        self.publish();
        self.is_untidy()
    }

    /// Whether something waits for readers, or for [`Partition::tidy`].
    pub(crate) fn is_untidy(&self) -> bool {
        self.tidy.phase != Phase::Idle || self.space.trash.iter().next().is_some() || self.is_worth_moving()
    }

    /// Does what the rows of a command pay for.
    pub(crate) fn tidy_after(&mut self, rows: usize) {
        self.tidy.credit = (self.tidy.credit + (rows * LOOKS_PER_ROW) as i64).min(CREDIT_MAX);
        self.spend();
    }

    fn spend(&mut self) {
        while self.tidy.credit > 0 {
            let Some(cost) = self.step() else { return };
            self.tidy.credit -= cost as i64;
        }
    }

    /// One step; what it cost, or `None` if there is nothing to do now.
    fn step(&mut self) -> Option<usize> {
        match self.tidy.phase {
            Phase::Idle => self.begin(),
            Phase::Moving { .. } if self.space.has_snapshots() => None,
            Phase::Moving { group, from, values } => Some(self.move_segment(group, from, values)),
            Phase::Leaving => self.release(),
        }
    }

    fn is_worth_moving(&self) -> bool {
        let bytes_min = self.shared.tidy_bytes_min;
        !self.space.has_snapshots()
            && (self.groups.values().any(|writer| writer.is_worth_moving(bytes_min))
                || self.space.arena.is_worth_moving(bytes_min))
    }

    fn begin(&mut self) -> Option<usize> {
        if !self.is_worth_moving() {
            return None;
        }
        let bytes_min = self.shared.tidy_bytes_min;
        let values = if self.space.arena.begin_moving(bytes_min) { Values::Move } else { Values::Stay };
        self.groups.values_mut().for_each(|writer| writer.begin_moving(bytes_min));
        self.tidy.phase = self.next_group(FeatureGroupId(0), values);
        Some(1)
    }

    /// The first segment of the first group after this one in which something is to move.
    fn next_group(&self, after: FeatureGroupId, values: Values) -> Phase {
        let mut later = self.groups.iter().filter(|(id, _)| **id > after);
        let bytes_min = self.shared.tidy_bytes_min;
        let found = later.find(|(_, writer)| {
            writer.is_moving()
                || writer.is_index_sparse(bytes_min)
                || (values == Values::Move && writer.has_values_apart())
        });
        found.map_or(Phase::Leaving, |(id, _)| Phase::Moving { group: *id, from: 0, values })
    }

    fn move_segment(&mut self, group: FeatureGroupId, from: u64, values: Values) -> usize {
        let writer = self.groups.get_mut(&group).expect("groups are never dropped");
        let (cost, next) = writer.move_segment(&mut self.space, from, values);
        self.tidy.phase = match next {
            Some(from) => Phase::Moving { group, from, values },
            None => self.next_group(group, values),
        };
        cost
    }

    /// Gives pages back that nobody can reach any more.
    fn release(&mut self) -> Option<usize> {
        let groups = &mut self.groups;
        let of_rows = groups.values_mut().map(|writer| writer.release(RELEASE_BYTES)).find(|bytes| *bytes > 0);
        if of_rows.unwrap_or_else(|| self.space.arena.release(RELEASE_BYTES)) > 0 {
            return Some(RELEASE_COST);
        }
        let waits = self.groups.values().any(|writer| writer.is_moving()) || self.space.arena.is_moving();
        if !waits {
            self.tidy.phase = Phase::Idle;
        }
        None
    }
}
