//! Definitions by names become definitions by numbers. A definition that stands already is left as it is; one that
//! contradicts what stands is refused; the schema of a group's version may change as [`stoa_protocol::evolution`] says, and its
//! rows may live for another time.

use stoa_env::planted;
use stoa_protocol::catalog::{
    Definition, Entity, Feature, FeatureGroup, FeatureView, GrantDefinition, GroupDefinition, KeyColumn,
    ProjectDefinition, ViewDefinition, ViewFeature, ViewFeatureDefinition,
};
use stoa_protocol::codec::check_name;
use stoa_protocol::evolution::evolve;
use stoa_protocol::message::ViewAnswer;
use stoa_protocol::{ErrorBody, ErrorCode, FeatureGroupId, ViewId};

use super::refuse;
use super::state::{EVOLUTION_VERSION, RootState};

/// Groups, views, entities, projects and grants that a catalog holds at the most, each: bounds the root group's state,
/// which every node copies.
pub const CATALOG_ITEMS_MAX: usize = 10_000;

/// Takes definitions in order; counts those that were new or grew, and those that stood already.
pub fn define(state: &mut RootState, definitions: &[Definition]) -> Result<(u32, u32), ErrorBody> {
    let (mut created, mut unchanged) = (0, 0);
    for definition in definitions {
        let new = match definition {
            Definition::Project(project) => define_project(state, project)?,
            Definition::Entity(entity) => define_entity(state, entity)?,
            Definition::Group(group) => define_group(state, group)?,
            Definition::Grant(grant) => define_grant(state, grant)?,
            Definition::View(view) => define_view(state, view)?,
        };
        *if new { &mut created } else { &mut unchanged } += 1;
    }
    let sizes = [state.projects.len(), state.entities.len(), state.groups.len(), state.grants.len(), state.views.len()];
    if sizes.iter().any(|&size| size > CATALOG_ITEMS_MAX) {
        return refuse(ErrorCode::TooLarge, format!("a catalog holds up to {CATALOG_ITEMS_MAX} of each kind"));
    }
    Ok((created, unchanged))
}

fn conflict<T>(what: String) -> Result<T, ErrorBody> {
    refuse(ErrorCode::Conflict, format!("{what} stands already with another definition; give it a new version or name"))
}

fn bad<T>(error: impl ToString) -> Result<T, ErrorBody> {
    refuse(ErrorCode::BadRequest, error.to_string())
}

fn define_project(state: &mut RootState, project: &ProjectDefinition) -> Result<bool, ErrorBody> {
    check_name("the name of a project", &project.name).or_else(bad)?;
    match state.projects.iter_mut().find(|known| known.name == project.name) {
        Some(known) if known == project => Ok(false),
        Some(known) => {
            known.description = project.description.clone();
            Ok(true)
        }
        None => {
            state.projects.push(project.clone());
            Ok(true)
        }
    }
}

fn define_entity(state: &mut RootState, entity: &Entity) -> Result<bool, ErrorBody> {
    entity.check().or_else(bad)?;
    match state.entities.iter().find(|known| known.name == entity.name) {
        Some(known) if known == entity => Ok(false),
        Some(_) => conflict(format!("entity {}", entity.name)),
        None => {
            state.entities.push(entity.clone());
            Ok(true)
        }
    }
}

fn need_project(state: &RootState, name: &str) -> Result<(), ErrorBody> {
    match state.projects.iter().any(|project| project.name == name) {
        true => Ok(()),
        false => refuse(ErrorCode::NotFound, format!("there is no project {name}; define it first")),
    }
}

fn need_entity<'a>(state: &'a RootState, name: &str) -> Result<&'a Entity, ErrorBody> {
    let known = || state.entities.iter().map(|e| e.name.as_str()).collect::<Vec<_>>().join(", ");
    state.entities.iter().find(|entity| entity.name == name).ok_or_else(|| {
        ErrorBody::new(ErrorCode::NotFound, format!("there is no entity {name}; the catalog has: {}", known()))
    })
}

fn define_group(state: &mut RootState, definition: &GroupDefinition) -> Result<bool, ErrorBody> {
    need_project(state, &definition.project)?;
    let entity = need_entity(state, &definition.entity)?.clone();
    let place = state.groups.iter().position(|(known, _)| {
        (&known.project, &known.name, known.version) == (&definition.project, &definition.name, definition.version)
    });
    if let Some(place) = place {
        if state.groups[place].0 == *definition {
            return Ok(false);
        }
        return grow_group(state, place, definition);
    }
    let Some(set) = state.map.sets.first().map(|set| set.id) else {
        return refuse(ErrorCode::NotFormed, "the cluster has no partitions yet");
    };
    let features = evolve(&[], &definition.features, 1).or_else(bad)?;
    let group = FeatureGroup {
        id: FeatureGroupId(state.issue_id()),
        project: definition.project.clone(),
        name: definition.name.clone(),
        version: definition.version,
        schema_version: 1,
        entity,
        set,
        event_time: definition.event_time.clone(),
        ttl: definition.ttl,
        late_horizon_us: definition.late_horizon_us,
        features,
        description: definition.description.clone(),
    };
    group.check().or_else(bad)?;
    state.groups.push((definition.clone(), group));
    Ok(true)
}

/// The schema of a group's version changes: features are added, dropped, widened, get other names; rows live for another time;
/// descriptions change.
fn grow_group(state: &mut RootState, place: usize, definition: &GroupDefinition) -> Result<bool, ErrorBody> {
    let (known, group) = &state.groups[place];
    let name = group.full_name();
    let contradicts = |why: String| {
        refuse(
            ErrorCode::Conflict,
            format!("group {name} stands already: {why}; all else is a new version of the group"),
        )
    };
    let same_rest = known.entity == definition.entity
        && known.event_time == definition.event_time
        && known.late_horizon_us == definition.late_horizon_us;
    if !same_rest {
        return contradicts("this version keeps its entity, event time and late horizon".into());
    }
    let schema_version = group.schema_version + u32::from(!planted!(GrowUnderOneVersion));
    let features = match evolve(&group.features, &definition.features, schema_version) {
        Ok(features) => features,
        Err(_) if planted!(ExchangeFeatures) => definition.features.clone(),
        Err(why) => return contradicts(why),
    };
    if features.iter().any(Feature::has_more) && state.cluster_version < EVOLUTION_VERSION {
        // Earlier programs refuse a feature of another type, and this one has to refuse what they do.
        return refuse(
            ErrorCode::WrongVersion,
            format!(
                "a type of group {name} can be widened from cluster version {EVOLUTION_VERSION} on, and the cluster is at {}",
                state.cluster_version
            ),
        );
    }
    let goes = |at: &usize| features[*at].dropped && !group.features.get(*at).is_some_and(|feature| feature.dropped);
    for at in (0..features.len()).filter(goes) {
        let reads =
            |view: &&FeatureView| view.features.iter().any(|f| (f.group, usize::from(f.feature)) == (group.id, at));
        let views: Vec<String> =
            state.views.iter().map(|(_, view)| view).filter(reads).map(FeatureView::full_name).collect();
        if !views.is_empty() {
            return contradicts(format!(
                "{} is read by views and cannot be dropped: {}",
                features[at].name,
                named(&views)
            ));
        }
    }
    let mut grown = group.clone();
    grown.features = features;
    grown.ttl = definition.ttl;
    grown.description = definition.description.clone();
    grown.schema_version = schema_version;
    grown.check().or_else(bad)?;
    state.groups[place] = (definition.clone(), grown);
    Ok(true)
}

/// Views for a message, not more than anybody reads.
fn named(views: &[String]) -> String {
    const NAMED_MAX: usize = 20;
    let first = views[..views.len().min(NAMED_MAX)].join(", ");
    match views.len().checked_sub(NAMED_MAX) {
        None | Some(0) => first,
        Some(more) => format!("{first} and {more} more"),
    }
}

fn define_grant(state: &mut RootState, grant: &GrantDefinition) -> Result<bool, ErrorBody> {
    if state.grants.contains(grant) {
        return Ok(false);
    }
    need_project(state, &grant.to)?;
    let group = find_group(state, &grant.project, &grant.group, grant.version)?;
    for name in &grant.features {
        need_feature(group, name)?;
    }
    if grant.features.is_empty() {
        return bad("a grant names at least one feature");
    }
    state.grants.push(grant.clone());
    Ok(true)
}

fn need_feature(group: &FeatureGroup, name: &str) -> Result<u16, ErrorBody> {
    group.feature(name).ok_or_else(|| {
        let known = group.live_features().map(|(_, f)| f.name.as_str()).collect::<Vec<_>>().join(", ");
        let gone = group.features.iter().any(|feature| feature.is_called(name));
        let why = if gone { format!("{name} was dropped") } else { format!("there is no feature {name}") };
        ErrorBody::new(ErrorCode::NotFound, format!("group {}: {why}; it has: {known}", group.full_name()))
    })
}

fn define_view(state: &mut RootState, definition: &ViewDefinition) -> Result<bool, ErrorBody> {
    need_project(state, &definition.project)?;
    let known = state.views.iter().find(|(known, _)| {
        (&known.project, &known.name, known.version) == (&definition.project, &definition.name, definition.version)
    });
    if let Some((known, view)) = known {
        return if known == definition { Ok(false) } else { conflict(format!("view {}", view.full_name())) };
    }
    let keys = view_keys(state, definition)?;
    let mut features = Vec::with_capacity(definition.features.len());
    for wanted in &definition.features {
        let group = find_group(state, &wanted.project, &wanted.group, wanted.version)?;
        let feature = need_feature(group, &wanted.feature)?;
        need_grant(state, definition, wanted, group)?;
        if let Some(missing) = group.entity.keys.iter().find(|key| !keys.contains(key)) {
            let message = format!(
                "view {}/{}@{} reads group {} of entity {}, whose key column {} ({}) none of the view's entities has",
                definition.project,
                definition.name,
                definition.version,
                group.full_name(),
                group.entity.name,
                missing.name,
                missing.ty
            );
            return refuse(ErrorCode::BadRequest, message);
        }
        let name = wanted.alias.clone().unwrap_or_else(|| wanted.feature.clone());
        features.push(ViewFeature { name, group: group.id, feature });
    }
    let view = FeatureView {
        id: ViewId(state.issue_id()),
        project: definition.project.clone(),
        name: definition.name.clone(),
        version: definition.version,
        keys,
        features,
        description: definition.description.clone(),
    };
    view.check().or_else(bad)?;
    state.views.push((definition.clone(), view));
    Ok(true)
}

/// The key columns of all the view's entities, equal names once.
fn view_keys(state: &RootState, definition: &ViewDefinition) -> Result<Vec<KeyColumn>, ErrorBody> {
    let mut keys: Vec<KeyColumn> = Vec::new();
    for name in &definition.entities {
        for column in &need_entity(state, name)?.keys {
            match keys.iter().find(|known| known.name == column.name) {
                Some(known) if known.ty == column.ty => {}
                Some(known) => {
                    let message = format!(
                        "key column {} is {} in one entity and {} in another",
                        column.name, known.ty, column.ty
                    );
                    return refuse(ErrorCode::BadRequest, message);
                }
                None => keys.push(column.clone()),
            }
        }
    }
    if keys.is_empty() {
        return bad("a view names at least one entity");
    }
    Ok(keys)
}

/// A grant names a feature by whatever name it had then.
fn need_grant(
    state: &RootState,
    view: &ViewDefinition,
    wanted: &ViewFeatureDefinition,
    group: &FeatureGroup,
) -> Result<(), ErrorBody> {
    let feature = group.feature(&wanted.feature);
    let granted = wanted.project == view.project
        || state.grants.iter().any(|grant| {
            grant.to == view.project
                && (&grant.project, &grant.group, grant.version) == (&wanted.project, &wanted.group, wanted.version)
                && grant.features.iter().any(|name| group.feature(name) == feature)
        });
    if granted {
        return Ok(());
    }
    let message = format!(
        "project {} may not read feature {} of {}/{}@{}: its owner has to grant it",
        view.project, wanted.feature, wanted.project, wanted.group, wanted.version
    );
    refuse(ErrorCode::Forbidden, message)
}

/// A group by its full name.
pub fn find_group<'a>(
    state: &'a RootState,
    project: &str,
    name: &str,
    version: u32,
) -> Result<&'a FeatureGroup, ErrorBody> {
    let found = state.groups.iter().map(|(_, group)| group);
    let found = found.into_iter().find(|g| g.project == project && g.name == name && g.version == version);
    found.ok_or_else(|| {
        let known = state.groups.iter().map(|(_, group)| group.full_name()).collect::<Vec<_>>().join(", ");
        let message = format!("there is no feature group {project}/{name}@{version}; the catalog has: {known}");
        ErrorBody::new(ErrorCode::NotFound, message)
    })
}

/// A view by its full name, with the groups it reads.
pub fn find_view(state: &RootState, project: &str, name: &str, version: u32) -> Result<ViewAnswer, ErrorBody> {
    let found = state.views.iter().map(|(_, view)| view);
    let found = found.into_iter().find(|v| v.project == project && v.name == name && v.version == version);
    let Some(view) = found.cloned() else {
        let known = state.views.iter().map(|(_, view)| view.full_name()).collect::<Vec<_>>().join(", ");
        let message = format!("there is no feature view {project}/{name}@{version}; the catalog has: {known}");
        return refuse(ErrorCode::NotFound, message);
    };
    let used = |id| view.features.iter().any(|feature| feature.group == id);
    let groups = state.groups.iter().map(|(_, group)| group).filter(|group| used(group.id)).cloned().collect();
    Ok(ViewAnswer { view, groups })
}

#[cfg(test)]
mod tests {
    use stoa_protocol::map::NodeInfo;
    use stoa_protocol::{ClusterId, FeatureType, KeyType, NodeId, Storage, Wire};

    use super::*;
    use crate::root::command::{CreateSet, Definitions, Join, RootCommand};
    use crate::root::state::{EXPIRY_VERSION, SPOKEN_VERSIONS, STORAGE_VERSION};

    fn state() -> RootState {
        let mut state = RootState::new(ClusterId(1));
        for (id, zone) in [(1, "a"), (2, "b"), (3, "c")] {
            let speaks = SPOKEN_VERSIONS.1;
            let node = NodeInfo {
                id: NodeId(id),
                zone: zone.into(),
                addr: ([127, 0, 0, 1], id as u16).into(),
                incarnation: 1,
            };
            state.apply(&RootCommand::Join(Join { node, version_min: 1, version_max: speaks })).unwrap();
        }
        state.apply(&RootCommand::RaiseVersion(SPOKEN_VERSIONS.1)).unwrap();
        state.apply(&RootCommand::CreateSet(CreateSet { name: "shared".into(), partitions: 2, seed: 7 })).unwrap();
        for name in ["shop", "crm"] {
            define_project(&mut state, &ProjectDefinition { name: name.into(), description: String::new() }).unwrap();
        }
        let entity = Entity {
            name: "customer".into(),
            keys: vec![KeyColumn { name: "customer_id".into(), ty: KeyType::Int64 }],
            partition_by: 1,
            description: String::new(),
        };
        define_entity(&mut state, &entity).unwrap();
        state
    }

    fn group(features: &[&str]) -> GroupDefinition {
        GroupDefinition {
            project: "crm".into(),
            name: "profile".into(),
            version: 1,
            entity: "customer".into(),
            event_time: None,
            ttl: None,
            late_horizon_us: 0,
            features: features.iter().map(|name| Feature::new(name, FeatureType::Int32)).collect(),
            description: String::new(),
        }
    }

    fn view(feature: &str) -> ViewDefinition {
        ViewDefinition {
            project: "shop".into(),
            name: "rank".into(),
            version: 1,
            entities: vec!["customer".into()],
            features: vec![ViewFeatureDefinition {
                project: "crm".into(),
                group: "profile".into(),
                version: 1,
                feature: feature.into(),
                alias: None,
            }],
            description: String::new(),
        }
    }

    #[test]
    fn a_view_reads_another_projects_feature_only_when_granted() {
        let mut state = state();
        assert!(define_group(&mut state, &group(&["age", "income"])).unwrap());
        assert_eq!(define_view(&mut state, &view("age")).unwrap_err().code, ErrorCode::Forbidden);
        let grant = GrantDefinition {
            project: "crm".into(),
            group: "profile".into(),
            version: 1,
            features: vec!["age".into()],
            to: "shop".into(),
        };
        assert!(define_grant(&mut state, &grant).unwrap());
        assert!(!define_grant(&mut state, &grant).unwrap());
        assert!(define_view(&mut state, &view("age")).unwrap());
        assert!(!define_view(&mut state, &view("age")).unwrap());
        assert_eq!(define_view(&mut state, &view("income")).unwrap_err().code, ErrorCode::Conflict);
        let answer = find_view(&state, "shop", "rank", 1).unwrap();
        assert_eq!((answer.groups.len(), answer.view.keys[0].name.as_str()), (1, "customer_id"));
        assert!(find_view(&state, "shop", "rank", 2).unwrap_err().message.contains("shop/rank@1"));
    }

    #[test]
    fn a_group_grows_at_its_end_alone() {
        let mut state = state();
        define_group(&mut state, &group(&["age"])).unwrap();
        assert!(!define_group(&mut state, &group(&["age"])).unwrap());
        assert!(define_group(&mut state, &group(&["age", "income"])).unwrap());
        assert_eq!(find_group(&state, "crm", "profile", 1).unwrap().schema_version, 2);
        assert_eq!(define_group(&mut state, &group(&["income", "age"])).unwrap_err().code, ErrorCode::Conflict);
        assert_eq!(define_group(&mut state, &group(&["age"])).unwrap_err().code, ErrorCode::Conflict);
    }

    #[test]
    fn a_time_to_live_is_given_changed_and_taken_away_once_every_node_speaks_of_it() {
        use stoa_protocol::catalog::{OnExpired, Ttl};
        let mut state = state();
        let with = |ttl| {
            RootCommand::Define(Definitions {
                definitions: vec![Definition::Group(GroupDefinition { ttl, ..group(&["age"]) })],
            })
        };
        let ttl = |after_us, on_expired| Some(Ttl { after_us, on_expired });
        state.apply(&with(None)).unwrap();
        let day = 86_400_000_000;
        state.cluster_version = EXPIRY_VERSION - 1;
        let refused = state.apply(&with(ttl(day, OnExpired::Expire))).unwrap_err();
        assert_eq!(refused.code, ErrorCode::WrongVersion);
        state.cluster_version = EXPIRY_VERSION;
        for (at, wanted) in [ttl(day, OnExpired::Expire), ttl(day, OnExpired::ServeLast), None].into_iter().enumerate()
        {
            state.apply(&with(wanted)).unwrap();
            let group = find_group(&state, "crm", "profile", 1).unwrap();
            assert_eq!((group.ttl, group.schema_version), (wanted, at as u32 + 2));
            assert_eq!(RootState::from_bytes(&state.to_bytes()).unwrap(), state);
        }
        let refused = state.apply(&with(ttl(0, OnExpired::Expire))).unwrap_err();
        assert!(refused.message.contains("the time to live is 0, and may be 1000000 to"), "{}", refused.message);
    }

    #[test]
    fn a_feature_that_views_read_is_not_dropped_and_one_that_was_dropped_is_read_by_none() {
        let mut state = state();
        define_group(&mut state, &group(&["age", "income"])).unwrap();
        let mut of_crm = view("age");
        of_crm.project = "crm".into();
        define_view(&mut state, &of_crm).unwrap();
        let mut dropped = group(&["age", "income"]);
        dropped.features[0].dropped = true;
        let error = define_group(&mut state, &dropped).unwrap_err();
        assert_eq!(error.code, ErrorCode::Conflict);
        assert!(error.message.contains("age is read by views and cannot be dropped: crm/rank@1"), "{error}");
        dropped.features[0].dropped = false;
        dropped.features[1].dropped = true;
        assert!(define_group(&mut state, &dropped).unwrap());
        assert!(!define_group(&mut state, &dropped).unwrap());
        let (mut other, before) = (view("income"), find_group(&state, "crm", "profile", 1).unwrap().clone());
        (other.project, other.version) = ("crm".into(), 2);
        let error = define_view(&mut state, &other).unwrap_err();
        assert_eq!(error.code, ErrorCode::NotFound);
        assert!(error.message.contains("income was dropped; it has: age"), "{error}");
        assert_eq!((before.schema_version, before.features.len()), (2, 2), "it keeps its place");
    }

    #[test]
    fn a_feature_goes_by_all_of_its_names_in_views_and_grants() {
        let mut state = state();
        define_group(&mut state, &group(&["age", "income"])).unwrap();
        let grant = |name: &str| GrantDefinition {
            project: "crm".into(),
            group: "profile".into(),
            version: 1,
            features: vec![name.into()],
            to: "shop".into(),
        };
        define_grant(&mut state, &grant("age")).unwrap();
        let mut renamed = group(&["age", "income"]);
        renamed.features[0].aliases.push("years".into());
        assert!(define_group(&mut state, &renamed).unwrap());
        assert!(define_view(&mut state, &view("years")).unwrap(), "granted by its first name");
        let view = find_view(&state, "shop", "rank", 1).unwrap();
        assert_eq!((view.view.features[0].name.as_str(), view.view.features[0].feature), ("years", 0));
        assert_eq!(view.groups[0].features[0].name, "age");
        renamed.features[1].aliases.push("age".into());
        assert_eq!(define_group(&mut state, &renamed).unwrap_err().code, ErrorCode::BadRequest);
    }

    #[test]
    fn types_are_widened_once_every_node_knows_how_and_a_new_version_stands_beside_the_old() {
        let mut state = state();
        let wide = |version: u32| {
            let mut wide = group(&["age"]);
            (wide.features[0].ty, wide.version) = (FeatureType::Int64, version);
            wide
        };
        define_group(&mut state, &group(&["age"])).unwrap();
        state.cluster_version = EVOLUTION_VERSION - 1;
        assert_eq!(define_group(&mut state, &wide(1)).unwrap_err().code, ErrorCode::WrongVersion);
        let with_default = |state: &mut RootState| {
            let mut more = group(&["age", "income"]);
            more.features[1].default = Some(vec![0; 4]);
            let definitions = vec![Definition::Group(more)];
            state.apply(&RootCommand::Define(crate::root::command::Definitions { definitions }))
        };
        assert_eq!(with_default(&mut state).unwrap_err().code, ErrorCode::WrongVersion);
        assert!(define_group(&mut state, &wide(2)).unwrap(), "that is no change of a schema");
        state.cluster_version = EVOLUTION_VERSION;
        assert!(define_group(&mut state, &wide(1)).unwrap());
        let [first, second] = [1, 2].map(|version| find_group(&state, "crm", "profile", version).unwrap());
        assert_eq!(first.features[0].type_at(1), FeatureType::Int32);
        assert_eq!((first.schema_version, second.schema_version), (2, 1));
        assert_ne!(first.id, second.id);
        assert_eq!(RootState::from_bytes(&state.to_bytes()).unwrap(), state);
    }

    #[test]
    fn a_storage_is_given_once_every_node_knows_it_and_does_not_change() {
        let mut state = state();
        let with = |storage: &[Option<Storage>]| {
            let mut group = group(&["taste", "colour"]);
            for (feature, storage) in group.features.iter_mut().zip(storage) {
                (feature.ty, feature.storage) = (FeatureType::FixedArray { items: 8 }, *storage);
            }
            group.features.truncate(storage.len());
            RootCommand::Define(Definitions { definitions: vec![Definition::Group(group)] })
        };
        let (float16, int8) = (Some(Storage::Float16), Some(Storage::Int8Scaled));
        state.cluster_version = STORAGE_VERSION - 1;
        state.apply(&with(&[None])).unwrap();
        assert_eq!(state.apply(&with(&[None, float16])).unwrap_err().code, ErrorCode::WrongVersion);
        state.cluster_version = STORAGE_VERSION;
        state.apply(&with(&[None, float16])).unwrap();
        assert_eq!(find_group(&state, "crm", "profile", 1).unwrap().features[1].storage, float16);
        assert_eq!(RootState::from_bytes(&state.to_bytes()).unwrap(), state);
        for (storage, wanted) in [
            ([int8, float16], "the storage of taste is none and does not become int8_scaled"),
            ([None, None], "the storage of colour is float16 and does not become none"),
        ] {
            let error = state.apply(&with(&storage)).unwrap_err();
            assert_eq!(error.code, ErrorCode::Conflict);
            assert!(error.message.contains(wanted), "{error}");
            assert!(error.message.ends_with("all else is a new version of the group"), "{error}");
        }
    }

    #[test]
    fn definitions_that_name_what_is_not_there_are_refused_with_what_is() {
        let mut state = state();
        define_group(&mut state, &group(&["age"])).unwrap();
        let mut wrong = group(&["age"]);
        wrong.entity = "shopper".into();
        wrong.version = 2;
        assert!(define_group(&mut state, &wrong).unwrap_err().message.contains("customer"));
        assert!(define_view(&mut state, &view("agee")).unwrap_err().message.contains("it has: age"));
    }
}
