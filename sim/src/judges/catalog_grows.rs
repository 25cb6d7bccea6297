//! What a node has of the catalog only grows, for as long as it runs: groups keep their numbers, places and features, and
//! get new ones at the end with a higher schema version; views stay as they are. A schema version of a group is one list
//! of features, on whatever node.

use std::collections::BTreeMap;

use stoa_protocol::catalog::{Feature, FeatureView};
use stoa_protocol::{FeatureGroup, FeatureGroupId};
use stoa_raft::root::RootState;

/// The catalogs seen so far.
#[derive(Debug, Default)]
pub struct Catalogs {
    features: BTreeMap<(FeatureGroupId, u32), Vec<Feature>>,
    /// What each node had last, in which of its lives and at which version.
    last: BTreeMap<u64, Last>,
}

#[derive(Debug)]
struct Last {
    life: u64,
    version: u64,
    groups: Vec<FeatureGroup>,
    views: Vec<FeatureView>,
}

impl Catalogs {
    /// Node `node` has this state in one of its lives.
    pub fn judge(&mut self, node: u64, life: u64, state: &RootState) -> Option<String> {
        let version = state.map.version.0;
        let before = self.last.get(&node).filter(|last| last.life == life);
        if before.is_some_and(|last| last.version == version) {
            return None;
        }
        let groups: Vec<FeatureGroup> = state.groups.iter().map(|(_, group)| group.clone()).collect();
        let views: Vec<FeatureView> = state.views.iter().map(|(_, view)| view.clone()).collect();
        let mut broken = before.and_then(|last| last.shrunk(version, &groups, &views));
        for group in &groups {
            let known = self.features.entry((group.id, group.schema_version)).or_insert_with(|| group.features.clone());
            if *known != group.features {
                let (name, schema) = (group.full_name(), group.schema_version);
                broken.get_or_insert(format!("schema {schema} of {name} has other features than elsewhere"));
            }
        }
        self.last.insert(node, Last { life, version, groups, views });
        broken.map(|what| format!("node {node}, version {version}: {what}"))
    }
}

impl Last {
    fn shrunk(&self, version: u64, groups: &[FeatureGroup], views: &[FeatureView]) -> Option<String> {
        if version < self.version {
            return Some(format!("it had version {} already", self.version));
        }
        let grew = |old: &&FeatureGroup| {
            groups.iter().any(|new| {
                let same = (new.id, new.full_name()) == (old.id, old.full_name());
                let more = (new.schema_version, new.features.len()) > (old.schema_version, old.features.len())
                    || new.features == old.features;
                same && more && new.features.starts_with(&old.features) && new.schema_version >= old.schema_version
            })
        };
        let group = self.groups.iter().find(|old| !grew(old)).map(|old| format!("it had {old:?}"));
        let view = self.views.iter().find(|old| !views.contains(old)).map(|old| format!("it had {old:?}"));
        group.or(view)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stoa_protocol::catalog::GroupDefinition;
    use stoa_protocol::{ClusterId, FeatureType, KeyType};

    fn state(features: &[&str], schema_version: u32) -> RootState {
        let features: Vec<_> = features.iter().map(|name| (*name, FeatureType::Int64)).collect();
        let mut group = FeatureGroup::simple(1, "g", &[("id", KeyType::Int64)], &features);
        group.schema_version = schema_version;
        let definition = GroupDefinition {
            project: group.project.clone(),
            name: group.name.clone(),
            version: group.version,
            entity: group.entity.name.clone(),
            event_time: None,
            ttl: None,
            late_horizon_us: 0,
            features: group.features.clone(),
            description: String::new(),
        };
        let mut state = RootState::new(ClusterId(1));
        (0..schema_version).for_each(|_| state.raise_version());
        state.groups.push((definition, group));
        state
    }

    #[test]
    fn what_is_taken_away_or_exchanged_is_seen_and_what_is_appended_is_not() {
        let mut catalogs = Catalogs::default();
        assert_eq!(catalogs.judge(1, 1, &state(&["a"], 1)), None);
        assert_eq!(catalogs.judge(1, 1, &state(&["a", "b"], 2)), None);
        assert!(catalogs.judge(1, 1, &state(&["b", "a", "c"], 3)).is_some(), "exchanged");
        assert!(catalogs.judge(1, 1, &state(&["a", "b"], 2)).is_some(), "back to an earlier version");
        assert!(catalogs.judge(2, 1, &state(&["a", "c"], 2)).is_some(), "another schema of the same version");
        assert_eq!(catalogs.judge(3, 1, &state(&["a", "b"], 2)), None);
        assert_eq!(catalogs.judge(3, 2, &state(&["a"], 1)), None, "another life, which has to catch up");
        let mut gone = state(&[], 5);
        gone.groups.clear();
        assert!(catalogs.judge(3, 2, &gone).is_some());
    }
}
