//! What expires: leaders keep the time of their partitions going while somebody needs it, and have removed what has had
//! its time.
//!
//! **Stamps.** Every write carries one. A partition whose rows expire and that nobody writes to gets a stamp by itself when
//! a replica asks its leader for a commit index ([`Node::stamp_if_due`]), and the newest one is older than
//! [`STAMP_BEHIND_US_MAX`]: replicas ask while they are read, and before they serve anything after a start, until they know
//! the time ([`Node::knows_time`]). So what is read knows the time, and what nobody reads costs nothing.
//!
//! **Sweeps.** A leader goes through the rows of its groups from time to time, in steps: it looks at up to
//! [`LOOK_ROWS`] rows ([`PartitionReader::look_for_sweep`](stoa_store::PartitionReader::look_for_sweep)), and if some of
//! them have had their time, it proposes to remove them from that range of hashes. One step each [`LOOP_PAUSE`] on a node,
//! whatever it leads: 10 million rows take half a minute. Groups whose rows live for ever are looked at only where there
//! are tombstones. A pass begins again after a part of the time that rows stay, so that what has had its time takes little
//! more room than what has not.
//!
//! A leader whose clock nobody else has confirmed sweeps nothing: what is removed does not come back.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use stoa_env::{BootTime, Disk, Transport};
use stoa_protocol::codec::Wire;
use stoa_protocol::limits::SWEEP_ROWS_MAX;
use stoa_protocol::{ErrorBody, FeatureGroup, FeatureGroupId, PartitionId};
use stoa_raft::root::state::EXPIRY_VERSION;
use stoa_store::{Command, Sweep};

use super::clocks::{CLOCKS_PAUSE, Stamp};
use super::{Hosted, LOOP_PAUSE, NODE_CALL_LIMIT, Node};

/// How far the log's time of a partition that is asked for may be behind: as far as stamps may be ahead of it anyway.
const STAMP_BEHIND_US_MAX: i64 = super::clocks::STAMP_AHEAD_US_MAX;

/// Rows that are looked at in one step, some milliseconds' work.
const LOOK_ROWS: usize = SWEEP_ROWS_MAX as usize;

/// A pass begins again after this part of the time that rows stay: they take up to so much more room.
const PASS_SHARE: i64 = 16;
/// The shortest time between passes through one partition, and the longest.
const PASS_EVERY_MIN: Duration = Duration::from_secs(5);
const PASS_EVERY_MAX: Duration = Duration::from_secs(3_600);

/// How far the passes through a partition have come.
struct Pass {
    /// When the next one begins.
    due: BootTime,
    /// Where the one that is under way goes on.
    at: Option<(FeatureGroupId, u64)>,
    removed: u64,
}

/// Goes through what this node leads, one step at a time.
pub(super) async fn sweep<D: Disk, T: Transport>(node: Weak<Node<D, T>>) {
    let mut passes = BTreeMap::new();
    let mut last = None;
    loop {
        let Some(strong) = node.upgrade() else { return };
        last = strong.sweep_step(&mut passes, last).await;
        drop(strong);
        stoa_env::sleep(LOOP_PAUSE).await;
    }
}

impl<D: Disk, T: Transport> Node<D, T> {
    /// One step of the partition after `last` that has one to do; says which that was.
    async fn sweep_step(
        &self,
        passes: &mut BTreeMap<PartitionId, Pass>,
        last: Option<PartitionId>,
    ) -> Option<PartitionId> {
        if self.state().cluster_version < EXPIRY_VERSION {
            return None;
        }
        let now = self.now();
        let led: BTreeMap<PartitionId, Arc<Hosted<D>>> = { self.all_hosted().into_iter() }
            .filter(|hosted| hosted.replica.leads() && hosted.replica.is_caught_up())
            .map(|hosted| (hosted.replica.partition(), hosted))
            .collect();
        passes.retain(|partition, _| led.contains_key(partition));
        for partition in led.keys() {
            let first = || Pass { due: now.plus(PASS_EVERY_MIN), at: None, removed: 0 };
            passes.entry(*partition).or_insert_with(first);
        }
        let is_due = |pass: &Pass| pass.at.is_some() || pass.due <= now;
        let mut due = passes.iter().filter(|(_, pass)| is_due(pass)).map(|(partition, _)| *partition);
        let next = { due.clone() }.find(|partition| Some(*partition) > last).or_else(|| due.next())?;
        let pass = passes.get_mut(&next).expect("it was found among them");
        if let Err(error) = self.sweep_on(&led[&next], pass).await {
            tracing::debug!(partition = next.0, %error, "a sweep");
            (pass.due, pass.at) = (now.plus(PASS_EVERY_MIN), None);
        }
        Some(next)
    }

    /// Looks at the next rows of a partition, and has removed what has had its time.
    async fn sweep_on(&self, hosted: &Hosted<D>, pass: &mut Pass) -> Result<(), ErrorBody> {
        let stamp = self.stamp(hosted);
        if !stamp.is_bounded {
            pass.due = self.now().plus(PASS_EVERY_MIN);
            pass.at = None;
            return Ok(());
        }
        let reader = hosted.view.reader();
        let definitions = hosted.view.definitions();
        let has_tombstones = reader.memory().tombstones > 0;
        let worth_it = |group: &&FeatureGroup| group.ttl.is_some() || has_tombstones;
        let (from, first_hash) = pass.at.unwrap_or((FeatureGroupId(0), 0));
        let Some(group) = definitions.iter().filter(worth_it).find(|group| group.id >= from) else {
            let due = self.now().plus(pass_every(&definitions));
            if pass.removed > 0 {
                let partition = hosted.replica.partition().0;
                tracing::info!(
                    partition,
                    removed = pass.removed,
                    "rows and tombstones that have had their time are gone"
                );
            }
            *pass = Pass { due, at: None, removed: 0 };
            return Ok(());
        };
        let first_hash = if group.id == from { first_hash } else { 0 };
        let after = Some((FeatureGroupId(group.id.0.saturating_add(1)), 0));
        let Some(look) = reader.look_for_sweep(group.id, first_hash, LOOK_ROWS, stamp.us) else {
            pass.at = after;
            return Ok(());
        };
        if look.removable > 0 {
            let sweep = Sweep {
                stamp_us: stamp.us,
                group: group.id,
                first_hash,
                last_hash: look.last_hash,
                rows_max: SWEEP_ROWS_MAX,
            };
            let reply = hosted.replica.propose(Command::Sweep(sweep).encode(), NODE_CALL_LIMIT).await?;
            let removed = reply.outcome.transpose()?.and_then(|bytes| u32::from_bytes(&bytes).ok()).unwrap_or(0);
            pass.removed += u64::from(removed);
            if removed == SWEEP_ROWS_MAX {
                // There may be more.
                pass.at = Some((group.id, first_hash));
                return Ok(());
            }
        }
        pass.at = look.last_hash.checked_add(1).map_or(after, |next| Some((group.id, next)));
        Ok(())
    }

    /// Whether a replica that has just begun knows the time of its partition: as near as its leader keeps the log to its own
    /// calendar, or to what others allow of that. A leader that has heard nobody yet, or whose log is slow, gives its
    /// replicas an index and no stamp; they ask again then.
    pub(crate) fn knows_time(&self, hosted: &Hosted<D>) -> bool {
        if !hosted.view.expires() {
            return true;
        }
        let bounded = |stamp: Stamp| stamp.is_bounded.then_some(stamp.us);
        let own_us = self.env.context.clock.wall().0;
        let told = match hosted.replica.leader() {
            Some(leader) if leader != self.info.id => self.clocks.of_leader(leader, own_us, self.now()),
            _ => None,
        };
        let expected = told.or_else(|| bounded(self.stamp(hosted)));
        let known_us = hosted.view.time_us(self.now());
        expected.is_some_and(|us| us.saturating_sub(known_us) <= STAMP_BEHIND_US_MAX)
    }

    /// Stamps the time into the log of a partition that this node leads, whose rows expire, and where it is not known well
    /// enough. Other nodes' calendars are waited for, since a log that has stood still says nothing. It need not succeed:
    /// what is read then goes by the time that is known.
    pub(crate) async fn stamp_if_due(&self, hosted: &Hosted<D>, limit: Duration) {
        let end = self.now().plus(limit);
        let stamp = loop {
            if !hosted.view.expires() || !hosted.replica.leads() {
                return;
            }
            let stamp = self.stamp(hosted);
            if stamp.is_bounded || self.now() >= end {
                break stamp;
            }
            stoa_env::sleep(CLOCKS_PAUSE).await;
        };
        let behind_us = stamp.us.saturating_sub(hosted.view.reader().time_us());
        if behind_us <= STAMP_BEHIND_US_MAX {
            return;
        }
        let command = Command::Stamp { stamp_us: stamp.us }.encode();
        if let Err(error) = hosted.replica.propose(command, end.since(self.now())).await {
            tracing::debug!(partition = hosted.replica.partition().0, %error, "a stamp");
        }
    }
}

/// The time from the end of one pass to the beginning of the next: a part of the shortest time that a row or a tombstone
/// stays.
fn pass_every(groups: &[FeatureGroup]) -> Duration {
    let stays = |group: &FeatureGroup| group.late_horizon_us.saturating_add(group.ttl.map_or(0, |ttl| ttl.after_us));
    let shortest = groups.iter().map(stays).min().unwrap_or(i64::MAX);
    let share = Duration::from_micros((shortest / PASS_SHARE).unsigned_abs());
    share.clamp(PASS_EVERY_MIN, PASS_EVERY_MAX)
}

#[cfg(test)]
mod tests {
    use stoa_protocol::{FeatureType, KeyType, OnExpired, Ttl};

    use super::*;

    #[test]
    fn passes_come_as_often_as_the_shortest_life_asks_for_within_bounds() {
        let group = |late_horizon_us, ttl: Option<i64>| FeatureGroup {
            late_horizon_us,
            ttl: ttl.map(|after_us| Ttl { after_us, on_expired: OnExpired::Expire }),
            ..FeatureGroup::simple(1, "g", &[("id", KeyType::Int64)], &[("x", FeatureType::Int64)])
        };
        let (second, hour, week) = (1_000_000, 3_600_000_000, 604_800_000_000);
        assert_eq!(pass_every(&[]), PASS_EVERY_MAX);
        assert_eq!(pass_every(&[group(week, None)]), PASS_EVERY_MAX);
        assert_eq!(pass_every(&[group(week, None), group(hour, Some(hour))]), Duration::from_secs(450));
        assert_eq!(pass_every(&[group(0, Some(second))]), PASS_EVERY_MIN);
    }
}
