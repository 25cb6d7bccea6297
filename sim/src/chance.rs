//! All chance of a run, out of its seed. Every purpose has a stream of its own, so that one more draw for the one leaves
//! the others as they were.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use stoa_env::Entropy;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A stream of chance (splitmix64). Clones go on together.
#[derive(Debug, Clone)]
pub struct Chance {
    state: Arc<Mutex<u64>>,
}

impl Chance {
    /// The stream of this purpose under this seed.
    pub fn new(seed: u64, purpose: &str) -> Self {
        Self { state: Arc::new(Mutex::new(xxh3_64_with_seed(purpose.as_bytes(), seed))) }
    }

    /// The next 64 bits.
    pub fn bits(&self) -> u64 {
        let mut state = self.state.lock().unwrap_or_else(|e| e.into_inner());
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 if `n` is 0.
    pub fn below(&self, n: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(n)) >> 64) as u64
    }

    /// True `per_million` times in a million.
    pub fn hits(&self, per_million: u64) -> bool {
        self.below(1_000_000) < per_million
    }

    /// A time from `min` up to `max`.
    pub fn between(&self, min: Duration, max: Duration) -> Duration {
        let span = u64::try_from(max.saturating_sub(min).as_nanos()).unwrap_or(u64::MAX);
        min + Duration::from_nanos(self.below(span.saturating_add(1)))
    }

    /// One of these.
    pub fn pick<'a, T>(&self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }
}

impl Entropy for Chance {
    fn next_u64(&self) -> u64 {
        self.bits()
    }
}
