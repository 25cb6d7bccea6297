//! Durable writes of feature rows to Redis: batches of rows, and after each a `WAIT` for a replica. The primary answers a row when
//! it is in its append-only file and synced, and `WAIT` when a replica has taken it. Replicas have `appendfsync always`, too, and
//! write their file before they answer anybody, so that two of three servers have synced a row then, as with Stoa; what `WAIT`
//! promises is less.

use anyhow::{Context, ensure};

use super::reads::{Form, fields, put_row};
use super::redis::{Pipes, Redis};
use super::resp::{consent, end_of, number, put_command};
use crate::load::{Outcome, Service};

/// How long a `WAIT` may take, in milliseconds.
const WAIT_MS: &str = "10000";

/// Batches of rows, new ones and such that stand already in turn, as the numbers of requests come.
pub struct RedisWrites {
    pipes: Pipes,
    form: Form,
    floats: u16,
    fields: Vec<String>,
    rows: u64,
    batch: u64,
}

impl RedisWrites {
    /// Writes of `batch` rows of `floats` Float32, the rows out of `rows`, over `connections`.
    pub async fn open(
        redis: &Redis,
        form: Form,
        (rows, floats): (u64, u16),
        batch: usize,
        connections: usize,
    ) -> anyhow::Result<Self> {
        let pipes = Pipes::open(redis, connections).await?;
        let (fields, batch) = (fields(floats), batch as u64);
        Ok(Self { pipes, form, floats, fields, rows, batch })
    }

    async fn write(&self, n: u64) -> anyhow::Result<Outcome> {
        let pipe = self.pipes.pick();
        let ids = (0..self.batch).map(|at| (n.wrapping_mul(self.batch) + at) % self.rows);
        let put = |out: &mut Vec<u8>| {
            ids.for_each(|id| put_row(out, self.form, id, self.floats, &self.fields));
            let wait: [&[u8]; 3] = [b"WAIT", b"1", WAIT_MS.as_bytes()];
            put_command(out, wait.into_iter());
        };
        let (form, rows) = (self.form, self.batch as usize);
        pipe.ask(rows + 1, put, move |answers| taken(answers, form, rows)).await?;
        Ok(Outcome::Answered { checked: true })
    }
}

impl Service for RedisWrites {
    async fn call(&self, n: u64) -> Outcome {
        self.write(n).await.unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")))
    }
}

/// Looks at the answers to the rows, and at that to the `WAIT` behind them.
fn taken(answers: &[u8], form: Form, rows: usize) -> anyhow::Result<()> {
    let mut at = 0;
    for row in 0..=rows {
        let end = end_of(answers, at)?.context("there are fewer answers than rows")?;
        let answer = &answers[at..end];
        match form {
            _ if row == rows => ensure!(number(answer)? >= 1, "no replica has the rows within {WAIT_MS} ms"),
            Form::Packed => consent(answer)?,
            Form::Hash => drop(number(answer)?),
        }
        at = end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_were_refused_and_a_wait_without_a_replica_are_no_success() {
        assert!(taken(b"+OK\r\n+OK\r\n:1\r\n", Form::Packed, 2).is_ok());
        assert!(taken(b":48\r\n:0\r\n:2\r\n", Form::Hash, 2).is_ok());
        for bad in [&b"+OK\r\n-MISCONF\r\n:1\r\n"[..], b"+OK\r\n+OK\r\n:0\r\n", b"+OK\r\n+OK\r\n"] {
            assert!(taken(bad, Form::Packed, 2).is_err());
        }
    }
}
