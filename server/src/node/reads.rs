//! Multi-gets: each section is answered by this node's replica of its partition, or fails by itself.

use std::time::Duration;

use stoa_env::{Disk, Transport};
use stoa_protocol::message::{ReadAnswer, ReadRequest};
use stoa_protocol::read::{ReadSection, SectionResult};
use stoa_protocol::{ErrorBody, ErrorCode};

use super::Node;

impl<D: Disk, T: Transport> Node<D, T> {
    /// Answers all sections, in order, within `limit`.
    pub(crate) async fn read(&self, request: &ReadRequest, limit: Duration) -> ReadAnswer {
        let start = self.env.context.clock.boot();
        let mut sections = Vec::with_capacity(request.sections.len());
        for section in &request.sections {
            let left = limit.saturating_sub(self.env.context.clock.boot().since(start));
            let result = match self.read_section(section, left).await {
                Ok(result) => result,
                Err(error) => SectionResult::Failed(ErrorBody { map_version: self.map_version(), ..error }),
            };
            sections.push(result);
        }
        ReadAnswer { sections }
    }

    async fn read_section(&self, section: &ReadSection, left: Duration) -> Result<SectionResult, ErrorBody> {
        let partition = section.partition;
        if left.is_zero() {
            return Err(ErrorBody::new(ErrorCode::DeadlineExceeded, "the caller's time is used up"));
        }
        let Some(hosted) = self.hosted(partition) else {
            let (code, message) = match self.failure(partition) {
                Some(why) => (ErrorCode::Halted, format!("partition {partition}: {why}")),
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
        let reader = hosted.view.reader();
        if reader.applied() < section.at_least {
            hosted.replica.wait_applied(section.at_least, left).await?;
        }
        Ok(hosted.view.reader().read(section))
    }
}
