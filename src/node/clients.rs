//! The connections of clients, without their sockets.

use std::net::SocketAddr;

use crate::dialect::{Decoder, ReplyStyle, RespVersion};
use crate::types::{Millis, SessionId};
use crate::wire::client::Consistency;

use super::cluster_view::Endpoint;
use super::queue::{BUFFER_KEPT_MAX, Queue, UNANSWERED_MAX};
use super::subscribers::Subscriptions;
use super::transaction::Transaction;

/// Names a client connection. The caller chooses the index, small and used again; the generation tells
/// connections with the same index apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClientKey {
    /// Which place in the table.
    pub index: u32,
    /// Which connection in that place.
    pub generation: u32,
}

/// Which commands of a connection are answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Replies {
    /// All.
    #[default]
    On,
    /// None. Messages are no answers, nor is what tells where they begin and end.
    Off,
    /// All but the next.
    SkipNext,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) key: ClientKey,
    /// Counts the connections of this process; `CLIENT ID` tells it.
    pub(super) id: u64,
    pub(super) decoder: Decoder,
    /// Bytes received and not decoded.
    pub(super) input: Vec<u8>,
    pub(super) queue: Queue,
    /// How fresh its reads are, unless a request says otherwise.
    pub(super) consistency: Consistency,
    /// By HELLO; the decoder is told before each request.
    pub(super) resp: RespVersion,
    pub(super) name: Box<[u8]>,
    /// The name and the version of its library, by CLIENT SETINFO.
    pub(super) library: [Box<[u8]>; 2],
    /// Where it connects from; empty if nobody said.
    pub(super) address: Box<str>,
    /// Which of the node's addresses it connected to.
    pub(super) endpoint: Endpoint,
    /// When it connected.
    pub(super) opened: Millis,
    /// When its last command came, and which it was.
    pub(super) active: Millis,
    pub(super) last_command: &'static str,
    /// By CLIENT REPLY.
    pub(super) replies: Replies,
    /// Between MULTI and EXEC.
    pub(super) transaction: Option<Box<Transaction>>,
    pub(super) subscriptions: Subscriptions,
    /// The first command of a session that was refused without being multicast; those after it must not
    /// overtake it.
    pub(super) refused: Option<(SessionId, u64)>,
    /// The batch with its last multicast command.
    pub(super) last_offer: u64,
    /// The group of reads that it is in.
    pub(super) last_reads: u64,
    /// The client sends nothing more.
    pub(super) eof: bool,
    /// Nothing more is taken from it: end of input, QUIT, a protocol error.
    pub(super) ended: bool,
    /// It asked that the node stop, and learns from the end of its connection that it has.
    pub(super) awaits_stop: bool,
    /// It is in the list of connections with undecoded bytes.
    pub(super) in_backlog: bool,
    /// It has too many unanswered commands or unsent bytes.
    pub(super) stalled: bool,
    /// It is in the list of connections with output.
    pub(super) has_written: bool,
    /// It is among those with replies that a turn has not sufficed for.
    pub(super) is_busy: bool,
    /// It is in line with a long read.
    pub(super) in_line: bool,
    /// It is among those with reads that are held back.
    pub(super) is_held: bool,
    /// It is in the list of connections to close.
    pub(super) closing: bool,
    /// Since when the undecoded input has been the beginning of a command.
    pub(super) command_since: Option<Millis>,
    /// When output was last taken away, or last appeared where none was.
    pub(super) output_since: Millis,
}

impl Client {
    fn new(key: ClientKey, id: u64, now: Millis) -> Client {
        Client {
            key,
            id,
            decoder: Decoder::new(),
            input: Vec::new(),
            queue: Queue::default(),
            consistency: Consistency::default(),
            resp: RespVersion::default(),
            name: Box::default(),
            library: Default::default(),
            address: Box::default(),
            endpoint: Endpoint::default(),
            opened: now,
            active: now,
            last_command: "NULL",
            replies: Replies::default(),
            transaction: None,
            subscriptions: Subscriptions::default(),
            refused: None,
            last_offer: 0,
            last_reads: 0,
            eof: false,
            ended: false,
            awaits_stop: false,
            in_backlog: false,
            stalled: false,
            has_written: false,
            is_busy: false,
            in_line: false,
            is_held: false,
            closing: false,
            command_since: None,
            output_since: now,
        }
    }

    /// Whether more commands would be too much.
    pub(super) fn is_over_limit(&self) -> bool {
        self.queue.unanswered() >= UNANSWERED_MAX || self.queue.is_output_long()
    }

    /// Whether a stalled connection may go on. Half of the limits, so that it does not go on for a single
    /// command.
    pub(super) fn is_below_limit(&self) -> bool {
        self.queue.unanswered() <= UNANSWERED_MAX / 2
            && !self.queue.is_output_long()
            && !self.queue.awaits_watch()
    }

    /// How a message is written to a client that subscribed in this style.
    pub(super) fn style_of_pushes(&self, style: ReplyStyle) -> ReplyStyle {
        match (style, self.resp) {
            (ReplyStyle::Resp2 | ReplyStyle::Resp3, RespVersion::Resp2) => ReplyStyle::Resp2,
            (ReplyStyle::Resp2 | ReplyStyle::Resp3, RespVersion::Resp3) => ReplyStyle::Resp3,
            (style, _) => style,
        }
    }

    /// Whether it runs on the machine of this node.
    pub(super) fn is_local(&self) -> bool {
        self.address.parse::<SocketAddr>().is_ok_and(|address| address.ip().to_canonical().is_loopback())
    }

    /// Whether it has been told everything that it will be told.
    pub(super) fn is_finished(&self) -> bool {
        self.ended && !self.awaits_stop && self.queue.is_drained()
    }

    /// Takes no more commands from it.
    pub(super) fn end_input(&mut self) {
        self.ended = true;
        self.input = Vec::new();
        self.command_since = None;
    }

    /// Drops decoded bytes from the front of the input.
    pub(super) fn consume(input: &mut Vec<u8>, len: usize) {
        if len == input.len() {
            if input.capacity() > BUFFER_KEPT_MAX {
                *input = Vec::new();
            } else {
                input.clear();
            }
        } else if len > 0 {
            input.drain(..len);
        }
    }
}

/// All connections, by index.
#[derive(Debug, Default)]
pub(super) struct ClientTable {
    /// Boxed, so that taking one out while its commands are carried out moves a pointer.
    entries: Vec<Option<Box<Client>>>,
    count: usize,
    opened: u64,
}

impl ClientTable {
    /// Adds a connection.
    pub(super) fn open(&mut self, key: ClientKey, now: Millis) {
        let index = key.index as usize;
        if index >= self.entries.len() {
            self.entries.resize_with(index + 1, || None);
        }
        self.opened += 1;
        let old = self.entries[index].replace(Box::new(Client::new(key, self.opened, now)));
        if old.is_none() {
            self.count += 1;
        }
    }

    /// Forgets a connection and hands out what it was.
    pub(super) fn remove(&mut self, key: ClientKey) -> Option<Box<Client>> {
        let client = self.take(key)?;
        self.count -= 1;
        Some(client)
    }

    pub(super) fn get(&self, key: ClientKey) -> Option<&Client> {
        self.entries.get(key.index as usize)?.as_deref().filter(|client| client.key == key)
    }

    pub(super) fn get_mut(&mut self, key: ClientKey) -> Option<&mut Client> {
        self.entries.get_mut(key.index as usize)?.as_deref_mut().filter(|client| client.key == key)
    }

    /// Takes a connection out for a moment; [`ClientTable::put_back`] must follow.
    pub(super) fn take(&mut self, key: ClientKey) -> Option<Box<Client>> {
        self.entries.get_mut(key.index as usize)?.take_if(|client| client.key == key)
    }

    pub(super) fn put_back(&mut self, client: Box<Client>) {
        let index = client.key.index as usize;
        self.entries[index] = Some(client);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Client> {
        self.entries.iter().filter_map(Option::as_deref)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Client> {
        self.entries.iter_mut().filter_map(Option::as_deref_mut)
    }

    /// How many are open.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// How many were ever opened.
    pub(super) fn opened(&self) -> u64 {
        self.opened
    }
}
