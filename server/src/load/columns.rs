//! What each column of a file is to a group.

use std::path::Path;

use stoa_protocol::catalog::FeatureGroup;
use stoa_protocol::key::KeyType;
use stoa_protocol::storage::Storage;
use stoa_protocol::types::FeatureType;

use super::error::LoadError;
use super::options::UnknownColumns;

/// A key column of the group and the file column that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyColumnOfFile {
    pub name: String,
    pub ty: KeyType,
    pub column: usize,
}

/// A feature of the group and the file column that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FeatureColumn {
    pub name: String,
    /// The feature's place in the group.
    pub feature: u16,
    pub ty: FeatureType,
    /// How the feature's values are kept, if not in its type.
    pub storage: Option<Storage>,
    pub column: usize,
}

/// What the columns of a file are to a group. One file column may serve twice, as event time and as a feature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Columns {
    /// In the order of the entity's key.
    pub keys: Vec<KeyColumnOfFile>,
    /// The file column of the event time, if the group has one.
    pub event_time: Option<(String, usize)>,
    /// Features ascending; at least one.
    pub features: Vec<FeatureColumn>,
    /// File columns that are not read.
    pub ignored: Vec<String>,
}

impl Columns {
    /// Matches the names of a file's columns with those of a group.
    pub fn resolve(
        path: &Path,
        names: &[String],
        group: &FeatureGroup,
        unknown_columns: UnknownColumns,
    ) -> Result<Self, LoadError> {
        let find = |name: &str| -> Result<Option<usize>, LoadError> {
            let mut places = names.iter().enumerate().filter(|(_, other)| *other == name).map(|(at, _)| at);
            let first = places.next();
            if places.next().is_some() {
                return Err(LoadError::DuplicateColumn { path: path.to_owned(), column: name.to_owned() });
            }
            Ok(first)
        };
        let required = |what: &'static str, name: &str| {
            find(name)?.ok_or_else(|| LoadError::MissingColumn {
                path: path.to_owned(),
                what,
                column: name.to_owned(),
                found: join(names.iter().map(String::as_str)),
            })
        };
        let mut keys = Vec::with_capacity(group.entity.keys.len());
        for key in &group.entity.keys {
            keys.push(KeyColumnOfFile {
                name: key.name.clone(),
                ty: key.ty,
                column: required("key column", &key.name)?,
            });
        }
        let event_time = match &group.event_time {
            Some(name) => Some((name.clone(), required("event time column", name)?)),
            None => None,
        };
        let mut features = Vec::new();
        for (at, feature) in group.live_features() {
            let mut found: Option<(&str, usize)> = None;
            for name in feature.names() {
                let Some(column) = find(name)? else { continue };
                if let Some((first, _)) = found {
                    return Err(LoadError::DuplicateColumn {
                        path: path.to_owned(),
                        column: format!("{first} or {name}"),
                    });
                }
                found = Some((name, column));
            }
            if let Some((name, column)) = found {
                let (name, ty, storage) = (name.to_owned(), feature.ty, feature.storage);
                features.push(FeatureColumn { name, feature: at, ty, storage, column });
            }
        }
        let used = |at: usize| {
            keys.iter().any(|key| key.column == at)
                || event_time.as_ref().is_some_and(|(_, column)| *column == at)
                || features.iter().any(|feature| feature.column == at)
        };
        let ignored: Vec<String> =
            names.iter().enumerate().filter(|(at, _)| !used(*at)).map(|(_, name)| name.clone()).collect();
        if !ignored.is_empty() && unknown_columns == UnknownColumns::Refuse {
            return Err(LoadError::UnknownColumns {
                path: path.to_owned(),
                group: group.full_name(),
                columns: join(ignored.iter().map(String::as_str)),
                known: join(all_names(group)),
            });
        }
        if features.is_empty() {
            return Err(LoadError::NoFeatures {
                path: path.to_owned(),
                group: group.full_name(),
                known: join(group.live_features().map(|(_, feature)| feature.name.as_str())),
            });
        }
        Ok(Self { keys, event_time, features, ignored })
    }
}

fn all_names(group: &FeatureGroup) -> impl Iterator<Item = &str> {
    let keys = group.entity.keys.iter().map(|key| key.name.as_str());
    keys.chain(group.event_time.as_deref()).chain(group.live_features().flat_map(|(_, feature)| feature.names()))
}

/// Names for a message, not more than anybody reads.
fn join<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const NAMES_MAX: usize = 40;
    let names: Vec<&str> = names.collect();
    let more = names.len().saturating_sub(NAMES_MAX);
    let mut text = names[..names.len() - more].join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group() -> FeatureGroup {
        let keys = [("id", KeyType::Int64), ("store", KeyType::String)];
        let features = [("a", FeatureType::Int32), ("b", FeatureType::Timestamp)];
        let mut group = FeatureGroup::simple(1, "g", &keys, &features);
        group.event_time = Some("b".into());
        group
    }

    fn resolve(names: &str, unknown: UnknownColumns) -> Result<Columns, String> {
        let names: Vec<String> = names.split(' ').map(str::to_owned).collect();
        Columns::resolve(Path::new("f.csv"), &names, &group(), unknown).map_err(|error| error.to_string())
    }

    #[test]
    fn columns_are_found_by_name_in_any_order() {
        let columns = resolve("b store x id a", UnknownColumns::Ignore).unwrap();
        assert_eq!(columns.keys.iter().map(|key| key.column).collect::<Vec<_>>(), [3, 1]);
        assert_eq!(columns.event_time, Some(("b".into(), 0)));
        assert_eq!(columns.features.iter().map(|f| (f.feature, f.column)).collect::<Vec<_>>(), [(0, 4), (1, 0)]);
        assert_eq!(columns.ignored, ["x"]);
        assert_eq!(resolve("b store id", UnknownColumns::Refuse).unwrap().features.len(), 1, "a partial row");
    }

    #[test]
    fn a_column_may_have_any_of_a_features_names_and_one_that_was_dropped_is_of_no_feature() {
        let mut group = group();
        group.features[0].aliases.push("aa".into());
        group.features[1].dropped = true;
        group.event_time = None;
        let resolve = |names: &str, unknown| {
            let names: Vec<String> = names.split(' ').map(str::to_owned).collect();
            Columns::resolve(Path::new("f.csv"), &names, &group, unknown).map_err(|error| error.to_string())
        };
        let columns = resolve("id store b aa", UnknownColumns::Ignore).unwrap();
        assert_eq!(columns.features.iter().map(|f| (f.feature, f.column)).collect::<Vec<_>>(), [(0, 3)]);
        assert_eq!(columns.ignored, ["b"]);
        let message = resolve("id store b aa", UnknownColumns::Refuse).unwrap_err();
        assert!(message.contains("has no columns b; it has id, store, a, aa"), "{message}");
        let message = resolve("id store a aa", UnknownColumns::Refuse).unwrap_err();
        assert!(message.contains("the column a or aa stands in the file twice"), "{message}");
    }

    #[test]
    fn wrong_columns_are_named() {
        for (names, wanted) in [
            ("id a b", "key column store is missing; the columns of the file are id, a, b"),
            ("id store a", "event time column b is missing"),
            ("id store a b c", "test/g@1 has no columns c; it has id, store, b, a, b"),
            ("id store a b a", "the column a stands in the file twice"),
        ] {
            let message = resolve(names, UnknownColumns::Refuse).unwrap_err();
            assert!(message.contains(wanted), "{message}\nshould have\n{wanted}");
        }
        let mut group = group();
        group.event_time = None;
        let names = ["id".to_owned(), "store".to_owned()];
        let error = Columns::resolve(Path::new("f"), &names, &group, UnknownColumns::Refuse).unwrap_err();
        assert!(error.to_string().contains("no feature of test/g@1; its features are a, b"));
    }
}
