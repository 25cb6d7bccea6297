//! Processes and machines: crashes, losses of power, processes that stand still or get little time.

use std::time::Duration;

use super::{FaultKind, Step};
use crate::chance::Chance;
use crate::machine::{Crash, Machine};
use crate::world::World;

/// How often a process in a crash loop starts and dies.
const LOOPS: u32 = 10;
/// A slow process runs for this long at a time.
const SLICE: Duration = Duration::from_millis(2);

pub fn crash(world: &mut World, _: FaultKind, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    end_one(world, chance, lasts, Crash::Process)
}

pub fn power_loss(world: &mut World, _: FaultKind, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    end_one(world, chance, lasts, Crash::Power)
}

fn end_one(world: &mut World, chance: &Chance, lasts: Duration, how: Crash) -> Option<Vec<Step>> {
    let at = some_machine(world, chance, Machine::is_up)?;
    world.machines[at].crash(how);
    Some(vec![Step::new(lasts, move |world| world.machines[at].start_if_down())])
}

pub fn power_loss_of_all(world: &mut World, _: FaultKind, _: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    world.machines.iter_mut().for_each(|machine| machine.crash(Crash::Power));
    let back = |world: &mut World| world.machines.iter_mut().for_each(Machine::start_if_down);
    Some(vec![Step::new(lasts, back)])
}

pub fn zone_down(world: &mut World, _: FaultKind, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    let down = zone_of(world, some_machine(world, chance, Machine::is_up)?);
    let how = *chance.pick(&[Crash::Process, Crash::Power]);
    down.iter().for_each(|at| world.machines[*at].crash(how));
    let back = move |world: &mut World| down.iter().for_each(|at| world.machines[*at].start_if_down());
    Some(vec![Step::new(lasts, back)])
}

pub fn hold(world: &mut World, _: FaultKind, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    let still = some_that_run(world, chance)?;
    still.iter().for_each(|at| world.machines[*at].hold());
    let back = move |world: &mut World| still.iter().for_each(|at| world.machines[*at].go_on());
    Some(vec![Step::new(lasts, back)])
}

pub fn crash_loop(world: &mut World, _: FaultKind, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    let at = some_machine(world, chance, Machine::is_up)?;
    let how = *chance.pick(&[Crash::Process, Crash::Power]);
    world.machines[at].crash(how);
    let round = |_| {
        let down = Step::new(Duration::from_millis(50), move |world: &mut World| world.machines[at].start_if_down());
        let up =
            Step::new(chance.between(Duration::ZERO, lasts), move |world: &mut World| world.machines[at].crash(how));
        [down, up]
    };
    let mut steps: Vec<Step> = (0..LOOPS).flat_map(round).collect();
    steps.push(Step::new(Duration::from_millis(50), move |world| world.machines[at].start_if_down()));
    Some(steps)
}

pub fn rolling_restart(world: &mut World, _: FaultKind, _: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    let restart = |at: usize| {
        let down = Step::new(lasts, move |world: &mut World| world.machines[at].crash(Crash::Process));
        let up = Step::new(Duration::from_millis(200), move |world: &mut World| world.machines[at].start_if_down());
        [down, up]
    };
    Some((0..world.machines.len()).flat_map(restart).collect())
}

pub fn slow_node(world: &mut World, _: FaultKind, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    let at = some_machine(world, chance, Machine::runs)?;
    let wait = *chance.pick(&[Duration::from_millis(18), Duration::from_millis(100), Duration::from_millis(400)]);
    world.machines[at].hold();
    let rounds = (lasts.as_millis() / (wait + SLICE).as_millis()).max(1);
    let round = |_| {
        let run = Step::new(wait, move |world: &mut World| world.machines[at].go_on());
        let stand = Step::new(SLICE, move |world: &mut World| world.machines[at].hold());
        [run, stand]
    };
    let mut steps: Vec<Step> = (0..rounds).flat_map(round).collect();
    steps.push(Step::new(wait, move |world| world.machines[at].go_on()));
    Some(steps)
}

/// The machine and all its clocks stand still, as a virtual machine that is paused.
pub fn suspend(world: &mut World, _: FaultKind, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    let still = some_that_run(world, chance)?;
    for at in &still {
        world.machines[*at].suspend();
        world.machines[*at].clock().stop();
    }
    let back = move |world: &mut World| {
        for at in &still {
            world.machines[*at].clock().go_on();
            world.machines[*at].go_on();
        }
    };
    Some(vec![Step::new(lasts, back)])
}

/// The machine stands still with its monotonic clock; its boot clock and its calendar go on.
pub fn kernel_suspend(world: &mut World, _: FaultKind, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    let still = some_that_run(world, chance)?;
    still.iter().for_each(|at| world.machines[*at].suspend());
    let back = move |world: &mut World| still.iter().for_each(|at| world.machines[*at].go_on());
    Some(vec![Step::new(lasts, back)])
}

/// Machines that stand still together: mostly one that runs, at times all of its zone, or all but it.
fn some_that_run(world: &World, chance: &Chance) -> Option<Vec<usize>> {
    let at = some_machine(world, chance, Machine::runs)?;
    let mut some = match chance.below(8) {
        0..=4 => vec![at],
        5 | 6 => zone_of(world, at),
        _ => (0..world.machines.len()).filter(|other| *other != at).collect(),
    };
    some.retain(|at| world.machines[*at].runs());
    (!some.is_empty()).then_some(some)
}

/// All machines of the zone of one.
fn zone_of(world: &World, at: usize) -> Vec<usize> {
    let zone = world.machines[at].zone();
    (0..world.machines.len()).filter(|other| world.machines[*other].zone() == zone).collect()
}

/// One of the machines that fit.
pub(super) fn some_machine(world: &World, chance: &Chance, fits: impl Fn(&Machine) -> bool) -> Option<usize> {
    let fitting: Vec<usize> = (0..world.machines.len()).filter(|at| fits(&world.machines[*at])).collect();
    (!fitting.is_empty()).then(|| *chance.pick(&fitting))
}
