//! A machine loses its disk, and comes back with an empty one. Once in a run, and in no run in which replicas give their
//! data up for other reasons: what was acknowledged lies on two disks at the least, and promises hold for the loss of one.

use std::time::Duration;

use super::process::some_machine;
use super::{FaultKind, Step};
use crate::chance::Chance;
use crate::machine::{Crash, Machine};
use crate::plan::Moves;
use crate::world::World;

pub fn lose(world: &mut World, _: FaultKind, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    let at = may_damage(world, chance)?;
    let incarnation = world.machines[at].node()?.info().incarnation;
    world.machines[at].set_damage("all of its disk is gone".into(), incarnation);
    take_disk(world, at);
    Some(vec![Step::new(lasts, move |world| world.machines[at].start_if_down())])
}

/// A machine whose disk may be damaged or lost: none has been in this run.
pub(super) fn may_damage(world: &World, chance: &Chance) -> Option<usize> {
    let damaged = world.desk.has_lost() || world.machines.iter().any(|machine| machine.damage().is_some());
    if world.plan.moves == Moves::InPlaceToo || damaged {
        return None;
    }
    // A node that nobody knows yet has nothing to lose.
    let known = |machine: &Machine| {
        machine.runs() && machine.node().is_some_and(|n| n.state().map.node(n.info().id) == Some(n.info()))
    };
    some_machine(world, chance, known)
}

/// The machine stands without power and with an empty disk, and the operator knows it.
fn take_disk(world: &mut World, at: usize) {
    let Some(incarnation) = world.machines[at].damage().map(|damage| damage.incarnation) else { return };
    world.machines[at].crash(Crash::Power);
    world.machines[at].empty();
    world.observer.watch(world.machines[at].id(), world.machines[at].disk.clone());
    world.desk.lose(world.machines[at].id(), incarnation);
}

/// What an operator does with a machine whose disk is damaged: it gets an empty one, and its replicas are built anew.
pub fn rebuild(world: &mut World, at: usize) {
    if world.desk.has_lost() {
        return;
    }
    take_disk(world, at);
    world.machines[at].start_if_down();
}
