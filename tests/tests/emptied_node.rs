//! A node whose data directory was emptied has forgotten what it promised: it must not come back as itself.

use anyhow::ensure;
use stoa::local_cluster::ZONES;
use stoa_protocol::NodeId;
use stoa_tests::items::{define, read, rows, writer};
use stoa_tests::replicas::{equal_digests, equal_digests_of};
use stoa_tests::start;
use stoa_tests::wait::LIMIT;

const PARTITIONS: u64 = 4;
const ITEMS: std::ops::Range<i64> = 0..100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_its_data_ends_and_says_why() -> anyhow::Result<()> {
    let mut cluster = start("emptied_node", env!("CARGO_BIN_EXE_stoa-under-test"), PARTITIONS).await?;
    let client = cluster.client(ZONES[0]).await?;
    define(&client).await?;
    for batch in writer(&client).await?.write_rows(&rows(ITEMS, 1)).await? {
        batch.result?;
    }
    let before = equal_digests(&client).await?;
    // Any of them: the one that forms the cluster, and the two others.
    for node in cluster.nodes() {
        let (kept, dir) = (cluster.dir().join("kept"), cluster.data_dir(node));
        cluster.kill(&[node]).await?;
        std::fs::rename(&dir, &kept)?;
        let said_before = cluster.log(node)?.len();
        cluster.start_node(node)?;
        let status = cluster.ended(node, LIMIT).await;
        let said = cluster.log(node)?.split_off(said_before);
        ensure!(!status?.success(), "node {node} ended as if all were well: {said}");
        for part in [format!("node {node}"), "data".to_owned()] {
            ensure!(said.contains(&part), "{part:?} is missing in what node {node} said: {said}");
        }
        // With its data it may come back.
        std::fs::remove_dir_all(&dir)?;
        std::fs::rename(&kept, &dir)?;
        let others = cluster.nodes().into_iter().filter(|other| *other != node).map(NodeId).collect();
        ensure!(equal_digests_of(&client, &others).await? == before, "the others have changed");
        cluster.start_node(node)?;
        ensure!(equal_digests(&client).await? == before, "node {node} came back with something else");
    }
    let found = read(&client, &ITEMS.collect::<Vec<_>>(), None).await?;
    ensure!(found.values().all(|units| *units == 1), "{found:?}");
    Ok(())
}
