//! Why a connection's bytes are no request.

use std::fmt;

use crate::types::Reply;
use crate::wire::{DecodeError, FrameError};

/// Bytes after which nothing on the connection can be trusted: it is answered once and closed. Redis' words where
/// Redis knows the fault.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ProtocolError {
    /// The number of arguments of an array is no number, or above the limit.
    InvalidMultibulkLength,
    /// The length of an argument is no number, above the limit, or not where the argument ends.
    InvalidBulkLength,
    /// An argument of an array does not begin with `$`.
    ExpectedBulk {
        /// The byte found instead.
        found: u8,
    },
    /// The line with the number of arguments does not end.
    TooBigCountString,
    /// The line with the length of an argument does not end.
    TooBigBulkCountString,
    /// The arguments together are above the limit.
    TooBigRequest,
    /// A line above the limit.
    TooBigInline,
    /// A quote that is not closed, or is closed in the middle of a word.
    UnbalancedQuotes,
    /// Somebody takes this for a web server; perhaps a web page that was made to (cross-protocol scripting).
    Http,
    /// Somebody takes this for a port with encryption.
    Tls,
    /// A binary frame that is none.
    Frame(FrameError),
    /// A sound frame of a kind that clients do not send.
    FrameKind {
        /// The kind.
        found: u8,
    },
    /// A request frame whose payload is not what it should be.
    Payload(DecodeError),
    /// A request frame without even a command's name.
    NoCommand,
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProtocolError::InvalidMultibulkLength => f.write_str("invalid multibulk length"),
            ProtocolError::InvalidBulkLength => f.write_str("invalid bulk length"),
            ProtocolError::ExpectedBulk { found } => {
                if found.is_ascii_graphic() {
                    write!(f, "expected '$', got '{}'", char::from(*found))
                } else {
                    write!(f, "expected '$', got '{}'", found.escape_ascii())
                }
            }
            ProtocolError::TooBigCountString => f.write_str("too big mbulk count string"),
            ProtocolError::TooBigBulkCountString => f.write_str("too big bulk count string"),
            ProtocolError::TooBigRequest => f.write_str("too big request"),
            ProtocolError::TooBigInline => f.write_str("too big inline request"),
            ProtocolError::UnbalancedQuotes => f.write_str("unbalanced quotes in request"),
            ProtocolError::Http => f.write_str("this port does not speak HTTP"),
            ProtocolError::Tls => f.write_str("this port does not speak TLS"),
            ProtocolError::Frame(error) => error.fmt(f),
            ProtocolError::FrameKind { found } => write!(f, "unexpected frame of kind {found:#04x}"),
            ProtocolError::Payload(error) => error.fmt(f),
            ProtocolError::NoCommand => f.write_str("request without a command"),
        }
    }
}

impl std::error::Error for ProtocolError {}

impl From<ProtocolError> for Reply {
    fn from(error: ProtocolError) -> Reply {
        Reply::error(format!("ERR Protocol error: {error}"))
    }
}
