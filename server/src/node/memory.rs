//! What a node's memory is used for, by group.

use std::collections::BTreeMap;

use stoa_env::{Disk, Transport};
use stoa_protocol::FeatureGroupId;
use stoa_protocol::message::{GroupMemory, MemoryUse, NodeMemory, PartitionMemory};
use stoa_store::MemoryReport;

use super::Node;

impl<D: Disk, T: Transport> Node<D, T> {
    /// What this node's memory is used for: the rows of each group over all replicas, and what groups share.
    pub fn memory(&self) -> NodeMemory {
        let mut groups: BTreeMap<FeatureGroupId, (String, MemoryReport)> = BTreeMap::new();
        let mut shared = MemoryReport::default();
        let mut partitions = Vec::new();
        for hosted in self.all_hosted() {
            let reader = hosted.view.reader();
            let (whole, by_group) = reader.memory_by_group();
            shared.add(&whole);
            for (id, used) in by_group {
                shared.subtract(&used);
                let name = || hosted.view.definition(id).map_or_else(String::new, |group| group.full_name());
                groups.entry(id).or_insert_with(|| (name(), MemoryReport::default())).1.add(&used);
            }
            partitions.push(PartitionMemory {
                partition: hosted.replica.partition(),
                total: whole.total,
                logical_bytes: whole.logical_bytes,
                logical_bytes_max: reader.logical_bytes_max(),
            });
        }
        partitions.sort_unstable_by_key(|memory| memory.partition);
        let groups = groups.into_iter().map(|(group, (name, used))| GroupMemory { group, name, used: used_of(&used) });
        NodeMemory { groups: groups.collect(), shared: used_of(&shared), partitions }
    }
}

fn used_of(report: &MemoryReport) -> MemoryUse {
    let MemoryReport { rows, tombstones, keys, index, lanes, arena, dictionaries, .. } = *report;
    let MemoryReport { dead, overhead, total, logical_bytes, .. } = *report;
    MemoryUse { rows, tombstones, keys, index, lanes, arena, dictionaries, dead, overhead, total, logical_bytes }
}
