//! What a cluster holds: digests of all replicas, leaders, files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use stoa::local_cluster::LocalCluster;
use stoa::node::CLUSTER_VERSION;
use stoa_client::Client;
use stoa_env::QuicTransport;
use stoa_protocol::message::DigestAnswer;
use stoa_protocol::{FeatureGroupId, NodeId, PartitionId};

use crate::wait::until;

/// Under this number a replica gives the digest of all that is not rows.
const STATE_DIGEST_ID: FeatureGroupId = FeatureGroupId(0);
/// How long one node may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// What every replica of a partition holds: the digest of each group, and the number of rows.
pub type Digests = BTreeMap<PartitionId, (Vec<(FeatureGroupId, u128)>, u64)>;

/// The partitions of the cluster.
pub fn partitions(client: &Client<QuicTransport>) -> BTreeSet<PartitionId> {
    client.map().sets.iter().flat_map(|set| &set.partitions).map(|partition| partition.id).collect()
}

/// What the digests say of rows alone: without writer sessions, definitions and partition time.
pub fn of_rows(digests: &Digests) -> Digests {
    let mut rows = digests.clone();
    rows.values_mut().for_each(|(groups, _)| groups.retain(|(id, _)| *id != STATE_DIGEST_ID));
    rows
}

/// Waits until all replicas of every partition have equal digests at equal places of their logs.
pub async fn equal_digests(client: &Client<QuicTransport>) -> anyhow::Result<Digests> {
    let all: BTreeSet<NodeId> = client.map().nodes.iter().map(|node| node.id).collect();
    equal_digests_of(client, &all).await
}

/// The same, of the replicas on some nodes.
pub async fn equal_digests_of(client: &Client<QuicTransport>, nodes: &BTreeSet<NodeId>) -> anyhow::Result<Digests> {
    let mut out = Digests::new();
    for partition in partitions(client) {
        let digest = until("equal digests", async || equal(client, partition, nodes).await).await?;
        out.insert(partition, (digest.groups, digest.rows));
    }
    Ok(out)
}

async fn equal(
    client: &Client<QuicTransport>,
    partition: PartitionId,
    nodes: &BTreeSet<NodeId>,
) -> anyhow::Result<DigestAnswer> {
    let map = client.map();
    let replicas = map.partition(partition).context("the map has lost a partition")?.replicas.clone();
    let mut first: Option<(NodeId, DigestAnswer)> = None;
    for replica in replicas.iter().filter(|replica| nodes.contains(&replica.node)) {
        let digest = client.digest(replica.node, partition, ANSWER_LIMIT).await?;
        match &first {
            None => first = Some((replica.node, digest)),
            Some((node, other)) => {
                let there = replica.node;
                ensure!(*other == digest, "partition {partition}: node {node} has {other:?}, node {there} {digest:?}");
            }
        }
    }
    first.map(|(_, digest)| digest).context("no replica was asked")
}

/// Rows of all partitions.
pub fn rows(digests: &Digests) -> u64 {
    digests.values().map(|(_, rows)| rows).sum()
}

/// The node that leads a partition by its own account, with the highest term.
pub async fn leader(client: &Client<QuicTransport>, partition: PartitionId) -> anyhow::Result<u64> {
    until("a leader", async || {
        let mut found: Option<(u64, NodeId)> = None;
        for node in &client.map().nodes {
            let Ok(status) = client.status(node.id, ANSWER_LIMIT).await else { continue };
            let led = status.replicas.iter().find(|r| r.partition == partition && r.leader == Some(node.id));
            found = found.max(led.map(|replica| (replica.term, node.id)));
        }
        found.map(|(_, node)| node.0).with_context(|| format!("partition {partition} has no leader"))
    })
    .await
}

/// The highest term of each partition, of all nodes.
pub async fn terms(client: &Client<QuicTransport>) -> anyhow::Result<BTreeMap<PartitionId, u64>> {
    let mut terms = BTreeMap::new();
    for node in &client.map().nodes {
        for replica in client.status(node.id, ANSWER_LIMIT).await?.replicas {
            let term = terms.entry(replica.partition).or_insert(0);
            *term = replica.term.max(*term);
        }
    }
    Ok(terms)
}

/// Waits until a node serves all its replicas: one of each partition, and of the root group.
pub async fn serves(cluster: &LocalCluster, client: &Client<QuicTransport>, node: u64) -> anyhow::Result<()> {
    let addr = cluster.addr(node)?;
    let wanted = partitions(client).len() + 1;
    until("a node that serves", async || {
        let status = client.status_at(addr, ANSWER_LIMIT).await?;
        let trouble: Vec<_> = status.replicas.iter().filter(|replica| !replica.trouble.is_empty()).collect();
        ensure!(trouble.is_empty(), "replicas of node {node} do not serve: {trouble:?}");
        ensure!(status.replicas.len() == wanted, "node {node} has {} replicas of {wanted}", status.replicas.len());
        Ok(())
    })
    .await
}

/// Waits until every node knows that the cluster is at the version that this program speaks: a cluster begins at the first
/// one, and is raised once all nodes have joined.
pub async fn raised(client: &Client<QuicTransport>) -> anyhow::Result<()> {
    until("a cluster at this program's version", async || {
        for node in client.map().nodes.iter().map(|node| node.id) {
            let at = client.status(node, ANSWER_LIMIT).await?.cluster_version;
            ensure!(at == CLUSTER_VERSION, "node {node} is at cluster version {at}, not {CLUSTER_VERSION}");
        }
        Ok(())
    })
    .await
}

/// The paths of all files in the data directories of all nodes, but for those that nodes which run write now and then.
pub fn files(cluster: &LocalCluster) -> anyhow::Result<BTreeSet<PathBuf>> {
    let mut out = BTreeSet::new();
    for node in cluster.nodes() {
        let lasts = |path: &PathBuf| {
            path.file_name().is_none_or(|name| name != "witness") && path.extension().is_none_or(|end| end != "new")
        };
        out.extend(files_in(&cluster.data_dir(node))?.into_iter().filter(lasts));
    }
    Ok(out)
}

/// The paths of all files in a directory and those below it; none if there is no such directory.
pub fn files_in(dir: &Path) -> anyhow::Result<BTreeSet<PathBuf>> {
    let mut out = BTreeSet::new();
    if !dir.exists() {
        return Ok(out);
    }
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        match path.is_dir() {
            true => out.extend(files_in(&path)?),
            false => {
                out.insert(path);
            }
        }
    }
    Ok(out)
}
