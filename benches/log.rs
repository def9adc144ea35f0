//! The log on this machine's disk: a group of records written and synced, and written alone.
//!
//! One iteration of `sync` is what stands between a batch and its vote; `append` is the same without the sync, and
//! `seal` without the disk: checksums and copying. The window of zeros moves on as it does in a node. Compare with
//! `kvbench --floor`. The files are in the system's directory for temporary files.

mod common;

use criterion::{BenchmarkId, Criterion, Throughput};
use lanekv::storage::Identity;
use lanekv::storage::{Disk, FileDisk, Log, LogOptions, MemoryDisk, RecordGroup};
use lanekv::types::DiskId;

use common::Directory;

const SIZES: [(usize, &str); 4] = [(64, "64B"), (4 << 10, "4KiB"), (64 << 10, "64KiB"), (1 << 20, "1MiB")];
const KIND: u8 = 1;

fn main() {
    let mut criterion = common::criterion();
    let directory = Directory::new("log");
    // A directory for each, since a log that was trimmed cannot be opened from its beginning.
    let file_disk = |name: &str| {
        let path = directory.path().join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).expect("a directory for temporary files");
        FileDisk::open(&path).expect("just made")
    };
    appends(&mut criterion, "append", false, || file_disk("append"));
    appends(&mut criterion, "sync", true, || file_disk("sync"));
    appends(&mut criterion, "seal", false, MemoryDisk::new);
    criterion.final_summary();
}

fn appends<D: Disk>(criterion: &mut Criterion, name: &str, sync: bool, disk: impl Fn() -> D) {
    let mut group = criterion.benchmark_group(format!("log/{name}"));
    for (len, size) in SIZES {
        let payload = common::value(len);
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            let mut log = Some(open(&disk()));
            let mut records = RecordGroup::new();
            bencher.iter(|| {
                let log = log.as_mut().expect("only the end takes it");
                let lsn = log.last().next();
                records.clear();
                records.push(lsn, KIND, |out| out.extend_from_slice(&payload));
                log.append(&mut records).expect("room on the disk");
                if sync {
                    log.sync().expect("a disk that works");
                    log.fill_ahead().expect("a disk that works");
                }
                trim(log);
            });
            drop(log.take());
        });
    }
    group.finish();
}

fn open<D: Disk>(disk: &D) -> Log<D> {
    let identity = Identity { node: common::node(0), disk_id: DiskId(1), joining: false };
    Log::open(disk, LogOptions::new(identity, 1), |_, _, _| Ok(())).expect("an empty log").0
}

/// Keeps the log short, as snapshots do.
fn trim<D: Disk>(log: &mut Log<D>) {
    let last = log.last();
    if log.segments().len() > 2 {
        while log.truncate_before(last).expect("a disk that works") {}
    }
}
