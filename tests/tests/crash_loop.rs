//! A node that leads is killed and started again, over and over, each time in another moment of its start, under writes.
//! Nothing that was acknowledged is lost, its files do not pile up, and the others are not drawn into elections.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use stoa::local_cluster::{LocalCluster, ZONES};
use stoa_protocol::PartitionId;
use stoa_tests::items::define;
use stoa_tests::ledger::Ledger;
use stoa_tests::replicas::{files_in, leader, partitions, serves, terms};
use stoa_tests::start;
use stoa_tests::wait::until;

const PARTITIONS: u64 = 4;
const ROUNDS: usize = 20;
/// Batches that every partition acknowledges before and after.
const BATCHES: u64 = 10;
/// Files that a node may have more after the loop than before it: without the care of the log it would be six.
const MORE_FILES: usize = 3;
/// Bytes that it may have more than the one of the others that has most, which took the same writes in one life.
const MORE_BYTES: u64 = 16 << 20;
/// Elections of each partition: the first kill costs one, and so may a restart on a machine that is busy.
const MORE_TERMS: u64 = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_crashes_over_and_over_leaves_no_trail() -> anyhow::Result<()> {
    let mut cluster = start("crash_loop", env!("CARGO_BIN_EXE_stoa-under-test"), PARTITIONS).await?;
    let mut clients = Vec::new();
    for zone in ZONES {
        clients.push(cluster.client(zone).await?);
    }
    define(&clients[0]).await?;
    let all = partitions(&clients[0]);
    let ledger = Arc::new(Ledger::default());
    let writers = ledger.start_writers(&clients);
    ledger.progress(&all, BATCHES).await?;
    let node = leader(&clients[0], *all.first().context("a cluster has a partition")?).await?;
    let files_before = files_in(&cluster.data_dir(node))?.len();
    let terms_before = terms(&clients[0]).await?;

    cluster.kill(&[node]).await?;
    for round in 0..ROUNDS {
        let (said, files) = (cluster.log(node)?.len(), files_in(&cluster.data_dir(node))?);
        cluster.start_node(node)?;
        reach(&mut cluster, node, round % 4, said, &files).await?;
        cluster.kill(&[node]).await?;
    }
    ledger.progress(&all, BATCHES).await?;
    cluster.start_node(node)?;
    serves(&cluster, &clients[0], node).await?;
    writers.abort_all();
    ledger.judge(&cluster).await?;

    let files = files_in(&cluster.data_dir(node))?.len();
    let mut others = 0;
    for other in cluster.nodes().into_iter().filter(|other| *other != node) {
        others = others.max(bytes(&cluster, other)?);
    }
    let bytes = bytes(&cluster, node)?;
    let risen: BTreeMap<PartitionId, u64> =
        terms(&clients[0]).await?.into_iter().map(|(p, term)| (p, term - terms_before.get(&p).unwrap_or(&0))).collect();
    println!(
        "{ROUNDS} crashes: {files_before} files, then {files}; {bytes} bytes, others {others}; terms rose by {risen:?}"
    );
    ensure!(files <= files_before + MORE_FILES, "{files_before} files before, {files} after");
    ensure!(bytes <= others + MORE_BYTES, "{bytes} bytes, and the others have {others} at the most");
    ensure!(risen.values().all(|risen| *risen <= MORE_TERMS), "terms rose by {risen:?}");
    Ok(())
}

/// Waits for a moment of the start: none at all, its first word, its first file, or that it serves.
async fn reach(
    cluster: &mut LocalCluster,
    node: u64,
    moment: usize,
    said: usize,
    files: &BTreeSet<PathBuf>,
) -> anyhow::Result<()> {
    until("a moment of the start", async || {
        ensure!(cluster.runs(node)?, "node {node} has ended by itself: {}", cluster.log(node)?.split_off(said));
        let log = cluster.log(node)?.split_off(said);
        let reached = match moment {
            0 => true,
            1 => !log.is_empty(),
            2 => files_in(&cluster.data_dir(node)).is_ok_and(|now| now != *files),
            3 => log.contains("the node serves"),
            other => bail!("there is no moment {other}"),
        };
        ensure!(reached, "moment {moment} has not come; it has said {log:?}");
        Ok(())
    })
    .await
}

fn bytes(cluster: &LocalCluster, node: u64) -> anyhow::Result<u64> {
    let mut sum = 0;
    for file in files_in(&cluster.data_dir(node))? {
        sum += std::fs::metadata(file)?.len();
    }
    Ok(sum)
}
