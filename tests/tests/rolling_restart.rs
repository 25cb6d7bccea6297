//! One node after the other is stopped in order and started again, under writes and under reads in every zone: no write
//! and no read fails, and every read finds what was acknowledged before it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Context, ensure};
use stoa::local_cluster::ZONES;
use stoa_client::Client;
use stoa_env::{QuicTransport, spawn};
use stoa_protocol::Position;
use stoa_tests::items::{define, position, read, rows, writer};
use stoa_tests::replicas::{equal_digests, serves};
use stoa_tests::start;
use stoa_tests::wait::{LIMIT, until};
use tokio::task::JoinHandle;

const PARTITIONS: u64 = 4;
const ITEMS: std::ops::Range<i64> = 0..100;
/// Reads of every zone, and writes, that must have ended before the next step.
const ENDED_PER_STEP: u64 = 10;

/// One stream of reads or writes, each after the one before.
struct Stream {
    name: String,
    ended: Arc<AtomicU64>,
    task: JoinHandle<Option<anyhow::Result<()>>>,
}

/// What all streams share.
#[derive(Default)]
struct Shared {
    /// How often all items were written, and the position of the last write.
    acknowledged: Mutex<(i64, Position)>,
    stop: AtomicBool,
}

impl Shared {
    fn acknowledged(&self) -> (i64, Position) {
        self.acknowledged.lock().expect("nobody panics while holding it").clone()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_fails_no_read_and_no_write() -> anyhow::Result<()> {
    let mut cluster = start("rolling_restart", env!("CARGO_BIN_EXE_stoa-under-test"), PARTITIONS).await?;
    let admin = cluster.client(ZONES[0]).await?;
    define(&admin).await?;
    for node in cluster.nodes() {
        serves(&cluster, &admin, node).await?;
    }
    let shared = Arc::new(Shared::default());
    let ended = Arc::new(AtomicU64::new(0));
    let task = spawn("writer", write_on(admin.clone(), shared.clone(), ended.clone()));
    let mut streams = vec![Stream { name: "writes".into(), ended, task }];
    progress(&mut streams).await?;
    for zone in ZONES {
        let ended = Arc::new(AtomicU64::new(0));
        let task = spawn("reader", read_on(cluster.client(zone).await?, shared.clone(), ended.clone()));
        streams.push(Stream { name: format!("reads in zone {zone}"), ended, task });
    }
    for node in cluster.nodes() {
        progress(&mut streams).await?;
        let status = cluster.terminate(node, LIMIT).await?;
        ensure!(status.success(), "node {node} was asked to end, and ended with {status}");
        progress(&mut streams).await?;
        cluster.start_node(node)?;
        serves(&cluster, &admin, node).await?;
    }
    progress(&mut streams).await?;
    shared.stop.store(true, Ordering::Relaxed);
    for Stream { name, task, .. } in streams {
        task.await?.with_context(|| format!("{name}: a panic"))?.context(name)?;
    }
    equal_digests(&admin).await?;
    Ok(())
}

async fn write_on(client: Client<QuicTransport>, shared: Arc<Shared>, ended: Arc<AtomicU64>) -> anyhow::Result<()> {
    let writer = writer(&client).await?;
    let mut units = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        units += 1;
        let results = writer.write_rows(&rows(ITEMS, units)).await?;
        let written = position(&client, &results)?;
        *shared.acknowledged.lock().expect("nobody panics while holding it") = (units, written);
        ended.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Reads that ask for what was acknowledged, and reads that take what their zone has, in turn.
async fn read_on(client: Client<QuicTransport>, shared: Arc<Shared>, ended: Arc<AtomicU64>) -> anyhow::Result<()> {
    let items: Vec<i64> = ITEMS.collect();
    while !shared.stop.load(Ordering::Relaxed) {
        let (units, written) = shared.acknowledged();
        let found = read(&client, &items, Some(&written)).await?;
        let older: Vec<_> = found.iter().filter(|(_, found)| **found < units).collect();
        ensure!(older.is_empty(), "all items were written {units} times, and these are older: {older:?}");
        let found = read(&client, &items, None).await?;
        ensure!(found.values().all(|units| *units > 0), "rows are missing: {found:?}");
        ended.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Waits until every stream has gone on; one that failed says why.
async fn progress(streams: &mut [Stream]) -> anyhow::Result<()> {
    for Stream { name, ended, task } in streams {
        let before = ended.load(Ordering::Relaxed);
        let wanted = before + ENDED_PER_STEP;
        let going_on = until("progress", async || {
            let now = ended.load(Ordering::Relaxed);
            ensure!(now >= wanted || task.is_finished(), "{name}: {} ended", now - before);
            Ok(())
        });
        going_on.await?;
        if task.is_finished() {
            return task.await?.with_context(|| format!("{name}: a panic"))?.context(name.clone());
        }
    }
    Ok(())
}
