//! The thread that writes the log, so that the event loop never waits for a disk.
//!
//! The loop submits one group a turn. While a sync runs, groups pile up; when it returns they go to
//! the disk together, with one write and one sync. There is no delay to collect more: the slower the
//! disk, the larger the groups. What is durable is reported by `notify`, which wakes the loop.
//!
//! The first error is reported and is the last thing the thread does. It never tries again.
//!
//! The thread also removes segments that are needed no more, one after a write, so that a busy log shrinks too.
//!
//! When nothing is queued, the thread marks what is durable and moves the log's window of zeros on,
//! in slices short enough not to keep a group waiting for long.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::types::Lsn;

use super::{Disk, Log, RecordGroup, SyncMode};

/// Groups up to this many bytes are copied together for one write; larger ones are written by themselves.
const MERGE_LEN_MAX: usize = 256 << 10;
/// How many empty groups are kept for reuse, and how much memory each may hold.
const SPARE_COUNT_MAX: usize = 16;
const SPARE_LEN_MAX: usize = 4 << 20;
/// After this long without a group the log is marked durable.
const MARK_AFTER: Duration = Duration::from_millis(10);

/// How the thread is to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ending {
    /// With everything written and the mark of a clean stop.
    Clean,
    /// With everything written.
    Dropped,
}

#[derive(Default)]
struct Queue {
    groups: Vec<RecordGroup>,
    spare: Vec<RecordGroup>,
    ending: Option<Ending>,
    /// Segments with nothing at or above this are to be removed.
    truncate: Option<Lsn>,
    /// The thread is gone; nothing is queued any more.
    dead: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    pending_bytes: AtomicU64,
    reported: AtomicU64,
    first: AtomicU64,
    len_bytes: AtomicU64,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("nothing panics while it holds this lock")
    }
}

/// The event loop's side of the log-writer thread.
///
/// Dropped without [`LogWriter::stop`], it writes what is queued and ends without the mark of a
/// clean stop.
pub struct LogWriter {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl LogWriter {
    /// Starts the thread. `notify` is called on it, each time with the number up to which all records
    /// are as safe as the log's mode promises (durable in [`SyncMode::Always`], written in the others), or once
    /// with the error that ended it.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn spawn<D: Disk>(
        log: Log<D>,
        notify: impl Fn(io::Result<Lsn>) + Send + 'static,
    ) -> io::Result<LogWriter> {
        let reported = log.durable().0;
        let mode = log.sync_mode();
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            wake: Condvar::new(),
            pending_bytes: AtomicU64::new(0),
            reported: AtomicU64::new(reported),
            first: AtomicU64::new(first_of(&log).0),
            len_bytes: AtomicU64::new(log.len_bytes()),
        });
        let mut writer = Writer {
            log,
            mode,
            shared: Arc::clone(&shared),
            batch: RecordGroup::new(),
            marked: Lsn(reported),
            synced_at: Instant::now(),
            segments: 0,
        };
        let thread = std::thread::Builder::new().name("log-writer".to_owned()).spawn(move || {
            let result = catch_unwind(AssertUnwindSafe(|| writer.run(&notify)));
            writer.bury();
            match result {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => {
                    notify(Err(io::Error::new(error.kind(), error.to_string())));
                    Err(error)
                }
                // A loop that waits for ever would be worse than a process that ends.
                Err(panic) => {
                    notify(Err(io::Error::other("the log writer panicked")));
                    resume_unwind(panic)
                }
            }
        })?;
        Ok(LogWriter { shared, thread: Some(thread) })
    }

    /// Hands over a group; an empty one is taken for reuse. Groups are written in the order of the calls.
    /// The caller keeps [`LogWriter::pending_bytes`] within bounds.
    pub fn submit(&self, group: RecordGroup) {
        let len = group.len_bytes() as u64;
        let mut queue = self.shared.queue();
        if queue.dead {
            return;
        }
        if len == 0 {
            keep_spare(&mut queue, group);
            return;
        }
        self.shared.pending_bytes.fetch_add(len, Ordering::Relaxed);
        queue.groups.push(group);
        drop(queue);
        self.shared.wake.notify_one();
    }

    /// Asks for the removal of segments that hold no record from `lsn` on ([`Log::truncate_before`]). It is done
    /// between groups, one segment at a time; [`LogWriter::first`] tells how far it is.
    pub fn truncate_before(&self, lsn: Lsn) {
        let mut queue = self.shared.queue();
        if !queue.dead {
            queue.truncate = queue.truncate.max(Some(lsn));
            drop(queue);
            self.shared.wake.notify_one();
        }
    }

    /// The first record that is still in the log.
    pub fn first(&self) -> Lsn {
        Lsn(self.shared.first.load(Ordering::Relaxed))
    }

    /// How many bytes the log takes on the disk.
    pub fn len_bytes(&self) -> u64 {
        self.shared.len_bytes.load(Ordering::Relaxed)
    }

    /// How many bytes have been submitted and not yet reported.
    pub fn pending_bytes(&self) -> u64 {
        self.shared.pending_bytes.load(Ordering::Relaxed)
    }

    /// The number that `notify` was last called with.
    pub fn reported(&self) -> Lsn {
        Lsn(self.shared.reported.load(Ordering::Acquire))
    }

    /// An empty group, one that has been used before if there is one.
    pub fn recycle(&self) -> RecordGroup {
        self.shared.queue().spare.pop().unwrap_or_default()
    }

    /// Finishes what is queued, writes the mark of a clean stop, and waits for all of it to be durable.
    ///
    /// # Errors
    /// The error that ended the thread, now or before.
    pub fn stop(mut self) -> io::Result<()> {
        self.end(Ending::Clean)
    }

    fn end(&mut self, ending: Ending) -> io::Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        self.shared.queue().ending = Some(ending);
        self.shared.wake.notify_one();
        match thread.join() {
            Ok(result) => result,
            Err(panic) => resume_unwind(panic),
        }
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        // The error was given to `notify`, and a panic must not become a second one.
        if !std::thread::panicking() {
            let _ = self.end(Ending::Dropped);
        }
    }
}

fn first_of<D: Disk>(log: &Log<D>) -> Lsn {
    log.segments().first().map_or(Lsn(1), |span| span.first)
}

fn keep_spare(queue: &mut Queue, mut group: RecordGroup) {
    if queue.spare.len() < SPARE_COUNT_MAX && group.capacity() <= SPARE_LEN_MAX {
        group.clear();
        queue.spare.push(group);
    }
}

/// What the thread is to do next.
enum Work {
    Write(Vec<RecordGroup>),
    Sync,
    Mark,
    Truncate,
    End(Ending),
}

struct Writer<D: Disk> {
    log: Log<D>,
    mode: SyncMode,
    shared: Arc<Shared>,
    /// Small groups on their way to one write.
    batch: RecordGroup,
    synced_at: Instant,
    /// What the last durable mark said.
    marked: Lsn,
    /// How many segments there were when the lengths were last told.
    segments: usize,
}

impl<D: Disk> Writer<D> {
    fn run(&mut self, notify: &impl Fn(io::Result<Lsn>)) -> io::Result<()> {
        loop {
            match self.next_work() {
                Work::Write(groups) => {
                    self.write(groups)?;
                    notify(Ok(self.log.last()));
                    self.truncate()?;
                    if self.shared.queue().groups.is_empty() {
                        self.fill_ahead()?;
                    }
                }
                Work::Sync => self.sync()?,
                Work::Truncate => self.truncate()?,
                Work::Mark => {
                    self.marked = self.log.durable();
                    self.log.write_durable_mark()?;
                }
                Work::End(Ending::Clean) => return self.log.write_clean_mark(),
                Work::End(Ending::Dropped) => return Ok(()),
            }
        }
    }

    fn next_work(&self) -> Work {
        let mut queue = self.shared.queue();
        loop {
            if !queue.groups.is_empty() {
                return Work::Write(std::mem::take(&mut queue.groups));
            }
            if let Some(ending) = queue.ending {
                return Work::End(ending);
            }
            if queue.truncate.is_some() {
                return Work::Truncate;
            }
            let unsynced = self.log.durable() < self.log.last();
            let wait = match self.mode {
                SyncMode::Interval(every) if unsynced => Some((
                    Duration::from_millis(every.0).saturating_sub(self.synced_at.elapsed()),
                    Work::Sync,
                )),
                _ if !unsynced && self.marked < self.log.durable() => Some((MARK_AFTER, Work::Mark)),
                _ => None,
            };
            queue = match wait {
                None => self.shared.wake.wait(queue).expect("nothing panics while it holds this lock"),
                Some((time, work)) => {
                    let (queue, waited) = self
                        .shared
                        .wake
                        .wait_timeout(queue, time)
                        .expect("nothing panics while it holds this lock");
                    let nothing =
                        queue.groups.is_empty() && queue.ending.is_none() && queue.truncate.is_none();
                    if waited.timed_out() && nothing {
                        return work;
                    }
                    queue
                }
            };
        }
    }

    fn write(&mut self, groups: Vec<RecordGroup>) -> io::Result<()> {
        let mut bytes = 0;
        let mut must_sync = self.mode == SyncMode::Always;
        let mut done: Vec<RecordGroup> = Vec::with_capacity(groups.len());
        let is_alone = groups.len() == 1;
        for mut group in groups {
            bytes += group.len_bytes() as u64;
            must_sync |= group.must_sync();
            let fits = self.batch.len_bytes() + group.len_bytes() <= MERGE_LEN_MAX;
            if !fits {
                self.flush()?;
            }
            // Copying pays only where it saves a write.
            if is_alone || group.len_bytes() > MERGE_LEN_MAX {
                self.log.append(&mut group)?;
            } else {
                self.batch.absorb(&group);
            }
            done.push(group);
        }
        self.flush()?;
        let overdue = match self.mode {
            SyncMode::Interval(every) => self.synced_at.elapsed() >= Duration::from_millis(every.0),
            _ => false,
        };
        if must_sync || overdue {
            self.sync()?;
        }
        self.shared.reported.store(self.log.last().0, Ordering::Release);
        self.shared.pending_bytes.fetch_sub(bytes, Ordering::Relaxed);
        let mut queue = self.shared.queue();
        for group in done {
            keep_spare(&mut queue, group);
        }
        Ok(())
    }

    /// Removes one segment if that is wanted: not more, a group may be waiting.
    fn truncate(&mut self) -> io::Result<()> {
        let wanted = self.shared.queue().truncate;
        let segments = self.log.segments().len();
        if wanted.is_none() && segments == self.segments {
            return Ok(());
        }
        self.segments = segments;
        if let Some(lsn) = wanted
            && !self.log.truncate_before(lsn)?
        {
            let mut queue = self.shared.queue();
            // More may be wanted by now.
            queue.truncate = queue.truncate.filter(|wanted| *wanted > lsn);
        }
        self.shared.first.store(first_of(&self.log).0, Ordering::Relaxed);
        self.shared.len_bytes.store(self.log.len_bytes(), Ordering::Relaxed);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.log.append(&mut self.batch)?;
        self.batch.clear();
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.log.sync()?;
        self.synced_at = Instant::now();
        Ok(())
    }

    /// Fills until the window is long enough again or there is something to write.
    fn fill_ahead(&mut self) -> io::Result<()> {
        while self.log.fill_ahead()? {
            // The zeros are worth something only with the file's new length on the disk. In the other
            // modes a sync is not for the log to add.
            if self.mode == SyncMode::Always {
                self.sync()?;
            }
            if !self.shared.queue().groups.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// After the end: what is queued and what will be submitted goes nowhere.
    fn bury(&self) {
        let mut queue = self.shared.queue();
        queue.dead = true;
        queue.groups.clear();
        queue.spare.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::super::tests::{Payload, options, read_back};
    use super::super::{LogOptions, MemoryDisk, Operation};
    use super::*;
    use crate::types::Millis;

    const WAIT: Duration = Duration::from_secs(20);

    fn start(disk: &MemoryDisk, mode: SyncMode) -> (LogWriter, Receiver<io::Result<Lsn>>) {
        let (log, _) = Log::open(disk, options(1 << 20, mode), |_, _, _| Ok(())).unwrap();
        let (tx, rx) = channel();
        let writer = LogWriter::spawn(log, move |result| {
            let _ = tx.send(result);
        });
        (writer.unwrap(), rx)
    }

    fn submit(writer: &LogWriter, lsn: u64, len: usize) {
        let mut group = writer.recycle();
        group.push(Lsn(lsn), 1, |out| Payload::new(lsn, len).write(out));
        writer.submit(group);
    }

    fn wait_for(rx: &Receiver<io::Result<Lsn>>, lsn: u64) {
        while rx.recv_timeout(WAIT).expect("a report comes").unwrap() < Lsn(lsn) {}
    }

    #[test]
    fn what_is_reported_survives_and_a_stop_is_clean() {
        let disk = MemoryDisk::new();
        let (writer, rx) = start(&disk, SyncMode::Always);
        for lsn in 1..=500 {
            submit(&writer, lsn, if lsn % 100 == 0 { 300 << 10 } else { 40 });
            if lsn % 50 == 0 {
                wait_for(&rx, lsn);
                let (records, _) = read_back(&disk.crash(&mut || 0), 1 << 20).unwrap();
                assert_eq!(records.len() as u64, lsn);
            }
        }
        assert_eq!((writer.pending_bytes(), writer.reported()), (0, Lsn(500)));
        submit(&writer, 501, 10);
        writer.stop().unwrap();
        let (records, recovered) = read_back(&disk.crash(&mut || 0), 1 << 20).unwrap();
        assert!(recovered.clean);
        assert_eq!(records.len(), 501);
    }

    #[test]
    fn the_first_error_is_reported_once_and_ends_it() {
        let disk = MemoryDisk::new();
        let (writer, rx) = start(&disk, SyncMode::Always);
        submit(&writer, 1, 40);
        wait_for(&rx, 1);
        disk.fail(Operation::Sync, 0, io::ErrorKind::Other);
        disk.record_calls();
        submit(&writer, 2, 40);
        let error = loop {
            if let Err(error) = rx.recv_timeout(WAIT).expect("the error is reported") {
                break error;
            }
        };
        assert!(error.to_string().contains("wal-0000000000000001.log"), "{error}");
        submit(&writer, 3, 40);
        assert!(writer.stop().is_err());
        assert!(rx.recv_timeout(WAIT).is_err(), "nothing is reported after the error");
        let calls = disk.take_calls();
        let failed = calls.iter().position(|call| call.operation == Operation::Sync).unwrap();
        assert_eq!(failed, calls.len() - 1, "nothing is written or synced after the failure: {calls:?}");
    }

    #[test]
    fn a_weak_mode_reports_what_is_written_and_syncs_what_asks_for_it() {
        let disk = MemoryDisk::new();
        let (writer, rx) = start(&disk, SyncMode::Never);
        disk.record_calls();
        submit(&writer, 1, 40);
        wait_for(&rx, 1);
        assert!(disk.take_calls().iter().all(|call| call.operation != Operation::Sync));
        let mut group = writer.recycle();
        group.push(Lsn(2), 1, |out| Payload::new(2, 40).write(out));
        group.require_sync();
        writer.submit(group);
        wait_for(&rx, 2);
        assert!(disk.take_calls().iter().any(|call| call.operation == Operation::Sync));
    }

    #[test]
    fn needless_segments_go_between_groups() {
        let disk = MemoryDisk::new();
        let (log, _) = Log::open(&disk, options(4096, SyncMode::Always), |_, _, _| Ok(())).unwrap();
        let (tx, rx) = channel();
        let writer = LogWriter::spawn(log, move |result| drop(tx.send(result))).unwrap();
        for lsn in 1..=40 {
            // One by one: what is written together stays together, however long the segment gets.
            submit(&writer, lsn, 500);
            wait_for(&rx, lsn);
            if lsn == 30 {
                writer.truncate_before(Lsn(25));
            }
        }
        let start = Instant::now();
        while writer.first() < Lsn(19) {
            assert!(start.elapsed() < WAIT, "nothing is removed after {}", writer.first());
            std::thread::yield_now();
        }
        // Asked for less, it does nothing; and when idle it is done too.
        writer.truncate_before(Lsn(3));
        let kept = writer.first();
        assert!(kept <= Lsn(25), "{kept}");
        writer.truncate_before(Lsn(100));
        while writer.len_bytes() > 4096 {
            assert!(start.elapsed() < WAIT, "{} bytes are left", writer.len_bytes());
            std::thread::yield_now();
        }
        let first = writer.first();
        writer.stop().unwrap();
        let options = LogOptions { needed: first, ..options(4096, SyncMode::Always) };
        let (log, recovered) = Log::open(&disk.crash(&mut || 0), options, |_, _, _| Ok(())).unwrap();
        assert_eq!((recovered.last, log.segments().len()), (Lsn(40), 1));
    }

    #[test]
    fn the_interval_mode_syncs_by_itself() {
        let disk = MemoryDisk::new();
        let (writer, rx) = start(&disk, SyncMode::Interval(Millis(5)));
        disk.record_calls();
        submit(&writer, 1, 40);
        wait_for(&rx, 1);
        let start = Instant::now();
        while !disk.take_calls().iter().any(|call| call.operation == Operation::Sync) {
            assert!(start.elapsed() < WAIT, "no sync");
            std::thread::yield_now();
        }
        drop(writer);
    }

    #[test]
    fn groups_that_pile_up_are_written_at_once() {
        let disk = MemoryDisk::new();
        let (log, _) = Log::open(&disk, options(1 << 20, SyncMode::Always), |_, _, _| Ok(())).unwrap();
        let (entered_tx, entered) = channel();
        let (go, gate) = channel::<()>();
        let writer = LogWriter::spawn(log, move |result| {
            let _ = entered_tx.send(result);
            let _ = gate.recv();
        })
        .unwrap();
        submit(&writer, 1, 40);
        wait_for(&entered, 1);
        // The thread stands in `notify`, as it would in a slow sync.
        disk.record_calls();
        for lsn in 2..=9 {
            submit(&writer, lsn, 40);
        }
        go.send(()).unwrap();
        wait_for(&entered, 9);
        let calls: Vec<Operation> = disk.take_calls().iter().map(|call| call.operation).collect();
        assert_eq!(calls, [Operation::Write, Operation::Sync]);
        drop(go);
        writer.stop().unwrap();
    }
}
