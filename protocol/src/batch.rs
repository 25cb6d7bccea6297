//! Rows on their way in. The same bytes travel in the client's frame, in the log entry and into apply: they are laid out
//! once, by the client, and checked once, by the leader, before they are proposed.
//!
//! ```text
//!  0  u32  magic "SRB1"
//!  4  u16  format version, 1
//!  6  u16  flags: 1 rows have source sequences, 2 rows have operations
//!  8  u64  feature group
//! 16  u32  schema version
//! 20  u32  number of rows n
//! 24  u32  number of columns
//! 28  u32  0
//! 32       each part begins at a multiple of 8, zeros between:
//!          keys        u32[n + 1] ends, then the canonical bytes
//!          event time  i64[n], microseconds since 1970-01-01T00:00:00Z
//!          sequence    u64[n]           (flag 1; else all 0)
//!          operation   u8[n]            (flag 2; else all upserts) 0 upsert, 1 delete
//!          per column, features ascending:
//!            u16 feature, 3 bytes type, zeros to 8
//!            validity  one bit a row, lowest bit first, 1 present
//!            values    fixed width x n, or u32[n + 1] ends and the bytes
//! ```
//!
//! A column that is missing leaves the feature of existing rows as it was; a value that is absent makes it null.

use std::ops::Range;

use bytes::Bytes;

use crate::catalog::FeatureGroup;
use crate::codec::{DecodeError, Reader, Wire};
use crate::error::{ErrorBody, ErrorCode};
use crate::ids::FeatureGroupId;
use crate::key::check_key;
use crate::limits::{BATCH_BYTES_MAX, BATCH_ROWS_MAX, GROUP_FEATURES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::storage::Storage;
use crate::types::{FeatureType, Width};
use crate::value::{Value, ValueError, check_value};

const BATCH_MAGIC: u32 = u32::from_le_bytes(*b"SRB1");
const BATCH_FORMAT: u16 = 1;
const FLAG_SEQUENCES: u16 = 1;
const FLAG_OPS: u16 = 2;

/// What a row of a batch does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowOp {
    /// Writes the values given, keeps the others.
    Upsert,
    /// Removes the row, and keeps older events out for the group's late horizon.
    Delete,
}

/// A batch of rows of one group, whose layout has been checked: no accessor can fail.
#[derive(Debug, Clone)]
pub struct RowBatch {
    bytes: Bytes,
    group: FeatureGroupId,
    schema_version: u32,
    rows: usize,
    key_ends: Range<usize>,
    keys: Range<usize>,
    event_times: Range<usize>,
    sequences: Option<Range<usize>>,
    ops: Option<Range<usize>>,
    columns: Vec<BatchColumn>,
}

/// Where one column of a batch lies.
#[derive(Debug, Clone)]
pub struct BatchColumn {
    /// The feature's place in its group.
    pub feature: u16,
    /// The type that the writer meant.
    pub ty: FeatureType,
    validity: Range<usize>,
    ends: Option<Range<usize>>,
    values: Range<usize>,
}

impl RowBatch {
    /// Takes a batch apart and checks its layout: every range, every end, every flag. That it fits a group is
    /// [`RowBatch::check`]'s to say.
    pub fn parse(bytes: Bytes) -> Result<Self, DecodeError> {
        if bytes.len() > BATCH_BYTES_MAX {
            return Err(DecodeError::invalid("the bytes of a batch", bytes.len(), format!("up to {BATCH_BYTES_MAX}")));
        }
        let mut input = Reader::new(&bytes);
        let magic = u32::get(&mut input)?;
        let format = u16::get(&mut input)?;
        if magic != BATCH_MAGIC || format != BATCH_FORMAT {
            return Err(DecodeError::invalid("the batch's format", format!("{magic:08x} {format}"), "SRB1, format 1"));
        }
        let flags = u16::get(&mut input)?;
        if flags & !(FLAG_SEQUENCES | FLAG_OPS) != 0 {
            return Err(DecodeError::invalid("the batch's flags", flags, "1 and 2"));
        }
        let group = FeatureGroupId::get(&mut input)?;
        let schema_version = u32::get(&mut input)?;
        let rows = u32::get(&mut input)? as usize;
        let column_count = u32::get(&mut input)? as usize;
        if u32::get(&mut input)? != 0 {
            return Err(DecodeError::invalid("a reserved field of the batch", "not zero", "zero"));
        }
        if rows == 0 || rows > BATCH_ROWS_MAX {
            return Err(DecodeError::invalid("the rows of a batch", rows, format!("1 to {BATCH_ROWS_MAX}")));
        }
        if column_count > GROUP_FEATURES_MAX {
            return Err(DecodeError::invalid(
                "the columns of a batch",
                column_count,
                format!("to {GROUP_FEATURES_MAX}"),
            ));
        }
        let (key_ends, keys) = variable_part(&mut input, &bytes, rows, KEY_BYTES_MAX)?;
        let event_times = part(&mut input, rows * 8)?;
        let sequences = (flags & FLAG_SEQUENCES != 0).then(|| part(&mut input, rows * 8)).transpose()?;
        let ops = (flags & FLAG_OPS != 0).then(|| part(&mut input, rows)).transpose()?;
        if let Some(bad) = ops.as_ref().and_then(|range| bytes[range.clone()].iter().find(|&&op| op > 1)) {
            return Err(DecodeError::invalid("a row's operation", bad, "0 or 1"));
        }
        let mut columns: Vec<BatchColumn> = Vec::with_capacity(column_count.min(input.left() / 8));
        for _ in 0..column_count {
            let feature = u16::get(&mut input)?;
            let ty = FeatureType::get(&mut input)?;
            input.align(8)?;
            if columns.last().is_some_and(|last| last.feature >= feature) {
                return Err(DecodeError::invalid("the features of a batch", feature, "ascending, each once"));
            }
            let validity = part(&mut input, rows.div_ceil(8))?;
            let (ends, values) = match ty.width() {
                Width::Fixed(width) => (None, part(&mut input, rows * width)?),
                Width::Variable => {
                    let (ends, values) = variable_part(&mut input, &bytes, rows, VALUE_BYTES_MAX)?;
                    (Some(ends), values)
                }
            };
            columns.push(BatchColumn { feature, ty, validity, ends, values });
        }
        input.finish()?;
        Ok(Self { bytes, group, schema_version, rows, key_ends, keys, event_times, sequences, ops, columns })
    }

    /// Checks that the batch can be applied to a group of this definition: schema version, features, types, canonical
    /// keys, values, that these can be kept in their storage, event times not after `event_time_max` (microseconds). Apply does
    /// not check values again, but for their storage.
    ///
    /// A batch of an earlier schema version fits: features keep their places, and the definition knows which types they had
    /// then. Of a feature that was dropped since it may have anything.
    pub fn check(&self, group: &FeatureGroup, event_time_max: i64) -> Result<(), ErrorBody> {
        let fail = |code, message: String| Err(ErrorBody::new(code, message));
        if self.schema_version > group.schema_version || self.group != group.id {
            let message = format!(
                "the batch is for group {} schema {}, and {} is group {} schema {}",
                self.group,
                self.schema_version,
                group.full_name(),
                group.id,
                group.schema_version
            );
            return fail(ErrorCode::SchemaMismatch, message);
        }
        let types = group.entity.key_types();
        for row in 0..self.rows {
            if let Err(error) = check_key(&types, self.key(row)) {
                return fail(ErrorCode::BadKey, format!("row {row} of the batch: {error}"));
            }
            let event_time = self.event_time(row);
            if event_time > event_time_max {
                let message = format!(
                    "row {row} of the batch: its event time {event_time} us is more than 5 minutes after the leader's \
                     clock; the latest allowed is {event_time_max}"
                );
                return fail(ErrorCode::EventInFuture, message);
            }
        }
        for (at, column) in self.columns.iter().enumerate() {
            let Some(feature) = group.features.get(usize::from(column.feature)) else {
                let message = format!("{} has no feature {}", group.full_name(), column.feature);
                return fail(ErrorCode::SchemaMismatch, message);
            };
            let ty = feature.type_at(self.schema_version);
            if ty != column.ty {
                let (name, schema) = (&feature.name, self.schema_version);
                let message = format!("feature {name} is {ty} in schema {schema}, and the batch has {}", column.ty);
                return fail(ErrorCode::SchemaMismatch, message);
            }
            for row in 0..self.rows {
                if let Some(Err(error)) = self.value(at, row).map(|bytes| check_value(column.ty, bytes)) {
                    return fail(ErrorCode::BadValue, format!("row {row}, feature {}: {error}", feature.name));
                }
            }
        }
        self.check_storage(group)
    }

    /// The bytes, as they travel.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
    /// The group that the rows are of.
    pub fn group(&self) -> FeatureGroupId {
        self.group
    }
    /// The schema version that the writer meant.
    pub fn schema_version(&self) -> u32 {
        self.schema_version
    }
    /// Number of rows, at least 1.
    pub fn rows(&self) -> usize {
        self.rows
    }
    /// The columns, features ascending.
    pub fn columns(&self) -> &[BatchColumn] {
        &self.columns
    }

    /// The canonical key of a row.
    pub fn key(&self, row: usize) -> &[u8] {
        let start = self.u32_at(&self.key_ends, row);
        let end = self.u32_at(&self.key_ends, row + 1);
        &self.bytes[self.keys.start + start..self.keys.start + end]
    }

    /// The event time of a row, microseconds since 1970-01-01T00:00:00Z.
    pub fn event_time(&self, row: usize) -> i64 {
        i64::from_le_bytes(self.eight(&self.event_times, row))
    }

    /// The source sequence of a row, which breaks ties of event time; 0 if the batch has none.
    pub fn sequence(&self, row: usize) -> u64 {
        self.sequences.as_ref().map_or(0, |range| u64::from_le_bytes(self.eight(range, row)))
    }

    /// What the row does.
    pub fn op(&self, row: usize) -> RowOp {
        match &self.ops {
            Some(range) if self.bytes[range.start + row] == 1 => RowOp::Delete,
            _ => RowOp::Upsert,
        }
    }

    /// The value of a row in the column at place `column` of [`RowBatch::columns`]; `None` if it is null.
    pub fn value(&self, column: usize, row: usize) -> Option<&[u8]> {
        self.column(column).value(row)
    }

    /// All values of the column at place `column`: for whoever wants those of one row after the other.
    pub fn column(&self, column: usize) -> ColumnValues<'_> {
        let BatchColumn { ty, validity, ends, values, .. } = &self.columns[column];
        let width = match ty.width() {
            Width::Fixed(width) => width,
            Width::Variable => 0,
        };
        let of = |range: &Range<usize>| &self.bytes[range.clone()];
        ColumnValues { validity: of(validity), ends: ends.as_ref().map(of), width, values: of(values) }
    }

    fn u32_at(&self, range: &Range<usize>, at: usize) -> usize {
        let at = range.start + at * 4;
        u32::from_le_bytes(self.bytes[at..at + 4].try_into().expect("four bytes")) as usize
    }

    fn eight(&self, range: &Range<usize>, at: usize) -> [u8; 8] {
        let at = range.start + at * 8;
        self.bytes[at..at + 8].try_into().expect("eight bytes")
    }
}

/// The values of one column of a batch. Rows beyond the last panic.
#[derive(Debug, Clone, Copy)]
pub struct ColumnValues<'a> {
    validity: &'a [u8],
    /// Of values of variable width, where each ends.
    ends: Option<&'a [u8]>,
    width: usize,
    values: &'a [u8],
}

impl<'a> ColumnValues<'a> {
    /// The value of a row; `None` if it is null.
    #[inline]
    pub fn value(self, row: usize) -> Option<&'a [u8]> {
        if self.validity[row / 8] >> (row % 8) & 1 == 0 {
            return None;
        }
        let Some(ends) = self.ends else {
            let at = row * self.width;
            return Some(&self.values[at..at + self.width]);
        };
        let end = |row: usize| u32::from_le_bytes(ends.as_chunks::<4>().0[row]) as usize;
        Some(&self.values[end(row)..end(row + 1)])
    }

    /// The values of so many rows, one after the other, if they are of fixed width and none is null.
    pub fn all_fixed(self, rows: usize) -> Option<&'a [u8]> {
        let (whole, rest) = (rows / 8, rows % 8);
        let has_all = self.validity[..whole].iter().all(|bits| *bits == u8::MAX)
            && (rest == 0 || self.validity[whole].trailing_ones() as usize >= rest);
        (has_all && self.ends.is_none()).then(|| &self.values[..rows * self.width])
    }
}

fn part(input: &mut Reader<'_>, bytes: usize) -> Result<Range<usize>, DecodeError> {
    let start = input.position();
    input.take(bytes, "a part of a batch")?;
    input.align(8)?;
    Ok(start..start + bytes)
}

fn variable_part(
    input: &mut Reader<'_>,
    all: &[u8],
    rows: usize,
    item_bytes_max: usize,
) -> Result<(Range<usize>, Range<usize>), DecodeError> {
    let ends = part(input, (rows + 1) * 4)?;
    let mut last = 0;
    for (at, chunk) in all[ends.clone()].chunks_exact(4).enumerate() {
        let end = u32::from_le_bytes(chunk.try_into().expect("chunks of four")) as usize;
        if end < last || (at == 0 && end != 0) {
            return Err(DecodeError::invalid("the ends of a part", end, "0 first, then ascending"));
        }
        if end - last > item_bytes_max {
            return Err(DecodeError::invalid(
                "the bytes of a key or value",
                end - last,
                format!("to {item_bytes_max}"),
            ));
        }
        last = end;
    }
    let bytes = part(input, last)?;
    Ok((ends, bytes))
}

/// Builds a batch row by row.
#[derive(Debug, Clone)]
pub struct RowBatchBuilder {
    group: FeatureGroupId,
    schema_version: u32,
    keys: Vec<u8>,
    key_ends: Vec<u32>,
    event_times: Vec<i64>,
    sequences: Vec<u64>,
    ops: Vec<u8>,
    columns: Vec<BuilderColumn>,
    variable_bytes: usize,
}

#[derive(Debug, Clone)]
struct BuilderColumn {
    feature: u16,
    ty: FeatureType,
    storage: Option<Storage>,
    validity: Vec<u8>,
    ends: Vec<u32>,
    values: Vec<u8>,
}

impl RowBatchBuilder {
    /// An empty batch for the features given by their places in `group`; they are sorted here.
    pub fn new(group: &FeatureGroup, features: &[u16]) -> Self {
        let mut features = features.to_vec();
        features.sort_unstable();
        features.dedup();
        let columns = features.into_iter().map(|feature| BuilderColumn {
            feature,
            ty: group.features[usize::from(feature)].ty,
            storage: group.features[usize::from(feature)].storage,
            validity: Vec::new(),
            ends: vec![0],
            values: Vec::new(),
        });
        Self {
            group: group.id,
            schema_version: group.schema_version,
            keys: Vec::new(),
            key_ends: vec![0],
            event_times: Vec::new(),
            sequences: Vec::new(),
            ops: Vec::new(),
            columns: columns.collect(),
            variable_bytes: 0,
        }
    }

    /// The features of the batch, ascending: the order of `values` in [`RowBatchBuilder::upsert`].
    pub fn features(&self) -> impl Iterator<Item = u16> {
        self.columns.iter().map(|column| column.feature)
    }

    /// Number of rows so far.
    pub fn rows(&self) -> usize {
        self.event_times.len()
    }

    /// Bytes of the finished batch, at most 8 too many a part.
    pub fn bytes(&self) -> usize {
        let rows = self.rows();
        let fixed: usize = self
            .columns
            .iter()
            .map(|column| {
                let each = match column.ty.width() {
                    Width::Fixed(width) => width,
                    Width::Variable => 4,
                };
                32 + rows.div_ceil(8) + rows * each
            })
            .sum();
        64 + rows * (4 + 8 + 8 + 1) + 32 + self.variable_bytes + fixed
    }

    /// Whether another row of `row_bytes` variable bytes (key included) would break a limit of a batch.
    pub fn is_full(&self, row_bytes: usize) -> bool {
        let per_row = self.bytes() / self.rows().max(1) + 64;
        self.rows() + 1 > BATCH_ROWS_MAX || self.bytes() + row_bytes + per_row > BATCH_BYTES_MAX
    }

    /// Adds a row whose values stand in the order of [`RowBatchBuilder::features`]. A refused row leaves the batch as
    /// it was; the error names the feature's place.
    pub fn upsert(
        &mut self,
        key: &[u8],
        event_time: i64,
        sequence: u64,
        values: &[Value],
    ) -> Result<(), (u16, ValueError)> {
        assert_eq!(values.len(), self.columns.len(), "a value for each feature of the batch");
        let row = self.rows();
        for (at, value) in values.iter().enumerate() {
            let column = &mut self.columns[at];
            let before = column.values.len();
            if let Err(error) = column.encode(value) {
                let feature = column.feature;
                self.columns[..at].iter_mut().for_each(|column| column.forget(row));
                self.variable_bytes =
                    self.keys.len() + self.columns.iter().map(BuilderColumn::variable_bytes).sum::<usize>();
                return Err((feature, error));
            }
            column.set_valid(row, !matches!(value, Value::Null));
            column.ends.push(column.values.len() as u32);
            if column.ty.width() == Width::Variable {
                self.variable_bytes += column.values.len() - before;
            }
        }
        self.push_row(key, event_time, sequence, RowOp::Upsert);
        Ok(())
    }

    /// Adds a delete.
    pub fn delete(&mut self, key: &[u8], event_time: i64, sequence: u64) {
        let row = self.rows();
        for column in &mut self.columns {
            Value::Null.encode(column.ty, &mut column.values).expect("a Null fits every type");
            column.set_valid(row, false);
            column.ends.push(column.values.len() as u32);
        }
        self.push_row(key, event_time, sequence, RowOp::Delete);
    }

    fn push_row(&mut self, key: &[u8], event_time: i64, sequence: u64, op: RowOp) {
        self.keys.extend_from_slice(key);
        self.variable_bytes += key.len();
        self.key_ends.push(self.keys.len() as u32);
        self.event_times.push(event_time);
        self.sequences.push(sequence);
        self.ops.push(u8::from(op == RowOp::Delete));
    }

    /// The finished batch; `None` if it has no rows. Rows that break a limit of the batch are the caller's mistake (see
    /// [`RowBatchBuilder::is_full`]).
    pub fn finish(self) -> Option<RowBatch> {
        if self.rows() == 0 {
            return None;
        }
        let mut out = Vec::with_capacity(self.bytes());
        let with_sequences = self.sequences.iter().any(|&s| s != 0);
        let with_ops = self.ops.iter().any(|&op| op != 0);
        BATCH_MAGIC.put(&mut out);
        BATCH_FORMAT.put(&mut out);
        ((u16::from(with_sequences) * FLAG_SEQUENCES) | (u16::from(with_ops) * FLAG_OPS)).put(&mut out);
        self.group.put(&mut out);
        self.schema_version.put(&mut out);
        (self.rows() as u32).put(&mut out);
        (self.columns.len() as u32).put(&mut out);
        0u32.put(&mut out);
        put_ends(&self.key_ends, &mut out);
        put_part(&self.keys, &mut out);
        self.event_times.iter().for_each(|t| t.put(&mut out));
        if with_sequences {
            self.sequences.iter().for_each(|s| s.put(&mut out));
        }
        if with_ops {
            put_part(&self.ops, &mut out);
        }
        for column in &self.columns {
            column.feature.put(&mut out);
            column.ty.put(&mut out);
            pad(&mut out);
            put_part(&column.validity, &mut out);
            if column.ty.width() == Width::Variable {
                put_ends(&column.ends, &mut out);
            }
            put_part(&column.values, &mut out);
        }
        Some(RowBatch::parse(out.into()).expect("what the builder lays out is a batch"))
    }
}

impl BuilderColumn {
    /// Appends a value, or nothing if it is none of the feature's.
    fn encode(&mut self, value: &Value) -> Result<(), ValueError> {
        let before = self.values.len();
        value.encode(self.ty, &mut self.values)?;
        let kept = self.storage.map_or(Ok(()), |storage| storage.check(&self.values[before..]));
        kept.inspect_err(|_| self.values.truncate(before))?;
        Ok(())
    }

    fn set_valid(&mut self, row: usize, valid: bool) {
        if row.is_multiple_of(8) {
            self.validity.push(0);
        }
        self.validity[row / 8] |= u8::from(valid) << (row % 8);
    }

    fn variable_bytes(&self) -> usize {
        if self.ty.width() == Width::Variable { self.values.len() } else { 0 }
    }

    /// Drops what row `row`, the last one, has added.
    fn forget(&mut self, row: usize) {
        self.ends.truncate(row + 1);
        self.values.truncate(*self.ends.last().expect("the first end stays") as usize);
        if row.is_multiple_of(8) {
            self.validity.pop();
        } else {
            self.validity[row / 8] &= !(1 << (row % 8));
        }
    }
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(8), 0);
}

fn put_part(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(bytes);
    pad(out);
}

fn put_ends(ends: &[u32], out: &mut Vec<u8>) {
    ends.iter().for_each(|end| end.put(out));
    pad(out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::EarlierType;
    use crate::key::{KeyType, KeyValue, encode_key};

    fn group() -> FeatureGroup {
        let features = [
            ("units", FeatureType::Int32),
            ("name", FeatureType::String),
            ("share", FeatureType::FixedArray { items: 2 }),
        ];
        FeatureGroup::simple(7, "product", &[("product_id", KeyType::Int64)], &features)
    }

    fn key(id: i64) -> Vec<u8> {
        let mut out = Vec::new();
        encode_key(&[KeyType::Int64], &[KeyValue::Int(id)], &mut out).unwrap();
        out
    }

    fn sample() -> RowBatch {
        let mut builder = RowBatchBuilder::new(&group(), &[2, 0, 1]);
        for id in 0..20 {
            let name = if id % 3 == 0 { Value::Null } else { Value::String("n".repeat(id as usize)) };
            let values = [Value::Int(id), name, Value::FixedArray(vec![id as f32, -0.0])];
            builder.upsert(&key(id), id * 10, id as u64, &values).unwrap();
        }
        builder.delete(&key(99), 5, 6);
        builder.finish().unwrap()
    }

    #[test]
    fn rows_come_back_from_their_bytes() {
        let batch = sample();
        batch.check(&group(), 1_000).unwrap();
        assert_eq!((batch.rows(), batch.columns().len()), (21, 3));
        assert_eq!(batch.key(4), key(4));
        assert_eq!((batch.event_time(4), batch.sequence(4), batch.op(4)), (40, 4, RowOp::Upsert));
        assert_eq!(batch.op(20), RowOp::Delete);
        assert_eq!(batch.value(0, 4), Some(&4i32.to_le_bytes()[..]));
        assert_eq!(batch.value(1, 4), Some(&b"nnnn"[..]));
        assert_eq!(batch.value(1, 3), None);
        assert_eq!(batch.value(0, 20), None);
        assert!(
            batch.bytes().len() <= {
                let mut builder = RowBatchBuilder::new(&group(), &[0, 1, 2]);
                (0..20).for_each(|id| {
                    let values = [Value::Int(id), Value::String("n".repeat(20)), Value::FixedArray(vec![0.0, 0.0])];
                    builder.upsert(&key(id), 0, 0, &values).unwrap();
                });
                builder.delete(&key(99), 5, 6);
                builder.bytes()
            }
        );
    }

    #[test]
    fn a_refused_row_leaves_the_batch_as_it_was() {
        let mut builder = RowBatchBuilder::new(&group(), &[0, 1, 2]);
        let good = [Value::Int(1), Value::String("a".into()), Value::FixedArray(vec![1.0, 2.0])];
        for id in 0..9 {
            builder.upsert(&key(id), 0, 0, &good).unwrap();
            let bad = [Value::Int(1), Value::String("bbb".into()), Value::FixedArray(vec![1.0])];
            assert_eq!(builder.upsert(&key(id), 0, 0, &bad).unwrap_err().0, 2);
        }
        let mut clean = RowBatchBuilder::new(&group(), &[0, 1, 2]);
        (0..9).for_each(|id| clean.upsert(&key(id), 0, 0, &good).unwrap());
        assert_eq!(builder.finish().unwrap().bytes(), clean.finish().unwrap().bytes());
    }

    #[test]
    fn a_batch_that_does_not_fit_its_group_is_refused_with_the_reason() {
        let batch = sample();
        let mut grown = group();
        grown.schema_version = 2;
        assert_eq!(batch.check(&grown, 1_000), Ok(()), "what was laid out before features were appended fits");
        let mut builder = RowBatchBuilder::new(&grown, &[0]);
        builder.delete(&key(1), 0, 0);
        let newer = builder.finish().unwrap();
        assert_eq!(newer.check(&group(), 1_000).unwrap_err().code, ErrorCode::SchemaMismatch);
        let mut other = group();
        other.features[1].ty = FeatureType::Binary;
        assert_eq!(batch.check(&other, 1_000).unwrap_err().code, ErrorCode::SchemaMismatch);
        assert_eq!(batch.check(&group(), 100).unwrap_err().code, ErrorCode::EventInFuture);
        let mut other = group();
        other.entity.keys[0].ty = KeyType::String;
        assert_eq!(batch.check(&other, 1_000).unwrap_err().code, ErrorCode::BadKey);
    }

    #[test]
    fn a_batch_has_the_types_that_its_own_schema_has() {
        let narrow = sample();
        let mut widened = group();
        widened.schema_version = 2;
        widened.features[0].ty = FeatureType::Int64;
        widened.features[0].earlier.push(EarlierType { until: 2, ty: FeatureType::Int32 });
        widened.features[1].dropped = true;
        assert_eq!(narrow.check(&widened, 1_000), Ok(()));
        let mut builder = RowBatchBuilder::new(&widened, &[0]);
        builder.upsert(&key(1), 0, 0, &[Value::Int(i64::MAX)]).unwrap();
        assert_eq!(builder.finish().unwrap().check(&widened, 0), Ok(()));
        // The bytes of one schema under the number of the other.
        let mut builder = RowBatchBuilder::new(&FeatureGroup { schema_version: 2, ..group() }, &[0]);
        builder.upsert(&key(1), 0, 0, &[Value::Int(1)]).unwrap();
        let error = builder.finish().unwrap().check(&widened, 0).unwrap_err();
        assert_eq!(error.code, ErrorCode::SchemaMismatch, "{error}");
        assert!(error.message.contains("Int64 in schema 2, and the batch has Int32"), "{error}");
    }

    #[test]
    fn no_damaged_batch_panics() {
        let whole = sample().bytes().to_vec();
        for cut in 0..whole.len() {
            assert!(RowBatch::parse(Bytes::copy_from_slice(&whole[..cut])).is_err(), "cut at {cut}");
        }
        for bit in 0..whole.len() * 8 {
            let mut copy = whole.clone();
            copy[bit / 8] ^= 1 << (bit % 8);
            if let Ok(batch) = RowBatch::parse(copy.into()) {
                let _ = batch.check(&group(), 1_000);
                for row in 0..batch.rows() {
                    let _ = (batch.key(row), batch.event_time(row), batch.sequence(row), batch.op(row));
                    (0..batch.columns().len()).for_each(|column| {
                        assert!(batch.value(column, row).is_none_or(|v| v.len() <= VALUE_BYTES_MAX))
                    });
                }
            }
        }
    }
}
