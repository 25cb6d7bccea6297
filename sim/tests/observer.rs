//! The judges' reader of logs is not the product's, and says the same: what it takes for durable is what the log finds
//! after a loss of power that leaves nothing else.

#![allow(clippy::unwrap_used)] // a test ends where something is not as it should be

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use stoa_raft::wal::{Wal, WalIdentity, WalOptions};
use stoa_sim::chance::Chance;
use stoa_sim::clock::SimClock;
use stoa_sim::disk::SimDisk;
use stoa_sim::observe::disk_log::DiskLog;

const GROUPS: u64 = 3;

fn entry(term: u64, size: u64) -> Bytes {
    let mut bytes = vec![1];
    bytes.extend_from_slice(&term.to_le_bytes());
    bytes.push(1);
    bytes.resize(bytes.len() + size as usize, 7);
    bytes.into()
}

fn vote(term: u64) -> Bytes {
    let mut bytes = vec![1];
    bytes.extend_from_slice(&term.to_le_bytes());
    bytes.extend_from_slice(&9u64.to_le_bytes());
    bytes.push(0);
    bytes.into()
}

fn log_id(term: u64, index: u64) -> Bytes {
    [term.to_le_bytes(), index.to_le_bytes()].concat().into()
}

async fn open(disk: &SimDisk) -> (Wal, stoa_raft::wal::Recovered) {
    let options = WalOptions {
        segment_bytes: 4 << 10,
        queue_bytes: 1 << 20,
        round_bytes: 8 << 10,
        max_live_bytes: 1 << 20,
        reserve_bytes: 0,
    };
    #[allow(clippy::disallowed_methods)] // simulated time itself
    let clock = Arc::new(SimClock::new(tokio::time::Instant::now(), 0, 0, 0));
    let identity = WalIdentity { cluster: 5, node: 6 };
    Wal::open(disk.clone(), "wal".into(), identity, options, clock).await.unwrap()
}

/// What both say is durable, in one form.
fn told(log: &DiskLog) -> Vec<String> {
    let some = log.groups().filter(|(_, group)| group.vote.is_some() || !group.entries.is_empty());
    let tell = |(id, group): (u64, &stoa_sim::observe::disk_log::GroupLog)| {
        let entries: Vec<_> = group.entries.iter().map(|(index, held)| (*index, held.term)).collect();
        let purged = group.purged.map(|id| (id.term, id.index));
        let committed = group.committed.map(|id| (id.term, id.index));
        format!(
            "{id}: {entries:?} vote {:?} purged {purged:?} committed {committed:?}",
            group.vote.map(|vote| vote.term)
        )
    };
    some.map(tell).collect()
}

fn found(recovered: &stoa_raft::wal::Recovered) -> Vec<String> {
    let number = |bytes: &Bytes, at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let some = recovered.groups.iter().filter(|(_, group)| group.vote.is_some() || !group.entries.is_empty());
    let tell = |(id, group): (&u64, &stoa_raft::wal::RecoveredGroup)| {
        let entries: Vec<_> = group.entries.iter().map(|(index, bytes)| (*index, number(bytes, 1))).collect();
        let purged = group.purged.as_ref().map(|(_, id)| (number(id, 0), number(id, 8)));
        let committed = group.committed.as_ref().map(|id| (number(id, 0), number(id, 8)));
        let vote = group.vote.as_ref().map(|vote| number(vote, 1));
        format!("{id}: {entries:?} vote {vote:?} purged {purged:?} committed {committed:?}")
    };
    some.map(tell).collect()
}

/// One random step of a group; its next index and its term are kept by the caller.
async fn step(wal: &Wal, chance: &Chance, group: u64, next: &mut u64, first: &mut u64, term: &mut u64) {
    match chance.below(20) {
        0 => {
            *term += 1;
            wal.save_vote(group, vote(*term)).await.unwrap();
        }
        1 if *next > *first => {
            let keep = *first + chance.below(*next - *first);
            wal.truncate_after(group, Some(keep)).await.unwrap();
            *next = keep + 1;
        }
        2 if *next > *first + 3 => {
            let upto = *first + chance.below(*next - *first - 1);
            wal.purge(group, upto, log_id(*term, upto)).await.unwrap();
            *first = upto + 1;
        }
        3 => wal.save_committed(group, log_id(*term, next.saturating_sub(1))).unwrap(),
        4 if chance.hits(100_000) => {
            wal.forget(group).await.unwrap();
            (*next, *first, *term) = (1, 1, *term + 1);
        }
        _ => {
            let count = 1 + chance.below(3);
            let entries = (*next..*next + count).map(|index| (index, entry(*term, chance.below(400)))).collect();
            *next += count;
            wal.append(group, entries, |_| {}).unwrap();
        }
    }
}

/// Next index, first index and term of each group.
type Places = Vec<(u64, u64, u64)>;

/// One life of the log, to its sudden end: what both say is compared after the start and now and then; how often.
async fn live(seed: u64, disk: &SimDisk, log: &mut DiskLog, places: &mut Places, chance: &Chance) -> u32 {
    disk.set_delay(Duration::ZERO);
    let (wal, recovered) = open(disk).await;
    log.refresh(disk, &mut |_, _| {});
    assert_eq!(told(log), found(&recovered), "seed {seed}: after a start");
    for (id, (next, first, _)) in (1..).zip(&mut *places) {
        let known = recovered.groups.get(&id);
        let purged = known.and_then(|group| group.purged.as_ref()).map_or(0, |(upto, _)| *upto);
        *first = purged + 1;
        let last = known.and_then(|group| group.entries.last_key_value()).map_or(purged, |(last, _)| *last);
        *next = last + 1;
    }
    disk.set_delay(Duration::from_micros(300));
    let mut compared = 0;
    for round in 0..150 {
        let group = chance.below(GROUPS);
        let (next, first, term) = &mut places[group as usize];
        step(&wal, chance, group + 1, next, first, term).await;
        if chance.hits(300_000) {
            tokio::time::sleep(chance.between(Duration::ZERO, Duration::from_millis(3))).await;
        }
        if chance.hits(200_000) {
            log.refresh(disk, &mut |_, _| {});
        }
        if round % 15 == 7 {
            // The same disk after a loss of power that leaves nothing but what was synced.
            log.refresh(disk, &mut |_, _| {});
            let (_, recovered) = open(&disk.after_power_loss()).await;
            assert_eq!(told(log), found(&recovered), "seed {seed}, round {round}");
            assert!(recovered.suspect.is_empty() && recovered.unattributed.is_none(), "seed {seed}, round {round}");
            compared += 1;
        }
    }
    compared
}

#[test]
fn what_the_reader_takes_for_durable_is_what_a_loss_of_power_leaves() {
    let mut compared = 0;
    for seed in 0..12 {
        let chance = Chance::new(seed, "reader");
        let (disk, mut log) = (SimDisk::new(), DiskLog::default());
        let mut places: Places = (0..GROUPS).map(|_| (1, 1, 1)).collect();
        for _life in 0..4 {
            // A runtime of its own: what was under way ends with it.
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            compared += runtime.block_on(live(seed, &disk, &mut log, &mut places, &chance));
            drop(runtime);
            disk.crash(&mut |n| chance.below(n));
        }
    }
    assert!(compared > 400, "{compared}");
}

/// A log of one group whose second of four synced entries has rotted, as the reader and the log itself find it.
async fn rotten_in_the_middle(forget: bool) -> (bool, bool) {
    let disk = SimDisk::new();
    let (wal, _) = open(&disk).await;
    let mut places = Vec::new();
    for index in 1..=4 {
        let segment = disk.paths().into_iter().max().unwrap();
        places.push((segment.clone(), disk.bytes(&segment).len()));
        wal.append(1, vec![(index, entry(1, 100))], |_| {}).unwrap();
        wal.save_vote(2, vote(index)).await.unwrap();
    }
    if forget {
        wal.forget(1).await.unwrap();
    }
    // A later frame attests what comes before it.
    wal.save_vote(2, vote(9)).await.unwrap();
    drop(wal);
    disk.kill();
    let mut log = DiskLog::default();
    log.refresh(&disk, &mut |_, _| {});
    assert!(!log.is_damaged(), "nothing is");
    let (segment, at) = &places[1];
    disk.flip(segment, at + 150, 3);
    disk.kill();
    log.refresh(&disk, &mut |_, _| {});
    let (_, recovered) = open(&disk.copy()).await;
    (log.is_damaged(), !recovered.suspect.is_empty() || recovered.unattributed.is_some())
}

#[tokio::test(start_paused = true)]
async fn rot_between_sound_frames_is_seen_and_not_counted_once_its_group_is_no_more() {
    assert_eq!(rotten_in_the_middle(false).await, (true, true));
    assert_eq!(rotten_in_the_middle(true).await, (false, false));
}
