//! When whole nodes cut their logs.

use std::sync::Arc;

use super::cluster::Cluster;
use crate::node::upkeep::FirstCatchUp;

#[tokio::test]
async fn there_is_no_budget_while_replicas_catch_up_after_a_start() {
    let mut cluster = Cluster::formed(1, 3).await;
    let budget = cluster.options(1).replay_log_bytes;
    for node in 1..=3 {
        cluster.stop(node).await;
    }
    // Alone it finds nobody to catch up with.
    let node = cluster.start(1).await;
    let mut first = FirstCatchUp::of(&Arc::downgrade(&node));
    assert_eq!(node.replay_budget(&mut first), u64::MAX);
    for other in 2..=3 {
        cluster.start(other).await;
    }
    cluster.settle().await;
    assert_eq!(node.replay_budget(&mut first), budget);
}
