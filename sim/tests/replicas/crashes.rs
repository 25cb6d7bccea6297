//! A replica's process dies at every step of what it writes apart: log, snapshots and its mark. Whatever is left must
//! start: the table of raft/src/seam.rs must refuse nothing that a crash can leave.

use std::time::Duration;

use stoa_protocol::{NodeId, ReplicaId};
use stoa_sim::disk::SimDisk;

use crate::harness::*;
use crate::{cut, disks, snapshots};

#[test]
fn a_crash_at_any_step_of_a_first_start_leaves_one_that_starts() {
    let mut halted = 0;
    for steps in 0..50 {
        let (disk, net) = (SimDisk::new(), Net::default());
        life(async {
            disk.halt_after(steps);
            halted += u32::from(start(&disk, &net, 1, wal_options()).await.is_err());
        });
        disk.crash(&mut seeded(steps));
        life(async {
            let all = group(std::slice::from_ref(&disk), &net, &wal_options()).await;
            write(&all[0].1, "one").await;
        });
        disk.crash(&mut seeded(steps));
        life(async {
            let (_process, member) = start(&disk, &net, 1, wal_options()).await.unwrap();
            applied(&member, 1).await;
        });
    }
    assert!((10..50).contains(&halted), "{halted} starts were cut short");
}

#[test]
fn a_first_start_that_a_failed_sync_ends_is_made_again_by_the_same_process() {
    let (mut again, mut ended) = (0, 0);
    for nth in 1..20 {
        let (disk, net) = (SimDisk::new(), Net::default());
        life(async {
            let (process, mut recovered) = Process::open(&disk, &net, 1, wal_options()).await.unwrap();
            let mut group = recovered.groups.remove(&GROUP.0).unwrap_or_default();
            disk.fail_sync(nth);
            if process.start_on(1, &mut group).await.is_ok() {
                return;
            }
            // Where it was the log's own sync, the log has ended, and the node with it.
            if process.wal.is_ended() {
                ended += 1;
                return;
            }
            again += 1;
            let member = process.start_on(1, &mut group).await.unwrap_or_else(|e| panic!("sync {nth}: {e}"));
            member.form(&[(ReplicaId(1), NodeId(1))]).await.unwrap();
            until("it leads", || member.leads()).await;
            write(&member, "one").await;
        });
    }
    assert!(again >= 4 && ended >= 1, "{again} starts were made again, {ended} logs ended");
}

/// The disks of a group that went on, and let its log go, without one replica, and the place of that. With a tail, it led
/// before, and has entries that were never committed.
fn lagging(with_tail: bool) -> (Vec<SimDisk>, usize) {
    let (disks, net) = (disks(3), Net::default());
    let late = life(async {
        let all = group(&disks, &net, &wal_options()).await;
        write(&leader(&all), "first").await;
        for (_, member) in &all {
            applied(member, 1).await;
        }
        let (_, late) = all.iter().find(|(_, member)| member.leads() == with_tail).unwrap();
        net.cut(late.id().0, true);
        if with_tail {
            // A longer one than what the others go on by, so that their snapshot ends within it.
            for n in 0..80 {
                let _never_committed = late.propose(format!("tail {n}").into(), Duration::from_millis(2)).await;
            }
            assert!(late.status().last.0 > 70, "{:?}", late.status());
        }
        let others = || all.iter().map(|(_, member)| member).filter(|member| member.id() != late.id());
        until("a leader of the others", || others().any(|member| member.leads())).await;
        let leader = others().find(|member| member.leads()).unwrap();
        while leader.barrier(LIMIT).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for n in 0..50u8 {
            write(leader, vec![b'B', 5, n]).await;
        }
        for member in others() {
            applied(member, 51).await;
            cut(member).await;
        }
        late.id().0 as usize - 1
    });
    (disks, late)
}

/// Starts all replicas of a group again.
async fn start_all(disks: &[SimDisk], net: &Net) -> Vec<(Process, Member)> {
    let mut all = Vec::new();
    for (disk, node) in disks.iter().zip(1..) {
        all.push(start(disk, net, node, wal_options()).await.unwrap());
    }
    all
}

#[test]
fn a_crash_at_any_step_of_an_install_leaves_one_that_starts() {
    for with_tail in [false, true] {
        let (base, late) = lagging(with_tail);
        let (mut before, mut after) = (0, 0);
        for steps in 0..60u64 {
            let disks: Vec<SimDisk> = base.iter().map(SimDisk::copy).collect();
            life(async {
                let _all = start_all(&disks, &Net::default()).await;
                disks[late].halt_after(steps);
                tokio::time::sleep(Duration::from_secs(8)).await;
            });
            disks[late].crash(&mut seeded(steps ^ 0x5eed));
            match snapshots(&disks[late]).iter().any(|name| !name.starts_with("new-")) {
                true => after += 1,
                false => before += 1,
            }
            life(async {
                let all = start_all(&disks, &Net::default()).await;
                applied(&all[late].1, 51).await;
            });
        }
        assert!(before > 3 && after > 3, "crashes before and after the snapshot had its name: {before}, {after}");
    }
}

#[test]
fn a_crash_at_any_step_of_replacing_a_snapshot_leaves_one_that_starts() {
    let (disks, net) = (disks(1), Net::default());
    life(async {
        let all = group(&disks, &net, &wal_options()).await;
        for n in 0..100u8 {
            write(&all[0].1, vec![b'B', 5, n]).await;
        }
        cut(&all[0].1).await;
    });
    let before = snapshots(&disks[0]);
    let mut replaced = 0;
    for steps in 0..60 {
        let disk = disks[0].copy();
        life(async {
            let (_process, member) = start(&disk, &net, 1, wal_options()).await.unwrap();
            until("a leader", || member.leads()).await;
            for n in 0..40u8 {
                write(&member, vec![b'B', 5, n]).await;
            }
            disk.halt_after(steps);
            for _ in 0..3 {
                member.cut_log(bounds(0, 0)).await;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        disk.crash(&mut seeded(steps));
        replaced += usize::from(!snapshots(&disk).contains(&before[0]));
        life(async {
            let (_process, member) = start(&disk, &Net::default(), 1, wal_options()).await.unwrap();
            until("a leader", || member.leads()).await;
            applied(&member, 140).await;
            assert_eq!(snapshots(&disk).len(), 1, "nothing is left lying: {:?}", snapshots(&disk));
        });
    }
    assert!((5..55).contains(&replaced), "crashes before and after the step that counts: {replaced}");
}
