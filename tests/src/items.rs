//! Rows of the group `shop/item_stock@1` (`catalog/items.yaml`): each says in words which item it is of and how often it
//! was written, so that a lost, invented or mixed row shows.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use stoa::definitions::load_definitions;
use stoa_client::{
    BatchResult, Client, GroupWriter, OnLostAnswer, ReadOptions, Rows, ValueStatus, WriteRow, WriterOptions,
};
use stoa_env::QuicTransport;
use stoa_protocol::catalog::{Definition, FeatureGroup};
use stoa_protocol::key::{encode_key, key_prefix, partition_hash};
use stoa_protocol::position::PartitionPosition;
use stoa_protocol::{PartitionId, Position, RowBatchBuilder, Value};

use crate::replicas::{equal_digests, of_rows};
use crate::repository;
use crate::wait::{LIMIT, until};

/// The group.
pub const GROUP: &str = "shop/item_stock@1";
/// The view of it.
pub const VIEW: &str = "shop/item@1";
/// The event time of a row that was written for the first time, microseconds since 1970; later ones come after it.
pub const FIRST_EVENT_US: i64 = 1_700_000_000_000_000;
/// Rows of one read at most.
const READ_ROWS: usize = 1_000;
/// How long one read may take: a leader may have to be elected meanwhile.
const READ_DEADLINE: Duration = Duration::from_secs(20);

/// The catalog.
pub fn catalog() -> PathBuf {
    repository("tests/catalog/items.yaml")
}

/// What an item's row says when it was written for the `units`-th time.
pub fn note(item: i64, units: i64) -> String {
    format!("item {item} was written {units} times")
}

/// Has the cluster take the catalog, and waits until every partition has learnt it: that comes through the logs.
pub async fn define(client: &Client<QuicTransport>) -> anyhow::Result<()> {
    let definitions = load_definitions(&catalog())?;
    let groups = definitions.iter().filter(|definition| matches!(definition, Definition::Group(_))).count();
    client.apply(definitions, LIMIT).await?;
    until("a catalog known everywhere", async || {
        let known = of_rows(&equal_digests(client).await?);
        let behind: Vec<_> = known.iter().filter(|(_, (known, _))| known.len() < groups).collect();
        ensure!(behind.is_empty(), "not all of {groups} groups are known: {behind:?}");
        Ok(())
    })
    .await
}

/// A writer of the group.
pub async fn writer(client: &Client<QuicTransport>) -> anyhow::Result<GroupWriter<QuicTransport>> {
    let options = WriterOptions { deadline: LIMIT, on_lost_answer: OnLostAnswer::Resend, ..WriterOptions::default() };
    Ok(client.group(GROUP).await?.writer(&["units", "note"], options)?)
}

/// The rows of items that are written for the `units`-th time.
pub fn rows(items: impl IntoIterator<Item = i64>, units: i64) -> Vec<WriteRow> {
    let row = |item: i64| WriteRow {
        key: vec![item.into()],
        event_time: FIRST_EVENT_US + units,
        sequence: 0,
        values: Some(vec![Value::Int(units), Value::String(note(item, units))]),
    };
    items.into_iter().map(row).collect()
}

/// The position of a write, all of whose batches must have been acknowledged.
pub fn position(client: &Client<QuicTransport>, results: &[BatchResult]) -> anyhow::Result<Position> {
    let map = client.map();
    let mut position = Position::new();
    for BatchResult { partition, result, .. } in results {
        let answer = result.as_ref().map_err(Clone::clone)?;
        let set = map.sets.iter().find(|set| set.partitions.iter().any(|p| p.id == *partition));
        let set = set.with_context(|| format!("no set has partition {partition}"))?;
        let incarnation = answer.incarnation;
        position.raise(PartitionPosition { set: set.id, incarnation, partition: *partition, index: answer.index });
    }
    Ok(position)
}

/// How often each item was written, 0 for one that has no row. An error if a value was unavailable, or a row is not what
/// it says of itself.
pub async fn read(
    client: &Client<QuicTransport>,
    items: &[i64],
    at_least: Option<&Position>,
) -> anyhow::Result<BTreeMap<i64, i64>> {
    let view = client.view(VIEW).await?;
    let options = ReadOptions { deadline: READ_DEADLINE, at_least: at_least.cloned(), ..ReadOptions::default() };
    let mut out = BTreeMap::new();
    for items in items.chunks(READ_ROWS) {
        let mut rows = Rows::new(&["item_id"]);
        items.iter().try_for_each(|item| rows.push(&[(*item).into()]))?;
        let answer = view.get(&rows, &options).await?;
        let (units, notes) = (answer.column("units"), answer.column("note"));
        let (units, notes) = units.zip(notes).context("the view has other columns than the catalog says")?;
        for (row, &item) in items.iter().enumerate() {
            let found = match units.status(row) {
                ValueStatus::NotFound => 0,
                ValueStatus::Present => units.i64(row).context("units are an integer")?,
                other => bail!("item {item} is {other:?}: {:?}", answer.stats()),
            };
            if found > 0 {
                let text = notes.str(row);
                ensure!(text == Some(&note(item, found)), "item {item} has {found} units and the note {text:?}");
            }
            out.insert(item, found);
        }
    }
    Ok(out)
}

/// The partition of an item.
pub fn partition_of(client: &Client<QuicTransport>, group: &FeatureGroup, item: i64) -> anyhow::Result<PartitionId> {
    let (map, types, key) = (client.map(), group.entity.key_types(), key(group, item)?);
    let prefix = key_prefix(&types, &key, usize::from(group.entity.partition_by)).context("the key is whole")?;
    let set = map.set(group.set).context("the map has the group's set")?;
    let partition = set.partition_of(partition_hash(prefix)).context("the set has partitions")?;
    Ok(partition.id)
}

/// The bytes of a batch with one item, written for the `units`-th time.
pub fn batch(group: &FeatureGroup, item: i64, units: i64) -> anyhow::Result<Vec<u8>> {
    let mut columns = Vec::new();
    for (name, value) in [("units", Value::Int(units)), ("note", Value::String(note(item, units)))] {
        columns.push((group.feature(name).with_context(|| format!("no feature {name}"))?, value));
    }
    columns.sort_by_key(|(place, _)| *place);
    let (places, values): (Vec<u16>, Vec<Value>) = columns.into_iter().unzip();
    let mut builder = RowBatchBuilder::new(group, &places);
    let added = builder.upsert(&key(group, item)?, FIRST_EVENT_US + units, 0, &values);
    added.map_err(|(feature, error)| anyhow::anyhow!("feature {feature}: {error}"))?;
    Ok(builder.finish().context("the batch has a row")?.bytes().to_vec())
}

/// The key of an item, as its row has it.
pub fn key(group: &FeatureGroup, item: i64) -> anyhow::Result<Vec<u8>> {
    let mut key = Vec::new();
    encode_key(&group.entity.key_types(), &[item.into()], &mut key)?;
    Ok(key)
}
