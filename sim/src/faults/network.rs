//! Links: cuts, losses, delays. Each lays rules over the links and takes them away again.

use std::time::Duration;

use super::{FaultKind, Step};
use crate::chance::Chance;
use crate::links::{Effect, Ends, Rule};
use crate::world::{World, ZONES};

pub fn cut_zone(world: &mut World, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    let zone = *chance.pick(&ZONES);
    let zone_of = |zone: &str| Ends::Zone(zone.to_owned());
    let others = ZONES.iter().filter(|other| **other != zone);
    let both_ways = |other: &&str| {
        [(zone_of(zone), zone_of(other)), (zone_of(other), zone_of(zone))].map(|ways| cut(FaultKind::CutZone, ways))
    };
    Some(lay(world, lasts, others.flat_map(both_ways).collect()))
}

pub fn cut_one_way(world: &mut World, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    let from = *chance.pick(&ZONES);
    let others: Vec<&str> = ZONES.into_iter().filter(|other| *other != from).collect();
    let to = *chance.pick(&others);
    let ways = (Ends::Zone(from.to_owned()), Ends::Zone(to.to_owned()));
    Some(lay(world, lasts, vec![cut(FaultKind::CutOneWay, ways)]))
}

pub fn loss(world: &mut World, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    let effect = Effect::Loss(10_000 + chance.below(290_000));
    Some(lay(world, lasts, vec![everywhere(FaultKind::Loss, effect)]))
}

pub fn spikes(world: &mut World, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    let up_to = *chance.pick(&[Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(5)]);
    let effect = Effect::Late(10_000 + chance.below(190_000), up_to);
    Some(lay(world, lasts, vec![everywhere(FaultKind::Spikes, effect)]))
}

fn cut(of: FaultKind, (from, to): (Ends, Ends)) -> Rule {
    Rule { of, from, to, effect: Effect::Cut }
}

fn everywhere(of: FaultKind, effect: Effect) -> Rule {
    Rule { of, from: Ends::Any, to: Ends::Any, effect }
}

/// Lays rules, and takes them all away again after a time.
fn lay(world: &mut World, lasts: Duration, rules: Vec<Rule>) -> Vec<Step> {
    let laid: Vec<u64> = world.net.links(|links| rules.into_iter().map(|rule| links.add(rule)).collect());
    let away = move |world: &mut World| world.net.links(|links| laid.iter().for_each(|rule| links.remove(*rule)));
    vec![Step::new(lasts, away)]
}
