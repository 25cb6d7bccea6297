//! What the files say, to compare with what is served.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use stoa_client::{Client, ReadOptions, Rows, RowsError, ValueStatus, ViewAnswer};
use stoa_env::{Clock, QuicTransport, RealClock, Transport};
use stoa_protocol::key::{decode_key, encode_key};
use stoa_protocol::{FeatureGroup, KeyType, KeyValue, Value};

use super::report::Report;
use super::shop::{GROUPS, VIEW, VIEW_KEYS};
use super::writers::Acknowledged;
use crate::load::{LoadOptions, SourceFile};

/// The place of the group that is written during the run, the products' activity, among [`GROUPS`].
const WRITTEN: usize = 3;
/// Rows of one read that looks for what was written.
const ROWS_OF_READ: usize = 100;
/// How long such a read may take.
const AUDIT_DEADLINE: Duration = Duration::from_secs(5);

/// One request: a household, and products in one store.
pub struct Request {
    /// The household.
    pub household: i64,
    /// The store.
    pub store: i64,
    /// The products.
    pub products: Vec<i64>,
}

impl Request {
    /// The keys that it asks the view for.
    pub fn rows(&self) -> Result<Rows, RowsError> {
        let mut rows = Rows::new(&VIEW_KEYS);
        for product in &self.products {
            rows.push(&[self.household.into(), (*product).into(), self.store.into()])?;
        }
        Ok(rows)
    }
}

/// One column of the view: whose file says it.
struct Column {
    group: usize,
    feature: usize,
}

/// All rows of all files.
pub struct Truth {
    groups: Vec<FeatureGroup>,
    rows: Vec<BTreeMap<Vec<u8>, Vec<Value>>>,
    columns: Vec<Column>,
    households: Vec<i64>,
    products: Vec<i64>,
    stores: Vec<(i64, Vec<i64>)>,
}

impl Truth {
    /// Reads all files.
    pub async fn read<T: Transport>(client: &Client<T>, data: &Path) -> anyhow::Result<Self> {
        let (mut groups, mut rows) = (Vec::new(), Vec::new());
        for (name, file) in GROUPS {
            let group = client.group(name).await?.definition().clone();
            let source = SourceFile::open(data.join("data").join(file), &group, LoadOptions::new(RealClock.wall().0))?;
            let mut map = BTreeMap::new();
            for chunk in source.chunks(4_096)? {
                for row in chunk?.rows {
                    map.insert(row.key, row.values);
                }
            }
            groups.push(group);
            rows.push(map);
        }
        let view = client.view(VIEW).await?;
        let plan = view.plan();
        let mut columns = Vec::new();
        for column in &plan.columns {
            let planned = &plan.groups[column.group];
            let group =
                groups.iter().position(|g| g.id == planned.id).context("a group of the view that no file is for")?;
            columns.push(Column { group, feature: usize::from(planned.features[column.place]) });
        }
        let ids = |at: usize| -> anyhow::Result<Vec<i64>> {
            rows[at].keys().map(|key| Ok(ints(&groups[at], key)?[0])).collect()
        };
        let mut stores: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
        for key in rows[4].keys() {
            let key = ints(&groups[4], key)?;
            stores.entry(key[1]).or_default().push(key[0]);
        }
        let (households, products) = (ids(1)?, ids(2)?);
        Ok(Self { households, products, stores: stores.into_iter().collect(), groups, rows, columns })
    }

    /// Features of the view.
    pub fn features(&self) -> usize {
        self.columns.len()
    }

    /// A request that a ranking service would make: half of the candidates are promoted in the store.
    pub fn request(&self, mut random: impl FnMut() -> u64, candidates: usize) -> Request {
        let mut pick = |count: usize| (random() % count as u64) as usize;
        let household = self.households[pick(self.households.len())];
        let (store, promoted) = &self.stores[pick(self.stores.len())];
        let products = (0..candidates)
            .map(|at| match at % 2 {
                0 => promoted[pick(promoted.len())],
                _ => self.products[pick(self.products.len())],
            })
            .collect();
        Request { household, store: *store, products }
    }

    /// Compares every value of an answer with the files; counts those compared and those that differ.
    pub fn compare(&self, request: &Request, answer: &ViewAnswer) -> anyhow::Result<(u64, u64)> {
        anyhow::ensure!(answer.columns().len() == self.columns.len(), "an answer has other columns than the view");
        let (mut checked, mut wrong) = (0, 0);
        for (column, truth) in answer.columns().zip(&self.columns) {
            for (row, product) in request.products.iter().enumerate() {
                let key = self.key(truth.group, request, *product)?;
                let wanted = self.rows[truth.group].get(&key).map(|values| &values[truth.feature]);
                let right = match (column.status(row), wanted) {
                    (ValueStatus::NotFound, None) | (ValueStatus::Null, Some(Value::Null)) => true,
                    (ValueStatus::Present, Some(value)) => column.to_value(row) == *value,
                    _ => false,
                };
                checked += 1;
                wrong += u64::from(!right);
            }
        }
        Ok((checked, wrong))
    }

    /// Reads the rows that were written during the run from every zone, and counts those that are missing, or older than
    /// what was acknowledged.
    pub(super) async fn compare_acknowledged(
        &self,
        clients: &[Client<QuicTransport>],
        acknowledged: &[Acknowledged],
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let written = &self.groups[WRITTEN];
        for client in clients {
            let view = client.view(VIEW).await?;
            let group = view.plan().groups.iter().position(|group| group.id == written.id);
            let group = group.context("the view does not read the group that was written")?;
            for rows_written in acknowledged.chunks(ROWS_OF_READ) {
                let mut rows = Rows::new(&VIEW_KEYS);
                for row in rows_written {
                    let product = ints(written, &row.key)?[0];
                    rows.push(&[self.households[0].into(), product.into(), self.stores[0].0.into()])?;
                }
                let options = ReadOptions { deadline: AUDIT_DEADLINE, ..ReadOptions::default() };
                let answer = view.get(&rows, &options).await?;
                let behind = |(at, row): &(usize, &Acknowledged)| {
                    answer.event_time(*at, group).is_none_or(|event_time| event_time < row.event_time)
                };
                report.values_checked += rows_written.len() as u64;
                report.values_wrong += rows_written.iter().enumerate().filter(behind).count() as u64;
            }
        }
        Ok(())
    }

    fn key(&self, group: usize, request: &Request, product: i64) -> anyhow::Result<Vec<u8>> {
        let entity = &self.groups[group].entity;
        let values: Vec<KeyValue> = entity
            .keys
            .iter()
            .map(|column| match column.name.as_str() {
                "household_id" => request.household.into(),
                "product_id" => product.into(),
                _ => request.store.into(),
            })
            .collect();
        let mut key = Vec::new();
        encode_key(&entity.key_types(), &values, &mut key)?;
        Ok(key)
    }

    /// Keys and values of the group that the writers write to: the products' activity.
    pub fn written(&self) -> (&FeatureGroup, impl Iterator<Item = (&[u8], &[Value])>) {
        (&self.groups[WRITTEN], self.rows[WRITTEN].iter().map(|(key, values)| (key.as_slice(), values.as_slice())))
    }
}

fn ints(group: &FeatureGroup, key: &[u8]) -> anyhow::Result<Vec<i64>> {
    let types: Vec<KeyType> = group.entity.key_types();
    let values = decode_key(&types, key)?;
    values
        .into_iter()
        .map(|value| match value {
            KeyValue::Int(v) => Ok(v),
            other => anyhow::bail!("the demo's keys are integers, and {} has {other}", group.full_name()),
        })
        .collect()
}
