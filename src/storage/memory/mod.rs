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

mod image;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Disk, DiskFile};
use image::{Chance, Change, Inode};

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
    idle_syncs: bool,
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

    /// From now on a sync does nothing and says that it is done, until [`MemoryDisk::heal`].
    pub fn ignore_syncs(&self) {
        self.state().idle_syncs = true;
    }

    /// Takes back what [`MemoryDisk::fail`] ordered, if it has not happened yet, and what
    /// [`MemoryDisk::ignore_syncs`] did.
    pub fn heal(&self) {
        let mut state = self.state();
        (state.fault, state.idle_syncs) = (None, false);
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
        state.inode(inode).corrupt(offset, mask);
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
        if state.idle_syncs {
            return Ok(());
        }
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
        Ok(self.disk.state().inode(self.inode).size())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        Ok(self.disk.state().inode(self.inode).read(offset, buf))
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
        let idle = state.idle_syncs;
        let inode = state.inode(self.inode);
        match entered {
            Ok(()) if idle => {}
            Ok(()) => inode.sync(),
            Err(_) => inode.forget(),
        }
        entered
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::image::to_usize;
    use super::*;

    fn content(disk: &MemoryDisk, name: &str) -> Option<Vec<u8>> {
        let file = disk.open(name).ok()?;
        let mut bytes = vec![0; to_usize(file.size().unwrap())];
        file.read_at(0, &mut bytes).unwrap();
        Some(bytes)
    }

    /// Random numbers that make a crash keep nothing, or everything.
    const NOTHING: u64 = 0;
    const EVERYTHING: u64 = 1;

    #[test]
    fn only_what_was_synced_must_survive() {
        let disk = MemoryDisk::new();
        let file = disk.create("a").unwrap();
        disk.sync_dir().unwrap();
        file.write_at(0, b"synced").unwrap();
        file.sync_data().unwrap();
        file.write_at(2, b"-- and not").unwrap();
        disk.create("b").unwrap();
        assert_eq!(content(&disk, "a").unwrap(), b"sy-- and not");
        let nothing = disk.crash(&mut || NOTHING);
        assert_eq!(content(&nothing, "a").unwrap(), b"synced");
        assert_eq!(content(&nothing, "b"), None);
        let everything = disk.crash(&mut || EVERYTHING);
        assert_eq!(content(&everything, "a").unwrap(), b"sy-- and not");
        assert_eq!(content(&everything, "b").unwrap(), b"");
        assert_ne!(disk.boot_id(), nothing.boot_id());
    }

    #[test]
    fn a_rename_may_survive_the_bytes_it_publishes() {
        let disk = MemoryDisk::new();
        let file = disk.create("new").unwrap();
        file.write_at(0, b"bytes").unwrap();
        disk.rename("new", "name").unwrap();
        disk.sync_dir().unwrap();
        assert_eq!(content(&disk.crash(&mut || NOTHING), "name").unwrap(), b"");
    }

    #[test]
    fn a_failed_sync_forgets_what_it_should_have_written() {
        let disk = MemoryDisk::new();
        let file = disk.create("a").unwrap();
        disk.sync_dir().unwrap();
        file.write_at(0, b"bytes").unwrap();
        disk.fail(Operation::Sync, 0, io::ErrorKind::Other);
        assert!(file.sync_data().is_err());
        file.sync_data().unwrap();
        assert_eq!(content(&disk, "a").unwrap(), b"bytes");
        assert_ne!(content(&disk.crash(&mut || EVERYTHING), "a").unwrap(), b"bytes");
    }

    #[test]
    fn sectors_survive_each_for_itself() {
        let mut state = 1_u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 20
        };
        let disk = MemoryDisk::new();
        let file = disk.create("a").unwrap();
        file.zero_fill(0, 3 * 512).unwrap();
        file.sync_all().unwrap();
        disk.sync_dir().unwrap();
        file.write_at(0, &[1; 3 * 512]).unwrap();
        let mut seen = [false; 8];
        for _ in 0..2000 {
            let bytes = content(&disk.crash(&mut random), "a").unwrap();
            let kept = |sector: usize| bytes[sector * 512..][..512].iter().all(|&byte| byte == 1);
            seen[usize::from(kept(0)) | usize::from(kept(1)) << 1 | usize::from(kept(2)) << 2] = true;
        }
        assert_eq!(seen, [true; 8]);
    }

    #[test]
    fn images_read_as_a_plain_vector_does() {
        let mut random = (0_u64..).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 17);
        let mut next = |max: u64| random.next().unwrap() % max;
        let disk = MemoryDisk::new();
        let file = disk.create("a").unwrap();
        disk.sync_dir().unwrap();
        let mut twin: Vec<u8> = Vec::new();
        for _ in 0..300 {
            let (offset, len) = (to_usize(next(20_000)), to_usize(next(9000)));
            match next(5) {
                0 => {
                    file.set_len(offset as u64).unwrap();
                    twin.resize(offset, 0);
                }
                op => {
                    let byte = u8::try_from(next(256)).unwrap() * u8::from(op > 1);
                    twin.resize(twin.len().max(offset + len), 0);
                    twin[offset..offset + len].fill(byte);
                    if op > 1 {
                        file.write_at(offset as u64, &vec![byte; len]).unwrap();
                    } else {
                        file.zero_fill(offset as u64, len as u64).unwrap();
                    }
                }
            }
            assert!(content(&disk, "a").unwrap() == twin);
            if next(3) == 0 {
                file.sync_data().unwrap();
                assert!(content(&disk.crash(&mut || NOTHING), "a").unwrap() == twin);
            }
        }
    }
}
