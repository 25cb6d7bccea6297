//! `stoa get`: a view's features for some rows.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{ContentArrangement, Table};
use stoa_client::{ConfirmBy, OnStale, ReadLevel, ReadOptions, Rows, ValueStatus, ViewAnswer};
use stoa_protocol::{KeyType, KeyValue, Value};

use super::{Connect, say};

/// Reads a view. Several values for a key, divided by commas, ask for several rows; a key with one value holds for all.
#[derive(Debug, Args)]
pub struct GetCommand {
    /// The view, PROJECT/NAME@VERSION.
    view: String,
    /// Key columns and their values, NAME=VALUE or NAME=VALUE,VALUE,…
    #[arg(required = true)]
    keys: Vec<String>,
    /// When the answer must be there, in milliseconds.
    #[arg(long, default_value_t = 1_000)]
    deadline_ms: u64,
    /// How new the answer must be.
    #[arg(long, value_enum, default_value_t = Level::Local)]
    level: Level,
    /// How far behind a replica may be that answers a local read, in milliseconds. One that is further behind marks its
    /// answer as stale.
    #[arg(long)]
    max_staleness_ms: Option<u64>,
    /// Rather no answer than a stale one.
    #[arg(long, requires = "max_staleness_ms")]
    refuse_stale: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

/// The levels by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Level {
    /// What the nearest replica has.
    Local,
    /// All that was acknowledged before.
    Linearizable,
    /// The same, by the leader's lease: without a round trip to a quorum, and resting on clocks.
    Lease,
}

impl GetCommand {
    fn level(&self) -> anyhow::Result<ReadLevel> {
        let by = match self.level {
            Level::Local => {
                let max_staleness = self.max_staleness_ms.map(Duration::from_millis);
                let on_stale = if self.refuse_stale { OnStale::Refuse } else { OnStale::Serve };
                return Ok(ReadLevel::Local { max_staleness, on_stale });
            }
            Level::Linearizable => ConfirmBy::ReadIndex,
            Level::Lease => ConfirmBy::Lease,
        };
        if self.max_staleness_ms.is_some() {
            bail!("--max-staleness-ms is for local reads; a linearizable one is never stale");
        }
        Ok(ReadLevel::Linearizable { by })
    }

    /// Runs the command; exit status 1 if a value was unavailable.
    pub async fn run(self) -> anyhow::Result<u8> {
        let client = self.connect.client().await?;
        let view = client.view(&self.view).await?;
        let mut columns: Vec<(String, Vec<KeyValue>)> = Vec::new();
        for text in &self.keys {
            let (name, values) = text.split_once('=').with_context(|| {
                format!("{text:?} is not NAME=VALUE; give a key column and its values, such as id=1,2")
            })?;
            let keys = &view.plan().keys;
            let Some(column) = keys.iter().find(|column| column.name == name) else {
                let known = keys.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ");
                bail!("view {} has no key column {name}; its key columns are {known}", self.view);
            };
            let parse = |value| {
                parse_key(column.ty, value)
                    .with_context(|| format!("key column {name} is {}, not {value:?}", column.ty))
            };
            columns.push((name.to_owned(), values.split(',').map(parse).collect::<anyhow::Result<_>>()?));
        }
        let count = columns.iter().map(|(_, values)| values.len()).max().unwrap_or(0);
        if let Some((name, values)) = columns.iter().find(|(_, values)| values.len() != 1 && values.len() != count) {
            bail!(
                "key column {name} has {} values, and another has {count}: give one for all, or one for each",
                values.len()
            );
        }
        let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
        let mut rows = Rows::new(&names);
        for row in 0..count {
            let values: Vec<KeyValue> =
                columns.iter().map(|(_, v)| v[if v.len() == 1 { 0 } else { row }].clone()).collect();
            rows.push(&values)?;
        }
        let (deadline, level) = (Duration::from_millis(self.deadline_ms), self.level()?);
        let options = ReadOptions { deadline, level, ..ReadOptions::default() };
        let answer = view.get(&rows, &options).await?;
        match self.json {
            true => say(&json(&rows, &answer).to_string())?,
            false => say(&table(&rows, &answer).to_string())?,
        }
        Ok(u8::from(!answer.is_complete()))
    }
}

/// A value of a key column, as a person writes it.
///
/// # Errors
/// If the text is none of the type.
pub fn parse_key(ty: KeyType, text: &str) -> anyhow::Result<KeyValue> {
    Ok(match ty {
        KeyType::Bool => KeyValue::Bool(text.parse()?),
        KeyType::Int8 | KeyType::Int16 | KeyType::Int32 | KeyType::Int64 => KeyValue::Int(text.parse()?),
        KeyType::Date => KeyValue::Date(text.parse().context("days since 1970-01-01")?),
        KeyType::Timestamp => KeyValue::Timestamp(text.parse().context("microseconds since 1970-01-01T00:00:00Z")?),
        KeyType::String => KeyValue::String(text.to_owned()),
        KeyType::Binary => {
            let digits = text.as_bytes();
            if !digits.len().is_multiple_of(2) {
                bail!("an even number of hexadecimal digits is wanted");
            }
            let bytes = digits
                .chunks(2)
                .map(|pair| u8::from_str_radix(std::str::from_utf8(pair)?, 16).map_err(anyhow::Error::from));
            KeyValue::Binary(bytes.collect::<anyhow::Result<_>>()?)
        }
    })
}

fn table(rows: &Rows, answer: &ViewAnswer) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    let mut header = vec!["feature".to_owned()];
    header.extend((0..rows.len()).map(|row| {
        let keys = (0..rows.columns().len()).map(|at| rows.value(row, at).to_string());
        keys.collect::<Vec<_>>().join(" / ")
    }));
    table.set_header(header);
    for column in answer.columns() {
        let mut line = vec![column.name().to_owned()];
        line.extend((0..rows.len()).map(|row| match column.status(row) {
            ValueStatus::Present => column.to_value(row).to_string(),
            ValueStatus::Stale => format!("{} (Stale)", column.to_value(row)),
            ValueStatus::Expired if column.value(row).is_some() => format!("{} (Expired)", column.to_value(row)),
            status => format!("({status:?})"),
        }));
        table.add_row(line);
    }
    table
}

fn json(rows: &Rows, answer: &ViewAnswer) -> serde_json::Value {
    let list = (0..rows.len()).map(|row| {
        let keys = rows.columns().iter().enumerate().map(|(at, name)| (name.clone(), key_json(rows.value(row, at))));
        let features = answer.columns().map(|column| {
            let value = serde_json::json!({
                "status": format!("{:?}", column.status(row)),
                "value": value_json(&column.to_value(row)),
                "event_time": answer.event_time(row, column.group()),
            });
            (column.name().to_owned(), value)
        });
        serde_json::json!({
            "keys": keys.collect::<serde_json::Map<_, _>>(),
            "features": features.collect::<serde_json::Map<_, _>>(),
        })
    });
    let position = answer.position();
    let position = position.parts().iter().map(|part| (part.partition.to_string(), part.index.0.into()));
    serde_json::json!({
        "complete": answer.is_complete(),
        "stale": answer.is_stale(),
        "age_max_us": answer.age_max().map(|age| u64::try_from(age.as_micros()).unwrap_or(u64::MAX)),
        "rows": list.collect::<Vec<_>>(),
        "position": position.collect::<serde_json::Map<String, serde_json::Value>>(),
    })
}

fn key_json(value: &KeyValue) -> serde_json::Value {
    match value {
        KeyValue::Bool(v) => (*v).into(),
        KeyValue::Int(v) | KeyValue::Timestamp(v) => (*v).into(),
        KeyValue::Date(v) => (*v).into(),
        other => other.to_string().into(),
    }
}

fn value_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(v) => (*v).into(),
        Value::Int(v) | Value::Timestamp(v) => (*v).into(),
        Value::Date(v) => (*v).into(),
        // JSON has no NaN and no infinity: these become text.
        Value::Float32(v) if v.is_finite() => f64::from(*v).into(),
        Value::Float64(v) if v.is_finite() => (*v).into(),
        Value::Array(items) => items.iter().map(value_json).collect(),
        Value::FixedArray(items) => items.iter().map(|v| value_json(&Value::Float32(*v))).collect(),
        other => other.to_string().into(),
    }
}
