//! `stoa status --memory`: what the memory of nodes is used for, by group, and how far partitions are from their limits.

use std::collections::BTreeMap;

use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use serde_json::{Value, json};
use stoa_protocol::NodeId;
use stoa_protocol::message::{MemoryUse, NodeMemory, PartitionMemory};

/// What each node said, or why it said nothing.
pub(super) type Answers = BTreeMap<NodeId, Result<NodeMemory, String>>;

const SHARED: &str = "shared by groups";
const ALL: &str = "all";

pub(super) fn text(answers: &Answers) -> String {
    let mut used = table(&[
        "node",
        "group",
        "rows",
        "tombstones",
        "keys",
        "index",
        "lanes",
        "arena",
        "dictionaries",
        "dead",
        "overhead",
        "MiB",
        "bytes a row",
    ]);
    let mut limits = table(&["node", "logical MiB", "fullest partition", "its MiB", "of", "used"]);
    for (node, answer) in answers {
        let memory = match answer {
            Ok(memory) => memory,
            Err(error) => {
                used.add_row([node.to_string(), error.clone()]);
                continue;
            }
        };
        for group in &memory.groups {
            used.add_row(line(*node, &group.name, &group.used));
        }
        used.add_row(line(*node, SHARED, &memory.shared));
        used.add_row(line(*node, ALL, &all(memory)));
        let logical = mib(memory.partitions.iter().map(|partition| partition.logical_bytes).sum());
        let mut limit = vec![node.to_string(), logical];
        if let Some(fullest) = fullest(memory) {
            limit.extend([fullest.partition.to_string(), mib(fullest.logical_bytes)]);
            limit.extend(match fullest.logical_bytes_max {
                Some(max) => [mib(max), format!("{:.1} %", share(fullest) * 100.0)],
                None => ["no limit".into(), String::new()],
            });
        }
        limits.add_row(limit);
    }
    format!("memory in MiB\n{used}\nlogical bytes, which writes are limited by\n{limits}")
}

/// What one node said, for the object of that node.
pub(super) fn json(answer: &Result<NodeMemory, String>) -> Value {
    let memory = match answer {
        Ok(memory) => memory,
        Err(error) => return json!({ "error": error }),
    };
    let groups = memory.groups.iter().map(|group| {
        let mut value = of(&group.used);
        value["group"] = group.group.0.into();
        value["name"] = group.name.clone().into();
        value
    });
    let partitions = memory.partitions.iter().map(|partition| {
        json!({
            "partition": partition.partition.0, "total": partition.total,
            "logical_bytes": partition.logical_bytes, "logical_bytes_max": partition.logical_bytes_max,
        })
    });
    json!({
        "all": of(&all(memory)), "shared": of(&memory.shared), "groups": groups.collect::<Vec<_>>(),
        "partitions": partitions.collect::<Vec<_>>(),
    })
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(header.iter().copied());
    table
}

fn line(node: NodeId, name: &str, used: &MemoryUse) -> Vec<String> {
    let mut line = vec![node.to_string(), name.to_owned(), used.rows.to_string(), used.tombstones.to_string()];
    let parts = [used.keys, used.index, used.lanes, used.arena, used.dictionaries, used.dead, used.overhead];
    line.extend(parts.into_iter().chain([used.total]).map(mib));
    line.push(bytes_a_row(used).map_or_else(String::new, |bytes| format!("{bytes:.0}")));
    line
}

fn of(used: &MemoryUse) -> Value {
    let MemoryUse { rows, tombstones, keys, index, lanes, arena, dictionaries, dead, overhead, total, logical_bytes } =
        used;
    json!({
        "rows": rows, "tombstones": tombstones, "keys": keys, "index": index, "lanes": lanes, "arena": arena,
        "dictionaries": dictionaries, "dead": dead, "overhead": overhead, "total": total,
        "logical_bytes": logical_bytes, "bytes_a_row": bytes_a_row(used),
    })
}

fn all(memory: &NodeMemory) -> MemoryUse {
    let parts = memory.groups.iter().map(|group| &group.used).chain([&memory.shared]);
    parts.fold(MemoryUse::default(), |sum, part| MemoryUse {
        rows: sum.rows + part.rows,
        tombstones: sum.tombstones + part.tombstones,
        keys: sum.keys + part.keys,
        index: sum.index + part.index,
        lanes: sum.lanes + part.lanes,
        arena: sum.arena + part.arena,
        dictionaries: sum.dictionaries + part.dictionaries,
        dead: sum.dead + part.dead,
        overhead: sum.overhead + part.overhead,
        total: sum.total + part.total,
        logical_bytes: sum.logical_bytes + part.logical_bytes,
    })
}

fn bytes_a_row(used: &MemoryUse) -> Option<f64> {
    (used.rows > 0).then(|| used.total as f64 / used.rows as f64)
}

/// The partition that is nearest to its limit.
fn fullest(memory: &NodeMemory) -> Option<&PartitionMemory> {
    memory.partitions.iter().max_by(|a, b| share(a).total_cmp(&share(b)))
}

fn share(partition: &PartitionMemory) -> f64 {
    partition.logical_bytes_max.map_or(0.0, |max| partition.logical_bytes as f64 / max.max(1) as f64)
}

fn mib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use stoa_protocol::message::GroupMemory;
    use stoa_protocol::{FeatureGroupId, PartitionId};

    use super::*;

    fn answers() -> Answers {
        let used = MemoryUse {
            rows: 4,
            lanes: 1 << 20,
            dead: 1 << 19,
            total: 3 << 19,
            logical_bytes: 3 << 20,
            ..MemoryUse::default()
        };
        let partition = |id, logical_bytes| PartitionMemory {
            partition: PartitionId(id),
            total: 1,
            logical_bytes,
            logical_bytes_max: Some(4 << 20),
        };
        let memory = NodeMemory {
            groups: vec![GroupMemory { group: FeatureGroupId(7), name: "shop/units@1".into(), used }],
            shared: MemoryUse { overhead: 1 << 20, total: 1 << 20, ..MemoryUse::default() },
            partitions: vec![partition(2, 1 << 20), partition(3, 2 << 20)],
        };
        BTreeMap::from([(NodeId(1), Ok(memory)), (NodeId(2), Err("there is no request of kind 13".into()))])
    }

    #[test]
    fn every_group_has_a_line_and_the_fullest_partition_its_share_of_the_limit() {
        let text = text(&answers());
        let columns = |of: &str| -> Vec<String> {
            let line = text.lines().find(|line| line.contains(of)).unwrap_or_else(|| panic!("{of}: {text}"));
            line.split(['│', '┆', '|']).map(|cell| cell.trim().to_owned()).filter(|cell| !cell.is_empty()).collect()
        };
        let units = ["1", "shop/units@1", "4", "0", "0.0", "0.0", "1.0", "0.0", "0.0", "0.5", "0.0", "1.5", "393216"];
        assert_eq!(columns("shop/units@1"), units);
        let all = ["1", "all", "4", "0", "0.0", "0.0", "1.0", "0.0", "0.0", "0.5", "1.0", "2.5", "655360"];
        assert_eq!(columns(" all "), all);
        assert_eq!(columns("50.0 %"), ["1", "3.0", "3", "2.0", "4.0", "50.0 %"]);
        assert_eq!(columns("kind 13"), ["2", "there is no request of kind 13"]);
    }

    #[test]
    fn json_has_the_parts_and_their_sum() {
        let answers = answers();
        let value = json(&answers[&NodeId(1)]);
        assert_eq!(value["all"]["total"], 5 << 19);
        assert_eq!(value["groups"][0]["name"], "shop/units@1");
        assert_eq!(value["groups"][0]["bytes_a_row"], 393_216.0);
        assert_eq!(value["partitions"][1]["logical_bytes_max"], 4 << 20);
        assert_eq!(json(&answers[&NodeId(2)])["error"], "there is no request of kind 13");
    }
}
