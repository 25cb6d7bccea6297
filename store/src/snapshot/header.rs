//! The first chunk of a snapshot.

use stoa_protocol::{DecodeError, LogIndex, Reader, Wire};

use crate::sessions::Sessions;

/// What is said once.
pub(super) struct Header {
    /// The seed of the index hash.
    pub seed: u64,
    /// The index of the last command applied.
    pub applied: LogIndex,
    /// Partition time.
    pub time_us: i64,
    /// The writer sessions.
    pub sessions: Sessions,
}

impl Header {
    pub fn get(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(payload);
        let seed = u64::get(&mut input)?;
        // For people; restore takes the one it is given.
        let _incarnation = u32::get(&mut input)?;
        let _reserved = u32::get(&mut input)?;
        let header = Self {
            seed,
            applied: LogIndex::get(&mut input)?,
            time_us: i64::get(&mut input)?,
            sessions: Sessions::get(&mut input)?,
        };
        input.finish()?;
        match header.sessions.newest() {
            Some(newest) if newest > header.applied => {
                let limit = format!("up to {}, which is all that was applied", header.applied);
                Err(DecodeError::invalid("the index of a writer session", newest, limit))
            }
            _ => Ok(header),
        }
    }
}

/// The bytes of a header.
pub(super) fn put_header(
    seed: u64,
    incarnation: u32,
    (applied, time_us): (LogIndex, i64),
    sessions: &Sessions,
) -> Vec<u8> {
    let mut out = Vec::new();
    seed.put(&mut out);
    incarnation.put(&mut out);
    0u32.put(&mut out);
    applied.put(&mut out);
    time_us.put(&mut out);
    sessions.put(&mut out);
    out
}

#[cfg(test)]
mod tests {
    use stoa_protocol::message::SessionStep;

    use super::*;

    #[test]
    fn a_session_has_no_later_index_than_what_was_applied() {
        let mut sessions = Sessions::default();
        sessions.record(SessionStep { session: 1, sequence: 1 }, LogIndex(7), 0);
        sessions.record(SessionStep { session: 2, sequence: 4 }, LogIndex(3), 0);
        let header = |applied| Header::get(&put_header(1, 2, (LogIndex(applied), 3), &sessions));
        assert_eq!(header(7).map(|header| header.sessions), Ok(sessions.clone()));
        let refusal = header(6).map(drop).unwrap_err().to_string();
        assert!(refusal.contains("the index of a writer session") && refusal.contains("up to 6"), "{refusal}");
        assert_eq!(Header::get(&put_header(1, 2, (LogIndex(0), 3), &Sessions::default())).map(drop), Ok(()));
    }
}
