//! What a run is made of: everything is drawn from the seed, and printed before the run begins.

use std::fmt;
use std::time::Duration;

use stoa_raft::RaftTiming;

use crate::chance::Chance;
pub use crate::faults::FaultKind;

/// What an operator does in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moves {
    /// No replica is replaced, unless its disk is lost.
    None,
    /// Replicas are replaced by others on other nodes of their zones.
    Between,
    /// Also by new ones on their own nodes, for which the old one's data is given up.
    InPlaceToo,
}

/// What clients do besides whole rows and reads. Each is drawn from a stream of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    /// How many writes in a million give some features of a row alone.
    pub partial_per_million: u64,
    /// Whether clients end in the middle of their work, and others come in their place.
    pub mortal: bool,
    /// Whether the catalog is changed.
    pub definitions: bool,
    /// Whether there are bulk loads.
    pub loads: bool,
    /// Whether there are rows that expire.
    pub aging: bool,
}

impl Work {
    /// That of a seed.
    pub fn draw(seed: u64) -> Self {
        Self {
            partial_per_million: *Chance::new(seed, "partial rows").pick(&[0, 300_000, 600_000, 900_000]),
            mortal: Chance::new(seed, "mortal clients").hits(400_000),
            definitions: Chance::new(seed, "catalog changes").hits(400_000),
            loads: Chance::new(seed, "bulk loads").hits(400_000),
            aging: Chance::new(seed, "rows that expire").hits(400_000),
        }
    }

    /// The kinds that are named, with commas between; "none" names none. Half of the writes are partial then.
    ///
    /// # Errors
    /// If there is no kind of that name.
    pub fn named(names: &str) -> Result<Self, String> {
        let mut work = Self::default();
        for name in names.split(',') {
            match name {
                "none" => {}
                "partial" => work.partial_per_million = 500_000,
                "mortal" => work.mortal = true,
                "catalog" => work.definitions = true,
                "loads" => work.loads = true,
                "aging" => work.aging = true,
                _ => {
                    let known = "partial, mortal, catalog, loads, aging or none";
                    return Err(format!("there is no work named {name:?}: {known}"));
                }
            }
        }
        Ok(work)
    }

    /// Each kind by name, and whether it is in the plan.
    pub fn kinds(&self) -> [(&'static str, bool); 5] {
        [
            ("partial rows", self.partial_per_million > 0),
            ("mortal clients", self.mortal),
            ("catalog changes", self.definitions),
            ("bulk loads", self.loads),
            ("rows that expire", self.aging),
        ]
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partial_per_million, mortal, definitions, loads, aging } = self;
        let percent = partial_per_million / 10_000;
        write!(
            f,
            "partial rows {percent} %, mortal clients {mortal}, catalog changes {definitions}, bulk loads {loads}, \
             rows that expire {aging}"
        )
    }
}

/// How much nodes keep of their logs: small, so that segments, snapshots and purges come often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes after which a segment of the log ends.
    pub segment_bytes: u64,
    /// Bytes of a group's entries after which it writes a snapshot.
    pub snapshot_log_bytes: u64,
    /// Bytes of all groups' entries together after which some write snapshots.
    pub replay_log_bytes: u64,
    /// Bytes that may wait for the log's writer; a quarter of it is taken at once.
    pub queue_bytes: u64,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { segment_bytes: 64 << 10, snapshot_log_bytes: 32 << 10, replay_log_bytes: 96 << 10, queue_bytes: 1 << 20 }
    }
}

impl Sizes {
    /// Those of a seed.
    pub fn draw(seed: u64) -> Self {
        let chance = Chance::new(seed, "sizes");
        Self {
            segment_bytes: *chance.pick(&[32 << 10, 64 << 10, 64 << 10, 192 << 10]),
            snapshot_log_bytes: *chance.pick(&[16 << 10, 32 << 10, 32 << 10, 96 << 10]),
            replay_log_bytes: *chance.pick(&[48 << 10, 96 << 10, 1 << 20]),
            queue_bytes: *chance.pick(&[256 << 10, 1 << 20]),
        }
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kib = |bytes: u64| bytes >> 10;
        let Self { segment_bytes, snapshot_log_bytes, replay_log_bytes, queue_bytes } = *self;
        write!(
            f,
            "segments of {} KiB, snapshots after {} KiB or {} KiB in all, queues of {} KiB",
            kib(segment_bytes),
            kib(snapshot_log_bytes),
            kib(replay_log_bytes),
            kib(queue_bytes)
        )
    }
}

/// The timing of a seed: that of the product in every second run, else one that is faster or slower.
fn timing(seed: u64) -> RaftTiming {
    let of = |heartbeat, election_min, election_max| RaftTiming {
        heartbeat: Duration::from_millis(heartbeat),
        election_min: Duration::from_millis(election_min),
        election_max: Duration::from_millis(election_max),
        ..RaftTiming::default()
    };
    let usual = RaftTiming::default();
    *Chance::new(seed, "timing").pick(&[usual, usual, of(60, 240, 400), of(200, 700, 1_100)])
}

/// What clients must have done before a run counts as one: idle time proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Least {
    /// Write calls that were acknowledged: batches, of one to three rows.
    pub writes: u64,
    /// Multi-gets that gave at least one row.
    pub reads: u64,
}

/// What every drawn plan asks for.
pub const LEAST: Least = Least { writes: 500, reads: 2_000 };

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
    /// What clients must have done at the least; until then faults go on, up to four times as long as planned.
    pub least: Least,
    /// A client's pause between two calls, at the most.
    pub pace: Duration,
    /// Whether nodes hold bytes back for the day their device is full.
    pub reserve: bool,
    /// The kinds of fault of this run; none in a calm one.
    pub faults: Vec<FaultKind>,
    /// The longest pause between two strikes of a kind, if it is not drawn.
    pub fault_pause: Option<Duration>,
    /// How many faults may be active at once.
    pub overlap: usize,
    /// Whether clients read by leases. Not where a clock stops or drifts further than declared: leases rest on clocks.
    pub lease_reads: bool,
    /// What an operator does.
    pub moves: Moves,
    /// What clients do besides.
    pub work: Work,
    /// The timing of replication.
    pub timing: RaftTiming,
    /// How much nodes keep of their logs.
    pub sizes: Sizes,
}

impl Plan {
    /// The plan of a seed. Each run has its own mix of faults, some have none.
    pub fn draw(seed: u64) -> Self {
        let chance = Chance::new(seed, "plan");
        let moves = *Chance::new(seed, "moves").pick(&[Moves::None, Moves::Between, Moves::InPlaceToo]);
        // A run gives up the only copy of a replica's data for one reason at a time.
        let mut faults = mix(seed);
        faults.retain(|kind| !(kind.damages() && moves == Moves::InPlaceToo));
        // An old image is found if others have heard of what came after it, and live.
        if faults.contains(&FaultKind::OldDisk) {
            faults.retain(|kind| kind.lets_nodes_hear());
        }
        let (clients, pace) = (3 + chance.below(3) as usize, Duration::from_millis(20 + chance.below(60)));
        let (clients, pace) = many_clients(seed).map_or((clients, pace), |many| (many, pace * 3));
        Self {
            seed,
            nodes: more_nodes(seed).unwrap_or(*chance.pick(&[3, 3, 4, 6])),
            partitions: 1 + chance.below(4) as u32,
            clients,
            keys: 20 + chance.below(80) as i64,
            chaos: Duration::from_secs(30 + chance.below(10)),
            least: LEAST,
            pace,
            reserve: Chance::new(seed, "reserve").hits(700_000),
            overlap: 1 + chance.below(4) as usize,
            lease_reads: !faults.iter().any(|kind| kind.stops_clocks()),
            faults,
            moves,
            fault_pause: None,
            work: Work::draw(seed),
            timing: timing(seed),
            sizes: Sizes::draw(seed),
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
            least: Least::default(),
            pace: Duration::from_millis(60),
            faults: Vec::new(),
            moves: Moves::None,
            timing: RaftTiming::default(),
            sizes: Sizes::default(),
            ..Self::draw(seed)
        }
    }

    /// Whether nodes begin with a program of the first cluster version.
    pub fn upgrades(&self) -> bool {
        self.faults.contains(&FaultKind::Upgrade)
    }

    /// The longest pause between two strikes of a kind: each run has rates of its own.
    pub fn pause_of(&self, kind: FaultKind) -> Duration {
        self.fault_pause.unwrap_or_else(|| {
            let chance = Chance::new(self.seed, &format!("rate of {kind:?}"));
            Duration::from_secs(*chance.pick(&PAUSES_S))
        })
    }
}

/// One run in twelve has more nodes, and zones that are not even: each node more costs its time.
fn more_nodes(seed: u64) -> Option<u64> {
    let chance = Chance::new(seed, "more nodes");
    (chance.below(12) == 0).then(|| *chance.pick(&[5, 7, 8, 9]))
}

/// One run in eight has many clients, each of which does less.
fn many_clients(seed: u64) -> Option<usize> {
    let chance = Chance::new(seed, "many clients");
    (chance.below(8) == 0).then(|| *chance.pick(&[8, 12, 20]))
}

/// The longest pauses between two strikes of a kind that a run may have, in seconds.
const PAUSES_S: [u64; 4] = [2, 4, 8, 16];
/// How likely each kind is to be in a run, in millionths: some runs have no faults, some few kinds, some most of them.
const DENSITIES_PPM: [u64; 10] = [0, 100_000, 100_000, 200_000, 200_000, 200_000, 350_000, 350_000, 500_000, 700_000];

/// The kinds of a run. Every kind is drawn out of a stream of its own: a new one changes nothing about the others. Of
/// those that damage a disk there is one at the most, since only one machine of a run may be damaged.
fn mix(seed: u64) -> Vec<FaultKind> {
    let density = *Chance::new(seed, "density of faults").pick(&DENSITIES_PPM);
    let damage: Vec<FaultKind> = FaultKind::all().filter(|kind| kind.damages()).collect();
    let damage = *Chance::new(seed, "kind of damage").pick(&damage);
    let fits = |kind: &FaultKind| !kind.damages() || *kind == damage;
    let drawn = |kind: &FaultKind| {
        // Twice as likely as the rest, since five of six are not in question.
        let density = if kind.damages() { (density * 2).min(1_000_000) } else { density };
        Chance::new(seed, &format!("draw {kind:?}")).hits(density)
    };
    FaultKind::all().filter(fits).filter(drawn).collect()
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed {}: {} nodes, {} partitions, {} clients, {} keys, {:?} of work at a pace of {:?}, reserve {}, \
             lease reads {}, moves {:?}, {}, heartbeats each {:?}, elections after {:?} to {:?}, {}, faults (up to {} at once, each with its longest pause) [",
            self.seed,
            self.nodes,
            self.partitions,
            self.clients,
            self.keys,
            self.chaos,
            self.pace,
            self.reserve,
            self.lease_reads,
            self.moves,
            self.work,
            self.timing.heartbeat,
            self.timing.election_min,
            self.timing.election_max,
            self.sizes,
            self.overlap,
        )?;
        for (place, kind) in self.faults.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}{kind:?} {:?}", self.pause_of(*kind))?;
        }
        write!(f, "]")
    }
}
