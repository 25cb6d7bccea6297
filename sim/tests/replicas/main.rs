//! Replicas on devices that are full, fail, forget and lose, and on networks that are slow.

#![allow(clippy::unwrap_used)] // a test ends where something is not as it should be

mod crashes;
mod harness;
mod traps;

use std::path::Path;
use std::time::Duration;

use harness::*;
use stoa_env::Disk;
use stoa_protocol::ErrorCode;
use stoa_raft::CutBounds;
use stoa_raft::wal::WalOptions;
use stoa_sim::disk::SimDisk;

fn disks(count: usize) -> Vec<SimDisk> {
    (0..count).map(|_| SimDisk::new()).collect()
}

fn bytes(text: &str, length: usize) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(length, b'.');
    bytes
}

fn snapshots(disk: &SimDisk) -> Vec<String> {
    let dir = Path::new("snapshots/7");
    let names = disk.paths().into_iter().filter_map(|path| path.strip_prefix(dir).ok().map(Path::to_path_buf));
    let dirs = names.filter(|name| name.components().count() > 1);
    let mut dirs: Vec<String> =
        dirs.map(|name| name.components().next().unwrap().as_os_str().to_string_lossy().into_owned()).collect();
    dirs.dedup();
    dirs
}

/// Takes a snapshot and lets the log before it go.
async fn cut(member: &Member) {
    for _ in 0..1_000 {
        if member.log_size().entries == 0 {
            return;
        }
        member.cut_log(bounds(0, 0)).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the log was never cut: {:?}", member.log_size());
}

#[test]
fn a_follower_whose_device_is_full_refuses_entries_and_comes_back_when_there_is_room() {
    let (disks, net) = (disks(3), Net::default());
    let options = WalOptions { reserve_bytes: 4 << 20, ..wal_options() };
    life(async {
        let all = group(&disks, &net, &options).await;
        let leader = leader(&all);
        write(&leader, "one").await;
        let (process, full) = all.iter().find(|(_, member)| !member.leads()).unwrap();
        applied(full, 1).await;
        let term = leader.status().term;
        process.disk.set_capacity(Some(process.disk.used()));
        for n in 0..50 {
            write(&leader, bytes(&format!("while full {n}"), 10_000)).await;
        }
        assert!(process.disk.strikes().full > 0, "the device was never full");
        assert!(process.wal.stats().full);
        assert_eq!(full.trouble(), None);
        assert!(tape(full).await.count < 51, "it took everything: it refused nothing");
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(leader.status().term, term, "heartbeats went through, so nobody campaigned");
        process.disk.set_capacity(None);
        applied(full, 51).await;
        assert_eq!(tape(full).await, tape(&leader).await);
    });
}

#[test]
fn a_leader_whose_device_is_full_says_so_and_halts_nothing() {
    let (disks, net) = (disks(1), Net::default());
    let options = WalOptions { reserve_bytes: 2 << 20, ..wal_options() };
    life(async {
        let all = group(&disks, &net, &options).await;
        let (process, leader) = &all[0];
        write(leader, "one").await;
        process.disk.set_capacity(Some(process.disk.used()));
        let mut refused = Vec::new();
        for _ in 0..5 {
            refused.extend(leader.propose(bytes("full", 10_000).into(), LIMIT).await.err());
        }
        assert!(refused.len() >= 4 && refused.iter().all(|error| error.code == ErrorCode::DiskFull), "{refused:?}");
        assert_eq!(leader.trouble(), None);
        process.disk.set_capacity(None);
        write(leader, "two").await;
    });
}

#[test]
fn proposals_beyond_what_the_log_may_hold_are_refused_and_appends_of_what_was_admitted_never() {
    let (disks, net) = (disks(3), Net::default());
    let options = WalOptions { queue_bytes: 300 << 10, ..wal_options() };
    life(async {
        let all = group(&disks, &net, &options).await;
        let leader = leader(&all);
        all.iter().for_each(|(process, _)| process.disk.set_delay(Duration::from_millis(2)));
        let mut writers = Vec::new();
        for n in 0..100 {
            let leader = leader.clone();
            writers.push(stoa_env::spawn("writer", async move {
                leader.propose(bytes(&n.to_string(), 20_000).into(), LIMIT).await.map(drop)
            }));
        }
        let mut outcomes = Vec::new();
        for writer in writers {
            outcomes.push(writer.await.unwrap().unwrap());
        }
        let taken = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        let refused = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
        refused.for_each(|error| assert_eq!(error.code, ErrorCode::Overloaded, "{error}"));
        assert!((10..100).contains(&taken), "{taken} were taken");
        for (process, member) in &all {
            applied(member, taken as u64).await;
            assert_eq!(member.trouble(), None);
            let stats = process.wal.stats();
            assert!(stats.admitted_bytes_worst <= 300 << 10, "{stats:?}");
            assert_eq!(stats.admitted_bytes, 0, "room that was taken comes back");
        }
    });
}

#[test]
fn a_log_that_stays_at_its_maximum_refuses_and_halts_nobody() {
    let (disks, net) = (disks(3), Net::default());
    let options = WalOptions { max_live_bytes: 256 << 10, ..wal_options() };
    life(async {
        let all = group(&disks, &net, &options).await;
        let leader = leader(&all);
        // Nobody takes snapshots: the log fills up.
        let mut refused = None;
        for n in 0..100 {
            if let Err(error) = leader.propose(bytes(&n.to_string(), 10_000).into(), LIMIT).await {
                refused = Some(error);
                break;
            }
        }
        let refused = refused.expect("the log has a maximum");
        assert_eq!(refused.code, ErrorCode::DiskFull, "{refused}");
        let count = tape(&leader).await.count;
        tokio::time::sleep(Duration::from_secs(2)).await;
        for (_, member) in &all {
            assert_eq!(member.trouble(), None);
            cut(member).await;
        }
        write(&leader, "there is room again").await;
        for (_, member) in &all {
            applied(member, count + 1).await;
        }
    });
}

#[test]
fn large_entries_pass_a_link_on_which_none_fits_a_heartbeat_interval() {
    let (disks, net) = (disks(3), Net::default());
    let options = WalOptions {
        queue_bytes: 64 << 20,
        round_bytes: 8 << 20,
        segment_bytes: 64 << 20,
        max_live_bytes: 1 << 30,
        ..wal_options()
    };
    life(async {
        let all = group(&disks, &net, &options).await;
        let leader = leader(&all);
        let term = leader.status().term;
        // 2 MiB take 1.3 s, and a heartbeat is 100 ms.
        net.set_speed(Some(3 << 19));
        for n in 0..3 {
            leader.propose(bytes(&n.to_string(), 2 << 20).into(), Duration::from_secs(30)).await.unwrap();
        }
        net.set_speed(None);
        for (_, member) in &all {
            applied(member, 3).await;
        }
        assert_eq!(leader.status().term, term, "no election came between");
    });
}

#[test]
fn a_machines_chunk_of_any_size_is_written_restored_and_sent() {
    let (disks, net) = (disks(3), Net::default());
    life(async {
        let all = group(&disks, &net, &wal_options()).await;
        let leader = leader(&all);
        let (_, late) = all.iter().find(|(_, member)| !member.leads()).unwrap();
        net.cut(late.id().0, true);
        for n in 0..100u8 {
            write(&leader, vec![b'B', 9, n]).await;
        }
        for (_, member) in all.iter().filter(|(_, member)| member.id() != late.id()) {
            applied(member, 100).await;
            cut(member).await;
        }
        net.cut(late.id().0, false);
        applied(late, 100).await;
        assert_eq!(tape(late).await, tape(&leader).await);
        assert!(net.calls("chunk") >= 4, "9 MiB go in pieces of 4");
    });
    for disk in &disks {
        disk.crash(&mut |_| 0);
    }
    life(async {
        let (_process, member) = start(&disks[0], &Net::default(), 1, wal_options()).await.unwrap();
        let tape = tape(&member).await;
        assert_eq!((tape.count, tape.mib), (100, 9));
    });
}

#[test]
fn an_interrupted_transfer_goes_on_where_it_stopped() {
    let (disks, net) = (disks(3), Net::default());
    life(async {
        let all = group(&disks, &net, &wal_options()).await;
        let leader = leader(&all);
        let (_, late) = all.iter().find(|(_, member)| !member.leads()).unwrap();
        net.cut(late.id().0, true);
        for n in 0..100u8 {
            write(&leader, vec![b'B', 40, n]).await;
        }
        cut(&leader).await;
        let (chunks, ends) = (11, net.calls("end"));
        // More losses in a row than one chunk is sent, so that the whole transfer fails and is begun again, and more in all
        // than a transfer from the start would ever survive.
        net.lose("chunk", 9, 20);
        net.lose("end", 0, 1);
        net.cut(late.id().0, false);
        applied(late, 100).await;
        // The sender hears of the install at the latest when it asks again.
        tokio::time::sleep(Duration::from_secs(120)).await;
        let sent = net.calls("chunk");
        assert!(sent <= chunks + 20 + 2, "{sent} chunks were sent for {chunks}");
        assert!(net.calls("end") - ends <= 3, "an install whose answer is lost is not sent again whole");
        assert_eq!(tape(late).await, tape(&leader).await);
    });
}

#[test]
fn entries_kept_behind_a_snapshot_do_not_ask_for_another() {
    let (disks, net) = (disks(1), Net::default());
    life(async {
        let all = group(&disks, &net, &wal_options()).await;
        let (process, leader) = &all[0];
        for n in 0..40 {
            write(leader, bytes(&n.to_string(), 10_000)).await;
        }
        for _ in 0..100 {
            leader.cut_log(bounds(100_000, 100_000)).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(snapshots(&process.disk)[0].ends_with("-1"), "more than one was taken: {:?}", snapshots(&process.disk));
        assert!(leader.log_size().bytes <= 100_000, "what is kept is bounded in bytes too: {:?}", leader.log_size());
    });
}

/// Takes a snapshot of all that is applied, and lets go what need not stay.
async fn cut_within(member: &Member, lagging_max: u64) {
    let within = CutBounds { lagging_max, ..bounds(0, 50_000) };
    for _ in 0..1_000 {
        let covered = !member.can_snapshot();
        member.cut_log(within).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        if covered {
            return;
        }
    }
    panic!("no snapshot covers all: {:?}", member.status());
}

/// As [`cut_within`], for as long as followers may take to say what they have, and Raft to be done with what it sends them.
async fn let_go(member: &Member, lagging_max: u64) {
    for _ in 0..100 {
        cut_within(member, lagging_max).await;
    }
}

#[test]
fn a_follower_that_was_down_for_a_while_goes_on_from_the_log_and_one_that_was_for_long_holds_it_up_no_more() {
    let (disks, net) = (disks(3), Net::default());
    life(async {
        let mut all = group(&disks, &net, &wal_options()).await;
        let leader = leader(&all);
        write(&leader, "one").await;
        let at = all.iter().position(|(_, member)| !member.leads()).unwrap();
        let (process, late) = all.remove(at);
        applied(&late, 1).await;
        late.shutdown().await;
        process.wal.close().await.unwrap();
        for n in 0..80 {
            write(&leader, bytes(&n.to_string(), 10_000)).await;
            if n % 40 == 39 {
                cut_within(&leader, 1 << 20).await;
            }
        }
        assert_eq!(leader.replay_bytes(), 0, "what is kept lies behind the snapshot");
        assert!(leader.log_size().bytes > 800_000, "all that it lacks is kept: {:?}", leader.log_size());
        let (_process, late) = start(&disks[at], &net, at as u64 + 1, wal_options()).await.unwrap();
        applied(&late, 81).await;
        assert_eq!(net.calls("begin"), 0, "it needed no snapshot");
        let_go(&leader, 1 << 20).await;
        assert!(leader.log_size().bytes < 60_000, "all have it: {:?}", leader.log_size());

        net.cut(late.id().0, true);
        for n in 0..120 {
            write(&leader, bytes(&n.to_string(), 10_000)).await;
        }
        let_go(&leader, 1 << 20).await;
        assert!(leader.log_size().bytes < 60_000, "it is too far behind: {:?}", leader.log_size());
        net.cut(late.id().0, false);
        applied(&late, 201).await;
        assert!(net.calls("begin") > 0);
    });
}

#[test]
fn a_follower_that_takes_a_snapshot_in_goes_on_from_the_log_however_many_are_taken_meanwhile() {
    let (disks, net) = (disks(3), Net::default());
    life(async {
        let all = group(&disks, &net, &wal_options()).await;
        let leader = leader(&all);
        let (_, late) = all.iter().find(|(_, member)| !member.leads()).unwrap();
        net.cut(late.id().0, true);
        write(&leader, vec![b'B', 9]).await;
        cut(&leader).await;
        // 9 MiB take 6 s.
        net.set_speed(Some(3 << 19));
        net.cut(late.id().0, false);
        until("the transfer to begin", || net.calls("chunk") > 0).await;
        for n in 0..10 {
            write(&leader, bytes(&n.to_string(), 40_000)).await;
            cut_within(&leader, 1 << 20).await;
        }
        assert_eq!(net.calls("end"), 0, "it is still on its way");
        net.set_speed(None);
        applied(late, 11).await;
        assert_eq!(net.calls("end"), 1, "one snapshot was enough");
    });
}

#[test]
fn a_quiet_group_lets_all_of_its_log_go_when_the_nodes_log_is_pressed() {
    let (disks, net) = (disks(1), Net::default());
    life(async {
        let all = group(&disks, &net, &wal_options()).await;
        let (_, leader) = &all[0];
        for n in 0..40 {
            write(leader, n.to_string()).await;
        }
        leader.cut_log(bounds(0, u64::MAX)).await;
        until("a snapshot", || snapshots(&disks[0]).len() == 1).await;
        while leader.log_size().entries > 32 {
            leader.cut_log(bounds(u64::MAX, u64::MAX)).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        leader.cut_log(bounds(u64::MAX, u64::MAX)).await;
        assert_eq!(leader.log_size().entries, 32, "kept for followers that lag");
        leader.cut_log(bounds(u64::MAX, 0)).await;
        until("all to go", || leader.log_size().entries == 0).await;
        write(leader, "and on").await;
    });
}

#[test]
fn a_snapshot_that_finds_the_device_full_is_given_up_and_halts_nothing() {
    let (disks, net) = (disks(1), Net::default());
    let options = WalOptions { reserve_bytes: 2 << 20, ..wal_options() };
    life(async {
        let all = group(&disks, &net, &options).await;
        let (process, leader) = &all[0];
        write(leader, vec![b'B', 8]).await;
        process.disk.set_capacity(Some(process.disk.used() + (5 << 20)));
        leader.cut_log(bounds(0, u64::MAX)).await;
        assert!(leader.can_snapshot());
        until("a full device", || process.disk.strikes().full > 0).await;
        until("a pause", || !leader.can_snapshot()).await;
        write(leader, "the group goes on").await;
        assert_eq!(leader.trouble(), None);
        assert!(snapshots(&process.disk).is_empty(), "its files are gone: {:?}", snapshots(&process.disk));
        process.disk.set_capacity(None);
        // Asked again as often as a node does: after a failure there is a pause.
        while snapshots(&process.disk).len() != 1 {
            leader.cut_log(bounds(0, u64::MAX)).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        until("all to be covered", || !leader.can_snapshot()).await;
    });
}

#[test]
fn what_the_last_snapshot_wrote_is_known_after_an_install_and_after_a_start() {
    let (disks, net) = (disks(3), Net::default());
    let whole = (5 << 20) + 17;
    life(async {
        let all = group(&disks, &net, &wal_options()).await;
        let leader = leader(&all);
        let (_, late) = all.iter().find(|(_, member)| !member.leads()).unwrap();
        net.cut(late.id().0, true);
        write(&leader, vec![b'B', 5]).await;
        cut(&leader).await;
        assert_eq!(leader.snapshot_written(), whole);
        assert_eq!(late.snapshot_written(), 0, "it has none");
        net.cut(late.id().0, false);
        applied(late, 1).await;
        assert_eq!(late.snapshot_written(), whole);
    });
    life(async {
        for (disk, node) in disks.iter().zip(1..) {
            let (_process, member) = start(disk, &Net::default(), node, wal_options()).await.unwrap();
            let taken = !snapshots(disk).is_empty();
            assert_eq!(member.snapshot_written(), if taken { whole } else { 0 });
        }
    });
}

#[test]
fn a_replica_whose_log_is_lost_or_of_another_life_does_not_start() {
    let (disks, net) = (disks(1), Net::default());
    life(async {
        let all = group(&disks, &net, &wal_options()).await;
        for n in 0..50 {
            write(&all[0].1, n.to_string()).await;
        }
    });
    let lost = |with_snapshot: bool| {
        let disk = disks[0].copy();
        life(async {
            if with_snapshot {
                let (_process, member) = start(&disk, &net, 1, wal_options()).await.unwrap();
                until("a leader", || member.leads()).await;
                applied(&member, 50).await;
                cut(&member).await;
            }
            let (process, recovered) = Process::open(&disk, &net, 1, wal_options()).await.unwrap();
            assert!(recovered.groups.contains_key(&GROUP.0));
            process.wal.forget(GROUP.0).await.unwrap();
            process.wal.close().await.unwrap();
        });
        life(async { start(&disk, &net, 1, wal_options()).await.err().unwrap().to_string() })
    };
    for with_snapshot in [false, true] {
        let refused = lost(with_snapshot);
        assert!(refused.contains("the log knows nothing of it"), "{refused}");
    }
    let other = life(async {
        let (process, recovered) = Process::open(&disks[0].copy(), &net, 1, wal_options()).await.unwrap();
        process.start(2, recovered).await.err().unwrap().to_string()
    });
    assert!(other.contains("these are the files of replica 1"), "{other}");

    let disk = disks[0].copy();
    life(async {
        let (_process, member) = start(&disk, &net, 1, wal_options()).await.unwrap();
        until("a leader", || member.leads()).await;
        applied(&member, 50).await;
        cut(&member).await;
        drop(member);
        for name in disk.paths().into_iter().filter(|path| path.starts_with("snapshots") && path.ends_with("manifest"))
        {
            disk.remove(name.parent().unwrap()).await.unwrap();
        }
    });
    let gone = life(async { start(&disk, &net, 1, wal_options()).await.err().unwrap().to_string() });
    assert!(gone.contains("the log begins after") || gone.contains("its log begins after"), "{gone}");
}
