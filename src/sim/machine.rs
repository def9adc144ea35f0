//! A simulated machine: the real node with the real log, on a disk in memory, with modelled clients.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};

use crate::node::{
    ClientKey, Done, Effects, Keeper, Node, NodeInput, RestoreError, Restored, Settings, restore,
};
use crate::protocol::{Identity, Mutation, Record, decode_record, mutated};
use crate::storage::{self, Disk as _, DiskFile as _, Log, LogOptions, MemoryDisk, OpenError, Operation};
use crate::storage::{RecordGroup, SegmentSpan, remove_unfinished_snapshots};
use crate::types::{DiskId, Incarnation, Lsn, NodeId, Now};

use super::random::Random;

/// What outlives a process: its disk.
#[derive(Debug)]
pub(crate) struct Disk {
    files: MemoryDisk,
    ids: Random,
    /// An identity that is made on it is to take the place of a lost one.
    pub(crate) joining: bool,
    /// Everything below this place of the log was durable before something behind it was: damage there
    /// must never be taken for a torn write.
    pub(crate) sealed_below: Option<(u64, u64)>,
}

impl Disk {
    pub(crate) fn new(ids: Random) -> Disk {
        Disk { files: MemoryDisk::new(), ids, joining: false, sealed_below: None }
    }

    /// The power fails: of what was not synced, any part may be left.
    pub(crate) fn lose_power(&mut self, random: &mut dyn FnMut() -> u64) {
        self.files = self.files.crash(random);
    }

    /// Another disk in its place, empty.
    pub(crate) fn wipe(&mut self) {
        self.files = MemoryDisk::new();
        self.sealed_below = None;
    }

    /// A copy as a backup would have it.
    pub(crate) fn copy(&self, random: &mut dyn FnMut() -> u64) -> MemoryDisk {
        self.files.crash(random)
    }

    /// An old copy comes back.
    pub(crate) fn restore(&mut self, files: MemoryDisk) {
        self.files = files;
        self.sealed_below = None;
    }

    /// The next call of this kind fails, after some that succeed.
    pub(crate) fn fail(&self, operation: Operation, calls_before: u64, kind: ErrorKind) {
        self.files.fail(operation, calls_before, kind);
    }

    /// No call fails any more.
    pub(crate) fn heal(&self) {
        self.files.heal();
    }

    /// Inverts a bit of something synced. Says where, or `None` if there is nothing yet.
    pub(crate) fn rot(&self, random: &mut Random) -> Option<String> {
        let (last, end) = self.sealed_below?;
        let names = self.files.list().ok()?;
        let snapshots: Vec<&String> = names.iter().filter(|name| name.ends_with(".snap")).collect();
        let name = match snapshots.last() {
            Some(newest) if random.permille(300) => newest,
            _ => &names[random.index(names.len())],
        };
        let seq =
            name.strip_prefix("wal-").and_then(|rest| u64::from_str_radix(rest.split('.').next()?, 16).ok());
        let len = match seq {
            Some(seq) if seq > last => return None,
            Some(seq) if seq == last => end,
            _ => self.files.open(name).ok()?.size().ok()?,
        };
        if len == 0 {
            return None;
        }
        let offset = random.below(len);
        let bit = random.below(8);
        self.files.corrupt(name, offset, 1 << bit);
        Some(format!("bit {bit} of byte {offset} of {name}"))
    }
}

/// Why a process did not start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum BootError {
    /// What is on the disk is not fit to go on with.
    Refused(String),
    /// A call to the disk failed.
    Io(String),
}

impl From<OpenError> for BootError {
    fn from(error: OpenError) -> BootError {
        match error {
            OpenError::Io { .. } | OpenError::NotWritable { .. } => BootError::Io(error.to_string()),
            _ => BootError::Refused(error.to_string()),
        }
    }
}

impl From<RestoreError> for BootError {
    fn from(error: RestoreError) -> BootError {
        if error.exit_code() == 5 {
            BootError::Io(error.to_string())
        } else {
            BootError::Refused(error.to_string())
        }
    }
}

/// What a start found on the disk.
pub(crate) struct Found {
    pub(crate) incarnation: Incarnation,
    pub(crate) records: Vec<Record>,
    /// It goes on from a snapshot.
    pub(crate) has_snapshot: bool,
    /// Snapshots that are damaged.
    pub(crate) damaged: Vec<String>,
}

/// A running process.
pub(crate) struct Machine {
    pub(crate) node: Node,
    log: Log<MemoryDisk>,
    /// Groups that came while a sync was running, as in the log writer's queue.
    queue: VecDeque<RecordGroup>,
    /// What the last turn did; `None` while it is carried out. Boxed, since it is handed to and fro in every turn.
    pub(crate) effects: Option<Box<Effects>>,
    pub(crate) keeper: Keeper<MemoryDisk>,
    /// The log is not needed before this record.
    truncate: Option<Lsn>,
    /// Where the write that is being synced began.
    written_from: (u64, u64),
}

impl Machine {
    /// Starts a process from what the disk has.
    pub(crate) fn boot(
        settings: Settings,
        segment_len: u64,
        disk: &mut Disk,
        boot: u64,
        now: Now,
    ) -> Result<(Machine, Found), BootError> {
        let me: NodeId = settings.protocol.me;
        let ids = &mut disk.ids;
        let (identity, _) =
            storage::Identity::load_or_create(&disk.files, me, disk.joining, || DiskId(ids.next() | 1))?;
        remove_unfinished_snapshots(&disk.files).map_err(|error| BootError::Io(error.to_string()))?;
        let restored =
            restore(&disk.files, identity.disk_id, &settings.protocol, &settings.store, boot, |_, _| ());
        let Restored { mut replay, snapshot, damaged: found_damaged } = restored?;
        let options = LogOptions {
            segment_len,
            window_len: 4 << 10,
            needed: replay.needed(),
            ..LogOptions::new(identity, boot)
        };
        if mutated(Mutation::ReadBackIsDurable) {
            // Nothing of what opening the log makes durable is, nor is what comes with it.
            disk.files.ignore_syncs();
        }
        let mut fault = None;
        let mut records = Vec::new();
        let opened = Log::open(&disk.files, options, |lsn, kind, payload| {
            if let Err(error) = replay.push(lsn, kind, payload) {
                fault.get_or_insert(error);
            }
            records.push(decode_record(kind, payload)?);
            Ok(())
        });
        let (mut log, _) = opened?;
        if let Some(fault) = fault {
            return Err(BootError::Refused(fault.to_string()));
        }
        let mut group = RecordGroup::new();
        let incarnation = replay.begin(&mut group).map_err(|error| BootError::Refused(error.to_string()))?;
        let io = |error: io::Error| BootError::Io(error.to_string());
        log.append(&mut group).and_then(|()| log.sync()).map_err(io)?;
        let mut damaged = Vec::new();
        for snapshot in found_damaged {
            let aside = snapshot.set_aside(&disk.files).map_err(io)?;
            damaged.push(format!("{}; set aside as {aside}", snapshot.failure));
        }
        disk.files.heal();
        let storage::Identity { disk_id, joining, .. } = identity;
        let identity = Identity { disk: disk_id, incarnation, boot, joining };
        let keeper = Keeper::new(disk.files.clone(), settings.store.clone(), boot);
        let mut node = Node::new(settings, identity, replay, boot, now);
        node.observe();
        disk.sealed_below = None;
        let machine = Machine {
            node,
            log,
            queue: VecDeque::new(),
            effects: None,
            keeper,
            truncate: None,
            written_from: (0, 0),
        };
        Ok((machine, Found { incarnation, records, has_snapshot: snapshot.is_some(), damaged }))
    }

    /// One turn of the loop; what it did is in `effects` until the next.
    pub(crate) fn turn(
        &mut self,
        now: Now,
        inputs: impl Iterator<Item = NodeInput>,
        done: impl Iterator<Item = Done>,
    ) {
        let effects = self.effects.get_or_insert_default();
        effects.clear();
        for input in inputs {
            self.node.handle(now, input);
        }
        for done in done {
            self.node.keeper_done(now, done);
        }
        self.node.run_backlog(now);
        self.node.end_turn(now, effects);
        if !effects.records.is_empty() {
            self.queue.push_back(std::mem::take(&mut effects.records));
        }
        for task in effects.tasks.drain(..) {
            self.keeper.submit(task);
        }
        self.truncate = self.truncate.max(effects.truncate);
    }

    /// Writes what is queued; `false` if there is nothing.
    pub(crate) fn write(&mut self) -> io::Result<bool> {
        if self.queue.is_empty() {
            return Ok(false);
        }
        self.written_from = self.end();
        for mut group in self.queue.drain(..) {
            self.log.append(&mut group)?;
        }
        Ok(true)
    }

    /// Makes durable what is written; with nothing more to write it does what the log's writer does at leisure.
    pub(crate) fn sync(&mut self, disk: &mut Disk) -> io::Result<Lsn> {
        self.log.sync()?;
        disk.sealed_below = Some(self.written_from);
        if self.queue.is_empty() {
            if self.log.fill_ahead()? {
                self.log.sync()?;
            }
            self.log.write_durable_mark()?;
        }
        Ok(self.log.durable())
    }

    /// Removes one segment that is needed no more; says whether there was one.
    pub(crate) fn truncate(&mut self) -> io::Result<bool> {
        let Some(lsn) = self.truncate else { return Ok(false) };
        let removed = self.log.truncate_before(lsn)?;
        if !removed {
            self.truncate = None;
        }
        Ok(removed)
    }

    /// Segment and offset at which the log ends.
    fn end(&self) -> (u64, u64) {
        let seq = self.log.segments().last().map_or(0, |span: &SegmentSpan| span.seq);
        (seq, self.log.position())
    }

    /// Bytes that a client is to get.
    pub(crate) fn take_output(&mut self, now: Now, key: ClientKey) -> Vec<u8> {
        let bytes = self.node.client_output(key).to_vec();
        self.node.client_sent(now, key, bytes.len());
        bytes
    }
}
