//! The client proper: which node to ask, when to repeat, and when to say that one does not know.
//!
//! A command is tried on one node after the other until a reply is final or the deadline has passed. What
//! an attempt tells:
//!
//! | the attempt ended with | the command was | so |
//! |---|---|---|
//! | no connection, an incomplete request | not multicast | next node |
//! | `NOQUORUM`, `BUSY`, `LOADING` | not multicast | next node |
//! | `TIMEOUT`, a lost connection, silence | perhaps multicast | next node, if a repetition is harmless |
//! | anything else | answered | done |
//!
//! After the deadline, a write that was perhaps multicast at *any* attempt has an unknown outcome, even if
//! the last attempt was refused. [`session`](super::session) has the rules for sequence numbers.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::thread;
use std::time::{Duration, Instant};

use crate::config::{Address, Settings};
use crate::store;
use crate::types::{Millis, Reply, SessionId, limits};
use crate::wire::batch::SessionSeq;
use crate::wire::client::{Consistency, WireReply};

use super::commands::{Repetition, repetition};
use super::connection::{CallError, Connection};
use super::session::{Session, SessionFault};

/// What a node has on top of its own client time-out before it is given up.
const REPLY_MARGIN: Duration = Duration::from_secs(1);
/// The pause after all nodes were tried once; doubled after each further round.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
/// The longest pause between rounds.
const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// How many sessions one write may use up; more, and something is wrong with the cluster.
const SESSIONS_MAX: u32 = 3;

/// How a client behaves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// How long to wait for a connection, per address.
    pub connect_timeout: Duration,
    /// A node that says nothing for so long after a request is given up.
    pub reply_timeout: Duration,
    /// How long to go on with one command altogether.
    pub deadline: Duration,
    /// How fresh reads have to be, until CONSISTENCY says otherwise.
    pub consistency: Consistency,
    /// The node to begin with, by its place in the list; `None`: any.
    pub first: Option<usize>,
}

impl Default for Options {
    fn default() -> Options {
        Options::from_settings(&Settings::default())
    }
}

impl Options {
    /// What fits a cluster with these settings: a node's own `TIMEOUT` comes before the client gives it up.
    pub fn from_settings(settings: &Settings) -> Options {
        let Millis(client_timeout) = settings.client_timeout;
        let reply_timeout = Duration::from_millis(client_timeout) + REPLY_MARGIN;
        Options {
            connect_timeout: Duration::from_millis(300),
            reply_timeout,
            deadline: reply_timeout.max(Duration::from_secs(10)),
            consistency: Consistency::default(),
            first: None,
        }
    }
}

/// Why a command has no reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientError {
    /// The command is longer than any node would take; nothing was sent.
    TooLong {
        /// What of it.
        what: &'static str,
        /// How much there is.
        len: usize,
        /// How much there may be.
        max: usize,
    },
    /// No node gave any answer until the deadline. The command was not applied, or changes nothing.
    NoNode {
        /// Each node's address, and why not.
        causes: Vec<(String, String)>,
    },
    /// The command may have reached a node, but what became of it is not known: it may have been applied,
    /// and it may still be.
    OutcomeUnknown {
        /// What happened last.
        cause: String,
    },
    /// A node opened a session without naming it.
    NoSession,
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::TooLong { what, len, max } => {
                write!(f, "{what}: found {len}, expected at most {max}")
            }
            ClientError::NoNode { causes } => {
                f.write_str("no node answered")?;
                for (i, (address, cause)) in causes.iter().enumerate() {
                    write!(f, "{} {address}: {cause}", if i == 0 { ":" } else { ";" })?;
                }
                Ok(())
            }
            ClientError::OutcomeUnknown { cause } => {
                write!(f, "outcome unknown, the command may have been applied or still be: {cause}")
            }
            ClientError::NoSession => f.write_str("the node opened a session without naming it"),
        }
    }
}

impl std::error::Error for ClientError {}

/// How an attempt, or a whole series of them, ended.
enum Outcome {
    /// Answered: applied, or at fault itself.
    Answer(WireReply),
    /// Certainly not multicast; the last refusal, if any node gave one.
    Refused(Option<WireReply>),
    /// Perhaps multicast.
    Unknown {
        /// What happened last.
        cause: String,
        /// The last reply that left it open, if any node gave one.
        reply: Option<WireReply>,
    },
}

/// A node as the client sees it.
struct Node {
    address: Address,
    connection: Option<Connection>,
    /// How many connections there have been.
    opened: u64,
    /// Why its last attempt failed.
    cause: Option<String>,
}

/// A client of a cluster.
pub struct Client {
    nodes: Vec<Node>,
    current: usize,
    options: Options,
    consistency: Consistency,
    session: Option<Session>,
    /// State of the small generator that spreads pauses; never zero.
    jitter: u64,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("current", &self.current)
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the nodes at these addresses. Nothing is connected before the first command.
    pub fn new(addresses: impl IntoIterator<Item = Address>, options: Options) -> Client {
        let node = |address| Node { address, connection: None, opened: 0, cause: None };
        let nodes: Vec<Node> = addresses.into_iter().map(node).collect();
        let jitter = RandomState::new().hash_one(0u8) | 1;
        // Clients that all begin with the first node would all be on one node.
        let count = nodes.len().max(1);
        let random = usize::try_from(jitter >> 33).unwrap_or(0);
        let current = options.first.unwrap_or(random) % count;
        let consistency = options.consistency;
        Client { nodes, current, options, consistency, session: None, jitter }
    }

    /// The address of the node that the next command goes to first, if it is connected.
    pub fn connected_to(&self) -> Option<&Address> {
        let node = self.nodes.get(self.current)?;
        node.connection.as_ref().map(|_| &node.address)
    }

    /// Runs one command: the name and the arguments. CONSISTENCY, READONLY, READWRITE and RESET are answered
    /// here and hold for the client, whichever node it talks to. What every node would refuse without
    /// multicasting it is refused here in the same words, so that it does not use up a sequence number.
    ///
    /// # Errors
    /// There is no reply; a reply that is an error is a reply.
    pub fn execute(&mut self, arguments: &[Vec<u8>]) -> Result<WireReply, ClientError> {
        check(arguments)?;
        let name = arguments.first().map(Vec::as_slice).unwrap_or_default();
        if let Some(reply) = refusal(arguments).or_else(|| self.set_consistency(arguments)) {
            return Ok(reply);
        }
        let deadline = Instant::now() + self.options.deadline;
        let repetition = repetition(name);
        if repetition == Repetition::InSession {
            return self.write(arguments, deadline);
        }
        let harmless = repetition == Repetition::Harmless;
        match self.attempts(arguments, None, harmless, deadline).0 {
            Outcome::Answer(reply) | Outcome::Refused(Some(reply)) => Ok(reply),
            Outcome::Refused(None) => Err(self.no_node()),
            Outcome::Unknown { reply, .. } if harmless => reply.ok_or_else(|| self.no_node()),
            Outcome::Unknown { cause, .. } => Err(ClientError::OutcomeUnknown { cause }),
        }
    }

    /// Runs a command at a node that has seen everything which was acknowledged anywhere before. It may take as long as
    /// `patience`.
    ///
    /// # Errors
    /// As for [`Client::execute`].
    pub(super) fn execute_after_read(
        &mut self,
        arguments: &[Vec<u8>],
        patience: Duration,
    ) -> Result<WireReply, ClientError> {
        let consistency = std::mem::replace(&mut self.consistency, Consistency::Linearizable);
        let mut result = Err(self.no_node());
        // Another node may take over in between, or another process of the same node, and would have to read again.
        for _ in 0..=self.nodes.len() {
            result = self.execute(&[b"DBSIZE".to_vec()]);
            if !matches!(result, Ok(WireReply::Integer(_))) {
                break;
            }
            let reader = self.reader();
            let usual = (self.options.reply_timeout, self.options.deadline);
            (self.options.reply_timeout, self.options.deadline) = (patience, patience);
            result = self.execute(arguments);
            (self.options.reply_timeout, self.options.deadline) = usual;
            if self.reader() == reader {
                break;
            }
            result = Err(self.no_node());
        }
        self.consistency = consistency;
        result
    }

    /// Which node the last command was sent to, and over which of the connections to it.
    fn reader(&self) -> (usize, u64) {
        (self.current, self.nodes.get(self.current).map_or(0, |node| node.opened))
    }

    /// Runs a write in the session. The session is put back only where it is of further use.
    fn write(&mut self, arguments: &[Vec<u8>], deadline: Instant) -> Result<WireReply, ClientError> {
        let mut opened = 0;
        loop {
            let mut session = match self.session.take() {
                Some(session) => session,
                None => match self.open_session(deadline)? {
                    Ok(session) => {
                        opened += 1;
                        session
                    }
                    Err(reply) => return Ok(reply),
                },
            };
            let (outcome, doubt) = self.attempts(arguments, Some(session.place()), true, deadline);
            let reply = match outcome {
                Outcome::Answer(reply) => reply,
                Outcome::Refused(reply) => {
                    // The number was not used: the next write may have it.
                    self.session = Some(session);
                    return reply.ok_or_else(|| self.no_node());
                }
                Outcome::Unknown { cause, .. } => return Err(ClientError::OutcomeUnknown { cause }),
            };
            let fault = match &reply {
                WireReply::Error(text) => SessionFault::parse(text).map(|fault| (fault, text)),
                _ => None,
            };
            match fault {
                None => {
                    if matches!(reply, WireReply::Error(_)) {
                        session.on_error(!doubt);
                    } else {
                        session.on_applied();
                    }
                    self.session = Some(session);
                    return Ok(reply);
                }
                // An earlier attempt may have been applied before the session went away.
                Some((_, text)) if doubt => {
                    return Err(ClientError::OutcomeUnknown { cause: text.clone() });
                }
                Some((SessionFault::Gap { expected }, _)) if session.on_gap(expected) => {
                    self.session = Some(session);
                }
                Some((SessionFault::Gap { .. } | SessionFault::Expired, _)) if opened < SESSIONS_MAX => {}
                Some(_) => return Ok(reply),
            }
        }
    }

    /// Opens a session; the inner error is a reply that refuses it. One opened by a lost attempt is not used
    /// and expires by itself.
    fn open_session(&mut self, deadline: Instant) -> Result<Result<Session, WireReply>, ClientError> {
        let command = [b"SESSION".to_vec(), b"OPEN".to_vec()];
        match self.attempts(&command, None, true, deadline).0 {
            Outcome::Answer(WireReply::Integer(id)) => match u64::try_from(id) {
                Ok(id) if id > 0 => Ok(Ok(Session::new(SessionId(id)))),
                _ => Err(ClientError::NoSession),
            },
            Outcome::Answer(reply @ WireReply::Error(_)) => Ok(Err(reply)),
            Outcome::Answer(_) => Err(ClientError::NoSession),
            Outcome::Refused(Some(reply)) => Ok(Err(reply)),
            // The write itself was not sent yet, so nothing about it is unknown.
            Outcome::Refused(None) | Outcome::Unknown { .. } => Err(self.no_node()),
        }
    }

    /// Tries one node after the other. Also says whether any attempt but the answered one was perhaps
    /// multicast.
    fn attempts(
        &mut self,
        arguments: &[Vec<u8>],
        place: Option<SessionSeq>,
        repeat: bool,
        deadline: Instant,
    ) -> (Outcome, bool) {
        let mut doubt = None;
        let mut last_reply = None;
        let mut failures = 0;
        while !self.nodes.is_empty() && Instant::now() < deadline {
            match self.attempt(arguments, place, deadline) {
                Outcome::Answer(reply) => return (Outcome::Answer(reply), doubt.is_some()),
                Outcome::Refused(reply) => last_reply = reply.or(last_reply),
                Outcome::Unknown { cause, reply } => {
                    doubt = Some(cause);
                    last_reply = reply.or(last_reply);
                }
            }
            self.current = (self.current + 1) % self.nodes.len();
            failures += 1;
            if doubt.is_some() && !repeat {
                break;
            }
            if failures % self.nodes.len() == 0 {
                let pause = self.pause(failures / self.nodes.len());
                if Instant::now() + pause >= deadline {
                    break;
                }
                thread::sleep(pause);
            }
        }
        match doubt {
            Some(cause) => (Outcome::Unknown { cause, reply: last_reply }, true),
            None => (Outcome::Refused(last_reply), false),
        }
    }

    /// Tries the current node once.
    fn attempt(&mut self, arguments: &[Vec<u8>], place: Option<SessionSeq>, deadline: Instant) -> Outcome {
        let (consistency, options) = (self.consistency, &self.options);
        let node = &mut self.nodes[self.current];
        let mut connection = match node.connection.take().filter(|connection| !connection.is_stale()) {
            Some(connection) => connection,
            None => {
                let left = deadline.saturating_duration_since(Instant::now());
                let timeout = left.min(options.connect_timeout).max(Duration::from_millis(1));
                match Connection::open(&node.address, timeout) {
                    Ok(connection) => {
                        node.opened += 1;
                        connection
                    }
                    Err(error) => {
                        node.cause = Some(error.to_string());
                        return Outcome::Refused(None);
                    }
                }
            }
        };
        let outcome = match connection.call(consistency, place, arguments, options.reply_timeout, deadline) {
            Ok(reply) => classify(reply),
            Err(error) => {
                node.cause = Some(error.to_string());
                return match error {
                    CallError::NotSent(_) => Outcome::Refused(None),
                    _ => Outcome::Unknown { cause: format!("{}: {error}", node.address), reply: None },
                };
            }
        };
        match &outcome {
            // After a refusal the node also refuses what follows on that connection, so that a session's
            // writes do not overtake each other; the next attempt here begins anew.
            Outcome::Refused(Some(WireReply::Error(text))) => node.cause = Some(text.clone()),
            Outcome::Unknown { cause, .. } => node.cause = Some(cause.clone()),
            _ => {
                node.connection = Some(connection);
                node.cause = None;
            }
        }
        outcome
    }

    /// How long to wait after so many rounds: longer each time, and not the same for every client.
    fn pause(&mut self, rounds: usize) -> Duration {
        // Marsaglia's xorshift.
        self.jitter ^= self.jitter << 13;
        self.jitter ^= self.jitter >> 7;
        self.jitter ^= self.jitter << 17;
        let doublings = u32::try_from(rounds - 1).unwrap_or(u32::MAX).min(16);
        let longest = (BACKOFF_MIN * 2u32.pow(doublings)).min(BACKOFF_MAX);
        let half = longest / 2;
        half + Duration::from_micros(self.jitter % u64::try_from(half.as_micros()).unwrap_or(u64::MAX).max(1))
    }

    fn no_node(&self) -> ClientError {
        let cause = |node: &Node| node.cause.clone().unwrap_or_else(|| "not tried".to_owned());
        ClientError::NoNode {
            causes: self.nodes.iter().map(|node| (node.address.to_string(), cause(node))).collect(),
        }
    }

    /// Answers the commands about consistency, which [`refusal`] has let pass; `None`: it is another command.
    fn set_consistency(&mut self, arguments: &[Vec<u8>]) -> Option<WireReply> {
        let (name, rest) = arguments.split_first()?;
        let (chosen, answer) = match (store::lookup(name)?.name, rest) {
            ("READONLY", _) => (Consistency::Local, "OK"),
            ("READWRITE", _) => (Consistency::Linearizable, "OK"),
            ("RESET", _) => (self.options.consistency, "RESET"),
            ("CONSISTENCY", []) => (self.consistency, self.consistency.name()),
            ("CONSISTENCY", [level, ..]) => (Consistency::from_name(level)?, "OK"),
            _ => return None,
        };
        self.consistency = chosen;
        Some(WireReply::Status(answer.to_owned()))
    }
}

/// The reply to a command that every node would refuse before multicasting it. A node may allow longer or
/// shorter values than another, so only the length that none takes is refused here; names that are unknown
/// here are left to the node, which may be newer.
fn refusal(arguments: &[Vec<u8>]) -> Option<WireReply> {
    let (name, rest) = arguments.split_first()?;
    let rest: Vec<&[u8]> = rest.iter().map(Vec::as_slice).collect();
    let limits = store::Limits { value_len_max: limits::VALUE_LEN_CEILING, ..store::Limits::default() };
    match store::check(store::lookup(name)?, &rest, &limits) {
        Err(Reply::Error(text)) => Some(WireReply::Error(text.into())),
        _ => None,
    }
}

/// Looks at the lengths that no node would take, before anything is copied or sent.
fn check(arguments: &[Vec<u8>]) -> Result<(), ClientError> {
    let bytes = arguments.iter().map(Vec::len).sum();
    let longest = arguments.iter().map(Vec::len).max().unwrap_or(0);
    let limits = [
        ("number of arguments", arguments.len(), limits::ARGUMENT_COUNT_MAX),
        ("bytes of an argument", longest, limits::VALUE_LEN_CEILING),
        ("bytes of the command", bytes, limits::COMMAND_LEN_MAX),
    ];
    match limits.into_iter().find(|(_, len, max)| len > max) {
        Some((what, len, max)) => Err(ClientError::TooLong { what, len, max }),
        None => Ok(()),
    }
}

/// What a reply says about the attempt.
fn classify(reply: WireReply) -> Outcome {
    if let WireReply::Error(text) = &reply {
        match text.split(' ').next().unwrap_or("") {
            "NOQUORUM" | "BUSY" | "LOADING" => return Outcome::Refused(Some(reply)),
            "TIMEOUT" => return Outcome::Unknown { cause: text.clone(), reply: Some(reply) },
            _ => {}
        }
    }
    Outcome::Answer(reply)
}
