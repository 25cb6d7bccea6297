//! Where everything is: the nodes, and which replicas hold which range of key hashes. The root group makes it; nodes and
//! clients keep a copy and replace it when an answer shows them a newer version.

use std::net::SocketAddr;

use crate::codec::{DecodeError, Reader, Wire};
use crate::ids::{ClusterId, MapVersion, NodeId, PartitionId, PartitionSetId, ReplicaId};

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its number.
    pub id: NodeId,
    /// Its zone.
    pub zone: String,
    /// Where it listens.
    pub addr: SocketAddr,
    /// Drawn at random when its data directory was made: a node that comes back empty is another one.
    pub incarnation: u64,
}
crate::wire_struct!(NodeInfo { id, zone, addr, incarnation });

impl Wire for SocketAddr {
    fn put(&self, out: &mut Vec<u8>) {
        self.to_string().put(out);
    }
    fn get(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let text = String::get(input)?;
        text.parse().map_err(|_| DecodeError::invalid("an address", format!("{text:?}"), "IP:PORT"))
    }
}

/// A replica of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaInfo {
    /// Its number, never used twice.
    pub id: ReplicaId,
    /// The node that hosts it.
    pub node: NodeId,
}
crate::wire_struct!(ReplicaInfo { id, node });

/// A partition: a range of key hashes and its replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionInfo {
    /// Its number, that of its Raft group.
    pub id: PartitionId,
    /// The smallest hash of its range; the range ends before the next partition's.
    pub first_hash: u64,
    /// Its voters, one in each of three zones. The first one is where leadership should lie.
    pub replicas: Vec<ReplicaInfo>,
}
crate::wire_struct!(PartitionInfo { id, first_hash, replicas: list });

/// A partition set: partitions sorted by their first hash, the first of which is 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionSet {
    /// Its number.
    pub id: PartitionSetId,
    /// Its name.
    pub name: String,
    /// Raised by restore and unsafe recovery.
    pub incarnation: u32,
    /// Its partitions.
    pub partitions: Vec<PartitionInfo>,
}
crate::wire_struct!(PartitionSet { id, name, incarnation, partitions: list });

impl PartitionSet {
    /// The partition of a key hash; `None` if the set has no partitions yet.
    pub fn partition_of(&self, hash: u64) -> Option<&PartitionInfo> {
        let after = self.partitions.partition_point(|p| p.first_hash <= hash);
        self.partitions.get(after.checked_sub(1)?)
    }

    /// The first hash of each of `count` equal ranges.
    pub fn even_ranges(count: usize) -> impl Iterator<Item = u64> {
        (0..count as u128).map(move |at| ((at << 64) / count as u128) as u64)
    }
}

/// The whole map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterMap {
    /// The cluster.
    pub cluster: ClusterId,
    /// Rises with every change.
    pub version: MapVersion,
    /// All nodes, sorted by id.
    pub nodes: Vec<NodeInfo>,
    /// The replicas of the root group.
    pub root: Vec<ReplicaInfo>,
    /// All partition sets, sorted by id.
    pub sets: Vec<PartitionSet>,
}
crate::wire_struct!(ClusterMap { cluster, version, nodes: list, root: list, sets: list });

impl ClusterMap {
    /// A node by its id.
    pub fn node(&self, id: NodeId) -> Option<&NodeInfo> {
        self.nodes.binary_search_by_key(&id, |n| n.id).ok().map(|at| &self.nodes[at])
    }

    /// A partition set by its id.
    pub fn set(&self, id: PartitionSetId) -> Option<&PartitionSet> {
        self.sets.iter().find(|s| s.id == id)
    }

    /// A partition by its id, in whatever set.
    pub fn partition(&self, id: PartitionId) -> Option<&PartitionInfo> {
        self.sets.iter().flat_map(|s| &s.partitions).find(|p| p.id == id)
    }

    /// The nodes that host replicas of the root group.
    pub fn root_nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        self.root.iter().filter_map(|r| self.node(r.node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_ranges_cover_every_hash_once() {
        for count in [1usize, 3, 16, 64] {
            let set = PartitionSet {
                id: PartitionSetId(1),
                name: "shared".into(),
                incarnation: 0,
                partitions: PartitionSet::even_ranges(count)
                    .enumerate()
                    .map(|(at, first_hash)| PartitionInfo {
                        id: PartitionId(at as u64 + 2),
                        first_hash,
                        replicas: vec![],
                    })
                    .collect(),
            };
            assert_eq!(set.partition_of(0).unwrap().id, PartitionId(2));
            assert_eq!(set.partition_of(u64::MAX).unwrap().id, PartitionId(count as u64 + 1));
            for partition in &set.partitions {
                assert_eq!(set.partition_of(partition.first_hash).unwrap().id, partition.id);
                if partition.first_hash > 0 {
                    assert_ne!(set.partition_of(partition.first_hash - 1).unwrap().id, partition.id);
                }
            }
        }
    }
}
