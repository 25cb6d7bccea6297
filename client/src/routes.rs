//! The map from one client's point of view: which replica of each partition it would rather ask.

use std::collections::BTreeMap;
use std::sync::Arc;

use stoa_env::Peer;
use stoa_protocol::{ClusterMap, NodeId, PartitionId};

/// A replica to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The node that hosts it.
    pub node: NodeId,
    /// Its zone, numbered within these routes; 0 is the client's own.
    pub zone: u16,
}

/// A map, and each partition's replicas in the order in which this client asks them. Worked out once a map.
#[derive(Debug, Clone)]
pub struct Routes {
    map: Arc<ClusterMap>,
    partitions: BTreeMap<PartitionId, Vec<Route>>,
    zones: BTreeMap<NodeId, u16>,
}

impl Routes {
    /// Routes of a client in `zone`. Replicas of the own zone come first, then those of the other zones, whose order
    /// `salt` decides: equal within a client, so that its requests stay few, different between clients, so that the
    /// load of a lost zone spreads.
    pub fn new(map: ClusterMap, zone: &str, salt: u64) -> Self {
        let mut others: Vec<&str> = map.nodes.iter().map(|node| node.zone.as_str()).filter(|z| *z != zone).collect();
        others.sort_unstable();
        others.dedup();
        let turn = (salt % others.len().max(1) as u64) as usize;
        others.rotate_left(turn);
        let number = |of: &str| others.iter().position(|z| *z == of).map_or(0, |at| at as u16 + 1);
        let zones: BTreeMap<NodeId, u16> = map.nodes.iter().map(|node| (node.id, number(&node.zone))).collect();
        let mut partitions = BTreeMap::new();
        for partition in map.sets.iter().flat_map(|set| &set.partitions) {
            let known = partition
                .replicas
                .iter()
                .filter_map(|replica| zones.get(&replica.node).map(|zone| Route { node: replica.node, zone: *zone }));
            let mut routes: Vec<Route> = known.collect();
            routes.sort_by_key(|route| (route.zone, route.node));
            partitions.insert(partition.id, routes);
        }
        Self { map: Arc::new(map), partitions, zones }
    }

    /// The map.
    pub fn map(&self) -> &Arc<ClusterMap> {
        &self.map
    }

    /// The replicas of a partition, nearest first; empty if the map does not have it.
    pub fn of(&self, partition: PartitionId) -> &[Route] {
        self.partitions.get(&partition).map_or(&[], Vec::as_slice)
    }

    /// All nodes, nearest first.
    pub fn nodes(&self) -> Vec<NodeId> {
        let mut nodes: Vec<NodeId> = self.zones.keys().copied().collect();
        nodes.sort_by_key(|node| (self.zones[node], *node));
        nodes
    }

    /// Where a node listens.
    pub fn peer(&self, node: NodeId) -> Option<Peer> {
        self.map.node(node).map(|info| Peer { addr: info.addr, node: Some(node.0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::split::tests::map_of;

    #[test]
    fn the_own_zone_comes_first_and_clients_differ_in_the_rest() {
        for (zone, first) in [("a", 1), ("b", 2), ("c", 3)] {
            let routes = Routes::new(map_of(4), zone, 0);
            assert_eq!(routes.of(PartitionId(2))[0], Route { node: NodeId(first), zone: 0 });
            assert_eq!(routes.nodes()[0], NodeId(first));
        }
        let order = |salt| Routes::new(map_of(4), "a", salt).of(PartitionId(3))[1].node;
        assert_ne!(order(0), order(1));
        assert_eq!(Routes::new(map_of(4), "nowhere", 0).of(PartitionId(2)).len(), 3);
        assert_eq!(Routes::new(map_of(4), "a", 0).of(PartitionId(99)), []);
    }
}
