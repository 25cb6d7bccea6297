//! When faults strike: each kind of a plan has a timeline of its own, with its own pauses out of its own stream of
//! chance, so that several are active at once, and a kind that is left out of a plan leaves the others as they were.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::{FaultKind, Step};
use crate::chance::Chance;
use crate::world::{World, now};

/// How often each kind of fault has struck.
pub type Strikes = BTreeMap<FaultKind, u64>;

/// A kind on its way through time.
struct Line {
    kind: FaultKind,
    chance: Chance,
    /// The longest pause between two of its strikes.
    pause: Duration,
    /// When it does what comes next.
    at: Instant,
    /// The steps that are left of a strike; none between strikes.
    steps: VecDeque<Step>,
    /// What had come of the kind when it struck last, where it lies in wait.
    effect: Option<u64>,
}

/// A run whose clients have not done enough goes on for so long at a time, and for so many times its planned time in all.
const LONGER: Duration = Duration::from_secs(5);
const LONGEST: u32 = 4;
/// Then nothing strikes any more, and clients have so long to do what is left.
const REST: Duration = Duration::from_secs(60);

/// Lets the plan's time pass with the plan's faults in it, and more of it until clients have done `enough`; if that takes
/// too long, some time without new faults. At the end some of their marks may be left: the caller heals.
pub async fn strike(world: &mut World, enough: &dyn Fn() -> bool) -> Strikes {
    let latest = now() + world.plan.chaos * LONGEST;
    let mut end = now() + world.plan.chaos;
    let mut strikes = Strikes::new();
    if world.plan.faults.contains(&FaultKind::Replay) {
        world.net.keep_requests();
    }
    let mut lines: Vec<Line> = world.plan.faults.iter().map(|kind| Line::new(*kind, world)).collect();
    // Of two that are due at once the first in the plan goes first.
    loop {
        let next = lines.iter().map(|line| line.at).min().filter(|at| *at < end).unwrap_or(end);
        world.pass(next.saturating_duration_since(now())).await;
        if next == end {
            if enough() || end >= latest + REST {
                break;
            }
            end += LONGER;
            continue;
        }
        let active = lines.iter().filter(|line| !line.steps.is_empty()).count();
        let line = lines.iter_mut().find(|line| line.at == next).expect("it was found above");
        match line.steps.is_empty() {
            true if active < world.plan.overlap && now() < latest => line.begin(world, &mut strikes),
            true => line.rest(),
            false => line.step(world, &mut strikes),
        }
    }
    lines.iter_mut().for_each(|line| line.reckon(world, &mut strikes));
    strikes
}

impl Line {
    fn new(kind: FaultKind, world: &World) -> Self {
        let chance = Chance::new(world.plan.seed, &format!("fault {kind:?}"));
        let pause = world.plan.pause_of(kind);
        let at = now() + chance.between(Duration::from_millis(100), pause);
        Self { kind, chance, pause, at, steps: VecDeque::new(), effect: None }
    }

    /// Strikes, if there is something to strike.
    fn begin(&mut self, world: &mut World, strikes: &mut Strikes) {
        let entry = self.kind.entry();
        let (min, max) = entry.lasts_ms;
        let lasts = self.chance.between(Duration::from_millis(min), Duration::from_millis(max));
        world.trace.note(format_args!("fault {:?} for {lasts:?}", self.kind));
        self.effect = entry.effect.map(|effect| effect(world, self.kind));
        match (entry.strike)(world, self.kind, &self.chance, lasts) {
            Some(steps) => {
                if self.effect.is_none() {
                    *strikes.entry(self.kind).or_default() += 1;
                }
                self.steps = steps.into();
                self.aim(world, strikes);
            }
            None => {
                world.trace.note(format_args!("fault {:?} finds nothing to strike", self.kind));
                self.effect = None;
                self.rest();
            }
        }
    }

    fn step(&mut self, world: &mut World, strikes: &mut Strikes) {
        let step = self.steps.pop_front().expect("asked before");
        world.trace.note(format_args!("fault {:?} goes on, {} steps left", self.kind, self.steps.len()));
        (step.act)(world);
        self.aim(world, strikes);
    }

    fn aim(&mut self, world: &World, strikes: &mut Strikes) {
        match self.steps.front() {
            Some(step) => self.at = now() + step.after,
            None => {
                self.reckon(world, strikes);
                self.rest();
            }
        }
    }

    /// Counts a strike of a kind that lay in wait, if something came of it.
    fn reckon(&mut self, world: &World, strikes: &mut Strikes) {
        let (Some(before), Some(effect)) = (self.effect.take(), self.kind.entry().effect) else { return };
        if effect(world, self.kind) > before {
            *strikes.entry(self.kind).or_default() += 1;
        }
    }

    fn rest(&mut self) {
        self.at = now() + self.chance.between(Duration::from_millis(100), self.pause);
    }
}
