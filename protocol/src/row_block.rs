//! Rows on their way out.
//!
//! A block holds rows with the features of one projection, side by side as the store copies them: a row of an answer is a
//! few pieces of a row in memory, and a reader finds a value of it without taking anything apart. An answer has blocks, and
//! then one result for each section, which says where in a block the section's rows are.
//!
//! ```text
//! answer   u32 blocks, the blocks, u32 sections, the results of the sections
//!
//! block    0  u32 rows
//!          4  u32 bytes of a row
//!          8  u32 bytes of the heap
//!         12  u16 columns
//!         14  u16 bytes of validity bits of a row
//!         16  for each column: 3 bytes type, u32 place in the row, u16 validity bit
//!             the rows
//!             the heap
//!
//! row      0  i64 event time, microseconds since 1970-01-01T00:00:00Z; 0 where there is no row
//!          8  u8 status
//!          9  validity bits: bit n is the one of value 1 << (n % 8) in byte n / 8; set where a value is present
//!             values; one of variable width is u32 start in the heap, u32 length
//! ```
//!
//! Where a value lies in a row, and which bit says whether it is there, is the sender's choice; two columns may share
//! both. Nothing is aligned. An absent value is zero bytes.

use std::sync::Arc;

use bytes::Bytes;

use crate::codec::{DecodeError, Reader, Wire, get_list, put_list};
use crate::error::ErrorBody;
use crate::frame::FramedBody;
use crate::limits::{GROUP_FEATURES_MAX, READ_SECTIONS_MAX};
use crate::read::{RowStatus, SectionHead, SectionResult};
use crate::types::{FeatureType, Width};

/// Where a row's status stands in it.
pub const STATUS_AT: usize = 8;
/// Where its validity bits begin.
pub const VALIDITY_AT: usize = 9;
/// What a value of variable width has in its row: start and length in the heap.
pub const REFERENCE_BYTES: usize = 8;

const BLOCK_HEAD_BYTES: usize = 16;
const COLUMN_BYTES: usize = 9;
/// Bytes of a result with rows: its tag and its head.
const RESULT_BYTES: usize = 36;

/// Bytes of a value in its row.
pub fn bytes_in_row(ty: FeatureType) -> usize {
    match ty.width() {
        Width::Fixed(width) => width,
        Width::Variable => REFERENCE_BYTES,
    }
}

/// Where a column's values and validity bits are in each row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockColumn {
    /// The feature's type.
    pub ty: FeatureType,
    /// The value's first byte.
    pub offset: u32,
    /// The validity bit.
    pub bit: u16,
}
crate::wire_struct!(BlockColumn { ty, offset, bit });

/// What a row of a block looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockLayout {
    columns: Vec<BlockColumn>,
    validity_bytes: usize,
    stride: usize,
    /// The columns as a block has them: a layout is used for many blocks.
    encoded: Vec<u8>,
}

impl BlockLayout {
    /// These columns, in the order in which they were asked for, in rows of so many bytes, of validity bits and in all.
    pub fn new(columns: Vec<BlockColumn>, validity_bytes: usize, stride: usize) -> Self {
        let mut encoded = Vec::with_capacity(columns.len() * COLUMN_BYTES);
        columns.iter().for_each(|column| column.put(&mut encoded));
        Self { columns, validity_bytes, stride, encoded }
    }

    /// Columns of these types one after the other.
    pub fn packed(types: impl Iterator<Item = FeatureType>) -> Self {
        let types: Vec<_> = types.collect();
        let validity_bytes = types.len().div_ceil(8);
        let mut stride = VALIDITY_AT + validity_bytes;
        let column = |(bit, ty)| {
            let offset = stride as u32;
            stride += bytes_in_row(ty);
            BlockColumn { ty, offset, bit: bit as u16 }
        };
        let columns = types.into_iter().enumerate().map(column).collect();
        Self::new(columns, validity_bytes, stride)
    }

    /// The columns, in the order in which they were asked for.
    pub fn columns(&self) -> &[BlockColumn] {
        &self.columns
    }

    /// Bytes of a row.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Bytes of a block of so many rows, without its heap.
    pub fn block_bytes(&self, rows: usize) -> usize {
        BLOCK_HEAD_BYTES + self.encoded.len() + rows * self.stride
    }
}

/// Writes the answer to a read, block by block.
#[derive(Debug)]
pub struct AnswerWriter {
    out: FramedBody,
    /// Where the answer begins in it.
    start: usize,
    blocks: u16,
    /// What the results will take, if none of them is an error.
    result_bytes: usize,
}

/// To any number of sections.
impl Default for AnswerWriter {
    fn default() -> Self {
        Self::new(0)
    }
}

impl AnswerWriter {
    /// An answer to so many sections, for which it takes room in time.
    pub fn new(sections: usize) -> Self {
        let mut out = FramedBody::with_capacity(0);
        let start = out.out().len();
        0u32.put(out.out());
        Self { out, start, blocks: 0, result_bytes: 4 + sections * RESULT_BYTES }
    }

    /// Begins a block of rows that are all not found, and gives its number. The one before is finished.
    pub fn block<'a>(&'a mut self, layout: &'a BlockLayout, rows: usize) -> (u16, BlockWriter<'a>) {
        let number = self.blocks;
        self.blocks = number.checked_add(1).expect("a request has fewer sections than there are numbers of blocks");
        self.out.out().reserve(layout.block_bytes(rows) + self.result_bytes);
        (number, BlockWriter::begin(layout, rows, self.out.out()))
    }

    /// Ends the answer with the results of the sections.
    pub fn finish(self, sections: &[SectionResult]) -> FramedBody {
        let Self { mut out, start, blocks, .. } = self;
        out.out()[start..start + 4].copy_from_slice(&u32::from(blocks).to_le_bytes());
        put_list(sections, out.out());
        out
    }
}

/// Fills the rows of one block.
#[derive(Debug)]
pub struct BlockWriter<'a> {
    layout: &'a BlockLayout,
    out: &'a mut Vec<u8>,
    start: usize,
    rows_at: usize,
    heap_at: usize,
}

impl<'a> BlockWriter<'a> {
    fn begin(layout: &'a BlockLayout, rows: usize, out: &'a mut Vec<u8>) -> Self {
        let start = out.len();
        (rows as u32).put(out);
        (layout.stride as u32).put(out);
        0u32.put(out);
        (layout.columns.len() as u16).put(out);
        (layout.validity_bytes as u16).put(out);
        out.extend_from_slice(&layout.encoded);
        let rows_at = out.len();
        let heap_at = rows_at + rows * layout.stride;
        out.resize(heap_at, 0);
        out[rows_at..].chunks_exact_mut(layout.stride).for_each(|row| row[STATUS_AT] = RowStatus::NotFound as u8);
        Self { layout, out, start, rows_at, heap_at }
    }

    /// The bytes of a row.
    #[inline]
    pub fn row_mut(&mut self, row: usize) -> &mut [u8] {
        let at = self.rows_at + row * self.layout.stride;
        &mut self.out[at..at + self.layout.stride]
    }

    /// The bytes of these rows, one after the other.
    pub fn rows_mut(&mut self, rows: std::ops::Range<usize>) -> &mut [u8] {
        let stride = self.layout.stride;
        &mut self.out[self.rows_at + rows.start * stride..self.rows_at + rows.end * stride]
    }

    /// Sets what became of a row.
    pub fn set_status(&mut self, row: usize, status: RowStatus, event_time: i64) {
        let row = self.row_mut(row);
        row[..8].copy_from_slice(&event_time.to_le_bytes());
        row[STATUS_AT] = status as u8;
    }

    /// Sets a value, which `append` puts at the end of what it is given if it is of variable width.
    pub fn set_variable(&mut self, row: usize, offset: usize, append: impl FnOnce(&mut Vec<u8>)) {
        let start = self.out.len();
        append(self.out);
        let length = (self.out.len() - start) as u32;
        let reference = u64::from((start - self.heap_at) as u32) | u64::from(length) << 32;
        self.row_mut(row)[offset..offset + REFERENCE_BYTES].copy_from_slice(&reference.to_le_bytes());
    }

    /// Sets a value of any type to these bytes, which are of its width.
    pub fn set_value(&mut self, row: usize, column: usize, bytes: &[u8]) {
        let BlockColumn { ty, offset, bit } = self.layout.columns[column];
        let offset = offset as usize;
        match ty.width() {
            Width::Fixed(width) => self.row_mut(row)[offset..offset + width].copy_from_slice(bytes),
            Width::Variable => self.set_variable(row, offset, |heap| heap.extend_from_slice(bytes)),
        }
        self.row_mut(row)[VALIDITY_AT + usize::from(bit) / 8] |= 1 << (bit % 8);
    }

    /// Bytes of the heap so far.
    pub fn heap_bytes(&self) -> usize {
        self.out.len() - self.heap_at
    }

    /// Makes rows not found again, and takes what was put into the heap after `heap_bytes` away.
    pub fn clear_rows(&mut self, rows: std::ops::Range<usize>, heap_bytes: usize) {
        self.out.truncate(self.heap_at + heap_bytes);
        let stride = self.layout.stride;
        for row in self.rows_mut(rows).chunks_exact_mut(stride) {
            row.fill(0);
            row[STATUS_AT] = RowStatus::NotFound as u8;
        }
    }

    /// Ends the block.
    pub fn finish(self) {
        let heap = self.heap_bytes() as u32;
        self.out[self.start + 8..self.start + 12].copy_from_slice(&heap.to_le_bytes());
    }
}

/// A block as it came.
#[derive(Debug)]
struct Block {
    body: Bytes,
    columns: Vec<BlockColumn>,
    stride: usize,
    rows: usize,
    rows_at: usize,
    heap_at: usize,
}

impl Block {
    /// Every place in it is checked here, so that nothing can go wrong when a value is looked for.
    fn parse(input: &mut Reader<'_>, body: &Bytes) -> Result<Self, DecodeError> {
        let rows = u32::get(input)? as usize;
        let stride = u32::get(input)? as usize;
        let heap_bytes = u32::get(input)? as usize;
        let count = usize::from(u16::get(input)?);
        let validity_bytes = usize::from(u16::get(input)?);
        if count > GROUP_FEATURES_MAX {
            return Err(DecodeError::invalid("the columns of a block", count, format!("up to {GROUP_FEATURES_MAX}")));
        }
        let mut columns: Vec<BlockColumn> = Vec::with_capacity(count);
        let values_at = VALIDITY_AT + validity_bytes;
        for _ in 0..count {
            let column = BlockColumn::get(input)?;
            let offset = column.offset as usize;
            let inside = offset >= values_at && offset.saturating_add(bytes_in_row(column.ty)) <= stride;
            if !inside || usize::from(column.bit) / 8 >= validity_bytes {
                return Err(DecodeError::invalid("a column's place", format!("{column:?}"), "within the row"));
            }
            columns.push(column);
        }
        if stride < values_at {
            return Err(DecodeError::invalid("the bytes of a row", stride, format!("{values_at} and more")));
        }
        let rows_at = input.position();
        let all = input.take(rows.saturating_mul(stride), "rows")?;
        let heap_at = input.position();
        input.take(heap_bytes, "the heap of a block")?;
        let variable: Vec<_> = columns.iter().filter(|column| column.ty.width() == Width::Variable).collect();
        for row in all.chunks_exact(stride) {
            RowStatus::from_number(row[STATUS_AT])?;
            for column in &variable {
                let (start, length) = reference(row, column.offset as usize);
                if is_present(row, column.bit) && start as usize + length as usize > heap_bytes {
                    return Err(DecodeError::invalid("a value's place", start, "within the heap"));
                }
            }
        }
        Ok(Self { body: body.clone(), columns, stride, rows, rows_at, heap_at })
    }

    #[inline]
    fn row(&self, row: usize) -> &[u8] {
        let at = self.rows_at + row * self.stride;
        &self.body[at..at + self.stride]
    }
}

#[inline]
fn is_present(row: &[u8], bit: u16) -> bool {
    row[VALIDITY_AT + usize::from(bit) / 8] >> (bit % 8) & 1 == 1
}

#[inline]
fn reference(row: &[u8], offset: usize) -> (u32, u32) {
    let (start, length) = row[offset..offset + REFERENCE_BYTES].split_at(4);
    let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("four bytes"));
    (number(start), number(length))
}

/// The rows that answer one section. Clones share the bytes.
#[derive(Debug, Clone)]
pub struct SectionRows {
    /// What is said of all of them.
    pub head: SectionHead,
    block: Arc<Block>,
}

/// Takes the bytes of an answer apart: each section's rows, or why it failed.
pub fn parse_answer(body: Bytes) -> Result<Vec<Result<SectionRows, ErrorBody>>, DecodeError> {
    let mut input = Reader::new(&body);
    let count = input.count(BLOCK_HEAD_BYTES, "blocks")?;
    if count > READ_SECTIONS_MAX {
        return Err(DecodeError::invalid("blocks", count, format!("up to {READ_SECTIONS_MAX}")));
    }
    let blocks: Result<Vec<_>, _> = (0..count).map(|_| Block::parse(&mut input, &body).map(Arc::new)).collect();
    let blocks = blocks?;
    let results: Vec<SectionResult> = get_list(&mut input, "sections")?;
    input.finish()?;
    let section = |result| match result {
        SectionResult::Failed(error) => Ok(Err(error)),
        SectionResult::Rows(head) => {
            let end = head.first_row.checked_add(head.rows).map(|end| end as usize);
            match blocks.get(usize::from(head.block)).filter(|block| end.is_some_and(|end| end <= block.rows)) {
                Some(block) => Ok(Ok(SectionRows { head, block: block.clone() })),
                None => Err(DecodeError::invalid("a section's rows", format!("{head:?}"), "rows of a block")),
            }
        }
    };
    results.into_iter().map(section).collect()
}

/// Rows and columns beyond the ends panic.
impl SectionRows {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.head.rows as usize
    }

    /// The types of the columns.
    pub fn types(&self) -> impl ExactSizeIterator<Item = FeatureType> {
        self.block.columns.iter().map(|column| column.ty)
    }

    /// What became of a key.
    pub fn status(&self, row: usize) -> RowStatus {
        match self.row(row)[STATUS_AT] {
            0 => RowStatus::Found,
            1 => RowStatus::NotFound,
            _ => RowStatus::Expired,
        }
    }

    /// The event time of a row, microseconds since 1970-01-01T00:00:00Z; 0 where there is none.
    pub fn event_time(&self, row: usize) -> i64 {
        i64::from_le_bytes(*self.row(row).first_chunk().expect("a row begins with it"))
    }

    /// The little-endian bytes of a value; `None` if it is absent.
    #[inline]
    pub fn value(&self, column: usize, row: usize) -> Option<&[u8]> {
        let BlockColumn { ty, offset, bit } = self.block.columns[column];
        let (row, offset) = (self.row(row), offset as usize);
        if !is_present(row, bit) {
            return None;
        }
        match ty.width() {
            Width::Fixed(width) => Some(&row[offset..offset + width]),
            Width::Variable => {
                let (start, length) = reference(row, offset);
                let at = self.block.heap_at + start as usize;
                Some(&self.block.body[at..at + length as usize])
            }
        }
    }

    #[inline]
    fn row(&self, row: usize) -> &[u8] {
        assert!(row < self.rows(), "row {row} of {}", self.rows());
        self.block.row(self.head.first_row as usize + row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;
    use crate::ids::LogIndex;

    const TYPES: [FeatureType; 4] =
        [FeatureType::Int32, FeatureType::String, FeatureType::Bool, FeatureType::FixedArray { items: 2 }];

    fn head(block: u16, first_row: u32, rows: u32) -> SectionHead {
        SectionHead {
            schema_version: 3,
            applied: LogIndex(9),
            incarnation: 1,
            age: None,
            stale: false,
            block,
            first_row,
            rows,
        }
    }

    fn failed() -> ErrorBody {
        ErrorBody::new(ErrorCode::NotReady, "replaying")
    }

    /// Two blocks, of 5 rows for two sections, and of none.
    fn sample() -> Vec<u8> {
        let layout = BlockLayout::packed(TYPES.into_iter());
        let mut answer = AnswerWriter::new(4);
        let (first, mut block) = answer.block(&layout, 5);
        block.set_status(0, RowStatus::Found, 7);
        block.set_value(0, 0, &5i32.to_le_bytes());
        block.set_value(0, 1, b"ab");
        block.set_status(1, RowStatus::Expired, -1);
        block.set_value(1, 1, b"");
        block.set_value(1, 3, &[1; 8]);
        block.set_status(3, RowStatus::Found, 8);
        block.set_value(3, 1, b"thrown away");
        let kept = 2;
        block.clear_rows(3..4, kept);
        block.set_status(4, RowStatus::Found, i64::MAX);
        block.set_value(4, 1, b"c");
        block.set_value(4, 2, &[1]);
        block.finish();
        let (second, block) = answer.block(&layout, 0);
        block.finish();
        let rows = |head| SectionResult::Rows(head);
        answer
            .finish(&[
                rows(head(first, 3, 2)),
                SectionResult::Failed(failed()),
                rows(head(first, 0, 3)),
                rows(head(second, 0, 0)),
            ])
            .into_body()
    }

    #[test]
    fn rows_come_back_where_their_section_says() {
        let sections = parse_answer(sample().into()).unwrap();
        let [Ok(last), Err(error), Ok(first), Ok(none)] = &sections[..] else { panic!("{sections:?}") };
        assert_eq!(*error, failed());
        assert_eq!((none.rows(), first.rows(), last.rows()), (0, 3, 2));
        assert!(none.types().eq(TYPES));
        let statuses: Vec<_> = (0..3).map(|row| (first.status(row), first.event_time(row))).collect();
        assert_eq!(statuses, [(RowStatus::Found, 7), (RowStatus::Expired, -1), (RowStatus::NotFound, 0)]);
        assert_eq!((last.status(0), last.status(1)), (RowStatus::NotFound, RowStatus::Found));
        let all = |rows: &SectionRows, row| {
            (0..4).map(|column| rows.value(column, row).map(<[u8]>::to_vec)).collect::<Vec<_>>()
        };
        let some = |bytes: &[u8]| Some(bytes.to_vec());
        assert_eq!(all(first, 0), [some(&[5, 0, 0, 0]), some(b"ab"), None, None]);
        assert_eq!(all(first, 1), [None, some(b""), None, some(&[1; 8])]);
        assert_eq!(all(first, 2), [None, None, None, None]);
        assert_eq!(all(last, 0), [None, None, None, None]);
        assert_eq!(all(last, 1), [None, some(b"c"), some(&[1]), None]);
    }

    /// Looks at everything that there is.
    fn walk(bytes: Vec<u8>) -> bool {
        let Ok(sections) = parse_answer(bytes.into()) else { return false };
        for rows in sections.iter().flatten() {
            for row in 0..rows.rows() {
                let _ = (rows.status(row), rows.event_time(row));
                (0..rows.types().len()).for_each(|column| drop(rows.value(column, row).map(<[u8]>::to_vec)));
            }
        }
        true
    }

    #[test]
    fn no_damaged_answer_panics_wherever_it_is_looked_at() {
        let bytes = sample();
        assert!(walk(bytes.clone()));
        (0..bytes.len()).for_each(|cut| assert!(!walk(bytes[..cut].to_vec()), "cut at {cut}"));
        let mut still_good = 0;
        for bit in 0..bytes.len() * 8 {
            let mut copy = bytes.clone();
            copy[bit / 8] ^= 1 << (bit % 8);
            still_good += usize::from(walk(copy));
        }
        assert!(still_good > 100, "most values may be anything");
    }
}
