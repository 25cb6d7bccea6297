//! `stoa status`: nodes, zones, partitions, leaders, lag; what memory is used for is in [`super::memory`].

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use stoa_protocol::ids::ROOT_PARTITION;
use stoa_protocol::message::{MoveInfo, NodeStatus, ReplicaStatus};
use stoa_protocol::{ClusterMap, NodeId, PartitionId};

use super::{Connect, memory, say};

const STATUS_DEADLINE: Duration = Duration::from_secs(2);

/// Asks every node of the map how it is.
#[derive(Debug, Args)]
pub struct StatusCommand {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Say what memory is used for, too: of each node and group, and how far partitions are from their limits.
    #[arg(long)]
    memory: bool,
    #[command(flatten)]
    connect: Connect,
}

impl StatusCommand {
    /// Runs the command; exit status 1 if a node does not answer or a replica is in trouble.
    pub async fn run(self) -> anyhow::Result<u8> {
        let client = self.connect.client().await?;
        let map = client.map();
        let mut nodes: BTreeMap<NodeId, Result<NodeStatus, String>> = BTreeMap::new();
        for node in &map.nodes {
            let status = client.status(node.id, STATUS_DEADLINE).await.map_err(|error| error.to_string());
            nodes.insert(node.id, status);
        }
        let mut memory = memory::Answers::new();
        for node in map.nodes.iter().filter(|_| self.memory) {
            let answer = client.memory(node.id, STATUS_DEADLINE).await.map_err(|error| error.to_string());
            memory.insert(node.id, answer);
        }
        match (self.json, self.memory) {
            (true, _) => say(&json(&map, &nodes, &memory).to_string())?,
            (false, false) => say(&text(&map, &nodes))?,
            (false, true) => say(&format!("{}\n{}", text(&map, &nodes), memory::text(&memory)))?,
        }
        let healthy = nodes.values().all(|s| s.as_ref().is_ok_and(|s| s.replicas.iter().all(|r| r.trouble.is_empty())))
            && memory.values().all(Result::is_ok);
        Ok(u8::from(!healthy))
    }
}

fn text(map: &ClusterMap, nodes: &BTreeMap<NodeId, Result<NodeStatus, String>>) -> String {
    let title = format!(
        "cluster {}, map version {}, {} partitions",
        map.cluster,
        map.version,
        map.sets.iter().map(|s| s.partitions.len()).sum::<usize>()
    );
    let mut table = Table::new();
    table
        .load_style(UTF8_FULL_CONDENSED)
        .set_header(["node", "zone", "address", "replicas", "leads", "rows", "MiB", "state"]);
    for info in &map.nodes {
        let mut line = vec![info.id.to_string(), info.zone.clone(), info.addr.to_string()];
        match &nodes[&info.id] {
            Ok(status) => {
                let leads = status.replicas.iter().filter(|r| r.leader == Some(info.id)).count();
                let rows: u64 = status.replicas.iter().map(|r| r.rows).sum();
                let bytes: u64 = status.replicas.iter().map(|r| r.bytes).sum();
                let trouble = status.replicas.iter().filter(|r| !r.trouble.is_empty()).count();
                line.extend([status.replicas.len().to_string(), leads.to_string(), rows.to_string()]);
                line.push(format!("{:.1}", bytes as f64 / f64::from(1 << 20)));
                line.push(if trouble == 0 { "serves".into() } else { format!("{trouble} replicas in trouble") });
            }
            Err(error) => line.extend([String::new(), String::new(), String::new(), String::new(), error.clone()]),
        }
        table.add_row(line);
    }
    let of_nodes = table.to_string();
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header([
        "partition",
        "leader",
        "term",
        "committed",
        "replicas: node, lag, trouble",
    ]);
    for (partition, replicas) in by_partition(nodes) {
        let committed = replicas.iter().map(|(_, r)| r.committed).max().unwrap_or_default();
        let newest = replicas.iter().max_by_key(|(_, r)| r.term);
        let leader = newest.and_then(|(_, r)| r.leader).map_or("none".into(), |node| node.to_string());
        let each = replicas.iter().map(|(node, r)| {
            let lag = committed.0.saturating_sub(r.applied.0);
            let trouble = if r.trouble.is_empty() { String::new() } else { format!(" ({})", r.trouble) };
            format!("{node}: {lag}{trouble}")
        });
        let name = if partition == ROOT_PARTITION { "root".into() } else { partition.to_string() };
        let term = newest.map_or(0, |(_, r)| r.term).to_string();
        table.add_row([name, leader, term, committed.to_string(), each.collect::<Vec<_>>().join(", ")]);
    }
    let mut text = format!("{title}\n{of_nodes}\n{table}");
    let moves = moves(nodes);
    if !moves.is_empty() {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED).set_header([
            "moving partition",
            "replica",
            "from node",
            "to node",
            "stage",
        ]);
        for moved in moves {
            table.add_row(super::replica::row_of(&moved));
        }
        text = format!("{text}\n{table}");
    }
    text
}

/// The moves that are under way, by the node whose map is the newest.
fn moves(nodes: &BTreeMap<NodeId, Result<NodeStatus, String>>) -> Vec<MoveInfo> {
    let newest = nodes.values().filter_map(|status| status.as_ref().ok()).max_by_key(|status| status.map_version);
    newest.map(|status| status.moves.clone()).unwrap_or_default()
}

fn by_partition(
    nodes: &BTreeMap<NodeId, Result<NodeStatus, String>>,
) -> BTreeMap<PartitionId, Vec<(NodeId, ReplicaStatus)>> {
    let mut out: BTreeMap<PartitionId, Vec<_>> = BTreeMap::new();
    for (node, status) in nodes.iter().filter_map(|(node, status)| Some((*node, status.as_ref().ok()?))) {
        for replica in &status.replicas {
            out.entry(replica.partition).or_default().push((node, replica.clone()));
        }
    }
    out
}

fn json(
    map: &ClusterMap,
    nodes: &BTreeMap<NodeId, Result<NodeStatus, String>>,
    memory: &memory::Answers,
) -> serde_json::Value {
    let moves = moves(nodes);
    let nodes = map.nodes.iter().map(|info| {
        let mut value = serde_json::json!({
            "node": info.id.0, "zone": info.zone, "address": info.addr.to_string(),
        });
        match &nodes[&info.id] {
            Ok(status) => {
                value["build"] = status.build.clone().into();
                value["cluster_version"] = status.cluster_version.into();
                value["replicas"] = status
                    .replicas
                    .iter()
                    .map(|r| {
                        serde_json::json!({
                            "partition": r.partition.0, "leader": r.leader.map(|n| n.0), "term": r.term, "last": r.last.0,
                            "committed": r.committed.0, "applied": r.applied.0, "rows": r.rows, "bytes": r.bytes,
                            "trouble": r.trouble,
                        })
                    })
                    .collect();
            }
            Err(error) => value["error"] = error.clone().into(),
        }
        if let Some(answer) = memory.get(&info.id) {
            value["memory"] = memory::json(answer);
        }
        value
    });
    serde_json::json!({
        "cluster": map.cluster.to_string(), "map_version": map.version.0, "nodes": nodes.collect::<Vec<_>>(),
        "moves": moves.iter().map(super::replica::json_of).collect::<Vec<_>>(),
    })
}
