//! `protocol::catalog`: feature groups, views and definitions. A group that passes its check can be defined.

use stoa_protocol::catalog::{
    Definition, Entity, FeatureGroup, FeatureView, GrantDefinition, GroupDefinition, KeyColumn, ProjectDefinition,
    ViewDefinition, ViewFeature, ViewFeatureDefinition, parse_full_name,
};
use stoa_protocol::codec::check_name;
use stoa_protocol::limits::{
    DESCRIPTION_BYTES_MAX, GROUP_FEATURES_MAX, KEY_COLUMNS_MAX, ROW_FIXED_BYTES_MAX, VIEW_FEATURES_MAX,
};
use stoa_protocol::value::check_value;
use stoa_protocol::{FeatureGroupId, KeyType, LogIndex, ViewId, Width, Wire};
use stoa_store::{Command, Outcome, Partition, StoreOptions};

use super::Seed;
use crate::round_trip::canonical;
use crate::{Input, sample};

/// A byte of what it is, then its bytes.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let what = input.below(3);
    let bytes = input.rest();
    match what {
        0 => group(bytes),
        1 => view(bytes),
        _ => drop(canonical::<Definition>(bytes)),
    }
}

fn group(bytes: &[u8]) {
    let Some(group) = canonical::<FeatureGroup>(bytes) else { return };
    if let Err(error) = group.check() {
        assert!(!error.to_string().is_empty());
        return;
    }
    check_limits(&group);
    let (mut partition, _reader) = Partition::new(StoreOptions::default());
    let outcome = partition.apply(LogIndex(1), &Command::Define(group.clone()));
    assert_eq!(outcome == Outcome::Defined, group.id != FeatureGroupId(0), "{outcome:?}");
    partition.check();
}

fn check_limits(group: &FeatureGroup) {
    assert!((1..=GROUP_FEATURES_MAX).contains(&group.features.len()));
    assert!((1..=KEY_COLUMNS_MAX).contains(&group.entity.keys.len()));
    assert!((1..=group.entity.keys.len()).contains(&usize::from(group.entity.partition_by)));
    assert!(group.description.len() <= DESCRIPTION_BYTES_MAX && group.late_horizon_us >= 0);
    let width = |width| if let Width::Fixed(bytes) = width { bytes } else { 8 };
    assert!(group.features.iter().map(|feature| width(feature.ty.width())).sum::<usize>() <= ROW_FIXED_BYTES_MAX);
    let parts = (group.project.clone(), group.name.clone(), group.version);
    assert_eq!(parse_full_name("a group", &group.full_name()), Ok(parts));
    let keys = || group.entity.keys.iter().map(|key| key.name.as_str());
    let names = || group.features.iter().flat_map(|feature| feature.names()).chain(keys());
    assert!(names().all(|name| check_name("a name", name).is_ok()));
    for (place, feature) in (0..).zip(&group.features) {
        let found = (!feature.dropped).then_some(place);
        assert!(feature.names().all(|name| group.feature(name) == found));
        assert_eq!(feature.type_at(group.schema_version), feature.ty);
        assert!(feature.default.as_ref().is_none_or(|bytes| check_value(feature.ty, bytes).is_ok()));
        let Some(storage) = feature.storage else { continue };
        assert!(storage.check_type(feature.ty).is_ok() && feature.earlier.is_empty());
        assert!(width(feature.stored_width()) < width(feature.ty.width()));
        // What is read of a default is what is read of it once it has been written.
        let read = feature.default_as_read();
        assert!(read.as_ref().is_none_or(|bytes| storage.check(bytes).is_ok() && storage.as_read(bytes) == *bytes));
    }
}

fn view(bytes: &[u8]) {
    let Some(view) = canonical::<FeatureView>(bytes) else { return };
    if view.check().is_ok() {
        assert!((1..=VIEW_FEATURES_MAX).contains(&view.features.len()));
        assert!(view.features.iter().all(|feature| check_name("a name", &feature.name).is_ok()));
    }
}

/// One definition of each kind.
pub(super) fn definitions() -> Vec<Definition> {
    let product = sample::product();
    let entity = Entity { name: "product".into(), ..product.entity };
    let project = |name: &str| ProjectDefinition { name: name.into(), description: "a team".into() };
    let group = GroupDefinition {
        project: "crm".into(),
        name: "sales".into(),
        version: 1,
        entity: "product".into(),
        event_time: Some("day".into()),
        ttl: None,
        late_horizon_us: 5,
        features: product.features,
        description: String::new(),
    };
    let grant = GrantDefinition {
        project: "crm".into(),
        group: "sales".into(),
        version: 1,
        features: vec!["units".into()],
        to: "shop".into(),
    };
    let feature = ViewFeatureDefinition {
        project: "crm".into(),
        group: "sales".into(),
        version: 1,
        feature: "units".into(),
        alias: Some("sold".into()),
    };
    let view = ViewDefinition {
        project: "shop".into(),
        name: "rank".into(),
        version: 1,
        entities: vec!["product".into()],
        features: vec![feature],
        description: String::new(),
    };
    vec![
        Definition::Project(project("crm")),
        Definition::Project(project("shop")),
        Definition::Entity(entity),
        Definition::Group(group),
        Definition::Grant(grant),
        Definition::View(view),
    ]
}

/// Groups, a view, and definitions.
pub fn seeds() -> Vec<Seed> {
    let seed = |what: u8, bytes: Vec<u8>| [&[what][..], &bytes].concat();
    let view = FeatureView {
        id: ViewId(4),
        project: "shop".into(),
        name: "rank".into(),
        version: 1,
        keys: vec![KeyColumn { name: "id".into(), ty: KeyType::Int64 }],
        features: vec![ViewFeature { name: "units".into(), group: FeatureGroupId(7), feature: 0 }],
        description: "what to show".into(),
    };
    let mut seeds = vec![
        ("product", seed(0, sample::product().to_bytes())),
        ("visitor", seed(0, sample::visitor().to_bytes())),
        ("view", seed(1, view.to_bytes())),
    ];
    let names = ["project", "other_project", "entity", "group", "grant", "view_definition"];
    seeds.extend(names.into_iter().zip(definitions().iter().map(|definition| seed(2, definition.to_bytes()))));
    seeds
}
