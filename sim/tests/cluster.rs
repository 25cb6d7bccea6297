//! The simulator's own proofs: equal seeds give equal traces, and the judges see what they are there for.

use std::time::Duration;

use stoa_sim::bugs::worlds::{altering_network, lying_disks};
use stoa_sim::history::Rule;
use stoa_sim::plan::{FaultKind, LEAST, Plan};
use stoa_sim::run::{Outcome, Planted, run};
use stoa_sim::world::World;

const SHORT: Duration = Duration::from_secs(8);

fn go(plan: Plan) -> Outcome {
    run(plan, None, &Planted::default()).expect("a run without a trace file needs nothing")
}

fn judges(outcome: &Outcome) -> Vec<&'static str> {
    let mut names: Vec<_> = outcome.broken.iter().map(|broken| broken.judge).collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[test]
fn a_calm_cluster_of_one_partition_ends_with_equal_replicas_and_every_row() {
    let outcome = go(Plan::calm(1, 1, SHORT));
    assert_eq!(outcome.broken, []);
    assert!(outcome.alive.is_some() && outcome.compared > 30, "{outcome:?}");
    assert!(outcome.counts.acknowledged > 200 && outcome.counts.rows_read > 500, "{:?}", outcome.counts);
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_one_another() {
    let traces: Vec<_> = [7, 7, 8].into_iter().map(|seed| go(Plan::calm(seed, 2, SHORT)).trace).collect();
    assert_eq!(traces[0], traces[1]);
    assert_ne!(traces[0], traces[2]);
    let faults: Vec<_> = FaultKind::all().collect();
    let faulty = || go(Plan { chaos: SHORT, faults: faults.clone(), overlap: 3, lease_reads: false, ..Plan::draw(1) });
    let (first, second) = (faulty(), faulty());
    assert!(!first.strikes.is_empty());
    assert_eq!(first.trace, second.trace);
}

#[test]
fn faults_break_no_promise() {
    for seed in 1..=4 {
        let outcome = go(Plan {
            overlap: 3,
            lease_reads: false,
            faults: FaultKind::all().collect(),
            chaos: SHORT,
            ..Plan::draw(seed)
        });
        assert_eq!(outcome.broken, [], "seed {seed}");
    }
}

/// One of the syncs of a node's first start fails, of its own and of those of its replicas. Where it was the log's, the node ends and is started again; all
/// else is tried again by the same process.
#[test]
fn a_sync_that_fails_while_a_cluster_forms_is_got_over() {
    let fail = |world: &mut World| {
        world.machines[0].excuse("Input/output error");
        world.machines[0].disk.fail_sync(world.plan.seed);
    };
    for nth in [4, 8, 12, 16, 20, 24].into_iter().chain(36..=44) {
        let planted = Planted { world: fail, ..Planted::default() };
        let plan = Plan { lease_reads: true, ..Plan::calm(nth, 2, Duration::from_secs(2)) };
        let outcome = run(plan, None, &planted).expect("a run without a trace file needs nothing");
        let unavailable =
            |broken: &&stoa_sim::judges::Broken| broken.judge == "nothing is unavailable in a calm cluster";
        assert_eq!(
            outcome.broken.iter().filter(|broken| !unavailable(broken)).count(),
            0,
            "{nth}: {:?}",
            outcome.broken
        );
    }
}

#[test]
fn judges_that_believe_in_the_oldest_event_see_the_newest_win() {
    let planted = Planted { rule: Rule::Oldest, ..Planted::default() };
    let outcome = run(Plan::calm(3, 1, SHORT), None, &planted).expect("as above");
    assert!(judges(&outcome).contains(&"the newest event time wins"), "{:?}", judges(&outcome));
    assert!(judges(&outcome).contains(&"no acknowledged row lost"), "{:?}", judges(&outcome));
}

#[test]
fn disks_that_lie_about_syncs_lose_acknowledged_rows_and_the_judge_sees_it() {
    let planted = Planted { world: lying_disks, ..Planted::default() };
    let lost = (1..=40).find(|seed| {
        let plan = Plan { faults: vec![FaultKind::PowerLossOfAll], ..Plan::calm(*seed, 1, SHORT) };
        let outcome = run(plan, None, &planted).expect("as above");
        // Nodes that find the lie out stay away, and then it is liveness that is missed. Where they all lost the same,
        // nobody can find it out, and a write is applied over a newer one that was acknowledged, or values are missing.
        let data = [
            "no acknowledged row lost",
            "own writes are read",
            "the newest event time wins",
            "absent features keep their values",
            "strong reads are linearizable",
        ];
        judges(&outcome).iter().any(|judge| data.contains(judge))
    });
    assert!(lost.is_some(), "forty runs with power losses on lying disks, and no judge misses a row");
}

#[test]
fn a_network_that_exchanges_values_is_seen() {
    let planted = Planted { world: altering_network, ..Planted::default() };
    let outcome = run(Plan::calm(5, 1, SHORT), None, &planted).expect("as above");
    assert!(judges(&outcome).contains(&"no half row"), "{:?}", judges(&outcome));
}

#[test]
fn a_panic_in_the_product_breaks_a_promise() {
    fn faint(world: &mut World) {
        world.net.set_tamper(Box::new({
            let mut armed = true;
            move |_, _, bytes| {
                if std::mem::take(&mut armed) {
                    stoa_env::spawn("a task that dies", async { panic!("planted") });
                }
                bytes
            }
        }));
    }
    let planted = Planted { world: faint, ..Planted::default() };
    let outcome = run(Plan::calm(6, 1, SHORT), None, &planted).expect("as above");
    assert_eq!(judges(&outcome), ["nothing panics"]);
}

#[test]
fn a_cluster_whose_nodes_cannot_speak_to_each_other_any_more_breaks_every_promise_of_life() {
    fn mute(world: &mut World) {
        let mut left = 2_000u32;
        world.net.set_tamper(Box::new(move |from, to, bytes| {
            if !(from.starts_with('n') && to.starts_with('n')) {
                return bytes;
            }
            left = left.saturating_sub(1);
            if left > 0 { bytes } else { bytes::Bytes::from_static(b"no frame of ours") }
        }));
    }
    let planted = Planted { world: mute, ..Planted::default() };
    let plan = Plan { least: LEAST, ..Plan::calm(10, 1, SHORT) };
    let judges = judges(&run(plan, None, &planted).expect("as above"));
    for judge in ["liveness", "clients get work done", "nothing is unavailable in a calm cluster"] {
        assert!(judges.contains(&judge), "{judge}: {judges:?}");
    }
}

#[test]
fn a_node_that_ends_for_no_fault_of_the_plan_is_seen() {
    fn fail(world: &mut World) {
        world.machines[0].disk.fail_sync(200);
    }
    let planted = Planted { world: fail, ..Planted::default() };
    let outcome = run(Plan::calm(11, 1, SHORT), None, &planted).expect("as above");
    assert!(judges(&outcome).contains(&"a node goes on"), "{:?}", judges(&outcome));
}

/// A client's reads, their level turned into the local one on the way: a node that serves strong reads as if they were
/// local ones.
fn weaken(bytes: bytes::Bytes) -> bytes::Bytes {
    use stoa_protocol::frame::{decode_frame, encode_frame};
    use stoa_protocol::message::{Kind, decode_request, encode_request};
    use stoa_protocol::read::{ReadLevel, ReadRequest};
    let Ok((header, body)) = decode_frame(&bytes) else { return bytes };
    let Ok((caller, request)) = decode_request::<ReadRequest>(&body) else { return bytes };
    match (header.kind == Kind::Read as u16, request.level) {
        (true, ReadLevel::Linearizable { .. }) => {
            let request = ReadRequest { level: ReadLevel::default(), ..request };
            encode_frame(&header, &encode_request(&caller, &request))
        }
        _ => bytes,
    }
}

/// The answer to a read, and every age in it turned into nothing: a node that thinks that it is up to date.
fn rejuvenate(bytes: bytes::Bytes) -> bytes::Bytes {
    use stoa_protocol::codec::put_list;
    use stoa_protocol::frame::{decode_frame, encode_frame};
    use stoa_protocol::message::{ANSWER, Kind};
    use stoa_protocol::read::{SectionHead, SectionResult};
    use stoa_protocol::row_block::parse_answer;
    let Ok((header, body)) = decode_frame(&bytes) else { return bytes };
    if header.kind != Kind::Read as u16 | ANSWER {
        return bytes;
    }
    let sections = parse_answer(body.clone()).expect("a node's answer").into_iter().map(|section| match section {
        Ok(rows) => SectionResult::Rows(SectionHead { age: Some(Duration::ZERO), stale: false, ..rows.head }),
        Err(error) => SectionResult::Failed(error),
    });
    let sections: Vec<_> = sections.collect();
    // What is said of the sections stands behind their rows, and has as many bytes as before.
    let mut heads = Vec::new();
    put_list(&sections, &mut heads);
    let mut answer = body.to_vec();
    let end = answer.len() - heads.len();
    answer.truncate(end);
    answer.extend_from_slice(&heads);
    encode_frame(&header, &answer)
}

/// The first of twenty seeds with cuts in which a judge sees that messages are changed like that.
fn first_seen_by(judge: &str, world: fn(&mut World)) -> Option<u64> {
    let planted = Planted { world, ..Planted::default() };
    (1..=20).find(|seed| {
        let plan = Plan { faults: vec![FaultKind::CutZone], ..Plan::calm(*seed, 1, SHORT) };
        judges(&run(plan, None, &planted).expect("as above")).contains(&judge)
    })
}

#[test]
fn strong_reads_that_are_served_as_local_ones_are_seen() {
    fn tamper(world: &mut World) {
        world.net.set_tamper(Box::new(|from, _, bytes| if from.starts_with('c') { weaken(bytes) } else { bytes }));
    }
    let seen = first_seen_by("strong reads are linearizable", tamper);
    assert!(seen.is_some(), "twenty runs with cuts, and no judge misses a row");
}

#[test]
fn replicas_that_think_they_are_up_to_date_are_seen() {
    fn tamper(world: &mut World) {
        let own = |from: &str, to: &str| from.starts_with('n') && to.starts_with('c');
        world.net.set_tamper(Box::new(move |from, to, bytes| if own(from, to) { rejuvenate(bytes) } else { bytes }));
    }
    let seen = first_seen_by("no staler than said", tamper);
    assert!(seen.is_some(), "twenty runs with cuts, and no judge misses a row");
}

#[test]
fn every_level_is_read_in_a_calm_cluster_and_nothing_is_refused() {
    let counts = go(Plan::calm(9, 2, SHORT)).counts.levels;
    let all = [counts.local, counts.bounded, counts.read_index, counts.heartbeat, counts.lease];
    assert!(all.iter().all(|rows| *rows > 50), "{counts}");
    assert_eq!(go(Plan { lease_reads: false, ..Plan::calm(9, 2, SHORT) }).counts.levels.lease, 0);
}
