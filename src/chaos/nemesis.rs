//! Carries a plan out: does to processes and links what its steps say, when they say it, and writes down when.
//!
//! In between it looks at the processes, at the connections with changed bits, and prints how far everything
//! is. What the nodes are and whom they reach at each moment is remembered as a [`Timeline`].

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::clients::{Board, seconds};
use super::cluster::{Cluster, Event};
use super::plan::{Action, Fault, Step};
use super::proxy::Mode;
use super::timeline::{Health, Timeline};

/// How often the processes are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);
const PROGRESS_EVERY: Duration = Duration::from_secs(5);
/// A changed bit must have closed its connection after so long. A node that is paused, or a link that is silent, has
/// that much to catch up.
const FLIP_NOTICED_MAX: Duration = Duration::from_secs(10);

/// The one who breaks things.
pub(crate) struct Nemesis<'a> {
    pub(crate) cluster: Cluster,
    pub(crate) timeline: Timeline,
    /// How many episodes of each kind there were, and how many actions in them.
    pub(crate) episodes: BTreeMap<Fault, (u64, u64)>,
    /// How long restarts took until the node served.
    pub(crate) starts: Vec<Duration>,
    health: Health,
    board: &'a Board,
    interrupted: &'a AtomicBool,
    events: File,
    last_progress: Instant,
    flips_blamed: bool,
}

impl<'a> Nemesis<'a> {
    /// What it does goes into this file.
    pub(crate) fn new(
        cluster: Cluster,
        board: &'a Board,
        interrupted: &'a AtomicBool,
        events: &Path,
    ) -> io::Result<Nemesis<'a>> {
        Ok(Nemesis {
            health: Health::new(cluster.len()),
            cluster,
            timeline: Timeline::default(),
            episodes: BTreeMap::new(),
            starts: Vec::new(),
            board,
            interrupted,
            events: File::create(events)?,
            last_progress: Instant::now(),
            flips_blamed: false,
        })
    }

    /// Writes a line with its time into the file of events.
    pub(crate) fn tell(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.events, "{:9.3}  {text}", seconds(self.board.now()))
    }

    /// Carries the steps out and goes on for `length`. Ends early when interrupted, or when something that must not
    /// happen has happened: what comes after would only hide it.
    pub(crate) fn storm(&mut self, steps: &[Step], length: Duration) -> io::Result<()> {
        let begin = Instant::now();
        let mut steps = steps.iter();
        let mut next = steps.next();
        while begin.elapsed() < length && self.board.is_calm() && !self.is_interrupted() {
            while let Some(step) = next.filter(|step| step.at <= begin.elapsed()) {
                self.act(step)?;
                next = steps.next();
            }
            self.look()?;
            let wait = next.map_or(LOOK_EVERY, |step| step.at.saturating_sub(begin.elapsed()));
            thread::sleep(wait.min(LOOK_EVERY));
        }
        Ok(())
    }

    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::SeqCst)
    }

    /// Ends whatever is still broken.
    pub(crate) fn heal(&mut self) -> io::Result<()> {
        self.cluster.heal()?;
        for from in 0..self.cluster.len() {
            for to in (0..self.cluster.len()).filter(|to| *to != from) {
                self.health.set_link(from, to, true);
            }
        }
        self.note_health();
        self.tell("all healed")
    }

    /// Looks until the condition holds; says whether it did in time. Something that must not happen ends the waiting.
    pub(crate) fn wait(
        &mut self,
        within: Duration,
        mut condition: impl FnMut(&mut Cluster) -> bool,
    ) -> io::Result<bool> {
        let (begin, complaints) = (Instant::now(), self.board.complaints().len());
        loop {
            self.look()?;
            if condition(&mut self.cluster) {
                return Ok(true);
            }
            if begin.elapsed() >= within || self.board.complaints().len() > complaints {
                return Ok(false);
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    fn act(&mut self, step: &Step) -> io::Result<()> {
        let (episodes, actions) = self.episodes.entry(step.fault).or_default();
        *episodes += u64::from(step.begins);
        *actions += 1;
        self.tell(&format!("{}: {}", step.fault, step.action))?;
        match &step.action {
            Action::Kill(node) => self.cluster.kill(*node),
            Action::Term(node) => self.cluster.term(*node),
            Action::Start(node) => self.cluster.start(*node)?,
            Action::Pause(node) => self.cluster.pause(*node),
            Action::Resume(node) => self.cluster.resume(*node),
            Action::Set(links, mode) => {
                for (from, to) in links {
                    self.cluster.proxy(*from, *to).set(*mode);
                    let open = matches!(mode, Mode::Open | Mode::Delay(_));
                    self.health.set_link(*from, *to, open);
                }
            }
            Action::Tear(links, bytes) => {
                links.iter().for_each(|(from, to)| self.cluster.proxy(*from, *to).tear_after(*bytes));
            }
            Action::Reset(links) => {
                links.iter().for_each(|(from, to)| self.cluster.proxy(*from, *to).reset());
            }
            Action::Flip((from, to), bytes, bit) => {
                self.cluster.proxy(*from, *to).flip_after(*bytes, *bit);
            }
        }
        self.note_health();
        Ok(())
    }

    fn note_health(&mut self) {
        for node in 0..self.cluster.len() {
            self.health.set_node(node, self.cluster.is_up(node));
        }
        self.timeline.note(self.board.now(), self.health.has_majority());
    }

    /// Looks at processes and connections, and prints how far everything is when it is time to.
    fn look(&mut self) -> io::Result<()> {
        for event in self.cluster.look()? {
            match event {
                Event::Ready(node, after) => {
                    self.starts.push(after);
                    self.tell(&format!("node {node} ready after {after:.1?}"))?;
                }
                Event::Left(node) => self.tell(&format!("node {node} left"))?,
                Event::Complaint(text) => {
                    self.tell(&text)?;
                    self.board.complain(format!("at {:.3} s: {text}", seconds(self.board.now())));
                }
            }
        }
        self.note_health();
        self.look_at_flips()?;
        if self.last_progress.elapsed() >= PROGRESS_EVERY {
            self.last_progress = Instant::now();
            let (answered, unknown, refused) = self.board.counts();
            let up = (0..self.cluster.len()).filter(|node| self.cluster.is_up(*node)).count();
            eprintln!(
                "{:5.0} s  {answered} answered, {unknown} unknown, {refused} refused, {} faults, {up} of {} nodes up",
                seconds(self.board.now()),
                self.episodes.values().map(|(episodes, _)| episodes).sum::<u64>(),
                self.cluster.len()
            );
        }
        Ok(())
    }

    fn look_at_flips(&mut self) -> io::Result<()> {
        let late = |since: Option<Instant>| since.is_some_and(|since| since.elapsed() > FLIP_NOTICED_MAX);
        let overlooked = self.cluster.proxies().find(|(_, _, proxy)| late(proxy.flips().open_since));
        if let Some((from, to, _)) = overlooked.filter(|_| !self.flips_blamed) {
            let text = format!(
                "a bit was changed on its way from node {from} to node {to}, and the connection is still open \
                 {FLIP_NOTICED_MAX:?} later"
            );
            self.flips_blamed = true;
            self.tell(&text)?;
            self.board.complain(format!("at {:.3} s: {text}", seconds(self.board.now())));
        }
        Ok(())
    }
}
