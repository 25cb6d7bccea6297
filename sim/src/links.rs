//! What the links do to messages at this moment: a base that every link has, and rules that faults lay over it and take
//! away again, each with the ends that it means. Pure: chance and rules in, a fate out.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::chance::Chance;
use crate::faults::FaultKind;

/// One way from a zone to a zone within a machine, between machines of one zone, or between zones.
const DELAY_IN_ZONE: (Duration, Duration) = (Duration::from_micros(100), Duration::from_micros(600));
const DELAY_BETWEEN_ZONES: (Duration, Duration) = (Duration::from_micros(400), Duration::from_micros(2_500));

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It arrives after this time.
    Arrives(Duration),
    /// It is lost.
    Lost,
    /// It is lost because the link is cut.
    Cut,
    /// It is lost, and its caller hears after this time that the connection broke.
    Broken(Duration),
}

/// One end of a message: a process by its name (`n1`, `c0`), and its zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End<'a> {
    /// The name.
    pub name: &'a str,
    /// The zone.
    pub zone: &'a str,
}

/// Which ends a rule means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ends {
    /// Every one.
    Any,
    /// All of a zone.
    Zone(String),
    /// One process.
    Process(String),
    /// Every client.
    Clients,
    /// Every node.
    Nodes,
}

impl Ends {
    fn means(&self, end: End<'_>) -> bool {
        match self {
            Self::Any => true,
            Self::Zone(zone) => zone == end.zone,
            Self::Process(name) => name == end.name,
            Self::Clients => end.name.starts_with('c'),
            Self::Nodes => end.name.starts_with('n'),
        }
    }
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing gets through.
    Cut,
    /// Messages are lost, in millionths.
    Loss(u64),
    /// Messages, in millionths, are late by up to a time.
    Late(u64, Duration),
    /// Messages, in millionths, find that their connection breaks: what QUIC makes of a peer that it cannot trust any
    /// more.
    Break(u64),
    /// Messages, in millionths, arrive with bits flipped that the transport has not noticed.
    Flip(u64),
    /// Requests between nodes, in millionths, arrive a second time, up to so much later.
    Twice(u64, Duration),
}

/// What a fault does to the messages between two kinds of ends, one way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The fault that laid it.
    pub of: FaultKind,
    /// Who sends.
    pub from: Ends,
    /// Who is meant to receive.
    pub to: Ends,
    /// What happens.
    pub effect: Effect,
}

impl Rule {
    fn meets(&self, from: End<'_>, to: End<'_>) -> bool {
        self.from.means(from) && self.to.means(to)
    }
}

/// The present state of all links.
#[derive(Debug, Default)]
pub struct Links {
    rules: BTreeMap<u64, Rule>,
    next: u64,
    hits: BTreeMap<FaultKind, u64>,
}

impl Links {
    /// Lays a rule; the number takes it away again.
    pub fn add(&mut self, rule: Rule) -> u64 {
        self.next += 1;
        self.rules.insert(self.next, rule);
        self.next
    }

    /// Takes a rule away. One that is gone already is none.
    pub fn remove(&mut self, rule: u64) {
        self.rules.remove(&rule);
    }

    /// All links are well again.
    pub fn heal(&mut self) {
        self.rules.clear();
    }

    /// Counts a message that a fault has met by other means than a rule.
    pub fn hit(&mut self, kind: FaultKind) {
        self.hits_of(Some(kind));
    }

    /// How many messages a kind of fault has met.
    pub fn hits(&self, kind: FaultKind) -> u64 {
        self.hits.get(&kind).copied().unwrap_or_default()
    }

    /// Decides about one message.
    pub fn fate(&mut self, from: End<'_>, to: End<'_>, chance: &Chance) -> Fate {
        let (min, max) = if from.zone == to.zone { DELAY_IN_ZONE } else { DELAY_BETWEEN_ZONES };
        let mut delay = chance.between(min, max);
        for rule in self.rules.values().filter(|rule| rule.meets(from, to)) {
            let end = match rule.effect {
                Effect::Cut => Some(Fate::Cut),
                Effect::Loss(ppm) if chance.hits(ppm) => Some(Fate::Lost),
                Effect::Late(ppm, up_to) if chance.hits(ppm) => {
                    delay += chance.between(Duration::ZERO, up_to);
                    None
                }
                Effect::Break(ppm) if chance.hits(ppm) => Some(Fate::Broken(delay)),
                _ => continue,
            };
            *self.hits.entry(rule.of).or_default() += 1;
            if let Some(fate) = end {
                return fate;
            }
        }
        Fate::Arrives(delay)
    }

    /// Whether bits of a message that arrives are flipped.
    pub fn flips(&mut self, from: End<'_>, to: End<'_>, chance: &Chance) -> bool {
        let flips = |rule: &&Rule| matches!(rule.effect, Effect::Flip(ppm) if rule.meets(from, to) && chance.hits(ppm));
        let hit = self.rules.values().find(flips).map(|rule| rule.of);
        self.hits_of(hit)
    }

    /// How much later a request between nodes that arrives does so again, if it does.
    pub fn again(&mut self, from: End<'_>, to: End<'_>, chance: &Chance) -> Option<Duration> {
        let twice = |rule: &Rule| match rule.effect {
            Effect::Twice(ppm, up_to) if rule.meets(from, to) && chance.hits(ppm) => Some((rule.of, up_to)),
            _ => None,
        };
        let (of, up_to) = self.rules.values().find_map(twice)?;
        self.hits_of(Some(of));
        Some(chance.between(Duration::ZERO, up_to))
    }

    fn hits_of(&mut self, kind: Option<FaultKind>) -> bool {
        kind.is_some_and(|kind| {
            *self.hits.entry(kind).or_default() += 1;
            true
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_meets_its_own_ends_alone_one_way_and_until_it_is_taken_away() {
        let chance = Chance::new(1, "links");
        let (one, two, client) =
            (End { name: "n1", zone: "a" }, End { name: "n2", zone: "b" }, End { name: "c0", zone: "a" });
        let mut links = Links::default();
        let rule = |from, to| Rule { of: FaultKind::CutOneWay, from, to, effect: Effect::Cut };
        let by_name = links.add(rule(Ends::Process("n1".into()), Ends::Process("n2".into())));
        let by_zone = links.add(rule(Ends::Zone("b".into()), Ends::Clients));
        assert_eq!(links.fate(one, two, &chance), Fate::Cut);
        assert!(matches!(links.fate(two, one, &chance), Fate::Arrives(_)), "the other way is open");
        assert!(matches!(links.fate(client, two, &chance), Fate::Arrives(_)), "of the same zone as n1, and not n1");
        assert_eq!(links.fate(two, client, &chance), Fate::Cut);
        links.remove(by_name);
        links.remove(by_zone);
        assert!(matches!(links.fate(one, two, &chance), Fate::Arrives(_)));
        assert_eq!(links.hits(FaultKind::CutOneWay), 2);
    }
}
