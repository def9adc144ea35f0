//! Why a snapshot cannot be written or read.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::wire::DecodeError;

use super::super::Disk;
use super::block::Fault;

/// Why a snapshot cannot be written or read.
#[derive(Debug)]
pub enum SnapshotError {
    /// The system failed at something.
    Io {
        /// What it was working on.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The file was written by a newer version of the program.
    NewerFormat {
        /// The file.
        file: PathBuf,
        /// Its format version.
        found: u32,
        /// The newest that this program reads.
        supported: u32,
    },
    /// Something is wrong outside of the blocks.
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// A block is not what it was, or not the one that should be there.
    BadBlock {
        /// The file.
        file: PathBuf,
        /// The block's number.
        block: u32,
        /// Where in the file it begins.
        offset: u64,
        /// What of it is wrong.
        what: &'static str,
        /// What was found.
        found: u64,
        /// What should have been there.
        expected: u64,
    },
    /// A header block whose checksum is right, but which makes no sense.
    BadHeader {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: DecodeError,
    },
}

impl SnapshotError {
    /// For `map_err` after an operation on a disk's file `name`.
    pub(super) fn io<D: Disk>(disk: &D, name: &str) -> impl FnOnce(io::Error) -> SnapshotError + use<D> {
        let path = disk.path(name);
        move |source| SnapshotError::Io { path, source }
    }

    pub(super) fn bad_block<D: Disk>(
        disk: &D,
        name: &str,
        block: u32,
        offset: u64,
        fault: Fault,
    ) -> SnapshotError {
        let Fault { what, found, expected } = fault;
        SnapshotError::BadBlock { file: disk.path(name), block, offset, what, found, expected }
    }
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SnapshotError::Io { path, source } => write!(f, "{}: {source}", path.display()),
            SnapshotError::NewerFormat { file, found, supported } => {
                let file = file.display();
                write!(f, "{file} has format version {found}, this program reads up to {supported}")
            }
            SnapshotError::Damaged { file, offset, what } => {
                write!(f, "{} is damaged at offset {offset}: {what}", file.display())
            }
            SnapshotError::BadBlock { file, block, offset, what, found, expected } => write!(
                f,
                "{} is damaged in block {block} at offset {offset}: {what} is {found:#x}, expected {expected:#x}",
                file.display()
            ),
            SnapshotError::BadHeader { file, source } => {
                write!(f, "{} has a header that cannot be read: {source}", file.display())
            }
        }
    }
}

impl std::error::Error for SnapshotError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SnapshotError::Io { source, .. } => Some(source),
            SnapshotError::BadHeader { source, .. } => Some(source),
            _ => None,
        }
    }
}
