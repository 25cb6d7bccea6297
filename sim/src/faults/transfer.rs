//! Leaders that hand leadership over: nothing breaks, and writes that are under way meet another leader.

use std::time::Duration;

use super::process::some_machine;
use super::{FaultKind, Step};
use crate::chance::Chance;
use crate::world::World;

/// Asks for a few transfers of one machine's groups, one after the other.
pub fn transfer_leader(world: &mut World, kind: FaultKind, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    let once = |_| {
        let (chance, pause) = (chance.clone(), lasts / 3);
        Step::new(pause, move |world: &mut World| ask(world, kind, &chance))
    };
    ask(world, kind, chance);
    Some((0..3).map(once).collect())
}

fn ask(world: &mut World, kind: FaultKind, chance: &Chance) {
    let leads = |machine: &crate::machine::Machine| {
        machine.runs() && machine.node().is_some_and(|node| node.all_hosted().iter().any(|h| h.replica.leads()))
    };
    let Some(at) = some_machine(world, chance, leads) else { return };
    let Some(node) = world.machines[at].node() else { return };
    let hosted: Vec<_> = node.all_hosted().into_iter().filter(|hosted| hosted.replica.leads()).collect();
    let replica = chance.pick(&hosted).replica.clone();
    let others: Vec<_> = replica.voters().into_iter().filter(|(id, _)| *id != replica.id()).collect();
    if others.is_empty() {
        return;
    }
    let (to, _) = *chance.pick(&others);
    let (trace, asked) = (world.trace.clone(), world.asked.clone());
    world.machines[at].spawn("transfer", async move {
        let ready = replica.transfer_leader(to).await;
        trace.note(format_args!("transfer of {} to {to} {ready}", replica.partition()));
        if ready {
            *asked.lock().unwrap_or_else(|e| e.into_inner()).entry(kind).or_default() += 1;
        }
    });
}

/// How many transfers leaders have begun.
pub fn asked(world: &World, kind: FaultKind) -> u64 {
    world.asked.lock().unwrap_or_else(|e| e.into_inner()).get(&kind).copied().unwrap_or_default()
}
