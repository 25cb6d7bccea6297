//! One run: a cluster is formed, clients work while faults strike, everything is healed, and then it must all be there.
//!
//! 1. The plan is drawn and printed; one thread, paused time, tokio's own choices seeded.
//! 2. The cluster forms and learns the catalog.
//! 3. Clients work, faults strike, judges look at every row that is read and at every replica.
//! 4. All is healed. Within [`crate::revive::LIVENESS_LIMIT`] every partition must have a leader, serve strong reads,
//!    take a write and serve reads from every zone, and all replicas must be equal, those of the root group, too. The
//!    strong reads are of every key, before anything is written: each holds what was acknowledged last.
//! 5. The audit: every key, read from every zone, holds what was acknowledged last.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use stoa_env::task::spawn_unwatched;
use tokio::runtime::{Builder, RngSeed, Runtime};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::faults::{Strikes, strike};
use crate::history::{Demand, History, Rule};
use crate::judges::Broken;
use crate::judges::bounds::HighWater;
use crate::log;
use crate::net::NetCounts;
use crate::observe::Judged;
use crate::panics;
use crate::plan::Plan;
use crate::revive::{LIVENESS_LIMIT, revive};
use crate::trace::Trace;
use crate::workload::definer::Definer;
use crate::workload::lives::work_in_lives;
use crate::workload::loader::Loader;
use crate::workload::moves::{MoveCounts, Operator};
use crate::workload::{Ager, CATALOG, Counts, Shared, Worker};
use crate::world::{SimClient, World, now};

/// Within this time a cluster without faults is formed and knows its catalog.
pub(crate) const FORM_LIMIT: Duration = Duration::from_secs(30);
/// Keys that are asked for at once in an audit.
pub(crate) const AUDIT_ROWS: usize = 256;
pub(crate) const POLL: Duration = Duration::from_millis(50);

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What it was made of.
    pub plan: Plan,
    /// Lines of the trace and their hash.
    pub trace: (u64, u128),
    /// Promises that were not kept.
    pub broken: Vec<Broken>,
    /// How often each kind of fault struck.
    pub strikes: Strikes,
    /// What clients did.
    pub counts: Counts,
    /// What an operator did.
    pub moves: MoveCounts,
    /// What became of messages.
    pub net: NetCounts,
    /// Pairs of replicas that were compared at equal positions.
    pub compared: u64,
    /// What there was for the judges of replication to judge.
    pub judged: Judged,
    /// The most that there was of what nodes and clients bound.
    pub high_water: HighWater,
    /// From healing until every partition took a write, and until all replicas were equal.
    pub alive: Option<(Duration, Duration)>,
    /// Simulated time.
    pub simulated: Duration,
}

/// How a run differs from the shipped cluster: for proofs that the judges see what they should.
pub struct Planted {
    /// The rule that the judges believe in.
    pub rule: Rule,
    /// Changes the world before its machines start.
    pub world: fn(&mut World),
}

impl Default for Planted {
    fn default() -> Self {
        Self { rule: Rule::Newest, world: |_| {} }
    }
}

/// Runs a plan; the trace goes to `trace_file`, if there is one.
///
/// # Errors
/// If the trace file cannot be written, or the runtime not be made.
pub fn run(plan: Plan, trace_file: Option<&Path>, planted: &Planted) -> std::io::Result<Outcome> {
    panics::watch();
    runtime(plan.seed)?.block_on(async {
        let start = now();
        let trace = Trace::new(start, trace_file)?;
        let _log = trace_file.map(|_| log::follow(trace.clone()));
        trace.note(format_args!("plan {plan}"));
        let shared = Shared::new(History::new(planted.rule), trace.clone(), &plan);
        let mut world = World::new(plan, trace, start);
        (planted.world)(&mut world);
        let mut outcome = live(&mut world, &shared, start).await;
        outcome.broken.append(&mut world.broken);
        outcome.broken.extend(world.observer.take_broken());
        outcome.broken.extend(shared.broken());
        outcome.broken.extend(panics::take().into_iter().map(|what| Broken { judge: "nothing panics", what }));
        for Broken { judge, what } in &outcome.broken {
            world.trace.note_beside(format_args!("broken, {judge}: {what}"));
        }
        // Nobody may write to the trace after its hash was taken.
        world.machines.iter_mut().for_each(|machine| machine.crash(crate::machine::Crash::Process));
        world.trace.flush()?;
        Ok(outcome)
    })
}

/// One thread, paused time, and tokio's own choices out of the seed.
pub(crate) fn runtime(seed: u64) -> std::io::Result<Runtime> {
    let seed = RngSeed::from_bytes(&seed.to_le_bytes());
    Builder::new_current_thread().enable_time().start_paused(true).rng_seed(seed).build()
}

async fn live(world: &mut World, shared: &Shared, start: Instant) -> Outcome {
    let mut outcome = Outcome {
        plan: world.plan.clone(),
        trace: (0, 0),
        broken: Vec::new(),
        strikes: BTreeMap::new(),
        counts: Counts::default(),
        moves: MoveCounts::default(),
        net: NetCounts::default(),
        compared: 0,
        judged: Judged::default(),
        high_water: HighWater::default(),
        alive: None,
        simulated: Duration::ZERO,
    };
    match phases(world, shared, &mut outcome).await {
        Ok(()) => {}
        Err(what) => outcome.broken.push(Broken { judge: "liveness", what }),
    }
    world.judge_ends();
    world.judge_bounds();
    outcome.counts = shared.counts();
    outcome.moves = world.desk.counts();
    outcome.broken.extend(world.desk.broken());
    outcome.net = world.net.counts();
    outcome.compared = world.digests.compared;
    outcome.judged = world.observer.judged();
    outcome.high_water = world.observer.high_water();
    outcome.simulated = now() - start;
    outcome.trace = world.trace.digest();
    outcome
}

async fn phases(world: &mut World, shared: &Shared, outcome: &mut Outcome) -> Result<(), String> {
    world.machines.iter_mut().for_each(|machine| machine.start());
    let mut clients = Vec::new();
    for number in 0..world.plan.clients {
        clients.push(connect(world, number).await?);
    }
    let definitions = stoa::definitions::parse_definitions("catalog", CATALOG).map_err(|e| e.to_string())?;
    clients[0].apply(definitions, FORM_LIMIT).await.map_err(|e| format!("the catalog was not taken: {e}"))?;

    let limit = now() + FORM_LIMIT;
    while let Some(why) = world.behind() {
        if now() > limit {
            return Err(format!("the cluster's version is not raised: {why}"));
        }
        world.pass(POLL).await;
    }

    let stop = Arc::new(AtomicBool::new(false));
    let mut workers: Vec<JoinHandle<Option<Worker>>> = Vec::new();
    for (number, client) in clients.iter().enumerate() {
        let worker = open(world, number, client, shared).await?;
        let (stop, plan) = (stop.clone(), world.plan.clone());
        workers.push(match world.plan.work.mortal {
            true => spawn_unwatched(work_in_lives(world.door(), number, worker, shared.clone(), plan, stop)),
            false => spawn_unwatched(async move { Some(worker.work(stop).await) }),
        });
    }
    let others = Others::begin(world, shared, &stop).await?;
    let operator = Operator::new(
        world.client(world.plan.clients).await.map_err(|e| e.to_string())?,
        &world.plan,
        world.desk.clone(),
        world.trace.clone(),
    );
    let operator = spawn_unwatched(operator.work(stop.clone()));
    let least = world.plan.least;
    let enough = || {
        let counts = shared.counts();
        counts.writes >= least.writes && counts.reads >= least.reads
    };
    outcome.strikes = strike(world, &enough).await;
    if !enough() {
        let what = format!("{least:?} were asked for, and this was done: {:?}", shared.counts());
        world.broken.push(Broken { judge: "clients get work done", what });
    }

    world.heal();
    let healed = now();
    stop.store(true, Ordering::Relaxed);
    let mut veterans = Vec::new();
    for worker in workers {
        veterans.extend(world.pass_while(worker).await.map_err(|error| format!("a client panicked: {error}"))?);
    }
    let (definer, loader) = world.pass_while(others.end()).await?;
    outcome.alive = Some(revive(world, shared, &clients, healed).await?);
    operator.abort();
    let mut keys: Vec<i64> = (0..world.plan.keys).collect();
    serve_veterans(world, veterans, &keys).await?;
    if let Some(mut definer) = definer {
        world.pass_while(definer.finish(LIVENESS_LIMIT)).await?;
        for (number, client) in clients.iter().enumerate() {
            world.pass_while(definer.use_appended(client, number)).await?;
        }
        settle(world).await?;
        for machine in &world.machines {
            let what = machine.node().and_then(|node| definer.judge(machine.id(), &node.state()));
            world.broken.extend(what.map(|what| Broken { judge: "the catalog is what was defined", what }));
        }
    }
    if let Some(mut loader) = loader {
        world.pass_while(loader.finish(LIVENESS_LIMIT)).await?;
        keys.extend(loader.keys());
    }
    settle(world).await?;
    audit(world, shared, &clients, &keys).await
}

/// Who works beside the clients, if the plan has them.
struct Others {
    definer: Option<JoinHandle<Definer>>,
    loader: Option<JoinHandle<Loader>>,
    ager: Option<JoinHandle<()>>,
}

impl Others {
    async fn begin(world: &mut World, shared: &Shared, stop: &Arc<AtomicBool>) -> Result<Self, String> {
        let (work, first) = (world.plan.work, world.plan.clients + 1);
        let definer = match work.definitions {
            true => Some(Definer::new(connect(world, first).await?, shared.clone(), world.plan.seed)),
            false => None,
        };
        let loader = match work.loads {
            true => Some(Loader::new(connect(world, first + 1).await?, shared.clone(), &world.plan)),
            false => None,
        };
        let ager = match work.aging {
            true => Some(Ager::new(connect(world, first + 2).await?, shared.clone(), &world.plan)),
            false => None,
        };
        Ok(Self {
            definer: definer.map(|definer| spawn_unwatched(definer.work(stop.clone()))),
            loader: loader.map(|loader| spawn_unwatched(loader.work(stop.clone()))),
            ager: ager.map(|ager| spawn_unwatched(ager.work(stop.clone()))),
        })
    }

    /// Waits for them, once they are told to stop.
    async fn end(self) -> Result<(Option<Definer>, Option<Loader>), String> {
        let definer = match self.definer {
            Some(definer) => Some(definer.await.map_err(|error| format!("the definer panicked: {error}"))?),
            None => None,
        };
        let loader = match self.loader {
            Some(loader) => Some(loader.await.map_err(|error| format!("the loader panicked: {error}"))?),
            None => None,
        };
        if let Some(ager) = self.ager {
            ager.await.map_err(|error| format!("who writes what expires panicked: {error}"))?;
        }
        Ok((definer, loader))
    }
}

/// Groups and views that were opened at the beginning serve, whatever the catalog has become since.
async fn serve_veterans(world: &mut World, veterans: Vec<Worker>, keys: &[i64]) -> Result<(), String> {
    let end = now() + LIVENESS_LIMIT;
    for mut worker in veterans {
        while !world
            .pass_while(async { worker.write_keys(keys).await && worker.read_keys(keys, Demand::Any).await })
            .await
        {
            if now() > end {
                return Err(format!("{} cannot write or read by what it opened long ago", worker.name()));
            }
            world.pass(POLL).await;
        }
    }
    Ok(())
}

/// Waits until all replicas are equal again.
async fn settle(world: &mut World) -> Result<(), String> {
    let end = now() + LIVENESS_LIMIT;
    while let Some(why) = world.unequal() {
        if now() > end {
            return Err(format!("replicas are not equal after the last writes: {why}"));
        }
        world.pass(POLL).await;
    }
    world.compare();
    Ok(())
}

pub(crate) async fn connect(world: &mut World, number: usize) -> Result<SimClient, String> {
    let limit = now() + FORM_LIMIT;
    loop {
        match world.client(number).await {
            Ok(client) => return Ok(client),
            Err(error) if now() > limit => return Err(format!("no client finds the cluster: {error}")),
            Err(_) => world.pass(POLL).await,
        }
    }
}

/// Opens group and view. Another client has had them taken into the catalog, and the node that answers this one may not
/// have heard of it yet.
pub(crate) async fn open(
    world: &mut World,
    number: usize,
    client: &SimClient,
    shared: &Shared,
) -> Result<Worker, String> {
    let limit = now() + FORM_LIMIT;
    loop {
        match Worker::open(number, client, shared, &world.plan).await {
            Ok(worker) => return Ok(worker),
            Err(error) if now() > limit => return Err(format!("the catalog does not reach all nodes: {error}")),
            Err(_) => world.pass(POLL).await,
        }
    }
}

/// Every key from every zone, with no help from the others. All replicas are equal now, so each must have everything.
async fn audit(world: &mut World, shared: &Shared, clients: &[SimClient], keys: &[i64]) -> Result<(), String> {
    for (number, client) in clients.iter().enumerate().take(crate::world::ZONES.len()) {
        let mut auditor = Worker::open(world.plan.clients + 1 + number, client, shared, &world.plan).await?;
        let alone = world.keep_in_zone(number);
        for some in keys.chunks(AUDIT_ROWS) {
            if !world.pass_while(auditor.read_keys(some, Demand::All)).await {
                return Err(format!("the client of zone {number} cannot read every key at the end"));
            }
        }
        world.take_away(alone);
    }
    Ok(())
}
