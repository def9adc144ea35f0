//! The commands of the README are run, and what it says they print is what they print.
//!
//! Blocks marked `console` are read: a line after `$ ` is a command, the lines up to the next one are its output.
//! Nodes are started in the background, as in terminals of their own. A line `NAME> COMMAND` under the one-command
//! start is typed at the prompt. Ports and the place of the programs are replaced, so that the test can run anywhere.

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use common::{Finished, PortBlock, Running, TempDir, kvclient, program};

/// A command with what it should print.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    command: String,
    output: Vec<String>,
}

/// The steps in all `console` blocks of a document.
fn steps_of(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        if let Some(kind) = line.strip_prefix("```") {
            inside = !inside && kind == "console";
        } else if !inside {
        } else if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step { command: command.into(), output: Vec::new() });
        } else {
            let step = steps.last_mut().expect("a block begins with a command");
            step.output.push(line.into());
        }
    }
    steps
}

/// What is typed at a prompt, if the line shows one.
fn typed(line: &str) -> Option<&str> {
    let (prompt, command) = line.split_once("> ")?;
    (!prompt.contains(char::is_whitespace)).then_some(command)
}

/// A ready line without the number of the view, which depends on what the cluster went through.
fn without_view(line: &str) -> Vec<&str> {
    line.split(' ').filter(|word| !word.starts_with("view=")).collect()
}

#[test]
fn commands_and_outputs_are_told_apart() {
    let text = "```\n$ not this\n```\n```console\n$ one\nx> two\nthree\n$ four\n```\n$ nor this\n";
    let step = |command: &str, output: &[&str]| Step {
        command: command.into(),
        output: output.iter().map(|line| (*line).into()).collect(),
    };
    assert_eq!(steps_of(text), [step("one", &["x> two", "three"]), step("four", &[])]);
    assert_eq!(typed("127.0.0.1:7100> GET a"), Some("GET a"));
    assert_eq!(typed("a b> c"), None);
}

#[test]
fn what_the_readme_shows_is_what_happens() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let ports = PortBlock::take().expect("free ports");
    let localized = |name: &str| {
        let text = fs::read_to_string(root.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        (0..3).fold(text, |text, node| text.replace(&format!("710{node}"), &ports.port(node).to_string()))
    };
    let dir = TempDir::new("readme");
    dir.write("nodes.conf", &localized("nodes.conf"));
    fs::create_dir_all(dir.path().join("target/release")).expect("writable");
    for name in ["kvnode", "kvclient"] {
        symlink(program(name), dir.path().join("target/release").join(name)).expect("writable");
    }

    let mut nodes: Vec<(Running, Step)> = Vec::new();
    let mut waited = 0;
    let mut commands = 0;
    for step in steps_of(&localized("README.md")) {
        commands += 1;
        let mut shell = Command::new("bash");
        shell.current_dir(dir.path()).arg("-c");
        if step.command.starts_with("./target/release/kvnode ") {
            shell.arg(format!("exec {}", step.command));
            let log = dir.path().join(format!("log-{}", nodes.len()));
            nodes.push((Running::start(&mut shell, &log), step));
            continue;
        }
        for (node, step) in &mut nodes[waited..] {
            let ready = node.wait_ready();
            let [shown] = &step.output[..] else { panic!("one line after {}", step.command) };
            assert_eq!(without_view(&ready), without_view(shown), "{}", step.command);
        }
        waited = nodes.len();
        if step.command == "cargo run --release" {
            let input: String =
                step.output.iter().filter_map(|line| typed(line)).map(|line| format!("{line}\n")).collect();
            let finished = Finished::of(kvclient().current_dir(dir.path()), input.as_bytes());
            let wanted: Vec<&String> = step.output.iter().filter(|line| typed(line).is_none()).collect();
            assert_eq!(finished.stdout.lines().collect::<Vec<_>>(), wanted, "{finished:?}");
            assert_eq!(finished.code, Some(0), "{finished:?}");
            continue;
        }
        if step.command.contains("nc -N ") && Command::new("nc").arg("-h").output().is_err() {
            println!("skipped, no nc here: {}", step.command);
            continue;
        }
        let finished = Finished::of(shell.arg(&step.command), b"");
        assert_eq!(
            finished.stdout.lines().collect::<Vec<_>>(),
            step.output,
            "{}: {finished:?}",
            step.command
        );
        assert_eq!(finished.code, Some(0), "{}: {finished:?}", step.command);
    }
    assert!(commands >= 5 && waited >= 3, "{commands} commands, {waited} nodes: the blocks are not found");
}
