//! The power goes in all zones at once, in the middle of writing: every acknowledged row is there afterwards, none is
//! there that nobody wrote, and all replicas are equal.

use std::sync::Arc;

use anyhow::ensure;
use stoa::local_cluster::ZONES;
use stoa_tests::items::define;
use stoa_tests::ledger::Ledger;
use stoa_tests::start;
use stoa_tests::wait::until;

const PARTITIONS: u64 = 4;
const WRITERS: usize = 6;
/// Batches acknowledged before the power goes.
const BATCHES: u64 = 60;
const ROUNDS: u64 = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_power_goes_in_all_zones_in_the_middle_of_writing() -> anyhow::Result<()> {
    let mut cluster = start("power_off", env!("CARGO_BIN_EXE_stoa-under-test"), PARTITIONS).await?;
    define(&cluster.client(ZONES[0]).await?).await?;
    let ledger = Arc::new(Ledger::default());
    for round in 1..=ROUNDS {
        let mut clients = Vec::new();
        for number in 0..WRITERS {
            clients.push(cluster.client(ZONES[number % ZONES.len()]).await?);
        }
        let writers = ledger.start_writers(&clients);
        until("acknowledged batches", async || {
            let batches = ledger.batches();
            ensure!(batches >= BATCHES * round, "{batches} batches are acknowledged");
            Ok(())
        })
        .await?;
        cluster.kill(&cluster.nodes()).await?;
        writers.abort_all();
        for node in cluster.nodes() {
            cluster.start_node(node)?;
        }
        for zone in ZONES {
            let client = until("a client", async || cluster.client(zone).await).await?;
            ledger.check_first(&client, &format!("zone {zone}, after the start")).await?;
        }
        ledger.judge(&cluster).await?;
    }
    Ok(())
}
