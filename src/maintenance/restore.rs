//! Beginning a new cluster from a backup.
//!
//! Every node of the new cluster gets the same backup, and becomes, before it has ever spoken to another, a node of
//! view 0 whose store is not empty. Nodes that were begun from different states refuse each other while they found the
//! cluster.

use std::fs;
use std::path::Path;

use crate::config::Config;
use crate::node::{self, SnapshotFailure, check_snapshot, header_for_new_cluster};
use crate::storage::{DataDir, FileDisk, SnapshotError, SnapshotFront, SnapshotReader, SnapshotWriter};
use crate::types::{DiskId, Incarnation, Lsn, NodeId};

use super::MaintenanceError;

/// Makes the data directory of a node of a new cluster, with the state of a backup. `data_dir` must be empty or not
/// there.
///
/// # Errors
/// The directory is not empty, the backup is damaged or cannot be read, or the directory cannot be written.
pub fn restore_backup(
    config: &Config,
    me: NodeId,
    data_dir: &Path,
    backup: &Path,
    disk_id: DiskId,
) -> Result<(), MaintenanceError> {
    let io = |what: &str, path: &Path| {
        let what = format!("{what} {}", path.display());
        move |source| MaintenanceError::Io { what, source }
    };
    if data_dir.exists() && fs::read_dir(data_dir).map_err(io("cannot read", data_dir))?.next().is_some() {
        return Err(MaintenanceError::NotEmpty(data_dir.to_path_buf()));
    }
    let file = |error: SnapshotError| MaintenanceError::Backup(SnapshotFailure::File(error));
    let directory = backup.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = backup.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let source = FileDisk::open_read_only(directory).map_err(io("cannot open", directory))?;
    // All of it is looked at before anything is made.
    let checked = check_snapshot(&source, &name).map_err(MaintenanceError::Backup)?;
    let settings = node::Settings::new(config, me, 0).expect("the caller has looked whether it is a member");
    let header =
        header_for_new_cluster(checked.header(), &settings.protocol).map_err(MaintenanceError::Header)?;
    let data = DataDir::open(data_dir, me, false, || disk_id).map_err(MaintenanceError::Data)?;
    let front = SnapshotFront { disk_id, log_from: Lsn(1), incarnation: Incarnation(0) };
    let mut reader = SnapshotReader::open(&source, &name).map_err(file)?;
    let mut writer = SnapshotWriter::create(data.disk(), front, &header).map_err(file)?;
    while let Some(payload) = reader.next_payload().map_err(file)? {
        writer.push(payload).map_err(file)?;
    }
    let mut written = writer.finish().map_err(file)?;
    while written.next_payload().map_err(file)?.is_some() {}
    written.publish().map_err(file)?;
    log::info!("restored index={} keys={} from {}", header.index, header.keys, backup.display());
    Ok(())
}
