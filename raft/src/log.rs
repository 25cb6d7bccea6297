//! One group's part of the node's log, as openraft sees it. Entries since the last purge are kept in memory (replication
//! and apply read them from there); their bytes go to the node's write-ahead log, which alone makes them durable.
//!
//! Order: `append` puts the entries into memory and into the log's queue and returns, so they can be read at once; the
//! callback fires after the log's fdatasync. A vote is durable when `save_vote` returns. All of them go through the
//! log's one queue, so nothing overtakes (openraft's io_ordering).

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use stoa_protocol::PartitionId;

use crate::types::{
    Entry, LogId, StoaTypes, Vote, decode_entry, decode_log_id, decode_vote, encode_entry, encode_log_id, encode_vote,
};
use crate::wal::{RecoveredGroup, Wal};

/// Most bytes of entries handed to replication at once: half a frame, so that an append fits one with room to spare.
pub const REPLICATION_BYTES_MAX: usize = stoa_protocol::limits::FRAME_BYTES_MAX / 2;

const _: () = assert!(stoa_protocol::limits::BATCH_BYTES_MAX < REPLICATION_BYTES_MAX, "one entry must always fit");

/// A group's log; clones share it.
#[derive(Clone)]
pub struct GroupLog {
    partition: PartitionId,
    wal: Wal,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    entries: BTreeMap<u64, Slot>,
    entry_bytes: u64,
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
}

struct Slot {
    entry: Entry,
    bytes: u32,
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
        let mut state = State::default();
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
            state.insert(entry, bytes.len());
        }
        state.check();
        Ok(Self { partition, wal, state: Arc::new(Mutex::new(state)) })
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

    /// Whether this replica has ever written anything: a vote or an entry.
    pub fn is_untouched(&self) -> bool {
        let state = self.lock();
        state.vote.is_none() && state.last().is_none()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while the lock is held would leave entries and bytes at odds: go down loudly instead.
        self.state.lock().expect("no code panics while it holds a group's log")
    }
}

impl State {
    fn insert(&mut self, entry: Entry, bytes: usize) {
        let index = entry.log_id.index;
        self.entry_bytes += bytes as u64;
        if let Some(old) = self.entries.insert(index, Slot { entry, bytes: bytes as u32 }) {
            self.entry_bytes -= u64::from(old.bytes);
        }
    }

    fn remove(&mut self, indices: impl RangeBounds<u64>) {
        let gone: Vec<u64> = self.entries.range(indices).map(|(index, _)| *index).collect();
        for index in gone {
            let slot = self.entries.remove(&index).expect("the index was just listed");
            self.entry_bytes -= u64::from(slot.bytes);
        }
    }

    fn last(&self) -> Option<LogId> {
        self.entries.last_key_value().map(|(_, slot)| slot.entry.log_id).or(self.purged)
    }

    /// All invariants: indices without a gap, beginning after the purge point, terms never falling, bytes summed up.
    fn check(&self) {
        let mut last = self.purged;
        let mut bytes = 0;
        for (index, slot) in &self.entries {
            assert_eq!(*index, slot.entry.log_id.index);
            if let Some(last) = &last {
                assert_eq!(*index, last.index + 1, "the log has a gap after {}", last.index);
                assert!(slot.entry.log_id.leader_id >= last.leader_id, "terms fall at {index}");
            }
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
        {
            let mut state = self.lock();
            for entry in entries {
                let bytes = encode_entry(&entry);
                batch.push((entry.log_id.index, bytes.clone()));
                state.insert(entry, bytes.len());
            }
        }
        let done =
            move |result: Result<(), crate::wal::WalError>| callback.io_completed(result.map_err(io::Error::other));
        self.wal.append(self.partition.0, batch, done).map_err(io::Error::other)
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let keep = last_log_id.map(|id| id.index);
        self.lock().remove(keep.map_or(0, |index| index + 1)..);
        self.wal.truncate_after(self.partition.0, keep).await.map_err(io::Error::other)
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        let id = encode_log_id(&log_id);
        let upto = log_id.index;
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
