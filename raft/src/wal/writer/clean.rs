//! Old segments go, whatever their groups do. A group purges only what its snapshots cover and keeps some entries beyond;
//! one that is quiet, or has lost its quorum, would pin the oldest segment for ever, and all behind it: the live bytes
//! would rise to their maximum, and the node would take no write any more. So when the log is pressed, what is still
//! needed of an old segment is written again into the current one (frames of kind Moved).
//!
//! The order, for a crash at any point:
//! 1. Read the old segment, and append its live entries to the current one.
//! 2. Sync. Now each of them stands twice, which a replay takes as once.
//! 3. Nothing needs the old segment: the next deletion takes it, oldest first, as always.
//!
//! At most half of what goes is written again, so the log is written twice at the worst; and while the live entries are
//! less than a quarter of the maximum, there is always something that may go.

use std::collections::BTreeMap;

use bytes::Bytes;
use stoa_env::Disk;

use super::{Held, Writer};
use crate::wal::WalError;
use crate::wal::frame::{self, Item, Kind};
use crate::wal::options::SEGMENT_FILE_BYTES_MAX;
use crate::wal::segment::segment_name;

impl<D: Disk> Writer<D> {
    /// Whether it is time to make old segments go: half of the maximum is reached, or the device is full.
    fn is_pressed(&self) -> bool {
        self.live_bytes() > self.options.max_live_bytes / 2 || self.lacks_reserve()
    }

    /// Whether the oldest segment should be cleaned now. It is if some run of the oldest segments takes at most half of
    /// its bytes to be written again. Their beginnings do not count: the segment that takes the copies has one, too.
    pub(super) fn wants_cleaning(&self) -> bool {
        if !self.is_pressed() {
            return false;
        }
        let pin = self.pinned_from();
        let older = self.segments.iter().take(self.segments.len() - 1).take_while(|segment| segment.id < pin);
        let (mut moved, mut freed) = (0, 0);
        for segment in older {
            let live: u64 = self.needing(segment).map(|(group, held)| held.live_bytes(self.purged(group))).sum();
            // On a full device the copy must fit what the reserve gave back, with room for votes.
            if self.lacks_reserve() && live > self.options.reserve_bytes / 16 {
                return false;
            }
            moved += live;
            freed += segment.filling();
            if moved <= freed / 2 {
                return true;
            }
        }
        false
    }

    /// Writes what is still needed of the oldest segment again, and lets it go.
    pub(super) async fn clean_oldest(&mut self) -> Result<(), WalError> {
        let doing = "reading an old segment to let it go";
        let oldest = self.segments.front().expect("there is always a current segment");
        let (id, wanted) = (oldest.id, self.wanted(oldest));
        let path = self.dir.join(segment_name(id));
        let file = self.disk.read(&path, SEGMENT_FILE_BYTES_MAX).await.map_err(|e| WalError::failed(doing, e))?;
        let Some(entries) = live_entries(&file, id, self.salt, &wanted) else {
            // Rot: the file is the only witness. It stays; the next start finds out whose it is.
            tracing::error!(segment = id, "an old segment of the log is damaged; it and all after it stay");
            self.kept = Some(self.kept.map_or(id, |kept| kept.min(id)));
            return Ok(());
        };
        for (group, index, payload) in entries {
            self.push(Kind::Moved, group, index, &payload).await?;
            self.segments.back_mut().expect("there is always a current segment").hold(group, index, payload.len());
            if self.buffer.len() as u64 >= self.options.round_bytes {
                self.flush().await?;
            }
        }
        self.flush().await?;
        self.sync().await?;
        let oldest = self.segments.front_mut().expect("there is always a current segment");
        assert_eq!(oldest.id, id, "only the writer lets segments go");
        oldest.held.clear();
        self.queue.update_stats(|stats| stats.segments_cleaned += 1);
        self.delete_dispensable().await.map_err(|e| WalError::failed("deleting old segments", e))?;
        self.publish();
        Ok(())
    }

    /// Per group, which entries of a segment are needed: those above the first number, up to the second.
    fn wanted(&self, segment: &super::Segment) -> BTreeMap<u64, (Option<u64>, u64)> {
        let needing = self.needing(segment).map(|(group, Held { last, .. })| (group, (self.purged(group), last)));
        needing.collect()
    }

    /// Up to where a group's entries are purged.
    fn purged(&self, group: u64) -> Option<u64> {
        self.groups.get(&group)?.purged.as_ref().map(|(upto, _)| *upto)
    }
}

/// The entries of a segment that are needed; `None` if the file holds damage. What was appended, dropped and appended
/// again in the same segment counts as it was last.
fn live_entries(
    file: &Bytes,
    segment: u64,
    salt: u32,
    wanted: &BTreeMap<u64, (Option<u64>, u64)>,
) -> Option<Vec<(u64, u64, Bytes)>> {
    let mut groups: BTreeMap<u64, BTreeMap<u64, Bytes>> = BTreeMap::new();
    for item in frame::scan(file, segment, salt) {
        let Item::Frame(header, payload) = item else { return None };
        if !wanted.contains_key(&header.group) {
            continue;
        }
        let entries = groups.entry(header.group).or_default();
        match header.kind {
            Kind::Entry | Kind::Moved => drop(entries.insert(header.index, file.slice_ref(payload))),
            Kind::Truncate if payload.is_empty() => entries.clear(),
            Kind::Truncate => entries.retain(|index, _| *index <= header.index),
            Kind::Forget => entries.clear(),
            _ => {}
        }
    }
    let mut live = Vec::new();
    for (group, entries) in groups {
        let (purged, last) = wanted[&group];
        let needed = entries.into_iter().filter(|(index, _)| purged.is_none_or(|upto| *index > upto) && *index <= last);
        live.extend(needed.map(|(index, payload)| (group, index, payload)));
    }
    Some(live)
}
