//! Why a command is refused.
//!
//! Where Redis refuses for the same reason, the words are Redis' own, byte for byte: client libraries and
//! their tests compare them.

use std::fmt;

use crate::types::{Reply, SessionId, limits};

/// Why a command was refused; nothing was changed by it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CommandError {
    /// Too few or too many arguments.
    WrongArity {
        /// The command, in lower case.
        name: Box<str>,
    },
    /// An option that does not exist, or two that exclude each other.
    Syntax,
    /// An argument or a value is no 64-bit number in decimal.
    NotAnInteger,
    /// The sum does not fit into 64 bits.
    Overflow,
    /// The number to subtract has no negative in 64 bits.
    DecrementOverflow,
    /// An argument or a value is no number in decimal.
    NotAFloat,
    /// The sum is no finite number.
    NotFinite,
    /// A negative place in a value.
    Offset,
    /// No place of a bit, or one behind the longest value.
    BitOffset,
    /// Neither 0 nor 1, to be set.
    BitValue,
    /// Neither 0 nor 1, to be found.
    BitArgument,
    /// `BITOP NOT` with several values.
    SeveralToInvert,
    /// The key must exist and does not.
    NoSuchKey,
    /// Source and destination must differ.
    SameKey,
    /// A database other than 0.
    DatabaseIndex,
    /// A number of a database that does not fit into 32 bits.
    DatabaseNumber,
    /// `SWAPDB` with something that is no number.
    SwapIndex {
        /// Which of the two.
        second: bool,
    },
    /// A cursor that is no number.
    InvalidCursor,
    /// No hash slot.
    InvalidSlot,
    /// No hash slot, or no number of keys.
    InvalidSlotOrCount,
    /// Options of `EXPIRE` that exclude each other.
    MissingAndPresent,
    /// Options of `EXPIRE` that exclude each other.
    LaterAndSooner,
    /// Options of `LCS` that exclude each other.
    LengthAndPlaces,
    /// The table of `LCS` would be too large.
    SequencesTooLong,
    /// `OBJECT FREQ`: nobody counts.
    NoFrequencies,
    /// The digest of a value is sixteen hexadecimal digits.
    NotADigest,
    /// `RESTORE` without `REPLACE` over a key.
    KeyExists,
    /// `RESTORE` with a negative time to live.
    InvalidTtl,
    /// `RESTORE` with a negative time.
    InvalidIdleTime,
    /// `RESTORE` with a frequency above 255.
    InvalidFrequency,
    /// `RESTORE` of something that `DUMP` has not answered.
    WrongPayload,
    /// `RESTORE` of another kind of value, or of a damaged one.
    BadData,
    /// A script with fewer keys than none.
    NegativeKeyCount,
    /// A script with more keys than arguments.
    TooManyKeys,
    /// The digest of a script that this server does not know.
    NoScript,
    /// A script that this server does not know.
    NoInterpreter,
    /// A time to live that is not positive, or beyond all time.
    InvalidExpireTime {
        /// The command, in lower case.
        command: &'static str,
    },
    /// `EXPIRE` has no such option.
    UnsupportedOption {
        /// The option, at most 128 bytes of it.
        found: Box<str>,
    },
    /// The command cannot be part of a transaction.
    NotInTransaction {
        /// The command.
        name: &'static str,
    },
    /// A key above [`limits::KEY_LEN_MAX`].
    KeyTooLong {
        /// The key's length in bytes.
        len: usize,
    },
    /// A value above the limit.
    ValueTooLong,
    /// The reply would have more than [`limits::REPLY_LEN_MAX`] bytes.
    ReplyTooLong,
    /// Matching the pattern takes too many steps.
    PatternTooCostly,
    /// A command with this name does not exist.
    UnknownCommand {
        /// The name, at most 128 bytes of it.
        name: Box<str>,
        /// The first arguments, each in quotes and with a blank after it.
        arguments: Box<str>,
    },
    /// The command has no such subcommand.
    UnknownSubcommand {
        /// The command.
        command: &'static str,
        /// The subcommand, at most 128 bytes of it.
        found: Box<str>,
    },
    /// A command from the log has a code that is not in the table.
    UnknownCode {
        /// The code.
        code: u8,
    },
    /// A command that the node answers itself was found in the log.
    NotReplicated {
        /// The command.
        name: &'static str,
    },
    /// A command that is not a read was to be answered without the log.
    NotARead {
        /// The command.
        name: &'static str,
    },
    /// The session was never opened, or was dropped because it was idle or the oldest of too many.
    SessionExpired {
        /// The session.
        session: SessionId,
    },
    /// Earlier commands of the session are missing.
    SessionGap {
        /// The sequence number that is next.
        expected: u64,
        /// The command's.
        found: u64,
    },
    /// The command was applied before, and its reply is no longer kept.
    SessionForgotten {
        /// The command's sequence number.
        seq: u64,
        /// The client has acknowledged the replies up to this one.
        acked: u64,
    },
    /// Too many replies of the session wait for their acknowledgment.
    SessionFull {
        /// How many.
        count: usize,
        /// Their bytes.
        len: usize,
    },
}

impl CommandError {
    /// The word that begins the reply, by which clients tell kinds of errors apart.
    pub fn code(&self) -> &'static str {
        match self {
            CommandError::NoScript => "NOSCRIPT",
            CommandError::KeyExists => "BUSYKEY",
            _ => "ERR",
        }
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommandError::WrongArity { name } => {
                write!(f, "wrong number of arguments for '{name}' command")
            }
            CommandError::Syntax => f.write_str("syntax error"),
            CommandError::NotAnInteger => f.write_str("value is not an integer or out of range"),
            CommandError::Overflow => f.write_str("increment or decrement would overflow"),
            CommandError::DecrementOverflow => f.write_str("decrement would overflow"),
            CommandError::NotAFloat => f.write_str("value is not a valid float"),
            CommandError::NotFinite => f.write_str("increment would produce NaN or Infinity"),
            CommandError::Offset => f.write_str("offset is out of range"),
            CommandError::BitOffset => f.write_str("bit offset is not an integer or out of range"),
            CommandError::BitValue => f.write_str("bit is not an integer or out of range"),
            CommandError::BitArgument => f.write_str("The bit argument must be 1 or 0."),
            CommandError::SeveralToInvert => f.write_str("BITOP NOT must be called with a single source key."),
            CommandError::NoSuchKey => f.write_str("no such key"),
            CommandError::SameKey => f.write_str("source and destination objects are the same"),
            CommandError::DatabaseIndex => f.write_str("DB index is out of range"),
            CommandError::DatabaseNumber => {
                write!(f, "value is out of range, value must between {} and {}", i32::MIN, i32::MAX)
            }
            CommandError::SwapIndex { second } => {
                write!(f, "invalid {} DB index", if *second { "second" } else { "first" })
            }
            CommandError::InvalidCursor => f.write_str("invalid cursor"),
            CommandError::InvalidSlot => f.write_str("Invalid slot"),
            CommandError::InvalidSlotOrCount => f.write_str("Invalid slot or number of keys"),
            CommandError::MissingAndPresent => f.write_str(
                "NX and XX, GT or LT options at the same time are not compatible",
            ),
            CommandError::LaterAndSooner => f.write_str("GT and LT options at the same time are not compatible"),
            CommandError::LengthAndPlaces => f.write_str(
                "If you want both the length and indexes, please just use IDX.",
            ),
            CommandError::SequencesTooLong => f.write_str(
                "Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len",
            ),
            CommandError::NoFrequencies => f.write_str(
                "An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when \
                 switching between policies at runtime LRU and LFU data will take some time to adjust.",
            ),
            CommandError::NotADigest => f.write_str("The digest must be exactly 16 hexadecimal characters"),
            CommandError::KeyExists => f.write_str("Target key name already exists."),
            CommandError::InvalidTtl => f.write_str("Invalid TTL value, must be >= 0"),
            CommandError::InvalidIdleTime => f.write_str("Invalid IDLETIME value, must be >= 0"),
            CommandError::InvalidFrequency => f.write_str("Invalid FREQ value, must be >= 0 and <= 255"),
            CommandError::WrongPayload => f.write_str("DUMP payload version or checksum are wrong"),
            CommandError::BadData => f.write_str("Bad data format"),
            CommandError::NegativeKeyCount => f.write_str("Number of keys can't be negative"),
            CommandError::TooManyKeys => f.write_str("Number of keys can't be greater than number of args"),
            CommandError::NoScript => f.write_str("No matching script. Please use EVAL."),
            CommandError::NoInterpreter => f.write_str(
                "this server has no Lua: only the scripts of well-known lock libraries are understood",
            ),
            CommandError::InvalidExpireTime { command } => {
                write!(f, "invalid expire time in '{command}' command")
            }
            CommandError::UnsupportedOption { found } => write!(f, "Unsupported option {found}"),
            CommandError::NotInTransaction { name } => write!(f, "{name} is not allowed in transactions"),
            CommandError::KeyTooLong { len } => {
                write!(f, "key of {len} bytes, at most {} are allowed", limits::KEY_LEN_MAX)
            }
            CommandError::ValueTooLong => {
                f.write_str("string exceeds maximum allowed size (proto-max-bulk-len)")
            }
            CommandError::ReplyTooLong => {
                write!(f, "reply exceeds {} bytes, ask for fewer keys", limits::REPLY_LEN_MAX)
            }
            CommandError::PatternTooCostly => f.write_str("pattern takes too many steps to match"),
            CommandError::UnknownCommand { name, arguments } => {
                write!(f, "unknown command '{name}', with args beginning with: {arguments}")
            }
            CommandError::UnknownSubcommand { command, found } => {
                write!(f, "unknown subcommand '{found}'. Try {command} HELP.")
            }
            CommandError::UnknownCode { code } => write!(f, "unknown command code {code}"),
            CommandError::NotReplicated { name } => {
                write!(f, "'{name}' belongs to a connection and cannot be replicated")
            }
            CommandError::NotARead { name } => write!(f, "'{name}' is not a read"),
            CommandError::SessionExpired { session } => {
                write!(f, "session expired: {session} is not open")
            }
            CommandError::SessionGap { expected, found } => {
                write!(f, "session gap: expected {expected}, found {found}")
            }
            CommandError::SessionForgotten { seq, acked } => {
                write!(f, "session reply {seq} is no longer kept, acknowledged up to {acked}")
            }
            CommandError::SessionFull { count, len } => {
                write!(f, "session full: {count} replies of {len} bytes are not acknowledged")
            }
        }
    }
}

impl std::error::Error for CommandError {}

impl From<CommandError> for Reply {
    fn from(error: CommandError) -> Reply {
        let text = format!("{} {error}", error.code());
        // As Redis: line ends of the client's words are dropped at the end and blanks elsewhere.
        Reply::error(text.trim_end_matches(['\r', '\n']).replace(['\r', '\n'], " "))
    }
}

/// Bytes from a client as they may stand in an error: at most `len_max` of them, up to the first zero byte as
/// in Redis. There may be line ends among them.
pub(crate) fn excerpt(bytes: &[u8], len_max: usize) -> String {
    let bytes = &bytes[..bytes.len().min(len_max)];
    let bytes = bytes.split(|&b| b == 0).next().unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}
