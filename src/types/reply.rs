//! What a command answers, before a dialect turns it into bytes.

use std::sync::Arc;

/// The answer to one command, in no particular dialect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// Missing: `Not Found` in text, null in RESP.
    Nil,
    /// A short word without line ends: `OK`, `PONG`.
    Status(&'static str),
    /// A value: any bytes.
    Bulk(Arc<[u8]>),
    /// A signed number.
    Integer(i64),
    /// An error. The text begins with its code: `ERR …`, `NOQUORUM …`; one line.
    Error(Box<str>),
    /// Several answers.
    Array(Vec<Reply>),
}

impl Reply {
    /// The usual answer of a write.
    pub const OK: Reply = Reply::Status("OK");

    /// The status with this text, if a replicated command can answer it; a new one belongs into this list, or a
    /// snapshot that holds it in a session cannot be read back.
    pub fn status(text: &[u8]) -> Option<Reply> {
        (text == b"OK").then_some(Reply::OK)
    }

    /// A bulk with these bytes.
    pub fn bulk(bytes: &[u8]) -> Reply {
        Reply::Bulk(Arc::from(bytes))
    }

    /// An error with this text, which begins with its code.
    pub fn error(text: impl Into<Box<str>>) -> Reply {
        Reply::Error(text.into())
    }

    /// Whether this is an error.
    pub fn is_error(&self) -> bool {
        matches!(self, Reply::Error(_))
    }
}
