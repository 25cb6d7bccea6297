//! What clients have written and read, as they know it: the oracle that the judges ask.

use std::collections::BTreeMap;
use std::time::Duration;

use stoa_protocol::read::ReadLevel;
use tokio::time::Instant;

use crate::world::now;

/// The place of an event among those of its key: event time, then the source's sequence, which is the write's number.
pub type Event = (i64, u64);

/// What a client knows of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// It is under way, or nobody knows what became of it.
    Open,
    /// It was acknowledged at this moment (in order of the history).
    Acknowledged(u64),
    /// The client was told that it has not happened and will not.
    Failed,
}

/// One row of one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Write {
    /// Who wrote it.
    pub client: usize,
    /// Its key.
    pub key: i64,
    /// Its event.
    pub event: Event,
    /// Whether it deletes.
    pub delete: bool,
    /// When it was sent, in order of the history.
    pub sent: u64,
    /// What became of it.
    pub known: Known,
}

/// A row as it was read: `None` for no row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Who read it.
    pub client: usize,
    /// The key.
    pub key: i64,
    /// When the read was sent, in order of the history.
    pub sent: u64,
    /// How much was demanded of it.
    pub demand: Demand,
    /// The level it was asked at.
    pub level: ReadLevel,
    /// How old the answer says that it may be.
    pub age: Option<Duration>,
    /// Whether the answer is marked as older than allowed.
    pub stale: bool,
    /// Event time and values, if a row was found.
    pub row: Option<SeenRow>,
}

/// A row that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenRow {
    /// Its event time.
    pub event_time: i64,
    /// The number, if present.
    pub number: Option<i64>,
    /// The text, if present.
    pub text: Option<String>,
}

/// How new a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// As new as the replica has it.
    Any,
    /// At least as new as what this client has had acknowledged.
    OwnWrites,
    /// All that was ever acknowledged: the audit at the end.
    All,
}

/// Which of two events of a key stays. A run has `Newest`; the others are for judges that are themselves judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The newest event time.
    Newest,
    /// The oldest.
    Oldest,
}

/// All writes by number, those of each key, and all reads that somebody judges.
#[derive(Debug)]
pub struct History {
    /// The rule.
    pub rule: Rule,
    writes: Vec<Write>,
    by_key: BTreeMap<i64, Vec<usize>>,
    /// The true time of each moment.
    times: Vec<Instant>,
    /// What strong reads of a key have shown: when they ended, and the event that has certainly been reached by then. Both
    /// ascending.
    shown: BTreeMap<i64, Vec<(u64, Event)>>,
}

/// The text that goes with a number: half a row is one whose text is another's.
pub fn text_of(number: u64) -> String {
    format!("value {number} of a row that is whole")
}

impl History {
    /// Nothing yet.
    pub fn new(rule: Rule) -> Self {
        Self { rule, writes: Vec::new(), by_key: BTreeMap::new(), times: Vec::new(), shown: BTreeMap::new() }
    }

    /// The next moment.
    pub fn tick(&mut self) -> u64 {
        self.times.push(now());
        self.times.len() as u64
    }

    /// The moment before which lies everything that had happened by a true time, and nothing that came later.
    pub fn moment_at(&self, time: Instant) -> u64 {
        self.times.partition_point(|at| *at <= time) as u64 + 1
    }

    /// The true time of a moment that has been.
    pub fn time_of(&self, moment: u64) -> Instant {
        self.times[moment as usize - 1]
    }

    /// Notes what a strong read has shown that has just ended: whatever strong read begins from now on shows no less.
    pub fn note_strong(&mut self, seen: &Seen) {
        let least = self.least_shown(seen);
        let ended = self.tick();
        let Some(event) = least else { return };
        let known = self.shown.get(&seen.key).and_then(|all| all.last()).map(|(_, event)| *event);
        if known.is_none_or(|known| self.beats(event, known)) {
            self.shown.entry(seen.key).or_default().push((ended, event));
        }
    }

    /// The event that strong reads of a key have shown that ended before a moment.
    pub fn shown_before(&self, key: i64, moment: u64) -> Option<Event> {
        let all = self.shown.get(&key)?;
        let ended = all.partition_point(|(at, _)| *at < moment);
        Some(all[ended.checked_sub(1)?].1)
    }

    /// The least event that must have been reached for a read to show what it did.
    fn least_shown(&self, seen: &Seen) -> Option<Event> {
        if let Some(row) = &seen.row {
            return self.write(row.number? as u64).map(|write| write.event);
        }
        // No row: nothing has been reached, or a delete, and that one of those that are not ruled out.
        let acknowledged = self.winner(seen.key, seen.sent, |_| true).map(|write| write.event);
        let shown = self.shown_before(seen.key, seen.sent);
        let least = [acknowledged, shown].into_iter().flatten().reduce(|a, b| if self.beats(a, b) { a } else { b })?;
        let deletes = self.of(seen.key).filter(|write| write.delete && write.known != Known::Failed);
        let may_be = deletes.map(|write| write.event).filter(|event| *event == least || self.beats(*event, least));
        may_be.reduce(|a, b| if self.beats(a, b) { b } else { a })
    }

    /// Notes a write that is about to be sent, and gives its number.
    pub fn send(&mut self, client: usize, key: i64, event_time: i64, delete: bool) -> u64 {
        let sent = self.tick();
        let number = self.writes.len();
        let event = (event_time, number as u64);
        self.writes.push(Write { client, key, event, delete, sent, known: Known::Open });
        self.by_key.entry(key).or_default().push(number);
        number as u64
    }

    /// Notes what became of a write.
    pub fn settle(&mut self, number: u64, acknowledged: bool) {
        let moment = self.tick();
        let known = if acknowledged { Known::Acknowledged(moment) } else { Known::Failed };
        self.writes[number as usize].known = known;
    }

    /// A write by its number.
    pub fn write(&self, number: u64) -> Option<&Write> {
        self.writes.get(usize::try_from(number).ok()?)
    }

    /// All writes of a key.
    pub fn of(&self, key: i64) -> impl Iterator<Item = &Write> {
        self.by_key.get(&key).into_iter().flatten().map(|at| &self.writes[*at])
    }

    /// Every key that was ever written.
    pub fn keys(&self) -> Vec<i64> {
        self.by_key.keys().copied().collect()
    }

    /// Rows that were acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.writes.iter().filter(|write| matches!(write.known, Known::Acknowledged(_))).count() as u64
    }

    /// Whether `a` stays where `b` is.
    pub fn beats(&self, a: Event, b: Event) -> bool {
        match self.rule {
            Rule::Newest => a > b,
            Rule::Oldest => a < b,
        }
    }

    /// The write of a key that must have won among those acknowledged before `moment` that `counts` picks.
    pub fn winner(&self, key: i64, moment: u64, counts: impl Fn(&Write) -> bool) -> Option<&Write> {
        let known = self.of(key).filter(|write| match write.known {
            Known::Acknowledged(at) => at < moment && counts(write),
            _ => false,
        });
        known.reduce(|best, write| if self.beats(write.event, best.event) { write } else { best })
    }
}
