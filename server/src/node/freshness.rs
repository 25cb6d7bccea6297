//! How old what a replica serves may be, without any clock but this node's own.
//!
//! 1. The node asks the leader's node, at its own time f0, for a commit index ([`rounds`](super::rounds)).
//! 2. The leader has a quorum confirm that it leads, by a message sent after the question came, and answers with its
//!    commit index. Everything that was acknowledged before f0 lies at or below it.
//! 3. Once this replica has applied that index, its age is now - f0.
//!
//! An age can so be too long, by as much as the answer took, and never too short, whatever other clocks say.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use stoa_env::{BootTime, Disk, Gauge, Transport, planted};
use stoa_protocol::LogIndex;
use stoa_protocol::read::ConfirmBy;
use stoa_raft::root::state::HEARTBEAT_VERSION;

use super::rounds::{Lane, ROUND_LIMIT};
use super::{Hosted, Node};

/// How often leaders are asked for replicas that are read: ages stay below half a second in health, with heartbeats of
/// 100 ms. Each question costs two small messages per pair of nodes; the leaders' next heartbeats, which come anyway, confirm
/// that they lead.
pub(super) const FRESH_EVERY: Duration = Duration::from_millis(200);

/// A replica that nobody has read for this long is not kept fresh: its first read after that may have a long age.
const READ_LATELY: Duration = Duration::from_secs(5);

/// Answers that a replica may have yet to apply. The oldest are kept, so that one that lags still learns its age; what is
/// beyond replaces the last.
pub(super) const AWAITED_MAX: usize = 8;

const _: () = assert!(READ_LATELY.as_millis() > FRESH_EVERY.as_millis() * 2);

/// What one replica knows of its age.
#[derive(Debug)]
pub(crate) struct Freshness {
    /// When the leader was asked for the newest index that has been applied; [`NEVER`] if none has.
    reached: AtomicU64,
    /// The lowest index that is awaited; `u64::MAX` if none is. Reads look here first, and take the lock only if it is
    /// applied.
    next: AtomicU64,
    /// Indices with the time of their question, both ascending.
    awaited: Mutex<VecDeque<(LogIndex, BootTime)>>,
    /// When the leader was asked last with success.
    asked: AtomicU64,
    /// When the replica was read last, give or take [`READ_LATELY`]` / 8`.
    read: AtomicU64,
    /// Whether the last question brought nothing.
    in_doubt: AtomicBool,
    /// Counts what is awaited.
    counted: Gauge,
}

const NEVER: u64 = 0;

impl Freshness {
    /// Of a replica that has yet to learn its age; `counted` counts what it awaits.
    pub(crate) fn new(counted: Gauge) -> Self {
        Self {
            reached: AtomicU64::new(NEVER),
            next: AtomicU64::new(u64::MAX),
            awaited: Mutex::default(),
            asked: AtomicU64::new(NEVER),
            read: AtomicU64::new(NEVER),
            in_doubt: AtomicBool::new(false),
            counted,
        }
    }

    /// The moment whose acknowledged writes are all in what has been applied; `None` if no such moment is known. To be
    /// asked before the rows are read: they may then be newer, never older.
    pub(crate) fn reached(&self, applied: LogIndex) -> Option<BootTime> {
        if applied.0 >= self.next.load(Ordering::Acquire) {
            self.reach(applied, &mut self.lock());
        }
        match self.reached.load(Ordering::Acquire) {
            NEVER => None,
            at => Some(BootTime(at)),
        }
    }

    /// Notes that the leader, asked at `asked`, has confirmed `index`.
    pub(crate) fn note(&self, asked: BootTime, index: LogIndex) {
        self.asked.fetch_max(asked.0, Ordering::Relaxed);
        let mut awaited = self.lock();
        if awaited.back().is_some_and(|(_, newest)| *newest >= asked) {
            return; // rounds may end out of their order, and the later one says more
        }
        // A lower index to a later question says more than a higher one to an earlier.
        while awaited.back().is_some_and(|(other, _)| *other >= index)
            || (awaited.len() >= AWAITED_MAX && !planted!(AwaitWithoutBound))
        {
            awaited.pop_back();
        }
        awaited.push_back((index, asked));
        self.counted.note_len(awaited.len());
        self.next.store(awaited[0].0.0, Ordering::Release);
    }

    /// Notes whether a question brought an answer.
    pub(crate) fn set_in_doubt(&self, in_doubt: bool) {
        self.in_doubt.store(in_doubt, Ordering::Relaxed);
    }

    /// Whether the last question brought nothing.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.in_doubt.load(Ordering::Relaxed)
    }

    /// Notes that the replica is read: it is kept fresh for a while.
    pub(crate) fn note_read(&self, now: BootTime) {
        // Seldom written, as many threads read it.
        if now.since(BootTime(self.read.load(Ordering::Relaxed))) > READ_LATELY / 8 {
            self.read.store(now.0, Ordering::Relaxed);
        }
    }

    /// Whether the leader should be asked now, in the background.
    fn is_due(&self, now: BootTime) -> bool {
        let since = |at: &AtomicU64| now.since(BootTime(at.load(Ordering::Relaxed)));
        self.read.load(Ordering::Relaxed) != NEVER
            && since(&self.read) < READ_LATELY
            && since(&self.asked) >= FRESH_EVERY
    }

    fn reach(&self, applied: LogIndex, awaited: &mut VecDeque<(LogIndex, BootTime)>) {
        while let Some((_, asked)) = awaited.front().copied().filter(|(index, _)| *index <= applied) {
            awaited.pop_front();
            self.reached.fetch_max(asked.0, Ordering::Release);
        }
        self.next.store(awaited.front().map_or(u64::MAX, |(index, _)| index.0), Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(LogIndex, BootTime)>> {
        self.awaited.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// Keeps replicas fresh that are read: asks their leaders, one message for all partitions that a node leads.
pub(super) async fn keep_fresh<D: Disk, T: Transport>(node: Weak<Node<D, T>>) {
    loop {
        let Some(strong) = node.upgrade() else { return };
        strong.refresh();
        drop(strong);
        stoa_env::sleep(FRESH_EVERY / 2).await;
    }
}

impl<D: Disk, T: Transport> Node<D, T> {
    fn refresh(self: &Arc<Self>) {
        let (now, by) = (self.env.context.clock.boot(), self.confirms_by());
        let is_due = |hosted: &Arc<Hosted<D>>| hosted.replica.is_caught_up() && hosted.freshness.is_due(now);
        for hosted in self.all_hosted().into_iter().filter(is_due) {
            if let Some(lane) = Lane::of(&hosted, by) {
                self.join_round(lane, [hosted.replica.partition()], None);
            }
        }
    }

    /// How leaders confirm that they lead where a heartbeat is soon enough.
    pub(super) fn confirms_by(&self) -> ConfirmBy {
        confirms_by(self.options.timing.heartbeat, self.state().cluster_version)
    }
}

/// By heartbeats, unless these are so rare that a round would end before the next one, or a node of the cluster may not know of
/// that way. By read index otherwise, which is no weaker, and costs a message to a quorum.
fn confirms_by(heartbeat: Duration, cluster_version: u32) -> ConfirmBy {
    let often = heartbeat <= ROUND_LIMIT / 2;
    match often && cluster_version >= HEARTBEAT_VERSION {
        true => ConfirmBy::Heartbeat,
        false => ConfirmBy::ReadIndex,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> Freshness {
        Freshness::new(stoa_env::Bounds::default().gauge("awaited", AWAITED_MAX as u64))
    }

    fn reached(fresh: &Freshness, applied: u64) -> Option<u64> {
        fresh.reached(LogIndex(applied)).map(|at| at.0)
    }

    fn note(fresh: &Freshness, asked: u64, index: u64) {
        fresh.note(BootTime(asked), LogIndex(index));
    }

    #[test]
    fn heartbeats_confirm_where_they_come_within_a_round_and_every_node_knows_of_it() {
        let by = |heartbeat_ms, version| confirms_by(Duration::from_millis(heartbeat_ms), version);
        assert_eq!(by(150, 4), ConfirmBy::Heartbeat);
        assert_eq!(by(151, 4), ConfirmBy::ReadIndex);
        assert_eq!(by(150, 3), ConfirmBy::ReadIndex);
    }

    #[test]
    fn an_age_counts_from_the_question_whose_answer_has_been_applied() {
        let fresh = fresh();
        assert_eq!(reached(&fresh, 100), None, "nobody has asked");
        note(&fresh, 1_000, 7);
        assert_eq!(reached(&fresh, 6), None, "asked, and not applied");
        note(&fresh, 2_000, 9);
        assert_eq!(reached(&fresh, 8), Some(1_000));
        assert_eq!(reached(&fresh, 9), Some(2_000));
        assert_eq!(reached(&fresh, 9), Some(2_000), "and it stays");
    }

    #[test]
    fn a_replica_that_always_lags_still_learns_its_age() {
        let fresh = fresh();
        for round in 1..100 {
            note(&fresh, round * 1_000, round * 10);
            assert!(fresh.lock().len() <= AWAITED_MAX);
        }
        assert_eq!(fresh.counted.bound_and_high(), (AWAITED_MAX as u64, AWAITED_MAX as u64));
        assert_eq!(reached(&fresh, 70), Some(7_000), "the oldest are kept");
        assert_eq!(reached(&fresh, 990), Some(99_000), "and the newest");
    }

    #[test]
    fn answers_out_of_order_never_make_it_younger_than_it_is() {
        let fresh = fresh();
        note(&fresh, 2_000, 9);
        note(&fresh, 1_000, 7);
        assert_eq!(reached(&fresh, 7), None, "the later question's answer alone is kept");
        note(&fresh, 3_000, 8);
        assert_eq!(reached(&fresh, 8), Some(3_000), "a lower index to a later question says more");
    }

    #[test]
    fn only_what_is_read_is_kept_fresh() {
        let fresh = fresh();
        let at = |ms: u64| BootTime(1 << 50).plus(Duration::from_millis(ms));
        assert!(!fresh.is_due(at(0)), "nobody reads it");
        fresh.note_read(at(0));
        assert!(fresh.is_due(at(1)));
        fresh.note(at(1), LogIndex(1));
        assert!(!fresh.is_due(at(100)), "asked a moment ago");
        assert!(fresh.is_due(at(300)));
        assert!(!fresh.is_due(at(6_000)), "nobody has read it for a while");
    }
}
