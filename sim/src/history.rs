//! What clients have written and read, as they know it: the oracle that the judges ask.

use std::collections::BTreeMap;

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
    moment: u64,
}

/// The text that goes with a number: half a row is one whose text is another's.
pub fn text_of(number: u64) -> String {
    format!("value {number} of a row that is whole")
}

impl History {
    /// Nothing yet.
    pub fn new(rule: Rule) -> Self {
        Self { rule, writes: Vec::new(), by_key: BTreeMap::new(), moment: 0 }
    }

    /// The next moment.
    pub fn tick(&mut self) -> u64 {
        self.moment += 1;
        self.moment
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
