//! What a command answers, before a dialect turns it into bytes.

use super::Bytes;

/// The answer to one command, in no particular dialect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// Missing: `Not Found` in text, null in RESP.
    Nil,
    /// A short word without line ends: `OK`, `PONG`.
    Status(&'static str),
    /// A value: any bytes.
    Bulk(Bytes),
    /// A signed number.
    Integer(i64),
    /// An error. The text begins with its code: `ERR …`, `NOQUORUM …`; one line.
    Error(Box<str>),
    /// Several answers.
    Array(Vec<Reply>),
    /// Keys and values in turn: a map in RESP3, an array elsewhere.
    Map(Vec<Reply>),
    /// Members in no order that means anything: a set in RESP3, an array elsewhere.
    Set(Vec<Reply>),
    /// Something that is no answer: a message to a subscriber. A push in RESP3, an array elsewhere.
    Push(Vec<Reply>),
    /// Text for people: a verbatim string in RESP3, a bulk elsewhere.
    Verbatim(Bytes),
    /// A list that is missing: the null array of RESP2, `Nil` elsewhere.
    NilArray,
    /// A number as text: a double in RESP3, a bulk elsewhere.
    Double(Box<str>),
    /// A truth: a boolean in RESP3, 1 or 0 elsewhere.
    Boolean(bool),
    /// An integer of any size as text: a big number in RESP3, a bulk elsewhere.
    BigNumber(Box<str>),
}

impl Reply {
    /// The usual answer of a write.
    pub const OK: Reply = Reply::Status("OK");

    /// The status with this text, if a replicated command can answer it; a new one belongs into this list, or a
    /// snapshot that holds it in a session cannot be read back.
    pub fn status(text: &[u8]) -> Option<Reply> {
        ["OK", "none", "string"].into_iter().find(|known| known.as_bytes() == text).map(Reply::Status)
    }

    /// What a dialect without the types of RESP3 says instead; itself if there is nothing to be replaced on the
    /// outside.
    pub fn plain(&self) -> Plain<'_> {
        match self {
            Reply::Nil | Reply::NilArray => Plain::Nil,
            Reply::Status(text) => Plain::Status(text),
            Reply::Bulk(bytes) | Reply::Verbatim(bytes) => Plain::Bulk(bytes),
            Reply::Double(text) | Reply::BigNumber(text) => Plain::Bulk(text.as_bytes()),
            Reply::Integer(value) => Plain::Integer(*value),
            Reply::Boolean(value) => Plain::Integer(i64::from(*value)),
            Reply::Error(text) => Plain::Error(text),
            Reply::Array(items) | Reply::Map(items) | Reply::Set(items) | Reply::Push(items) => {
                Plain::Array(items)
            }
        }
    }

    /// A bulk with these bytes.
    pub fn bulk(bytes: &[u8]) -> Reply {
        Reply::Bulk(Bytes::from(bytes))
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

/// A reply reduced to the types that every dialect has; what is in an array is not reduced yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Plain<'a> {
    /// Missing.
    Nil,
    /// A short word.
    Status(&'static str),
    /// Any bytes.
    Bulk(&'a [u8]),
    /// A number.
    Integer(i64),
    /// An error with its code in front.
    Error(&'a str),
    /// Several answers.
    Array(&'a [Reply]),
}
