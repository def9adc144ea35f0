//! Exactly once: which batches of each origin have been applied.
//!
//! The table is replicated state and the rule a function of it, so every node gives the same verdict
//! on every entry, and offering a batch again is always safe (`docs/protocol.md`, section 5).

use std::collections::BTreeMap;

use crate::types::{Label, NodeId, OriginPair};

use super::api::Verdict;
use super::mutation::{Mutation, mutated};

/// The last batch applied of each origin.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Origins {
    last: BTreeMap<NodeId, (OriginPair, u64)>,
}

impl Origins {
    /// Decides about a delivered batch, and notes it if it counts.
    pub(crate) fn judge(&mut self, label: &Label) -> Verdict {
        let (pair, last) = self.last.get(&label.origin).copied().unwrap_or_default();
        let verdict = if label.pair < pair || (label.pair == pair && label.seq <= last) {
            if mutated(Mutation::NoDedupe) {
                return Verdict::Applied;
            }
            Verdict::Repeated
        } else if label.seq == (if label.pair == pair { last + 1 } else { 1 }) {
            Verdict::Applied
        } else {
            Verdict::TooEarly
        };
        if verdict == Verdict::Applied {
            self.insert(*label);
        }
        verdict
    }

    /// The last label applied of each origin, in the order of the origins.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&NodeId, &(OriginPair, u64))> {
        self.last.iter()
    }

    /// Notes the last label applied of an origin.
    pub(crate) fn insert(&mut self, label: Label) {
        self.last.insert(label.origin, (label.pair, label.seq));
    }

    /// Whether this batch was applied before.
    pub(crate) fn knows(&self, label: &Label) -> bool {
        let (pair, last) = self.last.get(&label.origin).copied().unwrap_or_default();
        label.pair < pair || (label.pair == pair && label.seq <= last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Incarnation, ViewNumber};

    #[test]
    fn a_batch_counts_once_and_in_order() {
        let mut origins = Origins::default();
        let label = |incarnation, seq| Label {
            origin: NodeId::new(2).expect("below 64"),
            pair: OriginPair { registered: ViewNumber(1), incarnation: Incarnation(incarnation) },
            seq,
        };
        for (incarnation, seq, verdict) in [
            (1, 2, Verdict::TooEarly),
            (1, 1, Verdict::Applied),
            (1, 1, Verdict::Repeated),
            (1, 3, Verdict::TooEarly),
            (1, 2, Verdict::Applied),
            (2, 2, Verdict::TooEarly),
            (1, 3, Verdict::Applied),
            (2, 1, Verdict::Applied),
            (1, 4, Verdict::Repeated),
            (2, 2, Verdict::Applied),
        ] {
            assert_eq!(origins.judge(&label(incarnation, seq)), verdict, "{incarnation} {seq}");
        }
        assert!(origins.knows(&label(2, 2)) && !origins.knows(&label(2, 3)));
    }
}
