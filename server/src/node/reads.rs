//! Multi-gets: each section is answered by this node's replica of its partition, or fails by itself.
//!
//! A local read is answered at once by what is here. Whatever needs another node, a commit index that a leader has to
//! confirm, or time, a position that is not applied yet, is waited for, and answered afterwards. Sections that can be
//! answered at the same time are read together ([`read_sections`]).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use stoa_env::{BootTime, Disk, Transport, planted};
use stoa_protocol::frame::FramedBody;
use stoa_protocol::read::{ConfirmBy, OnStale, ReadLevel, ReadRequest, ReadSection, SectionHead, SectionResult};
use stoa_protocol::row_block::AnswerWriter;
use stoa_protocol::{ErrorBody, ErrorCode, LogIndex};
use stoa_store::{PartitionReader, SectionSource, read_sections};

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

/// A section that can be answered now.
struct Ready {
    /// Its place in the request.
    at: usize,
    reader: PartitionReader,
    /// How old its rows may be; `None` if the replica does not know.
    age: Option<Duration>,
    /// Whether that is older than the read allows.
    is_broken: bool,
    /// The partition's time, by which its rows expire.
    time_us: i64,
    /// The index that a leader has confirmed, for a strong read.
    confirmed: Option<LogIndex>,
}

/// The answer to a request as it comes about.
struct Answering<'a> {
    request: &'a ReadRequest,
    writer: AnswerWriter,
    results: Vec<Option<SectionResult>>,
}

impl Answering<'_> {
    fn fail(&mut self, at: usize, error: ErrorBody) {
        self.results[at] = Some(SectionResult::Failed(error));
    }

    /// Reads sections, all of a projection together.
    fn read(&mut self, mut ready: Vec<Ready>) {
        let Self { request, writer, results } = self;
        let section = |ready: &Ready| &request.sections[ready.at];
        ready.sort_by_key(|ready| section(ready).projection);
        for same in ready.chunk_by(|a, b| section(a).projection == section(b).projection) {
            let sources = same.iter().map(|ready| {
                let ReadSection { at_least, first_key, keys, .. } = *section(ready);
                let keys = request.keys.range(first_key as usize, keys as usize);
                SectionSource {
                    reader: &ready.reader,
                    at_least: at_least.max(ready.confirmed.unwrap_or_default()),
                    time_us: ready.time_us,
                    keys,
                }
            });
            let projection = &request.projections[usize::from(section(&same[0]).projection)];
            let heads = read_sections(projection, &sources.collect::<Vec<_>>(), writer);
            for (ready, head) in same.iter().zip(heads) {
                let head = head.map(|head| SectionHead { age: ready.age, stale: ready.is_broken, ..head });
                results[ready.at] = Some(head.map_or_else(SectionResult::Failed, SectionResult::Rows));
            }
        }
    }

    fn finish(self, node: impl Fn(&mut ErrorBody)) -> FramedBody {
        let result = |result: Option<SectionResult>| {
            let mut result = result.expect("every section was answered, or failed");
            if let SectionResult::Failed(error) = &mut result {
                node(error);
            }
            result
        };
        self.writer.finish(&self.results.into_iter().map(result).collect::<Vec<_>>())
    }
}

impl<D: Disk, T: Transport> Node<D, T> {
    /// Answers all sections, in order, within `limit`; gives the answer's bytes. What can be answered at once is; then
    /// sections that have to wait are waited for, all within three quarters of the caller's time, so that the answer still
    /// reaches it in time with everything else in it.
    pub(crate) async fn read(self: &Arc<Self>, request: &ReadRequest, limit: Duration) -> FramedBody {
        let came = self.env.context.clock.boot();
        let end = came.plus(limit / 4 * 3);
        let results = vec![None; request.sections.len()];
        let mut answering = Answering { request, writer: AnswerWriter::new(request.sections.len()), results };
        match request.level {
            ReadLevel::Local { max_staleness, on_stale } => {
                self.read_local(&mut answering, Bound { max_staleness, on_stale, came }, end).await;
            }
            ReadLevel::Linearizable { by } => self.read_strong(&mut answering, by, end).await,
        }
        answering.finish(|error| error.map_version = self.map_version())
    }

    async fn read_local(self: &Arc<Self>, answering: &mut Answering<'_>, bound: Bound, end: BootTime) {
        let sections = &answering.request.sections;
        let mut ready = Vec::with_capacity(sections.len());
        let (mut late, mut asked) = (Vec::new(), BTreeSet::new());
        for (at, section) in sections.iter().enumerate() {
            let hosted = match self.serving(section) {
                Ok(hosted) => hosted,
                Err(error) => {
                    answering.fail(at, error);
                    continue;
                }
            };
            let now = self.look(&hosted, at, Some(bound), bound.came);
            // A leader that did not answer a moment ago is not waited for by those who would rather have an old answer than
            // none.
            let better_later = now.is_broken && (bound.on_stale == OnStale::Refuse || !hosted.freshness.is_in_doubt());
            if section.at_least > now.reader.applied() {
                late.push(at);
                asked.extend(bound.max_staleness.map(|_| section.partition));
            } else if better_later {
                late.push(at);
                asked.insert(section.partition);
            } else {
                ready.push(now);
            }
        }
        answering.read(ready);
        if late.is_empty() {
            return;
        }
        let confirmed = match asked.is_empty() {
            true => Confirmed::new(),
            false => self.confirmed(asked, ConfirmBy::ReadIndex, end).await,
        };
        let mut ready = Vec::with_capacity(late.len());
        // One after the other is side by side: nothing is done but waiting, and they have one end.
        for at in late {
            let section = &answering.request.sections[at];
            let index = confirmed.get(&section.partition).copied().unwrap_or_default();
            match self.wait_local(at, section, index, bound, end).await {
                Ok(now) => ready.push(now),
                Err(error) => answering.fail(at, error),
            }
        }
        answering.read(ready);
    }

    /// A local read that waits: for its position, and for an index that makes the replica young enough. The index may come
    /// too late, the position must not.
    async fn wait_local(
        &self,
        at: usize,
        section: &ReadSection,
        index: LogIndex,
        bound: Bound,
        end: BootTime,
    ) -> Result<Ready, ErrorBody> {
        let hosted = self.serving(section)?;
        let waited = self.wait_applied(&hosted, section.at_least.max(index), end).await;
        if hosted.view.reader().applied() < section.at_least {
            waited?;
        }
        let now = self.look(&hosted, at, Some(bound), self.env.context.clock.boot());
        if !now.is_broken || bound.on_stale == OnStale::Serve {
            return Ok(now);
        }
        let age = now.age.map_or_else(|| "for as long as nobody knows".into(), |age| format!("by up to {age:?}"));
        let allowed = bound.max_staleness.unwrap_or_default();
        let message = format!("the replica on node {} is behind {age}, and {allowed:?} is allowed", self.info.id);
        Err(ErrorBody::new(ErrorCode::Stale, message))
    }

    /// Strong reads: the leaders of all partitions are asked, each once; then what they have confirmed is waited for. Where
    /// leaders cannot confirm by a heartbeat, they do by read index: the reader has asked for nothing less.
    async fn read_strong(self: &Arc<Self>, answering: &mut Answering<'_>, by: ConfirmBy, end: BootTime) {
        let by = if by == ConfirmBy::Heartbeat { self.confirms_by() } else { by };
        let sections = &answering.request.sections;
        let served = sections.iter().filter(|section| self.serving(section).is_ok());
        let asked: BTreeSet<_> = served.map(|section| section.partition).collect();
        let confirmed = self.confirmed(asked, by, end).await;
        let mut ready = Vec::with_capacity(sections.len());
        for (at, section) in sections.iter().enumerate() {
            match self.wait_confirmed(at, section, &confirmed, end).await {
                Ok(now) => ready.push(now),
                Err(error) => answering.fail(at, error),
            }
        }
        answering.read(ready);
    }

    async fn wait_confirmed(
        &self,
        at: usize,
        section: &ReadSection,
        confirmed: &Confirmed,
        end: BootTime,
    ) -> Result<Ready, ErrorBody> {
        let hosted = self.serving(section)?;
        let Some(index) = confirmed.get(&section.partition).copied() else {
            let message = format!("partition {}: no leader could confirm that it leads in time", section.partition);
            return Err(ErrorBody { leader: hosted.replica.leader(), ..ErrorBody::new(ErrorCode::NoQuorum, message) });
        };
        let index = index.max(section.at_least);
        self.wait_applied(&hosted, index, end).await?;
        let now = self.look(&hosted, at, None, self.env.context.clock.boot());
        // Whatever was acknowledged before the request came is in it.
        Ok(Ready { age: Some(Duration::ZERO), is_broken: false, confirmed: Some(index), ..now })
    }

    async fn wait_applied(&self, hosted: &Hosted<D>, index: LogIndex, end: BootTime) -> Result<(), ErrorBody> {
        let left = end.since(self.env.context.clock.boot());
        if hosted.view.reader().applied() >= index || left.is_zero() {
            return Ok(());
        }
        hosted.replica.wait_applied(index, left).await
    }

    /// What a replica can answer a section with, and how old that may be at `now`.
    fn look(&self, hosted: &Hosted<D>, at: usize, bound: Option<Bound>, now: BootTime) -> Ready {
        hosted.freshness.note_read(now);
        let reader = hosted.view.reader();
        // Before the rows are read: they may then be newer, never older.
        let reached = hosted.freshness.reached(reader.applied());
        Ready {
            at,
            reader,
            age: reached.map(|reached| now.since(reached)),
            is_broken: bound.is_some_and(|bound| bound.is_broken(reached)),
            time_us: self.time_of(hosted, now),
            confirmed: None,
        }
    }

    /// The time of a partition, where that matters to anything.
    fn time_of(&self, hosted: &Hosted<D>, now: BootTime) -> i64 {
        match hosted.view.expires() {
            false => i64::MIN,
            true if planted!(TimeByOwnCalendar) => self.env.context.clock.wall().0,
            true => hosted.view.time_us(now),
        }
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
