//! One feature of a group: what its definition says of it, and the bytes of that.

use crate::codec::{DecodeError, Reader, Wire, get_list, put_list};
use crate::limits::FEATURE_ALIASES_MAX;
use crate::types::FeatureType;
use crate::value::check_value;
use crate::widen::{EARLIER_TYPES_MAX, widens};

/// A feature of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feature {
    /// Its name, unique in the group, not that of a key column.
    pub name: String,
    /// Its type.
    pub ty: FeatureType,
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
        let (aliases, earlier) = (Vec::new(), Vec::new());
        Self { name: name.into(), ty, description: String::new(), aliases, default: None, dropped: false, earlier }
    }

    /// Whether it has more than name, type and description: earlier programs know nothing of that.
    pub fn has_more(&self) -> bool {
        !self.aliases.is_empty() || self.default.is_some() || self.dropped || !self.earlier.is_empty()
    }

    /// Checks aliases, default and earlier types; its group is at this schema version.
    pub(crate) fn check(&self, schema_version: u32) -> Result<(), DecodeError> {
        if self.aliases.len() > FEATURE_ALIASES_MAX {
            let allowed = format!("up to {FEATURE_ALIASES_MAX}");
            return Err(DecodeError::invalid("the number of aliases", self.aliases.len(), allowed));
        }
        if let Some(bytes) = &self.default {
            let bad =
                |error| DecodeError::invalid("a default", format!("{error}, of {}", self.name), "of its feature's type");
            check_value(self.ty, bytes).map_err(bad)?;
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
    }

    fn get(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let name = String::get(input)?;
        let tag = u8::get(input)?;
        let parameter = u16::get(input)?.to_le_bytes();
        let ty = FeatureType::from_bytes(&[tag & !FEATURE_HAS_MORE, parameter[0], parameter[1]])?;
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
        Ok(feature)
    }
}
