//! What one file holds: in the machine's memory, and on the device.

use std::ops::Range;

/// Sectors survive a crash whole or not at all.
const SECTOR: usize = 512;

#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) now: Vec<u8>,
    pub(super) synced: Vec<u8>,
    /// Whether the file was cut since the last sync: otherwise it has grown at its end alone.
    pub(super) cut: bool,
    /// Bytes that a failed sync has given up: the cache shows them until a crash, and no later sync writes them.
    pub(super) given_up: Range<usize>,
}

/// Zeros in this range, as far as there are bytes.
fn clear(bytes: &mut [u8], range: &Range<usize>) {
    let end = range.end.min(bytes.len());
    bytes[range.start.min(end)..end].fill(0);
}

impl Content {
    pub(super) fn sync(&mut self) {
        match std::mem::take(&mut self.cut) || self.synced.len() > self.now.len() {
            true => self.synced.clone_from(&self.now),
            false => self.synced.extend_from_slice(&self.now[self.synced.len()..]),
        }
        clear(&mut self.synced, &self.given_up);
    }

    /// A sync has failed: as a kernel does, the cache takes what it could not write for written.
    pub(super) fn give_up(&mut self) {
        let from = if self.given_up.is_empty() { self.synced.len() } else { self.given_up.start };
        self.given_up = from..self.now.len();
    }

    pub(super) fn crash(&mut self, choose: &mut dyn FnMut(u64) -> u64) {
        clear(&mut self.now, &std::mem::take(&mut self.given_up));
        let kept = self.synced.len();
        let longer = self.now.len() >= kept && self.now[..kept] == self.synced[..];
        if !longer {
            // A cut that was not synced, or a file whose name came back: the old bytes, or the new.
            if self.now.is_empty() || choose(2) == 0 {
                self.now = self.synced.clone();
            }
        } else {
            let unsynced = (self.now.len() - kept) as u64;
            self.now.truncate(kept + choose(unsynced + 1) as usize);
            if choose(4) == 0 {
                self.lose_sectors(kept, choose);
            }
        }
        self.synced = self.now.clone();
        self.cut = false;
    }

    /// The size reached the device and some sectors did not.
    fn lose_sectors(&mut self, from: usize, choose: &mut dyn FnMut(u64) -> u64) {
        let mut start = from;
        while start < self.now.len() {
            let end = (start + 1).next_multiple_of(SECTOR).min(self.now.len());
            if choose(2) == 0 {
                self.now[start..end].fill(0);
            }
            start = end;
        }
    }
}
