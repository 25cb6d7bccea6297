//! What a partition's log says: the commands that make its state.

use bytes::Bytes;
use stoa_protocol::limits::SWEEP_ROWS_MAX;
use stoa_protocol::message::SessionStep;
use stoa_protocol::{DecodeError, FeatureGroup, Reader, RowBatch, Wire};

use crate::sweep::Sweep;

const COMMAND_VERSION: u8 = 1;
const KIND_NOOP: u8 = 0;
const KIND_DEFINE: u8 = 1;
const KIND_WRITE: u8 = 2;
const KIND_STAMP: u8 = 3;
const KIND_SWEEP: u8 = 4;
const FLAG_STEP: u8 = 1;
const WRITE_HEADER_BYTES: usize = 40;

/// An entry of a partition's log.
///
/// ```text
///  0  u8   version, 1
///  1  u8   kind: 0 noop, 1 define, 2 write, 3 stamp, 4 sweep
///  2  u8   flags: 1 the write has a step of a writer session
///  3  5 zeros
///  8  define: the feature group
///     write:  i64 stamp, u128 session, u64 sequence (both 0 without a step), then at 40 the row batch
///     stamp:  i64 stamp
///     sweep:  i64 stamp, u64 feature group, u64 first hash, u64 last hash, u32 rows at the most
/// ```
///
/// Stamp and sweep belong to cluster version 3, as do definitions with a time to live.
#[derive(Debug, Clone)]
pub enum Command {
    /// Changes nothing: a new leader's first entry.
    Noop,
    /// A feature group, new or with another schema.
    Define(FeatureGroup),
    /// Rows of one group.
    Write {
        /// The leader's time when it proposed the batch, microseconds since 1970-01-01T00:00:00Z.
        stamp_us: i64,
        /// The batch's place in a writer session.
        step: Option<SessionStep>,
        /// The rows.
        batch: RowBatch,
    },
    /// Raises the partition's time, and changes nothing else.
    Stamp {
        /// The leader's time when it proposed it, microseconds since 1970-01-01T00:00:00Z.
        stamp_us: i64,
    },
    /// Removes rows and tombstones that have had their time.
    Sweep(Sweep),
}

impl Command {
    /// The bytes of the log entry.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        match self {
            Self::Noop => put_head(KIND_NOOP, 0, &mut out),
            Self::Define(group) => {
                put_head(KIND_DEFINE, 0, &mut out);
                group.put(&mut out);
            }
            Self::Write { stamp_us, step, batch } => {
                out.reserve_exact(WRITE_HEADER_BYTES + batch.bytes().len());
                put_head(KIND_WRITE, if step.is_some() { FLAG_STEP } else { 0 }, &mut out);
                stamp_us.put(&mut out);
                step.unwrap_or(SessionStep { session: 0, sequence: 0 }).put(&mut out);
                out.extend_from_slice(batch.bytes());
            }
            Self::Stamp { stamp_us } => {
                put_head(KIND_STAMP, 0, &mut out);
                stamp_us.put(&mut out);
            }
            Self::Sweep(sweep) => {
                put_head(KIND_SWEEP, 0, &mut out);
                sweep.put(&mut out);
            }
        }
        out.into()
    }

    /// Reads an entry back. The batch shares the entry's bytes.
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        let mut input = Reader::new(bytes);
        let version = u8::get(&mut input)?;
        if version != COMMAND_VERSION {
            return Err(DecodeError::invalid("a command's version", version, COMMAND_VERSION));
        }
        let kind = u8::get(&mut input)?;
        let flags = u8::get(&mut input)?;
        input.align(8)?;
        let flags_max = if kind == KIND_WRITE { FLAG_STEP } else { 0 };
        if flags > flags_max {
            return Err(DecodeError::invalid("a command's flags", flags, format!("up to {flags_max}")));
        }
        match kind {
            KIND_NOOP => input.finish().map(|()| Self::Noop),
            KIND_DEFINE => {
                let group = FeatureGroup::get(&mut input)?;
                group.check()?;
                input.finish().map(|()| Self::Define(group))
            }
            KIND_WRITE => {
                let stamp_us = i64::get(&mut input)?;
                let step = SessionStep::get(&mut input)?;
                let nothing = SessionStep { session: 0, sequence: 0 };
                if flags & FLAG_STEP == 0 && step != nothing {
                    return Err(DecodeError::invalid("a step that is not there", "not zero", "zero"));
                }
                let batch = RowBatch::parse(bytes.slice(WRITE_HEADER_BYTES..))?;
                Ok(Self::Write { stamp_us, step: (flags & FLAG_STEP != 0).then_some(step), batch })
            }
            KIND_STAMP => {
                let stamp_us = i64::get(&mut input)?;
                input.finish().map(|()| Self::Stamp { stamp_us })
            }
            KIND_SWEEP => {
                let sweep = Sweep::get(&mut input)?;
                if !(1..=SWEEP_ROWS_MAX).contains(&sweep.rows_max) {
                    let allowed = format!("1 to {SWEEP_ROWS_MAX}");
                    return Err(DecodeError::invalid("the rows of a sweep", sweep.rows_max, allowed));
                }
                input.finish().map(|()| Self::Sweep(sweep))
            }
            other => Err(DecodeError::invalid("a command's kind", other, "0 to 4")),
        }
    }
}

fn put_head(kind: u8, flags: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(&[COMMAND_VERSION, kind, flags, 0, 0, 0, 0, 0]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use stoa_protocol::{FeatureType, KeyType, RowBatchBuilder, Value};

    fn samples() -> Vec<Command> {
        let id = stoa_protocol::FeatureGroupId(3);
        let group = FeatureGroup::simple(3, "g", &[("id", KeyType::Bool)], &[("x", FeatureType::Int64)]);
        let mut batch = RowBatchBuilder::new(&group, &[0]);
        batch.upsert(&[0x10, 1], 5, 6, &[Value::Int(7)]).unwrap();
        let batch = batch.finish().unwrap();
        let step = Some(SessionStep { session: 1 << 100, sequence: 4 });
        vec![
            Command::Noop,
            Command::Define(group),
            Command::Write { stamp_us: -1, step: None, batch: batch.clone() },
            Command::Write { stamp_us: 9, step, batch },
            Command::Stamp { stamp_us: 10 },
            Command::Sweep(Sweep { stamp_us: 11, group: id, first_hash: 1 << 63, last_hash: u64::MAX, rows_max: 7 }),
        ]
    }

    #[test]
    fn commands_come_back_and_the_batch_shares_their_bytes() {
        for command in samples() {
            let bytes = command.encode();
            let back = Command::decode(&bytes).unwrap();
            assert_eq!(format!("{command:?}"), format!("{back:?}"));
            if let Command::Write { batch, .. } = back {
                assert_eq!(batch.bytes().as_ptr(), bytes[WRITE_HEADER_BYTES..].as_ptr());
            }
        }
    }

    #[test]
    fn a_sweep_of_no_rows_or_of_too_many_is_no_command() {
        for rows_max in [0, SWEEP_ROWS_MAX + 1, u32::MAX] {
            let group = stoa_protocol::FeatureGroupId(3);
            let sweep = Command::Sweep(Sweep { stamp_us: 0, group, first_hash: 0, last_hash: u64::MAX, rows_max });
            assert!(Command::decode(&sweep.encode()).is_err(), "{rows_max}");
        }
    }

    #[test]
    fn no_damaged_command_panics() {
        for command in samples() {
            let whole = command.encode();
            for cut in 0..whole.len() {
                assert!(Command::decode(&whole.slice(..cut)).is_err());
            }
            for bit in 0..whole.len() * 8 {
                let mut copy = whole.to_vec();
                copy[bit / 8] ^= 1 << (bit % 8);
                let _ = Command::decode(&copy.into());
            }
        }
    }
}
