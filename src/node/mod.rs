//! One turn of a node: core, store and clients together, still without sockets.
//!
//! The caller owns the sockets, the log and the clock. In a turn of its loop it hands everything that has
//! arrived to [`Node::handle`] and the `client_` methods, and ends with [`Node::end_turn`], which leaves
//! in [`Effects`] what is to be done: records for the log, messages for peers, connections that have
//! output. Nothing is sent and nothing is written before the turn ends, so one frame, one record and one
//! write serve all commands of a turn.
//!
//! **The way of a command.** Its bytes are decoded (`intake`). What is wrong with it is answered at once.
//! A write is appended to the batch of the turn and gets a slot in its connection's `queue`; at the end
//! of the turn the batch is offered to the core under a ticket, and `flight` remembers which slot each of
//! its commands belongs to. When the core delivers it, the store applies the commands one by one and the
//! replies go to those slots. A linearizable read gets a slot too; all those of a turn share a read
//! ticket, and are executed when the core says that the store has caught up. Everything of class
//! `Connection` is answered by `commands`.
//!
//! **Order.** Replies of a connection come in the order of its commands; `queue` explains why a read may
//! be executed before its ticket is ready. All connections of a turn go into the same batches, in the
//! order in which they were read.
//!
//! **When the node cannot take commands**, those that have not been offered wait for twice the suspicion
//! time-out, which is what a change of view usually takes; then they and all that follow are refused
//! until the core takes commands again. A command once offered is never given up: if it is not delivered
//! in time its client is told `TIMEOUT`.
//!
//! The same inputs give the same effects, whatever the machine does: there is no clock, no thread and no
//! randomness here, and the simulator runs this very code.

mod apply;
mod backend;
mod client_command;
mod clients;
mod cluster_view;
mod commands;
mod config_command;
mod debug_command;
mod describe;
mod flight;
mod inspect;
mod intake;
mod keeper;
mod long;
mod patience;
mod pouring;
mod queue;
mod replay;
mod restore;
mod settings;
mod snapshot;
mod snapshots;
mod subscribers;
mod talk;
#[cfg(test)]
mod tests;
mod time;
mod transaction;

use std::cell::Cell;
use std::collections::VecDeque;
use std::time::Duration;

use crate::protocol::{
    Delivery, HaltReason, Hello, Identity, Input, Intake, Marks, Message, Note, OfferTicket, Output, Record,
    Refusal, Replica, Report, Verdict, encode_record, record_kind,
};
use crate::storage::RecordGroup;
use crate::store::{Class, Fund, Store, TurnClock};
use crate::types::{Index, Lsn, Millis, NodeId, NodeSet, Now, Position};
use crate::wire::batch::BatchBuilder;

pub use clients::ClientKey;
pub use cluster_view::{ClusterView, Endpoint, MemberAddress};
pub use inspect::Inspection;
pub use keeper::{Asker, Done, Keeper, SnapshotDamage, SnapshotInfo, Task};
pub use replay::{Replay, ReplayError};
pub use restore::{DamagedSnapshot, RestoreError, Restored, restore};
pub use settings::Settings;
pub use snapshot::{
    LoadedSnapshot, SnapshotFailure, SnapshotJob, SnapshotProgress, check_snapshot, load_snapshot,
};
pub use snapshots::header_for_new_cluster;

use apply::{Deliveries, Word};
use backend::{Backend, Stats};
use clients::{Client, ClientTable};
use flight::{Offers, ReadGroups, Route};
use patience::SWEEP_EVERY;
use replay::Replayed;

/// Commands that all connections together may decode in a turn before each has to do with [`COMMANDS_MIN`].
const COMMANDS_PER_TURN: usize = 1024;
/// Commands that any connection may decode in a turn.
const COMMANDS_MIN: usize = 64;

/// Something that happened outside.
#[derive(Clone, Debug)]
pub enum NodeInput {
    /// A message from a peer, over a connection whose hello was accepted.
    Receive {
        /// The peer.
        from: NodeId,
        /// What it said.
        message: Message,
    },
    /// A peer's hello that [`Node::check_hello`] accepted, on a connection made by either side.
    Greeted(Box<Hello>),
    /// Messages to this peer go out from now on.
    LinkUp(NodeId),
    /// The connection to this peer broke and could not be made again at once.
    LinkDown(NodeId),
    /// Bytes of an unfinished message from this peer are arriving.
    Stirring(NodeId),
    /// A peer refused this node's hello.
    RefusedBy {
        /// The peer.
        peer: NodeId,
        /// Why.
        refusal: Refusal,
    },
    /// All records up to this one are durable.
    Persisted(Lsn),
    /// Whether the disk has not answered for a long time.
    DiskSlow(bool),
    /// The node is to stop: it takes no more commands and asks to be left out of the senders.
    Leave,
}

/// Something that a checker outside the node wants to see.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Observed {
    /// An entry was delivered and applied.
    Delivered {
        /// The entry and what became of it.
        delivery: Delivery,
        /// Commands delivered so far.
        index: Index,
        /// Digest of the state after it.
        digest: u64,
    },
    /// A snapshot from a peer has taken the place of the state.
    Installed {
        /// Commands delivered in it.
        index: Index,
        /// The last entry in it.
        position: Position,
        /// Digest of the state.
        digest: u64,
    },
    /// A record went to the log under this number.
    Persisted(Lsn, Record),
}

/// What is to be done after a turn. Used again and again; the caller empties it with [`Effects::clear`].
#[derive(Debug, Default)]
pub struct Effects {
    /// Records for the log. The messages of the turn rest on none of them, so either may go first.
    pub records: RecordGroup,
    /// Messages, in order.
    pub sends: Vec<(NodeSet, Message)>,
    /// Connections that have output.
    pub written: Vec<ClientKey>,
    /// Connections that may be read again.
    pub resumed: Vec<ClientKey>,
    /// Connections to close; those that ended well have no output left.
    pub closing: Vec<ClientKey>,
    /// Lines for the log.
    pub notes: Vec<Note>,
    /// Further lines for the log, about snapshots.
    pub lines: Vec<String>,
    /// For the keeper, in order.
    pub tasks: Vec<Task>,
    /// The log is not needed before this record any more.
    pub truncate: Option<Lsn>,
    /// A client has asked that this node stop, as by a signal.
    pub stop: bool,
    /// A client has asked that the loop stand still for so long, before anything of this turn is done.
    pub sleep: Option<Duration>,
    /// The process must stop at once and send nothing more.
    pub halt: Option<HaltReason>,
    /// What happened, in order, if [`Node::observe`] asked for it.
    pub observed: Vec<Observed>,
    /// Connections with replies that go on in another turn; the node takes them out again.
    busy: Vec<ClientKey>,
    /// The same for those with a long read that may begin.
    line: Vec<ClientKey>,
    /// The same for those whose reads are held back.
    held: Vec<ClientKey>,
}

impl Effects {
    /// Makes it ready for the next turn.
    pub fn clear(&mut self) {
        self.records.clear();
        self.sends.clear();
        self.written.clear();
        self.resumed.clear();
        self.closing.clear();
        self.notes.clear();
        self.lines.clear();
        self.tasks.clear();
        self.truncate = None;
        self.stop = false;
        self.sleep = None;
        self.halt = None;
        self.observed.clear();
    }
}

/// A node without its sockets.
#[derive(Debug)]
pub struct Node {
    backend: Backend,
    clients: ClientTable,
    offers: Offers,
    reads: ReadGroups,
    /// The batch of the turn.
    batch: BatchBuilder,
    /// Where the replies to its commands go.
    routes: Vec<Route>,
    /// When its first command came.
    batch_since: Millis,
    /// The ticket that the batch will get.
    next_offer: u64,
    /// The first ticket of which nothing has left this node yet.
    unsent_offer: u64,
    /// When this node last delivered or offered something.
    time_passed_on: Millis,
    /// Since when the core takes no commands.
    closed_since: Option<Millis>,
    /// Since when the core has had no room.
    full_since: Option<Millis>,
    /// Commands are refused, because of this.
    refusing: Option<Intake>,
    full: bool,
    leaving: bool,
    /// Connections with undecoded bytes.
    backlog: VecDeque<ClientKey>,
    /// The first of them that was not decoded because others had asked so much about the node.
    kept_from_talk: Option<ClientKey>,
    /// Connections with replies that a turn has not sufficed for, each once.
    busy: VecDeque<ClientKey>,
    /// Connections with long reads, each once. That of the first is being done.
    line: VecDeque<ClientKey>,
    /// Commands that may still be decoded in this turn.
    turn_budget: usize,
    next_sweep: Millis,
    outputs: Vec<Output>,
    effects: Effects,
    /// What is delivered and not applied yet.
    deliveries: Deliveries,
    /// Connections with reads that could be executed otherwise, each once.
    held: VecDeque<ClientKey>,
    observing: bool,
}

impl Node {
    /// A node that goes on where its log ended. The record that [`Replay::begin`] made must be durable.
    /// `seed` is for the store's hashing alone.
    pub fn new(mut settings: Settings, identity: Identity, replay: Replay, seed: u64, now: Now) -> Node {
        let Replayed { recovery, store, snapshots } = replay.into_parts();
        // Nodes that begin with different states must not found a cluster together.
        settings.protocol.member_hash ^= recovery.genesis();
        let store = store.unwrap_or_else(|| Store::new(settings.store.clone(), seed));
        let replica = Replica::new(settings.protocol.clone(), identity, recovery, now);
        let applied_index = replica.report(now).index;
        let mut backend = Backend {
            snapshots,
            settings,
            identity,
            replica,
            store,
            applied_index,
            torn: false,
            reads_wait: false,
            write_fund: Fund(0),
            read_fund: Cell::new(Fund(0)),
            pour_fund: pouring::PourFund::of_turn(),
            turn_clock: None,
            talk: talk::Talk::of_turn(),
            ready_up_to: 0,
            missing: NodeSet::EMPTY,
            started: now,
            now,
            stats: Stats::default(),
            resident_len: 0,
            client_count: 0,
            opened_count: 0,
            subscribers: subscribers::Subscribers::default(),
            key_events: subscribers::KeyEvents::default(),
            stop_wanted: false,
            sleep_wanted: Duration::ZERO,
        };
        backend.renew_funds();
        Node {
            backend,
            clients: ClientTable::default(),
            offers: Offers::default(),
            reads: ReadGroups::default(),
            batch: BatchBuilder::new(),
            routes: Vec::new(),
            batch_since: now.mono,
            next_offer: 1,
            unsent_offer: 1,
            time_passed_on: now.mono,
            closed_since: None,
            full_since: None,
            refusing: None,
            full: false,
            leaving: false,
            backlog: VecDeque::new(),
            kept_from_talk: None,
            busy: VecDeque::new(),
            line: VecDeque::new(),
            turn_budget: COMMANDS_PER_TURN,
            next_sweep: now.mono.plus(SWEEP_EVERY),
            outputs: Vec::new(),
            effects: Effects::default(),
            deliveries: Deliveries::default(),
            held: VecDeque::new(),
            observing: false,
        }
    }

    /// Leaves a line for the log.
    fn say(&mut self, line: String) {
        self.effects.lines.push(line);
    }

    /// From now on, [`Effects::observed`] tells what happens; for checkers.
    pub fn observe(&mut self) {
        self.observing = true;
    }

    /// Takes in something that happened outside.
    pub fn handle(&mut self, now: Now, input: NodeInput) {
        let snapshots = &mut self.backend.snapshots;
        match &input {
            NodeInput::LinkDown(peer) => snapshots.note_lost(*peer),
            NodeInput::Stirring(peer) => snapshots.note_stirring(now.mono, *peer),
            NodeInput::Persisted(lsn) => snapshots.note_durable(*lsn),
            _ => {}
        }
        let input = match input {
            NodeInput::Receive { from, message: Message::SnapshotAsk { id, next } } => {
                return self.on_snapshot_ask(from, id, next);
            }
            NodeInput::Receive { from, message: Message::SnapshotBlocks { id, first, blocks } } => {
                return self.on_snapshot_blocks(now, from, id, first, blocks);
            }
            NodeInput::Receive { from, message } => Input::Receive { from, message },
            NodeInput::Greeted(hello) => Input::Greeted(hello),
            NodeInput::LinkUp(peer) => Input::LinkUp(peer),
            NodeInput::LinkDown(peer) => Input::LinkDown(peer),
            NodeInput::Stirring(peer) => Input::Stirring(peer),
            NodeInput::RefusedBy { peer, refusal } => Input::RefusedBy { peer, refusal },
            NodeInput::Persisted(lsn) => Input::Persisted(lsn),
            NodeInput::DiskSlow(slow) => Input::DiskSlow(slow),
            NodeInput::Leave => {
                self.leaving = true;
                Input::Leave
            }
        };
        self.run_core(now, input);
    }

    /// Ends the turn: offers its batch, begins its reads, lets timers run, and hands over what is to be done.
    /// `effects` must be empty.
    pub fn end_turn(&mut self, now: Now, effects: &mut Effects) {
        self.backend.now = now;
        self.look_at_intake(now);
        self.pass_time_on(now);
        self.offer_batch(now);
        self.free_expired();
        self.begin_reads(now);
        self.apply_delivered(now);
        self.run_held(now);
        self.run_line(now);
        self.run_busy(now);
        self.expire(now);
        if now.mono >= self.next_sweep {
            self.cut_slow_clients(now);
        }
        self.backend.replica.end_turn(now, &mut self.outputs);
        self.carry_out(now);
        self.backend.snapshots.note_grown(self.effects.records.len_bytes());
        self.run_snapshots(now);
        self.look_at_intake(now);
        self.unsent_offer = self.next_offer;
        self.effects.stop |= std::mem::take(&mut self.backend.stop_wanted);
        let sleep = std::mem::take(&mut self.backend.sleep_wanted);
        self.effects.sleep = (!sleep.is_zero()).then_some(sleep);
        self.busy.extend(self.effects.busy.drain(..));
        self.line.extend(self.effects.line.drain(..));
        self.held.extend(self.effects.held.drain(..));
        self.backend.reads_wait = !self.held.is_empty();
        self.deliveries.end_turn();
        self.turn_budget = COMMANDS_PER_TURN;
        self.backend.renew_funds();
        self.backend.subscribers.begin_turn();
        for &key in &self.effects.written {
            if let Some(client) = self.clients.get_mut(key) {
                client.has_written = false;
            }
        }
        std::mem::swap(&mut self.effects, effects);
    }

    /// When the next turn is wanted at the latest, on the monotonic clock.
    pub fn deadline(&self) -> Option<Millis> {
        let timeout = self.backend.settings.client_timeout;
        let hold = self.hold();
        let held = !self.batch.is_empty() || !self.reads.is_empty() || self.holds_saves();
        let refusal =
            self.closed_since.filter(|_| held && self.refusing.is_none()).map(|since| since.plus(hold));
        let busy = self.full_since.filter(|_| self.refusing.is_none());
        let sweep = (self.clients.len() > 0).then_some(self.next_sweep);
        [
            self.backend.replica.deadline(),
            self.offers.oldest().map(|since| since.plus(timeout)),
            self.reads.oldest().map(|since| since.plus(timeout)),
            busy.map(|since| since.plus(timeout)),
            refusal,
            sweep,
            self.tick_due(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Whether a turn is wanted at once: undecoded or unoffered commands can go on, or there are effects
    /// already.
    pub fn has_work(&self) -> bool {
        !self.effects.closing.is_empty()
            || !self.effects.resumed.is_empty()
            || self.backend.store.has_expired()
            || !self.busy.is_empty()
            || !self.effects.busy.is_empty()
            || !self.line.is_empty()
            || !self.effects.line.is_empty()
            || !self.deliveries.is_empty()
            || !self.held.is_empty()
            || !self.effects.held.is_empty()
            || (self.takes_commands() && !self.backlog.is_empty())
            || (!self.batch.is_empty() && self.backend.intake() == Intake::Open)
    }

    /// The hello for this peer.
    pub fn hello(&self, to: NodeId) -> Hello {
        self.backend.replica.hello(to)
    }

    /// Whether a peer's hello is acceptable.
    ///
    /// # Errors
    /// The refusal to be told to the peer.
    pub fn check_hello(&self, hello: &Hello) -> Result<(), Refusal> {
        self.backend.replica.check_hello(hello)
    }

    /// Where the core stands.
    pub fn report(&self) -> Report {
        self.backend.report()
    }

    /// A turn begins whose time is measured like this. Without that, only its work is bounded.
    pub fn begin_turn(&mut self, clock: TurnClock) {
        self.backend.turn_clock = Some(clock);
        self.backend.watch_pouring();
    }

    /// A turn took so long, from the first byte read to the last one written, and so much processor time of the loop's
    /// thread, with the wait before it; INFO tells the longest of each. Where processes share processors, `length`
    /// contains what the others took meanwhile.
    pub fn note_turn(&mut self, length: Duration, cpu_time: Duration) {
        let stats = &mut self.backend.stats;
        stats.longest_turn = stats.longest_turn.max(length);
        stats.longest_turn_cpu_time = stats.longest_turn_cpu_time.max(cpu_time);
    }

    /// The process has so many bytes of memory; INFO tells.
    pub fn note_memory(&mut self, resident_len: u64) {
        self.backend.resident_len = resident_len;
    }

    /// How often rare situations of the protocol have come up in this process.
    pub fn marks(&self) -> &Marks {
        self.backend.replica.marks()
    }

    /// The key-value store.
    pub fn store(&self) -> &Store {
        &self.backend.store
    }

    /// Whether a command that was taken still waits for its reply, or a reply for being sent.
    pub fn has_unanswered(&mut self) -> bool {
        !self.batch.is_empty()
            || !self.reads.is_empty()
            || self.offers.oldest().is_some()
            || self.clients.iter_mut().any(|client| !client.queue.is_drained())
    }

    fn run_core(&mut self, now: Now, input: Input) {
        self.backend.now = now;
        self.backend.replica.handle(now, input, &mut self.outputs);
        self.carry_out(now);
    }

    fn carry_out(&mut self, now: Now) {
        let mut outputs = std::mem::take(&mut self.outputs);
        for output in outputs.drain(..) {
            match output {
                Output::Persist { lsn, record } => {
                    if self.observing {
                        self.effects.observed.push(Observed::Persisted(lsn, record.clone()));
                    }
                    self.effects.records.push(lsn, record_kind(&record), |buffer| {
                        encode_record(buffer, &record);
                    });
                    if record.always_synced() {
                        self.effects.records.require_sync();
                    }
                }
                Output::Send { to, message } => self.effects.sends.push((to, message)),
                Output::Deliver(delivery) => {
                    if delivery.verdict == Verdict::Applied {
                        self.time_passed_on = now.mono;
                    }
                    self.deliveries.push(Word::Deliver(delivery));
                }
                Output::Overtaken(ticket) => self.deliveries.push(Word::Overtaken(ticket)),
                Output::Behind { peer, until } => self.on_behind(now, peer, until),
                Output::ReadReady(ticket) => self.deliveries.push(Word::ReadReady(ticket)),
                Output::Note(note) => {
                    if let Note::Waiting(nodes) = note {
                        self.backend.missing = nodes;
                    }
                    self.effects.notes.push(note);
                }
                Output::Halt(reason) => {
                    self.effects.halt.get_or_insert(reason);
                }
            }
        }
        self.outputs = outputs;
        self.apply_delivered(now);
    }

    fn settle_all(&mut self, now: Now, keys: &[ClientKey]) {
        let Node { backend, clients, backlog, effects, .. } = self;
        for &key in keys {
            if let Some(client) = clients.get_mut(key) {
                settle(client, backend, backlog, effects, now);
            }
        }
    }

    fn offer_batch(&mut self, now: Now) {
        if self.batch.is_empty() || self.backend.intake() != Intake::Open {
            return;
        }
        let batch = self.batch.take();
        let spare = self.offers.routes();
        let routes = std::mem::replace(&mut self.routes, spare);
        let ticket = OfferTicket(self.next_offer);
        self.next_offer += 1;
        self.offers.push(ticket, self.batch_since, routes);
        self.backend.stats.batches += 1;
        self.run_core(now, Input::Offer { ticket, batch });
        self.full = self.backend.intake() == Intake::Full;
    }

    fn begin_reads(&mut self, now: Now) {
        if self.closed_since.is_none()
            && let Some(ticket) = self.reads.begin()
        {
            self.run_core(now, Input::Read(ticket));
        }
    }
}

/// Settles what can be settled on a connection and notes what follows from it.
fn settle(
    client: &mut Client,
    backend: &Backend,
    backlog: &mut VecDeque<ClientKey>,
    effects: &mut Effects,
    now: Now,
) {
    let was_empty = client.queue.output().is_empty();
    let is_held = client.queue.settle(backend);
    if is_held && !client.is_held {
        client.is_held = true;
        effects.held.push(client.key);
    }
    if !client.queue.output().is_empty() {
        if was_empty {
            client.output_since = now.mono;
        }
        if !client.has_written {
            client.has_written = true;
            effects.written.push(client.key);
        }
    }
    if client.queue.wants_turn() && !client.is_busy {
        client.is_busy = true;
        effects.busy.push(client.key);
    }
    if client.queue.is_in_line() && !client.in_line {
        client.in_line = true;
        effects.line.push(client.key);
    }
    if client.stalled && client.is_below_limit() {
        client.stalled = false;
        if !client.in_backlog {
            client.in_backlog = true;
            backlog.push_back(client.key);
        }
    }
    if client.is_finished() && !client.closing {
        client.closing = true;
        effects.closing.push(client.key);
    }
}
