//! Replicas that are replaced, in scripts: what chance finds late.

use std::time::Duration;

use stoa_sim::faults::FaultKind;
use stoa_sim::plan::{Moves, Plan};
use stoa_sim::run::{Outcome, Planted, run};

const SHORT: Duration = Duration::from_secs(10);

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
