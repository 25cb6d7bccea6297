//! What a view needs of its caller and of each group, worked out once when the view is opened.

use stoa_protocol::limits::KEY_BYTES_MAX;
use stoa_protocol::message::ViewAnswer as ViewDefinition;
use stoa_protocol::{FeatureGroup, FeatureGroupId, FeatureType, FeatureView, KeyColumn, KeyError, PartitionSetId};

use crate::error::RowsError;

/// A view made ready for reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewPlan {
    /// `project/name@version`.
    pub name: String,
    /// The key columns that a caller gives.
    pub keys: Vec<KeyColumn>,
    /// The different keys that the groups are read by. Groups that share one are looked up with the same keys.
    pub entities: Vec<EntityPlan>,
    /// The groups read, each once.
    pub groups: Vec<GroupPlan>,
    /// The columns of the answer, in view order.
    pub columns: Vec<ColumnPlan>,
}

/// One key: which of the view's key columns make it up, and where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntityPlan {
    /// Places among the view's key columns, in the order of the canonical key.
    pub columns: Vec<usize>,
    /// How many of them decide the partition.
    pub partition_by: usize,
    /// Where its partitions lie.
    pub set: PartitionSetId,
}

/// What is read of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupPlan {
    /// The group.
    pub id: FeatureGroupId,
    /// `project/name@version`.
    pub name: String,
    /// The schema that the places are of.
    pub schema_version: u32,
    /// Place of its key in [`ViewPlan::entities`].
    pub entity: usize,
    /// Places of the features read, in the order of the answer's columns.
    pub features: Vec<u16>,
    /// Their types.
    pub types: Vec<FeatureType>,
}

/// One column of the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnPlan {
    /// Its name in the view.
    pub name: String,
    /// Its type when the view was opened; see [`Column::ty`](crate::Column::ty).
    pub ty: FeatureType,
    /// Place of its group in [`ViewPlan::groups`].
    pub group: usize,
    /// Its place in that group's [`GroupPlan::features`].
    pub place: usize,
}

impl ViewPlan {
    /// Works the plan out. The error says how the definition contradicts itself.
    pub fn new(definition: &ViewDefinition) -> Result<Self, String> {
        let view = &definition.view;
        let mut plan = Self {
            name: view.full_name(),
            keys: view.keys.clone(),
            entities: Vec::new(),
            groups: Vec::new(),
            columns: Vec::with_capacity(view.features.len()),
        };
        for wanted in &view.features {
            let group = definition.groups.iter().find(|group| group.id == wanted.group);
            let group = group.ok_or_else(|| {
                format!("its feature {} is of group {}, which the node did not send", wanted.name, wanted.group)
            })?;
            let feature = group.features.get(usize::from(wanted.feature)).ok_or_else(|| {
                format!("its feature {} is number {} of {}", wanted.name, wanted.feature, group.full_name())
            })?;
            let at = plan.group(view, group)?;
            let place = plan.groups[at].features.len();
            plan.groups[at].features.push(wanted.feature);
            plan.groups[at].types.push(feature.ty);
            plan.columns.push(ColumnPlan { name: wanted.name.clone(), ty: feature.ty, group: at, place });
        }
        Ok(plan)
    }

    /// Where each of the view's key columns stands among the caller's columns.
    pub fn match_columns(&self, given: &[String]) -> Result<Vec<usize>, RowsError> {
        match_columns(&self.name, &self.keys, given)
    }

    fn group(&mut self, view: &FeatureView, group: &FeatureGroup) -> Result<usize, String> {
        if let Some(at) = self.groups.iter().position(|plan| plan.id == group.id) {
            return Ok(at);
        }
        let columns: Result<Vec<usize>, String> = group
            .entity
            .keys
            .iter()
            .map(|key| {
                view.keys.iter().position(|column| column == key).ok_or_else(|| {
                    format!("{} is keyed by {} {}, which the view's keys lack", group.full_name(), key.name, key.ty)
                })
            })
            .collect();
        let entity = EntityPlan {
            columns: columns?,
            partition_by: usize::from(group.entity.partition_by).min(group.entity.keys.len()),
            set: group.set,
        };
        let at = self.entities.iter().position(|known| *known == entity).unwrap_or(self.entities.len());
        if at == self.entities.len() {
            self.entities.push(entity);
        }
        self.groups.push(GroupPlan {
            id: group.id,
            name: group.full_name(),
            schema_version: group.schema_version,
            entity: at,
            features: Vec::new(),
            types: Vec::new(),
        });
        Ok(self.groups.len() - 1)
    }
}

/// Where each of `keys` stands among the columns `given`, each of which must be one of `keys`.
pub(crate) fn match_columns(of: &str, keys: &[KeyColumn], given: &[String]) -> Result<Vec<usize>, RowsError> {
    let wanted = || keys.iter().map(|key| format!("{} {}", key.name, key.ty)).collect();
    for (at, column) in given.iter().enumerate() {
        if !keys.iter().any(|key| key.name == *column) {
            return Err(RowsError::Unknown { column: column.clone(), of: of.to_owned(), wanted: wanted() });
        }
        if given[..at].contains(column) {
            return Err(RowsError::Twice { column: column.clone() });
        }
    }
    keys.iter()
        .map(|key| {
            given.iter().position(|column| *column == key.name).ok_or_else(|| RowsError::Missing {
                column: key.name.clone(),
                of: of.to_owned(),
                wanted: wanted(),
            })
        })
        .collect()
}

/// A key error of a single column, told of the row and column that it is about.
pub(crate) fn key_error(row: usize, column: &KeyColumn, error: KeyError) -> RowsError {
    let why = match error {
        KeyError::Type { wanted, given, .. } => format!("{given} was given; give a value of {wanted}"),
        KeyError::Range { low, high, given, .. } => format!("{given} was given; it may be {low} to {high}"),
        KeyError::Empty { .. } => "the value is empty; give at least one byte".to_owned(),
        KeyError::TooLong { bytes, limit } => format!("the value has {bytes} bytes; it may have up to {limit}"),
        other => other.to_string(),
    };
    RowsError::Key { row, column: column.name.clone(), ty: column.ty, why }
}

/// Refuses a key whose columns are too long together.
pub(crate) fn check_key_bytes<'a>(
    row: usize,
    columns: impl Iterator<Item = &'a KeyColumn>,
    bytes: usize,
) -> Result<(), RowsError> {
    if bytes <= KEY_BYTES_MAX {
        return Ok(());
    }
    let columns = columns.map(|column| column.name.clone()).collect();
    Err(RowsError::KeyTooLong { row, columns, bytes, limit: KEY_BYTES_MAX })
}

#[cfg(test)]
pub(crate) mod tests {
    use stoa_protocol::catalog::ViewFeature;
    use stoa_protocol::{KeyType, ViewId};

    use super::*;

    /// A household group, two product groups of one entity, and a product x store group that sits with its product.
    pub(crate) fn shop() -> ViewDefinition {
        let key = |name: &str| (name.to_owned(), KeyType::Int64);
        let make = |id, name: &str, keys: &[(String, KeyType)], partition_by| {
            let keys: Vec<_> = keys.iter().map(|(name, ty)| (name.as_str(), *ty)).collect();
            let features =
                [("units", FeatureType::Int32), ("share", FeatureType::Float32), ("tag", FeatureType::String)];
            let mut group = FeatureGroup::simple(id, name, &keys, &features);
            group.entity.partition_by = partition_by;
            group
        };
        let groups = vec![
            make(10, "household", &[key("household_id")], 1),
            make(11, "product", &[key("product_id")], 1),
            make(12, "product_price", &[key("product_id")], 1),
            make(13, "product_store", &[key("product_id"), key("store_id")], 1),
        ];
        let columns = [("h_units", 10, 0), ("p_share", 11, 1), ("price", 12, 1), ("p_tag", 11, 2), ("ps_units", 13, 0)];
        let features = columns.map(|(name, group, feature)| ViewFeature {
            name: name.into(),
            group: FeatureGroupId(group),
            feature,
        });
        let keys = ["household_id", "product_id", "store_id"];
        let view = FeatureView {
            id: ViewId(1),
            project: "shop".into(),
            name: "rank".into(),
            version: 1,
            keys: keys.map(|name| KeyColumn { name: name.into(), ty: KeyType::Int64 }).to_vec(),
            features: features.to_vec(),
            description: String::new(),
        };
        ViewDefinition { view, groups }
    }

    #[test]
    fn columns_keep_view_order_and_groups_of_one_key_share_it() {
        let plan = ViewPlan::new(&shop()).unwrap();
        let names: Vec<_> = plan.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names, ["h_units", "p_share", "price", "p_tag", "ps_units"]);
        assert_eq!(plan.groups.len(), 4);
        assert_eq!(plan.entities.len(), 3, "both product groups are read by the same key");
        assert_eq!(plan.groups[1].features, [1, 2]);
        assert_eq!((plan.columns[3].group, plan.columns[3].place), (1, 1));
        assert_eq!(plan.entities[2].columns, [1, 2]);
    }

    #[test]
    fn wrong_columns_are_named_with_the_right_ones() {
        let plan = ViewPlan::new(&shop()).unwrap();
        let given = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(plan.match_columns(&given(&["store_id", "household_id", "product_id"])).unwrap(), [1, 2, 0]);
        let missing = plan.match_columns(&given(&["household_id", "product_id"])).unwrap_err();
        assert!(matches!(&missing, RowsError::Missing { column, .. } if column == "store_id"), "{missing}");
        let unknown = plan.match_columns(&given(&["household_id", "shop_id"])).unwrap_err();
        assert_eq!(
            unknown.to_string(),
            "shop/rank@1 has no key column shop_id; its key columns are household_id Int64, product_id Int64, store_id Int64"
        );
        let twice = plan.match_columns(&given(&["household_id", "household_id"])).unwrap_err();
        assert!(matches!(twice, RowsError::Twice { .. }));
    }

    #[test]
    fn a_definition_that_contradicts_itself_is_refused() {
        let mut definition = shop();
        definition.groups.remove(0);
        assert!(ViewPlan::new(&definition).unwrap_err().contains("group 10"));
        let mut definition = shop();
        definition.view.features[0].feature = 9;
        assert!(ViewPlan::new(&definition).unwrap_err().contains("number 9"));
        let mut definition = shop();
        definition.view.keys.remove(2);
        assert!(ViewPlan::new(&definition).unwrap_err().contains("store_id"));
    }
}
