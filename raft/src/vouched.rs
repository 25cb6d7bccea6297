//! Which nodes vouch for this one's data directory. A directory may have come back as an old image of itself, and then its
//! replicas have forgotten votes and entries that they answered for. No replica can see that in its own files; others have
//! seen how far they reached. So until a node has said that it has seen no more than what is there, no message of Raft goes
//! to it or is taken from it: neither can be one of a quorum with the other's help.

use std::collections::BTreeSet;
use std::sync::{Arc, RwLock};

use stoa_protocol::NodeId;

/// The nodes that vouch for this one since it started; clones share them. At most as many as there are nodes.
#[derive(Debug, Clone, Default)]
pub struct Vouched(Arc<RwLock<BTreeSet<NodeId>>>);

impl Vouched {
    /// A node vouches; true if it did not before.
    pub fn add(&self, node: NodeId) -> bool {
        self.0.write().unwrap_or_else(|e| e.into_inner()).insert(node)
    }

    /// Whether a node vouches.
    pub fn by(&self, node: NodeId) -> bool {
        self.0.read().unwrap_or_else(|e| e.into_inner()).contains(&node)
    }

    /// How many vouch.
    pub fn count(&self) -> usize {
        self.0.read().unwrap_or_else(|e| e.into_inner()).len()
    }

    /// Nobody vouches any more: the directory is old, and the node is about to end.
    pub fn withdraw(&self) {
        self.0.write().unwrap_or_else(|e| e.into_inner()).clear();
    }
}
