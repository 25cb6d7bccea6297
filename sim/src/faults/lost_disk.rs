//! A machine loses its disk, and comes back with an empty one. Once in a run, and in no run in which replicas give their
//! data up for other reasons: what was acknowledged lies on two disks at the least, and promises hold for the loss of one.

use std::time::Duration;

use super::Step;
use super::process::some_machine;
use crate::chance::Chance;
use crate::machine::{Crash, Machine};
use crate::plan::Moves;
use crate::world::World;

pub fn lose(world: &mut World, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    if world.plan.moves == Moves::InPlaceToo || world.desk.has_lost() {
        return None;
    }
    // A node that nobody knows yet has nothing to lose.
    let known = |machine: &Machine| {
        machine.node().is_some_and(|node| node.state().map.node(node.info().id) == Some(node.info()))
    };
    let at = some_machine(world, chance, known)?;
    let machine = &mut world.machines[at];
    let incarnation = machine.node()?.info().incarnation;
    machine.crash(Crash::Power);
    machine.empty();
    world.observer.watch(machine.id(), machine.disk.clone());
    world.desk.lose(machine.id(), incarnation);
    Some(vec![Step::new(lasts, move |world| world.machines[at].start_if_down())])
}
