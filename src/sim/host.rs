//! Processes and disks: starts, turns, syncs, and every way to die.

use std::io;

use crate::node::{Done, NodeInput, Observed};
use crate::protocol::{HaltReason, Message, Record};
use crate::storage::{MemoryDisk, Operation};
use crate::types::{Incarnation, Millis, Now, ViewNumber};

use super::machine::{BootError, Disk, Found, Machine};
use super::random::Random;
use super::sights::Sight;
use super::slow;
use super::world::{Event, MS, World};

/// What may still be expected of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// Everything.
    Sound,
    /// Its disk was emptied, damaged or replaced: it may run for a while, but must be found out before it
    /// can do harm. It may be refused, and then stays away.
    Doubtful,
    /// It will not run again, or reaches nobody.
    Gone,
}

/// A node's clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// The monotonic clock's start, in milliseconds.
    offset_ms: u64,
    /// How fast it runs, per mille.
    rate: u64,
    /// The wall clock, ahead of the monotonic one, in milliseconds.
    pub(super) wall_ms: i64,
}

impl Clock {
    pub(super) fn at(&self, now: u64) -> Now {
        let mono = self.offset_ms + now * self.rate / 1_000_000;
        let wall = mono.saturating_add_signed(self.wall_ms);
        Now { mono: Millis(mono), wall: Millis(wall) }
    }

    /// When, in virtual microseconds, the monotonic clock shows this.
    fn when(&self, mono: Millis) -> u64 {
        (mono.0.saturating_sub(self.offset_ms) * 1_000_000).div_ceil(self.rate)
    }
}

/// A copy of a disk, and what was known of its node when it was made.
pub(super) struct Copy {
    pub(super) files: MemoryDisk,
    pub(super) incarnation: Incarnation,
    pub(super) view: ViewNumber,
    /// Sum of the votes in that view that the node had told others.
    pub(super) votes: u64,
    pub(super) made_at: u64,
    /// When it was first seen that the node had told of more votes than the copy has.
    pub(super) told_at: Option<u64>,
}

pub(super) struct Host {
    pub(super) machine: Option<Machine>,
    pub(super) disk: Disk,
    /// A copy of the disk.
    pub(super) copy: Option<Copy>,
    pub(super) incarnation: Incarnation,
    pub(super) boot: u64,
    pub(super) inbox: Vec<NodeInput>,
    /// What the keeper of snapshots has done.
    done: Vec<Done>,
    keeping: bool,
    pub(super) turn_at: Option<u64>,
    /// When it goes through its loop even if nothing comes.
    deadline_at: Option<u64>,
    /// When that is looked at. With every turn the deadline moves on; an event for each of them would be most of
    /// all events.
    deadline_seen_at: Option<u64>,
    pub(super) paused_until: u64,
    /// Each turn takes that long, until then.
    pub(super) slow_turns: (u64, u64),
    pub(super) slow_disk_until: u64,
    pub(super) full_until: u64,
    syncing: bool,
    /// Entries delivered since the start.
    pub(super) count: usize,
    /// It has asked to leave, and will be stopped.
    pub(super) leaving: bool,
    pub(super) clock: Clock,
    pub(super) fate: Fate,
    /// How often it is yet to be killed soon after a start.
    pub(super) restarts: u64,
}

impl Host {
    pub(super) fn new(setup: &mut Random, drift: bool) -> Host {
        let rate = if drift { setup.between(900, 1100) } else { 1000 };
        let ids = Random::new(setup.next(), 0);
        Host {
            machine: None,
            disk: Disk::new(ids),
            copy: None,
            incarnation: Incarnation(0),
            boot: 0,
            inbox: Vec::new(),
            done: Vec::new(),
            keeping: false,
            turn_at: None,
            deadline_at: None,
            deadline_seen_at: None,
            paused_until: 0,
            slow_turns: (0, 0),
            slow_disk_until: 0,
            full_until: 0,
            syncing: false,
            count: 0,
            leaving: false,
            clock: Clock {
                offset_ms: 1_000 + setup.below(1_000_000),
                rate,
                wall_ms: 1_000_000_000_000 + i64::try_from(setup.below(60_000)).expect("small"),
            },
            fate: Fate::Sound,
            restarts: 0,
        }
    }
}

impl World {
    pub(super) fn start(&mut self, node: usize) {
        if self.hosts[node].machine.is_some() || self.hosts[node].fate == Fate::Gone {
            return;
        }
        let boot = self.next_boot;
        self.next_boot += 1;
        let settings = self.settings(node);
        let now = self.clock(node);
        let storm = !self.storm_over;
        if storm && self.faults.permille(self.plan.faults.boot_crash) {
            let operations = [
                Operation::Create,
                Operation::Write,
                Operation::Fill,
                Operation::Sync,
                Operation::Rename,
                Operation::SyncDir,
                Operation::Remove,
            ];
            let operation = operations[self.faults.index(operations.len())];
            let calls_before = self.faults.below(4);
            self.hosts[node].disk.fail(operation, calls_before, io::ErrorKind::Other);
        } else if self.hosts[node].full_until > self.now {
            self.hosts[node].disk.fail(Operation::Create, 0, io::ErrorKind::StorageFull);
        }
        let segment_len = self.plan.segment_len;
        let host = &mut self.hosts[node];
        host.inbox.clear();
        host.done.clear();
        host.keeping = false;
        host.turn_at = None;
        host.deadline_at = None;
        host.deadline_seen_at = None;
        host.paused_until = 0;
        host.syncing = false;
        host.count = 0;
        host.leaving = false;
        let booted = Machine::boot(settings, segment_len, &mut host.disk, boot, now);
        host.disk.heal();
        match booted {
            Ok((machine, found)) => {
                host.boot = boot;
                host.machine = Some(machine);
                host.incarnation = found.incarnation;
                self.invariants.started(Self::node(node), &found);
                self.look_at_snapshot(node, &found);
            }
            Err(BootError::Io(error)) => {
                self.note(|| format!("n{node} does not start: {error}"));
                self.see(Sight::StartFailed);
                self.lose_power_perhaps(node);
                let down = self.faults.between(MS, 200 * MS);
                return self.at(self.now + down, Event::Start { node });
            }
            Err(BootError::Refused(error)) => {
                self.note(|| format!("n{node} refuses to start: {error}"));
                if self.hosts[node].fate == Fate::Doubtful {
                    self.see(Sight::DamageFound);
                    return self.give_up(node);
                }
                return self.checker.broken(format!("n{node} refuses to start: {error}"));
            }
        }
        self.note(|| format!("n{node} starts"));
        for to in (0..self.hosts.len()).filter(|to| *to != node) {
            self.at(self.now, Event::Dial { from: node, to, boot });
        }
        self.wake(node, self.now);
        if storm && self.hosts[node].restarts > 0 {
            self.hosts[node].restarts -= 1;
            self.see(Sight::RestartStorm);
            let delay = self.faults.below(20 * MS);
            let down = self.faults.below(20 * MS);
            self.at(self.now + delay, Event::Crash { node, boot, down });
        }
    }

    fn lose_power_perhaps(&mut self, node: usize) {
        if self.faults.permille(self.plan.faults.power) {
            let disks = &mut self.disks;
            self.hosts[node].disk.lose_power(&mut || disks.next());
            self.see(Sight::PowerFailure);
        }
    }

    /// A process is killed and starts again after a while.
    pub(super) fn crash_for(&mut self, node: usize, down: u64) {
        if self.now < self.truce_until {
            return;
        }
        self.kill(node);
        self.at(self.now + down, Event::Start { node });
    }

    /// A process ends without a word; perhaps the whole machine does.
    pub(super) fn kill(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        let Some(machine) = host.machine.take() else { return };
        host.boot = 0;
        self.marks.add(machine.node.marks());
        drop(machine);
        self.note(|| format!("n{node} is killed"));
        self.see(Sight::Crash);
        self.lose_power_perhaps(node);
        // Its connections break, in both directions: the others notice and dial at once.
        for other in (0..self.hosts.len()).filter(|other| *other != node) {
            self.disconnect(node, other);
            self.cut(other, node);
        }
        for client in 0..self.clients.len() {
            if self.clients[client].at.is_some_and(|(at, _)| at == node) {
                self.clients[client].at = None;
                if self.clients[client].operation.is_some() {
                    self.retry(client, true);
                }
            }
        }
    }

    /// The disk fails: the process ends by itself, with exit code 5.
    fn disk_failed(&mut self, node: usize, error: &io::Error) {
        self.note(|| format!("n{node} stops: {error}"));
        self.see(if error.kind() == io::ErrorKind::StorageFull {
            Sight::DiskFull
        } else {
            Sight::SyncFailed
        });
        self.kill(node);
        let down = self.faults.between(MS, 300 * MS);
        self.at(self.now + down, Event::Start { node });
    }

    /// A node has stopped itself for good.
    fn halted(&mut self, node: usize, reason: &HaltReason) {
        if self.hosts[node].fate != Fate::Doubtful {
            return self.checker.broken(format!("n{node} halts: {reason}"));
        }
        self.note(|| format!("n{node} stops for good: {reason}"));
        self.see(match reason {
            HaltReason::Identity { .. } => Sight::ImpostorFound,
            HaltReason::LostVotes { .. } => Sight::AmnesiaFound,
        });
        self.kill(node);
        self.give_up(node);
    }

    /// A node cannot go on with its disk: it stays away, or somebody starts it with `--rebuild`.
    fn give_up(&mut self, node: usize) {
        // Afterwards nobody would wait for it.
        if !self.storm_over && self.faults.permille(self.plan.faults.rebuild) {
            self.rebuild(node);
            let down = self.faults.between(MS, 300 * MS);
            self.at(self.now + down, Event::Start { node });
        } else {
            self.hosts[node].fate = Fate::Gone;
        }
    }

    /// A node gets an empty disk in the place of the one that it has, and everything is expected of it again.
    pub(super) fn rebuild(&mut self, node: usize) {
        self.note(|| format!("n{node} is to be rebuilt"));
        self.see(Sight::Rebuilt);
        let host = &mut self.hosts[node];
        host.disk.wipe();
        host.disk.joining = true;
        host.copy = None;
        host.fate = Fate::Sound;
        self.invariants.wiped(Self::node(node));
    }

    pub(super) fn wake(&mut self, node: usize, when: u64) {
        let host = &mut self.hosts[node];
        let when = when.max(host.paused_until).max(self.now);
        if host.turn_at.is_some_and(|at| at <= when && at >= self.now) {
            return;
        }
        host.turn_at = Some(when);
        let boot = host.boot;
        self.at(when, Event::Turn { node, boot });
    }

    /// Something has come that is looked at in the next turn: in a while, if none is due yet.
    pub(super) fn wake_later(&mut self, node: usize) {
        let delay = self.net.below(self.plan.turn_us);
        if self.hosts[node].turn_at.is_none() {
            self.wake(node, self.now + delay);
        }
    }

    /// A node is to go through its loop at some time, if it does not before.
    fn wake_at_deadline(&mut self, node: usize, when: u64) {
        let host = &mut self.hosts[node];
        host.deadline_at = Some(when);
        if host.deadline_seen_at.is_none_or(|at| at > when) {
            host.deadline_seen_at = Some(when);
            let boot = host.boot;
            self.at(when, Event::Deadline { node, boot });
        }
    }

    pub(super) fn deadline(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        if host.deadline_seen_at != Some(self.now) {
            return;
        }
        host.deadline_seen_at = None;
        match host.deadline_at {
            Some(at) if at > self.now => self.wake_at_deadline(node, at),
            Some(_) => self.wake(node, self.now),
            None => {}
        }
    }

    pub(super) fn turn(&mut self, node: usize) {
        let now = self.clock(node);
        let host = &mut self.hosts[node];
        host.turn_at = None;
        host.deadline_at = None;
        if host.paused_until > self.now {
            let until = host.paused_until;
            return self.wake(node, until);
        }
        let Some(machine) = &mut host.machine else { return };
        if self.plan.slow {
            machine.node.begin_turn(slow::turn_clock());
        }
        machine.turn(now, host.inbox.drain(..), host.done.drain(..));
        let deadline = machine.node.deadline();
        let busy = machine.node.has_work();
        let clock = host.clock;
        let (cost, until) = host.slow_turns;
        if until > self.now {
            host.paused_until = self.now + cost;
        }
        let boot = host.boot;
        self.carry_out(node);
        if self.hosts[node].boot != boot {
            return;
        }
        if busy {
            self.wake(node, self.now + 50);
        } else if let Some(at) = deadline {
            self.wake_at_deadline(node, clock.when(at).max(self.now + MS));
        }
    }

    fn carry_out(&mut self, node: usize) {
        let id = Self::node(node);
        let Some(machine) = &mut self.hosts[node].machine else { return };
        let Some(mut effects) = machine.effects.take() else { return };
        for note in effects.notes.drain(..) {
            self.note(|| format!("n{node} {note}"));
        }
        for line in effects.lines.drain(..) {
            self.note(|| format!("n{node} {line}"));
        }
        for observed in effects.observed.drain(..) {
            match observed {
                Observed::Delivered { delivery, index, digest } => {
                    let count = self.hosts[node].count;
                    self.hosts[node].count += 1;
                    let first = self.checker.delivered(id, count, &delivery, digest, index);
                    self.invariants.delivered(id, &delivery.entry, first);
                }
                Observed::Installed { index, position, digest } => {
                    self.see(Sight::SnapshotInstalled);
                    self.hosts[node].count = self.checker.at_snapshot(id, position, index, digest);
                    self.invariants.installed(id, position);
                }
                Observed::Persisted(lsn, record) => {
                    self.note(|| format!("n{node} persists {record}"));
                    self.after_seal_record(node, &record);
                    self.invariants.persisted(id, lsn, record);
                }
            }
        }
        let torn = !self.storm_over
            && self.now >= self.truce_until
            && !effects.sends.is_empty()
            && self.faults.permille(self.plan.faults.torn_turn);
        if torn {
            // Killed between two outputs: some messages are out, the records perhaps written.
            self.see(Sight::TornTurn);
            let keep = self.faults.index(effects.sends.len());
            effects.sends.truncate(keep);
        }
        let has_sent = !effects.sends.is_empty();
        for (to, message) in effects.sends.drain(..) {
            // One that has just found out what its disk is may still show it to others.
            if effects.halt.is_none() {
                self.invariants.sent(id, &message);
            }
            self.after_promise(node, &message);
            self.send(node, to, &message);
        }
        if has_sent {
            self.flush(node);
        }
        for key in effects.written.drain(..) {
            if !torn {
                self.read_replies(node, key);
            }
        }
        if torn {
            if self.faults.permille(500) {
                self.sync(node);
            }
            let down = self.faults.between(MS / 2, 500 * MS);
            return self.crash_for(node, down);
        }
        if let Some(reason) = effects.halt.take() {
            return self.halted(node, &reason);
        }
        if let Some(machine) = &mut self.hosts[node].machine {
            machine.effects = Some(effects);
        }
        self.keep(node);
        self.sync(node);
    }

    /// A process has started from what its disk has.
    fn look_at_snapshot(&mut self, node: usize, found: &Found) {
        for damage in &found.damaged {
            self.note(|| format!("n{node} {damage}"));
            self.see(Sight::SnapshotSetAside);
            if self.hosts[node].fate == Fate::Sound {
                self.checker.broken(format!("n{node} finds a damaged snapshot: {damage}"));
            }
        }
        if found.has_snapshot {
            self.see(Sight::StartedFromSnapshot);
        }
        if let Some(machine) = self.hosts[node].machine.as_ref().filter(|_| found.has_snapshot) {
            let report = machine.node.report();
            let digest = machine.node.store().digest();
            let id = Self::node(node);
            self.hosts[node].count = self.checker.at_snapshot(id, report.delivered, report.index, digest);
            // It may be one of a peer that was published just before the process was killed.
            self.invariants.installed(id, report.delivered);
        }
    }

    /// Lets the keeper of snapshots go on, if it has something to do.
    fn keep(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        if !host.keeping && host.machine.as_ref().is_some_and(|machine| machine.keeper.has_work()) {
            host.keeping = true;
            let boot = host.boot;
            let length = self.disks.between(10, self.plan.keeper_us);
            self.at(self.now + length, Event::Keep { node, boot });
        }
    }

    pub(super) fn kept(&mut self, node: usize, boot: u64) {
        let host = &mut self.hosts[node];
        let Some(machine) = host.machine.as_mut().filter(|_| host.boot == boot) else { return };
        host.keeping = false;
        if host.full_until > self.now {
            host.disk.fail(Operation::Write, 0, io::ErrorKind::StorageFull);
        }
        let done = match machine.keeper.step() {
            Ok(done) => done,
            Err(error) => return self.disk_failed(node, &error),
        };
        match &done {
            Some(Done::Taken(_)) => self.see(Sight::SnapshotTaken),
            Some(Done::Failed { .. }) => self.see(Sight::SnapshotFailed),
            _ => {}
        }
        if let Some(done) = done {
            self.hosts[node].done.push(done);
            self.wake(node, self.now);
        }
        if !self.storm_over && self.faults.permille(self.plan.faults.keeper_crash) {
            self.see(Sight::KeeperCrash);
            let down_bits = self.faults.between(8, 20);
            let down = self.faults.below(1 << down_bits);
            return self.crash_for(node, down);
        }
        self.keep(node);
    }

    /// Who has promised may be the only one to hold what the sealer still has to fetch.
    fn after_promise(&mut self, node: usize, message: &Message) {
        let promise = matches!(message, Message::SealPromise { .. });
        if promise && !self.storm_over && self.faults.permille(self.plan.faults.holder_crash) {
            let delay = self.faults.between(0, self.plan.delay_us + 2 * MS);
            let down = self.faults.between(300 * MS, 2_000 * MS);
            let boot = self.hosts[node].boot;
            self.see(Sight::HolderCrash);
            self.at(self.now + delay, Event::Crash { node, boot, down });
        }
    }

    fn after_seal_record(&mut self, node: usize, record: &Record) {
        let promise = matches!(record, Record::Promise { .. });
        if promise && !self.storm_over && self.faults.permille(self.plan.faults.seal_slow) {
            let long = self.faults.between(100 * MS, 1_500 * MS);
            self.note(|| format!("the disk of n{node} takes {} ms", long / MS));
            self.see(Sight::PromiseHangs);
            self.hosts[node].slow_disk_until = self.now + long;
        }
        if let Record::Decision(decision) = record
            && !self.storm_over
            && decision.view > ViewNumber(0)
            && !self.invariants.is_decided(decision.view)
            && self.faults.permille(self.plan.faults.slow_news)
        {
            self.slow_news(node, decision);
        }
        let of_seal = matches!(record, Record::Promise { .. } | Record::Accept { .. } | Record::Decision(_));
        if of_seal && !self.storm_over && self.faults.permille(self.plan.faults.seal_crash) {
            let delay_bits = self.faults.between(6, 17);
            let delay = self.faults.below(1 << delay_bits);
            let down_bits = self.faults.between(8, 20);
            let down = self.faults.below(1 << down_bits);
            let boot = self.hosts[node].boot;
            self.see(Sight::CrashInSeal);
            self.at(self.now + delay, Event::Crash { node, boot, down });
        }
    }

    /// Writes what is queued and begins to sync it.
    fn sync(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        if host.syncing {
            return;
        }
        let Some(machine) = &mut host.machine else { return };
        if host.full_until > self.now {
            host.disk.fail(Operation::Write, 0, io::ErrorKind::StorageFull);
        }
        match machine.write() {
            Ok(false) => return,
            Ok(true) => {}
            Err(error) => return self.disk_failed(node, &error),
        }
        host.syncing = true;
        let slow = host.slow_disk_until.saturating_sub(self.now);
        let boot = host.boot;
        let length = self.disks.between(10, self.plan.sync_us) + slow;
        self.at(self.now + length, Event::Synced { node, boot });
    }

    pub(super) fn synced(&mut self, node: usize, boot: u64) {
        let host = &mut self.hosts[node];
        let Some(machine) = host.machine.as_mut().filter(|_| host.boot == boot) else { return };
        host.syncing = false;
        match machine.sync(&mut host.disk) {
            Ok(lsn) => {
                match machine.truncate() {
                    Ok(true) => self.see(Sight::LogTruncated),
                    Ok(false) => {}
                    Err(error) => return self.disk_failed(node, &error),
                }
                self.invariants.durable(Self::node(node), lsn);
                self.give(node, NodeInput::Persisted(lsn));
                self.sync(node);
            }
            Err(error) => self.disk_failed(node, &error),
        }
    }
}
