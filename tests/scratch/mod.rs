//! Directories for tests.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory of its own, gone with the test.
pub(crate) struct TempDir(pub(crate) PathBuf);

impl TempDir {
    pub(crate) fn new() -> TempDir {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::SeqCst);
        let path = std::env::temp_dir().join(format!("lanekv-test-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).expect("a temporary directory");
        TempDir(path)
    }

    /// Writes a configuration.
    pub(crate) fn nodes_conf(&self, text: &str) -> PathBuf {
        let path = self.0.join("nodes.conf");
        fs::write(&path, text).expect("written");
        path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
