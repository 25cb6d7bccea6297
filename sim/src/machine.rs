//! One machine: a disk and clocks that stay, and the process of a node that comes and goes.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use stoa::node::{Node, NodeOptions, World};
use stoa_env::task::spawn_unwatched;
use stoa_env::{Bounds, Clock, PeerIdentity, Process};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::chance::Chance;
use crate::clock::SimClock;
use crate::disk::{DiskWatch, SimDisk};
use crate::net::{Net, SimTransport};
use crate::trace::Trace;

/// A node as simulated: the assembly that is shipped, on our world.
pub type SimNode = Node<SimDisk, SimTransport>;

/// How a process ends without notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// As by `kill -9`: what it has written stays in the machine's memory, synced or not.
    Process,
    /// The machine loses power, and with it any part of what was not synced.
    Power,
}

/// A machine.
pub struct Machine {
    options: NodeOptions,
    seed: u64,
    net: Net,
    trace: Trace,
    chance: Chance,
    /// Its disk.
    pub disk: SimDisk,
    clock: Arc<SimClock>,
    lives: u64,
    counted: Vec<Bounds>,
    /// Disks that it has had.
    disks: u64,
    process: Option<Process>,
    held: bool,
    node: Arc<Mutex<Started>>,
    /// Why processes of the node ended by themselves, before a fault could end them.
    ends: Vec<(Instant, String)>,
    /// What a node may say when it ends by itself: a fault has given it the reason.
    excuses: Vec<Excuse>,
    aim: Arc<Mutex<Aim>>,
    /// What of its disk was damaged beyond what a crash does.
    damage: Option<Damage>,
    wake: Arc<Notify>,
}

/// A disk that was damaged beyond what a crash does.
#[derive(Debug, Clone)]
pub struct Damage {
    /// What was damaged.
    pub what: String,
    /// The incarnation of the data.
    pub incarnation: u64,
}

#[derive(Default)]
struct Started {
    node: Option<Arc<SimNode>>,
    ended: Option<(Instant, String)>,
}

/// A reason that a fault has given a node to end by itself.
#[derive(Debug)]
struct Excuse {
    words: &'static str,
    from: Instant,
    /// Until when; `None` while the fault lasts.
    until: Option<Instant>,
}

/// What a node says that ends for a full device.
pub const FULL: &str = "the simulated device is full";
/// The file with what a node holds back for the day its device is full, and what is noted where it is left.
const RESERVE: &str = "wal/reserve";
const UNSPENT: &str = "its reserve is not spent";

/// A node may take so long to end for a fault that is over: an error that it has met waits while the process is held or its
/// machine suspended, for up to ten seconds, or crawls.
const ENDS_WITHIN: Duration = Duration::from_secs(15);

/// A moment in the life of a process at which it is to be killed.
#[derive(Debug, Clone, Copy)]
pub struct Trap {
    /// The operation on its disk that arms it,
    pub operation: &'static str,
    /// on a path that holds this,
    pub on: &'static str,
    /// and how many operations of any kind later it springs.
    pub after: u64,
}

/// What a machine and its watch both know of traps.
#[derive(Default)]
struct Aim {
    trap: Option<Trap>,
    /// Operations until it springs, once armed.
    left: Option<u64>,
    sprung: bool,
    process: Option<Process>,
}

impl Aim {
    /// Whether the process dies at this operation: it is not done, and nothing after it is.
    fn springs(&mut self, operation: &str, on: &(dyn std::fmt::Display + Sync)) -> bool {
        let Some(trap) = self.trap else { return false };
        if self.left.is_none() && operation == trap.operation && on.to_string().contains(trap.on) {
            self.left = Some(trap.after);
        }
        match &mut self.left {
            Some(0) => {
                (self.trap, self.left, self.sprung) = (None, None, true);
                self.process.take().inspect(Process::kill);
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }
}

/// Notes operations in the trace, lets syncs take their time, and springs traps.
struct Watch {
    name: String,
    trace: Trace,
    chance: Chance,
    aim: Arc<Mutex<Aim>>,
    wake: Arc<Notify>,
}

/// Longer than any run: an operation whose process has died does not happen.
const NEVER: Duration = Duration::from_secs(1 << 32);

impl DiskWatch for Watch {
    fn begin(&self, operation: &'static str, on: &(dyn std::fmt::Display + Sync), bytes: usize) -> Duration {
        self.trace.note(format_args!("disk {} {operation} {on} {bytes}", self.name));
        if self.aim.lock().unwrap_or_else(|e| e.into_inner()).springs(operation, on) {
            self.trace.note(format_args!("trap of {} springs", self.name));
            self.wake.notify_one();
            return NEVER;
        }
        match operation {
            "sync" | "sync_dir" => self.chance.between(Duration::from_micros(200), Duration::from_millis(3)),
            _ => Duration::ZERO,
        }
    }
}

/// Nearly what the nodes are told.
fn drift_ppm_max(options: &NodeOptions) -> i64 {
    i64::from(options.timing.clock_drift_ppm) * 9 / 10
}

impl Machine {
    /// A machine whose node has never run.
    pub fn new(options: NodeOptions, seed: u64, net: &Net, trace: &Trace, start: Instant, wake: &Arc<Notify>) -> Self {
        let name = format!("n{}", options.node);
        let chance = Chance::new(seed, &format!("machine {name}"));
        let drift = drift_ppm_max(&options) as u64;
        let rate_ppm = chance.below(2 * drift + 1) as i64 - drift as i64;
        let wall_us = chance.below(2_000_001) as i64 - 1_000_000;
        let clock = Arc::new(SimClock::new(start, rate_ppm, chance.below(1 << 50), wall_us));
        trace.note(format_args!("machine {name} zone {} clock {rate_ppm} ppm {wall_us} us", options.zone));
        net.know(options.advertise, options.node.0, &options.zone);
        let aim: Arc<Mutex<Aim>> = Arc::default();
        let watch = Watch {
            name,
            trace: trace.clone(),
            chance: Chance::new(seed, &format!("disk n{}", options.node)),
            aim: aim.clone(),
            wake: wake.clone(),
        };
        Self {
            options,
            seed,
            net: net.clone(),
            trace: trace.clone(),
            chance,
            disk: SimDisk::watched(Arc::new(watch)),
            clock,
            lives: 0,
            counted: Vec::new(),
            disks: 1,
            process: None,
            held: false,
            node: Arc::default(),
            ends: Vec::new(),
            excuses: Vec::new(),
            aim,
            damage: None,
            wake: wake.clone(),
        }
    }

    /// Its node's number.
    pub fn id(&self) -> u64 {
        self.options.node.0
    }

    /// Its zone.
    pub fn zone(&self) -> &str {
        &self.options.zone
    }

    /// Where its node listens.
    pub fn addr(&self) -> SocketAddr {
        self.options.advertise
    }

    /// The highest cluster version that the program speaks which runs here, or will run next.
    pub fn speaks(&self) -> u32 {
        self.options.versions.1
    }

    /// The next process is one of a program that speaks up to this version.
    pub fn set_speaks(&mut self, version: u32) {
        assert!(!self.is_up(), "node {} runs: a program is not exchanged under it", self.id());
        self.options.versions.1 = version;
    }

    /// How many processes of the node have begun here.
    pub fn life(&self) -> u64 {
        self.lives
    }

    /// Whether a process runs here, be it held.
    pub fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// Has the node's process do something, if one runs.
    pub fn spawn(&self, name: &'static str, what: impl Future<Output = ()> + Send + 'static) {
        if let Some(process) = &self.process {
            process.spawn(name, what);
        }
    }

    /// Whether its process stands still.
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// Gives it a clock of another rate, in millionths off true time, before its first start.
    pub fn set_clock_rate(&mut self, rate_ppm: i64) {
        assert!(self.lives == 0, "time must not go backward under a node");
        self.clock = Arc::new(SimClock::new(crate::world::now(), rate_ppm, 0, 0));
    }

    /// Starts a process if none runs.
    pub fn start_if_down(&mut self) {
        if !self.is_up() {
            self.start();
        }
    }

    /// The node, once it has started.
    pub fn node(&self) -> Option<Arc<SimNode>> {
        self.lock().node.clone()
    }

    /// When and why processes of the node have ended by themselves, in all its lives.
    pub fn ends(&self) -> Vec<(Instant, String)> {
        self.ends.iter().cloned().chain(self.lock().ended.clone()).collect()
    }

    /// When the process that ran here last has ended by itself, and why, if it has.
    pub fn ended(&self) -> Option<(Instant, String)> {
        self.lock().ended.clone()
    }

    /// Whether a process runs here that is not held and has not ended.
    pub fn runs(&self) -> bool {
        self.is_up() && !self.is_held() && self.node().is_some()
    }

    /// From now on the node may end by itself if its reason holds these words, until [`end_excuse`](Self::end_excuse).
    pub fn excuse(&mut self, words: &'static str) {
        self.excuses.push(Excuse { words, from: crate::world::now(), until: None });
    }

    /// The fault that gave the node this reason is over: it has had its effect by now, or will have it soon.
    pub fn end_excuse(&mut self, words: &'static str) {
        let until = crate::world::now() + ENDS_WITHIN;
        let open = self.excuses.iter_mut().filter(|excuse| excuse.words == words && excuse.until.is_none());
        open.for_each(|excuse| excuse.until = Some(until));
    }

    /// All faults are over.
    pub fn end_excuses(&mut self) {
        let until = crate::world::now() + ENDS_WITHIN;
        self.excuses.iter_mut().for_each(|excuse| excuse.until = excuse.until.or(Some(until)));
    }

    /// Whether a fault has given the node this reason to end at that moment.
    pub fn is_excused(&self, at: Instant, why: &str) -> bool {
        let holds = |excuse: &Excuse| excuse.from <= at && excuse.until.is_none_or(|until| at <= until);
        // A full device is no reason to end for one that has not drawn on what it holds back for that day.
        let unspent = |excuse: &Excuse| excuse.words == FULL && why.contains(UNSPENT);
        self.excuses.iter().any(|excuse| why.contains(excuse.words) && holds(excuse) && !unspent(excuse))
    }

    /// What of its disk was damaged beyond what a crash does.
    pub fn damage(&self) -> Option<&Damage> {
        self.damage.as_ref()
    }

    /// Its disk, with the data of this incarnation, was damaged: an operator may have to build it anew.
    pub fn set_damage(&mut self, what: String, incarnation: u64) {
        self.trace.note(format_args!("damage n{} {what}", self.id()));
        self.damage = Some(Damage { what, incarnation });
    }

    /// What its disk has is what its node left there, after all.
    pub fn clear_damage(&mut self) {
        self.damage = None;
    }

    /// By how much its clock may deviate, in millionths.
    pub fn drift_ppm_max(&self) -> i64 {
        drift_ppm_max(&self.options)
    }

    /// Its clocks.
    pub fn clock(&self) -> &SimClock {
        &self.clock
    }

    /// The process is to be killed at a moment of its own making; `None` lifts that.
    pub fn set_trap(&self, trap: Option<Trap>) {
        let mut aim = self.aim.lock().unwrap_or_else(|e| e.into_inner());
        (aim.trap, aim.left) = (trap, None);
    }

    /// What its node has counted of what it bounds, in each life, the first one first: also what nobody looked at before it
    /// died.
    pub fn counted(&self) -> &[Bounds] {
        &self.counted
    }

    /// Whether a trap waits here.
    pub fn is_trapped(&self) -> bool {
        self.aim.lock().unwrap_or_else(|e| e.into_inner()).trap.is_some()
    }

    /// Whether a trap has sprung since this was asked last.
    pub fn take_sprung(&self) -> bool {
        std::mem::take(&mut self.aim.lock().unwrap_or_else(|e| e.into_inner()).sprung)
    }

    /// Starts a process of the node.
    pub fn start(&mut self) {
        assert!(!self.is_up(), "node {} runs already", self.id());
        self.lives += 1;
        let (id, life) = (self.id(), self.lives);
        self.trace.note(format_args!("start n{id} life {life}"));
        let process = Process::named(&format!("n{id}"));
        self.aim.lock().unwrap_or_else(|e| e.into_inner()).process = Some(process.clone());
        let started: Arc<Mutex<Started>> = Arc::default();
        self.node = started.clone();
        let bounds = Bounds::default();
        self.counted.push(bounds.clone());
        let world = World {
            disk: self.disk.clone(),
            transport: self.net.transport(&format!("n{id}"), self.zone(), PeerIdentity::Node(id)),
            clock: self.clock.clone() as Arc<dyn Clock>,
            entropy: Arc::new(Chance::new(self.seed, &format!("node {id} life {life}"))),
            bounds: bounds.clone(),
        };
        let (options, net, trace) = (self.options.clone(), self.net.clone(), self.trace.clone());
        let (of_node, disk) = (process.clone(), self.disk.clone());
        process.spawn("node", async move {
            let set = |change: &dyn Fn(&mut Started)| change(&mut started.lock().unwrap_or_else(|e| e.into_inner()));
            let (addr, zone) = (options.advertise, options.zone.clone());
            let why: String = match Node::start(options, world).await {
                Ok(node) => {
                    trace.note(format_args!("serves n{id}"));
                    net.listen(addr, id, &zone, &of_node, node.clone());
                    set(&|started| started.node = Some(node.clone()));
                    node.wait_fatal().await
                }
                Err(error) => error.to_string(),
            };
            let reserve = disk.paths().iter().any(|path| path == Path::new(RESERVE));
            let why = if reserve { format!("{why}; {UNSPENT}") } else { why };
            trace.note(format_args!("ended n{id} {why}"));
            set(&|started| *started = Started { node: None, ended: Some((crate::world::now(), why.clone())) });
            // A process that has ended is no half of one: its other tasks end, too, this one among them.
            net.close(addr);
            of_node.kill();
        });
        self.process = Some(process);
    }

    /// Ends the process without notice. Nothing happens if none runs.
    pub fn crash(&mut self, how: Crash) {
        let Some(process) = self.process.take() else {
            // Nobody runs there, and what the last process left in memory is lost with the power all the same.
            if how == Crash::Power {
                self.trace.note(format_args!("crash n{} {how:?}", self.id()));
                self.disk.crash(&mut |n| self.chance.below(n));
            }
            return;
        };
        self.held = false;
        self.trace.note(format_args!("crash n{} {how:?}", self.id()));
        self.net.close(self.addr());
        process.kill();
        let ended = self.lock().ended.take();
        self.ends.extend(ended);
        self.node = Arc::default();
        match how {
            Crash::Process => self.disk.kill(),
            Crash::Power => self.disk.crash(&mut |n| self.chance.below(n)),
        }
    }

    /// Gets another disk, an empty one. No process runs.
    pub fn empty(&mut self) {
        assert!(!self.is_up(), "node {} runs", self.id());
        self.disks += 1;
        let name = format!("n{}", self.id());
        self.trace.note(format_args!("empty {name} disk {}", self.disks));
        let chance = Chance::new(self.seed, &format!("disk {} of {name}", self.disks));
        let (trace, aim, wake) = (self.trace.clone(), self.aim.clone(), self.wake.clone());
        self.disk = SimDisk::watched(Arc::new(Watch { name, trace, chance, aim, wake }));
    }

    /// Holds the process as SIGSTOP does.
    pub fn hold(&mut self) {
        self.held = self.is_up();
        if let Some(process) = &self.process {
            self.trace.note(format_args!("hold n{}", self.id()));
            process.hold();
        }
    }

    /// Holds it with its monotonic clock, as a machine that is suspended does: what sleeps, sleeps on when it goes on.
    pub fn suspend(&mut self) {
        self.held = self.is_up();
        if let Some(process) = &self.process {
            self.trace.note(format_args!("suspend n{}", self.id()));
            process.suspend();
        }
    }

    /// Lets it go on.
    pub fn go_on(&mut self) {
        if !std::mem::take(&mut self.held) {
            return;
        }
        if let Some(process) = &self.process {
            self.trace.note(format_args!("go on n{}", self.id()));
            process.go_on();
        }
    }

    /// Lets a process that is held go on at a moment, while the caller does something else.
    pub fn go_on_at(&self, at: Instant) -> JoinHandle<()> {
        let (process, trace, id) = (self.process.clone(), self.trace.clone(), self.id());
        spawn_unwatched(async move {
            tokio::time::sleep_until(at).await;
            trace.note(format_args!("go on n{id}"));
            process.iter().for_each(Process::go_on);
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Started> {
        self.node.lock().unwrap_or_else(|e| e.into_inner())
    }
}
