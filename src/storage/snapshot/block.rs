//! Blocks: what a snapshot is cut into on the disk and on the wire.
//!
//! # Format
//! ```text
//!  0  u32  payload length, 1 to 65,520
//!  4  u32  CRC32C of bytes 0..4 and 8.., started with that of block 0; of block 0 itself with 0
//!  8  u32  number of the block
//! 12  u8   kind: 0 header, 1 body, 2 footer
//! 13       three zeros
//! 16       payload
//! ```
//! Block 0 is the header, the last one the footer. Of the blocks between them all but the last have 65,536 bytes.

use crate::types::limits::SNAPSHOT_BLOCK_LEN_MAX;
use xxhash_rust::xxh3::Xxh3;

use crate::wire::{Reader, Writer};

/// Most bytes of a block, on the disk and on the wire.
pub(super) const HEAD_LEN: usize = 16;
pub(super) const PAYLOAD_LEN_MAX: usize = SNAPSHOT_BLOCK_LEN_MAX - HEAD_LEN;
pub(super) const FOOTER_BLOCK_LEN: usize = HEAD_LEN + Footer::LEN;

/// What a block is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Header,
    Body,
    Footer,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Kind::Header => 0,
            Kind::Body => 1,
            Kind::Footer => 2,
        }
    }
}

/// What is wrong with a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Fault {
    pub(super) what: &'static str,
    pub(super) found: u64,
    pub(super) expected: u64,
}

impl Fault {
    pub(super) fn new(what: &'static str, found: impl Into<u64>, expected: impl Into<u64>) -> Fault {
        Fault { what, found: found.into(), expected: expected.into() }
    }
}

/// Begins a block; the payload is to be appended.
pub(super) fn begin(out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&[0; HEAD_LEN]);
}

/// Puts in the head of a block and returns its checksum.
pub(super) fn seal(block: &mut [u8], kind: Kind, number: u32, salt: u32) -> u32 {
    let payload_len = block.len() - HEAD_LEN;
    assert!((1..=PAYLOAD_LEN_MAX).contains(&payload_len), "a block of {payload_len} payload bytes");
    let mut head = Vec::with_capacity(HEAD_LEN);
    let mut w = Writer::new(&mut head);
    w.count(payload_len);
    w.u32(0); // Checksum.
    w.u32(number);
    w.u8(kind.code());
    w.bytes(&[0; 3]);
    block[..HEAD_LEN].copy_from_slice(&head);
    let crc = checksum(block, salt);
    block[4..8].copy_from_slice(&crc.to_le_bytes());
    crc
}

fn checksum(block: &[u8], salt: u32) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(salt, &block[..4]), &block[8..])
}

/// The length of the block that begins here, by its head; at most [`SNAPSHOT_BLOCK_LEN_MAX`].
pub(super) fn announced_len(head: &[u8]) -> Result<usize, Fault> {
    let payload_len = Reader::new(head).u32().map_err(|_| short(head))?;
    if payload_len == 0 || payload_len as usize > PAYLOAD_LEN_MAX {
        return Err(Fault::new("length of its payload", payload_len, PAYLOAD_LEN_MAX as u64));
    }
    Ok(HEAD_LEN + payload_len as usize)
}

fn short(block: &[u8]) -> Fault {
    Fault::new("length", block.len() as u64, HEAD_LEN as u64 + 1)
}

/// Checks a whole block and returns its checksum and its payload.
pub(super) fn check(block: &[u8], kind: Kind, number: u32, salt: u32) -> Result<(u32, &[u8]), Fault> {
    let Some((head, payload)) = block.split_at_checked(HEAD_LEN) else { return Err(short(block)) };
    let len = announced_len(head)?;
    if len != block.len() {
        return Err(Fault::new("length", block.len() as u64, len as u64));
    }
    let mut r = Reader::new(&head[4..]);
    let (Ok(crc), Ok(found_number), Ok(found_kind)) = (r.u32(), r.u32(), r.u8()) else {
        return Err(short(block));
    };
    let computed = checksum(block, salt);
    if crc != computed {
        return Err(Fault::new("checksum", computed, crc));
    }
    if found_number != number {
        return Err(Fault::new("number", found_number, number));
    }
    if found_kind != kind.code() {
        return Err(Fault::new("kind", found_kind, kind.code()));
    }
    if r.rest() != [0; 3] {
        return Err(Fault::new("spare byte", r.rest()[0] | r.rest()[1] | r.rest()[2], 0u8));
    }
    Ok((crc, payload))
}

/// The kind that a block says it is, before it is checked.
pub(super) fn claims_footer(block: &[u8]) -> bool {
    block.get(12) == Some(&Kind::Footer.code())
}

/// What the last block says about all others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Footer {
    /// Payload bytes of the body.
    pub(super) body_len: u64,
    /// How many blocks the body has.
    pub(super) body_blocks: u32,
    /// XXH3 of all blocks before this one, heads too.
    pub(super) digest: u64,
}

impl Footer {
    const LEN: usize = 20;

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let mut w = Writer::new(out);
        w.u64(self.body_len);
        w.u32(self.body_blocks);
        w.u64(self.digest);
    }

    pub(super) fn decode(payload: &[u8]) -> Result<Footer, Fault> {
        let mut r = Reader::new(payload);
        match (r.u64(), r.u32(), r.u64(), r.rest()) {
            (Ok(body_len), Ok(body_blocks), Ok(digest), []) => Ok(Footer { body_len, body_blocks, digest }),
            _ => Err(Fault::new("length of the footer", payload.len() as u64, Footer::LEN as u64)),
        }
    }
}

/// What the footer will have to say, block after block.
#[derive(Clone)]
pub(super) struct Tally {
    hasher: Xxh3,
    body_len: u64,
    body_blocks: u32,
}

impl Tally {
    pub(super) fn new(header_block: &[u8]) -> Tally {
        let mut hasher = Xxh3::new();
        hasher.update(header_block);
        Tally { hasher, body_len: 0, body_blocks: 0 }
    }

    pub(super) fn add(&mut self, body_block: &[u8]) {
        self.hasher.update(body_block);
        self.body_len += (body_block.len() - HEAD_LEN) as u64;
        self.body_blocks += 1;
    }

    pub(super) fn footer(&self) -> Footer {
        Footer { body_len: self.body_len, body_blocks: self.body_blocks, digest: self.hasher.digest() }
    }

    /// Compares with what a footer says.
    pub(super) fn check(&self, footer: &Footer) -> Result<(), Fault> {
        let mine = self.footer();
        for (what, found, expected) in [
            ("number of body blocks", u64::from(mine.body_blocks), u64::from(footer.body_blocks)),
            ("length of the body", mine.body_len, footer.body_len),
            ("digest of all blocks", mine.digest, footer.digest),
        ] {
            if found != expected {
                return Err(Fault { what, found, expected });
            }
        }
        Ok(())
    }
}
