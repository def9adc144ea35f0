//! Inputs that are scripts: steps with a code, a length and a payload.
//!
//! Nothing is refused here: a length beyond the end means "to the end", so that every input is a script.

use super::Parts;

/// The parts of a script are its steps.
pub(super) const PARTS: Parts = Parts { head_len: 0, split, seal };

/// The same behind a byte that steers the body.
pub(super) const STEERED_PARTS: Parts = Parts { head_len: 1, ..PARTS };

/// Bytes before a step's payload: the code, and the length as `u16`.
const HEADER_LEN: usize = 3;

/// A step.
pub(crate) fn step(code: u8, payload: &[u8]) -> Vec<u8> {
    let mut step = vec![code, 0, 0];
    step.extend_from_slice(payload);
    seal(&mut step);
    step
}

fn seal(step: &mut Vec<u8>) {
    step.truncate(HEADER_LEN + usize::from(u16::MAX));
    if let Some(len) = step.len().checked_sub(HEADER_LEN).and_then(|len| u16::try_from(len).ok()) {
        step[1..HEADER_LEN].copy_from_slice(&len.to_le_bytes());
    }
}

fn split(script: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    let mut rest = script;
    while !rest.is_empty() {
        let len = match rest {
            [_, low, high, ..] => HEADER_LEN + usize::from(u16::from_le_bytes([*low, *high])),
            _ => rest.len(),
        };
        let (part, tail) = rest.split_at(len.min(rest.len()));
        parts.push(part);
        rest = tail;
    }
    parts
}

/// The steps of a script, each as code and payload.
pub(super) fn steps(script: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    split(script).into_iter().map(|step| (step[0], step.get(HEADER_LEN..).unwrap_or_default()))
}

/// Takes numbers from the front of bytes; zeros when they are used up.
#[derive(Clone, Copy)]
pub(super) struct Front<'a>(pub(super) &'a [u8]);

impl<'a> Front<'a> {
    pub(super) fn u8(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(super) fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.u8(), self.u8()])
    }

    pub(super) fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// Lengths of pieces that follow from the bytes: now a few long ones, now many short ones.
pub(super) fn pieces(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let mut state = bytes
        .iter()
        .fold(bytes.len() as u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let longest = 1 + (state >> 40) % 40;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        1 + usize::try_from((state >> 33) % longest).expect("below forty")
    })
}
