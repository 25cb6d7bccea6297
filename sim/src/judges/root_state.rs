//! Equal root states at equal versions: whoever has a version of the cluster's state, by its own replica of the root group
//! or by a copy of it, has the same one.

use std::collections::BTreeMap;

use stoa_protocol::codec::Wire;
use stoa_raft::root::RootState;
use xxhash_rust::xxh3::xxh3_64;

/// The states seen so far.
#[derive(Debug, Default)]
pub struct RootStates {
    by_version: BTreeMap<u64, (u64, u64)>,
    /// What each node had last, so that a state is looked at once.
    last: BTreeMap<u64, u64>,
    /// States that were compared with another node's.
    pub compared: u64,
}

impl RootStates {
    /// Node `node` has this state.
    pub fn judge(&mut self, node: u64, state: &RootState) -> Option<String> {
        let version = state.map.version.0;
        if self.last.insert(node, version) == Some(version) {
            return None;
        }
        let hash = xxh3_64(&state.to_bytes());
        let (other, known) = *self.by_version.entry(version).or_insert((node, hash));
        self.compared += u64::from(other != node);
        (known != hash).then(|| format!("version {version} of the root state differs between nodes {other} and {node}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stoa_protocol::ClusterId;

    #[test]
    fn states_that_differ_at_one_version_are_seen() {
        let mut states = RootStates::default();
        let mut one = RootState::new(ClusterId(1));
        one.raise_version();
        let mut other = one.clone();
        assert_eq!(states.judge(1, &one), None);
        assert_eq!(states.judge(2, &other), None);
        other.next_id += 1;
        assert!(states.judge(3, &other).is_some());
        other.raise_version();
        assert_eq!(states.judge(3, &other), None);
        assert_eq!(states.compared, 2);
    }
}
