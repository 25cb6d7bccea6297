//! Which of a call's rows name the same entity. A table of a call's lifetime with the hash that decides the partition
//! anyway, so that an entity costs one hash.

/// Distinct byte strings, numbered in the order of their first appearance. Crafted collisions cost the caller who sends
/// them, up to the square of the rows of one call.
#[derive(Debug)]
pub(crate) struct Distinct {
    /// Numbers plus one, 0 where free; a power of two, at most half full.
    table: Vec<u32>,
    hashes: Vec<u64>,
    ends: Vec<u32>,
    bytes: Vec<u8>,
}

impl Distinct {
    /// Room for `rows` keys, all of which may differ.
    pub(crate) fn new(rows: usize) -> Self {
        let table = vec![0; (rows * 2).next_power_of_two().max(2)];
        Self { table, hashes: Vec::with_capacity(rows), ends: vec![0], bytes: Vec::new() }
    }

    /// The number of a key, and whether it is new.
    pub(crate) fn insert(&mut self, key: &[u8], hash: u64) -> (u32, bool) {
        assert!(self.len() * 2 <= self.table.len(), "the table was made for fewer keys");
        let mask = self.table.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            match self.table[at] {
                0 => break,
                taken if self.hashes[taken as usize - 1] == hash && self.key(taken - 1) == key => {
                    return (taken - 1, false);
                }
                _ => at = (at + 1) & mask,
            }
        }
        let number = self.hashes.len() as u32;
        self.table[at] = number + 1;
        self.hashes.push(hash);
        self.bytes.extend_from_slice(key);
        self.ends.push(self.bytes.len() as u32);
        (number, true)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.hashes.len()
    }

    /// A key by its number.
    pub(crate) fn key(&self, number: u32) -> &[u8] {
        let at = number as usize;
        &self.bytes[self.ends[at] as usize..self.ends[at + 1] as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_numbered_once_even_if_all_hashes_collide() {
        for hash in [|_: u32| 0u64, |n: u32| u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15)] {
            let mut distinct = Distinct::new(300);
            for round in 0..3 {
                for n in 0..100u32 {
                    assert_eq!(distinct.insert(&n.to_le_bytes(), hash(n)), (n, round == 0));
                }
            }
            assert_eq!(distinct.len(), 100);
            assert_eq!(distinct.key(42), 42u32.to_le_bytes());
        }
    }
}
