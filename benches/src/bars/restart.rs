//! P7: a node is killed under load and started again; how long until it serves right and fresh rows by itself.

#![allow(clippy::disallowed_methods)] // a measurement is in true time

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use anyhow::Context;
use stoa_client::{ReadOptions, ViewAnswer};
use stoa_env::JoinSet;

use super::big::node_a;
use super::plan::Plan;
use crate::fixture::{BenchTransport, Fixture};
use crate::load::{Pace, Schedule, Summary, closed_loop, open_loop};
use crate::profile::profile;
use crate::rows::Picks;
use crate::scene::Scene;
use crate::workload::{Keys, Reads};
use crate::writes::PreparedWrites;

/// Keys that must be right.
const KEYS: usize = 1_000;
/// How old what they are may be.
const AGE_MAX: Duration = Duration::from_secs(1);
/// How long one attempt to read them may take.
const ATTEMPT: Duration = Duration::from_millis(500);
/// After so long the measurement is given up.
pub const GIVE_UP: Duration = Duration::from_secs(10);
/// How long latencies are watched after the keys were right.
pub const FAST_LIMIT: Duration = Duration::from_secs(10);
/// How long the node is profiled after its start.
const PROFILED: Duration = Duration::from_secs(4);
/// Requests a second while latencies are compared, and how long each comparison is.
const RATE: u32 = 100;
const WINDOW: Duration = Duration::from_secs(2);
/// Writes under way at once.
const WRITERS: usize = 16;

/// Where the files of a node are while it is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageCache {
    /// In the kernel's memory, as a process' end leaves them.
    Warm,
    /// On the device alone, as after a restart of the machine.
    Dropped,
}

/// How a node came back.
#[derive(Debug, Clone)]
pub struct Restart {
    /// Until the keys were right and no older than a second; what was wrong at last, if they were not within the time given.
    pub right: Result<Duration, String>,
    /// Until the 99th percentile was within twice that before; `None` if it was not within the time given.
    pub fast: Option<Duration>,
    /// Reads before, under the same writes.
    pub before: Summary,
    /// What the node spent its first seconds on.
    pub profile: Vec<String>,
}

/// Kills the node of zone a under writes and measures its return.
pub async fn measure_restart(
    plan: Plan,
    fixture: &mut Fixture,
    scene: &Scene,
    versions: &Arc<AtomicU64>,
    cache: PageCache,
) -> anyhow::Result<Restart> {
    let node = node_a(fixture)?;
    let before = reads_of(fixture, scene, node).await?;
    let writes = PreparedWrites::new(&scene.clients[0], &scene.by_partition, scene.shape, 1_000, versions);
    let mut under_way = JoinSet::new();
    let time = plan.repetition() * 2 + GIVE_UP + FAST_LIMIT;
    under_way.spawn(closed_loop(Arc::new(writes), WRITERS, Duration::ZERO, time));
    tokio::time::sleep(plan.repetition()).await;
    let before = watch(&before).await;
    fixture.cluster.kill(&[node]).await?;
    if cache == PageCache::Dropped {
        drop_page_cache()?;
    }
    let start = Instant::now();
    fixture.start_node(node)?;
    let process = fixture.cluster.process_id(node)?;
    let (right, profile) = tokio::join!(until_right(fixture, scene, node, start), profile(process, PROFILED));
    let fast = match &right {
        // A node that answers nobody any more is not fast: what it was until then stands.
        Ok(_) => until_fast(fixture, scene, node, before.p99, start).await.unwrap_or(None),
        Err(_) => None,
    };
    drop(under_way);
    Ok(Restart { right, fast, before, profile })
}

async fn reads_of(fixture: &Fixture, scene: &Scene, node: u64) -> anyhow::Result<Arc<Reads<BenchTransport>>> {
    let client = fixture.client_of_node(node).await?;
    let options = ReadOptions { deadline: ATTEMPT, ..ReadOptions::default() }.at_most_behind(AGE_MAX);
    Ok(Arc::new(Reads::new(&client, scene.shape, Keys::Uniform(scene.rows), options).await?))
}

async fn until_right(fixture: &Fixture, scene: &Scene, node: u64, start: Instant) -> Result<Duration, String> {
    let ids: Vec<u64> = Picks::new(start.elapsed().as_nanos() as u64, scene.rows).take(KEYS).collect();
    let mut last = "nothing was asked yet".to_owned();
    let mut reads = None;
    while start.elapsed() < GIVE_UP {
        if reads.is_none() {
            // The node answers nobody at first.
            match tokio::time::timeout(ATTEMPT, reads_of(fixture, scene, node)).await {
                Ok(Ok(opened)) => reads = Some(opened),
                Ok(Err(error)) => last = format!("{error:#}"),
                Err(_) => last = format!("no client within {ATTEMPT:?}"),
            }
        }
        if let Some(reads) = &reads {
            match reads.get(&ids).await {
                Ok(answer) if !answer.is_complete() || answer.is_stale() => last = lacks(&answer),
                Ok(answer) => match scene.shape.compare(&ids, &answer) {
                    Ok(()) => return Ok(start.elapsed()),
                    Err(what) => last = what,
                },
                Err(error) => last = error.to_string(),
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err(last)
}

async fn until_fast(
    fixture: &Fixture,
    scene: &Scene,
    node: u64,
    before: Duration,
    start: Instant,
) -> anyhow::Result<Option<Duration>> {
    let reads = reads_of(fixture, scene, node).await?;
    let watched = Instant::now();
    while watched.elapsed() < FAST_LIMIT {
        let found = watch(&reads).await;
        if found.p99 <= before * 2 && found.failed + found.dropped == 0 {
            return Ok(Some(start.elapsed()));
        }
    }
    Ok(None)
}

/// Reads by a schedule, for a short time.
async fn watch(reads: &Arc<Reads<BenchTransport>>) -> Summary {
    let schedule = Schedule { rate: RATE, warm_up: Duration::ZERO, measured: WINDOW };
    open_loop(reads.clone(), schedule, Pace::Exact).await
}

/// What a read lacks that is not whole and fresh.
fn lacks(answer: &ViewAnswer) -> String {
    let rows = || 0..answer.rows();
    let unanswered = rows().filter(|row| answer.schema_version(*row, 0).is_none()).count();
    let fresh = rows().filter(|row| answer.age(*row, 0).is_some_and(|age| age <= AGE_MAX)).count();
    let (all, old) = (answer.rows(), answer.rows() - unanswered - fresh);
    format!("of {all} rows {unanswered} were not answered, and {old} were too old")
}

/// Has the kernel forget what files hold.
fn drop_page_cache() -> anyhow::Result<()> {
    rustix::fs::sync();
    std::fs::write("/proc/sys/vm/drop_caches", "3").context("dropping the page cache needs root")
}
