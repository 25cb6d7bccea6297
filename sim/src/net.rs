//! Messages between simulated processes: a queue in order of arrival, and what the links do to it. It takes the place
//! of QUIC, so there is no handshake and no congestion: a lost message is lost, and the call ends by its limit.

use std::collections::{BTreeMap, BinaryHeap};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use stoa_env::{Channel, Handler, Peer, PeerIdentity, Process, Transport, TransportError};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use crate::chance::Chance;
use crate::links::{End as LinkEnd, Fate, Links};
use crate::trace::Trace;

/// QUIC's idle time: a call to a process that has died ends by it, however long the caller would wait.
const IDLE_MAX: Duration = Duration::from_secs(3);
/// Requests between nodes that are kept for a replay: one in [`KEPT_OF`], so that they span the life of the cluster.
const KEPT_MAX: usize = 256;
const KEPT_OF: u64 = 32;

/// A [`Handler`] behind a pointer.
pub trait Serve: Send + Sync {
    /// Answers one request.
    fn serve(self: Arc<Self>, from: Arc<PeerIdentity>, channel: Channel, request: Bytes) -> Answer;
}

/// An answer on its way.
pub type Answer = Pin<Box<dyn Future<Output = Bytes> + Send>>;

impl<H: Handler> Serve for H {
    fn serve(self: Arc<Self>, from: Arc<PeerIdentity>, channel: Channel, request: Bytes) -> Answer {
        Box::pin(self.handle(from, channel, request))
    }
}

/// Changes messages on their way: for planted bugs alone. Gets sender, receiver and bytes of a request or an answer.
pub type Tamper = Box<dyn FnMut(&str, &str, Bytes) -> Bytes + Send>;

/// Sees every answer at the moment at which a node gives it: its number, the request, the answer.
pub type SeeAnswer = Arc<dyn Fn(u64, &Bytes, &Bytes) + Send + Sync>;

/// How many messages met which fate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NetCounts {
    /// Sent, answers among them.
    pub sent: u64,
    /// Arrived.
    pub arrived: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Lost on a link that was cut.
    pub cut: u64,
    /// Requests that arrived twice.
    pub doubled: u64,
    /// Messages with flipped bits.
    pub flipped: u64,
    /// Old requests that arrived again.
    pub replayed: u64,
}

/// The network. Clones are the same.
#[derive(Clone)]
pub struct Net {
    inner: Arc<Mutex<Inner>>,
    wake: Arc<Notify>,
    chance: Chance,
    trace: Trace,
}

struct Inner {
    links: Links,
    queue: BinaryHeap<Queued>,
    next: u64,
    /// The name and zone of the machine at each address, whether somebody listens there or not.
    places: BTreeMap<SocketAddr, (String, String)>,
    listeners: BTreeMap<SocketAddr, Listener>,
    /// How often somebody began or ceased to listen at an address.
    lives: BTreeMap<SocketAddr, u64>,
    waiting: BTreeMap<u64, oneshot::Sender<Result<Bytes, TransportError>>>,
    counts: NetCounts,
    tamper: Option<Tamper>,
    /// Old requests between nodes, if they are kept.
    kept: Option<Vec<Request>>,
    see_answer: Option<SeeAnswer>,
}

#[derive(Clone)]
struct Listener {
    node: u64,
    name: String,
    zone: String,
    process: Process,
    handler: Arc<dyn Serve>,
}

/// Who sends: a name for the trace, the zone, what its certificate says.
#[derive(Debug, Clone)]
struct End {
    name: String,
    zone: String,
    identity: Arc<PeerIdentity>,
}

struct Queued {
    at: Instant,
    number: u64,
    message: Message,
}

/// What a message is, for the trace and for its fate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Request,
    NodeRequest,
    Answer,
}

#[derive(Debug, Clone)]
struct Request {
    call: u64,
    from: End,
    to: Peer,
    channel: Channel,
    bytes: Bytes,
}

enum Message {
    Request(Request),
    Answer { call: u64, to: String, result: Result<Bytes, TransportError> },
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    /// The earliest is the greatest: it leaves the heap first.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl Net {
    /// A network without listeners, all links well.
    pub fn new(seed: u64, trace: Trace) -> Self {
        let inner = Inner {
            links: Links::default(),
            queue: BinaryHeap::new(),
            next: 0,
            places: BTreeMap::new(),
            listeners: BTreeMap::new(),
            lives: BTreeMap::new(),
            waiting: BTreeMap::new(),
            counts: NetCounts::default(),
            tamper: None,
            kept: None,
            see_answer: None,
        };
        Self { inner: Arc::new(Mutex::new(inner)), wake: Arc::default(), chance: Chance::new(seed, "network"), trace }
    }

    /// Delivers what is due, for as long as it is polled.
    pub async fn run(self) {
        loop {
            let due = self.lock().queue.peek().map(|queued| queued.at);
            match due {
                Some(at) if at <= now() => {
                    let queued = self.lock().queue.pop().expect("it was there a line ago");
                    self.deliver(queued.message);
                }
                Some(at) => {
                    tokio::select! {
                        biased;
                        () = self.wake.notified() => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
                None => self.wake.notified().await,
            }
        }
    }

    /// The transport of a process.
    pub fn transport(&self, name: &str, zone: &str, identity: PeerIdentity) -> SimTransport {
        let end = End { name: name.to_owned(), zone: zone.to_owned(), identity: Arc::new(identity) };
        SimTransport { net: self.clone(), end }
    }

    /// A machine of this node and zone has this address.
    pub fn know(&self, addr: SocketAddr, node: u64, zone: &str) {
        self.lock().places.insert(addr, (format!("n{node}"), zone.to_owned()));
    }

    /// A process listens at an address.
    pub fn listen(&self, addr: SocketAddr, node: u64, zone: &str, process: &Process, handler: Arc<dyn Serve>) {
        let listener =
            Listener { node, name: format!("n{node}"), zone: zone.to_owned(), process: process.clone(), handler };
        let mut inner = self.lock();
        inner.listeners.insert(addr, listener);
        *inner.lives.entry(addr).or_default() += 1;
    }

    /// Nobody listens there any more.
    pub fn close(&self, addr: SocketAddr) {
        let mut inner = self.lock();
        inner.listeners.remove(&addr);
        *inner.lives.entry(addr).or_default() += 1;
    }

    /// Changes the state of the links.
    pub fn links<T>(&self, change: impl FnOnce(&mut Links) -> T) -> T {
        change(&mut self.lock().links)
    }

    /// Plants a bug: messages are changed on their way.
    pub fn set_tamper(&self, tamper: Tamper) {
        self.lock().tamper = Some(tamper);
    }

    /// Shows every answer of a node to somebody.
    pub fn see_answers(&self, see: SeeAnswer) {
        self.lock().see_answer = Some(see);
    }

    /// What became of messages so far.
    pub fn counts(&self) -> NetCounts {
        self.lock().counts
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn life(&self, addr: SocketAddr) -> u64 {
        self.lock().lives.get(&addr).copied().unwrap_or_default()
    }

    fn place_of(&self, addr: SocketAddr) -> (String, String) {
        let known = self.lock().places.get(&addr).cloned();
        known.unwrap_or_else(|| (addr.to_string(), String::new()))
    }

    /// Puts a message on its way, twice if chance has it so; says whether it will arrive.
    fn send(&self, what: What, from: (&str, &str), to: (&str, &str), message: impl Fn(Bytes) -> Message, bytes: Bytes) {
        let mut inner = self.lock();
        inner.counts.sent += 1;
        let bytes = match &mut inner.tamper {
            Some(tamper) => tamper(from.0, to.0, bytes),
            None => bytes,
        };
        let number = inner.next;
        inner.next += 1;
        let [sender, receiver] = [from, to].map(|(name, zone)| LinkEnd { name, zone });
        let fate = inner.links.fate(sender, receiver, &self.chance);
        let bytes = match matches!(fate, Fate::Arrives(_)) && inner.links.flips(sender, receiver, &self.chance) {
            true => {
                inner.counts.flipped += 1;
                self.flip(bytes)
            }
            false => bytes,
        };
        let (length, hash) = (bytes.len(), xxh3_64(&bytes));
        self.trace.note(format_args!("{what:?} m{number} {}>{} {length} {hash:016x} {fate:?}", from.0, to.0));
        let delay = match fate {
            Fate::Arrives(delay) => delay,
            Fate::Lost => return inner.counts.lost += 1,
            Fate::Cut => return inner.counts.cut += 1,
            Fate::Broken(delay) => {
                inner.counts.lost += 1;
                let broken = broken(message(bytes));
                inner.queue.push(Queued { at: now() + delay, number, message: broken });
                return self.wake.notify_one();
            }
        };
        let at = now() + delay;
        let again = match what {
            What::NodeRequest => inner.links.again(sender, receiver, &self.chance),
            What::Request | What::Answer => None,
        };
        if what == What::NodeRequest
            && inner.kept.is_some()
            && let Message::Request(request) = message(bytes.clone())
        {
            self.keep(&mut inner, request);
        }
        if let Some(later) = again.map(|again| at + again) {
            inner.counts.doubled += 1;
            let again = inner.next;
            inner.next += 1;
            self.trace.note(format_args!("double m{number} as m{again}"));
            inner.queue.push(Queued { at: later, number: again, message: message(bytes.clone()) });
        }
        inner.queue.push(Queued { at, number, message: message(bytes) });
        self.wake.notify_one();
    }

    /// One or two bits flipped: the frame's checksum promises to see every such damage.
    fn flip(&self, bytes: Bytes) -> Bytes {
        let mut bytes = bytes.to_vec();
        for _ in 0..=self.chance.below(2) {
            let bit = self.chance.below(bytes.len() as u64 * 8);
            if let Some(byte) = bytes.get_mut(bit as usize / 8) {
                *byte ^= 1 << (bit % 8);
            }
        }
        bytes.into()
    }

    fn keep(&self, inner: &mut Inner, request: Request) {
        let Some(kept) = &mut inner.kept else { return };
        if self.chance.below(KEPT_OF) > 0 {
            return;
        }
        match kept.len() < KEPT_MAX {
            true => kept.push(request),
            false => kept[self.chance.below(KEPT_MAX as u64) as usize] = request,
        }
    }

    /// From now on some requests between nodes are kept, for [`replay`](Self::replay).
    pub fn keep_requests(&self) {
        self.lock().kept.get_or_insert_default();
    }

    /// Requests between nodes that arrived long ago arrive again within a time; how many do.
    pub fn replay(&self, count: u64, within: Duration) -> u64 {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let Some(kept) = inner.kept.as_ref().filter(|kept| !kept.is_empty()) else { return 0 };
        for _ in 0..count {
            let request = self.chance.pick(kept).clone();
            let (number, at) = (inner.next, now() + self.chance.between(Duration::ZERO, within));
            inner.next += 1;
            inner.counts.replayed += 1;
            self.trace.note(format_args!("replay c{} as m{number}", request.call));
            inner.queue.push(Queued { at, number, message: Message::Request(request) });
        }
        self.wake.notify_one();
        count
    }

    fn deliver(&self, message: Message) {
        self.lock().counts.arrived += 1;
        match message {
            Message::Answer { call, to, result } => {
                self.trace.note(format_args!("answered c{call} {to} {}", result.is_ok()));
                if let Some(waiting) = self.lock().waiting.remove(&call) {
                    // The caller may have given up.
                    let _ = waiting.send(result);
                }
            }
            Message::Request(request) => self.take_request(request),
        }
    }

    fn take_request(&self, Request { call, from, to, channel, bytes }: Request) {
        let listener = self.lock().listeners.get(&to.addr).cloned();
        let Some(listener) = listener.filter(|l| to.node.is_none_or(|node| node == l.node)) else {
            return self.trace.note(format_args!("nobody c{call} at {}", to.addr));
        };
        self.trace.note(format_args!("take c{call} {}>{} {channel:?}", from.name, listener.name));
        let net = self.clone();
        let (name, zone) = (listener.name.clone(), listener.zone.clone());
        listener.process.spawn("request", async move {
            let answer = listener.handler.serve(from.identity.clone(), channel, bytes.clone()).await;
            let see = net.lock().see_answer.clone();
            if let Some(see) = see {
                see(listener.node, &bytes, &answer);
            }
            let addr = to.addr;
            let back = |bytes: Bytes| Message::Answer {
                call,
                to: from.name.clone(),
                result: match bytes.is_empty() {
                    true => Err(TransportError::Broken { addr, reason: "no answer".into() }),
                    false => Ok(bytes),
                },
            };
            net.send(What::Answer, (&name, &zone), (&from.name, &from.zone), back, answer);
        });
    }
}

/// What the caller hears in place of a message whose connection broke.
fn broken(message: Message) -> Message {
    let reason = "the connection broke".to_owned();
    match message {
        Message::Request(Request { call, from, to, .. }) => {
            Message::Answer { call, to: from.name, result: Err(TransportError::Broken { addr: to.addr, reason }) }
        }
        Message::Answer { call, to, .. } => {
            let addr = SocketAddr::from(([0, 0, 0, 0], 0));
            Message::Answer { call, to, result: Err(TransportError::Broken { addr, reason }) }
        }
    }
}

#[allow(clippy::disallowed_methods)] // simulated time itself
fn now() -> Instant {
    Instant::now()
}

/// The way of one process to all others.
#[derive(Clone)]
pub struct SimTransport {
    net: Net,
    end: End,
}

/// Forgets a call whose caller has given up.
struct Waiting<'a> {
    net: &'a Net,
    call: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.net.lock().waiting.remove(&self.call);
    }
}

impl Transport for SimTransport {
    async fn call(&self, to: Peer, channel: Channel, request: Bytes, limit: Duration) -> Result<Bytes, TransportError> {
        let (answer, answered) = oneshot::channel();
        let call = {
            let mut inner = self.net.lock();
            inner.next += 1;
            let call = inner.next;
            inner.waiting.insert(call, answer);
            call
        };
        let _waiting = Waiting { net: &self.net, call };
        let (name, zone) = self.net.place_of(to.addr);
        let from = self.end.clone();
        let message = |bytes| Message::Request(Request { call, from: from.clone(), to, channel, bytes });
        // A client's request is a stream of its own, which QUIC delivers once; Raft must bear its messages twice.
        let what = if channel == Channel::Client { What::Request } else { What::NodeRequest };
        self.net.send(what, (&self.end.name, &self.end.zone), (&name, &zone), message, request);
        let life = self.net.life(to.addr);
        let mut answered = answered;
        let mut left = limit;
        loop {
            let step = left.min(IDLE_MAX);
            match stoa_env::timeout(step, &mut answered).await {
                Ok(Ok(result)) => return result,
                Ok(Err(_)) => return Err(TransportError::Broken { addr: to.addr, reason: "the network ended".into() }),
                Err(_) => left -= step,
            }
            if left.is_zero() {
                return Err(TransportError::TimedOut { addr: to.addr, limit });
            }
            if self.net.life(to.addr) != life {
                return Err(TransportError::Broken { addr: to.addr, reason: "the peer has gone silent".into() });
            }
        }
    }
}
