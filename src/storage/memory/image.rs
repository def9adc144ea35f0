//! A file of the memory disk: its bytes, the changes since the last sync, and what a crash makes of them.

use std::sync::Arc;

const SECTOR_LEN: u64 = 512;
const PAGE_LEN: usize = 1024;
type Page = [u8; PAGE_LEN];

/// A file's bytes, in pages; an absent page is zeros.
#[derive(Clone, Default, Debug)]
struct Image {
    len: u64,
    pages: Vec<Option<Arc<Page>>>,
}

pub(super) fn to_usize(n: u64) -> usize {
    usize::try_from(n).expect("a file in memory is not larger than memory")
}

impl Image {
    fn read(&self, offset: u64, buf: &mut [u8]) -> usize {
        let len = to_usize(self.len.saturating_sub(offset).min(buf.len() as u64));
        let start = to_usize(offset);
        let mut done = 0;
        while done < len {
            let (page, at) = ((start + done) / PAGE_LEN, (start + done) % PAGE_LEN);
            let part = (PAGE_LEN - at).min(len - done);
            match &self.pages[page] {
                Some(bytes) => buf[done..done + part].copy_from_slice(&bytes[at..at + part]),
                None => buf[done..done + part].fill(0),
            }
            done += part;
        }
        len
    }

    fn grow(&mut self, len: u64) {
        self.len = self.len.max(len);
        let pages = to_usize(self.len).div_ceil(PAGE_LEN);
        if pages > self.pages.len() {
            self.pages.resize(pages, None);
        }
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.grow(offset + bytes.len() as u64);
        let start = to_usize(offset);
        let mut done = 0;
        while done < bytes.len() {
            let (page, at) = ((start + done) / PAGE_LEN, (start + done) % PAGE_LEN);
            let part = (PAGE_LEN - at).min(bytes.len() - done);
            let page = Arc::make_mut(self.pages[page].get_or_insert_with(|| Arc::new([0; PAGE_LEN])));
            page[at..at + part].copy_from_slice(&bytes[done..done + part]);
            done += part;
        }
    }

    fn zero(&mut self, offset: u64, len: u64) {
        self.grow(offset + len);
        let (start, end) = (to_usize(offset), to_usize(offset + len));
        let mut at = start;
        while at < end {
            let (page, from) = (at / PAGE_LEN, at % PAGE_LEN);
            let to = (end - page * PAGE_LEN).min(PAGE_LEN);
            if from == 0 && to == PAGE_LEN {
                self.pages[page] = None;
            } else if let Some(bytes) = &mut self.pages[page] {
                Arc::make_mut(bytes)[from..to].fill(0);
            }
            at = page * PAGE_LEN + to;
        }
    }

    fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.zero(len, self.len - len);
            self.pages.truncate(to_usize(len).div_ceil(PAGE_LEN));
            self.len = len;
        } else {
            self.grow(len);
        }
    }
}

#[derive(Clone, Debug)]
pub(super) enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    Zero { offset: u64, len: u64 },
    SetLen(u64),
}

#[derive(Clone, Default, Debug)]
pub(super) struct Inode {
    live: Image,
    durable: Image,
    pending: Vec<Change>,
    /// How many files are open on it.
    pub(super) open_count: u64,
}

impl Inode {
    /// The length that reads see.
    pub(super) fn size(&self) -> u64 {
        self.live.len
    }

    /// Reads from the live image.
    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) -> usize {
        self.live.read(offset, buf)
    }

    /// Inverts bits of one byte, durably.
    pub(super) fn corrupt(&mut self, offset: u64, mask: u8) {
        for image in [&mut self.live, &mut self.durable] {
            let mut byte = [0];
            if image.read(offset, &mut byte) == 1 {
                image.write(offset, &[byte[0] ^ mask]);
            }
        }
    }

    /// A sync that fails: the kernel reports it once and marks the pages clean.
    pub(super) fn forget(&mut self) {
        self.pending.clear();
    }

    pub(super) fn apply(&mut self, change: Change) {
        match &change {
            Change::Write { offset, bytes } => self.live.write(*offset, bytes),
            Change::Zero { offset, len } => self.live.zero(*offset, *len),
            Change::SetLen(len) => self.live.set_len(*len),
        }
        self.pending.push(change);
    }

    pub(super) fn sync(&mut self) {
        let cut = self.pending.iter().any(|change| matches!(change, Change::SetLen(_)));
        if cut {
            self.durable = self.live.clone();
            self.pending.clear();
            return;
        }
        self.durable.grow(self.live.len);
        for change in self.pending.drain(..) {
            let (offset, len) = match change {
                Change::Write { offset, bytes } => (offset, bytes.len() as u64),
                Change::Zero { offset, len } => (offset, len),
                Change::SetLen(_) => continue,
            };
            for page in to_usize(offset) / PAGE_LEN..to_usize(offset + len).div_ceil(PAGE_LEN) {
                self.durable.pages[page].clone_from(&self.live.pages[page]);
            }
        }
    }

    /// What a power failure leaves of this file.
    pub(super) fn crash(&self, chance: &mut Chance<'_>) -> Inode {
        let mut image = self.durable.clone();
        // Bytes and length reach the disk each for itself.
        let mut len = image.len;
        for change in &self.pending {
            match change {
                Change::SetLen(to) => {
                    if chance.keeps() {
                        image.set_len(*to);
                        len = *to;
                    }
                }
                Change::Zero { offset, len: count } => {
                    if chance.keeps() {
                        image.zero(*offset, *count);
                    }
                    if chance.keeps() {
                        len = len.max(offset + count);
                    }
                }
                Change::Write { offset, bytes } => {
                    write_torn(&mut image, *offset, bytes, chance);
                    if chance.keeps() {
                        len = len.max(offset + bytes.len() as u64);
                    }
                }
            }
        }
        image.set_len(len);
        Inode { live: image.clone(), durable: image, ..Inode::default() }
    }
}

fn write_torn(image: &mut Image, offset: u64, bytes: &[u8], chance: &mut Chance<'_>) {
    let mut done = 0;
    while done < bytes.len() {
        let at = offset + done as u64;
        let part = to_usize(SECTOR_LEN - at % SECTOR_LEN).min(bytes.len() - done);
        let sector = &bytes[done..done + part];
        match chance.sector(part) {
            Sector::Kept => image.write(at, sector),
            Sector::Lost => {}
            Sector::Torn(len) => image.write(at, &sector[..len]),
            Sector::Garbage(seed) => {
                let garbage: Vec<u8> = (0..part).map(|i| mix(seed, i as u64)).collect();
                image.write(at, &garbage);
            }
        }
        done += part;
    }
}

/// One byte of noise.
fn mix(seed: u64, i: u64) -> u8 {
    let mixed = (seed ^ i).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed.to_be_bytes()[0]
}

enum Sector {
    Kept,
    Lost,
    Torn(usize),
    Garbage(u64),
}

/// How a crash chooses. The extremes are drawn as often as the mixtures, and one way keeps the
/// changes in their order up to a point, which is what mostly happens.
pub(super) struct Chance<'a> {
    pub(super) random: &'a mut dyn FnMut() -> u64,
    /// Of 256, how many changes are kept.
    keep: u64,
    /// In the mode that keeps a beginning: how many more are kept.
    left: Option<u64>,
}

impl<'a> Chance<'a> {
    pub(super) fn new(random: &'a mut dyn FnMut() -> u64) -> Chance<'a> {
        let (keep, left) = match random() % 6 {
            0 => (0, None),
            1 => (256, None),
            2 => (128, None),
            3 => (230, None),
            4 => (26, None),
            _ => (0, Some(random() % 64)),
        };
        Chance { random, keep, left }
    }

    pub(super) fn keeps(&mut self) -> bool {
        match &mut self.left {
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
            None => self.keep == 256 || (self.keep > 0 && (self.random)() % 256 < self.keep),
        }
    }

    fn sector(&mut self, len: usize) -> Sector {
        if self.keep == 256 || self.left.is_some_and(|left| left > 1) {
            self.keeps();
            return Sector::Kept;
        }
        if self.keep == 0 && self.left != Some(1) {
            return Sector::Lost;
        }
        if self.left == Some(1) {
            self.left = Some(0);
            return Sector::Torn(to_usize((self.random)() % (len as u64 + 1)));
        }
        match (self.random)() % 64 {
            0 => Sector::Garbage((self.random)()),
            1..6 => Sector::Torn(to_usize((self.random)() % (len as u64 + 1))),
            _ if self.keeps() => Sector::Kept,
            _ => Sector::Lost,
        }
    }
}
