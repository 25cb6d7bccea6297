//! Devices that fail, fill, and slow down; what they hold stays what it was. A node may end by itself for some of them,
//! and a supervisor starts it again.

use std::time::Duration;

use super::process::some_machine;
use super::{FaultKind, Step};
use crate::chance::Chance;
use crate::machine::{FULL, Machine};
use crate::world::World;

/// What an operation takes on a device that is slow, over the usual 0.2 to 3 ms of a sync.
const SLOW: [Duration; 3] = [Duration::from_millis(10), Duration::from_millis(100), Duration::from_secs(1)];

// What a node says that ends for each.
const IO_ERROR: &str = "Input/output error";
const HUNG: &str = "did not answer within";

pub fn failed_sync(world: &mut World, _: FaultKind, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    let at = some_machine(world, chance, Machine::runs)?;
    world.machines[at].excuse(IO_ERROR);
    world.machines[at].disk.fail_sync(1 + chance.below(20));
    let heal = move |world: &mut World| {
        world.machines[at].disk.heal_syncs();
        world.machines[at].end_excuse(IO_ERROR);
    };
    Some(vec![Step::new(lasts, heal)])
}

pub fn failed_syncs(world: &World, _: FaultKind) -> u64 {
    world.machines.iter().map(|machine| machine.disk.strikes().failed_syncs).sum()
}

pub fn full(world: &mut World, _: FaultKind, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    let at = some_machine(world, chance, Machine::runs)?;
    world.machines[at].excuse(FULL);
    let disk = &world.machines[at].disk;
    disk.set_capacity(Some(disk.used() + chance.below(64 << 10)));
    let heal = move |world: &mut World| {
        world.machines[at].disk.set_capacity(None);
        world.machines[at].end_excuse(FULL);
    };
    Some(vec![Step::new(lasts, heal)])
}

pub fn full_appends(world: &World, _: FaultKind) -> u64 {
    world.machines.iter().map(|machine| machine.disk.strikes().full).sum()
}

pub fn slow(world: &mut World, _: FaultKind, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    let at = some_machine(world, chance, Machine::is_up)?;
    world.machines[at].disk.set_delay(*chance.pick(&SLOW));
    Some(vec![Step::new(lasts, move |world| world.machines[at].disk.set_delay(Duration::ZERO))])
}

pub fn hung(world: &mut World, _: FaultKind, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    let at = some_machine(world, chance, Machine::is_up)?;
    world.machines[at].excuse(HUNG);
    world.machines[at].disk.set_hung(true);
    let heal = move |world: &mut World| {
        world.machines[at].disk.set_hung(false);
        world.machines[at].end_excuse(HUNG);
    };
    Some(vec![Step::new(lasts, heal)])
}
