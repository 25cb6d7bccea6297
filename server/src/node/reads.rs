//! Multi-gets: each section is answered by this node's replica of its partition, or fails by itself.

use std::sync::Arc;
use std::time::Duration;

use stoa_env::{Disk, Transport};
use stoa_protocol::message::{ReadAnswer, ReadRequest};
use stoa_protocol::read::{ReadSection, SectionResult};
use stoa_protocol::{ErrorBody, ErrorCode};

use super::{Hosted, Node};

impl<D: Disk, T: Transport> Node<D, T> {
    /// Answers all sections, in order, within `limit`. What can be answered at once is; then sections whose position has
    /// not been applied yet are waited for, all within three quarters of the caller's time, so that the answer still
    /// reaches it in time with everything else in it.
    pub(crate) async fn read(&self, request: &ReadRequest, limit: Duration) -> ReadAnswer {
        let end = self.env.context.clock.boot().plus(limit / 4 * 3);
        let mut late = Vec::new();
        let mut sections: Vec<SectionResult> = Vec::with_capacity(request.sections.len());
        for (at, section) in request.sections.iter().enumerate() {
            let result = self.serving(section).map(|hosted| hosted.view.reader().read(section));
            if matches!(&result, Ok(SectionResult::Failed(error)) if error.code == ErrorCode::NotCaughtUp) {
                late.push(at);
            }
            sections.push(result.unwrap_or_else(SectionResult::Failed));
        }
        // One after the other is side by side: nothing is done but waiting, and they have one end.
        for at in late {
            let left = end.since(self.env.context.clock.boot());
            let section = &request.sections[at];
            sections[at] = self.read_late(section, left).await.unwrap_or_else(SectionResult::Failed);
        }
        for section in &mut sections {
            if let SectionResult::Failed(error) = section {
                error.map_version = self.map_version();
            }
        }
        ReadAnswer { sections }
    }

    async fn read_late(&self, section: &ReadSection, left: Duration) -> Result<SectionResult, ErrorBody> {
        let hosted = self.serving(section)?;
        if hosted.view.reader().applied() < section.at_least && !left.is_zero() {
            hosted.replica.wait_applied(section.at_least, left).await?;
        }
        Ok(hosted.view.reader().read(section))
    }

    /// The replica that answers a section, if it is here and serves.
    fn serving(&self, section: &ReadSection) -> Result<Arc<Hosted<D>>, ErrorBody> {
        let partition = section.partition;
        let Some(hosted) = self.hosted(partition) else {
            let (code, message) = match self.failure(partition) {
                Some(why) => (ErrorCode::ReplicaOut, format!("partition {partition}: {why}")),
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
