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
    UnpublishedSnapshot, remove_old_snapshots, remove_unfinished_snapshots, snapshots_on,
};
use crate::store::{Limits, Store, StoreBuilder, StoreImage};
use crate::types::{Lsn, NodeId, Position, SnapshotId, limits};

use super::snapshot::{SnapshotFailure, SnapshotJob, SnapshotProgress};

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
    /// Read blocks of the newest snapshot for a peer.
    Read {
        /// The peer.
        to: NodeId,
        /// Which snapshot the peer means; `None` for the newest.
        id: Option<SnapshotId>,
        /// The first block that it wants.
        next: u32,
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
        /// What the snapshot will say about this node.
        front: SnapshotFront,
    },
    /// What was received is not wanted any more.
    Drop,
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Task::Take { header, .. } => write!(f, "take index={}", header.index),
            Task::Publish => f.write_str("publish"),
            Task::Read { to, next, .. } => write!(f, "read next={next} for {to}"),
            Task::Store { id, first, blocks } => write!(f, "store {id} first={first} count={}", blocks.len()),
            Task::Load { .. } => f.write_str("load"),
            Task::Drop => f.write_str("drop"),
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
}

impl SnapshotInfo {
    /// What an open snapshot says about itself.
    pub fn of<D: Disk>(reader: &SnapshotReader<D>) -> SnapshotInfo {
        SnapshotInfo {
            id: reader.id(),
            position: reader.header().position,
            len: reader.len_bytes(),
            log_from: reader.front().log_from,
        }
    }
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
    /// Blocks for a peer.
    Blocks {
        /// The peer.
        to: NodeId,
        /// Of which snapshot.
        id: SnapshotId,
        /// The number of the first.
        first: u32,
        /// The blocks.
        blocks: Vec<Vec<u8>>,
    },
    /// The snapshot that a peer wants is not there, or is damaged.
    Gone {
        /// The peer.
        to: NodeId,
        /// What is wrong with it.
        damage: Option<String>,
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
    receiver: Option<SnapshotReceiver<D>>,
}

impl<D: Disk> Keeper<D> {
    /// Without anything to do. `limits` and `seed` are for stores, as in [`Store::new`].
    pub fn new(disk: D, limits: Limits, seed: u64) -> Keeper<D> {
        Keeper { disk, limits, seed, tasks: VecDeque::new(), job: Job::None, reader: None, receiver: None }
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
            Task::Read { to, id, next } => self.read(to, id, next).map(Some),
            Task::Store { id, first, blocks } => self.store(id, first, &blocks).map(Some),
            Task::Load { front } => self.load(front),
            Task::Drop => {
                // What is on the disk stays: it may be asked for again, and is removed by the next one.
                self.receiver = None;
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
            SnapshotFailure::File(SnapshotError::Io { source, .. })
                if !matches!(
                    source.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
                ) =>
            {
                Err(error)
            }
            _ => Ok(Some(Done::Failed { what: error.to_string() })),
        }
    }

    fn io(&self) -> impl FnOnce(io::Error) -> SnapshotFailure {
        let path = self.disk.path(".");
        move |source| SnapshotError::Io { path, source }.into()
    }

    fn publish(&mut self) -> Result<Option<Done>, SnapshotFailure> {
        let Job::Verified(file, store) = std::mem::replace(&mut self.job, Job::None) else {
            return Ok(None);
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

    fn read(&mut self, to: NodeId, id: Option<SnapshotId>, next: u32) -> Result<Done, SnapshotFailure> {
        match self.read_blocks(to, id, next) {
            Ok(done) => Ok(done),
            Err(error @ SnapshotFailure::File(SnapshotError::Io { .. })) => Err(error),
            Err(error) => {
                self.reader = None;
                Ok(Done::Gone { to, damage: Some(error.to_string()) })
            }
        }
    }

    fn read_blocks(
        &mut self,
        to: NodeId,
        id: Option<SnapshotId>,
        next: u32,
    ) -> Result<Done, SnapshotFailure> {
        if self.reader.is_none()
            && let Some(newest) = snapshots_on(&self.disk).map_err(self.io())?.first()
        {
            self.reader = Some(SnapshotReader::open(&self.disk, &newest.name)?);
        }
        let Some(reader) = &self.reader else { return Ok(Done::Gone { to, damage: None }) };
        if id.is_some_and(|id| id != reader.id()) {
            return Ok(Done::Gone { to, damage: None });
        }
        let (first, end) = (next, reader.block_count());
        let mut blocks = Vec::new();
        for number in (first..end).take(limits::SNAPSHOT_BLOCK_COUNT_MAX) {
            let mut block = Vec::new();
            reader.read_block(number, &mut block)?;
            blocks.push(block);
        }
        Ok(Done::Blocks { to, id: reader.id(), first, blocks })
    }

    fn store(&mut self, id: SnapshotId, first: u32, blocks: &[Vec<u8>]) -> Result<Done, SnapshotFailure> {
        match self.store_blocks(id, first, blocks) {
            Ok(done) => Ok(done),
            Err(error @ SnapshotError::Io { .. }) => Err(error.into()),
            Err(error) => {
                self.receiver = None;
                Ok(Done::Refused { what: error.to_string() })
            }
        }
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

    fn load(&mut self, front: SnapshotFront) -> Result<Option<Done>, SnapshotFailure> {
        let Some(receiver) = self.receiver.take_if(|receiver| receiver.is_complete()) else {
            return Ok(Some(Done::Refused { what: "the snapshot is not complete any more".to_owned() }));
        };
        let digest = receiver.header().digest;
        let file = receiver.finish(front)?;
        let builder = StoreBuilder::new(self.seed);
        self.job = Job::Loading(Box::new(Loading { file, builder, digest }));
        Ok(None)
    }
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
