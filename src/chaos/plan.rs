//! What will go wrong and when: a list of steps drawn from a seed before anything is started.
//!
//! Two tracks run side by side: one does things to processes, the other to links, each one episode after
//! the other with calm in between. An episode breaks something and heals it, so that from the end of the last one on
//! everything is well; whatever several episodes break together, each majority comes back. The plan is
//! pure: the same seed, the same plan. What the cluster makes of it differs from run to run, since processes and
//! sockets have their own timing.

use std::fmt;
use std::time::Duration;

use crate::sim::Random;

use super::proxy::Mode;

/// A kind of fault.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fault {
    /// kill -9 of a minority, and restarts.
    Kill,
    /// One node killed again and again while it starts.
    Storm,
    /// kill -9 of all nodes at once; they return one after the other.
    KillAll,
    /// All killed; one returns alone, the others later.
    Alone,
    /// SIGTERM, a polite leave, and a restart.
    Term,
    /// SIGSTOP, and SIGCONT.
    Pause,
    /// The link between two nodes is cut.
    Cut,
    /// Nothing passes from one node to another, without a word.
    Silence,
    /// A partition into two parts.
    Halves,
    /// One node can reach nobody, or is not heard.
    Isolate,
    /// Links are late.
    Delay,
    /// Links are slow.
    Slow,
    /// Connections end in the middle of a frame.
    Tear,
    /// Connections are reset.
    Reset,
    /// Bits of frames are changed.
    Flip,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 15] = [
        Fault::Kill,
        Fault::Storm,
        Fault::KillAll,
        Fault::Alone,
        Fault::Term,
        Fault::Pause,
        Fault::Cut,
        Fault::Silence,
        Fault::Halves,
        Fault::Isolate,
        Fault::Delay,
        Fault::Slow,
        Fault::Tear,
        Fault::Reset,
        Fault::Flip,
    ];

    /// What the command line calls it.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Kill => "kill",
            Fault::Storm => "storm",
            Fault::KillAll => "killall",
            Fault::Alone => "alone",
            Fault::Term => "term",
            Fault::Pause => "pause",
            Fault::Cut => "cut",
            Fault::Silence => "silence",
            Fault::Halves => "halves",
            Fault::Isolate => "isolate",
            Fault::Delay => "delay",
            Fault::Slow => "slow",
            Fault::Tear => "tear",
            Fault::Reset => "reset",
            Fault::Flip => "flip",
        }
    }

    /// The one with this name.
    pub fn from_name(name: &str) -> Option<Fault> {
        Fault::ALL.into_iter().find(|fault| fault.name() == name)
    }

    fn is_of_processes(self) -> bool {
        self <= Fault::Pause
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One direction of the connection between two nodes: from the first to the second.
pub type Direction = (usize, usize);

/// Something that is done to the cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// SIGKILL.
    Kill(usize),
    /// SIGTERM.
    Term(usize),
    /// Starts the process, as soon as an earlier one has ended.
    Start(usize),
    /// SIGSTOP.
    Pause(usize),
    /// SIGCONT.
    Resume(usize),
    /// From now on these links do this.
    Set(Vec<Direction>, Mode),
    /// Connections of these links end after so many more bytes.
    Tear(Vec<Direction>, u64),
    /// Connections of these links are reset.
    Reset(Vec<Direction>),
    /// This bit of the byte after so many more is changed.
    Flip(Direction, u64, u8),
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let links = |f: &mut fmt::Formatter<'_>, links: &[Direction]| {
            links.iter().try_for_each(|(from, to)| write!(f, " {from}->{to}"))
        };
        match self {
            Action::Kill(node) => write!(f, "kill -9 node {node}"),
            Action::Term(node) => write!(f, "SIGTERM node {node}"),
            Action::Start(node) => write!(f, "start node {node}"),
            Action::Pause(node) => write!(f, "SIGSTOP node {node}"),
            Action::Resume(node) => write!(f, "SIGCONT node {node}"),
            Action::Set(directions, mode) => {
                match mode {
                    Mode::Open => f.write_str("heal")?,
                    Mode::Cut => f.write_str("cut")?,
                    Mode::Silent => f.write_str("silence")?,
                    Mode::Delay(delay) => write!(f, "delay of {delay:?} on")?,
                    Mode::Slow(rate) => write!(f, "{} KiB/s on", rate >> 10)?,
                }
                links(f, directions)
            }
            Action::Tear(directions, bytes) => {
                write!(f, "tear after {bytes} bytes")?;
                links(f, directions)
            }
            Action::Reset(directions) => {
                f.write_str("reset")?;
                links(f, directions)
            }
            Action::Flip((from, to), bytes, bit) => {
                write!(f, "flip bit {bit} after {bytes} bytes {from}->{to}")
            }
        }
    }
}

/// An action with its time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// Since the beginning of the storm.
    pub at: Duration,
    /// To which kind of fault it belongs.
    pub fault: Fault,
    /// Whether it begins an episode of that kind.
    pub begins: bool,
    /// What is done.
    pub action: Action,
}

/// Draws the steps of a storm in the order of their times. At the end of `length` everything is healed.
pub fn draw(seed: u64, nodes: usize, length: Duration, faults: &[Fault]) -> Vec<Step> {
    let (of_processes, of_links): (Vec<Fault>, Vec<Fault>) = faults
        .iter()
        .copied()
        .filter(|fault| nodes > 1 || fault.is_of_processes())
        .partition(|f| f.is_of_processes());
    let mut steps = Vec::new();
    for (purpose, faults) in [(1, of_processes), (2, of_links)] {
        let mut track = Track { random: Random::new(seed, purpose), nodes, at: 0, steps: Vec::new() };
        track.run(&faults, u64::try_from(length.as_millis()).unwrap_or(u64::MAX));
        steps.append(&mut track.steps);
    }
    // Stable: what one track does at one time stays in order.
    steps.sort_by_key(|step| step.at);
    steps
}

/// One episode after the other; times in milliseconds.
struct Track {
    random: Random,
    nodes: usize,
    at: u64,
    steps: Vec<Step>,
}

impl Track {
    fn run(&mut self, faults: &[Fault], end: u64) {
        // Every kind once before any comes twice, in an order of its own each round.
        let mut round: Vec<Fault> = Vec::new();
        while !faults.is_empty() {
            self.at += self.random.between(300, 1_500);
            if round.is_empty() {
                round = faults.to_vec();
            }
            let fault = round.swap_remove(self.random.index(round.len()));
            let (kept, begin) = (self.steps.len(), self.at);
            self.episode(fault);
            self.steps[kept..].sort_by_key(|step| step.at);
            let healed = self.steps[kept..].last().map_or(begin, |step| ms(step.at));
            if healed >= end {
                self.steps.truncate(kept);
                // A shorter one may still fit; after the end none does.
                if begin + 300 >= end {
                    break;
                }
                self.at = begin;
                continue;
            }
            self.steps[kept].begins = true;
            self.at = self.at.max(healed);
        }
    }

    fn step(&mut self, at: u64, fault: Fault, action: Action) {
        self.steps.push(Step { at: Duration::from_millis(at), fault, begins: false, action });
    }

    fn episode(&mut self, fault: Fault) {
        match fault {
            Fault::Kill => {
                for node in self.some_nodes((self.nodes - 1) / 2) {
                    let killed = self.at + self.random.between(0, 300);
                    let down = self.random.between(0, 2_500);
                    self.step(killed, fault, Action::Kill(node));
                    self.step(killed + down, fault, Action::Start(node));
                }
            }
            Fault::Storm => {
                let node = self.random.index(self.nodes);
                let mut at = self.at;
                for _ in 0..self.random.between(3, 8) {
                    self.step(at, fault, Action::Kill(node));
                    self.step(at, fault, Action::Start(node));
                    at += self.random.between(2, 120);
                }
            }
            Fault::KillAll | Fault::Alone => {
                let first = self.random.index(self.nodes);
                let alone = self.random.between(500, 2_000);
                for node in 0..self.nodes {
                    self.step(self.at, fault, Action::Kill(node));
                }
                for node in 0..self.nodes {
                    let down = match fault {
                        Fault::KillAll => self.random.between(0, 800),
                        _ if node == first => 100,
                        _ => 100 + alone + self.random.between(0, 500),
                    };
                    self.step(self.at + down, fault, Action::Start(node));
                }
            }
            Fault::Term => {
                let node = self.random.index(self.nodes);
                let down = self.random.between(0, 2_000);
                self.step(self.at, fault, Action::Term(node));
                self.step(self.at + down, fault, Action::Start(node));
            }
            Fault::Pause => {
                let most = if self.random.permille(200) { self.nodes } else { (self.nodes - 1) / 2 };
                for node in self.some_nodes(most) {
                    let paused = self.at + self.random.between(0, 300);
                    let length = self.random.between(50, 2_500);
                    self.step(paused, fault, Action::Pause(node));
                    self.step(paused + length, fault, Action::Resume(node));
                }
            }
            Fault::Tear | Fault::Reset | Fault::Flip => self.accidents(fault),
            Fault::Cut | Fault::Silence | Fault::Halves | Fault::Isolate | Fault::Delay | Fault::Slow => {
                let breakage = self.breakage(fault);
                let healed = self.at + self.random.between(200, 3_000);
                for (directions, mode) in &breakage {
                    self.step(self.at, fault, Action::Set(directions.clone(), *mode));
                }
                let directions = breakage.into_iter().flat_map(|(directions, _)| directions).collect();
                self.step(healed, fault, Action::Set(directions, Mode::Open));
            }
        }
    }

    /// Things that happen to links in an instant, several in a row.
    fn accidents(&mut self, fault: Fault) {
        let mut at = self.at;
        for _ in 0..self.random.between(1, 8) {
            let (from, to) = self.pair();
            // A frame of a busy node has a few hundred bytes.
            let bytes = self.random.between(0, 2_000);
            let action = match fault {
                Fault::Tear => Action::Tear(vec![(from, to)], bytes),
                Fault::Reset if self.random.permille(500) => Action::Reset(vec![(from, to)]),
                Fault::Reset => Action::Reset(vec![(from, to), (to, from)]),
                _ => {
                    let bit = u8::try_from(self.random.below(8)).expect("below 8");
                    Action::Flip((from, to), bytes, bit)
                }
            };
            self.step(at, fault, action);
            at += self.random.between(20, 500);
        }
    }

    /// Which links a lasting fault breaks, and how.
    fn breakage(&mut self, fault: Fault) -> Vec<(Vec<Direction>, Mode)> {
        let severed = if self.random.permille(500) { Mode::Cut } else { Mode::Silent };
        let (from, to) = self.pair();
        let one = match fault {
            Fault::Cut => (vec![(from, to), (to, from)], Mode::Cut),
            Fault::Silence if self.random.permille(700) => (vec![(from, to)], Mode::Silent),
            Fault::Silence => (vec![(from, to), (to, from)], Mode::Silent),
            Fault::Halves => {
                let part = self.some_nodes(self.nodes - 1);
                (self.links_where(|a, b| part.contains(&a) != part.contains(&b)), severed)
            }
            // Some of those who are cut off hear, but are not heard.
            Fault::Isolate if self.random.permille(300) => (self.links_where(|a, _| a == from), severed),
            Fault::Isolate => (self.links_where(|a, b| a == from || b == from), severed),
            Fault::Delay => {
                // Each link its own, so that what was sent first may arrive last.
                let links = self.some_links(from);
                let delayed =
                    |link| (vec![link], Mode::Delay(Duration::from_millis(self.random.between(1, 150))));
                return links.into_iter().map(delayed).collect();
            }
            _ => {
                let rate = u32::try_from(self.random.between(4, 64) << 10).expect("a small number");
                (self.some_links(from), Mode::Slow(rate))
            }
        };
        vec![one]
    }

    /// Two different nodes.
    fn pair(&mut self) -> (usize, usize) {
        let from = self.random.index(self.nodes);
        let to = (from + 1 + self.random.index(self.nodes - 1)) % self.nodes;
        (from, to)
    }

    /// From one to `most` different nodes, but always one.
    fn some_nodes(&mut self, most: usize) -> Vec<usize> {
        let mut nodes: Vec<usize> = (0..self.nodes).collect();
        let count = 1 + self.random.index(most.max(1));
        (0..count).map(|_| nodes.swap_remove(self.random.index(nodes.len()))).collect()
    }

    /// One link, those of one node, or all.
    fn some_links(&mut self, node: usize) -> Vec<Direction> {
        let other = (node + 1) % self.nodes;
        match self.random.below(3) {
            0 => vec![(node, other)],
            1 => self.links_where(|a, b| a == node || b == node),
            _ => self.links_where(|_, _| true),
        }
    }

    fn links_where(&self, chosen: impl Fn(usize, usize) -> bool) -> Vec<Direction> {
        let pairs = (0..self.nodes).flat_map(|from| (0..self.nodes).map(move |to| (from, to)));
        pairs.filter(|(from, to)| from != to && chosen(*from, *to)).collect()
    }
}

fn ms(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_seed_is_a_plan_and_everything_heals() {
        for seed in 0..200 {
            let nodes = 3 + 2 * usize::try_from(seed % 2).unwrap();
            let length = Duration::from_secs(30);
            let steps = draw(seed, nodes, length, &Fault::ALL);
            assert_eq!(steps, draw(seed, nodes, length, &Fault::ALL));
            assert_ne!(steps, draw(seed + 1, nodes, length, &Fault::ALL));
            assert!(steps.is_sorted_by_key(|step| step.at) && steps.last().unwrap().at < length);
            let (mut up, mut paused) = (vec![true; nodes], vec![false; nodes]);
            let mut modes: BTreeMap<Direction, Mode> = BTreeMap::new();
            for step in &steps {
                match &step.action {
                    Action::Kill(node) | Action::Term(node) => up[*node] = false,
                    Action::Start(node) => {
                        assert!(!up[*node], "started twice: {step:?}");
                        up[*node] = true;
                    }
                    Action::Pause(node) => paused[*node] = true,
                    Action::Resume(node) => paused[*node] = false,
                    Action::Set(links, mode) => {
                        assert!(!links.is_empty() && links.iter().all(|(a, b)| a != b && *a.max(b) < nodes));
                        modes.extend(links.iter().map(|link| (*link, *mode)));
                    }
                    Action::Tear(links, _) | Action::Reset(links) => assert!(!links.is_empty()),
                    Action::Flip((from, to), ..) => assert_ne!(from, to),
                }
                assert!(step.at > Duration::ZERO);
            }
            assert!(up.iter().all(|up| *up) && paused.iter().all(|paused| !paused), "seed {seed}");
            assert!(modes.values().all(|mode| *mode == Mode::Open), "seed {seed}");
        }
    }

    #[test]
    fn only_the_faults_asked_for_and_all_of_them() {
        let length = Duration::from_secs(120);
        for fault in Fault::ALL {
            let steps = draw(1, 3, length, &[fault]);
            assert!(steps.len() > 20 && steps.iter().all(|step| step.fault == fault), "{fault}");
            assert_eq!(Fault::from_name(fault.name()), Some(fault));
        }
        let all = draw(1, 3, length, &Fault::ALL);
        for fault in Fault::ALL {
            assert!(all.iter().any(|step| step.fault == fault && step.begins), "{fault}");
        }
        assert!(draw(1, 3, length, &[]).is_empty());
    }

    #[test]
    fn one_node_has_no_links_to_break() {
        let steps = draw(3, 1, Duration::from_secs(60), &Fault::ALL);
        assert!(!steps.is_empty() && steps.iter().all(|step| step.fault.is_of_processes()));
    }
}
