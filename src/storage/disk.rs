//! A directory of files, and the real one.
//!
//! The log, the identity and the marker files see the disk only through these few operations, so
//! that a test can stand in for it and record what is called in which order. Names are plain file
//! names; there are no subdirectories.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A directory of files. Clones are handles to the same directory.
pub trait Disk: Clone + Send + 'static {
    /// An open file.
    type File: DiskFile;

    /// Opens a file for reading and writing; it is made if it is not there, emptied if it is.
    ///
    /// # Errors
    /// What the system says.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`], and what the system says.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// The names of all files, sorted.
    ///
    /// # Errors
    /// What the system says.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Gives a file another name, in place of the file that has it. Durable after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// What the system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Takes a file away. Durable after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// What the system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the names durable: creations, renames and removals up to now.
    ///
    /// # Errors
    /// What the system says.
    fn sync_dir(&self) -> io::Result<()>;

    /// A name for this run of the machine's kernel, or `None` where it cannot be known. Two equal
    /// names say that the page cache has lived through.
    fn boot_id(&self) -> Option<String>;

    /// Where a file is, for messages.
    fn path(&self, name: &str) -> PathBuf;
}

/// An open file. All offsets are from the beginning.
pub trait DiskFile: Send {
    /// Its length in bytes.
    ///
    /// # Errors
    /// What the system says.
    fn size(&self) -> io::Result<u64>;

    /// Fills `buf` from `offset`; fewer bytes come back only at the end of the file.
    ///
    /// # Errors
    /// What the system says.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes`, however many calls it takes; the file grows if it must.
    ///
    /// # Errors
    /// What the system says; some of the bytes may have been written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Writes zeros. Not a hole: the blocks are allocated, and later writes to them need no change
    /// of the file's metadata, which makes their sync a third cheaper.
    ///
    /// # Errors
    /// As [`DiskFile::write_at`].
    fn zero_fill(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Cuts the file, or grows it with zeros.
    ///
    /// # Errors
    /// What the system says.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes the bytes durable, and the length if it changed.
    ///
    /// # Errors
    /// What the system says. The bytes are then in an unknown state, for good: a second call that
    /// succeeds proves nothing.
    fn sync_data(&self) -> io::Result<()>;

    /// Makes bytes and all metadata durable; not the file's name, see [`Disk::sync_dir`].
    ///
    /// # Errors
    /// As [`DiskFile::sync_data`].
    fn sync_all(&self) -> io::Result<()>;
}

/// Makes a file appear under `name` complete and durable, or not at all: what `write` puts into
/// `temporary` is synced, renamed, and the directory synced. Returns the open file.
///
/// # Errors
/// What any step says. `temporary` may then be left behind, and `name` may be the old or the new one.
pub fn publish<D: Disk>(
    disk: &D,
    temporary: &str,
    name: &str,
    write: impl FnOnce(&D::File) -> io::Result<()>,
) -> io::Result<D::File> {
    let file = disk.create(temporary)?;
    write(&file)?;
    publish_written(disk, &file, temporary, name)?;
    Ok(file)
}

/// The second half of [`publish`], for a file that is not written in one go.
///
/// # Errors
/// As [`publish`].
pub fn publish_written<D: Disk>(disk: &D, file: &D::File, temporary: &str, name: &str) -> io::Result<()> {
    file.sync_all()?;
    disk.rename(temporary, name)?;
    disk.sync_dir()
}

/// A directory of the file system.
#[derive(Clone, Debug)]
pub struct FileDisk {
    root: PathBuf,
    /// Kept open for [`Disk::sync_dir`].
    directory: Arc<File>,
    read_only: bool,
}

impl FileDisk {
    /// The directory at `root`, which must exist.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(root: &Path) -> io::Result<FileDisk> {
        Ok(FileDisk { root: root.to_path_buf(), directory: Arc::new(File::open(root)?), read_only: false })
    }

    /// The same, but nothing in it can be changed: whatever would is refused with
    /// [`io::ErrorKind::ReadOnlyFilesystem`].
    ///
    /// # Errors
    /// What the system says.
    pub fn open_read_only(root: &Path) -> io::Result<FileDisk> {
        Ok(FileDisk { read_only: true, ..FileDisk::open(root)? })
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.read_only { Err(io::ErrorKind::ReadOnlyFilesystem.into()) } else { Ok(()) }
    }
}

impl Disk for FileDisk {
    type File = File;

    fn create(&self, name: &str) -> io::Result<File> {
        self.check_writable()?;
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.path(name))
    }

    fn open(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().read(true).write(!self.read_only).open(self.path(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            // A name that is not UTF-8 is not one of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.check_writable()?;
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.check_writable()?;
        fs::remove_file(self.path(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.directory.sync_all()
    }

    fn boot_id(&self) -> Option<String> {
        let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(text.trim().to_owned())
    }

    fn path(&self, name: &str) -> PathBuf {
        if name == "." { self.root.clone() } else { self.root.join(name) }
    }
}

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

impl DiskFile for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match FileExt::read_at(self, &mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn zero_fill(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut done = 0;
        while done < len {
            let part = usize::try_from(len - done).unwrap_or(usize::MAX).min(ZEROS.len());
            self.write_all_at(&ZEROS[..part], offset + done)?;
            done += part as u64;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn sync_all(&self) -> io::Result<()> {
        File::sync_all(self)
    }
}
