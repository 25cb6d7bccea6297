//! `raft::wal`: a log is written as the input says and closed; then its files are damaged, and it is opened.
//!
//! Damage that a checksum is sure to find costs no more than the groups that it is said to have hit. Frames that were
//! written by somebody else may say anything: the log opens, and opens to the same again, or says why not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use stoa_env::RealClock;
use stoa_raft::wal::{Recovered, RecoveredGroup, SEGMENT_BYTES_MIN, Wal, WalError, WalErrorClass, WalIdentity, WalOptions};

use super::{Seed, group_logs};
use crate::Input;
use crate::input::put_piece;
use crate::memory_disk::MemoryDisk;
use crate::wal_bytes::{HEADER_BYTES, MARK_BYTES, frames, seal};

const DIR: &str = "wal";
const IDENTITY: WalIdentity = WalIdentity { cluster: 1, node: 2 };
/// Calls of one input.
const CALLS_MAX: usize = 40;
/// Frames that are forged in one input.
const FORGED_MAX: usize = 8;

type Files = BTreeMap<PathBuf, Vec<u8>>;
type Groups = BTreeMap<u64, RecoveredGroup>;

/// A byte: 0 damage, 1 forged frames, 2 files as they come; then a count of calls, the calls, and what is done to the files.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime is made");
    runtime.block_on(async {
        match input.below(3) {
            0 => damaged(&mut input).await,
            1 => forged(&mut input).await,
            _ => {
                let mut files = Files::new();
                while !input.is_empty() {
                    let name = format!("{:016x}.wal", files.len() + 1);
                    files.insert(Path::new(DIR).join(name), input.piece().to_vec());
                }
                reopens(files).await;
            }
        }
    });
}

async fn damaged(input: &mut Input<'_>) {
    let (mut files, groups) = written(input).await;
    let (_, whole) = open(&MemoryDisk::with(files.clone())).await.expect("a log that was closed opens");
    assert_eq!(whole, Recovered { groups: groups.clone(), ..Recovered::default() });
    if !damage(&mut files, input) {
        return;
    }
    let found = reopens(files).await.expect("damage is in the answer, and no error");
    for (id, group) in &groups {
        let known = found.suspect.contains_key(id) || found.unattributed.is_some();
        assert!(known || found.groups.get(id) == Some(group), "group {id} was hit, and nobody says so");
    }
    let sound = |(id, group): (&u64, &RecoveredGroup)| groups.get(id) == Some(group);
    assert!(found.groups.iter().all(sound), "{:?} and {groups:?}", found.groups);
}

/// One damage that is found for sure: up to four bytes side by side, or a segment that lost its end or all of itself while
/// a later one is there. False if nothing was changed, or if it hit the mark that attests the rest.
fn damage(files: &mut Files, input: &mut Input<'_>) -> bool {
    let (what, chosen, place) = (input.below(4), input.below(files.len()), input.u32() as usize);
    let last = chosen + 1 == files.len();
    let path = files.keys().nth(chosen).expect("it was chosen among them").clone();
    let file = files.get_mut(&path).expect("it was chosen among them");
    match what {
        0 if !last => drop(files.remove(&path)),
        1 if !last => {
            let place = place % file.len();
            file.truncate(place);
        }
        _ => {
            let place = place % (file.len() - 3);
            let with = input.array::<4>();
            if with == [0; 4] || last && place + 4 > file.len() - MARK_BYTES {
                return false;
            }
            file[place..place + 4].iter_mut().zip(with).for_each(|(byte, with)| *byte ^= with);
        }
    }
    true
}

async fn forged(input: &mut Input<'_>) {
    let (mut files, _) = written(input).await;
    for _ in 0..FORGED_MAX {
        if input.is_empty() {
            break;
        }
        let chosen = input.below(files.len());
        let file = files.values_mut().nth(chosen).expect("it was chosen among them");
        let frames = frames(file);
        let at = frames[usize::from(input.u16()) % frames.len()];
        let place = at + usize::from(input.u16()) % (HEADER_BYTES * 2);
        let with = input.take(8);
        let end = file.len().min(place + with.len());
        if place < end {
            file[place..end].copy_from_slice(&with[..end - place]);
        }
        seal(file, at, IDENTITY);
    }
    reopens(files).await;
}

/// What the files say, if they open; then they open to the same again.
async fn reopens(files: Files) -> Option<Recovered> {
    let disk = MemoryDisk::with(files);
    let (wal, found) = match open(&disk).await {
        Ok(opened) => opened,
        Err(error) => {
            assert_eq!(error.class(), WalErrorClass::Stop, "{error}");
            return None;
        }
    };
    assert!(found.groups.keys().all(|id| !found.suspect.contains_key(id)));
    wal.close().await.expect("a log that has opened can be closed");
    let (_, again) = open(&disk).await.expect("a log that has opened opens again");
    assert_eq!(again.groups, found.groups);
    assert!(again.suspect.keys().eq(found.suspect.keys()), "{:?} and {:?}", again.suspect, found.suspect);
    found.groups.values().cloned().for_each(|group| group_logs::open(&wal, group));
    Some(found)
}

async fn open(disk: &MemoryDisk) -> Result<(Wal, Recovered), WalError> {
    let options = WalOptions { segment_bytes: SEGMENT_BYTES_MIN, reserve_bytes: 0, ..WalOptions::default() };
    Wal::open(disk.clone(), DIR.into(), IDENTITY, options, Arc::new(RealClock)).await
}

/// The files of a log that was written and closed, and what it was given.
async fn written(input: &mut Input<'_>) -> (Files, Groups) {
    let disk = MemoryDisk::default();
    let (wal, _) = open(&disk).await.expect("an empty directory opens");
    let mut groups = Groups::new();
    for _ in 0..input.below(CALLS_MAX) {
        call(&wal, &mut groups, input).await;
    }
    wal.close().await.expect("nothing has failed");
    (disk.content(), groups)
}

/// A call, to one of three groups.
async fn call(wal: &Wal, groups: &mut Groups, input: &mut Input<'_>) {
    let (what, id) = (input.below(8), 1 + input.below(3) as u64);
    let small = |input: &mut Input<'_>| Bytes::from(vec![input.byte(); 9]);
    let group = groups.get(&id).cloned().unwrap_or_default();
    let purged = group.purged.as_ref().map(|(upto, _)| *upto);
    let last = group.entries.keys().next_back().copied().max(purged);
    match what {
        0..3 => {
            let first = last.map_or_else(|| input.below(3) as u64, |last| last + 1);
            let entry = |index| (index, Bytes::from(vec![index as u8 | 1; 10 + usize::from(input.byte()) * 6]));
            let entries: Vec<_> = (first..first + 3).map(entry).collect();
            wal.append(id, entries.clone(), |done| done.expect("nothing fails")).expect("they follow the last");
            groups.entry(id).or_default().entries.extend(entries);
        }
        3 => {
            let vote = small(input);
            wal.save_vote(id, vote.clone()).await.expect("nothing fails");
            groups.entry(id).or_default().vote = Some(vote);
        }
        4 => {
            let committed = small(input);
            wal.save_committed(id, committed.clone()).expect("nothing fails");
            groups.entry(id).or_default().committed = Some(committed);
        }
        5 => {
            let Some(last) = last else { return };
            let is_there = |index: &u64| group.entries.contains_key(index) || Some(*index) == purged;
            let keep = last.checked_sub(input.below(5) as u64).filter(is_there);
            if keep.is_none() && purged.is_some() {
                return;
            }
            wal.truncate_after(id, keep).await.expect("nothing fails");
            groups.entry(id).or_default().entries.retain(|index, _| keep.is_some_and(|keep| *index <= keep));
        }
        6 => {
            let upto = last.unwrap_or(0).saturating_sub(input.below(5) as u64).max(purged.unwrap_or(0));
            let log_id = small(input);
            wal.purge(id, upto, log_id.clone()).await.expect("nothing fails");
            let group = groups.entry(id).or_default();
            group.entries.retain(|index, _| *index > upto);
            group.purged = Some((upto, log_id));
        }
        _ => {
            wal.forget(id).await.expect("nothing fails");
            groups.remove(&id);
        }
    }
}

/// Logs of one segment and of several, whole, damaged, forged, and a file by itself.
pub fn seeds() -> Vec<Seed> {
    let long: Vec<u8> = (0..30u8).flat_map(|at| [at % 3, at % 2, 100, 120, 90]).collect();
    let calls = [
        &[3, 0, 7][..],
        &[0, 0, 1, 20, 30, 40],
        &[0, 0, 9, 9, 9],
        &[4, 0, 8],
        &[5, 0, 2],
        &[3, 1, 6],
        &[6, 0, 2, 5],
        &[0, 1, 2, 1, 1, 1],
        &[7, 1],
    ]
    .concat();
    let seed = |mode: u8, count: u8, calls: &[u8], then: &[u8]| [&[mode, count], calls, then].concat();
    let mut file = vec![2];
    put_piece(&[0; 160], &mut file);
    vec![
        ("empty", seed(0, 0, &[], &[])),
        ("short", seed(0, 9, &calls, &[2, 0, 200, 0, 0, 0, 1, 0, 0, 0])),
        ("long", seed(0, 30, &long, &[2, 1, 200, 0, 0, 0, 1, 0, 0, 0])),
        ("cut", seed(0, 30, &long, &[1, 1, 200, 0, 0, 0])),
        ("gone", seed(0, 30, &long, &[0, 1])),
        ("forged", seed(1, 9, &calls, &[0, 3, 0, 64, 0, 5, 0, 0, 0, 0, 0, 0, 0])),
        ("forged_long", seed(1, 30, &long, &[1, 1, 0, 112, 0, 9, 0, 0, 0, 0, 0, 0, 0])),
        ("file", file),
    ]
}
