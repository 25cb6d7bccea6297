//! Replicas that are replaced, in scripts: what chance finds late.

use std::time::Duration;

use stoa_protocol::message::{AbortMove, ReplaceReplica};
use stoa_protocol::{ErrorCode, NodeId, PartitionId, ReplicaId};
use stoa_sim::faults::FaultKind;
use stoa_sim::links::{Effect, Ends, Rule};
use stoa_sim::machine::Crash;
use stoa_sim::plan::{Moves, Plan};
use stoa_sim::revive::LIVENESS_LIMIT;
use stoa_sim::run::{Outcome, Planted, run};
use stoa_sim::trace::Trace;
use stoa_sim::world::{SimClient, World, now};
use tokio::runtime::{Builder, RngSeed};

const SHORT: Duration = Duration::from_secs(10);
const CALL: Duration = Duration::from_secs(5);
const MOMENT: Duration = Duration::from_millis(1);

fn go(plan: Plan) -> Outcome {
    run(plan, None, &Planted::default()).expect("a run without a trace file needs nothing")
}

#[test]
fn replicas_move_in_a_calm_cluster_and_nothing_is_missed() {
    let outcome = go(Plan { nodes: 6, moves: Moves::InPlaceToo, ..Plan::calm(11, 3, SHORT) });
    assert_eq!(outcome.broken, []);
    assert!(outcome.moves.begun >= 3, "{:?}", outcome.moves);
}

#[test]
fn replicas_move_while_everything_crashes() {
    let faults = vec![FaultKind::CrashProcess, FaultKind::PowerLoss, FaultKind::PowerLossOfAll, FaultKind::CutZone];
    let mut begun = 0;
    for seed in 1..=4 {
        let moves = if seed % 2 == 0 { Moves::Between } else { Moves::InPlaceToo };
        let outcome = go(Plan { nodes: 6, faults: faults.clone(), moves, chaos: SHORT, ..Plan::draw(seed) });
        assert_eq!(outcome.broken, [], "seed {seed}");
        begun += outcome.moves.begun;
    }
    assert!(begun >= 4, "{begun}");
}

#[test]
fn a_machine_that_loses_its_disk_is_built_anew_in_time() {
    for seed in 1..=4 {
        let plan = Plan { faults: vec![FaultKind::LostDisk], moves: Moves::None, chaos: SHORT, ..Plan::draw(seed) };
        let outcome = go(plan);
        assert_eq!(outcome.broken, [], "seed {seed}");
        let moves = outcome.moves;
        assert!(moves.lost == 1 && moves.given_up == 1 && outcome.alive.is_some(), "seed {seed}: {moves:?}");
    }
}

/// A formed cluster of six nodes and one partition, without faults, and an administrator's client.
struct Stage {
    world: World,
    client: SimClient,
    partition: PartitionId,
}

/// Plays a script on a stage of its own.
fn play<F: Future<Output = ()>>(seed: u64, script: impl FnOnce(Stage) -> F) {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .rng_seed(RngSeed::from_bytes(&seed.to_le_bytes()))
        .build()
        .expect("a runtime without I/O needs nothing");
    runtime.block_on(async {
        let plan = Plan { nodes: 6, ..Plan::calm(seed, 1, SHORT) };
        let trace = Trace::new(now(), None).expect("a trace without a file needs nothing");
        let mut world = World::new(plan, trace, now());
        world.machines.iter_mut().for_each(|machine| machine.start());
        let client = loop {
            match world.client(0).await {
                Ok(client) => break client,
                Err(_) => world.pass(Duration::from_millis(50)).await,
            }
        };
        let partition = client.map().sets[0].partitions[0].id;
        let mut stage = Stage { world, client, partition };
        stage.until("the partition is whole", Stage::is_whole).await;
        script(stage).await;
    });
}

impl Stage {
    fn is_whole(&self) -> bool {
        self.world.moving().is_none() && self.world.unequal().is_none()
    }

    /// Lets time pass until it holds, as long as liveness allows; then nothing may have been broken.
    async fn until(&mut self, what: &str, mut holds: impl FnMut(&Stage) -> bool) {
        let end = now() + LIVENESS_LIMIT;
        while !holds(self) {
            let why = (self.world.moving(), self.world.unequal());
            assert!(now() < end, "{what}: not within {LIVENESS_LIMIT:?}: {why:?}");
            tokio::time::sleep(MOMENT).await;
        }
        self.world.compare();
        self.world.judge_ends();
        assert_eq!(self.world.broken, []);
        assert_eq!(self.world.observer.take_broken(), []);
    }

    /// The places of the machines whose node hosts the partition, with the replicas there.
    fn hosts(&self) -> Vec<(usize, ReplicaId)> {
        let of = |at: usize| {
            let hosted = self.world.machines[at].node()?.hosted(self.partition)?;
            Some((at, hosted.replica.id()))
        };
        (0..self.world.machines.len()).filter_map(of).collect()
    }

    fn leader(&self) -> Option<(usize, ReplicaId)> {
        let leads = |at: usize| {
            self.world.machines[at].node().and_then(|n| n.hosted(self.partition)).is_some_and(|h| h.replica.leads())
        };
        self.hosts().into_iter().find(|(at, _)| leads(*at))
    }

    /// The other machine of the zone.
    fn partner(&self, at: usize) -> usize {
        (at + 3) % 6
    }

    fn node(&self, at: usize) -> NodeId {
        NodeId(self.world.machines[at].id())
    }

    fn replacement(&self, (_, replica): (usize, ReplicaId), to: usize) -> ReplaceReplica {
        ReplaceReplica { partition: self.partition, replica, to: self.node(to) }
    }

    /// Whether the node at a place has a joint configuration of the partition.
    fn is_joint(&self, at: usize) -> bool {
        let hosted = self.world.machines[at].node().and_then(|node| node.hosted(self.partition));
        hosted.is_some_and(|hosted| hosted.replica.members().voters.len() > 1)
    }

    fn follower(&self) -> (usize, ReplicaId) {
        let leader = self.leader().expect("the partition is whole");
        self.hosts().into_iter().find(|host| *host != leader).expect("the partition is whole")
    }
}

#[test]
fn a_leader_that_dies_between_joint_and_final_leaves_no_joint_configuration() {
    for (seed, how) in [(1, Crash::Process), (2, Crash::Power), (3, Crash::Process), (4, Crash::Power)] {
        play(seed, async |mut stage| {
            let (leader, follower) = (stage.leader().unwrap(), stage.follower());
            let to = stage.partner(follower.0);
            stage.client.replace_replica(stage.replacement(follower, to), CALL).await.unwrap();
            stage.until("the leader's configuration is joint", |stage| stage.is_joint(leader.0)).await;
            stage.world.machines[leader.0].crash(how);
            stage
                .until("another leader has done the rest", |stage| {
                    let joint = (0..6).any(|at| stage.is_joint(at));
                    let placed = stage.hosts().iter().any(|(at, _)| *at == to);
                    !joint
                        && placed
                        && stage.leader().is_some_and(|now| {
                            now != leader && stage.world.machines[now.0].node().unwrap().state().moves.is_empty()
                        })
                })
                .await;
            stage.world.heal();
            stage.until("all is whole again", Stage::is_whole).await;
            assert!(stage.hosts().iter().all(|(at, _)| *at != follower.0));
        });
    }
}

#[test]
fn a_move_to_a_dead_node_waits_is_given_up_and_leaves_nothing() {
    play(5, async |mut stage| {
        let follower = stage.follower();
        let to = stage.partner(follower.0);
        stage.world.machines[to].crash(Crash::Process);
        let asked = stage.replacement(follower, to);
        let moved = stage.client.replace_replica(asked, CALL).await.unwrap().moves[0];
        let learners = |stage: &Stage| {
            let leader = stage.leader().map(|(at, _)| stage.world.machines[at].node().unwrap());
            leader.and_then(|node| node.hosted(stage.partition)).map(|h| h.replica.members().learners.len())
        };
        stage.until("it is a learner", |stage| learners(stage) == Some(1)).await;
        // Another one is refused while this one waits.
        let (leader, _) = stage.leader().unwrap();
        let other = stage.replacement(stage.leader().unwrap(), stage.partner(leader));
        let refused = stage.client.replace_replica(other, CALL).await.unwrap_err();
        assert_eq!(code(&refused), Some(ErrorCode::MoveUnderWay));
        let abort = AbortMove { partition: stage.partition, replica: moved.to.id };
        stage.client.abort_move(abort, CALL).await.unwrap();
        stage.until("nobody learns", |stage| learners(stage) == Some(0)).await;
        stage.world.heal();
        stage.until("all is as it was", Stage::is_whole).await;
        assert!(stage.hosts().contains(&follower));
    });
}

fn code(error: &stoa_client::AdminError) -> Option<ErrorCode> {
    match error {
        stoa_client::AdminError::Rejected { error, .. } => error.refusal().map(|body| body.code),
        _ => None,
    }
}

#[test]
fn a_new_voter_that_dies_while_the_voters_change_holds_nothing_up() {
    play(6, async |mut stage| {
        let (leader, follower) = (stage.leader().unwrap(), stage.follower());
        let to = stage.partner(follower.0);
        stage.client.replace_replica(stage.replacement(follower, to), CALL).await.unwrap();
        stage.until("the configuration is joint", |stage| stage.is_joint(leader.0)).await;
        stage.world.machines[to].crash(Crash::Power);
        stage
            .until("the change is done without it", |stage| {
                !stage.is_joint(leader.0) && stage.world.machines[leader.0].node().unwrap().state().moves.is_empty()
            })
            .await;
        stage.world.heal();
        stage.until("all is whole again", Stage::is_whole).await;
        assert!(stage.hosts().iter().any(|(at, _)| *at == to));
    });
}

#[test]
fn the_leaders_own_replica_is_replaced_on_another_node_and_on_its_own() {
    for (seed, in_place) in [(7, false), (8, true)] {
        play(seed, async |mut stage| {
            let leader = stage.leader().unwrap();
            let to = if in_place { leader.0 } else { stage.partner(leader.0) };
            stage.client.replace_replica(stage.replacement(leader, to), CALL).await.unwrap();
            stage.until("it has another replica", |stage| stage.is_whole() && !stage.hosts().contains(&leader)).await;
            assert!(stage.hosts().iter().any(|(at, _)| *at == to));
            assert!(stage.leader().is_some());
        });
    }
}

#[test]
fn of_two_requests_at_once_one_is_taken() {
    play(9, async |mut stage| {
        let hosts = stage.hosts();
        let asked: Vec<_> = hosts.iter().map(|host| stage.replacement(*host, stage.partner(host.0))).collect();
        let (one, two) =
            tokio::join!(stage.client.replace_replica(asked[0], CALL), stage.client.replace_replica(asked[1], CALL));
        let refused: Vec<_> = [&one, &two].into_iter().filter_map(|answer| answer.as_ref().err()).map(code).collect();
        assert_eq!(refused, [Some(ErrorCode::MoveUnderWay)], "{one:?} {two:?}");
        // The same request again is the same move.
        let taken = if one.is_ok() { asked[0] } else { asked[1] };
        let first = one.or(two).unwrap();
        if let Ok(again) = stage.client.replace_replica(taken, CALL).await {
            assert_eq!(again.moves[0].to, first.moves[0].to);
        }
        stage.until("all is whole again", Stage::is_whole).await;
        let wrong_zone = stage.hosts()[0];
        let asked = stage.replacement(wrong_zone, (wrong_zone.0 + 1) % 6);
        let refused = stage.client.replace_replica(asked, CALL).await.unwrap_err();
        assert_eq!(code(&refused), Some(ErrorCode::WrongZone));
    });
}

#[test]
fn a_replica_that_was_replaced_while_it_was_cut_off_disturbs_nobody_and_serves_nothing_after_a_restart() {
    play(10, async |mut stage| {
        let (leader, follower) = (stage.leader().unwrap(), stage.follower());
        let to = stage.partner(follower.0);
        let zone = stage.world.machines[follower.0].zone().to_owned();
        // Its partner lies in the same zone, so the machine alone is stopped, and comes back on what it had.
        stage.world.machines[follower.0].crash(Crash::Power);
        stage.client.replace_replica(stage.replacement(follower, to), CALL).await.unwrap();
        stage
            .until("it is replaced", |stage| {
                stage.world.machines[leader.0].node().unwrap().state().moves.is_empty()
                    && stage.hosts().iter().any(|(at, _)| *at == to)
            })
            .await;
        let term = |stage: &Stage| {
            stage.world.machines[leader.0].node().unwrap().hosted(stage.partition).unwrap().replica.status().term
        };
        let before = term(&stage);
        // Only its own zone hears it at first: it cannot learn that it was replaced but from its partner.
        for other in stoa_sim::world::ZONES.into_iter().filter(|other| *other != zone) {
            let ends = [zone.clone(), other.to_owned()].map(Ends::Zone);
            for (from, to) in [(0, 1), (1, 0)] {
                let (from, to) = (ends[from].clone(), ends[to].clone());
                let rule = Rule { of: FaultKind::CutZone, from, to, effect: Effect::Cut };
                stage.world.net.links(|links| links.add(rule));
            }
        }
        stage.world.machines[follower.0].start_if_down();
        let end = now() + Duration::from_secs(5);
        while now() < end {
            let node = stage.world.machines[follower.0].node();
            if let Some(hosted) = node.and_then(|node| node.hosted(stage.partition)) {
                assert!(!hosted.replica.is_caught_up(), "it serves, and is no member");
                assert!(!hosted.replica.leads());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stage.world.heal();
        stage
            .until("it has learnt of it and gone", |stage| {
                stage.is_whole() && stage.hosts().iter().all(|(at, _)| *at != follower.0)
            })
            .await;
        assert_eq!(term(&stage), before, "nobody campaigned in its favour");
        let left = stage.world.machines[leader.0].node().unwrap();
        assert!(left.hosted(stage.partition).unwrap().replica.leads());
    });
}
