//! `protocol::value` and `protocol::types`: the bytes of one value.

use stoa_protocol::limits::VALUE_BYTES_MAX;
use stoa_protocol::value::check_value;
use stoa_protocol::{FeatureType, Value, Width, Wire};

use super::Seed;
use crate::{Input, round_trip, sample};

/// Three bytes of type, then the value.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let Some(ty) = round_trip::canonical::<FeatureType>(&input.array::<3>()) else { return };
    let bytes = input.rest();
    let decoded = Value::decode(ty, bytes);
    assert_eq!(check_value(ty, bytes), decoded.clone().map(drop));
    let value = match decoded {
        Ok(value) => value,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    match ty.width() {
        Width::Fixed(width) => assert_eq!(bytes.len(), width),
        Width::Variable => assert!(bytes.len() <= VALUE_BYTES_MAX),
    }
    let mut again = Vec::new();
    assert_eq!(value.encode(ty, &mut again), Ok(()));
    assert_eq!(again, bytes, "{value:?} of {ty} has two forms");
    let _ = value.to_string();
}

/// A value of each type.
pub fn seeds() -> Vec<Seed> {
    let names = [
        "bool", "int8", "int16", "int32", "int64", "float32", "float64", "decimal", "date", "timestamp", "string",
        "binary", "json", "strings", "int16s", "bools", "pair", "vector",
    ];
    let seed = |ty: FeatureType| {
        let mut bytes = ty.to_bytes();
        sample::value(ty, 7).encode(ty, &mut bytes).expect("it is of its type");
        bytes
    };
    names.into_iter().zip(sample::TYPES.map(seed)).collect()
}
