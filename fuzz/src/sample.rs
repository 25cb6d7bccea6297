//! Definitions, rows and a partition that targets share.

use stoa_protocol::catalog::EarlierType;
use stoa_protocol::key::encode_key;
use stoa_protocol::message::SessionStep;
use stoa_protocol::{
    Feature, FeatureGroup, FeatureType, ItemType, KeyType, KeyValue, LogIndex, RowBatch, RowBatchBuilder, Storage,
    Value,
};
use stoa_store::{Command, Partition, PartitionReader, StoreOptions};

/// Every type of a feature, and lengths of arrays on both sides of what columns share lanes by.
pub const TYPES: [FeatureType; 18] = [
    FeatureType::Bool,
    FeatureType::Int8,
    FeatureType::Int16,
    FeatureType::Int32,
    FeatureType::Int64,
    FeatureType::Float32,
    FeatureType::Float64,
    FeatureType::Decimal128 { scale: 2 },
    FeatureType::Date,
    FeatureType::Timestamp,
    FeatureType::String,
    FeatureType::Binary,
    FeatureType::Json,
    FeatureType::Array(ItemType::String),
    FeatureType::Array(ItemType::Int16),
    FeatureType::Array(ItemType::Bool),
    FeatureType::FixedArray { items: 2 },
    FeatureType::FixedArray { items: 17 },
];

/// Every type of a key column.
pub const KEY_TYPES: [KeyType; 9] = [
    KeyType::Bool,
    KeyType::Int8,
    KeyType::Int16,
    KeyType::Int32,
    KeyType::Int64,
    KeyType::String,
    KeyType::Date,
    KeyType::Timestamp,
    KeyType::Binary,
];

/// A group whose keys lie in their rows.
pub fn product() -> FeatureGroup {
    let features =
        [("units", FeatureType::Int32), ("name", FeatureType::String), ("vector", FeatureType::FixedArray { items: 2 })];
    FeatureGroup { late_horizon_us: 10, ..FeatureGroup::simple(7, "product", &[("id", KeyType::Int64)], &features) }
}

/// A group with all types and every storage, whose keys lie in the arena.
pub fn visitor() -> FeatureGroup {
    let names: Vec<String> = (0..TYPES.len()).map(|at| format!("f{at}")).collect();
    let features: Vec<_> = names.iter().map(String::as_str).zip(TYPES).collect();
    let mut group =
        FeatureGroup::simple(9, "visitor", &[("name", KeyType::String), ("day", KeyType::Date)], &features);
    group.entity.partition_by = 1;
    for (at, storage) in [(5, Storage::Float16), (16, Storage::Float16), (17, Storage::Int8Scaled)] {
        group.features[at].storage = Some(storage);
    }
    group
}

/// The same group with one more feature, with a default if it is an Int32 and in a storage if it has one, and with one more
/// change: a feature is widened if that is possible, dropped else.
pub fn grown(group: &FeatureGroup, ty: FeatureType) -> FeatureGroup {
    let mut group = group.clone();
    group.schema_version += 1;
    let changed = group.schema_version as usize % group.features.len();
    let feature = &mut group.features[changed];
    let wider = match feature.ty {
        FeatureType::Int8 => Some(FeatureType::Int16),
        FeatureType::Int16 => Some(FeatureType::Int64),
        FeatureType::Float32 if feature.storage.is_none() => Some(FeatureType::Float64),
        _ => None,
    };
    match wider.filter(|_| !feature.dropped && feature.default.is_none()) {
        Some(wider) => {
            let before = std::mem::replace(&mut feature.ty, wider);
            feature.earlier.push(EarlierType { until: group.schema_version, ty: before });
        }
        None => feature.dropped = true,
    }
    let mut feature = Feature::new(&format!("g{}", group.features.len()), ty);
    feature.default = (ty == FeatureType::Int32).then(|| vec![1, 0, 0, 0]);
    let storage = [Storage::Float16, Storage::Int8Scaled][group.schema_version as usize % 2];
    feature.storage = storage.check_type(ty).is_ok().then_some(storage);
    group.features.push(feature);
    group
}

/// A key of a group, by a number.
pub fn key(group: &FeatureGroup, number: u8) -> Vec<u8> {
    let value = |ty: &KeyType| match ty {
        KeyType::Bool => KeyValue::Bool(number & 1 == 1),
        KeyType::String => KeyValue::String(format!("v{number}")),
        KeyType::Binary => KeyValue::Binary(vec![0, number]),
        KeyType::Date => KeyValue::Date(i32::from(number)),
        KeyType::Timestamp => KeyValue::Timestamp(i64::from(number)),
        _ => KeyValue::Int(i64::from(number & 0x7f)),
    };
    let types = group.entity.key_types();
    let values: Vec<_> = types.iter().map(value).collect();
    let mut out = Vec::new();
    encode_key(&types, &values, &mut out).expect("values of the right types are a key");
    out
}

/// A value of a type, by a number; for some numbers there is none.
pub fn value(ty: FeatureType, number: u8) -> Value {
    use FeatureType as T;
    let wide = i64::from(number) * 0x0102_0304;
    match ty {
        _ if number.is_multiple_of(5) => Value::Null,
        T::Bool => Value::Bool(number & 1 == 1),
        T::Int8 => Value::Int(i64::from(number as i8)),
        T::Int16 => Value::Int(i64::from(wide as i16)),
        T::Int32 => Value::Int(i64::from(wide as i32)),
        T::Int64 => Value::Int(wide << 20),
        T::Float32 => Value::Float32(f32::from_bits(wide as u32)),
        T::Float64 => Value::Float64(f64::from_bits(wide as u64)),
        T::Decimal128 { .. } => Value::Decimal128(i128::from(wide) << 60),
        T::Date => Value::Date(wide as i32),
        T::Timestamp => Value::Timestamp(wide),
        T::String => Value::String("s".repeat(usize::from(number))),
        T::Binary => Value::Binary(vec![number; usize::from(number & 3)]),
        T::Json => Value::String(format!("[{number}]")),
        T::Array(item) => Value::Array(vec![self::value(item.as_feature_type(), number); usize::from(number & 3)]),
        T::FixedArray { items } => Value::FixedArray(vec![f32::from(number); usize::from(items)]),
    }
}

/// A row on its way in: its key's number, event time, sequence; its values, by one number, or a delete.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The number of the key.
    pub key: u8,
    /// The event time.
    pub time: i64,
    /// The source sequence.
    pub sequence: u64,
    /// The number of its values; `None` for a delete.
    pub values: Option<u8>,
}

/// The value of a feature, by a number; none if its storage does not keep it.
fn kept(feature: &Feature, number: u8) -> Value {
    let (value, mut bytes) = (value(feature.ty, number), Vec::new());
    value.encode(feature.ty, &mut bytes).expect("it is of the type");
    let is_kept = feature.storage.is_none_or(|storage| storage.check(&bytes).is_ok());
    if is_kept { value } else { Value::Null }
}

/// A batch of rows, with these features.
pub fn batch(group: &FeatureGroup, features: &[u16], rows: &[Row]) -> Option<RowBatch> {
    let mut builder = RowBatchBuilder::new(group, features);
    let features: Vec<_> = builder.features().map(|feature| &group.features[usize::from(feature)]).collect();
    for row in rows {
        let key = key(group, row.key);
        match row.values {
            None => builder.delete(&key, row.time, row.sequence),
            Some(number) => {
                let values: Vec<_> =
                    features.iter().zip(0u8..).map(|(feature, at)| kept(feature, number.wrapping_add(at))).collect();
                builder.upsert(&key, row.time, row.sequence, &values).expect("values of the right types are taken");
            }
        }
    }
    builder.finish()
}

/// What the sample partition's log says.
pub fn commands() -> Vec<Command> {
    let (product, visitor) = (product(), visitor());
    let later = grown(&product, FeatureType::Binary);
    let row = |key, time, values| Row { key, time, sequence: 0, values };
    let write = |stamp_us, session: u128, batch: Option<RowBatch>| Command::Write {
        stamp_us,
        step: (session > 0).then_some(SessionStep { session, sequence: 1 }),
        batch: batch.expect("it has rows"),
    };
    let places: Vec<u16> = (0..visitor.features.len() as u16).collect();
    let rows: Vec<Row> = (1..12).map(|n| row(n, i64::from(n), Some(n))).collect();
    vec![
        Command::Define(product.clone()),
        Command::Define(visitor.clone()),
        write(100, 3, batch(&product, &[0, 1, 2], &rows)),
        write(101, 0, batch(&visitor, &places, &rows)),
        Command::Noop,
        write(102, 4, batch(&product, &[1], &[row(2, 20, Some(9)), row(3, 0, Some(9))])),
        Command::Define(later.clone()),
        write(103, 5, batch(&later, &[3], &[row(4, 21, Some(3)), row(30, 21, Some(3))])),
        write(104, 0, batch(&visitor, &[], &[row(5, 30, None), row(40, 30, None)])),
        write(105, 6, batch(&visitor, &[10, 17], &[row(6, 31, Some(12)), row(41, 31, Some(13))])),
    ]
}

/// The sample partition, and a reader of it.
pub fn partition(options: StoreOptions) -> (Partition, PartitionReader) {
    let (mut partition, reader) = Partition::new(options);
    for (index, command) in (1..).zip(commands()) {
        partition.apply(LogIndex(index), &command);
    }
    (partition, reader)
}
