//! Ways to lay columns out, and what it costs to gather some of them from random rows: bare, from plain arrays without
//! index, validity or readers, and whole, by the store with lanes of that width.

#![allow(clippy::disallowed_methods)] // a benchmark measures true time, and no node is about

use std::hint::black_box;
use std::time::Instant;

use memmap2::{MmapMut, MmapOptions};

use crate::rows::Picks;
use crate::store::{FEATURES, READ_ROWS};

/// A cache line.
const LINE_BYTES: usize = 64;
/// Bytes of a value.
const VALUE_BYTES: usize = 4;

/// How columns are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Its name in reports.
    pub name: &'static str,
    /// Bytes of a row that lie side by side in a bare array.
    bare_bytes: usize,
    /// The same in the store, which has whole words.
    pub lane_bytes: usize,
}

/// Those that are compared; the last one is the store's own.
pub const LAYOUTS: [Layout; 3] = [
    Layout { name: "columns", bare_bytes: VALUE_BYTES, lane_bytes: 8 },
    Layout { name: "tiles", bare_bytes: LINE_BYTES, lane_bytes: LINE_BYTES },
    Layout { name: "rows", bare_bytes: FEATURES * VALUE_BYTES, lane_bytes: 256 },
];

/// How the lines of a read's rows are brought near before the first row is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Near {
    /// A byte of each is loaded: they come into the first cache.
    Touched,
    /// The processor is asked for them, as the store asks: they come into the second cache. Where it cannot be asked
    /// (elsewhere than on x86_64) they are touched.
    Asked,
}

impl Near {
    /// Brings the lines of a row near.
    #[inline(always)]
    fn bring(self, row: &[u8]) -> u8 {
        let lines = row.iter().step_by(LINE_BYTES);
        let last = row.last().expect("a row has bytes");
        match self {
            Self::Touched => lines.fold(*last, |sum, byte| sum.wrapping_add(*byte)),
            Self::Asked => {
                lines.for_each(ask);
                ask(last);
                0
            }
        }
    }
}

/// Asks for the line of a byte. A hint is no access, and std has no safe one.
#[inline(always)]
#[allow(unsafe_code)]
fn ask(byte: &u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a prefetch is no access. SSE is part of every x86_64.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(byte).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    black_box(*byte);
}

/// Memory as the store's lanes have it: in huge pages, if they are granted, and backed. A copy from other memory would be
/// slower for a reason that has nothing to do with what is compared.
fn memory(bytes: usize) -> std::io::Result<MmapMut> {
    let mut map = MmapOptions::new().len(bytes.max(1)).map_anon()?;
    #[cfg(target_os = "linux")]
    // A wish, as there.
    let _ = map.advise(memmap2::Advice::HugePage);
    map.fill(1);
    Ok(map)
}

impl Layout {
    /// Whole rows of so many features, side by side.
    pub fn of_rows(features: usize) -> Self {
        let bytes = features * VALUE_BYTES;
        Self { name: "rows", bare_bytes: bytes, lane_bytes: bytes }
    }

    /// Plain arrays of so many rows, of which `columns` neighbouring columns are copied at the most.
    pub fn plain(&self, rows: u64, columns: usize) -> std::io::Result<Plain> {
        let count = (columns * VALUE_BYTES).div_ceil(self.bare_bytes);
        let arrays: Result<Vec<_>, _> = (0..count).map(|_| memory(rows as usize * self.bare_bytes)).collect();
        Ok(Plain { arrays: arrays?, rows, row_bytes: self.bare_bytes })
    }
}

/// Columns without index, validity or readers.
pub struct Plain {
    arrays: Vec<MmapMut>,
    rows: u64,
    /// Bytes of a row in each array.
    row_bytes: usize,
}

impl Plain {
    /// Touches every page, as [`visit`](crate::store::visit) does with those of a partition.
    pub fn visit(&self) {
        let page = rustix::param::page_size();
        let sum = |array: &MmapMut| array.iter().step_by(page).fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        black_box(self.arrays.iter().map(sum).fold(0, u8::wrapping_add));
    }

    /// Nanoseconds of a row: so many reads of 100 random rows by a seed, of the first `columns` columns, the lines of all of
    /// them brought near before the first is copied, so that the memory brings them side by side.
    pub fn time(&self, columns: usize, near: Near, reads: u64, seed: u64) -> f64 {
        let row_bytes = self.row_bytes;
        // What of each array is copied.
        let bytes = |array: usize| (columns * VALUE_BYTES - array * row_bytes).min(row_bytes);
        let arrays: Vec<(&[u8], usize)> =
            (0..(columns * VALUE_BYTES).div_ceil(row_bytes)).map(|at| (&self.arrays[at][..], bytes(at))).collect();
        let mut out = vec![0_u8; READ_ROWS * columns * VALUE_BYTES];
        let picks = Picks::new(seed, self.rows).take(reads as usize * READ_ROWS);
        let places: Vec<usize> = picks.map(|row| row as usize * row_bytes).collect();
        let start = Instant::now();
        for read in places.chunks(READ_ROWS) {
            for &(array, bytes) in &arrays {
                let touched =
                    read.iter().fold(0_u8, |sum, &from| sum.wrapping_add(near.bring(&array[from..][..bytes])));
                black_box(touched);
            }
            for (to, &from) in out.chunks_exact_mut(columns * VALUE_BYTES).zip(read) {
                let mut end = 0;
                for &(array, bytes) in &arrays {
                    to[end..end + bytes].copy_from_slice(&array[from..from + bytes]);
                    end += bytes;
                }
            }
            black_box(&mut out);
        }
        start.elapsed().as_nanos() as f64 / places.len() as f64
    }
}
