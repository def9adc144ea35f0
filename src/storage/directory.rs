//! The data directory: made if it is not there, locked, and known by its identity.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::types::{DiskId, NodeId};

use super::{FileDisk, Identity, OpenError};

const LOCK_FILE: &str = "LOCK";

/// A data directory that this process holds. The lock goes with the value, or with the process,
/// however it ends.
#[derive(Debug)]
pub struct DataDir {
    /// Never read: the lock lives as long as the open file.
    _lock: File,
    disk: FileDisk,
    identity: Identity,
    is_new: bool,
}

impl DataDir {
    /// Makes the directory if need be, locks it, and reads or writes its identity; `new_disk_id`
    /// draws a random number for a new one, and `joining` says whether that is to take the place of a lost one. Nothing
    /// but the lock file is touched before the lock
    /// is held.
    ///
    /// # Errors
    /// Held by another process, another node's, damaged, newer, not writable.
    pub fn open(
        path: &Path,
        node: NodeId,
        joining: bool,
        new_disk_id: impl FnOnce() -> DiskId,
    ) -> Result<DataDir, OpenError> {
        create_directories(path)?;
        let lock = lock(path)?;
        let disk = FileDisk::open(path).map_err(OpenError::io(path))?;
        let (identity, is_new) = Identity::load_or_create(&disk, node, joining, new_disk_id)?;
        Ok(DataDir { _lock: lock, disk, identity, is_new })
    }

    /// Its files.
    pub fn disk(&self) -> &FileDisk {
        &self.disk
    }

    /// Whose it is.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Whether the identity was given by this `open`.
    pub fn is_new(&self) -> bool {
        self.is_new
    }
}

/// Whether somebody holds a data directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LockState {
    /// There is no lock file: no process was ever there.
    Absent,
    /// Nobody does.
    Free,
    /// A process does.
    Held {
        /// Its process id, as far as it can be read.
        pid: Option<u32>,
    },
}

impl LockState {
    /// Asks, without keeping a process that holds the directory, or one that comes later, from anything.
    ///
    /// # Errors
    /// What the system says.
    pub fn of(path: &Path) -> io::Result<LockState> {
        let mut file = match File::open(path.join(LOCK_FILE)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(LockState::Absent),
            Err(error) => return Err(error),
        };
        // Shared, and given back with the file at the end of this function.
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(LockState::Free),
            Err(Errno::WOULDBLOCK) => Ok(LockState::Held { pid: read_pid(&mut file) }),
            Err(errno) => Err(errno.into()),
        }
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    // An unreadable number is no reason to hide that the directory is in use.
    let _ = file.take(20).read_to_string(&mut text);
    text.trim().parse().ok()
}

/// Makes `path` and what is missing above it, private to the user, each name made durable in the
/// directory above.
fn create_directories(path: &Path) -> Result<(), OpenError> {
    let mut missing = Vec::new();
    let mut current = path;
    while !current.as_os_str().is_empty() && !current.exists() {
        missing.push(current);
        let Some(parent) = current.parent() else { break };
        current = parent;
    }
    for directory in missing.into_iter().rev() {
        match DirBuilder::new().mode(0o700).create(directory) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(OpenError::io(directory)(error)),
        }
        let parent = match directory.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(OpenError::io(parent))?;
    }
    let metadata = fs::metadata(path).map_err(OpenError::io(path))?;
    if metadata.is_dir() {
        Ok(())
    } else {
        Err(OpenError::Io { path: path.to_path_buf(), source: io::ErrorKind::NotADirectory.into() })
    }
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let name: PathBuf = path.join(LOCK_FILE);
    // Not truncated: until the lock is held, what it says is the holder's.
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&name)
        .map_err(OpenError::io(&name))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            return Err(OpenError::InUse { path: path.to_path_buf(), pid: read_pid(&mut file) });
        }
        Err(errno) => return Err(OpenError::io(&name)(errno.into())),
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(OpenError::io(&name))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::tests::TempDir;
    use super::*;

    fn node(id: u8) -> NodeId {
        NodeId::new(id).expect("below 64")
    }

    #[test]
    fn a_second_opener_gets_the_pid() {
        let temp = TempDir::new("lock");
        let path = temp.path().join("kvdata").join("node-3");
        let first = DataDir::open(&path, node(3), false, || DiskId(5)).unwrap();
        assert!(first.is_new());
        assert_eq!(LockState::of(&path).unwrap(), LockState::Held { pid: Some(std::process::id()) });
        match DataDir::open(&path, node(3), false, || DiskId(6)) {
            Err(OpenError::InUse { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        drop(first);
        assert_eq!(LockState::of(&path).unwrap(), LockState::Free);
        let again = DataDir::open(&path, node(3), false, || DiskId(6)).unwrap();
        assert_eq!(again.identity(), Identity { node: node(3), disk_id: DiskId(5), joining: false });
        assert!(!again.is_new());
    }

    #[test]
    fn it_is_private_to_the_user() {
        let temp = TempDir::new("modes");
        let path = temp.path().join("data");
        let _open = DataDir::open(&path, node(0), false, || DiskId(5)).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&path.join(LOCK_FILE)), 0o600);
        assert_eq!(mode(&path.join("IDENTITY")), 0o600);
    }

    #[test]
    fn another_nodes_directory_and_a_file_are_refused() {
        let temp = TempDir::new("wrong");
        drop(DataDir::open(temp.path(), node(1), false, || DiskId(5)).unwrap());
        assert!(matches!(
            DataDir::open(temp.path(), node(2), false, || DiskId(5)),
            Err(OpenError::WrongNode { .. })
        ));
        let file = temp.path().join("file");
        fs::write(&file, "x").unwrap();
        assert!(matches!(DataDir::open(&file, node(1), false, || DiskId(5)), Err(OpenError::Io { .. })));
    }
}
