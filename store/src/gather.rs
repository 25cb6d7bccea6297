//! A multi-get, batch by batch: hash all keys, bring their index groups near, find candidate rows, bring their lanes
//! near, copy the lanes, compare keys, spread the values over the columns of the answer. Every step runs over all keys
//! of a chunk before the next begins, so that cache misses overlap instead of queueing.

use std::cell::RefCell;

use stoa_protocol::ErrorBody;
use stoa_protocol::read::{ReadColumn, ReadSection, RowStatus};

use crate::arena::Arena;
use crate::group::{Group, reference};
use crate::group_writer::NO_ROW;
use crate::index::{Segment, index_hash};
use crate::lane_plan::{FLAGS_AT, FeaturePlace, SHARED_VALUE_BYTES_MAX};
use crate::lanes::Guard;
use crate::lanes::prefetch::prefetch;
use crate::reader::check_answer_bytes;

/// Keys of a chunk: enough misses at once for any memory, few enough that their lanes stay in the first caches. A
/// multiple of 8, as validity goes by bytes.
const CHUNK_KEYS: usize = 64;

thread_local! {
    /// The copied lanes of a chunk.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What part of a lane a read wants.
#[derive(Clone, Copy, Default)]
struct LaneCopy {
    /// Bytes of each row, from its first; 0 if the lane is not wanted.
    bytes: usize,
    /// Where its rows begin in the scratch memory.
    start: usize,
}

/// One read, compiled: where each column comes from and what to copy.
pub(crate) struct Gather<'a> {
    group: &'a Group,
    arena: &'a Arena,
    section: &'a ReadSection,
    places: Vec<FeaturePlace>,
    copies: Vec<LaneCopy>,
    scratch_bytes: usize,
}

type Gathered = (Vec<RowStatus>, Vec<i64>, Vec<ReadColumn>);

impl<'a> Gather<'a> {
    /// Compiles a section that fits its group.
    pub fn new(group: &'a Group, arena: &'a Arena, section: &'a ReadSection) -> Self {
        let plan = &group.plan;
        let places: Vec<_> = section.features.iter().map(|feature| plan.features[usize::from(*feature)]).collect();
        let mut copies = vec![LaneCopy::default(); group.lanes.len()];
        copies[0].bytes = plan.key.offset + plan.key.width;
        for place in &places {
            let validity = &mut copies[place.validity_lane].bytes;
            *validity = (*validity).max(place.validity_byte + 1);
            if !is_alone(place) {
                let values = &mut copies[place.lane].bytes;
                *values = (*values).max(place.offset + place.width);
            }
        }
        let mut scratch_bytes = 0;
        for copy in &mut copies {
            copy.bytes = copy.bytes.next_multiple_of(8);
            copy.start = scratch_bytes;
            scratch_bytes += copy.bytes * CHUNK_KEYS;
        }
        Self { group, arena, section, places, copies, scratch_bytes }
    }

    /// Runs it.
    pub fn run(&self, seed: u64, guard: &Guard<'_>) -> Result<Gathered, ErrorBody> {
        let keys = self.section.keys.len();
        let mut columns: Vec<_> = self.places.iter().map(|place| ReadColumn::absent(place.ty, keys)).collect();
        let mut statuses = vec![RowStatus::NotFound; keys];
        let mut event_times = vec![0; keys];
        SCRATCH.with_borrow_mut(|scratch| {
            if scratch.len() < self.scratch_bytes {
                scratch.resize(self.scratch_bytes, 0);
            }
            for first in (0..keys).step_by(CHUNK_KEYS) {
                let mut rows = [NO_ROW; CHUNK_KEYS];
                let rows = &mut rows[..(keys - first).min(CHUNK_KEYS)];
                self.find(seed, guard, first, rows, scratch);
                let lane = &scratch[self.copies[0].start..];
                for (at, &row) in rows.iter().enumerate() {
                    if row != NO_ROW {
                        let bytes = lane[at * self.copies[0].bytes..].first_chunk().expect("lane 0 begins with it");
                        statuses[first + at] = RowStatus::Found;
                        event_times[first + at] = i64::from_le_bytes(*bytes);
                    }
                }
                let mut validity = ValidityByte::default();
                for (place, column) in self.places.iter().zip(&mut columns) {
                    self.spread(place, column, first, rows, scratch, &mut validity);
                }
                let variable = columns.iter().filter(|column| !column.ends.is_empty());
                check_answer_bytes(variable.map(|column| column.values.len()).sum())?;
            }
            Ok((statuses, event_times, columns))
        })
    }

    /// Finds the rows of the keys from `first` on and copies their lanes; keys without a row read as nulls.
    fn find(&self, seed: u64, guard: &Guard<'_>, first: usize, rows: &mut [u32], scratch: &mut [u8]) {
        let directory = self.group.index.directory(guard);
        let mut probes: [Option<(u64, &Segment)>; CHUNK_KEYS] = [None; CHUNK_KEYS];
        let probes = &mut probes[..rows.len()];
        let key = |at: usize| self.section.keys.get(first + at);
        for (at, probe) in probes.iter_mut().enumerate() {
            let hash = index_hash(seed, key(at));
            let segment = directory.segment(hash, guard);
            prefetch(segment);
            *probe = Some((hash, segment));
        }
        let probe = |at: usize| probes[at].expect("filled above for every key");
        for at in 0..rows.len() {
            let (hash, segment) = probe(at);
            segment.prefetch(hash);
        }
        for (at, row) in rows.iter_mut().enumerate() {
            let (hash, segment) = probe(at);
            // The first row with the tag of the key: nearly always the one.
            if let Some((_, candidate)) = segment.find(hash, |_| true) {
                self.prefetch(candidate);
                *row = candidate;
            }
        }
        for (at, row) in rows.iter_mut().enumerate() {
            if *row != NO_ROW && !self.copy(at, *row, key(at), scratch) {
                let (hash, segment) = probe(at);
                let found = segment.find(hash, |row| self.group.is_key(row, key(at), self.arena));
                *row = found.map_or(NO_ROW, |(_, row)| row);
                if *row != NO_ROW {
                    let same = self.copy(at, *row, key(at), scratch);
                    assert!(same, "a version is not changed while a reader can reach it");
                }
            }
            let lane = &self.copies[0];
            let deleted = *row != NO_ROW && scratch[lane.start + at * lane.bytes + FLAGS_AT] != 0;
            if deleted || *row == NO_ROW {
                *row = NO_ROW;
                for copy in &self.copies {
                    scratch[copy.start + at * copy.bytes..][..copy.bytes].fill(0);
                }
            }
        }
    }

    fn prefetch(&self, row: u32) {
        for (lane, copy) in self.group.lanes.iter().zip(&self.copies) {
            if copy.bytes > 0 {
                lane.prefetch(row, copy.bytes);
            }
        }
        for place in self.places.iter().filter(|place| is_alone(place)) {
            self.group.lanes[place.lane].prefetch(row, place.width);
        }
    }

    /// Copies the wanted lanes of a row to place `at`; false, and no more than lane 0 copied, if it is not of the key.
    fn copy(&self, at: usize, row: u32, key: &[u8], scratch: &mut [u8]) -> bool {
        for (number, (lane, copy)) in self.group.lanes.iter().zip(&self.copies).enumerate() {
            let to = &mut scratch[copy.start + at * copy.bytes..][..copy.bytes];
            if !to.is_empty() {
                lane.read(row, 0, to);
            }
            if number == 0 {
                let place = self.group.plan.key;
                let stored = &to[place.offset..place.offset + place.width];
                let same = if place.inline { stored == key } else { self.arena.equals(reference(stored), key) };
                if !same {
                    return false;
                }
            }
        }
        true
    }

    /// Fills a column of the answer for the keys from `first` on.
    fn spread(
        &self,
        place: &FeaturePlace,
        column: &mut ReadColumn,
        first: usize,
        rows: &[u32],
        scratch: &[u8],
        validity: &mut ValidityByte,
    ) {
        let lane = |number: usize| {
            let copy = self.copies[number];
            (&scratch[copy.start..copy.start + copy.bytes * rows.len()], copy.bytes)
        };
        let (flags, stride) = lane(place.validity_lane);
        let bits = validity.of(place, first, flags, stride);
        let out = &mut column.validity[first / 8..];
        let bit = place.validity_mask.trailing_zeros();
        for (out, eight) in out.iter_mut().zip(&bits[..rows.len().div_ceil(8)]) {
            *out = (eight >> (bit * 8)) as u8;
        }
        if place.variable {
            let (values, stride) = lane(place.lane);
            return self.spread_variable(values, stride, place.offset, column, first);
        }
        let out = &mut column.values[first * place.width..][..rows.len() * place.width];
        if is_alone(place) {
            for (at, (&row, out)) in rows.iter().zip(out.chunks_exact_mut(place.width)).enumerate() {
                if row != NO_ROW && column.validity[(first + at) / 8] >> (at % 8) & 1 == 1 {
                    self.group.lanes[place.lane].read(row, place.offset / 8, out);
                }
            }
            return;
        }
        let (values, stride) = lane(place.lane);
        match place.width {
            1 => spread_fixed::<1>(values, stride, place.offset, out),
            2 => spread_fixed::<2>(values, stride, place.offset, out),
            4 => spread_fixed::<4>(values, stride, place.offset, out),
            8 => spread_fixed::<8>(values, stride, place.offset, out),
            16 => spread_fixed::<16>(values, stride, place.offset, out),
            width => {
                for (row, out) in values.chunks_exact(stride).zip(out.chunks_exact_mut(width)) {
                    out.copy_from_slice(&row[place.offset..place.offset + width]);
                }
            }
        }
    }

    fn spread_variable(&self, values: &[u8], stride: usize, offset: usize, column: &mut ReadColumn, first: usize) {
        let references = || values.chunks_exact(stride).map(|row| reference(&row[offset..offset + 8]));
        references().for_each(|reference| self.arena.prefetch(reference));
        for (at, reference) in references().enumerate() {
            // A null is the reference 0, which has no bytes.
            self.arena.read(reference, &mut column.values);
            column.ends[first + at + 1] = column.values.len() as u32;
        }
    }
}

/// The validity of eight neighbouring features for the rows of a chunk, turned so that each feature has its bits side by
/// side, as the answer wants them. Features are mostly asked for in the order in which they lie, so the last byte that
/// was turned is nearly always the next one that is wanted.
#[derive(Default)]
struct ValidityByte {
    of: Option<(usize, usize, usize)>,
    /// For each eight rows: byte n has the bits of feature n, the first row lowest.
    turned: [u64; CHUNK_KEYS / 8],
}

impl ValidityByte {
    fn of(&mut self, place: &FeaturePlace, first: usize, flags: &[u8], stride: usize) -> &[u64] {
        let wanted = (place.validity_lane, place.validity_byte, first);
        if self.of != Some(wanted) {
            self.of = Some(wanted);
            for (turned, eight) in self.turned.iter_mut().zip(flags.chunks(stride * 8)) {
                let bytes = eight.chunks_exact(stride).map(|row| u64::from(row[place.validity_byte]));
                *turned = transpose(bytes.enumerate().fold(0, |all, (at, byte)| all | byte << (at * 8)));
            }
        }
        &self.turned
    }
}

/// Turns eight bytes of eight bits: bit `i` of byte `j` becomes bit `j` of byte `i` (Warren, Hacker's Delight, 7-3).
#[inline]
fn transpose(x: u64) -> u64 {
    let swap = |x: u64, shift: u32, mask: u64| {
        let t = (x ^ x >> shift) & mask;
        x ^ t ^ t << shift
    };
    let x = swap(x, 7, 0x00aa_00aa_00aa_00aa);
    let x = swap(x, 14, 0x0000_cccc_0000_cccc);
    swap(x, 28, 0x0000_0000_f0f0_f0f0)
}

/// Whether a feature has a lane of its own, which is copied straight into the answer.
fn is_alone(place: &FeaturePlace) -> bool {
    !place.variable && place.width > SHARED_VALUE_BYTES_MAX
}

/// Nulls are zero bytes in the lane, so every row is copied without asking.
#[inline]
fn spread_fixed<const W: usize>(values: &[u8], stride: usize, offset: usize, out: &mut [u8]) {
    let (out, _) = out.as_chunks_mut::<W>();
    for (row, out) in values.chunks_exact(stride).zip(out) {
        let value = row[offset..].first_chunk::<W>().expect("the copy reaches to the end of every wanted value");
        *out = *value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bit_of_a_byte_becomes_that_byte_of_a_bit() {
        for (i, j) in (0..8).flat_map(|i| (0..8).map(move |j| (i, j))) {
            assert_eq!(transpose(1 << (8 * j + i)), 1 << (8 * i + j), "bit {i} of byte {j}");
        }
        assert_eq!(transpose(u64::MAX), u64::MAX);
    }
}
