//! Golden scripts: runs of the replication core, move by move, beside what came of them.
//!
//! Each file of `tests/golden` makes one claim, in its first line. `UPDATE_GOLDEN=1 cargo test --test golden` writes
//! the outputs anew; whoever does that reads the difference. Together the scripts meet everything that
//! `golden/coverage.rs` counts. With `--features mutations` every deliberate mistake must change the output of at
//! least one script.

#[path = "golden/coverage.rs"]
mod coverage;
#[path = "golden/script.rs"]
mod script;
#[path = "golden/world.rs"]
mod world;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use coverage::Table;
use script::Script;

/// Every script, in the order of its name.
fn scripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let entries = std::fs::read_dir(&folder).expect("the folder of scripts is there");
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a folder can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    paths.sort();
    paths
}

fn name(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// The lines that differ, with a few around them, each marked as missing (`-`) or new (`+`).
fn difference(old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    // The longest common subsequence, from every pair of places on.
    let mut common = vec![vec![0_usize; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] = if old[i] == new[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut lines: Vec<(char, &str)> = Vec::new();
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push((' ', old[i]));
            (i, j) = (i + 1, j + 1);
        } else if i < old.len() && (j == new.len() || common[i + 1][j] >= common[i][j + 1]) {
            lines.push(('-', old[i]));
            i += 1;
        } else {
            lines.push(('+', new[j]));
            j += 1;
        }
    }
    let changed =
        |at: usize| lines[at.saturating_sub(3)..lines.len().min(at + 4)].iter().any(|(mark, _)| *mark != ' ');
    let near =
        (0..lines.len()).filter(|at| changed(*at)).map(|at| format!("{} {}\n", lines[at].0, lines[at].1));
    near.collect()
}

/// Mistakes are made in the whole process, so the tests take turns.
static TURN: Mutex<()> = Mutex::new(());

#[test]
fn scripts_run_as_written() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let update = std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1");
    let mut wrong = String::new();
    let paths = scripts();
    assert!(paths.len() >= 94, "only {} scripts were found", paths.len());
    for path in paths {
        let old = std::fs::read_to_string(&path).expect("a script can be read");
        assert!(old.starts_with("# "), "{}: the first line is the claim", name(&path));
        match Script::new(false).run(&old) {
            Ok(new) if new == old => {}
            Ok(new) if update => std::fs::write(&path, new).expect("a script can be written"),
            Ok(new) => wrong += &format!("\n{}:\n{}", name(&path), difference(&old, &new)),
            Err(what) => wrong += &format!("\n{}: {what}\n", name(&path)),
        }
    }
    assert!(wrong.is_empty(), "scripts differ (UPDATE_GOLDEN=1 writes them anew):\n{wrong}");
}

/// Every message, every refusal and every rare situation comes up somewhere; `--nocapture` shows where.
#[test]
fn scripts_meet_everything() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut table = Table::new();
    for path in scripts() {
        let text = std::fs::read_to_string(&path).expect("a script can be read");
        let mut script = Script::new(false);
        script.run(&text).unwrap_or_else(|what| panic!("{}: {what}", name(&path)));
        table.add(&name(&path), &script.coverage());
    }
    println!("{table}");
    let faults = table.faults();
    assert!(faults.is_empty(), "{faults:#?}");
}

/// Takes each rule away in turn, and says which scripts notice.
#[test]
#[cfg(feature = "mutations")]
fn every_mistake_changes_a_script() {
    use lanekv::protocol::{Mutation, set_mutation};

    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let scripts: Vec<(String, String)> = scripts()
        .iter()
        .map(|path| (name(path), std::fs::read_to_string(path).expect("a script can be read")))
        .collect();
    let runs_the_same = |text: &str, mutation: Option<Mutation>| {
        set_mutation(mutation);
        // Rule D is not the core's: the runner itself makes that mistake.
        let read_back_is_durable = mutation == Some(Mutation::ReadBackIsDurable);
        let run = || Script::new(read_back_is_durable).run(text);
        // An assertion of the core that fails is a mistake found.
        let same = std::panic::catch_unwind(run).is_ok_and(|result| result.as_deref() == Ok(text));
        set_mutation(None);
        same
    };
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut report = String::new();
    let mut unnoticed = Vec::new();
    for (name, text) in &scripts {
        if !runs_the_same(text, None) {
            unnoticed.push(format!("{name} differs without any mistake"));
        }
    }
    for &mutation in Mutation::ALL {
        let by: Vec<&str> = scripts
            .iter()
            .filter(|(_, text)| !runs_the_same(text, Some(mutation)))
            .map(|(name, _)| name.as_str())
            .collect();
        report += &format!("{:<26} {}\n", mutation.to_string(), by.join(", "));
        if by.is_empty() {
            unnoticed.push(format!("{mutation} changes no script"));
        }
    }
    std::panic::set_hook(hook);
    println!("{report}");
    assert!(unnoticed.is_empty(), "{unnoticed:#?}");
}
