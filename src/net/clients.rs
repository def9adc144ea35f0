//! Accepting connections, and the sockets of clients.

use std::net::Shutdown;
use std::time::Duration;

use mio::Interest;

use crate::dialect::{ReplyStyle, encode};
use crate::node::{ClientKey, Endpoint};
use crate::protocol::HELLO_KIND;
use crate::types::{Millis, Now, Reply};
use crate::wire::MAGIC;

use super::connection::{ConnectionKey, Received, Role};
use super::event_loop::{CLIENT_READ_LEN, EventLoop};
use super::listener::Purpose;
use super::peers::HELLO_PATIENCE;

/// Connections accepted in a turn.
const ACCEPT_COUNT: usize = 32;
/// An idle connection is probed after this.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(300);
/// Reads that a closing connection is worth to be closed without a reset.
const DRAIN_READS: usize = 16;

impl EventLoop {
    pub(super) fn can_accept(&self, now: Millis) -> bool {
        self.listeners.iter().any(|listener| listener.can_accept(now))
    }

    pub(super) fn accept_deadline(&self) -> Option<Millis> {
        self.listeners.iter().filter_map(|listener| listener.retry_at).min()
    }

    /// Accepts some of the connections that wait, at each listener as many as at any other.
    pub(super) fn accept(&mut self, now: Now) {
        for index in 0..self.listeners.len() {
            self.accept_at(now, index);
        }
        if self.fresh.len() > 2 * self.connections_max {
            let connections = &mut self.connections;
            self.fresh.retain(|key| connections.get_mut(*key).is_some_and(|c| c.role == Role::Fresh));
        }
        self.close_late_greetings(now);
    }

    fn accept_at(&mut self, now: Now, index: usize) {
        let purpose = self.listeners[index].purpose;
        for _ in 0..ACCEPT_COUNT {
            let Some((stream, _)) = self.listeners[index].accept(now.mono) else { break };
            if self.is_stopping() {
                continue;
            }
            // Replies are whole when they are written; waiting to fill a packet helps nobody.
            let _ = stream.set_nodelay(true);
            // Nothing else would ever tell that the machine of an idle client is gone.
            let _ = rustix::net::sockopt::set_socket_keepalive(&stream, true);
            let _ = rustix::net::sockopt::set_tcp_keepidle(&stream, KEEPALIVE_AFTER);
            let is_full = self.connections.len() >= self.connections_max && !self.make_room();
            let role = if is_full { Role::Parting } else { Role::Fresh };
            let registry = self.poll.registry();
            let made = self.connections.insert(stream, role, |stream, token| {
                registry.register(stream, token, Interest::READABLE | Interest::WRITABLE)
            });
            match made {
                Ok(key) if is_full => self.refuse_client(key, ReplyStyle::Resp2),
                Ok(key) => {
                    self.fresh.push_back(key);
                    if let Some(connection) = self.connections.get_mut(key) {
                        connection.purpose = purpose;
                    }
                }
                Err(error) => self.complain(now.mono, || format!("cannot watch a connection: {error}")),
            }
        }
    }

    /// Closes the connection that has been silent for the longest time since it was accepted. Otherwise
    /// connections that nobody uses could keep peers out.
    fn make_room(&mut self) -> bool {
        while let Some(key) = self.fresh.pop_front() {
            if self.connections.get_mut(key).is_some_and(|c| c.role == Role::Fresh) {
                self.connections.remove(key);
                return true;
            }
        }
        false
    }

    /// Reads from clients, as long as the node takes commands.
    pub(super) fn read_clients(&mut self, now: Now) {
        for _ in 0..self.client_queue.len() {
            if !self.node.takes_commands() {
                break;
            }
            let Some(key) = self.client_queue.pop_front() else { break };
            if let Some(connection) = self.connections.get_mut(key) {
                connection.queued = false;
                self.read_client(now, key);
            }
        }
    }

    fn read_client(&mut self, now: Now, key: ConnectionKey) {
        let client = key.client();
        // If not, the node says when it does again, and the bytes wait in the kernel.
        if !self.node.wants_read(client) {
            return;
        }
        let Some(connection) = self.connections.get_mut(key).filter(|c| c.readable) else { return };
        match connection.receive(&mut self.scratch[..CLIENT_READ_LEN]) {
            Ok(Received::Nothing) => {}
            Ok(Received::Bytes(len)) => {
                self.node.client_bytes(now, client, &self.scratch[..len]);
                self.queue_read(key);
            }
            Ok(Received::End) => self.node.client_eof(now, client),
            Err(_) => self.close_client(key),
        }
    }

    /// The first bytes decide: a hello's beginning is a peer, anything else a client.
    pub(super) fn read_unknown(&mut self, now: Now, key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(key).filter(|c| c.readable) else { return };
        let len = match connection.receive(&mut self.scratch[..CLIENT_READ_LEN]) {
            Ok(Received::Nothing) => return,
            Ok(Received::Bytes(len)) => len,
            Ok(Received::End) | Err(_) => {
                self.connections.remove(key);
                return;
            }
        };
        connection.input.extend_from_slice(&self.scratch[..len]);
        let begins_like_peer = match connection.input.as_slice() {
            [MAGIC] => true,
            [MAGIC, kind, ..] => *kind == HELLO_KIND,
            _ => false,
        };
        if begins_like_peer && connection.purpose != Purpose::Cluster {
            if connection.role == Role::Fresh {
                connection.role = Role::Greeting;
                self.greeting.push_back((key, now.mono.plus(HELLO_PATIENCE)));
            }
            self.take_hello(now, key);
            return;
        }
        let purpose = connection.purpose;
        if purpose == Purpose::Peers {
            self.complain(now.mono, || "closing connection: no hello where only peers are served".to_owned());
            self.connections.remove(key);
            return;
        }
        let input = std::mem::take(&mut connection.input);
        if self.client_count >= self.clients_max {
            let is_frame = input.first() == Some(&MAGIC);
            self.refuse_client(key, if is_frame { ReplyStyle::Binary { id: 0 } } else { ReplyStyle::Resp2 });
            return;
        }
        connection.role = Role::Client;
        self.client_count += 1;
        self.node.client_open(now, key.client());
        let address = self.connections.get_mut(key).and_then(|c| c.stream.peer_addr().ok());
        if let Some(address) = address {
            self.node.client_address(key.client(), &address.to_string());
        }
        if purpose == Purpose::Cluster {
            self.node.client_endpoint(key.client(), Endpoint::Cluster);
        }
        self.node.client_bytes(now, key.client(), &input);
        self.queue_read(key);
    }

    fn refuse_client(&mut self, key: ConnectionKey, style: ReplyStyle) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let reply = match style {
            ReplyStyle::Binary { .. } => Reply::error("BUSY max number of clients reached"),
            _ => Reply::error("ERR max number of clients reached"),
        };
        encode(connection.output.buffer(), style, &reply);
        connection.role = Role::Parting;
        self.flush_other(key);
    }

    /// Whatever a connection that is being closed still sends is of no interest.
    pub(super) fn read_parting(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        match connection.receive(&mut self.scratch[..CLIENT_READ_LEN]) {
            Ok(Received::Bytes(_)) => self.queue_read(key),
            Ok(Received::Nothing) => {}
            Ok(Received::End) | Err(_) => {
                self.connections.remove(key);
            }
        }
    }

    /// Sends the output of these clients.
    pub(super) fn flush_clients(&mut self, now: Now, clients: &[ClientKey]) {
        for &client in clients {
            self.flush_client(now, client.into());
        }
    }

    /// Sends what a client's socket takes.
    pub(super) fn flush_client(&mut self, now: Now, key: ConnectionKey) {
        let client = key.client();
        let Some(connection) = self.connections.get_mut(key) else { return };
        while connection.writable {
            let output = self.node.client_output(client);
            if output.is_empty() {
                return;
            }
            match connection.send(output) {
                Ok(Some(len)) => self.node.client_sent(now, client, len),
                Ok(None) => return,
                Err(_) => {
                    self.close_client(key);
                    return;
                }
            }
        }
    }

    /// Closes a client's connection; its last output, if there was any, is with the kernel.
    pub(super) fn close_client(&mut self, key: ConnectionKey) {
        let Some(mut connection) = self.connections.remove(key) else { return };
        if connection.role == Role::Client {
            self.client_count -= 1;
            self.node.client_gone(key.client());
        }
        let _ = connection.stream.shutdown(Shutdown::Write);
        // A socket closed with unread bytes is reset, and a reset may overtake the last reply.
        for _ in 0..DRAIN_READS {
            match connection.receive(&mut self.scratch[..CLIENT_READ_LEN]) {
                Ok(Received::Bytes(_)) => {}
                _ => break,
            }
        }
    }
}
