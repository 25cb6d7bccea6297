//! P7: a node is killed under load and started again; how long until it serves right and fresh rows by itself.

#![allow(clippy::disallowed_methods)] // a measurement is in true time

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use anyhow::Context;
use stoa_client::ReadOptions;
use stoa_env::JoinSet;

use super::big::{node_a, writes_of};
use super::plan::Plan;
use crate::fixture::Fixture;
use crate::load::{Pace, Schedule, closed_loop, open_loop};
use crate::rows::Picks;
use crate::scene::Scene;
use crate::workload::{Keys, Reads};

/// Keys that must be right.
const KEYS: usize = 1_000;
/// How old what they are may be.
const AGE_MAX: Duration = Duration::from_secs(1);
/// How long one attempt to read them may take.
const ATTEMPT: Duration = Duration::from_secs(2);
/// After so long the measurement is given up.
const GIVE_UP: Duration = Duration::from_secs(120);
/// How long latencies are watched after the keys were right.
pub const FAST_LIMIT: Duration = Duration::from_secs(30);
/// Requests a second while latencies are compared, and how long each comparison is.
const RATE: u32 = 100;
const WINDOW: Duration = Duration::from_secs(2);
/// Writes under way at once.
const WRITERS: usize = 16;

/// How a node came back.
#[derive(Debug, Clone, Copy)]
pub struct Restart {
    /// Until the keys were right and no older than a second.
    pub right: Duration,
    /// Until the 99th percentile was within twice that before; `None` if it was not within the time given.
    pub fast: Option<Duration>,
    /// The 99th percentile before.
    pub p99_before: Duration,
}

/// Kills the node of zone a under writes and measures its return.
pub async fn measure_restart(
    plan: Plan,
    fixture: &mut Fixture,
    scene: &Scene,
    versions: &Arc<AtomicU64>,
    dropped: bool,
) -> anyhow::Result<Restart> {
    let node = node_a(fixture)?;
    let calm = reads_of(fixture, scene, node).await?;
    let p99_before = p99(&calm).await;
    let writes = Arc::new(writes_of(scene, 1_000, versions));
    let mut under_way = JoinSet::new();
    under_way.spawn(closed_loop(writes.clone(), WRITERS, Duration::ZERO, plan.repetition() + GIVE_UP + FAST_LIMIT));
    tokio::time::sleep(plan.repetition()).await;
    fixture.cluster.kill(&[node]).await?;
    if dropped {
        drop_page_cache()?;
    }
    let start = Instant::now();
    fixture.cluster.start_node(node)?;
    let right = until_right(fixture, scene, node, start).await;
    let fast = match &right {
        Ok(_) => until_fast(fixture, scene, node, p99_before, start).await?,
        Err(_) => None,
    };
    drop(under_way);
    Ok(Restart { right: right?, fast, p99_before })
}

async fn reads_of(
    fixture: &Fixture,
    scene: &Scene,
    node: u64,
) -> anyhow::Result<Arc<Reads<crate::fixture::BenchTransport>>> {
    let client = fixture.client_of_node(node).await?;
    let options = ReadOptions { deadline: ATTEMPT, ..ReadOptions::default() }.at_most_behind(AGE_MAX);
    Ok(Arc::new(Reads::new(&client, scene.shape, Keys::Uniform(scene.rows), options).await?))
}

async fn until_right(fixture: &Fixture, scene: &Scene, node: u64, start: Instant) -> anyhow::Result<Duration> {
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
                Ok(answer) if !answer.is_complete() || answer.is_stale() => last = "incomplete or stale".to_owned(),
                Ok(answer) => match scene.shape.compare(&ids, &answer) {
                    Ok(()) => return Ok(start.elapsed()),
                    Err(what) => last = what,
                },
                Err(error) => last = error.to_string(),
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    anyhow::bail!("{KEYS} keys were not right within {GIVE_UP:?}; at last: {last}")
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
        if p99(&reads).await <= before * 2 {
            return Ok(Some(start.elapsed()));
        }
    }
    Ok(None)
}

async fn p99(reads: &Arc<Reads<crate::fixture::BenchTransport>>) -> Duration {
    let schedule = Schedule { rate: RATE, warm_up: Duration::ZERO, measured: WINDOW };
    open_loop(reads.clone(), schedule, Pace::Exact).await.p99
}

/// Has the kernel forget what files hold.
fn drop_page_cache() -> anyhow::Result<()> {
    rustix::fs::sync();
    std::fs::write("/proc/sys/vm/drop_caches", "3").context("dropping the page cache needs root")
}
