//! Rules about the source that the compiler does not know.
//!
//! - A **pure** module decides everything from its inputs, so that the simulator can replay it from a seed: it has no
//!   files, sockets, clock, threads, randomness or environment.
//! - A module uses only those above it in the table of `src/lib.rs`, which is read here.
//! - One file has `unsafe` code.
//! - Files and lines stay readable, and nothing unfinished is left behind.
//!
//! The iteration order of hash tables is watched by clippy (`iter_over_hash_type`).

use std::fs;
use std::path::{Path, PathBuf};

/// The modules that must be pure.
const PURE: [&str; 7] = ["types", "linearizability", "wire", "config", "protocol", "store", "dialect"];

/// Paths below `std` that a pure module may not name, with what they would bring in.
const IMPURE_STD: [(&str, &str); 7] = [
    ("fs", "files"),
    ("net", "sockets"),
    ("io", "input and output"),
    ("time", "a clock"),
    ("thread", "threads"),
    ("env", "the environment"),
    ("process", "processes"),
];

/// What may be named all the same: addresses are plain data.
const PURE_STD: [&str; 6] = ["IpAddr", "Ipv4Addr", "Ipv6Addr", "SocketAddr", "SocketAddrV4", "SocketAddrV6"];

/// Words that a pure module may not contain, wherever they come from.
const IMPURE_WORDS: [(&str, &str); 12] = [
    ("Instant", "a clock"),
    ("SystemTime", "a clock"),
    ("RandomState", "randomness"),
    ("rand", "randomness"),
    ("getrandom", "randomness"),
    ("thread_local", "threads"),
    ("println", "input and output"),
    ("eprintln", "input and output"),
    ("print", "input and output"),
    ("mio", "sockets"),
    ("rustix", "system calls"),
    ("libc", "system calls"),
];

/// The only file with `unsafe` code.
const UNSAFE: &str = "src/net/allocator.rs";

/// Macros that mark something unfinished or forgotten.
const UNFINISHED: [&str; 3] = ["todo!", "unimplemented!", "dbg!"];

const FILE_LINES_MAX: usize = 900;
const LINE_CHARS_MAX: usize = 120;

/// A finding: where, and what is wrong.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    line: usize,
    what: String,
}

/// Blanks out comments and the contents of literals, so that only code is looked at. Line breaks stay.
fn code_only(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    let blank = |out: &mut String, c: char| out.push(if c == '\n' { '\n' } else { ' ' });
    while at < chars.len() {
        let rest = &chars[at..];
        let len = match rest {
            ['/', '/', ..] => rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()),
            ['/', '*', ..] => block_comment_len(rest),
            ['"', ..] => string_len(rest),
            ['r', '"', ..] | ['r', '#', '"' | '#', ..] if !follows_word(&out) => raw_string_len(rest),
            ['b', 'r', '"' | '#', ..] if !follows_word(&out) => 1 + raw_string_len(&rest[1..]),
            // A character literal, not a lifetime.
            ['\'', '\\', _, after @ ..] => {
                after.iter().position(|c| *c == '\'').map_or(rest.len(), |close| 4 + close)
            }
            ['\'', _, '\'', ..] => 3,
            [c, ..] => {
                out.push(*c);
                at += 1;
                continue;
            }
            [] => break,
        };
        for c in &rest[..len] {
            blank(&mut out, *c);
        }
        at += len;
    }
    out
}

fn follows_word(out: &str) -> bool {
    out.chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_')
}

fn block_comment_len(text: &[char]) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        match &text[at..] {
            ['/', '*', ..] => {
                depth += 1;
                at += 2;
            }
            ['*', '/', ..] => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    break;
                }
            }
            _ => at += 1,
        }
    }
    at
}

fn string_len(text: &[char]) -> usize {
    let mut at = 1;
    while at < text.len() {
        match text[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

fn raw_string_len(text: &[char]) -> usize {
    let hashes = text[1..].iter().take_while(|c| **c == '#').count();
    let open = 1 + hashes;
    // `r#name` is an identifier.
    if text.get(open) != Some(&'"') {
        return open;
    }
    let mut at = open + 1;
    while at < text.len() {
        let closing = text[at] == '"' && text[at + 1..].iter().take_while(|c| **c == '#').count() >= hashes;
        if closing {
            return at + 1 + hashes;
        }
        at += 1;
    }
    text.len()
}

/// The words and the punctuation of code, with the line of each.
fn tokens(code: &str) -> Vec<(usize, String)> {
    let mut tokens: Vec<(usize, String)> = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let mut word = String::new();
        for c in line.chars().chain([' ']) {
            if c.is_alphanumeric() || c == '_' {
                word.push(c);
                continue;
            }
            if !word.is_empty() {
                tokens.push((number + 1, std::mem::take(&mut word)));
            }
            if !c.is_whitespace() {
                tokens.push((number + 1, c.to_string()));
            }
        }
    }
    tokens
}

/// Every path in the code, with the groups of `use` declarations multiplied out:
/// `use a::{b, c::d}` gives `a::b` and `a::c::d`.
fn paths(code: &str) -> Vec<(usize, Vec<String>)> {
    let tokens = tokens(code);
    let text = |at: usize| tokens.get(at).map_or("", |(_, token)| token.as_str());
    let is_word = |at: usize| text(at).starts_with(|c: char| c.is_alphanumeric() || c == '_');
    let mut paths = Vec::new();
    // The path in front of each open group; a brace that belongs to no path pushes an empty one.
    let mut groups: Vec<Vec<String>> = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if is_word(at) {
            let line = tokens[at].0;
            let mut path = groups.last().cloned().unwrap_or_default();
            path.push(text(at).to_owned());
            at += 1;
            while text(at) == ":" && text(at + 1) == ":" && is_word(at + 2) {
                path.push(text(at + 2).to_owned());
                at += 3;
            }
            if text(at) == ":" && text(at + 1) == ":" && text(at + 2) == "{" {
                groups.push(path);
                at += 3;
            } else {
                paths.push((line, path));
            }
            continue;
        }
        match text(at) {
            "{" => groups.push(Vec::new()),
            "}" => {
                groups.pop();
            }
            _ => {}
        }
        at += 1;
    }
    paths
}

/// What is wrong in a file of a pure module.
fn impurities(source: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, path) in paths(&code_only(source)) {
        let mut found = |what: &str| {
            findings.push(Finding {
                line,
                what: format!("`{}` brings {what} into a pure module", path.join("::")),
            });
        };
        if let [first, second, ..] = path.as_slice()
            && ["std", "core", "alloc"].contains(&first.as_str())
            && let Some((_, what)) = IMPURE_STD.iter().find(|(name, _)| name == second)
            && !path.get(2).is_some_and(|name| PURE_STD.contains(&name.as_str()))
        {
            found(what);
        } else if let Some((_, what)) =
            IMPURE_WORDS.iter().find(|(name, _)| path.iter().any(|part| part == name))
        {
            found(what);
        }
    }
    findings
}

/// Uses of modules that do not stand above `module` in `order`.
fn wrong_ways(source: &str, module: &str, order: &[String]) -> Vec<Finding> {
    let place = order.iter().position(|name| name == module).expect("every module is in the table");
    let mut findings = Vec::new();
    for (line, path) in paths(&code_only(source)) {
        if let [first, second, ..] = path.as_slice()
            && (first == "crate" || first == "lanekv")
            && let Some(other) = order.iter().position(|name| name == second)
            && other > place
        {
            findings
                .push(Finding { line, what: format!("`{module}` uses `{second}`, which stands below it") });
        }
    }
    findings
}

/// Where code is `unsafe`, or allowed to be.
fn unsafety(source: &str) -> Vec<Finding> {
    let tokens = tokens(&code_only(source));
    let uses = tokens.into_iter().filter(|(_, word)| word == "unsafe" || word == "unsafe_code");
    uses.map(|(line, word)| Finding { line, what: format!("`{word}` outside {UNSAFE}") }).collect()
}

/// What is wrong in any file.
fn untidiness(source: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let lines = source.lines().count();
    if lines > FILE_LINES_MAX {
        findings.push(Finding { line: lines, what: format!("more than {FILE_LINES_MAX} lines") });
    }
    for (number, line) in source.lines().enumerate() {
        let chars = line.chars().count();
        if chars > LINE_CHARS_MAX {
            let what = format!("{chars} characters in a line, expected at most {LINE_CHARS_MAX}");
            findings.push(Finding { line: number + 1, what });
        }
    }
    for (number, line) in code_only(source).lines().enumerate() {
        for unfinished in UNFINISHED {
            if line.contains(unfinished) {
                findings.push(Finding { line: number + 1, what: format!("`{unfinished}` left behind") });
            }
        }
    }
    findings
}

/// The modules in the order of the table in the documentation of `src/lib.rs`.
fn table_order(lib: &str) -> Vec<String> {
    lib.lines()
        .filter_map(|line| line.strip_prefix("//! | [`")?.split_once("`]"))
        .map(|(name, _)| name.to_owned())
        .collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All Rust files below a directory, in order.
fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
            let path = entry.expect("a readable directory").path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// The module a file below `src` belongs to; `None` for `lib.rs` and the programs.
fn module_of(path: &Path) -> Option<String> {
    let relative = path.strip_prefix(root().join("src")).ok()?;
    let first = relative.iter().next()?.to_str()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (name != "lib" && name != "bin").then(|| name.to_owned())
}

/// Prints all findings of a check over files and fails if there are any.
fn report(files: &[PathBuf], check: impl Fn(&Path, &str) -> Vec<Finding>) {
    let mut count = 0;
    for path in files {
        let name = path.strip_prefix(root()).unwrap_or(path).display();
        for finding in check(path, &read(path)) {
            eprintln!("{name}:{}: {}", finding.line, finding.what);
            count += 1;
        }
    }
    assert!(!files.is_empty(), "nothing was looked at");
    assert_eq!(count, 0, "{count} findings, printed above");
}

#[test]
fn pure_modules_are_pure() {
    let files: Vec<PathBuf> = rust_files(&root().join("src"))
        .into_iter()
        .filter(|path| module_of(path).is_some_and(|module| PURE.contains(&module.as_str())))
        .collect();
    report(&files, |_, source| impurities(source));
}

#[test]
fn modules_use_only_those_above_them() {
    let order = table_order(&read(&root().join("src/lib.rs")));
    let files: Vec<PathBuf> = rust_files(&root().join("src"));
    let mut seen: Vec<String> = files.iter().filter_map(|path| module_of(path)).collect();
    seen.dedup();
    for module in &seen {
        assert!(order.contains(module), "`{module}` is missing in the table of src/lib.rs");
    }
    report(&files, |path, source| {
        module_of(path).map_or(Vec::new(), |module| wrong_ways(source, &module, &order))
    });
}

/// All of the package.
fn all_files() -> Vec<PathBuf> {
    let dirs = ["src", "tests", "benches", "fuzz/bodies", "fuzz/fuzz_targets"].map(|dir| root().join(dir));
    dirs.iter().filter(|dir| dir.is_dir()).flat_map(|dir| rust_files(dir)).collect()
}

#[test]
fn files_are_short_and_finished() {
    report(&all_files(), |_, source| untidiness(source));
}

#[test]
fn one_file_is_unsafe() {
    let (safe, others): (Vec<_>, Vec<_>) =
        all_files().into_iter().partition(|path| *path != root().join(UNSAFE));
    report(&safe, |_, source| unsafety(source));
    assert!(!unsafety(&read(&others[0])).is_empty(), "{UNSAFE} needs no exception any more");
}

// The checks must be able to fail.

fn lines_of(findings: &[Finding]) -> Vec<usize> {
    let mut lines: Vec<usize> = findings.iter().map(|finding| finding.line).collect();
    lines.sort_unstable();
    lines
}

#[test]
fn impurities_are_found_and_nothing_else() {
    let source = r#"
//! Talks about std::fs, Instant and println!, which is fine.
use std::collections::BTreeMap;
use std::{cmp, fs::File, thread};
use std::time::Duration;
use std::net::{IpAddr, TcpStream};
fn f(instant: u64, print_all: bool) -> &'static str {
    let c = '"'; /* std::net */
    let t = std::time::Instant::now();
    println!("{}", 1);
    "std::env::args and Instant" // std::io
}
struct RandomState;
"#;
    assert_eq!(lines_of(&impurities(source)), [4, 4, 5, 6, 9, 10, 13]);
}

#[test]
fn uses_of_lower_modules_are_found() {
    let order = table_order("//! | [`types`] | nouns |\n//! | [`wire`] | frames |\n//! | [`net`] | loop |\n");
    assert_eq!(order, ["types", "wire", "net"]);
    let source = "use crate::types::NodeId;\nuse crate::{types, net::run};\nfn f() { crate::net::run() }\n";
    assert_eq!(lines_of(&wrong_ways(source, "wire", &order)), [2, 3]);
    assert_eq!(wrong_ways(source, "net", &order), []);
}

#[test]
fn long_and_unfinished_files_are_found() {
    let wide = "x".repeat(LINE_CHARS_MAX + 1);
    let source = format!("fn f() {{\n    todo!()\n}}\n// todo!\n// {wide}\n");
    assert_eq!(lines_of(&untidiness(&source)), [2, 5]);
    let long = "\n".repeat(FILE_LINES_MAX + 1);
    assert_eq!(lines_of(&untidiness(&long)), [FILE_LINES_MAX + 1]);
}

#[test]
fn unsafe_code_is_found() {
    let source = "#![allow(unsafe_code)]\n// unsafe\nfn f() {\n    unsafe { g(\"unsafe\") }\n}\n";
    assert_eq!(lines_of(&unsafety(source)), [1, 4]);
}

#[test]
fn literals_and_comments_are_not_code() {
    let source = "a(\"x \\\" y\", r#\"raw \" \"#, b'\\'', 'q') /* /* */ */ + 'life: loop {} // end\n";
    let code = code_only(source);
    assert_eq!(code.len(), source.len());
    let words: Vec<String> = tokens(&code).into_iter().map(|(_, token)| token).collect();
    assert_eq!(
        words,
        ["a", "(", ",", ",", "b", ",", ")", "+", "'", "life", ":", "loop", "{", "}"].map(str::to_owned)
    );
}
