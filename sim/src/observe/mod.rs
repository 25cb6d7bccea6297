//! What judges of replication look at: the disks, by what a loss of power would leave of them ([`disk_log`]); what nodes
//! answer, at the moment at which they do; and where replicas say they stand. The first two know nothing of what the
//! product remembers.
//!
//! Nothing here is seen by a process, and nothing takes simulated time.

pub mod disk_log;
pub mod frames;
pub mod snapshots;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use stoa_env::Bounded;
use stoa_protocol::codec::Wire;
use stoa_protocol::frame::decode_frame;
use stoa_protocol::message::{ANSWER, Kind, WriteAnswer, WriteRequest, decode_request};
use stoa_raft::{Promise, RaftAnswer, RaftCall, RaftTiming, Standing, open_envelope, open_message};
use tokio::time::Instant;

use crate::disk::SimDisk;
use crate::judges::Broken;
use crate::judges::bounds::HighWater;
use crate::judges::catalog_grows::Catalogs;
use crate::judges::committed::Committed;
use crate::judges::election_safety::ElectionSafety;
use crate::judges::log_matching::LogMatching;
use crate::judges::one_majority::{self, Memberships};
use crate::judges::one_vote::OneVote;
use crate::judges::progress::Progress;
use crate::judges::replica_ids::ReplicaIds;
use crate::judges::root_state::RootStates;
use crate::judges::{
    durable_quorum, kept_promises, leader_completeness, old_disk, one_move, purged, versions, voter_sets,
};
use crate::machine::Machine;
use crate::trace::Trace;
use crate::world::now;
use disk_log::{DiskLog, GroupLog};
use frames::{Frame, LogId, Said, Vote};

/// Broken promises that one judge may report in a run: the first says what happened, the rest follows from it.
const REPORTS_MAX: usize = 5;

/// Looks at replication with the eyes of its judges. Clones are the same.
#[derive(Clone)]
pub struct Observer {
    inner: Arc<Mutex<Inner>>,
}

/// What the judges had to judge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Judged {
    /// Entries that became durable, each index and term of a group once.
    pub entries: u64,
    /// Terms of groups in which somebody led.
    pub elections: u64,
    /// Acknowledged writes whose entries were looked for on the disks.
    pub acknowledged: u64,
    /// Votes and entries that a replica answered for.
    pub promises: u64,
    /// Root states of one node that were compared with another's.
    pub root_states: u64,
}

struct Inner {
    lease: Option<Duration>,
    nodes: BTreeMap<u64, Eye>,
    judges: Judges,
    judged: Judged,
    /// Nodes whose disk is an old image of itself.
    old: BTreeSet<u64>,
}

/// One node's disk.
struct Eye {
    disk: SimDisk,
    log: DiskLog,
    /// What was on its disk before this one, and when that was lost.
    lost: Option<(Instant, DiskLog)>,
}

/// Between the moment at which a quorum has an entry and the answer to the client a disk may be lost. Afterwards what was on
/// it still counts for so long.
const LOST_COUNTS: Duration = Duration::from_secs(1);

struct Judges {
    trace: Trace,
    election_safety: ElectionSafety,
    one_vote: OneVote,
    log_matching: LogMatching,
    committed: Committed,
    memberships: Memberships,
    replica_ids: ReplicaIds,
    progress: Progress,
    root_states: RootStates,
    catalogs: Catalogs,
    high_water: HighWater,
    /// Up to where groups of the node that is looked at were purged since the last look. One that was erased in the same
    /// sync has no snapshot any more, and needs none.
    purges: BTreeMap<u64, u64>,
    broken: Vec<Broken>,
}

impl Judges {
    fn new(trace: Trace) -> Self {
        Self {
            trace,
            election_safety: ElectionSafety::default(),
            one_vote: OneVote::default(),
            log_matching: LogMatching::default(),
            committed: Committed::default(),
            memberships: Memberships::default(),
            replica_ids: ReplicaIds::default(),
            progress: Progress::default(),
            root_states: RootStates::default(),
            catalogs: Catalogs::default(),
            high_water: HighWater::default(),
            purges: BTreeMap::new(),
            broken: Vec::new(),
        }
    }

    fn report(&mut self, judge: &'static str, what: Option<String>) {
        let Some(what) = what else { return };
        if self.broken.iter().filter(|broken| broken.judge == judge).count() < REPORTS_MAX {
            self.trace.note(format_args!("broken, {judge}: {what}"));
            self.broken.push(Broken { judge, what });
        }
    }

    /// A frame has become durable on node `node`; `before` is what was durable of its group.
    fn frame(&mut self, node: u64, before: &GroupLog, frame: &Frame) {
        let group = frame.group;
        match &frame.said {
            Said::Entry { moved: true, .. } => {}
            Said::Entry { term, hash, members, .. } => {
                let previous = frame.index.checked_sub(1).and_then(|index| before.term_at(index));
                let broken = self.log_matching.judge(node, group, (frame.index, *term), *hash, previous);
                self.report("logs match", broken);
                if let Some(members) = members {
                    let broken = self.memberships.judge_next(group, frame.index, members, before, &self.committed);
                    self.memberships.note(group, frame.index, *term, members);
                    self.report("one voting majority", broken);
                    let broken = self.replica_ids.judge_members(group, members);
                    self.report("a replica id is one replica", broken);
                    let zone_of = |node| Some(crate::world::zone(node));
                    let broken = voter_sets::judge_entry(group, members, zone_of);
                    self.report("a voter in each of three zones", broken);
                }
            }
            Said::Vote(vote) => self.vote(node, group, *vote, before),
            Said::Committed(upto) => {
                let broken = self.committed.judge(node, group, *upto, before);
                self.report("committed entries stay", broken);
            }
            Said::Truncate(keep) => {
                let broken = self.committed.judge_cut(node, group, keep.map_or(0, |keep| keep + 1), before);
                self.report("committed entries stay", broken);
            }
            Said::Forget => {
                self.one_vote.forget(node, group);
                self.committed.forget(node, group);
                self.purges.remove(&group);
            }
            Said::Purge(upto) => {
                self.purges.insert(group, frame.index);
                // It had applied them. What a snapshot of another log takes the place of says nothing.
                if before.term_at(upto.index) == Some(upto.term) {
                    let broken = self.committed.judge(node, group, *upto, before);
                    self.report("committed entries stay", broken);
                }
            }
            Said::Segment { .. } | Said::HardState { .. } | Said::Mark => {}
        }
    }

    fn vote(&mut self, node: u64, group: u64, vote: Vote, before: &GroupLog) {
        let broken = self.one_vote.judge(node, group, vote);
        self.report("one vote a term", broken);
        if !vote.committed {
            return;
        }
        let broken = self.election_safety.judge(node, group, vote.term, vote.candidate);
        self.report("one leader a term", broken);
        // What it was elected with was written before. A replica may also hear of an earlier one of this node that led.
        if self.one_vote.replica(node, group) == Some(vote.candidate) {
            let broken = leader_completeness::judge(node, group, vote.term, before, &self.committed);
            self.report("a leader has what was committed", broken);
        }
    }
}

impl Observer {
    /// Has seen nothing. `timing` is that of the cluster; what is broken is noted in `trace` when it is seen.
    pub fn new(timing: &RaftTiming, trace: Trace) -> Self {
        let inner = Inner {
            lease: Some(timing.lease_read_age_max()),
            nodes: BTreeMap::new(),
            judges: Judges::new(trace),
            judged: Judged::default(),
            old: BTreeSet::new(),
        };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// For runs whose clocks do what no lease can bear: who leads by a lease is not judged.
    pub fn ignore_leases(&self) {
        self.lock().lease = None;
    }

    /// A machine is there, with this disk; once more if its disk was exchanged for another.
    pub fn watch(&self, node: u64, disk: SimDisk) {
        let me = Arc::downgrade(&self.inner);
        disk.before_removals(move || {
            let Some(inner) = me.upgrade() else { return };
            inner.lock().unwrap_or_else(|e| e.into_inner()).refresh_one(node);
        });
        let mut inner = self.lock();
        inner.refresh_one(node);
        let lost = inner.nodes.remove(&node).map(|eye| (now(), eye.log));
        inner.nodes.insert(node, Eye { disk, log: DiskLog::default(), lost });
        inner.old.remove(&node);
        // What stands on the new one is of other replicas.
        inner.judges.one_vote.forget_all(node);
        inner.judges.committed.forget_all(node);
    }

    /// The disk of a node is an old image of itself, and others have heard of what it lacks.
    pub fn is_old(&self, node: u64) {
        self.lock().old.insert(node);
    }

    /// What is on the disk of node `node` is about to be lost, and another content takes its place.
    pub fn lose(&self, node: u64) {
        let mut inner = self.lock();
        inner.refresh_one(node);
        if let Some(eye) = inner.nodes.get_mut(&node) {
            eye.lost = Some((now(), eye.log.clone()));
        }
    }

    /// Node `node` answers a request now.
    pub fn answered(&self, node: u64, request: &Bytes, answer: &Bytes) {
        const KIND_AT: usize = 6;
        let Some(kind) = answer.get(KIND_AT..KIND_AT + 2) else { return };
        let kind = u16::from_le_bytes([kind[0], kind[1]]);
        if kind == Kind::Write as u16 | ANSWER {
            self.acknowledged(node, request, answer);
        } else if kind == Kind::Raft as u16 | ANSWER {
            self.promised(node, request, answer);
        }
    }

    /// Whether the log on the disk of node `node` is damaged where it was durable.
    pub fn is_damaged(&self, node: u64) -> bool {
        let mut inner = self.lock();
        inner.refresh_one(node);
        inner.nodes.get(&node).is_some_and(|eye| eye.log.is_damaged())
    }

    /// Looks at all machines.
    pub fn look(&self, machines: &[Machine]) {
        let mut inner = self.lock();
        inner.refresh();
        let mut leaders: BTreeMap<u64, Vec<(u64, u64, Duration)>> = BTreeMap::new();
        let cluster = machines.iter().filter_map(|machine| Some(machine.node()?.state().cluster_version)).max();
        let cluster = cluster.unwrap_or_default();
        for machine in machines {
            let Some(node) = machine.node() else { continue };
            let id = machine.id();
            let judges = &mut inner.judges;
            let broken = judges.root_states.judge(id, &node.state());
            judges.report("equal root states at equal versions", broken);
            judges.report("one move of a partition at a time", one_move::judge(id, &node.state()));
            judges.report("versions interoperate", versions::judge(id, machine.speaks(), cluster));
            let broken = judges.catalogs.judge(id, machine.life(), &node.state());
            judges.report("what a node has of the catalog only grows", broken);
            let broken = judges.high_water.judge(&format!("node {id}"), &node.bounds());
            judges.report("what is bounded stays in its bounds", broken);
            let incarnation = node.info().incarnation;
            let trouble = node.root_replica().and_then(|root| root.trouble());
            judges.report("versions interoperate", trouble.and_then(|why| versions::judge_trouble(id, &why)));
            let partitions = node.all_hosted();
            let partitions = partitions.iter().filter(|hosted| hosted.replica.trouble().is_none());
            let root = node.root_replica().filter(|root| root.trouble().is_none());
            let standings = partitions.map(|hosted| hosted.replica.standing()).chain(root.map(|root| root.standing()));
            for standing in standings {
                judges.standing(id, machine.life(), incarnation, &standing);
                if let Some(age) = standing.quorum_age.filter(|_| standing.leads) {
                    leaders.entry(standing.partition.0).or_default().push((standing.replica.0, id, age));
                }
            }
        }
        if let Some(lease) = inner.lease {
            for (group, leaders) in leaders {
                let broken = one_majority::judge_leaders(group, &leaders, lease);
                inner.judges.report("one voting majority", broken);
            }
        }
    }

    /// A node or a client has held so much of what it bounds.
    pub fn judge_bounds(&self, whose: &str, table: &[Bounded]) {
        let judges = &mut self.lock().judges;
        let broken = judges.high_water.judge(whose, table);
        judges.report("what is bounded stays in its bounds", broken);
    }

    /// The most that there was of everything that is bounded.
    pub fn high_water(&self) -> HighWater {
        self.lock().judges.high_water.clone()
    }

    /// What was broken, as far as it has not been asked for.
    pub fn take_broken(&self) -> Vec<Broken> {
        std::mem::take(&mut self.lock().judges.broken)
    }

    /// What there was to judge so far.
    pub fn judged(&self) -> Judged {
        let inner = self.lock();
        Judged {
            entries: inner.judges.log_matching.entries(),
            elections: inner.judges.election_safety.elections(),
            root_states: inner.judges.root_states.compared,
            ..inner.judged
        }
    }

    fn acknowledged(&self, node: u64, request: &Bytes, answer: &Bytes) {
        let (Ok((_, request)), Ok((_, answer))) = (decode_frame(request), decode_frame(answer)) else { return };
        let Ok((_, request)) = decode_request::<WriteRequest>(&request) else { return };
        let Ok(answer) = WriteAnswer::from_bytes(&answer) else { return };
        let mut inner = self.lock();
        inner.refresh();
        inner.judge_acknowledged(node, request.partition.0, answer.index.0);
    }

    fn promised(&self, node: u64, request: &Bytes, answer: &Bytes) {
        let Ok((_, answer)) = decode_frame(answer) else { return };
        let Ok((_, answer)) = open_envelope(&answer) else { return };
        // Most answers bind nobody, and requests are the larger part.
        let Ok(answer) = open_message::<RaftAnswer>(&answer) else { return };
        if !matches!(answer, RaftAnswer::Append(_) | RaftAnswer::Vote(_)) {
            return;
        }
        let Ok((_, request)) = decode_frame(request) else { return };
        let Ok((envelope, request)) = open_envelope(&request) else { return };
        let Ok(call) = open_message::<RaftCall>(&request) else { return };
        let Some(promise) = Promise::of(&call, &answer) else { return };
        let group = envelope.partition.0;
        let mut inner = self.lock();
        inner.refresh_one(node);
        inner.judged.promises += 1;
        let Inner { nodes, judges, old, .. } = &mut *inner;
        judges.report("an old disk answers for nothing", old_disk::judge(node, group, promise, old));
        let Some(eye) = nodes.get(&node) else { return };
        let broken = kept_promises::judge(node, group, promise, eye.log.group(group));
        judges.report("a promise is durable first", broken);
        if let Promise::Vote { term, candidate } = promise {
            let broken = judges.one_vote.judge(node, group, Vote { term, candidate: candidate.0, committed: false });
            judges.report("one vote a term", broken);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Judges {
    fn standing(&mut self, node: u64, life: u64, incarnation: u64, standing: &Standing) {
        let (group, replica) = (standing.partition.0, standing.replica.0);
        let broken = self.replica_ids.judge(group, replica, node, incarnation);
        self.report("a replica id is one replica", broken);
        let broken = self.progress.judge(node, life, standing);
        self.report("progress goes one way", broken);
        if standing.leads {
            let broken = self.election_safety.judge(node, group, standing.term, replica);
            self.report("one leader a term", broken);
        }
    }
}

impl Inner {
    fn refresh(&mut self) {
        let nodes: Vec<u64> = self.nodes.keys().copied().collect();
        nodes.into_iter().for_each(|node| self.refresh_one(node));
    }

    fn refresh_one(&mut self, node: u64) {
        let Self { nodes, judges, .. } = self;
        let Some(Eye { disk, log, .. }) = nodes.get_mut(&node) else { return };
        log.refresh(disk, &mut |before, frame| judges.frame(node, before, frame));
        for (group, index) in std::mem::take(&mut judges.purges) {
            let broken = purged::judge(node, group, index, log.group(group));
            judges.report("what is purged is in a snapshot", broken);
        }
    }

    fn judge_acknowledged(&mut self, by: u64, group: u64, index: u64) {
        self.judged.acknowledged += 1;
        let Self { nodes, judges, .. } = self;
        let disks: BTreeMap<u64, &GroupLog> = nodes.iter().map(|(node, eye)| (*node, eye.log.group(group))).collect();
        let lost = nodes.iter().filter_map(|(node, eye)| {
            let (_, log) = eye.lost.as_ref().filter(|(at, _)| now() - *at < LOST_COUNTS)?;
            Some((*node, log.group(group)))
        });
        let mut before = disks.clone();
        before.extend(lost);
        let deciding = |log: &GroupLog| judges.memberships.deciding(group, index, log, &judges.committed);
        let verdict = durable_quorum::judge(group, index, &disks, &deciding);
        match verdict.or_else(|what| durable_quorum::judge(group, index, &before, &deciding).map_err(|_| what)) {
            Err(what) => judges.report("acknowledged is durable on a quorum", Some(what)),
            // Who has it knows now what is committed; who has another one there has not heard of it yet.
            Ok(Some(term)) => {
                let by = nodes.get(&by).map_or(term, |eye| eye.log.group(group).committed_by(term));
                for (node, disk) in
                    disks.iter().filter(|(_, disk)| disk.entries.get(&index).is_some_and(|e| e.term == term))
                {
                    let broken = judges.committed.judge_by(*node, group, LogId { term, index }, by, disk);
                    judges.report("committed entries stay", broken);
                }
            }
            Ok(None) => {}
        }
    }
}
