//! Row batches: checked here, by the leader, before they are proposed, because apply cannot fail on what a user sent.

use std::time::Duration;

use bytes::Bytes;
use stoa_env::{Disk, Transport};
use stoa_protocol::catalog::Definition;
use stoa_protocol::codec::Wire;
use stoa_protocol::key::{key_prefix, partition_hash};
use stoa_protocol::message::{SessionAnswer, SessionRequest, WriteAnswer, WriteRequest};
use stoa_protocol::{ErrorBody, ErrorCode, FeatureGroup, FeatureType, PartitionId, RowBatch};
use stoa_store::Command;

use super::{Hosted, Node};

impl<D: Disk, T: Transport> Node<D, T> {
    /// Checks a batch, proposes it, and waits until it is durable on a quorum and applied here.
    pub(crate) async fn write(&self, request: WriteRequest, limit: Duration) -> Result<WriteAnswer, ErrorBody> {
        let hosted = self.hosted_leader(request.partition)?;
        let batch = RowBatch::parse(Bytes::from(request.batch))?;
        let Some(group) = hosted.view.definition(batch.group()) else {
            let message = format!("partition {} does not know group {} yet", request.partition, batch.group());
            return Err(ErrorBody { retry_after_ms: 20, ..ErrorBody::new(ErrorCode::SchemaNotReady, message) });
        };
        if batch.schema_version() > group.schema_version {
            let message = format!(
                "partition {} knows schema {} of {}, and the batch is of {}",
                request.partition,
                group.schema_version,
                group.full_name(),
                batch.schema_version()
            );
            return Err(ErrorBody { retry_after_ms: 20, ..ErrorBody::new(ErrorCode::SchemaNotReady, message) });
        }
        // The leader's stamp: everything that depends on time is decided here, once, for all replicas.
        let stamp = self.first_stamp(&hosted, limit).await;
        batch.check(&group, stamp.events_until_us)?;
        check_json(&batch, &group)?;
        self.check_range(request.partition, &batch, &group)?;
        hosted.view.reader().admits(&batch)?;
        let command = Command::Write { stamp_us: stamp.us, step: request.step, batch }.encode();
        let reply = hosted.replica.propose(command, limit).await?;
        match reply.outcome {
            Some(Ok(bytes)) => Ok(WriteAnswer::from_bytes(&bytes)?),
            Some(Err(error)) => Err(error),
            None => Err(ErrorBody::new(ErrorCode::OutcomeUnknown, "the entry carried no command")),
        }
    }

    /// How far a writer session has come, confirmed by a quorum: a leader that has been deposed must not answer.
    pub(crate) async fn session(&self, request: SessionRequest, limit: Duration) -> Result<SessionAnswer, ErrorBody> {
        let hosted = self.hosted_leader(request.partition)?;
        let index = hosted.replica.barrier(limit).await?;
        hosted.replica.wait_applied(index, limit).await?;
        hosted.replica.ask_machine(move |machine| machine.session(request.session)).await
    }

    fn hosted_leader(&self, partition: PartitionId) -> Result<std::sync::Arc<Hosted<D>>, ErrorBody> {
        let Some(hosted) = self.hosted(partition) else {
            let (code, message) = match self.failure(partition) {
                Some(failure) => (ErrorCode::ReplicaOut, format!("partition {partition}: {}", failure.why)),
                None => (ErrorCode::NotHere, format!("node {} has no replica of partition {partition}", self.info.id)),
            };
            return Err(ErrorBody::new(code, message));
        };
        if !hosted.replica.leads() {
            let message = format!("node {} does not lead partition {partition}", self.info.id);
            return Err(ErrorBody { leader: hosted.replica.leader(), ..ErrorBody::new(ErrorCode::NotLeader, message) });
        }
        Ok(hosted)
    }

    /// Every key must lie in the partition's range: a caller with an old map is told so.
    fn check_range(&self, partition: PartitionId, batch: &RowBatch, group: &FeatureGroup) -> Result<(), ErrorBody> {
        let state = self.state();
        let Some(set) = state.map.set(group.set) else {
            return Err(ErrorBody::new(ErrorCode::NotHere, format!("partition set {} is not in the map", group.set)));
        };
        let types = group.entity.key_types();
        for row in 0..batch.rows() {
            let prefix = key_prefix(&types, batch.key(row), usize::from(group.entity.partition_by));
            let prefix = prefix.map_err(|e| ErrorBody::new(ErrorCode::BadKey, format!("row {row}: {e}")))?;
            let owner = set.partition_of(partition_hash(prefix)).map(|p| p.id);
            if owner != Some(partition) {
                let message = format!("row {row} of the batch belongs to partition {owner:?}, not {partition}");
                return Err(ErrorBody::new(ErrorCode::NotHere, message));
            }
        }
        Ok(())
    }
}

/// As of values, of the defaults of Json features.
pub(super) fn check_json_defaults(definitions: &[Definition]) -> Result<(), ErrorBody> {
    let groups = definitions.iter().filter_map(|definition| match definition {
        Definition::Group(group) => Some(group),
        _ => None,
    });
    for feature in groups.flat_map(|group| &group.features).filter(|feature| feature.ty == FeatureType::Json) {
        let parsed = feature.default.as_ref().map(|bytes| serde_json::from_slice::<serde::de::IgnoredAny>(bytes));
        if let Some(Err(error)) = parsed {
            let message = format!("the default of feature {}: not JSON: {error}", feature.name);
            return Err(ErrorBody::new(ErrorCode::BadRequest, message));
        }
    }
    Ok(())
}

/// Values of Json features must be JSON: the store keeps them as text and never looks again.
fn check_json(batch: &RowBatch, group: &FeatureGroup) -> Result<(), ErrorBody> {
    for (at, column) in batch.columns().iter().enumerate().filter(|(_, column)| column.ty == FeatureType::Json) {
        for row in 0..batch.rows() {
            let Some(bytes) = batch.value(at, row) else { continue };
            if let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(bytes) {
                let name = &group.features[usize::from(column.feature)].name;
                let message = format!("row {row}, feature {name}: not JSON: {error}");
                return Err(ErrorBody::new(ErrorCode::BadValue, message));
            }
        }
    }
    Ok(())
}
