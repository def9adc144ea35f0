//! Reading and writing little-endian fields, with every length checked.

use std::fmt;

/// Why bytes are not what they should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DecodeError {
    /// The bytes end before the value does.
    Short {
        /// How many bytes the next field needs.
        needed: usize,
        /// How many are left.
        left: usize,
    },
    /// A length or count above its limit.
    TooLong {
        /// What was to be read.
        what: &'static str,
        /// The announced number.
        len: u64,
        /// The limit.
        max: u64,
    },
    /// A number that has no meaning at this place.
    Invalid {
        /// What was to be read.
        what: &'static str,
        /// What was found.
        found: u64,
    },
    /// Bytes after the end of the value.
    Trailing {
        /// How many.
        left: usize,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Short { needed, left } => {
                write!(f, "message too short: {needed} bytes needed, {left} left")
            }
            DecodeError::TooLong { what, len, max } => {
                write!(f, "{what} of {len}, expected at most {max}")
            }
            DecodeError::Invalid { what, found } => write!(f, "{found} is no valid {what}"),
            DecodeError::Trailing { left } => write!(f, "{left} bytes after the end of the message"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Reads fields from the front of a byte slice.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the beginning of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// What has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Short`] if there are fewer.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let Some((head, tail)) = self.rest.split_at_checked(len) else {
            return Err(DecodeError::Short { needed: len, left: self.rest.len() });
        };
        self.rest = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let Some((head, tail)) = self.rest.split_first_chunk::<N>() else {
            return Err(DecodeError::Short { needed: N, left: self.rest.len() });
        };
        self.rest = tail;
        Ok(*head)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    /// Two bytes.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Four bytes.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Eight bytes.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Eight bytes, signed.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// One byte that is 0 or 1.
    ///
    /// # Errors
    /// Short, or another number.
    pub fn bool(&mut self, what: &'static str) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            found => Err(DecodeError::Invalid { what, found: u64::from(found) }),
        }
    }

    /// A `u32` length and so many bytes, at most `max`.
    ///
    /// # Errors
    /// Short, or a length above `max`.
    pub fn blob(&mut self, what: &'static str, max: usize) -> Result<&'a [u8], DecodeError> {
        let len = self.u32()?;
        if len as usize > max {
            return Err(DecodeError::TooLong { what, len: u64::from(len), max: max as u64 });
        }
        self.bytes(len as usize)
    }

    /// A `u32` count of elements of at least `size_min` bytes each: above `max`, or more than the bytes
    /// that are left could hold, it is refused, so that it may be used to allocate.
    ///
    /// # Errors
    /// Short, or a count above `max`.
    pub fn count(&mut self, what: &'static str, max: usize, size_min: usize) -> Result<usize, DecodeError> {
        let count = self.u32()? as usize;
        if count > max {
            return Err(DecodeError::TooLong { what, len: count as u64, max: max as u64 });
        }
        let needed = count.saturating_mul(size_min);
        if needed > self.rest.len() {
            return Err(DecodeError::Short { needed, left: self.rest.len() });
        }
        Ok(count)
    }

    /// Says that nothing may follow.
    ///
    /// # Errors
    /// [`DecodeError::Trailing`] if something does.
    pub fn finish(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::Trailing { left: self.rest.len() }) }
    }
}

/// Appends fields to a byte vector.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    /// Appends to `out`.
    pub fn new(out: &'a mut Vec<u8>) -> Writer<'a> {
        Writer { out }
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.out.push(value);
    }

    /// Two bytes.
    pub fn u16(&mut self, value: u16) {
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) {
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) {
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    /// Eight bytes, signed.
    pub fn i64(&mut self, value: i64) {
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    /// One byte, 0 or 1.
    pub fn bool(&mut self, value: bool) {
        self.out.push(u8::from(value));
    }

    /// These bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// A `u32` count or length.
    ///
    /// # Panics
    /// Above 2^32 - 1; the limits in `types::limits` are all below.
    pub fn count(&mut self, count: usize) {
        self.u32(u32::try_from(count).expect("all counts and lengths are limited below 2^32"));
    }

    /// A `u32` length and the bytes.
    pub fn blob(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.bytes(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_and_the_end_is_checked() {
        let mut out = Vec::new();
        let mut w = Writer::new(&mut out);
        w.u8(1);
        w.u16(2);
        w.u32(3);
        w.u64(4);
        w.i64(-5);
        w.bool(true);
        w.blob(b"six");
        let mut r = Reader::new(&out);
        assert_eq!(r.u8(), Ok(1));
        assert_eq!(r.u16(), Ok(2));
        assert_eq!(r.u32(), Ok(3));
        assert_eq!(r.u64(), Ok(4));
        assert_eq!(r.i64(), Ok(-5));
        assert_eq!(r.bool("flag"), Ok(true));
        assert!(r.finish().is_err());
        assert_eq!(r.blob("name", 3), Ok(&b"six"[..]));
        assert_eq!(r.finish(), Ok(()));
        assert_eq!(r.u8(), Err(DecodeError::Short { needed: 1, left: 0 }));
    }

    #[test]
    fn lengths_are_checked_before_they_are_believed() {
        let bytes = [0xff, 0xff, 0xff, 0x7f, 0];
        assert!(matches!(Reader::new(&bytes).blob("x", 10), Err(DecodeError::TooLong { .. })));
        assert!(matches!(Reader::new(&bytes).blob("x", usize::MAX), Err(DecodeError::Short { .. })));
        assert!(matches!(Reader::new(&bytes).count("x", usize::MAX, 8), Err(DecodeError::Short { .. })));
    }
}
