//! A cluster's machines, network and clients, and what is known about them: put together from a plan, and looked at while
//! time passes.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use stoa::node::{NodeOptions, RootMember};
use stoa_client::Client;
use stoa_env::task::spawn_unwatched;
use stoa_env::{Bounds, Clock, PeerIdentity};
use stoa_protocol::message::Caller;
use stoa_protocol::{ClusterId, NodeId, PartitionId, ROOT_PARTITION};
use stoa_raft::root::state::SPOKEN_VERSIONS;
use stoa_raft::wal::WalOptions;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::chance::Chance;
use crate::clock::SimClock;
use crate::faults::{FaultKind, finish, rebuild};
use crate::judges::Broken;
use crate::judges::digests::Digests;
use crate::judges::voter_sets;
use crate::links::{Effect, Ends, Links, Rule};
use crate::machine::{Crash, Machine, Trap};
use crate::net::{Net, SimTransport};
use crate::observe::Observer;
use crate::plan::Plan;
use crate::trace::Trace;
use crate::workload::moves::Desk;

/// The zones.
pub const ZONES: [&str; 3] = ["a", "b", "c"];
const CLUSTER: ClusterId = ClusterId(0x51);
/// After this time a supervisor starts a process again that has ended.
const RESTART_AFTER: Duration = Duration::from_secs(1);
/// How often replicas are compared while time passes.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A client as simulated.
pub type SimClient = Client<SimTransport>;

/// Machines, network, and the comparison of replicas.
pub struct World {
    /// What the run is made of.
    pub plan: Plan,
    /// What has happened.
    pub trace: Trace,
    /// All messages.
    pub net: Net,
    /// The nodes' machines.
    pub machines: Vec<Machine>,
    /// The digests of replicas at equal positions.
    pub digests: Digests,
    /// The judges of replication.
    pub observer: Observer,
    /// What the operator is told and has done.
    pub desk: Desk,
    /// Promises that were not kept, as far as the world itself sees them.
    pub broken: Vec<Broken>,
    /// How often nodes did what a kind of fault asked them for.
    pub asked: Arc<Mutex<BTreeMap<FaultKind, u64>>>,
    /// How often traps of each kind of fault have sprung.
    pub sprung: BTreeMap<FaultKind, u64>,
    /// What the machines' traps are there for, and how the machine ends when one springs.
    traps: BTreeMap<usize, (FaultKind, Crash)>,
    /// What every client counts that ever came in, whose end nobody may have seen.
    clients: Clients,
    wake: Arc<Notify>,
    start: Instant,
}

/// Clients by name, and where each counts what it bounds.
type Clients = Arc<Mutex<Vec<(String, Bounds)>>>;

impl World {
    /// A world whose machines are off.
    pub fn new(plan: Plan, trace: Trace, start: Instant) -> Self {
        let net = Net::new(plan.seed, trace.clone());
        spawn_unwatched(net.clone().run());
        let wake: Arc<Notify> = Arc::default();
        let machine = |id| Machine::new(options(&plan, id), plan.seed, &net, &trace, start, &wake);
        let machines: Vec<Machine> = (1..=plan.nodes).map(machine).collect();
        let observer = Observer::new(&plan.timing, trace.clone());
        machines.iter().for_each(|machine| observer.watch(machine.id(), machine.disk.clone()));
        if plan.faults.iter().any(|kind| kind.stops_clocks()) {
            observer.ignore_leases();
        }
        let judges = observer.clone();
        net.see_answers(Arc::new(move |node, request, answer| judges.answered(node, request, answer)));
        Self {
            plan,
            trace,
            net,
            machines,
            digests: Digests::default(),
            observer,
            desk: Desk::default(),
            broken: Vec::new(),
            asked: Arc::default(),
            sprung: BTreeMap::new(),
            traps: BTreeMap::new(),
            clients: Clients::default(),
            wake,
            start,
        }
    }

    /// All faults are over: links, machines, disks and processes are well.
    pub fn heal(&mut self) {
        self.trace.note(format_args!("heal"));
        self.net.links(Links::heal);
        self.supervise();
        for machine in &mut self.machines {
            machine.set_trap(None);
            machine.disk.heal();
            machine.clock().heal();
            machine.end_excuses();
            machine.go_on();
            machine.start_if_down();
        }
        finish(self);
        // Damage that nobody has found yet: an operator who hears of it has the machine built anew.
        let damaged = self.machines.iter().position(|machine| machine.damage().is_some());
        damaged.into_iter().for_each(|at| rebuild(self, at));
    }

    /// Sets a trap on a machine, for a fault.
    pub fn set_trap(&mut self, at: usize, kind: FaultKind, trap: Trap, how: Crash) {
        self.machines[at].set_trap(Some(trap));
        self.traps.insert(at, (kind, how));
    }

    /// What a supervisor does: a process that has ended for a reason that a fault gave it starts again after a while. And
    /// machines whose trap has sprung go down.
    fn supervise(&mut self) {
        for (at, machine) in self.machines.iter_mut().enumerate() {
            if machine.take_sprung() {
                let (kind, how) = self.traps.get(&at).copied().expect("a trap was set for a fault");
                *self.sprung.entry(kind).or_default() += 1;
                machine.crash(how);
            }
            let Some((since, why)) = machine.ended() else { continue };
            if machine.is_excused(since, &why) && now() >= since + RESTART_AFTER {
                machine.crash(Crash::Process);
                machine.start();
            }
        }
    }

    /// A client of number `number`, in a zone in turn.
    pub async fn client(&self, number: usize) -> Result<SimClient, stoa_client::ConnectError> {
        self.door().client(number, 0).await
    }

    /// Where clients come in.
    pub fn door(&self) -> Door {
        let seeds = self.machines.iter().map(Machine::addr).collect();
        let (net, clients) = (self.net.clone(), self.clients.clone());
        Door { net, seeds, seed: self.plan.seed, start: self.start, clients }
    }

    /// Has it judged what all that ever ran have held of what they bound: nodes in each of their lives, and all clients.
    pub fn judge_bounds(&self) {
        for machine in &self.machines {
            for (life, bounds) in (1..).zip(machine.counted()) {
                self.observer.judge_bounds(&format!("node {} in life {life}", machine.id()), &bounds.table());
            }
        }
        for (whose, bounds) in self.clients.lock().unwrap_or_else(|e| e.into_inner()).iter() {
            self.observer.judge_bounds(whose, &bounds.table());
        }
    }

    /// Lets time pass, and compares replicas meanwhile.
    pub async fn pass(&mut self, duration: Duration) {
        let end = now() + duration;
        while now() < end {
            tokio::select! {
                biased;
                () = self.wake.notified() => {}
                () = tokio::time::sleep(LOOK_EVERY.min(end - now())) => self.compare(),
            }
            self.supervise();
        }
    }

    /// Waits for `future` while time passes as in [`pass`](Self::pass): nodes that end are started again, and judges look.
    pub async fn pass_while<F: Future>(&mut self, future: F) -> F::Output {
        let mut future = std::pin::pin!(future);
        loop {
            tokio::select! {
                biased;
                output = &mut future => return output,
                () = self.pass(LOOK_EVERY) => {}
            }
        }
    }

    /// Lays a rule on the links: the client of this number reaches the nodes of its own zone alone. Gives back what takes it
    /// away.
    pub fn keep_in_zone(&self, client: usize) -> Vec<u64> {
        let own = ZONES[client % ZONES.len()];
        let rule = |zone: &&str| Rule {
            of: FaultKind::CutZone,
            from: Ends::Process(format!("c{client}")),
            to: Ends::Zone((*zone).into()),
            effect: Effect::Cut,
        };
        let rules: Vec<Rule> = ZONES.iter().filter(|zone| **zone != own).map(rule).collect();
        let mut laid = Vec::new();
        self.net.links(|links| laid = rules.into_iter().map(|rule| links.add(rule)).collect());
        laid
    }

    /// Takes rules away.
    pub fn take_away(&self, rules: Vec<u64>) {
        self.net.links(|links| rules.iter().for_each(|rule| links.remove(*rule)));
    }

    /// Compares the digests of all replicas with those of others at the same position.
    pub fn compare(&mut self) {
        self.observer.look(&self.machines);
        for machine in &self.machines {
            let Some(node) = machine.node() else { continue };
            for hosted in node.all_hosted() {
                let partition = hosted.replica.partition();
                let judged = self.digests.judge(machine.id(), partition, hosted.view.digest());
                if let Some(what) = judged {
                    self.broken.push(Broken { judge: "equal digests at equal positions", what });
                }
            }
        }
        self.judge_voters();
    }

    /// Looks at the members of every group as every replica has them.
    fn judge_voters(&mut self) {
        let zone_of = |node: NodeId| self.machines.iter().find(|m| m.id() == node.0).map(|m| m.zone().to_owned());
        let mut found = Vec::new();
        for node in self.machines.iter().filter_map(Machine::node) {
            let groups = node.all_hosted().into_iter().map(|h| (h.replica.partition(), h.replica.members()));
            let root = node.root_replica().map(|root| (ROOT_PARTITION, root.members()));
            for (partition, members) in groups.chain(root) {
                found.extend(voter_sets::judge(partition, &members, zone_of));
            }
        }
        for what in found {
            let broken = Broken { judge: "a voter in each of three zones", what };
            if !self.broken.contains(&broken) {
                self.broken.push(broken);
            }
        }
    }

    /// Whether all moves have come to their end: none is planned, no configuration is joint, nobody learns, and every node
    /// has been taken with the data that it has; why not, if not.
    pub fn moving(&self) -> Option<String> {
        for machine in &self.machines {
            let Some(node) = machine.node() else { return Some(format!("node {} does not run", machine.id())) };
            let state = node.state();
            if let Some(moved) = state.moves.first() {
                let hosts = self.machines.iter().filter_map(|machine| {
                    let hosted = machine.node()?.hosted(moved.partition)?;
                    let (replica, members) = (hosted.replica.id(), hosted.replica.members());
                    Some(format!(
                        "node {}: replica {replica}, leads {}, {members:?}",
                        machine.id(),
                        hosted.replica.leads()
                    ))
                });
                let hosts: Vec<_> = hosts.collect();
                return Some(format!("node {} knows of {moved:?}; {}", machine.id(), hosts.join("; ")));
            }
            if state.map.node(node.info().id) != Some(node.info()) {
                return Some(format!("node {} is known with other data", machine.id()));
            }
            let groups = node.all_hosted().into_iter().map(|h| (h.replica.partition(), h.replica.members()));
            let root = node.root_replica().map(|root| (ROOT_PARTITION, root.members()));
            if state.map.root.iter().any(|replica| replica.node == node.info().id) && root.is_none() {
                return Some(format!("node {} has no replica of the root group", machine.id()));
            }
            for (partition, members) in groups.chain(root) {
                if members.voters.len() != 1 || !members.learners.is_empty() {
                    return Some(format!("group {partition} as node {} has it: {members:?}", machine.id()));
                }
            }
        }
        None
    }

    /// Whether some node does not know the cluster at the version that all programs speak; which, if so.
    pub fn behind(&self) -> Option<String> {
        let common = self.machines.iter().map(Machine::speaks).min()?;
        let nodes = self.machines.iter().filter_map(Machine::node);
        let mut behind = nodes.filter(|node| node.state().cluster_version < common);
        behind.next().map(|node| {
            let state = node.state();
            format!(
                "node {} knows the cluster at version {}: {:?}",
                node.info().id,
                state.cluster_version,
                state.versions
            )
        })
    }

    /// Where all replicas stand, in words.
    pub fn leadership(&self) -> String {
        let mut said = Vec::new();
        for node in self.machines.iter().filter_map(Machine::node) {
            let of = |standing, members, trouble: Option<_>| {
                format!("node {}: {standing:?} {members:?} {}", node.info().id, trouble.unwrap_or_default())
            };
            let partitions = node.all_hosted();
            said.extend(partitions.iter().map(|h| of(h.replica.standing(), h.replica.members(), h.replica.trouble())));
            let status = node.status();
            let out = status.replicas.iter().filter(|replica| !replica.trouble.is_empty());
            said.extend(
                out.map(|replica| format!("node {}, group {}: {}", node.info().id, replica.partition, replica.trouble)),
            );
            said.extend(node.root_replica().map(|root| of(root.standing(), root.members(), root.trouble())));
        }
        said.join("; ")
    }

    /// The group that nobody leads, if there is one; a group that two lead is a judge's matter.
    pub fn leaderless(&self) -> Option<String> {
        let (mut groups, mut led) = (BTreeSet::new(), BTreeSet::new());
        for node in self.machines.iter().filter_map(Machine::node) {
            let hosted = node.all_hosted();
            let partitions = hosted.iter().map(|hosted| hosted.replica.standing());
            let root = node.root_replica().map(|root| root.standing());
            for standing in partitions.chain(root) {
                groups.insert(standing.partition);
                led.extend(standing.leads.then_some(standing.partition));
            }
        }
        groups.difference(&led).next().map(|group| format!("nobody leads group {group}"))
    }

    /// Whether the replicas of the root group and all copies of its state are equal; why not, if not.
    fn root_unequal(&self) -> Option<String> {
        let nodes: Vec<_> = self.machines.iter().filter_map(Machine::node).collect();
        let roots: Vec<_> = nodes.iter().filter_map(|node| node.root_replica()).collect();
        if let Some(why) = roots.iter().find_map(|root| root.trouble()) {
            return Some(format!("a replica of the root group is in trouble: {why}"));
        }
        let applied: Vec<_> = roots.iter().map(|root| root.standing().applied).collect();
        let versions: Vec<_> = nodes.iter().map(|node| node.map_version()).collect();
        let equal = applied.windows(2).all(|pair| pair[0] == pair[1])
            && nodes.windows(2).all(|pair| pair[0].state() == pair[1].state());
        (!equal).then(|| format!("root group: replicas at {applied:?}, copies at {versions:?}"))
    }

    /// Whether all replicas of all partitions are here, serve, and hold the same at the same position; why not, if not.
    pub fn unequal(&self) -> Option<String> {
        let mut seen: BTreeMap<PartitionId, Vec<_>> = BTreeMap::new();
        for machine in &self.machines {
            let Some(node) = machine.node() else { return Some(format!("node {} does not run", machine.id())) };
            if let Some(replica) = node.status().replicas.into_iter().find(|r| !r.trouble.is_empty()) {
                return Some(format!("node {}, partition {}: {}", machine.id(), replica.partition, replica.trouble));
            }
            for hosted in node.all_hosted() {
                if let Some(why) = hosted.replica.trouble() {
                    return Some(format!("node {}: {why}", machine.id()));
                }
                if !hosted.replica.is_caught_up() {
                    let status = hosted.replica.status();
                    return Some(format!("node {} is catching up: {status:?}", machine.id()));
                }
                seen.entry(hosted.replica.partition()).or_default().push(hosted.view.digest());
            }
        }
        if seen.len() != self.plan.partitions as usize {
            return Some(format!("{} of {} partitions are hosted", seen.len(), self.plan.partitions));
        }
        let unequal = seen.into_iter().find_map(|(partition, digests)| {
            let equal = digests.len() == ZONES.len() && digests.iter().all(|d| *d == digests[0]);
            let applied: Vec<_> = digests.iter().map(|digest| digest.applied).collect();
            (!equal).then(|| format!("partition {partition}: replicas at {applied:?}{}", self.troubles(partition)))
        });
        unequal.or_else(|| self.root_unequal())
    }

    /// What nodes say of a partition that is not well.
    fn troubles(&self, partition: PartitionId) -> String {
        let mut said = String::new();
        for node in self.machines.iter().filter_map(Machine::node) {
            let of_it = |replica: &&stoa_protocol::message::ReplicaStatus| replica.partition == partition;
            if let Some(status) = node.status().replicas.iter().find(of_it) {
                let (node, trouble) = (node.info().id, &status.trouble);
                said.push_str(&format!("; node {node}: at {} {trouble}", status.applied));
            }
        }
        said
    }

    /// Nodes that have ended by themselves: no fault of a plan gives them a reason.
    pub fn judge_ends(&mut self) {
        for machine in &self.machines {
            for (at, why) in machine.ends().into_iter().filter(|(at, why)| !machine.is_excused(*at, why)) {
                let after = at - self.start;
                let what = format!("node {} has ended by itself after {after:?}: {why}", machine.id());
                let broken = Broken { judge: "a node goes on", what };
                if !self.broken.contains(&broken) {
                    self.broken.push(broken);
                }
            }
        }
    }
}

/// The present simulated moment.
#[allow(clippy::disallowed_methods)] // simulated time itself
pub fn now() -> Instant {
    Instant::now()
}

fn addr(id: u64) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, id as u8], 7000))
}

/// The zone of a node.
pub fn zone(id: u64) -> String {
    ZONES[(id as usize - 1) % ZONES.len()].to_owned()
}

fn options(plan: &Plan, id: u64) -> NodeOptions {
    let member = |id| RootMember { node: NodeId(id), zone: zone(id), addr: addr(id) };
    NodeOptions {
        cluster: CLUSTER,
        node: NodeId(id),
        zone: zone(id),
        advertise: addr(id),
        root: (1..=3).map(member).collect(),
        partitions: plan.partitions,
        nodes_expected: plan.nodes as u32,
        versions: (SPOKEN_VERSIONS.0, if plan.upgrades() { SPOKEN_VERSIONS.0 } else { SPOKEN_VERSIONS.1 }),
        timing: plan.timing,
        wal: WalOptions {
            segment_bytes: plan.sizes.segment_bytes,
            queue_bytes: plan.sizes.queue_bytes,
            round_bytes: plan.sizes.queue_bytes / 4,
            max_live_bytes: 8 << 20,
            // Without a reserve, a full device ends the log, and the node.
            reserve_bytes: if plan.reserve { plan.sizes.queue_bytes / 4 * 5 } else { 0 },
        },
        snapshot_log_bytes: plan.sizes.snapshot_log_bytes,
        replay_log_bytes: plan.sizes.replay_log_bytes,
        partition_bytes_max: 1 << 30,
    }
}

/// Where clients come in: what one needs to connect to the cluster.
#[derive(Clone)]
pub struct Door {
    net: Net,
    seeds: Vec<SocketAddr>,
    seed: u64,
    start: Instant,
    clients: Clients,
}

impl Door {
    /// A client of number `number`, in a zone in turn, in one of its lives; 0 is the first.
    pub async fn client(&self, number: usize, life: usize) -> Result<SimClient, stoa_client::ConnectError> {
        let zone = ZONES[number % ZONES.len()];
        let identity = PeerIdentity::Client("app".into());
        let transport = self.net.transport(&format!("c{number}"), zone, identity);
        let caller = Caller { project: "shop".into(), principal: String::new() };
        let clock: Arc<dyn Clock> = Arc::new(SimClock::new(self.start, 0, number as u64, 0));
        let purpose = if life == 0 { format!("client {number}") } else { format!("client {number} life {life}") };
        let entropy = Arc::new(Chance::new(self.seed, &purpose));
        let bounds = Bounds::default();
        self.clients.lock().unwrap_or_else(|e| e.into_inner()).push((purpose, bounds.clone()));
        Client::counted(transport, self.seeds.clone(), zone, caller, clock, entropy, bounds).await
    }
}
