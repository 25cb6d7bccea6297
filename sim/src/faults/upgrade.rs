//! Rolling upgrades: nodes begin with a program of the first cluster version, and restart one by one with one that speaks the
//! next. Programs are told apart by what they say they speak, and what is beyond that they do not understand.

use std::time::Duration;

use stoa_raft::root::state::SPOKEN_VERSIONS;

use super::{FaultKind, Step};
use crate::chance::Chance;
use crate::machine::Crash;
use crate::world::World;

/// Between the end of one program and the start of the other.
const DOWN: Duration = Duration::from_millis(200);

/// Restarts all nodes with the next program, in their order; in every second upgrade some are taken back before that. Those
/// are upgraded again before the last node is, so that the cluster cannot be raised while one of them is back.
pub fn upgrade(world: &mut World, _: FaultKind, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    let (low, high) = SPOKEN_VERSIONS;
    if world.machines.iter().all(|machine| machine.speaks() == high) {
        return None;
    }
    let restart = |at: usize, speaks: u32| {
        let down = Step::new(lasts, move |world: &mut World| world.machines[at].crash(Crash::Process));
        let up = Step::new(DOWN, move |world: &mut World| {
            // Another fault may have started the old program again.
            world.machines[at].crash(Crash::Process);
            world.machines[at].set_speaks(speaks);
            world.machines[at].start();
        });
        [down, up]
    };
    let all = world.machines.len();
    let tried = if chance.hits(500_000) { 1 + chance.below(all as u64 - 1) as usize } else { 0 };
    let there_and_back = (0..tried).map(|at| (at, high)).chain((0..tried).map(|at| (at, low)));
    Some(there_and_back.chain((0..all).map(|at| (at, high))).flat_map(|(at, speaks)| restart(at, speaks)).collect())
}

/// What an operator does in the end with an upgrade that was interrupted.
pub fn finish(world: &mut World) {
    for machine in world.machines.iter_mut().filter(|machine| machine.speaks() < SPOKEN_VERSIONS.1) {
        machine.crash(Crash::Process);
        machine.set_speaks(SPOKEN_VERSIONS.1);
        machine.start();
    }
}
