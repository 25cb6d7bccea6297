//! The rows of a run: their features, and the values of a write, which tell whose they are.

use stoa_protocol::{FeatureType, Value};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The features of the group that clients share, in the order of its definition and of rows that were read.
pub const FEATURES: [&str; 6] = ["number", "text", "real", "flag", "items", "vector"];

/// One value in so many is null, but for the first feature.
const NULLS: u64 = 8;

/// Some of the features; at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features(u8);

impl Features {
    /// All of them.
    pub const ALL: Self = Self((1 << FEATURES.len()) - 1);

    /// Those whose bits are set; all of them if none is.
    pub const fn of_bits(bits: u64) -> Self {
        match bits as u8 & Self::ALL.0 {
            0 => Self::ALL,
            some => Self(some),
        }
    }

    /// Whether a feature is among them.
    pub fn has(self, feature: usize) -> bool {
        self.0 & (1 << feature) != 0
    }

    /// Their places, ascending.
    pub fn places(self) -> impl Iterator<Item = usize> {
        (0..FEATURES.len()).filter(move |feature| self.has(*feature))
    }
}

/// What a write says of its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// It deletes it.
    Delete,
    /// It gives these features values or nulls, and leaves the others as they are.
    Update(Features),
}

/// The value that write `number` gives a feature.
pub fn value_of(number: u64, feature: usize) -> Value {
    if feature > 0 && xxh3_64_with_seed(&number.to_le_bytes(), feature as u64).is_multiple_of(NULLS) {
        return Value::Null;
    }
    let whole = number as i64;
    match FEATURES[feature] {
        "number" => Value::Int(whole),
        "text" => Value::String(format!("value {number} of a row that is whole")),
        "real" => Value::Float64(whole as f64 + 0.5),
        "flag" => Value::Bool(number.is_multiple_of(3)),
        "items" => Value::Array((0..=whole % 3).map(|at| Value::Int(whole + at)).collect()),
        _ => Value::FixedArray(vec![number as f32, -1.0, 0.0, number as f32]),
    }
}

/// The value as a feature of this type has it: features of the group may become wider in the middle of a run.
pub fn typed(value: Value, ty: FeatureType) -> Value {
    match (value, ty) {
        (Value::Float64(real), FeatureType::Float32) => Value::Float32(real as f32),
        (value, _) => value,
    }
}

/// The value as [`value_of`] makes it, in whatever width it was read.
pub fn untyped(value: Value) -> Value {
    match value {
        Value::Float32(real) => Value::Float64(f64::from(real)),
        value => value,
    }
}

/// The write that a value is of, as far as the value says it.
pub fn number_of(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        Value::String(text) => text.strip_prefix("value ")?.split(' ').next()?.parse().ok(),
        Value::Float64(real) if *real >= 0.0 => Some(*real as u64),
        Value::Array(items) => items.first().and_then(number_of),
        Value::FixedArray(floats) => floats.first().filter(|first| **first >= 0.0).map(|first| *first as u64),
        _ => None,
    }
}

/// What a row shows that write `number` has made, and nobody since.
pub fn whole_row(number: u64) -> Vec<Value> {
    (0..FEATURES.len()).map(|feature| value_of(number, feature)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_of_a_run_is_lost_in_the_narrowest_type_that_its_feature_has() {
        for number in [0, 1, 77, 1 << 22] {
            let value = value_of(number, 2);
            assert_eq!(untyped(typed(value.clone(), FeatureType::Float32)), value);
        }
    }

    #[test]
    fn a_value_tells_its_write_unless_it_is_null_or_a_flag() {
        for number in [0, 1, 2, 77, 12_345] {
            for (feature, value) in whole_row(number).iter().enumerate() {
                let told = number_of(value);
                assert!(told == Some(number) || *value == Value::Null || FEATURES[feature] == "flag", "{value:?}");
            }
        }
    }
}
