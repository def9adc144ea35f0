//! One TCP connection that speaks the binary dialect, one request at a time.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use crate::config::Address;
use crate::types::limits;
use crate::wire::batch::SessionSeq;
use crate::wire::client::{Consistency, KIND_RESPONSE, WireReply, decode_response, encode_request};
use crate::wire::{DecodeError, FRAME_HEADER_LEN, FrameError, FrameHeader, split_frame};

/// A payload's buffer grows by at most so much before its bytes have arrived.
const READ_LEN: usize = 256 << 10;

/// A connection to one node.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    next_id: u64,
    buffer: Vec<u8>,
}

/// Why a request has no reply. The connection is of no more use then.
#[derive(Debug)]
pub enum CallError {
    /// The request did not leave completely: the node cannot have acted on it.
    NotSent(io::Error),
    /// The connection broke before the reply; the node may have acted.
    Lost(io::Error),
    /// No byte came for so long; the node may have acted.
    TimedOut(Duration),
    /// What came is no frame; the node may have acted.
    Frame(FrameError),
    /// The frame's payload is no response; the node may have acted.
    Payload(DecodeError),
    /// A frame that answers something else; the node may have acted.
    Unexpected {
        /// The frame's kind.
        kind: u8,
    },
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::NotSent(error) => write!(f, "cannot send: {error}"),
            CallError::Lost(error) => write!(f, "connection lost: {error}"),
            CallError::TimedOut(length) => write!(f, "no reply within {length:?}"),
            CallError::Frame(error) => write!(f, "not a lanekv node: {error}"),
            CallError::Payload(error) => write!(f, "reply cannot be read: {error}"),
            CallError::Unexpected { kind } => write!(f, "unexpected frame of kind {kind:#04x}"),
        }
    }
}

impl std::error::Error for CallError {}

impl Connection {
    /// Connects to the first of the address's resolutions that answers, giving each `timeout`.
    ///
    /// # Errors
    /// The name cannot be resolved, or none answers; the last one's error.
    pub fn open(address: &Address, timeout: Duration) -> io::Result<Connection> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for resolved in (address.host(), address.port()).to_socket_addrs()? {
            match TcpStream::connect_timeout(&resolved, timeout) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(Connection { stream, next_id: 1, buffer: Vec::new() });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Whether the node has closed the connection, or said something unasked, since the last reply.
    pub fn is_stale(&self) -> bool {
        let peek = || {
            self.stream.set_nonblocking(true)?;
            let peeked = self.stream.peek(&mut [0]);
            self.stream.set_nonblocking(false)?;
            peeked
        };
        !matches!(peek(), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Sends a command and waits for its reply, until `deadline`, and no longer than `timeout` without a byte.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn call(
        &mut self,
        consistency: Consistency,
        place: Option<SessionSeq>,
        arguments: &[Vec<u8>],
        timeout: Duration,
        deadline: Instant,
    ) -> Result<WireReply, CallError> {
        let id = self.next_id;
        self.next_id += 1;
        self.buffer.clear();
        encode_request(&mut self.buffer, id, Some(consistency), place, arguments);
        self.send(timeout, deadline).map_err(CallError::NotSent)?;
        // The request may have been a large one: do not hold its memory while waiting.
        self.buffer = Vec::new();
        self.receive(FRAME_HEADER_LEN, timeout, deadline)?;
        let header = FrameHeader::decode(&self.buffer, limits::FRAME_LEN_MAX).map_err(CallError::Frame)?;
        self.receive(header.frame_len(), timeout, deadline)?;
        let (kind, payload, _) =
            split_frame(&self.buffer, limits::FRAME_LEN_MAX).map_err(CallError::Frame)?;
        if kind != KIND_RESPONSE {
            return Err(CallError::Unexpected { kind });
        }
        let response = decode_response(payload).map_err(CallError::Payload)?;
        if response.id != id {
            return Err(CallError::Unexpected { kind });
        }
        Ok(response.reply)
    }

    fn send(&mut self, timeout: Duration, deadline: Instant) -> io::Result<()> {
        let mut rest = self.buffer.as_slice();
        while !rest.is_empty() {
            self.stream.set_write_timeout(Some(patience(timeout, deadline)))?;
            match self.stream.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => rest = &rest[len..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) => return Err(io::ErrorKind::TimedOut.into()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads until the buffer has `len` bytes.
    fn receive(&mut self, len: usize, timeout: Duration, deadline: Instant) -> Result<(), CallError> {
        let mut have = self.buffer.len();
        while have < len {
            let patience = patience(timeout, deadline);
            self.stream.set_read_timeout(Some(patience)).map_err(CallError::Lost)?;
            self.buffer.resize(len.min(have + READ_LEN), 0);
            match self.stream.read(&mut self.buffer[have..]) {
                Ok(0) => return Err(CallError::Lost(io::ErrorKind::UnexpectedEof.into())),
                Ok(read) => have += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) => return Err(CallError::TimedOut(patience)),
                Err(error) => return Err(CallError::Lost(error)),
            }
        }
        Ok(())
    }
}

/// How long to wait for the next byte; never zero, which sockets take for "for ever".
fn patience(timeout: Duration, deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).min(timeout).max(Duration::from_millis(1))
}

/// A socket's time-out has two names, depending on the system.
fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
