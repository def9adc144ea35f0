//! A simulated machine: the replica with a log on a modelled disk and operations of modelled clients.

use std::collections::BTreeMap;

use crate::protocol::{
    Delivery, HaltReason, Hello, Identity, Input, Intake, Message, Mutation, OfferTicket, Output, ReadTicket,
    Record, Recovery, Refusal, Replica, Report, Settings, decode_record, encode_record, mutated,
};
use crate::types::{DiskId, Incarnation, Index, Lsn, NodeId, NodeSet, Now};
use crate::wire::batch::BatchBuilder;

/// A client's operation, by number.
pub(crate) type Operation = u64;

/// What a turn did.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    pub(crate) sends: Vec<(NodeSet, Message)>,
    pub(crate) deliveries: Vec<(Delivery, u64, Index)>,
    pub(crate) answered: Vec<(Operation, Index)>,
    pub(crate) stored: Vec<Record>,
    pub(crate) notes: Vec<String>,
    pub(crate) halt: Option<HaltReason>,
}

/// What a disk holds: records, of which so many would survive a power failure.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    pub(crate) id: DiskId,
    records: Vec<(u8, Vec<u8>)>,
    durable: usize,
}

impl Disk {
    pub(crate) fn new(id: DiskId) -> Disk {
        Disk { id, records: Vec::new(), durable: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    pub(crate) fn sync(&mut self, len: usize) -> Lsn {
        self.durable = self.durable.max(len);
        Lsn(self.durable as u64)
    }

    /// Of what was not synced, only so many records survive.
    pub(crate) fn crash(&mut self, extra: usize) {
        self.records.truncate(self.durable + extra);
        // What is read back is made durable before anything is said about it (rule D).
        if !mutated(Mutation::ReadBackIsDurable) {
            self.durable = self.records.len();
        }
    }

    pub(crate) fn unsynced(&self) -> usize {
        self.records.len() - self.durable
    }
}

/// A running process.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) replica: Replica,
    index: Index,
    digest: u64,
    next_ticket: u64,
    collected: Vec<Operation>,
    offered: BTreeMap<OfferTicket, Vec<Operation>>,
    reading: BTreeMap<ReadTicket, Vec<Operation>>,
    waiting_reads: Vec<Operation>,
}

impl Machine {
    /// Starts a process from what the disk has.
    pub(crate) fn boot(settings: Settings, disk: &mut Disk, boot: u64, now: Now) -> Machine {
        let mut recovery = Recovery::new(&settings);
        for (i, (kind, payload)) in disk.records.iter().enumerate() {
            let record = decode_record(*kind, payload).expect("what was written can be read");
            recovery.push(Lsn(i as u64 + 1), record).expect("a log of this program makes sense");
        }
        let incarnation = Incarnation(recovery.last_incarnation().0 + 1);
        let start = Record::Start { incarnation };
        let mut payload = Vec::new();
        let kind = encode_record(&mut payload, &start);
        disk.records.push((kind, payload));
        disk.durable = disk.records.len();
        recovery.push(Lsn(disk.records.len() as u64), start).expect("the next incarnation is higher");
        let identity = Identity { disk: disk.id, incarnation, boot };
        Machine {
            replica: Replica::new(settings, identity, recovery, now),
            index: Index(0),
            digest: 0,
            next_ticket: 0,
            collected: Vec::new(),
            offered: BTreeMap::new(),
            reading: BTreeMap::new(),
            waiting_reads: Vec::new(),
        }
    }

    pub(crate) fn hello(&self, to: NodeId) -> Hello {
        self.replica.hello(to)
    }

    pub(crate) fn check_hello(&self, hello: &Hello) -> Result<(), Refusal> {
        self.replica.check_hello(hello)
    }

    pub(crate) fn report(&self, now: Now) -> Report {
        self.replica.report(now)
    }

    pub(crate) fn write(&mut self, operation: Operation) {
        self.collected.push(operation);
    }

    pub(crate) fn read(&mut self, operation: Operation) {
        self.waiting_reads.push(operation);
    }

    /// One turn of the loop.
    pub(crate) fn turn(&mut self, now: Now, inputs: impl Iterator<Item = Input>, disk: &mut Disk) -> Effects {
        let mut effects = Effects::default();
        let mut out = Vec::new();
        for input in inputs {
            self.replica.handle(now, input, &mut out);
        }
        if !self.collected.is_empty() && self.replica.intake(now) == Intake::Open {
            let mut batch = BatchBuilder::new();
            for operation in &self.collected {
                batch.push(None, 0, &[operation.to_le_bytes()]);
            }
            self.next_ticket += 1;
            let ticket = OfferTicket(self.next_ticket);
            self.offered.insert(ticket, std::mem::take(&mut self.collected));
            self.replica.handle(now, Input::Offer { ticket, batch: batch.take() }, &mut out);
        }
        if !self.waiting_reads.is_empty() {
            self.next_ticket += 1;
            let ticket = ReadTicket(self.next_ticket);
            self.reading.insert(ticket, std::mem::take(&mut self.waiting_reads));
            self.replica.handle(now, Input::Read(ticket), &mut out);
        }
        self.replica.end_turn(now, &mut out);
        for output in out {
            self.carry_out(output, disk, &mut effects);
        }
        effects
    }

    fn carry_out(&mut self, output: Output, disk: &mut Disk, effects: &mut Effects) {
        match output {
            Output::Persist { lsn, record } => {
                let mut payload = Vec::new();
                let kind = encode_record(&mut payload, &record);
                disk.records.push((kind, payload));
                assert_eq!(lsn, Lsn(disk.records.len() as u64), "log sequence numbers follow one another");
                effects.stored.push(record);
            }
            Output::Send { to, message } => effects.sends.push((to, message)),
            Output::Deliver(delivery) => {
                if delivery.first != Index(0) {
                    self.index = Index(delivery.first.0 + u64::from(delivery.entry.batch.count()) - 1);
                }
                self.digest = xxhash_rust::xxh3::xxh3_64_with_seed(delivery.entry.batch.bytes(), self.digest);
                if let Some(ticket) = delivery.ticket {
                    let operations = self.offered.remove(&ticket).unwrap_or_default();
                    effects.answered.extend(operations.into_iter().map(|operation| (operation, self.index)));
                }
                effects.deliveries.push((delivery, self.digest, self.index));
            }
            Output::ReadReady(ticket) => {
                let operations = self.reading.remove(&ticket).unwrap_or_default();
                effects.answered.extend(operations.into_iter().map(|operation| (operation, self.index)));
            }
            Output::Note(note) => effects.notes.push(note.to_string()),
            Output::Halt(reason) => effects.halt = Some(reason),
        }
    }
}
