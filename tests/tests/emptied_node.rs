//! A node whose data directory was emptied has forgotten what it promised: it must not come back as itself, and says so.
//! One command has it built anew.

use anyhow::ensure;
use stoa::local_cluster::ZONES;
use stoa_protocol::NodeId;
use stoa_tests::command::run;
use stoa_tests::items::{define, read, rows, writer};
use stoa_tests::replicas::{equal_digests, equal_digests_of, of_rows, serves};
use stoa_tests::start;
use stoa_tests::wait::until;

const PARTITIONS: u64 = 4;
const ITEMS: std::ops::Range<i64> = 0..100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_its_data_serves_nothing_and_is_built_anew_by_one_command() -> anyhow::Result<()> {
    let mut cluster = start("emptied_node", env!("CARGO_BIN_EXE_stoa-under-test"), PARTITIONS).await?;
    let client = cluster.client(ZONES[0]).await?;
    define(&client).await?;
    for batch in writer(&client).await?.write_rows(&rows(ITEMS, 1)).await? {
        batch.result?;
    }
    let mut before = equal_digests(&client).await?;
    // Any of them: the one that forms the cluster, and the two others.
    for (place, node) in cluster.nodes().into_iter().enumerate() {
        let (kept, dir) = (cluster.dir().join("kept"), cluster.data_dir(node));
        cluster.kill(&[node]).await?;
        std::fs::rename(&dir, &kept)?;
        let said_before = cluster.log(node)?.len();
        cluster.start_node(node)?;
        let what_to_do = format!("stoa replica replace --node {node}");
        until("a node that says what to do", async || {
            let said = cluster.log(node)?.split_off(said_before);
            ensure!(said.contains("its data is gone") && said.contains(&what_to_do), "it said: {said}");
            Ok(())
        })
        .await?;
        let status = run(&cluster, &["status"]).await?;
        ensure!(status.code == Some(1) && status.out.contains("in trouble"), "{}", status.out);
        let others = cluster.nodes().into_iter().filter(|other| *other != node).map(NodeId).collect();
        ensure!(equal_digests_of(&client, &others).await? == before, "the others have changed");
        if place == 0 {
            // With its data it may come back.
            cluster.kill(&[node]).await?;
            std::fs::remove_dir_all(&dir)?;
            std::fs::rename(&kept, &dir)?;
            cluster.start_node(node)?;
            ensure!(equal_digests(&client).await? == before, "node {node} came back with something else");
            serves(&cluster, &client, node).await?;
            continue;
        }
        let name = node.to_string();
        let done = run(&cluster, &["replica", "replace", "--node", &name, "--wait", "50"]).await?.succeeded()?;
        ensure!(done.out.contains("done"), "{}", done.out);
        serves(&cluster, &client, node).await?;
        let after = equal_digests(&client).await?;
        ensure!(of_rows(&after) == of_rows(&before), "node {node} was built of something else");
        before = after;
        until("a cluster that is well", async || run(&cluster, &["status"]).await?.succeeded()).await?;
        std::fs::remove_dir_all(&kept)?;
    }
    let found = read(&client, &ITEMS.collect::<Vec<_>>(), None).await?;
    ensure!(found.values().all(|units| *units == 1), "{found:?}");
    // A replica of a partition on its own node, and requests that cannot be carried out.
    let done = run(&cluster, &["replica", "replace", "--partition", "3", "--node", "1", "--wait", "50"]).await?;
    ensure!(done.succeeded()?.out.contains("done"));
    for (args, words) in [
        (&["--partition", "3", "--node", "1", "--to", "2"][..], "zone"),
        (&["--partition", "99", "--node", "1"], "there is no partition 99"),
        (&["--partition", "1", "--node", "1"], "leave --partition out"),
        (&["--node", "9"], "there is no node 9"),
    ] {
        let refused = run(&cluster, &[&["replica", "replace"], args].concat()).await?;
        ensure!(refused.code == Some(1) && refused.err.contains(words), "{args:?}: {}", refused.err);
    }
    ensure!(of_rows(&equal_digests(&client).await?) == of_rows(&before), "the replica was built of something else");
    Ok(())
}
