//! When replicas take snapshots, so that the log can be cut and a start has little of it to apply.
//!
//! A start applies what was logged after the last snapshots, and serves when that is done. So the groups of a node have one
//! budget for it (`log.replay_mib_max`), and once they are over it, those that have logged most take snapshots. A snapshot
//! writes again what has changed since the last one, which is all of it where writes are at random; so a group is left alone
//! until it has logged a sixteenth of what its last snapshot wrote, budget or no budget. One that has logged a trifle is left
//! alone too: where large groups are over the budget and wait for their sixteenth, many small ones would take snapshots again and
//! again and change nothing.
//!
//! What lies behind a snapshot is read by a start and not applied. It stays for followers that were down for a while or take
//! a snapshot in ([`stoa_raft::CutBounds`]), as long as the node's log has room for it.

use std::sync::{Arc, Weak};

use stoa_env::{Disk, Transport};
use stoa_raft::CutBounds;

use super::upkeep::FirstCatchUp;
use super::{Hosted, LOOP_PAUSE, Node};

/// A group's log must have grown by this share of what its last snapshot wrote before it takes another for the budget's sake.
const WRITTEN_SHARE: u64 = 16;
/// And by this share of the budget; with many groups, by half of what each may have of it, so that one of them is always large
/// enough.
const BUDGET_SHARE: u64 = 64;
/// Snapshots that are begun for the budget's sake at once.
const AT_ONCE_MAX: usize = 4;
/// Bytes of entries that stay behind a snapshot for followers that lag a little.
const KEPT_BYTES: u64 = 1 << 20;

/// Takes snapshots of groups whose log has grown, and of those that keep old segments of the log from going.
pub(super) async fn cut_logs<D: Disk, T: Transport>(node: Weak<Node<D, T>>) {
    let mut first = FirstCatchUp::of(&node);
    loop {
        let Some(strong) = node.upgrade() else { return };
        strong.cut_logs_once(&mut first).await;
        drop(strong);
        stoa_env::sleep(LOOP_PAUSE).await;
    }
}

impl<D: Disk, T: Transport> Node<D, T> {
    /// Cuts the logs of groups that have grown.
    async fn cut_logs_once(&self, first: &mut FirstCatchUp) {
        let hosted = self.all_hosted();
        let bounds = self.log_room(&hosted).bounds(self.options.snapshot_log_bytes);
        let logs: Vec<Logged> = hosted.iter().map(logged).collect();
        let over = over_budget(&logs, self.replay_budget(first));
        for (hosted, over) in hosted.iter().zip(over) {
            let after_max = if over { 0 } else { bounds.after_max };
            hosted.replica.cut_log(CutBounds { after_max, ..bounds }).await;
        }
        if let Some(root) = self.root_replica() {
            root.cut_log(bounds).await;
        }
    }

    fn log_room(&self, hosted: &[Arc<Hosted<D>>]) -> LogRoom {
        let stats = self.env.wal.stats();
        LogRoom {
            live_bytes: stats.live_bytes,
            live_bytes_max: self.options.wal.max_live_bytes,
            is_full: stats.full,
            // And the root group's.
            replicas: hosted.len() as u64 + 1,
            leaders: hosted.iter().filter(|hosted| hosted.replica.leads()).count() as u64 + 1,
        }
    }

    /// What all groups may have logged since their last snapshots: as much as they like while replicas catch up after a start,
    /// since snapshots would take the processor and the device from them.
    pub(super) fn replay_budget(&self, first: &mut FirstCatchUp) -> u64 {
        if first.is_over(self) { self.options.replay_log_bytes } else { u64::MAX }
    }
}

/// What the node's log has room for.
#[derive(Debug, Clone, Copy)]
struct LogRoom {
    live_bytes: u64,
    live_bytes_max: u64,
    /// Whether its device is full.
    is_full: bool,
    replicas: u64,
    leaders: u64,
}

impl LogRoom {
    /// What each group may keep: `after_max` after its snapshot, and for followers that lag as much, of which all that this node
    /// leads share a quarter of the log. Once that is half full, each may keep its part of a quarter of it after its snapshot,
    /// and nothing behind it: then the log finds enough that may go.
    fn bounds(self, after_max: u64) -> CutBounds {
        let quarter = self.live_bytes_max / 4;
        if self.live_bytes > self.live_bytes_max / 2 {
            return CutBounds { after_max: after_max.min(quarter / self.replicas), kept_max: 0, lagging_max: 0 };
        }
        let lagging_max = if self.is_full { 0 } else { after_max.min(quarter / self.leaders) };
        CutBounds { after_max, kept_max: KEPT_BYTES, lagging_max }
    }
}

/// What a group has logged since its last snapshot, and what that one wrote, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Logged {
    after: u64,
    written: u64,
    /// Whether a snapshot would be taken now, and make the log shorter.
    helps: bool,
}

fn logged<D: Disk>(hosted: &Arc<Hosted<D>>) -> Logged {
    let replica = &hosted.replica;
    Logged { after: replica.replay_bytes(), written: replica.snapshot_written(), helps: replica.can_snapshot() }
}

/// Which groups take snapshots because all together have logged more than `budget`: those that have logged most, as far as they
/// can and it is worth it, and no more than make up for the excess.
fn over_budget(logs: &[Logged], budget: u64) -> Vec<bool> {
    let mut excess = logs.iter().map(|log| log.after).sum::<u64>().saturating_sub(budget);
    // If all are over the budget together, the largest has at least twice that.
    let least = budget / BUDGET_SHARE.max(2 * logs.len() as u64);
    let is_worth_it = |log: Logged| log.helps && log.after >= least.max(log.written / WRITTEN_SHARE);
    let mut largest_first: Vec<usize> = (0..logs.len()).filter(|at| is_worth_it(logs[*at])).collect();
    largest_first.sort_by_key(|at| std::cmp::Reverse(logs[*at].after));
    let mut over = vec![false; logs.len()];
    for at in largest_first.into_iter().take(AT_ONCE_MAX) {
        if excess == 0 {
            break;
        }
        over[at] = true;
        excess = excess.saturating_sub(logs[at].after);
    }
    over
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn followers_are_waited_for_within_a_quarter_of_the_log_and_not_where_it_has_no_room() {
        let room = LogRoom { live_bytes: 512, live_bytes_max: 1_024, is_full: false, replicas: 64, leaders: 16 };
        assert_eq!(room.bounds(1_000), CutBounds { after_max: 1_000, kept_max: KEPT_BYTES, lagging_max: 16 });
        assert_eq!(room.bounds(15).lagging_max, 15);
        assert_eq!(LogRoom { is_full: true, ..room }.bounds(1_000).lagging_max, 0);
        let pressed = LogRoom { live_bytes: 513, ..room };
        assert_eq!(pressed.bounds(1_000), CutBounds { after_max: 4, kept_max: 0, lagging_max: 0 });
    }

    fn log(after: u64, written: u64) -> Logged {
        Logged { after, written, helps: true }
    }

    fn over_of(logs: &[Logged], budget: u64) -> Vec<usize> {
        over_budget(logs, budget).iter().enumerate().filter(|(_, over)| **over).map(|(at, _)| at).collect()
    }

    fn over(logs: &[(u64, u64)], budget: u64) -> Vec<usize> {
        over_of(&logs.iter().map(|&(after, written)| log(after, written)).collect::<Vec<_>>(), budget)
    }

    #[test]
    fn those_that_have_logged_most_take_snapshots_until_all_together_are_below_the_budget() {
        assert_eq!(over(&[(10, 0), (30, 0), (20, 0)], 60), [0; 0]);
        assert_eq!(over(&[(10, 0), (30, 0), (20, 0)], 59), [1]);
        assert_eq!(over(&[(10, 0), (30, 0), (20, 0)], 30), [1]);
        assert_eq!(over(&[(10, 0), (30, 0), (20, 0)], 29), [1, 2]);
        assert_eq!(over(&[(10, 0); 9], 0), [0, 1, 2, 3], "a few at a time");
    }

    #[test]
    fn a_group_that_would_write_much_again_for_little_is_left_alone() {
        assert_eq!(over(&[(10, 0), (30, 16 * 31)], 5), [0]);
        assert_eq!(over(&[(10, 0), (30, 16 * 30)], 5), [0, 1]);
        assert_eq!(over(&[(0, 0)], 0), [0; 0], "nothing was logged");
    }

    #[test]
    fn small_groups_take_no_snapshots_for_large_ones_that_wait_for_their_share() {
        let large = [(20 << 20, 1 << 30); 8];
        let small = [(2_000, 20_000); 50];
        assert_eq!(over(&[&large[..], &small[..]].concat(), 128 << 20), [0; 0]);
        // As many as that, and all small, are over it as well, and then some must.
        assert_eq!(over(&[(1_000, 0); 1_000], 999_999), [0]);
    }

    #[test]
    fn groups_that_cannot_take_one_take_no_places_and_count_as_before() {
        let stuck = Logged { helps: false, ..log(50, 0) };
        let logs = [stuck, stuck, stuck, stuck, log(20, 0), log(10, 0), log(10, 0)];
        assert_eq!(over_of(&logs, 230), [4]);
        assert_eq!(over_of(&logs, 210), [4, 5]);
        assert_eq!(over_of(&logs, 1), [4, 5, 6]);
    }
}
