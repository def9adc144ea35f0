//! Reading the log back after a stop or a crash.
//!
//! All segments are scanned in order, each record verified and handed to the caller, except for segments that a
//! snapshot has made needless. Where the chain
//! of valid records ends before the last segment does, one question decides: **had the missing record
//! been durable?** Then somebody may rest on it, and to cut it away would be to forget a
//! promise. Each record says how far the log was durable when it was written, so a valid record found
//! *behind* the bad place may answer yes: that is damage, and the node stops. If nothing answers,
//! what is there is the torn end of a group whose sync never returned, on which nothing can rest: it
//! is cut away (a copy stays beside the log, as long as the segment does). After the mark of a clean stop
//! nothing may follow.
//!
//! For the last group, written and not followed by anything, the log alone cannot know. What is
//! left open there is closed from two sides: a mark follows soon after each sync
//! ([`super::Log::write_durable_mark`]), and the peers remember what this node has told them.
//!
//! In the weak sync modes the order of writes on the disk says nothing, but their crashes are of
//! the process only (`sync_mode`): then a write is at most cut short, and any valid record behind a
//! bad one is damage.
//!
//! At the end the last segment is written anew, with a new salt, synced and published in the place
//! of the old one (rule D). That cuts the torn end, drops the marks, and makes durable what had
//! perhaps come from the page cache only; the older segments had been synced before the next was begun, and are
//! synced once more.

use std::io;

use crate::types::Lsn;
use crate::wire::DecodeError;

use super::log::{LogOptions, OpenSegment, SegmentSpan, publish_segment};
use super::record::{FLAG_CLEAN, FLAG_DURABLE, RECORD_HEADER_LEN};
use super::segment::{self, SEGMENT_HEADER_LEN, SegmentHeader, SegmentReader};
use super::sync_mode::Marker;
use super::{Disk, DiskFile, OpenError, RecordGroup, SyncMode};

/// The first record of a log that was never truncated.
const FIRST: Lsn = Lsn(1);
/// How many bytes are copied at once.
const SLICE_LEN: usize = 256 << 10;
/// How many bytes are compared with zero at once; small beside what the reader holds.
const ZEROS_LEN: usize = 4 << 10;

/// What was found in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Recovered {
    /// The last record.
    pub last: Lsn,
    /// Whether the log ended with the mark of a clean stop.
    pub clean: bool,
    /// How many bytes of a torn group were cut away.
    pub torn_bytes: u64,
    /// How many bytes the records take that were read.
    pub bytes: u64,
    /// How many segments there are.
    pub segments: usize,
}

/// How many bytes [`super::Log::open`] has to read at most; for telling how far it is.
///
/// # Errors
/// What the system says.
pub fn stored_bytes<D: Disk>(disk: &D) -> io::Result<u64> {
    let mut bytes = 0;
    for name in disk.list()? {
        if segment::parse_name(&name).is_some() {
            bytes += disk.open(&name)?.size()?;
        }
    }
    Ok(bytes)
}

/// A segment that is there.
pub(super) struct Found<F> {
    pub(super) name: String,
    pub(super) file: F,
    pub(super) header: SegmentHeader,
}

/// Where the scan of a segment stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) offset: u64,
    pub(super) next: Lsn,
    pub(super) previous: u32,
    pub(super) clean: bool,
}

type Opened<D> = (OpenSegment<<D as Disk>::File>, Vec<SegmentSpan>, Recovered);

pub(super) fn recover<D: Disk>(
    disk: &D,
    options: &LogOptions,
    mut each: impl FnMut(Lsn, u8, &[u8]) -> Result<(), DecodeError>,
) -> Result<Opened<D>, OpenError> {
    let mut found = find_segments(disk, options)?;
    let marker = Marker::load(disk)?;
    let mut recovered = Recovered { segments: found.len().max(1), ..Recovered::default() };
    let mut spans: Vec<SegmentSpan> = Vec::new();
    let mut place = Place { offset: 0, next: FIRST, previous: 0, clean: false };
    if let Some(first) = found.first().filter(|first| first.header.seq > 1) {
        // Older segments were removed: what this one says about them is what there is to know.
        if first.header.first < FIRST {
            return Err(OpenError::damaged(disk, &first.name, 40, "records are counted from 1"));
        }
        place = Place { next: first.header.first, previous: first.header.previous, ..place };
    }
    if place.next > options.needed {
        let found = place.next;
        return Err(OpenError::MissingRecords { log: disk.path("."), found, needed: options.needed });
    }
    recovered.last = before(place.next);
    for (i, segment) in found.iter().enumerate() {
        let header = &segment.header;
        let len = segment.file.size().map_err(OpenError::on(disk, &segment.name))?;
        spans.push(SegmentSpan { seq: header.seq, first: header.first, len });
        if (header.first, header.previous) != (place.next, place.previous) {
            return Err(OpenError::damaged(disk, &segment.name, 40, "it does not continue the log"));
        }
        place.offset = SEGMENT_HEADER_LEN as u64;
        let end = found.get(i + 1).map(|next| (next.header.first, next.header.previous));
        if let Some((next, previous)) = end
            && next <= options.needed
        {
            // Nothing of it is needed. It is kept for an older snapshot, and not worth the time to read it.
            place = Place { next, previous, ..place };
            recovered.last = before(next);
            continue;
        }
        scan(disk, segment, end, options.needed, &mut place, &mut recovered, &mut each)?;
    }
    let lost = || OpenError::LostRecords {
        log: disk.path("."),
        last: before(place.next),
        expected: before(options.needed),
    };
    let Some(last) = found.pop() else {
        if options.needed > FIRST {
            return Err(lost());
        }
        if marker.is_some() {
            return Err(OpenError::damaged(
                disk,
                &segment::name(1),
                0,
                "missing, although the log was in use",
            ));
        }
        let header = SegmentHeader {
            node: options.node,
            disk_id: options.disk_id,
            seq: 1,
            first: FIRST,
            salt: options.salt(1),
            previous: 0,
        };
        let made = publish_segment(disk, options, header, |_| Ok((SEGMENT_HEADER_LEN as u64, 0)))
            .map_err(OpenError::on(disk, &segment::name(1)))?;
        Marker::store(disk, options.sync)?;
        let span = SegmentSpan { seq: 1, first: FIRST, len: made.filled };
        return Ok((made, vec![span], recovered));
    };
    if let Some(marker) = &marker
        && !place.clean
    {
        marker.check(disk)?;
    }
    recovered.clean = place.clean;
    recovered.torn_bytes = judge_tail(disk, &last, place, marker.is_some())?;
    if place.next < options.needed {
        return Err(lost());
    }
    for older in &found {
        older.file.sync_all().map_err(OpenError::on(disk, &older.name))?;
    }
    if recovered.torn_bytes > 0 {
        keep_torn(disk, &last, place.offset, recovered.torn_bytes)
            .map_err(OpenError::on(disk, &segment::torn_name(last.header.seq)))?;
    }
    // Until everything is durable the marker has to say "weak", and after a clean stop the mark must
    // not go before the marker is right.
    let marker_first = place.clean || options.sync != SyncMode::Always;
    if marker_first {
        Marker::store(disk, options.sync)?;
    }
    let segment = write_anew(disk, options, &last, place).map_err(OpenError::on(disk, &last.name))?;
    if !marker_first {
        Marker::store(disk, options.sync)?;
    }
    Ok((segment, spans, recovered))
}

/// The number before this one.
fn before(lsn: Lsn) -> Lsn {
    Lsn(lsn.0.saturating_sub(1))
}

/// Opens all segments and checks their headers and numbers; clears away what a crash left unfinished.
fn find_segments<D: Disk>(disk: &D, options: &LogOptions) -> Result<Vec<Found<D::File>>, OpenError> {
    let mut found: Vec<Found<D::File>> = Vec::new();
    let names = disk.list().map_err(OpenError::on(disk, "."))?;
    for name in names {
        if segment::is_temporary(&name) {
            disk.remove(&name).map_err(OpenError::on(disk, &name))?;
            continue;
        }
        // Names have a fixed length, so their order is that of the numbers.
        let Some(seq) = segment::parse_name(&name) else { continue };
        if let Some(before) = found.last()
            && before.header.seq + 1 != seq
        {
            let missing = segment::name(before.header.seq + 1);
            return Err(OpenError::damaged(disk, &missing, 0, "missing, although a later segment is there"));
        }
        let file = disk.open(&name).map_err(OpenError::on(disk, &name))?;
        let header = SegmentHeader::read(disk, &name, &file, options.node, options.disk_id)?;
        found.push(Found { name, file, header });
    }
    Ok(found)
}

/// Hands on the records of a segment from `needed` up to the end of their chain. With `end`, what the next segment
/// says about this one, they have to reach exactly that far.
pub(super) fn scan<D: Disk>(
    disk: &D,
    segment: &Found<D::File>,
    end: Option<(Lsn, u32)>,
    needed: Lsn,
    place: &mut Place,
    recovered: &mut Recovered,
    each: &mut impl FnMut(Lsn, u8, &[u8]) -> Result<(), DecodeError>,
) -> Result<(), OpenError> {
    let io = || OpenError::on(disk, &segment.name);
    let damaged = |offset, what| Err(OpenError::damaged(disk, &segment.name, offset, what));
    let mut reader = SegmentReader::new(&segment.file, segment.header.salt).map_err(io())?;
    while !place.clean && end != Some((place.next, place.previous)) {
        let offset = place.offset;
        let Some(header) = reader.record(offset).map_err(io())? else { break };
        let expected = if header.is_mark() { Lsn(place.next.0 - 1) } else { place.next };
        if (header.lsn, header.previous) != (expected, place.previous) {
            // No crash does that: every place of a segment is written once.
            return damaged(offset, "a valid record that does not continue the one before");
        }
        if !header.is_mark() {
            if header.lsn >= needed {
                let payload = reader.payload(offset, &header).map_err(io())?;
                each(header.lsn, header.kind, payload).map_err(|source| OpenError::BadRecord {
                    file: disk.path(&segment.name),
                    offset,
                    source,
                })?;
            }
            recovered.last = header.lsn;
            recovered.bytes += header.size() as u64;
            place.next = header.lsn.next();
        }
        place.clean = header.flags == FLAG_CLEAN;
        place.previous = header.crc;
        place.offset += header.size() as u64;
    }
    match end {
        Some(end) if end != (place.next, place.previous) => {
            damaged(place.offset, "bad record before the end of the segment")
        }
        _ => Ok(()),
    }
}

/// Decides what stands behind the last valid record: nothing, a torn group, whose length is returned,
/// or damage. In `strict` mode a write can only have been cut short.
pub(super) fn judge_tail<D: Disk>(
    disk: &D,
    segment: &Found<D::File>,
    place: Place,
    strict: bool,
) -> Result<u64, OpenError> {
    let io = || OpenError::on(disk, &segment.name);
    let damaged = |what| Err(OpenError::damaged(disk, &segment.name, place.offset, what));
    let mut reader = SegmentReader::new(&segment.file, segment.header.salt).map_err(io())?;
    let mut offset = place.offset;
    let mut torn_end = place.offset;
    while offset < reader.size() {
        let slice = reader.bytes(offset, ZEROS_LEN).map_err(io())?;
        let Some(skip) = slice.iter().position(|&byte| byte != 0) else {
            offset += slice.len() as u64;
            continue;
        };
        if place.clean {
            return damaged("bytes behind the mark of a clean stop");
        }
        // Records begin at multiples of 8, and not with zeros: length or checksum is something else.
        offset += (skip & !7) as u64;
        let word_len = (reader.size() - offset).min(8);
        torn_end = offset + word_len;
        match reader.record(offset).map_err(io())? {
            Some(header) if header.lsn >= place.next || header.is_mark() => {
                if strict || header.durable >= place.next {
                    return damaged("bad record, although later ones say that it was durable");
                }
                offset += header.size() as u64;
                torn_end = offset;
            }
            _ => offset += word_len,
        }
    }
    Ok(torn_end - place.offset)
}

/// Keeps the torn end of the segment in a file of its own, for a curious engineer.
fn keep_torn<D: Disk>(disk: &D, segment: &Found<D::File>, offset: u64, len: u64) -> io::Result<()> {
    let copy = disk.create(&segment::torn_name(segment.header.seq))?;
    let mut reader = SegmentReader::new(&segment.file, segment.header.salt)?;
    let mut done = 0;
    while done < len {
        let part = usize::try_from(len - done).unwrap_or(usize::MAX).min(SLICE_LEN);
        let bytes = reader.bytes(offset + done, part)?;
        copy.write_at(done, bytes)?;
        done += bytes.len() as u64;
    }
    copy.sync_all()
}

/// Publishes the valid records of the last segment in its place, durable, with a new salt.
fn write_anew<D: Disk>(
    disk: &D,
    options: &LogOptions,
    old: &Found<D::File>,
    place: Place,
) -> io::Result<OpenSegment<D::File>> {
    let header = SegmentHeader { salt: options.salt(old.header.seq), ..old.header };
    publish_segment(disk, options, header, |file| {
        let mut reader = SegmentReader::new(&old.file, old.header.salt)?;
        let mut offset = SEGMENT_HEADER_LEN as u64;
        let mut position = offset;
        let mut crc = header.previous;
        let mut group = RecordGroup::new();
        let mut durable = Lsn(header.first.0 - 1);
        while offset < place.offset {
            let record = reader.record(offset)?.ok_or_else(changed)?;
            if !record.is_mark() {
                let payload = reader.payload(offset, &record)?;
                group.push(record.lsn, record.kind, |out| out.extend_from_slice(payload));
            }
            offset += record.size() as u64;
            if group.len_bytes() >= SLICE_LEN || offset >= place.offset {
                crc = group.seal(header.salt, durable, crc);
                file.write_at(position, group.bytes())?;
                position += group.len_bytes() as u64;
                durable = group.last_lsn().unwrap_or(durable);
                group.clear();
            }
        }
        // The file appears only when all of it is durable, and this says so.
        if durable > Lsn(0) {
            group.push_mark(durable, FLAG_DURABLE);
            crc = group.seal(header.salt, durable, crc);
            file.write_at(position, group.bytes())?;
            position += RECORD_HEADER_LEN as u64;
        }
        Ok((position, crc))
    })
}

fn changed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a record that was valid a moment ago is not")
}
