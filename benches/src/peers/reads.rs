//! Reads of feature rows from Redis, as they are stored there: packed into one value a row (`MGET`), or as a hash of one field a
//! feature (`HMGET`).

use anyhow::{Context, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::redis::{Pipes, Redis};
use super::resp::{consent, end_of, number, put_command, values};
use crate::load::{Outcome, Service};
use crate::rows::{Picks, key_value, value};

/// Rows of one call that loads.
const LOAD_ROWS: u64 = 1_000;
/// Such calls under way at once.
const LOAD_CALLS: usize = 4;
/// The version of all rows.
const VERSION: i64 = 1;
/// Every so many answers one is checked, value by value; of the others, only how many values they have and how long they are.
const CHECK_EVERY: u64 = 16;

/// How a row lies in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// All features in one value, 4 bytes each.
    Packed,
    /// A hash with a field for each.
    Hash,
}

/// Reads of `rows_per_request` rows, all alike.
pub struct RedisReads {
    pipes: Pipes,
    form: Form,
    floats: u16,
    fields: Vec<String>,
    rows: u64,
    rows_per_request: usize,
}

fn key(id: u64) -> [u8; 8] {
    let stoa_protocol::KeyValue::Int(key) = key_value(id) else { unreachable!("keys of the benchmark are integers") };
    key.to_le_bytes()
}

fn packed(id: u64, floats: u16) -> Vec<u8> {
    (0..floats).flat_map(|at| value(id, at, VERSION).to_le_bytes()).collect()
}

/// The names of the fields of a hash.
pub(super) fn fields(floats: u16) -> Vec<String> {
    (0..floats).map(|at| format!("f{at}")).collect()
}

impl RedisReads {
    /// Loads `rows` rows of `floats` Float32 and opens `connections`.
    pub async fn load(
        redis: &Redis,
        form: Form,
        (rows, floats): (u64, u16),
        rows_per_request: usize,
        connections: usize,
    ) -> anyhow::Result<Self> {
        let pipes = Pipes::open(redis, connections).await?;
        let fields = fields(floats);
        // Several side by side: one is made while the server takes another.
        let calls = (0..rows).step_by(LOAD_ROWS as usize).map(|from| {
            let (ids, fields, pipes) = (from..rows.min(from + LOAD_ROWS), &fields, &pipes);
            async move {
                let count = (ids.end - ids.start) as usize;
                let put = |out: &mut Vec<u8>| ids.for_each(|id| put_row(out, form, id, floats, fields));
                pipes.pick().ask(count, put, move |answers| loaded(answers, form, floats)).await
            }
        });
        stream::iter(calls).buffer_unordered(LOAD_CALLS).try_collect::<()>().await?;
        Ok(Self { pipes, form, floats, fields, rows, rows_per_request })
    }

    async fn read(&self, n: u64) -> anyhow::Result<Outcome> {
        let count = self.rows_per_request;
        let ids: Vec<u64> = Picks::new(n.wrapping_mul(count as u64), self.rows).take(count).collect();
        let pipe = self.pipes.pick();
        let (form, floats, checked) = (self.form, self.floats, n.is_multiple_of(CHECK_EVERY));
        let answers = if form == Form::Packed { 1 } else { ids.len() };
        let put = |out: &mut Vec<u8>| put_read(out, form, &ids, &self.fields);
        let ids = ids.clone();
        let judged = pipe.ask(answers, put, move |answer| judge(answer, form, &ids, floats, checked)).await?;
        Ok(match judged {
            None => Outcome::Answered { checked },
            Some(what) => Outcome::Wrong(format!("request {n}: {what}")),
        })
    }
}

impl Service for RedisReads {
    async fn call(&self, n: u64) -> Outcome {
        self.read(n).await.unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")))
    }
}

/// The command that writes a row.
pub(super) fn put_row(out: &mut Vec<u8>, form: Form, id: u64, floats: u16, fields: &[String]) {
    let key = key(id);
    match form {
        Form::Packed => put_command(out, [&b"SET"[..], &key, &packed(id, floats)].into_iter()),
        Form::Hash => {
            let values: Vec<[u8; 4]> = (0..floats).map(|at| value(id, at, VERSION).to_le_bytes()).collect();
            let mut arguments: Vec<&[u8]> = vec![b"HSET", &key];
            for (field, value) in fields.iter().zip(&values) {
                arguments.extend([field.as_bytes(), &value[..]]);
            }
            put_command(out, arguments.into_iter());
        }
    }
}

/// The answers to commands that set rows.
fn loaded(answers: &[u8], form: Form, floats: u16) -> anyhow::Result<()> {
    let mut at = 0;
    while at < answers.len() {
        let end = end_of(answers, at)?.context("answers are whole")?;
        match form {
            Form::Packed => consent(&answers[at..end])?,
            Form::Hash => {
                let set = number(&answers[at..end])?;
                ensure!(set == i64::from(floats), "{set} of {floats} fields are new: the rows were there already");
            }
        }
        at = end;
    }
    Ok(())
}

fn put_read(out: &mut Vec<u8>, form: Form, ids: &[u64], fields: &[String]) {
    let keys: Vec<[u8; 8]> = ids.iter().map(|id| key(*id)).collect();
    match form {
        Form::Packed => {
            let mut arguments: Vec<&[u8]> = vec![b"MGET"];
            arguments.extend(keys.iter().map(|key| &key[..]));
            put_command(out, arguments.into_iter());
        }
        Form::Hash => {
            for key in &keys {
                let mut arguments: Vec<&[u8]> = vec![b"HMGET", key];
                arguments.extend(fields.iter().map(|field| field.as_bytes()));
                put_command(out, arguments.into_iter());
            }
        }
    }
}

/// What is wrong with the answers to a read, if something is. All are looked at for their number and their lengths, in place;
/// their values are compared if `checked`.
///
/// # Errors
/// If they are no answers to a read.
fn judge(answers: &[u8], form: Form, ids: &[u64], floats: u16, checked: bool) -> anyhow::Result<Option<String>> {
    let (each, width) =
        if form == Form::Packed { (ids.len(), usize::from(floats) * 4) } else { (usize::from(floats), 4) };
    let (mut at, mut seen) = (0, 0);
    while at < answers.len() {
        let end = end_of(answers, at)?.context("answers are whole")?;
        let mut count = 0;
        for found in values(&answers[at..end])? {
            let (row, feature) = if form == Form::Packed { (count, 0) } else { (seen, count as u16) };
            let Some(found) = found.filter(|found| found.len() == width) else {
                return Ok(Some(format!(
                    "row {} is missing or has another length",
                    ids.get(row).copied().unwrap_or_default()
                )));
            };
            let id = *ids.get(row).context("there are more answers than rows")?;
            let wanted = || match form {
                Form::Packed => packed(id, floats),
                Form::Hash => value(id, feature, VERSION).to_le_bytes().to_vec(),
            };
            if checked && *found != wanted()[..] {
                return Ok(Some(format!("row {id} is not what was written")));
            }
            count += 1;
        }
        if count != each {
            return Ok(Some(format!("{count} values instead of {each}")));
        }
        seen += 1;
        at = end;
    }
    let answered = if form == Form::Packed { 1 } else { ids.len() };
    Ok((seen != answered).then(|| format!("{seen} answers instead of {answered}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(out: &mut Vec<u8>, value: &[u8]) {
        out.extend_from_slice(format!("${}\r\n", value.len()).as_bytes());
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }

    fn answers(form: Form, ids: &[u64], floats: u16) -> Vec<u8> {
        let mut out = Vec::new();
        if form == Form::Packed {
            out.extend_from_slice(format!("*{}\r\n", ids.len()).as_bytes());
            ids.iter().for_each(|id| bulk(&mut out, &packed(*id, floats)));
            return out;
        }
        for id in ids {
            out.extend_from_slice(format!("*{floats}\r\n").as_bytes());
            (0..floats).for_each(|at| bulk(&mut out, &value(*id, at, VERSION).to_le_bytes()));
        }
        out
    }

    #[test]
    fn a_wrong_value_a_missing_row_and_one_answer_too_few_are_found() {
        for form in [Form::Packed, Form::Hash] {
            let ids = [3, 9, 4];
            let right = answers(form, &ids, 5);
            assert_eq!(judge(&right, form, &ids, 5, true).unwrap(), None);
            let mut wrong = right.clone();
            let last = wrong.len() - 3;
            wrong[last] ^= 1;
            let told = judge(&wrong, form, &ids, 5, true).unwrap();
            assert!(told.is_some_and(|what| what.starts_with("row 4 is not")), "{form:?}");
            assert_eq!(judge(&wrong, form, &ids, 5, false).unwrap(), None, "unchecked");
            assert!(judge(&answers(form, &ids[..2], 5), form, &ids, 5, true).unwrap().is_some());
            assert!(judge(b"-WRONGTYPE\r\n", form, &ids, 5, false).is_err());
        }
        let missing = b"*2\r\n$-1\r\n$20\r\n01234567890123456789\r\n";
        assert!(
            judge(missing, Form::Packed, &[1, 2], 5, false)
                .unwrap()
                .is_some_and(|what| what.contains("row 1 is missing"))
        );
    }
}
