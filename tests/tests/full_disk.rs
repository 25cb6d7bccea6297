//! Disks are full. A node whose disk is full hands over what it leads, and every partition takes writes as before. When all
//! are full, writes are refused by name and reads go on; when there is room again, writes are taken without a restart.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use stoa::local_cluster::{LocalCluster, LocalClusterOptions, ZONES};
use stoa_protocol::ErrorCode;
use stoa_tests::direct::{Direct, DirectError};
use stoa_tests::items::{GROUP, define, partition_of};
use stoa_tests::ledger::Ledger;
use stoa_tests::replicas::{leader, partitions};
use stoa_tests::small_disk::{SmallDisk, impossible};
use stoa_tests::wait::{LIMIT, until};

const PARTITIONS: u64 = 4;
/// Room for the log's reserve of 80 MiB, and a little log.
const DISK_MIB: u32 = 128;
/// Batches that every partition acknowledges in each stage.
const BATCHES: u64 = 5;
/// An item of the full node's partition is looked for from here; those of the writers lie below.
const FIRST_DIRECT: i64 = 1_000;
/// How long the full node may think about a write.
const PATIENCE: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_costs_leadership_and_three_cost_writes_until_there_is_room() -> anyhow::Result<()> {
    if let Some(why) = impossible() {
        return stoa_tests::skip(&why);
    }
    let options = LocalClusterOptions {
        partitions: PARTITIONS,
        ..LocalClusterOptions::new("full_disk", env!("CARGO_BIN_EXE_stoa-under-test"))
    };
    let mut cluster = LocalCluster::prepare(options)?;
    // All of them: which one will lead is not known yet.
    let disks = cluster.nodes().into_iter().map(|node| SmallDisk::mount(&cluster.data_dir(node), DISK_MIB));
    let disks = disks.collect::<anyhow::Result<Vec<_>>>()?;
    cluster.start_all(LIMIT).await?;
    let mut clients = Vec::new();
    for zone in ZONES {
        clients.push(cluster.client(zone).await?);
    }
    define(&clients[0]).await?;
    let ledger = Arc::new(Ledger::default());
    let writers = ledger.start_writers(&clients);
    let all = partitions(&clients[0]);
    ledger.progress(&all, BATCHES).await?;

    let partition = *all.first().context("a cluster has a partition")?;
    let group = clients[0].group(GROUP).await?.definition().clone();
    let mut item = FIRST_DIRECT;
    while partition_of(&clients[0], &group, item)? != partition {
        item += 1;
    }

    // One is full, and hands over what it leads: every partition takes writes.
    let full = leader(&clients[0], partition).await?;
    disks[at(&cluster, full)?].fill()?;
    until("another leader", async || {
        let now = leader(&clients[0], partition).await?;
        ensure!(now != full, "node {full} leads partition {partition}, and its disk is full");
        Ok(())
    })
    .await?;
    ledger.progress(&all, BATCHES).await?;

    // All are full: nothing is taken, and whoever leads says why.
    for node in cluster.nodes().into_iter().filter(|node| *node != full) {
        disks[at(&cluster, node)?].fill()?;
    }
    until("a refusal", async || {
        let leads = leader(&clients[0], partition).await?;
        ledger.attempt(item, 1);
        match Direct::to(&cluster, &clients[0], leads)?.write(&group, partition, item, 1, PATIENCE).await {
            Err(DirectError::Refused(error)) if error.code == ErrorCode::DiskFull => Ok(()),
            other => bail!("node {leads}, whose disk is full, says {other:?}"),
        }
    })
    .await?;
    for client in &clients {
        let found = ledger.read_all(client).await?;
        ensure!(found.values().any(|units| *units > 0), "nothing is read any more: {found:?}");
        if let Some(invented) = ledger.invented(&found) {
            bail!(invented);
        }
    }

    disks.iter().try_for_each(SmallDisk::empty)?;
    ledger.progress(&all, BATCHES).await?;
    writers.abort_all();
    for node in cluster.nodes() {
        ensure!(cluster.runs(node)?, "node {node} ended: {}", cluster.log(node)?);
    }
    let judged = ledger.judge(&cluster).await;
    cluster.stop().await;
    judged
}

fn at(cluster: &LocalCluster, node: u64) -> anyhow::Result<usize> {
    cluster.nodes().iter().position(|other| *other == node).context("it is a node of the cluster")
}
