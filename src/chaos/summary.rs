//! What is said at the end of a run.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::plan::Fault;
use super::proxy::Flips;

/// How many answers of watchers, groups of keys, and so on there were, and what was wrong.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// What must not have happened; empty after a good run.
    pub violations: Vec<String>,
    /// Where logs, data and events are, unless they were removed.
    pub kept: Option<PathBuf>,
    /// Whether it was ended before its time.
    pub interrupted: bool,
    /// Operations that were answered.
    pub answered: u64,
    /// Operations of which nobody knows.
    pub unknown: u64,
    /// Operations that were certainly not applied.
    pub refused: u64,
    /// Local reads.
    pub local_reads: u64,
    /// Groups of keys that were checked for linearizability.
    pub groups: usize,
    /// Groups that were too much for that.
    pub gave_up: usize,
    /// How many episodes of each kind of fault there were, and how many actions in them.
    pub episodes: BTreeMap<Fault, (u64, u64)>,
    /// How often processes were started.
    pub starts: u64,
    /// How long it took a started node to serve, sorted.
    pub start_times: Vec<Duration>,
    /// Bits changed on links.
    pub flips: Flips,
    /// The longest time without an answered write while a majority was connected, and when it began.
    pub longest_gap: (Duration, Duration),
    /// From the last heal until every node served and had answered a write; `None`: it never came to that.
    pub recovery: Option<Duration>,
    /// How long the clients' part took.
    pub length: Duration,
    /// How long judging took.
    pub judged_in: Duration,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.length.as_secs_f64().max(0.001);
        let rate = f64::from(u32::try_from(self.answered).unwrap_or(u32::MAX)) / seconds;
        writeln!(
            f,
            "operations   {} answered ({rate:.0} per second), {} unknown, {} refused, {} local reads",
            self.answered, self.unknown, self.refused, self.local_reads
        )?;
        write!(f, "faults      ")?;
        for (fault, (episodes, actions)) in &self.episodes {
            write!(f, " {fault} {episodes}")?;
            if actions > episodes {
                write!(f, " ({actions})")?;
            }
        }
        let total: u64 = self.episodes.values().map(|(episodes, _)| episodes).sum();
        writeln!(f, "; {total} in all")?;
        let middle = self.start_times.get(self.start_times.len() / 2).copied().unwrap_or_default();
        let last = self.start_times.last().copied().unwrap_or_default();
        writeln!(
            f,
            "processes    {} started, ready after {middle:.1?} (median), {last:.1?} (longest)",
            self.starts
        )?;
        let Flips { made, noticed, moot, .. } = self.flips;
        writeln!(
            f,
            "bits         {made} changed on links: {noticed} noticed, {moot} on connections that broke anyway"
        )?;
        let (gap, at) = self.longest_gap;
        writeln!(
            f,
            "longest gap  {gap:.1?} without an answered write while a majority was connected, at {:.1} s",
            at.as_secs_f64()
        )?;
        match self.recovery {
            Some(recovery) => {
                writeln!(f, "recovery     {recovery:.1?} from the last heal until every node wrote")?
            }
            None => writeln!(f, "recovery     never")?,
        }
        writeln!(
            f,
            "checked      {} groups of keys in {:.1?}, {} of them given up",
            self.groups, self.judged_in, self.gave_up
        )
    }
}
