//! How the schema of one version of a group changes while rows stand and clients work: features are added, with a default
//! or without, dropped, widened, and get further names. Nothing else changes, the storage of a feature neither; all else is a
//! new version of the group.
//!
//! What makes it safe for those who know an earlier schema: a feature keeps its place for ever, a name is given to one
//! feature for ever, and the definition remembers which type a feature had when ([`Feature::type_at`]).

use crate::catalog::{EarlierType, Feature, FeatureGroup};
use crate::storage::Storage;
use crate::types::FeatureType;
use crate::widen::{widen, widens};

impl Feature {
    /// The type that it had in a schema version of its group.
    pub fn type_at(&self, schema_version: u32) -> FeatureType {
        self.earlier.iter().find(|earlier| schema_version < earlier.until).map_or(self.ty, |earlier| earlier.ty)
    }

    /// Whether it is called this.
    pub fn is_called(&self, name: &str) -> bool {
        self.names().any(|known| known == name)
    }

    /// Its names, the canonical one first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.name.as_str()).chain(self.aliases.iter().map(String::as_str))
    }

    /// Whether it is the feature that has the place so far.
    fn stands_for(&self, old: &Self) -> Result<(), String> {
        let (name, given) = (&old.name, &self.name);
        match name == given {
            true => Ok(()),
            false => {
                Err(format!("{name} stands where {given} was given; names and places stay, and a new name is an alias"))
            }
        }
    }

    /// Whether it keeps what may not change, apart from name and type.
    fn keeps(&self, old: &Self) -> Result<(), String> {
        let name = &old.name;
        if let Some(lost) = old.aliases.iter().find(|alias| !self.aliases.contains(alias)) {
            return Err(format!("{name} is called {lost} as well, and names stay"));
        }
        if self.storage != old.storage {
            let named =
                |storage: Option<Storage>| storage.map_or_else(|| "none".to_owned(), |storage| storage.to_string());
            return Err(format!(
                "the storage of {name} is {} and does not become {}, as rows have their values in it",
                named(old.storage),
                named(self.storage)
            ));
        }
        if old.dropped && !self.dropped {
            return Err(format!("{name} was dropped and does not come back; give the new feature a name of its own"));
        }
        let default = old.default.as_ref().map(|bytes| match self.ty == old.ty {
            true => bytes.clone(),
            false => widen(old.ty, self.ty, bytes).to_vec(),
        });
        if self.default != default {
            return Err(format!("the default of {name} was set when it was defined and does not change"));
        }
        Ok(())
    }
}

/// The features of a group after a change, as the one who defines wants them. `schema_version` is that of the group after
/// it. The error says what may not change, and what would be right.
pub fn evolve(old: &[Feature], wanted: &[Feature], schema_version: u32) -> Result<Vec<Feature>, String> {
    if let Some(missing) = old.get(wanted.len()) {
        return Err(format!(
            "{} is left out; a feature that goes says `dropped: true` and keeps its place",
            missing.name
        ));
    }
    let mut features = Vec::with_capacity(wanted.len());
    for (at, wanted) in wanted.iter().enumerate() {
        if !wanted.earlier.is_empty() {
            return Err(format!("{} says which types it had; that is the catalog's to know", wanted.name));
        }
        let mut feature = wanted.clone();
        if let Some(old) = old.get(at) {
            feature.stands_for(old)?;
            feature.earlier.clone_from(&old.earlier);
            if wanted.ty != old.ty {
                if old.storage.is_some() {
                    let (name, ty) = (&old.name, old.ty);
                    return Err(format!(
                        "{name} has a storage, and its type stays {ty}; it cannot become {}",
                        wanted.ty
                    ));
                }
                if old.dropped || !widens(old.ty, wanted.ty) {
                    let message = format!(
                        "{} is {} and cannot become {}; Int8, Int16 and Int32 may become wider, and Float32 Float64",
                        old.name, old.ty, wanted.ty
                    );
                    return Err(message);
                }
                feature.earlier.push(EarlierType { until: schema_version, ty: old.ty });
            }
            feature.keeps(old)?;
        } else if wanted.dropped {
            return Err(format!("{} is new, and said to be dropped", wanted.name));
        }
        features.push(feature);
    }
    Ok(features)
}

impl FeatureGroup {
    /// Whether this definition may take the place of `old`, which may be several schema versions behind. Descriptions, time
    /// to live and late horizon may change with it.
    pub fn follows(&self, old: &Self) -> Result<(), String> {
        let identity = |group: &Self| (group.project.clone(), group.name.clone(), group.version, group.set);
        let keys = |group: &Self| (group.entity.name.clone(), group.entity.keys.clone(), group.entity.partition_by);
        if identity(old) != identity(self) || keys(old) != keys(self) || old.event_time != self.event_time {
            return Err("project, name, version, set, entity, keys and event time of a group do not change".into());
        }
        if self.schema_version <= old.schema_version {
            return Err(format!("another definition of schema {} cannot follow", self.schema_version));
        }
        if self.features.len() < old.features.len() {
            return Err("features keep place, name and type; new ones come after the last".into());
        }
        for (old_feature, new) in old.features.iter().zip(&self.features) {
            new.stands_for(old_feature)?;
            // The types are a chain that `check` has walked, so what it was then widens to what it is.
            if !new.earlier.starts_with(&old_feature.earlier) || new.type_at(old.schema_version) != old_feature.ty {
                return Err(format!("{} is {}, and does not become {}", old_feature.name, old_feature.ty, new.ty));
            }
            new.keeps(old_feature)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Wire;
    use crate::key::KeyType;

    fn group() -> FeatureGroup {
        let features = [("a", FeatureType::Int8), ("b", FeatureType::Float32), ("c", FeatureType::String)];
        FeatureGroup::simple(1, "g", &[("id", KeyType::Int64)], &features)
    }

    /// The group after a change to its features.
    fn after(old: &FeatureGroup, change: impl FnOnce(&mut Vec<Feature>)) -> Result<FeatureGroup, String> {
        let mut wanted = old.features.clone();
        wanted.iter_mut().for_each(|feature| feature.earlier.clear());
        change(&mut wanted);
        let mut new = old.clone();
        new.schema_version += 1;
        new.features = evolve(&old.features, &wanted, new.schema_version)?;
        new.check().map_err(|error| error.to_string())?;
        new.follows(old)?;
        assert_eq!(FeatureGroup::from_bytes(&new.to_bytes()), Ok(new.clone()));
        Ok(new)
    }

    #[test]
    fn a_group_changes_step_by_step_or_by_several_at_once_and_knows_its_types() {
        let first = group();
        let added = Feature { default: Some(vec![7]), ..Feature::new("d", FeatureType::Int8) };
        let second = after(&first, |features| features.push(added)).unwrap();
        let third = after(&second, |f| (f[0].ty, f[1].dropped) = (FeatureType::Int16, true)).unwrap();
        let fourth = after(&third, |f| {
            f[0].ty = FeatureType::Int64;
            f[2].aliases.push("text".into());
            (f[3].ty, f[3].default) = (FeatureType::Int32, Some(7i32.to_le_bytes().to_vec()));
        })
        .unwrap();
        let types: Vec<_> = (1..6).map(|version| fourth.features[0].type_at(version)).collect();
        assert_eq!(
            types,
            [FeatureType::Int8, FeatureType::Int8, FeatureType::Int16, FeatureType::Int64, FeatureType::Int64]
        );
        for (at, old) in [&first, &second, &third].into_iter().enumerate() {
            assert_eq!(fourth.follows(old), Ok(()), "from schema {}", at + 1);
            assert!(old.follows(&fourth).is_err());
        }
        assert_eq!((fourth.feature("text"), fourth.feature("c"), fourth.feature("b")), (Some(2), Some(2), None));
    }

    #[test]
    fn a_storage_comes_with_its_feature_and_stays() {
        let vector = FeatureType::FixedArray { items: 4 };
        let narrow = |storage| Feature { storage: Some(storage), ..Feature::new("d", vector) };
        let old = after(&group(), |f| f.push(narrow(Storage::Int8Scaled))).unwrap();
        let number = Feature { storage: Some(Storage::Float16), ..Feature::new("e", FeatureType::Float32) };
        let old = after(&old, |f| f.push(number)).unwrap();
        assert_eq!(old.features[3].storage, Some(Storage::Int8Scaled));
        let renamed = after(&old, |f| f[3].aliases.push("dd".into())).unwrap();
        assert!(after(&renamed, |f| f[3].dropped = true).is_ok());
        type Change = fn(&mut Vec<Feature>);
        let cases: [(Change, &str); 6] = [
            (|f| f[3].storage = None, "the storage of d is int8_scaled and does not become none"),
            (|f| f[3].storage = Some(Storage::Float16), "int8_scaled and does not become float16"),
            (|f| f[1].storage = Some(Storage::Float16), "the storage of b is none and does not become float16"),
            (|f| f[4].ty = FeatureType::Float64, "e has a storage, and its type stays Float32"),
            (|f| (f[4].ty, f[4].storage) = (FeatureType::Float64, None), "e has a storage"),
            (
                |f| f.push(Feature { storage: Some(Storage::Float16), ..Feature::new("g", FeatureType::Int8) }),
                "of Float32 and FixedArray alone",
            ),
        ];
        for (change, wanted) in cases {
            let message = after(&old, change).unwrap_err();
            assert!(message.contains(wanted), "{message}\nshould have\n{wanted}");
        }
        let mut exchanged = old.clone();
        exchanged.schema_version += 1;
        exchanged.features[3].storage = Some(Storage::Float16);
        assert!(exchanged.follows(&old).is_err());
    }

    #[test]
    fn what_would_mislead_those_who_know_an_earlier_schema_is_refused() {
        let old = after(&group(), |f| {
            f.push(Feature { default: Some(vec![7]), ..Feature::new("d", FeatureType::Int8) });
            f[2].aliases.push("text".into());
            f[1].dropped = true;
        })
        .unwrap();
        type Change = fn(&mut Vec<Feature>);
        let cases: [(Change, &str); 15] = [
            (|f| f.truncate(3), "d is left out"),
            (|f| f.swap(0, 2), "names and places stay"),
            (|f| f[0].name = "aa".into(), "a new name is an alias"),
            (|f| f[0].ty = FeatureType::Float64, "cannot become Float64"),
            (|f| f[2].ty = FeatureType::Binary, "cannot become Binary"),
            (|f| f[1].ty = FeatureType::Float64, "cannot become"),
            (|f| f[1].dropped = false, "does not come back"),
            (|f| f[2].aliases.clear(), "names stay"),
            (|f| f[3].default = None, "does not change"),
            (|f| f[3].default = Some(vec![8]), "does not change"),
            (|f| f[0].default = Some(vec![8]), "does not change"),
            (|f| f[0].earlier.push(EarlierType { until: 1, ty: FeatureType::Int8 }), "the catalog's to know"),
            (|f| f.push(Feature { dropped: true, ..Feature::new("e", FeatureType::Int8) }), "said to be dropped"),
            (|f| f[0].aliases.push("b".into()), "given once"),
            (|f| f.push(Feature::new("text", FeatureType::Int8)), "given once"),
        ];
        for (change, wanted) in cases {
            let message = after(&old, change).unwrap_err();
            assert!(message.contains(wanted), "{message}\nshould have\n{wanted}");
        }
        let mut exchanged = old.clone();
        exchanged.schema_version += 1;
        exchanged.features[0].ty = FeatureType::Int16;
        assert!(exchanged.follows(&old).is_err(), "a type that the definition does not remember");
    }
}
