//! The judges of replication see what they are there for: each is shown what breaks its promise, and what does not.

use std::collections::BTreeMap;
use std::time::Duration;

use stoa_protocol::ReplicaId;
use stoa_raft::{LogPlace, Promise};
use stoa_sim::judges::committed::Committed;
use stoa_sim::judges::election_safety::ElectionSafety;
use stoa_sim::judges::log_matching::LogMatching;
use stoa_sim::judges::one_vote::OneVote;
use stoa_sim::judges::{durable_quorum, kept_promises, leader_completeness};
use stoa_sim::observe::disk_log::{GroupLog, Held};
use stoa_sim::observe::frames::{LogId, Members, Vote};
use stoa_sim::plan::Plan;
use stoa_sim::run::{Outcome, Planted, run};
use stoa_sim::world::World;

const SHORT: Duration = Duration::from_secs(8);
const GROUP: u64 = 3;

fn judges(outcome: &Outcome) -> Vec<&'static str> {
    let mut names: Vec<_> = outcome.broken.iter().map(|broken| broken.judge).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// A log of entries of these terms, from index 1 on; the hash of each is its term.
fn log(terms: &[u64]) -> GroupLog {
    let entries = terms.iter().zip(1..).map(|(term, index)| (index, Held::new(*term, *term))).collect();
    GroupLog { entries, ..GroupLog::default() }
}

fn vote(term: u64, candidate: u64) -> Vote {
    Vote { term, candidate, committed: false }
}

#[test]
fn a_calm_cluster_gives_every_judge_something_to_judge() {
    let outcome = run(Plan::calm(11, 2, SHORT), None, &Planted::default()).unwrap();
    assert_eq!(outcome.broken, []);
    let judged = outcome.judged;
    assert!(judged.entries > 100 && judged.acknowledged > 100 && judged.promises > 200, "{judged:?}");
    assert!(judged.elections >= 3 && judged.root_states > 1, "{judged:?}");
}

#[test]
fn disks_that_lie_about_syncs_are_seen_without_any_loss_of_power() {
    fn lie(world: &mut World) {
        let disks: Vec<_> = world.machines.iter().map(|machine| machine.disk.clone()).collect();
        stoa_env::task::spawn_unwatched(async move {
            tokio::time::sleep(Duration::from_secs(5)).await;
            disks.iter().for_each(|disk| disk.set_lying(true));
        });
    }
    let outcome = run(Plan::calm(12, 1, SHORT), None, &Planted { world: lie, ..Planted::default() }).unwrap();
    assert_eq!(judges(&outcome), ["a promise is durable first", "acknowledged is durable on a quorum"]);
}

#[test]
fn one_disk_that_lies_breaks_its_nodes_promises_and_a_quorum_has_all_the_same() {
    fn lie(world: &mut World) {
        let disk = world.machines[1].disk.clone();
        stoa_env::task::spawn_unwatched(async move {
            tokio::time::sleep(Duration::from_secs(5)).await;
            disk.set_lying(true);
        });
    }
    let outcome = run(Plan::calm(13, 3, SHORT), None, &Planted { world: lie, ..Planted::default() }).unwrap();
    // Node 2 leads one of the partitions and follows in the others. Whether an entry is acknowledged before the third disk
    // has it is a matter of microseconds.
    assert!(judges(&outcome).contains(&"a promise is durable first"), "{:?}", judges(&outcome));
    assert!(outcome.broken.iter().all(|broken| broken.judge.contains("durable")), "{:?}", outcome.broken);
    let promises = outcome.broken.iter().filter(|broken| broken.judge == "a promise is durable first");
    assert!(promises.into_iter().all(|broken| broken.what.contains("node 2,")), "{:?}", outcome.broken);
}

#[test]
fn a_network_that_changes_entries_makes_logs_that_do_not_match() {
    fn tamper(world: &mut World) {
        world.net.set_tamper(Box::new(|from, to, bytes| match from.starts_with('n') && to == "n2" {
            true => exchange(bytes),
            false => bytes,
        }));
    }
    let outcome = run(Plan::calm(14, 1, SHORT), None, &Planted { world: tamper, ..Planted::default() }).unwrap();
    assert!(judges(&outcome).contains(&"logs match"), "{:?}", judges(&outcome));
    assert!(judges(&outcome).contains(&"committed entries stay"), "{:?}", judges(&outcome));
}

/// A frame with the first "value 1" in it turned into "value 2", and its checksum made to fit.
fn exchange(bytes: bytes::Bytes) -> bytes::Bytes {
    use stoa_protocol::frame::{decode_frame, encode_frame};
    let Ok((header, body)) = decode_frame(&bytes) else { return bytes };
    let mut body = body.to_vec();
    let Some(at) = body.windows(7).position(|window| window == b"value 1") else { return bytes };
    body[at + 6] = b'2';
    encode_frame(&header, &body)
}

#[test]
fn a_second_leader_of_a_term_is_seen() {
    let mut judge = ElectionSafety::default();
    assert_eq!(judge.judge(1, GROUP, 4, 7), None);
    assert_eq!(judge.judge(2, GROUP, 4, 7), None, "another node tells the same");
    assert_eq!(judge.judge(2, GROUP, 5, 8), None, "another term");
    assert_eq!(judge.judge(2, GROUP + 1, 4, 8), None, "another group");
    assert!(judge.judge(3, GROUP, 4, 8).is_some());
}

#[test]
fn a_second_vote_in_a_term_is_seen() {
    let mut judge = OneVote::default();
    assert_eq!(judge.judge(1, GROUP, vote(4, 7)), None);
    assert_eq!(judge.judge(1, GROUP, vote(4, 7)), None, "the same again");
    assert_eq!(judge.judge(2, GROUP, vote(4, 8)), None, "another node's");
    let elected = Vote { committed: true, ..vote(4, 8) };
    assert_eq!(judge.judge(1, GROUP, elected), None, "whom others have elected");
    assert!(judge.judge(1, GROUP, vote(4, 8)).is_some());
}

#[test]
fn a_promise_that_is_not_on_disk_is_seen() {
    let promised = |log: &GroupLog, promise| kept_promises::judge(1, GROUP, promise, log).is_some();
    let granted = Promise::Vote { term: 4, candidate: ReplicaId(7) };
    let with = |vote| GroupLog { vote: Some(vote), ..GroupLog::default() };
    assert!(promised(&GroupLog::default(), granted), "no vote at all");
    assert!(promised(&with(vote(3, 7)), granted), "an older one");
    assert!(promised(&with(vote(4, 8)), granted), "another candidate's");
    assert!(!promised(&with(vote(4, 7)), granted));
    assert!(!promised(&with(vote(5, 8)), granted), "a later term's stands in its place");

    let taken = Promise::Entries(LogPlace { index: 3, term: 2 });
    assert!(promised(&log(&[1, 2]), taken), "the last is missing");
    assert!(promised(&log(&[1, 1, 1]), taken), "it is another one");
    assert!(!promised(&log(&[1, 2, 2]), taken));
    assert!(!promised(&GroupLog { snapshot: Some(3), ..GroupLog::default() }, taken));
}

#[test]
fn logs_that_differ_in_an_entry_or_before_it_are_seen() {
    let mut judge = LogMatching::default();
    assert_eq!(judge.judge(1, GROUP, (5, 2), 0xa, Some(1)), None);
    assert_eq!(judge.judge(2, GROUP, (5, 2), 0xa, Some(1)), None);
    assert_eq!(judge.judge(2, GROUP, (5, 3), 0xb, Some(2)), None, "another term may have another entry");
    assert_eq!(judge.judge(3, GROUP, (5, 2), 0xa, None), None, "nothing is known of what was before");
    assert!(judge.judge(3, GROUP, (5, 2), 0xb, Some(1)).is_some(), "another entry");
    assert!(judge.judge(3, GROUP, (5, 2), 0xa, Some(2)).is_some(), "after another one");
}

#[test]
fn a_committed_entry_that_changes_or_is_cut_off_is_seen() {
    let mut judge = Committed::default();
    let upto = |term, index| LogId { term, index };
    assert_eq!(judge.judge(1, GROUP, upto(1, 2), &log(&[1, 1, 1])), None);
    assert_eq!(judge.judge(2, GROUP, upto(1, 2), &log(&[1, 1])), None);
    assert_eq!(judge.judge(2, GROUP, upto(2, 3), &log(&[1, 1, 2])), None, "the third was not committed");
    assert!(judge.judge(1, GROUP, upto(1, 3), &log(&[1, 1, 1])).is_some(), "and now it is, as another");
    assert!(judge.judge(3, GROUP, upto(2, 2), &log(&[1, 1])).is_some(), "a position that the log contradicts");

    assert_eq!(judge.judge_cut(1, GROUP, 3, &log(&[1, 1, 1])), None, "what never was committed");
    assert!(judge.judge_cut(1, GROUP, 2, &log(&[1, 1, 1])).is_some());
    let covered = GroupLog { snapshot: Some(2), ..log(&[1, 1, 1]) };
    assert_eq!(judge.judge_cut(1, GROUP, 2, &covered), None, "it is in a snapshot");
    let suspect = GroupLog { suspect: true, ..log(&[3, 3]) };
    assert_eq!(judge.judge(3, GROUP, upto(3, 2), &suspect), None, "the node has found out itself");
}

#[test]
fn a_leader_without_what_was_committed_is_seen() {
    let mut committed = Committed::default();
    assert_eq!(committed.judge(1, GROUP, LogId { term: 2, index: 3 }, &log(&[1, 1, 2])), None);
    let lacks = |term, log: &GroupLog| leader_completeness::judge(2, GROUP, term, log, &committed).is_some();
    assert!(!lacks(3, &log(&[1, 1, 2])));
    assert!(lacks(3, &log(&[1, 1])));
    assert!(lacks(3, &log(&[1, 1, 1])), "another entry in its place");
    assert!(!lacks(2, &log(&[1, 1])), "of its own term it may still lack it");
    assert!(!lacks(3, &GroupLog { snapshot: Some(3), ..GroupLog::default() }));
}

#[test]
fn an_acknowledged_entry_on_one_disk_alone_is_seen() {
    let members = Members { configs: vec![vec![1, 2, 3]], nodes: vec![(1, 11), (2, 12), (3, 13), (4, 14)] };
    let judge = |logs: [&GroupLog; 4]| {
        let disks: BTreeMap<u64, &GroupLog> = (11..).zip(logs).collect();
        durable_quorum::judge(GROUP, 2, &disks, &|_| vec![(1, members.clone())])
    };
    let (has, lacks, other) = (log(&[1, 2]), log(&[1]), log(&[1, 1]));
    let covered = GroupLog { snapshot: Some(9), ..GroupLog::default() };
    assert_eq!(judge([&has, &lacks, &has, &lacks]), Ok(Some(2)));
    assert_eq!(judge([&has, &covered, &other, &lacks]), Ok(Some(2)));
    assert_eq!(judge([&covered, &covered, &lacks, &lacks]), Ok(None));
    assert!(judge([&has, &lacks, &lacks, &lacks]).is_err());
    assert!(judge([&has, &other, &lacks, &lacks]).is_err(), "two entries of different terms are no two copies");
    assert!(judge([&has, &lacks, &lacks, &has]).is_err(), "the fourth is no voter");
    assert!(durable_quorum::judge(GROUP, 2, &(11..).zip([&has]).collect(), &|_| Vec::new()).is_err(), "nobody votes");
}
