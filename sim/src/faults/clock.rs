//! Clocks: calendars that jump, rates that change within the declared drift.

use std::time::Duration;

use super::process::some_machine;
use super::{FaultKind, Step};
use crate::chance::Chance;
use crate::world::World;

const HOUR_US: i64 = 3_600_000_000;
/// Twice in 5 ms is 200 times a second.
const STROBE: Duration = Duration::from_micros(2_500);

pub fn wall_jump(world: &mut World, _: FaultKind, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    let at = some_machine(world, chance, |_| true)?;
    let by_us = *chance.pick(&[-HOUR_US, HOUR_US]);
    world.machines[at].clock().jump_wall(by_us);
    Some(vec![Step::new(lasts, move |world| world.machines[at].clock().jump_wall(-by_us))])
}

pub fn wall_strobe(world: &mut World, _: FaultKind, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    let at = some_machine(world, chance, |_| true)?;
    let by_us = *chance.pick(&[-HOUR_US, HOUR_US]);
    let rounds = lasts.as_micros() / (2 * STROBE).as_micros();
    let jump = move |by_us: i64| Step::new(STROBE, move |world| world.machines[at].clock().jump_wall(by_us));
    Some((0..rounds).flat_map(|_| [jump(by_us), jump(-by_us)]).collect())
}

pub fn drift(world: &mut World, _: FaultKind, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    let at = some_machine(world, chance, |_| true)?;
    let machine = &world.machines[at];
    let before = machine.clock().rate_ppm();
    let most = machine.drift_ppm_max();
    machine.clock().set_rate_ppm(*chance.pick(&[-most, most]));
    Some(vec![Step::new(lasts, move |world| world.machines[at].clock().set_rate_ppm(before))])
}
