//! What people write: types, full names, cluster ids.

use stoa_protocol::catalog::parse_full_name;
use stoa_protocol::codec::check_name;
use stoa_protocol::limits::NAME_BYTES_MAX;
use stoa_protocol::{ClusterId, FeatureType, KeyType, Wire};

use super::Seed;
use crate::sample;

/// A text.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(ty) = FeatureType::parse(text) {
        assert_eq!(FeatureType::parse(&ty.to_string()), Ok(ty));
        assert_eq!(FeatureType::from_bytes(&ty.to_bytes()), Ok(ty));
    }
    if let Ok(ty) = KeyType::parse(text) {
        assert_eq!((ty.to_string().as_str(), KeyType::from_bytes(&ty.to_bytes())), (text.trim(), Ok(ty)));
    }
    if check_name("a name", text).is_ok() {
        assert!((1..=NAME_BYTES_MAX).contains(&text.len()) && text.is_ascii());
    }
    if let Ok((project, name, version)) = parse_full_name("a view", text) {
        let full = format!("{project}/{name}@{version}");
        assert_eq!(parse_full_name("a view", &full), Ok((project, name, version)));
    }
    if let Some(id) = ClusterId::parse(text) {
        assert_eq!(id.to_string(), text.to_ascii_lowercase(), "an id is 32 hexadecimal digits");
    }
}

/// A text of each kind.
pub fn seeds() -> Vec<Seed> {
    let ty = |at: usize| sample::TYPES[at].to_string().into_bytes();
    vec![
        ("cluster", ClusterId(0xab << 100).to_string().into_bytes()),
        ("name", b"shop/rank_products@1".to_vec()),
        ("int", ty(3)),
        ("decimal", ty(7)),
        ("array", ty(13)),
        ("fixed_array", ty(16)),
    ]
}
