//! Client dialects: bytes to requests, replies to bytes.
//!
//! One port serves three kinds of clients, and the bytes say which: a frame begins with `0xB1`, a RESP
//! array with `*`, and anything else is a line, whose sender wants RESP if it ends in CR LF (programs,
//! telnet) and plain text if it ends in a bare LF (somebody at `nc`). That is decided anew for each
//! request, so a connection may mix them, as it may in Redis.
//!
//! A [`Decoder`] is shown the bytes of its connection that have not been consumed, again and again with more behind
//! them, and hands out one request at a time. Which requests come out does not depend on the pieces in which the bytes
//! came in, and each byte is looked at a fixed number of times, whatever the pieces.
//!
//! Left out on purpose: what a request means, and everything that commands do to a connection, but for the version of
//! RESP.

mod binary;
mod error;
mod inline;
mod line;
mod pieces;
mod resp;
#[cfg(test)]
mod tests;
mod text;

use std::ops::Range;

use crate::types::{Reply, limits};
use crate::wire::MAGIC;
use crate::wire::batch::SessionSeq;
use crate::wire::client::{Consistency, encode_response};

pub use error::ProtocolError;
pub use pieces::OpenArray;
pub use resp::RespVersion;

use line::{Ending, Line, read_line};

/// Takes a line apart into words as this dialect does, quotes and escapes resolved: for programs that read commands
/// from people. The line may be of any length.
///
/// # Errors
/// A quote that is not closed, or is closed in the middle of a word.
pub fn split_line(line: &[u8]) -> Result<Vec<Vec<u8>>, ProtocolError> {
    let (mut words, mut places) = (Vec::new(), Vec::new());
    inline::split(line, &mut words, &mut places)?;
    Ok(places.into_iter().map(|place| words[place].to_vec()).collect())
}

/// The first byte of a TLS handshake; no command begins with it.
const TLS_HANDSHAKE: u8 = 0x16;

/// How a reply is to be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplyStyle {
    /// Plain text, a line.
    Text,
    /// RESP2.
    Resp2,
    /// RESP3.
    Resp3,
    /// Not at all.
    Silent,
    /// A response frame.
    Binary {
        /// The request's id.
        id: u64,
    },
}

/// How much a client may send.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DecodeLimits {
    /// Most arguments of a command, its name included.
    pub argument_count_max: usize,
    /// Longest argument of an array, in bytes.
    pub bulk_len_max: usize,
    /// Most bytes of all arguments of an array together.
    pub command_len_max: usize,
    /// Longest line, in bytes, its end not counted.
    pub inline_len_max: usize,
    /// Most payload bytes of a frame.
    pub frame_len_max: usize,
}

impl Default for DecodeLimits {
    fn default() -> DecodeLimits {
        DecodeLimits {
            argument_count_max: limits::ARGUMENT_COUNT_MAX,
            bulk_len_max: limits::VALUE_LEN_MAX,
            command_len_max: limits::COMMAND_LEN_MAX,
            inline_len_max: limits::INLINE_LEN_MAX,
            frame_len_max: limits::FRAME_LEN_MAX,
        }
    }
}

/// What is at the front of a connection's bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decoded<'a> {
    /// A request. There is at least one argument.
    Request {
        /// Its bytes, to be dropped from the front.
        consumed: usize,
        /// The command's name and its arguments.
        arguments: Vec<&'a [u8]>,
        /// How the reply is to be written.
        style: ReplyStyle,
        /// The place in the client's session; only in frames.
        session: Option<SessionSeq>,
        /// How fresh a read has to be; only in frames. `None`: what the connection was set to.
        consistency: Option<Consistency>,
    },
    /// Bytes that ask for nothing and get no reply: an empty line, an empty array.
    Nothing {
        /// Their number, to be dropped from the front.
        consumed: usize,
    },
    /// The beginning of a request.
    Incomplete {
        /// The least number of bytes, those that are there included, with which it is worth asking again. It may be
        /// large long before the bytes arrive: nothing to allocate by.
        needed: usize,
    },
    /// Nothing that can be understood, now or later: send the reply and close. The decoder is of no use any more.
    Bad {
        /// How the reply is to be written.
        style: ReplyStyle,
        /// An error.
        reply: Reply,
    },
}

/// Reads the requests of one connection.
#[derive(Debug, Default)]
pub struct Decoder {
    resp: RespVersion,
    /// With fewer bytes than this there is nothing new to be found.
    needed: usize,
    /// There is no line end before this; only for a line.
    scanned: usize,
    array: resp::ArrayParser,
    /// The words of a line without their quotes, and where each is.
    words: Vec<u8>,
    word_places: Vec<Range<usize>>,
}

impl Decoder {
    /// For a new connection.
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// Sets the version of RESP for all requests that are decoded from now on.
    pub fn set_resp(&mut self, version: RespVersion) {
        self.resp = version;
    }

    /// How a reply in RESP is to be written on this connection at present.
    pub fn resp_style(&self) -> ReplyStyle {
        match self.resp {
            RespVersion::Resp2 => ReplyStyle::Resp2,
            RespVersion::Resp3 => ReplyStyle::Resp3,
        }
    }

    /// Looks at what is at the front of `input`: all bytes of the connection that have not been consumed. After
    /// `Incomplete` they must be there again.
    pub fn decode<'a>(&'a mut self, input: &'a [u8], limits: &DecodeLimits) -> Decoded<'a> {
        let Some(&first) = input.first().filter(|_| input.len() >= self.needed) else {
            return Decoded::Incomplete { needed: self.needed.max(1) };
        };
        if self.needed == 0 {
            self.begin();
        }
        match first {
            MAGIC => self.decode_frame(input, limits),
            b'*' => self.decode_array(input, limits),
            TLS_HANDSHAKE => self.bad(self.resp_style(), ProtocolError::Tls),
            _ => self.decode_line(input, limits),
        }
    }

    /// Forgets the request before.
    fn begin(&mut self) {
        const WORDS_KEPT: usize = 1024;
        self.scanned = 0;
        self.array.reset();
        self.words.clear();
        self.words.shrink_to(WORDS_KEPT);
        self.word_places.clear();
        self.word_places.shrink_to(WORDS_KEPT / 16);
    }

    fn bad<'a>(&self, style: ReplyStyle, error: ProtocolError) -> Decoded<'a> {
        Decoded::Bad { style, reply: error.into() }
    }

    fn decode_frame<'a>(&'a mut self, input: &'a [u8], limits: &DecodeLimits) -> Decoded<'a> {
        match binary::decode(input, limits.frame_len_max) {
            Ok(binary::Progress::Whole { request, len }) => {
                self.needed = 0;
                let style = ReplyStyle::Binary { id: request.id };
                // A frame may be longer than what a batch can carry.
                let arguments_len: usize = request.arguments.iter().map(|argument| argument.len()).sum();
                if arguments_len > limits.command_len_max {
                    return self.bad(style, ProtocolError::TooBigRequest);
                }
                Decoded::Request {
                    consumed: len,
                    arguments: request.arguments,
                    style,
                    session: request.session,
                    consistency: request.consistency,
                }
            }
            Ok(binary::Progress::Partial { needed }) => {
                self.needed = needed;
                Decoded::Incomplete { needed }
            }
            // Which request it would have been is not known.
            Err(error) => self.bad(ReplyStyle::Binary { id: 0 }, error),
        }
    }

    fn decode_array<'a>(&'a mut self, input: &'a [u8], limits: &DecodeLimits) -> Decoded<'a> {
        let style = self.resp_style();
        match self.array.advance(input, limits) {
            Ok(resp::Progress::Whole { len }) => {
                self.needed = 0;
                let places = self.array.places().iter();
                Decoded::Request {
                    consumed: len,
                    arguments: places.map(|place| &input[place.clone()]).collect(),
                    style,
                    session: None,
                    consistency: None,
                }
            }
            Ok(resp::Progress::Empty { len }) => {
                self.needed = 0;
                Decoded::Nothing { consumed: len }
            }
            Ok(resp::Progress::Partial { needed }) => {
                self.needed = needed;
                Decoded::Incomplete { needed }
            }
            Err(error) => self.bad(style, error),
        }
    }

    fn decode_line<'a>(&'a mut self, input: &'a [u8], limits: &DecodeLimits) -> Decoded<'a> {
        let (content, ending, consumed) = match read_line(input, 0, self.scanned, limits.inline_len_max) {
            Line::Whole { content, ending, next } => (content, ending, next),
            Line::Partial => {
                self.scanned = input.len();
                self.needed = input.len() + 1;
                return Decoded::Incomplete { needed: self.needed };
            }
            // How it would have ended must not matter: perhaps that is not there yet.
            Line::TooLong => return self.bad(self.resp_style(), ProtocolError::TooBigInline),
        };
        self.needed = 0;
        let style = match ending {
            Ending::CrLf => self.resp_style(),
            Ending::Lf => ReplyStyle::Text,
        };
        if inline::is_http(content) {
            return self.bad(style, ProtocolError::Http);
        }
        if let Err(error) = inline::split(content, &mut self.words, &mut self.word_places) {
            return self.bad(style, error);
        }
        if self.word_places.is_empty() {
            return Decoded::Nothing { consumed };
        }
        let arguments = self.word_places.iter().map(|place| &self.words[place.clone()]).collect();
        Decoded::Request { consumed, arguments, style, session: None, consistency: None }
    }
}

/// Appends a reply to a connection's output.
pub fn encode(out: &mut Vec<u8>, style: ReplyStyle, reply: &Reply) {
    match style {
        ReplyStyle::Silent => {}
        ReplyStyle::Text => text::encode(out, reply, 0),
        ReplyStyle::Resp2 => resp::encode(out, RespVersion::Resp2, reply),
        ReplyStyle::Resp3 => resp::encode(out, RespVersion::Resp3, reply),
        ReplyStyle::Binary { id } => encode_response(out, id, reply),
    }
}
