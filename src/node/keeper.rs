//! The keeper: everything that a node does with snapshot files.
//!
//! Files block, so the keeper runs on a thread of its own, beside the event loop; it gets [`Task`]s and gives back
//! [`Done`]s. Each [`Keeper::step`] is small: a block, a sync, an answer to a peer. Long jobs (a snapshot
//! being made, or one from a peer being made into a store) go on between tasks, so that peers do not wait for them.
//! The simulator steps the same keeper on a disk in memory.
//!
//! A snapshot that is complete and verified does not count yet: the node publishes it once its log is durable up to
//! the record from which a start would go on ([`Task::Publish`]).

use std::collections::VecDeque;
use std::fmt;
use std::io;

use crate::storage::{
    Disk, SnapshotError, SnapshotFile, SnapshotFront, SnapshotHeader, SnapshotReader, SnapshotReceiver,
    UnpublishedSnapshot, remove_old_snapshots, remove_unfinished_snapshots, snapshot_name, snapshots_on,
};
use crate::store::{Limits, Store, StoreBuilder, StoreImage};
use crate::types::{Index, Lsn, NodeId, Position, SnapshotId, limits};

use super::clients::ClientKey;
use super::snapshot::{SnapshotFailure, SnapshotJob, SnapshotProgress};

/// Who wants blocks of a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asker {
    /// A node that lacks what is in it.
    Peer(NodeId),
    /// A client that makes a backup: its connection and the number of its command there.
    Client(ClientKey, u64),
}

/// What the keeper is asked to do.
pub enum Task {
    /// Make a snapshot of an image, and keep it back.
    Take {
        /// What it says about this node.
        front: SnapshotFront,
        /// What it is of.
        header: Box<SnapshotHeader>,
        /// The state.
        image: StoreImage,
    },
    /// Publish what is kept back.
    Publish,
    /// Read blocks of the newest snapshot.
    Read {
        /// For whom.
        to: Asker,
        /// Which snapshot is meant; `None` for the newest.
        id: Option<SnapshotId>,
        /// The first block wanted.
        next: u32,
        /// Most blocks wanted.
        count: usize,
    },
    /// Store blocks that came from a peer.
    Store {
        /// Of which snapshot.
        id: SnapshotId,
        /// The number of the first.
        first: u32,
        /// The blocks.
        blocks: Vec<Vec<u8>>,
    },
    /// Verify the snapshot that came from a peer and make a store of it; both are kept back.
    Load {
        /// Which one: another may have come since.
        id: SnapshotId,
        /// What the snapshot will say about this node.
        front: SnapshotFront,
    },
    /// Free what the store has not taken of a state that is not used any more, which may take long.
    Discard(Box<Store>),
    /// What was received is not wanted any more.
    Drop,
    /// No client reads a snapshot any more.
    Release,
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Task::Take { header, .. } => write!(f, "take index={}", header.index),
            Task::Publish => f.write_str("publish"),
            Task::Read { to, next, .. } => write!(f, "read next={next} for {to:?}"),
            Task::Store { id, first, blocks } => write!(f, "store {id} first={first} count={}", blocks.len()),
            Task::Load { id, .. } => write!(f, "load {id}"),
            Task::Discard(_) => f.write_str("discard"),
            Task::Drop => f.write_str("drop"),
            Task::Release => f.write_str("release"),
        }
    }
}

/// A published snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotInfo {
    /// Its name among all snapshots.
    pub id: SnapshotId,
    /// The last entry in it.
    pub position: Position,
    /// Its length in bytes.
    pub len: u64,
    /// With it, a start needs the log from this record on.
    pub log_from: Lsn,
    /// How many blocks it has.
    pub blocks: u32,
}

impl SnapshotInfo {
    /// What an open snapshot says about itself.
    pub fn of<D: Disk>(reader: &SnapshotReader<D>) -> SnapshotInfo {
        SnapshotInfo {
            id: reader.id(),
            position: reader.header().position,
            len: reader.len_bytes(),
            log_from: reader.front().log_from,
            blocks: reader.block_count(),
        }
    }
}

/// A published snapshot that cannot be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotDamage {
    /// Which one: of this index there is only one at a time.
    pub index: Index,
    /// What is wrong with it, and where it is now.
    pub what: String,
}

/// What the keeper has done.
pub enum Done {
    /// What was taken or loaded is complete and verified, and waits to be published.
    Verified,
    /// A snapshot that this node took is published.
    Taken(SnapshotInfo),
    /// A snapshot could not be taken; nothing has changed.
    Failed {
        /// Why.
        what: String,
    },
    /// Blocks that somebody wants.
    Blocks {
        /// Who.
        to: Asker,
        /// Of which snapshot.
        id: SnapshotId,
        /// The number of the first.
        first: u32,
        /// The blocks.
        blocks: Vec<Vec<u8>>,
    },
    /// The snapshot that somebody wants is not there, or is damaged.
    Gone {
        /// Who.
        to: Asker,
        /// Which, if one was named or found.
        id: Option<SnapshotId>,
        /// The one that was found to be damaged on the way, and is set aside.
        damage: Option<SnapshotDamage>,
    },
    /// Blocks from a peer are stored.
    Stored {
        /// Of which snapshot.
        id: SnapshotId,
        /// The next one that is missing.
        next: u32,
        /// How many bytes are there.
        len: u64,
        /// What it is of, once all of it is there.
        complete: Option<Box<SnapshotHeader>>,
    },
    /// What came from a peer is of no use.
    Refused {
        /// Why.
        what: String,
    },
    /// A snapshot from a peer is published here, and is the only one.
    Loaded {
        /// What it is.
        info: SnapshotInfo,
        /// What it is of.
        header: Box<SnapshotHeader>,
        /// Its state.
        store: Box<Store>,
    },
}

/// Long work.
enum Job<D: Disk> {
    None,
    Making(Box<SnapshotJob<D>>),
    Loading(Box<Loading<D>>),
    Verified(Box<UnpublishedSnapshot<D>>, Option<Box<Store>>),
}

/// Why a snapshot cannot be read.
enum ReadFailure {
    /// The directory itself fails.
    Disk(SnapshotFailure),
    /// This one, published under its name.
    Unreadable { index: Index, error: SnapshotError },
}

impl From<SnapshotFailure> for ReadFailure {
    fn from(failure: SnapshotFailure) -> ReadFailure {
        ReadFailure::Disk(failure)
    }
}

struct Loading<D: Disk> {
    file: UnpublishedSnapshot<D>,
    builder: StoreBuilder,
    digest: u64,
}

/// Reads and writes a node's snapshot files.
pub struct Keeper<D: Disk> {
    disk: D,
    limits: Limits,
    seed: u64,
    tasks: VecDeque<Task>,
    job: Job<D>,
    /// The newest snapshot, open for peers.
    reader: Option<SnapshotReader<D>>,
    /// The snapshot that a client reads. It stays readable while newer ones take its place, as long as it is open.
    backup: Option<SnapshotReader<D>>,
    receiver: Option<SnapshotReceiver<D>>,
}

impl<D: Disk> Keeper<D> {
    /// Without anything to do. `limits` and `seed` are for stores, as in [`Store::new`].
    pub fn new(disk: D, limits: Limits, seed: u64) -> Keeper<D> {
        Keeper {
            disk,
            limits,
            seed,
            tasks: VecDeque::new(),
            job: Job::None,
            reader: None,
            backup: None,
            receiver: None,
        }
    }

    /// Takes a task.
    pub fn submit(&mut self, task: Task) {
        self.tasks.push_back(task);
    }

    /// Whether there is something to do.
    pub fn has_work(&self) -> bool {
        !self.tasks.is_empty() || matches!(self.job, Job::Making(_) | Job::Loading(_))
    }

    /// Whether the next step is one of a snapshot being made, which nobody waits for.
    pub fn may_wait(&self) -> bool {
        self.tasks.is_empty() && matches!(self.job, Job::Making(_))
    }

    /// How far a long job is, in bytes: done, and of how many if that is known.
    pub fn progress(&self) -> Option<(u64, Option<u64>)> {
        match &self.job {
            Job::Making(job) => {
                let SnapshotProgress { written, checked } = job.progress();
                Some((written + checked, None))
            }
            Job::Loading(loading) => Some((loading.file.done_bytes(), Some(loading.file.len_bytes()))),
            Job::None | Job::Verified(..) => None,
        }
    }

    /// Does the next piece of work.
    ///
    /// # Errors
    /// The disk fails: the process should stop.
    pub fn step(&mut self) -> io::Result<Option<Done>> {
        let result = match self.tasks.pop_front() {
            Some(task) => self.carry_out(task),
            None => self.go_on(),
        };
        result.map_err(|error| match error {
            SnapshotFailure::File(SnapshotError::Io { path, source }) => {
                io::Error::new(source.kind(), format!("{}: {source}", path.display()))
            }
            other => io::Error::other(other.to_string()),
        })
    }

    fn carry_out(&mut self, task: Task) -> Result<Option<Done>, SnapshotFailure> {
        match task {
            Task::Take { front, header, image } => {
                match SnapshotJob::new(&self.disk, front, *header, image) {
                    Ok(job) => self.job = Job::Making(Box::new(job)),
                    Err(error) => return self.fail(error),
                }
                Ok(None)
            }
            Task::Publish => self.publish(),
            Task::Read { to, id, next, count } => self.read(to, id, next, count).map(Some),
            Task::Store { id, first, blocks } => self.store(id, first, &blocks).map(Some),
            Task::Load { id, front } => self.load(id, front),
            Task::Discard(_) => Ok(None),
            Task::Release => {
                self.backup = None;
                Ok(None)
            }
            Task::Drop => {
                self.receiver = None;
                SnapshotReceiver::remove_parts(&self.disk).map_err(self.io())?;
                if let Job::Loading(_) | Job::Verified(_, Some(_)) = &self.job {
                    self.job = Job::None;
                }
                Ok(None)
            }
        }
    }

    fn go_on(&mut self) -> Result<Option<Done>, SnapshotFailure> {
        match std::mem::replace(&mut self.job, Job::None) {
            Job::Making(mut job) => match job.step() {
                Ok(None) => {
                    self.job = Job::Making(job);
                    Ok(None)
                }
                Ok(Some(file)) => {
                    self.job = Job::Verified(Box::new(file), None);
                    Ok(Some(Done::Verified))
                }
                Err(error) => {
                    job.abandon()?;
                    self.fail(error)
                }
            },
            Job::Loading(mut loading) => {
                let what = match loading.step() {
                    Ok(true) => {
                        self.job = Job::Loading(loading);
                        return Ok(None);
                    }
                    Ok(false) => {
                        let Loading { file, builder, digest } = *loading;
                        match builder.finish(self.limits.clone(), digest) {
                            Ok(store) => {
                                self.job = Job::Verified(Box::new(file), Some(Box::new(store)));
                                return Ok(Some(Done::Verified));
                            }
                            Err(error) => error.to_string(),
                        }
                    }
                    Err(error @ SnapshotFailure::File(SnapshotError::Io { .. })) => return Err(error),
                    Err(error) => error.to_string(),
                };
                SnapshotReceiver::remove_parts(&self.disk).map_err(self.io())?;
                Ok(Some(Done::Refused { what }))
            }
            job @ (Job::None | Job::Verified(..)) => {
                self.job = job;
                Ok(None)
            }
        }
    }

    /// A snapshot that cannot be taken for lack of room is no reason to stop.
    fn fail(&self, error: SnapshotFailure) -> Result<Option<Done>, SnapshotFailure> {
        // A full disk has room again for what is needed more than this.
        remove_unfinished_snapshots(&self.disk).map_err(self.io())?;
        match &error {
            SnapshotFailure::File(SnapshotError::Io { source, .. }) if !is_full(source) => Err(error),
            _ => Ok(Some(Done::Failed { what: error.to_string() })),
        }
    }

    fn io(&self) -> impl FnOnce(io::Error) -> SnapshotFailure {
        let path = self.disk.path(".");
        move |source| SnapshotError::Io { path, source }.into()
    }

    fn publish(&mut self) -> Result<Option<Done>, SnapshotFailure> {
        let (file, store) = match std::mem::replace(&mut self.job, Job::None) {
            Job::Verified(file, store) => (file, store),
            other => {
                self.job = other;
                return Ok(None);
            }
        };
        let SnapshotFile { name, .. } = file.publish()?;
        let reader = SnapshotReader::open(&self.disk, &name)?;
        let info = SnapshotInfo::of(&reader);
        let header = Box::new(reader.header().clone());
        self.reader = Some(reader);
        let Some(store) = store else {
            remove_old_snapshots(&self.disk).map_err(self.io())?;
            return Ok(Some(Done::Taken(info)));
        };
        // With the log that is here, older ones are of no use: it has gaps that only this one fills.
        for old in snapshots_on(&self.disk).map_err(self.io())?.into_iter().skip(1).rev() {
            self.disk.remove(&old.name).map_err(self.io())?;
        }
        self.disk.sync_dir().map_err(self.io())?;
        Ok(Some(Done::Loaded { info, header, store }))
    }

    fn read(
        &mut self,
        to: Asker,
        id: Option<SnapshotId>,
        next: u32,
        count: usize,
    ) -> Result<Done, SnapshotFailure> {
        match self.try_to_read(to, id, next, count) {
            Ok(done) => Ok(done),
            Err(ReadFailure::Disk(failure)) => Err(failure),
            // A disk that cannot be read is as good as damaged, and nothing that was said rests on this file alone.
            Err(ReadFailure::Unreadable { index, error }) => {
                let aside = set_aside(&self.disk, &snapshot_name(index)).map_err(self.io())?;
                self.reader.take_if(|reader| reader.id().index == index);
                let what = format!("{error}; set aside as {aside}");
                Ok(Done::Gone { to, id, damage: Some(SnapshotDamage { index, what }) })
            }
        }
    }

    fn try_to_read(
        &mut self,
        to: Asker,
        id: Option<SnapshotId>,
        next: u32,
        count: usize,
    ) -> Result<Done, ReadFailure> {
        let is_open = self.backup.as_ref().is_some_and(|backup| Some(backup.id()) == id);
        let older = match self.backup.take_if(|_| matches!(to, Asker::Client(..)) && is_open) {
            Some(backup) => Some(backup),
            None => self.open_for(id)?,
        };
        let wanted = older.as_ref().or(self.reader.as_ref());
        let Some(reader) = wanted.filter(|reader| id.is_none_or(|id| id == reader.id())) else {
            return Ok(Done::Gone { to, id, damage: None });
        };
        let id = reader.id();
        match read_blocks(reader, next, count) {
            Ok(blocks) => {
                if matches!(to, Asker::Client(..)) {
                    self.backup = match older {
                        Some(older) => Some(older),
                        None => SnapshotReader::open(&self.disk, &snapshot_name(id.index)).ok(),
                    };
                }
                Ok(Done::Blocks { to, id, first: next, blocks })
            }
            // What a client reads may be gone under its name, or have a sound namesake.
            Err(_) if self.open_published(id.index)?.is_none_or(|published| published.id() != id) => {
                Ok(Done::Gone { to, id: Some(id), damage: None })
            }
            Err(error) => Err(ReadFailure::Unreadable { index: id.index, error }),
        }
    }

    /// Opens the newest snapshot, if it is not open; returns the one before it if that is the one meant: whoever has
    /// begun with it need not begin again.
    fn open_for(&mut self, id: Option<SnapshotId>) -> Result<Option<SnapshotReader<D>>, ReadFailure> {
        if self.reader.is_none()
            && let Some(newest) = snapshots_on(&self.disk).map_err(self.io())?.first()
        {
            self.reader = self.open_published(newest.index)?;
        }
        match id.filter(|id| self.reader.as_ref().is_some_and(|reader| reader.id() != *id)) {
            Some(id) => self.open_published(id.index),
            None => Ok(None),
        }
    }

    /// Opens the snapshot of this index, if there is one.
    fn open_published(&self, index: Index) -> Result<Option<SnapshotReader<D>>, ReadFailure> {
        let files = snapshots_on(&self.disk).map_err(self.io())?;
        let file = files.iter().find(|file| file.index == index);
        file.map(|file| SnapshotReader::open(&self.disk, &file.name))
            .transpose()
            .map_err(|error| ReadFailure::Unreadable { index, error })
    }

    fn store(&mut self, id: SnapshotId, first: u32, blocks: &[Vec<u8>]) -> Result<Done, SnapshotFailure> {
        match self.store_blocks(id, first, blocks) {
            Ok(done) => Ok(done),
            Err(error) => self.refuse(error.into()),
        }
    }

    /// What comes from a peer is of no use, or there is no room for it: the log has more right to what there is.
    fn refuse(&mut self, error: SnapshotFailure) -> Result<Done, SnapshotFailure> {
        self.receiver = None;
        if let SnapshotFailure::File(SnapshotError::Io { source, .. }) = &error {
            if !is_full(source) {
                return Err(error);
            }
            SnapshotReceiver::remove_parts(&self.disk).map_err(self.io())?;
        }
        Ok(Done::Refused { what: error.to_string() })
    }

    fn store_blocks(
        &mut self,
        id: SnapshotId,
        first: u32,
        blocks: &[Vec<u8>],
    ) -> Result<Done, SnapshotError> {
        if self.receiver.as_ref().is_none_or(|receiver| receiver.id() != id) {
            let Some(header) = blocks.first().filter(|_| first == 0) else {
                return Ok(Done::Refused { what: format!("snapshot {id} does not begin with its header") });
            };
            self.receiver = None;
            self.receiver = Some(SnapshotReceiver::begin(&self.disk, header)?);
        }
        let receiver = self.receiver.as_mut().expect("there is one now");
        for (block, number) in blocks.iter().zip(first..) {
            receiver.push(number, block)?;
        }
        let complete = receiver.is_complete().then(|| Box::new(receiver.header().clone()));
        Ok(Done::Stored {
            id: receiver.id(),
            next: receiver.next_block(),
            len: receiver.len_bytes(),
            complete,
        })
    }

    fn load(&mut self, id: SnapshotId, front: SnapshotFront) -> Result<Option<Done>, SnapshotFailure> {
        let Some(receiver) = self.receiver.take_if(|receiver| receiver.is_complete() && receiver.id() == id)
        else {
            return Ok(Some(Done::Refused { what: format!("snapshot {id} is not here any more") }));
        };
        let digest = receiver.header().digest;
        let file = match receiver.finish(front) {
            Ok(file) => file,
            Err(error) => return self.refuse(error.into()).map(Some),
        };
        let builder = StoreBuilder::new(self.seed);
        self.job = Job::Loading(Box::new(Loading { file, builder, digest }));
        Ok(None)
    }
}

/// So many blocks, or as many as there are.
fn read_blocks<D: Disk>(
    reader: &SnapshotReader<D>,
    next: u32,
    count: usize,
) -> Result<Vec<Vec<u8>>, SnapshotError> {
    let read = |number| {
        let mut block = Vec::new();
        reader.read_block(number, &mut block)?;
        Ok(block)
    };
    (next..reader.block_count()).take(count.min(limits::SNAPSHOT_BLOCK_COUNT_MAX)).map(read).collect()
}

/// Whether there is no room.
fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// How the names end of what was set aside.
pub(super) const ASIDE: &str = ".damaged";

/// Gives a damaged snapshot a name under which it does not count, and returns where it is then.
pub(super) fn set_aside<D: Disk>(disk: &D, name: &str) -> io::Result<String> {
    let aside = format!("{name}{ASIDE}");
    disk.rename(name, &aside)?;
    disk.sync_dir()?;
    Ok(disk.path(&aside).display().to_string())
}

impl<D: Disk> Loading<D> {
    /// Goes on by one block; `false` at the end.
    fn step(&mut self) -> Result<bool, SnapshotFailure> {
        let path = self.file.path();
        let Some(payload) = self.file.next_payload()? else { return Ok(false) };
        match self.builder.push(payload) {
            Ok(()) => Ok(true),
            Err(error) => Err(SnapshotFailure::Image { file: path, error }),
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
