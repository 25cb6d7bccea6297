//! What is read: shapes of rows and requests, and how answers are judged.

use std::time::Duration;

use clap::ValueEnum;
use stoa_client::{Client, Group, ReadOptions, Rows, View, ViewAnswer};
use stoa_env::Transport;
use stoa_protocol::catalog::{
    Definition, Entity, Feature, GroupDefinition, KeyColumn, ProjectDefinition, ViewDefinition, ViewFeatureDefinition,
};
use stoa_protocol::{FeatureType, KeyType, Value};

use crate::load::{Outcome, Service};
use crate::rows::{Picks, Zipf, key_value, value};

/// The project, and the name of its entity, its group and its view.
const PROJECT: &str = "shop";
const NAME: &str = "bench_rows";
/// The key's column.
const KEY: &str = "id";
/// The version of all rows that are loaded, and their event time. Rows that are written later have later ones.
pub const VERSION: i64 = 1;
/// How long definitions may take.
const APPLY_LIMIT: Duration = Duration::from_secs(10);
/// Every so many answers one is checked, value by value; of the others, only that they are complete.
const CHECK_EVERY: u64 = 16;

/// What a request reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// 100 rows of 48 Float32.
    Vectors,
    /// One row of 48 Float32.
    Point,
    /// 100 rows of 500 Float32.
    Wide,
    /// `--batch` rows of 48 Float32.
    Batch,
    /// 100 rows with an array of 128 Float32.
    Embeddings,
}

/// The sizes of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Rows of a request.
    pub rows: usize,
    /// Float32 of a row.
    pub floats: u16,
    /// Whether they are one array instead of features of their own.
    pub array: bool,
}

impl Workload {
    /// Its sizes; `batch` is for [`Workload::Batch`].
    pub fn shape(self, batch: usize) -> Shape {
        let (rows, floats) = match self {
            Self::Vectors => (100, 48),
            Self::Point => (1, 48),
            Self::Wide => (100, 500),
            Self::Batch => (batch, 48),
            Self::Embeddings => (100, 128),
        };
        Shape { rows, floats, array: self == Self::Embeddings }
    }
}

impl Shape {
    fn features(&self) -> Vec<Feature> {
        let feature = |name: String, ty| Feature::new(&name, ty);
        match self.array {
            true => vec![feature("embedding".into(), FeatureType::FixedArray { items: self.floats })],
            false => (0..self.floats).map(|at| feature(format!("f{at}"), FeatureType::Float32)).collect(),
        }
    }

    fn floats_of(&self, id: u64, version: i64) -> impl Iterator<Item = f32> {
        (0..self.floats).map(move |at| value(id, at, version))
    }

    /// The values of row `id` in a version.
    pub fn values(&self, id: u64, version: i64) -> Vec<Value> {
        match self.array {
            true => vec![Value::FixedArray(self.floats_of(id, version).collect())],
            false => self.floats_of(id, version).map(Value::Float32).collect(),
        }
    }

    /// The group, of whatever shape.
    pub async fn group<T: Transport>(client: &Client<T>) -> anyhow::Result<Group<T>> {
        Ok(client.group(&format!("{PROJECT}/{NAME}@1")).await?)
    }

    /// Defines the group and the view.
    pub async fn define<T: Transport>(&self, client: &Client<T>) -> anyhow::Result<()> {
        let features = self.features();
        let in_view = |feature: &Feature| ViewFeatureDefinition {
            project: PROJECT.into(),
            group: NAME.into(),
            version: 1,
            feature: feature.name.clone(),
            alias: None,
        };
        let view = ViewDefinition {
            project: PROJECT.into(),
            name: NAME.into(),
            version: 1,
            entities: vec![NAME.into()],
            features: features.iter().map(in_view).collect(),
            description: String::new(),
        };
        let group = GroupDefinition {
            project: PROJECT.into(),
            name: NAME.into(),
            version: 1,
            entity: NAME.into(),
            event_time: None,
            ttl: None,
            late_horizon_us: stoa_protocol::limits::LATE_HORIZON_US_DEFAULT,
            features,
            description: String::new(),
        };
        let keys = vec![KeyColumn { name: KEY.into(), ty: KeyType::Int64 }];
        let entity = Entity { name: NAME.into(), keys, partition_by: 1, description: String::new() };
        let project = ProjectDefinition { name: PROJECT.into(), description: String::new() };
        let definitions = vec![
            Definition::Project(project),
            Definition::Entity(entity),
            Definition::Group(group),
            Definition::View(view),
        ];
        client.apply(definitions, APPLY_LIMIT).await?;
        Ok(())
    }

    /// Whether each value of an answer is what was written; the first that is not. The version is that of the row's event time:
    /// a row of two versions is found out.
    pub fn compare(&self, ids: &[u64], answer: &ViewAnswer) -> Result<(), String> {
        if answer.rows() != ids.len() {
            return Err(format!("{} rows instead of {}", answer.rows(), ids.len()));
        }
        let columns: Vec<_> = answer.columns().collect();
        for (row, &id) in ids.iter().enumerate() {
            let got: Vec<Option<f32>> = match self.array {
                true => columns[0].f32_array(row).map(|items| items.map(Some).collect()).unwrap_or_default(),
                false => columns.iter().map(|column| column.f32(row)).collect(),
            };
            let version = answer.event_time(row, 0).filter(|version| *version >= VERSION);
            let version = version.ok_or_else(|| format!("row {id} is not there, or has no event time"))?;
            compare_row(id, &got, self.floats_of(id, version))?;
        }
        Ok(())
    }
}

fn compare_row(id: u64, got: &[Option<f32>], wanted: impl Iterator<Item = f32>) -> Result<(), String> {
    let wanted: Vec<f32> = wanted.collect();
    if got.len() != wanted.len() {
        return Err(format!("row {id}: {} values instead of {}", got.len(), wanted.len()));
    }
    match got.iter().zip(&wanted).position(|(got, wanted)| *got != Some(*wanted)) {
        Some(at) => Err(format!("row {id}, value {at}: {:?} instead of {}", got[at], wanted[at])),
        None => Ok(()),
    }
}

/// Reads through the client, as a model does.
pub struct Reads<T: Transport> {
    view: View<T>,
    shape: Shape,
    keys: Keys,
    options: ReadOptions,
}

/// Which rows are asked for.
#[derive(Debug, Clone, Copy)]
pub enum Keys {
    /// All of so many alike.
    Uniform(u64),
    /// Some far more often than others.
    Zipf(Zipf),
}

impl Keys {
    /// Those of request `n`, the same in every run.
    fn of(&self, n: u64, count: usize) -> Vec<u64> {
        match self {
            Self::Uniform(rows) => Picks::new(n.wrapping_mul(count as u64), *rows).take(count).collect(),
            Self::Zipf(zipf) => (0..count as u64).map(|at| zipf.pick(n.wrapping_mul(count as u64) + at)).collect(),
        }
    }
}

impl<T: Transport> Reads<T> {
    /// Reads of this shape by these options. An answer that takes longer than their deadline is a failed one.
    pub async fn new(client: &Client<T>, shape: Shape, keys: Keys, options: ReadOptions) -> anyhow::Result<Self> {
        let view = client.view(&format!("{PROJECT}/{NAME}@1")).await?;
        Ok(Self { view, shape, keys, options })
    }

    /// Reads these rows.
    pub async fn get(&self, ids: &[u64]) -> Result<ViewAnswer, Box<dyn std::error::Error + Send + Sync>> {
        let mut rows = Rows::new(&[KEY]);
        for &id in ids {
            rows.push(&[key_value(id)])?;
        }
        Ok(self.view.get(&rows, &self.options).await?)
    }

    async fn read(&self, n: u64) -> Result<Outcome, Box<dyn std::error::Error + Send + Sync>> {
        let ids = self.keys.of(n, self.shape.rows);
        let answer = self.get(&ids).await?;
        if !answer.is_complete() {
            return Ok(Outcome::Failed("the answer is not complete".into()));
        }
        if answer.is_stale() {
            return Ok(Outcome::Failed("the answer is stale".into()));
        }
        let checked = n.is_multiple_of(CHECK_EVERY);
        Ok(match checked.then(|| self.shape.compare(&ids, &answer)) {
            Some(Err(what)) => Outcome::Wrong(format!("request {n}: {what}")),
            _ => Outcome::Answered { checked },
        })
    }
}

impl<T: Transport> Service for Reads<T> {
    async fn call(&self, n: u64) -> Outcome {
        self.read(n).await.unwrap_or_else(|error| Outcome::Failed(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_planted_wrong_value_and_a_missing_one_are_found_with_their_places() {
        let shape = Workload::Vectors.shape(0);
        let mut got: Vec<Option<f32>> = shape.floats_of(7, VERSION).map(Some).collect();
        assert_eq!(compare_row(7, &got, shape.floats_of(7, VERSION)), Ok(()));
        got[47] = got[47].map(|right| right + 1.0);
        assert!(
            compare_row(7, &got, shape.floats_of(7, VERSION)).is_err_and(|what| what.starts_with("row 7, value 47: "))
        );
        got[3] = None;
        assert!(
            compare_row(7, &got, shape.floats_of(7, VERSION)).is_err_and(|what| what.contains("value 3: None instead"))
        );
        assert!(compare_row(7, &got[..9], shape.floats_of(7, VERSION)).is_err());
    }

    #[test]
    fn requests_ask_for_rows_that_exist_and_not_always_the_same() {
        for keys in [Keys::Uniform(1_000), Keys::Zipf(Zipf::new(1_000, 0.99))] {
            let first = keys.of(1, 100);
            assert_eq!(first, keys.of(1, 100));
            assert_ne!(first, keys.of(2, 100));
            assert!(first.iter().all(|id| *id < 1_000));
        }
    }
}
