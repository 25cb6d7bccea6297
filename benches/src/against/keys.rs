//! Which keys are asked for.

use std::path::Path;

use anyhow::{Context, bail, ensure};
use stoa::cli::parse_key;
use stoa_protocol::{KeyColumn, KeyType, KeyValue};

use crate::rows::mix;

/// Rows of a file of keys, at the most: some hundred MB in memory.
const FILE_ROWS_MAX: usize = 5_000_000;

/// Where the keys of a view's columns come from.
pub struct Keys {
    names: Vec<String>,
    source: Source,
    /// Whether a column has one value for all rows of a request.
    one: Vec<bool>,
}

enum Source {
    /// Each column by itself.
    Columns(Vec<Values>),
    /// Combinations.
    Rows(Vec<Vec<KeyValue>>),
}

/// What a column can be.
enum Values {
    Range { from: i64, count: u64, of: fn(i64) -> KeyValue },
    List(Vec<KeyValue>),
}

impl Values {
    fn pick(&self, chance: u64) -> KeyValue {
        match self {
            Self::Range { from, count, of } => of(from.wrapping_add((chance % count) as i64)),
            Self::List(values) => values[(chance % values.len() as u64) as usize].clone(),
        }
    }
}

impl Keys {
    /// From `NAME=VALUES` for each of the view's key columns.
    ///
    /// # Errors
    /// What is wrong with them, and what would be right.
    pub fn from_arguments(columns: &[KeyColumn], given: &[String], one: &[String]) -> anyhow::Result<Self> {
        let mut parsed: Vec<Option<Values>> = columns.iter().map(|_| None).collect();
        for text in given {
            let (name, values) = text.split_once('=').with_context(|| {
                format!("--key {text:?} is not NAME=VALUES, such as customer_id=1..50000 or country=SE,DE")
            })?;
            let at = place(columns, name)?;
            ensure!(parsed[at].is_none(), "--key {name} is given twice");
            parsed[at] = Some(values_of(&columns[at], values).with_context(|| format!("--key {text}"))?);
        }
        let mut values = Vec::new();
        for (column, parsed) in columns.iter().zip(parsed) {
            let name = &column.name;
            values.push(parsed.with_context(|| {
                format!("the view needs its key column {name}, too: give --key {name}=VALUES, or --keys FILE")
            })?);
        }
        Ok(Self { names: names(columns), source: Source::Columns(values), one: ones(columns, one)? })
    }

    /// From a file: its head names the view's key columns, in any order; other columns are left alone.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn from_csv(columns: &[KeyColumn], file: &Path, one: &[String]) -> anyhow::Result<Self> {
        let of_file = || format!("--keys {}", file.display());
        let mut reader = csv::Reader::from_path(file).with_context(of_file)?;
        let head = reader.headers().with_context(of_file)?.clone();
        let mut places = Vec::new();
        for column in columns {
            let place = head.iter().position(|name| name == column.name);
            places.push(place.with_context(|| {
                let known: Vec<&str> = head.iter().collect();
                format!(
                    "{}: the head has no {}, which the view needs; it has {}",
                    of_file(),
                    column.name,
                    known.join(", ")
                )
            })?);
        }
        let mut rows = Vec::new();
        for (at, record) in reader.records().enumerate() {
            ensure!(at < FILE_ROWS_MAX, "{}: more than {FILE_ROWS_MAX} rows; give fewer", of_file());
            let record = record.with_context(of_file)?;
            let value = |(column, place): (&KeyColumn, &usize)| {
                let text = record.get(*place).unwrap_or_default();
                parse_key(column.ty, text).with_context(|| {
                    format!("{}, row {}: {} is {}, not {text:?}", of_file(), at + 1, column.name, column.ty)
                })
            };
            rows.push(columns.iter().zip(&places).map(value).collect::<anyhow::Result<Vec<_>>>()?);
        }
        ensure!(!rows.is_empty(), "{}: there are no rows in it", of_file());
        Ok(Self { names: names(columns), source: Source::Rows(rows), one: ones(columns, one)? })
    }

    /// The columns, in the order of [`request`](Self::request)'s values.
    pub fn names(&self) -> Vec<&str> {
        self.names.iter().map(String::as_str).collect()
    }

    /// The rows of request `n`, the same in every run.
    pub fn request(&self, n: u64, rows: usize) -> Vec<Vec<KeyValue>> {
        let shared = self.row(mix(n));
        (0..rows as u64)
            .map(|row| {
                let own = self.row(mix(mix(n) ^ (row + 1)));
                let each = own.into_iter().zip(&shared).zip(&self.one);
                each.map(|((own, shared), one)| if *one { shared.clone() } else { own }).collect()
            })
            .collect()
    }

    fn row(&self, chance: u64) -> Vec<KeyValue> {
        match &self.source {
            Source::Rows(rows) => rows[(chance % rows.len() as u64) as usize].clone(),
            Source::Columns(columns) => {
                let each = columns.iter().enumerate();
                each.map(|(at, values)| values.pick(mix(chance ^ (at as u64) << 32))).collect()
            }
        }
    }
}

fn names(columns: &[KeyColumn]) -> Vec<String> {
    columns.iter().map(|column| column.name.clone()).collect()
}

fn ones(columns: &[KeyColumn], one: &[String]) -> anyhow::Result<Vec<bool>> {
    for name in one {
        place(columns, name).context("--one")?;
    }
    Ok(columns.iter().map(|column| one.contains(&column.name)).collect())
}

fn place(columns: &[KeyColumn], name: &str) -> anyhow::Result<usize> {
    columns.iter().position(|column| column.name == name).with_context(|| {
        format!("the view has no key column {name}; its key columns are {}", names(columns).join(", "))
    })
}

fn values_of(column: &KeyColumn, text: &str) -> anyhow::Result<Values> {
    let whole: Option<fn(i64) -> KeyValue> = match column.ty {
        KeyType::Int8 | KeyType::Int16 | KeyType::Int32 | KeyType::Int64 => Some(KeyValue::Int),
        KeyType::Timestamp => Some(KeyValue::Timestamp),
        _ => None,
    };
    if let (Some((from, to)), Some(of)) = (text.split_once(".."), whole) {
        let number = |text: &str| -> anyhow::Result<i64> {
            text.trim().parse().with_context(|| format!("{text:?} is no whole number"))
        };
        let (from, to) = (number(from)?, number(to)?);
        let count = i128::from(to) - i128::from(from);
        if count <= 0 {
            bail!("the range {from}..{to} is empty: its end is not among it, and must be above its beginning");
        }
        // Both ends must be of the column's type.
        for end in [from, to - 1] {
            parse_key(column.ty, &end.to_string()).with_context(|| format!("{end} is no {}", column.ty))?;
        }
        return Ok(Values::Range { from, count: u64::try_from(count)?, of });
    }
    let value = |text: &str| {
        parse_key(column.ty, text).with_context(|| format!("{} is {}, not {text:?}", column.name, column.ty))
    };
    Ok(Values::List(text.split(',').map(value).collect::<anyhow::Result<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns() -> Vec<KeyColumn> {
        let column = |name: &str, ty| KeyColumn { name: name.into(), ty };
        vec![column("customer", KeyType::Int32), column("country", KeyType::String)]
    }

    fn fault(given: &[&str], one: &[&str]) -> String {
        let text = |of: &[&str]| of.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        format!("{:#}", Keys::from_arguments(&columns(), &text(given), &text(one)).err().expect("it is wrong"))
    }

    #[test]
    fn requests_have_rows_of_the_ranges_and_one_value_where_that_was_asked_for() {
        let given = ["customer=5..8".to_owned(), "country=SE,DE".to_owned()];
        let keys = Keys::from_arguments(&columns(), &given, &["country".to_owned()]).unwrap();
        assert_eq!(keys.names(), ["customer", "country"]);
        for n in 0..50 {
            let rows = keys.request(n, 20);
            assert_eq!(rows, keys.request(n, 20));
            assert!(rows.iter().all(|row| row[1] == rows[0][1]));
            assert!(rows.iter().all(|row| matches!(row[0], KeyValue::Int(5..=7))));
        }
        let first: Vec<KeyValue> = (0..50).map(|n| keys.request(n, 1)[0][1].clone()).collect();
        assert!(first.iter().any(|value| *value != first[0]), "another request has another country");
    }

    #[test]
    fn what_is_wrong_with_keys_is_told_with_what_would_be_right() {
        assert!(fault(&["customer"], &[]).contains("is not NAME=VALUES"));
        assert!(fault(&["buyer=1..2"], &[]).contains("its key columns are customer, country"));
        assert!(fault(&["customer=1..5"], &[]).contains("--key country=VALUES"));
        assert!(fault(&["customer=5..5", "country=SE"], &[]).contains("is empty"));
        assert!(fault(&["customer=x..5", "country=SE"], &[]).contains("no whole number"));
        assert!(fault(&["customer=a", "country=SE"], &[]).contains("customer is"));
        assert!(fault(&["customer=1..5", "customer=1..5", "country=SE"], &[]).contains("given twice"));
        assert!(fault(&["customer=1..5", "country=SE"], &["shop"]).contains("no key column shop"));
    }

    #[test]
    fn combinations_come_from_a_file_with_its_columns_in_any_order() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("keys.csv");
        std::fs::write(&file, "country,age,customer\nSE,30,1\nDE,40,2\n").unwrap();
        let keys = Keys::from_csv(&columns(), &file, &[]).unwrap();
        for row in keys.request(3, 40) {
            let right = [(KeyValue::Int(1), "SE"), (KeyValue::Int(2), "DE")];
            assert!(right.iter().any(|(id, country)| row == [id.clone(), KeyValue::String((*country).into())]));
        }
        std::fs::write(&file, "country,customer\nSE,x\n").unwrap();
        let wrong = format!("{:#}", Keys::from_csv(&columns(), &file, &[]).err().unwrap());
        assert!(wrong.contains("row 1") && wrong.contains("customer"), "{wrong}");
        std::fs::write(&file, "country\nSE\n").unwrap();
        let wrong = format!("{:#}", Keys::from_csv(&columns(), &file, &[]).err().unwrap());
        assert!(wrong.contains("has no customer"), "{wrong}");
    }
}
