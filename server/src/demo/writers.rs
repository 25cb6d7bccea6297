//! Writes go on during the whole demo, one stream for each partition: rows of the products' activity are written again
//! with the values of the file and the present time. They show when each partition takes writes after the loss.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use stoa_client::{Client, OnLostAnswer, WriteOptions};
use stoa_env::{BootTime, Clock, QuicTransport, RealClock, spawn};
use stoa_protocol::key::{key_prefix, partition_hash};
use stoa_protocol::{FeatureGroup, PartitionId, RowBatchBuilder, Value};
use tokio::task::JoinHandle;

use super::report::Report;
use super::truth::Truth;

/// Rows that each stream writes again and again.
const ROWS: usize = 10;
/// Between two writes of a stream.
const PAUSE: Duration = Duration::from_millis(100);

/// When each write was sent and acknowledged.
type Acks = Vec<(BootTime, BootTime)>;

/// What a stream has to tell at its end.
struct Written {
    acks: Acks,
    failures: u64,
    /// Its rows, and the event time of the last write of them that was acknowledged.
    keys: Vec<Vec<u8>>,
    event_time: i64,
}

/// A row that was acknowledged: its key, and an event time that no read may fall behind.
pub struct Acknowledged {
    /// The canonical key.
    pub key: Vec<u8>,
    /// Microseconds since 1970-01-01T00:00:00Z.
    pub event_time: i64,
}
/// A row's key and values.
type KeyAndValues = (Vec<u8>, Vec<Value>);

/// The streams.
pub struct Writers {
    stop: Arc<AtomicBool>,
    streams: Vec<JoinHandle<Option<Written>>>,
}

impl Writers {
    /// Begins to write, from clients of all zones in turn.
    pub async fn start(clients: &[Client<QuicTransport>], truth: Arc<Truth>) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (group, rows) = truth.written();
        let map = clients[0].map();
        let set = map.set(group.set).ok_or_else(|| anyhow::anyhow!("the map has no set {}", group.set))?;
        let types = group.entity.key_types();
        let mut parts: BTreeMap<PartitionId, Vec<KeyAndValues>> = BTreeMap::new();
        for (key, values) in rows {
            let prefix = key_prefix(&types, key, usize::from(group.entity.partition_by))?;
            let Some(partition) = set.partition_of(partition_hash(prefix)) else { continue };
            let part = parts.entry(partition.id).or_default();
            if part.len() < ROWS {
                part.push((key.to_vec(), values.to_vec()));
            }
        }
        if parts.len() != set.partitions.len() {
            anyhow::bail!(
                "only {} of {} partitions have rows to write; ask for fewer",
                parts.len(),
                set.partitions.len()
            );
        }
        let streams = parts
            .into_iter()
            .enumerate()
            .map(|(at, (partition, rows))| {
                let client = clients[at % clients.len()].clone();
                spawn("demo writer", write(client, group.clone(), partition, rows, stop.clone()))
            })
            .collect();
        Ok(Self { stop, streams })
    }

    /// Ends the streams; what they had acknowledged. The time until writes resumed is that of the partition that took
    /// longest, from when the zone was `killed` to the acknowledgement of its first write after the zone was `gone`.
    pub async fn finish(self, killed: BootTime, gone: BootTime, report: &mut Report) -> Vec<Acknowledged> {
        self.stop.store(true, Ordering::Relaxed);
        let (mut resumed, mut acknowledged) = (Some(Duration::ZERO), Vec::new());
        for stream in self.streams {
            let Ok(Some(Written { acks, failures, keys, event_time })) = stream.await else {
                resumed = None;
                continue;
            };
            report.writes_acknowledged += acks.len() as u64;
            report.writes_failed += failures;
            let first = acks.iter().find(|(sent, _)| *sent >= gone).map(|(_, acked)| acked.since(killed));
            resumed = match (resumed, first) {
                (Some(worst), Some(first)) => Some(worst.max(first)),
                _ => None,
            };
            acknowledged.extend(keys.into_iter().map(|key| Acknowledged { key, event_time }));
        }
        report.writes_resumed_ms = resumed.map(|d| d.as_millis() as u64);
        acknowledged
    }
}

async fn write(
    client: Client<QuicTransport>,
    group: FeatureGroup,
    partition: PartitionId,
    rows: Vec<KeyAndValues>,
    stop: Arc<AtomicBool>,
) -> Written {
    let features: Vec<u16> = (0..group.features.len() as u16).collect();
    let keys = rows.iter().map(|(key, _)| key.clone()).collect();
    let mut written = Written { acks: Vec::new(), failures: 0, keys, event_time: i64::MIN };
    while !stop.load(Ordering::Relaxed) {
        let mut builder = RowBatchBuilder::new(&group, &features);
        let now_us = RealClock.wall().0;
        for (key, values) in &rows {
            builder.upsert(key, now_us, 0, values).expect("the values were loaded before, so they fit");
        }
        let Some(batch) = builder.finish() else { return written };
        let options = WriteOptions { on_lost_answer: OnLostAnswer::Resend, ..WriteOptions::default() };
        let sent = RealClock.boot();
        match client.write(partition, &batch, &options).await {
            Ok(_) => {
                written.acks.push((sent, RealClock.boot()));
                written.event_time = now_us;
            }
            Err(_) => written.failures += 1,
        }
        tokio::time::sleep(PAUSE).await;
    }
    written
}
