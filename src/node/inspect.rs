//! What is in a data directory, for `kvnode --inspect`: read, verified, told, and never changed.
//!
//! It works beside a running node. What that node is writing at the moment may look damaged between one read and the
//! next, so while the lock is held damage counts only if it is there at the third look.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::storage::{
    Disk, DiskFile, FileDisk, Identity, LockState, LogEnd, LogInspection, OpenError, SegmentInspection,
    SegmentRecords, SnapshotError, SnapshotFile, SnapshotFront, SnapshotHeader, inspect_log, is_torn_name,
    snapshots_on,
};
use crate::types::Lsn;

use super::keeper::ASIDE;
use super::snapshot::{SnapshotFailure, check_snapshot};

/// How often a log is looked at while somebody writes it.
const LOOKS: usize = 3;

/// What a snapshot says, if all of it is sound.
type Found = Result<(SnapshotHeader, SnapshotFront), SnapshotFailure>;

/// What is in a data directory.
#[derive(Debug)]
pub struct Inspection {
    path: PathBuf,
    lock: LockState,
    identity: Result<Option<Identity>, OpenError>,
    /// The newest first.
    snapshots: Vec<(SnapshotFile, Found)>,
    /// Names and lengths of what a start has set aside: damaged snapshots, torn ends of segments.
    aside: Vec<(String, u64)>,
    /// `None` without an identity.
    log: Option<LogInspection>,
}

impl Inspection {
    /// Reads all of a data directory.
    ///
    /// # Errors
    /// What the system says. Damage is a finding and no error.
    pub fn of(path: &Path) -> Result<Inspection, OpenError> {
        let io = |source| OpenError::Io { path: path.to_path_buf(), source };
        let disk = FileDisk::open_read_only(path).map_err(io)?;
        let lock = LockState::of(path).map_err(io)?;
        let identity = match Identity::load(&disk) {
            Err(error @ (OpenError::Io { .. } | OpenError::NotWritable { .. })) => return Err(error),
            identity => identity,
        };
        let mut snapshots = Vec::new();
        for file in snapshots_on(&disk).map_err(io)? {
            let found = check_snapshot(&disk, &file.name);
            match found.map(|reader| (reader.header().clone(), reader.front())) {
                // A running node has just removed it.
                Err(SnapshotFailure::File(SnapshotError::Io { source, .. }))
                    if source.kind() == io::ErrorKind::NotFound => {}
                found => snapshots.push((file, found)),
            }
        }
        let mut aside = Vec::new();
        let is_aside = |name: &String| name.ends_with(ASIDE) || is_torn_name(name);
        for name in disk.list().map_err(io)?.into_iter().filter(is_aside) {
            match disk.open(&name).and_then(|file| file.size()) {
                Ok(len) => aside.push((name, len)),
                // A running node has just removed it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(io(error)),
            }
        }
        let mut log = None;
        if let Ok(Some(identity)) = identity {
            for _ in 0..LOOKS {
                let look = inspect_log(&disk, identity)?;
                let sound = look.damage.is_none();
                log = Some(look);
                if sound || !matches!(lock, LockState::Held { .. }) {
                    break;
                }
            }
        }
        Ok(Inspection { path: path.to_path_buf(), lock, identity, snapshots, aside, log })
    }

    /// Everything that is wrong, in the order of importance to a start.
    pub fn damage(&self) -> Vec<String> {
        let mut damage = Vec::new();
        match &self.identity {
            Ok(Some(_)) => {}
            Ok(None) => {
                damage.push("there is no IDENTITY: this is no data directory, or a wiped one".to_owned())
            }
            Err(error) => damage.push(error.to_string()),
        }
        damage.extend(self.log.iter().filter_map(|log| Some(log.damage.as_ref()?.to_string())));
        damage.extend(self.snapshots.iter().filter_map(|(_, found)| Some(found.as_ref().err()?.to_string())));
        for (file, front) in self.sound_snapshots() {
            if let Ok(Some(identity)) = self.identity
                && front.disk_id != identity.disk_id
            {
                damage.push(format!("{} was made on disk {}", file.name, front.disk_id));
            }
        }
        damage.extend(self.gap());
        damage
    }

    fn sound_snapshots(&self) -> impl Iterator<Item = (&SnapshotFile, SnapshotFront)> {
        self.snapshots.iter().filter_map(|(file, found)| Some((file, found.as_ref().ok()?.1)))
    }

    /// What a start with the newest sound snapshot would miss in the log.
    fn gap(&self) -> Option<String> {
        let log = self.log.as_ref().filter(|log| log.damage.is_none() && !log.segments.is_empty())?;
        let needed = self.sound_snapshots().next().map_or(Lsn(1), |(_, front)| front.log_from);
        if log.first > needed {
            return Some(format!("the log begins with record {}, record {needed} is needed", log.first));
        }
        (log.last.0.saturating_add(1) < needed.0)
            .then(|| format!("the log ends with record {}, record {needed} should be next", log.last))
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "directory {}", self.path.display())?;
        match self.lock {
            LockState::Absent => writeln!(f, "lock      none")?,
            LockState::Free => writeln!(f, "lock      free")?,
            LockState::Held { pid } => {
                let pid = pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
                writeln!(
                    f,
                    "lock      held pid={pid}: the node is running, its last write may look unfinished"
                )?;
            }
        }
        match &self.identity {
            Ok(Some(Identity { node, disk_id, joining })) => {
                let rebuilt = if *joining { " made by --rebuild" } else { "" };
                writeln!(f, "identity  node={} disk={disk_id}{rebuilt}", node.get())?;
            }
            Ok(None) => writeln!(f, "identity  none")?,
            Err(_) => writeln!(f, "identity  damaged")?,
        }
        for (file, found) in &self.snapshots {
            write!(f, "snapshot  {} bytes={}", file.name, file.len)?;
            match found {
                Err(_) => writeln!(f, " damaged")?,
                Ok((header, front)) => writeln!(
                    f,
                    " index={} position={} view={} cluster={} keys={} sessions={} digest={:016x} log_from={} verified",
                    header.index,
                    header.position,
                    header.position.view.0,
                    header.cluster,
                    header.keys,
                    header.sessions,
                    header.digest,
                    front.log_from
                )?,
            }
        }
        for (name, len) in &self.aside {
            let what = if is_torn_name(name) {
                "cut off by a start, not needed, removed with its segment"
            } else {
                "set aside by a start, not needed"
            };
            writeln!(f, "aside     {name} bytes={len}: {what}")?;
        }
        if let Some(log) = &self.log {
            for SegmentInspection { name, len, records } in &log.segments {
                write!(f, "segment   {name} bytes={len}")?;
                match records {
                    None => writeln!(f, " not read")?,
                    Some(SegmentRecords { first, count, end }) => {
                        writeln!(f, " first={first} records={count} end={end}")?;
                    }
                }
            }
            write!(f, "log       first={} last={} sync=\"{}\" end=", log.first, log.last, log.sync)?;
            match log.end {
                LogEnd::Clean => writeln!(f, "clean")?,
                LogEnd::Open => writeln!(f, "open")?,
                LogEnd::Torn { bytes } => writeln!(f, "torn torn_bytes={bytes}")?,
                LogEnd::Unknown => writeln!(f, "unknown")?,
            }
        }
        let damage = self.damage();
        if damage.is_empty() {
            return writeln!(f, "damage    none");
        }
        damage.iter().try_for_each(|what| writeln!(f, "damage    {what}"))
    }
}
