//! Rounds of confirmation: this node asks another for the commit indices of partitions that the other leads, in one
//! message for all of them. Reads of the strong level need them, and ages are counted from them
//! ([`freshness`](super::freshness)).
//!
//! To each node there is one round on its way at a time. Whoever comes meanwhile is in the next one: a verdict serves only
//! requests that came before its round began, and a hundred readers cost one message.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use stoa_env::{BootTime, Bounds, Disk, Gauge, Transport, planted};
use stoa_protocol::codec::Wire;
use stoa_protocol::limits::NODES_MAX;
use stoa_protocol::message::{BarrierAnswer, BarrierRequest, Caller, Kind, encode_request};
use stoa_protocol::read::ConfirmBy;
use stoa_protocol::{LogIndex, NodeId, PartitionId};
use tokio::sync::oneshot;

use super::{HELD_CALLS, Hosted, Node};

/// How long one round may take. A round is a few milliseconds in health; whoever waits behind one to a node that is gone
/// must not lose all of its time.
pub(super) const ROUND_LIMIT: Duration = Duration::from_millis(300);

/// Requests that may wait for the next round of a lane; further ones are refused. Each holds a pointer here, and each is a
/// request that the transport has let in.
const WAITING_MAX: usize = 4_096;

/// Lanes that there may be: three ways to confirm and two states of doubt for each node. Nobody is refused here, as no other
/// leader is known.
const LANES_MAX: usize = 6 * NODES_MAX;

/// Partitions that are asked about together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lane {
    leader: NodeId,
    by: ConfirmBy,
    /// Partitions whose last round brought nothing: a leader waits for the quorum of each, and the others need not wait.
    in_doubt: bool,
}

impl Lane {
    /// The lane of a replica's partition; `None` if it knows no leader.
    pub(crate) fn of<D: Disk>(hosted: &Hosted<D>, by: ConfirmBy) -> Option<Self> {
        let leader = hosted.replica.leader()?;
        Some(Self { leader, by, in_doubt: hosted.freshness.is_in_doubt() })
    }
}

/// The indices that a round has brought.
pub(crate) type Confirmed = BTreeMap<PartitionId, LogIndex>;

/// Tells a request what its round has brought.
type Waiter = oneshot::Sender<Arc<Confirmed>>;

/// The rounds of a node. A lane is here while a round of it is on its way.
#[derive(Debug)]
pub(crate) struct Rounds {
    lanes: Mutex<BTreeMap<Lane, Next>>,
    /// Counts the lanes.
    lanes_counted: Gauge,
    /// Counts the requests that wait in one.
    waiting_counted: Gauge,
}

/// The next round of a lane.
#[derive(Debug, Default)]
struct Next {
    wanted: BTreeSet<PartitionId>,
    waiting: Vec<Waiter>,
}

impl Rounds {
    /// None is on its way.
    pub(crate) fn new(bounds: &Bounds) -> Self {
        Self {
            lanes: Mutex::default(),
            lanes_counted: bounds.node_gauge("rounds of confirmation on their way", LANES_MAX as u64),
            waiting_counted: bounds.gauge("requests that wait for a round of confirmation", WAITING_MAX as u64),
        }
    }

    /// Puts partitions and a request into the next round of a lane. Whether the caller must begin it, as none is on its way.
    /// A request that finds no room is dropped, and so told.
    fn join(&self, lane: Lane, partitions: impl IntoIterator<Item = PartitionId>, waiter: Option<Waiter>) -> bool {
        let mut lanes = self.lock();
        let begins = !lanes.contains_key(&lane);
        let next = lanes.entry(lane).or_default();
        next.wanted.extend(partitions);
        if next.waiting.len() < WAITING_MAX {
            next.waiting.extend(waiter);
        }
        self.waiting_counted.note_len(next.waiting.len());
        self.lanes_counted.note_len(lanes.len());
        begins
    }

    /// Takes what is to be asked; the lane ends if nothing is.
    fn take(&self, lane: Lane) -> Option<Next> {
        let mut lanes = self.lock();
        let next = std::mem::take(lanes.get_mut(&lane)?);
        if next.wanted.is_empty() {
            lanes.remove(&lane);
            return None;
        }
        Some(next)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Lane, Next>> {
        self.lanes.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl<D: Disk, T: Transport> Node<D, T> {
    /// Puts partitions into the next round of a lane; `waiter` is told what it has brought.
    pub(crate) fn join_round(
        self: &Arc<Self>,
        lane: Lane,
        partitions: impl IntoIterator<Item = PartitionId>,
        waiter: Option<Waiter>,
    ) {
        if self.rounds.join(lane, partitions, waiter) {
            self.spawn_vital("confirm", run_rounds(self.clone(), lane));
        }
    }

    /// Commit indices of partitions, confirmed after this call began; those that were not confirmed by `end` are missing.
    pub(crate) async fn confirmed(
        self: &Arc<Self>,
        partitions: impl IntoIterator<Item = PartitionId>,
        by: ConfirmBy,
        end: BootTime,
    ) -> Confirmed {
        let mut lanes: BTreeMap<Lane, BTreeSet<PartitionId>> = BTreeMap::new();
        for partition in partitions {
            if let Some(lane) = self.hosted(partition).and_then(|hosted| Lane::of(&hosted, by)) {
                lanes.entry(lane).or_default().insert(partition);
            }
        }
        let mut rounds = Vec::with_capacity(lanes.len());
        for (lane, partitions) in lanes {
            let (waiter, told) = oneshot::channel();
            self.join_round(lane, partitions.iter().copied(), Some(waiter));
            rounds.push((partitions, told));
        }
        let mut confirmed = Confirmed::new();
        // One after the other is side by side: nothing is done but waiting, and they have one end.
        for (partitions, told) in rounds {
            let left = end.since(self.env.context.clock.boot());
            if let Ok(Ok(brought)) = stoa_env::timeout(left, told).await {
                let index = |partition| Some((partition, *brought.get(&partition)?));
                confirmed.extend(partitions.into_iter().filter_map(index));
            }
        }
        confirmed
    }

    /// Asks the lane's node about these partitions.
    async fn ask(&self, lane: Lane, wanted: BTreeSet<PartitionId>) -> Confirmed {
        let request = BarrierRequest { by: lane.by, partitions: wanted.into_iter().collect() };
        let answer = match lane.leader == self.info.id {
            true => Some(self.barriers(&request, ROUND_LIMIT).await),
            false => {
                let body = encode_request(&Caller::default(), &request);
                let sent = self.env.peers.call(lane.leader, HELD_CALLS, Kind::Barrier, &body, ROUND_LIMIT).await;
                sent.ok().and_then(|bytes| BarrierAnswer::from_bytes(&bytes).ok())
            }
        };
        let committed = answer.map(|answer| answer.committed).unwrap_or_default();
        request
            .partitions
            .into_iter()
            .zip(committed)
            .filter_map(|(partition, index)| Some((partition, index?)))
            .collect()
    }

    /// Notes what a round says of the age of this node's replicas. A lease says nothing: an age rests on no clock but this
    /// node's own.
    fn note_round(&self, lane: Lane, asked: BootTime, wanted: &BTreeSet<PartitionId>, confirmed: &Confirmed) {
        for partition in wanted {
            let Some(hosted) = self.hosted(*partition) else { continue };
            let index = confirmed.get(partition);
            hosted.freshness.set_in_doubt(index.is_none());
            if let Some(index) = index.filter(|_| lane.by != ConfirmBy::Lease) {
                hosted.freshness.note(asked, *index);
            }
        }
    }
}

/// Runs the rounds of a lane, one after the other, until nobody waits for another.
async fn run_rounds<D: Disk, T: Transport>(node: Arc<Node<D, T>>, lane: Lane) {
    while let Some(Next { wanted, waiting }) = node.rounds.take(lane) {
        // Before the question goes out: the age counts from here.
        let asked = node.env.context.clock.boot();
        let confirmed = node.ask(lane, wanted.clone()).await;
        // By when the answer came, which says nothing of when it was true.
        let asked = if planted!(StalenessByLocalClock) { node.env.context.clock.boot() } else { asked };
        node.note_round(lane, asked, &wanted, &confirmed);
        let confirmed = Arc::new(confirmed);
        // A request that has given up does not listen any more.
        waiting.into_iter().for_each(|waiter| drop(waiter.send(confirmed.clone())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_serves_those_alone_who_came_before_it_began() {
        let rounds = Rounds::new(&Bounds::default());
        let lane = Lane { leader: NodeId(1), by: ConfirmBy::ReadIndex, in_doubt: false };
        let join = |partition| {
            let (waiter, told) = oneshot::channel();
            (rounds.join(lane, [PartitionId(partition)], Some(waiter)), told)
        };
        let (begins, _first) = join(2);
        assert!(begins);
        let round = rounds.take(lane).unwrap();
        assert_eq!((round.wanted.len(), round.waiting.len()), (1, 1));
        // It is on its way: these are in the next one, and begin none.
        let others: Vec<_> = [2, 3, 3].into_iter().map(join).collect();
        assert!(others.iter().all(|(begins, _)| !begins));
        let round = rounds.take(lane).unwrap();
        assert_eq!(
            (round.wanted.into_iter().collect::<Vec<_>>(), round.waiting.len()),
            (vec![PartitionId(2), PartitionId(3)], 3)
        );
        assert!(rounds.take(lane).is_none(), "nobody came");
        assert!(join(2).0, "the next one begins again");
    }

    #[test]
    fn no_more_wait_than_there_is_room_for() {
        let rounds = Rounds::new(&Bounds::default());
        let lane = Lane { leader: NodeId(1), by: ConfirmBy::Lease, in_doubt: false };
        let told: Vec<_> = (0..WAITING_MAX + 1)
            .map(|_| {
                let (waiter, told) = oneshot::channel();
                rounds.join(lane, [PartitionId(2)], Some(waiter));
                told
            })
            .collect();
        assert_eq!(rounds.take(lane).unwrap().waiting.len(), WAITING_MAX);
        drop(told);
    }
}
