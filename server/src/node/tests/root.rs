//! A node and the root group: its replica of it, and its copy of the state.

use stoa_protocol::catalog::{Definition, ProjectDefinition};
use stoa_protocol::{ErrorCode, ROOT_PARTITION};
use stoa_raft::root::RootCommand;
use stoa_raft::root::command::Definitions;

use super::cluster::{Cluster, until};
use crate::node::NODE_CALL_LIMIT;

/// Defines a project at the root leader, whichever of the running nodes that is.
async fn define(cluster: &Cluster, nodes: &[u64], name: &str) -> u64 {
    let project = ProjectDefinition { name: name.into(), description: String::new() };
    let definitions = vec![Definition::Project(project)];
    for _ in 0..1_000 {
        for node in nodes {
            let command = RootCommand::Define(Definitions { definitions: definitions.clone() });
            let node = cluster.node(*node);
            match node.propose_to_root(command, NODE_CALL_LIMIT).await {
                Ok(_) => {
                    let root = node.root_replica().unwrap();
                    until("the leader's own copy", || node.state().projects.iter().any(|p| p.name == name)).await;
                    assert_eq!(root.partition(), ROOT_PARTITION);
                    return node.map_version().0;
                }
                Err(error) => assert_ne!(error.code, ErrorCode::Conflict, "{error}"),
            }
        }
        tokio::time::sleep(crate::node::LOOP_PAUSE).await;
    }
    panic!("nobody takes a definition");
}

#[tokio::test]
async fn a_root_node_that_is_cut_off_holds_nobody_back() {
    let cluster = Cluster::formed(1, 4).await;
    // Node 4 is of node 1's zone, so it asks node 1 first; and that hears nothing new any more.
    cluster.net.cut(1, 2);
    cluster.net.cut(1, 3);
    for round in 0..3 {
        let version = define(&cluster, &[2, 3], &format!("p{round}")).await;
        until("node 4 has heard of it", || cluster.node(4).map_version().0 >= version).await;
        assert!(cluster.node(1).map_version().0 < version, "node 1 is cut off");
    }
}

#[tokio::test]
async fn a_node_whose_root_replica_is_out_serves_its_partitions_and_follows_the_others() {
    let mut cluster = Cluster::formed(2, 3).await;
    cluster.stop(3).await;
    let snapshot = cluster.dir(3).join("snapshots").join(ROOT_PARTITION.to_string()).join("900000-1-1");
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::write(snapshot.join("manifest"), "damaged").unwrap();
    let node = cluster.start(3).await;
    cluster.settle().await;
    assert!(node.root_replica().is_none());
    let status = node.status();
    let root: Vec<_> = status.replicas.iter().filter(|replica| replica.partition == ROOT_PARTITION).collect();
    assert!(root.len() == 1 && root[0].trouble.contains("damaged"), "{root:?}");
    let version = define(&cluster, &[1, 2], "later").await;
    until("node 3 has heard of it", || node.map_version().0 >= version).await;
    assert!(node.fatal.borrow().is_none());
}
