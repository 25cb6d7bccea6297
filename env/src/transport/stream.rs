//! One request or answer on one QUIC stream: reading it whole within bounds, and the codes by which each side says why
//! it gave a stream up.

use bytes::Bytes;
use quinn::{ReadError, RecvStream, VarInt};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{Bounds, Gauge, Hold, Taken};

use super::limits::SMALL_REQUEST_BYTES;

/// Why a stream was reset, as it travels: the reason in the lowest byte of the error code, a size above it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ResetCode {
    /// The caller no longer waits.
    Cancelled,
    /// The handler has no answer: it gave an empty one, it panicked, or it was dropped.
    NoAnswer,
    /// The request is larger than the server takes.
    RequestTooLarge,
    /// The answer of this many bytes is larger than a frame may be.
    AnswerTooLarge(usize),
    /// The request did not arrive whole in time.
    RequestTooSlow,
    /// Too many bytes of answers wait for the peer to read them.
    ReaderTooSlow,
    /// The handler took longer than it may.
    HandlerTooSlow,
    /// The server reads as many bytes of requests as it may, of all clients together. The request was not handled.
    RequestsTooMany,
    /// A code of a later version.
    Unknown(u64),
}

impl ResetCode {
    /// The code on the wire.
    pub(super) fn encode(self) -> VarInt {
        let code = match self {
            Self::Cancelled => 0,
            Self::NoAnswer => 1,
            Self::RequestTooLarge => 2,
            Self::AnswerTooLarge(bytes) => 3 | ((bytes as u64) << 8),
            Self::RequestTooSlow => 4,
            Self::ReaderTooSlow => 5,
            Self::HandlerTooSlow => 6,
            Self::RequestsTooMany => 7,
            Self::Unknown(code) => code,
        };
        VarInt::from_u64(code).unwrap_or(VarInt::MAX)
    }

    /// The reason of a code from the wire.
    pub(super) fn decode(code: VarInt) -> Self {
        let code = code.into_inner();
        match code & 0xff {
            0 => Self::Cancelled,
            1 => Self::NoAnswer,
            2 => Self::RequestTooLarge,
            3 => Self::AnswerTooLarge(usize::try_from(code >> 8).unwrap_or(usize::MAX)),
            4 => Self::RequestTooSlow,
            5 => Self::ReaderTooSlow,
            6 => Self::HandlerTooSlow,
            7 => Self::RequestsTooMany,
            _ => Self::Unknown(code),
        }
    }

    /// The reason in words.
    pub(super) fn reason(self) -> String {
        match self {
            Self::Cancelled => "the stream was given up".to_owned(),
            Self::NoAnswer => "the peer closed the stream without an answer".to_owned(),
            Self::RequestTooLarge => "the request is larger than the peer takes".to_owned(),
            Self::AnswerTooLarge(bytes) => format!("the peer's answer of {bytes} bytes is too large"),
            Self::RequestTooSlow => "the request did not arrive whole in the peer's time limit".to_owned(),
            Self::ReaderTooSlow => "answers were not read fast enough, so the peer dropped this one".to_owned(),
            Self::HandlerTooSlow => "the peer gave up its own work on the answer".to_owned(),
            Self::RequestsTooMany => "the peer reads as many bytes of requests as it may; send it again".to_owned(),
            Self::Unknown(code) => format!("the peer reset the stream with the unknown code {code}"),
        }
    }
}

/// What the requests of one connection share out among themselves, and how much of it is in use.
pub(super) struct Places {
    free: Semaphore,
    used: Gauge,
}

/// Some of them, until this is dropped.
pub(super) type PlacesHeld<'a> = (Hold, SemaphorePermit<'a>);

impl Places {
    /// So many, counted under a name.
    pub(super) fn new(bounds: &Bounds, name: &'static str, most: usize) -> Self {
        Self { free: Semaphore::new(most), used: bounds.gauge(name, most as u64) }
    }

    /// `count` of them, if they are free.
    pub(super) fn try_take(&self, count: u32) -> Option<PlacesHeld<'_>> {
        let permit = self.free.try_acquire_many(count).ok()?;
        Some((self.used.hold(u64::from(count)), permit))
    }

    /// One of them, once it is free.
    async fn take(&self) -> PlacesHeld<'_> {
        let permit = self.free.acquire().await.expect("the places of a connection are never closed");
        (self.used.hold(1), permit)
    }
}

/// Why a message could not be read whole.
#[derive(Debug)]
pub(super) enum WholeError {
    /// More than the limit has arrived: this many bytes so far.
    TooLarge(usize),
    /// As many bytes as may be are being read of all together.
    TooMany,
    /// The stream or its connection ended.
    Read(ReadError),
}

/// Chunks (packets' contents) that are taken from the connection under one lock: an answer of 20 KB needs 14.
const CHUNKS_MAX: usize = 32;

/// What requests over [`SMALL_REQUEST_BYTES`] must have before they are read on.
#[derive(Clone, Copy)]
pub(super) struct LargeRequests<'a> {
    /// One of these places of their connection; they wait for it.
    pub(super) places: &'a Places,
    /// Their bytes of these, on which there is no waiting.
    pub(super) bytes: Option<&'a Gauge>,
}

/// Reads the stream to its end, `limit` bytes at the most. The bytes are copied as they arrive: a chunk keeps a whole
/// packet alive, which a peer that sends byte by byte would turn into a thousand times its size. Beyond
/// [`SMALL_REQUEST_BYTES`] reading goes on only with what `large` asks for, if it is given.
pub(super) async fn read_whole(
    stream: &mut RecvStream,
    limit: usize,
    large: Option<LargeRequests<'_>>,
) -> Result<Bytes, WholeError> {
    let mut whole: Vec<u8> = Vec::new();
    let mut permit: Option<PlacesHeld<'_>> = None;
    let mut counted: Option<Taken<'_>> = None;
    let mut chunks: [Bytes; CHUNKS_MAX] = Default::default();
    while let Some(count) = stream.read_chunks(&mut chunks).await.map_err(WholeError::Read)? {
        let arrived: usize = chunks[..count].iter().map(Bytes::len).sum();
        let total = whole.len() + arrived;
        if total > limit {
            return Err(WholeError::TooLarge(total));
        }
        if let Some(LargeRequests { bytes: Some(bytes), .. }) = large.filter(|_| total > SMALL_REQUEST_BYTES) {
            let fits = match &mut counted {
                Some(counted) => counted.grow(arrived as u64),
                None => {
                    counted = bytes.take(total as u64);
                    counted.is_some()
                }
            };
            if !fits {
                return Err(WholeError::TooMany);
            }
        }
        whole.reserve(arrived);
        for chunk in &mut chunks[..count] {
            whole.extend_from_slice(chunk);
            *chunk = Bytes::new();
        }
        if total > SMALL_REQUEST_BYTES && permit.is_none() {
            // The permit's holder has a flow-control window of its own, so it can always finish: no deadlock.
            permit = match large {
                Some(large) => Some(large.places.take().await),
                None => None,
            };
        }
    }
    drop((counted, permit));
    Ok(Bytes::from(whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_survives_the_wire() {
        for code in [
            ResetCode::Cancelled,
            ResetCode::NoAnswer,
            ResetCode::RequestTooLarge,
            ResetCode::AnswerTooLarge(17 << 20),
            ResetCode::RequestTooSlow,
            ResetCode::ReaderTooSlow,
            ResetCode::HandlerTooSlow,
            ResetCode::RequestsTooMany,
            ResetCode::Unknown(200),
        ] {
            assert_eq!(ResetCode::decode(code.encode()), code);
        }
    }
}
