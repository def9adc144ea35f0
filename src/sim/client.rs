//! Modelled clients: what they ask, what they know, and what they find out.
//!
//! Every write leaves a trace from which its place in the total order can be read: APPEND adds a token of its own to a list
//! and answers with the list's length, INCR answers with the count. So real time, exactly once and the
//! safety of reads can be checked from the replies alone.

use crate::types::SessionId;
use crate::wire::batch::SessionSeq;
use crate::wire::client::{Consistency, WireReply, encode_request};

use super::random::Random;

/// Bytes of a token.
pub(crate) const TOKEN_LEN: usize = 8;

/// What a client asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Opens a session.
    Open,
    /// Adds a token to a list.
    Append,
    /// Adds one to a counter.
    Incr,
    /// Reads a list.
    Get(Consistency),
}

/// One operation.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) id: u64,
    pub(crate) kind: Kind,
    pub(crate) key: usize,
    /// What was known to anybody when it began, in the key's count.
    pub(crate) floor: u64,
    pub(crate) session: Option<SessionSeq>,
    /// An earlier attempt may have been applied.
    pub(crate) uncertain: bool,
}

/// One client.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) sessions: bool,
    pub(crate) session: Option<SessionId>,
    pub(crate) seq: u64,
    /// Where its operation runs: the node and the process.
    pub(crate) at: Option<(usize, u64)>,
    pub(crate) generation: u32,
    /// Counts what was planned for it; only the latest plan is carried out.
    pub(crate) turn: u64,
    pub(crate) operation: Option<Operation>,
    /// What it has seen on its present connection, by key: local reads never go back.
    pub(crate) seen: Vec<u64>,
}

impl Client {
    pub(crate) fn new(sessions: bool, keys: usize) -> Client {
        Client {
            sessions,
            session: None,
            seq: 0,
            at: None,
            generation: 0,
            turn: 0,
            operation: None,
            seen: vec![0; keys],
        }
    }

    /// Chooses what to ask next.
    pub(crate) fn choose(&self, random: &mut Random) -> Kind {
        if self.sessions && self.session.is_none() {
            return Kind::Open;
        }
        match random.below(100) {
            0..50 => Kind::Append,
            50..65 => Kind::Incr,
            65..85 => Kind::Get(Consistency::Linearizable),
            85..92 => Kind::Get(Consistency::Ordered),
            _ => Kind::Get(Consistency::Local),
        }
    }
}

impl Operation {
    pub(crate) fn token(&self) -> [u8; TOKEN_LEN] {
        let mut token = *b"#0000000";
        let digits = format!("{:07}", self.id);
        token[1..].copy_from_slice(&digits.as_bytes()[..7]);
        token
    }

    /// The request's bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let list = format!("list{}", self.key);
        let counter = format!("counter{}", self.key);
        let token = self.token();
        let (consistency, arguments): (_, Vec<&[u8]>) = match self.kind {
            Kind::Open => (None, vec![b"SESSION", b"OPEN"]),
            Kind::Append => (None, vec![b"APPEND", list.as_bytes(), &token]),
            Kind::Incr => (None, vec![b"INCR", counter.as_bytes()]),
            Kind::Get(consistency) => (Some(consistency), vec![b"GET", list.as_bytes()]),
        };
        encode_request(&mut bytes, self.id, consistency, self.session, &arguments);
        bytes
    }
}

/// What a reply means for the operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    /// It was applied; a list has this length now, or a counter this value.
    Count(u64),
    /// The content of a list.
    List(Vec<u8>),
    /// A session is open.
    Session(SessionId),
    /// It was not applied and may be asked again.
    Refused,
    /// Nobody knows.
    Unknown,
    /// Nothing that should ever be said.
    Wrong(String),
}

impl Answer {
    pub(crate) fn new(kind: Kind, reply: WireReply) -> Answer {
        match (kind, reply) {
            (_, WireReply::Error(text)) => match text.split(' ').next() {
                Some("NOQUORUM" | "BUSY" | "LOADING") => Answer::Refused,
                Some("TIMEOUT") => Answer::Unknown,
                _ => Answer::Wrong(text),
            },
            (Kind::Open, WireReply::Integer(id)) => match u64::try_from(id) {
                Ok(id) => Answer::Session(SessionId(id)),
                Err(_) => Answer::Wrong(format!("session {id}")),
            },
            (Kind::Append | Kind::Incr, WireReply::Integer(n)) => match u64::try_from(n) {
                Ok(n) if kind == Kind::Append => Answer::Count(n / TOKEN_LEN as u64),
                Ok(n) => Answer::Count(n),
                Err(_) => Answer::Wrong(format!("count {n}")),
            },
            (Kind::Get(_), WireReply::Bulk(bytes)) => Answer::List(bytes),
            (Kind::Get(_), WireReply::Nil) => Answer::List(Vec::new()),
            (kind, reply) => Answer::Wrong(format!("{reply:?} to {kind:?}")),
        }
    }
}
