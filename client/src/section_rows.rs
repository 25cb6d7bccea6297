//! A node's answer as it came, with a directory of where things are. The columns of one section are small (some rows of
//! one partition) and there are thousands of them in a read over many partitions; copying each into vectors of its own
//! cost twice as much as all the rest of a read (197 sections of 10 columns: 230 of 390 us).
//!
//! The layout is that of [`SectionAnswer`](stoa_protocol::read::SectionAnswer), and exactly the bytes that its decoder
//! accepts are accepted here; a test compares the two.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use stoa_protocol::limits::{GROUP_FEATURES_MAX, READ_ROWS_MAX};
use stoa_protocol::read::{RowStatus, get_age};
use stoa_protocol::{DecodeError, ErrorBody, FeatureType, LogIndex, Reader, Width, Wire};

/// The rows that answer one section. Clones share the bytes.
#[derive(Debug, Clone)]
pub struct SectionRows {
    block: Arc<Block>,
    /// The schema version that the rows are of.
    pub schema_version: u32,
    /// All rows are at least as new as this place in the partition's log.
    pub applied: LogIndex,
    /// The incarnation of the partition set that `applied` belongs to.
    pub incarnation: u32,
    /// How far the rows may be behind; `None` if the replica does not know.
    pub age: Option<Duration>,
    /// Whether they may be further behind than the read allows.
    pub stale: bool,
    rows: u32,
    statuses: u32,
    event_times: u32,
    first_column: u32,
    columns: u32,
}

/// The bytes of one answer, and where its columns are.
#[derive(Debug)]
struct Block {
    body: Bytes,
    columns: Vec<ColumnAt>,
}

/// Offsets into the body.
#[derive(Debug, Clone, Copy)]
struct ColumnAt {
    ty: FeatureType,
    validity: u32,
    ends: u32,
    values: u32,
}

/// Takes the body of a [`ReadAnswer`](stoa_protocol::message::ReadAnswer) apart: each section's rows, or why it failed.
pub fn parse_answer(body: Bytes) -> Result<Vec<Result<SectionRows, ErrorBody>>, DecodeError> {
    let mut input = Reader::new(&body);
    let count = input.count(1, "sections")?;
    let empty = Arc::new(Block { body: Bytes::new(), columns: Vec::new() });
    let mut columns = Vec::new();
    let mut sections = Vec::with_capacity(count.min(1_024));
    for _ in 0..count {
        sections.push(match u8::get(&mut input)? {
            0 => Ok(parse_section(&mut input, &body, &empty, &mut columns)?),
            1 => Err(ErrorBody::get(&mut input)?),
            other => return Err(DecodeError::invalid("the tag of SectionResult", other, "0 or 1")),
        });
    }
    input.finish()?;
    let block = Arc::new(Block { body, columns });
    sections.iter_mut().flatten().for_each(|section| section.block = block.clone());
    Ok(sections)
}

fn parse_section(
    input: &mut Reader<'_>,
    body: &[u8],
    block: &Arc<Block>,
    columns: &mut Vec<ColumnAt>,
) -> Result<SectionRows, DecodeError> {
    let schema_version = Wire::get(input)?;
    let applied = Wire::get(input)?;
    let incarnation = Wire::get(input)?;
    let (age, stale) = get_age(input)?;
    let rows = u32::get(input)?;
    let count = u32::get(input)?;
    if rows as usize > READ_ROWS_MAX || count as usize > GROUP_FEATURES_MAX {
        let value = format!("{rows} rows x {count} features");
        return Err(DecodeError::invalid("an answer's size", value, "no more than was asked for"));
    }
    let statuses = input.position() as u32;
    if let Some(bad) = input.take(rows as usize, "statuses")?.iter().find(|&&status| status > 2) {
        return Err(DecodeError::invalid("a row's status", bad, "0 to 2"));
    }
    let event_times = input.position() as u32;
    input.take(rows as usize * 8, "event times")?;
    let first_column = columns.len() as u32;
    for _ in 0..count {
        columns.push(parse_column(input, body, rows as usize)?);
    }
    Ok(SectionRows {
        block: block.clone(),
        schema_version,
        applied,
        incarnation,
        age,
        stale,
        rows,
        statuses,
        event_times,
        first_column,
        columns: count,
    })
}

fn parse_column(input: &mut Reader<'_>, body: &[u8], rows: usize) -> Result<ColumnAt, DecodeError> {
    let ty = FeatureType::get(input)?;
    let validity = input.position() as u32;
    input.take(rows.div_ceil(8), "validity")?;
    let ends = input.position() as u32;
    let bytes = match ty.width() {
        Width::Fixed(width) => rows * width,
        Width::Variable => {
            input.take((rows + 1) * 4, "ends of values")?;
            let mut last = 0;
            for row in 0..=rows {
                let end = u32_at(body, ends as usize + row * 4);
                if end < last || (row == 0 && end != 0) {
                    return Err(DecodeError::invalid("the ends of values", "out of order", "0 first, then ascending"));
                }
                last = end;
            }
            last as usize
        }
    };
    let values = input.position() as u32;
    input.take(bytes, "values")?;
    Ok(ColumnAt { ty, validity, ends, values })
}

fn u32_at(body: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(body[at..at + 4].try_into().expect("four bytes"))
}

/// Rows and columns beyond the ends panic.
impl SectionRows {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows as usize
    }

    /// The types of the columns.
    pub fn types(&self) -> impl ExactSizeIterator<Item = FeatureType> {
        let first = self.first_column as usize;
        self.block.columns[first..first + self.columns as usize].iter().map(|column| column.ty)
    }

    /// What became of a key.
    pub fn status(&self, row: usize) -> RowStatus {
        assert!(row < self.rows());
        match self.block.body[self.statuses as usize + row] {
            0 => RowStatus::Found,
            1 => RowStatus::NotFound,
            _ => RowStatus::Expired,
        }
    }

    /// The event time of a row, microseconds since 1970-01-01T00:00:00Z.
    pub fn event_time(&self, row: usize) -> i64 {
        assert!(row < self.rows());
        let at = self.event_times as usize + row * 8;
        i64::from_le_bytes(self.block.body[at..at + 8].try_into().expect("eight bytes"))
    }

    /// The bytes of a value; `None` if it is absent.
    pub fn value(&self, column: usize, row: usize) -> Option<&[u8]> {
        assert!(row < self.rows() && column < self.columns as usize);
        let column = &self.block.columns[self.first_column as usize + column];
        let body = &self.block.body;
        if body[column.validity as usize + row / 8] >> (row % 8) & 1 == 0 {
            return None;
        }
        let values = column.values as usize;
        match column.ty.width() {
            Width::Fixed(width) => Some(&body[values + row * width..values + (row + 1) * width]),
            Width::Variable => {
                let end = |row: usize| values + u32_at(body, column.ends as usize + row * 4) as usize;
                Some(&body[end(row)..end(row + 1)])
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use stoa_protocol::ErrorCode;
    use stoa_protocol::message::ReadAnswer;
    use stoa_protocol::read::{ReadColumn, SectionAnswer, SectionResult};

    use super::*;

    /// As it would come from the wire.
    pub(crate) fn rows_of(answer: SectionAnswer) -> SectionRows {
        let body = ReadAnswer { sections: vec![SectionResult::Rows(answer)] }.to_bytes();
        parse_answer(body.into()).unwrap().remove(0).unwrap()
    }

    fn sample(rows: usize) -> SectionAnswer {
        let types = [FeatureType::Int32, FeatureType::String, FeatureType::Bool, FeatureType::FixedArray { items: 2 }];
        let columns = types.into_iter().map(|ty| {
            let mut column = ReadColumn::absent(ty, rows);
            (0..rows).filter(|row| row % 3 != 1).for_each(|row| column.set_present(row));
            match ty {
                FeatureType::String => {
                    column.values = (0..rows * 2).map(|at| b'a' + at as u8).collect();
                    column.ends = (0..=rows as u32).map(|row| row * 2).collect();
                }
                _ => column.values.iter_mut().enumerate().for_each(|(at, byte)| *byte = at as u8),
            }
            column
        });
        SectionAnswer {
            schema_version: 3,
            applied: LogIndex(9),
            incarnation: 1,
            age: (rows > 0).then(|| Duration::from_millis(rows as u64)),
            stale: rows > 0,
            statuses: (0..rows)
                .map(|row| [RowStatus::Found, RowStatus::NotFound, RowStatus::Expired][row % 3])
                .collect(),
            event_times: (0..rows as i64).map(|row| row - 1).collect(),
            columns: columns.collect(),
        }
    }

    fn assert_same(ours: &SectionRows, theirs: &SectionAnswer) {
        assert_eq!(
            (ours.schema_version, ours.applied, ours.incarnation, ours.rows()),
            (theirs.schema_version, theirs.applied, theirs.incarnation, theirs.statuses.len())
        );
        assert_eq!((ours.age, ours.stale), (theirs.age, theirs.stale));
        assert!(ours.types().eq(theirs.columns.iter().map(|column| column.ty)));
        for row in 0..ours.rows() {
            assert_eq!((ours.status(row), ours.event_time(row)), (theirs.statuses[row], theirs.event_times[row]));
            for (at, column) in theirs.columns.iter().enumerate() {
                assert_eq!(ours.value(at, row), column.value(row));
            }
        }
    }

    /// Both decoders say the same of these bytes. Returns whether they are an answer.
    fn compare(body: &[u8]) -> bool {
        let ours = parse_answer(Bytes::copy_from_slice(body));
        let theirs = ReadAnswer::from_bytes(body);
        assert_eq!(ours.is_ok(), theirs.is_ok(), "{ours:?} {theirs:?}");
        let (Ok(ours), Ok(theirs)) = (ours, theirs) else { return false };
        assert_eq!(ours.len(), theirs.sections.len());
        for (ours, theirs) in ours.iter().zip(&theirs.sections) {
            match (ours, theirs) {
                (Ok(ours), SectionResult::Rows(theirs)) => assert_same(ours, theirs),
                (Err(ours), SectionResult::Failed(theirs)) => assert_eq!(ours, theirs),
                _ => panic!("{ours:?} {theirs:?}"),
            }
        }
        true
    }

    #[test]
    fn the_bytes_are_read_as_the_protocols_decoder_reads_them_whole_or_damaged() {
        let failed = SectionResult::Failed(ErrorBody::new(ErrorCode::NotReady, "replaying"));
        let sections = vec![SectionResult::Rows(sample(5)), failed, SectionResult::Rows(sample(0))];
        let body = ReadAnswer { sections }.to_bytes();
        assert!(compare(&body));
        (0..body.len()).for_each(|cut| assert!(!compare(&body[..cut]), "cut at {cut}"));
        let mut still_good = 0;
        for bit in 0..body.len() * 8 {
            let mut copy = body.clone();
            copy[bit / 8] ^= 1 << (bit % 8);
            still_good += usize::from(compare(&copy));
        }
        assert!(still_good > 100, "most values may be anything");
    }
}
