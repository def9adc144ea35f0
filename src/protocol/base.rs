//! What a snapshot says about the order: where a node that has the snapshot's state goes on.
//!
//! All of it follows from what was delivered, so it is the same on every node. A node's own promises, votes and
//! incarnation are not in it; those are in its log (`docs/protocol.md`, section 7).

use crate::types::{ClusterId, Index, Millis, Position, Timestamp, ViewNumber, limits};
use crate::wire::DecodeError;
use xxhash_rust::xxh3::xxh3_64;

use super::api::Settings;
use super::codec::{decode_lanes, decode_origins, decode_view, encode_lanes, encode_origins, encode_view};
use super::message::{LaneVector, Sender, View};
use super::origins::Origins;
use super::recovery::Recovery;

/// The replicated state of the order at one position.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Base {
    /// The cluster.
    pub cluster: ClusterId,
    /// The number of commands delivered.
    pub index: Index,
    /// The last entry delivered.
    pub position: Position,
    /// The replicated time.
    pub time: Millis,
    /// The digest of everything delivered.
    pub digest: u64,
    /// The position's view.
    pub view: View,
    /// The last entry delivered of each of its lanes.
    pub lanes: LaneVector,
    pub(crate) origins: Origins,
}

/// The parts of a base that only the protocol reads, as bytes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BaseParts {
    /// The view.
    pub view: Vec<u8>,
    /// The lanes.
    pub lanes: Vec<u8>,
    /// The table of origins.
    pub origins: Vec<u8>,
}

impl Base {
    /// The beginning of a view: nothing has been delivered, here or anywhere.
    pub(crate) fn of_view(view: View) -> Base {
        Base {
            cluster: view.cluster,
            index: Index(0),
            position: Position { view: view.number, ..Position::default() },
            time: Millis(0),
            digest: 0,
            lanes: vec![Timestamp::ZERO; view.senders.len()],
            origins: Origins::default(),
            view,
        }
    }

    /// The same state at the beginning of a cluster that is to be founded; `state` is its digest.
    pub fn for_new_cluster(&self, settings: &Settings, state: u64) -> Base {
        let mut base = Base { index: self.index, time: self.time, ..Recovery::new(settings).into_base() };
        let parts = [state, self.index.0, self.time.0];
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.to_le_bytes()).collect();
        // Zero stands for nothing.
        base.view.genesis = xxh3_64(&bytes).max(1);
        base
    }

    /// View, lanes and origins as bytes.
    pub fn parts(&self) -> BaseParts {
        let mut parts = BaseParts::default();
        encode_view(&mut parts.view, &self.view);
        encode_lanes(&mut parts.lanes, &self.lanes);
        encode_origins(&mut parts.origins, &self.origins);
        parts
    }

    /// Puts a base together.
    ///
    /// # Errors
    /// The parts cannot be read, or do not fit together.
    pub fn from_parts(
        cluster: ClusterId,
        index: Index,
        position: Position,
        time: Millis,
        digest: u64,
        parts: &BaseParts,
    ) -> Result<Base, DecodeError> {
        let view = decode_view(&parts.view)?;
        let lanes = decode_lanes(&parts.lanes)?;
        let origins = decode_origins(&parts.origins)?;
        if lanes.len() != view.senders.len() {
            return Err(DecodeError::Invalid { what: "number of lanes", found: lanes.len() as u64 });
        }
        if view.number != position.view {
            return Err(DecodeError::Invalid { what: "view of the position", found: position.view.0 });
        }
        let is_founded = view.number > ViewNumber(0);
        if (is_founded && lanes.is_empty()) || view.senders.iter().any(|s| view.voter(s.node).is_none()) {
            return Err(DecodeError::Invalid { what: "senders of the view", found: lanes.len() as u64 });
        }
        if index.0 > limits::INDEX_MAX {
            return Err(DecodeError::Invalid { what: "index", found: index.0 });
        }
        if position.t.0 > limits::CLOCK_MAX {
            return Err(DecodeError::Invalid { what: "timestamp of the position", found: position.t.0 });
        }
        // The last entry delivered is the last of its lane, and no lane is beyond it.
        let at =
            |(sender, t): (&Sender, &Timestamp)| Position { view: view.number, t: *t, node: sender.node };
        let last = view.senders.iter().zip(&lanes).filter(|(_, t)| **t > Timestamp::ZERO).map(at).max();
        let begin = Position { view: view.number, ..Position::default() };
        if last.unwrap_or(begin) != position {
            return Err(DecodeError::Invalid { what: "position beside the lanes", found: position.t.0 });
        }
        if view.cluster != cluster {
            return Err(DecodeError::Invalid { what: "cluster of the view", found: view.cluster.0 });
        }
        Ok(Base { cluster, index, position, time, digest, view, lanes, origins })
    }
}
