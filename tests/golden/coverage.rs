//! What the scripts have met: kinds of messages, reasons for a refusal, and the core's own marks.
//!
//! A script that stops reaching what it was written for still runs as written. So everything that a replica can be
//! told, and every rare situation that it counts, must come up in some script; [`EXCEPTIONS`] says of what that
//! cannot be asked, and why.

use std::collections::BTreeMap;
use std::fmt;

use lanekv::protocol::{Mark, Marks, Message, Refusal};

/// What no script can reach, with the reason. One that is reached after all is to be struck off.
pub(crate) const EXCEPTIONS: &[(&str, &str)] = &[
    ("SnapshotAsk", "a question for a file: the node around the core answers it"),
    ("SnapshotBlocks", "pieces of a file: the node around the core stores them"),
];

/// Writes a function that names the variants of an enum, and the list of the names: the compiler asks for new ones.
macro_rules! kinds {
    ($all:ident, $kind_of:ident, $Enum:ident: $($name:ident)+) => {
        const $all: &[&str] = &[$(stringify!($name)),+];

        fn $kind_of(what: &$Enum) -> &'static str {
            match what {
                $($Enum::$name { .. } => stringify!($name),)+
            }
        }
    };
}

kinds! {
    MESSAGES, kind_of_message, Message:
    Append Status Resend CatchUp Fill SealPrepare SealPromise SealReject SealAccept SealAccepted NewView ViewRequest
    Forward Refused ReadProbe ReadAnswer SnapshotOffer SnapshotAsk SnapshotBlocks
}

kinds! {
    REFUSALS, kind_of_refusal, Refusal:
    Protocol WrongNode NotMember OtherCluster OtherMembers OtherDisk OldIncarnation Clone InUse
}

/// How often everything came up: in one script, or where it came up in all of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Coverage {
    hellos: u64,
    messages: BTreeMap<&'static str, u64>,
    refusals: BTreeMap<&'static str, u64>,
    marks: Marks,
}

impl Coverage {
    /// A hello was said.
    pub(crate) fn hello(&mut self) {
        self.hellos += 1;
    }

    /// A hello was refused.
    pub(crate) fn refusal(&mut self, refusal: &Refusal) {
        *self.refusals.entry(kind_of_refusal(refusal)).or_default() += 1;
    }

    /// A replica has got a message.
    pub(crate) fn message(&mut self, message: &Message) {
        *self.messages.entry(kind_of_message(message)).or_default() += 1;
    }

    /// A process has counted these.
    pub(crate) fn marks(&mut self, marks: &Marks) {
        self.marks.add(marks);
    }

    /// Everything there is, with how often it came up, in groups.
    fn counts(&self) -> Vec<(&'static str, &'static str, u64)> {
        let of = |map: &BTreeMap<&str, u64>, kind: &str| map.get(kind).copied().unwrap_or(0);
        let hellos =
            [("message", "Hello", self.hellos), ("message", "Refusal", self.refusals.values().sum())];
        let messages = MESSAGES.iter().map(|kind| ("message", *kind, of(&self.messages, kind)));
        let refusals = REFUSALS.iter().map(|kind| ("refused", *kind, of(&self.refusals, kind)));
        let marks = Mark::ALL.iter().map(|mark| ("mark", mark.text(), self.marks.count(*mark)));
        hellos.into_iter().chain(messages).chain(refusals).chain(marks).collect()
    }
}

/// Where everything came up.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// In the order of [`Coverage::counts`]: how often, and in which scripts.
    rows: Vec<(&'static str, &'static str, u64, Vec<String>)>,
}

impl Table {
    /// No script was run yet.
    pub(crate) fn new() -> Table {
        let rows = Coverage::default().counts().into_iter();
        Table { rows: rows.map(|(group, name, count)| (group, name, count, Vec::new())).collect() }
    }

    /// Adds what a script has met.
    pub(crate) fn add(&mut self, script: &str, coverage: &Coverage) {
        for ((_, _, sum, scripts), (_, _, count)) in self.rows.iter_mut().zip(coverage.counts()) {
            *sum += count;
            if count > 0 {
                scripts.push(script.to_owned());
            }
        }
    }

    /// What never came up and has no excuse, and what came up in spite of one.
    pub(crate) fn faults(&self) -> Vec<String> {
        let excused = |name: &str| EXCEPTIONS.iter().any(|(exception, _)| *exception == name);
        let rows = self.rows.iter().filter(|(_, name, count, _)| (*count == 0) != excused(name));
        let mut faults: Vec<String> = rows
            .map(|(group, name, count, _)| match count {
                0 => format!("{group} \"{name}\" comes up in no script"),
                _ => format!("{group} \"{name}\" is excused, but comes up"),
            })
            .collect();
        let known = |name: &str| self.rows.iter().any(|(_, row, ..)| *row == name);
        let unknown = EXCEPTIONS.iter().filter(|(name, _)| !known(name));
        faults.extend(unknown.map(|(name, _)| format!("\"{name}\" is excused, but there is no such thing")));
        faults
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// More scripts are not listed by name.
        const NAMED_MAX: usize = 3;
        for (group, name, count, scripts) in &self.rows {
            let more = if scripts.len() > NAMED_MAX { ", …" } else { "" };
            let some = scripts[..scripts.len().min(NAMED_MAX)].join(", ");
            writeln!(f, "{group:<8}{count:>7} times in {:>2} scripts  {name}: {some}{more}", scripts.len())?;
        }
        EXCEPTIONS.iter().try_for_each(|(name, reason)| writeln!(f, "excused {name}: {reason}"))
    }
}
