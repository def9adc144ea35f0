//! A look at a log without changing it, beside a running node if need be.
//!
//! The same checks as at a start (`recovery`), except that everything is read and nothing is mended. The
//! first damage ends the reading of records; segments behind it are only listed.

use std::io;

use crate::types::Lsn;

use super::recovery::{Found, Place, judge_tail, scan};
use super::segment::{self, SEGMENT_HEADER_LEN, SegmentHeader};
use super::sync_mode::Marker;
use super::{Disk, DiskFile, Identity, OpenError, Recovered, SyncMode};

/// Whether a file of this name is what a start has cut off a segment.
pub fn is_torn_name(name: &str) -> bool {
    segment::parse_torn_name(name).is_some()
}

/// What is known of a segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentInspection {
    /// The file's name.
    pub name: String,
    /// The length of the file in bytes.
    pub len: u64,
    /// What was read of it; `None` behind damage.
    pub records: Option<SegmentRecords>,
}

/// The records of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentRecords {
    /// The number of its first record, whether it is there already or not.
    pub first: Lsn,
    /// How many there are.
    pub count: u64,
    /// Where in the file the last of them ends.
    pub end: u64,
}

/// How a log ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogEnd {
    /// With the mark of a clean stop.
    Clean,
    /// With its last record.
    Open,
    /// With a group that was being written; a start cuts it away.
    Torn {
        /// How long it is.
        bytes: u64,
    },
    /// There is damage before it.
    Unknown,
}

/// What was found of a log.
#[derive(Debug)]
pub struct LogInspection {
    /// Its segments, in order.
    pub segments: Vec<SegmentInspection>,
    /// The first record that is in the log, or would be; zero if there is no segment.
    pub first: Lsn,
    /// The last record that could be read.
    pub last: Lsn,
    /// How it ends.
    pub end: LogEnd,
    /// In which mode it was used.
    pub sync: SyncMode,
    /// The first thing that is wrong.
    pub damage: Option<OpenError>,
}

/// Looks at the log of this identity.
///
/// # Errors
/// What the system says. Damage is a finding and no error.
pub fn inspect_log<D: Disk>(disk: &D, identity: Identity) -> Result<LogInspection, OpenError> {
    let mut log = LogInspection {
        segments: Vec::new(),
        first: Lsn(0),
        last: Lsn(0),
        end: LogEnd::Unknown,
        sync: SyncMode::Always,
        damage: None,
    };
    for name in disk.list().map_err(OpenError::on(disk, "."))? {
        if segment::parse_name(&name).is_none() {
            continue;
        }
        match disk.open(&name).and_then(|file| file.size()) {
            Ok(len) => log.segments.push(SegmentInspection { name, len, records: None }),
            // A running node has just removed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(OpenError::on(disk, &name)(error)),
        }
    }
    match read(disk, identity, &mut log) {
        Ok(end) => log.end = end,
        Err(error @ (OpenError::Io { .. } | OpenError::NotWritable { .. })) => return Err(error),
        Err(error) => log.damage = Some(error),
    }
    Ok(log)
}

fn read<D: Disk>(disk: &D, identity: Identity, log: &mut LogInspection) -> Result<LogEnd, OpenError> {
    let marker = Marker::load(disk)?;
    log.sync = marker.as_ref().map_or(SyncMode::Always, Marker::mode);
    let Identity { node, disk_id, .. } = identity;
    let mut found = Vec::new();
    for SegmentInspection { name, .. } in &log.segments {
        let file = disk.open(name).map_err(OpenError::on(disk, name))?;
        let header = SegmentHeader::read(disk, name, &file, node, disk_id)?;
        found.push(Found { name: name.clone(), file, header });
    }
    let Some(first) = found.first() else { return Ok(LogEnd::Open) };
    log.first = first.header.first;
    let mut place =
        Place { offset: 0, next: first.header.first, previous: first.header.previous, clean: false };
    if place.next < Lsn(1) || (first.header.seq == 1 && (place.next, place.previous) != (Lsn(1), 0)) {
        return Err(OpenError::damaged(disk, &first.name, 40, "it does not begin a log"));
    }
    let mut recovered = Recovered { last: Lsn(place.next.0 - 1), ..Recovered::default() };
    for (i, segment) in found.iter().enumerate() {
        let header = &segment.header;
        if i > 0 && found[i - 1].header.seq.checked_add(1) != Some(header.seq) {
            let missing = segment::name(found[i - 1].header.seq.saturating_add(1));
            return Err(OpenError::damaged(disk, &missing, 0, "missing, although a later segment is there"));
        }
        if (header.first, header.previous) != (place.next, place.previous) {
            return Err(OpenError::damaged(disk, &segment.name, 40, "it does not continue the log"));
        }
        place.offset = SEGMENT_HEADER_LEN as u64;
        let end = found.get(i + 1).map(|next| (next.header.first, next.header.previous));
        let scanned = scan(disk, segment, end, Lsn(0), &mut place, &mut recovered, &mut |_, _, _| Ok(()));
        log.last = recovered.last;
        let count = (recovered.last.0 + 1).saturating_sub(header.first.0);
        log.segments[i].records = Some(SegmentRecords { first: header.first, count, end: place.offset });
        scanned?;
    }
    let Some(last) = found.last() else { return Ok(LogEnd::Open) };
    let torn = judge_tail(disk, last, place, marker.is_some())?;
    if let Some(marker) = marker.filter(|_| !place.clean) {
        marker.check(disk)?;
    }
    Ok(match torn {
        _ if place.clean => LogEnd::Clean,
        0 => LogEnd::Open,
        bytes => LogEnd::Torn { bytes },
    })
}
