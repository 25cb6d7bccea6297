//! What a run is made of: everything is drawn from the seed, and printed before the run begins.

use std::fmt;
use std::time::Duration;

use crate::chance::Chance;

/// A kind of fault. Each strikes, lasts for a while, and is undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// `kill -9` of one node, and its return.
    CrashProcess,
    /// One machine loses power, and with it what was not synced.
    PowerLoss,
    /// All machines lose power at once.
    PowerLossOfAll,
    /// A process stands still, as under SIGSTOP.
    Hold,
    /// A zone is cut off from the others.
    CutZone,
    /// One zone does not reach another, which still reaches it.
    CutOneWay,
    /// Every link loses messages.
    Loss,
    /// Every link has messages that are late by up to a second.
    Spikes,
}

impl FaultKind {
    /// All kinds.
    pub const ALL: [Self; 8] = [
        Self::CrashProcess,
        Self::PowerLoss,
        Self::PowerLossOfAll,
        Self::Hold,
        Self::CutZone,
        Self::CutOneWay,
        Self::Loss,
        Self::Spikes,
    ];
}

/// What a run is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Nodes, in three zones in turn.
    pub nodes: u64,
    /// Partitions.
    pub partitions: u32,
    /// Clients, in three zones in turn.
    pub clients: usize,
    /// Keys that all clients share.
    pub keys: i64,
    /// How long clients work while faults strike.
    pub chaos: Duration,
    /// A client's pause between two calls, at the most.
    pub pace: Duration,
    /// Node-to-node requests that arrive twice, in millionths, all the time.
    pub duplicate_ppm: u64,
    /// The kinds of fault of this run; none in a calm one.
    pub faults: Vec<FaultKind>,
    /// The pause between two faults, at the most.
    pub fault_pause: Duration,
}

impl Plan {
    /// The plan of a seed. Each run has its own mix of faults, some have none.
    pub fn draw(seed: u64) -> Self {
        let chance = Chance::new(seed, "plan");
        let calm = chance.hits(100_000);
        let kinds = FaultKind::ALL.into_iter().filter(|_| chance.hits(500_000)).collect();
        Self {
            seed,
            nodes: *chance.pick(&[3, 3, 4, 6]),
            partitions: 1 + chance.below(4) as u32,
            clients: 3 + chance.below(3) as usize,
            keys: 20 + chance.below(80) as i64,
            chaos: Duration::from_secs(20 + chance.below(20)),
            pace: Duration::from_millis(20 + chance.below(180)),
            duplicate_ppm: *chance.pick(&[0, 0, 1_000, 50_000]),
            faults: if calm { Vec::new() } else { kinds },
            fault_pause: Duration::from_millis(500 + chance.below(3_000)),
        }
    }

    /// A run without faults.
    pub fn calm(seed: u64, partitions: u32, chaos: Duration) -> Self {
        Self {
            nodes: 3,
            partitions,
            clients: 3,
            keys: 40,
            chaos,
            pace: Duration::from_millis(60),
            duplicate_ppm: 0,
            faults: Vec::new(),
            ..Self::draw(seed)
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed {}: {} nodes, {} partitions, {} clients, {} keys, {:?} of work at a pace of {:?}, duplicates {} ppm, \
             faults {:?} every {:?}",
            self.seed,
            self.nodes,
            self.partitions,
            self.clients,
            self.keys,
            self.chaos,
            self.pace,
            self.duplicate_ppm,
            self.faults,
            self.fault_pause
        )
    }
}
