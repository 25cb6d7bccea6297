//! What the links between zones do to messages at this moment. Pure: chance and state in, a fate out.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::chance::Chance;

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
}

/// The present state of all links. Places are zones; what is cut or slow is so between zones, one way.
#[derive(Debug, Default)]
pub struct Links {
    /// Ways from a zone to a zone that carry nothing.
    pub cut: BTreeSet<(String, String)>,
    /// Messages lost on every link, in millionths.
    pub loss_ppm: u64,
    /// Requests that arrive twice, in millionths.
    pub duplicate_ppm: u64,
    /// Messages that are late by up to `spike`, in millionths.
    pub spike_ppm: u64,
    /// How late, at the most.
    pub spike: Duration,
}

impl Links {
    /// Decides about one message.
    pub fn fate(&self, from: &str, to: &str, chance: &Chance) -> Fate {
        if !self.cut.is_empty() && self.cut.contains(&(from.to_owned(), to.to_owned())) {
            return Fate::Cut;
        }
        if self.loss_ppm > 0 && chance.hits(self.loss_ppm) {
            return Fate::Lost;
        }
        let (min, max) = if from == to { DELAY_IN_ZONE } else { DELAY_BETWEEN_ZONES };
        let mut delay = chance.between(min, max);
        if self.spike_ppm > 0 && chance.hits(self.spike_ppm) {
            delay += chance.between(Duration::ZERO, self.spike);
        }
        Fate::Arrives(delay)
    }

    /// Cuts a zone off from all others, both ways.
    pub fn isolate(&mut self, zone: &str, zones: &[String]) {
        for other in zones.iter().filter(|other| *other != zone) {
            self.cut.insert((zone.to_owned(), other.clone()));
            self.cut.insert((other.clone(), zone.to_owned()));
        }
    }

    /// All links are well again.
    pub fn heal(&mut self) {
        *self = Self::default();
    }
}
