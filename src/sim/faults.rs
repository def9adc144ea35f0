//! The storm: crashes, broken and silent connections, pauses, slow disks. And the calm after it.

use crate::node::NodeInput;

use super::world::{Event, MS, World};

impl World {
    pub(super) fn fault(&mut self) {
        if self.storm_over {
            return;
        }
        self.at(self.now + 100 * MS, Event::Fault);
        let n = self.hosts.len();
        let plan = self.plan.clone();
        if self.faults.permille(plan.crash) {
            let node = self.faults.index(n);
            self.crash(node);
            let down = [MS, 50 * MS, 500 * MS, 3_000 * MS][self.faults.index(4)];
            let down = self.faults.between(MS / 2, down);
            self.at(self.now + down, Event::Start { node });
        }
        if self.faults.permille(plan.crash_all) {
            for node in 0..n {
                self.crash(node);
                let down = self.faults.between(MS, 500 * MS);
                self.at(self.now + down, Event::Start { node });
            }
        }
        if n > 1 && self.faults.permille(plan.cut) {
            let (from, to) = self.pair();
            if self.hosts[from].machine.is_some() && self.hosts[to].machine.is_some() {
                self.note(|| format!("the connection n{from} -> n{to} breaks"));
                self.cut(from, to);
            }
        }
        if n > 1 && self.faults.permille(plan.stall) {
            let (from, to) = self.pair();
            let both = self.faults.permille(500);
            let long = self.faults.between(MS, 2_000 * MS);
            self.stall(from, to, long);
            if both {
                self.stall(to, from, long);
            }
        }
        if n > 1 && self.faults.permille(plan.partition) {
            let side = self.faults.below(1 << n);
            let long = self.faults.between(100 * MS, 3_000 * MS);
            let one_way = self.faults.permille(200);
            for a in 0..n {
                for b in 0..n {
                    let (in_a, in_b) = (side >> a & 1, side >> b & 1);
                    if in_a != in_b && (!one_way || in_a == 1) {
                        self.stall(a, b, long);
                    }
                }
            }
        }
        if self.faults.permille(plan.pause) {
            let node = self.faults.index(n);
            let long = self.faults.between(MS, 2_000 * MS);
            self.note(|| format!("n{node} stands still for {} ms", long / MS));
            self.hosts[node].paused_until = self.now + long;
        }
        if self.faults.permille(plan.slow_disk) {
            let node = self.faults.index(n);
            let long = self.faults.between(100 * MS, 3_000 * MS);
            self.note(|| format!("the disk of n{node} takes {} ms", long / MS));
            self.hosts[node].slow_until = self.now + long;
        }
        if self.faults.permille(plan.leave) {
            let node = self.faults.index(n);
            if self.hosts[node].machine.is_some() {
                self.note(|| format!("n{node} asks to leave"));
                self.hosts[node].inbox.push(NodeInput::Leave);
                self.wake(node, self.now);
                // It stops when it has answered what it had, or has waited long enough; then it is started again.
                let patience = self.faults.between(10 * MS, 3_000 * MS);
                let down = self.faults.between(MS, 500 * MS);
                let boot = self.hosts[node].boot;
                self.at(self.now + patience, Event::Crash { node, boot, down });
            }
        }
    }

    pub(super) fn pair(&mut self) -> (usize, usize) {
        let n = self.hosts.len();
        let from = self.faults.index(n);
        (from, (from + 1 + self.faults.index(n - 1)) % n)
    }

    pub(super) fn stall(&mut self, from: usize, to: usize, long: u64) {
        self.note(|| format!("nothing goes from n{from} to n{to} for {} ms", long / MS));
        let until = self.now + long;
        let link = self.link(from, to);
        link.stalled_until = link.stalled_until.max(until);
        self.at(until, Event::Heal { from, to });
        // Some break when nothing is acknowledged for long.
        if long > 500 * MS && self.faults.permille(500) {
            self.link(from, to).connection = 0;
            let boot = self.hosts[from].boot;
            self.at(until, Event::Dial { from, to, boot });
            if self.hosts[from].machine.is_some() {
                self.hosts[from].inbox.push(NodeInput::LinkDown(Self::node(to)));
                self.wake(from, self.now);
            }
        }
    }

    /// The storm is over: everything heals, but for what the plan leaves broken.
    pub(super) fn calm(&mut self) {
        self.storm_over = true;
        self.note(|| "the storm is over".into());
        let n = self.hosts.len();
        // Every member is needed once, to found the cluster.
        let founded = self.checker.decisions() > 0;
        let dead = (self.plan.leave_one_dead && founded).then(|| self.faults.index(n));
        for node in 0..n {
            self.hosts[node].paused_until = 0;
            self.hosts[node].slow_until = 0;
            if Some(node) == dead {
                self.crash(node);
                self.hosts[node].halted = true;
            } else {
                self.at(self.now, Event::Start { node });
                self.wake(node, self.now);
            }
        }
        for link in &mut self.links {
            link.stalled_until = 0;
        }
        if self.plan.leave_one_link && dead.is_none() {
            let (from, to) = self.pair();
            self.note(|| format!("n{from} and n{to} never reach each other again"));
            self.link(from, to).dead = true;
            self.link(to, from).dead = true;
            self.link(from, to).connection = 0;
            self.link(to, from).connection = 0;
            for (a, b) in [(from, to), (to, from)] {
                let boot = self.hosts[a].boot;
                self.at(self.now, Event::Dial { from: a, to: b, boot });
            }
        }
    }
}
