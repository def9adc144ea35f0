//! The connections that this node makes to others, to send on.
//!
//! Each node dials each other one and sends on its own connection only; what the other has to say comes
//! on the connection that the other made. So nobody has to agree who dials, and a connection that is cut
//! to make room, or made anew, concerns one direction.
//!
//! A link is dialled again at once when it breaks: if the other process is dead its machine refuses
//! within a fraction of a millisecond, and that is how its death is noticed. Then with pauses that grow
//! to a second, for ever.

use std::net::SocketAddr;

use mio::Interest;
use mio::net::TcpStream;

use crate::config::Address;
use crate::node::NodeInput;
use crate::protocol::{HELLO_KIND, REFUSAL_KIND, Refusal, decode_hello, decode_refusal, encode_hello};
use crate::types::{Millis, NodeId, Now, limits};
use crate::wire::{FrameError, split_frame};

use super::connection::{Connection, ConnectionKey, Received, Role};
use super::event_loop::EventLoop;
use super::resolver::Resolver;

const BACKOFF_MIN: Millis = Millis(20);
const BACKOFF_MAX: Millis = Millis(1_000);
/// The answer to a hello may take so long, for the other may be busy; the suspicion time-out if that is
/// longer.
const GREETING_PATIENCE: Millis = Millis(1_000);

/// A link whose bytes are not acknowledged for four suspicion time-outs is broken, and for at least this.
const UNACKNOWLEDGED_MIN: Millis = Millis(2_000);

/// How far a link is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// To be dialled then.
    Waiting { until: Millis },
    /// The connection is being made.
    Connecting { key: ConnectionKey, since: Millis },
    /// Our hello is sent, the other's has not come.
    Greeting { key: ConnectionKey, since: Millis },
    /// It can be sent on.
    Up { key: ConnectionKey },
}

/// The way to one peer.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) peer: NodeId,
    address: Address,
    /// What the name stands for; they are tried one after the other.
    addresses: Vec<SocketAddr>,
    attempts: usize,
    /// A question about the name is under way.
    is_resolving: bool,
    state: State,
    backoff: Millis,
    /// The node believes it to be down.
    is_down: bool,
    /// The last thing the peer said was that it does not want to talk to us.
    pub(super) refusal: Option<Refusal>,
}

impl Link {
    pub(super) fn new(peer: NodeId, address: Address, addresses: Vec<SocketAddr>) -> Link {
        Link {
            peer,
            address,
            addresses,
            attempts: 0,
            is_resolving: false,
            state: State::Waiting { until: Millis(0) },
            backoff: BACKOFF_MIN,
            is_down: true,
            refusal: None,
        }
    }

    /// The connection to send on, if it is up.
    pub(super) fn up(&self) -> Option<ConnectionKey> {
        match self.state {
            State::Up { key } => Some(key),
            _ => None,
        }
    }

    fn key(&self) -> Option<ConnectionKey> {
        match self.state {
            State::Waiting { .. } => None,
            State::Connecting { key, .. } | State::Greeting { key, .. } | State::Up { key } => Some(key),
        }
    }

    fn deadline(&self, suspicion: Millis) -> Option<Millis> {
        match self.state {
            State::Waiting { until } => Some(until),
            State::Connecting { since, .. } => Some(since.plus(suspicion)),
            State::Greeting { since, .. } => Some(since.plus(suspicion.max(GREETING_PATIENCE))),
            State::Up { .. } => None,
        }
    }
}

impl EventLoop {
    /// When a link has to be looked at.
    pub(super) fn links_deadline(&self) -> Option<Millis> {
        self.links.iter().filter_map(|link| link.deadline(self.suspicion)).min()
    }

    /// Dials what is due, and gives up what takes too long.
    pub(super) fn run_links(&mut self, now: Now) {
        for index in 0..self.links.len() {
            if self.links[index].deadline(self.suspicion).is_none_or(|at| now.mono < at) {
                continue;
            }
            match self.links[index].state {
                State::Waiting { .. } => self.dial(now, index),
                State::Connecting { .. } | State::Greeting { .. } => {
                    let peer = self.links[index].peer;
                    log::debug!("connecting takes too long peer={peer}");
                    self.link_failed(now, index);
                }
                State::Up { .. } => {}
            }
        }
    }

    /// Names have been looked up.
    pub(super) fn resolved(&mut self, peer: NodeId, addresses: Vec<SocketAddr>) {
        let Some(index) = self.link_index(peer) else { return };
        let link = &mut self.links[index];
        link.is_resolving = false;
        if !addresses.is_empty() {
            link.addresses = addresses;
        }
    }

    /// A peer shows itself: if it could not be reached, try again now.
    pub(super) fn nudge_link(&mut self, now: Now, peer: NodeId) {
        if let Some(index) = self.link_index(peer)
            && let State::Waiting { .. } = self.links[index].state
        {
            self.links[index].backoff = BACKOFF_MIN;
            self.dial(now, index);
        }
    }

    /// The connection that a peer made has ended; ours may have ended with it.
    pub(super) fn look_at_link(&mut self, peer: NodeId) {
        if let Some(index) = self.link_index(peer)
            && let Some(key) = self.links[index].key()
            && let Some(connection) = self.connections.get_mut(key)
        {
            connection.readable = true;
            self.queue_read(key);
        }
    }

    fn dial(&mut self, now: Now, index: usize) {
        let link = &mut self.links[index];
        let Some(&address) = link.addresses.get(link.attempts % link.addresses.len().max(1)) else {
            self.link_failed(now, index);
            return;
        };
        link.attempts += 1;
        let (peer, registry) = (link.peer, self.poll.registry());
        let made = TcpStream::connect(address).and_then(|stream| {
            self.connections.insert(stream, Role::Link(peer), |stream, token| {
                registry.register(stream, token, Interest::READABLE | Interest::WRITABLE)
            })
        });
        match made {
            Ok(key) => {
                // Nothing may be written before the event that tells how connecting ended.
                if let Some(connection) = self.connections.get_mut(key) {
                    connection.writable = false;
                }
                self.links[index].state = State::Connecting { key, since: now.mono };
            }
            Err(error) => {
                log::debug!("cannot connect peer={peer} address={address}: {error}");
                self.link_failed(now, index);
            }
        }
    }

    /// The link is of no use; says so to the node, once, and tries again later.
    fn link_failed(&mut self, now: Now, index: usize) {
        let link = &mut self.links[index];
        if let Some(key) = link.key() {
            self.connections.remove(key);
        }
        let pause = self.jitter.around(link.backoff);
        link.state = State::Waiting { until: now.mono.plus(pause) };
        link.backoff = link.backoff.times(2).min(BACKOFF_MAX);
        if !link.is_resolving && Resolver::numeric(&link.address).is_none() {
            link.is_resolving = true;
            self.resolver.ask(link.peer, &link.address);
        }
        if !std::mem::replace(&mut link.is_down, true) {
            let peer = link.peer;
            self.node.handle(now, NodeInput::LinkDown(peer));
        }
    }

    /// A link that was up is not any more: dial again at once, which shows whether the peer is dead.
    fn link_broken(&mut self, now: Now, index: usize) {
        let link = &mut self.links[index];
        log::debug!("connection broken peer={}", link.peer);
        if let Some(key) = link.key() {
            self.connections.remove(key);
        }
        link.state = State::Waiting { until: now.mono };
        link.backoff = BACKOFF_MIN;
        self.dial(now, index);
    }

    fn link_ended(&mut self, now: Now, index: usize) {
        match self.links[index].state {
            State::Up { .. } => self.link_broken(now, index),
            State::Waiting { .. } => {}
            State::Connecting { .. } | State::Greeting { .. } => self.link_failed(now, index),
        }
    }

    /// A link's socket can be written: the end of connecting, or room for output.
    pub(super) fn link_writable(&mut self, now: Now, key: ConnectionKey, peer: NodeId) {
        let Some(index) = self.link_index(peer).filter(|&i| self.links[i].key() == Some(key)) else {
            self.connections.remove(key);
            return;
        };
        let Some(connection) = self.connections.get_mut(key) else { return };
        if let State::Connecting { .. } = self.links[index].state {
            // A writable event alone does not mean that the connection is made.
            if let Ok(Some(error)) | Err(error) = connection.stream.take_error() {
                log::debug!("cannot connect peer={peer}: {error}");
                self.link_failed(now, index);
                return;
            }
            if connection.stream.peer_addr().is_err() {
                connection.writable = false;
                return;
            }
            // Without it small messages would wait for the acknowledgment of those before.
            let _ = connection.stream.set_nodelay(true);
            // A network that comes back finds no connection that waits for its next retransmission: it has
            // been given up, and dialling goes on. There is always something unacknowledged, if only a Status.
            let patience = self.suspicion.times(4).max(UNACKNOWLEDGED_MIN);
            let patience = u32::try_from(patience.0).unwrap_or(u32::MAX);
            let _ = rustix::net::sockopt::set_tcp_user_timeout(&connection.stream, patience);
            encode_hello(connection.output.buffer(), &self.node.hello(peer));
            self.links[index].state = State::Greeting { key, since: now.mono };
        }
        self.flush_link(now, index);
    }

    /// Sends what the socket takes.
    pub(super) fn flush_link(&mut self, now: Now, index: usize) {
        let Some(key) = self.links[index].key() else { return };
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.flush().is_err() {
            self.link_ended(now, index);
        }
    }

    /// Cuts a link whose peer does not take what it is sent; the core repairs what is lost.
    pub(super) fn cut_link(&mut self, now: Now, index: usize) {
        let peer = self.links[index].peer;
        self.complain(now.mono, || format!("output queue full, cutting the connection peer={peer}"));
        self.link_broken(now, index);
    }

    /// Reads from a link: the answer to our hello, and after it nothing but the end.
    pub(super) fn read_link(&mut self, now: Now, key: ConnectionKey, peer: NodeId) {
        let Some(index) = self.link_index(peer).filter(|&i| self.links[i].key() == Some(key)) else {
            self.connections.remove(key);
            return;
        };
        let Some(connection) = self.connections.get_mut(key) else { return };
        if let State::Connecting { .. } = self.links[index].state {
            // An error event is all that some failed attempts bring.
            connection.readable = false;
            if connection.read_closed {
                self.link_failed(now, index);
            }
            return;
        }
        match connection.receive(&mut self.scratch) {
            Ok(Received::Nothing) => {}
            Ok(Received::Bytes(len)) => {
                connection.input.extend_from_slice(&self.scratch[..len]);
                self.link_answer(now, index, key);
                self.queue_read(key);
            }
            Ok(Received::End) | Err(_) => self.link_ended(now, index),
        }
    }

    fn link_answer(&mut self, now: Now, index: usize, key: ConnectionKey) {
        let peer = self.links[index].peer;
        let Some(connection) = self.connections.get_mut(key) else { return };
        if let State::Up { .. } = self.links[index].state {
            self.complain(now.mono, || format!("closing: unexpected bytes from peer={peer}"));
            self.link_failed(now, index);
            return;
        }
        let mut input = std::mem::take(&mut connection.input);
        match split_frame(&input, limits::HELLO_LEN_MAX) {
            Err(FrameError::Incomplete { .. }) => {
                if let Some(connection) = self.connections.get_mut(key) {
                    connection.input = input;
                }
            }
            Err(error) => {
                self.complain(now.mono, || format!("closing: bad answer from peer={peer}: {error}"));
                self.link_failed(now, index);
            }
            Ok((REFUSAL_KIND, payload, _)) => {
                match decode_refusal(payload) {
                    Ok(refusal) => {
                        self.complain(now.mono, || format!("refused by peer={peer}: {refusal}"));
                        self.links[index].refusal = Some(refusal);
                        self.node.handle(now, NodeInput::RefusedBy { peer, refusal });
                    }
                    Err(error) => {
                        self.complain(now.mono, || format!("bad refusal from peer={peer}: {error}"));
                    }
                }
                self.link_failed(now, index);
            }
            Ok((kind, payload, len)) => {
                let accepted = decode_hello(kind, payload).map_err(|error| error.to_string()).and_then(
                    |hello| match self.node.check_hello(&hello) {
                        Ok(()) if hello.from == peer => Ok(hello),
                        Ok(()) => Err(format!("answered by {}", hello.from)),
                        Err(refusal) => Err(refusal.to_string()),
                    },
                );
                debug_assert!(accepted.is_err() || kind == HELLO_KIND);
                match accepted {
                    Ok(hello) => {
                        Connection::consume(&mut input, len);
                        if !input.is_empty() {
                            self.complain(now.mono, || format!("unexpected bytes from peer={peer}"));
                        }
                        let link = &mut self.links[index];
                        link.state = State::Up { key };
                        link.backoff = BACKOFF_MIN;
                        link.is_down = false;
                        link.refusal = None;
                        self.drop_other_process(peer, hello.boot);
                        self.node.handle(now, NodeInput::Greeted(Box::new(hello)));
                        self.node.handle(now, NodeInput::LinkUp(peer));
                    }
                    Err(reason) => {
                        self.complain(now.mono, || format!("not talking to peer={peer}: {reason}"));
                        self.link_failed(now, index);
                    }
                }
            }
        }
    }
}
