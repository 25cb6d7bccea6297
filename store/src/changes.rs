//! Which ranges of key hashes have changed since when: so that a snapshot keeps the chunks that have not.

use stoa_protocol::LogIndex;

/// The last change of each range of index hashes. A range is the hashes with one prefix.
#[derive(Debug)]
pub(crate) struct Changes {
    depth: u32,
    last: Vec<LogIndex>,
}

impl Default for Changes {
    fn default() -> Self {
        Self::new(LogIndex(0))
    }
}

impl Changes {
    /// One range, changed at `index` or before.
    pub fn new(index: LogIndex) -> Self {
        Self { depth: 0, last: vec![index] }
    }

    /// Notes that a row of this hash changes with the command at `index`.
    pub fn note(&mut self, hash: u64, index: LogIndex) {
        let range = range(hash, self.depth);
        self.last[range] = index;
    }

    /// Tells ranges apart by at least `depth` bits from now on.
    pub fn refine(&mut self, depth: u32) {
        while self.depth < depth {
            self.last = self.last.iter().flat_map(|index| [*index, *index]).collect();
            self.depth += 1;
        }
    }

    /// When a range of `depth` bits changed last, or a range that it is part of.
    pub fn last(&self, depth: u32, range: usize) -> LogIndex {
        match self.depth.checked_sub(depth) {
            Some(finer) => {
                let first = range << finer;
                let all = &self.last[first..first + (1 << finer)];
                all.iter().copied().max().expect("a range has one part at least")
            }
            None => self.last[range >> (depth - self.depth)],
        }
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.last.capacity() * size_of::<LogIndex>()
    }
}

/// The range of a hash among those of `depth` bits.
pub(crate) fn range(hash: u64, depth: u32) -> usize {
    // A shift by 64, for depth 0, would be no shift.
    (hash >> 1 >> (63 - depth)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_seen_in_the_range_of_its_hash_at_every_depth_and_in_no_other() {
        let mut changes = Changes::new(LogIndex(5));
        changes.note(u64::MAX, LogIndex(6));
        assert_eq!(changes.last(3, 0), LogIndex(6), "one range is all of them");
        changes.refine(2);
        changes.refine(1);
        changes.note(0b10 << 62, LogIndex(9));
        let at = |depth, range| changes.last(depth, range).0;
        assert_eq!([at(2, 0), at(2, 1), at(2, 2), at(2, 3)], [6, 6, 9, 6]);
        assert_eq!([at(1, 0), at(1, 1), at(0, 0)], [6, 9, 9]);
        assert_eq!([at(3, 3), at(3, 4), at(3, 5), at(3, 6)], [6, 9, 9, 6]);
        assert_eq!(changes.bytes(), 32);
    }
}
