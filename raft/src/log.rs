//! One group's part of the node's log, as openraft sees it. Entries since the last purge are kept in memory (replication
//! and apply read them from there); their bytes go to the node's write-ahead log, which alone makes them durable.
//!
//! Order: `append` puts the entries into memory and into the log's queue and returns, so they can be read at once; the
//! callback fires after the log's fdatasync. A vote is durable when `save_vote` returns. All of them go through the
//! log's one queue, so nothing overtakes (openraft's io_ordering).
//!
//! An error here is fatal to openraft's core, so nothing here may fail for reasons that pass. What can be refused for want
//! of room (a proposal, an append of another replica's) is refused before openraft sees it, by `Replica`; what comes
//! here is taken.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use stoa_env::{Gauge, planted};
use stoa_protocol::{PartitionId, ReplicaId};

use crate::seam::Ends;
use crate::types::{
    Entry, LogId, StoaTypes, Vote, decode_entry, decode_log_id, decode_vote, encode_entry, encode_log_id, encode_vote,
};
use crate::wal::{RecoveredGroup, Room, Wal, WalError};

/// Most bytes of entries handed to replication at once: half a frame, so that an append fits one with room to spare.
pub const REPLICATION_BYTES_MAX: usize = stoa_protocol::limits::FRAME_BYTES_MAX / 2;

/// Most bytes of one command: an entry must fit one append to a follower with what stands around it, or the group could
/// never replicate it and would stand still.
pub const COMMAND_BYTES_MAX: usize = REPLICATION_BYTES_MAX - 4096;

const _: () =
    assert!(stoa_protocol::limits::BATCH_BYTES_MAX + 4096 < COMMAND_BYTES_MAX, "a row batch must fit an entry");
const _: () = assert!(COMMAND_BYTES_MAX + 4096 < crate::wal::PAYLOAD_BYTES_MAX, "an entry must fit a frame of the log");

/// A group's log; clones share it.
#[derive(Clone)]
pub struct GroupLog {
    partition: PartitionId,
    wal: Wal,
    state: Arc<Mutex<State>>,
}

struct State {
    /// Counts the bytes of what is here, with those of the node's other groups.
    memory: Gauge,
    entries: BTreeMap<u64, Slot>,
    entry_bytes: u64,
    /// Where the bytes of the next entry begin if there is none.
    purged_bytes: u64,
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
}

struct Slot {
    entry: Entry,
    bytes: u32,
    /// Bytes of all entries before this one, since this log was opened.
    before: u64,
}

impl Slot {
    fn end(&self) -> u64 {
        self.before + u64::from(self.bytes)
    }
}

/// How much a group's log holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSize {
    /// Entries since the last purge.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The last entry's index; 0 if there is none.
    pub last: u64,
}

impl GroupLog {
    /// The log of a group as recovery found it. Fails if bytes that passed their checksums cannot be understood: they are
    /// of a newer version, or of no version.
    pub fn new(partition: PartitionId, wal: Wal, recovered: RecoveredGroup) -> io::Result<Self> {
        let bad = |what: &str, error: &dyn std::fmt::Display| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{what} of partition {partition} in the log: {error}"))
        };
        let mut state = State::new(wal.memory().clone());
        if let Some(bytes) = recovered.vote {
            state.vote = Some(decode_vote(&bytes).map_err(|e| bad("the vote", &e))?);
        }
        if let Some(bytes) = recovered.committed {
            state.committed = Some(decode_log_id(&bytes).map_err(|e| bad("the committed id", &e))?);
        }
        if let Some((_, bytes)) = recovered.purged {
            state.purged = Some(decode_log_id(&bytes).map_err(|e| bad("the purge point", &e))?);
        }
        for (index, bytes) in recovered.entries {
            let entry = decode_entry(index, &bytes).map_err(|e| bad(&format!("entry {index}"), &e))?;
            if state.entries.last_key_value().is_some_and(|(last, _)| last + 1 != index) {
                return Err(bad(&format!("entry {index}"), &"entries before it are missing"));
            }
            state.insert(entry, bytes.len());
        }
        Ok(Self { partition, wal, state: Arc::new(Mutex::new(state)) })
    }

    /// What recovery would find now. For another start in the same process: a start that fails may have saved a vote before,
    /// or emptied the log.
    pub(crate) fn recovered(&self) -> RecoveredGroup {
        let state = self.lock();
        RecoveredGroup {
            vote: state.vote.as_ref().map(encode_vote),
            committed: state.committed.as_ref().map(encode_log_id),
            purged: state.purged.as_ref().map(|id| (id.index, encode_log_id(id))),
            entries: state.entries.iter().map(|(index, slot)| (*index, encode_entry(&slot.entry))).collect(),
        }
    }

    /// How much the log holds.
    pub fn size(&self) -> LogSize {
        let state = self.lock();
        LogSize {
            entries: state.entries.len() as u64,
            bytes: state.entry_bytes,
            last: state.last().map_or(0, |id| id.index),
        }
    }

    /// Bytes of the entries after `index`, or of all.
    pub fn bytes_after(&self, index: Option<u64>) -> u64 {
        self.lock().bytes_after(index)
    }

    /// The last entry that need not stay, if of those up to `covered` so many stay as are no more than `entries` and no more
    /// than `bytes`, but one in any case where both allow for any; `None` if all of them may.
    pub fn kept_behind(&self, covered: u64, entries: u64, bytes: u64) -> Option<u64> {
        self.lock().kept_behind(covered, entries, bytes)
    }

    /// Whether this replica has never written anything but its first vote.
    pub fn is_untouched(&self, id: ReplicaId) -> bool {
        let state = self.lock();
        state.vote.is_none_or(|vote| vote == first_vote(id)) && state.last().is_none()
    }

    /// What a start is judged by.
    pub(crate) fn ends(&self, covered: Option<LogId>) -> Ends {
        let state = self.lock();
        let at = |place: Option<LogId>| place.and_then(|id| state.entries.get(&id.index)).map(|slot| slot.entry.log_id);
        Ends {
            vote: state.vote,
            purged: state.purged,
            first: state.entries.first_key_value().map(|(_, slot)| slot.entry.log_id),
            last: state.last(),
            committed: state.committed,
            at_snapshot: at(covered),
            at_committed: at(state.committed),
        }
    }

    /// Saves the vote that a replica begins with; Raft takes it for none.
    pub(crate) async fn save_first_vote(&mut self, id: ReplicaId) -> io::Result<()> {
        self.save_vote(&first_vote(id)).await
    }

    /// Empties the log; it begins after `covered`.
    pub(crate) async fn restart_after(&mut self, covered: LogId) -> io::Result<()> {
        let keep = self.lock().purged.map(|purged| purged.index);
        self.lock().remove(..);
        self.wal.truncate_after(self.partition.0, keep).await.map_err(io::Error::other)?;
        self.purge(covered).await
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while the lock is held would leave entries and bytes at odds: go down loudly instead.
        self.state.lock().expect("no code panics while it holds a group's log")
    }
}

/// Term 0, for itself, not granted: what openraft assumes where there is no vote.
fn first_vote(id: ReplicaId) -> Vote {
    Vote::new(0, id.0)
}

impl Drop for State {
    fn drop(&mut self) {
        self.memory.sub(self.entry_bytes);
    }
}

impl State {
    fn new(memory: Gauge) -> Self {
        let (entries, entry_bytes, purged_bytes) = Default::default();
        Self { memory, entries, entry_bytes, purged_bytes, vote: None, committed: None, purged: None }
    }

    fn insert(&mut self, entry: Entry, bytes: usize) {
        let index = entry.log_id.index;
        assert!(self.entries.last_key_value().is_none_or(|(last, _)| *last < index), "entries come in their order");
        let before = self.entries.last_key_value().map_or(self.purged_bytes, |(_, slot)| slot.end());
        self.entry_bytes += bytes as u64;
        self.memory.add(bytes as u64);
        self.entries.insert(index, Slot { entry, bytes: bytes as u32, before });
    }

    /// Bytes of the entries after `index`.
    fn bytes_after(&self, index: Option<u64>) -> u64 {
        let from = index.map_or(0, |index| index + 1);
        let first = self.entries.range(from..).next().map(|(_, slot)| slot.before);
        let end = self.entries.last_key_value().map_or(0, |(_, slot)| slot.end());
        first.map_or(0, |before| end - before)
    }

    fn kept_behind(&self, covered: u64, entries: u64, bytes: u64) -> Option<u64> {
        let mut kept = 0;
        let mut newest_first = self.entries.range(..=covered).rev().enumerate();
        newest_first.find_map(|(count, (index, slot))| {
            kept += u64::from(slot.bytes);
            let is_too_much = kept > bytes && (count > 0 || bytes == 0);
            (count as u64 >= entries || is_too_much).then_some(*index)
        })
    }

    fn remove(&mut self, indices: impl RangeBounds<u64>) {
        let gone: Vec<u64> = self.entries.range(indices).map(|(index, _)| *index).collect();
        for index in gone {
            let slot = self.entries.remove(&index).expect("the index was just listed");
            self.entry_bytes -= u64::from(slot.bytes);
            self.memory.sub(u64::from(slot.bytes));
            self.purged_bytes = self.purged_bytes.max(slot.end());
        }
    }

    fn last(&self) -> Option<LogId> {
        self.entries.last_key_value().map(|(_, slot)| slot.entry.log_id).or(self.purged)
    }

    /// All invariants: indices without a gap, beginning after the purge point, terms never falling, bytes summed up.
    #[cfg(test)]
    fn check(&self) {
        let mut last = self.purged;
        let mut bytes = 0;
        for (index, slot) in &self.entries {
            assert_eq!(*index, slot.entry.log_id.index);
            if let Some(last) = &last {
                assert_eq!(*index, last.index + 1, "the log has a gap after {}", last.index);
                assert!(slot.entry.log_id.leader_id >= last.leader_id, "terms fall at {index}");
            }
            assert_eq!(slot.before, self.entries[self.entries.keys().next().expect("there is one")].before + bytes);
            bytes += u64::from(slot.bytes);
            last = Some(slot.entry.log_id);
        }
        assert_eq!(bytes, self.entry_bytes);
    }

    fn read(&self, range: impl RangeBounds<u64>, bytes_max: usize) -> Vec<Entry> {
        let mut bytes = 0;
        let mut out: Vec<Entry> = Vec::new();
        for slot in self.entries.range(range).map(|(_, slot)| slot) {
            bytes += slot.bytes as usize;
            if bytes > bytes_max && !out.is_empty() {
                break;
            }
            out.push(slot.entry.clone());
        }
        out
    }
}

impl RaftLogReader<StoaTypes> for GroupLog {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        // BTreeMap::range panics on an empty range given backward; openraft may ask for one.
        let start = match range.start_bound() {
            Bound::Included(&at) => at,
            Bound::Excluded(&at) => at + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&at) => at.saturating_add(1),
            Bound::Excluded(&at) => at,
            Bound::Unbounded => u64::MAX,
        };
        if start >= end {
            return Ok(Vec::new());
        }
        Ok(self.lock().read(start..end, usize::MAX))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        if start >= end {
            return Ok(Vec::new());
        }
        Ok(self.lock().read(start..end, REPLICATION_BYTES_MAX))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.lock().vote)
    }
}

impl RaftLogStorage<StoaTypes> for GroupLog {
    type LogReader = GroupLog;

    async fn get_log_state(&mut self) -> Result<LogState<StoaTypes>, io::Error> {
        let state = self.lock();
        Ok(LogState { last_purged_log_id: state.purged, last_log_id: state.last() })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.wal.save_vote(self.partition.0, encode_vote(vote)).await.map_err(io::Error::other)?;
        self.lock().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        if let Some(id) = &committed {
            self.wal.save_committed(self.partition.0, encode_log_id(id)).map_err(io::Error::other)?;
        }
        self.lock().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        let state = self.lock();
        // A committed id that rode ahead of the entries it covers says nothing about what is here.
        Ok(state.committed.min(state.last()))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<StoaTypes>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let mut batch: Vec<(u64, Bytes)> = Vec::new();
        let mut entries = entries.into_iter().peekable();
        // openraft may append what stands here already, or over a tail that another leader has replaced: the first is
        // skipped, the second cut off before, since the log takes nothing but the entry after its last.
        let cut = {
            let state = self.lock();
            let stands = |entry: &Entry| {
                state.entries.get(&entry.log_id.index).is_some_and(|slot| slot.entry.log_id == entry.log_id)
            };
            while entries.next_if(stands).is_some() {}
            entries.peek().map(|entry| entry.log_id.index).filter(|index| state.entries.contains_key(index))
        };
        if let Some(index) = cut {
            self.lock().remove(index..);
            let keep = index.checked_sub(1);
            self.wal.truncate_after(self.partition.0, keep).await.map_err(io::Error::other)?;
        }
        // The room that was taken before openraft saw the entries is given back when they are durable.
        let mut rooms: Vec<Arc<Room>> = Vec::new();
        {
            let mut state = self.lock();
            for mut entry in entries {
                if let EntryPayload::Normal(command) = &mut entry.payload {
                    rooms.extend(command.take_room());
                }
                let bytes = encode_entry(&entry);
                batch.push((entry.log_id.index, bytes.clone()));
                state.insert(entry, bytes.len());
            }
        }
        let done = move |result: Result<(), WalError>| {
            drop(rooms);
            callback.io_completed(result.map_err(io::Error::other));
        };
        self.wal.append(self.partition.0, batch, done).map_err(io::Error::other)
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let keep = last_log_id.map(|id| id.index);
        self.lock().remove(keep.map_or(0, |index| index + 1)..);
        self.wal.truncate_after(self.partition.0, keep).await.map_err(io::Error::other)
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        let id = encode_log_id(&log_id);
        let upto = if planted!(PurgePastSnapshot) { log_id.index + 64 } else { log_id.index };
        {
            let mut state = self.lock();
            if state.purged.as_ref().is_some_and(|purged| *purged >= log_id) {
                return Ok(());
            }
            state.remove(..=upto);
            state.purged = Some(log_id);
        }
        self.wal.purge(self.partition.0, upto, id).await.map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Command, log_id};

    fn entry(index: u64, bytes: usize) -> Entry {
        let payload = EntryPayload::Normal(Command::new(vec![0; bytes].into()));
        Entry { log_id: log_id(1, index), payload }
    }

    #[test]
    fn what_is_kept_behind_a_snapshot_is_bounded_by_entries_and_by_bytes() {
        let mut state = State::new(stoa_env::Bounds::default().node_gauge("bytes", 10_000));
        (1..=20).for_each(|index| state.insert(entry(index, 0), 10));
        let cases = [
            ((15, 5, 1_000), Some(10)),
            ((15, 15, 1_000), None),
            ((15, 5, 50), Some(10)),
            ((15, 5, 49), Some(11)),
            ((15, 5, 9), Some(14)),
            ((15, 5, 0), Some(15)),
            ((15, 0, 1_000), Some(15)),
            ((25, 3, 1_000), Some(17)),
        ];
        for ((covered, entries, bytes), spare) in cases {
            assert_eq!(state.kept_behind(covered, entries, bytes), spare, "{covered}, {entries}, {bytes}");
        }
    }

    #[test]
    fn the_bytes_after_any_place_are_known_through_appends_cuts_and_purges() {
        let memory = stoa_env::Bounds::default().node_gauge("bytes", 10_000);
        let mut state = State::new(memory.clone());
        let check = |state: &State| {
            state.check();
            for from in 0..30 {
                let slots = state.entries.range(from + 1..).map(|(_, slot)| u64::from(slot.bytes));
                assert_eq!(state.bytes_after(Some(from)), slots.sum::<u64>(), "after {from}");
            }
            assert_eq!(state.bytes_after(None), state.entry_bytes);
        };
        (0..20).for_each(|index| state.insert(entry(index, 0), index as usize * 10));
        check(&state);
        state.remove(15..);
        (15..25).for_each(|index| state.insert(entry(index, 0), 7));
        check(&state);
        state.remove(..=10);
        state.purged = Some(log_id(1, 10));
        check(&state);
        state.remove(..);
        state.purged = Some(log_id(1, 24));
        check(&state);
        state.insert(entry(25, 0), 3);
        check(&state);
        assert_eq!(state.bytes_after(Some(24)), 3);
        let high = memory.bound_and_high().1;
        assert_eq!(high, (0..20).map(|index| index * 10).sum::<u64>());
        drop(state);
        memory.add(high + 1);
        assert_eq!(memory.bound_and_high().1, high + 1, "all has been given back");
    }
}
