//! What is measured on the cluster with the most rows: reads (P1), durable writes (P4), reads beside writes (P5), and the return of
//! a node that was killed (P7). The peers come after it, when its nodes no longer take time from theirs.

#![allow(clippy::disallowed_methods)] // a measurement is in true time

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use stoa::local_cluster::ZONES;
use stoa_client::{Hedging, ReadOptions};

use super::plan::Plan;
use super::restart::{PageCache, Restart, measure_restart};
use crate::counted::{CallBytes, Counts};
use crate::cpu;
use crate::fixture::{BenchTransport, Fixture, FixtureOptions};
use crate::health::wait_until_healthy;
use crate::load::{Pace, Schedule, Service, Summary, closed_loop, open_loop};
use crate::machine::Cores;
use crate::measure::{Repetitions, closed, micros};
use crate::process::step;
use crate::profile::profile;
use crate::report::model::{Curve, CurvePoint};
use crate::scene::Scene;
use crate::workload::{Keys, Reads, Shape, Workload};
use crate::writes::{PreparedWrites, Writes, versions};

/// Reads under way at once, of every system that is asked for them.
pub const READERS: usize = 32;
/// Rows of a write, and writes under way at once: the same on both sides.
pub const WRITES: [(usize, usize); 3] = [(1, 64), (100, 32), (1_000, 16)];
/// Partitions: as many as a cluster has by default.
pub const PARTITIONS: u64 = 64;
/// Shares of the peak at which latencies are measured, in percent.
pub const CURVE_PERCENT: [u32; 5] = [10, 25, 50, 75, 90];
/// Requests of a repetition and its warm-up, by those of the repetition.
const WITH_WARM_UP: f64 = 1.2;
/// How long each point of a curve is measured.
const CURVE_TIME: Duration = Duration::from_secs(2);
/// How long an answer may take before it has failed.
const DEADLINE: Duration = Duration::from_secs(1);
/// How long the cluster may take to be whole after a restart.
const HEALTH_LIMIT: Duration = Duration::from_secs(120);
/// Share of the peak of reads, and of the rate of writes, in P5.
const P5_PERCENT: f64 = 25.0;

/// What was found.
pub struct Big {
    /// Rows loaded a second.
    pub load_rate: f64,
    /// Bytes of a node's memory by its rows.
    pub node_bytes_per_row: f64,
    /// Reads of 100 rows of one node, at their peak.
    pub reads: Repetitions,
    /// The bytes of such a read.
    pub bytes: CallBytes,
    /// Calls to the node for each read.
    pub calls_per_read: f64,
    /// Share of a core that the other nodes took meanwhile, together.
    pub others: f64,
    /// What the node spent its time on meanwhile.
    pub reads_profile: Vec<String>,
    /// Writes by the rows of a batch.
    pub writes: BTreeMap<usize, Repetitions>,
    /// What the node of zone a spent its time on during writes of 1,000 rows.
    pub writes_profile: Vec<String>,
    /// Reads by a schedule, alone and beside writes.
    pub beside: (Summary, Summary),
    /// Writes of these, and the rate at which they were due.
    pub beside_writes: (Summary, u32),
    /// Latencies by rate.
    pub curve: Curve,
    /// The return of a killed node, its files in the page cache or not.
    pub restarts: Vec<anyhow::Result<Restart>>,
}

/// The shape of all rows here.
pub fn shape() -> Shape {
    Workload::Vectors.shape(0)
}

/// Measures all of it.
pub async fn measure(plan: Plan, cores: &Cores) -> anyhow::Result<Big> {
    let rows = (shape(), plan.rows());
    Scene::with(FixtureOptions::new(PARTITIONS), cores, rows, async |fixture, scene| {
        let node = node_a(fixture)?;
        let server = fixture.cluster.process_id(node)?;
        // One node alone answers, and nobody helps it: what it costs is what the reads cost.
        let (client, counts) = fixture.counted_client_of_node(node).await?;
        let options = ReadOptions { deadline: DEADLINE, hedging: Hedging::Off, ..ReadOptions::default() };
        let reads = Arc::new(Reads::new(&client, scene.shape, Keys::Uniform(scene.rows), options).await?);
        let node_bytes_per_row = resident_bytes(server)? as f64 / scene.rows as f64;
        step("reads at their peak");
        let others: Vec<u32> = fixture.processes()?.into_iter().filter(|process| *process != server).collect();
        let before = costs(&others)?;
        let (all, bytes, reads_profile, took) = peak(plan, &counts, &reads, server).await?;
        let others = (costs(&others)? - before).as_secs_f64() / took.as_secs_f64();
        let asked: u64 = all.0.iter().map(|one| one.summary.answered + one.summary.failed).sum();
        // The warm-ups are calls, too: a sixth of all.
        let calls_per_read = bytes.calls as f64 / (asked as f64 * WITH_WARM_UP);
        step("latencies by rate");
        let curve = curve("Stoa", reads.clone(), all.median(|one| one.summary.rate)).await;
        step("durable writes");
        let versions = versions();
        let mut writes = BTreeMap::new();
        for (batch, writers) in WRITES {
            let service = Arc::new(writes_of(scene, batch, &versions));
            let mut repetitions = Repetitions::default();
            for _ in 0..plan.repetitions() {
                repetitions.0.push(closed(service.clone(), writers, plan.repetition(), &fixture.processes()?).await?);
            }
            writes.insert(batch, repetitions);
        }
        let service = Arc::new(writes_of(scene, 1_000, &versions));
        let during = closed_loop(service, WRITES[2].1, Duration::ZERO, plan.repetition());
        let (writes_profile, _) = tokio::join!(profile(server, plan.repetition()), during);
        step("reads beside writes");
        // What the writes before have left to do is not to be measured as reads alone.
        scene.wait_until_quiet(fixture).await?;
        let (beside, beside_writes) = beside_writes(plan, scene, &reads, &all, &writes[&1_000], &versions).await;
        let mut restarts = Vec::new();
        for dropped in [false, true] {
            step(if dropped { "a node is killed, its page cache dropped" } else { "a node is killed" });
            let cache = if dropped { PageCache::Dropped } else { PageCache::Warm };
            restarts.push(measure_restart(plan, fixture, scene, &versions, cache).await);
            // After the last one nothing more is asked of the cluster.
            if !dropped {
                wait_until_healthy(fixture, HEALTH_LIMIT).await?;
            }
        }
        Ok(Big {
            load_rate: scene.load_rate(),
            node_bytes_per_row,
            reads: all,
            bytes,
            calls_per_read,
            others,
            reads_profile,
            writes,
            writes_profile,
            beside,
            beside_writes,
            curve,
            restarts,
        })
    })
    .await
}

async fn peak(
    plan: Plan,
    counts: &Counts,
    reads: &Arc<Reads<BenchTransport>>,
    server: u32,
) -> anyhow::Result<(Repetitions, CallBytes, Vec<String>, Duration)> {
    let start = Instant::now();
    let mut all = Repetitions::default();
    counts.take();
    for _ in 0..plan.repetitions() {
        all.0.push(closed(reads.clone(), READERS, plan.repetition(), &[server]).await?);
    }
    let bytes = counts.take();
    let during = closed_loop(reads.clone(), READERS, Duration::ZERO, plan.repetition());
    let (profile, _) = tokio::join!(profile(server, plan.repetition()), during);
    Ok((all, bytes, profile, start.elapsed()))
}

fn costs(processes: &[u32]) -> anyhow::Result<Duration> {
    processes.iter().map(|process| cpu::of_process(*process)).sum()
}

/// Writes to the rows of a scene.
pub fn writes_of(scene: &Scene, batch: usize, versions: &Arc<AtomicU64>) -> Writes<BenchTransport> {
    Writes::new(&scene.clients[0], scene.by_partition.clone(), scene.shape, batch, versions.clone())
}

/// Latencies at shares of a peak.
pub async fn curve<S: Service>(name: &str, service: Arc<S>, peak: f64) -> Curve {
    let mut points = Vec::new();
    for percent in CURVE_PERCENT {
        let rate = (peak * f64::from(percent) / 100.0).max(1.0) as u32;
        let schedule = Schedule { rate, warm_up: CURVE_TIME / 4, measured: CURVE_TIME };
        let summary = open_loop(service.clone(), schedule, Pace::Exact).await;
        points.push(CurvePoint {
            rate: rate.into(),
            answered: summary.rate,
            p50_us: micros(summary.p50),
            p99_us: micros(summary.p99),
            p999_us: micros(summary.p999),
        });
    }
    Curve { name: name.to_owned(), points }
}

async fn beside_writes(
    plan: Plan,
    scene: &Scene,
    reads: &Arc<Reads<BenchTransport>>,
    peak: &Repetitions,
    written: &Repetitions,
    versions: &Arc<AtomicU64>,
) -> ((Summary, Summary), (Summary, u32)) {
    let time = plan.repetition() * 2;
    let rate = |of: &Repetitions| (of.median(|one| one.summary.rate) * P5_PERCENT / 100.0).max(1.0) as u32;
    let schedule = |rate| Schedule { rate, warm_up: time / 5, measured: time };
    let alone = open_loop(reads.clone(), schedule(rate(peak)), Pace::Exact).await;
    let writes = PreparedWrites::new(&scene.clients[0], &scene.by_partition, scene.shape, 1_000, versions);
    let writes = Arc::new(writes);
    let (beside, writes) = tokio::join!(
        open_loop(reads.clone(), schedule(rate(peak)), Pace::Exact),
        // Two that look at the clock all the time would wait for each other.
        open_loop(writes, schedule(rate(written)), Pace::Timer)
    );
    ((alone, beside), (writes, rate(written)))
}

/// What the kernel counts as resident for a process, in bytes.
pub fn resident_bytes(process: u32) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/statm"))?;
    let pages: u64 = text.split_ascii_whitespace().nth(1).and_then(|field| field.parse().ok()).unwrap_or(0);
    Ok(pages * rustix::param::page_size() as u64)
}

/// The node of the first zone: that which is measured where it is one.
pub fn node_a(fixture: &Fixture) -> anyhow::Result<u64> {
    fixture.node_in(ZONES[0])
}
