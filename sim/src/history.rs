//! What clients have written and read, as they know it: the oracle that the judges ask.

use std::collections::BTreeMap;
use std::time::Duration;

use stoa_protocol::Value;
use stoa_protocol::read::ReadLevel;
use tokio::time::Instant;

use crate::rows::{FEATURES, Features, What, number_of, value_of};
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

/// What an answer says of a row that it acknowledges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Took {
    /// Nothing: the answer is missing, or is that of a call that was repeated.
    Untold,
    /// It was the newest when its turn came.
    Applied,
    /// A newer event was there, and it changed nothing.
    Older,
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
    /// What it says of the row.
    pub what: What,
    /// When it was sent, in order of the history.
    pub sent: u64,
    /// What became of it.
    pub known: Known,
    /// What its answer says of the row.
    pub took: Took,
}

impl Write {
    /// Whether it deletes its row.
    pub fn deletes(&self) -> bool {
        self.what == What::Delete
    }

    /// Whether it gives a feature a value.
    pub fn gives(&self, feature: usize) -> bool {
        matches!(self.what, What::Update(features) if features.has(feature))
    }

    /// Whether it gives some features values, and not all.
    pub fn is_partial(&self) -> bool {
        matches!(self.what, What::Update(features) if features != Features::ALL)
    }

    /// Its number.
    pub fn number(&self) -> u64 {
        self.event.1
    }
}

/// A row as it was read: `None` for no row.
#[derive(Debug, Clone, PartialEq)]
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
#[derive(Debug, Clone, PartialEq)]
pub struct SeenRow {
    /// Its event time: that of the newest event that was applied, whichever features it gave.
    pub event_time: i64,
    /// A value or null for each of [`FEATURES`].
    pub values: Vec<Value>,
}

/// How new a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// As new as the replica has it.
    Any,
    /// At least as new as what this client has had acknowledged.
    OwnWrites,
    /// All that was ever acknowledged: the audits after all is healed.
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
    /// The events of each key in their order, and the numbers of their writes.
    by_event: BTreeMap<(i64, Event), usize>,
    /// The true time of each moment.
    times: Vec<Instant>,
    /// What strong reads of a key have shown: when they ended, and the event that has certainly been reached by then. Both
    /// ascending.
    shown: BTreeMap<i64, Vec<(u64, Event)>>,
}

impl History {
    /// Nothing yet.
    pub fn new(rule: Rule) -> Self {
        let (by_key, by_event) = (BTreeMap::new(), BTreeMap::new());
        Self { rule, writes: Vec::new(), by_key, by_event, times: Vec::new(), shown: BTreeMap::new() }
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
            return self.top(seen.key, row).map(|write| write.event);
        }
        // No row: nothing has been reached, or a delete, and that one of those that are not ruled out.
        let acknowledged = self.winner(seen.key, seen.sent, |_| true).map(|write| write.event);
        let shown = self.shown_before(seen.key, seen.sent);
        let least = [acknowledged, shown].into_iter().flatten().reduce(|a, b| if self.beats(a, b) { a } else { b })?;
        let deletes = self.of(seen.key).filter(|write| write.deletes() && write.known != Known::Failed);
        let may_be = deletes.map(|write| write.event).filter(|event| *event == least || self.beats(*event, least));
        may_be.reduce(|a, b| if self.beats(a, b) { b } else { a })
    }

    /// Notes a write that is about to be sent, and gives its number.
    pub fn send(&mut self, client: usize, key: i64, event_time: i64, what: What) -> u64 {
        let sent = self.tick();
        let number = self.writes.len();
        let event = (event_time, number as u64);
        self.writes.push(Write { client, key, event, what, sent, known: Known::Open, took: Took::Untold });
        self.by_key.entry(key).or_default().push(number);
        self.by_event.insert((key, event), number);
        number as u64
    }

    /// Notes that a write was acknowledged, and what the answer says of it.
    pub fn acknowledge(&mut self, number: u64, took: Took) {
        let moment = self.tick();
        let write = &mut self.writes[number as usize];
        (write.known, write.took) = (Known::Acknowledged(moment), took);
    }

    /// Notes that a write has not happened and will not.
    pub fn fail(&mut self, number: u64) {
        self.tick();
        self.writes[number as usize].known = Known::Failed;
    }

    /// The write whose event a row shows: of the updates with its event time the newest all of whose values stand, or else
    /// the newest.
    pub fn top(&self, key: i64, row: &SeenRow) -> Option<&Write> {
        let (first, last) = ((row.event_time, 0), (row.event_time, u64::MAX));
        let at_time = self.by_event.range((key, first)..=(key, last)).rev().map(|(_, at)| &self.writes[*at]);
        let updates = || at_time.clone().filter(|write| !write.deletes());
        let stands = |write: &&Write| {
            let own = |feature: &usize| write.gives(*feature);
            let value = |feature: usize| value_of(write.number(), feature) == row.values[feature];
            (0..FEATURES.len()).filter(own).all(value)
        };
        updates().find(stands).or_else(|| updates().next())
    }

    /// The writes that the values of a row say they are of, as far as that may be, and the one whose event it shows.
    pub fn shown_in(&self, key: i64, row: &SeenRow) -> Vec<&Write> {
        let told = row.values.iter().enumerate().filter_map(|(feature, value)| {
            let write = self.write(number_of(value)?)?;
            (write.key == key && write.gives(feature)).then_some(write)
        });
        told.chain(self.top(key, row)).collect()
    }

    /// The values that a feature may have once event `top` of a key is the newest that was applied. What is applied is
    /// applied in the order of events, whatever the order of arrival: an event that comes too late changes nothing. So one
    /// goes back from `top` to the newest event that gave the feature a value and is `sure` to have been applied, and
    /// every one on the way may have been.
    pub fn may_stand(&self, key: i64, feature: usize, top: Event, sure: impl Fn(&Write) -> bool) -> Vec<Value> {
        let mut values = Vec::new();
        for (_, &at) in self.by_event.range((key, (i64::MIN, 0))..=(key, top)).rev() {
            let write = &self.writes[at];
            let is_sure = write.event == top || sure(write);
            let may_be = write.known != Known::Failed && write.took != Took::Older;
            if !(is_sure || may_be) {
                continue;
            }
            match write.what {
                What::Delete => values.push(Value::Null),
                What::Update(features) if features.has(feature) => {
                    values.push(value_of(write.number(), feature));
                }
                What::Update(_) => continue,
            }
            if is_sure {
                return values;
            }
        }
        values.push(Value::Null);
        values
    }

    /// A write by its number.
    pub fn write(&self, number: u64) -> Option<&Write> {
        self.writes.get(usize::try_from(number).ok()?)
    }

    /// All writes of a key.
    pub fn of(&self, key: i64) -> impl Iterator<Item = &Write> {
        self.by_key.get(&key).into_iter().flatten().map(|at| &self.writes[*at])
    }

    /// How many rows of a client's writes are open.
    pub fn open_of(&self, client: usize) -> u64 {
        self.writes.iter().filter(|write| write.client == client && write.known == Known::Open).count() as u64
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
