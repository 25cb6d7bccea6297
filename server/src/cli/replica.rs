//! `stoa replica`: replicas that are damaged or lost are replaced.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use stoa_client::Client;
use stoa_env::{Clock, QuicTransport, RealClock};
use stoa_protocol::message::{AbortMove, MoveInfo, MoveStage, ReplaceNode, ReplaceReplica};
use stoa_protocol::{ClusterMap, NodeId, PartitionId, ROOT_PARTITION};

use super::{Connect, say};

const DEADLINE: Duration = Duration::from_secs(10);
/// Between two looks at a move.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// Replaces replicas.
#[derive(Debug, Subcommand)]
pub enum ReplicaCommand {
    /// Replace the replica of one partition on a node, or all replicas of a node whose data is gone.
    Replace(ReplaceCommand),
    /// Give up a move that has not begun to change voters.
    Abort(AbortCommand),
}

/// Without --partition the node's data is given up: all its replicas are built anew by the data directory that the node
/// has now, or that it comes back with. Without --to a replica gives its data up once the other two of its partition
/// have all of it; with one of them down that waits until it is back.
#[derive(Debug, Args)]
pub struct ReplaceCommand {
    /// The partition.
    #[arg(long)]
    partition: Option<u64>,
    /// The node that has the replica.
    #[arg(long)]
    node: u64,
    /// The node that gets the new one, in the same zone; the replica's own node, where it is built anew, unless given.
    #[arg(long, requires = "partition")]
    to: Option<u64>,
    /// Wait until all is done, so many seconds.
    #[arg(long)]
    wait: Option<u64>,
    #[command(flatten)]
    connect: Connect,
}

/// Gives a move up.
#[derive(Debug, Args)]
pub struct AbortCommand {
    /// The partition.
    #[arg(long)]
    partition: u64,
    #[command(flatten)]
    connect: Connect,
}

impl ReplicaCommand {
    /// Runs the command.
    pub async fn run(self) -> anyhow::Result<u8> {
        match self {
            Self::Replace(command) => command.run().await,
            Self::Abort(command) => command.run().await,
        }
    }
}

impl ReplaceCommand {
    async fn run(self) -> anyhow::Result<u8> {
        let client = self.connect.client().await?;
        let node = NodeId(self.node);
        let map = newest_map(&client).await?;
        let answer = match self.partition {
            Some(partition) => {
                let asked = replica_of(&map, PartitionId(partition), node)?;
                let to = self.to.map_or(node, NodeId);
                client.replace_replica(ReplaceReplica { to, ..asked }, DEADLINE).await?
            }
            None => {
                let known = map.node(node).with_context(|| format!("there is no node {node}"))?;
                client.replace_node(ReplaceNode { node, incarnation: known.incarnation }, DEADLINE).await?
            }
        };
        for moved in &answer.moves {
            say(&describe(moved))?;
        }
        match self.wait {
            Some(seconds) => wait(&client, self.partition, node, Duration::from_secs(seconds)).await,
            None => Ok(0),
        }
    }
}

impl AbortCommand {
    async fn run(self) -> anyhow::Result<u8> {
        let client = self.connect.client().await?;
        let partition = PartitionId(self.partition);
        let moves = newest_moves(&client).await?;
        let Some(moved) = moves.iter().find(|moved| moved.partition == partition) else {
            bail!("no move of partition {partition} is under way");
        };
        client.abort_move(AbortMove { partition, replica: moved.to.id }, DEADLINE).await?;
        say(&format!("partition {partition}: the move to node {} is given up", moved.to.node))?;
        Ok(0)
    }
}

fn replica_of(map: &ClusterMap, partition: PartitionId, node: NodeId) -> anyhow::Result<ReplaceReplica> {
    if partition == ROOT_PARTITION {
        bail!("a replica of the root group is built anew with its whole node: leave --partition out");
    }
    let info = map.partition(partition).with_context(|| format!("there is no partition {partition}"))?;
    let replica = info.replicas.iter().find(|replica| replica.node == node);
    let nodes: Vec<String> = info.replicas.iter().map(|replica| replica.node.to_string()).collect();
    let replica = replica.with_context(|| {
        format!("partition {partition} has no replica on node {node}; it is on {}", nodes.join(", "))
    })?;
    Ok(ReplaceReplica { partition, replica: replica.id, to: node })
}

/// The map of the node that has the newest one: what is named by numbers of an old map would be refused.
async fn newest_map(client: &Client<QuicTransport>) -> anyhow::Result<ClusterMap> {
    let mut newest = ClusterMap::clone(&client.map());
    for node in newest.nodes.clone() {
        if let Ok(map) = client.fetch_map(node.id, DEADLINE / 5).await
            && map.version > newest.version
        {
            newest = map;
        }
    }
    Ok(newest)
}

async fn newest_moves(client: &Client<QuicTransport>) -> anyhow::Result<Vec<MoveInfo>> {
    let mut newest = None;
    for node in &client.map().nodes {
        if let Ok(status) = client.status(node.id, DEADLINE / 5).await {
            let version = status.map_version;
            if newest.as_ref().is_none_or(|(known, _)| *known < version) {
                newest = Some((version, status.moves));
            }
        }
    }
    newest.map(|(_, moves)| moves).context("no node answers")
}

/// Waits until no move is left of the partition, or of the node.
async fn wait(
    client: &Client<QuicTransport>,
    partition: Option<u64>,
    node: NodeId,
    limit: Duration,
) -> anyhow::Result<u8> {
    let start = RealClock.boot();
    loop {
        let moves = newest_moves(client).await?;
        let ours = |moved: &&MoveInfo| match partition {
            Some(partition) => moved.partition == PartitionId(partition),
            None => moved.to.node == node || moved.from.node == node,
        };
        let left: Vec<&MoveInfo> = moves.iter().filter(ours).collect();
        // The data directory counts too: the root group's move begins when the node is back.
        let map = newest_map(client).await?;
        let back = partition.is_some() || map.node(node).is_some_and(|known| known.incarnation != 0);
        if left.is_empty() && back {
            say("done")?;
            return Ok(0);
        }
        if RealClock.boot().since(start) > limit {
            for moved in left {
                say(&describe(moved))?;
            }
            say(&format!("not done within {limit:?}; it goes on by itself"))?;
            return Ok(1);
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

fn describe(moved: &MoveInfo) -> String {
    let [partition, replica, from, to, stage] = row_of(moved);
    format!("partition {partition}: replica {replica}, node {from} to node {to}: {stage}")
}

/// A move as a line of a table: partition, replicas, nodes, stage.
pub fn row_of(moved: &MoveInfo) -> [String; 5] {
    let partition = match moved.partition {
        ROOT_PARTITION => "root".into(),
        partition => partition.to_string(),
    };
    let replica = format!("{} → {}", moved.from.id, moved.to.id);
    [partition, replica, moved.from.node.to_string(), moved.to.node.to_string(), stage(moved).into()]
}

/// A move as JSON.
pub fn json_of(moved: &MoveInfo) -> serde_json::Value {
    serde_json::json!({
        "partition": moved.partition.0, "stage": stage(moved),
        "from": {"replica": moved.from.id.0, "node": moved.from.node.0},
        "to": {"replica": moved.to.id.0, "node": moved.to.node.0},
    })
}

fn stage(moved: &MoveInfo) -> &'static str {
    match moved.stage {
        MoveStage::Adding => "catching up",
        MoveStage::Switching => "changing voters",
    }
}
