//! Which address is in which zone, and how far zones are apart.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// How long messages between zones take; those within a zone take what the machine takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZonePlan {
    /// One way, in microseconds.
    pub one_way_us: u64,
    /// At most so much more or less, all alike, in microseconds; no more than `one_way_us`.
    pub jitter_us: u64,
    /// The zone of each node's address.
    pub zones: BTreeMap<SocketAddr, String>,
}

impl ZonePlan {
    /// Zones that are not apart.
    pub fn together() -> Self {
        Self { one_way_us: 0, jitter_us: 0, zones: BTreeMap::new() }
    }

    /// Reads a plan that [`save`](Self::save) has written.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("{}: no plan of zones", path.display()))?;
        let plan: Self = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        anyhow::ensure!(
            plan.jitter_us <= plan.one_way_us,
            "{}: a jitter of {} us is more than the way of {} us",
            path.display(),
            plan.jitter_us,
            plan.one_way_us
        );
        Ok(plan)
    }

    /// Writes it for nodes to read.
    pub fn save(&self, path: &Path) -> anyhow::Result<()> {
        Ok(std::fs::write(path, serde_json::to_vec(self)?)?)
    }

    /// How long one message from zone `here` to this address takes, by 64 bits of chance; `None` within a zone.
    pub fn delay(&self, here: &str, to: SocketAddr, chance: u64) -> Option<Duration> {
        let there = self.zones.get(&to)?;
        if there == here || self.one_way_us == 0 {
            return None;
        }
        let more = if self.jitter_us == 0 { 0 } else { chance % (2 * self.jitter_us + 1) };
        Some(Duration::from_micros(self.one_way_us - self.jitter_us + more))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_to_other_zones_take_the_way_give_or_take_the_jitter() {
        let addr = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let zones = [(addr(1), "a".to_owned()), (addr(2), "b".to_owned())].into();
        let plan = ZonePlan { one_way_us: 500, jitter_us: 100, zones };
        assert_eq!(plan.delay("a", addr(1), 7), None);
        assert_eq!(plan.delay("a", addr(9), 7), None);
        let all: Vec<u64> = (0..201).map(|n| plan.delay("a", addr(2), n).unwrap().as_micros() as u64).collect();
        assert_eq!((all[0], all[200]), (400, 600));
        assert_eq!(ZonePlan::together().delay("a", addr(2), 7), None);
    }
}
