//! The faults: one table. Each kind has a name, the numbers of the faults in the reference list that it stands for, how
//! long it lasts, and a function that strikes: it changes the world now and returns the steps that follow, the last of
//! which undoes it.
//!
//! To add one: a row of the table, and a function in the file of its family. Everything else (drawing, timelines,
//! coverage, minimising) reads the table.

mod lost_disk;
mod network;
mod process;
mod timeline;

use std::fmt;
use std::time::Duration;

use crate::chance::Chance;
use crate::world::World;

pub use timeline::{Strikes, strike};

/// What happens next, after a pause.
pub struct Step {
    /// The pause since the step before.
    pub after: Duration,
    /// What happens.
    pub act: Box<dyn FnOnce(&mut World)>,
}

impl Step {
    /// A step after a pause.
    pub fn new(after: Duration, act: impl FnOnce(&mut World) + 'static) -> Self {
        Self { after, act: Box::new(act) }
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after {:?}", self.after)
    }
}

/// Strikes, for about so long; nothing if there is nothing to strike at this moment.
pub type StrikeFn = fn(&mut World, &Chance, Duration) -> Option<Vec<Step>>;

/// A row of the table.
#[derive(Debug)]
pub struct Entry {
    /// The kind.
    pub kind: FaultKind,
    /// The faults of the reference list that it stands for.
    pub numbers: &'static [u32],
    /// How long it lasts, in milliseconds: at the least and at the most.
    pub lasts_ms: (u64, u64),
    /// How it strikes.
    pub strike: StrikeFn,
}

/// Makes [`FaultKind`] and [`TABLE`] of one list, so that no kind can be without its row.
macro_rules! kinds {
    ($($(#[doc = $what:literal])+ $kind:ident: $numbers:expr, $lasts_ms:expr, $strike:path;)+) => {
        /// A kind of fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum FaultKind {
            $($(#[doc = $what])+ $kind,)+
        }

        /// All kinds.
        pub const TABLE: &[Entry] = &[
            $(Entry { kind: FaultKind::$kind, numbers: &$numbers, lasts_ms: $lasts_ms, strike: $strike },)+
        ];
    };
}

// Name: numbers in the reference list, how long in milliseconds, the function that strikes.
kinds! {
    /// `kill -9` of one node, and its return.
    CrashProcess: [1, 2], (50, 4_000), process::crash;
    /// One machine loses power, and with it what was not synced.
    PowerLoss: [5, 28], (50, 4_000), process::power_loss;
    /// All machines lose power at once.
    PowerLossOfAll: [4, 5], (50, 4_000), process::power_loss_of_all;
    /// A process stands still, as under SIGSTOP.
    Hold: [8, 9], (50, 4_000), process::hold;
    /// A zone is cut off from the others.
    CutZone: [15, 48], (50, 4_000), network::cut_zone;
    /// One zone does not reach another, which still reaches it.
    CutOneWay: [16], (50, 4_000), network::cut_one_way;
    /// Every link loses messages.
    Loss: [20], (50, 4_000), network::loss;
    /// Every link has messages that are late.
    Spikes: [20], (50, 4_000), network::spikes;
    /// A machine loses its disk, and comes back with an empty one; its replicas are built anew.
    LostDisk: [39], (50, 4_000), lost_disk::lose;
}

impl FaultKind {
    /// All kinds.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|entry| entry.kind)
    }

    /// Its row of the table.
    pub fn entry(self) -> &'static Entry {
        &TABLE[self as usize]
    }

    /// Its name.
    pub fn name(self) -> String {
        format!("{self:?}")
    }

    /// The kind of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|kind| kind.name() == name)
    }
}
