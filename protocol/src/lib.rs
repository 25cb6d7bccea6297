//! What both ends of Stoa agree on: feature types and schemas, canonical keys and their hash, row batches, requests and
//! answers, error codes, and every limit.
//!
//! It must never know: tokio, sockets, Raft, clocks, chance. Everything here is bytes in, bytes out, and is tested by
//! itself. Foreign bytes are checked before anything is allocated for them; no input panics.
//!
//! Start reading at [`key`] (how an entity becomes bytes, and bytes a partition), then [`batch`] (rows on their way in),
//! [`read`] and [`row_block`] (rows on their way out), and [`frame`].

pub mod batch;
pub mod catalog;
pub mod codec;
pub mod error;
pub mod evolution;
pub mod feature;
pub mod fixed_map;
mod float16;
pub mod frame;
pub mod ids;
mod int8_scaled;
pub mod key;
pub mod limits;
pub mod map;
pub mod message;
pub mod position;
pub mod read;
pub mod row_block;
pub mod storage;
pub mod types;
pub mod value;
pub mod widen;

pub use batch::{BatchColumn, ColumnValues, RowBatch, RowBatchBuilder, RowOp};
pub use catalog::{Entity, FeatureGroup, FeatureView, KeyColumn, OnExpired, Ttl};
pub use codec::{DecodeError, Reader, Wire};
pub use error::{ErrorBody, ErrorClass, ErrorCode};
pub use feature::{EarlierType, Feature};
pub use fixed_map::{FixedMap, FixedSet};
pub use ids::*;
pub use key::{KeyError, KeyType, KeyValue};
pub use map::ClusterMap;
pub use position::Position;
pub use storage::{Storage, StorageError};
pub use types::{FeatureType, ItemType, Width};
pub use value::Value;
