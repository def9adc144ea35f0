//! One socket with its buffers, and the table of all of them.
//!
//! A place in the table is used again as soon as its connection is closed, perhaps within the same batch
//! of events. So a token holds the place and a generation, and an event whose generation is not the
//! place's is stale.

use std::io::{self, Read, Write};

use mio::Token;
use mio::net::TcpStream;
use slab::Slab;

use crate::node::ClientKey;
use crate::types::NodeId;

use super::listener::Purpose;

/// Emptied buffers larger than this are given back.
const BUFFER_KEPT_MAX: usize = 1 << 20;

/// Names a connection; stale ones find nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ConnectionKey {
    pub(super) index: u32,
    /// Never zero, so that no token of a connection is one of the few fixed ones.
    pub(super) generation: u32,
}

impl ConnectionKey {
    pub(super) fn token(self) -> Token {
        const { assert!(usize::BITS == 64, "a token holds two 32-bit numbers") };
        Token(((self.generation as usize) << 32) | self.index as usize)
    }

    /// `None` for the fixed tokens.
    pub(super) fn from_token(token: Token) -> Option<ConnectionKey> {
        let generation = u32::try_from(token.0 >> 32).ok()?;
        let index = u32::try_from(token.0 & 0xffff_ffff).ok()?;
        (generation != 0).then_some(ConnectionKey { index, generation })
    }

    pub(super) fn client(self) -> ClientKey {
        ClientKey { index: self.index, generation: self.generation }
    }
}

impl From<ClientKey> for ConnectionKey {
    fn from(key: ClientKey) -> ConnectionKey {
        ConnectionKey { index: key.index, generation: key.generation }
    }
}

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    /// Accepted, and nothing received yet.
    Fresh,
    /// Accepted, and it begins like a frame between nodes.
    Greeting,
    /// Accepted from this peer: it sends, we receive.
    Peer(NodeId),
    /// Made by us to this peer: we send.
    Link(NodeId),
    /// A client; the node has its state and its output.
    Client,
    /// To be closed as soon as its output is sent.
    Parting,
}

/// Bytes that wait to be sent.
#[derive(Debug, Default)]
pub(super) struct Output {
    bytes: Vec<u8>,
    sent: usize,
}

impl Output {
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// To append to.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Sends what the socket takes; says whether that was all.
    fn flush(&mut self, stream: &mut TcpStream) -> io::Result<bool> {
        while self.len() > 0 {
            match stream.write(&self.bytes[self.sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => self.sent += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // What is sent must not pile up in front of a peer that always lags a little; and
                    // moving must not cost more than sending.
                    if self.sent >= self.bytes.len() / 2 {
                        self.bytes.drain(..self.sent);
                        self.sent = 0;
                    }
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        self.sent = 0;
        self.bytes.clear();
        self.bytes.shrink_to(BUFFER_KEPT_MAX);
        Ok(true)
    }
}

/// What reading brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Received {
    /// So many bytes.
    Bytes(usize),
    /// Nothing for now.
    Nothing,
    /// The other side sends nothing more.
    End,
}

/// A socket and what belongs to it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) key: ConnectionKey,
    pub(super) stream: TcpStream,
    pub(super) role: Role,
    /// The listener that it came from; of links it means nothing.
    pub(super) purpose: Purpose,
    /// There may be something to read.
    pub(super) readable: bool,
    /// The end of the stream has been announced: a short read does not mean that all has been read.
    pub(super) read_closed: bool,
    /// A write need not wait for an event.
    pub(super) writable: bool,
    /// It is in a queue of connections to read.
    pub(super) queued: bool,
    /// Received, and not yet taken; of clients the node keeps that.
    pub(super) input: Vec<u8>,
    /// Of clients the node keeps that.
    pub(super) output: Output,
}

impl Connection {
    /// Reads once.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        loop {
            return match self.stream.read(buffer) {
                Ok(0) => {
                    self.readable = false;
                    Ok(Received::End)
                }
                Ok(len) => {
                    // A short read has emptied the socket, and what comes later is a new event.
                    self.readable = len == buffer.len() || self.read_closed;
                    Ok(Received::Bytes(len))
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    Ok(Received::Nothing)
                }
                Err(error) => Err(error),
            };
        }
    }

    /// Sends what the socket takes of these bytes; `None` if it takes none now.
    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        loop {
            return match self.stream.write(bytes) {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => Ok(Some(len)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.writable = false;
                    Ok(None)
                }
                Err(error) => Err(error),
            };
        }
    }

    /// Sends what the socket takes of the output; says whether that was all.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        if !self.writable {
            return Ok(self.output.len() == 0);
        }
        let all = self.output.flush(&mut self.stream)?;
        self.writable = all;
        Ok(all)
    }

    /// Drops bytes that have been taken from the front of the input.
    pub(super) fn consume(input: &mut Vec<u8>, len: usize) {
        if len == input.len() {
            input.clear();
            input.shrink_to(BUFFER_KEPT_MAX);
        } else if len > 0 {
            input.drain(..len);
        }
    }
}

/// All connections.
#[derive(Debug, Default)]
pub(super) struct Connections {
    slab: Slab<Connection>,
    last_generation: u32,
}

impl Connections {
    /// Adds a connection; `register` is told its token.
    pub(super) fn insert(
        &mut self,
        stream: TcpStream,
        role: Role,
        register: impl FnOnce(&mut TcpStream, Token) -> io::Result<()>,
    ) -> io::Result<ConnectionKey> {
        self.last_generation = self.last_generation.checked_add(1).unwrap_or(1);
        let entry = self.slab.vacant_entry();
        let index = u32::try_from(entry.key()).expect("there are fewer descriptors than 2^32");
        let key = ConnectionKey { index, generation: self.last_generation };
        let mut stream = stream;
        register(&mut stream, key.token())?;
        entry.insert(Connection {
            key,
            stream,
            role,
            purpose: Purpose::default(),
            readable: false,
            read_closed: false,
            writable: true,
            queued: false,
            input: Vec::new(),
            output: Output::default(),
        });
        Ok(key)
    }

    pub(super) fn get_mut(&mut self, key: ConnectionKey) -> Option<&mut Connection> {
        self.slab.get_mut(key.index as usize).filter(|connection| connection.key == key)
    }

    pub(super) fn remove(&mut self, key: ConnectionKey) -> Option<Connection> {
        self.get_mut(key)?;
        self.slab.try_remove(key.index as usize)
    }

    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(connections: &mut Connections) -> ConnectionKey {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("bound");
        let stream = TcpStream::connect(address).expect("loopback");
        connections.insert(stream, Role::Fresh, |_, _| Ok(())).expect("no registration")
    }

    #[test]
    fn a_place_used_again_has_another_token() {
        let mut connections = Connections::default();
        let first = insert(&mut connections);
        assert!(connections.remove(first).is_some());
        let second = insert(&mut connections);
        assert_eq!(first.index, second.index);
        assert!(connections.get_mut(first).is_none());
        assert!(connections.remove(first).is_none());
        assert!(connections.get_mut(second).is_some());
        assert_eq!(ConnectionKey::from_token(second.token()), Some(second));
        assert_eq!(ConnectionKey::from_token(Token(3)), None);
        connections.last_generation = u32::MAX;
        assert_eq!(insert(&mut connections).generation, 1);
    }
}
