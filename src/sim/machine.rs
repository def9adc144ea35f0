//! A simulated machine: the real node with the real log, on a disk in memory, with modelled clients.

use std::collections::VecDeque;

use crate::node::{ClientKey, Effects, Node, NodeInput, Replay, Settings};
use crate::protocol::Identity;
use crate::storage::{self, Log, LogOptions, MemoryDisk, RecordGroup};
use crate::types::{DiskId, Lsn, Now};

/// What outlives a process: its disk.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) id: DiskId,
    files: MemoryDisk,
}

impl Disk {
    pub(crate) fn new(id: DiskId) -> Disk {
        Disk { id, files: MemoryDisk::new() }
    }

    /// The power fails: of what was not synced, any part may be left.
    pub(crate) fn lose_power(&mut self, random: &mut dyn FnMut() -> u64) {
        self.files = self.files.crash(random);
    }
}

/// A running process.
pub(crate) struct Machine {
    pub(crate) node: Node,
    log: Log<MemoryDisk>,
    /// Groups that came while a sync was running, as in the log writer's queue.
    queue: VecDeque<RecordGroup>,
    pub(crate) effects: Effects,
}

impl Machine {
    /// Starts a process from what the disk has.
    pub(crate) fn boot(settings: Settings, disk: &mut Disk, boot: u64, now: Now) -> Result<Machine, String> {
        let me = settings.protocol.me;
        let mut replay = Replay::new(&settings.protocol);
        let options = LogOptions {
            segment_len: 16 << 10,
            window_len: 4 << 10,
            ..LogOptions::new(storage::Identity { node: me, disk_id: disk.id }, boot)
        };
        let mut fault = None;
        let opened = Log::open(&disk.files, options, |lsn, kind, payload| {
            if let Err(error) = replay.push(lsn, kind, payload) {
                fault.get_or_insert(error);
            }
            Ok(())
        });
        if let Some(fault) = fault {
            return Err(fault.to_string());
        }
        let (mut log, _) = opened.map_err(|error| error.to_string())?;
        let mut group = RecordGroup::new();
        let incarnation = replay.begin(&mut group).map_err(|error| error.to_string())?;
        log.append(&mut group).and_then(|()| log.sync()).map_err(|error| error.to_string())?;
        let identity = Identity { disk: disk.id, incarnation, boot };
        let mut node = Node::new(settings, identity, replay, boot, now);
        node.observe();
        Ok(Machine { node, log, queue: VecDeque::new(), effects: Effects::default() })
    }

    /// One turn of the loop; what it did is in `effects` until the next.
    pub(crate) fn turn(&mut self, now: Now, inputs: impl Iterator<Item = NodeInput>) {
        self.effects.clear();
        for input in inputs {
            self.node.handle(now, input);
        }
        self.node.run_backlog(now);
        self.node.end_turn(now, &mut self.effects);
        if !self.effects.records.is_empty() {
            self.queue.push_back(std::mem::take(&mut self.effects.records));
        }
    }

    /// Writes what is queued; `false` if there is nothing.
    pub(crate) fn write(&mut self) -> bool {
        let any = !self.queue.is_empty();
        for mut group in self.queue.drain(..) {
            self.log.append(&mut group).expect("a disk in memory takes everything");
        }
        any
    }

    /// Makes durable what is written.
    pub(crate) fn sync(&mut self) -> Lsn {
        self.log.sync().expect("a disk in memory does not fail unless asked to");
        self.log.durable()
    }

    /// Bytes that a client is to get.
    pub(crate) fn take_output(&mut self, now: Now, key: ClientKey) -> Vec<u8> {
        let bytes = self.node.client_output(key).to_vec();
        self.node.client_sent(now, key, bytes.len());
        bytes
    }
}
