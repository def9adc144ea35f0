//! Running commands for people and scripts: one from the command line, many from a pipe.
//!
//! Standard output carries replies only. What the client itself has to say goes to standard error: notices,
//! and why no node answered. One case is a reply although no node gave it: a command whose outcome is
//! unknown is answered `TIMEOUT …`, the word that a node uses for the same thing, so that a pipe has one
//! reply per command.

use std::ffi::OsStr;
use std::io::{self, BufRead, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

use crate::dialect;
use crate::types::limits;
use crate::wire::client::WireReply;

use super::backup::{self, BackupError};
use super::print::{Format, print};
use super::{Client, ClientError, commands, prompt};

/// What a run comes to, the worst of its commands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Status {
    /// All commands succeeded; a missing key is success.
    #[default]
    Success,
    /// A command got an error.
    CommandError,
    /// The input could not be read or the output not written.
    Usage,
    /// No node could be reached.
    NoNode,
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> ExitCode {
        ExitCode::from(match status {
            Status::Success => 0,
            Status::CommandError => 1,
            Status::Usage => 2,
            Status::NoNode => 3,
        })
    }
}

/// What to do after a command.
pub(super) enum Next {
    /// Print these bytes, and go on.
    Print(Vec<u8>, Status),
    /// No node answered; nothing to print.
    Failed(ClientError),
    /// The user wants to leave.
    Leave,
}

/// Runs one command.
pub(super) fn run_command(client: &mut Client, format: Format, arguments: &[Vec<u8>]) -> Next {
    let name = arguments.first().map(|name| name.to_ascii_uppercase()).unwrap_or_default();
    let reply = match (name.as_slice(), arguments.len()) {
        (b"EXIT", 1) | (b"QUIT", _) => return Next::Leave,
        (b"HELP", 1 | 2) => match commands::help(arguments.get(1).map(Vec::as_slice)) {
            Ok(text) if format == Format::Json => WireReply::Bulk(text.into_bytes()),
            Ok(text) => return Next::Print(text.into_bytes(), Status::Success),
            Err(text) => WireReply::Error(text),
        },
        (b"BACKUP", 2) => {
            let file = Path::new(OsStr::from_bytes(&arguments[1]));
            match backup::back_up(client, file) {
                Ok(done) => WireReply::Status(format!("backup written: {done}")),
                Err(BackupError::Client(error)) => return Next::Failed(error),
                Err(error) => WireReply::Error(format!("ERR {}", one_line(&error.to_string()))),
            }
        }
        _ => match client.execute(arguments) {
            Ok(reply) => reply,
            Err(error @ (ClientError::NoNode { .. } | ClientError::NoSession)) => return Next::Failed(error),
            Err(error @ ClientError::OutcomeUnknown { .. }) => {
                WireReply::Error(format!("TIMEOUT {}", one_line(&error.to_string())))
            }
            Err(error @ ClientError::TooLong { .. }) => WireReply::Error(format!("ERR {error}")),
        },
    };
    let status = if matches!(reply, WireReply::Error(_)) { Status::CommandError } else { Status::Success };
    let mut out = Vec::new();
    print(&mut out, format, &reply);
    Next::Print(out, status)
}

/// Splits a line and runs it; `None`: nothing on it.
pub(super) fn run_line(client: &mut Client, format: Format, line: &[u8]) -> Option<Next> {
    match dialect::split_line(line) {
        Ok(arguments) if arguments.is_empty() => None,
        Ok(arguments) => Some(run_command(client, format, &arguments)),
        Err(error) => {
            let mut out = Vec::new();
            print(&mut out, format, &WireReply::Error(format!("ERR {error}")));
            Some(Next::Print(out, Status::CommandError))
        }
    }
}

/// Runs the command given on the command line.
pub fn one_shot(client: &mut Client, format: Format, arguments: &[Vec<u8>], out: &mut impl Write) -> Status {
    match run_command(client, format, arguments) {
        Next::Print(bytes, status) => match write_reply(out, &bytes) {
            Written::Done => status,
            Written::NobodyReads => status,
            Written::Failed => status.max(Status::Usage),
        },
        Next::Failed(error) => {
            notice(&error.to_string());
            Status::NoNode
        }
        Next::Leave => Status::Success,
    }
}

/// Runs a command a line until the input ends, EXIT, or no node answers.
pub fn piped(client: &mut Client, format: Format, mut input: impl BufRead, out: &mut impl Write) -> Status {
    let mut worst = Status::Success;
    let mut line = Vec::new();
    let mut number = 0u64;
    loop {
        number += 1;
        match read_line(&mut input, &mut line) {
            Ok(true) => {}
            Ok(false) => return worst,
            Err(error) => {
                notice(&format!("standard input, line {number}: {error}"));
                return worst.max(Status::Usage);
            }
        }
        match run_line(client, format, &line) {
            None => {}
            Some(Next::Leave) => return worst,
            Some(Next::Print(bytes, status)) => {
                worst = worst.max(status);
                match write_reply(out, &bytes) {
                    Written::Done => {}
                    Written::NobodyReads => return worst,
                    Written::Failed => return worst.max(Status::Usage),
                }
            }
            Some(Next::Failed(error)) => {
                notice(&format!("{error}; stopped at line {number}"));
                return Status::NoNode;
            }
        }
    }
}

/// Shows a prompt until the user leaves.
pub fn interactive(client: &mut Client, format: Format, out: &mut impl Write) -> Status {
    prompt::run(client, format, out)
}

/// Reads one line of any bytes, without its end; false at the end of the input.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    // Escapes make a line up to four times as long as its command; longer ones are no command.
    const LINE_LEN_MAX: usize = 4 * limits::COMMAND_LEN_MAX;
    line.clear();
    let read = input.by_ref().take(LINE_LEN_MAX as u64 + 1).read_until(b'\n', line)?;
    if read > LINE_LEN_MAX {
        let what = format!("longer than {LINE_LEN_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    Ok(read > 0)
}

/// How writing a reply went.
pub(super) enum Written {
    /// It is out.
    Done,
    /// The reader has gone, which is its right.
    NobodyReads,
    /// It could not be written; the user was told.
    Failed,
}

/// Writes a reply at once: whoever feeds the pipe may wait for it.
pub(super) fn write_reply(out: &mut impl Write, bytes: &[u8]) -> Written {
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Written::Done,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Written::NobodyReads,
        Err(error) => {
            notice(&format!("standard output: {error}"));
            Written::Failed
        }
    }
}

/// Says something to the user; there is nobody left to tell if that fails.
pub fn notice(text: &str) {
    let _ = writeln!(io::stderr(), "kvclient: {text}");
}

/// Errors are one line in every dialect.
fn one_line(text: &str) -> String {
    text.replace(['\r', '\n'], " ")
}
