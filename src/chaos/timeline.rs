//! When a majority was connected, and how long writes went without an answer then.
//!
//! A majority is connected while more than half of the nodes run and each of them reaches each other one over links
//! that pass bytes, be it late. Any other time, the cluster owes nobody an answer.

/// Links and nodes as they are now.
pub(crate) struct Health {
    up: Vec<bool>,
    /// `reaches[a][b]`: bytes from `a` get to `b`.
    reaches: Vec<Vec<bool>>,
}

impl Health {
    pub(crate) fn new(nodes: usize) -> Health {
        Health { up: vec![false; nodes], reaches: vec![vec![true; nodes]; nodes] }
    }

    pub(crate) fn set_node(&mut self, node: usize, up: bool) {
        self.up[node] = up;
    }

    pub(crate) fn set_link(&mut self, from: usize, to: usize, open: bool) {
        self.reaches[from][to] = open;
    }

    /// Whether more than half of the nodes run and reach each other.
    pub(crate) fn has_majority(&self) -> bool {
        let nodes = self.up.len();
        (1u32..1 << nodes).any(|set| {
            let has = |node: usize| set & (1 << node) != 0;
            let members: Vec<usize> = (0..nodes).filter(|node| has(*node)).collect();
            members.len() > nodes / 2
                && members
                    .iter()
                    .all(|a| self.up[*a] && members.iter().all(|b| a == b || self.reaches[*a][*b]))
        })
    }
}

/// Changes between connected and not, in the order of their times.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timeline(Vec<(u64, bool)>);

impl Timeline {
    /// From now on it is so.
    pub(crate) fn note(&mut self, at: u64, connected: bool) {
        if self.0.last().is_none_or(|(_, last)| *last != connected) {
            self.0.push((at, connected));
        }
    }

    /// The periods between `begin` and `end` during which a majority was connected.
    fn periods(&self, begin: u64, end: u64) -> impl Iterator<Item = (u64, u64)> {
        let until = move |index: usize| self.0.get(index).map_or(end, |(at, _)| *at).min(end);
        let connected = self.0.iter().enumerate().filter(|(_, (_, connected))| *connected);
        let periods = connected.map(move |(index, (from, _))| ((*from).max(begin), until(index + 1)));
        periods.filter(|(from, to)| from < to)
    }

    /// The longest time between `begin` and `end` without any of these instants while a majority was connected without
    /// a break, and when it began. The instants are in order.
    pub(crate) fn longest_gap(&self, instants: &[u64], begin: u64, end: u64) -> (u64, u64) {
        let mut longest = (0, 0);
        for (from, to) in self.periods(begin, end) {
            let first = instants.partition_point(|instant| *instant <= from);
            let inside = instants[first..].iter().copied().take_while(|instant| *instant < to);
            let mut last = from;
            for instant in inside.chain([to]) {
                longest = longest.max((instant - last, last));
                last = instant;
            }
        }
        longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_is_up_and_reaches_itself() {
        let mut health = Health::new(3);
        assert!(!health.has_majority());
        health.set_node(0, true);
        health.set_node(1, true);
        assert!(health.has_majority());
        health.set_link(1, 0, false);
        assert!(!health.has_majority(), "one way is not enough");
        health.set_node(2, true);
        assert!(health.has_majority(), "0 and 2");
        health.set_link(0, 2, false);
        assert!(health.has_majority(), "1 and 2");
        health.set_link(2, 1, false);
        assert!(!health.has_majority());
    }

    #[test]
    fn gaps_count_only_while_a_majority_is_connected() {
        let mut timeline = Timeline::default();
        for (at, connected) in [(0, true), (100, false), (150, false), (500, true)] {
            timeline.note(at, connected);
        }
        assert_eq!(timeline.longest_gap(&[10, 20, 90, 540, 590], 0, 600), (70, 20));
        assert_eq!(timeline.longest_gap(&[10, 20], 5, 30), (10, 20));
        assert_eq!(timeline.longest_gap(&[10, 20, 520], 0, 600), (80, 520));
        assert_eq!(timeline.longest_gap(&[], 0, 600), (100, 500));
        assert_eq!(timeline.longest_gap(&[200, 300], 0, 600), (100, 500));
    }
}
