//! One request and its answer as frames: what goes into the header, and what the answer's must say.

use std::time::Duration;

use bytes::Bytes;
use stoa_env::{Channel, Peer, Transport};
use stoa_protocol::frame::{FRAME_HEADER_BYTES, FrameHeader, decode_frame, encode_frame};
use stoa_protocol::limits::{DEADLINE_US_MAX, FRAME_BYTES_MAX};
use stoa_protocol::message::{ANSWER, KIND_ERROR, Kind};
use stoa_protocol::{ClusterId, ErrorBody, MapVersion, Wire};

use crate::error::CallError;

/// What the header of a request says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask {
    pub(crate) kind: Kind,
    pub(crate) request_id: u64,
    /// 0 in the first contact alone.
    pub(crate) cluster: ClusterId,
    pub(crate) map_version: MapVersion,
    /// How long the node may work on it, if that is less than the answer is waited for.
    pub(crate) remaining: Option<Duration>,
}

/// Sends a request and checks that what comes back is its answer. The header is that of the answer.
pub(crate) async fn exchange<T: Transport>(
    transport: &T,
    to: Peer,
    ask: Ask,
    body: &[u8],
    limit: Duration,
) -> Result<(FrameHeader, Bytes), CallError> {
    let limit_bytes = FRAME_BYTES_MAX - FRAME_HEADER_BYTES;
    if body.len() > limit_bytes {
        return Err(CallError::TooLarge { bytes: body.len(), limit: limit_bytes });
    }
    let header = FrameHeader {
        kind: ask.kind as u16,
        request_id: ask.request_id,
        cluster: ask.cluster,
        map_version: ask.map_version,
        remaining_us: u64::try_from(ask.remaining.unwrap_or(limit).min(limit).as_micros())
            .unwrap_or(u64::MAX)
            .min(DEADLINE_US_MAX),
    };
    let answer = transport.call(to, Channel::Client, encode_frame(&header, body), limit).await?;
    let (header, body) = decode_frame(&answer).map_err(|error| CallError::Frame { from: to.addr, error })?;
    check(to, ask, &header)?;
    if header.kind != KIND_ERROR {
        return Ok((header, body));
    }
    match ErrorBody::from_bytes(&body) {
        Ok(mut error) => {
            error.map_version = error.map_version.max(header.map_version);
            Err(CallError::Refused { from: to.addr, error })
        }
        Err(error) => Err(CallError::Unfit { from: to.addr, what: error.to_string() }),
    }
}

fn check(to: Peer, ask: Ask, header: &FrameHeader) -> Result<(), CallError> {
    let unfit = |what| Err(CallError::Unfit { from: to.addr, what });
    if ask.cluster != ClusterId(0) && header.cluster != ask.cluster {
        return Err(CallError::WrongCluster { from: to.addr, wanted: ask.cluster, found: header.cluster });
    }
    if header.request_id != ask.request_id {
        return unfit(format!("it answers request {}, and this was {}", header.request_id, ask.request_id));
    }
    let wanted = ask.kind as u16 | ANSWER;
    if header.kind != wanted && header.kind != KIND_ERROR {
        return unfit(format!("it is of kind {:#06x}, and may be {wanted:#06x} or {KIND_ERROR:#06x}", header.kind));
    }
    Ok(())
}
