//! Writer sessions: which batch of a writer was applied last, so that one sent again is not applied again.

use std::collections::BTreeSet;

use stoa_protocol::limits::WRITER_SESSIONS_MAX;
use stoa_protocol::message::{SessionAnswer, SessionStep};
use stoa_protocol::{DecodeError, LogIndex, Reader, RowBatch, Wire};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::memory::vec_bytes;

/// What a step of a session asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StepVerdict {
    /// It is the next one.
    Next,
    /// It was applied before; the last one of its session stands at this index.
    Repeated(LogIndex),
    /// Another batch has its number, and was applied: to answer that this one was would lose it.
    Other,
    /// Steps before it are missing; this was the last one.
    Gap(u64),
}

/// The last step of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LastStep {
    sequence: u64,
    index: LogIndex,
    /// Of the batch's bytes, so that a number that was given to two batches is found out.
    content: u64,
}

/// What tells a batch from another one under the same number.
pub(crate) fn content_hash(batch: &RowBatch) -> u64 {
    xxh3_64(batch.bytes())
}

/// At most [`WRITER_SESSIONS_MAX`] sessions; the one whose last applied batch is oldest in the log is forgotten first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sessions {
    /// By session. So few that to insert one, or to look for the oldest, is to go through 48 KiB at the most.
    last: Vec<(u128, LastStep)>,
    digest: u128,
}

impl Sessions {
    /// How far a session has come.
    pub fn answer(&self, session: u128) -> SessionAnswer {
        let none = SessionAnswer { last: 0, index: LogIndex(0) };
        self.step(session).map_or(none, |step| SessionAnswer { last: step.sequence, index: step.index })
    }

    /// What a step with a batch of this content asks for. Of earlier batches than the last the content is not known, and
    /// nobody who uses the session alone waits for one of them: a writer has one batch under way at a time. So such a step
    /// is a late copy, whose answer nobody reads, or that of a second writer, whose rows must not be acknowledged.
    pub fn verdict(&self, step: SessionStep, content: u64) -> StepVerdict {
        let SessionAnswer { last, index } = self.answer(step.session);
        if step.sequence != 0 && step.sequence <= last {
            let known = self.step(step.session).map(|last| last.content);
            match step.sequence == last && known == Some(content) {
                true => StepVerdict::Repeated(index),
                false => StepVerdict::Other,
            }
        } else if Some(step.sequence) == last.checked_add(1) {
            StepVerdict::Next
        } else {
            StepVerdict::Gap(last)
        }
    }

    /// Records a step that was applied, at an index beyond those of all others.
    pub fn record(&mut self, step: SessionStep, index: LogIndex, content: u64) {
        let entry = LastStep { sequence: step.sequence, index, content };
        self.digest = self.digest.wrapping_add(entry_digest(step.session, entry));
        if let Ok(at) = self.place(step.session) {
            let old = std::mem::replace(&mut self.last[at].1, entry);
            self.digest = self.digest.wrapping_sub(entry_digest(step.session, old));
            return;
        }
        if self.last.len() == WRITER_SESSIONS_MAX {
            let indices = self.last.iter().enumerate().map(|(at, (_, entry))| (entry.index, at));
            let (_, oldest) = indices.min().expect("there are sessions");
            let (session, entry) = self.last.remove(oldest);
            self.digest = self.digest.wrapping_sub(entry_digest(session, entry));
        }
        let at = self.place(step.session).expect_err("it is not there");
        self.last.insert(at, (step.session, entry));
    }

    /// The highest index of all.
    pub fn newest(&self) -> Option<LogIndex> {
        self.last.iter().map(|(_, entry)| entry.index).max()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.last.len()
    }

    /// A sum over all sessions.
    pub fn digest(&self) -> u128 {
        self.digest
    }

    fn place(&self, session: u128) -> Result<usize, usize> {
        self.last.binary_search_by_key(&session, |(session, _)| *session)
    }

    fn step(&self, session: u128) -> Option<&LastStep> {
        self.place(session).ok().map(|at| &self.last[at].1)
    }

    /// Bytes in the heap.
    pub fn bytes(&self) -> usize {
        vec_bytes(&self.last)
    }

    /// Asserts that sessions ascend, each with an entry of the log to itself.
    pub fn check(&self) {
        assert!(self.last.len() <= WRITER_SESSIONS_MAX);
        assert!(self.last.is_sorted_by(|a, b| a.0 < b.0));
        let mut indices: Vec<_> = self.last.iter().map(|(_, entry)| entry.index).collect();
        indices.sort_unstable();
        assert!(indices.is_sorted_by(|a, b| a < b), "an entry of the log is applied once");
        let sum = self.last.iter().fold(0, |sum: u128, (s, e)| sum.wrapping_add(entry_digest(*s, *e)));
        assert_eq!(sum, self.digest);
    }
}

/// A count, then session, last sequence, index and content hash of each, by session.
impl Wire for Sessions {
    fn put(&self, out: &mut Vec<u8>) {
        (self.last.len() as u32).put(out);
        self.last.iter().for_each(|(session, entry)| put_entry(*session, *entry, out));
    }

    fn get(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let count = input.count(40, "writer sessions")?;
        if count > WRITER_SESSIONS_MAX {
            return Err(DecodeError::invalid("writer sessions", count, format!("up to {WRITER_SESSIONS_MAX}")));
        }
        let mut sessions = Self::default();
        let mut indices = BTreeSet::new();
        for _ in 0..count {
            let step = SessionStep::get(input)?;
            let (index, content) = (LogIndex::get(input)?, u64::get(input)?);
            let after_last = sessions.last.last().is_none_or(|(last, _)| *last < step.session);
            if !after_last || !indices.insert(index) {
                return Err(DecodeError::invalid("a writer session", step.session, "ascending, with its own index"));
            }
            sessions.record(step, index, content);
        }
        Ok(sessions)
    }
}

fn put_entry(session: u128, entry: LastStep, out: &mut Vec<u8>) {
    session.put(out);
    entry.sequence.put(out);
    entry.index.put(out);
    entry.content.put(out);
}

fn entry_digest(session: u128, entry: LastStep) -> u128 {
    let mut bytes = Vec::with_capacity(40);
    put_entry(session, entry, &mut bytes);
    xxh3_128(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_unused_longest_is_forgotten_and_the_others_come_back_from_their_bytes() {
        let mut sessions = Sessions::default();
        let step = |session, sequence| SessionStep { session, sequence };
        for at in 0..WRITER_SESSIONS_MAX as u64 {
            sessions.record(step(u128::from(at), 1), LogIndex(at + 1), 7);
        }
        sessions.record(step(0, 2), LogIndex(5_000), 8);
        sessions.record(step(u128::MAX, 1), LogIndex(5_001), 9);
        sessions.check();
        assert_eq!(sessions.answer(0), SessionAnswer { last: 2, index: LogIndex(5_000) });
        assert_eq!(sessions.answer(1).last, 0, "session 1 was the oldest");
        assert_eq!(sessions.verdict(step(0, 2), 8), StepVerdict::Repeated(LogIndex(5_000)));
        assert_eq!(sessions.verdict(step(0, 2), 7), StepVerdict::Other, "the number was given to another batch");
        assert_eq!(sessions.verdict(step(0, 1), 7), StepVerdict::Other, "whether it is the same nobody knows any more");
        assert_eq!(sessions.verdict(step(0, 3), 8), StepVerdict::Next);
        assert_eq!(sessions.verdict(step(0, 4), 8), StepVerdict::Gap(2));
        assert_eq!(sessions.verdict(step(1, 0), 8), StepVerdict::Gap(0));
        assert_eq!(Sessions::from_bytes(&sessions.to_bytes()).unwrap(), sessions);
    }
}
