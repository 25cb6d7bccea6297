//! Repeated values of one feature: equal ones share one slot of the arena, counted. A reference to such a slot says so of
//! itself and reads as any other does; the table from value to slot is the writer's alone, so a read does not know of it.
//!
//! What is bounded: values of up to [`VALUE_BYTES_MAX`] are looked up, [`ENTRIES_MAX`] of them and [`TEXT_BYTES_MAX`] of
//! their slots are known at a time. A dictionary that is asked in vain more often than not gives up for a while: a feature
//! whose every value is another one would pay for look-ups and get nothing. Whether two values share a slot shows in no
//! answer, digest or snapshot.
//!
//! A shared slot that is not in the table has one user: what stands there once is forgotten when room is wanted, or when
//! the dictionary gives up.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::arena::{Arena, ArenaRef, ArenaWriter};
use crate::memory::vec_bytes;

/// Bytes of the longest value that is looked up: to hash and compare it costs less than to copy it to a slot far away.
const VALUE_BYTES_MAX: usize = 128;

/// Values that are known at a time: 2 MiB of table at the most.
const ENTRIES_MAX: usize = 1 << 16;

/// Bytes of the slots of values that are known.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// Values after which it is judged whether looking them up was worth it: so few at first that one that is of no use takes
/// little memory, and twice as many each time, as a feature with many different values repeats them later.
const WINDOW_MIN: u32 = 1 << 10;
const WINDOW_MAX: u32 = 1 << 15;

/// A dictionary that has given up looks up none of so many times the values that it was judged by; then it tries again.
const REST: u32 = 16;

/// Places of the smallest table.
const PLACES_MIN: usize = 64;

const _: () = {
    assert!(PLACES_MIN.is_power_of_two() && ENTRIES_MAX * 4 / 3 < u32::MAX as usize);
    assert!((WINDOW_MAX as usize) < ENTRIES_MAX, "a dictionary that is of no use does not fill before it is judged");
};

/// A value that is known.
#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    reference: ArenaRef,
    /// Of the value; it leads to the place, so a table has far fewer places than this has values.
    hash: u32,
    /// Rows that have it; 0 in an empty place.
    count: u32,
}

/// The values of one feature that more rows than one may have.
#[derive(Debug)]
pub(crate) struct Dictionary {
    /// Open addressing: an entry lies at the place of its hash or after it, with no empty place between.
    table: Vec<Entry>,
    entries: usize,
    text_bytes: usize,
    /// Values since the last verdict, how many of them were known, and how many there are to be for the next one.
    puts: u32,
    hits: u32,
    window: u32,
    /// Values that are not looked up any more.
    rest: u32,
}

impl Default for Dictionary {
    fn default() -> Self {
        Self { table: Vec::new(), entries: 0, text_bytes: 0, puts: 0, hits: 0, window: WINDOW_MIN, rest: 0 }
    }
}

impl Dictionary {
    /// Bytes in the heap.
    pub fn bytes(&self) -> usize {
        vec_bytes(&self.table)
    }

    /// Gives a slot that holds the value, and whether the slot is a new one. The seed is that of the index, so that nobody
    /// can compute values that collide.
    pub fn put(&mut self, bytes: &[u8], seed: u64, arena: &mut ArenaWriter) -> (ArenaRef, bool) {
        if bytes.is_empty() || bytes.len() > VALUE_BYTES_MAX {
            return (arena.put(bytes), true);
        }
        if self.rest > 0 {
            self.rest -= 1;
            return (arena.put(bytes), true);
        }
        self.puts += 1;
        let hash = value_hash(seed, bytes);
        let known = self.find(hash, |other| arena.shared().equals(other, bytes) && !arena.leaves(other));
        let given = match known {
            Some(at) if self.table[at].count < u32::MAX => {
                self.table[at].count += 1;
                self.hits += 1;
                (self.table[at].reference, false)
            }
            _ => {
                let reference = arena.put(bytes);
                let room = self.entries < ENTRIES_MAX && self.text_bytes + reference.slot_bytes() <= TEXT_BYTES_MAX;
                match known.is_none() && room {
                    true => (self.insert(hash, reference.into_shared()), true),
                    false => (reference, true),
                }
            }
        };
        if self.puts == self.window {
            self.judge();
        }
        given
    }

    /// Gives a slot in place of one that is to be left, as to one of its users: the first of them that moves takes a new one,
    /// and the others follow it there. Says whether it is a new one. While they move there are two entries of a value.
    pub fn move_user(&mut self, reference: ArenaRef, seed: u64, arena: &mut ArenaWriter) -> (ArenaRef, bool) {
        let mut bytes = Vec::with_capacity(reference.len());
        arena.shared().read(reference, &mut bytes);
        if !reference.is_shared() || self.place(reference, seed, arena.shared()).is_none() {
            return (arena.put(&bytes), true);
        }
        let hash = value_hash(seed, &bytes);
        let other = self.find(hash, |other| arena.shared().equals(other, &bytes) && !arena.leaves(other));
        if let Some(at) = other.filter(|&at| self.table[at].count < u32::MAX) {
            self.table[at].count += 1;
            return (self.table[at].reference, false);
        }
        let moved = arena.put(&bytes).into_shared();
        (self.insert(hash, moved), true)
    }

    /// Takes one user from a slot; says whether that was the last one, so that the slot is out of use.
    pub fn retire(&mut self, reference: ArenaRef, seed: u64, arena: &Arena) -> bool {
        if !reference.is_shared() {
            return true;
        }
        let Some(at) = self.place(reference, seed, arena) else {
            return true;
        };
        self.table[at].count -= 1;
        if self.table[at].count > 0 {
            return false;
        }
        self.entries -= 1;
        self.text_bytes -= reference.slot_bytes();
        self.close_gap(at);
        if self.table.len() > PLACES_MIN && self.entries < self.table.len() / 8 {
            self.rebuild(self.table.len() / 2, |_| true);
        }
        true
    }

    /// Asserts that every shared slot has as many users as are counted; `users` are those of the rows.
    pub fn check(&self, users: &BTreeMap<ArenaRef, u32>, seed: u64, arena: &Arena) {
        // Twice as much while values move.
        assert!(self.entries <= 2 * ENTRIES_MAX && self.text_bytes <= 2 * TEXT_BYTES_MAX);
        let known: Vec<Entry> = self.table.iter().filter(|entry| entry.count > 0).copied().collect();
        assert_eq!(known.len(), self.entries);
        assert_eq!(known.iter().map(|entry| entry.reference.slot_bytes()).sum::<usize>(), self.text_bytes);
        for entry in known {
            assert!(self.place(entry.reference, seed, arena).is_some(), "an entry is found by its value");
            assert_eq!(users.get(&entry.reference), Some(&entry.count), "rows that have {:?}", entry.reference);
        }
        for (reference, count) in users {
            let known = self.place(*reference, seed, arena).is_some();
            assert!(known || *count == 1, "{count} rows have {reference:?}, of which nothing is known");
        }
    }

    /// Ends a window: a dictionary that was rarely of use rests, and what stands in it once makes room.
    fn judge(&mut self) {
        let worth_it = self.hits >= self.puts / 2;
        (self.puts, self.hits) = (0, 0);
        let full = self.entries == ENTRIES_MAX || self.text_bytes + VALUE_BYTES_MAX > TEXT_BYTES_MAX;
        if !worth_it {
            self.rest = self.window * REST;
        }
        self.window = WINDOW_MAX.min(self.window * 2);
        if !worth_it || full {
            let kept = self.table.iter().filter(|entry| entry.count > 1).count();
            let places = if kept == 0 { 0 } else { (kept * 2).next_power_of_two().max(PLACES_MIN) };
            self.rebuild(places, |entry| entry.count > 1);
        }
    }

    fn insert(&mut self, hash: u32, reference: ArenaRef) -> ArenaRef {
        if (self.entries + 1) * 4 > self.table.len() * 3 {
            self.rebuild((self.table.len() * 2).max(PLACES_MIN), |_| true);
        }
        self.entries += 1;
        self.text_bytes += reference.slot_bytes();
        self.add(Entry { reference, hash, count: 1 });
        reference
    }

    /// The place of the first entry with this hash that `is` accepts.
    fn find(&self, hash: u32, is: impl Fn(ArenaRef) -> bool) -> Option<usize> {
        if self.table.is_empty() {
            return None;
        }
        let mut at = self.home(hash);
        loop {
            let entry = &self.table[at];
            if entry.count == 0 {
                return None;
            }
            if entry.hash == hash && is(entry.reference) {
                return Some(at);
            }
            at = self.after(at);
        }
    }

    /// The place of a shared slot, if it is known.
    fn place(&self, reference: ArenaRef, seed: u64, arena: &Arena) -> Option<usize> {
        let mut value = [0; VALUE_BYTES_MAX];
        let value = &mut value[..reference.len()];
        arena.copy(reference, value);
        self.find(value_hash(seed, value), |other| other == reference)
    }

    /// Puts an entry at the first empty place from its home on.
    fn add(&mut self, entry: Entry) {
        let mut at = self.home(entry.hash);
        while self.table[at].count > 0 {
            at = self.after(at);
        }
        self.table[at] = entry;
    }

    /// Empties a place and moves what lies behind it up, as far as that comes no nearer than its home.
    fn close_gap(&mut self, mut gap: usize) {
        let mask = self.table.len() - 1;
        let mut at = self.after(gap);
        while self.table[at].count > 0 {
            let from_home = at.wrapping_sub(self.home(self.table[at].hash)) & mask;
            if from_home >= at.wrapping_sub(gap) & mask {
                self.table[gap] = self.table[at];
                gap = at;
            }
            at = self.after(at);
        }
        self.table[gap] = Entry::default();
    }

    /// A table of so many places, with the entries that `keeps` keeps.
    fn rebuild(&mut self, places: usize, keeps: impl Fn(&Entry) -> bool) {
        let old = std::mem::replace(&mut self.table, vec![Entry::default(); places]);
        (self.entries, self.text_bytes) = (0, 0);
        for entry in old.into_iter().filter(|entry| entry.count > 0 && keeps(entry)) {
            self.entries += 1;
            self.text_bytes += entry.reference.slot_bytes();
            self.add(entry);
        }
    }

    fn home(&self, hash: u32) -> usize {
        hash as usize & (self.table.len() - 1)
    }

    fn after(&self, place: usize) -> usize {
        (place + 1) & (self.table.len() - 1)
    }
}

fn value_hash(seed: u64, value: &[u8]) -> u32 {
    xxh3_64_with_seed(value, seed) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u64 = 7;

    struct Table {
        arena: ArenaWriter,
        dictionary: Dictionary,
        users: BTreeMap<ArenaRef, u32>,
        plain: Vec<ArenaRef>,
    }

    impl Table {
        fn new() -> Self {
            let (arena, dictionary) = (ArenaWriter::new(), Dictionary::default());
            Self { arena, dictionary, users: BTreeMap::new(), plain: Vec::new() }
        }

        fn put(&mut self, value: &str) -> ArenaRef {
            let (reference, new) = self.dictionary.put(value.as_bytes(), SEED, &mut self.arena);
            let mut read = Vec::new();
            self.arena.shared().read(reference, &mut read);
            assert_eq!(read, value.as_bytes());
            match reference.is_shared() {
                true => *self.users.entry(reference).or_default() += 1,
                false => self.plain.push(reference),
            }
            assert!(new || self.users[&reference] > 1, "a slot that is there has other users");
            reference
        }

        fn retire(&mut self, reference: ArenaRef) {
            let out_of_use = self.dictionary.retire(reference, SEED, self.arena.shared());
            if let Some(users) = self.users.get_mut(&reference) {
                *users -= 1;
                assert_eq!(out_of_use, *users == 0);
                if out_of_use {
                    self.users.remove(&reference);
                }
            }
            if out_of_use {
                self.arena.free(reference);
            }
        }

        fn check(&mut self) {
            self.dictionary.check(&self.users, SEED, self.arena.shared());
            let mut live: Vec<_> = self.users.keys().chain(&self.plain).copied().collect();
            self.arena.check(&mut live);
        }
    }

    #[test]
    fn equal_values_share_a_slot_until_the_last_of_them_goes() {
        let mut table = Table::new();
        let given: Vec<_> = (0..1_200).map(|at| table.put(&format!("value {}", at % 400))).collect();
        table.check();
        assert_eq!((table.users.len(), table.dictionary.entries), (400, 400));
        assert!(table.users.values().all(|users| *users == 3));
        let full = table.dictionary.bytes();
        for (at, reference) in given.into_iter().enumerate().filter(|(at, _)| at % 400 > 5) {
            table.retire(reference);
            if at % 100 == 0 {
                table.check();
            }
        }
        table.check();
        assert_eq!(table.users.len(), 6);
        assert!(table.dictionary.bytes() <= full / 8, "{} of {full} bytes", table.dictionary.bytes());
        assert!(table.put("value 3").is_shared());
        assert!(!table.put("").is_shared() && !table.put(&"long".repeat(50)).is_shared());
    }

    #[test]
    fn a_dictionary_gives_up_where_every_value_is_another_one_and_tries_again_later() {
        let mut table = Table::new();
        let twice = table.put("twice");
        assert_eq!(table.put("twice"), twice);
        let first: Vec<_> = (2..WINDOW_MIN).map(|at| table.put(&at.to_string())).collect();
        table.check();
        assert_eq!(table.dictionary.rest, WINDOW_MIN * REST);
        assert_eq!(table.dictionary.entries, 1, "what has two users is counted on");
        assert!(table.dictionary.bytes() < 8_192, "{} bytes", table.dictionary.bytes());
        assert!(!table.put("twice").is_shared(), "it is not looked up any more");
        table.retire(first[7]);
        table.retire(twice);
        table.check();
        table.retire(twice);
        table.check();
        table.dictionary.rest = 0;
        let again = table.put("again");
        assert_eq!((again.is_shared(), table.put("again")), (true, again));
        table.check();
    }

    #[test]
    fn a_full_dictionary_forgets_what_stands_there_once_and_stays_within_its_bounds() {
        let mut table = Table::new();
        let wide = |at: u32| format!("{at:>100}");
        // A third of the values are new ones; the last one but this is the last before a verdict.
        for at in 0..WINDOW_MAX - WINDOW_MIN - 1 {
            let value = if at % 3 == 0 { wide(1_000_000 + at) } else { wide(at % 50) };
            table.put(&value);
        }
        assert!(table.dictionary.text_bytes + VALUE_BYTES_MAX > TEXT_BYTES_MAX);
        table.check();
        table.put(&wide(1));
        assert_eq!((table.dictionary.entries, table.dictionary.rest), (50, 0));
        table.check();
    }
}
