//! What this machine can do at best: a round trip over loopback, and 4 KiB made durable.
//!
//! The least that a replicated and durable write can take is one round trip to a peer and one sync, so figures are
//! given beside these. Blocking sockets and files, one request at a time, nothing else.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::BenchError;
use super::error::system;
use super::measure::{Latencies, histogram};

const MESSAGE_LEN: usize = 64;
const BLOCK: [u8; 4096] = [0x5a; 4096];
/// Blocks of the file that is filled beforehand; when they are used up it begins again.
const BLOCKS: u64 = 16 << 10;
const TOGETHER: usize = 3;

/// Where and how long.
#[derive(Clone, Debug)]
pub struct FloorOptions {
    /// On the disk in question.
    pub directory: PathBuf,
    /// For each of the figures.
    pub length: Duration,
}

/// How long each took.
#[derive(Clone, Debug)]
pub struct Floor {
    round_trip: (u64, Latencies),
    append: (u64, Latencies),
    overwrite: (u64, Latencies),
    together: (u64, Latencies),
}

impl Floor {
    /// Name, words, how often, how long.
    pub(super) fn rows(&self) -> [(&'static str, &'static str, u64, &Latencies); 4] {
        [
            ("round_trip", "round trip of 64 B over loopback", self.round_trip.0, &self.round_trip.1),
            ("append", "4 KiB appended, fdatasync", self.append.0, &self.append.1),
            ("overwrite", "4 KiB into a file of zeros, fdatasync", self.overwrite.0, &self.overwrite.1),
            ("together", "4 KiB appended, fdatasync, three at once", self.together.0, &self.together.1),
        ]
    }
}

/// Measures them, one after the other.
///
/// # Errors
/// Files or sockets that cannot be used.
pub fn measure_floor(options: &FloorOptions) -> Result<Floor, BenchError> {
    let figures = |histogram: Histogram<u64>| (histogram.len(), Latencies::of(&histogram));
    let scratch = Scratch::new(&options.directory)?;
    let length = options.length;
    let round_trip = round_trips(length).map_err(system("use a loopback connection"))?;
    let disk = |result: io::Result<Histogram<u64>>| result.map_err(system("write and sync a file"));
    Ok(Floor {
        round_trip: figures(round_trip),
        append: figures(disk(appends(&scratch.path("append"), length))?),
        overwrite: figures(disk(overwrites(&scratch.path("overwrite"), length))?),
        together: figures(disk(appends_together(&scratch, length))?),
    })
}

/// A directory that goes away again.
struct Scratch(PathBuf);

impl Scratch {
    fn new(directory: &Path) -> Result<Scratch, BenchError> {
        let path = directory.join(format!("kvbench-floor-{}", std::process::id()));
        std::fs::create_dir(&path).map_err(system(format!("make {}", path.display())))?;
        Ok(Scratch(path))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left behind is seen by whoever looks into the directory.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Does something again and again, and notes how long it takes.
fn timed(length: Duration, mut once: impl FnMut() -> io::Result<()>) -> io::Result<Histogram<u64>> {
    let mut times = histogram();
    let begin = Instant::now();
    while begin.elapsed() < length {
        let before = Instant::now();
        once()?;
        times.saturating_record(u64::try_from(before.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
    Ok(times)
}

fn round_trips(length: Duration) -> io::Result<Histogram<u64>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut near = TcpStream::connect(listener.local_addr()?)?;
    let (mut far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let echo = thread::spawn(move || {
        let mut message = [0; MESSAGE_LEN];
        while far.read_exact(&mut message).is_ok() {
            if far.write_all(&message).is_err() {
                break;
            }
        }
    });
    let mut message = [1; MESSAGE_LEN];
    let times = timed(length, || {
        near.write_all(&message)?;
        near.read_exact(&mut message)
    });
    drop(near);
    let _ = echo.join();
    times
}

fn appends(path: &Path, length: Duration) -> io::Result<Histogram<u64>> {
    let mut file = File::create_new(path)?;
    timed(length, || {
        file.write_all(&BLOCK)?;
        file.sync_data()
    })
}

fn overwrites(path: &Path, length: Duration) -> io::Result<Histogram<u64>> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    for _ in 0..BLOCKS {
        file.write_all(&[0; 4096])?;
    }
    file.sync_all()?;
    let mut block = 0;
    timed(length, || {
        file.seek(SeekFrom::Start(block * BLOCK.len() as u64))?;
        block = (block + 1) % BLOCKS;
        file.write_all(&BLOCK)?;
        file.sync_data()
    })
}

fn appends_together(scratch: &Scratch, length: Duration) -> io::Result<Histogram<u64>> {
    let paths: Vec<PathBuf> =
        (0..TOGETHER).map(|number| scratch.path(&format!("together-{number}"))).collect();
    thread::scope(|scope| {
        let threads: Vec<_> = paths.iter().map(|path| scope.spawn(move || appends(path, length))).collect();
        let mut all = histogram();
        for thread in threads {
            let times = thread.join().map_err(|_| io::Error::other("a thread failed"))??;
            all.add(&times).expect("both have the same bounds");
        }
        Ok(all)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_measured_and_cleaned_up() {
        let directory = std::env::temp_dir();
        let options = FloorOptions { directory: directory.clone(), length: Duration::from_millis(20) };
        let floor = measure_floor(&options).expect("files and sockets");
        for (name, _, count, latencies) in floor.rows() {
            assert!(count > 0 && latencies.min > 0.0 && latencies.max >= latencies.p50, "{name}");
        }
        let left = directory.join(format!("kvbench-floor-{}", std::process::id()));
        assert!(!left.exists(), "{}", left.display());
        let nowhere = FloorOptions { directory: directory.join("no such directory"), ..options };
        assert!(measure_floor(&nowhere).is_err());
    }
}
