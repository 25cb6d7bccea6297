//! The faults of a run, one after the other: each strikes, lasts, and is undone.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::chance::Chance;
use crate::machine::Crash;
use crate::plan::FaultKind;
use crate::world::{World, ZONES, now};

/// How often each kind of fault has struck.
pub type Strikes = BTreeMap<FaultKind, u64>;

/// Lets the plan's time pass with the plan's faults in it. At the end some of their marks may be left: the caller heals.
pub async fn strike(world: &mut World) -> Strikes {
    let chance = Chance::new(world.plan.seed, "faults");
    let mut strikes = Strikes::new();
    let end = now() + world.plan.chaos;
    while now() < end {
        let pause = chance.between(Duration::from_millis(100), world.plan.fault_pause);
        world.pass(pause.min(end - now())).await;
        if now() >= end || world.plan.faults.is_empty() {
            continue;
        }
        let kind = *chance.pick(&world.plan.faults);
        *strikes.entry(kind).or_default() += 1;
        let lasts = chance.between(Duration::from_millis(50), Duration::from_secs(4)).min(end - now());
        world.trace.note(format_args!("fault {kind:?} for {lasts:?}"));
        one(world, kind, lasts, &chance).await;
    }
    strikes
}

async fn one(world: &mut World, kind: FaultKind, lasts: Duration, chance: &Chance) {
    let at = chance.below(world.machines.len() as u64) as usize;
    let zones: Vec<String> = ZONES.map(str::to_owned).to_vec();
    let zone = chance.pick(&zones).clone();
    match kind {
        FaultKind::CrashProcess | FaultKind::PowerLoss => {
            let how = if kind == FaultKind::PowerLoss { Crash::Power } else { Crash::Process };
            world.machines[at].crash(how);
            world.pass(lasts).await;
            world.machines[at].start();
        }
        FaultKind::PowerLossOfAll => {
            world.machines.iter_mut().for_each(|machine| machine.crash(Crash::Power));
            world.pass(lasts).await;
            world.machines.iter_mut().for_each(|machine| machine.start());
        }
        FaultKind::Hold => {
            world.machines[at].hold();
            world.pass(lasts).await;
            world.machines[at].go_on();
        }
        FaultKind::CutZone => {
            world.net.links(|links| links.isolate(&zone, &zones));
            world.pass(lasts).await;
            world.heal_links();
        }
        FaultKind::CutOneWay => {
            let others: Vec<&String> = zones.iter().filter(|other| **other != zone).collect();
            let to = (*chance.pick(&others)).clone();
            world.net.links(|links| {
                links.cut.insert((zone, to));
            });
            world.pass(lasts).await;
            world.heal_links();
        }
        FaultKind::Loss => {
            let loss_ppm = 10_000 + chance.below(290_000);
            world.net.links(|links| links.loss_ppm = loss_ppm);
            world.pass(lasts).await;
            world.heal_links();
        }
        FaultKind::Spikes => {
            let spike_ppm = 10_000 + chance.below(190_000);
            world.net.links(|links| (links.spike_ppm, links.spike) = (spike_ppm, Duration::from_secs(1)));
            world.pass(lasts).await;
            world.heal_links();
        }
    }
}
