//! Crashes at moments that chance alone hardly finds: at a sync, at a rename, in the middle of a snapshot. A trap is set
//! on a machine, and the operation on its disk that springs it is the one that is never done.

use std::time::Duration;

use super::process::some_machine;
use super::{FaultKind, Step};
use crate::chance::Chance;
use crate::machine::{Crash, Machine, Trap};
use crate::world::World;

/// How many operations after the first one of a snapshot a process may die: a snapshot of a run takes a few dozen.
const OPERATIONS_MAX: u64 = 30;

pub fn at_snapshot(world: &mut World, kind: FaultKind, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    let trap = Trap { operation: "create", on: "snapshots", after: chance.below(OPERATIONS_MAX) };
    set(world, kind, chance, lasts, trap)
}

pub fn at_sync(world: &mut World, kind: FaultKind, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    // The sync itself is not done, or it is and what follows is not.
    let trap = Trap { operation: "sync", on: "", after: chance.below(2) };
    set(world, kind, chance, lasts, trap)
}

pub fn at_rename(world: &mut World, kind: FaultKind, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    let trap = Trap { operation: "rename", on: "", after: chance.below(2) };
    set(world, kind, chance, lasts, trap)
}

fn set(world: &mut World, kind: FaultKind, chance: &Chance, lasts: Duration, trap: Trap) -> Option<Vec<Step>> {
    let at = some_machine(world, chance, |machine| machine.runs() && !machine.is_trapped())?;
    let how = *chance.pick(&[Crash::Process, Crash::Power]);
    world.set_trap(at, kind, trap, how);
    let back = move |world: &mut World| {
        world.machines[at].set_trap(None);
        Machine::start_if_down(&mut world.machines[at]);
    };
    Some(vec![Step::new(lasts, back)])
}

/// How many traps of a kind have sprung.
pub fn sprung(world: &World, kind: FaultKind) -> u64 {
    world.sprung.get(&kind).copied().unwrap_or_default()
}
