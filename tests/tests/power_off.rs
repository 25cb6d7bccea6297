//! The power goes in all zones at once, in the middle of writing: every acknowledged row is there afterwards, none is
//! there that nobody wrote, and all replicas are equal.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::ensure;
use stoa::local_cluster::{LocalCluster, ZONES};
use stoa_client::Client;
use stoa_env::{QuicTransport, TaskGroup};
use stoa_tests::items::{define, read, rows, writer};
use stoa_tests::replicas::{self, equal_digests, serves};
use stoa_tests::start;
use stoa_tests::wait::until;

const PARTITIONS: u64 = 4;
const WRITERS: i64 = 6;
const ITEMS_PER_WRITER: i64 = 16;
/// Items that nobody ever writes.
const UNWRITTEN: i64 = 50;
/// Batches acknowledged before the power goes.
const BATCHES: u64 = 60;
const ROUNDS: u64 = 2;

/// What was asked for and what was promised, for each item: how often it was written.
#[derive(Default)]
struct Ledger {
    attempted: BTreeMap<i64, i64>,
    acknowledged: BTreeMap<i64, i64>,
    batches: u64,
}

fn open(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().expect("no writer panics while it holds the ledger")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_power_goes_in_all_zones_in_the_middle_of_writing() -> anyhow::Result<()> {
    let mut cluster = start("power_off", env!("CARGO_BIN_EXE_stoa-under-test"), PARTITIONS).await?;
    define(&cluster.client(ZONES[0]).await?).await?;
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    for round in 1..=ROUNDS {
        let writers = start_writers(&cluster, &ledger).await?;
        until("acknowledged batches", async || {
            let batches = open(&ledger).batches;
            ensure!(batches >= BATCHES * round, "{batches} batches are acknowledged");
            Ok(())
        })
        .await?;
        cluster.kill(&cluster.nodes()).await?;
        writers.abort_all();
        for node in cluster.nodes() {
            cluster.start_node(node)?;
        }
        judge(&cluster, &ledger).await?;
    }
    Ok(())
}

/// Writers in all zones; each has items of its own and writes them again and again.
async fn start_writers(cluster: &LocalCluster, ledger: &Arc<Mutex<Ledger>>) -> anyhow::Result<TaskGroup> {
    let tasks = TaskGroup::new();
    for number in 0..WRITERS {
        let client = cluster.client(ZONES[number as usize % ZONES.len()]).await?;
        tasks.spawn("writer", write(client, number, ledger.clone()));
    }
    Ok(tasks)
}

async fn write(client: Client<QuicTransport>, number: i64, ledger: Arc<Mutex<Ledger>>) -> anyhow::Result<()> {
    let items: Vec<i64> = (number * ITEMS_PER_WRITER..(number + 1) * ITEMS_PER_WRITER).collect();
    let writer = writer(&client).await?;
    loop {
        let units = {
            let mut ledger = open(&ledger);
            let units = ledger.attempted.get(&items[0]).copied().unwrap_or(0) + 1;
            ledger.attempted.extend(items.iter().map(|item| (*item, units)));
            units
        };
        let results = writer.write_rows(&rows(items.iter().copied(), units)).await?;
        let mut ledger = open(&ledger);
        for batch in results.iter().filter(|batch| batch.result.is_ok()) {
            ledger.batches += 1;
            ledger.acknowledged.extend(batch.rows.iter().map(|at| (items[*at as usize], units)));
        }
    }
}

/// The first whole answer in every zone must already be right.
async fn judge(cluster: &LocalCluster, ledger: &Mutex<Ledger>) -> anyhow::Result<()> {
    let (attempted, acknowledged) = {
        let ledger = open(ledger);
        (ledger.attempted.clone(), ledger.acknowledged.clone())
    };
    let items: Vec<i64> = (0..WRITERS * ITEMS_PER_WRITER + UNWRITTEN).collect();
    for zone in ZONES {
        let found = until("a whole answer", async || {
            let client = cluster.client(zone).await?;
            read(&client, &items, None).await
        })
        .await?;
        for (item, found) in found {
            let promised = acknowledged.get(&item).copied().unwrap_or(0);
            let asked = attempted.get(&item).copied().unwrap_or(0);
            ensure!(
                (promised..=asked).contains(&found),
                "zone {zone}: item {item} was acknowledged {promised} times and sent {asked} times, and says {found}"
            );
        }
    }
    let client = cluster.client(ZONES[0]).await?;
    for node in cluster.nodes() {
        serves(cluster, &client, node).await?;
    }
    let rows = replicas::rows(&equal_digests(&client).await?);
    ensure!((acknowledged.len() as u64..=attempted.len() as u64).contains(&rows), "{rows} rows");
    Ok(())
}
