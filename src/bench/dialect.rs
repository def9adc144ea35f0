//! Requests to bytes, and bytes to what matters of a reply: whether it was one.
//!
//! A load generator needs neither values nor texts of replies, so replies are passed over rather than read. Requests
//! of a connection are numbered from 0; a reply says which one it answers.

use crate::wire::client::Consistency;

use super::BenchError;
use super::binary::Binary;
use super::etcd::Etcd;
use super::resp::Resp;
use super::workload::{Command, Operation, Workload};

/// What a server is spoken to in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DialectName {
    /// RESP2: lanekv and Redis.
    Resp,
    /// The frames of `kvclient`: lanekv alone.
    Binary,
    /// gRPC over HTTP/2 as etcd's own clients speak it: version 3 of its API.
    Etcd,
}

impl DialectName {
    /// All of them.
    pub const ALL: [DialectName; 3] = [DialectName::Resp, DialectName::Binary, DialectName::Etcd];

    /// As it is called on the command line.
    pub fn name(self) -> &'static str {
        match self {
            DialectName::Resp => "resp",
            DialectName::Binary => "binary",
            DialectName::Etcd => "etcd",
        }
    }

    /// The one of this name.
    pub fn from_name(name: &str) -> Option<DialectName> {
        DialectName::ALL.into_iter().find(|dialect| dialect.name() == name)
    }

    /// Says what this dialect cannot do of what is wanted.
    pub(super) fn check(
        self,
        workload: &Workload,
        consistency: Option<Consistency>,
        wait: Option<u32>,
    ) -> Result<(), BenchError> {
        let usage = |text: &str| Err(BenchError::Usage(format!("--dialect {}: {text}", self.name())));
        if wait.is_some() && self != DialectName::Resp {
            return usage("--wait is a command of Redis");
        }
        if self == DialectName::Etcd {
            if [Operation::Incr, Operation::Mset].into_iter().any(|kind| workload.mix.has(kind)) {
                return usage("there are only set and get");
            }
            if consistency == Some(Consistency::Ordered) {
                return usage("reads are linearizable or local");
            }
            if workload.value_len > super::etcd::VALUE_LEN_MAX {
                return usage("values of at most 48 KiB");
            }
        }
        Ok(())
    }
}

/// What a reply said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    /// What was asked for.
    Done,
    /// There is no such key.
    Missing,
    /// An error.
    Error(String),
}

/// What stands at the front of what was received.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Taken {
    /// Not all of it has come.
    Incomplete,
    /// So many bytes that answer nothing, or not yet.
    Passed(usize),
    /// A reply.
    Reply {
        /// Its bytes.
        len: usize,
        /// Which request it answers.
        seq: u64,
        /// What it said.
        answer: Answer,
    },
}

/// One connection's side of a dialect.
#[derive(Debug)]
pub(super) enum Dialect {
    Resp(Resp),
    Binary(Binary),
    Etcd(Box<Etcd>),
}

impl Dialect {
    pub(super) fn new(
        name: DialectName,
        authority: &str,
        consistency: Option<Consistency>,
        wait: Option<u32>,
    ) -> Dialect {
        match name {
            DialectName::Resp => Dialect::Resp(Resp::new(consistency, wait)),
            DialectName::Binary => Dialect::Binary(Binary::new(consistency)),
            DialectName::Etcd => {
                let local = consistency == Some(Consistency::Local);
                Dialect::Etcd(Box::new(Etcd::new(authority, local)))
            }
        }
    }

    /// Appends what a connection begins with; true if that is a request of its own, with the number 0.
    pub(super) fn greet(&mut self, out: &mut Vec<u8>) -> bool {
        match self {
            Dialect::Resp(resp) => resp.greet(out),
            Dialect::Binary(_) => false,
            Dialect::Etcd(etcd) => {
                etcd.greet(out);
                false
            }
        }
    }

    /// Appends a request.
    pub(super) fn encode(&mut self, seq: u64, command: &Command, out: &mut Vec<u8>) {
        match self {
            Dialect::Resp(resp) => resp.encode(command, out),
            Dialect::Binary(binary) => binary.encode(seq, command, out),
            Dialect::Etcd(etcd) => etcd.encode(seq, command, out),
        }
    }

    /// Looks at the front of what was received, and may append an answer of its own.
    ///
    /// # Errors
    /// What was found, if that is not of this dialect.
    pub(super) fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Taken, String> {
        match self {
            Dialect::Resp(resp) => resp.take(bytes),
            Dialect::Binary(binary) => binary.take(bytes),
            Dialect::Etcd(etcd) => etcd.take(bytes, out),
        }
    }
}

/// The beginning of an unexpected text, fit to be shown.
pub(super) fn shown(bytes: &[u8]) -> String {
    const SHOWN_LEN: usize = 60;
    format!("\"{}\"", bytes[..bytes.len().min(SHOWN_LEN)].escape_ascii())
}
