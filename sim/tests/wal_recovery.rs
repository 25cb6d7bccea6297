//! The write-ahead log on a device that forgets, tears, rots and fails.

#![allow(clippy::unwrap_used)] // a test ends where something is not as it should be

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use proptest::prelude::*;
use stoa_env::RealClock;
use stoa_raft::wal::{
    Recovered, RecoveredGroup, SuspicionCause, Wal, WalError, WalErrorClass, WalIdentity, WalOptions,
};
use stoa_sim::disk::SimDisk;

const IDENTITY: WalIdentity = WalIdentity { cluster: 0xc1, node: 1 };
const HEADER_BYTES: usize = 80;

fn options() -> WalOptions {
    WalOptions {
        segment_bytes: 4 << 10,
        queue_bytes: 1 << 20,
        round_bytes: 64 << 10,
        max_live_bytes: 1 << 20,
        reserve_bytes: 0,
    }
}

/// Runs a life of the process: when the future is done, its tasks die without notice, as at a crash.
fn life<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(future)
}

async fn open_as(disk: &SimDisk, identity: WalIdentity, options: WalOptions) -> Result<(Wal, Recovered), WalError> {
    Wal::open(disk.clone(), PathBuf::from("wal"), identity, options, Arc::new(RealClock)).await
}

async fn open(disk: &SimDisk) -> (Wal, Recovered) {
    open_as(disk, IDENTITY, options()).await.unwrap()
}

fn reopened(disk: &SimDisk) -> Recovered {
    life(async { open(disk).await.1 })
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// Appends and waits for the acknowledgement.
async fn append(wal: &Wal, group: u64, entries: &[(u64, &str)]) -> Result<(), WalError> {
    let (done, waiting) = tokio::sync::oneshot::channel();
    let entries = entries.iter().map(|(index, text)| (*index, bytes(text))).collect();
    wal.append(group, entries, move |result| done.send(result).unwrap())?;
    waiting.await.unwrap()
}

fn entries(group: &RecoveredGroup) -> Vec<(u64, String)> {
    group.entries.iter().map(|(i, b)| (*i, String::from_utf8(b.to_vec()).unwrap())).collect()
}

fn nothing(_: u64) -> u64 {
    0
}

/// The newest segment file.
fn segment(disk: &SimDisk) -> PathBuf {
    disk.paths().into_iter().rfind(|path| path.extension().is_some_and(|e| e == "wal")).unwrap()
}

/// Two groups with some acknowledged history in one segment, and the offsets of its frames.
fn history(disk: &SimDisk) -> Vec<(usize, u8, u64)> {
    life(async {
        let (wal, _) = open(disk).await;
        wal.save_vote(1, bytes("vote 1")).await.unwrap();
        append(&wal, 1, &[(1, "one"), (2, "two")]).await.unwrap();
        wal.save_vote(2, bytes("vote 2")).await.unwrap();
        append(&wal, 2, &[(1, "uno")]).await.unwrap();
        append(&wal, 1, &[(3, "three")]).await.unwrap();
        append(&wal, 2, &[(2, "due")]).await.unwrap();
    });
    disk.crash(&mut nothing);
    frames(&disk.bytes(&segment(disk)))
}

/// Offset, kind and group of every frame of an undamaged file.
fn frames(file: &[u8]) -> Vec<(usize, u8, u64)> {
    let (mut at, mut frames) = (0, Vec::new());
    while at < file.len() {
        let group = u64::from_le_bytes(file[at + 32..at + 40].try_into().unwrap());
        frames.push((at, file[at + 4], group));
        let length = u32::from_le_bytes(file[at + 8..at + 12].try_into().unwrap()) as usize;
        at += HEADER_BYTES + length.next_multiple_of(8);
    }
    frames
}

#[test]
fn what_was_acknowledged_is_there_when_all_unsynced_bytes_are_lost() {
    let disk = SimDisk::new();
    history(&disk);
    let found = reopened(&disk);
    assert!(found.suspect.is_empty());
    assert_eq!(entries(&found.groups[&1]), [(1, "one".into()), (2, "two".into()), (3, "three".into())]);
    assert_eq!(entries(&found.groups[&2]), [(1, "uno".into()), (2, "due".into())]);
    assert_eq!(found.groups[&1].vote, Some(bytes("vote 1")));
    assert_eq!(found.groups[&2].vote, Some(bytes("vote 2")));
}

#[test]
fn a_log_torn_at_any_byte_of_its_last_frames_loses_those_and_nothing_else() {
    let disk = SimDisk::new();
    let frames = history(&disk);
    let path = segment(&disk);
    let (last, _, _) = frames[frames.len() - 1];
    for cut in last..disk.bytes(&path).len() {
        let disk = disk.copy();
        disk.cut(&path, cut);
        let found = reopened(&disk);
        assert!(found.suspect.is_empty(), "cut at {cut}: {:?}", found.suspect);
        assert_eq!(entries(&found.groups[&2]), [(1, "uno".into())], "cut at {cut}");
        assert_eq!(found.groups[&1].entries.len(), 3);
        assert_eq!(reopened(&disk), found, "the second start finds the same");
    }
}

#[test]
fn a_bit_flipped_anywhere_below_the_durable_position_makes_suspects_and_loses_nothing_silently() {
    let disk = SimDisk::new();
    let frames = history(&disk);
    let path = segment(&disk);
    let whole = reopened(&disk.copy());
    let (last, _, _) = frames[frames.len() - 1];
    for offset in 0..last {
        let disk = disk.copy();
        disk.flip(&path, offset, (offset % 8) as u8);
        let rotten = disk.bytes(&path);
        let found = reopened(&disk);
        let (start, kind, group) = *frames.iter().rfind(|(start, _, _)| *start <= offset).unwrap();
        let attributed = kind > 1 && offset >= start + HEADER_BYTES;
        let expected: Vec<u64> = if attributed { vec![group] } else { vec![1, 2] };
        assert_eq!(found.suspect.keys().copied().collect::<Vec<_>>(), expected, "offset {offset}");
        for (group, state) in &found.groups {
            assert_eq!(state, &whole.groups[group], "offset {offset}");
        }
        assert_eq!(found.unattributed.is_some(), !attributed, "offset {offset}");
        assert_eq!(disk.bytes(&path), rotten, "suspect files are left alone");
        let again = reopened(&disk);
        assert_eq!(again.suspect.len(), found.suspect.len(), "offset {offset}: still suspect at the next start");
        assert_eq!(again.groups, found.groups);
    }
}

#[test]
fn a_bit_flipped_above_the_durable_position_is_cut() {
    let disk = SimDisk::new();
    let frames = history(&disk);
    let path = segment(&disk);
    let (last, _, _) = frames[frames.len() - 1];
    for offset in last..disk.bytes(&path).len() {
        let disk = disk.copy();
        disk.flip(&path, offset, 3);
        let found = reopened(&disk);
        assert!(found.suspect.is_empty(), "offset {offset}");
        assert_eq!(entries(&found.groups[&2]), [(1, "uno".into())]);
        life(async {
            let (wal, _) = open(&disk).await;
            append(&wal, 2, &[(2, "again")]).await.unwrap();
        });
        let found = reopened(&disk);
        assert_eq!(entries(&found.groups[&2]), [(1, "uno".into()), (2, "again".into())]);
    }
}

#[test]
fn after_an_orderly_close_every_byte_but_the_mark_is_attested() {
    let disk = SimDisk::new();
    history(&disk);
    life(async { open(&disk).await.0.close().await.unwrap() });
    let path = segment(&disk);
    let frames = frames(&disk.bytes(&path));
    let (mark, kind, _) = frames[frames.len() - 1];
    assert_eq!(kind, 9);
    for offset in 0..mark {
        let disk = disk.copy();
        disk.flip(&path, offset, 0);
        assert!(!reopened(&disk).suspect.is_empty(), "offset {offset}");
    }
}

#[test]
fn a_sound_frame_in_the_wrong_place_is_damage() {
    let disk = SimDisk::new();
    let frames = history(&disk);
    let path = segment(&disk);
    let file = disk.bytes(&path);
    let entries: Vec<usize> = frames.iter().filter(|(_, kind, _)| *kind == 3).map(|(at, ..)| *at).collect();
    let length = HEADER_BYTES + 8;
    // The second entry's frame over the first, of the same length.
    disk.overwrite(&path, entries[0], &file[entries[1]..entries[1] + length]);
    let found = reopened(&disk);
    assert_eq!(found.suspect.len(), 2);
    assert_eq!(found.suspect[&1].offset, entries[0] as u64);
    assert_eq!(found.suspect[&1].cause, SuspicionCause::UnattributedDamage);
}

#[test]
fn a_durable_file_that_is_cut_short_or_gone_makes_suspects() {
    let disk = SimDisk::new();
    life(async {
        let (wal, _) = open(&disk).await;
        for index in 1..=100 {
            append(&wal, 1, &[(index, "an entry of some length to fill the segments")]).await.unwrap();
        }
    });
    let paths = disk.paths();
    assert!(paths.len() >= 3);
    for path in &paths[..paths.len() - 1] {
        let short = disk.copy();
        short.cut(path, short.bytes(path).len() - 8);
        assert!(reopened(&short).suspect.contains_key(&1), "{}", path.display());
        let zeroed = disk.copy();
        zeroed.overwrite(path, 0, &vec![0; zeroed.bytes(path).len()]);
        assert!(reopened(&zeroed).suspect.contains_key(&1), "{}", path.display());
    }
    let gone = disk.copy();
    life(async { stoa_env::Disk::remove(&gone, &paths[0]).await.unwrap() });
    assert!(reopened(&gone).suspect.contains_key(&1));
}

#[test]
fn a_failed_sync_ends_the_log_for_good() {
    let disk = SimDisk::new();
    life(async {
        let (wal, _) = open(&disk).await;
        append(&wal, 1, &[(1, "one")]).await.unwrap();
        disk.fail_sync(1);
        let failed = append(&wal, 1, &[(2, "two")]).await.unwrap_err();
        assert!(matches!(failed, WalError::Failed { .. }), "{failed}");
        assert_eq!(failed.class(), WalErrorClass::Stop);
        assert!(matches!(wal.save_vote(1, bytes("v")).await, Err(WalError::Failed { .. })));
        assert!(matches!(wal.reserve_check(), Err(WalError::Failed { .. })));
        assert!(wal.is_ended());
    });
    assert_eq!(disk.strikes().failed_syncs, 1);
    disk.crash(&mut nothing);
    assert_eq!(entries(&reopened(&disk).groups[&1]), [(1, "one".into())]);
}

#[test]
fn a_vote_is_durable_when_its_call_returns() {
    let disk = SimDisk::new();
    for term in 0..5 {
        let vote = bytes(&format!("term {term}"));
        life(async { open(&disk).await.0.save_vote(7, vote.clone()).await.unwrap() });
        disk.crash(&mut nothing);
        assert_eq!(reopened(&disk).groups[&7].vote, Some(vote));
    }
}

#[test]
fn truncation_purge_and_roll_are_remembered_and_old_segments_go() {
    let disk = SimDisk::new();
    life(async {
        let (wal, _) = open(&disk).await;
        wal.save_vote(2, bytes("idle group's vote")).await.unwrap();
        for index in 1..=200 {
            append(&wal, 1, &[(index, "an entry of some length to fill the segments")]).await.unwrap();
        }
        wal.truncate_after(1, Some(190)).await.unwrap();
        append(&wal, 1, &[(191, "other")]).await.unwrap();
        assert!(wal.stats().segments > 3);
        assert_eq!(wal.stats().pinning, [1]);
        wal.purge(1, 189, bytes("log id 189")).await.unwrap();
        append(&wal, 1, &[(192, "last")]).await.unwrap();
        assert!(wal.stats().segments <= 2, "{:?}", wal.stats());
        assert!(matches!(append(&wal, 1, &[(194, "gap")]).await, Err(WalError::Gap { expected: 193, .. })));
    });
    disk.crash(&mut nothing);
    let found = reopened(&disk);
    assert!(found.suspect.is_empty(), "{:?}", found.suspect);
    let group = &found.groups[&1];
    assert_eq!(group.purged, Some((189, bytes("log id 189"))));
    assert_eq!(group.entries.keys().copied().collect::<Vec<_>>(), [190, 191, 192]);
    assert_eq!(group.entries[&191], bytes("other"));
    assert_eq!(found.groups[&2].vote, Some(bytes("idle group's vote")));
}

#[test]
fn a_forgotten_group_stays_forgotten_and_may_begin_anew() {
    let disk = SimDisk::new();
    life(async {
        let (wal, _) = open(&disk).await;
        append(&wal, 1, &[(1, "old"), (2, "old")]).await.unwrap();
        append(&wal, 2, &[(1, "kept")]).await.unwrap();
        wal.forget(1).await.unwrap();
    });
    disk.crash(&mut nothing);
    assert!(!reopened(&disk).groups.contains_key(&1));
    life(async { append(&open(&disk).await.0, 1, &[(9, "new")]).await.unwrap() });
    disk.crash(&mut nothing);
    assert_eq!(entries(&reopened(&disk).groups[&1]), [(9, "new".into())]);
}

#[test]
fn a_suspect_group_takes_nothing_until_it_is_forgotten() {
    let disk = SimDisk::new();
    let frames = history(&disk);
    let (at, ..) = frames.iter().find(|(_, kind, group)| *kind == 3 && *group == 1).unwrap();
    disk.flip(&segment(&disk), at + HEADER_BYTES, 0);
    life(async {
        let (wal, found) = open(&disk).await;
        assert_eq!(found.suspect.keys().collect::<Vec<_>>(), [&1]);
        assert!(matches!(wal.save_vote(1, bytes("v")).await, Err(WalError::Suspect { group: 1 })));
        append(&wal, 2, &[(3, "tre")]).await.unwrap();
        wal.forget(1).await.unwrap();
        append(&wal, 1, &[(50, "rebuilt")]).await.unwrap();
    });
    disk.crash(&mut nothing);
    let found = reopened(&disk);
    assert!(found.suspect.is_empty(), "{:?}", found.suspect);
    assert_eq!(entries(&found.groups[&1]), [(50, "rebuilt".into())]);
    assert_eq!(found.groups[&2].entries.len(), 3);
}

#[test]
fn bytes_written_and_never_synced_are_durable_before_anybody_sees_them() {
    let disk = SimDisk::new();
    history(&disk);
    // The process died, the machine did not: the bytes are in the page cache alone.
    life(async {
        let (wal, _) = open(&disk).await;
        disk.set_lying(true);
        append(&wal, 1, &[(4, "in the page cache")]).await.unwrap();
        disk.set_lying(false);
    });
    let seen = reopened(&disk);
    assert_eq!(seen.groups[&1].entries[&4], bytes("in the page cache"));
    disk.crash(&mut nothing);
    assert_eq!(reopened(&disk), seen);
}

#[test]
fn a_crash_at_any_step_of_opening_changes_nothing_and_files_do_not_pile_up() {
    let disk = SimDisk::new();
    let frames = history(&disk);
    let path = segment(&disk);
    disk.cut(&path, frames[frames.len() - 1].0 + 20);
    let whole = reopened(&disk.copy());
    let mut choice = seeded(7);
    for steps in 0..40 {
        for _ in 0..3 {
            disk.halt_after(steps);
            life(async { drop(open_as(&disk, IDENTITY, options()).await) });
            disk.crash(&mut choice);
        }
        assert_eq!(reopened(&disk.copy()), whole, "{steps} steps");
        assert!(disk.paths().len() <= 3, "{:?}", disk.paths());
    }
    for _ in 0..20 {
        assert_eq!(reopened(&disk), whole);
    }
    assert_eq!(disk.paths().len(), 1);
}

#[test]
fn files_of_another_node_cluster_or_version_are_refused_by_name() {
    let disk = SimDisk::new();
    history(&disk);
    let other = WalIdentity { cluster: 0xc2, node: 5 };
    let refused = life(open_as(&disk, other, options())).unwrap_err();
    let text = refused.to_string();
    assert!(text.contains("node 1 of cluster") && text.contains("node 5 of cluster"), "{text}");

    let path = segment(&disk);
    let mut file = disk.bytes(&path);
    let length = u32::from_le_bytes(file[8..12].try_into().unwrap()) as usize;
    file[HEADER_BYTES] = 9;
    let crc = crc(&file[HEADER_BYTES..HEADER_BYTES + length]);
    file[12..16].copy_from_slice(&crc.to_le_bytes());
    let crc = self::crc(&file[..72]);
    file[72..76].copy_from_slice(&crc.to_le_bytes());
    disk.overwrite(&path, 0, &file);
    let refused = life(open_as(&disk, IDENTITY, options())).unwrap_err();
    assert!(matches!(refused, WalError::Version { found: 9, supported: 1, .. }), "{refused}");
}

/// CRC-32 (IEEE), bit by bit: the test's own.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

#[test]
fn a_full_queue_admits_no_entries_and_takes_all_that_asks_nobody() {
    let disk = SimDisk::new();
    life(async {
        let small = WalOptions { queue_bytes: 4 << 10, round_bytes: 1 << 10, ..options() };
        let (wal, _) = open_as(&disk, IDENTITY, small).await.unwrap();
        let mut refused = None;
        for index in 1..100 {
            match wal.admit(500) {
                Ok(room) => {
                    let done = move |result: Result<(), WalError>| drop((result.unwrap(), room));
                    wal.append(1, vec![(index, Bytes::from(vec![7; 500]))], done).unwrap();
                }
                Err(error) => {
                    refused = Some((index, error));
                    break;
                }
            }
        }
        let (index, error) = refused.expect("the queue is bounded");
        assert!(matches!(error, WalError::Busy { .. }));
        assert_eq!(error.class(), WalErrorClass::Retry);
        append(&wal, 1, &[(index, "a leader's first entry asks nobody")]).await.unwrap();
        wal.save_vote(1, bytes("vote")).await.unwrap();
        drop(wal.admit(500).unwrap());
        let stats = wal.stats();
        assert!(stats.queue_bytes_worst >= 3 << 10 && stats.syncs > 1, "{stats:?}");
    });
}

#[test]
fn on_a_full_device_accepted_entries_and_votes_go_through_and_space_brings_entries_back() {
    let disk = SimDisk::new();
    let sizes = WalOptions { reserve_bytes: 16 << 10, queue_bytes: 8 << 10, round_bytes: 4 << 10, ..options() };
    life(async {
        let (wal, _) = open_as(&disk, IDENTITY, sizes.clone()).await.unwrap();
        append(&wal, 1, &[(1, "one")]).await.unwrap();
        disk.set_capacity(Some(disk.used() + 50));
        append(&wal, 1, &[(2, "accepted before anybody knew")]).await.unwrap();
        assert_eq!(disk.strikes().full, 1);
        assert!(matches!(wal.reserve_check(), Err(WalError::Full { .. })));
        assert!(matches!(wal.admit(1), Err(WalError::Full { .. })));
        append(&wal, 1, &[(3, "admitted before, or nobody's to refuse")]).await.unwrap();
        wal.save_vote(1, bytes("a vote in the reserve")).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
        assert!(wal.stats().full, "the device is still full");
        disk.set_capacity(None);
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
        assert!(wal.reserve_check().is_ok());
        append(&wal, 1, &[(4, "four")]).await.unwrap();
    });
    disk.crash(&mut nothing);
    let (_, found) = life(open_as(&disk, IDENTITY, sizes)).unwrap();
    assert_eq!(found.groups[&1].entries.keys().copied().collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(found.groups[&1].vote, Some(bytes("a vote in the reserve")));
}

#[test]
fn acknowledgements_come_in_the_order_of_the_calls() {
    let disk = SimDisk::new();
    let order = Arc::new(Mutex::new(Vec::new()));
    life(async {
        let (wal, _) = open(&disk).await;
        for index in 1..=50u64 {
            let order = order.clone();
            wal.append(index % 3, vec![(index / 3, bytes("x"))], move |r| {
                r.unwrap();
                order.lock().unwrap().push(index);
            })
            .unwrap();
        }
        wal.close().await.unwrap();
        assert!(wal.stats().syncs <= 4, "one sync for many: {:?}", wal.stats());
        assert!(matches!(wal.reserve_check(), Err(WalError::Closed)));
    });
    assert_eq!(*order.lock().unwrap(), (1..=50).collect::<Vec<_>>());
}

fn seeded(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |n| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

#[derive(Debug, Clone)]
enum Step {
    Append { group: u64, count: u64 },
    Vote { group: u64 },
    Committed { group: u64 },
    Truncate { group: u64, back: u64 },
    Purge { group: u64, part: u64 },
    Forget { group: u64 },
    Let { polls: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let group = 1..4u64;
    prop_oneof![
        8 => (group.clone(), 1..6u64).prop_map(|(group, count)| Step::Append { group, count }),
        3 => group.clone().prop_map(|group| Step::Vote { group }),
        2 => group.clone().prop_map(|group| Step::Committed { group }),
        2 => (group.clone(), 0..4u64).prop_map(|(group, back)| Step::Truncate { group, back }),
        2 => (group.clone(), 0..5u64).prop_map(|(group, part)| Step::Purge { group, part }),
        1 => group.prop_map(|group| Step::Forget { group }),
        5 => (1..4u64).prop_map(|polls| Step::Let { polls }),
    ]
}

/// The log as a list of states: what each call made of the one before. A crash must leave one of them, no older than
/// the last that was acknowledged.
struct Model {
    states: Vec<BTreeMap<u64, RecoveredGroup>>,
    acknowledged: Arc<Mutex<usize>>,
    stamp: u64,
}

impl Model {
    fn stamped(&mut self, text: &str) -> Bytes {
        self.stamp += 1;
        Bytes::from(format!("{text} {} {}", self.stamp, "x".repeat((self.stamp * 37 % 200) as usize)))
    }

    /// Hands one call to the log and adds what it makes of the state.
    fn call(&mut self, wal: &Wal, step: &Step) {
        let mut state = self.states.last().unwrap().clone();
        let place = self.states.len();
        let acknowledged = self.acknowledged.clone();
        let done = move |result: Result<(), WalError>| {
            if result.is_ok() {
                let mut known = acknowledged.lock().unwrap();
                *known = place.max(*known);
            }
        };
        let ask = |wal: &Wal, future: std::pin::Pin<Box<dyn Future<Output = Result<(), WalError>> + Send>>| {
            let _ = wal;
            let mut future = future;
            // Polled once here, so that it has its place in the queue; the rest by a task.
            let waker = std::task::Waker::noop();
            let polled = future.as_mut().poll(&mut std::task::Context::from_waker(waker));
            assert!(polled.is_pending());
            stoa_env::spawn("asked", async move { done(future.await) });
        };
        let shared = wal.clone();
        match *step {
            Step::Append { group, count } => {
                let held = state.entry(group).or_default();
                let last = held.entries.keys().next_back().copied().max(held.purged.as_ref().map(|p| p.0));
                let first = last.map_or(1, |last| last + 1);
                let new: Vec<_> = (first..first + count).map(|index| (index, self.stamped("entry"))).collect();
                held.entries.extend(new.clone());
                let acknowledged = self.acknowledged.clone();
                wal.append(group, new, move |result| {
                    if result.is_ok() {
                        let mut known = acknowledged.lock().unwrap();
                        *known = place.max(*known);
                    }
                })
                .unwrap();
            }
            Step::Vote { group } => {
                let vote = self.stamped("vote");
                state.entry(group).or_default().vote = Some(vote.clone());
                ask(wal, Box::pin(async move { shared.save_vote(group, vote).await }));
            }
            Step::Committed { group } => {
                let committed = self.stamped("committed");
                state.entry(group).or_default().committed = Some(committed.clone());
                wal.save_committed(group, committed).unwrap();
            }
            Step::Truncate { group, back } => {
                let held = state.entry(group).or_default();
                let keep = held.entries.keys().rev().nth(back as usize).copied();
                match keep {
                    Some(keep) => drop(held.entries.split_off(&(keep + 1))),
                    None => held.entries.clear(),
                }
                ask(wal, Box::pin(async move { shared.truncate_after(group, keep).await }));
            }
            Step::Purge { group, part } => {
                let held = state.entry(group).or_default();
                let known = held.entries.keys().nth(part as usize).or(held.entries.keys().next_back()).copied();
                let upto = known.or(held.purged.as_ref().map(|p| p.0 + 2)).unwrap_or(3);
                let id = self.stamped("purged");
                held.entries = held.entries.split_off(&(upto + 1));
                held.purged = Some((upto, id.clone()));
                // Answered before it is durable, so it acknowledges nothing.
                let mut future = Box::pin(async move { shared.purge(group, upto, id).await });
                let waker = std::task::Waker::noop();
                assert!(future.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_pending());
                stoa_env::spawn("purge", future);
            }
            Step::Forget { group } => {
                state.remove(&group);
                ask(wal, Box::pin(async move { shared.forget(group).await }));
            }
            Step::Let { .. } => return,
        }
        self.states.push(state);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        std::env::var("WAL_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(150)
    ))]

    #[test]
    fn after_any_crash_the_log_is_one_of_the_states_it_went_through_and_none_older_than_acknowledged(
        lives in proptest::collection::vec((proptest::collection::vec(step(), 1..40), any::<u64>(), 0..60u64), 1..6)
    ) {
        let disk = SimDisk::new();
        let acknowledged = Arc::new(Mutex::new(0));
        let mut model = Model { states: vec![BTreeMap::new()], acknowledged, stamp: 0 };
        for (steps, seed, opening) in lives {
            // A start that dies somewhere, then one that works.
            disk.halt_after(opening);
            life(async { drop(open_as(&disk, IDENTITY, options()).await) });
            disk.crash(&mut seeded(seed ^ 1));
            life(async {
                let (wal, found) = open(&disk).await;
                prop_assert!(found.suspect.is_empty(), "{:?}", found.suspect);
                let known = *model.acknowledged.lock().unwrap();
                let place = model.states[known..].iter().position(|state| *state == found.groups);
                prop_assert!(
                    place.is_some(),
                    "found {:?}\nafter {:?}\nnow {:?}", found.groups, model.states[known], model.states.last()
                );
                model.states = vec![found.groups];
                model.acknowledged = Arc::new(Mutex::new(0));
                for step in &steps {
                    match step {
                        Step::Let { polls } => for _ in 0..*polls { tokio::task::yield_now().await },
                        other => model.call(&wal, other),
                    }
                }
                Ok(())
            })?;
            disk.crash(&mut seeded(seed));
        }
    }
}

#[test]
fn paths_stay_in_the_logs_directory() {
    let disk = SimDisk::new();
    history(&disk);
    assert!(disk.paths().iter().all(|path| path.starts_with(Path::new("wal"))));
}
