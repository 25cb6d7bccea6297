//! `raft::GroupLog`: votes, log ids, entries and memberships of a group, as its log gives them back.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use stoa_env::RealClock;
use stoa_protocol::{PartitionId, ReplicaId, Wire};
use stoa_raft::GroupLog;
use stoa_raft::wal::{RecoveredGroup, Wal, WalIdentity, WalOptions};

use super::Seed;
use crate::Input;
use crate::input::put_piece;
use crate::memory_disk::MemoryDisk;

/// A log that nothing is written to: a group's log has a handle of it.
fn wal() -> &'static Wal {
    static WAL: OnceLock<(Wal, tokio::runtime::Runtime)> = OnceLock::new();
    let (wal, _) = WAL.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime is made");
        let (disk, identity) = (MemoryDisk::default(), WalIdentity { cluster: 1, node: 2 });
        let options = WalOptions { reserve_bytes: 0, ..WalOptions::default() };
        let opened = runtime.block_on(Wal::open(disk, "wal".into(), identity, options, Arc::new(RealClock)));
        (opened.expect("an empty directory opens").0, runtime)
    });
    wal
}

/// A byte of what there is, then the vote, the commit position, the purge point, the first index and the entries.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let has = input.byte();
    let mut piece = |bit: u8| (has & bit != 0).then(|| Bytes::copy_from_slice(input.piece()));
    let (vote, committed, purged) = (piece(1), piece(2), piece(4));
    let purged = purged.map(|id| (input.u64(), id));
    let mut entries = BTreeMap::new();
    let first = input.u64();
    let mut index = Some(first);
    while let Some(at) = index.filter(|_| !input.is_empty()) {
        // A gap now and then.
        index = at.checked_add(if input.byte() == 0xff { 2 } else { 1 });
        entries.insert(at, Bytes::copy_from_slice(input.piece()));
    }
    open(wal(), RecoveredGroup { vote, committed, purged, entries });
}

/// Opens what was recovered: the log holds all of it, or says what is wrong.
pub(super) fn open(wal: &Wal, recovered: RecoveredGroup) {
    let log = match GroupLog::new(PartitionId(2), wal.clone(), recovered.clone()) {
        Ok(log) => log,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let size = log.size();
    let entries = &recovered.entries;
    assert_eq!(size.entries, entries.len() as u64);
    assert_eq!(size.bytes, entries.values().map(|entry| entry.len() as u64).sum::<u64>());
    assert_eq!(log.bytes_after(None), size.bytes);
    let indices = entries.keys().copied();
    assert!(indices.clone().zip(indices.clone().skip(1)).all(|(one, next)| next == one + 1), "without gaps");
    if let Some((last, entry)) = entries.last_key_value() {
        assert_eq!(size.last, *last);
        // There is no index after the last one that there can be.
        assert!(*last == u64::MAX || log.bytes_after(Some(*last)) == 0);
        assert!(entry.len() >= 10, "an entry has a format, a term and a payload");
        assert!(!log.is_untouched(ReplicaId(1)));
    }
}

/// A log of each kind of entry, one that was purged, and one with a gap.
pub fn seeds() -> Vec<Seed> {
    let number = |numbers: &[u64]| numbers.iter().flat_map(|number| number.to_bytes()).collect::<Vec<_>>();
    let vote = [&[1][..], &number(&[2, 1]), &[1]].concat();
    let entry = |payload: &[u8]| [&[1][..], &number(&[2]), payload].concat();
    let list = |items: &[u64]| [&(items.len() as u32).to_bytes()[..], &number(items)].concat();
    let configs = [&[2, 2, 0, 0, 0][..], &list(&[1, 2]), &list(&[2, 3]), &3u32.to_bytes()].concat();
    let membership = [configs, number(&[1, 10, 2, 20, 3, 30])].concat();
    let entries = [entry(&[0]), entry(b"\x01rows"), entry(&membership)];
    let seed = |has: u8, first: u64, step: u8| {
        let mut out = vec![has];
        if has & 1 != 0 {
            put_piece(&vote, &mut out);
        }
        if has & 2 != 0 {
            put_piece(&number(&[2, 6]), &mut out);
        }
        if has & 4 != 0 {
            put_piece(&number(&[1, 4]), &mut out);
            4u64.put(&mut out);
        }
        first.put(&mut out);
        for entry in &entries {
            out.push(step);
            put_piece(entry, &mut out);
        }
        out
    };
    vec![("new", vec![]), ("plain", seed(3, 1, 0)), ("purged", seed(7, 5, 0)), ("gap", seed(1, 1, 0xff))]
}
