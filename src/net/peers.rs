//! Connections that other nodes make to this one, and sending to all of them.
//!
//! An accepted connection whose first two bytes begin a hello is a peer's. Nothing else is taken from it
//! before the hello, which must be small and come soon; the node decides whether it is welcome. Then
//! messages come until it ends or another one from the same peer replaces it, whose unread bytes nobody
//! reads any more.

use std::net::Shutdown;

use crate::node::NodeInput;
use crate::protocol::{Message, decode_hello, decode_message, encode_hello, encode_message, encode_refusal};
use crate::types::{Millis, NodeId, NodeSet, Now, limits};
use crate::wire::{FRAME_HEADER_LEN, FrameError, split_frame};

use super::connection::{Connection, ConnectionKey, Received, Role};
use super::event_loop::{EventLoop, PEER_TURN_LEN};

/// A hello must have arrived so soon after its first byte.
pub(super) const HELLO_PATIENCE: Millis = Millis(5_000);
/// So many connections may be waiting for the rest of their hello.
pub(super) const GREETING_COUNT_MAX: usize = 64;

impl EventLoop {
    /// Reads from everything that is no client: peers, links to them, connections that have not said what
    /// they are.
    pub(super) fn read_peers(&mut self, now: Now) {
        let mut flush = std::mem::take(&mut self.flush_queue);
        for key in flush.drain(..) {
            self.writable(now, key);
        }
        self.flush_queue = flush;
        for _ in 0..self.peer_queue.len() {
            let Some(key) = self.peer_queue.pop_front() else { break };
            let Some(connection) = self.connections.get_mut(key) else { continue };
            connection.queued = false;
            match connection.role {
                Role::Link(peer) => self.read_link(now, key, peer),
                Role::Peer(peer) => self.read_peer(now, key, peer),
                Role::Fresh | Role::Greeting => self.read_unknown(now, key),
                Role::Parting => self.read_parting(key),
                Role::Client => self.queue_read(key),
            }
        }
    }

    /// A connection can be written to again.
    fn writable(&mut self, now: Now, key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        match connection.role {
            Role::Link(peer) => self.link_writable(now, key, peer),
            Role::Client => self.flush_client(now, key),
            Role::Peer(_) | Role::Parting | Role::Fresh | Role::Greeting => self.flush_other(key),
        }
    }

    /// Sends what is left for a connection that is no link and no client's; a parting one ends with it.
    pub(super) fn flush_other(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let flushed = connection.flush();
        let (role, failed) = (connection.role, flushed.is_err());
        if failed || (role == Role::Parting && matches!(flushed, Ok(true))) {
            let _ = connection.stream.shutdown(Shutdown::Write);
            match role {
                Role::Peer(peer) => self.peer_ended(key, peer),
                _ => {
                    self.connections.remove(key);
                }
            }
        }
    }

    fn read_peer(&mut self, now: Now, key: ConnectionKey, peer: NodeId) {
        let mut budget = PEER_TURN_LEN;
        while budget > 0 {
            let Some(connection) = self.connections.get_mut(key).filter(|c| c.readable) else { return };
            let len = match connection.receive(&mut self.scratch) {
                Ok(Received::Nothing) => return,
                Ok(Received::Bytes(len)) => len,
                Ok(Received::End) | Err(_) => return self.peer_ended(key, peer),
            };
            budget = budget.saturating_sub(len);
            let mut input = std::mem::take(&mut connection.input);
            let taken = if input.is_empty() {
                let scratch = std::mem::take(&mut self.scratch);
                let taken = self.take_frames(now, peer, &scratch[..len]);
                if let Ok(taken) = taken {
                    input.extend_from_slice(&scratch[taken..len]);
                }
                self.scratch = scratch;
                taken
            } else {
                input.extend_from_slice(&self.scratch[..len]);
                let taken = self.take_frames(now, peer, &input);
                if let Ok(taken) = taken {
                    Connection::consume(&mut input, taken);
                }
                taken
            };
            if let Err(reason) = taken {
                self.complain(now.mono, || format!("closing connection from peer={peer}: {reason}"));
                return self.peer_ended(key, peer);
            }
            // A frame may have been a hello's last consequence: this connection may be gone.
            if let Some(connection) = self.connections.get_mut(key) {
                let unfinished = input.len() > self.scratch.len();
                connection.input = input;
                if unfinished {
                    self.node.handle(now, NodeInput::Stirring(peer));
                }
            }
        }
        self.queue_read(key);
    }

    /// Hands over the messages at the front of these bytes; says how many bytes they were.
    fn take_frames(&mut self, now: Now, peer: NodeId, bytes: &[u8]) -> Result<usize, String> {
        let mut taken = 0;
        loop {
            match split_frame(&bytes[taken..], limits::FRAME_LEN_MAX) {
                Ok((kind, payload, len)) => {
                    let message = decode_message(kind, payload).map_err(|error| error.to_string())?;
                    taken += len;
                    self.node.handle(now, NodeInput::Receive { from: peer, message });
                }
                Err(FrameError::Incomplete { .. }) => return Ok(taken),
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    fn peer_ended(&mut self, key: ConnectionKey, peer: NodeId) {
        self.connections.remove(key);
        if self.incoming[peer.index()].is_some_and(|(its, _)| its == key) {
            self.incoming[peer.index()] = None;
            self.look_at_link(peer);
        }
    }

    /// The input of an accepted connection begins like a hello: take it if it is complete.
    pub(super) fn take_hello(&mut self, now: Now, key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let mut input = std::mem::take(&mut connection.input);
        let hello = match split_frame(&input, limits::HELLO_LEN_MAX) {
            Err(FrameError::Incomplete { .. }) if input.len() < FRAME_HEADER_LEN + limits::HELLO_LEN_MAX => {
                connection.input = input;
                self.queue_read(key);
                return;
            }
            Err(error) => Err(error.to_string()),
            Ok((kind, payload, len)) => {
                decode_hello(kind, payload).map(|hello| (hello, len)).map_err(|error| error.to_string())
            }
        };
        let (hello, len) = match hello {
            Ok(hello) => hello,
            Err(reason) => {
                self.complain(now.mono, || format!("closing connection: bad hello: {reason}"));
                self.connections.remove(key);
                return;
            }
        };
        let peer = hello.from;
        if let Err(refusal) = self.node.check_hello(&hello) {
            self.complain(now.mono, || format!("refusing a hello from={peer}: {refusal}"));
            if let Some(connection) = self.connections.get_mut(key) {
                connection.role = Role::Parting;
                encode_refusal(connection.output.buffer(), &refusal);
                self.flush_other(key);
            }
            return;
        }
        Connection::consume(&mut input, len);
        // The new one counts; what has not been read from the old one never will be.
        if let Some((old, _)) = self.incoming[peer.index()].replace((key, hello.boot)) {
            self.connections.remove(old);
        }
        let answer = self.node.hello(peer);
        self.node.handle(now, NodeInput::Greeted(Box::new(hello)));
        if let Some(connection) = self.connections.get_mut(key) {
            connection.role = Role::Peer(peer);
            encode_hello(connection.output.buffer(), &answer);
            self.flush_other(key);
        }
        match self.take_frames(now, peer, &input) {
            Ok(taken) => {
                Connection::consume(&mut input, taken);
                if let Some(connection) = self.connections.get_mut(key) {
                    connection.input = input;
                }
                self.queue_read(key);
            }
            Err(reason) => {
                self.complain(now.mono, || format!("closing connection from peer={peer}: {reason}"));
                self.peer_ended(key, peer);
            }
        }
        self.nudge_link(now, peer);
    }

    /// A peer's process answered our hello: what another one with its number has said on its own connection, and is not
    /// read yet, would be taken for this one's.
    pub(super) fn drop_other_process(&mut self, peer: NodeId, boot: u64) {
        if let Some((other, _)) = self.incoming[peer.index()].take_if(|(_, its)| *its != boot) {
            self.connections.remove(other);
        }
    }

    /// Closes connections whose hello does not come.
    pub(super) fn close_late_greetings(&mut self, now: Now) {
        while let Some(&(key, at)) = self.greeting.front()
            && (now.mono >= at || self.greeting.len() > GREETING_COUNT_MAX)
        {
            self.greeting.pop_front();
            if self.connections.get_mut(key).is_some_and(|c| c.role == Role::Greeting) {
                self.connections.remove(key);
                self.complain(now.mono, || "closing connection: no hello".to_owned());
            }
        }
    }

    /// Queues a message for those of these peers whose link is up.
    pub(super) fn send(&mut self, to: NodeSet, message: &Message) {
        let mut encoded: Option<(ConnectionKey, usize)> = None;
        for index in 0..self.links.len() {
            let Some(key) = self.links[index].up().filter(|_| to.contains(self.links[index].peer)) else {
                continue;
            };
            let Some((first, start)) = encoded else {
                // Encoded once, straight into the first output.
                let Some(connection) = self.connections.get_mut(key) else { continue };
                encoded = Some((key, connection.output.buffer().len()));
                encode_message(connection.output.buffer(), message);
                continue;
            };
            let Some(source) = self.connections.get_mut(first) else { continue };
            let bytes = std::mem::take(source.output.buffer());
            if let Some(connection) = self.connections.get_mut(key) {
                connection.output.buffer().extend_from_slice(&bytes[start..]);
            }
            if let Some(source) = self.connections.get_mut(first) {
                *source.output.buffer() = bytes;
            }
        }
    }

    /// Sends what the peers' sockets take, and cuts links that have too much left.
    pub(super) fn flush_links(&mut self, now: Now) {
        for index in 0..self.links.len() {
            let Some(key) = self.links[index].up() else { continue };
            self.flush_link(now, index);
            let left = self.connections.get_mut(key).map_or(0, |connection| connection.output.len());
            if left > self.link_output_max {
                self.cut_link(now, index);
            }
        }
    }
}
