//! The write-ahead log: appending, syncing, and going on to the next segment.
//!
//! A group of records is one write and one sync. It is never split between segments: if it does not fit
//! into the rest of the segment, the log syncs what it has and begins the next segment, as long as it needs to be.
//! So everything but the last segment is durable, always.
//!
//! A write into blocks that exist needs no change of the file's metadata, and its sync is a third
//! cheaper. Therefore a window of zeros runs ahead of the last record: [`Log::fill_ahead`] moves it
//! on, a slice at a time, whenever the writer has nothing better to do. A whole segment is never filled
//! at once: a small cluster would pay 64 MiB for a start. When the window is used up, the log
//! extends it on the way; that is slower, not different.
//!
//! Records that a snapshot covers are removed by whole segments, from the beginning
//! ([`Log::truncate_before`]). A log may therefore begin with any segment; whoever opens it says from which record on
//! it is needed.
//!
//! The torn end that a start has cut off a segment goes when the segment does. It shows what was being written when the
//! process died, and tells somebody something only beside the records before it; and with at most one for each segment
//! that is there, they never take more room than the log. Whatever a crash between the two removals leaves of them goes
//! with the next segment.

use std::io;

use crate::types::{DiskId, Lsn, NodeId, splitmix64};

use super::record::{FLAG_CLEAN, FLAG_DURABLE};
use super::segment::{self, SEGMENT_HEADER_LEN, SegmentHeader};
use super::{Disk, DiskFile, Identity, OpenError, RecordGroup, Recovered, SyncMode, publish, recovery};
use crate::wire::DecodeError;

/// What a log is opened with.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// The node; in every segment's header.
    pub node: NodeId,
    /// The disk; in every segment's header.
    pub disk_id: DiskId,
    /// When groups are synced. The log keeps the marker of the weak modes; when to sync is for the one
    /// who appends, [`super::LogWriter`] for example.
    pub sync: SyncMode,
    /// At this length a segment is finished, in bytes; at least 4 KiB. A larger group makes it longer.
    pub segment_len: u64,
    /// How many bytes of zeros are kept ahead of the last record.
    pub window_len: u64,
    /// A random number, another one at each start: the segments' salts come from it.
    pub seed: u64,
    /// The first record that is needed, 1 or what a snapshot says. Those before it may be missing; if they are
    /// there they are not handed out. The record before it was durable when the snapshot was published, so it is
    /// damage if the log ends earlier.
    pub needed: Lsn,
}

impl LogOptions {
    /// Shortest segment that may be asked for, in bytes.
    pub const SEGMENT_LEN_MIN: u64 = 4 << 10;

    /// The defaults: sync always, segments of 64 MiB, a window of 1 MiB.
    pub fn new(identity: Identity, seed: u64) -> LogOptions {
        LogOptions {
            node: identity.node,
            disk_id: identity.disk_id,
            sync: SyncMode::Always,
            segment_len: 64 << 20,
            window_len: 1 << 20,
            seed,
            needed: Lsn(1),
        }
    }

    /// The salt of a segment: splitmix64 of seed and number.
    pub(super) fn salt(&self, seq: u64) -> u32 {
        let mut state = self.seed.wrapping_add(seq.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let [a, b, c, d, ..] = splitmix64(&mut state).to_be_bytes();
        u32::from_be_bytes([a, b, c, d])
    }
}

/// A segment and what it begins with: it may be removed when no record from `first` up to the next
/// segment's is needed any more ([`Log::truncate_before`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentSpan {
    /// The segment's number.
    pub seq: u64,
    /// The log sequence number of its first record, whether it is there already or not.
    pub first: Lsn,
    /// The length of the file in bytes; of the last segment when it was begun or the log opened.
    pub len: u64,
}

/// A segment open for appending.
pub(super) struct OpenSegment<F> {
    pub(super) file: F,
    pub(super) header: SegmentHeader,
    /// Where the next record goes.
    pub(super) position: u64,
    /// Up to here the file has been written, with records or zeros.
    pub(super) filled: u64,
    /// CRC of the last record, here or in the segment before.
    pub(super) crc: u32,
}

/// Publishes a segment that begins with what `write` puts behind the header, and a window of zeros.
/// `write` gives the position after its records and the CRC of the last.
pub(super) fn publish_segment<D: Disk>(
    disk: &D,
    options: &LogOptions,
    header: SegmentHeader,
    write: impl FnOnce(&D::File) -> io::Result<(u64, u32)>,
) -> io::Result<OpenSegment<D::File>> {
    let mut end = (SEGMENT_HEADER_LEN as u64, header.previous);
    let mut filled = 0;
    let file = publish(disk, &segment::temporary_name(header.seq), &segment::name(header.seq), |file| {
        file.write_at(0, &header.encode())?;
        end = write(file)?;
        filled = options.segment_len.min(end.0 + options.window_len).max(end.0);
        file.zero_fill(end.0, filled - end.0)
    })?;
    let (position, crc) = end;
    Ok(OpenSegment { file, header, position, filled, crc })
}

/// The log of one node. All calls are made by one thread, the writer's.
pub struct Log<D: Disk> {
    disk: D,
    options: LogOptions,
    segment: OpenSegment<D::File>,
    spans: Vec<SegmentSpan>,
    /// The segments whose torn end is kept, in order.
    torn: Vec<u64>,
    last: Lsn,
    durable: Lsn,
    /// Nothing is written any more: something failed, or the clean mark is written.
    closed: bool,
    /// Filling ahead has met a full disk; it is not tried again in this segment.
    fill_failed: bool,
}

impl<D: Disk> Log<D> {
    /// Opens the log, or makes it. `each` gets every record from [`LogOptions::needed`] on in order: its number,
    /// kind and payload. On return all of them are durable, whatever they were before. What `each` was given
    /// counts only if `open` succeeds.
    ///
    /// # Errors
    /// Damage, a foreign or newer segment, needed records that are missing, records lost in a weak sync
    /// mode, a record that `each` does not understand, or an I/O error.
    ///
    /// # Panics
    /// If `options` ask for segments shorter than [`LogOptions::SEGMENT_LEN_MIN`].
    pub fn open(
        disk: &D,
        options: LogOptions,
        each: impl FnMut(Lsn, u8, &[u8]) -> Result<(), DecodeError>,
    ) -> Result<(Log<D>, Recovered), OpenError> {
        assert!(options.segment_len >= LogOptions::SEGMENT_LEN_MIN, "segments have at least 4 KiB");
        let (segment, spans, recovered) = recovery::recover(disk, &options, each)?;
        let names = disk.list().map_err(OpenError::on(disk, "."))?;
        let log = Log {
            disk: disk.clone(),
            options,
            segment,
            spans,
            torn: names.iter().filter_map(|name| segment::parse_torn_name(name)).collect(),
            last: recovered.last,
            durable: recovered.last,
            closed: false,
            fill_failed: false,
        };
        Ok((log, recovered))
    }

    /// The number of the last record written.
    pub fn last(&self) -> Lsn {
        self.last
    }

    /// The number up to which all records are durable.
    pub fn durable(&self) -> Lsn {
        self.durable
    }

    /// Where in the last segment the next group goes, in bytes from its start.
    pub fn position(&self) -> u64 {
        self.segment.position
    }

    /// When its groups are to be synced.
    pub fn sync_mode(&self) -> SyncMode {
        self.options.sync
    }

    /// How many bytes the segments take on the disk.
    pub fn len_bytes(&self) -> u64 {
        let finished = self.spans.split_last().map_or(&[][..], |(_, finished)| finished);
        finished.iter().map(|span| span.len).sum::<u64>() + self.segment.filled
    }

    /// Removes the oldest segment, and what was cut off it, if none of its records is `lsn` or above and it is not the
    /// last. Says whether it did: called until it does not, it removes all that can go, one segment at a time, so that
    /// a writer may write in between.
    ///
    /// The oldest goes first, and for good before the next one does: whatever a crash leaves is an end of the log
    /// without a gap.
    ///
    /// # Errors
    /// What the system says. The log takes nothing more after that.
    pub fn truncate_before(&mut self, lsn: Lsn) -> io::Result<bool> {
        self.check_open()?;
        let [oldest, next, ..] = self.spans[..] else { return Ok(false) };
        if next.first > lsn {
            return Ok(false);
        }
        let removed = self
            .remove_torn(oldest.seq)
            .and_then(|()| self.disk.remove(&segment::name(oldest.seq)))
            .and_then(|()| self.disk.sync_dir());
        self.close_on_error(removed)?;
        self.spans.remove(0);
        Ok(true)
    }

    /// Removes what was cut off this segment and those before it.
    fn remove_torn(&mut self, up_to: u64) -> io::Result<()> {
        while let Some(seq) = self.torn.first().copied().filter(|seq| *seq <= up_to) {
            match self.disk.remove(&segment::torn_name(seq)) {
                // It is there for people, who may have taken it away.
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => self.torn.remove(0),
            };
        }
        Ok(())
    }

    /// The segments, in order.
    pub fn segments(&self) -> &[SegmentSpan] {
        &self.spans
    }

    /// Writes a group; it is durable after the next [`Log::sync`]. The group is given its checksums
    /// in place.
    ///
    /// # Errors
    /// What the system says. The log takes nothing more after that.
    ///
    /// # Panics
    /// If the group does not begin with the number after the last one.
    pub fn append(&mut self, group: &mut RecordGroup) -> io::Result<()> {
        let (Some(first), Some(last)) = (group.first_lsn(), group.last_lsn()) else { return Ok(()) };
        assert_eq!(first, self.last.next(), "groups are appended in their order");
        self.write(group)?;
        self.last = last;
        Ok(())
    }

    /// Makes durable what has been written.
    ///
    /// # Errors
    /// What the system says. The log takes nothing more after that.
    pub fn sync(&mut self) -> io::Result<()> {
        self.check_open()?;
        let synced = self.segment.file.sync_data();
        self.close_on_error(synced)?;
        self.durable = self.last;
        Ok(())
    }

    /// Ends the log as a clean stop does: all records durable, then a mark, durable too. Nothing can
    /// be appended after it.
    ///
    /// # Errors
    /// What the system says.
    pub fn write_clean_mark(&mut self) -> io::Result<()> {
        self.sync()?;
        let mut mark = RecordGroup::new();
        mark.push_mark(self.last, FLAG_CLEAN);
        self.write(&mut mark)?;
        self.sync()?;
        self.closed = true;
        Ok(())
    }

    /// Notes in the log that everything written is durable, if it is. Not synced itself. A later bad
    /// byte in the last group is then known as damage, which could otherwise be a torn write.
    ///
    /// # Errors
    /// What the system says. The log takes nothing more after that.
    pub fn write_durable_mark(&mut self) -> io::Result<()> {
        if self.durable < self.last {
            return Ok(());
        }
        let mut mark = RecordGroup::new();
        mark.push_mark(self.last, FLAG_DURABLE);
        self.write(&mut mark)
    }

    /// Moves the window of zeros on by one slice, if less than half of it is left. Says whether it
    /// did; a sync should follow, so that the next group need not pay for it.
    ///
    /// # Errors
    /// What the system says, except that the disk is full: that is met when it matters.
    pub fn fill_ahead(&mut self) -> io::Result<bool> {
        let segment = &self.segment;
        let left = segment.filled - segment.position;
        let room = self.options.segment_len.saturating_sub(segment.filled);
        if self.closed || self.fill_failed || room == 0 || left >= self.options.window_len / 2 {
            return Ok(false);
        }
        self.fill(room.min(self.options.window_len / 4))?;
        Ok(!self.fill_failed)
    }

    fn fill(&mut self, len: u64) -> io::Result<()> {
        match self.segment.file.zero_fill(self.segment.filled, len) {
            Ok(()) => self.segment.filled += len,
            Err(error)
                if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
            {
                self.fill_failed = true;
            }
            Err(error) => return self.close_on_error(Err(error)),
        }
        Ok(())
    }

    fn write(&mut self, group: &mut RecordGroup) -> io::Result<()> {
        self.check_open()?;
        let len = group.len_bytes() as u64;
        let begun = self.segment.position > SEGMENT_HEADER_LEN as u64;
        if begun && self.segment.position + len > self.options.segment_len {
            self.rotate()?;
        }
        let segment = &mut self.segment;
        let crc = group.seal(segment.header.salt, self.durable, segment.crc);
        let written = segment.file.write_at(segment.position, group.bytes());
        self.close_on_error(written)?;
        let segment = &mut self.segment;
        segment.crc = crc;
        segment.position += len;
        if segment.position > segment.filled {
            segment.filled = segment.position;
            // The sync has to write metadata now; one window more and the next ones need not. A large
            // group pays for its own.
            let room = self.options.segment_len.saturating_sub(segment.filled);
            let window = self.options.window_len.min(room);
            if len < self.options.window_len / 4 && window > 0 && !self.fill_failed {
                self.fill(window)?;
            }
        }
        Ok(())
    }

    /// Begins the next segment. This one is durable before the next can be seen.
    fn rotate(&mut self) -> io::Result<()> {
        self.sync()?;
        let seq = self.segment.header.seq + 1;
        let header = SegmentHeader {
            seq,
            first: self.last.next(),
            salt: self.options.salt(seq),
            previous: self.segment.crc,
            ..self.segment.header
        };
        let made = publish_segment(&self.disk, &self.options, header, |_| {
            Ok((SEGMENT_HEADER_LEN as u64, header.previous))
        });
        let filled = self.segment.filled;
        self.segment = self.close_on_error(made)?;
        if let Some(finished) = self.spans.last_mut() {
            finished.len = filled;
        }
        self.spans.push(SegmentSpan { seq, first: header.first, len: self.segment.filled });
        self.fill_failed = false;
        Ok(())
    }

    fn check_open(&self) -> io::Result<()> {
        if self.closed { Err(io::Error::other("the log is closed")) } else { Ok(()) }
    }

    /// The first error is the last thing that happens to a log; it gets the segment's path.
    fn close_on_error<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        result.map_err(|error| {
            self.closed = true;
            let path = self.disk.path(&segment::name(self.segment.header.seq));
            io::Error::new(error.kind(), format!("{}: {error}", path.display()))
        })
    }
}
