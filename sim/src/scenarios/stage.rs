//! A small cluster whose parts are known: one partition, three nodes, and a client in the zone of each.

use std::time::Duration;

use stoa_client::{ConfirmBy, ReadLevel};
use stoa_protocol::ReplicaId;
use stoa_raft::RaftTiming;

use crate::faults::FaultKind;
use crate::history::{Demand, History, Rule as EventRule};
use crate::judges::Broken;
use crate::links::{Effect, Ends, Rule};
use crate::machine::Crash;
use crate::panics;
use crate::plan::Plan;
use crate::run::{FORM_LIMIT, connect, open, runtime};
use crate::trace::Trace;
use crate::workload::{CATALOG, Shared, Worker};
use crate::world::{World, now};

/// The timers of simulated time have this grain.
pub(super) const GRAIN: Duration = Duration::from_millis(1);

/// A strong read by lease.
pub(super) const BY_LEASE: ReadLevel = ReadLevel::Linearizable { by: ConfirmBy::Lease };
/// A strong read by read index.
pub(super) const BY_READ_INDEX: ReadLevel = ReadLevel::Linearizable { by: ConfirmBy::ReadIndex };
/// Strong reads by the leader's next heartbeat.
pub(super) const BY_HEARTBEAT: ReadLevel = ReadLevel::Linearizable { by: ConfirmBy::Heartbeat };

/// A lease of 2 s, and election waits that are much shorter: whoever campaigns does so within the lease of others.
pub(super) fn long_lease(clock_drift_ppm: u32) -> RaftTiming {
    let election_max = Duration::from_secs(2);
    RaftTiming { election_max, clock_drift_ppm, ..RaftTiming::default() }
}

/// The cluster.
pub(super) struct Stage {
    pub(super) world: World,
    shared: Shared,
    /// One client in each zone, in the order of the machines.
    pub(super) workers: Vec<Worker>,
}

/// Who plays what, as places of machines.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cast {
    /// The partition's leader.
    pub(super) leader: usize,
    /// A voter: the node that clients ask first when they know no leader.
    pub(super) heir: usize,
    /// The other voter.
    pub(super) voter: usize,
}

/// Plays a script under a seed; says what is broken. A script that cannot be played is broken, too.
pub(super) fn play(
    seed: u64,
    timing: RaftTiming,
    tune: fn(&mut World),
    script: impl AsyncFnOnce(&mut Stage) -> Result<(), String>,
) -> Vec<Broken> {
    panics::watch();
    let plan = Plan { timing, ..Plan::calm(seed, 1, Duration::ZERO) };
    let runtime = runtime(seed).expect("a runtime without I/O needs nothing");
    runtime.block_on(async {
        let trace = Trace::new(now(), None).expect("a trace without a file needs nothing");
        let shared = Shared::new(History::new(EventRule::Newest), trace.clone(), &plan).with_faults();
        let mut world = World::new(plan, trace, now());
        tune(&mut world);
        let mut stage = Stage { world, shared, workers: Vec::new() };
        let played = match stage.open().await {
            Ok(()) => script(&mut stage).await,
            Err(why) => Err(why),
        };
        stage.world.machines.iter_mut().for_each(|machine| machine.crash(Crash::Process));
        stage.world.judge_bounds();
        stage.world.judge_ends();
        let read = stage.shared.counts().rows_read;
        let mut broken = stage.shared.broken();
        if read == 0 {
            let what = "no row was read: nothing was judged".into();
            broken.push(Broken { judge: "a scenario can be played", what });
        }
        broken.append(&mut stage.world.broken);
        broken.extend(stage.world.observer.take_broken());
        broken.extend(played.err().map(|what| Broken { judge: "a scenario can be played", what }));
        broken.extend(panics::take().into_iter().map(|what| Broken { judge: "nothing panics", what }));
        broken
    })
}

impl Stage {
    async fn open(&mut self) -> Result<(), String> {
        self.world.machines.iter_mut().for_each(|machine| machine.start());
        for number in 0..self.world.machines.len() {
            let client = connect(&mut self.world, number).await?;
            if number == 0 {
                let definitions =
                    stoa::definitions::parse_definitions("catalog", CATALOG).map_err(|e| e.to_string())?;
                client.apply(definitions, FORM_LIMIT).await.map_err(|e| format!("the catalog was not taken: {e}"))?;
            }
            self.workers.push(open(&mut self.world, number, &client, &self.shared).await?);
        }
        Ok(())
    }

    /// Finds out who leads, and sees to it that it is this machine, or else any but the one that clients ask first.
    pub(super) async fn cast(&mut self, wanted: Option<usize>) -> Result<Cast, String> {
        let end = now() + FORM_LIMIT;
        let (heir, replicas) = self.replicas()?;
        let may_lead = |place: usize| place != heir && wanted.is_none_or(|wanted| wanted == place);
        let to = replicas.iter().find(|(place, _)| may_lead(*place)).map(|(_, id)| *id);
        let to = to.ok_or("the machine that should lead is the one that clients ask first")?;
        while now() < end {
            match self.leader() {
                Some(leader) if may_lead(leader) => {
                    let voter = (0..3).find(|place| *place != leader && *place != heir).expect("there are three");
                    return Ok(Cast { leader, heir, voter });
                }
                Some(leader) => {
                    let hosted = self.world.machines[leader].node().and_then(|node| node.all_hosted().pop());
                    if let Some(hosted) = hosted {
                        hosted.replica.transfer_leader(to).await;
                    }
                }
                None => {}
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Err("the partition does not get the leader that is wanted".into())
    }

    /// The place of the partition's first replica in the map, and all with their numbers.
    fn replicas(&self) -> Result<(usize, Vec<(usize, ReplicaId)>), String> {
        let node = self.world.machines[0].node().ok_or("the first node does not run")?;
        let state = node.state();
        let partition = state.map.sets.first().and_then(|set| set.partitions.first()).ok_or("there is no partition")?;
        let replicas: Vec<_> = partition.replicas.iter().map(|r| (r.node.0 as usize - 1, r.id)).collect();
        Ok((replicas.first().ok_or("the partition has no replica")?.0, replicas))
    }

    /// Whether a machine's replica of the partition thinks that it leads.
    pub(super) fn leads(&self, place: usize) -> bool {
        let node = self.world.machines[place].node();
        node.is_some_and(|node| node.all_hosted().iter().any(|hosted| hosted.replica.leads()))
    }

    /// The one that leads, if there is exactly one.
    pub(super) fn leader(&self) -> Option<usize> {
        let mut leaders = (0..self.world.machines.len()).filter(|place| self.leads(*place));
        leaders.next().filter(|_| leaders.next().is_none())
    }

    /// Waits until one of these machines leads.
    pub(super) async fn until_one_leads(&self, places: &[usize], limit: Duration) -> Result<(), String> {
        let end = now() + limit;
        while !places.iter().any(|place| self.leads(*place)) {
            if now() > end {
                return Err(format!("none of the machines {places:?} leads within {limit:?}"));
            }
            tokio::time::sleep(GRAIN).await;
        }
        Ok(())
    }

    /// Cuts the link between two machines, both ways.
    pub(super) fn cut(&self, one: usize, other: usize) {
        let name = |place: usize| Ends::Process(format!("n{}", self.world.machines[place].id()));
        self.lay(name(one), name(other), Effect::Cut);
        self.lay(name(other), name(one), Effect::Cut);
    }

    /// Messages from one machine to another are late, by up to `late`.
    pub(super) fn delay(&self, from: usize, to: usize, late: Duration) {
        let name = |place: usize| Ends::Process(format!("n{}", self.world.machines[place].id()));
        self.lay(name(from), name(to), Effect::Late(1_000_000, late));
    }

    /// Cuts the way from a client to a machine.
    pub(super) fn cut_client(&self, client: usize, machine: usize) {
        let node = format!("n{}", self.world.machines[machine].id());
        self.lay(Ends::Process(format!("c{client}")), Ends::Process(node), Effect::Cut);
    }

    fn lay(&self, from: Ends, to: Ends, effect: Effect) {
        let rule = Rule { of: FaultKind::CutZone, from, to, effect };
        self.world.net.links(|links| {
            links.add(rule);
        });
    }

    /// All keys: of so many that are written anew, some get a newer event than they had.
    pub(super) fn keys(&self) -> Vec<i64> {
        (0..self.world.plan.keys).collect()
    }

    /// Writes all keys; an error if they are not acknowledged.
    pub(super) async fn write(&mut self, client: usize) -> Result<(), String> {
        let keys = self.keys();
        match self.workers[client].write_keys(&keys).await {
            true => Ok(()),
            false => Err(format!("a write of client {client} was not acknowledged")),
        }
    }

    /// Writes all keys, again and again until they are acknowledged.
    pub(super) async fn write_at_last(&mut self, client: usize) -> Result<(), String> {
        let end = now() + FORM_LIMIT;
        while now() < end {
            if self.write(client).await.is_ok() {
                return Ok(());
            }
        }
        Err(format!("no write of client {client} is acknowledged within {FORM_LIMIT:?}"))
    }

    /// Reads all keys; the judges look at what comes.
    pub(super) async fn read(&mut self, client: usize, level: ReadLevel, deadline: Duration) -> bool {
        let keys = self.keys();
        self.workers[client].read_at(&keys, Demand::Any, level, deadline).await
    }
}
