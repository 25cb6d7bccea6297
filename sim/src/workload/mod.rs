//! What clients do: writes with event times out of order, deletes, and multi-gets, over the client crate as it is
//! shipped. Everything is noted in the history, and every row that is read is judged at once.

mod ager;
pub mod definer;
mod extra;
mod levels;
pub mod lives;
pub mod loader;
pub mod moves;
mod partial;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use stoa_client::{BatchResult, ReadLevel, ReadOptions, Rows, ValueStatus, View, WriteError, WriteRow, WriterOptions};
use stoa_protocol::position::PartitionPosition;
use stoa_protocol::{ErrorClass, ErrorCode, FeatureType, PartitionSetId, Position};

use tokio::time::Instant;

use crate::chance::Chance;
use crate::clock::WALL_BASE_US;
use crate::history::{Demand, History, Seen, SeenRow, Took, Write};
use crate::judges::{Broken, judge_read, newest_wins};
use crate::net::SimTransport;
use crate::plan::Plan;
use crate::rows::{FEATURES, What, typed, untyped, value_of};
use crate::trace::Trace;
use crate::world::{SimClient, now};
pub use ager::Ager;
pub use extra::ExtraCounts;
pub use levels::LevelCounts;
use levels::Levels;
use lives::LIFE_STRIDE;
use partial::{FeatureWriter, Partial};

/// The catalog of a run.
pub const CATALOG: &str = "
kind: project
name: shop
---
kind: entity
name: item
keys: [{name: id, type: Int64}]
---
kind: feature_group
project: shop
name: row
version: 1
entity: item
event_time: event_time
features:
  - {name: number, type: Int32}
  - {name: text, type: String}
  - {name: real, type: Float32}
  - {name: flag, type: Bool}
  - {name: items, type: Array<Int64>}
  - {name: vector, type: 'FixedArray<Float32, 4>'}
---
kind: feature_view
project: shop
name: row
version: 1
entities: [item]
features:
  - {group: shop/row@1, feature: number}
  - {group: shop/row@1, feature: text}
  - {group: shop/row@1, feature: real}
  - {group: shop/row@1, feature: flag}
  - {group: shop/row@1, feature: items}
  - {group: shop/row@1, feature: vector}
";
const NAME: &str = "shop/row@1";
/// Event times lie within so much before the present, in no order: most writes of a key win, and some come too late.
const EVENT_SPAN_US: u64 = 2_000_000;
/// One write in so many is of an event that happened long before.
const OLD_EVENTS: u64 = 10;
/// How long a client waits that is not hasty.
pub(crate) const CALL_LIMIT: Duration = Duration::from_secs(2);
/// Where something strikes, clients differ in how long they wait for a read, and for a write, in milliseconds: few wait
/// for as long as an election takes.
const READ_PATIENCE_MS: [u64; 6] = [50, 50, 150, 150, 500, 2_000];
const WRITE_PATIENCE_MS: [u64; 3] = [400, 1_000, 2_000];
/// By so much clients are faster once the planned time is over, and they have not done enough.
const HURRY: u32 = 4;
/// By so much a call may be late: timers have a grain.
const GRACE: Duration = Duration::from_millis(10);
const IN_TIME: &str = "a call ends by its deadline";
const ROWS_OF_WRITE_MAX: u64 = 3;
const ROWS_OF_READ_MAX: u64 = 10;

/// What all clients have in common.
#[derive(Clone)]
pub struct Shared {
    inner: Arc<Mutex<Inner>>,
    trace: Trace,
    /// Whether nothing strikes, so that nothing may be missing either.
    calm: bool,
    /// Whether calendars may be so far behind that a leader takes an event for one of the future.
    calendars_jump: bool,
    start: Instant,
}

struct Inner {
    history: History,
    broken: Vec<Broken>,
    writes: u64,
    rows_read: u64,
    reads: u64,
    unavailable: u64,
    levels: LevelCounts,
    extra: ExtraCounts,
}

/// What clients have done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Write calls that were acknowledged: batches, each of the rows of one partition. Those of loads do not count.
    pub writes: u64,
    /// Rows in them.
    pub acknowledged: u64,
    /// Multi-gets that gave at least one row.
    pub reads: u64,
    /// Rows in them that were judged.
    pub rows_read: u64,
    /// Rows that no replica gave within the deadline.
    pub unavailable: u64,
    /// Rows that were judged, by level.
    pub levels: LevelCounts,
    /// What was done besides.
    pub extra: ExtraCounts,
}

impl Shared {
    /// Nothing has happened yet.
    pub fn new(history: History, trace: Trace, plan: &Plan) -> Self {
        let inner = Inner {
            history,
            broken: Vec::new(),
            writes: 0,
            rows_read: 0,
            reads: 0,
            unavailable: 0,
            levels: LevelCounts::default(),
            extra: ExtraCounts::default(),
        };
        let (calm, calendars_jump) = (plan.faults.is_empty(), plan.faults.iter().any(|kind| kind.jumps_calendars()));
        Self { inner: Arc::new(Mutex::new(inner)), trace, calm, calendars_jump, start: now() }
    }

    /// As in a run in which something strikes: nobody promises that every read is answered.
    pub fn with_faults(self) -> Self {
        Self { calm: false, ..self }
    }

    /// What was not kept so far.
    pub fn broken(&self) -> Vec<Broken> {
        self.lock().broken.clone()
    }

    /// Every key that was ever written, or was to be.
    pub fn keys_written(&self) -> Vec<i64> {
        self.lock().history.keys()
    }

    /// What was done so far.
    pub fn counts(&self) -> Counts {
        let inner = self.lock();
        let Inner { history, writes, rows_read, reads, unavailable, levels, extra, .. } = &*inner;
        Counts {
            writes: *writes,
            acknowledged: history.acknowledged() - extra.loaded_rows,
            reads: *reads,
            rows_read: *rows_read,
            unavailable: *unavailable,
            levels: *levels,
            extra: *extra,
        }
    }

    /// A client has ended in the middle of its work.
    fn note_death(&self, client: usize) {
        let mut inner = self.lock();
        let orphaned = inner.history.open_of(client);
        self.trace.note(format_args!("death c{client}, {orphaned} rows under way"));
        inner.extra.deaths += 1;
        inner.extra.orphaned += orphaned;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// One client at work.
pub struct Worker {
    number: usize,
    shared: Shared,
    chance: Chance,
    keys: i64,
    pace: Duration,
    /// From when on it hurries.
    late: Instant,
    view: View<SimTransport>,
    writer: FeatureWriter,
    partial: Partial,
    /// Of each step of a write.
    deadline: Duration,
    set: PartitionSetId,
    /// What this client has had acknowledged.
    own: Position,
    levels: Levels,
}

impl Worker {
    /// A client that has opened group and view. Every second one writes in a session.
    pub async fn open(number: usize, client: &SimClient, shared: &Shared, plan: &Plan) -> Result<Self, String> {
        let chance = Chance::new(plan.seed, &format!("worker {number}"));
        let group = client.group(NAME).await.map_err(|e| e.to_string())?;
        let view = client.view(NAME).await.map_err(|e| e.to_string())?;
        let session = number.is_multiple_of(2).then(|| u128::from(chance.bits()) + 1);
        let at_work = number % LIFE_STRIDE < plan.clients && !shared.calm;
        let patience =
            Duration::from_millis(*Chance::new(plan.seed, &format!("patience {number}")).pick(&WRITE_PATIENCE_MS));
        let deadline = if at_work { patience } else { CALL_LIMIT };
        let options = WriterOptions { deadline, session, ..WriterOptions::default() };
        let set = group.definition().set;
        let writer = FeatureWriter::open(&group, (0..FEATURES.len()).collect(), options)?;
        let partial = Partial::open(&group, plan, number, options)?;
        let (shared, own, levels) = (shared.clone(), Position::new(), Levels::new(plan, number));
        let (keys, pace, late) = (plan.keys, plan.pace, shared.start + plan.chaos);
        Ok(Self { number, shared, chance, keys, pace, late, view, writer, partial, deadline, set, own, levels })
    }

    /// Works until it is told to stop, and is then as it was: with the group and the view that it opened at first.
    pub async fn work(mut self, stop: Arc<AtomicBool>) -> Self {
        while !stop.load(Ordering::Relaxed) {
            match self.chance.below(10) {
                0..=2 => self.write().await,
                3..=7 => self.read(Demand::Any).await,
                _ => self.read(Demand::OwnWrites).await,
            }
            let pace = if now() > self.late { self.pace / HURRY } else { self.pace };
            tokio::time::sleep(self.chance.between(Duration::ZERO, pace)).await;
        }
        self
    }

    /// Its name in a trace.
    pub fn name(&self) -> String {
        format!("c{}", self.number)
    }

    fn some_keys(&self, max: u64) -> Vec<i64> {
        let mut keys: Vec<i64> =
            (0..=self.chance.below(max)).map(|_| self.chance.below(self.keys as u64) as i64).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    async fn write(&mut self) {
        let keys = self.some_keys(ROWS_OF_WRITE_MAX);
        self.write_keys(&keys).await;
    }

    /// Writes a new row of each key, or some features of each; whether all were acknowledged.
    pub async fn write_keys(&mut self, keys: &[i64]) -> bool {
        let FeatureWriter { features, order, types, writer } = self.partial.draw().unwrap_or(&self.writer);
        let (mut rows, mut numbers) = (Vec::new(), Vec::new());
        for &key in keys {
            let before = match self.chance.below(OLD_EVENTS) {
                0 => self.chance.below(20 * EVENT_SPAN_US),
                _ => self.chance.below(EVENT_SPAN_US),
            };
            let event_time = WALL_BASE_US + (now() - self.shared.start).as_micros() as i64 - before as i64;
            let delete = self.chance.hits(100_000);
            let what = if delete { What::Delete } else { What::Update(*features) };
            let number = self.shared.lock().history.send(self.number, key, event_time, what);
            let value = |(feature, ty): (&usize, &FeatureType)| typed(value_of(number, *feature), *ty);
            let values = (!delete).then(|| order.iter().zip(types).map(value).collect());
            rows.push(WriteRow { key: vec![key.into()], event_time, sequence: number, values });
            numbers.push(number);
        }
        self.shared.trace.note(format_args!("write c{} {keys:?} {numbers:?} {order:?}", self.number));
        // One batch of a partition: at the most a wait for the session, its place, an earlier batch that is settled, twice
        // and with its place, and this one likewise, each within the deadline.
        let limit = self.deadline * 8 + GRACE;
        let results = match stoa_env::timeout(limit, writer.write_rows(&rows)).await {
            Err(_) => {
                let what = format!("a write of {} has no result after {limit:?}", self.name());
                self.shared.lock().broken.push(Broken { judge: IN_TIME, what });
                return false;
            }
            Ok(Ok(results)) => results,
            Ok(Err(error)) => {
                let what = format!("rows that fit were refused: {error}");
                self.shared.lock().broken.push(Broken { judge: "what fits is taken", what });
                return false;
            }
        };
        let mut told: Vec<u32> = results.iter().flat_map(|result| result.rows.clone()).collect();
        told.sort_unstable();
        if !told.into_iter().eq(0..rows.len() as u32) {
            let what = format!("{} rows were written, and told was {results:?}", rows.len());
            self.shared.lock().broken.push(Broken { judge: "every row's outcome is told once", what });
        }
        // Every one of them, also after one that failed: what is not settled is judged by nobody.
        let taken = results.iter().filter(|result| self.settle(result, &numbers)).count();
        taken == results.len()
    }

    fn settle(&mut self, result: &BatchResult, numbers: &[u64]) -> bool {
        let mut inner = self.shared.lock();
        let Inner { history, broken, writes, extra, .. } = &mut *inner;
        let rows: Vec<u64> = result.rows.iter().map(|&row| numbers[row as usize]).collect();
        match &result.result {
            Ok(answer) => {
                *writes += 1;
                self.shared.trace.note(format_args!("wrote c{} {rows:?} at {}", self.number, answer.index));
                for (place, &number) in rows.iter().enumerate() {
                    let older = answer.older.contains(&(place as u32));
                    let took = match older {
                        _ if answer.repeated => Took::Untold,
                        true => Took::Older,
                        false => Took::Applied,
                    };
                    history.acknowledge(number, took);
                    extra.partial_rows += u64::from(history.write(number).is_some_and(Write::is_partial));
                    if answer.repeated {
                        continue;
                    }
                    if let Some(what) = newest_wins::judge_answer(history, number, older) {
                        broken.push(Broken { judge: "the newest event time wins", what });
                    }
                }
                self.own.raise(PartitionPosition {
                    set: self.set,
                    incarnation: answer.incarnation,
                    partition: result.partition,
                    index: answer.index,
                });
                true
            }
            Err(error) => {
                let open = error.may_have_happened();
                self.shared.trace.note(format_args!("failed c{} {rows:?} open {open} {error}", self.number));
                if error.class() == ErrorClass::Reject && !(self.shared.calendars_jump && is_of_the_future(error)) {
                    let what = format!("a batch that fits was refused: {error}");
                    broken.push(Broken { judge: "what fits is taken", what });
                }
                if !open {
                    rows.iter().for_each(|&number| history.fail(number));
                }
                false
            }
        }
    }

    async fn read(&mut self, demand: Demand) {
        let keys = self.some_keys(ROWS_OF_READ_MAX);
        self.read_keys(&keys, demand).await;
    }

    /// Reads keys and judges what came; whether all of them were answered.
    pub async fn read_keys(&mut self, keys: &[i64], demand: Demand) -> bool {
        let level = if demand == Demand::All { ReadLevel::default() } else { self.levels.draw() };
        let hasty = demand != Demand::All && !self.shared.calm;
        let patience = if hasty { Duration::from_millis(*self.chance.pick(&READ_PATIENCE_MS)) } else { CALL_LIMIT };
        self.read_at(keys, demand, level, patience).await
    }

    /// As [`read_keys`](Self::read_keys), at this level and with this time.
    pub async fn read_at(&mut self, keys: &[i64], demand: Demand, level: ReadLevel, deadline: Duration) -> bool {
        let mut rows = Rows::new(&["id"]);
        keys.iter().for_each(|&key| rows.push(&[key.into()]).expect("one key column, one value"));
        let at_least = (demand == Demand::OwnWrites).then(|| self.own.clone());
        let sent = self.shared.lock().history.tick();
        self.shared.trace.note(format_args!("read c{} {keys:?} {demand:?} {level:?}", self.number));
        let options = ReadOptions { deadline, at_least, level, ..ReadOptions::default() };
        let answer = match stoa_env::timeout(deadline + GRACE, self.view.get(&rows, &options)).await {
            Err(_) => {
                let what = format!("a read of {} with {deadline:?} to go has no answer {GRACE:?} later", self.name());
                self.shared.lock().broken.push(Broken { judge: IN_TIME, what });
                return false;
            }
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) if self.levels.is_unknown(level, &error) => return false,
            Ok(Err(error)) => {
                let what = format!("a read that fits was refused: {error}");
                self.shared.lock().broken.push(Broken { judge: "what fits is taken", what });
                return false;
            }
        };
        let columns = FEATURES.map(|name| answer.column(name).expect("the view has them all"));
        let mut inner = self.shared.lock();
        let Inner { history, broken, rows_read, reads, unavailable, levels, .. } = &mut *inner;
        let (mut whole, mut answered) = (true, false);
        for (row, &key) in keys.iter().enumerate() {
            let status = columns[0].status(row);
            if status == ValueStatus::Unavailable {
                whole = false;
                *unavailable += 1;
                if self.shared.calm {
                    let what = format!("key {key}: {:?}", answer.stats());
                    broken.push(Broken { judge: "nothing is unavailable in a calm cluster", what });
                }
                continue;
            }
            let seen_row = answer.event_time(row, 0).map(|event_time| SeenRow {
                event_time,
                values: columns.iter().map(|column| untyped(column.to_value(row))).collect(),
            });
            let age = self.levels.age(answer.age(row, 0));
            let stale = status == ValueStatus::Stale;
            self.shared.trace.note(format_args!("saw c{} {key} {seen_row:?} {age:?} {stale}", self.number));
            *rows_read += 1;
            answered = true;
            let seen = Seen { client: self.number, key, sent, demand, level, age, stale, row: seen_row };
            broken.extend(judge_read(history, &seen));
            levels.note(&seen);
            if let ReadLevel::Linearizable { .. } = level {
                history.note_strong(&seen);
            }
        }
        *reads += u64::from(answered);
        whole
    }
}

/// Whether a leader whose calendar is behind took a batch for one of the future, as it may.
fn is_of_the_future(error: &WriteError) -> bool {
    let WriteError::Rejected(last) = error else { return false };
    last.refusal().is_some_and(|refusal| refusal.code == ErrorCode::EventInFuture)
}
