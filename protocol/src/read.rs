//! What a multi-get asks of one node.
//!
//! A request has projections (which features of which group), keys, and sections: one for each partition and projection,
//! which names its keys as a range. So features are named once however many partitions they are read from, and keys once
//! however many groups are read by them. The answer has one result for each section, in the same order; a section fails by
//! itself. Its rows lie in blocks that sections of one projection share ([`crate::row_block`]).

use std::time::Duration;

use crate::codec::{DecodeError, Reader, Wire, get_list, put_list};
use crate::error::ErrorBody;
use crate::ids::{FeatureGroupId, LogIndex, PartitionId};
use crate::key::KeyBlock;
use crate::limits::{GROUP_FEATURES_MAX, READ_ROWS_MAX, READ_SECTIONS_MAX};

/// How new the answer to a read must be. A section's `at_least` comes on top of it, at every level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadLevel {
    /// What the replica that is asked has applied.
    Local {
        /// How far that may be behind, by the replica's age (see [`SectionHead::age`]); `None`: any distance. A replica
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
    /// A quorum answers the leader's next regular message after the request came. As sound as [`ReadIndex`](Self::ReadIndex),
    /// and costs no message; takes longer, by up to the time between two heartbeats. From cluster version 4 on.
    Heartbeat,
}
crate::wire_enum!(ConfirmBy { 0 => ReadIndex, 1 => Lease, 2 => Heartbeat });

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

/// Which features of a group are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Projection {
    /// The feature group.
    pub group: FeatureGroupId,
    /// The schema version that the features' places are of.
    pub schema_version: u32,
    /// The features, by their places, in the order in which the answer has them.
    pub features: Vec<u16>,
}

impl Wire for Projection {
    fn put(&self, out: &mut Vec<u8>) {
        self.group.put(out);
        self.schema_version.put(out);
        put_list(&self.features, out);
    }

    fn get(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (group, schema_version) = (Wire::get(input)?, Wire::get(input)?);
        let features: Vec<u16> = get_list(input, "features")?;
        if features.len() > GROUP_FEATURES_MAX {
            let allowed = format!("up to {GROUP_FEATURES_MAX}");
            return Err(DecodeError::invalid("the features of a projection", features.len(), allowed));
        }
        Ok(Self { group, schema_version, features })
    }
}

/// What one multi-get asks of one partition about one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadSection {
    /// The partition.
    pub partition: PartitionId,
    /// The answer must cover at least this index of the partition's log (0: any).
    pub at_least: LogIndex,
    /// The place of its projection in the request.
    pub projection: u16,
    /// The place of its first key among those of the request.
    pub first_key: u32,
    /// How many keys it has.
    pub keys: u32,
}
crate::wire_struct!(ReadSection { partition, at_least, projection, first_key, keys });

/// All that one multi-get asks of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRequest {
    /// How new the answer must be.
    pub level: ReadLevel,
    /// What is read of each group.
    pub projections: Vec<Projection>,
    /// Canonical keys.
    pub keys: KeyBlock,
    /// One section for each partition and projection.
    pub sections: Vec<ReadSection>,
}

impl Wire for ReadRequest {
    fn put(&self, out: &mut Vec<u8>) {
        self.level.put(out);
        put_list(&self.projections, out);
        self.keys.put(out);
        put_list(&self.sections, out);
    }

    fn get(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let request = Self {
            level: Wire::get(input)?,
            projections: get_list(input, "projections")?,
            keys: Wire::get(input)?,
            sections: get_list(input, "sections")?,
        };
        let (projections, keys) = (request.projections.len(), request.keys.len());
        for (what, count) in [("projections", projections), ("sections", request.sections.len())] {
            if count > READ_SECTIONS_MAX {
                return Err(DecodeError::invalid(what, count, format!("up to {READ_SECTIONS_MAX}")));
            }
        }
        for section in &request.sections {
            let end = section.first_key.checked_add(section.keys).map(|end| end as usize);
            if usize::from(section.projection) >= projections || end.is_none_or(|end| end > keys) {
                let allowed = format!("within {projections} projections and {keys} keys");
                return Err(DecodeError::invalid("a section", format!("{section:?}"), allowed));
            }
            if section.keys as usize > READ_ROWS_MAX {
                let allowed = format!("up to {READ_ROWS_MAX}");
                return Err(DecodeError::invalid("the keys of a section", section.keys, allowed));
            }
        }
        Ok(request)
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
    /// The status of this number.
    pub fn from_number(number: u8) -> Result<Self, DecodeError> {
        match number {
            0 => Ok(Self::Found),
            1 => Ok(Self::NotFound),
            2 => Ok(Self::Expired),
            other => Err(DecodeError::invalid("a row's status", other, "0 to 2")),
        }
    }
}

/// What is said of all rows of a section, and where they lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SectionHead {
    /// The schema version that the rows are of.
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
    /// The place of the block in the answer.
    pub block: u16,
    /// The place of the first row in the block.
    pub first_row: u32,
    /// How many rows there are: as many as the section has keys.
    pub rows: u32,
}

impl Wire for SectionHead {
    fn put(&self, out: &mut Vec<u8>) {
        self.schema_version.put(out);
        self.applied.put(out);
        self.incarnation.put(out);
        self.age.map_or(AGE_UNKNOWN, |age| micros(age).min(AGE_UNKNOWN - 1)).put(out);
        self.stale.put(out);
        self.block.put(out);
        self.first_row.put(out);
        self.rows.put(out);
    }

    fn get(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (schema_version, applied, incarnation) = (Wire::get(input)?, Wire::get(input)?, Wire::get(input)?);
        let age = u64::get(input)?;
        Ok(Self {
            schema_version,
            applied,
            incarnation,
            age: (age != AGE_UNKNOWN).then(|| Duration::from_micros(age)),
            stale: Wire::get(input)?,
            block: Wire::get(input)?,
            first_row: Wire::get(input)?,
            rows: Wire::get(input)?,
        })
    }
}

/// The result of one section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SectionResult {
    /// Its rows are there.
    Rows(SectionHead),
    /// The section failed as a whole.
    Failed(ErrorBody),
}
crate::wire_enum!(SectionResult { 0 => Rows(head), 1 => Failed(error) });

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> SectionHead {
        SectionHead {
            schema_version: 1,
            applied: LogIndex(9),
            incarnation: 0,
            age: Some(Duration::from_micros(1_250)),
            stale: true,
            block: 3,
            first_row: 5,
            rows: 2,
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
            (ReadLevel::Linearizable { by: ConfirmBy::Heartbeat }, vec![1, 2]),
        ];
        for (level, bytes) in levels {
            assert_eq!(level.to_bytes(), bytes);
            assert_eq!(ReadLevel::from_bytes(&bytes), Ok(level));
            (0..bytes.len()).for_each(|cut| assert!(ReadLevel::from_bytes(&bytes[..cut]).is_err()));
        }
        for bad in [&[2][..], &[1, 3], &[0, 2, 0], &[0, 0, 2], &[1, 0, 0]] {
            assert!(ReadLevel::from_bytes(bad).is_err(), "{bad:?}");
        }
        let longest = local(Some(Duration::MAX), OnStale::Serve);
        let held = local(Some(Duration::from_micros(u64::MAX)), OnStale::Serve);
        assert_eq!(ReadLevel::from_bytes(&longest.to_bytes()), Ok(held));
    }

    #[test]
    fn an_age_that_nobody_knows_is_not_one_that_is_long() {
        let ages = [None, Some(Duration::ZERO), Some(Duration::from_secs(3_600)), Some(Duration::MAX)];
        let back = ages.map(|age| SectionHead::from_bytes(&SectionHead { age, ..head() }.to_bytes()).unwrap().age);
        assert_eq!(back[..3], ages[..3]);
        assert_eq!(back[3], Some(Duration::from_micros(u64::MAX - 1)));
        assert_eq!(SectionHead::from_bytes(&head().to_bytes()), Ok(head()));
    }

    #[test]
    fn a_request_comes_back_and_its_sections_stay_within_it() {
        let mut keys = KeyBlock::new();
        [&b"k1"[..], b"k2", b"k3"].iter().for_each(|key| keys.push(key));
        let projection = Projection { group: FeatureGroupId(3), schema_version: 1, features: vec![0, 5] };
        let section =
            ReadSection { partition: PartitionId(2), at_least: LogIndex(4), projection: 0, first_key: 1, keys: 2 };
        let request =
            ReadRequest { level: ReadLevel::default(), projections: vec![projection], keys, sections: vec![section] };
        let bytes = request.to_bytes();
        assert_eq!(ReadRequest::from_bytes(&bytes).as_ref(), Ok(&request));
        (0..bytes.len()).for_each(|cut| assert!(ReadRequest::from_bytes(&bytes[..cut]).is_err()));
        let outside = [
            ReadSection { projection: 1, ..section },
            ReadSection { first_key: 2, ..section },
            ReadSection { keys: 3, ..section },
            ReadSection { first_key: u32::MAX, ..section },
        ];
        for section in outside {
            let request = ReadRequest { sections: vec![section], ..request.clone() };
            assert!(ReadRequest::from_bytes(&request.to_bytes()).is_err(), "{section:?}");
        }
    }
}
