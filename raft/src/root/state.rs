//! The root group's state, deterministic in its commands.

use std::collections::BTreeSet;

use stoa_protocol::catalog::{
    Entity, FeatureGroup, FeatureView, GrantDefinition, GroupDefinition, ProjectDefinition, ViewDefinition,
};
use stoa_protocol::codec::{DecodeError, Reader, Wire, check_name, get_list, put_list};
use stoa_protocol::limits::{NODES_MAX, SET_PARTITIONS_MAX};
use stoa_protocol::map::{NodeInfo, PartitionInfo, PartitionSet, ReplicaInfo};
use stoa_protocol::message::{ApplyAnswer, MoveInfo};
use stoa_protocol::{
    ClusterId, ClusterMap, ErrorBody, ErrorCode, MapVersion, NodeId, PartitionId, PartitionSetId, ROOT_PARTITION,
    ReplicaId,
};

use super::command::{CreateSet, FIRST_REPLICA, FIRST_REPLICAS, Form, Join, RootCommand};
use super::moves::NO_INCARNATION;
use super::refuse;

/// The version of the state's bytes.
const FORMAT: u16 = 2;
/// Bytes of this version have no moves.
const FORMAT_WITHOUT_MOVES: u16 = 1;
/// The cluster version that every cluster begins with.
pub const FIRST_VERSION: u32 = 1;
/// From this cluster version on replicas move: commands and state have moves.
pub const MOVES_VERSION: u32 = 2;
/// From this cluster version on rows expire: definitions may have a time to live, and the logs of partitions stamps and
/// sweeps.
pub const EXPIRY_VERSION: u32 = 3;
/// From this cluster version on schemas change by more than features at the end of a group: features have defaults, aliases
/// and earlier types, and are dropped.
pub const EVOLUTION_VERSION: u32 = 3;
/// From this cluster version on leaders may be asked to confirm that they lead by their next heartbeat.
pub const HEARTBEAT_VERSION: u32 = 4;
/// From this cluster version on features may have a storage.
pub const STORAGE_VERSION: u32 = 4;
/// The cluster versions that this program speaks, the lowest and the highest.
pub const SPOKEN_VERSIONS: (u32, u32) = (FIRST_VERSION, STORAGE_VERSION);
/// Zones that a cluster has at the most: three hold voters, the others may hold learners later.
pub const ZONES_MAX: usize = 16;
/// Nodes that a refusal names.
const NAMED_MAX: usize = 8;

/// What the cluster knows of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootState {
    /// Nodes, root replicas, partition sets.
    pub map: ClusterMap,
    /// The version that every node speaks: commands of a later one are refused. It never falls.
    pub cluster_version: u32,
    /// The lowest and the highest version that each node speaks, in the order of the map's nodes.
    pub versions: Vec<(NodeId, (u32, u32))>,
    /// The catalog's projects.
    pub projects: Vec<ProjectDefinition>,
    /// The catalog's entities.
    pub entities: Vec<Entity>,
    /// The catalog's feature groups: what was defined, and what became of it.
    pub groups: Vec<(GroupDefinition, FeatureGroup)>,
    /// The catalog's grants.
    pub grants: Vec<GrantDefinition>,
    /// The catalog's views: what was defined, and what became of it.
    pub views: Vec<(ViewDefinition, FeatureView)>,
    /// The secret of each partition set. It is copied to nodes alone, never into the map that clients get: whoever knows
    /// it can choose keys that collide in an index.
    pub seeds: Vec<(PartitionSetId, u64)>,
    /// The next number of anything; never used twice.
    pub next_id: u64,
    /// Replicas that give their place to others, the oldest first.
    pub moves: Vec<MoveInfo>,
    /// Replicas that must never be started again, though they are voters still ([`super::moves`]).
    pub retired: Vec<(PartitionId, ReplicaId)>,
    /// Replicas that the root group had and has replaced: their data directories do not come back, or their numbers would.
    pub root_gone: Vec<ReplicaId>,
}

impl Wire for RootState {
    fn put(&self, out: &mut Vec<u8>) {
        // A program of an earlier version reads the format that it knows for as long as the cluster has it.
        let moved = !(self.moves.is_empty() && self.retired.is_empty() && self.root_gone.is_empty());
        let has_moves = moved || self.cluster_version >= MOVES_VERSION;
        (if has_moves { FORMAT } else { FORMAT_WITHOUT_MOVES }).put(out);
        self.map.put(out);
        self.cluster_version.put(out);
        put_list(&self.versions, out);
        put_list(&self.projects, out);
        put_list(&self.entities, out);
        put_list(&self.groups, out);
        put_list(&self.grants, out);
        put_list(&self.views, out);
        put_list(&self.seeds, out);
        self.next_id.put(out);
        if has_moves {
            put_list(&self.moves, out);
            put_list(&self.retired, out);
            put_list(&self.root_gone, out);
        }
    }

    fn get(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let format = u16::get(input)?;
        if format != FORMAT && format != FORMAT_WITHOUT_MOVES {
            return Err(DecodeError::invalid("the format of the root state", format, FORMAT));
        }
        let mut state = Self {
            map: Wire::get(input)?,
            cluster_version: Wire::get(input)?,
            versions: get_list(input, "versions")?,
            projects: get_list(input, "projects")?,
            entities: get_list(input, "entities")?,
            groups: get_list(input, "groups")?,
            grants: get_list(input, "grants")?,
            views: get_list(input, "views")?,
            seeds: get_list(input, "seeds")?,
            next_id: Wire::get(input)?,
            moves: vec![],
            retired: vec![],
            root_gone: vec![],
        };
        if format != FORMAT_WITHOUT_MOVES {
            state.moves = get_list(input, "moves")?;
            state.retired = get_list(input, "retired")?;
            state.root_gone = get_list(input, "replicas that are gone")?;
        }
        Ok(state)
    }
}

impl RootState {
    /// A cluster that has not been formed.
    pub fn new(cluster: ClusterId) -> Self {
        Self {
            map: ClusterMap { cluster, version: MapVersion(0), nodes: vec![], root: vec![], sets: vec![] },
            cluster_version: FIRST_VERSION,
            versions: vec![],
            projects: vec![],
            entities: vec![],
            groups: vec![],
            grants: vec![],
            views: vec![],
            seeds: vec![],
            next_id: ROOT_PARTITION.0 + 1,
            moves: vec![],
            retired: vec![],
            root_gone: vec![],
        }
    }

    /// Carries a command out; on an error the state may be half changed and must be thrown away.
    pub fn apply(&mut self, command: &RootCommand) -> Result<Vec<u8>, ErrorBody> {
        self.check_version(command)?;
        match command {
            RootCommand::Form(form) => self.form(form).map(|()| Vec::new()),
            RootCommand::Join(join) => self.join(join).map(|()| Vec::new()),
            RootCommand::CreateSet(create) => self.create_set(create).map(|()| Vec::new()),
            RootCommand::Define(definitions) => {
                let (created, unchanged) = super::catalog::define(self, &definitions.definitions)?;
                let raised = MapVersion(self.map.version.0 + u64::from(created > 0));
                Ok(ApplyAnswer { version: raised, created, unchanged }.to_bytes())
            }
            RootCommand::RaiseVersion(version) => self.raise_cluster_version(*version).map(|()| Vec::new()),
            RootCommand::ReplaceReplica(asked) => self.replace_replica(asked),
            RootCommand::ReplaceNode(asked) => self.replace_node(asked),
            RootCommand::AbortMove(asked) => self.abort_move(asked),
            RootCommand::ReportMove(report) => self.report_move(report).map(|()| Vec::new()),
        }
    }

    /// Counts a change.
    pub fn raise_version(&mut self) {
        self.map.version.0 += 1;
    }

    /// Issues a number.
    pub fn issue_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    fn form(&mut self, form: &Form) -> Result<(), ErrorBody> {
        if !self.map.root.is_empty() {
            return if self.map.root == form.replicas {
                Ok(())
            } else {
                refuse(ErrorCode::Conflict, "the cluster has been formed with other members")
            };
        }
        self.map.root = form.replicas.clone();
        for node in &form.nodes {
            // What each really speaks it says when it joins.
            self.put_node(node, (FIRST_VERSION, FIRST_VERSION))?;
        }
        Ok(())
    }

    fn join(&mut self, join: &Join) -> Result<(), ErrorBody> {
        let speaks = join.version_min..=join.version_max;
        if !speaks.contains(&self.cluster_version) {
            let message = format!(
                "node {} speaks cluster versions {} to {}, and the cluster is at {}",
                join.node.id, join.version_min, join.version_max, self.cluster_version
            );
            return refuse(ErrorCode::WrongVersion, message);
        }
        let versions = (join.version_min, join.version_max);
        if self.may_speak_for(&join.node) && self.spoken_by(join.node.id) != Some(versions) {
            // It is refused for its data as soon as it asks again. But the program that runs there is the one that speaks for
            // the node from now on: if that did not count, nobody could raise the cluster to where such nodes are replaced.
            // Whoever proposes it has made sure that no process runs on the data that the cluster knows.
            self.versions.iter_mut().filter(|(id, _)| *id == join.node.id).for_each(|(_, spoken)| *spoken = versions);
            return Ok(());
        }
        if let Some(other) = self.root_member_of(&join.node) {
            let message = format!(
                "the data directory {:016x} of node {} is a copy of that of node {other}: empty it first",
                join.node.incarnation, join.node.id
            );
            return refuse(ErrorCode::WrongIdentity, message);
        }
        self.put_node(&join.node, versions)?;
        self.settle_root();
        Ok(())
    }

    /// The other node whose replica of the root group has the number that this node's would have, or is to have it, if this node
    /// has one: data directories draw their numbers at random, so one of the two is a copy.
    fn root_member_of(&self, node: &NodeInfo) -> Option<NodeId> {
        let coming = self.move_of(ROOT_PARTITION).map(|moved| moved.to);
        let mut others = self.map.root.iter().copied().chain(coming).filter(|replica| replica.node != node.id);
        let is_member = self.map.root.iter().any(|replica| replica.node == node.id);
        others.find(|replica| is_member && replica.id.0 == node.incarnation).map(|replica| replica.node)
    }

    /// Whether it is refused for its data directory and nothing else, and could be had built anew.
    fn may_speak_for(&self, node: &NodeInfo) -> bool {
        let same_zone = self.map.node(node.id).is_some_and(|known| known.zone == node.zone);
        same_zone && self.has_other_data(node) && !self.root_gone.contains(&ReplicaId(node.incarnation))
    }

    /// Whether the node is known with another data directory.
    pub fn has_other_data(&self, node: &NodeInfo) -> bool {
        let known = self.map.node(node.id).map(|known| known.incarnation);
        known.is_some_and(|known| ![node.incarnation, NO_INCARNATION].contains(&known))
    }

    fn put_node(&mut self, node: &NodeInfo, versions: (u32, u32)) -> Result<(), ErrorBody> {
        if let Err(error) = check_name("the name of a zone", &node.zone) {
            return refuse(ErrorCode::BadRequest, error.to_string());
        }
        if let Some(other) = self.map.nodes.iter().find(|other| other.addr == node.addr && other.id != node.id) {
            let message = format!("{} is the address of node {}", node.addr, other.id);
            return refuse(ErrorCode::Conflict, message);
        }
        let has_other_data = self.has_other_data(node);
        match self.map.nodes.binary_search_by_key(&node.id, |n| n.id) {
            Ok(at) => {
                let known = &mut self.map.nodes[at];
                if has_other_data {
                    let message = format!(
                        "node {} is known with the data directory {:016x}, and this one is {:016x}: a node whose data is \
                         gone does not come back as itself; bring its data directory back, or have it built anew \
                         (stoa replica replace --node {})",
                        node.id, known.incarnation, node.incarnation, node.id
                    );
                    return refuse(ErrorCode::WrongIdentity, message);
                }
                if self.root_gone.contains(&ReplicaId(node.incarnation)) {
                    let message = format!(
                        "the data directory {:016x} of node {} was replaced by another one: empty it first",
                        node.incarnation, node.id
                    );
                    return refuse(ErrorCode::WrongIdentity, message);
                }
                if known.zone != node.zone {
                    let message = format!(
                        "node {} is in zone {}, and says it is in {}: a node does not change its zone",
                        node.id, known.zone, node.zone
                    );
                    return refuse(ErrorCode::Conflict, message);
                }
                known.addr = node.addr;
                known.incarnation = node.incarnation;
                self.versions[at].1 = versions;
            }
            Err(at) => {
                if self.map.nodes.len() >= NODES_MAX {
                    return refuse(ErrorCode::TooLarge, format!("a cluster has up to {NODES_MAX} nodes"));
                }
                self.map.nodes.insert(at, node.clone());
                self.versions.insert(at, (node.id, versions));
            }
        }
        if self.zones().len() > ZONES_MAX {
            return refuse(ErrorCode::TooLarge, format!("a cluster has up to {ZONES_MAX} zones"));
        }
        Ok(())
    }

    fn create_set(&mut self, create: &CreateSet) -> Result<(), ErrorBody> {
        if let Err(error) = check_name("the name of a partition set", &create.name) {
            return refuse(ErrorCode::BadRequest, error.to_string());
        }
        if self.map.sets.iter().any(|set| set.name == create.name) {
            return Ok(());
        }
        let count = create.partitions as usize;
        if count == 0 || count > SET_PARTITIONS_MAX {
            let message = format!("{count} partitions; a set has 1 to {SET_PARTITIONS_MAX}");
            return refuse(ErrorCode::BadRequest, message);
        }
        let zones = self.zones();
        if zones.len() < 3 {
            let message = format!("nodes have joined in {} zones, and a partition needs 3", zones.len());
            return refuse(ErrorCode::NotFormed, message);
        }
        let id = PartitionSetId(self.issue_id());
        let mut partitions = Vec::with_capacity(count);
        for (at, first_hash) in PartitionSet::even_ranges(count).enumerate() {
            let partition = PartitionId(self.issue_id());
            partitions.push(PartitionInfo { id: partition, first_hash, replicas: self.place(at, &zones) });
        }
        self.seeds.push((id, create.seed));
        self.map.sets.push(PartitionSet { id, name: create.name.clone(), incarnation: 0, partitions });
        Ok(())
    }

    /// Replicas of the partition at place `at`: one in each of three zones, nodes of a zone in turn, and the zone that
    /// should lead in turn.
    fn place(&self, at: usize, zones: &[String]) -> Vec<ReplicaInfo> {
        let mut replicas: Vec<ReplicaInfo> = Vec::with_capacity(3);
        for zone in 0..FIRST_REPLICAS as usize {
            let zone = &zones[(at + zone) % 3];
            let nodes: Vec<NodeId> = self.map.nodes.iter().filter(|n| n.zone == *zone).map(|n| n.id).collect();
            let node = nodes[(at / 3) % nodes.len()];
            replicas.push(ReplicaInfo { id: ReplicaId(FIRST_REPLICA.0 + replicas.len() as u64), node });
        }
        replicas
    }

    /// Refuses a command that belongs to a later version than the cluster's. Asked before it is proposed as well: nodes that do
    /// not speak that version could not read it in their logs. What is allowed once stays so.
    pub fn check_version(&self, command: &RootCommand) -> Result<(), ErrorBody> {
        let needed = command.version();
        if needed <= self.cluster_version {
            return Ok(());
        }
        let behind = self.versions.iter().filter(|(_, (_, high))| *high < needed);
        let behind: Vec<String> =
            behind.take(NAMED_MAX).map(|(node, (_, high))| format!("{node} (up to {high})")).collect();
        let until = match behind.is_empty() {
            true => "every node speaks that, and it will be raised in a moment".to_owned(),
            false => format!("it is raised once these nodes speak that as well: {}", behind.join(", ")),
        };
        let message =
            format!("this needs cluster version {needed}, and the cluster is at {}; {until}", self.cluster_version);
        refuse(ErrorCode::WrongVersion, message)
    }

    /// The lowest and the highest cluster version that a node has said it speaks.
    pub fn spoken_by(&self, node: NodeId) -> Option<(u32, u32)> {
        self.versions.iter().find(|(id, _)| *id == node).map(|(_, spoken)| *spoken)
    }

    /// The version that the cluster may be raised to: the highest that every node speaks, if that is above the present one.
    pub fn version_ahead(&self) -> Option<u32> {
        let common = self.versions.iter().map(|(_, (_, high))| *high).min()?;
        (common > self.cluster_version).then_some(common)
    }

    fn raise_cluster_version(&mut self, version: u32) -> Result<(), ErrorBody> {
        if let Some((node, (low, high))) =
            self.versions.iter().find(|(_, (low, high))| !(*low..=*high).contains(&version))
        {
            let message = format!("node {node} speaks versions {low} to {high}, not {version}");
            return refuse(ErrorCode::Conflict, message);
        }
        if version < self.cluster_version {
            let message = format!("the cluster is at version {}, above {version}", self.cluster_version);
            return refuse(ErrorCode::Conflict, message);
        }
        self.cluster_version = version;
        Ok(())
    }

    /// The seed of a partition's index: equal on all its replicas, and of another partition's it says nothing.
    pub fn index_seed(&self, partition: PartitionId) -> Option<u64> {
        let set = self.map.sets.iter().find(|set| set.partitions.iter().any(|p| p.id == partition))?;
        let (_, seed) = self.seeds.iter().find(|(id, _)| *id == set.id)?;
        Some(xxhash_rust::xxh3::xxh3_64_with_seed(&partition.0.to_le_bytes(), *seed))
    }

    /// The zones in which nodes have joined, sorted.
    pub fn zones(&self) -> Vec<String> {
        let zones: BTreeSet<&String> = self.map.nodes.iter().map(|node| &node.zone).collect();
        zones.into_iter().cloned().collect()
    }

    /// All invariants of the state.
    pub fn check(&self) {
        assert!(self.map.nodes.windows(2).all(|pair| pair[0].id < pair[1].id), "nodes are sorted, each once");
        assert_eq!(self.versions.len(), self.map.nodes.len());
        assert!(self.map.sets.iter().map(|set| set.id).eq(self.seeds.iter().map(|(id, _)| *id)), "a seed for each set");
        let mut partitions = BTreeSet::from([ROOT_PARTITION]);
        for set in &self.map.sets {
            assert_eq!(set.partitions[0].first_hash, 0, "the first range begins at 0");
            assert!(set.partitions.windows(2).all(|pair| pair[0].first_hash < pair[1].first_hash));
            for partition in &set.partitions {
                assert!(partitions.insert(partition.id), "partition {} twice", partition.id);
                assert!(partition.id.0 < self.next_id, "a number that was not issued");
                let zones: BTreeSet<_> = partition
                    .replicas
                    .iter()
                    .map(|r| &self.map.node(r.node).expect("a replica lies on a known node").zone)
                    .collect();
                assert_eq!((partition.replicas.len(), zones.len()), (3, 3), "one voter in each of three zones");
            }
        }
        self.check_moves();
    }
}

#[cfg(test)]
mod tests {
    use stoa_protocol::message::AbortMove;

    use super::*;

    pub(crate) fn node(id: u64, zone: &str) -> NodeInfo {
        NodeInfo {
            id: NodeId(id),
            zone: zone.into(),
            addr: ([127, 0, 0, 1], 7_000 + id as u16).into(),
            incarnation: id,
        }
    }

    fn joined(nodes: &[(u64, &str)]) -> RootState {
        let mut state = RootState::new(ClusterId(1));
        for (id, zone) in nodes {
            state.join(&Join { node: node(*id, zone), version_min: 1, version_max: 1 }).unwrap();
        }
        state
    }

    #[test]
    fn every_partition_has_one_voter_in_each_zone_and_work_is_spread() {
        let mut state = joined(&[(1, "a"), (2, "b"), (3, "c"), (4, "a"), (5, "b"), (6, "c")]);
        state.create_set(&CreateSet { name: "shared".into(), partitions: 16, seed: 7 }).unwrap();
        state.check();
        let set = &state.map.sets[0];
        for node in 1..=6 {
            let hosted = set.partitions.iter().flat_map(|p| &p.replicas).filter(|r| r.node.0 == node).count();
            let led = set.partitions.iter().filter(|p| p.replicas[0].node.0 == node).count();
            assert!((7..=9).contains(&hosted), "node {node} hosts {hosted} of 48 replicas");
            assert!((1..=4).contains(&led), "node {node} leads {led} of 16 partitions");
        }
        assert_eq!(RootState::from_bytes(&state.to_bytes()).unwrap(), state);
    }

    #[test]
    fn the_seeds_of_indexes_follow_the_sets_secret_and_no_client_sees_it() {
        let seed = 0x5eed_5eed_5eed_5eed;
        let set = |seed| {
            let mut state = joined(&[(1, "a"), (2, "b"), (3, "c")]);
            state.create_set(&CreateSet { name: "shared".into(), partitions: 4, seed }).unwrap();
            state
        };
        let state = set(seed);
        let copy = RootState::from_bytes(&state.to_bytes()).unwrap();
        let partitions: Vec<_> = state.map.sets[0].partitions.iter().map(|p| p.id).collect();
        let seeds: BTreeSet<_> = partitions.iter().map(|p| state.index_seed(*p).unwrap()).collect();
        assert_eq!(seeds.len(), 4, "each partition has its own");
        for partition in partitions {
            assert_eq!(copy.index_seed(partition), state.index_seed(partition));
            assert_ne!(set(seed ^ 1).index_seed(partition), state.index_seed(partition));
        }
        assert_eq!(state.index_seed(PartitionId(99)), None);
        let map = state.map.to_bytes();
        assert!(!map.windows(8).any(|bytes| bytes == seed.to_le_bytes()), "the map goes to clients");
    }

    #[test]
    fn a_node_that_lost_its_data_does_not_come_back_as_itself() {
        let mut state = joined(&[(1, "a")]);
        let mut again = node(1, "a");
        again.addr = ([127, 0, 0, 1], 9_999).into();
        state.join(&Join { node: again.clone(), version_min: 1, version_max: 1 }).unwrap();
        assert_eq!(state.map.node(NodeId(1)).unwrap().addr.port(), 9_999);
        again.incarnation = 77;
        let error = state.join(&Join { node: again, version_min: 1, version_max: 1 }).unwrap_err();
        assert_eq!(error.code, ErrorCode::WrongIdentity);
        let error = state.join(&Join { node: node(1, "b"), version_min: 1, version_max: 1 }).unwrap_err();
        assert_eq!(error.code, ErrorCode::Conflict);
    }

    #[test]
    fn two_zones_are_not_enough_and_a_wrong_version_is_refused() {
        let mut state = joined(&[(1, "a"), (2, "b")]);
        let error = state.create_set(&CreateSet { name: "shared".into(), partitions: 4, seed: 7 }).unwrap_err();
        assert_eq!(error.code, ErrorCode::NotFormed);
        let error = state.join(&Join { node: node(3, "c"), version_min: 2, version_max: 3 }).unwrap_err();
        assert_eq!(error.code, ErrorCode::WrongVersion);
        assert_eq!(state.raise_cluster_version(2).unwrap_err().code, ErrorCode::Conflict);
    }

    #[test]
    fn a_command_is_taken_once_every_node_speaks_its_version_and_the_version_never_falls() {
        let mut state = joined(&[(1, "a"), (2, "b"), (3, "c")]);
        let replace = RootCommand::AbortMove(AbortMove { partition: ROOT_PARTITION, replica: ReplicaId(9) });
        let speaks = |state: &mut RootState, id, zone, high| {
            state.join(&Join { node: node(id, zone), version_min: 1, version_max: high }).unwrap();
        };
        for (id, zone) in [(1, "a"), (3, "c")] {
            speaks(&mut state, id, zone, 2);
        }
        assert_eq!((state.version_ahead(), state.spoken_by(NodeId(3))), (None, Some((1, 2))));
        let error = state.apply(&replace).unwrap_err();
        assert_eq!(error.code, ErrorCode::WrongVersion);
        assert!(error.message.contains("these nodes speak that as well: 2 (up to 1)"), "{}", error.message);
        assert_eq!(state.apply(&RootCommand::RaiseVersion(2)).unwrap_err().code, ErrorCode::Conflict);
        let bytes = state.to_bytes();
        assert_eq!(bytes[..2], FORMAT_WITHOUT_MOVES.to_le_bytes(), "node 2 reads this format alone");
        assert_eq!(RootState::from_bytes(&bytes).unwrap(), state);

        speaks(&mut state, 2, "b", 3);
        assert_eq!(state.version_ahead(), Some(2));
        state.apply(&RootCommand::RaiseVersion(2)).unwrap();
        assert_eq!((state.version_ahead(), state.cluster_version), (None, 2));
        assert_eq!(state.apply(&replace).unwrap_err().code, ErrorCode::NotFound, "taken, and there is no such move");
        assert_eq!(state.apply(&RootCommand::RaiseVersion(1)).unwrap_err().code, ErrorCode::Conflict);
        let old = Join { node: node(2, "b"), version_min: 1, version_max: 1 };
        assert_eq!(state.join(&old).unwrap_err().code, ErrorCode::WrongVersion);
        assert_eq!(RootState::from_bytes(&state.to_bytes()).unwrap(), state);
    }
}
