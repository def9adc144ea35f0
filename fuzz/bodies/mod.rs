//! What is fuzzed: one body for each thing that reads bytes from outside.
//!
//! A body takes any bytes and panics when a property does not hold. It is a pure function of the bytes: whatever it
//! needs besides is made from them or is always the same, so that an input that failed once fails again. The same
//! bodies run under `tests/fuzz.rs`, with that program's mutator, and under libFuzzer in `fuzz/fuzz_targets`.
//!
//! Most formats are sequences: frames, records, steps of a script. [`Parts`] tells a mutator where the parts are
//! and how to make a changed one whole again, so that it gets behind lengths and checksums.

mod batches;
mod config;
mod dialect;
mod frames;
mod log;
mod node;
mod peers;
mod replay;
mod script;
mod snapshot;
mod texts;

pub(crate) use script::step;
#[allow(unused_imports, reason = "for the seeds of `tests/fuzz.rs`")]
pub(crate) use snapshot::image;

/// How an input is made of parts.
#[derive(Clone, Copy)]
pub(crate) struct Parts {
    /// Bytes before the first part, which steer the body.
    pub(crate) head_len: usize,
    /// Takes an input apart; joined again the parts are the input.
    pub(crate) split: fn(&[u8]) -> Vec<&[u8]>,
    /// Makes the length and the checksums of a part right again.
    pub(crate) seal: fn(&mut Vec<u8>),
}

/// A body and what a mutator should know about its inputs.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    /// Its name: of the test, of the program in `fuzz_targets`, of the directory in `corpus`.
    pub(crate) name: &'static str,
    /// What it says, in a few words.
    pub(crate) checks: &'static str,
    body: fn(&[u8]),
    /// How many inputs of a cheap target one of this costs.
    pub(crate) cost: u32,
    pub(crate) parts: Option<Parts>,
    /// Words that mean something in its format.
    pub(crate) words: &'static [&'static [u8]],
}

/// For the formats of this project: numbers that stand for something.
const NUMBERS: &[&[u8]] = &[
    &[0, 0, 1, 0],
    &[0, 0, 0, 0x10],
    &[0, 0, 0, 0, 0, 0, 1, 0],
    &[0xff; 8],
    &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[1, 0, 0, 0, 0, 0, 0, 0],
    &[2, 0, 0, 0, 0, 0, 0, 0],
];

/// All of them.
pub(crate) static TARGETS: [Target; 15] = [
    Target {
        name: "batch",
        checks: "batches come back; any commands can be applied, and the digest stays true",
        body: batches::batch,
        cost: 1,
        parts: None,
        words: NUMBERS,
    },
    Target {
        name: "client_payload",
        checks: "requests and responses of the binary dialect come back",
        body: frames::client_payload,
        cost: 1,
        parts: None,
        words: NUMBERS,
    },
    Target {
        name: "config",
        checks: "nodes.conf: every mistake in its line, and a good file means the same in another spelling",
        body: config::config,
        cost: 1,
        parts: Some(texts::LINES),
        words: config::WORDS,
    },
    Target {
        name: "decimal",
        checks: "a number is written in one way only",
        body: texts::decimal,
        cost: 1,
        parts: None,
        words: texts::DIGITS,
    },
    Target {
        name: "dialect",
        checks: "requests do not depend on the pieces they come in; commands run; replies are well formed",
        body: dialect::dialect,
        cost: 1,
        parts: Some(dialect::REQUESTS),
        words: dialect::WORDS,
    },
    Target {
        name: "glob",
        checks: "KEYS against a naive matcher",
        body: texts::glob,
        cost: 1,
        parts: None,
        words: texts::PATTERNS,
    },
    Target {
        name: "identity",
        checks: "IDENTITY and the marker of the weak sync modes: only what was written is read",
        body: log::identity,
        cost: 1,
        parts: None,
        words: NUMBERS,
    },
    Target {
        name: "line",
        checks: "words of a line come back in quotes",
        body: texts::line,
        cost: 1,
        parts: None,
        words: dialect::WORDS,
    },
    Target {
        name: "log",
        checks: "a changed log gives a beginning of what was written, or damage; lost synced records are damage",
        body: log::log,
        cost: 4,
        parts: Some(script::STEERED_PARTS),
        words: NUMBERS,
    },
    Target {
        name: "node_client",
        checks: "a node of its own, and any bytes from clients",
        body: node::client,
        cost: 5,
        parts: Some(script::PARTS),
        words: dialect::WORDS,
    },
    Target {
        name: "node_peer",
        checks: "a node of three, and any messages from peers; what it says and logs can be read",
        body: peers::node_peer,
        cost: 5,
        parts: Some(script::STEERED_PARTS),
        words: NUMBERS,
    },
    Target {
        name: "payload",
        checks: "messages, records, hellos and refusals: what is accepted encodes to the same bytes",
        body: frames::payload,
        cost: 1,
        parts: None,
        words: NUMBERS,
    },
    Target {
        name: "peer_stream",
        checks: "frames from a peer do not depend on the pieces they come in",
        body: frames::peer_stream,
        cost: 1,
        parts: Some(frames::FRAMES),
        words: NUMBERS,
    },
    Target {
        name: "replay",
        checks: "any records: a node begins, or says which record makes no sense",
        body: replay::replay,
        cost: 1,
        parts: Some(script::PARTS),
        words: NUMBERS,
    },
    Target {
        name: "snapshot",
        checks: "a changed snapshot is damage; blocks and images give what was written, or an error",
        body: snapshot::snapshot,
        cost: 8,
        parts: Some(script::STEERED_PARTS),
        words: NUMBERS,
    },
];

impl Target {
    /// Runs the body on an input.
    ///
    /// # Panics
    /// If a property does not hold.
    pub(crate) fn run(&self, input: &[u8]) {
        (self.body)(input);
    }
}

/// Runs the body with this name.
///
/// # Panics
/// If there is none, or a property does not hold.
#[allow(dead_code, reason = "only the programs in `fuzz_targets` go by name")]
pub(crate) fn run(name: &str, input: &[u8]) {
    TARGETS.iter().find(|target| target.name == name).expect("a target with this name").run(input);
}
