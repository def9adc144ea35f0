//! `BACKUP file`: the state of the whole store at one index, in a file.
//!
//! The node takes a snapshot and hands its blocks out one by one. They are checked as they come, the file is read back
//! and the state in it is checked before it gets its name; `kvnode --restore` begins a new cluster from it.

use std::fmt;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::storage::{FileDisk, SnapshotError, SnapshotFront, SnapshotReceiver};
use crate::store::{ImageChecker, ImageError};
use crate::types::Index;
use crate::wire::client::WireReply;

use super::{Client, ClientError};

/// A node may take so long to make its snapshot.
const BEGIN_PATIENCE: Duration = Duration::from_secs(3600);
/// How far it is, is shown so often.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// What was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Backup {
    /// The index of the last command in it.
    pub index: Index,
    /// How many keys there are.
    pub keys: u64,
    /// The length of the file in bytes.
    pub len: u64,
}

impl fmt::Display for Backup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "index={} keys={} bytes={}", self.index, self.keys, self.len)
    }
}

/// Why there is no backup.
#[derive(Debug)]
pub enum BackupError {
    /// A file with this name is there.
    Exists,
    /// No node answered.
    Client(ClientError),
    /// A node refused.
    Refused(String),
    /// The node's answer is not what it should be.
    Answer(WireReply),
    /// What came cannot be written, or is not right.
    File(SnapshotError),
    /// What came does not make the state that it names.
    Image(ImageError),
    /// The system refuses.
    Io(io::Error),
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackupError::Exists => f.write_str("the file exists already; nothing is overwritten"),
            BackupError::Client(error) => error.fmt(f),
            BackupError::Refused(text) => f.write_str(text),
            BackupError::Answer(reply) => write!(f, "the node's answer makes no sense: {reply:?}"),
            BackupError::File(error) => error.fmt(f),
            BackupError::Image(error) => write!(f, "the state that came is not what it says: {error}"),
            BackupError::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for BackupError {}

impl From<SnapshotError> for BackupError {
    fn from(error: SnapshotError) -> BackupError {
        BackupError::File(error)
    }
}

impl From<io::Error> for BackupError {
    fn from(error: io::Error) -> BackupError {
        BackupError::Io(error)
    }
}

/// Writes a backup to a file that does not exist yet. Shows how far it is on standard error, if that is a terminal.
///
/// # Errors
/// There is no backup then, and nothing is left behind but for a directory with a name that ends in `.incomplete`,
/// if the disk failed.
pub fn back_up(client: &mut Client, file: &Path) -> Result<Backup, BackupError> {
    if file.exists() {
        return Err(BackupError::Exists);
    }
    if io::stderr().is_terminal() {
        // A terminal that cannot be written to is no reason to end a backup.
        let _ = writeln!(io::stderr(), "the node takes a snapshot …");
    }
    // Whatever was acknowledged anywhere before is in it: the node has caught up for the read before.
    let begin = [b"SNAPSHOT".to_vec(), b"BEGIN".to_vec()];
    let begun = answer(client.execute_after_read(&begin, BEGIN_PATIENCE))?;
    let WireReply::Array(parts) = &begun else { return Err(BackupError::Answer(begun)) };
    let [
        WireReply::Integer(index),
        WireReply::Bulk(digest),
        WireReply::Integer(blocks),
        WireReply::Integer(len),
    ] = &parts[..]
    else {
        return Err(BackupError::Answer(begun));
    };
    let (index, digest, blocks, len) = (index.to_string(), digest.clone(), *blocks, *len);
    let mut directory = file.as_os_str().to_owned();
    directory.push(".incomplete");
    let directory = Path::new(&directory);
    fs::create_dir_all(directory)?;
    let result = fetch(client, directory, file, (&index, &digest, blocks, len));
    // What the fetch has left, if anything; it is of no use to anybody.
    let removed = fs::remove_dir_all(directory);
    let backup = result?;
    removed?;
    Ok(backup)
}

fn fetch(
    client: &mut Client,
    directory: &Path,
    file: &Path,
    (index, digest, blocks, len): (&str, &[u8], i64, i64),
) -> Result<Backup, BackupError> {
    let disk = FileDisk::open(directory)?;
    let mut receiver = None;
    let mut progress = Progress::new(len);
    for number in 0..blocks {
        let number = number.to_string();
        let reply = call(client, &[b"SNAPSHOT", b"READ", index.as_bytes(), digest, number.as_bytes()])?;
        let WireReply::Bulk(block) = reply else { return Err(BackupError::Answer(reply)) };
        let Some(receiver) = &mut receiver else {
            receiver = Some(SnapshotReceiver::begin(&disk, &block)?);
            continue;
        };
        receiver.push(receiver.next_block(), &block)?;
        progress.show(receiver.len_bytes());
    }
    progress.end();
    let Some(receiver) = receiver.filter(SnapshotReceiver::is_complete) else {
        return Err(BackupError::Refused("the node ended the backup before its end".to_owned()));
    };
    let header = receiver.header().clone();
    let mut written = receiver.finish(SnapshotFront::default())?;
    let mut checker = ImageChecker::default();
    while let Some(payload) = written.next_payload()? {
        checker.push(payload).map_err(BackupError::Image)?;
    }
    checker.finish(header.digest).map_err(BackupError::Image)?;
    let published = written.publish()?;
    // A hard link does not take the place of a file that has come in the meantime, as a rename would.
    fs::hard_link(directory.join(&published.name), file)?;
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(parent)?.sync_all()?;
    Ok(Backup { index: header.index, keys: header.keys, len: published.len })
}

fn call(client: &mut Client, arguments: &[&[u8]]) -> Result<WireReply, BackupError> {
    let arguments: Vec<Vec<u8>> = arguments.iter().map(|argument| argument.to_vec()).collect();
    answer(client.execute(&arguments))
}

fn answer(reply: Result<WireReply, ClientError>) -> Result<WireReply, BackupError> {
    match reply {
        Ok(WireReply::Error(text)) => Err(BackupError::Refused(text)),
        Ok(reply) => Ok(reply),
        Err(error) => Err(BackupError::Client(error)),
    }
}

/// A line on the terminal that says how far it is.
struct Progress {
    len: i64,
    told: Instant,
    shown: bool,
}

impl Progress {
    fn new(len: i64) -> Progress {
        Progress { len, told: Instant::now(), shown: false }
    }

    fn show(&mut self, done: u64) {
        let mut err = io::stderr();
        if self.told.elapsed() < PROGRESS_EVERY || !err.is_terminal() {
            return;
        }
        self.told = Instant::now();
        self.shown = true;
        // A terminal that cannot be written to is no reason to end a backup.
        let _ = write!(err, "\r{} of {} MiB", done >> 20, self.len >> 20);
    }

    fn end(&self) {
        if self.shown {
            let _ = writeln!(io::stderr());
        }
    }
}
