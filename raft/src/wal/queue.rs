//! The one ordered queue between the callers and the writer.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use tokio::sync::Notify;

use super::frame::frame_bytes;
use super::options::GROUPS_MAX;
use super::{WalError, WalOptions, WalStats};

/// What a caller asks for.
#[derive(Debug)]
pub(super) enum Request {
    Append(Vec<(u64, Bytes)>),
    Vote(Bytes),
    Committed(Bytes),
    Truncate(Option<u64>),
    Purge(u64, Bytes),
    Forget,
    Close,
}

impl Request {
    /// Whether the caller is answered only after a sync.
    pub(super) fn needs_sync(&self) -> bool {
        !matches!(self, Self::Committed(_) | Self::Purge(..))
    }

    fn bytes(&self) -> u64 {
        match self {
            Self::Append(entries) => entries.iter().map(|(_, bytes)| frame_bytes(bytes.len())).sum(),
            Self::Vote(bytes) | Self::Committed(bytes) | Self::Purge(_, bytes) => frame_bytes(bytes.len()),
            Self::Truncate(_) | Self::Forget | Self::Close => frame_bytes(8),
        }
    }
}

type Done = Box<dyn FnOnce(Result<(), WalError>) + Send>;

/// Answers a caller exactly once: if nobody did, because the writer was dropped, it says so itself.
pub(super) struct Completion(Option<Done>);

impl Completion {
    pub(super) fn new(done: impl FnOnce(Result<(), WalError>) + Send + 'static) -> Self {
        Self(Some(Box::new(done)))
    }

    pub(super) fn answer(mut self, result: Result<(), WalError>) {
        if let Some(done) = self.0.take() {
            done(result);
        }
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            done(Err(writer_gone()));
        }
    }
}

fn writer_gone() -> WalError {
    WalError::failed("waiting for the writer", std::io::Error::other("the log's writer ended"))
}

/// A request in the queue.
pub(super) struct Op {
    pub group: u64,
    pub request: Request,
    pub bytes: u64,
    pub done: Completion,
}

/// The state both sides share.
pub(super) struct Queue {
    options: WalOptions,
    state: Mutex<State>,
    wake: Notify,
    /// Wakes those who wait for the end of the log.
    end: Notify,
}

#[derive(Default)]
struct State {
    ops: VecDeque<Op>,
    /// Bytes waiting or being written.
    bytes: u64,
    /// Bytes that were admitted and are not durable yet, whether they wait here or are still on their way.
    admitted: u64,
    /// Per group, the index that must be appended next, where that is known.
    next: BTreeMap<u64, Option<u64>>,
    suspects: std::collections::BTreeSet<u64>,
    /// Why nothing is taken any more.
    ended: Option<WalError>,
    /// All handles are gone.
    abandoned: bool,
    full: bool,
    stats: WalStats,
}

/// What the writer finds when it looks.
pub(super) enum Taken {
    Ops(Vec<Op>),
    Nothing,
    Abandoned,
}

impl Queue {
    pub(super) fn new(options: WalOptions, next: BTreeMap<u64, Option<u64>>, suspects: Vec<u64>) -> Self {
        let stats = WalStats { groups_worst: next.len() as u64, ..WalStats::default() };
        let state = State { next, suspects: suspects.into_iter().collect(), stats, ..State::default() };
        Self { options, state: Mutex::new(state), wake: Notify::new(), end: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(super) fn check(&self) -> Result<(), WalError> {
        self.lock().check(&self.options, 0)
    }

    /// Takes `bytes` of what may be under way, or refuses.
    pub(super) fn admit(&self, bytes: u64) -> Result<(), WalError> {
        let mut state = self.lock();
        state.check(&self.options, bytes)?;
        state.admitted += bytes;
        state.stats.admitted_bytes_worst = state.stats.admitted_bytes_worst.max(state.admitted);
        Ok(())
    }

    /// Gives back what [`Queue::admit`] took.
    pub(super) fn leave(&self, bytes: u64) {
        self.lock().admitted -= bytes;
    }

    pub(super) fn put(&self, group: u64, request: Request, done: Completion) -> Result<(), WalError> {
        let bytes = request.bytes();
        let closes = matches!(request, Request::Close);
        let refused = {
            let mut state = self.lock();
            match state.accept(group, &request) {
                Ok(()) => {
                    state.bytes += bytes;
                    state.stats.queue_bytes_worst = state.stats.queue_bytes_worst.max(state.bytes);
                    state.ops.push_back(Op { group, request, bytes, done });
                    None
                }
                Err(error) => Some((error, done)),
            }
        };
        match refused {
            None => {
                self.wake.notify_one();
                if closes {
                    self.end.notify_waiters();
                }
                Ok(())
            }
            Some((error, mut done)) => {
                done.0 = None; // a refusal is the answer; the callback is for what was accepted
                Err(error)
            }
        }
    }

    /// Takes what is pending, at most about `round_bytes` of it.
    pub(super) fn take(&self) -> Taken {
        let mut state = self.lock();
        let (mut bytes, mut ops) = (0, Vec::new());
        while let Some(op) = state.ops.front() {
            if !ops.is_empty() && bytes + op.bytes > self.options.round_bytes {
                break;
            }
            bytes += op.bytes;
            ops.extend(state.ops.pop_front());
        }
        match ops.is_empty() {
            false => Taken::Ops(ops),
            true if state.abandoned => Taken::Abandoned,
            true => Taken::Nothing,
        }
    }

    pub(super) async fn wait(&self) {
        self.wake.notified().await;
    }

    /// Bytes that were taken are written.
    pub(super) fn release(&self, bytes: u64) {
        self.lock().bytes -= bytes;
    }

    pub(super) fn abandon(&self) {
        self.lock().abandoned = true;
        self.wake.notify_one();
    }

    /// Ends the log: everything pending and everything later gets `error`.
    pub(super) fn end(&self, error: WalError) {
        let pending = {
            let mut state = self.lock();
            state.ended.get_or_insert(error.clone());
            std::mem::take(&mut state.ops)
        };
        for op in pending {
            op.done.answer(Err(error.clone()));
        }
        self.end.notify_waiters();
    }

    /// Waits until nothing is taken any more, and says why.
    pub(super) async fn ended(&self) -> WalError {
        loop {
            let mut woken = std::pin::pin!(self.end.notified());
            woken.as_mut().enable(); // before the look, so that an end between the two is not missed
            if let Some(error) = self.lock().ended.clone() {
                return error;
            }
            woken.await;
        }
    }

    pub(super) fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    pub(super) fn update_stats(&self, update: impl FnOnce(&mut WalStats)) {
        update(&mut self.lock().stats);
    }

    pub(super) fn stats(&self) -> WalStats {
        let state = self.lock();
        WalStats { queue_bytes: state.bytes, admitted_bytes: state.admitted, full: state.full, ..state.stats.clone() }
    }

    pub(super) fn options(&self) -> &WalOptions {
        &self.options
    }

    pub(super) fn is_ended(&self) -> bool {
        self.lock().ended.is_some()
    }
}

impl State {
    fn check(&self, options: &WalOptions, more: u64) -> Result<(), WalError> {
        if let Some(error) = &self.ended {
            return Err(error.clone());
        }
        if self.full {
            return Err(WalError::Full { wanted: options.reserve_bytes });
        }
        if self.stats.live_bytes >= options.max_live_bytes {
            return Err(WalError::Overgrown { live: self.stats.live_bytes, limit: options.max_live_bytes });
        }
        // One call is always admitted when nothing else is under way: it may be larger than the bound, and must not be
        // refused for ever.
        if self.admitted > 0 && self.admitted.saturating_add(more) > options.queue_bytes {
            return Err(WalError::Busy { queued: self.admitted, limit: options.queue_bytes });
        }
        Ok(())
    }

    /// Refuses what is wrong, or notes what the group's next entry must be. Never refuses for want of room: that was
    /// decided when the entries were admitted, and what nobody admits (votes, a leader's first entry, memberships,
    /// truncations and purges) is small and must go through.
    fn accept(&mut self, group: u64, request: &Request) -> Result<(), WalError> {
        if let Some(error) = &self.ended {
            return Err(error.clone());
        }
        if self.suspects.contains(&group) && !matches!(request, Request::Forget | Request::Close) {
            return Err(WalError::Suspect { group });
        }
        let makes_group = !matches!(request, Request::Forget | Request::Close) && !self.next.contains_key(&group);
        if makes_group && self.next.len() >= GROUPS_MAX {
            return Err(WalError::TooManyGroups { group, limit: GROUPS_MAX as u64 });
        }
        match request {
            Request::Append(entries) => {
                let mut next = self.next.get(&group).copied().flatten();
                for (got, _) in entries {
                    if let Some(expected) = next.filter(|expected| expected != got) {
                        return Err(WalError::Gap { group, expected, got: *got });
                    }
                    next = got.checked_add(1);
                }
                self.next.insert(group, next);
            }
            Request::Truncate(keep) => {
                let next = self.next.entry(group).or_default();
                *next = keep.and_then(|keep| keep.checked_add(1)).and_then(|keep| next.map(|next| next.min(keep)));
            }
            Request::Purge(upto, _) => {
                let next = self.next.entry(group).or_default();
                *next = upto.checked_add(1).map(|after| next.map_or(after, |next| next.max(after)));
            }
            Request::Forget => {
                self.next.remove(&group);
                self.suspects.remove(&group);
            }
            Request::Close => self.ended = Some(WalError::Closed),
            Request::Vote(_) | Request::Committed(_) => drop(self.next.entry(group).or_default()),
        }
        self.stats.groups_worst = self.stats.groups_worst.max(self.next.len() as u64);
        Ok(())
    }
}
