//! Somebody who writes rows that expire: to a group with a time to live of some seconds, with event times now and long ago,
//! ties, partial rows and deletes, each key by itself and each call after the last, and reads them at every level.
//!
//! So what stands of a key is known, and `judges/lifetimes.rs` knows what must be shown of it. A key of whose write nobody
//! knows the outcome is given up, and another one comes in its place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use stoa_client::{ReadLevel, ReadOptions, Rows, ValueStatus, View, WriteRow, WriterOptions};
use stoa_protocol::position::PartitionPosition;
use stoa_protocol::read::ConfirmBy;
use stoa_protocol::{ErrorClass, OnExpired, PartitionSetId, Position, Value};

use super::{CALL_LIMIT, Shared, is_of_the_future};
use crate::chance::Chance;
use crate::clock::WALL_BASE_US;
use crate::judges::Broken;
use crate::judges::lifetimes::{Gives, Lifetime, Put, Shown, Terms};
use crate::net::SimTransport;
use crate::plan::{FaultKind, Plan};
use crate::world::{SimClient, now};

const JUDGE: &str = "rows live as long as their group says";
/// The names of the group and the view, for those who look after the catalog.
pub(super) const GROUP: &str = "shop/aging@1";
/// Keys begin here: nobody else writes them.
const FIRST_KEY: i64 = 3_000_000;
/// Keys that are worked on at a time.
const KEYS: usize = 16;
const PAUSE_MAX: Duration = Duration::from_millis(60);
const TTL_S: i64 = 8;
const HORIZON_S: i64 = 8;

/// Calendars are off by a second in either direction, stamps are bounded a second above those of others, and a question
/// takes up to half of one; clocks drift within what is declared.
const AHEAD_US: i64 = 3_500_000;
/// A calendar is off by a second, and its partition's time is on its way.
const STAMP_BEHIND_US: i64 = 2_000_000;
/// And a leader lets the log be a second behind.
const BEHIND_US: i64 = 4_500_000;

/// A distance that nothing exceeds.
const FOR_EVER_US: i64 = i64::MAX / 8;

/// One key.
struct Key {
    number: i64,
    lifetime: Lifetime,
    /// What its writer has had acknowledged.
    position: Position,
    /// The event that was sent last, and its sequence.
    last: Option<(i64, u64)>,
}

/// The one who writes what expires.
pub struct Ager {
    client: SimClient,
    shared: Shared,
    chance: Chance,
    terms: Terms,
    keys: Vec<Key>,
    next_key: i64,
    next_sequence: u64,
}

impl Ager {
    /// One whose group is not defined yet.
    pub fn new(client: SimClient, shared: Shared, plan: &Plan) -> Self {
        let chance = Chance::new(plan.seed, "ager");
        let on_expired = *chance.pick(&[OnExpired::Expire, OnExpired::ServeLast]);
        // Where a device does not take what a leader would stamp, or clocks stop or jump, time may be behind.
        let holds_time = |kind: &FaultKind| {
            use FaultKind::{FailedSync, FullDisk, HungDisk, SlowDisk};
            kind.stops_clocks() || kind.jumps_calendars() || matches!(kind, FailedSync | FullDisk | HungDisk | SlowDisk)
        };
        let is_held = plan.faults.iter().any(holds_time);
        let jumps = plan.faults.iter().any(|kind| kind.jumps_calendars());
        let terms = Terms {
            ttl_us: TTL_S * 1_000_000,
            horizon_us: HORIZON_S * 1_000_000,
            on_expired,
            // Two calendars that are ahead within a moment of each other may bound each other.
            ahead_us: if jumps { FOR_EVER_US } else { AHEAD_US },
            stamp_behind_us: if is_held { FOR_EVER_US } else { STAMP_BEHIND_US },
            behind_us: (!is_held).then_some(BEHIND_US),
        };
        Self { client, shared, chance, terms, keys: Vec::new(), next_key: FIRST_KEY, next_sequence: 1 << 20 }
    }

    /// Works until told to stop.
    pub async fn work(mut self, stop: Arc<AtomicBool>) {
        let stopped = || stop.load(Ordering::Relaxed);
        let (writers, view, set) = loop {
            match self.open().await {
                Ok(opened) => break opened,
                Err(why) => self.shared.trace.note(format_args!("ager: {why}")),
            }
            if stopped() {
                return;
            }
            tokio::time::sleep(PAUSE_MAX * 4).await;
        };
        while !stopped() {
            while self.keys.len() < KEYS {
                let (number, lifetime) = (self.next_key, Lifetime::default());
                self.keys.push(Key { number, lifetime, position: Position::new(), last: None });
                self.next_key += 1;
            }
            let at = self.chance.below(KEYS as u64) as usize;
            let mut key = self.keys.swap_remove(at);
            let is_known = match self.chance.below(5) {
                0 | 1 => self.write(&mut key, &writers, set).await,
                _ => {
                    self.read(&key, &view).await;
                    true
                }
            };
            if is_known {
                self.keys.push(key);
            }
            tokio::time::sleep(self.chance.between(Duration::ZERO, PAUSE_MAX)).await;
        }
    }

    /// Defines the group and its view, until every node speaks of times to live, and opens them.
    async fn open(&self) -> Result<(Writers, View<SimTransport>, PartitionSetId), String> {
        let on_expired = match self.terms.on_expired {
            OnExpired::Expire => "expire",
            OnExpired::ServeLast => "serve_last",
        };
        let text = format!(
            "kind: feature_group\nproject: shop\nname: aging\nversion: 1\nentity: item\nevent_time: event_time\nttl: {TTL_S}s\n\
             on_expired: {on_expired}\nlate_horizon: {HORIZON_S}s\nfeatures: [{{name: first, type: Int64}}, {{name: second, \
             type: Int64}}]\n---\nkind: feature_view\nproject: shop\nname: aging\nversion: 1\nentities: [item]\nfeatures:\n\
             - {{group: {GROUP}, feature: first}}\n- {{group: {GROUP}, feature: second}}\n"
        );
        let definitions = stoa::definitions::parse_definitions("aging", &text).expect("definitions of our own");
        self.client.apply(definitions, CALL_LIMIT).await.map_err(|error| error.to_string())?;
        let group = self.client.group(GROUP).await.map_err(|error| error.to_string())?;
        let view = self.client.view(GROUP).await.map_err(|error| error.to_string())?;
        let options = WriterOptions { deadline: CALL_LIMIT, session: None, ..WriterOptions::default() };
        let writer = |features: &[&str]| group.writer(features, options).map_err(|error| error.to_string());
        let writers = Writers { both: writer(&["first", "second"])?, first: writer(&["first"])? };
        Ok((writers, view, group.definition().set))
    }

    /// True time.
    fn true_us(&self) -> i64 {
        WALL_BASE_US + (now() - self.shared.start).as_micros() as i64
    }

    /// Most events are of now; some are old, or expired when they come; some have the time of the one before, with a
    /// sequence above or below.
    fn draw_event(&mut self, last: Option<(i64, u64)>) -> (i64, u64) {
        let (second, now_us) = (1_000_000, self.true_us());
        self.next_sequence += 2 + self.chance.below(5);
        let back = |chance: &Chance, from: u64, to: u64| (from * second + chance.below((to - from) * second)) as i64;
        match (self.chance.below(10), last) {
            (0..=2, Some((time, sequence))) => {
                let below = self.chance.hits(500_000);
                (time, if below { sequence - 1 } else { self.next_sequence })
            }
            (3, _) => (now_us - back(&self.chance, 4, 9), self.next_sequence),
            (4, _) => (now_us - back(&self.chance, 10, 40), self.next_sequence),
            _ => (now_us - back(&self.chance, 0, 2), self.next_sequence),
        }
    }

    /// Writes a key; whether it is known what became of that.
    async fn write(&mut self, key: &mut Key, writers: &Writers, set: PartitionSetId) -> bool {
        let event = self.draw_event(key.last);
        let value = event.1 as i64;
        let (gives, values, writer) = match self.chance.below(10) {
            0..=1 => (Gives::Nothing, None, &writers.both),
            2..=4 => (Gives::First(value), Some(vec![Value::Int(value)]), &writers.first),
            _ => (Gives::Both(value), Some(vec![Value::Int(value); 2]), &writers.both),
        };
        let row = WriteRow { key: vec![key.number.into()], event_time: event.0, sequence: event.1, values };
        self.shared.trace.note(format_args!("age {} {event:?} {gives:?}", key.number));
        let sent = self.true_us();
        let result = writer.write_rows(&[row]).await.map(|mut results| results.pop());
        let put = Put { event, gives, between_us: (sent, self.true_us()) };
        let result = match result {
            Ok(Some(result)) => result,
            other => {
                self.broken(format!("a row that fits was refused: {other:?}"));
                return false;
            }
        };
        self.shared.trace.note(format_args!("aged {} {:?}", key.number, result.result));
        let answer = match result.result {
            Ok(answer) if !answer.repeated => answer,
            Ok(_) => return false,
            Err(error) => {
                if error.class() == ErrorClass::Reject && !(self.shared.calendars_jump && is_of_the_future(&error)) {
                    self.broken(format!("a row that fits was refused: {error}"));
                }
                return !error.may_have_happened();
            }
        };
        key.position.raise(PartitionPosition {
            set,
            incarnation: answer.incarnation,
            partition: result.partition,
            index: answer.index,
        });
        if answer.older.is_empty() {
            key.last = Some(event);
        }
        if let Some(what) = key.lifetime.answered(&self.terms, put, !answer.older.is_empty()) {
            self.broken(format!("key {}: {what}", key.number));
        }
        self.shared.lock().extra.aging_rows += 1;
        true
    }

    /// Reads a key at the position of its last write.
    async fn read(&mut self, key: &Key, view: &View<SimTransport>) {
        let level = match self.chance.below(3) {
            0 => ReadLevel::Linearizable { by: ConfirmBy::ReadIndex },
            _ => ReadLevel::default(),
        };
        let mut rows = Rows::new(&["id"]);
        rows.push(&[key.number.into()]).expect("one key column, one value");
        let at_least = Some(key.position.clone());
        let options = ReadOptions { deadline: CALL_LIMIT, at_least, level, ..ReadOptions::default() };
        let asked = self.true_us();
        let answer = match view.get(&rows, &options).await {
            Ok(answer) => answer,
            Err(error) => return self.broken(format!("a read that fits was refused: {error}")),
        };
        let columns: Vec<_> = answer.columns().collect();
        let status = columns[0].status(0);
        if status == ValueStatus::Unavailable {
            return;
        }
        let age = match level {
            ReadLevel::Linearizable { .. } => Some(Duration::ZERO),
            ReadLevel::Local { .. } => answer.age(0, 0),
        };
        let shown = Shown {
            status,
            event_time: answer.event_time(0, 0),
            values: [columns[0].to_value(0), columns[1].to_value(0)],
            between_us: (asked, self.true_us()),
            age_us: age.map(|age| age.as_micros() as i64),
        };
        self.shared.trace.note(format_args!("shown {} {shown:?} {level:?}", key.number));
        {
            let mut inner = self.shared.lock();
            inner.extra.aging_reads += 1;
            inner.extra.expired_reads += u64::from(status == ValueStatus::Expired);
        }
        if let Some(what) = key.lifetime.shown(&self.terms, &shown) {
            self.broken(format!("key {} at {level:?}: {what}", key.number));
        }
    }

    fn broken(&self, what: String) {
        self.shared.lock().broken.push(Broken { judge: JUDGE, what });
    }
}

/// Those who give both features, and the first alone.
struct Writers {
    both: stoa_client::GroupWriter<SimTransport>,
    first: stoa_client::GroupWriter<SimTransport>,
}
