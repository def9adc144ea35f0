//! Bytes that are shared and not copied.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use super::Item;

/// Any bytes: a piece of memory of their own, or the key or the value in an [`Item`]. A clone is the same memory.
#[derive(Clone)]
pub struct Bytes(Kind);

#[derive(Clone)]
enum Kind {
    Own(Arc<[u8]>),
    ValueOf(Item),
    KeyOf(Item),
}

impl Bytes {
    /// The value of an item, which lives as long.
    pub(super) fn value_of(item: Item) -> Bytes {
        Bytes(Kind::ValueOf(item))
    }

    /// The key of an item, which lives as long.
    pub(super) fn key_of(item: Item) -> Bytes {
        Bytes(Kind::KeyOf(item))
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Kind::Own(bytes) => bytes,
            Kind::ValueOf(item) => item.value(),
            Kind::KeyOf(item) => item.key(),
        }
    }
}

impl From<Arc<[u8]>> for Bytes {
    fn from(bytes: Arc<[u8]>) -> Bytes {
        Bytes(Kind::Own(bytes))
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Bytes {
        Bytes(Kind::Own(Arc::from(bytes)))
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Bytes {
        Bytes(Kind::Own(Arc::from(bytes)))
    }
}

impl PartialEq for Bytes {
    fn eq(&self, other: &Bytes) -> bool {
        **self == **other
    }
}

impl Eq for Bytes {}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
