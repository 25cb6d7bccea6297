//! The fields of each kind of definition.

use stoa_protocol::catalog::{
    Definition, Entity, Feature, FeatureGroup, GrantDefinition, GroupDefinition, KeyColumn, OnExpired,
    ProjectDefinition, Ttl, ViewDefinition, ViewFeatureDefinition, parse_full_name,
};
use stoa_protocol::key::KeyType;
use stoa_protocol::limits::{
    FEATURE_ALIASES_MAX, GROUP_FEATURES_MAX, KEY_COLUMNS_MAX, LATE_HORIZON_US_DEFAULT, NAME_BYTES_MAX,
    VIEW_FEATURES_MAX,
};
use stoa_protocol::storage::Storage;
use stoa_protocol::types::FeatureType;
use stoa_protocol::value::Value;

use super::fields::{Fields, Notes};
use super::node::{Content, Node};
use crate::load::parse_value;

/// Entities of one view: each has at least one key column of its own, and a caller gives them all for each row.
const VIEW_ENTITIES_MAX: usize = 64;

const KINDS: &str = "project, entity, feature_group, grant or feature_view";

/// The definition of one document; `None` if it has errors, which are in `notes` then.
pub(super) fn definition(notes: &mut Notes<'_>, node: &Node) -> Option<Definition> {
    let Content::Mapping(fields) = &node.content else {
        notes.add(node.line, "", format!("the document is {}", node.describe()), "it should be a mapping with `kind`");
        return None;
    };
    let Some((_, line, kind)) = fields.iter().find(|(name, _, _)| name == "kind") else {
        notes.add(node.line, "kind", "the field is missing", format!("give {KINDS}"));
        return None;
    };
    let before = notes.errors.len();
    let found = match &kind.content {
        Content::Text(kind) if kind == "project" => project(notes, node).map(Definition::Project),
        Content::Text(kind) if kind == "entity" => entity(notes, node).map(Definition::Entity),
        Content::Text(kind) if kind == "feature_group" => group(notes, node).map(Definition::Group),
        Content::Text(kind) if kind == "grant" => grant(notes, node).map(Definition::Grant),
        Content::Text(kind) if kind == "feature_view" => view(notes, node).map(Definition::View),
        _ => {
            notes.add(*line, "kind", format!("{} is no kind", kind.describe()), format!("give {KINDS}"));
            None
        }
    };
    found.filter(|_| notes.errors.len() == before)
}

fn project(notes: &mut Notes<'_>, node: &Node) -> Option<ProjectDefinition> {
    let mut fields = Fields::of(notes, node, String::new(), &["kind", "name", "description"])?;
    let name = fields.name("name", "the name of a project");
    let description = fields.description();
    Some(ProjectDefinition { name: name?, description: description? })
}

fn entity(notes: &mut Notes<'_>, node: &Node) -> Option<Entity> {
    let known = ["kind", "name", "keys", "partition_by", "description"];
    let mut fields = Fields::of(notes, node, String::new(), &known)?;
    let name = fields.name("name", "the name of an entity");
    let description = fields.description();
    let items = fields.list("keys", KEY_COLUMNS_MAX);
    let keys = items.and_then(|items| {
        let keys: Vec<_> =
            items.iter().enumerate().filter_map(|(at, item)| key_column(fields.notes, at, item)).collect();
        (keys.len() == items.len()).then_some(keys)
    });
    let prefix = match fields.has("partition_by") {
        true => fields.names("partition_by", "the name of a key column", KEY_COLUMNS_MAX).map(Some),
        false => Some(None),
    };
    let (keys, prefix) = (keys?, prefix?);
    let names: Vec<&str> = keys.iter().map(|key| key.name.as_str()).collect();
    let partition_by = match prefix {
        None => keys.len(),
        Some(prefix) if names.starts_with(&prefix.iter().map(String::as_str).collect::<Vec<_>>()) => prefix.len(),
        Some(prefix) => {
            let problem = format!("[{}] is not a prefix of the key columns", prefix.join(", "));
            fields.wrong("partition_by", problem, format!("the first ones of [{}], in this order", names.join(", ")));
            return None;
        }
    };
    let entity = Entity { name: name?, keys, partition_by: partition_by as u16, description: description? };
    fields.checked("keys", entity.check())?;
    Some(entity)
}

fn key_column(notes: &mut Notes<'_>, at: usize, node: &Node) -> Option<KeyColumn> {
    let mut fields = Fields::of(notes, node, format!("keys[{at}]"), &["name", "type"])?;
    let name = fields.name("name", "the name of a key column");
    let text = fields.text("type", "Bool, Int8, Int16, Int32, Int64, String, Date, Timestamp or Binary");
    let ty = text.and_then(|text| fields.checked("type", KeyType::parse(text)));
    Some(KeyColumn { name: name?, ty: ty? })
}

fn group(notes: &mut Notes<'_>, node: &Node) -> Option<GroupDefinition> {
    let known = [
        "kind",
        "project",
        "name",
        "version",
        "description",
        "entity",
        "event_time",
        "ttl",
        "on_expired",
        "late_horizon",
        "features",
    ];
    let mut fields = Fields::of(notes, node, String::new(), &known)?;
    let project = fields.name("project", "the name of a project");
    let name = fields.name("name", "the name of a feature group");
    let version = fields.version();
    let description = fields.description();
    let entity = fields.name("entity", "the name of an entity");
    let event_time = event_time(&mut fields);
    let ttl = ttl(&mut fields);
    let late_horizon_us = late_horizon(&mut fields);
    let items = fields.list("features", GROUP_FEATURES_MAX);
    let features = items.and_then(|items| {
        let mut features: Vec<Feature> = Vec::with_capacity(items.len());
        for (at, item) in items.iter().enumerate() {
            if let Some(feature) = feature(fields.notes, at, item) {
                if features.iter().any(|other| other.name == feature.name) {
                    let problem = format!("{} was given twice", feature.name);
                    fields.notes.add(item.line, format!("features[{at}].name"), problem, "give each feature once");
                }
                features.push(feature);
            }
        }
        (features.len() == items.len()).then_some(features)
    });
    let group = GroupDefinition {
        project: project?,
        name: name?,
        version: version?,
        entity: entity?,
        event_time: event_time?,
        ttl: ttl?,
        late_horizon_us: late_horizon_us?,
        features: features?,
        description: description?,
    };
    fields.checked("features", check_group(&group))?;
    Some(group)
}

fn event_time(fields: &mut Fields<'_, '_, '_>) -> Option<Option<String>> {
    let right = format!("the name of the file column that holds the event time, to {NAME_BYTES_MAX} bytes, or none");
    match fields.optional_text("event_time", &right)? {
        None | Some("none") => Some(None),
        Some(text) if text.is_empty() || text.len() > NAME_BYTES_MAX => {
            fields.wrong("event_time", format!("the text {text:?} was given"), right);
            None
        }
        Some(text) => Some(Some(text.to_owned())),
    }
}

fn ttl(fields: &mut Fields<'_, '_, '_>) -> Option<Option<Ttl>> {
    let right = "a whole number and s, m, h or d from 1s to 3650d, such as 30d";
    let text = fields.optional_text("ttl", right);
    let on_expired = on_expired(fields);
    let (text, on_expired) = (text?, on_expired?);
    let Some(text) = text else {
        if on_expired.is_some() {
            fields.wrong(
                "on_expired",
                "the group has no ttl, so that no row expires",
                "give a ttl as well, or neither",
            );
            return None;
        }
        return Some(None);
    };
    let ttl = parse_duration_us(text).map(|after_us| Ttl { after_us, on_expired: on_expired.unwrap_or_default() });
    let ttl = ttl.filter(|ttl| ttl.check().is_ok());
    if ttl.is_none() {
        fields.wrong("ttl", format!("the text {text:?} was given"), right);
    }
    ttl.map(Some)
}

fn on_expired(fields: &mut Fields<'_, '_, '_>) -> Option<Option<OnExpired>> {
    let right = "expire (an expired row has no values) or serve_last (it has its last ones, marked as expired)";
    match fields.optional_text("on_expired", right)? {
        None => Some(None),
        Some("expire") => Some(Some(OnExpired::Expire)),
        Some("serve_last") => Some(Some(OnExpired::ServeLast)),
        Some(text) => {
            fields.wrong("on_expired", format!("the text {text:?} was given"), right);
            None
        }
    }
}

fn late_horizon(fields: &mut Fields<'_, '_, '_>) -> Option<i64> {
    let right = "a whole number and s, m, h or d, such as 7d";
    let Some(text) = fields.optional_text("late_horizon", right)? else { return Some(LATE_HORIZON_US_DEFAULT) };
    let parsed = parse_duration_us(text);
    if parsed.is_none() {
        fields.wrong("late_horizon", format!("the text {text:?} was given"), right);
    }
    parsed
}

/// `<number>(s|m|h|d)` in microseconds.
fn parse_duration_us(text: &str) -> Option<i64> {
    let unit = text.chars().last()?;
    let seconds: i64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 24 * 3_600,
        _ => return None,
    };
    let digits = &text[..text.len() - 1];
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse::<i64>().ok()?.checked_mul(seconds)?.checked_mul(1_000_000)
}

fn feature(notes: &mut Notes<'_>, at: usize, node: &Node) -> Option<Feature> {
    let known = ["name", "type", "storage", "description", "aliases", "default", "dropped"];
    let mut fields = Fields::of(notes, node, format!("features[{at}]"), &known)?;
    let name = fields.name("name", "the name of a feature");
    let right = "a feature type, such as Int32, String or \"FixedArray<Float32, 16>\"";
    let text = fields.text("type", right);
    let ty = text.and_then(|text| fields.checked("type", FeatureType::parse(text)));
    let storage = storage(&mut fields, ty);
    let description = fields.description();
    let aliases = match fields.has("aliases") {
        true => fields.names("aliases", "the name of a feature", FEATURE_ALIASES_MAX),
        false => Some(Vec::new()),
    };
    let dropped = fields.flag("dropped");
    let (name, ty, storage) = (name?, ty?, storage?);
    let default = match fields.value("default") {
        None => None,
        Some(node) => match default_bytes(ty, storage, node) {
            Ok(bytes) => Some(bytes),
            Err(problem) => {
                fields.wrong("default", problem, format!("a value of type {ty}"));
                return None;
            }
        },
    };
    Some(Feature {
        storage,
        description: description?,
        aliases: aliases?,
        default,
        dropped: dropped?,
        ..Feature::new(&name, ty)
    })
}

/// How values of a feature are kept, whose type is this, if it is known.
fn storage(fields: &mut Fields<'_, '_, '_>, ty: Option<FeatureType>) -> Option<Option<Storage>> {
    let Some(text) = fields.optional_text("storage", "float16 or int8_scaled")? else { return Some(None) };
    let storage = fields.checked("storage", Storage::parse(text))?;
    ty.map_or(Some(()), |ty| fields.checked("storage", storage.check_type(ty)))?;
    Some(Some(storage))
}

/// The bytes of a default, which is written as a field of a CSV file is, or as YAML has booleans, numbers and lists.
fn default_bytes(ty: FeatureType, storage: Option<Storage>, node: &Node) -> Result<Vec<u8>, String> {
    let value = match (ty, &node.content) {
        // An empty field of a CSV file would be a null.
        (FeatureType::String, Content::Text(text)) => Value::String(text.clone()),
        (FeatureType::Binary, Content::Text(text)) if text.is_empty() => Value::Binary(Vec::new()),
        (FeatureType::Json, Content::Text(text)) if serde_json::from_str::<serde::de::IgnoredAny>(text).is_err() => {
            return Err(format!("the text {text:?} is not JSON"));
        }
        _ => {
            let text = as_text(node).ok_or_else(|| format!("{} was given", node.describe()))?;
            parse_value(ty, &text)?
        }
    };
    let mut bytes = Vec::new();
    if value == Value::Null {
        return Err(format!("{} was given", node.describe()));
    }
    value.encode(ty, &mut bytes).map_err(|error| error.to_string())?;
    storage.map_or(Ok(()), |storage| storage.check(&bytes)).map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// A value of YAML as a CSV file has it.
fn as_text(node: &Node) -> Option<String> {
    Some(match &node.content {
        Content::Bool(v) => v.to_string(),
        Content::Integer(v) => v.to_string(),
        Content::Float(v) => v.to_string(),
        Content::Text(v) => v.clone(),
        Content::List(items) => {
            let json = |item: &Node| match &item.content {
                Content::Text(text) => Some(serde_json::Value::from(text.as_str()).to_string()),
                Content::List(_) => None,
                _ => as_text(item),
            };
            let items: Option<Vec<String>> = items.iter().map(json).collect();
            format!("[{}]", items?.join(","))
        }
        Content::Null | Content::Mapping(_) => return None,
    })
}

/// What the protocol checks of a whole group, the width of a row above all. Its entity is defined elsewhere, so a
/// stand-in takes its place, with a key column that no feature is named for.
fn check_group(group: &GroupDefinition) -> Result<(), stoa_protocol::DecodeError> {
    let key = (0..).map(|n| format!("key_{n}")).find(|key| group.features.iter().all(|f| !f.is_called(key)));
    let key = key.expect("the features are finitely many");
    let mut whole = FeatureGroup::simple(1, &group.name, &[(&key, KeyType::Int64)], &[]);
    whole.project.clone_from(&group.project);
    whole.version = group.version;
    whole.ttl = group.ttl;
    whole.late_horizon_us = group.late_horizon_us;
    whole.features.clone_from(&group.features);
    whole.check()
}

fn grant(notes: &mut Notes<'_>, node: &Node) -> Option<GrantDefinition> {
    let mut fields = Fields::of(notes, node, String::new(), &["kind", "project", "group", "features", "to"])?;
    let project = fields.name("project", "the name of a project");
    let right = "name@version, such as household_profile@1";
    let text = fields.text("group", right);
    let group = text.and_then(|text| {
        // The grammar of a full name is the protocol's; the project of a grant stands in a field of its own.
        let parts = parse_full_name("a feature group", &format!("x/{text}")).ok();
        if parts.is_none() {
            fields.wrong("group", format!("the text {text:?} was given"), right);
        }
        parts
    });
    let features = fields.names("features", "the name of a feature", GROUP_FEATURES_MAX);
    let to = fields.name("to", "the name of a project");
    let (_, group, version) = group?;
    Some(GrantDefinition { project: project?, group, version, features: features?, to: to? })
}

fn view(notes: &mut Notes<'_>, node: &Node) -> Option<ViewDefinition> {
    let known = ["kind", "project", "name", "version", "description", "entities", "features"];
    let mut fields = Fields::of(notes, node, String::new(), &known)?;
    let project = fields.name("project", "the name of a project");
    let name = fields.name("name", "the name of a feature view");
    let version = fields.version();
    let description = fields.description();
    let entities = fields.names("entities", "the name of an entity", VIEW_ENTITIES_MAX);
    let items = fields.list("features", VIEW_FEATURES_MAX);
    let features = items.and_then(|items| {
        let mut features: Vec<ViewFeatureDefinition> = Vec::with_capacity(items.len());
        for (at, item) in items.iter().enumerate() {
            if let Some(feature) = view_feature(fields.notes, at, item) {
                let name = view_name(&feature);
                if features.iter().any(|other| view_name(other) == name) {
                    let problem = format!("the view has a feature {name} already");
                    fields.notes.add(item.line, format!("features[{at}]"), problem, "give it another name with `as`");
                }
                features.push(feature);
            }
        }
        (features.len() == items.len()).then_some(features)
    });
    Some(ViewDefinition {
        project: project?,
        name: name?,
        version: version?,
        entities: entities?,
        features: features?,
        description: description?,
    })
}

fn view_name(feature: &ViewFeatureDefinition) -> &str {
    feature.alias.as_deref().unwrap_or(&feature.feature)
}

fn view_feature(notes: &mut Notes<'_>, at: usize, node: &Node) -> Option<ViewFeatureDefinition> {
    let mut fields = Fields::of(notes, node, format!("features[{at}]"), &["group", "feature", "as"])?;
    let text = fields.text("group", "project/name@version, such as shop/product_catalog@1");
    let group = text.and_then(|text| fields.checked("group", parse_full_name("a feature group", text)));
    let feature = fields.name("feature", "the name of a feature");
    let alias = match fields.has("as") {
        true => fields.name("as", "the name of a feature in the view").map(Some),
        false => Some(None),
    };
    let (project, group, version) = group?;
    Some(ViewFeatureDefinition { project, group, version, feature: feature?, alias: alias? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_number_and_a_unit() {
        assert_eq!(parse_duration_us("7d"), Some(LATE_HORIZON_US_DEFAULT));
        assert_eq!(parse_duration_us("90s"), Some(90_000_000));
        assert_eq!(parse_duration_us("0m"), Some(0));
        assert_eq!(parse_duration_us("2h"), Some(7_200_000_000));
        for wrong in ["", "d", "7", "7w", "-1d", "+1d", "7 d", "1.5h", "999999999999999999d", "7é"] {
            assert_eq!(parse_duration_us(wrong), None, "{wrong}");
        }
    }
}
