//! The published vectors of keys: values, canonical bytes, and the hash that decides the partition. Other
//! implementations check themselves against the same file; what it says may never change.
//!
//! Integers stand for Date (days) and Timestamp (microseconds); Binary values are hexadecimal.

use serde::Deserialize;
use stoa_protocol::key::{KeyType, KeyValue, check_key, decode_key, encode_key, key_prefix, partition_hash};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    types: Vec<String>,
    values: Vec<VectorValue>,
    canonical_hex: String,
    partition_by: usize,
    partition_hash_hex: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum VectorValue {
    Bool(bool),
    Integer(i64),
    Text(String),
}

impl VectorValue {
    fn key_value(&self, ty: KeyType) -> KeyValue {
        match (ty, self) {
            (KeyType::Bool, Self::Bool(v)) => KeyValue::Bool(*v),
            (KeyType::Date, Self::Integer(v)) => KeyValue::Date(i32::try_from(*v).expect("a Date has 32 bits")),
            (KeyType::Timestamp, Self::Integer(v)) => KeyValue::Timestamp(*v),
            (KeyType::Int8 | KeyType::Int16 | KeyType::Int32 | KeyType::Int64, Self::Integer(v)) => KeyValue::Int(*v),
            (KeyType::String, Self::Text(v)) => KeyValue::String(v.clone()),
            (KeyType::Binary, Self::Text(v)) => KeyValue::Binary(bytes_of(v)),
            _ => panic!("a value that does not belong to {ty}"),
        }
    }
}

fn vectors() -> Vec<Vector> {
    serde_json::from_str(include_str!("fixtures/keys.json")).expect("the fixture is a list of vectors")
}

fn bytes_of(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2), "{hex}");
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("two hexadecimal digits"))
        .collect()
}

fn types_of(vector: &Vector) -> Vec<KeyType> {
    vector.types.iter().map(|name| KeyType::parse(name).expect("the name of a key type")).collect()
}

#[test]
fn every_vector_has_its_bytes_and_its_hash() {
    for (at, vector) in vectors().iter().enumerate() {
        let types = types_of(vector);
        assert_eq!(types.len(), vector.values.len(), "vector {at}");
        let values: Vec<_> = vector.values.iter().zip(&types).map(|(value, ty)| value.key_value(*ty)).collect();
        let mut key = Vec::new();
        encode_key(&types, &values, &mut key).unwrap();
        assert_eq!(key, bytes_of(&vector.canonical_hex), "vector {at}: canonical bytes");
        assert_eq!(decode_key(&types, &key).unwrap(), values, "vector {at}: back from its bytes");
        check_key(&types, &key).unwrap();
        let prefix = key_prefix(&types, &key, vector.partition_by).unwrap();
        assert_eq!(format!("{:016x}", partition_hash(prefix)), vector.partition_hash_hex, "vector {at}: hash");
    }
}

#[test]
fn the_vectors_cover_every_type_and_prefixes() {
    let vectors = vectors();
    assert!(vectors.len() >= 25);
    for name in ["Bool", "Int8", "Int16", "Int32", "Int64", "Date", "Timestamp", "String", "Binary"] {
        assert!(vectors.iter().any(|vector| vector.types == [name]), "{name} by itself");
    }
    assert!(vectors.iter().any(|vector| vector.partition_by < vector.types.len()));
    assert!(vectors.iter().all(|vector| (1..=vector.types.len()).contains(&vector.partition_by)));
}

#[test]
fn byte_order_of_the_vectors_is_value_order() {
    let vectors = vectors();
    for a in &vectors {
        for b in vectors.iter().filter(|b| a.types == b.types) {
            let values = |vector: &Vector| -> Vec<_> {
                vector.values.iter().zip(types_of(vector)).map(|(value, ty)| value.key_value(ty)).collect()
            };
            assert_eq!(values(a).cmp(&values(b)), bytes_of(&a.canonical_hex).cmp(&bytes_of(&b.canonical_hex)));
        }
    }
}
