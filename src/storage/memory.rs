//! A disk in memory that can lose power.
//!
//! Each file has two images: the *live* one that reads see, and the *durable* one that a sync
//! brings up to date; in between stand the changes since the last sync. The names have the same two
//! sides. [`MemoryDisk::crash`] makes the disk that a power failure may leave behind: of the
//! changes not yet synced any part, chosen by random numbers that are passed in:
//!
//! - of a write, any of its 512-byte sectors, a sector cut at any byte, or rarely garbage in its place;
//! - a file's new length with or without the bytes;
//! - of the changed names any, in their order: a rename may survive the bytes it published.
//!
//! A sync that fails leaves the bytes readable, forgotten by the next sync and gone after a crash,
//! as Linux does it. Images are made of shared pages, so that a copy of the whole disk costs a few
//! pointers.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Disk, DiskFile};

const SECTOR_LEN: u64 = 512;
const PAGE_LEN: usize = 4096;
type Page = [u8; PAGE_LEN];

/// A kind of call to a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// [`Disk::create`].
    Create,
    /// [`DiskFile::write_at`].
    Write,
    /// [`DiskFile::zero_fill`].
    Fill,
    /// [`DiskFile::set_len`].
    SetLen,
    /// [`DiskFile::sync_data`] and [`DiskFile::sync_all`].
    Sync,
    /// [`Disk::rename`]; the call's name is the new one.
    Rename,
    /// [`Disk::remove`].
    Remove,
    /// [`Disk::sync_dir`].
    SyncDir,
}

/// A call that changed the disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call {
    /// What was called.
    pub operation: Operation,
    /// The file, under the name by which it was opened.
    pub name: String,
}

impl Call {
    /// A call on a file.
    pub fn new(operation: Operation, name: &str) -> Call {
        Call { operation, name: name.to_owned() }
    }
}

/// A file's bytes, in pages; an absent page is zeros.
#[derive(Clone, Default, Debug)]
struct Image {
    len: u64,
    pages: Vec<Option<Arc<Page>>>,
}

fn to_usize(n: u64) -> usize {
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
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    Zero { offset: u64, len: u64 },
    SetLen(u64),
}

#[derive(Clone, Default, Debug)]
struct Inode {
    live: Image,
    durable: Image,
    pending: Vec<Change>,
    /// How many files are open on it.
    open_count: u64,
}

impl Inode {
    fn apply(&mut self, change: Change) {
        match &change {
            Change::Write { offset, bytes } => self.live.write(*offset, bytes),
            Change::Zero { offset, len } => self.live.zero(*offset, *len),
            Change::SetLen(len) => self.live.set_len(*len),
        }
        self.pending.push(change);
    }

    fn sync(&mut self) {
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
    fn crash(&self, chance: &mut Chance<'_>) -> Inode {
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
struct Chance<'a> {
    random: &'a mut dyn FnMut() -> u64,
    /// Of 256, how many changes are kept.
    keep: u64,
    /// In the mode that keeps a beginning: how many more are kept.
    left: Option<u64>,
}

impl<'a> Chance<'a> {
    fn new(random: &'a mut dyn FnMut() -> u64) -> Chance<'a> {
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

    fn keeps(&mut self) -> bool {
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

#[derive(Clone, Debug)]
enum NameChange {
    Link { name: String, inode: u64 },
    Rename { from: String, to: String, inode: u64 },
    Remove { name: String, inode: u64 },
}

fn apply_name(names: &mut BTreeMap<String, u64>, change: &NameChange) {
    match change {
        NameChange::Link { name, inode } => {
            names.insert(name.clone(), *inode);
        }
        NameChange::Rename { from, to, inode } => {
            if names.get(from) == Some(inode) {
                names.remove(from);
            }
            names.insert(to.clone(), *inode);
        }
        NameChange::Remove { name, inode } => {
            if names.get(name) == Some(inode) {
                names.remove(name);
            }
        }
    }
}

#[derive(Clone, Debug)]
struct Fault {
    operation: Operation,
    calls_before: u64,
    kind: io::ErrorKind,
}

#[derive(Clone, Default, Debug)]
struct State {
    boot: u64,
    next_inode: u64,
    inodes: BTreeMap<u64, Inode>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    pending_names: Vec<NameChange>,
    fault: Option<Fault>,
    calls: Option<Vec<Call>>,
}

impl State {
    /// Notes a call, and fails it if its time has come.
    fn enter(&mut self, operation: Operation, name: &str) -> io::Result<()> {
        if let Some(calls) = &mut self.calls {
            calls.push(Call::new(operation, name));
        }
        match &mut self.fault {
            Some(fault) if fault.operation == operation => {
                if fault.calls_before == 0 {
                    let kind = fault.kind;
                    self.fault = None;
                    return Err(io::Error::new(kind, "injected fault"));
                }
                fault.calls_before -= 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn change_name(&mut self, change: NameChange) {
        apply_name(&mut self.names, &change);
        self.pending_names.push(change);
    }

    fn find(&self, name: &str) -> io::Result<u64> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn inode(&mut self, inode: u64) -> &mut Inode {
        self.inodes.get_mut(&inode).expect("a name or an open file keeps the inode")
    }

    /// Frees what neither a name nor an open file refers to.
    fn free(&mut self) {
        if !self.pending_names.is_empty() {
            return;
        }
        let named: Vec<u64> = self.names.values().copied().collect();
        self.inodes.retain(|inode, file| file.open_count > 0 || named.contains(inode));
    }
}

/// A disk in memory. Clones are handles to the same disk; [`MemoryDisk::fork`] makes another one.
#[derive(Clone, Default, Debug)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> MemoryDisk {
        MemoryDisk::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds this lock")
    }

    /// A second disk with the same content, synced and unsynced.
    #[must_use]
    pub fn fork(&self) -> MemoryDisk {
        MemoryDisk { state: Arc::new(Mutex::new(self.state().clone())) }
    }

    /// The disk that a power failure at this moment may leave, chosen by `random`. This one stays
    /// as it is. Files that nothing names any more are gone; the machine has a new boot id.
    #[must_use]
    pub fn crash(&self, random: &mut dyn FnMut() -> u64) -> MemoryDisk {
        let state = self.state();
        let mut names = state.durable_names.clone();
        let mut chance = Chance::new(random);
        for change in &state.pending_names {
            if chance.keeps() {
                apply_name(&mut names, change);
            }
        }
        let mut inodes = BTreeMap::new();
        for inode in names.values() {
            let file = &state.inodes[inode];
            inodes.insert(*inode, file.crash(&mut Chance::new(chance.random)));
        }
        let after = State {
            boot: state.boot + 1,
            next_inode: state.next_inode,
            inodes,
            names: names.clone(),
            durable_names: names,
            ..State::default()
        };
        MemoryDisk { state: Arc::new(Mutex::new(after)) }
    }

    /// Lets one call of this kind fail, after `calls_before` that succeed.
    pub fn fail(&self, operation: Operation, calls_before: u64, kind: io::ErrorKind) {
        self.state().fault = Some(Fault { operation, calls_before, kind });
    }

    /// Begins to keep a list of the calls that change the disk.
    pub fn record_calls(&self) {
        self.state().calls = Some(Vec::new());
    }

    /// The calls since the last time this was asked.
    pub fn take_calls(&self) -> Vec<Call> {
        self.state().calls.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Rot: inverts the bits of `mask` in one byte, durably.
    ///
    /// # Panics
    /// If there is no such file or it is shorter.
    pub fn corrupt(&self, name: &str, offset: u64, mask: u8) {
        let mut state = self.state();
        let inode = state.find(name).expect("the file to corrupt exists");
        let inode = state.inode(inode);
        for image in [&mut inode.live, &mut inode.durable] {
            let mut byte = [0];
            if image.read(offset, &mut byte) == 1 {
                image.write(offset, &[byte[0] ^ mask]);
            }
        }
    }
}

impl Disk for MemoryDisk {
    type File = MemoryFile;

    fn create(&self, name: &str) -> io::Result<MemoryFile> {
        let mut state = self.state();
        state.enter(Operation::Create, name)?;
        let inode = match state.find(name) {
            Ok(inode) => {
                state.inode(inode).apply(Change::SetLen(0));
                inode
            }
            Err(_) => {
                let inode = state.next_inode;
                state.next_inode += 1;
                state.inodes.insert(inode, Inode::default());
                state.change_name(NameChange::Link { name: name.to_owned(), inode });
                inode
            }
        };
        state.inode(inode).open_count += 1;
        Ok(MemoryFile { disk: self.clone(), inode, name: name.to_owned() })
    }

    fn open(&self, name: &str) -> io::Result<MemoryFile> {
        let mut state = self.state();
        let inode = state.find(name)?;
        state.inode(inode).open_count += 1;
        Ok(MemoryFile { disk: self.clone(), inode, name: name.to_owned() })
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.enter(Operation::Rename, to)?;
        let inode = state.find(from)?;
        state.change_name(NameChange::Rename { from: from.to_owned(), to: to.to_owned(), inode });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.enter(Operation::Remove, name)?;
        let inode = state.find(name)?;
        state.change_name(NameChange::Remove { name: name.to_owned(), inode });
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.state();
        state.enter(Operation::SyncDir, ".")?;
        state.durable_names = state.names.clone();
        state.pending_names.clear();
        state.free();
        Ok(())
    }

    fn boot_id(&self) -> Option<String> {
        Some(format!("boot-{}", self.state().boot))
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(name)
    }
}

/// An open file of a [`MemoryDisk`].
#[derive(Debug)]
pub struct MemoryFile {
    disk: MemoryDisk,
    inode: u64,
    name: String,
}

impl MemoryFile {
    fn change(&self, operation: Operation, change: impl FnOnce() -> Change) -> io::Result<()> {
        let mut state = self.disk.state();
        state.enter(operation, &self.name)?;
        state.inode(self.inode).apply(change());
        Ok(())
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        let inode = state.inode(self.inode);
        inode.open_count -= 1;
        if inode.open_count == 0 {
            state.free();
        }
    }
}

impl DiskFile for MemoryFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.state().inode(self.inode).live.len)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        Ok(self.disk.state().inode(self.inode).live.read(offset, buf))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.change(Operation::Write, || Change::Write { offset, bytes: bytes.to_vec() })
    }

    fn zero_fill(&self, offset: u64, len: u64) -> io::Result<()> {
        self.change(Operation::Fill, || Change::Zero { offset, len })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Operation::SetLen, || Change::SetLen(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let entered = state.enter(Operation::Sync, &self.name);
        let inode = state.inode(self.inode);
        match entered {
            Ok(()) => inode.sync(),
            // The kernel reports a failed write-back once and marks the pages clean.
            Err(_) => inode.pending.clear(),
        }
        entered
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }
}
