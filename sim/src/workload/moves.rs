//! An operator at work: replaces replicas while faults strike, asks twice at once, gives moves up, and has nodes whose
//! disks were lost built anew, by the calls of the client crate that the command line makes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use stoa_client::AdminError;
use stoa_protocol::map::PartitionInfo;
use stoa_protocol::message::{AbortMove, MoveInfo, PlacementAnswer, ReplaceNode, ReplaceReplica};
use stoa_protocol::{ClusterMap, ErrorCode, NodeId};

use crate::chance::Chance;
use crate::judges::Broken;
use crate::plan::{Moves, Plan};
use crate::trace::Trace;
use crate::world::SimClient;

const CALL_LIMIT: Duration = Duration::from_secs(2);
/// Between two looks for nodes that were lost.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// What the operator did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MoveCounts {
    /// Moves that the root group took.
    pub begun: u64,
    /// Requests that it refused, each with a reason that fits.
    pub refused: u64,
    /// Moves that were given up.
    pub aborted: u64,
    /// Nodes that lost their disks.
    pub lost: u64,
    /// Nodes whose data was given up.
    pub given_up: u64,
}

impl std::ops::AddAssign for MoveCounts {
    fn add_assign(&mut self, more: Self) {
        let Self { begun, refused, aborted, lost, given_up } = more;
        self.begun += begun;
        self.refused += refused;
        self.aborted += aborted;
        self.lost += lost;
        self.given_up += given_up;
    }
}

/// What the operator and the world tell each other; clones share it.
#[derive(Clone, Default)]
pub struct Desk {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    /// A node whose disk was lost, and the incarnation that went with it.
    lost: Option<ReplaceNode>,
    counts: MoveCounts,
    broken: Vec<Broken>,
}

impl Desk {
    /// A node has lost its disk.
    pub fn lose(&self, node: u64, incarnation: u64) {
        let mut inner = self.lock();
        inner.lost = Some(ReplaceNode { node: NodeId(node), incarnation });
        inner.counts.lost += 1;
    }

    /// Whether a disk has been lost in this run. Acknowledged rows lie on two disks at the least, so that one may be lost.
    pub fn has_lost(&self) -> bool {
        self.lock().counts.lost > 0
    }

    /// What was done.
    pub fn counts(&self) -> MoveCounts {
        self.lock().counts
    }

    /// What was not as it should be.
    pub fn broken(&self) -> Vec<Broken> {
        self.lock().broken.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// The operator.
pub struct Operator {
    client: SimClient,
    chance: Chance,
    desk: Desk,
    trace: Trace,
    moves: Moves,
    /// Whether the cluster may still be at a version that has no moves.
    upgrades: bool,
    pause: Duration,
    last: Option<MoveInfo>,
}

impl Operator {
    /// One for a run of this plan.
    pub fn new(client: SimClient, plan: &Plan, desk: Desk, trace: Trace) -> Self {
        let chance = Chance::new(plan.seed, "operator");
        let pause = chance.between(Duration::from_millis(300), Duration::from_secs(3));
        Self { client, chance, desk, trace, moves: plan.moves, upgrades: plan.upgrades(), pause, last: None }
    }

    /// Works until it is told to stop; nodes that were lost are built anew also after that, until the task is ended.
    pub async fn work(mut self, stop: Arc<AtomicBool>) {
        loop {
            let mut left = self.chance.between(Duration::from_millis(50), self.pause);
            while !left.is_zero() {
                let pause = LOOK_PAUSE.min(left);
                tokio::time::sleep(pause).await;
                left -= pause;
                self.give_up_lost().await;
            }
            if !stop.load(Ordering::Relaxed) && self.moves != Moves::None {
                self.one().await;
            }
        }
    }

    async fn give_up_lost(&mut self) {
        let Some(asked) = self.desk.lock().lost else { return };
        self.trace.note(format_args!("give up the data of n{}", asked.node));
        let answer = self.client.replace_node(asked, CALL_LIMIT).await;
        if let Some(answer) = self.settle(answer) {
            self.trace.note(format_args!("given up {answer:?}"));
            let mut inner = self.desk.lock();
            inner.lost = None;
            inner.counts.given_up += 1;
        }
    }

    async fn one(&mut self) {
        // The map may be old; then the request is refused, which is fine as well.
        let map = self.client.map();
        if let Some(moved) = self.last.filter(|_| self.chance.hits(150_000)) {
            let asked = AbortMove { partition: moved.partition, replica: moved.to.id };
            self.trace.note(format_args!("abort {asked:?}"));
            let answer = self.client.abort_move(asked, CALL_LIMIT).await;
            if self.settle(answer).is_some() {
                self.desk.lock().counts.aborted += 1;
            }
            return;
        }
        let Some(first) = self.some_replacement(&map) else { return };
        self.trace.note(format_args!("replace {first:?}"));
        if !self.chance.hits(200_000) {
            let answer = self.client.replace_replica(first, CALL_LIMIT).await;
            return self.begun(answer);
        }
        // Two at once, at times of one partition: what is taken must not be two moves of it.
        let mut second = self.some_replacement(&map).unwrap_or(first);
        if self.chance.hits(500_000)
            && let Some(partition) = map.partition(first.partition)
        {
            second = self.replacement_in(&map, partition).unwrap_or(first);
        }
        self.trace.note(format_args!("and at once {second:?}"));
        let (one, two) = tokio::join!(
            self.client.replace_replica(first, CALL_LIMIT),
            self.client.replace_replica(second, CALL_LIMIT)
        );
        // What was refused first: it may have been before the cluster was raised, and what was taken afterwards.
        let (first, second) = if one.is_ok() { (two, one) } else { (one, two) };
        self.begun(first);
        self.begun(second);
    }

    /// A replica, and a node of its zone; its own node only in runs that may give a replica's data up.
    fn some_replacement(&self, map: &ClusterMap) -> Option<ReplaceReplica> {
        let partitions: Vec<_> = map.sets.iter().flat_map(|set| &set.partitions).collect();
        let partition = (!partitions.is_empty()).then(|| *self.chance.pick(&partitions))?;
        self.replacement_in(map, partition)
    }

    fn replacement_in(&self, map: &ClusterMap, partition: &PartitionInfo) -> Option<ReplaceReplica> {
        let replica = *self.chance.pick(&partition.replicas);
        let zone = &map.node(replica.node)?.zone;
        let in_place = self.moves == Moves::InPlaceToo;
        let fits = |node: &&stoa_protocol::map::NodeInfo| node.zone == *zone && (in_place || node.id != replica.node);
        let nodes: Vec<NodeId> = map.nodes.iter().filter(fits).map(|node| node.id).collect();
        let to = (!nodes.is_empty()).then(|| *self.chance.pick(&nodes))?;
        Some(ReplaceReplica { partition: partition.id, replica: replica.id, to })
    }

    fn begun(&mut self, answer: Result<PlacementAnswer, AdminError>) {
        if let Some(answer) = self.settle(answer) {
            self.trace.note(format_args!("taken {answer:?}"));
            self.last = answer.moves.first().copied();
            self.desk.lock().counts.begun += 1;
        }
    }

    /// The answer, if the request was taken. What is refused must be refused for a reason that an honest request can have.
    fn settle(&mut self, answer: Result<PlacementAnswer, AdminError>) -> Option<PlacementAnswer> {
        let error = match answer {
            Ok(answer) => {
                // Where one is taken the cluster has been raised, for good.
                self.upgrades = false;
                return Some(answer);
            }
            Err(error) => error,
        };
        self.trace.note(format_args!("not taken: {error}"));
        if let AdminError::Rejected { error: refusal, .. } = &error {
            self.desk.lock().counts.refused += 1;
            let fits = [ErrorCode::NotFound, ErrorCode::MoveUnderWay, ErrorCode::Conflict];
            let fits = |code| fits.contains(&code) || self.upgrades && code == ErrorCode::WrongVersion;
            if !refusal.refusal().map(|body| body.code).is_some_and(fits) {
                let what = format!("an honest request was refused: {error}");
                self.desk.lock().broken.push(Broken { judge: "what fits is taken", what });
            }
        }
        None
    }
}
