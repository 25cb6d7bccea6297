//! `protocol::key`: canonical keys, and blocks of them.

use stoa_protocol::key::{KeyBlock, check_key, decode_key, encode_key, key_prefix};
use stoa_protocol::limits::{KEY_BYTES_MAX, KEY_COLUMN_BYTES_MAX, KEY_COLUMNS_MAX};
use stoa_protocol::{KeyType, KeyValue, Wire};

use super::Seed;
use crate::input::put_piece;
use crate::sample::KEY_TYPES;
use crate::{Input, round_trip};

/// A byte of how many columns, one of the type of each, the pieces of two keys, and a block of keys.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let columns = 1 + input.below(KEY_COLUMNS_MAX);
    let types: Vec<KeyType> = (0..columns).map(|_| KEY_TYPES[input.below(KEY_TYPES.len())]).collect();
    let (one, other) = (input.piece(), input.piece());
    if let (Some(left), Some(right)) = (key(&types, one), key(&types, other)) {
        assert_eq!(one.cmp(other), left.cmp(&right), "the order of bytes is that of values: {left:?} {right:?}");
    }
    block(input.rest());
}

/// The values of a key, if it is one.
fn key(types: &[KeyType], bytes: &[u8]) -> Option<Vec<KeyValue>> {
    let decoded = decode_key(types, bytes);
    assert_eq!(check_key(types, bytes), decoded.clone().map(drop));
    for columns in 0..=types.len() {
        match key_prefix(types, bytes, columns) {
            Ok(prefix) => assert!(bytes.starts_with(prefix)),
            Err(error) => assert!(decoded.is_err(), "{error}"),
        }
    }
    let values = decoded.inspect_err(|error| assert!(!error.to_string().is_empty())).ok()?;
    assert!(bytes.len() <= KEY_BYTES_MAX);
    assert!(values.iter().all(|value| match value {
        KeyValue::String(text) => (1..=KEY_COLUMN_BYTES_MAX).contains(&text.len()),
        KeyValue::Binary(raw) => (1..=KEY_COLUMN_BYTES_MAX).contains(&raw.len()),
        _ => true,
    }));
    for columns in 1..=types.len() {
        let mut prefix = Vec::new();
        assert_eq!(encode_key(&types[..columns], &values[..columns], &mut prefix), Ok(()));
        assert_eq!(key_prefix(types, bytes, columns), Ok(&prefix[..]));
        assert_eq!(prefix == bytes, columns == types.len());
    }
    Some(values)
}

fn block(bytes: &[u8]) {
    let Some(block) = round_trip::canonical::<KeyBlock>(bytes) else { return };
    assert!(block.iter().all(|key| key.len() <= KEY_BYTES_MAX));
    assert!(block.range(0, block.len()).iter().eq(block.iter()));
    let mut joined = Vec::new();
    KeyBlock::put_joined(&[&block, &block], &mut joined);
    let joined = KeyBlock::from_bytes(&joined).expect("blocks that are joined are a block");
    assert!(joined.iter().eq(block.iter().chain(block.iter())));
}

/// Keys of one column and of many, and a block.
pub fn seeds() -> Vec<Seed> {
    let seed = |columns: &[(u8, KeyValue)], block: &KeyBlock| {
        let types: Vec<_> = columns.iter().map(|(ty, _)| KEY_TYPES[usize::from(*ty)]).collect();
        let values: Vec<_> = columns.iter().map(|(_, value)| value.clone()).collect();
        let mut key = Vec::new();
        encode_key(&types, &values, &mut key).expect("values are of their types");
        let mut out = vec![columns.len() as u8 - 1];
        out.extend(columns.iter().map(|(ty, _)| *ty));
        put_piece(&key, &mut out);
        put_piece(&key, &mut out);
        block.put(&mut out);
        out
    };
    let mut block = KeyBlock::new();
    [&b"one"[..], b"", b"three"].iter().for_each(|key| block.push(key));
    let text = |text: &str| KeyValue::String(text.into());
    let all = [
        (0, KeyValue::Bool(true)),
        (1, KeyValue::Int(-3)),
        (5, text("a\0b")),
        (6, KeyValue::Date(-1)),
        (7, KeyValue::Timestamp(i64::MIN)),
        (8, KeyValue::Binary(vec![0, 255, 0])),
    ];
    vec![
        ("int64", seed(&[(4, KeyValue::Int(7))], &KeyBlock::new())),
        ("text", seed(&[(5, text("ab"))], &block)),
        ("all", seed(&all, &block)),
    ]
}
