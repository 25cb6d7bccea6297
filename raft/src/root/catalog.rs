//! Definitions by names become definitions by numbers. A definition that stands already is left as it is; one that
//! contradicts what stands is refused; a group's version may grow by features at its end, and live for another time.

use stoa_env::planted;
use stoa_protocol::catalog::{
    Definition, Entity, FeatureGroup, FeatureView, GrantDefinition, GroupDefinition, KeyColumn, ProjectDefinition,
    ViewDefinition, ViewFeature, ViewFeatureDefinition,
};
use stoa_protocol::codec::check_name;
use stoa_protocol::message::ViewAnswer;
use stoa_protocol::{ErrorBody, ErrorCode, FeatureGroupId, ViewId};

use super::refuse;
use super::state::RootState;

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
        features: definition.features.clone(),
        description: definition.description.clone(),
    };
    group.check().or_else(bad)?;
    state.groups.push((definition.clone(), group));
    Ok(true)
}

/// A version of a group may grow: new features at the end, another time to live, other descriptions.
fn grow_group(state: &mut RootState, place: usize, definition: &GroupDefinition) -> Result<bool, ErrorBody> {
    let (known, group) = &state.groups[place];
    let same_features = definition.features.len() >= known.features.len()
        && known.features.iter().zip(&definition.features).all(|(old, new)| old.name == new.name && old.ty == new.ty);
    let same_rest = known.entity == definition.entity
        && known.event_time == definition.event_time
        && known.late_horizon_us == definition.late_horizon_us;
    if !(same_features || planted!(ExchangeFeatures)) || !same_rest {
        let name = group.full_name();
        return refuse(
            ErrorCode::Conflict,
            format!(
                "group {name} stands already; this version may get new features at its end and another ttl and \
                     on_expired, and nothing else; give the change a new version"
            ),
        );
    }
    let mut grown = group.clone();
    grown.features = definition.features.clone();
    grown.ttl = definition.ttl;
    grown.description = definition.description.clone();
    grown.schema_version += u32::from(!planted!(GrowUnderOneVersion));
    grown.check().or_else(bad)?;
    state.groups[place] = (definition.clone(), grown);
    Ok(true)
}

fn define_grant(state: &mut RootState, grant: &GrantDefinition) -> Result<bool, ErrorBody> {
    need_project(state, &grant.to)?;
    let group = find_group(state, &grant.project, &grant.group, grant.version)?;
    for name in &grant.features {
        need_feature(group, name)?;
    }
    if grant.features.is_empty() {
        return bad("a grant names at least one feature");
    }
    if state.grants.contains(grant) {
        return Ok(false);
    }
    state.grants.push(grant.clone());
    Ok(true)
}

fn need_feature(group: &FeatureGroup, name: &str) -> Result<u16, ErrorBody> {
    group.feature(name).ok_or_else(|| {
        let known = group.features.iter().map(|f| f.name.as_str()).collect::<Vec<_>>().join(", ");
        let message = format!("group {} has no feature {name}; it has: {known}", group.full_name());
        ErrorBody::new(ErrorCode::NotFound, message)
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
        need_grant(state, definition, wanted)?;
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

fn need_grant(state: &RootState, view: &ViewDefinition, wanted: &ViewFeatureDefinition) -> Result<(), ErrorBody> {
    let granted = wanted.project == view.project
        || state.grants.iter().any(|grant| {
            grant.to == view.project
                && (&grant.project, &grant.group, grant.version) == (&wanted.project, &wanted.group, wanted.version)
                && grant.features.contains(&wanted.feature)
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
    use stoa_protocol::catalog::Feature;
    use stoa_protocol::map::NodeInfo;
    use stoa_protocol::{ClusterId, FeatureType, KeyType, NodeId};

    use super::*;
    use crate::root::command::{CreateSet, Definitions, Join, RootCommand};
    use crate::root::state::EXPIRY_VERSION;
    use stoa_protocol::codec::Wire;

    fn state() -> RootState {
        let mut state = RootState::new(ClusterId(1));
        for (id, zone) in [(1, "a"), (2, "b"), (3, "c")] {
            let node = NodeInfo {
                id: NodeId(id),
                zone: zone.into(),
                addr: ([127, 0, 0, 1], id as u16).into(),
                incarnation: 1,
            };
            state.apply(&RootCommand::Join(Join { node, version_min: 1, version_max: 1 })).unwrap();
        }
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
            features: features
                .iter()
                .map(|name| Feature { name: (*name).into(), ty: FeatureType::Int32, description: String::new() })
                .collect(),
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
