//! One request to one node, past the client's search for a better one: what that node itself says.

use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use stoa::local_cluster::LocalCluster;
use stoa_client::Client;
use stoa_env::{Channel, Clock, Credentials, Peer, QuicOptions, QuicTransport, RealClock, Transport, TransportError};
use stoa_protocol::frame::{FrameHeader, decode_frame, encode_frame};
use stoa_protocol::key::KeyBlock;
use stoa_protocol::message::{Caller, KIND_ERROR, Kind, WriteAnswer, WriteRequest, encode_request};
use stoa_protocol::read::{Projection, ReadLevel, ReadRequest, ReadSection, RowStatus};
use stoa_protocol::row_block::parse_answer;
use stoa_protocol::{ClusterId, ErrorBody, ErrorCode, FeatureGroup, LogIndex, MapVersion, PartitionId, Wire};

use crate::items::{FIRST_EVENT_US, batch, key};

/// A way to one node.
#[derive(Clone)]
pub struct Direct {
    transport: QuicTransport,
    peer: Peer,
    cluster: ClusterId,
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum DirectError {
    /// The node refused.
    #[error("refused: {0}")]
    Refused(ErrorBody),
    /// Nothing came.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// What came is no answer.
    #[error("no answer to the request: {0}")]
    Unfit(String),
}

impl DirectError {
    /// Whether the node has promised that the write did not and will not happen.
    pub fn excludes_it(&self) -> bool {
        use ErrorCode::{DeadlineExceeded, Halted, LogFailed, OutcomeUnknown};
        match self {
            Self::Refused(error) => !matches!(error.code, OutcomeUnknown | DeadlineExceeded | Halted | LogFailed),
            Self::Transport(
                TransportError::NotSent { .. } | TransportError::Untrusted { .. } | TransportError::NoRoom { .. },
            ) => true,
            Self::Transport(_) | Self::Unfit(_) => false,
        }
    }
}

/// The certificates of the cluster's application.
pub fn credentials(cluster: &LocalCluster) -> anyhow::Result<Credentials> {
    let file = |name: &str| cluster.certs().join(name);
    let (ca, cert, key) = (file("ca.pem"), file("client-app.pem"), file("client-app.key"));
    Ok(Credentials::from_pem_files(&ca, &cert, &key, RealClock.wall())?)
}

impl Direct {
    /// To a node, over a connection of its own.
    pub fn to(cluster: &LocalCluster, client: &Client<QuicTransport>, node: u64) -> anyhow::Result<Self> {
        let transport = QuicTransport::client_only(credentials(cluster)?, QuicOptions::default())?;
        let peer = Peer { addr: cluster.addr(node)?, node: Some(node) };
        Ok(Self { transport, peer, cluster: client.map().cluster })
    }

    /// Sends a request of any kind.
    pub async fn call<A: Wire>(&self, kind: Kind, request: &impl Wire, limit: Duration) -> Result<A, DirectError> {
        let body = self.call_for_bytes(kind, request, limit).await?;
        A::from_bytes(&body).map_err(|error| DirectError::Unfit(error.to_string()))
    }

    async fn call_for_bytes(&self, kind: Kind, request: &impl Wire, limit: Duration) -> Result<Bytes, DirectError> {
        let header = FrameHeader {
            kind: kind as u16,
            request_id: 1,
            cluster: self.cluster,
            map_version: MapVersion(0),
            remaining_us: limit.as_micros() as u64,
        };
        let frame = encode_frame(&header, &encode_request(&Caller::default(), request));
        let answer = self.transport.call(self.peer, Channel::Client, frame, limit).await?;
        let unfit = |why: String| DirectError::Unfit(why);
        let (header, body) = decode_frame(&answer).map_err(|error| unfit(error.to_string()))?;
        if header.kind == KIND_ERROR {
            let error = ErrorBody::from_bytes(&body).map_err(|error| unfit(error.to_string()))?;
            return Err(DirectError::Refused(error));
        }
        Ok(body)
    }

    /// Asks this node to write one item for the `units`-th time.
    pub async fn write(
        &self,
        group: &FeatureGroup,
        partition: PartitionId,
        item: i64,
        units: i64,
        limit: Duration,
    ) -> Result<WriteAnswer, DirectError> {
        let batch = batch(group, item, units).map_err(|error| DirectError::Unfit(format!("{error:#}")))?;
        let request = WriteRequest { partition, step: None, batch };
        self.call(Kind::Write, &request, limit).await
    }

    /// Asks this node how often an item was written; 0 if it has no row.
    pub async fn read(
        &self,
        group: &FeatureGroup,
        partition: PartitionId,
        item: i64,
        level: ReadLevel,
        limit: Duration,
    ) -> Result<i64, DirectError> {
        let unfit = |why: &str| DirectError::Unfit(why.to_owned());
        let mut keys = KeyBlock::new();
        keys.push(&key(group, item).map_err(|error| unfit(&error.to_string()))?);
        let features = group.feature("units").into_iter().collect();
        let projection = Projection { group: group.id, schema_version: group.schema_version, features };
        let section = ReadSection { partition, at_least: LogIndex(0), projection: 0, first_key: 0, keys: 1 };
        let request = ReadRequest { level, projections: vec![projection], keys, sections: vec![section] };
        let answer = self.call_for_bytes(Kind::Read, &request, limit).await?;
        let answer = parse_answer(answer).map_err(|error| unfit(&error.to_string()))?.pop();
        let rows = answer.ok_or_else(|| unfit("no section"))?.map_err(DirectError::Refused)?;
        match (rows.rows() == 1).then(|| rows.status(0)) {
            Some(RowStatus::Found) => Ok(rows.event_time(0) - FIRST_EVENT_US),
            Some(RowStatus::NotFound) => Ok(0),
            _ => Err(unfit("a row that cannot be")),
        }
    }

    /// Makes sure that there is a connection.
    pub async fn connect(&self) -> anyhow::Result<()> {
        let ping = encode_frame(
            &FrameHeader {
                kind: Kind::Ping as u16,
                request_id: 1,
                cluster: self.cluster,
                map_version: MapVersion(0),
                remaining_us: 0,
            },
            &[],
        );
        crate::wait::until("a connection", async || {
            let answer = self.transport.call(self.peer, Channel::Client, ping.clone(), Duration::from_secs(5)).await;
            answer.map(drop).context("a ping")
        })
        .await
    }
}
