//! Batches: the client commands that one turn of the loop collected, one after the other.
//!
//! # Format
//!
//! `count: u32`, then so many commands, each:
//!
//! | size | field |
//! |---|---|
//! | 1 | flags: bit 0 set if the command belongs to a client session |
//! | 24 | only with bit 0: session, seq, acked (`u64` each) |
//! | 1 | code of the command in the store's table |
//! | 4 | number of arguments (without the name) |
//! | 4 + n | each argument: length, bytes |

use crate::types::{Batch, SessionId, limits};

use super::{DecodeError, Reader, Writer};

/// Which place in its client's session a command has; makes a repetition harmless.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionSeq {
    /// The session.
    pub session: SessionId,
    /// 1, 2, 3 … within the session.
    pub seq: u64,
    /// The client has the replies up to this one and will not ask for them again.
    pub acked: u64,
}

/// Collects commands.
#[derive(Debug)]
pub struct BatchBuilder {
    bytes: Vec<u8>,
    count: u32,
}

impl Default for BatchBuilder {
    fn default() -> BatchBuilder {
        BatchBuilder::new()
    }
}

impl BatchBuilder {
    /// An empty one.
    pub fn new() -> BatchBuilder {
        BatchBuilder { bytes: vec![0; 4], count: 0 }
    }

    /// Appends a command and returns its place in the batch, counted from 0. `arguments` are without the name.
    pub fn push<A: AsRef<[u8]>>(&mut self, session: Option<SessionSeq>, code: u8, arguments: &[A]) -> u32 {
        let mut w = Writer::new(&mut self.bytes);
        w.u8(u8::from(session.is_some()));
        if let Some(s) = session {
            w.u64(s.session.0);
            w.u64(s.seq);
            w.u64(s.acked);
        }
        w.u8(code);
        w.count(arguments.len());
        for argument in arguments {
            w.blob(argument.as_ref());
        }
        self.count += 1;
        self.count - 1
    }

    /// How many commands are in it.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Encoded bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether no command is in it.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether it should be closed before another command is added.
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= limits::BATCH_LEN_SOFT || self.count >= limits::BATCH_COUNT_MAX
    }

    /// Forgets all commands.
    pub fn clear(&mut self) {
        self.count = 0;
        self.bytes.truncate(4);
    }

    /// Hands the batch out and begins an empty one.
    ///
    /// # Panics
    /// If commands above the limits were pushed, which the dialects refuse.
    pub fn take(&mut self) -> Batch {
        self.bytes[..4].copy_from_slice(&self.count.to_le_bytes());
        self.count = 0;
        let batch = Batch::new(self.bytes.as_slice()).expect("commands are checked against the limits");
        self.bytes.truncate(4);
        // The memory of one huge command is not kept.
        self.bytes.shrink_to(2 * limits::BATCH_LEN_SOFT);
        batch
    }
}

/// One command of a batch, borrowed from it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BatchCommand<'a> {
    /// Its place in its client's session, if it has one.
    pub session: Option<SessionSeq>,
    /// Which command, by the store's table.
    pub code: u8,
    /// The arguments, without the name.
    pub arguments: Vec<&'a [u8]>,
}

/// Where in a batch a reader is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchPlace {
    /// Bytes behind it.
    rest_len: usize,
    /// Commands behind it.
    left: u32,
}

/// Reads the commands of a batch in order.
#[derive(Debug)]
pub struct BatchReader<'a> {
    reader: Reader<'a>,
    left: u32,
}

impl<'a> BatchReader<'a> {
    /// Starts at the first command.
    pub fn new(batch: &'a Batch) -> BatchReader<'a> {
        let bytes = batch.bytes();
        BatchReader { reader: Reader::new(bytes.get(4..).unwrap_or(&[])), left: batch.count() }
    }

    /// Starts where another reader of the same batch was.
    pub fn from_place(batch: &'a Batch, place: BatchPlace) -> BatchReader<'a> {
        let bytes = batch.bytes();
        let start = bytes.len().saturating_sub(place.rest_len);
        BatchReader { reader: Reader::new(&bytes[start..]), left: place.left }
    }

    /// Where it is: in front of the next command.
    pub fn place(&self) -> BatchPlace {
        BatchPlace { rest_len: self.reader.rest().len(), left: self.left }
    }

    fn command(&mut self) -> Result<BatchCommand<'a>, DecodeError> {
        let session = if self.reader.bool("command flags")? {
            Some(SessionSeq {
                session: SessionId(self.reader.u64()?),
                seq: self.reader.u64()?,
                acked: self.reader.u64()?,
            })
        } else {
            None
        };
        let code = self.reader.u8()?;
        let count = self.reader.count("argument count", limits::ARGUMENT_COUNT_MAX, 4)?;
        let mut arguments = Vec::with_capacity(count);
        for _ in 0..count {
            arguments.push(self.reader.blob("argument", limits::VALUE_LEN_CEILING)?);
        }
        Ok(BatchCommand { session, code, arguments })
    }
}

impl<'a> Iterator for BatchReader<'a> {
    type Item = Result<BatchCommand<'a>, DecodeError>;

    /// The next command; after an error, nothing more.
    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let command = self.command();
        if command.is_err() {
            self.left = 0;
        }
        Some(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_come_back_in_order() {
        let session = SessionSeq { session: SessionId(7), seq: 3, acked: 2 };
        let mut builder = BatchBuilder::new();
        assert_eq!(builder.push(None, 1, &[b"key".as_slice(), b"\r\n\0".as_slice()]), 0);
        assert_eq!(builder.push::<&[u8]>(Some(session), 2, &[]), 1);
        let batch = builder.take();
        assert!(builder.is_empty());
        assert_eq!(batch.count(), 2);
        let commands: Result<Vec<_>, _> = BatchReader::new(&batch).collect();
        let commands = commands.expect("well formed");
        assert_eq!(commands[0].arguments, [b"key".as_slice(), b"\r\n\0".as_slice()]);
        assert_eq!(commands[1], BatchCommand { session: Some(session), code: 2, arguments: vec![] });
        let mut reader = BatchReader::new(&batch);
        for command in &commands {
            let mut other = BatchReader::from_place(&batch, reader.place());
            assert_eq!(other.next(), Some(Ok(command.clone())));
            assert_eq!(reader.next(), Some(Ok(command.clone())));
            assert_eq!(other.place(), reader.place());
        }
        assert_eq!(BatchReader::from_place(&batch, reader.place()).next(), None);
    }

    #[test]
    fn a_cut_batch_ends_with_an_error() {
        let mut builder = BatchBuilder::new();
        builder.push(None, 1, &[b"key"]);
        let whole = builder.take();
        for len in 4..whole.bytes().len() {
            let cut = Batch::new(&whole.bytes()[..len]).expect("long enough");
            assert!(BatchReader::new(&cut).any(|c| c.is_err()), "cut at {len}");
        }
    }
}
