//! From a client's bytes to commands under way.
//!
//! A connection may decode so many commands in a turn; the rest of its bytes wait in the backlog. A
//! connection with too many unanswered commands or too much unsent output is stalled: its bytes stay
//! where they are until replies have left. When the core has no room for more commands, nothing is
//! decoded at all, and the caller leaves the bytes in the kernel.

use crate::dialect::{Decoded, ReplyStyle};
use crate::protocol::Intake;
use crate::store::{self, Class, CommandSpec};
use crate::types::{Now, Reply};
use crate::wire::batch::SessionSeq;
use crate::wire::client::Consistency;

use super::clients::{Client, Replies};
use super::cluster_view::Endpoint;
use super::flight::Route;
use super::patience::{NOT_MULTICAST, NOTHING_READ};
use super::queue::{Needs, State, pack};
use super::subscribers::{self, Kind};
use super::{COMMANDS_MIN, ClientKey, Node, client_command, commands, settle, transaction};

/// Why decoding stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stop {
    /// There is no further complete command.
    Drained,
    /// The connection has had its share of the turn.
    Budget,
    /// Too much is unanswered or unsent.
    Stalled,
    /// An EXEC needs the answer to a WATCH before it.
    Watching,
    /// The batch must be offered first.
    BatchFull,
    /// Nothing more is taken from this connection.
    Ended,
}

/// What came with a command besides its arguments.
pub(super) struct Context {
    /// Of the reply.
    pub(super) style: ReplyStyle,
    /// The same, had the client not asked for silence: of messages, and of what tells where they begin and end.
    pub(super) style_of_messages: ReplyStyle,
    pub(super) session: Option<SessionSeq>,
    consistency: Option<Consistency>,
}

impl Node {
    /// A client has connected. The caller chooses the key; no other open connection has it.
    pub fn client_open(&mut self, now: Now, key: ClientKey) {
        self.clients.open(key, now.mono);
        self.backend.client_count = self.clients.len();
        self.backend.opened_count = self.clients.opened();
    }

    /// Where a client connects from, for CLIENT LIST.
    pub fn client_address(&mut self, key: ClientKey, address: &str) {
        if let Some(client) = self.clients.get_mut(key) {
            client.address = address.into();
        }
    }

    /// Which of the node's addresses a client has connected to; [`Endpoint::Main`] if nobody says.
    pub fn client_endpoint(&mut self, key: ClientKey, endpoint: Endpoint) {
        if let Some(client) = self.clients.get_mut(key) {
            client.endpoint = endpoint;
        }
    }

    /// Bytes from a client.
    pub fn client_bytes(&mut self, now: Now, key: ClientKey, bytes: &[u8]) {
        self.backend.now = now;
        let Some(mut client) = self.clients.take(key) else { return };
        let mut stop = Stop::Ended;
        if !client.ended {
            let waits = client.in_backlog || client.stalled || !self.takes_commands();
            if client.input.is_empty() && !waits {
                let (consumed, why) = self.decode(now, &mut client, bytes);
                stop = why;
                if stop != Stop::Ended {
                    client.input.extend_from_slice(&bytes[consumed..]);
                }
            } else {
                client.input.extend_from_slice(bytes);
                stop = if waits { Stop::Budget } else { self.decode_input(now, &mut client) };
            }
        }
        self.finish_decoding(now, client, stop);
    }

    /// The client will send nothing more; what it has asked is still answered.
    pub fn client_eof(&mut self, now: Now, key: ClientKey) {
        self.backend.now = now;
        let Some(mut client) = self.clients.take(key) else { return };
        client.eof = true;
        let stop = match (client.in_backlog, client.stalled) {
            (true, _) => Stop::Budget,
            (_, true) => Stop::Stalled,
            _ => Stop::Drained,
        };
        self.finish_decoding(now, client, stop);
    }

    /// The connection is gone; what it has asked is carried out all the same.
    pub fn client_gone(&mut self, key: ClientKey) {
        if let Some(client) = self.clients.remove(key) {
            self.backend.subscribers.forget(key, &client.subscriptions);
            self.backend.snapshots.forget(key);
            self.discard(client.queue);
        }
        self.backend.client_count = self.clients.len();
    }

    /// The bytes to send to a client.
    pub fn client_output(&self, key: ClientKey) -> &[u8] {
        self.clients.get(key).map_or(&[], |client| client.queue.output())
    }

    /// So many bytes of the output are sent; there may be more output then.
    pub fn client_sent(&mut self, now: Now, key: ClientKey, len: usize) {
        let Node { backend, clients, backlog, effects, .. } = self;
        if let Some(client) = clients.get_mut(key) {
            client.queue.mark_sent(len);
            client.output_since = now.mono;
            settle(client, backend, backlog, effects, now);
        }
    }

    /// Whether bytes of this client should be read from its socket; if not,
    /// [`Effects::resumed`](super::Effects::resumed) says when.
    pub fn wants_read(&self, key: ClientKey) -> bool {
        self.clients.get(key).is_some_and(|client| !client.in_backlog && !client.stalled)
    }

    /// Whether commands are taken at all; if not, no client's socket should be read.
    pub fn takes_commands(&self) -> bool {
        let has_room = !self.full || self.refusing.is_some();
        has_room && !self.leaving && !self.batch.is_full()
    }

    /// Goes on with connections that have undecoded bytes, each as far as a turn allows.
    pub fn run_backlog(&mut self, now: Now) {
        self.backend.now = now;
        let first = self.kept_from_talk.take();
        if let Some(place) = first.and_then(|first| self.backlog.iter().position(|key| *key == first)) {
            self.backlog.rotate_left(place);
        }
        for _ in 0..self.backlog.len() {
            if !self.takes_commands() {
                break;
            }
            let Some(key) = self.backlog.pop_front() else { break };
            let Some(mut client) = self.clients.take(key) else { continue };
            client.in_backlog = false;
            let stop = if client.ended { Stop::Ended } else { self.decode_input(now, &mut client) };
            if !client.in_backlog && !matches!(stop, Stop::Budget | Stop::Stalled | Stop::Watching) {
                self.effects.resumed.push(key);
            }
            self.finish_decoding(now, client, stop);
        }
    }

    fn decode_input(&mut self, now: Now, client: &mut Client) -> Stop {
        let mut input = std::mem::take(&mut client.input);
        let (consumed, stop) = self.decode(now, client, &input);
        if stop != Stop::Ended {
            Client::consume(&mut input, consumed);
            client.input = input;
        }
        stop
    }

    /// Notes how far a connection's input has been decoded, and puts the connection back.
    fn finish_decoding(&mut self, now: Now, mut client: Box<Client>, stop: Stop) {
        match stop {
            Stop::Drained if client.eof => client.end_input(),
            Stop::Drained if client.input.is_empty() => client.command_since = None,
            Stop::Drained => {
                client.command_since.get_or_insert(now.mono);
            }
            Stop::Budget | Stop::BatchFull => {
                client.command_since = None;
                if !client.in_backlog {
                    client.in_backlog = true;
                    self.backlog.push_back(client.key);
                }
            }
            Stop::Stalled | Stop::Watching => {
                client.command_since = None;
                client.stalled = true;
            }
            Stop::Ended => client.end_input(),
        }
        settle(&mut client, &self.backend, &mut self.backlog, &mut self.effects, now);
        self.clients.put_back(client);
        if stop == Stop::BatchFull {
            self.offer_batch(now);
        }
    }

    /// Decodes and starts commands; returns how many bytes they were.
    fn decode(&mut self, now: Now, client: &mut Client, bytes: &[u8]) -> (usize, Stop) {
        let mut consumed = 0;
        let budget = (self.turn_budget / 2).max(COMMANDS_MIN);
        let mut count = 0;
        // Requests borrow from the decoder, so it is not in its connection while they are started.
        let mut decoder = std::mem::take(&mut client.decoder);
        let limits = self.backend.settings.dialect.clone();
        let stop = loop {
            if count >= budget {
                break Stop::Budget;
            }
            if self.batch.is_full() {
                break Stop::BatchFull;
            }
            if client.is_over_limit() {
                break Stop::Stalled;
            }
            let rest = &bytes[consumed..];
            if rest.is_empty() {
                break Stop::Drained;
            }
            decoder.set_resp(client.resp);
            match decoder.decode(rest, &limits) {
                Decoded::Request { arguments, .. }
                    if client.queue.awaits_watch() && arguments[0].eq_ignore_ascii_case(b"EXEC") =>
                {
                    break Stop::Watching;
                }
                Decoded::Request { arguments, .. }
                    if self.backend.talk.is_spent() && is_about_node(arguments[0]) =>
                {
                    // Whoever has had nothing yet is the first in the next turn.
                    if count == 0 {
                        self.kept_from_talk.get_or_insert(client.key);
                    }
                    break Stop::Budget;
                }
                Decoded::Request { consumed: len, arguments, style, session, consistency } => {
                    consumed += len;
                    count += 1;
                    // The time that an unfinished command may take begins anew with each.
                    client.command_since = None;
                    let context = Context { style, style_of_messages: style, session, consistency };
                    self.start(now, client, context, &arguments);
                    if client.ended {
                        break Stop::Ended;
                    }
                }
                Decoded::Nothing { consumed: len } => {
                    consumed += len;
                    count += 1;
                }
                Decoded::Incomplete { .. } => break Stop::Drained,
                Decoded::Bad { style, reply } => {
                    client.queue.push_settled(style, reply);
                    break Stop::Ended;
                }
            }
        };
        client.decoder = decoder;
        self.turn_budget = self.turn_budget.saturating_sub(count);
        (consumed, stop)
    }

    /// Starts one command: answers it, or finds it a place in a batch or among the reads.
    fn start(&mut self, now: Now, client: &mut Client, mut context: Context, arguments: &[&[u8]]) {
        let Some((name, rest)) = arguments.split_first() else { return };
        self.backend.stats.commands += 1;
        client.active = now.mono;
        let spec = store::lookup(name);
        match client.replies {
            Replies::On => {}
            Replies::Off => context.style = ReplyStyle::Silent,
            Replies::SkipNext => {
                client.replies = Replies::On;
                context.style = ReplyStyle::Silent;
            }
        }
        let Some(spec) = spec else {
            client.fail_transaction();
            client.queue.push_settled(context.style, store::unknown_command(name, rest));
            return;
        };
        self.backend.stats.by_code[usize::from(spec.code)] += 1;
        client.last_command = spec.name;
        if let Some(reply) = refuse_out_of_place(client, context.style_of_messages, spec, rest) {
            if spec.name == "EXEC" {
                client.transaction = None;
                client.queue.unwatch();
            }
            client.fail_transaction();
            client.queue.push_settled(context.style, reply);
            return;
        }
        if client.transaction.is_some() && !transaction::is_immediate(spec) {
            transaction::enqueue(client, context.style, spec, rest);
            return;
        }
        if let Err(reply) = store::check(spec, rest, &self.backend.settings.store) {
            client.queue.push_settled(context.style, reply);
            return;
        }
        let consistency = context.consistency.unwrap_or(client.consistency);
        match (spec.class, consistency) {
            (Class::Connection, _) => self.about_connection(now, client, &context, spec, rest),
            (Class::Write | Class::Internal, _) | (Class::Read, Consistency::Ordered) => {
                let state = State::Multicast { session: context.session, parts: None };
                self.multicast(now, client, &context, spec.code, rest, state);
            }
            (Class::Read, Consistency::Local)
                if client.queue.unanswered() == 0 && !self.backend.holds_reads() =>
            {
                let backend = &self.backend;
                match backend.pay(|| backend.store.read_briefly(spec.code, rest)) {
                    Some(reply) => client.queue.push_settled(context.style, reply),
                    None => client.queue.push_in_line(context.style, spec.code, rest),
                }
            }
            (Class::Read, Consistency::Local) => {
                let state = State::Read { code: spec.code, arguments: pack(rest), needs: Needs::Nothing };
                client.queue.push(context.style, state);
            }
            (Class::Read, Consistency::Linearizable) => {
                if let Some(refusal) = self.refuse_read() {
                    client.queue.push_settled(context.style, refusal);
                    return;
                }
                let needs = self.needs_of_read(now, client);
                let state = State::Read { code: spec.code, arguments: pack(rest), needs };
                client.queue.push(context.style, state);
            }
        }
    }

    fn about_connection(
        &mut self,
        now: Now,
        client: &mut Client,
        context: &Context,
        spec: &'static CommandSpec,
        arguments: &[&[u8]],
    ) {
        let backend = &mut self.backend;
        match spec.name {
            "SUBSCRIBE" => subscribers::subscribe(client, backend, context, Kind::Channel, arguments),
            "PSUBSCRIBE" => subscribers::subscribe(client, backend, context, Kind::Pattern, arguments),
            "UNSUBSCRIBE" => subscribers::unsubscribe(client, backend, context, Kind::Channel, arguments),
            "PUNSUBSCRIBE" => subscribers::unsubscribe(client, backend, context, Kind::Pattern, arguments),
            "CLIENT" if client_command::is_about_others(arguments) => {
                self.about_clients(client, context.style, arguments);
            }
            name => {
                if self.transaction_command(now, client, context, name, arguments).is_none() {
                    let is_told = client_command::ends_silence(client, spec, arguments);
                    let style = if is_told { context.style_of_messages } else { context.style };
                    commands::carry_out(client, &mut self.backend, style, spec, arguments);
                }
            }
        }
    }

    pub(super) fn multicast<A: AsRef<[u8]>>(
        &mut self,
        now: Now,
        client: &mut Client,
        context: &Context,
        code: u8,
        arguments: &[A],
        state: State,
    ) {
        if let Some(reply) = self.refuse_in_session(client, context.session) {
            self.backend.stats.refused += 1;
            client.queue.push_settled(context.style, reply);
            return;
        }
        if self.batch.is_empty() {
            self.batch_since = now.mono;
        }
        self.batch.push(context.session, code, arguments);
        let slot = client.queue.push(context.style, state);
        self.routes.push(Route { client: client.key, slot });
        client.last_offer = self.next_offer;
    }

    /// Whether a command is refused: because all are, or because an earlier one of its session was and
    /// has not been repeated. If the later ones went ahead, the earlier one would leave a gap for ever.
    fn refuse_in_session(&self, client: &mut Client, session: Option<SessionSeq>) -> Option<Reply> {
        let earlier = session.zip(client.refused).filter(|(place, (refused, _))| place.session == *refused);
        if let Some((place, (_, seq))) = earlier {
            if place.seq > seq {
                let intake = self.refusing.unwrap_or(Intake::NoQuorum);
                return Some(self.backend.refusal(intake, NOT_MULTICAST));
            }
            client.refused = None;
        }
        let intake = self.refusing?;
        if let Some(place) = session {
            client.refused = Some((place.session, place.seq));
        }
        Some(self.backend.refusal(intake, NOT_MULTICAST))
    }

    /// Why no linearizable read can be begun, if none can.
    pub(super) fn refuse_read(&mut self) -> Option<Reply> {
        let intake = self.refusing?;
        self.backend.stats.refused += 1;
        Some(self.backend.refusal(intake, NOTHING_READ))
    }

    /// What a linearizable read that begins now has to wait for.
    pub(super) fn needs_of_read(&mut self, now: Now, client: &mut Client) -> Needs {
        if client.last_offer >= self.unsent_offer {
            return Needs::Write;
        }
        client.last_reads = self.reads.join(client.key, client.last_reads, now.mono);
        Needs::Ticket(client.last_reads)
    }
}

/// Whether a command of this name is about the connection or the node.
fn is_about_node(name: &[u8]) -> bool {
    store::lookup(name).is_some_and(|spec| spec.class == Class::Connection)
}

/// The reply to a command that has the wrong number of arguments, or that a subscriber in RESP2 cannot give: it could
/// not tell the answer from a message.
fn refuse_out_of_place(
    client: &Client,
    style: ReplyStyle,
    spec: &CommandSpec,
    arguments: &[&[u8]],
) -> Option<Reply> {
    match store::check_arity(spec, arguments) {
        Ok(()) => {}
        Err(Reply::Error(text)) if spec.name == "EXEC" => {
            let text = text.strip_prefix("ERR ").unwrap_or(&text);
            return Some(Reply::error(format!("EXECABORT Transaction discarded because of: {text}")));
        }
        Err(reply) => return Some(reply),
    }
    let is_bound = !client.subscriptions.is_empty() && matches!(style, ReplyStyle::Resp2 | ReplyStyle::Text);
    let is_allowed = matches!(
        spec.name,
        "SUBSCRIBE" | "UNSUBSCRIBE" | "PSUBSCRIBE" | "PUNSUBSCRIBE" | "PING" | "QUIT" | "RESET"
    );
    (is_bound && !is_allowed).then(|| {
        let is_given = |word: &&str| arguments.first().is_some_and(|found| commands::is(found, word));
        let name = match spec.subcommands.iter().map(|(word, _)| *word).find(is_given) {
            Some(word) => format!("{}|{word}", spec.name),
            None => spec.name.to_owned(),
        };
        let name = name.to_ascii_lowercase();
        Reply::error(format!(
            "ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in \
             this context"
        ))
    })
}
