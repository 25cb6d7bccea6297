//! How a replica's log is cut: when a snapshot is due, and what stays behind it.
//!
//! A start does not apply what lies behind the snapshot; it stays for other replicas, which would need a whole snapshot in its
//! place:
//! 1. On every replica the newest entries, [`ENTRIES_KEPT`] of a megabyte or so: whoever leads next has them for a follower that
//!    lags a little.
//! 2. On the leader all that a member of the group has yet to get, as long as the log from there on is within a bound
//!    ([`CutBounds::lagging_max`]). A follower that was down for some seconds goes on from the log. One that takes a snapshot in
//!    has confirmed nothing that the log still has; what the log has stays for it, since the snapshot ends there or later.
//!
//! A follower that is further behind holds nothing up: it needs a snapshot, and is waited for again from there on.

use openraft::async_runtime::watch::WatchReceiver;
use stoa_env::Disk;

use crate::machine::Machine;
use crate::replica::Replica;
use crate::types::LogId;

/// Entries that stay behind a snapshot, so that a follower that lags a little needs no snapshot.
const ENTRIES_KEPT: u64 = 32;

/// How much a log may hold, in bytes of its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CutBounds {
    /// After the last snapshot: beyond it another is taken.
    pub after_max: u64,
    /// Behind the snapshot, in any case; at 0 nothing stays, otherwise one entry at the least, be it larger.
    pub kept_max: u64,
    /// From where a follower is to the end, while it is waited for; at 0 for none.
    pub lagging_max: u64,
}

impl<D: Disk, M: Machine> Replica<D, M> {
    /// Bytes of entries that a start would have to apply: those after the last snapshot.
    pub fn replay_bytes(&self) -> u64 {
        let covered = index(self.raft.metrics().borrow_watched().snapshot);
        self.log.bytes_after(covered)
    }

    /// Bytes that the last snapshot wrote ([`Builds::written`](crate::state_machine::Builds::written)).
    pub fn snapshot_written(&self) -> u64 {
        self.builds.written()
    }

    /// Whether a snapshot that is asked for is taken now, and covers more than the last one.
    pub fn can_snapshot(&self) -> bool {
        let covers_more = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            index(metrics.last_applied) > index(metrics.snapshot)
        };
        covers_more && !self.builds.is_pausing() && self.trouble().is_none()
    }

    /// Cuts the log: takes a snapshot once more than that has been logged since the last one and some of it is applied, and lets go
    /// what the snapshot has and nobody needs. Returns once the request is with Raft, which takes one snapshot at a time.
    ///
    /// What counts is what came after the snapshot: entries that are kept behind it must not ask for another, which would
    /// change nothing, again and again.
    pub async fn cut_log(&self, bounds: CutBounds) {
        self.incoming.tidy(self.context.clock.boot()).await;
        let (covered, applied, purged) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            (index(metrics.snapshot), index(metrics.last_applied), index(metrics.purged))
        };
        let after = self.log.bytes_after(covered);
        let kept = covered.and_then(|covered| self.log.kept_behind(covered, ENTRIES_KEPT, bounds.kept_max));
        let spare = match self.awaited(purged, bounds.lagging_max) {
            Some(place) => kept.min(place),
            None => kept,
        };
        // Both, where both are due: while a snapshot is taken the next one may be wanted already.
        if let Some(upto) = spare.filter(|upto| Some(*upto) > purged)
            && let Err(fatal) = self.context.run(self.raft.trigger().purge_log(upto)).await
        {
            self.halted(fatal.to_string());
            return;
        }
        if after > bounds.after_max
            && applied > covered
            && let Err(fatal) = self.context.run(self.raft.trigger().snapshot()).await
        {
            self.halted(fatal.to_string());
        }
    }

    /// If this replica leads, the place after which all stays for its slowest member of those that are waited for; `Some(None)` if
    /// nothing may go.
    fn awaited(&self, purged: Option<u64>, lagging_max: u64) -> Option<Option<u64>> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let matched = metrics.replication.iter().flat_map(|members| members.values());
        // What has gone is waited for by nobody: whoever lacks it gets a snapshot, which ends there or later.
        let places = matched.map(|id| index(*id).max(purged));
        places.filter(|place| self.log.bytes_after(*place) <= lagging_max).min()
    }
}

fn index(id: Option<LogId>) -> Option<u64> {
    id.map(|id| id.index)
}
