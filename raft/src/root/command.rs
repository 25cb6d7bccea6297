//! What may change the root group's state.

use stoa_protocol::ReplicaId;
use stoa_protocol::catalog::Definition;
use stoa_protocol::codec::{DecodeError, Reader, Wire, get_list, put_list};
use stoa_protocol::map::{NodeInfo, ReplicaInfo};
use stoa_protocol::message::{AbortMove, MoveReport, ReplaceNode, ReplaceReplica};

use super::state::{EVOLUTION_VERSION, EXPIRY_VERSION, FIRST_VERSION, MOVES_VERSION, STORAGE_VERSION};

/// A command of the root group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootCommand {
    /// The first members of the root group, as its first leader knows them.
    Form(Form),
    /// A node joins, or comes back with another address.
    Join(Join),
    /// Makes a partition set and places its replicas.
    CreateSet(CreateSet),
    /// Takes definitions into the catalog, all or none.
    Define(Definitions),
    /// Raises the version that the whole cluster speaks.
    RaiseVersion(u32),
    /// Replaces one replica.
    ReplaceReplica(ReplaceReplica),
    /// Gives up a node's data, and replaces all its replicas.
    ReplaceNode(ReplaceNode),
    /// Gives a move up.
    AbortMove(AbortMove),
    /// A step of a move is done.
    ReportMove(MoveReport),
}
stoa_protocol::wire_enum!(RootCommand {
    1 => Form(x), 2 => Join(x), 3 => CreateSet(x), 4 => Define(x), 5 => RaiseVersion(x),
    6 => ReplaceReplica(x), 7 => ReplaceNode(x), 8 => AbortMove(x), 9 => ReportMove(x),
});

impl RootCommand {
    /// The cluster version from which on it may be proposed: an earlier program cannot read it.
    pub fn version(&self) -> u32 {
        match self {
            Self::Define(Definitions { definitions }) if definitions.iter().any(Definition::has_storage) => {
                STORAGE_VERSION
            }
            Self::Define(Definitions { definitions }) if definitions.iter().any(Definition::has_more) => {
                EVOLUTION_VERSION
            }
            Self::Define(Definitions { definitions }) if definitions.iter().any(has_ttl) => EXPIRY_VERSION,
            Self::Form(_) | Self::Join(_) | Self::CreateSet(_) | Self::Define(_) | Self::RaiseVersion(_) => {
                FIRST_VERSION
            }
            Self::ReplaceReplica(_) | Self::ReplaceNode(_) | Self::AbortMove(_) | Self::ReportMove(_) => MOVES_VERSION,
        }
    }
}

fn has_ttl(definition: &Definition) -> bool {
    matches!(definition, Definition::Group(group) if group.ttl.is_some())
}

/// The root group's replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    /// One in each of three zones.
    pub replicas: Vec<ReplicaInfo>,
    /// Their nodes.
    pub nodes: Vec<NodeInfo>,
}
stoa_protocol::wire_struct!(Form { replicas: list, nodes: list });

/// A node and the versions it speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    /// The node.
    pub node: NodeInfo,
    /// The lowest cluster version it speaks.
    pub version_min: u32,
    /// The highest.
    pub version_max: u32,
}
stoa_protocol::wire_struct!(Join { node, version_min, version_max });

/// A new partition set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateSet {
    /// Its name.
    pub name: String,
    /// How many partitions it gets.
    pub partitions: u32,
    /// Random, drawn by the proposer: what the seeds of its partitions' indexes are made of.
    pub seed: u64,
}
stoa_protocol::wire_struct!(CreateSet { name, partitions, seed });

/// Definitions, by names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definitions {
    /// In the order in which they refer to each other.
    pub definitions: Vec<Definition>,
}

impl Wire for Definitions {
    fn put(&self, out: &mut Vec<u8>) {
        put_list(&self.definitions, out);
    }
    fn get(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { definitions: get_list(input, "definitions")? })
    }
}

/// The first replica id of a partition's group, of [`FIRST_REPLICAS`] that it is formed of: below every number that is issued
/// later; those of the root group are its members' incarnations.
pub const FIRST_REPLICA: ReplicaId = ReplicaId(1);

/// The replicas that a partition's group is formed of. Later ones have numbers that the root group issues; those begin
/// above, since a set and a partition have taken numbers before.
pub const FIRST_REPLICAS: u64 = 3;
