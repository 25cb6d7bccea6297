//! How far something has been read or written: an opaque token to callers, a list of log positions to us.

use crate::codec::{DecodeError, Reader, Wire, get_list, put_list};
use crate::ids::{LogIndex, PartitionId, PartitionSetId};

/// Version of the token's bytes.
const POSITION_VERSION: u8 = 1;

/// The place of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartitionPosition {
    /// The partition set.
    pub set: PartitionSetId,
    /// Raised by restore and unsafe recovery: positions of different incarnations cannot be compared.
    pub incarnation: u32,
    /// The partition.
    pub partition: PartitionId,
    /// Everything up to this index is covered.
    pub index: LogIndex,
}
crate::wire_struct!(PartitionPosition { set, incarnation, partition, index });

/// Positions of several partitions, sorted, each partition once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Position {
    parts: Vec<PartitionPosition>,
}

impl Position {
    /// Covers nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Raises one partition's place; a lower one changes nothing.
    pub fn raise(&mut self, part: PartitionPosition) {
        let key = |p: &PartitionPosition| (p.set, p.incarnation, p.partition);
        match self.parts.binary_search_by_key(&key(&part), key) {
            Ok(at) => self.parts[at].index = self.parts[at].index.max(part.index),
            Err(at) => self.parts.insert(at, part),
        }
    }

    /// The place of a partition; 0 if it is not covered.
    pub fn index_of(&self, partition: PartitionId) -> LogIndex {
        self.parts.iter().filter(|p| p.partition == partition).map(|p| p.index).max().unwrap_or_default()
    }

    /// All parts, sorted.
    pub fn parts(&self) -> &[PartitionPosition] {
        &self.parts
    }
}

impl Wire for Position {
    fn put(&self, out: &mut Vec<u8>) {
        POSITION_VERSION.put(out);
        put_list(&self.parts, out);
    }
    fn get(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let version = u8::get(input)?;
        if version != POSITION_VERSION {
            return Err(DecodeError::invalid("a position's version", version, POSITION_VERSION));
        }
        let mut position = Self::new();
        get_list(input, "positions")?.into_iter().for_each(|part| position.raise(part));
        Ok(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_only_rises_and_comes_back_from_its_bytes() {
        let part = |partition, index| PartitionPosition {
            set: PartitionSetId(1),
            incarnation: 0,
            partition: PartitionId(partition),
            index: LogIndex(index),
        };
        let mut position = Position::new();
        [part(3, 7), part(2, 5), part(3, 6)].into_iter().for_each(|p| position.raise(p));
        assert_eq!(position.parts(), [part(2, 5), part(3, 7)]);
        assert_eq!(position.index_of(PartitionId(9)), LogIndex(0));
        assert_eq!(Position::from_bytes(&position.to_bytes()).unwrap(), position);
        assert!(Position::from_bytes(&[9, 0, 0, 0, 0]).is_err());
    }
}
