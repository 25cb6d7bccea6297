//! What is measured with the zones apart: the loss of a zone (P2), how soon a write is read everywhere (P10), a rolling restart and
//! the loss of a zone (P11), a slow replica, latencies by zone.

#![allow(clippy::disallowed_methods)] // a measurement is in true time

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use hdrhistogram::Histogram;
use stoa::local_cluster::ZONES;
use stoa_client::{Hedging, ReadOptions};
use stoa_protocol::NodeId;

use super::big::{READERS, node_a, shape};
use super::plan::Plan;
use crate::fixture::{BenchTransport, Fixture, FixtureOptions};
use crate::health::wait_until_healthy;
use crate::load::{
    Outcome, Pace, Schedule, Service, Summary, closed_loop, histogram, open_loop, open_loop_until, open_loop_watched,
};
use crate::machine::Cores;
use crate::measure::micros;
use crate::process::step;
use crate::profile::profile;
use crate::report::model::{Event, Run, Timeline, ZoneRow};
use crate::scene::Scene;
use crate::workload::{Keys, Reads};
use crate::writes::{Writes, versions};

/// How far zones are apart, one way, and the jitter.
pub const WAY: (Duration, Duration) = (Duration::from_micros(500), Duration::from_micros(50));
/// Partitions.
const PARTITIONS: u64 = 64;
/// The least rate of P2.
const RATE_MIN: u32 = 5_000;
/// Share of the peak of P11, and its highest rate; it is about calls that fail, not about load.
const ROLLING_SHARE: f64 = 0.5;
const ROLLING_RATE_MAX: u32 = 2_000;
/// Share of the peak at which latencies by zone, and of a slow replica, are measured.
const CALM_SHARE: f64 = 0.1;
/// The load begins so long before the first thing happens.
const LEAD: Duration = Duration::from_secs(3);
/// How long P11 may take.
const ROLLING_LIMIT: Duration = Duration::from_secs(600);
/// How long a zone is away in P11.
const AWAY: Duration = Duration::from_secs(5);
/// How long an orderly end may take, and a node to be healthy again.
const END_LIMIT: Duration = Duration::from_secs(20);
const HEALTH_LIMIT: Duration = Duration::from_secs(60);
/// A slow replica stands still for this long of each second: one request in twenty meets it.
const STANDS: Duration = Duration::from_millis(50);
/// How long an answer may take where the peak is looked for.
const PATIENT: Duration = Duration::from_secs(1);
/// Pings of a round trip.
const PINGS: usize = 200;
/// How long a write may take to be read in a zone.
const VISIBLE_LIMIT: Duration = Duration::from_secs(5);

/// What was found.
pub struct Apart {
    /// Reads a second of all zones together, at their peak.
    pub peak: f64,
    /// P2's run.
    pub loss: SilentZone,
    /// The same at half of the peak, if that is less.
    pub half: SilentZone,
    /// The same at half of the peak with a zone that is killed.
    pub killed: SilentZone,
    /// P11's run, or why it came to no end.
    pub rolling: anyhow::Result<Summary>,
    /// Its rate.
    pub rolling_rate: u32,
    /// Nanoseconds from the acknowledgement of a write until it was read in every zone; the longest that was waited, for one that
    /// was not. Or why it came to no end.
    pub visible: anyhow::Result<Histogram<u64>>,
    /// What the node of zone a spent its time on at the peak.
    pub profile: Vec<String>,
    /// Time lines of both.
    pub timelines: Vec<Timeline>,
    /// Latencies by zone.
    pub zones: Vec<ZoneRow>,
    /// A slow replica, hedged and not.
    pub slow: Vec<Run>,
}

/// How a zone is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    /// It stands still, and its sockets take what comes.
    Silence,
    /// Signal 9.
    Kill,
}

/// A run in which a zone is lost half way.
#[derive(Debug, Clone)]
pub struct SilentZone {
    /// Requests a second.
    pub rate: u32,
    /// How long it took.
    pub time: Duration,
    /// When the zone went silent.
    pub at: Duration,
    /// What became of the requests.
    pub run: Summary,
    /// The 99th percentile of those that were due before.
    pub calm_p99: Duration,
    how: Loss,
}

impl SilentZone {
    fn timeline(&self) -> Timeline {
        let what = if self.how == Loss::Silence { "is silent" } else { "is killed" };
        let event = Event { at_s: self.at.as_secs_f64(), what: format!("zone {} {what}", ZONES[0]) };
        let name = format!("Zone {} {what}, at {} requests/s", ZONES[0], self.rate);
        Timeline { name, events: vec![event], slots: self.run.slots.clone() }
    }
}

/// Reads through clients of all zones in turn.
struct Spread(Vec<Reads<BenchTransport>>);

impl Service for Spread {
    async fn call(&self, n: u64) -> Outcome {
        self.0[n as usize % self.0.len()].call(n).await
    }
}

/// Measures all of it.
pub async fn measure(plan: Plan, cores: &Cores) -> anyhow::Result<Apart> {
    let options = FixtureOptions::new(PARTITIONS).apart(WAY.0, WAY.1);
    Scene::with(options, cores, (shape(), plan.few_rows()), async |fixture, scene| {
        let patient = spread(scene, ReadOptions { deadline: PATIENT, ..ReadOptions::default() }).await?;
        let peak = closed_loop(patient.clone(), READERS, plan.repetition() / 5, plan.repetition()).await.rate;
        let server = fixture.cluster.process_id(node_a(fixture)?)?;
        let during = closed_loop(patient, READERS, Duration::ZERO, plan.repetition());
        let (profile, _) = tokio::join!(profile(server, plan.repetition()), during);
        let spread = spread(scene, ReadOptions::default()).await?;
        let share = |of: f64| (peak * of).max(1.0) as u32;
        step("latencies by zone");
        let zones = by_zone(plan, fixture, scene, share(CALM_SHARE)).await.unwrap_or_else(|error| {
            step(&format!("failed, and left out: {error:#}"));
            Vec::new()
        });
        step("writes until they are read everywhere");
        let visible = visible(plan, fixture, scene).await;
        step("a slow replica, with and without hedging");
        let mut slow = Vec::new();
        for hedging in [Hedging::On, Hedging::Off] {
            match slow_replica(plan, fixture, scene, hedging, share(CALM_SHARE)).await {
                Ok(run) => slow.push(run),
                Err(error) => step(&format!("failed, and left out: {error:#}")),
            }
        }
        step("a zone is killed, and one goes silent");
        let short = plan.loss_run() / 3;
        let killed = lose_zone(fixture, spread.clone(), share(0.5), short, Loss::Kill).await?;
        let half = lose_zone(fixture, spread.clone(), share(0.5), short, Loss::Silence).await?;
        let rate = share(0.5).max(RATE_MIN);
        let loss = lose_zone(fixture, spread.clone(), rate, plan.loss_run(), Loss::Silence).await?;
        step("a rolling restart, then the loss of a zone");
        let rolling_rate = share(ROLLING_SHARE).min(ROLLING_RATE_MAX);
        let rolling = rolling(fixture, spread, rolling_rate).await;
        let mut timelines = vec![killed.timeline(), half.timeline(), loss.timeline()];
        let rolling = rolling.map(|(run, events)| {
            let name = format!("Rolling restart, then the loss of a zone, at {rolling_rate} requests/s");
            timelines.push(Timeline { name, events, slots: run.slots.clone() });
            run
        });
        Ok(Apart { peak, loss, half, killed, rolling, rolling_rate, visible, profile, timelines, zones, slow })
    })
    .await
}

async fn spread(scene: &Scene, options: ReadOptions) -> anyhow::Result<Arc<Spread>> {
    let mut all = Vec::new();
    for zone in 0..ZONES.len() {
        all.push(scene.reads(zone, Keys::Uniform(scene.rows), options.clone()).await?);
    }
    Ok(Arc::new(Spread(all)))
}

async fn by_zone(plan: Plan, fixture: &Fixture, scene: &Scene, rate: u32) -> anyhow::Result<Vec<ZoneRow>> {
    let mut rows = Vec::new();
    for here in ZONES {
        for there in ZONES {
            rows.push(zone_row(plan, fixture, scene, rate, (here, there)).await?);
        }
    }
    Ok(rows)
}

async fn zone_row(
    plan: Plan,
    fixture: &Fixture,
    scene: &Scene,
    rate: u32,
    (here, there): (&str, &str),
) -> anyhow::Result<ZoneRow> {
    let client = fixture.client_of(here, there).await?;
    let node = NodeId(fixture.node_in(there)?);
    let mut pings = histogram();
    for _ in 0..PINGS {
        let start = Instant::now();
        client.fetch_map(node, Duration::from_secs(1)).await?;
        pings.saturating_record(start.elapsed().as_nanos() as u64);
    }
    // No hedges: another zone's replica would answer for it.
    let options = ReadOptions { hedging: Hedging::Off, deadline: PATIENT, ..ReadOptions::default() };
    let reads = Arc::new(Reads::new(&client, scene.shape, Keys::Uniform(scene.rows), options).await?);
    let schedule = Schedule { rate, warm_up: plan.repetition() / 8, measured: plan.repetition() / 4 };
    let found = open_loop(reads, schedule, Pace::Exact).await;
    Ok(ZoneRow {
        client: here.to_owned(),
        replica: there.to_owned(),
        round_trip_us: pings.value_at_quantile(0.5) as f64 / 1_000.0,
        p50_us: micros(found.p50),
        p99_us: micros(found.p99),
        p999_us: micros(found.p999),
    })
}

/// One row after the other is written and then looked for in all zones at once, until each has it.
async fn visible(plan: Plan, fixture: &Fixture, scene: &Scene) -> anyhow::Result<Histogram<u64>> {
    let versions = versions();
    let mut found = histogram();
    let mut readers = Vec::new();
    for node in fixture.cluster.nodes() {
        let client = fixture.client_of_node(node).await?;
        let options = ReadOptions { deadline: Duration::from_secs(1), ..ReadOptions::default() };
        readers.push(Reads::new(&client, scene.shape, Keys::Uniform(scene.rows), options).await?);
    }
    for n in 0..plan.visible_writes() as u64 {
        let id = crate::rows::mix(n) % scene.rows;
        let version = versions.fetch_add(1, std::sync::atomic::Ordering::Relaxed) as i64;
        Writes::one(&scene.clients[0], &scene.by_partition, scene.shape, id, version).await?;
        let acknowledged = Instant::now();
        let waits = readers.iter().map(|reads| until_seen(reads, id, version, acknowledged));
        let all = futures_util::future::join_all(waits).await;
        let slowest = all.into_iter().max().unwrap_or_default();
        found.saturating_record(slowest.as_nanos() as u64);
    }
    Ok(found)
}

/// How long after its acknowledgement a write was seen; [`VISIBLE_LIMIT`] if it was not.
async fn until_seen(reads: &Reads<BenchTransport>, id: u64, version: i64, acknowledged: Instant) -> Duration {
    while acknowledged.elapsed() < VISIBLE_LIMIT {
        // A read that fails is one that has not seen it.
        let seen = reads.get(&[id]).await.ok().and_then(|answer| answer.event_time(0, 0));
        if seen.is_some_and(|seen| seen >= version) {
            return acknowledged.elapsed();
        }
    }
    VISIBLE_LIMIT
}

/// The replica of the client's zone stands still again and again, as one does whose machine is overcommitted.
async fn slow_replica(
    plan: Plan,
    fixture: &Fixture,
    scene: &Scene,
    hedging: Hedging,
    rate: u32,
) -> anyhow::Result<Run> {
    let options = ReadOptions { hedging, ..ReadOptions::default() };
    let reads = Arc::new(scene.reads(0, Keys::Uniform(scene.rows), options).await?);
    let time = plan.repetition() * 2;
    let schedule = Schedule { rate, warm_up: Duration::from_secs(1), measured: time };
    let node = node_a(fixture)?;
    let stalls = async {
        loop {
            tokio::time::sleep(Duration::from_secs(1) - STANDS).await;
            fixture.cluster.pause(node)?;
            tokio::time::sleep(STANDS).await;
            fixture.cluster.resume(node)?;
        }
        #[allow(unreachable_code)] // it says what the block's type is
        anyhow::Ok(())
    };
    let found = tokio::select! {
        biased;
        found = open_loop(reads, schedule, Pace::Exact) => found,
        failed = stalls => return Err(failed.expect_err("it never ends by itself")),
    };
    fixture.cluster.resume(node)?;
    let on = if hedging == Hedging::On { "hedging on" } else { "hedging off" };
    Ok(Run {
        rate: found.rate,
        rows_per_s: found.rate * scene.shape.rows as f64,
        p50_us: Some(micros(found.p50)),
        p99_us: Some(micros(found.p99)),
        p999_us: Some(micros(found.p999)),
        answered: found.answered,
        checked: found.checked,
        failed: found.failed + found.dropped,
        void: found.void,
        ..Run::named(&format!("vectors, a replica stands still {STANDS:?} of each second, {on}"))
    })
}

/// The node of zone a is lost in the middle of the run, and comes back after it.
async fn lose_zone(
    fixture: &mut Fixture,
    spread: Arc<Spread>,
    rate: u32,
    time: Duration,
    how: Loss,
) -> anyhow::Result<SilentZone> {
    let (node, at) = (node_a(fixture)?, time / 2);
    let schedule = Schedule { rate, warm_up: Duration::ZERO, measured: time };
    let mut calm = histogram();
    let (_never, stop) = tokio::sync::watch::channel(false);
    let load = open_loop_watched(spread, schedule, Pace::Exact, stop, |due, latency, _| {
        if due < at {
            calm.saturating_record(latency.as_nanos() as u64);
        }
    });
    let loss = async {
        tokio::time::sleep(at).await;
        match how {
            Loss::Silence => fixture.cluster.pause(node),
            Loss::Kill => fixture.cluster.kill(&[node]).await,
        }
    };
    let (run, lost) = tokio::join!(load, loss);
    lost?;
    match how {
        Loss::Silence => fixture.cluster.resume(node)?,
        Loss::Kill => fixture.start_node(node)?,
    }
    wait_until_healthy(fixture, HEALTH_LIMIT).await?;
    let calm_p99 = Duration::from_nanos(calm.value_at_quantile(0.99));
    Ok(SilentZone { rate, time, at, run, calm_p99, how })
}

/// All nodes are restarted, one after the other, each when the cluster is healthy; then a zone is killed and comes back.
async fn rolling(fixture: &mut Fixture, spread: Arc<Spread>, rate: u32) -> anyhow::Result<(Summary, Vec<Event>)> {
    let start = Instant::now();
    // The schedule has an end; the load is stopped when everything has happened.
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let schedule = Schedule { rate, warm_up: Duration::ZERO, measured: ROLLING_LIMIT };
    let load = open_loop_until(spread, schedule, Pace::Exact, stopped);
    let restarts = async {
        let mut events = Vec::new();
        let mut note = |what: String| events.push(Event { at_s: start.elapsed().as_secs_f64(), what });
        tokio::time::sleep(LEAD).await;
        for node in fixture.cluster.nodes() {
            note(format!("node {node} ends"));
            fixture.cluster.terminate(node, END_LIMIT).await?;
            fixture.start_node(node)?;
            wait_until_healthy(fixture, HEALTH_LIMIT).await.with_context(|| format!("after node {node} restarted"))?;
        }
        note(format!("zone {} is killed", ZONES[0]));
        fixture.cluster.kill_zone(ZONES[0]).await?;
        tokio::time::sleep(AWAY).await;
        fixture.start_node(node_a(fixture)?)?;
        note(format!("zone {} starts", ZONES[0]));
        wait_until_healthy(fixture, HEALTH_LIMIT).await?;
        tokio::time::sleep(LEAD).await;
        anyhow::Ok(events)
    };
    let restarts = async {
        let events = restarts.await;
        let _load_has_ended = stop.send(true);
        events
    };
    let (found, events) = tokio::join!(load, restarts);
    Ok((found, events?))
}
