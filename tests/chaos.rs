//! `kvchaos` as a program: a short storm that must leave no trace, a cluster that is not well, bad usage.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::{Finished, TempDir, program};

const PATIENCE: Duration = Duration::from_secs(120);

fn kvchaos(dir: &TempDir, flags: &[&str]) -> Finished {
    let mut command = Command::new(program("kvchaos"));
    // Its data belongs on a real disk.
    command.env("TMPDIR", dir.path()).args(flags);
    Finished::within(&mut command, b"", PATIENCE)
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("readable").file_name());
    entries.map(|name| name.to_string_lossy().into_owned()).collect()
}

#[test]
fn a_short_storm_breaks_no_promise() {
    let dir = TempDir::new("chaos");
    let finished = kvchaos(&dir, &["--seconds", "8", "--seed", "7"]);
    assert_eq!(finished.code, Some(0), "{}\n{}", finished.stdout, finished.stderr);
    assert!(finished.stdout.ends_with("seed 7: ok\n"), "{}", finished.stdout);
    println!("{}", finished.stdout);
    assert_eq!(names(dir.path()), [""; 0], "what was not kept is removed");
}

#[test]
fn nodes_that_end_by_themselves_are_found() {
    let dir = TempDir::new("chaos-dead");
    // It says that it is ready, and dies.
    let fake = dir.write("kvnode", "#!/bin/sh\necho \"ready node=$1 view=1 address=nowhere\"\nexit 3\n");
    fs::set_permissions(&fake, fs::Permissions::from_mode(0o755)).expect("an own file");
    let bin_dir = dir.path().display().to_string();
    let finished = kvchaos(&dir, &["--seconds", "30", "--seed", "1", "--bin-dir", &bin_dir]);
    assert_eq!(finished.code, Some(1), "{}\n{}", finished.stdout, finished.stderr);
    for clue in
        ["ended by itself", "exit status: 3", "to run it again:\nkvchaos --seed 1 --seconds 30 --nodes 3"]
    {
        assert!(finished.stdout.contains(clue), "without {clue:?}: {}", finished.stdout);
    }
    let kept = names(dir.path()).into_iter().find(|name| name.starts_with("kvchaos-1-")).expect("kept");
    let events = fs::read_to_string(dir.path().join(kept).join("events.log")).expect("kept");
    assert!(events.contains("ended by itself"), "{events}");
}

#[test]
fn bad_usage_is_refused_before_anything_starts() {
    let dir = TempDir::new("chaos-usage");
    let full = dir.path().display().to_string();
    dir.write("file", "");
    for (flags, clue) in [
        (&["--nodes", "0"] as &[&str], "--nodes: found 0, expected 1 to 7"),
        (&["--nodes", "8"], "--nodes: found 8"),
        (&["--clients", "0"], "--clients: found 0"),
        (&["--seconds", "0"], "0 is not in 1.."),
        (&["--faults", "kill,rain"], "there is no fault \"rain\""),
        (&["--bin-dir", "/nowhere"], "there is no /nowhere/kvnode"),
        (&["--keep", &full], "is not empty"),
        (&["--hail"], "unexpected argument"),
    ] {
        kvchaos(&dir, flags).assert_refused(2, clue);
    }
}
