//! Rows on their way out: what a multi-get asks of one node, and the columns that come back.
//!
//! A request is a list of sections, each for one partition and one feature group: which features, which keys. The answer
//! has one result per section, in the same order; a section fails by itself.

use std::time::Duration;

use crate::codec::{DecodeError, Reader, Wire, get_list, put_list};
use crate::error::ErrorBody;
use crate::ids::{FeatureGroupId, LogIndex, PartitionId};
use crate::key::KeyBlock;
use crate::limits::{GROUP_FEATURES_MAX, READ_ROWS_MAX};
use crate::types::{FeatureType, Width};

/// How new the answer to a read must be. A section's `at_least` comes on top of it, at every level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadLevel {
    /// What the replica that is asked has applied.
    Local {
        /// How far that may be behind, by the replica's age (see [`SectionAnswer::age`]); `None`: any distance. A replica
        /// that is further behind, or does not know, first asks its leader, if there is time.
        max_staleness: Option<Duration>,
        /// What becomes of the read if the replica stays behind further than that.
        on_stale: OnStale,
    },
    /// Everything that was acknowledged before the read was sent, and everything that an earlier read of this level has
    /// shown.
    Linearizable {
        /// How the leader knows that it leads.
        by: ConfirmBy,
    },
}

impl Default for ReadLevel {
    /// Local, however old: the answer says how old.
    fn default() -> Self {
        Self::Local { max_staleness: None, on_stale: OnStale::Serve }
    }
}

/// What becomes of a local read at a replica that is behind further than asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnStale {
    /// It is answered, and the answer is marked.
    #[default]
    Serve,
    /// It is refused with [`ErrorCode::Stale`](crate::ErrorCode::Stale): another replica may be less far behind.
    Refuse,
}
crate::wire_enum!(OnStale { 0 => Serve, 1 => Refuse });

/// How a leader makes sure that no other one has been elected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum ConfirmBy {
    /// A quorum answers a message that was sent after the request came.
    #[default]
    ReadIndex,
    /// A quorum has answered so lately that none of it can have voted for another since. Saves the round trip, and rests on
    /// clocks: they drift less than declared and run on while their machine is suspended.
    Lease,
}
crate::wire_enum!(ConfirmBy { 0 => ReadIndex, 1 => Lease });

impl Wire for ReadLevel {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Local { max_staleness, on_stale } => {
                out.push(0);
                max_staleness.map(micros).put(out);
                on_stale.put(out);
            }
            Self::Linearizable { by } => {
                out.push(1);
                by.put(out);
            }
        }
    }

    fn get(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match u8::get(input)? {
            0 => Ok(Self::Local {
                max_staleness: Option::<u64>::get(input)?.map(Duration::from_micros),
                on_stale: Wire::get(input)?,
            }),
            1 => Ok(Self::Linearizable { by: Wire::get(input)? }),
            other => Err(DecodeError::invalid("a read's level", other, "0 or 1")),
        }
    }
}

/// Whole microseconds; more than fit, which is 584,000 years, are as many as fit.
fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// An age on the wire that says that the replica does not know.
const AGE_UNKNOWN: u64 = u64::MAX;

/// What one multi-get asks of one partition about one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadSection {
    /// The partition.
    pub partition: PartitionId,
    /// The feature group.
    pub group: FeatureGroupId,
    /// The schema version that the caller's feature places are of.
    pub schema_version: u32,
    /// The answer must cover at least this index of the partition's log (0: any).
    pub at_least: LogIndex,
    /// The features wanted, by their places.
    pub features: Vec<u16>,
    /// The canonical keys wanted, each once.
    pub keys: KeyBlock,
}

impl Wire for ReadSection {
    fn put(&self, out: &mut Vec<u8>) {
        self.partition.put(out);
        self.group.put(out);
        self.schema_version.put(out);
        self.at_least.put(out);
        put_list(&self.features, out);
        self.keys.put(out);
    }

    fn get(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let section = Self {
            partition: Wire::get(input)?,
            group: Wire::get(input)?,
            schema_version: Wire::get(input)?,
            at_least: Wire::get(input)?,
            features: get_list(input, "features")?,
            keys: Wire::get(input)?,
        };
        if section.features.len() > GROUP_FEATURES_MAX {
            let allowed = format!("up to {GROUP_FEATURES_MAX}");
            return Err(DecodeError::invalid("the features of a section", section.features.len(), allowed));
        }
        if section.keys.len() > READ_ROWS_MAX {
            return Err(DecodeError::invalid(
                "the keys of a section",
                section.keys.len(),
                format!("to {READ_ROWS_MAX}"),
            ));
        }
        Ok(section)
    }
}

/// What became of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RowStatus {
    /// The row is there; each value is present or null.
    Found = 0,
    /// There is no row for the key.
    NotFound = 1,
    /// The row is older than its group's time to live.
    Expired = 2,
}

impl RowStatus {
    fn from_number(number: u8) -> Result<Self, DecodeError> {
        match number {
            0 => Ok(Self::Found),
            1 => Ok(Self::NotFound),
            2 => Ok(Self::Expired),
            other => Err(DecodeError::invalid("a row's status", other, "0 to 2")),
        }
    }
}

/// The values of one feature for all keys of a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadColumn {
    /// The feature's type.
    pub ty: FeatureType,
    /// One bit a key, lowest bit first, 1 where a value is present.
    pub validity: Vec<u8>,
    /// For types of variable width: where each value ends, one more than keys, the first 0. Else empty.
    pub ends: Vec<u32>,
    /// Fixed width x keys, or all values one after the other.
    pub values: Vec<u8>,
}

impl ReadColumn {
    /// A column of `rows` absent values, to be filled by the store.
    pub fn absent(ty: FeatureType, rows: usize) -> Self {
        let (ends, values) = match ty.width() {
            Width::Fixed(width) => (Vec::new(), vec![0; rows * width]),
            Width::Variable => (vec![0; rows + 1], Vec::new()),
        };
        Self { ty, validity: vec![0; rows.div_ceil(8)], ends, values }
    }

    /// Whether a value is present.
    pub fn is_present(&self, row: usize) -> bool {
        self.validity[row / 8] >> (row % 8) & 1 == 1
    }

    /// Marks a value as present.
    pub fn set_present(&mut self, row: usize) {
        self.validity[row / 8] |= 1 << (row % 8);
    }

    /// The bytes of a value; `None` if it is absent.
    pub fn value(&self, row: usize) -> Option<&[u8]> {
        if !self.is_present(row) {
            return None;
        }
        match self.ty.width() {
            Width::Fixed(width) => Some(&self.values[row * width..(row + 1) * width]),
            Width::Variable => Some(&self.values[self.ends[row] as usize..self.ends[row + 1] as usize]),
        }
    }
}

/// The answer to one section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SectionAnswer {
    /// The schema version that the answer is of.
    pub schema_version: u32,
    /// All rows are at least as new as this place in the partition's log.
    pub applied: LogIndex,
    /// The incarnation of the partition set that `applied` belongs to.
    pub incarnation: u32,
    /// How old the rows may be: everything that was committed this long before the request came is in them. Measured by the
    /// replica's own clock, from the moment at which it asked the leader for a commit index that a quorum confirmed and
    /// that it has applied. Whole microseconds; `None` if the replica does not know.
    pub age: Option<Duration>,
    /// Whether the rows may be older than the request allows, so that they are served with this mark alone.
    pub stale: bool,
    /// What became of each key.
    pub statuses: Vec<RowStatus>,
    /// The event time of each row, microseconds since 1970-01-01T00:00:00Z; 0 where there is no row.
    pub event_times: Vec<i64>,
    /// The features in the order asked for.
    pub columns: Vec<ReadColumn>,
}

/// Counts and places, then statuses (u8 each), event times (i64 each), then each column: 3 bytes type, validity bits,
/// then values, or ends (u32 each) and values.
impl Wire for SectionAnswer {
    fn put(&self, out: &mut Vec<u8>) {
        self.schema_version.put(out);
        self.applied.put(out);
        self.incarnation.put(out);
        put_age(self.age, self.stale, out);
        (self.statuses.len() as u32).put(out);
        (self.columns.len() as u32).put(out);
        out.extend(self.statuses.iter().map(|status| *status as u8));
        self.event_times.iter().for_each(|time| time.put(out));
        for column in &self.columns {
            column.ty.put(out);
            out.extend_from_slice(&column.validity);
            if column.ty.width() == Width::Variable {
                column.ends.iter().for_each(|end| end.put(out));
            }
            out.extend_from_slice(&column.values);
        }
    }

    fn get(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let schema_version = Wire::get(input)?;
        let applied = Wire::get(input)?;
        let incarnation = Wire::get(input)?;
        let (age, stale) = get_age(input)?;
        let rows = u32::get(input)? as usize;
        let columns = u32::get(input)? as usize;
        if rows > READ_ROWS_MAX || columns > GROUP_FEATURES_MAX {
            let value = format!("{rows} rows x {columns} features");
            return Err(DecodeError::invalid("an answer's size", value, "no more than was asked for"));
        }
        let statuses: Result<_, _> =
            input.take(rows, "statuses")?.iter().map(|number| RowStatus::from_number(*number)).collect();
        let event_times = input.take(rows * 8, "event times")?;
        let event_times = event_times.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().expect("eight bytes")));
        let mut answer = Self {
            schema_version,
            applied,
            incarnation,
            age,
            stale,
            statuses: statuses?,
            event_times: event_times.collect(),
            columns: Vec::with_capacity(columns.min(input.left())),
        };
        for _ in 0..columns {
            answer.columns.push(get_column(input, rows)?);
        }
        Ok(answer)
    }
}

fn put_age(age: Option<Duration>, stale: bool, out: &mut Vec<u8>) {
    age.map_or(AGE_UNKNOWN, |age| micros(age).min(AGE_UNKNOWN - 1)).put(out);
    stale.put(out);
}

/// An answer's age and mark, as they stand after its incarnation.
pub fn get_age(input: &mut Reader<'_>) -> Result<(Option<Duration>, bool), DecodeError> {
    let age = u64::get(input)?;
    Ok(((age != AGE_UNKNOWN).then(|| Duration::from_micros(age)), bool::get(input)?))
}

fn get_column(input: &mut Reader<'_>, rows: usize) -> Result<ReadColumn, DecodeError> {
    let ty = FeatureType::get(input)?;
    let validity = input.take(rows.div_ceil(8), "validity")?.to_vec();
    let (ends, bytes) = match ty.width() {
        Width::Fixed(width) => (Vec::new(), rows * width),
        Width::Variable => {
            let ends: Vec<u32> = input
                .take((rows + 1) * 4, "ends of values")?
                .chunks_exact(4)
                .map(|b| u32::from_le_bytes(b.try_into().expect("four bytes")))
                .collect();
            if ends[0] != 0 || ends.windows(2).any(|pair| pair[0] > pair[1]) {
                return Err(DecodeError::invalid("the ends of values", "out of order", "0 first, then ascending"));
            }
            let bytes = ends[rows] as usize;
            (ends, bytes)
        }
    };
    let values = input.take(bytes, "values")?.to_vec();
    Ok(ReadColumn { ty, validity, ends, values })
}

/// The result of one section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SectionResult {
    /// The rows.
    Rows(SectionAnswer),
    /// The section failed as a whole.
    Failed(ErrorBody),
}
crate::wire_enum!(SectionResult { 0 => Rows(answer), 1 => Failed(error) });

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> SectionAnswer {
        let mut units = ReadColumn::absent(FeatureType::Int32, 3);
        units.set_present(0);
        units.values[..4].copy_from_slice(&7i32.to_le_bytes());
        let mut name = ReadColumn::absent(FeatureType::String, 3);
        name.set_present(2);
        name.ends = vec![0, 0, 0, 2];
        name.values = b"ab".to_vec();
        SectionAnswer {
            schema_version: 1,
            applied: LogIndex(9),
            incarnation: 0,
            age: Some(Duration::from_micros(1_250)),
            stale: true,
            statuses: vec![RowStatus::Found, RowStatus::NotFound, RowStatus::Found],
            event_times: vec![1, 0, -1],
            columns: vec![units, name],
        }
    }

    #[test]
    fn an_answer_comes_back_and_no_damage_panics() {
        let answer = sample();
        let bytes = answer.to_bytes();
        let back = SectionAnswer::from_bytes(&bytes).unwrap();
        assert_eq!(back, answer);
        assert_eq!(back.columns[1].value(2), Some(&b"ab"[..]));
        assert_eq!(back.columns[0].value(1), None);
        for cut in 0..bytes.len() {
            assert!(SectionAnswer::from_bytes(&bytes[..cut]).is_err());
        }
        for bit in 0..bytes.len() * 8 {
            let mut copy = bytes.clone();
            copy[bit / 8] ^= 1 << (bit % 8);
            if let Ok(answer) = SectionAnswer::from_bytes(&copy) {
                answer.columns.iter().for_each(|c| {
                    (0..answer.statuses.len())
                        .for_each(|row| assert!(c.value(row).is_none_or(|v| v.len() <= bytes.len())))
                });
            }
        }
    }

    #[test]
    fn every_level_comes_back_and_damage_is_an_error() {
        let local = |max_staleness, on_stale| ReadLevel::Local { max_staleness, on_stale };
        let levels = [
            (ReadLevel::default(), vec![0, 0, 0]),
            (local(Some(Duration::from_micros(258)), OnStale::Refuse), vec![0, 1, 2, 1, 0, 0, 0, 0, 0, 0, 1]),
            (local(Some(Duration::ZERO), OnStale::Serve), vec![0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            (ReadLevel::Linearizable { by: ConfirmBy::ReadIndex }, vec![1, 0]),
            (ReadLevel::Linearizable { by: ConfirmBy::Lease }, vec![1, 1]),
        ];
        for (level, bytes) in levels {
            assert_eq!(level.to_bytes(), bytes);
            assert_eq!(ReadLevel::from_bytes(&bytes), Ok(level));
            (0..bytes.len()).for_each(|cut| assert!(ReadLevel::from_bytes(&bytes[..cut]).is_err()));
        }
        for bad in [&[2][..], &[1, 2], &[0, 2, 0], &[0, 0, 2], &[1, 0, 0]] {
            assert!(ReadLevel::from_bytes(bad).is_err(), "{bad:?}");
        }
        let longest = local(Some(Duration::MAX), OnStale::Serve);
        let held = local(Some(Duration::from_micros(u64::MAX)), OnStale::Serve);
        assert_eq!(ReadLevel::from_bytes(&longest.to_bytes()), Ok(held));
    }

    #[test]
    fn an_age_that_nobody_knows_is_not_one_that_is_long() {
        let ages = [None, Some(Duration::ZERO), Some(Duration::from_secs(3_600)), Some(Duration::MAX)];
        let back =
            ages.map(|age| SectionAnswer::from_bytes(&SectionAnswer { age, ..sample() }.to_bytes()).unwrap().age);
        assert_eq!(back[..3], ages[..3]);
        assert_eq!(back[3], Some(Duration::from_micros(u64::MAX - 1)));
    }

    #[test]
    fn a_section_comes_back() {
        let mut keys = KeyBlock::new();
        keys.push(b"k1");
        let section = ReadSection {
            partition: PartitionId(2),
            group: FeatureGroupId(3),
            schema_version: 1,
            at_least: LogIndex(0),
            features: vec![0, 5],
            keys,
        };
        assert_eq!(ReadSection::from_bytes(&section.to_bytes()).unwrap(), section);
    }
}
