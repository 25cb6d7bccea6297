//! Multi-gets: each section is answered by this node's replica of its partition, or fails by itself.
//!
//! A local read is answered at once by what is here. Whatever needs another node, a commit index that a leader has to
//! confirm, or time, a position that is not applied yet, is done afterwards, for all sections together.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use stoa_env::{BootTime, Disk, Transport};
use stoa_protocol::message::{ReadAnswer, ReadRequest};
use stoa_protocol::read::{ConfirmBy, OnStale, ReadLevel, ReadSection, SectionAnswer, SectionResult};
use stoa_protocol::{ErrorBody, ErrorCode, LogIndex};

use super::rounds::Confirmed;
use super::{Hosted, Node};

/// What a local read allows.
#[derive(Clone, Copy)]
struct Bound {
    max_staleness: Option<Duration>,
    on_stale: OnStale,
    /// When the request came: staleness is counted from here, so that time spent on the read itself is none.
    came: BootTime,
}

impl Bound {
    /// Whether a replica may be behind further than allowed that has everything up to `reached`.
    fn is_broken(&self, reached: Option<BootTime>) -> bool {
        match (self.max_staleness, reached) {
            (Some(max), Some(reached)) => self.came.since(reached) > max,
            (Some(_), None) => true,
            (None, _) => false,
        }
    }
}

/// One look at a replica.
struct Look {
    result: Result<SectionAnswer, ErrorBody>,
    /// The moment whose acknowledged writes are all in it.
    reached: Option<BootTime>,
}

impl<D: Disk, T: Transport> Node<D, T> {
    /// Answers all sections, in order, within `limit`. What can be answered at once is; then sections that have to wait are
    /// waited for, all within three quarters of the caller's time, so that the answer still reaches it in time with
    /// everything else in it.
    pub(crate) async fn read(self: &Arc<Self>, request: &ReadRequest, limit: Duration) -> ReadAnswer {
        let came = self.env.context.clock.boot();
        let end = came.plus(limit / 4 * 3);
        let mut sections = match request.level {
            ReadLevel::Local { max_staleness, on_stale } => {
                self.read_local(&request.sections, Bound { max_staleness, on_stale, came }, end).await
            }
            ReadLevel::Linearizable { by } => self.read_strong(&request.sections, by, end).await,
        };
        for section in &mut sections {
            if let SectionResult::Failed(error) = section {
                error.map_version = self.map_version();
            }
        }
        ReadAnswer { sections }
    }

    async fn read_local(self: &Arc<Self>, sections: &[ReadSection], bound: Bound, end: BootTime) -> Vec<SectionResult> {
        let mut results: Vec<SectionResult> = Vec::with_capacity(sections.len());
        let (mut late, mut asked) = (Vec::new(), BTreeSet::new());
        for (at, section) in sections.iter().enumerate() {
            let look = self.serving(section).map(|hosted| (self.look(&hosted, section, bound.came), hosted));
            let result = match look {
                Ok((Look { result: Err(error), .. }, _)) if error.code == ErrorCode::NotCaughtUp => {
                    late.push(at);
                    asked.extend(bound.max_staleness.map(|_| section.partition));
                    Err(error)
                }
                Ok((Look { result: Ok(answer), reached }, hosted)) if bound.is_broken(reached) => {
                    // A leader that did not answer a moment ago is not waited for by those who would rather have an old
                    // answer than none.
                    if bound.on_stale == OnStale::Refuse || !hosted.freshness.is_in_doubt() {
                        late.push(at);
                        asked.insert(section.partition);
                    }
                    self.judge_stale(answer, bound)
                }
                Ok((look, _)) => look.result,
                Err(error) => Err(error),
            };
            results.push(to_result(result));
        }
        let confirmed = match asked.is_empty() {
            true => Confirmed::new(),
            false => self.confirmed(asked, ConfirmBy::ReadIndex, end).await,
        };
        // One after the other is side by side: nothing is done but waiting, and they have one end.
        for at in late {
            let index = confirmed.get(&sections[at].partition).copied().unwrap_or_default();
            results[at] = to_result(self.read_late(&sections[at], index, bound, end).await);
        }
        results
    }

    /// A local read that waits: for its position, and for an index that makes the replica young enough. The index may come
    /// too late, the position must not.
    async fn read_late(
        &self,
        section: &ReadSection,
        index: LogIndex,
        bound: Bound,
        end: BootTime,
    ) -> Result<SectionAnswer, ErrorBody> {
        let hosted = self.serving(section)?;
        let waited = self.wait_applied(&hosted, section.at_least.max(index), end).await;
        if hosted.view.reader().applied() < section.at_least {
            waited?;
        }
        let look = self.look(&hosted, section, self.env.context.clock.boot());
        match look.result {
            Ok(answer) if bound.is_broken(look.reached) => self.judge_stale(answer, bound),
            result => result,
        }
    }

    /// An answer that may be older than allowed: marked or refused, as the request says.
    fn judge_stale(&self, mut answer: SectionAnswer, bound: Bound) -> Result<SectionAnswer, ErrorBody> {
        if bound.on_stale == OnStale::Serve {
            answer.stale = true;
            return Ok(answer);
        }
        let age = answer.age.map_or_else(|| "for as long as nobody knows".into(), |age| format!("by up to {age:?}"));
        let allowed = bound.max_staleness.unwrap_or_default();
        let message = format!("the replica on node {} is behind {age}, and {allowed:?} is allowed", self.info.id);
        Err(ErrorBody::new(ErrorCode::Stale, message))
    }

    /// Strong reads: the leaders of all partitions are asked, each once; then what they have confirmed is waited for.
    async fn read_strong(
        self: &Arc<Self>,
        sections: &[ReadSection],
        by: ConfirmBy,
        end: BootTime,
    ) -> Vec<SectionResult> {
        let served = sections.iter().filter(|section| self.serving(section).is_ok());
        let asked: BTreeSet<_> = served.map(|section| section.partition).collect();
        let confirmed = self.confirmed(asked, by, end).await;
        let mut results = Vec::with_capacity(sections.len());
        for section in sections {
            results.push(to_result(self.read_confirmed(section, &confirmed, end).await));
        }
        results
    }

    async fn read_confirmed(
        &self,
        section: &ReadSection,
        confirmed: &Confirmed,
        end: BootTime,
    ) -> Result<SectionAnswer, ErrorBody> {
        let hosted = self.serving(section)?;
        let Some(index) = confirmed.get(&section.partition).copied() else {
            let message = format!("partition {}: no leader could confirm that it leads in time", section.partition);
            return Err(ErrorBody { leader: hosted.replica.leader(), ..ErrorBody::new(ErrorCode::NoQuorum, message) });
        };
        let index = index.max(section.at_least);
        self.wait_applied(&hosted, index, end).await?;
        let now = self.env.context.clock.boot();
        let answer = self.look(&hosted, section, now).result?;
        if answer.applied < index {
            let message =
                format!("partition {}: {index} is confirmed, and {} applied", section.partition, answer.applied);
            return Err(ErrorBody::new(ErrorCode::NotCaughtUp, message));
        }
        // Whatever was acknowledged before the request came is in it.
        Ok(SectionAnswer { age: Some(Duration::ZERO), stale: false, ..answer })
    }

    async fn wait_applied(&self, hosted: &Hosted<D>, index: LogIndex, end: BootTime) -> Result<(), ErrorBody> {
        let left = end.since(self.env.context.clock.boot());
        if hosted.view.reader().applied() >= index || left.is_zero() {
            return Ok(());
        }
        hosted.replica.wait_applied(index, left).await
    }

    /// Reads what is here, and says how old it may be at `now`.
    fn look(&self, hosted: &Hosted<D>, section: &ReadSection, now: BootTime) -> Look {
        hosted.freshness.note_read(now);
        let reader = hosted.view.reader();
        // Before the rows are read: they may then be newer, never older.
        let reached = hosted.freshness.reached(reader.applied());
        let result = match reader.read(section) {
            SectionResult::Rows(mut answer) => {
                answer.age = reached.map(|reached| now.since(reached));
                Ok(answer)
            }
            SectionResult::Failed(error) => Err(error),
        };
        Look { result, reached }
    }

    /// The replica that answers a section, if it is here and serves.
    fn serving(&self, section: &ReadSection) -> Result<Arc<Hosted<D>>, ErrorBody> {
        let partition = section.partition;
        let Some(hosted) = self.hosted(partition) else {
            let (code, message) = match self.failure(partition) {
                Some(failure) => (ErrorCode::ReplicaOut, format!("partition {partition}: {}", failure.why)),
                None => (ErrorCode::NotHere, format!("node {} has no replica of partition {partition}", self.info.id)),
            };
            return Err(ErrorBody::new(code, message));
        };
        if let Some(why) = hosted.replica.trouble() {
            return Err(ErrorBody::new(ErrorCode::Halted, format!("partition {partition}: {why}")));
        }
        if !hosted.replica.is_caught_up() {
            let message = format!("partition {partition} on node {} is catching up", self.info.id);
            return Err(ErrorBody::new(ErrorCode::NotReady, message));
        }
        Ok(hosted)
    }
}

fn to_result(result: Result<SectionAnswer, ErrorBody>) -> SectionResult {
    result.map_or_else(SectionResult::Failed, SectionResult::Rows)
}
