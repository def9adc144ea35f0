//! A key with its value, revision and deadline, in one piece of memory.
//!
//! Millions of these are what a node's memory is full of, so nothing is spent that need not be: one allocation, and a
//! pointer of eight bytes to it. A value beside its key needs neither a pointer nor a length of its own, and whoever
//! compares the key has the value in the processor's cache already. What few items have, a deadline or a value
//! too long to be copied whenever the key's revision changes, is behind a second pointer.
//!
//! Slots, frozen images, deadlines and replies share an item by counting references. It changes only where nobody
//! shares it.
//!
//! ```text
//! reference count 8 | revision 8 | Option<Box<Rare>> 8 | length 8 | key length 1 or 5 | key | value, if short
//! ```

use std::sync;

use triomphe::{Arc, ThinArc};

use super::{Bytes, Index, Millis};

/// Values of at most so many bytes lie beside their key. Changing nothing but a deadline copies them.
const INLINE_LEN_MAX: usize = 1024;
/// Items of at most so many bytes are put together without an allocation.
const STACK_LEN: usize = 256;
/// As the first byte: the length of the key comes in four more.
const LONG_KEY: u8 = u8::MAX;
/// The deadline of keys without one.
const NEVER: Millis = Millis(u64::MAX);

/// What is before the bytes.
#[derive(Debug)]
struct Head {
    revision: Index,
    rare: Option<Box<Rare>>,
}

/// What few items have.
#[derive(Debug)]
struct Rare {
    /// [`NEVER`] if it has none.
    deadline: Millis,
    /// The value, if it is long.
    value: Option<sync::Arc<[u8]>>,
}

/// A key, its value, and what else is known of it. A clone is the same piece of memory.
#[derive(Clone, Debug)]
pub struct Item(ThinArc<Head, u8>);

impl Item {
    /// A new one; the bytes are copied. A deadline that can never come is none.
    pub fn new(key: &[u8], value: &[u8], revision: Index, deadline: Option<Millis>) -> Item {
        if value.len() <= INLINE_LEN_MAX {
            Item::assemble(key, value, None, revision, deadline)
        } else {
            Item::assemble(key, &[], Some(sync::Arc::from(value)), revision, deadline)
        }
    }

    /// Where it lies in memory.
    pub(crate) fn address(&self) -> usize {
        self.0.as_ptr().addr()
    }

    /// How many have it.
    pub(crate) fn count(&self) -> usize {
        ThinArc::strong_count(&self.0)
    }

    /// Whether somebody else has it too.
    pub(crate) fn is_shared(&self) -> bool {
        self.count() > 1
    }

    /// The same value under another key, or with another revision or deadline. A long value is shared.
    pub fn with(&self, key: &[u8], revision: Index, deadline: Option<Millis>) -> Item {
        match self.long_value() {
            Some(value) => Item::assemble(key, &[], Some(sync::Arc::clone(value)), revision, deadline),
            None => Item::assemble(key, self.value(), None, revision, deadline),
        }
    }

    fn assemble(
        key: &[u8],
        inline: &[u8],
        value: Option<sync::Arc<[u8]>>,
        revision: Index,
        deadline: Option<Millis>,
    ) -> Item {
        let deadline = deadline.unwrap_or(NEVER);
        let is_rare = value.is_some() || deadline != NEVER;
        let head = Head { revision, rare: is_rare.then(|| Box::new(Rare { deadline, value })) };
        let mut lens = [0; 5];
        let lens = match u8::try_from(key.len()) {
            Ok(len) if len != LONG_KEY => {
                lens[0] = len;
                &lens[..1]
            }
            _ => {
                lens[0] = LONG_KEY;
                let len = u32::try_from(key.len()).expect("keys are limited");
                lens[1..].copy_from_slice(&len.to_le_bytes());
                &lens[..]
            }
        };
        let value_at = lens.len() + key.len();
        let len = value_at + inline.len();
        let fill = |bytes: &mut [u8]| {
            bytes[..lens.len()].copy_from_slice(lens);
            bytes[lens.len()..value_at].copy_from_slice(key);
            bytes[value_at..].copy_from_slice(inline);
        };
        if len <= STACK_LEN {
            let mut bytes = [0; STACK_LEN];
            fill(&mut bytes[..len]);
            Item(ThinArc::from_header_and_slice(head, &bytes[..len]))
        } else {
            let mut bytes = vec![0; len];
            fill(&mut bytes);
            Item(ThinArc::from_header_and_slice(head, &bytes))
        }
    }

    /// Puts another value and revision into the same memory, if nobody shares it and everything else is as it was:
    /// the length, and that the value is short and there is no deadline. Says whether it did.
    pub fn overwrite(&mut self, value: &[u8], revision: Index) -> bool {
        if self.head().rare.is_some() || self.parts().1.len() != value.len() {
            return false;
        }
        self.0.with_arc_mut(|item| {
            let Some(item) = Arc::get_mut(item) else { return false };
            item.header_mut().revision = revision;
            let bytes = item.slice_mut();
            let value_at = bytes.len() - value.len();
            bytes[value_at..].copy_from_slice(value);
            true
        })
    }

    fn head(&self) -> &Head {
        &self.0.header.header
    }

    fn long_value(&self) -> Option<&sync::Arc<[u8]>> {
        self.head().rare.as_ref()?.value.as_ref()
    }

    /// Key and inline value.
    fn parts(&self) -> (&[u8], &[u8]) {
        let bytes = &self.0.slice;
        let (len, rest) = match bytes {
            [LONG_KEY, a, b, c, d, rest @ ..] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, rest),
            [len, rest @ ..] => (usize::from(*len), rest),
            [] => (0, bytes),
        };
        rest.split_at(len)
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        self.parts().0
    }

    /// The value.
    pub fn value(&self) -> &[u8] {
        match self.long_value() {
            Some(value) => value,
            None => self.parts().1,
        }
    }

    /// The value as something to be kept, without a copy.
    pub fn value_bytes(&self) -> Bytes {
        match self.long_value() {
            Some(value) => Bytes::from(sync::Arc::clone(value)),
            None => Bytes::value_of(self.clone()),
        }
    }

    /// The key as something to be kept, without a copy; the value is kept with it.
    pub fn into_key_bytes(self) -> Bytes {
        Bytes::key_of(self)
    }

    /// The index of the command that wrote it.
    pub fn revision(&self) -> Index {
        self.head().revision
    }

    /// From when on by the replicated time it is dead.
    pub fn deadline(&self) -> Option<Millis> {
        self.head().rare.as_ref().map(|rare| rare.deadline).filter(|deadline| *deadline != NEVER)
    }

    /// Whether it can be seen at this time.
    pub fn is_alive(&self, now: Millis) -> bool {
        self.deadline().is_none_or(|deadline| deadline > now)
    }

    /// How many bytes of memory it takes, with what a common allocator adds; without the table that it is in.
    pub fn memory_len(&self) -> usize {
        const COUNT_AND_LEN: usize = 16;
        let mut len = allocated(COUNT_AND_LEN + size_of::<Head>() + self.0.slice.len());
        if let Some(rare) = &self.head().rare {
            len += allocated(size_of::<Rare>());
            len += rare.value.as_ref().map_or(0, |value| allocated(COUNT_AND_LEN + value.len()));
        }
        len
    }
}

/// What an allocation of so many bytes takes: a length in front of it, and the next multiple of sixteen.
fn allocated(len: usize) -> usize {
    (len + 8).next_multiple_of(16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Reply;

    #[test]
    fn what_goes_in_comes_out() {
        for key_len in [0, 1, 254, 255, 256, 65_536] {
            for value_len in [0, 1, 200, 1024, 1025, 70_000] {
                for deadline in [None, Some(Millis(0)), Some(Millis(u64::MAX - 1))] {
                    let (key, value) = (vec![b'k'; key_len], vec![b'v'; value_len]);
                    let item = Item::new(&key, &value, Index(7), deadline);
                    assert_eq!((item.key(), item.value()), (&key[..], &value[..]));
                    assert_eq!((item.revision(), item.deadline()), (Index(7), deadline));
                    assert_eq!(*item.value_bytes(), value[..]);
                    assert_eq!(*item.clone().into_key_bytes(), key[..]);
                    let other = item.with(b"other", Index(8), None);
                    assert_eq!((other.key(), other.value()), (&b"other"[..], &value[..]));
                    assert_eq!((other.revision(), other.deadline()), (Index(8), None));
                    let is_shared = std::ptr::eq(other.value(), item.value());
                    assert_eq!(is_shared, value_len > INLINE_LEN_MAX, "a long value is not copied");
                }
            }
        }
        assert_eq!(Item::new(b"k", b"v", Index(1), Some(NEVER)).deadline(), None);
        assert!(Item::new(b"k", b"v", Index(1), Some(Millis(5))).is_alive(Millis(4)));
        assert!(!Item::new(b"k", b"v", Index(1), Some(Millis(5))).is_alive(Millis(5)));
    }

    #[test]
    fn only_what_nobody_shares_is_overwritten() {
        let mut item = Item::new(b"k", b"old", Index(1), None);
        assert!(item.overwrite(b"new", Index(2)));
        assert_eq!((item.key(), item.value(), item.revision()), (&b"k"[..], &b"new"[..], Index(2)));
        assert!(!item.overwrite(b"longer", Index(3)));
        let kept = item.value_bytes();
        assert!(!item.overwrite(b"not", Index(3)));
        assert_eq!((&*kept, item.revision()), (&b"new"[..], Index(2)));
        drop(kept);
        assert!(item.overwrite(b"now", Index(3)));
        assert!(!Item::new(b"k", b"old", Index(1), Some(Millis(9))).overwrite(b"new", Index(2)));
        let mut long = Item::new(b"k", &[7; 2000], Index(1), None);
        assert!(!long.overwrite(&[8; 2000], Index(2)) && !long.overwrite(b"", Index(2)));
    }

    /// What the figures in docs/benchmarks/memory.md rest on.
    #[test]
    fn a_small_item_is_one_small_allocation() {
        assert_eq!(size_of::<Item>(), 8);
        assert_eq!(size_of::<Option<Item>>(), 8);
        assert_eq!(size_of::<Bytes>(), 24);
        assert_eq!(size_of::<Reply>(), 32);
        assert_eq!(Item::new(&[0; 16], &[0; 64], Index(1), None).memory_len(), 128);
        assert_eq!(Item::new(&[0; 16], &[0; 64], Index(1), Some(Millis(1))).memory_len(), 128 + 32);
    }
}
