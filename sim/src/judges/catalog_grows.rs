//! What a node has of the catalog only grows, for as long as it runs: groups keep their numbers, places and features, and
//! get new ones at the end with a higher schema version; with one as well, features become wider, get names and are dropped.
//! Views stay as they are. A schema version of a group is one list of features, on whatever node.

use std::collections::BTreeMap;

use stoa_protocol::catalog::{Feature, FeatureView};
use stoa_protocol::{FeatureGroup, FeatureGroupId, FeatureType};
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
                let kept = new.features.len() >= old.features.len()
                    && old.features.iter().zip(&new.features).all(|(old, new)| is_kept(old, new));
                let raised = new.schema_version > old.schema_version
                    || (new.schema_version == old.schema_version && new.features == old.features);
                same && kept && raised
            })
        };
        let group = self.groups.iter().find(|old| !grew(old)).map(|old| format!("it had {old:?}"));
        let view = self.views.iter().find(|old| !views.contains(old)).map(|old| format!("it had {old:?}"));
        group.or(view)
    }
}

/// Whether a feature is still what it was to all who knew it. It may have become wider, and then remembers what it was.
fn is_kept(old: &Feature, new: &Feature) -> bool {
    use FeatureType as T;
    let widths = [T::Int8, T::Int16, T::Int32, T::Int64];
    let width = |ty| widths.iter().position(|known| *known == ty);
    let is_wider = width(old.ty).zip(width(new.ty)).is_some_and(|(old, new)| old < new)
        || (old.ty, new.ty) == (T::Float32, T::Float64);
    let remembers = new.earlier.iter().any(|earlier| earlier.ty == old.ty);
    old.name == new.name
        && old.aliases.iter().all(|alias| new.aliases.contains(alias))
        && (old.ty == new.ty || (is_wider && remembers))
        && old.storage == new.storage
        && old.default.is_some() == new.default.is_some()
        && (new.dropped || !old.dropped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use stoa_protocol::catalog::{EarlierType, GroupDefinition};
    use stoa_protocol::{ClusterId, KeyType, Storage};

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
        let changed = |schema_version, change: &dyn Fn(&mut Feature)| {
            let mut state = state(&["a", "b"], schema_version);
            state.groups[0].1.features[1].ty = FeatureType::Int32;
            change(&mut state.groups[0].1.features[1]);
            state
        };
        assert_eq!(catalogs.judge(4, 1, &changed(4, &|b| b.aliases.push("bb".into()))), None);
        let wide = |b: &mut Feature| {
            b.aliases.push("bb".into());
            b.ty = FeatureType::Int64;
            b.earlier.push(EarlierType { until: 5, ty: FeatureType::Int32 });
        };
        assert_eq!(catalogs.judge(4, 1, &changed(5, &wide)), None);
        assert!(catalogs.judge(4, 1, &changed(6, &|_| {})).is_some(), "narrow again, and one name less");
        assert_eq!(catalogs.judge(4, 2, &changed(7, &|b| b.dropped = true)), None);
        assert!(catalogs.judge(4, 2, &changed(8, &|_| {})).is_some(), "back from the dropped");
        let vector =
            |storage| move |b: &mut Feature| (b.ty, b.storage) = (FeatureType::FixedArray { items: 2 }, storage);
        assert_eq!(catalogs.judge(5, 1, &changed(9, &vector(Some(Storage::Float16)))), None);
        assert!(catalogs.judge(5, 1, &changed(10, &vector(Some(Storage::Int8Scaled)))).is_some(), "kept otherwise");
        let mut gone = state(&[], 5);
        gone.groups.clear();
        assert!(catalogs.judge(3, 2, &gone).is_some());
    }
}
