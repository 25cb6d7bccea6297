//! Processes and machines: crashes, losses of power, processes that stand still.

use std::time::Duration;

use super::Step;
use crate::chance::Chance;
use crate::machine::{Crash, Machine};
use crate::world::World;

pub fn crash(world: &mut World, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    end_one(world, chance, lasts, Crash::Process)
}

pub fn power_loss(world: &mut World, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    end_one(world, chance, lasts, Crash::Power)
}

fn end_one(world: &mut World, chance: &Chance, lasts: Duration, how: Crash) -> Option<Vec<Step>> {
    let at = some_machine(world, chance, Machine::is_up)?;
    world.machines[at].crash(how);
    Some(vec![Step::new(lasts, move |world| world.machines[at].start_if_down())])
}

pub fn power_loss_of_all(world: &mut World, _: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    world.machines.iter_mut().for_each(|machine| machine.crash(Crash::Power));
    let back = |world: &mut World| world.machines.iter_mut().for_each(Machine::start_if_down);
    Some(vec![Step::new(lasts, back)])
}

pub fn hold(world: &mut World, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    let at = some_machine(world, chance, |machine| machine.is_up() && !machine.is_held())?;
    world.machines[at].hold();
    Some(vec![Step::new(lasts, move |world| world.machines[at].go_on())])
}

/// One of the machines that fit.
pub(super) fn some_machine(world: &World, chance: &Chance, fits: impl Fn(&Machine) -> bool) -> Option<usize> {
    let fitting: Vec<usize> = (0..world.machines.len()).filter(|at| fits(&world.machines[*at])).collect();
    (!fitting.is_empty()).then(|| *chance.pick(&fitting))
}
