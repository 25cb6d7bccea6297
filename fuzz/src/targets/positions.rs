//! `protocol::position`: what a caller keeps of a read.

use stoa_protocol::position::PartitionPosition;
use stoa_protocol::{LogIndex, PartitionId, PartitionSetId, Position, Wire};

use super::Seed;
use crate::round_trip::stable;

/// A position.
pub fn run(data: &[u8]) {
    let Some(position) = stable::<Position>(data) else { return };
    let place = |part: &PartitionPosition| (part.set, part.incarnation, part.partition);
    assert!(position.parts().windows(2).all(|pair| place(&pair[0]) < place(&pair[1])), "sorted, each once");
    assert!(position.parts().iter().all(|part| position.index_of(part.partition) >= part.index));
    let mut again = position.clone();
    for part in position.parts() {
        again.raise(*part);
        again.raise(PartitionPosition { index: LogIndex(0), ..*part });
    }
    assert_eq!(again, position, "it only rises");
}

/// No part, two parts, and two of one partition.
pub fn seeds() -> Vec<Seed> {
    let part = |partition, index| PartitionPosition {
        set: PartitionSetId(1),
        incarnation: 0,
        partition: PartitionId(partition),
        index: LogIndex(index),
    };
    let mut position = Position::new();
    let empty = position.to_bytes();
    position.raise(part(3, 7));
    position.raise(part(2, 5));
    let two = position.to_bytes();
    let twice = [&two[..5], &two[5..33], &two[5..33]].concat();
    vec![("empty", empty), ("two", two), ("twice", twice)]
}
