//! What quinn's errors mean for a caller.
//!
//! The one subtlety is TLS 1.3: a dialer is done with its handshake before the server has verified the dialer's
//! certificate. A refusal therefore arrives on a connection that already looked open, as a close frame with a TLS
//! alert; the server hands no request over before its own handshake is done, so such a request was never seen.

use std::net::SocketAddr;

use quinn::{ApplicationClose, ConnectError, ConnectionClose, ConnectionError, TransportErrorCode, VarInt};

use super::TransportError;
use super::stream::ResetCode;

/// Why a side closed a whole connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum CloseCode {
    /// The process shuts down.
    Shutdown = 1,
    /// The peer was reported dead, or the connection is not needed.
    Forgotten = 2,
    /// The identity may not use this channel. Nothing was handed over.
    NotAllowed = 3,
    /// Too many connections. Nothing was handed over.
    Busy = 4,
}

impl CloseCode {
    /// The code on the wire.
    pub(super) fn code(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }

    fn is(self, close: &ApplicationClose) -> bool {
        close.error_code == self.code()
    }
}

/// Text of a peer that is cited in an error, at the most: it is foreign and goes into logs.
const FOREIGN_TEXT_CHARS_MAX: usize = 200;

/// If `error` says that no request on this connection was ever seen, or that the peer must not be trusted: the error
/// for callers.
pub(super) fn refusal(addr: SocketAddr, error: &ConnectionError) -> Option<TransportError> {
    match error {
        ConnectionError::TransportError(failure) => {
            let reason = failure.reason.strip_prefix(GENERAL).unwrap_or(&failure.reason);
            alert(addr, failure.code, foreign(reason.as_bytes()), Refuser::Us)
        }
        ConnectionError::ConnectionClosed(ConnectionClose { error_code, reason, .. }) => {
            if *error_code == TransportErrorCode::CONNECTION_REFUSED {
                let reason = "it takes no more connections".to_owned();
                return Some(TransportError::NotSent { addr, reason });
            }
            let text = foreign(reason);
            alert(addr, *error_code, text.strip_prefix(GENERAL).unwrap_or(&text).to_owned(), Refuser::Peer)
        }
        ConnectionError::ApplicationClosed(close) if CloseCode::NotAllowed.is(close) => {
            Some(TransportError::Untrusted { addr, reason: format!("it refused us: {}", foreign(&close.reason)) })
        }
        ConnectionError::ApplicationClosed(close) if CloseCode::Busy.is(close) => {
            Some(TransportError::NotSent { addr, reason: format!("it is busy: {}", foreign(&close.reason)) })
        }
        _ => None,
    }
}

/// The error of a call whose connection could not be made.
pub(super) fn not_connected(addr: SocketAddr, error: &ConnectionError) -> TransportError {
    refusal(addr, error).unwrap_or_else(|| TransportError::NotSent { addr, reason: words(error) })
}

/// The error of a call whose connection could not even be tried.
pub(super) fn not_tried(addr: SocketAddr, error: &ConnectError) -> TransportError {
    TransportError::NotSent { addr, reason: error.to_string() }
}

/// The error of a call whose connection was lost after the request may have left.
pub(super) fn lost(addr: SocketAddr, error: &ConnectionError) -> TransportError {
    refusal(addr, error).unwrap_or_else(|| TransportError::Broken { addr, reason: words(error) })
}

/// The error of a call whose stream the peer reset. `sent` is the request's size, `limit` that of a frame.
pub(super) fn reset(addr: SocketAddr, code: VarInt, sent: usize, limit: usize) -> TransportError {
    match ResetCode::decode(code) {
        ResetCode::RequestTooLarge => TransportError::TooLarge { addr, bytes: sent, limit },
        ResetCode::AnswerTooLarge(bytes) => TransportError::TooLarge { addr, bytes, limit },
        // It was not read whole, so nobody has begun to work on it.
        code @ ResetCode::RequestsTooMany => TransportError::NoRoom { addr, reason: code.reason() },
        code @ ResetCode::ReaderTooSlow => TransportError::AnswerDropped { addr, reason: code.reason() },
        code => TransportError::Broken { addr, reason: code.reason() },
    }
}

/// How rustls begins the text of an error of our own verifiers.
const GENERAL: &str = "unexpected error: ";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Refuser {
    Us,
    Peer,
}

/// QUIC carries a TLS alert as the code 0x100 + alert.
fn alert(addr: SocketAddr, code: TransportErrorCode, text: String, refuser: Refuser) -> Option<TransportError> {
    const NO_APPLICATION_PROTOCOL: u64 = 120;
    const INTERNAL_ERROR: u64 = 80;
    let alert = u64::from(code).checked_sub(0x100).filter(|alert| *alert < 0x100)?;
    match alert {
        NO_APPLICATION_PROTOCOL => {
            let reason = "it does not speak the protocol stoa/1 of this channel".to_owned();
            Some(TransportError::NotSent { addr, reason })
        }
        INTERNAL_ERROR => Some(TransportError::NotSent { addr, reason: format!("TLS failed: {text}") }),
        _ => {
            let text = if text.is_empty() { format!("TLS alert {alert}") } else { text };
            let reason = match refuser {
                Refuser::Us => text,
                Refuser::Peer => format!("it refused our certificate: {text}"),
            };
            Some(TransportError::Untrusted { addr, reason })
        }
    }
}

fn words(error: &ConnectionError) -> String {
    match error {
        ConnectionError::TimedOut => "the peer was silent for too long".to_owned(),
        ConnectionError::Reset => "the peer has restarted and knows the connection no more".to_owned(),
        ConnectionError::LocallyClosed => "the connection was given up on this side".to_owned(),
        ConnectionError::ApplicationClosed(close) => format!("the peer closed it: {}", foreign(&close.reason)),
        ConnectionError::ConnectionClosed(close) => {
            format!("the peer aborted it: {} {}", close.error_code, foreign(&close.reason))
        }
        other => other.to_string(),
    }
}

/// Foreign text without control characters and cut to [`FOREIGN_TEXT_CHARS_MAX`].
fn foreign(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).take(FOREIGN_TEXT_CHARS_MAX).collect()
}
