//! What subscribers are told: messages that were published, and what has happened to keys.

use std::sync::Arc;

/// Kinds of what happens to keys, as `notify-keyspace-events` tells them apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventClass {
    /// `g`: whole keys, whatever their value is.
    Generic,
    /// `$`: strings.
    String,
    /// `x`: a key has expired.
    Expired,
}

impl EventClass {
    /// The letter that stands for it in `notify-keyspace-events`.
    pub fn letter(self) -> char {
        match self {
            EventClass::Generic => 'g',
            EventClass::String => '$',
            EventClass::Expired => 'x',
        }
    }
}

/// Something that subscribers are told of. All nodes have the same events in the same order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A message was published.
    Published {
        /// Where.
        channel: Arc<[u8]>,
        /// What.
        message: Arc<[u8]>,
    },
    /// Something happened to a key.
    Key {
        /// Of which kind.
        class: EventClass,
        /// What, in Redis' word.
        name: &'static str,
        /// To which.
        key: Arc<[u8]>,
    },
}
