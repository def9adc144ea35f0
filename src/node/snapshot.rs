//! From a store to a snapshot file and back.
//!
//! The event loop freezes the store, which takes microseconds, and hands the image to a helper thread as a
//! [`SnapshotJob`]. The job goes in steps of one block: encode, write; then sync, read all of it back, publish, and
//! remove what is too old. What is encoded goes through an [`ImageChecker`] on its way, so that a file never counts
//! that would not make the state again. Between steps the thread may sleep, so that it gets no more than its share of
//! the disk, or give up.

use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::storage::{
    Disk, SnapshotError, SnapshotFront, SnapshotHeader, SnapshotReader, SnapshotWriter, UnpublishedSnapshot,
};
use crate::store::{ImageChecker, ImageEncoder, ImageError, Limits, Store, StoreBuilder, StoreImage};
use crate::types::SnapshotId;

/// Why a snapshot cannot be made or loaded.
#[derive(Debug)]
pub enum SnapshotFailure {
    /// The file or the disk is at fault.
    File(SnapshotError),
    /// The file is what was written, and makes no store, or another one than it says: a fault of this program or
    /// of the machine's memory.
    Image {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        error: ImageError,
    },
}

impl SnapshotFailure {
    /// What `kvnode` exits with if it cannot go on without the snapshot.
    pub fn exit_code(&self) -> u8 {
        match self {
            SnapshotFailure::File(SnapshotError::Io { .. }) => 5,
            SnapshotFailure::File(SnapshotError::NewerFormat { .. }) => 8,
            SnapshotFailure::File(_) | SnapshotFailure::Image { .. } => 4,
        }
    }

    fn image(file: PathBuf) -> impl FnOnce(ImageError) -> SnapshotFailure {
        move |error| SnapshotFailure::Image { file, error }
    }
}

impl fmt::Display for SnapshotFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SnapshotFailure::File(error) => error.fmt(f),
            SnapshotFailure::Image { file, error } => {
                write!(f, "{} does not hold the state that it names: {error}", file.display())
            }
        }
    }
}

impl std::error::Error for SnapshotFailure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SnapshotFailure::File(error) => Some(error),
            SnapshotFailure::Image { error, .. } => Some(error),
        }
    }
}

impl From<SnapshotError> for SnapshotFailure {
    fn from(error: SnapshotError) -> SnapshotFailure {
        SnapshotFailure::File(error)
    }
}

/// How far a job is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SnapshotProgress {
    /// Bytes written.
    pub written: u64,
    /// Bytes read back.
    pub checked: u64,
}

/// A snapshot that is being made.
pub struct SnapshotJob<D: Disk> {
    digest: u64,
    progress: SnapshotProgress,
    stage: Stage<D>,
}

enum Stage<D: Disk> {
    Writing(Box<Writing<D>>),
    Checking(Box<UnpublishedSnapshot<D>>),
    Ended,
}

struct Writing<D: Disk> {
    encoder: ImageEncoder,
    checker: ImageChecker,
    writer: SnapshotWriter<D>,
    chunk: Vec<u8>,
}

impl<D: Disk> SnapshotJob<D> {
    /// Begins the snapshot of an image. Of the header, digest and counts are filled in from the image.
    ///
    /// # Errors
    /// What the system says.
    ///
    /// # Panics
    /// If view, lanes or origins of the header are longer than 16 KiB.
    pub fn new(
        disk: &D,
        front: SnapshotFront,
        mut header: SnapshotHeader,
        image: StoreImage,
    ) -> Result<SnapshotJob<D>, SnapshotFailure> {
        header.digest = image.digest();
        header.keys = image.key_count() as u64;
        header.sessions = image.session_count() as u64;
        let writer = SnapshotWriter::create(disk, front, &header)?;
        let (encoder, checker) = (image.into_encoder(), ImageChecker::default());
        let writing = Writing { encoder, checker, writer, chunk: Vec::new() };
        let (progress, stage) = (SnapshotProgress::default(), Stage::Writing(Box::new(writing)));
        Ok(SnapshotJob { digest: header.digest, progress, stage })
    }

    /// How far it is.
    pub fn progress(&self) -> SnapshotProgress {
        self.progress
    }

    /// Does the next piece of work, a block or a sync. Returns the snapshot once it is complete and verified, ready
    /// to be published.
    ///
    /// # Errors
    /// What the system says, or a file that is not what was written. The job is of no use then, and the snapshots
    /// from before are as they were.
    pub fn step(&mut self) -> Result<Option<UnpublishedSnapshot<D>>, SnapshotFailure> {
        match std::mem::replace(&mut self.stage, Stage::Ended) {
            Stage::Writing(mut writing) => {
                let Writing { encoder, checker, writer, chunk } = &mut *writing;
                chunk.clear();
                if encoder.next_chunk(chunk, writer.room()) {
                    checker.push(chunk).map_err(SnapshotFailure::image(writer.path()))?;
                    writer.push(chunk)?;
                    self.progress.written = writer.len_bytes();
                    self.stage = Stage::Writing(writing);
                } else {
                    let Writing { encoder, checker, writer, .. } = *writing;
                    // From here on the store has all its slots for itself again.
                    drop(encoder);
                    checker.finish(self.digest).map_err(SnapshotFailure::image(writer.path()))?;
                    let file = writer.finish()?;
                    self.progress.written = file.len_bytes();
                    self.stage = Stage::Checking(Box::new(file));
                }
                Ok(None)
            }
            Stage::Checking(mut file) => {
                if file.next_payload()?.is_some() {
                    self.progress.checked = file.done_bytes();
                    self.stage = Stage::Checking(file);
                    return Ok(None);
                }
                Ok(Some(*file))
            }
            Stage::Ended => panic!("a job that has ended is not asked to go on"),
        }
    }

    /// Gives up, and removes what was written.
    ///
    /// # Errors
    /// What the system says.
    pub fn abandon(self) -> Result<(), SnapshotError> {
        match self.stage {
            Stage::Writing(writing) => writing.writer.abandon(),
            Stage::Checking(file) => file.abandon(),
            Stage::Ended => Ok(()),
        }
    }

    /// Does all of it. After each step `pace` may wait, or break off: then what was written is removed and there is
    /// no snapshot.
    ///
    /// # Errors
    /// As [`SnapshotJob::step`].
    pub fn run(
        mut self,
        mut pace: impl FnMut(SnapshotProgress) -> ControlFlow<()>,
    ) -> Result<Option<UnpublishedSnapshot<D>>, SnapshotFailure> {
        loop {
            if let Some(file) = self.step()? {
                return Ok(Some(file));
            }
            if pace(self.progress).is_break() {
                self.abandon()?;
                return Ok(None);
            }
        }
    }
}

/// A snapshot as it was loaded.
pub struct LoadedSnapshot {
    /// What it is of.
    pub header: SnapshotHeader,
    /// What it says about the node's own log.
    pub front: SnapshotFront,
    /// Its name among all snapshots.
    pub id: SnapshotId,
    /// The length of the file in bytes.
    pub len: u64,
    /// How many blocks it has.
    pub blocks: u32,
    /// The state.
    pub store: Store,
}

/// Makes the store of a snapshot. `limits` and `seed` as in [`Store::new`]; `progress` is told how many bytes of how
/// many are done.
///
/// # Errors
/// Damage, a newer format, or what the system says.
pub fn load_snapshot<D: Disk>(
    disk: &D,
    name: &str,
    limits: Limits,
    seed: u64,
    mut progress: impl FnMut(u64, u64),
) -> Result<LoadedSnapshot, SnapshotFailure> {
    let mut builder = StoreBuilder::new(seed);
    let reader = feed(disk, name, |bytes, done, len| {
        builder.push(bytes)?;
        progress(done, len);
        Ok(())
    })?;
    let header = reader.header().clone();
    let store = builder.finish(limits, header.digest).map_err(SnapshotFailure::image(reader.path()))?;
    Ok(LoadedSnapshot {
        header,
        front: reader.front(),
        id: reader.id(),
        len: reader.len_bytes(),
        blocks: reader.block_count(),
        store,
    })
}

/// Reads a snapshot to its end, and whether it makes the state that it names, without keeping any of it.
///
/// # Errors
/// As [`load_snapshot`].
pub fn check_snapshot<D: Disk>(disk: &D, name: &str) -> Result<SnapshotReader<D>, SnapshotFailure> {
    let mut checker = ImageChecker::default();
    let reader = feed(disk, name, |bytes, _, _| checker.push(bytes))?;
    checker.finish(reader.header().digest).map_err(SnapshotFailure::image(reader.path()))?;
    Ok(reader)
}

fn feed<D: Disk>(
    disk: &D,
    name: &str,
    mut take: impl FnMut(&[u8], u64, u64) -> Result<(), ImageError>,
) -> Result<SnapshotReader<D>, SnapshotFailure> {
    let mut reader = SnapshotReader::open(disk, name)?;
    let (file, len) = (disk.path(name), reader.len_bytes());
    let mut bytes = Vec::new();
    while reader.read_payload(&mut bytes)? {
        take(&bytes, reader.done_bytes(), len).map_err(SnapshotFailure::image(Path::to_path_buf(&file)))?;
    }
    Ok(reader)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{MemoryDisk, Operation, snapshot_name, snapshots_on};
    use crate::store::{Applied, lookup};
    use crate::types::{Index, Lsn, Millis, Reply};
    use crate::wire::batch::BatchCommand;

    fn set(store: &mut Store, index: u64, key: &str, value: &[u8]) {
        let code = lookup(b"SET").expect("a command").code;
        let at = Applied { index: Index(index), now: Millis(1) };
        let command = BatchCommand { session: None, code, arguments: vec![key.as_bytes(), value] };
        assert_eq!(store.apply(at, &command, true), Reply::OK);
    }

    fn header(index: u64) -> SnapshotHeader {
        SnapshotHeader { index: Index(index), ..SnapshotHeader::default() }
    }

    fn filled() -> Store {
        let mut store = Store::new(Limits::default(), 1);
        for index in 1..=500 {
            set(&mut store, index, &format!("key-{index}"), &vec![b'v'; (index as usize * 31) % 900]);
        }
        set(&mut store, 501, "large", &[b'l'; 300_000]);
        store
    }

    /// What was frozen comes back, although the store changes at every step.
    #[test]
    fn a_job_keeps_what_it_was_given() {
        let disk = MemoryDisk::new();
        let mut store = filled();
        let digest = store.digest();
        let front = SnapshotFront { log_from: Lsn(7), ..SnapshotFront::default() };
        let mut job = SnapshotJob::new(&disk, front, header(501), store.freeze()).unwrap();
        let mut index = 501;
        let mut last = SnapshotProgress::default();
        let file = loop {
            if let Some(file) = job.step().unwrap() {
                break file.publish().unwrap();
            }
            assert!(job.progress().written - last.written <= (1 << 16) + 300, "a step is a block");
            last = job.progress();
            for i in 0..100 {
                index += 1;
                set(&mut store, index, &format!("key-{}", (index * 7 + i) % 700), b"changed");
            }
        };
        assert!(index > 1200 && store.digest() != digest);
        assert_eq!(snapshots_on(&disk.crash(&mut || 0)).unwrap(), std::slice::from_ref(&file));
        let mut told = 0;
        let loaded = load_snapshot(&disk, &file.name, Limits::default(), 2, |done, len| {
            assert!(done > told && len == file.len);
            told = done;
        });
        let loaded = loaded.unwrap();
        assert_eq!((loaded.store.digest(), loaded.store.digest_recomputed()), (digest, digest));
        assert_eq!((loaded.header.keys, loaded.header.digest, loaded.front), (501, digest, front));
        assert_eq!(check_snapshot(&disk, &file.name).unwrap().header(), &loaded.header);
    }

    #[test]
    fn a_job_that_is_given_up_leaves_nothing() {
        for steps in 0..8 {
            let disk = MemoryDisk::new();
            let job =
                SnapshotJob::new(&disk, SnapshotFront::default(), header(1), filled().freeze()).unwrap();
            let mut left = steps;
            let result = job.run(|_| {
                left -= 1;
                if left < 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            assert!(result.unwrap().is_none());
            assert_eq!(disk.list().unwrap(), [""; 0]);
        }
        let disk = MemoryDisk::new();
        let job = SnapshotJob::new(&disk, SnapshotFront::default(), header(1), filled().freeze()).unwrap();
        assert!(job.run(|_| ControlFlow::Continue(())).unwrap().is_some());
    }

    /// A full or failing disk while a snapshot is made is a failure of the snapshot only.
    #[test]
    fn a_failing_disk_fails_the_job() {
        for (operation, calls_before) in [(Operation::Write, 3), (Operation::Sync, 0), (Operation::Rename, 0)]
        {
            let disk = MemoryDisk::new();
            disk.fail(operation, calls_before, std::io::ErrorKind::StorageFull);
            let job =
                SnapshotJob::new(&disk, SnapshotFront::default(), header(1), filled().freeze()).unwrap();
            let result = job.run(|_| ControlFlow::Continue(()));
            let published = result.and_then(|file| Ok(file.expect("not given up").publish()?));
            let error = published.expect_err("the disk fails");
            assert_eq!(error.exit_code(), 5, "{error}");
            assert_eq!(snapshots_on(&disk).unwrap(), []);
        }
    }

    #[test]
    fn another_state_than_announced_is_noticed() {
        let disk = MemoryDisk::new();
        let image = filled().freeze();
        let (_, header) = (image.digest(), header(1));
        let mut writer = SnapshotWriter::create(&disk, SnapshotFront::default(), &header).unwrap();
        let (mut encoder, mut bytes) = (image.into_encoder(), Vec::new());
        while encoder.next_chunk(&mut bytes, 1000) {}
        writer.push(&bytes).unwrap();
        let mut file = writer.finish().unwrap();
        while file.next_payload().unwrap().is_some() {}
        file.publish().unwrap();
        let error = check_snapshot(&disk, &snapshot_name(Index(1))).map(drop).expect_err("digest 0");
        assert!(matches!(
            error,
            SnapshotFailure::Image { error: ImageError::Digest { expected: 0, .. }, .. }
        ));
        assert_eq!(error.exit_code(), 4);
    }
}
