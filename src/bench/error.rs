//! Why a run cannot be made, or could not be finished.

use std::fmt;
use std::io;
use std::time::Duration;

/// What went wrong. Errors in replies are no such error: they are counted.
#[derive(Debug)]
pub enum BenchError {
    /// Options that do not go together, or an address or a file that cannot be read.
    Usage(String),
    /// The operating system refuses something.
    System {
        /// What was to be done.
        what: String,
        /// Its answer.
        error: io::Error,
    },
    /// Nobody answers at an address.
    Unreachable {
        /// The address.
        address: String,
        /// Why.
        error: io::Error,
    },
    /// A connection ended under way.
    Lost {
        /// To whom.
        address: String,
        /// Why.
        why: String,
    },
    /// What came is not of the dialect that was asked for.
    Nonsense {
        /// From whom.
        address: String,
        /// What was found.
        found: String,
    },
    /// A setting of the connection was refused.
    Refused {
        /// By whom.
        address: String,
        /// The error that was answered.
        answer: String,
    },
    /// Nothing was answered for so long.
    Silent(Duration),
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BenchError::Usage(text) => write!(f, "{text}"),
            BenchError::System { what, error } => write!(f, "cannot {what}: {error}"),
            BenchError::Unreachable { address, error } => {
                write!(f, "cannot connect to {address}: {error}; is the server running?")
            }
            BenchError::Lost { address, why } => {
                write!(f, "lost the connection to {address}: {why} (--tolerate goes on)")
            }
            BenchError::Nonsense { address, found } => {
                write!(f, "{address} answers {found}; is --dialect right?")
            }
            BenchError::Refused { address, answer } => write!(f, "{address} refuses: {answer}"),
            BenchError::Silent(time) => write!(f, "nothing was answered for {time:?}; is --dialect right?"),
        }
    }
}

impl std::error::Error for BenchError {}

/// Gives an error of the system its occasion.
pub(super) fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> BenchError {
    let what = what.into();
    move |error| BenchError::System { what, error }
}
