//! One feature of a group: what its definition says of it, and the bytes of that.

use crate::codec::{DecodeError, Reader, Wire, get_list, put_list};
use crate::limits::FEATURE_ALIASES_MAX;
use crate::storage::Storage;
use crate::types::{FeatureType, Width};
use crate::value::check_value;
use crate::widen::{EARLIER_TYPES_MAX, widens};

/// A feature of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feature {
    /// Its name, unique in the group, not that of a key column.
    pub name: String,
    /// Its type.
    pub ty: FeatureType,
    /// How its values are kept, if not in their type. It is of a type that it fits, and does not change.
    pub storage: Option<Storage>,
    /// What it means, for people.
    pub description: String,
    /// Further names, as good as the first one and as unique.
    pub aliases: Vec<String>,
    /// The bytes of what rows have that were written without the feature; `None`: a null. A null that was written stays one.
    pub default: Option<Vec<u8>>,
    /// Whether it is gone: what batches have of it is passed over, and nobody reads it. It keeps its place and its names.
    pub dropped: bool,
    /// The types that it had before, the first one first. The root group's to fill in: empty in a definition by names.
    pub earlier: Vec<EarlierType>,
}

/// A type that a feature had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EarlierType {
    /// The first schema version of the group in which it had another one.
    pub until: u32,
    /// The type.
    pub ty: FeatureType,
}
crate::wire_struct!(EarlierType { until, ty });

impl Feature {
    /// A feature with a name and a type, and nothing else.
    pub fn new(name: &str, ty: FeatureType) -> Self {
        Self {
            name: name.into(),
            ty,
            storage: None,
            description: String::new(),
            aliases: Vec::new(),
            default: None,
            dropped: false,
            earlier: Vec::new(),
        }
    }

    /// Bytes of a value of fixed width where it is kept: in lanes, in snapshots, and in the limit on writes.
    pub fn stored_width(&self) -> Width {
        self.storage.map_or_else(|| self.ty.width(), |storage| Width::Fixed(storage.width(self.ty)))
    }

    /// The bytes of its default as they are read: those of a value that was written.
    pub fn default_as_read(&self) -> Option<Vec<u8>> {
        let bytes = self.default.as_ref()?;
        Some(self.storage.map_or_else(|| bytes.clone(), |storage| storage.as_read(bytes)))
    }

    /// Whether it has more than name, type, description and storage: earlier programs know nothing of that.
    pub fn has_more(&self) -> bool {
        !self.aliases.is_empty() || self.default.is_some() || self.dropped || !self.earlier.is_empty()
    }

    /// Checks storage, aliases, default and earlier types; its group is at this schema version.
    pub(crate) fn check(&self, schema_version: u32) -> Result<(), DecodeError> {
        self.storage.map_or(Ok(()), |storage| storage.check_type(self.ty))?;
        if self.aliases.len() > FEATURE_ALIASES_MAX {
            let allowed = format!("up to {FEATURE_ALIASES_MAX}");
            return Err(DecodeError::invalid("the number of aliases", self.aliases.len(), allowed));
        }
        if let Some(bytes) = &self.default {
            let bad = |error| {
                DecodeError::invalid("a default", format!("{error}, of {}", self.name), "of its feature's type")
            };
            check_value(self.ty, bytes).map_err(bad)?;
            self.storage.map_or(Ok(()), |storage| storage.check(bytes)).map_err(|error| bad(error.into()))?;
        }
        if self.earlier.len() > EARLIER_TYPES_MAX {
            let allowed = format!("up to {EARLIER_TYPES_MAX}");
            return Err(DecodeError::invalid("the number of earlier types", self.earlier.len(), allowed));
        }
        let mut chain = self.earlier.iter().map(|earlier| (earlier.until, earlier.ty)).collect::<Vec<_>>();
        chain.push((schema_version.saturating_add(1), self.ty));
        let rises = |pair: &[(u32, FeatureType)]| pair[0].0 < pair[1].0 && widens(pair[0].1, pair[1].1);
        if chain[0].0 < 2 || !chain.windows(2).all(rises) {
            let allowed = format!("ever wider, and of earlier schemas than {schema_version}");
            return Err(DecodeError::invalid("the earlier types of a feature", &self.name, allowed));
        }
        Ok(())
    }
}

/// Name, type and description. Where there is more, the type's tag has this bit, and the rest comes behind: a program that
/// knows no such features refuses the tag and misreads nothing.
const FEATURE_HAS_MORE: u8 = 0x80;
/// Likewise, where there is a storage, which comes last.
const FEATURE_HAS_STORAGE: u8 = 0x40;

impl Wire for Feature {
    fn put(&self, out: &mut Vec<u8>) {
        self.name.put(out);
        let tag_at = out.len();
        self.ty.put(out);
        self.description.put(out);
        if self.has_more() {
            out[tag_at] |= FEATURE_HAS_MORE;
            put_list(&self.aliases, out);
            self.default.put(out);
            self.dropped.put(out);
            put_list(&self.earlier, out);
        }
        if let Some(storage) = self.storage {
            out[tag_at] |= FEATURE_HAS_STORAGE;
            storage.put(out);
        }
    }

    fn get(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let name = String::get(input)?;
        let tag = u8::get(input)?;
        let parameter = u16::get(input)?.to_le_bytes();
        let type_tag = tag & !(FEATURE_HAS_MORE | FEATURE_HAS_STORAGE);
        let ty = FeatureType::from_bytes(&[type_tag, parameter[0], parameter[1]])?;
        let mut feature = Self { name, description: Wire::get(input)?, ..Self::new("", ty) };
        if tag & FEATURE_HAS_MORE != 0 {
            feature.aliases = get_list(input, "aliases")?;
            feature.default = Wire::get(input)?;
            feature.dropped = Wire::get(input)?;
            feature.earlier = get_list(input, "earlier types")?;
            if !feature.has_more() {
                return Err(DecodeError::invalid("what more a feature has", "nothing", "something"));
            }
        }
        if tag & FEATURE_HAS_STORAGE != 0 {
            feature.storage = Some(Wire::get(input)?);
        }
        Ok(feature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_feature_has_more_comes_back_and_without_it_the_bytes_are_those_of_before() {
        let plain = Feature::new("x", FeatureType::Float32);
        let name = [1, 0, 0, 0, b'x'];
        let (tag, description) = ([6, 0, 0], [0; 4]);
        assert_eq!(plain.to_bytes(), [&name[..], &tag, &description].concat());
        let narrow = Feature { storage: Some(Storage::Float16), ..plain.clone() };
        assert_eq!(narrow.to_bytes(), [&name[..], &[0x46, 0, 0], &description, &[1]].concat());
        assert!(FeatureType::from_bytes(&[0x46, 0, 0]).is_err(), "a program of before refuses it");
        let default = Some(1_f32.to_le_bytes().to_vec());
        let both = Feature { default, aliases: vec!["y".into()], ..narrow.clone() };
        for feature in [plain, narrow, both] {
            let bytes = feature.to_bytes();
            assert_eq!(Feature::from_bytes(&bytes), Ok(feature.clone()));
            assert_eq!(feature.check(1), Ok(()));
            (0..bytes.len()).for_each(|cut| assert!(Feature::from_bytes(&bytes[..cut]).is_err()));
        }
    }

    #[test]
    fn a_default_is_kept_as_a_value_is_and_refused_if_its_storage_does_not_keep_it() {
        let ty = FeatureType::FixedArray { items: 2 };
        let with = |storage, values: [f32; 2]| Feature {
            storage: Some(storage),
            default: Some(values.iter().flat_map(|value| value.to_le_bytes()).collect()),
            ..Feature::new("x", ty)
        };
        let read = with(Storage::Int8Scaled, [127.0, 2.4]).default_as_read().unwrap();
        assert_eq!(read, [127_f32.to_le_bytes(), 2_f32.to_le_bytes()].concat());
        let (half, int8) = (Storage::Float16, Storage::Int8Scaled);
        assert_eq!(with(half, [f32::NAN, 65_504.0]).check(1), Ok(()));
        for (feature, wanted) in [
            (with(half, [0.0, 65_505.0]), "a default is item 1 is 65505.0, and float16 keeps"),
            (with(int8, [f32::NAN, 0.0]), "a default is item 0 is NaN, and int8_scaled keeps"),
        ] {
            let message = feature.check(1).unwrap_err().to_string();
            assert!(message.contains(wanted), "{message}");
        }
    }
}
