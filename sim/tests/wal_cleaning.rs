//! Old segments of the log go, whatever its groups do.

#![allow(clippy::unwrap_used)] // a test ends where something is not as it should be

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use stoa_env::RealClock;
use stoa_raft::wal::{Recovered, Wal, WalError, WalIdentity, WalOptions};
use stoa_sim::disk::SimDisk;

const MAX: u64 = 256 << 10;

fn options() -> WalOptions {
    WalOptions {
        segment_bytes: 8 << 10,
        queue_bytes: 64 << 10,
        round_bytes: 16 << 10,
        max_live_bytes: MAX,
        reserve_bytes: 0,
    }
}

fn life<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(future)
}

async fn open(disk: &SimDisk) -> Result<(Wal, Recovered), WalError> {
    let identity = WalIdentity { cluster: 0xc1, node: 1 };
    Wal::open(disk.clone(), PathBuf::from("wal"), identity, options(), Arc::new(RealClock)).await
}

fn payload(group: u64, index: u64) -> Bytes {
    let mut bytes = format!("entry {index} of group {group} ").into_bytes();
    bytes.resize(900, b'.');
    bytes.into()
}

async fn append(wal: &Wal, group: u64, index: u64) -> Result<(), WalError> {
    let room = wal.admit(900)?;
    let (done, waiting) = tokio::sync::oneshot::channel();
    wal.append(group, vec![(index, payload(group, index))], move |result| {
        drop(room);
        let _crashed = done.send(result);
    })?;
    waiting.await.unwrap_or(Err(WalError::Closed))
}

/// A quiet group's forty entries, some of them dropped and written anew, in the oldest segments.
async fn quiet(wal: &Wal) {
    for index in 1..=40 {
        append(wal, 1, index).await.unwrap();
    }
    wal.truncate_after(1, Some(35)).await.unwrap();
    for index in 36..=40 {
        append(wal, 1, index).await.unwrap();
    }
    wal.purge(1, 8, Bytes::from_static(b"eight")).await.unwrap();
}

/// A busy group, which keeps the last of its entries, and much more than the log may hold in all.
async fn busy(wal: &Wal, from: u64, count: u64) -> Result<(), WalError> {
    for index in from..from + count {
        append(wal, 2, index).await?;
        if index % 20 == 0 {
            wal.purge(2, index - 10, Bytes::from_static(b"purged")).await?;
        }
    }
    Ok(())
}

fn check(found: &Recovered) {
    assert!(found.suspect.is_empty(), "{:?}", found.suspect);
    let quiet = &found.groups[&1];
    assert_eq!(quiet.purged.as_ref().unwrap().0, 8);
    assert_eq!(quiet.entries.keys().copied().collect::<Vec<_>>(), (9..=40).collect::<Vec<_>>());
    assert!(quiet.entries.iter().all(|(index, bytes)| *bytes == payload(1, *index)));
}

#[test]
fn a_quiet_group_that_never_purges_does_not_stop_the_others() {
    let disk = SimDisk::new();
    life(async {
        let (wal, _) = open(&disk).await.unwrap();
        quiet(&wal).await;
        let mut worst = 0;
        for round in 0..100 {
            busy(&wal, round * 40 + 1, 40).await.unwrap();
            worst = worst.max(wal.stats().live_bytes);
        }
        assert!(worst <= MAX / 2 + (16 << 10), "live bytes rose to {worst}");
        assert!(wal.stats().segments_cleaned > 10, "{:?}", wal.stats());
    });
    disk.crash(&mut |_| 0);
    let found = life(async { open(&disk).await.unwrap().1 });
    check(&found);
    assert_eq!(found.groups[&2].entries.keys().next_back(), Some(&4_000));
}

#[test]
fn a_crash_at_any_step_of_cleaning_loses_nothing() {
    let disk = SimDisk::new();
    life(async {
        let (wal, _) = open(&disk).await.unwrap();
        quiet(&wal).await;
        busy(&wal, 1, 60).await.unwrap();
        assert_eq!(wal.stats().segments_cleaned, 0, "not yet pressed");
    });
    let mut cleaned = 0;
    for steps in (0..300).step_by(3) {
        let disk = disk.copy();
        let mut state: u64 = steps;
        let mut choose = |n: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % n
        };
        life(async {
            let (wal, found) = open(&disk).await.unwrap();
            check(&found);
            disk.halt_after(steps);
            let _halted = busy(&wal, 61, 400).await;
            cleaned += wal.stats().segments_cleaned;
        });
        disk.crash(&mut choose);
        for _ in 0..2 {
            check(&life(async { open(&disk).await.unwrap().1 }));
        }
    }
    assert!(cleaned > 20, "{cleaned} segments were cleaned in all");
}

#[test]
fn rot_in_a_segment_that_is_to_be_cleaned_keeps_it_for_the_next_start_to_judge() {
    let disk = SimDisk::new();
    life(async {
        let (wal, _) = open(&disk).await.unwrap();
        quiet(&wal).await;
        let oldest = disk.paths()[0].clone();
        disk.flip(&oldest, 5_000, 1);
        let mut refused = None;
        for round in 0..20 {
            if let Err(error) = busy(&wal, round * 40 + 1, 40).await {
                refused = Some(error);
                break;
            }
        }
        assert!(matches!(refused, Some(WalError::Overgrown { .. })), "{refused:?}");
        assert!(disk.paths().contains(&oldest), "the witness is still there");
        assert!(!wal.is_ended(), "groups go on with what asks for no room");
    });
    let found = life(async { open(&disk).await.unwrap().1 });
    assert!(found.suspect.contains_key(&1), "{:?}", found.suspect);
}

#[test]
fn groups_that_purged_all_but_their_last_entry_hold_no_more_than_that() {
    let disk = SimDisk::new();
    let options = WalOptions { segment_bytes: 32 << 10, max_live_bytes: 512 << 10, ..options() };
    let open = || {
        let identity = WalIdentity { cluster: 0xc1, node: 1 };
        Wal::open(disk.clone(), PathBuf::from("wal"), identity, options.clone(), Arc::new(RealClock))
    };
    life(async {
        let (wal, _) = open().await.unwrap();
        // Each fills about a segment, and falls silent with one entry left: 60 segments, of which a log may have 16.
        for group in 1..=60 {
            for index in 1..=32 {
                append(&wal, group, index).await.unwrap();
            }
            wal.purge(group, 31, Bytes::from_static(b"all but one")).await.unwrap();
        }
        // A purge is durable with whatever is synced next.
        wal.save_vote(60, Bytes::from_static(b"a vote")).await.unwrap();
        assert!(wal.stats().live_bytes <= (512 << 10) / 2 + (64 << 10), "{:?}", wal.stats());
    });
    disk.crash(&mut |_| 0);
    let found = life(async { open().await.unwrap().1 });
    for group in 1..=60 {
        let entries = &found.groups[&group].entries;
        assert_eq!(entries.keys().copied().collect::<Vec<_>>(), [32]);
        assert_eq!(entries[&32], payload(group, 32));
    }
}

#[test]
fn a_log_whose_segments_are_mostly_beginnings_does_not_clean_for_ever() {
    let disk = SimDisk::new();
    life(async {
        let (wal, _) = open(&disk).await.unwrap();
        for group in 1..=60 {
            for index in 1..=8 {
                match append(&wal, group, index).await {
                    Ok(()) | Err(WalError::Overgrown { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
        // The writer must come to rest: an endless cleaning would never let this through.
        wal.save_vote(1, Bytes::from_static(b"a vote")).await.unwrap();
        wal.close().await.unwrap();
    });
}
