//! A writer session's place in one partition: which number comes next, and who may have it already.
//!
//! A partition answers a number that it has applied with "repeated" and applies nothing. So a number that two batches
//! share loses one of them, acknowledged. Three rules keep that from happening:
//!
//! 1. One batch at a time has the next number. Whoever writes holds the place meanwhile.
//! 2. A batch whose outcome is open keeps its number, over failures and dropped calls, until an answer says that it was
//!    applied, or it is refused for good and a quorum says that it was not.
//! 3. Even then a copy of it may still be on its way, as may a batch of a writer that had the session before. The number
//!    is *contested*: the next batch takes it, and if a partition says that another batch has it (`SessionConflict`), takes
//!    the one after it as well.
//!
//! Partitions compare the contents of batches under one number: "repeated" is said of these very rows, and a mistake here
//! is refused, and not acknowledged.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use stoa_env::{Bounds, Gauge};
use stoa_protocol::limits::SET_PARTITIONS_MAX;
use stoa_protocol::{PartitionId, RowBatch};

/// The place in one partition.
#[derive(Debug)]
pub(crate) struct SessionPlace {
    /// The last number known to be applied.
    last: u64,
    /// The batch that has the next number, with an outcome that is not known.
    open: Option<RowBatch>,
    /// Whether a batch that this writer does not wait for may have the next number.
    contested: bool,
}

impl SessionPlace {
    /// As a quorum tells it. Who wrote before, and what of that is still on its way, nobody can know.
    pub fn new(last: u64) -> Self {
        Self { last, open: None, contested: true }
    }

    /// The number of the next batch.
    pub fn next(&self) -> u64 {
        self.last + 1
    }

    /// The batch that must be settled before any other is sent.
    pub fn open(&self) -> Option<RowBatch> {
        self.open.clone()
    }

    /// A batch is about to be sent with the next number. Noted first: the call may be dropped at any time.
    pub fn on_send(&mut self, batch: &RowBatch) {
        self.open = Some(batch.clone());
    }

    /// The batch was applied under the next number: this time, or when it was sent before.
    pub fn on_applied(&mut self) {
        *self = Self { last: self.last + 1, open: None, contested: false };
    }

    /// The next number is used up; false if another batch may have used it.
    #[must_use]
    pub fn on_used(&mut self) -> bool {
        let by_another = self.contested;
        self.on_applied();
        !by_another
    }

    /// The next number was refused, as another batch has it; false if nobody else could have had it, which means that two
    /// writers use the session.
    #[must_use]
    pub fn on_taken(&mut self) -> bool {
        if self.contested {
            *self = Self { last: self.last + 1, open: None, contested: false };
            return true;
        }
        false
    }

    /// The batch was refused, and no copy of it was ever let go unanswered.
    pub fn on_never_taken(&mut self) {
        self.open = None;
    }

    /// The batch was refused for good, and a quorum said then that it was not applied; a copy may be on its way.
    pub fn on_given_up(&mut self) {
        self.open = None;
        self.contested = true;
    }
}

/// A place that is learnt when it is first needed; whoever writes holds it meanwhile.
pub(crate) type HeldPlace = Arc<tokio::sync::Mutex<Option<SessionPlace>>>;

/// The places in all partitions written to. Bounded by the partitions of the group's set.
#[derive(Debug)]
pub(crate) struct SessionPlaces {
    places: Mutex<BTreeMap<PartitionId, HeldPlace>>,
    counted: Gauge,
}

impl SessionPlaces {
    pub fn new(bounds: &Bounds) -> Self {
        let counted = bounds.gauge("client: places of a writer's session", SET_PARTITIONS_MAX as u64);
        Self { places: Mutex::default(), counted }
    }

    pub fn of(&self, partition: PartitionId) -> HeldPlace {
        let mut places = self.places.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let place = places.entry(partition).or_default().clone();
        self.counted.note_len(places.len());
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_contested_number_is_doubted() {
        let mut place = SessionPlace::new(4);
        assert_eq!(place.next(), 5);
        assert!(!place.on_used(), "a predecessor's batch may have it");
        assert_eq!(place.next(), 6);
        assert!(place.on_used(), "nobody else had this one");
        assert!(!place.on_taken(), "an uncontested number that is taken means a second writer");
        place.on_given_up();
        assert!(place.on_taken() && !place.on_taken());
        place.on_applied();
        place.on_applied();
        assert_eq!(place.next(), 10);
    }
}
