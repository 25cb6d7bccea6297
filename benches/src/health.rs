//! Whether a cluster is whole again: every partition has a leader, and every replica has what is committed.

#![allow(clippy::disallowed_methods)] // a measurement is in true time

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use stoa_protocol::message::ReplicaStatus;
use stoa_protocol::{NodeId, PartitionId};

use crate::fixture::{BenchClient, Fixture};

/// How long one node may take to say how it is.
const STATUS_LIMIT: Duration = Duration::from_secs(1);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);
/// Entries that a replica may be behind under load.
const BEHIND_MAX: u64 = 64;

/// How far a replica may be behind what is committed, in entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behind {
    /// Not at all: nobody writes.
    Nothing,
    /// A little: writes go on.
    ALittle,
}

/// Waits until all nodes answer and all replicas are well, while writes may go on.
///
/// # Errors
/// If they are not within `limit`; the text says what is wrong.
pub async fn wait_until_healthy(fixture: &Fixture, limit: Duration) -> anyhow::Result<()> {
    wait_until(fixture, Behind::ALittle, limit).await
}

/// Waits until all nodes answer and all replicas are well, and behind by no more than this.
///
/// # Errors
/// If they are not within `limit`; the text says what is wrong.
pub async fn wait_until(fixture: &Fixture, behind: Behind, limit: Duration) -> anyhow::Result<()> {
    let client = fixture.client("").await;
    let start = Instant::now();
    let mut client = client.ok();
    loop {
        let why = match &client {
            Some(client) => match trouble(fixture, client, behind).await {
                None => return Ok(()),
                Some(why) => why,
            },
            None => {
                client = fixture.client("").await.ok();
                "no node answers".to_owned()
            }
        };
        anyhow::ensure!(start.elapsed() < limit, "the cluster was not whole within {limit:?}: {why}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// The leaders of all partitions, as the nodes say.
pub async fn leaders(fixture: &Fixture, client: &BenchClient) -> BTreeMap<PartitionId, NodeId> {
    let mut best: BTreeMap<PartitionId, (u64, NodeId)> = BTreeMap::new();
    for node in fixture.cluster.nodes() {
        let Ok(status) = client.status(NodeId(node), STATUS_LIMIT).await else { continue };
        for replica in status.replicas {
            if let Some(leader) = replica.leader {
                let known = best.entry(replica.partition).or_insert((replica.term, leader));
                *known = (*known).max((replica.term, leader));
            }
        }
    }
    best.into_iter().map(|(partition, (_, leader))| (partition, leader)).collect()
}

async fn trouble(fixture: &Fixture, client: &BenchClient, allowed: Behind) -> Option<String> {
    let mut replicas: BTreeMap<PartitionId, Vec<ReplicaStatus>> = BTreeMap::new();
    for node in fixture.cluster.nodes() {
        match client.status(NodeId(node), STATUS_LIMIT).await {
            Err(error) => return Some(format!("node {node}: {error}")),
            Ok(status) => {
                for replica in status.replicas {
                    if !replica.trouble.is_empty() {
                        return Some(format!("node {node}, partition {}: {}", replica.partition, replica.trouble));
                    }
                    replicas.entry(replica.partition).or_default().push(replica);
                }
            }
        }
    }
    let allowed = if allowed == Behind::Nothing { 0 } else { BEHIND_MAX };
    replicas.iter().find_map(|(partition, of)| behind(*partition, of, allowed))
}

fn behind(partition: PartitionId, of: &[ReplicaStatus], allowed: u64) -> Option<String> {
    let leader = of[0].leader;
    if leader.is_none() || of.iter().any(|replica| replica.leader != leader) {
        return Some(format!("partition {partition} has no leader that all know"));
    }
    let committed = of.iter().map(|replica| replica.committed.0).max().unwrap_or(0);
    let slow = of.iter().find(|replica| replica.applied.0 + allowed < committed)?;
    Some(format!("a replica of partition {partition} has applied {} of {committed}", slow.applied.0))
}
