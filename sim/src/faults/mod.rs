//! The faults: one table. Each kind has a name, the numbers of the faults in the reference list that it stands for, how
//! long it lasts, and a function that strikes: it changes the world now and returns the steps that follow, the last of
//! which undoes it.
//!
//! To add one: a row of the table, and a function in the file of its family. Everything else (drawing, timelines,
//! coverage, minimising) reads the table.

mod clock;
mod damage;
mod disk;
mod lost_disk;
mod moments;
mod network;
mod process;
mod timeline;
mod transfer;
mod upgrade;

use std::fmt;
use std::time::Duration;

use crate::chance::Chance;
use crate::world::World;

pub use lost_disk::rebuild;
pub use timeline::{Strikes, strike};
pub use upgrade::finish;

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
pub type StrikeFn = fn(&mut World, FaultKind, &Chance, Duration) -> Option<Vec<Step>>;

/// How often a kind has had an effect so far in this world.
pub type EffectFn = fn(&World, FaultKind) -> u64;

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
    /// For a kind that lies in wait: it counts as having struck only if this rises while it is active.
    pub effect: Option<EffectFn>,
    /// Whether plans draw it; one that the product does not promise to bear is there for whoever names it.
    pub drawn: bool,
}

/// Makes [`FaultKind`] and [`TABLE`] of one list, so that no kind can be without its row.
macro_rules! kinds {
    ($($(#[doc = $what:literal])+ $kind:ident: $numbers:expr, $lasts_ms:expr, $strike:path, $effect:expr, $drawn:expr;)+) => {
        /// A kind of fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum FaultKind {
            $($(#[doc = $what])+ $kind,)+
        }

        /// All kinds.
        pub const TABLE: &[Entry] = &[
            $(Entry {
                kind: FaultKind::$kind,
                numbers: &$numbers,
                lasts_ms: $lasts_ms,
                strike: $strike,
                effect: $effect,
                drawn: $drawn,
            },)+
        ];
    };
}

/// Plans draw it.
const DRAWN: bool = true;

// Name: numbers in the reference list, how long in milliseconds, what strikes, what counts its effect, whether drawn.
kinds! {
    /// `kill -9` of one node, and its return.
    CrashProcess: [1, 2, 3], (50, 4_000), process::crash, None, DRAWN;
    /// One machine loses power, and with it what was not synced.
    PowerLoss: [5, 28], (50, 4_000), process::power_loss, None, DRAWN;
    /// All nodes of a zone die at once, or their machines lose power.
    ZoneDown: [80], (50, 8_000), process::zone_down, None, DRAWN;
    /// All machines lose power at once.
    PowerLossOfAll: [4, 5, 28], (50, 4_000), process::power_loss_of_all, None, DRAWN;
    /// A process stands still, as under SIGSTOP; at times all of a zone, or all but one.
    Hold: [8, 9], (50, 4_000), process::hold, None, DRAWN;
    /// A process dies within a second of each start, ten times.
    CrashLoop: [7], (0, 1_000), process::crash_loop, None, DRAWN;
    /// All nodes restart, one after the other.
    RollingRestart: [57], (100, 1_500), process::rolling_restart, None, DRAWN;
    /// All nodes restart, one after the other, with a program that speaks the next cluster version; some go back first.
    Upgrade: [57], (100, 1_500), upgrade::upgrade, None, DRAWN;
    /// A process gets one millisecond in ten, or less.
    SlowNode: [13], (200, 4_000), process::slow_node, None, DRAWN;
    /// A machine is suspended, and all its clocks with it; at times all of a zone, or all but one.
    Suspend: [10, 45], (50, 10_000), process::suspend, None, DRAWN;
    /// A machine is suspended by its kernel: its monotonic clock stands still, and its boot clock and calendar go on. At times
    /// all of a zone, or all but one.
    KernelSuspend: [10], (50, 10_000), process::kernel_suspend, None, DRAWN;
    /// A process dies while it writes, receives or installs a snapshot.
    KillAtSnapshot: [6, 52], (500, 6_000), moments::at_snapshot, Some(moments::sprung), DRAWN;
    /// A process, or its machine, dies at a sync.
    KillAtSync: [6], (500, 4_000), moments::at_sync, Some(moments::sprung), DRAWN;
    /// A process, or its machine, dies at a rename.
    KillAtRename: [6], (500, 6_000), moments::at_rename, Some(moments::sprung), DRAWN;
    /// Leaders hand leadership to another voter, in the middle of writes.
    TransferLeader: [49], (200, 2_000), transfer::transfer_leader, Some(transfer::asked), DRAWN;
    /// A zone is cut off from the others.
    CutZone: [15, 48], (50, 8_000), network::cut_zone, Some(network::hits), DRAWN;
    /// One zone does not reach another, which still reaches it.
    CutOneWay: [16], (50, 4_000), network::cut_one_way, Some(network::hits), DRAWN;
    /// A node sends and does not receive.
    DeafNode: [16], (50, 4_000), network::deaf_node, Some(network::hits), DRAWN;
    /// Two nodes do not reach each other; both reach all others.
    CutPair: [17], (50, 8_000), network::cut_pair, Some(network::hits), DRAWN;
    /// Two halves of the nodes reach each other through one node alone; the links heal one by one.
    Bridge: [18], (500, 4_000), network::bridge, Some(network::hits), DRAWN;
    /// Links between nodes are cut one by one, and heal one by one in another order.
    Swizzle: [18], (500, 6_000), network::swizzle, Some(network::hits), DRAWN;
    /// A link between two nodes is there for 100 ms, and away for 100 ms.
    Flapping: [19], (500, 6_000), network::flapping, Some(network::hits), DRAWN;
    /// Clients do not reach the node that leads.
    ClientsOffLeader: [25], (200, 6_000), network::clients_off_leader, Some(network::hits), DRAWN;
    /// Every link loses messages.
    Loss: [20], (50, 4_000), network::loss, Some(network::hits), DRAWN;
    /// Every link has messages that are late.
    Spikes: [20], (50, 4_000), network::spikes, Some(network::hits), DRAWN;
    /// Messages overtake each other.
    Reorder: [20], (200, 6_000), network::reorder, Some(network::hits), DRAWN;
    /// Requests between nodes arrive twice.
    Duplicates: [20], (200, 8_000), network::duplicates, Some(network::hits), DRAWN;
    /// Requests between nodes that are up to the whole run old arrive again.
    Replay: [21], (50, 2_000), network::replay, Some(network::hits), DRAWN;
    /// Bits of messages flip, and the transport does not notice.
    FlippedBits: [22], (200, 4_000), network::flipped_bits, Some(network::hits), DRAWN;
    /// Connections break, with whatever is on them.
    BrokenConnections: [22, 23], (200, 4_000), network::broken_connections, Some(network::hits), DRAWN;
    /// A sync fails.
    FailedSync: [33], (500, 4_000), disk::failed_sync, Some(disk::failed_syncs), DRAWN;
    /// A device is full, and has room again.
    FullDisk: [34], (200, 6_000), disk::full, Some(disk::full_appends), DRAWN;
    /// A device is ten or a thousand times slower.
    SlowDisk: [35, 36], (200, 6_000), disk::slow, None, DRAWN;
    /// A device does not answer.
    HungDisk: [37], (200, 40_000), disk::hung, None, DRAWN;
    /// A bit of the log flips, below what was attested as durable.
    RotInLog: [29], (100, 2_000), damage::rot_in_log, None, DRAWN;
    /// A bit of a snapshot flips.
    RotInSnapshot: [30], (100, 2_000), damage::rot_in_snapshot, None, DRAWN;
    /// A bit of the votes and positions at the head of a segment flips.
    RotInVote: [31], (100, 2_000), damage::rot_in_vote, None, DRAWN;
    /// A sector of the log was never written, and its write reported done.
    LostWrite: [32], (100, 2_000), damage::lost_write, None, DRAWN;
    /// Bytes of one file lie over those of another.
    MisdirectedWrite: [32], (100, 2_000), damage::misdirected_write, None, DRAWN;
    /// A machine loses its disk, and comes back with an empty one; its replicas are built anew.
    LostDisk: [39], (50, 4_000), lost_disk::lose, None, DRAWN;
    /// A node comes back with an old image of its disk.
    OldDisk: [40], (2_000, 8_000), damage::old_disk, None, DRAWN;
    /// The calendar of a machine jumps by an hour, and back.
    WallJump: [43, 45], (50, 8_000), clock::wall_jump, None, DRAWN;
    /// The calendar of a machine jumps to and fro by an hour, 200 times a second.
    WallStrobe: [43], (200, 2_000), clock::wall_strobe, None, DRAWN;
    /// The clock of a machine changes its rate, within the declared drift.
    Drift: [44], (500, 8_000), clock::drift, None, DRAWN;
}

impl FaultKind {
    /// All kinds that plans draw.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().filter(|entry| entry.drawn).map(|entry| entry.kind)
    }

    /// Its row of the table.
    pub fn entry(self) -> &'static Entry {
        &TABLE[self as usize]
    }

    /// The kind of that name.
    pub fn named(name: &str) -> Option<Self> {
        TABLE.iter().map(|entry| entry.kind).find(|kind| format!("{kind:?}") == name)
    }

    /// Whether it damages what a disk holds beyond what a crash does.
    pub fn damages(self) -> bool {
        matches!(
            self,
            Self::RotInLog
                | Self::RotInSnapshot
                | Self::RotInVote
                | Self::LostWrite
                | Self::MisdirectedWrite
                | Self::LostDisk
                | Self::OldDisk
        )
    }

    /// Whether nodes run on and hear of each other all the while.
    pub fn lets_nodes_hear(self) -> bool {
        matches!(
            self,
            Self::OldDisk
                | Self::TransferLeader
                | Self::Duplicates
                | Self::Replay
                | Self::WallJump
                | Self::WallStrobe
                | Self::Drift
        )
    }

    /// Whether it sets calendars, by more than what a leader bears of events that are ahead of its own.
    pub fn jumps_calendars(self) -> bool {
        matches!(self, Self::WallJump | Self::WallStrobe)
    }

    /// Whether it stops a machine's clocks, which leases assume to run on.
    pub fn stops_clocks(self) -> bool {
        self == Self::Suspend
    }
}
