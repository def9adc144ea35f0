//! Arrays whose elements become bytes one by one, so that a long one need not be encoded at a stroke.
//!
//! The bytes are those of [`encode`](super::encode), but for what comes before a reply as a whole: the header of a
//! frame is not written here, since it says how long all of the reply is. Arrays nest: what is on the way is one
//! [`OpenArray`] for each of those around the next element. Nothing comes after an array's last element in any
//! dialect, so none is closed.

use crate::types::{Plain, Reply};
use crate::wire::client;

use super::ReplyStyle;
use super::resp::{self, RespVersion};
use super::text::{self, Numbering};

/// An array of which some elements may be bytes already.
#[derive(Clone, Copy, Debug)]
pub struct OpenArray(Kind);

#[derive(Clone, Copy, Debug)]
enum Kind {
    Silent,
    Text(Numbering),
    Resp(RespVersion),
    Binary,
}

impl OpenArray {
    /// Appends what comes before the elements of an array that is a reply of its own. There is at least one.
    pub fn begin(out: &mut Vec<u8>, style: ReplyStyle, len: usize) -> OpenArray {
        let kind = match style {
            ReplyStyle::Silent => Kind::Silent,
            ReplyStyle::Text => Kind::Text(Numbering::at(0)),
            ReplyStyle::Resp2 => Kind::Resp(RespVersion::Resp2),
            ReplyStyle::Resp3 => Kind::Resp(RespVersion::Resp3),
            ReplyStyle::Binary { .. } => Kind::Binary,
        };
        OpenArray(kind).with_head(out, len)
    }

    /// For elements that nobody is told.
    pub fn silent() -> OpenArray {
        OpenArray(Kind::Silent)
    }

    /// Appends the next element.
    pub fn push(&mut self, out: &mut Vec<u8>, reply: &Reply) {
        match &mut self.0 {
            Kind::Silent => {}
            Kind::Text(numbering) => {
                let column = numbering.push(out);
                text::encode(out, reply, column);
            }
            Kind::Resp(version) => resp::encode(out, *version, reply),
            Kind::Binary => client::encode_reply(out, reply),
        }
    }

    /// Appends the next element, a bulk with these bytes.
    pub fn push_bulk(&mut self, out: &mut Vec<u8>, bytes: &[u8]) {
        match &mut self.0 {
            Kind::Silent => {}
            Kind::Text(numbering) => {
                numbering.push(out);
                text::encode_leaf(out, Plain::Bulk(bytes));
            }
            Kind::Resp(_) => resp::push_bulk(out, bytes),
            Kind::Binary => client::encode_bulk(out, bytes),
        }
    }

    /// Appends what comes before the elements of the next element, which is an array itself. It has at least one.
    pub fn open(&mut self, out: &mut Vec<u8>, len: usize) -> OpenArray {
        let kind = match &mut self.0 {
            Kind::Text(numbering) => Kind::Text(Numbering::at(numbering.push(out))),
            kind => *kind,
        };
        OpenArray(kind).with_head(out, len)
    }

    fn with_head(self, out: &mut Vec<u8>, len: usize) -> OpenArray {
        debug_assert!(len > 0, "text has words for an empty array");
        match self.0 {
            Kind::Silent | Kind::Text(_) => {}
            Kind::Resp(_) => resp::push_head(out, b'*', len),
            Kind::Binary => client::encode_array_head(out, len),
        }
        self
    }
}
