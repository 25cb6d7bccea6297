//! Links: cuts, losses, delays, copies, damage. Each lays rules over the links and takes them away again.

use std::time::Duration;

use super::process::some_machine;
use super::{FaultKind, Step};
use crate::chance::Chance;
use crate::links::{Effect, Ends, Rule};
use crate::machine::Machine;
use crate::world::{World, ZONES};

/// Half the period of a link that flaps.
const FLAP: Duration = Duration::from_millis(100);
/// How late messages are that overtake each other, at the most.
const OVERTAKE: Duration = Duration::from_millis(50);
const REPLAYED_MAX: u64 = 40;

/// How many messages a kind has met.
pub fn hits(world: &World, kind: FaultKind) -> u64 {
    world.net.links(|links| links.hits(kind))
}

pub fn cut_zone(world: &mut World, kind: FaultKind, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    let zone = *chance.pick(&ZONES);
    let others = ZONES.into_iter().filter(|other| *other != zone);
    let rules = others.flat_map(|other| both_ways(kind, &zone_of(zone), &zone_of(other)));
    Some(lay(world, lasts, rules.collect()))
}

pub fn cut_one_way(world: &mut World, kind: FaultKind, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    let from = *chance.pick(&ZONES);
    let others: Vec<&str> = ZONES.into_iter().filter(|other| *other != from).collect();
    let to = *chance.pick(&others);
    Some(lay(world, lasts, vec![cut(kind, zone_of(from), zone_of(to))]))
}

pub fn deaf_node(world: &mut World, kind: FaultKind, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    let at = leader(world, chance).or_else(|| some_machine(world, chance, Machine::runs))?;
    let node = process(world, at);
    Some(lay(world, lasts, vec![cut(kind, Ends::Any, node)]))
}

pub fn cut_pair(world: &mut World, kind: FaultKind, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    let (one, other) = pair(world, chance);
    Some(lay(world, lasts, both_ways(kind, &one, &other).to_vec()))
}

pub fn bridge(world: &mut World, kind: FaultKind, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    let mut nodes = shuffled((0..world.machines.len()).collect(), chance);
    // The node that stays connected to both halves.
    nodes.pop();
    let (left, right) = nodes.split_at(nodes.len() / 2);
    let links: Vec<(usize, usize)> =
        left.iter().flat_map(|one| right.iter().map(move |other| (*one, *other))).collect();
    let cut_at_once = links.into_iter().map(|link| lay_link(world, kind, link)).collect();
    Some(heal_one_by_one(shuffled(cut_at_once, chance), lasts))
}

pub fn swizzle(world: &mut World, kind: FaultKind, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    let count = world.machines.len();
    let all: Vec<(usize, usize)> = (0..count).flat_map(|one| (0..one).map(move |other| (one, other))).collect();
    let chosen: Vec<_> = all.into_iter().filter(|_| chance.hits(600_000)).collect();
    let pause = lasts / (2 * chosen.len() as u32 + 1);
    // Rules are numbered when they are laid: each step takes away what an earlier one has laid.
    let laid = std::rc::Rc::new(std::cell::RefCell::new(std::collections::BTreeMap::new()));
    let cut = shuffled(chosen.clone(), chance).into_iter().map(|link| {
        let laid = laid.clone();
        Step::new(pause, move |world: &mut World| drop(laid.borrow_mut().insert(link, lay_link(world, kind, link))))
    });
    let heal = shuffled(chosen, chance).into_iter().map(|link| {
        let laid = laid.clone();
        Step::new(pause, move |world: &mut World| {
            take_away(world, laid.borrow_mut().remove(&link).expect("every link was cut before any is healed"));
        })
    });
    Some(cut.chain(heal).collect())
}

pub fn flapping(world: &mut World, kind: FaultKind, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    let (one, other) = pair(world, chance);
    let rounds = (lasts.as_millis() / (2 * FLAP).as_millis()).max(1);
    let round = |_| {
        let rules = both_ways(kind, &one, &other).to_vec();
        let laid = std::rc::Rc::new(std::cell::Cell::new([0; 2]));
        let lifted = laid.clone();
        let away = Step::new(FLAP, move |world: &mut World| {
            let numbers = world.net.links(|links| rules.iter().map(|rule| links.add(rule.clone())).collect::<Vec<_>>());
            laid.set([numbers[0], numbers[1]]);
        });
        let back = Step::new(FLAP, move |world: &mut World| take_away(world, lifted.get().to_vec()));
        [away, back]
    };
    Some((0..rounds).flat_map(round).collect())
}

pub fn clients_off_leader(world: &mut World, kind: FaultKind, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    let node = process(world, leader(world, chance)?);
    Some(lay(world, lasts, both_ways(kind, &node, &Ends::Clients).to_vec()))
}

pub fn loss(world: &mut World, kind: FaultKind, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    Some(lay(world, lasts, everywhere(kind, Effect::Loss(10_000 + chance.below(290_000)))))
}

pub fn spikes(world: &mut World, kind: FaultKind, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    let up_to = *chance.pick(&[Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(5)]);
    Some(lay(world, lasts, everywhere(kind, Effect::Late(10_000 + chance.below(190_000), up_to))))
}

pub fn reorder(world: &mut World, kind: FaultKind, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    Some(lay(world, lasts, everywhere(kind, Effect::Late(100_000 + chance.below(900_000), OVERTAKE))))
}

pub fn duplicates(world: &mut World, kind: FaultKind, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    let effect = Effect::Twice(1_000 + chance.below(500_000), Duration::from_millis(500));
    Some(lay(world, lasts, everywhere(kind, effect)))
}

pub fn replay(world: &mut World, kind: FaultKind, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    let replayed = world.net.replay(1 + chance.below(REPLAYED_MAX), lasts);
    (replayed > 0).then(|| {
        world.net.links(|links| links.hit(kind));
        vec![Step::new(lasts, |_| {})]
    })
}

pub fn flipped_bits(world: &mut World, kind: FaultKind, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    Some(lay(world, lasts, everywhere(kind, Effect::Flip(1_000 + chance.below(100_000)))))
}

pub fn broken_connections(world: &mut World, kind: FaultKind, chance: &Chance, lasts: Duration) -> Option<Vec<Step>> {
    Some(lay(world, lasts, everywhere(kind, Effect::Break(1_000 + chance.below(100_000)))))
}

fn zone_of(zone: &str) -> Ends {
    Ends::Zone(zone.to_owned())
}

fn process(world: &World, at: usize) -> Ends {
    Ends::Process(format!("n{}", world.machines[at].id()))
}

/// A machine that leads a partition, if any does.
fn leader(world: &World, chance: &Chance) -> Option<usize> {
    some_machine(world, chance, |machine| {
        machine.runs() && machine.node().is_some_and(|node| node.all_hosted().iter().any(|h| h.replica.leads()))
    })
}

/// Two nodes.
fn pair(world: &World, chance: &Chance) -> (Ends, Ends) {
    let nodes = shuffled((0..world.machines.len()).collect(), chance);
    (process(world, nodes[0]), process(world, nodes[1]))
}

fn shuffled<T>(mut all: Vec<T>, chance: &Chance) -> Vec<T> {
    for place in (1..all.len()).rev() {
        all.swap(place, chance.below(place as u64 + 1) as usize);
    }
    all
}

fn cut(of: FaultKind, from: Ends, to: Ends) -> Rule {
    Rule { of, from, to, effect: Effect::Cut }
}

fn both_ways(of: FaultKind, one: &Ends, other: &Ends) -> [Rule; 2] {
    [cut(of, one.clone(), other.clone()), cut(of, other.clone(), one.clone())]
}

fn everywhere(of: FaultKind, effect: Effect) -> Vec<Rule> {
    vec![Rule { of, from: Ends::Any, to: Ends::Any, effect }]
}

/// Lays rules, and takes them all away again after a time.
fn lay(world: &mut World, lasts: Duration, rules: Vec<Rule>) -> Vec<Step> {
    let laid: Vec<u64> = world.net.links(|links| rules.into_iter().map(|rule| links.add(rule)).collect());
    vec![Step::new(lasts, move |world| take_away(world, laid))]
}

/// Cuts one link, both ways.
fn lay_link(world: &World, kind: FaultKind, (one, other): (usize, usize)) -> Vec<u64> {
    let rules = both_ways(kind, &process(world, one), &process(world, other));
    world.net.links(|links| rules.into_iter().map(|rule| links.add(rule)).collect())
}

fn take_away(world: &World, laid: Vec<u64>) {
    world.net.links(|links| laid.iter().for_each(|rule| links.remove(*rule)));
}

/// All links stay cut for half the time, and heal one after the other in the other half.
fn heal_one_by_one(links: Vec<Vec<u64>>, lasts: Duration) -> Vec<Step> {
    let (first, then) = (lasts / 2, lasts / 2 / links.len().max(1) as u32);
    let heal = |(place, laid): (usize, Vec<u64>)| {
        Step::new(if place == 0 { first } else { then }, move |world: &mut World| take_away(world, laid))
    };
    links.into_iter().enumerate().map(heal).collect()
}
