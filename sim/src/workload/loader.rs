//! Bulk loads while faults strike: files' worth of rows, each key once, that a loader cuts into batches and sends under the
//! session of the load, by the code that `stoa load` runs once it has read its file ([`Batcher`], [`Lanes`],
//! [`load_session_id`]). What reads files does so on threads of its own and is not here.
//!
//! A load ends, or says what is not loaded; or it dies in the middle. Then the same load is run again, until all of it is
//! acknowledged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use stoa::load::{Batcher, LaneFailure, Lanes, LoadIdentity, LoadReport, LoadRow, ReadyBatch, Silent, load_session_id};
use stoa_client::ReadLevel;
use stoa_protocol::key::{encode_key, partition_hash};
use stoa_protocol::{KeyType, KeyValue, PartitionId};

use super::{NAME, Shared, Worker};
use crate::chance::Chance;
use crate::clock::WALL_BASE_US;
use crate::history::{Demand, Took};
use crate::judges::Broken;
use crate::plan::Plan;
use crate::rows::{Features, What, typed, value_of};
use crate::world::{SimClient, now};

/// The loader's number among clients.
pub(super) const LOADER: usize = 500;
/// The keys of loads begin here: nobody else writes them.
const FIRST_KEY: i64 = 1_000_000;
const ROWS_OF_LOAD: (u64, u64) = (100, 700);
const ROWS_OF_BATCH: (u64, u64) = (4, 64);
/// Rows that a run loads at the most: what is loaded is judged key by key in the end.
const ROWS_MAX: usize = 2_500;
/// One run of a load in so many is ended in the middle.
const DEATHS: u64 = 3;
const STOP_POLL: Duration = Duration::from_millis(50);
const JUDGE: &str = "a load says what is loaded";
/// Rows that are read again when a load has ended.
const LOOKED_AT: u64 = 20;

/// One load: the same in every run.
struct Load {
    name: String,
    rows: Vec<LoadRow>,
    /// The numbers of the writes, row by row.
    numbers: Vec<u64>,
    features: Vec<u16>,
    rows_per_batch: usize,
    at_us: i64,
    acknowledged: Vec<bool>,
}

/// Somebody who loads.
pub struct Loader {
    client: SimClient,
    shared: Shared,
    plan: Plan,
    chance: Chance,
    loads: Vec<Load>,
}

impl Loader {
    /// One that has loaded nothing yet.
    pub fn new(client: SimClient, shared: Shared, plan: &Plan) -> Self {
        let chance = Chance::new(plan.seed, "loader");
        Self { client, shared, plan: plan.clone(), chance, loads: Vec::new() }
    }

    /// Loads until told to stop; the last load may be in its middle then.
    pub async fn work(mut self, stop: Arc<AtomicBool>) -> Self {
        while !stop.load(Ordering::Relaxed) {
            if self.loads.last().is_none_or(Load::is_whole) {
                if self.loads.iter().map(|load| load.rows.len()).sum::<usize>() >= ROWS_MAX {
                    return self;
                }
                self.draw();
            }
            let life = match self.chance.below(DEATHS) {
                0 => self.chance.between(Duration::from_millis(5), Duration::from_millis(500)),
                _ => Duration::MAX,
            };
            // Only the time until it is told to stop is in it: what a dead loader has sent arrives or does not.
            let ended = tokio::select! {
                biased;
                () = stopped(&stop, life) => false,
                () = run(&self.client, &self.shared, self.loads.last_mut().expect("one was drawn")) => true,
            };
            if !ended {
                self.shared.lock().extra.loads_cut += 1;
                self.shared.trace.note(format_args!("load cut"));
            }
            if ended && self.loads.last().is_some_and(Load::is_whole) {
                self.look().await;
            }
            let pause = self.chance.between(Duration::from_millis(100), Duration::from_secs(3));
            stopped(&stop, pause).await;
        }
        self
    }

    /// Runs what is not loaded yet to its end, in a cluster that is whole.
    ///
    /// # Errors
    /// If rows are left that are not acknowledged.
    pub async fn finish(&mut self, limit: Duration) -> Result<(), String> {
        let Self { client, shared, loads, .. } = self;
        for load in loads.iter_mut().filter(|load| !load.is_whole()) {
            let ended = tokio::time::timeout(limit, run(client, shared, load)).await;
            if ended.is_err() || !load.is_whole() {
                let left = load.acknowledged.iter().filter(|done| !**done).count();
                return Err(format!("{left} rows of {} are not loaded {limit:?} after all was healed", load.name));
            }
        }
        Ok(())
    }

    /// All keys that were to be loaded.
    pub fn keys(&self) -> Vec<i64> {
        (FIRST_KEY..).take(self.loads.iter().map(|load| load.rows.len()).sum()).collect()
    }

    fn draw(&mut self) {
        let first = FIRST_KEY + self.loads.iter().map(|load| load.rows.len()).sum::<usize>() as i64;
        let between = |(least, most): (u64, u64)| least + self.chance.below(most - least + 1);
        let (count, rows_per_batch) = (between(ROWS_OF_LOAD), between(ROWS_OF_BATCH) as usize);
        let features = if self.chance.below(2) == 0 { Features::ALL } else { Features::of_bits(self.chance.bits()) };
        let at_us = WALL_BASE_US + (now() - self.shared.start).as_micros() as i64;
        let (mut rows, mut numbers) = (Vec::new(), Vec::new());
        for at in 0..count {
            let id = first + at as i64;
            let mut key = Vec::new();
            encode_key(&[KeyType::Int64], &[KeyValue::Int(id)], &mut key).expect("an integer is a key");
            let event_time = at_us - self.chance.below(1_000_000) as i64;
            let number = self.shared.lock().history.send(LOADER, id, event_time, What::Update(features));
            let values = features.places().map(|feature| value_of(number, feature)).collect();
            rows.push(LoadRow { line: at + 1, key, event_time, values });
            numbers.push(number);
        }
        let name = format!("load {}", self.loads.len());
        self.shared.trace.note(format_args!("{name}: {count} rows from {first}, {rows_per_batch} a batch"));
        let acknowledged = vec![false; rows.len()];
        let features = features.places().map(|feature| feature as u16).collect();
        self.loads.push(Load { name, rows, numbers, features, rows_per_batch, at_us, acknowledged });
    }

    /// Reads some of the rows that were loaded, which a strong read must show.
    async fn look(&self) {
        let Some(load) = self.loads.last() else { return };
        let Ok(mut reader) = Worker::open(LOADER, &self.client, &self.shared, &self.plan).await else { return };
        let first = self.keys().len() - load.rows.len();
        let keys: Vec<i64> = (0..LOOKED_AT)
            .map(|_| FIRST_KEY + first as i64 + self.chance.below(load.rows.len() as u64) as i64)
            .collect();
        let level = ReadLevel::Linearizable { by: stoa_client::ConfirmBy::ReadIndex };
        reader.read_at(&keys, Demand::Any, level, Duration::from_secs(2)).await;
    }
}

impl Load {
    fn is_whole(&self) -> bool {
        self.acknowledged.iter().all(|done| *done)
    }
}

/// Waits until a load is to end in its middle.
async fn stopped(stop: &AtomicBool, life: Duration) {
    let start = now();
    while !stop.load(Ordering::Relaxed) && now() - start < life {
        tokio::time::sleep(STOP_POLL.min(life)).await;
    }
}

/// Runs a load once, from its first row, and judges what it says of itself.
async fn run(client: &SimClient, shared: &Shared, load: &mut Load) {
    shared.lock().extra.loads += 1;
    let Ok(group) = client.group(NAME).await else { return };
    let definition = group.definition().clone();
    let map = client.map();
    let Some(set) = map.set(definition.set) else { return };
    let identity = LoadIdentity {
        name: &load.name,
        file_digest: load.rows.len() as u128,
        group: &definition,
        set,
        rows_per_batch: load.rows_per_batch,
        load_time_us: load.at_us,
    };
    let mut lanes = Lanes::new(client.clone(), load_session_id(&identity), Arc::new(Silent), None);
    let batcher = Batcher::new(&definition, &load.features, set, load.rows_per_batch).expect("the set is its own");
    let mut batcher = batcher.counted(client.bounds_registry());
    let partition_of = |row: &LoadRow| set.partition_of(partition_hash(&row.key)).map(|partition| partition.id);
    let places: Vec<Option<PartitionId>> = load.rows.iter().map(partition_of).collect();
    // Which rows are in which batch.
    let mut batches: BTreeMap<(PartitionId, u64), Vec<usize>> = BTreeMap::new();
    let mut note = |batch: &ReadyBatch| {
        let rows = batch.lines.clone().map(|line| line as usize - 1);
        let rows: Vec<usize> = rows.filter(|row| places[*row] == Some(batch.partition)).collect();
        assert_eq!(rows.len(), batch.batch.rows(), "a batch has the rows of its lines and its partition");
        batches.insert((batch.partition, batch.sequence), rows);
    };
    let mut going = true;
    for row in &load.rows {
        let types = load.features.iter().map(|feature| definition.features[usize::from(*feature)].ty);
        let values = row.values.iter().cloned().zip(types).map(|(value, ty)| typed(value, ty)).collect();
        let row = LoadRow { line: row.line, key: row.key.clone(), event_time: row.event_time, values };
        let Some(batch) = batcher.push(&row) else { continue };
        note(&batch);
        going = lanes.send(batch).await;
        if !going {
            break;
        }
    }
    if going {
        for batch in batcher.finish() {
            note(&batch);
            if !lanes.send(batch).await {
                break;
            }
        }
    }
    let mut report = LoadReport::default();
    let failure = lanes.finish(&mut report).await;
    let said = report.acknowledged.iter().flat_map(|(partition, done)| {
        (1..=done.batches).filter_map(|sequence| batches.get(&(*partition, sequence))).flatten().copied()
    });
    let said: Vec<usize> = said.collect();
    shared.trace.note(format_args!("{}: {} rows loaded, {failure:?}", load.name, said.len()));
    for what in misstated(load, &report, failure.as_ref(), said.len()) {
        shared.lock().broken.push(Broken { judge: JUDGE, what });
    }
    let mut inner = shared.lock();
    inner.extra.loads_failed += u64::from(failure.is_some());
    for row in said {
        if !std::mem::replace(&mut load.acknowledged[row], true) {
            inner.history.acknowledge(load.numbers[row], Took::Applied);
            inner.extra.loaded_rows += 1;
        }
    }
}

/// What a report says of a load that does not go together.
fn misstated(load: &Load, report: &LoadReport, failure: Option<&LaneFailure>, said: usize) -> Vec<String> {
    let LoadReport { rows_acknowledged, rows_older, acknowledged, .. } = report;
    let (name, all) = (&load.name, load.rows.len());
    let mut wrong = Vec::new();
    if *rows_acknowledged != said as u64 {
        wrong.push(format!("{name}: {rows_acknowledged} rows are acknowledged, and its batches have {said}"));
    }
    if failure.is_none() && said != all {
        wrong.push(format!("{name} ended well with {said} of {all} rows"));
    }
    if *rows_older > 0 {
        wrong.push(format!("{name}: {rows_older} rows were older than others, and nobody else writes their keys"));
    }
    if let Some(failure) = failure {
        let before = acknowledged.get(&failure.partition).map_or(0, |done| done.batches);
        if failure.sequence != before + 1 {
            wrong.push(format!("{name}: {failure:?}, and acknowledged were {before} batches of it"));
        }
    }
    wrong
}
