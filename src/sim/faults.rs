//! The storm: every fault that a plan can have. And the calm after it.

use std::io;

use crate::node::NodeInput;
use crate::protocol::Decision;
use crate::storage::Operation;

use super::host::{Copy, Fate, Host};
use super::network::Link;
use super::plan::Faults;
use super::sights::Sight;
use super::world::{Event, MS, SUSPICION_MS, World};

/// How long a node on a doubtful disk has, to be found out by those who remember it.
const TRUCE_US: u64 = 2_000 * MS;
/// A node that is heard has said something in so long; heartbeats come twice as often.
const SPOKEN_WITHIN_US: u64 = 100 * MS;

impl World {
    /// Every virtual 100 ms each fault of the plan has its chance.
    pub(super) fn fault(&mut self) {
        if self.storm_over {
            return;
        }
        self.at(self.now + 100 * MS, Event::Fault);
        let faults = self.plan.faults.clone();
        self.fault_of_processes(&faults);
        if self.hosts.len() > 1 {
            self.fault_of_network(&faults);
        }
        self.fault_of_disks(&faults);
        if faults.replacement > 0 && self.faults.permille(faults.replacement) {
            self.replacement();
        }
        if self.faults.permille(faults.wall_jump) {
            let node = self.faults.index(self.hosts.len());
            // Up to ten years, in either direction.
            let bits = self.faults.between(8, 38);
            let by = i64::try_from(self.faults.below(1 << bits)).expect("38 bits");
            let by = if self.faults.permille(500) { by } else { -by };
            self.note(|| format!("the wall clock of n{node} jumps by {by} ms"));
            self.see(Sight::WallJump);
            self.hosts[node].clock.wall_ms += by;
        }
    }

    fn fault_of_processes(&mut self, faults: &Faults) {
        let n = self.hosts.len();
        if self.faults.permille(faults.crash) {
            let node = self.faults.index(n);
            let down = [MS, 50 * MS, 500 * MS, 3_000 * MS][self.faults.index(4)];
            let down = self.faults.between(MS / 2, down);
            self.crash_for(node, down);
        }
        if self.faults.permille(faults.crash_all) {
            for node in 0..n {
                let down = self.faults.between(MS, 500 * MS);
                self.crash_for(node, down);
            }
        }
        if self.faults.permille(faults.restart_storm) {
            let node = self.faults.index(n);
            self.hosts[node].restarts = self.faults.between(2, 12);
            self.crash_for(node, MS);
        }
        if self.faults.permille(faults.pause) {
            let node = self.faults.index(n);
            let long = self.faults.between(MS, 2_000 * MS);
            self.note(|| format!("n{node} stands still for {} ms", long / MS));
            self.hosts[node].paused_until = self.now + long;
        }
        if self.faults.permille(faults.slow_node) {
            let node = self.faults.index(n);
            let cost = [MS, 10 * MS, 100 * MS][self.faults.index(3)];
            let until = self.now + self.faults.between(100 * MS, 2_000 * MS);
            self.note(|| format!("each turn of n{node} takes {} ms", cost / MS));
            self.hosts[node].slow_turns = (cost, until);
        }
        if self.faults.permille(faults.leave) {
            let node = self.faults.index(n);
            let patience = self.faults.between(10 * MS, 3_000 * MS);
            self.leave(node, patience);
        }
        if self.faults.permille(faults.farewell) {
            // Only a sender that leaves ends a view while everything flows.
            let at_rest = |node: &usize| {
                let report = self.hosts[*node].machine.as_ref().map(|m| m.node.report());
                report.is_some_and(|r| r.sender && !r.sealed) && !self.hosts[*node].leaving
            };
            let senders: Vec<usize> = (0..n).filter(at_rest).collect();
            if senders.len() > 1 {
                let node = senders[self.faults.index(senders.len())];
                let patience = self.faults.between(300 * MS, 1_000 * MS);
                self.leave(node, patience);
            }
        }
    }

    /// A node asks to leave. It is stopped when it has answered what it had, or has waited long enough; then it
    /// is started again.
    fn leave(&mut self, node: usize, patience: u64) {
        if self.hosts[node].machine.is_none() {
            return;
        }
        self.note(|| format!("n{node} asks to leave"));
        self.hosts[node].leaving = true;
        self.invariants.leaves(Self::node(node));
        self.give(node, NodeInput::Leave);
        let down = self.faults.between(MS, 500 * MS);
        let boot = self.hosts[node].boot;
        self.at(self.now + patience, Event::Crash { node, boot, down });
    }

    // ---- the net ----

    fn fault_of_network(&mut self, faults: &Faults) {
        if self.faults.permille(faults.cut) {
            let (from, to) = self.pair();
            if self.hosts[from].machine.is_some() && self.hosts[to].machine.is_some() {
                self.note(|| format!("the connection n{from} -> n{to} breaks"));
                self.cut(from, to);
            }
        }
        if self.faults.permille(faults.stall) {
            let (from, to) = self.pair();
            let both = self.faults.permille(500);
            let long = self.faults.between(MS, 2_000 * MS);
            self.stall(from, to, long);
            if both {
                self.stall(to, from, long);
            }
        }
        if self.faults.permille(faults.slow_link) {
            let (from, to) = self.pair();
            let rate = [10, 100, 1_000][self.faults.index(3)];
            let long = self.faults.between(100 * MS, 3_000 * MS);
            self.note(|| format!("n{from} -> n{to} carries {rate} kB/s for {} ms", long / MS));
            self.link(from, to).slow = (rate, self.now + long);
        }
        if self.faults.permille(faults.partition) {
            self.partition();
        }
        if self.faults.permille(faults.passive_apart) {
            self.passive_apart();
        }
    }

    /// A step towards a node that hears a majority and no sender: what it offers goes by way of another passive
    /// node. And towards a bad link behind that one, so that of two batches the second may be the quicker.
    fn passive_apart(&mut self) {
        let (senders, passive) = self.senders_and_others();
        let few = (self.hosts.len() - 1) / 2;
        if senders.len() > few {
            // Whoever starts again is passive for a second. One after the other, so that the rest stay what they are.
            let node = senders[self.faults.index(senders.len())];
            let down = self.faults.between(MS, 20 * MS);
            return self.crash_for(node, down);
        }
        if senders.is_empty() || passive.len() <= few {
            return;
        }
        let now = self.now;
        let apart = match self.apart(&senders, &passive) {
            Some(node) => node,
            None => {
                let node = passive[self.faults.index(passive.len())];
                self.see(Sight::PassiveApart);
                let long = self.faults.between(500 * MS, 2_500 * MS);
                for sender in &senders {
                    self.hold(node, *sender, long);
                    self.hold(*sender, node, long);
                }
                node
            }
        };
        for relay in passive.into_iter().filter(|node| *node != apart) {
            let well = senders.iter().all(|s| self.link(relay, *s).stalled_until <= now);
            if well && self.faults.permille(300) {
                let sender = senders[self.faults.index(senders.len())];
                let long = self.faults.between(350 * MS, 700 * MS);
                self.hold(relay, sender, long);
            }
        }
    }

    /// The running nodes that own lanes, and those that do not.
    fn senders_and_others(&self) -> (Vec<usize>, Vec<usize>) {
        let owns = |node: &usize| self.hosts[*node].machine.as_ref().is_some_and(|m| m.node.report().sender);
        self.alive().partition(owns)
    }

    /// A passive node that reaches no sender for some time yet.
    fn apart(&self, senders: &[usize], passive: &[usize]) -> Option<usize> {
        let n = self.hosts.len();
        let held = |node: &usize, s: &usize| self.links[*node * n + *s].stalled_until > self.now + 50 * MS;
        passive.iter().copied().find(|node| senders.iter().all(|s| held(node, s)))
    }

    /// Who has just decided a view, and at most one more, are not heard by the rest for a while: these stay in a view
    /// that has ended, and are a majority.
    pub(super) fn slow_news(&mut self, first: usize, decision: &Decision) {
        let n = self.hosts.len();
        let mut knowing = vec![first];
        if n >= 5 {
            // Somebody whose entries nothing but the decision makes chosen, if there is one.
            let others: Vec<usize> = self
                .invariants
                .rescued(decision)
                .map(|node| node.index())
                .filter(|node| *node != first)
                .collect();
            let all: Vec<usize> = (0..n).filter(|node| *node != first).collect();
            let others = if others.is_empty() { all } else { others };
            knowing.push(others[self.faults.index(others.len())]);
        }
        self.see(Sight::SlowNews);
        let long = self.faults.between(20 * MS, 800 * MS);
        for from in &knowing {
            for to in (0..n).filter(|to| !knowing.contains(to)) {
                self.hold(*from, to, long);
            }
        }
    }

    /// The net takes one of the shapes that have broken other systems.
    fn partition(&mut self) {
        let n = self.hosts.len();
        let long = self.faults.between(100 * MS, 3_000 * MS);
        let side = self.faults.below(1 << n);
        let one = self.faults.index(n);
        let turn = self.faults.index(n);
        let side_of = |node: usize| side >> node & 1;
        // Which links carry nothing, from the first to the second.
        type Shape<'a> = (Sight, Box<dyn Fn(usize, usize) -> bool + 'a>);
        let shape: Shape<'_> = match self.faults.index(6) {
            0 => (Sight::Halves, Box::new(|a, b| side_of(a) != side_of(b))),
            1 => (Sight::Island, Box::new(|a, b| a == one || b == one)),
            2 => (
                Sight::Ring,
                Box::new(|a, b| {
                    let distance = (a + n - b) % n;
                    distance != 1 && distance != n - 1
                }),
            ),
            3 => (Sight::Bridge, Box::new(|a, b| side_of(a) != side_of(b) && a != one && b != one)),
            4 => (Sight::OneWay, Box::new(|a, b| side_of(a) < side_of(b))),
            _ => (
                Sight::HopelessNet,
                // Small islands along a line.
                Box::new(|a, b| (a + turn) % n / (n / 2).max(1) != (b + turn) % n / (n / 2).max(1)),
            ),
        };
        let (sight, is_cut) = shape;
        let cuts: Vec<(usize, usize)> = (0..n)
            .flat_map(|a| (0..n).map(move |b| (a, b)))
            .filter(|(a, b)| a != b && is_cut(*a, *b))
            .collect();
        drop(is_cut);
        self.see(sight);
        self.note(|| sight.text().to_owned());
        for (a, b) in cuts {
            self.stall(a, b, long);
        }
    }

    fn pair(&mut self) -> (usize, usize) {
        let n = self.hosts.len();
        let from = self.faults.index(n);
        (from, (from + 1 + self.faults.index(n - 1)) % n)
    }

    /// Nothing arrives for a while.
    pub(super) fn hold(&mut self, from: usize, to: usize, long: u64) {
        self.note(|| format!("nothing goes from n{from} to n{to} for {} ms", long / MS));
        let until = self.now + long;
        let link = self.link(from, to);
        link.stalled_until = link.stalled_until.max(until);
        self.at(until, Event::Heal { from, to });
    }

    fn stall(&mut self, from: usize, to: usize, long: u64) {
        self.hold(from, to, long);
        // Some break when nothing is acknowledged for long.
        if long > 500 * MS && self.faults.permille(500) {
            self.lose_link(from, to, self.now + long);
        }
    }

    /// A connection breaks with all that is in it, and is made anew later.
    fn lose_link(&mut self, from: usize, to: usize, until: u64) {
        self.disconnect(from, to);
        let boot = self.hosts[from].boot;
        self.at(until, Event::Dial { from, to, boot });
        if self.hosts[from].machine.is_some() {
            self.give(from, NodeInput::LinkDown(Self::node(to)));
        }
    }

    // ---- disks ----

    fn fault_of_disks(&mut self, faults: &Faults) {
        let n = self.hosts.len();
        if self.faults.permille(faults.slow_disk) {
            let node = self.faults.index(n);
            let long = self.faults.between(100 * MS, 3_000 * MS);
            self.note(|| format!("the disk of n{node} takes {} ms", long / MS));
            self.hosts[node].slow_disk_until = self.now + long;
        }
        if self.faults.permille(faults.sync_error) && self.now >= self.truce_until {
            let node = self.faults.index(n);
            let operation = [Operation::Sync, Operation::Sync, Operation::Write][self.faults.index(3)];
            let calls_before = self.faults.below(3);
            self.hosts[node].disk.fail(operation, calls_before, io::ErrorKind::Other);
        }
        if self.faults.permille(faults.full_disk) && self.now >= self.truce_until {
            let node = self.faults.index(n);
            let long = self.faults.between(10 * MS, 1_500 * MS);
            self.note(|| format!("the disk of n{node} is full for {} ms", long / MS));
            self.hosts[node].full_until = self.now + long;
        }
        if self.faults.permille(faults.disk_loss) {
            self.lose_disk();
        }
        for node in 0..n {
            let host = &mut self.hosts[node];
            if let Some(copy) = host.copy.as_mut().filter(|copy| copy.told_at.is_none())
                && self.invariants.votes_told(Self::node(node), copy.view) > copy.votes
            {
                copy.told_at = Some(self.now);
            }
        }
        // A copy that may come back one day.
        if faults.disk_loss > 0 && self.disks_left > 0 && self.faults.permille(500) {
            let node = self.faults.index(n);
            let host = &mut self.hosts[node];
            if let Some(machine) = &host.machine
                && host.fate == Fate::Sound
                && host.copy.is_none()
            {
                let disks = &mut self.disks;
                let view = machine.node.report().view;
                host.copy = Some(Copy {
                    files: host.disk.copy(&mut || disks.next()),
                    incarnation: host.incarnation,
                    view,
                    votes: self.invariants.votes_told(Self::node(node), view),
                    made_at: self.now,
                    told_at: None,
                });
            }
        }
    }

    /// A node is killed, and its disk is not what it was when it starts again. It is to be found out by those
    /// who remember it, which are the ones that run now: so nobody else is killed for a while.
    fn lose_disk(&mut self) {
        let outdated: Vec<usize> = (0..self.hosts.len()).filter(|node| self.is_outdated(*node)).collect();
        let node = if !outdated.is_empty() && self.faults.permille(700) {
            outdated[self.faults.index(outdated.len())]
        } else {
            self.faults.index(self.hosts.len())
        };
        // The cluster must be founded: before that, nobody knows whose disk is whose.
        let founded = self.invariants.decisions() > 0;
        let host = &self.hosts[node];
        let fit = host.machine.is_some() && host.fate == Fate::Sound && self.disks_left > 0;
        if !fit || !founded || self.now < self.truce_until || !self.is_well_known(node) {
            return;
        }
        let old = self.is_outdated(node);
        let waits = !old && self.hosts[node].copy.is_some() && self.faults.permille(700);
        if waits {
            return;
        }
        let how = if old { 2 } else { self.faults.index(2) };
        self.kill(node);
        let host = &mut self.hosts[node];
        match how {
            0 => {
                host.disk.wipe();
                self.see(Sight::DiskWiped);
                self.note(|| format!("the disk of n{node} is emptied"));
            }
            1 => {
                let Some(what) = host.disk.rot(&mut self.faults) else {
                    return self.at(self.now + 10 * MS, Event::Start { node });
                };
                self.see(Sight::DiskRotten);
                self.note(|| format!("n{node}: {what} is inverted"));
            }
            _ => {
                let copy = host.copy.take().expect("looked at above");
                host.disk.restore(copy.files);
                self.see(Sight::DiskOld);
                let at = copy.made_at / MS;
                self.note(|| format!("n{node} gets back its disk as it was at {at} ms"));
            }
        }
        self.hosts[node].fate = Fate::Doubtful;
        self.disks_left -= 1;
        self.truce_until = self.now + TRUCE_US;
        for host in &mut self.hosts {
            host.disk.heal();
            host.full_until = 0;
        }
        let down = self.faults.between(MS, 200 * MS);
        self.at(self.now + down, Event::Start { node });
    }

    /// A node is rebuilt on an empty disk, which takes a change of the voters; meanwhile another node hears nothing
    /// and misses entries. One at a time: all others must be whole.
    fn replacement(&mut self) {
        let n = self.hosts.len();
        let is_whole = |host: &Host| {
            let report = host.machine.as_ref().map(|machine| machine.node.report());
            report.is_some_and(|report| !report.joining && report.serving)
        };
        if self.now < self.truce_until || !self.hosts.iter().all(is_whole) {
            return;
        }
        let (lost, behind) = self.pair();
        let long = self.faults.between(100 * MS, 700 * MS);
        for from in (0..n).filter(|from| *from != behind && *from != lost) {
            self.hold(from, behind, long);
            self.lose_link(from, behind, self.now + long);
        }
        self.kill(lost);
        self.rebuild(lost);
        let down = self.faults.between(MS, 50 * MS);
        self.at(self.now + down, Event::Start { node: lost });
    }

    /// Whether there is a copy of a node's disk that is old enough to be known for it: the node has started again
    /// since, or has told of votes since that the copy lacks. (A copy of the same start that lacks nothing but a
    /// promise cannot be told from the truth by anybody.)
    fn is_outdated(&self, node: usize) -> bool {
        let host = &self.hosts[node];
        let (Some(copy), Some(machine)) = (&host.copy, &host.machine) else { return false };
        let report = machine.node.report();
        let told = copy.told_at.is_some_and(|at| self.now > at + (SUSPICION_MS + 50) * MS);
        copy.incarnation < host.incarnation || (told && copy.view == report.view && !report.sealed)
    }

    /// Whether all others run and have heard this node's present process.
    fn is_well_known(&mut self, node: usize) -> bool {
        (0..self.hosts.len()).filter(|other| *other != node).all(|other| {
            let up = self.hosts[other].machine.is_some() && self.hosts[other].paused_until <= self.now;
            let hears = self.hosts[other]
                .machine
                .as_ref()
                .is_some_and(|m| m.node.report().hears.contains(Self::node(node)));
            let now = self.now;
            // What it said last has arrived, too: those who wake from a pause hear a node whose connection to them is
            // yet to be made anew.
            let speaks = self.link(node, other).connection != 0
                && self.link(node, other).last_arrival + SPOKEN_WITHIN_US > now;
            let is_slow = |link: &Link| link.slow.0 > 0 && link.slow.1 + TRUCE_US > now;
            let is_open = |link: &Link| link.stalled_until <= now && !is_slow(link);
            let open = is_open(self.link(node, other)) && is_open(self.link(other, node));
            up && hears && speaks && open
        })
    }

    // ---- the calm ----

    /// The storm is over: everything heals, but for what the plan leaves broken.
    pub(super) fn calm(&mut self) {
        self.storm_over = true;
        self.calm_since = self.now;
        self.note(|| "the storm is over".into());
        let n = self.hosts.len();
        // Every member is needed once, to found the cluster.
        let founded = self.invariants.decisions() > 0;
        let spare = (n - 1) / 2;
        let mut left = spare.saturating_sub(n - self.sound().count());
        let damage = self.plan.damage.clone();
        let mut doomed = Vec::new();
        for fate in [(damage.dead, true), (damage.isolated, false)] {
            for _ in 0..fate.0.min(left) {
                let sound: Vec<usize> =
                    self.sound().filter(|node| !doomed.iter().any(|(d, _)| d == node)).collect();
                if founded && !sound.is_empty() {
                    doomed.push((sound[self.faults.index(sound.len())], fate.1));
                }
            }
            left -= fate.0.min(left);
        }
        let (senders, passive) = self.senders_and_others();
        let apart = self.apart(&senders, &passive);
        for node in 0..n {
            let host = &mut self.hosts[node];
            host.paused_until = 0;
            host.slow_turns = (0, 0);
            host.slow_disk_until = 0;
            host.full_until = 0;
            host.restarts = 0;
            host.disk.heal();
        }
        for link in &mut self.links {
            link.stalled_until = 0;
            link.slow = (0, 0);
        }
        for (node, dead) in &doomed {
            let node = *node;
            self.note(|| format!("n{node} {}", if *dead { "stays dead" } else { "stays cut off" }));
            self.hosts[node].fate = Fate::Gone;
            if *dead {
                self.kill(node);
            } else {
                for other in (0..n).filter(|other| *other != node) {
                    self.break_for_good(node, other);
                }
            }
        }
        for node in 0..n {
            self.at(self.now, Event::Start { node });
            self.wake(node, self.now);
        }
        if damage.apart
            && let (Some(apart), &[first, second], true) = (apart, &senders[..], passive.len() == 3)
        {
            self.see(Sight::PassiveForGood);
            let others: Vec<usize> = passive.into_iter().filter(|node| *node != apart).collect();
            for (a, b) in [(apart, first), (apart, second), (others[0], first), (others[1], second)] {
                self.break_for_good(a, b);
            }
        }
        if damage.link && n >= 3 && self.sound().count() == n {
            let (from, to) = self.pair();
            self.break_for_good(from, to);
        }
    }

    fn break_for_good(&mut self, a: usize, b: usize) {
        self.note(|| format!("n{a} and n{b} never reach each other again"));
        for (from, to) in [(a, b), (b, a)] {
            self.link(from, to).dead = true;
            self.disconnect(from, to);
            let boot = self.hosts[from].boot;
            self.at(self.now, Event::Dial { from, to, boot });
        }
    }
}
