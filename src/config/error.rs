//! What can be wrong with a configuration file.

use std::fmt;

use crate::types::{Millis, NodeId};

use super::Settings;

/// A mistake in a configuration file, and where it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    /// The file, as it was named.
    pub file: String,
    /// Its line, from 1.
    pub line: u32,
    /// What is wrong.
    pub fault: Fault,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.fault)
    }
}

impl std::error::Error for ConfigError {}

/// What is wrong with a line, or with a setting given as a flag.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A byte that is no UTF-8.
    NotUtf8 {
        /// The byte.
        found: u8,
    },
    /// No line describes a member.
    NoMembers,
    /// The line ends too early.
    Missing {
        /// What should have followed.
        expected: &'static str,
    },
    /// Something after the end of what a line may hold.
    Trailing {
        /// The word.
        found: String,
    },
    /// The line begins with neither an id nor `set`.
    NodeId {
        /// The word.
        found: String,
    },
    /// Two lines for one node.
    DuplicateId {
        /// The node.
        found: NodeId,
        /// The line that has it already.
        first: u32,
    },
    /// Not `host:port`.
    Address {
        /// The text.
        found: String,
    },
    /// The part before the port is no host that others could connect to.
    Host {
        /// The host.
        found: String,
        /// What it should be.
        expected: &'static str,
    },
    /// Not a port.
    Port {
        /// The text after the last colon.
        found: String,
    },
    /// Two listeners with one address.
    DuplicateAddress {
        /// The address.
        found: String,
        /// The line that has it already.
        first: u32,
    },
    /// An option of a member that does not exist.
    UnknownOption {
        /// Its name.
        found: String,
    },
    /// An option given twice.
    DuplicateOption {
        /// Its name.
        found: String,
    },
    /// A setting that does not exist.
    UnknownSetting {
        /// Its name.
        found: String,
    },
    /// A setting given twice.
    DuplicateSetting {
        /// Its name.
        found: String,
        /// The line that has it already.
        first: u32,
    },
    /// A value that the setting cannot have.
    Value {
        /// The setting.
        name: &'static str,
        /// The value.
        found: String,
        /// What it may be.
        expected: String,
    },
    /// Heartbeats so slow that healthy nodes would be suspected.
    Heartbeat {
        /// The interval between heartbeats.
        heartbeat: Millis,
        /// The suspicion time-out.
        suspicion: Millis,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::NotUtf8 { found } => write!(f, "found byte {found:#04x}, expected UTF-8 text"),
            Fault::NoMembers => {
                write!(f, "found no node, expected at least one line such as \"0 127.0.0.1:7100\"")
            }
            Fault::Missing { expected } => write!(f, "found the end of the line, expected {expected}"),
            Fault::Trailing { found } => {
                write!(f, "found {found:?}, expected the end of the line or an option such as http=HOST:PORT")
            }
            Fault::NodeId { found } => {
                write!(f, "found {found:?}, expected a node id from 0 to 63, or \"set\"")
            }
            Fault::DuplicateId { found, first } => {
                let found = found.get();
                write!(f, "found node id {found} again, expected one that line {first} does not have")
            }
            Fault::Address { found } => {
                write!(f, "found {found:?}, expected host:port, with IPv6 as [address]:port")
            }
            Fault::Host { found, expected } => write!(f, "found host {found:?}, expected {expected}"),
            Fault::Port { found } => write!(f, "found port {found:?}, expected a number from 1 to 65535"),
            Fault::DuplicateAddress { found, first } => {
                write!(f, "found address {found:?} again, expected one that line {first} does not have")
            }
            Fault::UnknownOption { found } => {
                write!(f, "found option {found:?}, expected peer, http or cluster")
            }
            Fault::DuplicateOption { found } => {
                write!(f, "found option {found:?} again, expected it once")
            }
            Fault::UnknownSetting { found } => {
                write!(f, "found setting {found:?}, expected one of {}", Settings::NAMES.join(", "))
            }
            Fault::DuplicateSetting { found, first } => {
                write!(f, "found setting {found:?} again, expected it only in line {first}")
            }
            Fault::Value { name, found, expected } => {
                write!(f, "found {found:?}, expected {expected} for {name}")
            }
            Fault::Heartbeat { heartbeat, suspicion } => write!(
                f,
                "found heartbeat {heartbeat} with suspicion-timeout {suspicion}, \
                 expected three heartbeats within the time-out"
            ),
        }
    }
}

impl std::error::Error for Fault {}
