//! P6: nodes that lead many partitions are killed, by signal 9 or by silence; how long until every partition takes writes again, and
//! what local reads in the other zones see meanwhile.

#![allow(clippy::disallowed_methods)] // a measurement is in true time

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use stoa::local_cluster::ZONES;
use stoa_client::{OnLostAnswer, ReadOptions, WriteOptions};
use stoa_env::JoinSet;
use stoa_protocol::PartitionId;

use super::big::shape;
use super::plan::Plan;
use crate::fixture::{BenchClient, BenchTransport, Fixture, FixtureOptions};
use crate::health::{leaders, wait_until_healthy};
use crate::machine::Cores;
use crate::profile::profile;
use crate::rows::Picks;
use crate::scene::Scene;
use crate::workload::{Keys, Reads, Shape};
use crate::writes::{RowsByPartition, versions};

/// Partitions; a node leads a third of them, and half after another one died.
const PARTITIONS: u64 = 64;
/// Partitions that a node must lead to be killed.
pub const LED_MIN: usize = 16;
/// How long finding such a node, and being whole again, may take.
const LIMIT: Duration = Duration::from_secs(90);
/// How long a partition may take to be writable; beyond it the kill counts with this.
pub const WRITABLE_LIMIT: Duration = Duration::from_secs(20);
/// How long the profile of a loss is.
const PROFILED: Duration = Duration::from_secs(2);
/// Between two reads of a zone.
const READ_PAUSE: Duration = Duration::from_millis(5);
/// Rows of such a read.
const READ_ROWS: usize = 20;

/// How a node is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Signal 9.
    Kill,
    /// It stands still; its sockets take what comes.
    Silence,
}

/// One loss.
#[derive(Debug, Clone, Copy)]
pub struct Loss {
    /// How.
    pub how: How,
    /// Partitions that it led.
    pub led: usize,
    /// Until the last partition had acknowledged a write.
    pub writable: Duration,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Kills {
    /// All of them.
    pub losses: Vec<Loss>,
    /// Local reads in the zones that were not lost.
    pub reads: u64,
    /// Those that were not complete.
    pub reads_failed: u64,
    /// The first of them.
    pub first_failure: Option<String>,
    /// The largest age of what they read.
    pub age_max: Duration,
    /// What a node that stays spends its time on after a loss: one more, that is not counted.
    pub profile: Vec<String>,
}

/// Measures them.
pub async fn measure(plan: Plan, cores: &Cores) -> anyhow::Result<Kills> {
    let rows = (shape(), plan.few_rows());
    Scene::with(FixtureOptions::new(PARTITIONS), cores, rows, async |fixture, scene| {
        let (mut kills, versions) = (Kills::default(), versions());
        for n in 0..plan.kills() {
            let how = if n % 2 == 0 { How::Kill } else { How::Silence };
            one(fixture, scene, how, &versions, &mut kills).await.with_context(|| format!("kill {n}"))?;
        }
        kills.profile = profile_of_loss(fixture, scene, &versions).await.context("the loss for the profile")?;
        Ok(kills)
    })
    .await
}

async fn profile_of_loss(
    fixture: &mut Fixture,
    scene: &Scene,
    versions: &Arc<AtomicU64>,
) -> anyhow::Result<Vec<String>> {
    let (node, _) = find_leader(fixture, scene).await?;
    let stays = (fixture.zone_index(node)? + 1) % ZONES.len();
    let stayer = fixture.cluster.nodes().into_iter().find(|node| fixture.zone_index(*node).ok() == Some(stays));
    let process = fixture.cluster.process_id(stayer.context("no node is left")?)?;
    let lost = Instant::now();
    fixture.cluster.kill(&[node]).await?;
    let writes = all_writable(&scene.clients[stays], &scene.by_partition, scene, versions, lost);
    let (profile, writable) = tokio::join!(profile(process, PROFILED), writes);
    writable?;
    Ok(profile)
}

async fn one(
    fixture: &mut Fixture,
    scene: &Scene,
    how: How,
    versions: &Arc<AtomicU64>,
    kills: &mut Kills,
) -> anyhow::Result<()> {
    let (node, led) = find_leader(fixture, scene).await?;
    let reading = Reading::start(fixture, scene, node).await?;
    let lost = Instant::now();
    match how {
        How::Kill => fixture.cluster.kill(&[node]).await?,
        How::Silence => fixture.cluster.pause(node)?,
    }
    let away = fixture.zone_index(node)?;
    let client = &scene.clients[(away + 1) % ZONES.len()];
    let writable = all_writable(client, &scene.by_partition, scene, versions, lost).await;
    reading.finish(kills).await;
    match how {
        How::Kill => fixture.start_node(node)?,
        How::Silence => fixture.cluster.resume(node)?,
    }
    wait_until_healthy(fixture, LIMIT).await?;
    kills.losses.push(Loss { how, led, writable: writable.unwrap_or(WRITABLE_LIMIT) });
    Ok(())
}

async fn find_leader(fixture: &Fixture, scene: &Scene) -> anyhow::Result<(u64, usize)> {
    let start = Instant::now();
    loop {
        let leaders = leaders(fixture, &scene.clients[0]).await;
        let led = |node: u64| leaders.values().filter(|leader| leader.0 == node).count();
        let most = fixture.cluster.nodes().into_iter().map(|node| (node, led(node))).max_by_key(|(_, led)| *led);
        if let Some((node, led)) = most.filter(|(_, led)| *led >= LED_MIN) {
            return Ok((node, led));
        }
        ensure!(start.elapsed() < LIMIT, "no node leads {LED_MIN} partitions within {LIMIT:?}: {most:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Sends one write to every partition at once; how long after `since` the last was acknowledged.
pub async fn all_writable(
    client: &BenchClient,
    rows: &Arc<RowsByPartition>,
    scene: &Scene,
    versions: &Arc<AtomicU64>,
    since: Instant,
) -> anyhow::Result<Duration> {
    let mut writes = JoinSet::new();
    for (partition, ids) in rows.parts() {
        let version = versions.fetch_add(1, Ordering::Relaxed) as i64;
        let batch = rows.batch(scene.shape, ids[..1].iter().copied(), version);
        let (client, partition): (BenchClient, PartitionId) = (client.clone(), *partition);
        writes.spawn(async move {
            let options = WriteOptions { deadline: WRITABLE_LIMIT, step: None, on_lost_answer: OnLostAnswer::Resend };
            let answer = client.write(partition, &batch, &options).await;
            answer.map(|_| since.elapsed())
        });
    }
    let mut last = Duration::ZERO;
    while let Some(ended) = writes.join_next().await {
        last = last.max(ended??);
    }
    Ok(last)
}

/// Reads in the zones that stay, as clients there do.
struct Reading {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<Kills>,
}

impl Reading {
    async fn start(fixture: &Fixture, scene: &Scene, without: u64) -> anyhow::Result<Self> {
        let (stop, mut tasks) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
        for zone in (0..ZONES.len()).filter(|zone| Some(*zone) != fixture.zone_index(without).ok()) {
            let reads = scene.reads(zone, Keys::Uniform(scene.rows), ReadOptions::default()).await?;
            tasks.spawn(read_until(reads, scene.shape, scene.rows, stop.clone()));
        }
        Ok(Self { stop, tasks })
    }

    async fn finish(mut self, into: &mut Kills) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            match ended {
                Ok(found) => {
                    into.reads += found.reads;
                    into.reads_failed += found.reads_failed;
                    into.age_max = into.age_max.max(found.age_max);
                    into.first_failure = into.first_failure.take().or(found.first_failure);
                }
                Err(error) => {
                    into.reads_failed += 1;
                    into.first_failure.get_or_insert(format!("a reader's task ended: {error}"));
                }
            }
        }
    }
}

async fn read_until(reads: Reads<BenchTransport>, shape: Shape, rows: u64, stop: Arc<AtomicBool>) -> Kills {
    let mut found = Kills::default();
    while !stop.load(Ordering::Relaxed) {
        let ids: Vec<u64> = Picks::new(found.reads * READ_ROWS as u64, rows).take(READ_ROWS).collect();
        found.reads += 1;
        let failure = match reads.get(&ids).await {
            Ok(answer) if !answer.is_complete() => Some("incomplete".to_owned()),
            Ok(answer) => {
                found.age_max = found.age_max.max(answer.age_max().unwrap_or_default());
                shape.compare(&ids, &answer).err()
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(why) = failure {
            found.reads_failed += 1;
            found.first_failure.get_or_insert(why);
        }
        tokio::time::sleep(READ_PAUSE).await;
    }
    found
}
