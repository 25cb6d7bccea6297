//! What users define: projects, entities, feature groups, grants, feature views. The root group keeps them; a group's
//! definition also reaches each of its partitions through that partition's own log. How a group's definition may change is
//! [`crate::evolution`]'s to say.

use std::collections::BTreeSet;

use crate::codec::{DecodeError, Reader, Wire, check_name, get_list, put_list};
use crate::ids::{FeatureGroupId, PartitionSetId, ViewId};
use crate::key::KeyType;
use crate::limits::{
    DEFAULTS_BYTES_MAX, DESCRIPTION_BYTES_MAX, GROUP_FEATURES_MAX, KEY_COLUMNS_MAX, LATE_HORIZON_US_DEFAULT,
    ROW_FIXED_BYTES_MAX, TTL_US_MAX, TTL_US_MIN, VIEW_FEATURES_MAX,
};
use crate::types::{FeatureType, Width};

pub use crate::feature::{EarlierType, Feature};

/// A column of an entity's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyColumn {
    /// Its name, as files and callers give it.
    pub name: String,
    /// Its type.
    pub ty: KeyType,
}
crate::wire_struct!(KeyColumn { name, ty });

/// A kind of thing that has features, named once for all teams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entity {
    /// Its name.
    pub name: String,
    /// Its key columns, in the order of the canonical key.
    pub keys: Vec<KeyColumn>,
    /// How many of the first key columns decide the partition: 1 to all.
    pub partition_by: u16,
    /// What it is, for people.
    pub description: String,
}
crate::wire_struct!(Entity { name, keys: list, partition_by, description });

impl Entity {
    /// The types of the key columns, in order.
    pub fn key_types(&self) -> Vec<KeyType> {
        self.keys.iter().map(|column| column.ty).collect()
    }

    /// Checks names, counts and the partition key.
    pub fn check(&self) -> Result<(), DecodeError> {
        check_name("the name of an entity", &self.name)?;
        check_description(&self.description)?;
        if self.keys.is_empty() || self.keys.len() > KEY_COLUMNS_MAX {
            let allowed = format!("1 to {KEY_COLUMNS_MAX}");
            return Err(DecodeError::invalid("the number of key columns", self.keys.len(), allowed));
        }
        for (at, column) in self.keys.iter().enumerate() {
            check_name("the name of a key column", &column.name)?;
            if self.keys[..at].iter().any(|other| other.name == column.name) {
                return Err(DecodeError::invalid("a key column", &column.name, "given once"));
            }
        }
        if self.partition_by == 0 || usize::from(self.partition_by) > self.keys.len() {
            let allowed = format!("1 to {}: a prefix of the key columns", self.keys.len());
            return Err(DecodeError::invalid("partition_by", self.partition_by, allowed));
        }
        Ok(())
    }
}

/// What a read is given of a row that has outlived its group's time to live. It is marked as expired either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OnExpired {
    /// No value.
    #[default]
    Expire,
    /// The last values.
    ServeLast,
}
crate::wire_enum!(OnExpired { 0 => Expire, 1 => ServeLast });

/// How long the rows of a group live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ttl {
    /// From a row's event time on, in microseconds: [`TTL_US_MIN`] to [`TTL_US_MAX`].
    pub after_us: i64,
    /// What reads are given after that.
    pub on_expired: OnExpired,
}
crate::wire_struct!(Ttl { after_us, on_expired });

impl Ttl {
    /// Checks the bounds.
    pub fn check(&self) -> Result<(), DecodeError> {
        if (TTL_US_MIN..=TTL_US_MAX).contains(&self.after_us) {
            return Ok(());
        }
        let allowed = format!("{TTL_US_MIN} to {TTL_US_MAX}, in microseconds (a second to 3,650 days)");
        Err(DecodeError::invalid("the time to live", self.after_us, allowed))
    }
}

const HAS_EVENT_TIME: u8 = 1;
const HAS_TTL: u8 = 2;

/// The column of the event time and the time to live: a byte that says which of them there are, then those. Without a time
/// to live these are the bytes of an optional string, as definitions had them before there was one.
fn put_times(event_time: &Option<String>, ttl: Option<Ttl>, out: &mut Vec<u8>) {
    out.push(if event_time.is_some() { HAS_EVENT_TIME } else { 0 } | if ttl.is_some() { HAS_TTL } else { 0 });
    event_time.iter().for_each(|column| column.put(out));
    ttl.iter().for_each(|ttl| ttl.put(out));
}

fn get_times(input: &mut Reader<'_>) -> Result<(Option<String>, Option<Ttl>), DecodeError> {
    let has = u8::get(input)?;
    if has > HAS_EVENT_TIME | HAS_TTL {
        return Err(DecodeError::invalid("the times that a definition has", has, "0 to 3"));
    }
    let event_time = if has & HAS_EVENT_TIME != 0 { Some(Wire::get(input)?) } else { None };
    let ttl = if has & HAS_TTL != 0 { Some(Wire::get(input)?) } else { None };
    Ok((event_time, ttl))
}

/// One version of a feature group: the definition that a partition's log carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeatureGroup {
    /// Its number; issued by the root group.
    pub id: FeatureGroupId,
    /// The project that owns it.
    pub project: String,
    /// Its name.
    pub name: String,
    /// Its version, 1 and up; versions live side by side.
    pub version: u32,
    /// Counts the changes of this version's schema, 1 and up. A row batch and a read name the one they mean.
    pub schema_version: u32,
    /// The entity whose rows these are.
    pub entity: Entity,
    /// Where its partitions lie.
    pub set: PartitionSetId,
    /// The file column that holds the event time; `None` if rows have none, then they carry the time of their load.
    pub event_time: Option<String>,
    /// How long its rows live after their event time; `None`: for ever.
    pub ttl: Option<Ttl>,
    /// How long a delete keeps older events out, and how long an expired row stays, in microseconds.
    pub late_horizon_us: i64,
    /// Its features, those that were dropped among them. A feature's place is its number in batches and reads and never
    /// changes.
    pub features: Vec<Feature>,
    /// What it is, for people.
    pub description: String,
}

impl Wire for FeatureGroup {
    fn put(&self, out: &mut Vec<u8>) {
        self.id.put(out);
        self.project.put(out);
        self.name.put(out);
        self.version.put(out);
        self.schema_version.put(out);
        self.entity.put(out);
        self.set.put(out);
        put_times(&self.event_time, self.ttl, out);
        self.late_horizon_us.put(out);
        put_list(&self.features, out);
        self.description.put(out);
    }

    fn get(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (id, project, name) = (Wire::get(input)?, Wire::get(input)?, Wire::get(input)?);
        let (version, schema_version) = (Wire::get(input)?, Wire::get(input)?);
        let (entity, set) = (Wire::get(input)?, Wire::get(input)?);
        let (event_time, ttl) = get_times(input)?;
        Ok(Self {
            id,
            project,
            name,
            version,
            schema_version,
            entity,
            set,
            event_time,
            ttl,
            late_horizon_us: Wire::get(input)?,
            features: get_list(input, "features")?,
            description: Wire::get(input)?,
        })
    }
}

impl FeatureGroup {
    /// `project/name@version`.
    pub fn full_name(&self) -> String {
        format!("{}/{}@{}", self.project, self.name, self.version)
    }

    /// The place of a feature by any of its names; `None` if it was dropped.
    pub fn feature(&self, name: &str) -> Option<u16> {
        self.features.iter().position(|f| f.is_called(name) && !f.dropped).map(|at| at as u16)
    }

    /// The features that were not dropped, with their places.
    pub fn live_features(&self) -> impl Iterator<Item = (u16, &Feature)> {
        (0..).zip(&self.features).filter(|(_, feature)| !feature.dropped)
    }

    /// Rows whose event time is before this have expired at a partition time: event time + time to live <= time.
    pub fn expired_before(&self, time_us: i64) -> i64 {
        let limit = self.ttl.and_then(|ttl| time_us.checked_sub(ttl.after_us));
        limit.map_or(i64::MIN, |limit| limit.saturating_add(1))
    }

    /// Rows whose event time is before this may be removed at a partition time: those that have been expired for the late
    /// horizon, so that for as long no older event comes in the place of one, and the last values can be handed over.
    pub fn removable_before(&self, time_us: i64) -> i64 {
        self.expired_before(time_us.saturating_sub(self.late_horizon_us))
    }

    /// Whether a tombstone of a deletion at `deleted_us` counts as no row at a partition time: it is past the late horizon.
    pub fn forgets_delete(&self, deleted_us: i64, time_us: i64) -> bool {
        time_us.saturating_sub(deleted_us) > self.late_horizon_us
    }

    /// Checks names, counts and widths.
    pub fn check(&self) -> Result<(), DecodeError> {
        check_name("the name of a project", &self.project)?;
        check_name("the name of a feature group", &self.name)?;
        check_description(&self.description)?;
        self.entity.check()?;
        if self.version == 0 || self.schema_version == 0 {
            return Err(DecodeError::invalid("a version", 0, "1 and up"));
        }
        if self.features.is_empty() || self.features.len() > GROUP_FEATURES_MAX {
            let allowed = format!("1 to {GROUP_FEATURES_MAX}");
            return Err(DecodeError::invalid("the number of features", self.features.len(), allowed));
        }
        let (mut fixed, mut defaults) = (0, 0);
        let mut names = BTreeSet::new();
        for feature in &self.features {
            check_description(&feature.description)?;
            for name in feature.names() {
                check_name("the name of a feature", name)?;
                if !names.insert(name) {
                    return Err(DecodeError::invalid("a feature", name, "given once"));
                }
                if self.entity.keys.iter().any(|key| key.name == name) {
                    return Err(DecodeError::invalid("a feature", name, "not the name of a key column"));
                }
            }
            feature.check(self.schema_version)?;
            defaults += feature.default.as_ref().map_or(0, Vec::len);
            fixed += match feature.ty.width() {
                Width::Fixed(width) => width,
                Width::Variable => 8,
            };
        }
        if defaults > DEFAULTS_BYTES_MAX {
            return Err(DecodeError::invalid(
                "the bytes of all defaults",
                defaults,
                format!("up to {DEFAULTS_BYTES_MAX}"),
            ));
        }
        if fixed > ROW_FIXED_BYTES_MAX {
            return Err(DecodeError::invalid("the bytes of one row", fixed, format!("up to {ROW_FIXED_BYTES_MAX}")));
        }
        self.ttl.map_or(Ok(()), |ttl| ttl.check())?;
        if self.late_horizon_us < 0 {
            return Err(DecodeError::invalid("the late horizon", self.late_horizon_us, "0 and up, in microseconds"));
        }
        Ok(())
    }

    /// A definition for tests and tools: entity `name`, integer or other keys, default horizon.
    pub fn simple(id: u64, name: &str, keys: &[(&str, KeyType)], features: &[(&str, FeatureType)]) -> Self {
        Self {
            id: FeatureGroupId(id),
            project: "test".into(),
            name: name.into(),
            version: 1,
            schema_version: 1,
            entity: Entity {
                name: name.into(),
                keys: keys.iter().map(|(name, ty)| KeyColumn { name: (*name).into(), ty: *ty }).collect(),
                partition_by: keys.len() as u16,
                description: String::new(),
            },
            set: PartitionSetId(1),
            event_time: None,
            ttl: None,
            late_horizon_us: LATE_HORIZON_US_DEFAULT,
            features: features.iter().map(|(name, ty)| Feature::new(name, *ty)).collect(),
            description: String::new(),
        }
    }
}

/// One feature of a view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewFeature {
    /// Its name in the view: the feature's own, or an alias.
    pub name: String,
    /// The group it comes from.
    pub group: FeatureGroupId,
    /// Its place in that group.
    pub feature: u16,
}
crate::wire_struct!(ViewFeature { name, group, feature });

/// One version of a feature view: what a model reads, in a fixed order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeatureView {
    /// Its number; issued by the root group.
    pub id: ViewId,
    /// The project that owns it.
    pub project: String,
    /// Its name.
    pub name: String,
    /// Its version, 1 and up.
    pub version: u32,
    /// The key columns that a caller gives for each row: those of all entities, equal names once, in order.
    pub keys: Vec<KeyColumn>,
    /// Its features, in the order of the answer.
    pub features: Vec<ViewFeature>,
    /// What it is for, for people.
    pub description: String,
}
crate::wire_struct!(FeatureView { id, project, name, version, keys: list, features: list, description });

impl FeatureView {
    /// `project/name@version`.
    pub fn full_name(&self) -> String {
        format!("{}/{}@{}", self.project, self.name, self.version)
    }

    /// Checks names and counts; that its groups exist is the catalog's to check.
    pub fn check(&self) -> Result<(), DecodeError> {
        check_name("the name of a project", &self.project)?;
        check_name("the name of a feature view", &self.name)?;
        check_description(&self.description)?;
        if self.features.is_empty() || self.features.len() > VIEW_FEATURES_MAX {
            let allowed = format!("1 to {VIEW_FEATURES_MAX}");
            return Err(DecodeError::invalid("the number of features", self.features.len(), allowed));
        }
        for (at, feature) in self.features.iter().enumerate() {
            check_name("the name of a feature", &feature.name)?;
            if self.features[..at].iter().any(|other| other.name == feature.name) {
                return Err(DecodeError::invalid("a feature of the view", &feature.name, "given once; use an alias"));
            }
        }
        Ok(())
    }
}

/// `project/name@version` as its three parts.
pub fn parse_full_name(what: &'static str, text: &str) -> Result<(String, String, u32), DecodeError> {
    let bad = || DecodeError::invalid(what, format!("{text:?}"), "project/name@version, such as shop/rank_products@1");
    let (project, rest) = text.split_once('/').ok_or_else(bad)?;
    let (name, version) = rest.split_once('@').ok_or_else(bad)?;
    check_name(what, project)?;
    check_name(what, name)?;
    let version = version.parse().ok().filter(|&v: &u32| v > 0).ok_or_else(bad)?;
    Ok((project.to_owned(), name.to_owned(), version))
}

fn check_description(text: &str) -> Result<(), DecodeError> {
    if text.len() <= DESCRIPTION_BYTES_MAX {
        return Ok(());
    }
    Err(DecodeError::invalid("a description", format!("{} bytes long", text.len()), format!("{DESCRIPTION_BYTES_MAX}")))
}

// What `stoa apply` sends: definitions by name, as people write them. The root group resolves names to numbers.

/// A definition by names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Definition {
    /// A team's space.
    Project(ProjectDefinition),
    /// A kind of thing with features.
    Entity(Entity),
    /// A version of a feature group.
    Group(GroupDefinition),
    /// A right of another project's views to read features.
    Grant(GrantDefinition),
    /// A version of a feature view.
    View(ViewDefinition),
}
crate::wire_enum!(Definition { 1 => Project(x), 2 => Entity(x), 3 => Group(x), 4 => Grant(x), 5 => View(x) });

impl Definition {
    /// Whether it has features with more than name, type, description and storage ([`Feature::has_more`]).
    pub fn has_more(&self) -> bool {
        matches!(self, Self::Group(group) if group.features.iter().any(Feature::has_more))
    }

    /// Whether it has features with a storage ([`Feature::storage`]).
    pub fn has_storage(&self) -> bool {
        matches!(self, Self::Group(group) if group.features.iter().any(|feature| feature.storage.is_some()))
    }
}

/// A team's space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectDefinition {
    /// Its name.
    pub name: String,
    /// What it is for, for people.
    pub description: String,
}
crate::wire_struct!(ProjectDefinition { name, description });

/// A version of a feature group, by names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDefinition {
    /// The project that owns it.
    pub project: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u32,
    /// The entity's name.
    pub entity: String,
    /// See [`FeatureGroup::event_time`].
    pub event_time: Option<String>,
    /// See [`FeatureGroup::ttl`].
    pub ttl: Option<Ttl>,
    /// See [`FeatureGroup::late_horizon_us`].
    pub late_horizon_us: i64,
    /// Its features.
    pub features: Vec<Feature>,
    /// What it is, for people.
    pub description: String,
}

impl Wire for GroupDefinition {
    fn put(&self, out: &mut Vec<u8>) {
        self.project.put(out);
        self.name.put(out);
        self.version.put(out);
        self.entity.put(out);
        put_times(&self.event_time, self.ttl, out);
        self.late_horizon_us.put(out);
        put_list(&self.features, out);
        self.description.put(out);
    }

    fn get(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (project, name, version) = (Wire::get(input)?, Wire::get(input)?, Wire::get(input)?);
        let entity = Wire::get(input)?;
        let (event_time, ttl) = get_times(input)?;
        Ok(Self {
            project,
            name,
            version,
            entity,
            event_time,
            ttl,
            late_horizon_us: Wire::get(input)?,
            features: get_list(input, "features")?,
            description: Wire::get(input)?,
        })
    }
}

/// A right of project `to` to use some features of another project's group in its views.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantDefinition {
    /// The project that owns the group.
    pub project: String,
    /// The group's name.
    pub group: String,
    /// The group's version.
    pub version: u32,
    /// The features that may be read.
    pub features: Vec<String>,
    /// The project that may read them.
    pub to: String,
}
crate::wire_struct!(GrantDefinition { project, group, version, features: list, to });

/// A version of a feature view, by names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewDefinition {
    /// The project that owns it.
    pub project: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u32,
    /// The entities whose keys a caller gives.
    pub entities: Vec<String>,
    /// Its features, in the order of the answer.
    pub features: Vec<ViewFeatureDefinition>,
    /// What it is for, for people.
    pub description: String,
}
crate::wire_struct!(ViewDefinition { project, name, version, entities: list, features: list, description });

/// A feature of a view, by names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewFeatureDefinition {
    /// The project that owns the group.
    pub project: String,
    /// The group's name.
    pub group: String,
    /// The group's version.
    pub version: u32,
    /// The feature's name.
    pub feature: String,
    /// Its name in the view; the feature's own if absent.
    pub alias: Option<String>,
}
crate::wire_struct!(ViewFeatureDefinition { project, group, version, feature, alias });

#[cfg(test)]
mod tests {
    use super::*;

    fn group(ttl: Option<Ttl>) -> FeatureGroup {
        let group = FeatureGroup::simple(3, "g", &[("id", KeyType::Bool)], &[("x", FeatureType::Int64)]);
        FeatureGroup { ttl, late_horizon_us: 100, ..group }
    }

    #[test]
    fn a_definition_without_a_time_to_live_has_the_bytes_it_had_before_there_was_one() {
        for event_time in [None, Some("at".to_owned())] {
            let group = FeatureGroup { event_time: event_time.clone(), ..group(None) };
            let bytes = group.to_bytes();
            let before = |tail: usize| bytes[..bytes.len() - tail].to_vec();
            // Behind the event time: the horizon, one feature ("x", its type, no description) and no description.
            let tail = 8 + 4 + (5 + 3 + 4) + 4;
            let optional = event_time.to_bytes();
            assert!(before(tail).ends_with(&optional), "{bytes:?}");
            assert_eq!(FeatureGroup::from_bytes(&bytes), Ok(group));
        }
    }

    #[test]
    fn a_time_to_live_comes_back_in_both_definitions_and_damage_is_an_error() {
        let times = [
            Ttl { after_us: TTL_US_MIN, on_expired: OnExpired::Expire },
            Ttl { after_us: TTL_US_MAX, on_expired: OnExpired::ServeLast },
        ];
        for (ttl, event_time) in times.into_iter().zip([None, Some("at".to_owned())]) {
            let group = FeatureGroup { event_time: event_time.clone(), ..group(Some(ttl)) };
            assert_eq!(group.check(), Ok(()));
            let definition = GroupDefinition {
                project: group.project.clone(),
                name: group.name.clone(),
                version: 1,
                entity: "e".into(),
                event_time,
                ttl: group.ttl,
                late_horizon_us: 7,
                features: group.features.clone(),
                description: String::new(),
            };
            let (bytes, other) = (group.to_bytes(), definition.to_bytes());
            assert_eq!(FeatureGroup::from_bytes(&bytes), Ok(group));
            assert_eq!(GroupDefinition::from_bytes(&other), Ok(definition));
            (0..bytes.len()).for_each(|cut| assert!(FeatureGroup::from_bytes(&bytes[..cut]).is_err()));
            (0..other.len()).for_each(|cut| assert!(GroupDefinition::from_bytes(&other[..cut]).is_err()));
        }
        for after_us in [i64::MIN, -1, 0, TTL_US_MIN - 1, TTL_US_MAX + 1, i64::MAX] {
            let bad = group(Some(Ttl { after_us, on_expired: OnExpired::Expire }));
            assert!(bad.check().unwrap_err().to_string().contains("the time to live"), "{after_us}");
        }
    }

    #[test]
    fn a_row_expires_when_its_time_to_live_is_over_and_goes_a_late_horizon_later() {
        let ttl = TTL_US_MIN;
        let group = group(Some(Ttl { after_us: ttl, on_expired: OnExpired::Expire }));
        for event in [-5, 0, 1_000] {
            assert!(event >= group.expired_before(event + ttl - 1));
            assert!(event < group.expired_before(event + ttl));
            assert!(event >= group.removable_before(event + ttl + 99));
            assert!(event < group.removable_before(event + ttl + 100));
        }
        assert!(!group.forgets_delete(7, 107) && group.forgets_delete(7, 108));
        for time in [i64::MIN, i64::MIN + ttl - 1] {
            assert_eq!((group.expired_before(time), group.removable_before(time)), (i64::MIN, i64::MIN));
        }
        assert!(i64::MAX - ttl < group.expired_before(i64::MAX));
        let for_ever = FeatureGroup { ttl: None, ..group };
        assert_eq!((for_ever.expired_before(i64::MAX), for_ever.removable_before(i64::MAX)), (i64::MIN, i64::MIN));
    }
}
