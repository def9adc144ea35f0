//! Values by number: equal bytes have equal numbers, so that states are short and compared fast.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::FixedState;

use crate::types::decimal;

/// The number of a value; only good with the [`Values`] that it is from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ValueId(u32);

impl ValueId {
    /// A key without a value.
    pub(crate) const MISSING: ValueId = ValueId(0);

    /// As part of what the search looks up.
    pub(crate) fn number(self) -> u32 {
        self.0
    }
}

/// All values that occur in a group.
#[derive(Debug)]
pub(crate) struct Values {
    /// By number; the first is the missing one.
    bytes: Vec<Option<Arc<[u8]>>>,
    ids: HashMap<Arc<[u8]>, ValueId, FixedState>,
}

impl Values {
    pub(crate) fn new() -> Values {
        Values { bytes: vec![None], ids: HashMap::with_hasher(FixedState::with_seed(0)) }
    }

    /// The number of these bytes.
    pub(crate) fn id(&mut self, bytes: &[u8]) -> ValueId {
        if let Some(id) = self.ids.get(bytes) {
            return *id;
        }
        let id = ValueId(
            u32::try_from(self.bytes.len()).expect("values fill the memory before they fill 32 bits"),
        );
        let bytes: Arc<[u8]> = Arc::from(bytes);
        self.bytes.push(Some(Arc::clone(&bytes)));
        self.ids.insert(bytes, id);
        id
    }

    /// The number of a value that may be missing.
    pub(crate) fn id_of(&mut self, value: Option<&[u8]>) -> ValueId {
        value.map_or(ValueId::MISSING, |bytes| self.id(bytes))
    }

    /// The bytes of a value. `None`: it is the missing one.
    pub(crate) fn bytes(&self, id: ValueId) -> Option<&[u8]> {
        self.bytes[id.0 as usize].as_deref()
    }

    /// The length of a value, 0 for the missing one.
    pub(crate) fn len(&self, id: ValueId) -> usize {
        self.bytes(id).map_or(0, <[u8]>::len)
    }

    /// The sum of a number and the number that the value is, 0 for the missing one. `None`: it is not a number, or the
    /// sum does not fit.
    pub(crate) fn sum(&self, id: ValueId, by: i64) -> Option<i64> {
        self.bytes(id).map_or(Some(0), decimal::parse)?.checked_add(by)
    }

    /// The value that a number is written as.
    pub(crate) fn decimal(&mut self, number: i64) -> ValueId {
        let mut digits = Vec::new();
        decimal::push(&mut digits, number);
        self.id(&digits)
    }

    /// The value with more bytes behind it.
    pub(crate) fn append(&mut self, id: ValueId, tail: &[u8]) -> ValueId {
        let bytes = [self.bytes(id).unwrap_or_default(), tail].concat();
        self.id(&bytes)
    }
}
