//! Snapshots in the world of the scripts: no files, only what the core says about one.

use lanekv::protocol::{Base, BaseParts, Input, Recovery, Settings};
use lanekv::types::{Incarnation, Lsn};

use super::{Outcome, World, forgery};

/// A node keeps the newest and the one before.
const KEPT: usize = 2;

/// A snapshot on a node's disk.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    base: Base,
    /// With it a start needs the log from this record on.
    log_from: Lsn,
    /// Whose start wrote it.
    incarnation: Incarnation,
    /// The state.
    pub(super) applied: Vec<String>,
}

impl Snapshot {
    /// A start that goes on from it.
    pub(super) fn recovery(&self, settings: &Settings) -> Recovery {
        Recovery::from_base(settings, self.base.clone(), self.log_from, self.incarnation)
    }

    /// So many records of the log are removed.
    pub(super) fn skipped(&self) -> usize {
        usize::try_from(self.log_from.0 - 1).expect("a handful of records")
    }

    /// From where a start goes on.
    pub(super) fn origin(&self) -> String {
        format!(" from its snapshot of {} and record {} on", self.base.position, self.log_from)
    }
}

impl World {
    /// A snapshot of what a node has delivered. It counts at once: the log must be durable up to where it goes on.
    pub(crate) fn snapshot(&mut self, node: usize) -> Outcome {
        let host = &mut self.hosts[node];
        let Some(replica) = &host.replica else { return Err(format!("n{node} is not running")) };
        let base = replica.base();
        let incarnation = replica.hello(Self::id(node)).incarnation;
        let log_from = replica.log_from(&base);
        let taken =
            Snapshot { base: through_bytes(&base)?, log_from, incarnation, applied: host.applied.clone() };
        let (index, position) = (base.index, base.position);
        self.keep(node, taken)?;
        let text = format!("n{node} takes a snapshot index={index} of {position}, log from {log_from}");
        self.line("takes", text);
        Ok(())
    }

    /// A snapshot that is published.
    fn keep(&mut self, node: usize, snapshot: Snapshot) -> Outcome {
        let host = &mut self.hosts[node];
        if host.durable < snapshot.skipped() {
            return Err(format!("the log of n{node} is durable up to {} only", host.durable));
        }
        host.snapshots.insert(0, snapshot);
        host.snapshots.truncate(KEPT);
        Ok(())
    }

    /// The newest snapshot of a node cannot be read any more.
    pub(crate) fn spoil(&mut self, node: usize) -> Outcome {
        if self.hosts[node].snapshots.is_empty() {
            return Err(format!("n{node} has no snapshot"));
        }
        self.hosts[node].snapshots.remove(0);
        Ok(())
    }

    /// What a node does with the newest snapshot of another once all of it is on its own disk. It may be disguised.
    pub(crate) fn install(&mut self, node: usize, from: usize, disguise: &[&str]) -> Outcome {
        let newest = self.hosts[from].snapshots.first().cloned();
        let Snapshot { mut base, applied, .. } = newest.ok_or_else(|| format!("n{from} has no snapshot"))?;
        forgery::disguise_base(&mut base, disguise)?;
        let base = through_bytes(&base)?;
        let now = self.clock();
        let host = &mut self.hosts[node];
        let Some(replica) = &mut host.replica else { return Err(format!("n{node} is not running")) };
        let incarnation = replica.hello(Self::id(node)).incarnation;
        let log_from = replica.log_from(&base);
        let at = base.position;
        let mut out = Vec::new();
        if replica.install(now.mono, &base, &mut out) {
            host.applied.clone_from(&applied);
            // With the log that is here, older ones are of no use.
            host.snapshots.clear();
            self.keep(node, Snapshot { base, log_from, incarnation, applied })?;
            self.line(
                "installs",
                format!("n{node} installs n{from}'s snapshot of {at}, log from {log_from}"),
            );
        } else {
            self.line("installs", format!("n{node} does not take n{from}'s snapshot of {at}"));
        }
        out.into_iter().for_each(|output| self.carry_out(node, output));
        self.turn(node, [Input::Tick]);
        Ok(())
    }
}

/// What a base is after it was in a file.
fn through_bytes(base: &Base) -> Outcome<Base> {
    let parts: BaseParts = base.parts();
    let read = Base::from_parts(base.cluster, base.index, base.position, base.time, base.digest, &parts);
    let read = read.map_err(|error| format!("the snapshot makes no sense: {error}"))?;
    assert_eq!(read, *base, "a base comes back as it was");
    Ok(read)
}
