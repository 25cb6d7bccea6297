//! openraft's traps, each sprung on purpose.

use std::time::Duration;

use stoa_protocol::ErrorCode;
use stoa_sim::disk::SimDisk;

use crate::harness::*;

async fn pause(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// A process ends and starts again on its disk.
async fn restart(process: Process, member: Member, net: &Net, node: u64) -> (Process, Member) {
    net.cut(node, true);
    member.shutdown().await;
    process.wal.close().await.unwrap();
    let started = start(&process.disk, net, node, wal_options()).await.unwrap();
    net.cut(node, false);
    started
}

#[test]
fn a_replica_that_started_a_moment_ago_grants_no_vote_and_does_not_campaign() {
    let disks: Vec<SimDisk> = (0..3).map(|_| SimDisk::new()).collect();
    let net = Net::default();
    life(async {
        let mut all = group(&disks, &net, &wal_options()).await;
        write(&leader(&all), "one").await;
        let at = all.iter().position(|(_, member)| member.leads()).unwrap();
        let (_old, old_leader) = all.swap_remove(at);
        for (_, member) in &all {
            applied(member, 1).await;
        }
        // The third would campaign 1000 to 1200 ms from now; the second starts again before that, and has forgotten that
        // it acknowledged the leader a moment ago.
        net.cut(old_leader.id().0, true);
        pause(950).await;
        let (process, member) = all.remove(0);
        let node = member.id().0;
        let restarted = restart(process, member, &net, node).await;
        for ms in 0..600 {
            assert!(!all[0].1.leads() && !restarted.1.leads(), "a leader {ms} ms after the start");
            pause(1).await;
        }
        until("a leader once the silence is over", || all[0].1.leads() || restarted.1.leads()).await;
    });
}

#[test]
fn a_command_that_panics_or_cannot_be_read_halts_that_group_loudly_and_nothing_else() {
    for poison in ["PANIC", "UNREADABLE"] {
        let net = Net::default();
        let disk = SimDisk::new();
        life(async {
            let all = group(std::slice::from_ref(&disk), &net, &wal_options()).await;
            let (process, member) = &all[0];
            write(member, "one").await;
            assert!(member.propose(poison.into(), LIMIT).await.is_err(), "{poison}");
            until("the halt to be seen", || member.trouble().is_some()).await;
            assert_eq!(member.propose("two".into(), LIMIT).await.unwrap_err().code, ErrorCode::ReplicaOut);
            process.wal.save_vote(99, "another group's".into()).await.unwrap();
        });
    }
}

#[test]
fn leadership_goes_to_a_voter_that_has_caught_up_and_to_no_other() {
    let disks: Vec<SimDisk> = (0..3).map(|_| SimDisk::new()).collect();
    let net = Net::default();
    life(async {
        let all = group(&disks, &net, &wal_options()).await;
        let old = leader(&all);
        let (_, to) = all.iter().find(|(_, member)| !member.leads()).unwrap();
        net.cut(to.id().0, true);
        write(&old, "what the target lacks").await;
        assert!(!old.transfer_leader(to.id()).await, "it lags");
        assert!(!old.transfer_leader(stoa_protocol::ReplicaId(9)).await, "it is no voter");
        write(&old, "and the leader leads on").await;
        net.cut(to.id().0, false);
        applied(to, 2).await;
        for _ in 0..100 {
            if old.transfer_leader(to.id()).await {
                break;
            }
            pause(10).await;
        }
        until("the target to lead", || to.leads() && !old.leads()).await;
    });
}

#[test]
fn a_transfer_whose_target_dies_costs_an_election_and_no_more() {
    let disks: Vec<SimDisk> = (0..3).map(|_| SimDisk::new()).collect();
    let net = Net::default();
    life(async {
        let all = group(&disks, &net, &wal_options()).await;
        let old = leader(&all);
        write(&old, "one").await;
        for (_, member) in &all {
            applied(member, 1).await;
        }
        pause(200).await;
        let (_, to) = all.iter().find(|(_, member)| !member.leads()).unwrap();
        net.cut(to.id().0, true);
        assert!(old.transfer_leader(to.id()).await);
        let others = || all.iter().map(|(_, member)| member).filter(|member| member.id() != to.id());
        let mut took = 0;
        'write: loop {
            for member in others() {
                if member.propose("after".into(), Duration::from_millis(200)).await.is_ok() {
                    break 'write;
                }
            }
            pause(10).await;
            took += 1;
            assert!(took < 1_000, "nobody leads any more");
        }
        net.cut(to.id().0, false);
        applied(to, 2).await;
    });
}
