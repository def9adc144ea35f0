//! Fuzzing with what stable Rust has: the bodies of `fuzz/bodies`, seeds from `fuzz/corpus`, and a mutator.
//!
//! `FUZZ_INPUTS` says how many inputs a cheap target gets (the dear ones get a fraction, see `cost`), `FUZZ_SEED` where
//! they begin. An input that fails is made shorter and printed with the command that runs it again:
//! `FUZZ_INPUT=hex cargo test --test fuzz target`. `UPDATE_CORPUS=1` writes the seeds anew.

#[path = "../fuzz/bodies/mod.rs"]
mod bodies;
#[path = "codec/draw.rs"]
mod draw;
#[path = "fuzz/mutator.rs"]
mod mutator;
#[path = "fuzz/seeds.rs"]
mod seeds;

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bodies::{TARGETS, Target};
use mutator::Mutator;

/// Inputs of a cheap target, unless `FUZZ_INPUTS` says otherwise.
const INPUTS: u64 = 10_000;
/// No input may take longer, in whatever profile and on whatever machine: the work is linear in a kilobyte.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much more memory the process may have mapped after a target than at its start.
const MEMORY_MAX: usize = 512 << 20;
/// All seeds together, in bytes.
const CORPUS_LEN_MAX: u64 = 300 << 10;

/// A number from the environment.
fn number(name: &str, default: u64) -> u64 {
    let Ok(text) = std::env::var(name) else { return default };
    text.replace('_', "").parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}"))
}

/// A path below `fuzz/`.
fn in_fuzz(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(path)
}

fn directory(target: &str) -> PathBuf {
    in_fuzz("corpus").join(target)
}

/// The seeds of a target by name.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> = fs::read_dir(directory(target))
        .unwrap_or_else(|error| panic!("no seeds for {target}: {error}"))
        .map(|entry| entry.expect("a readable directory").path())
        .collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("a readable seed")).collect()
}

/// Whether the body panics on this input.
fn fails(target: &Target, input: &[u8]) -> bool {
    panic::catch_unwind(AssertUnwindSafe(|| target.run(input))).is_err()
}

/// Leaves out whatever is not needed for a failure, a few thousand times at most: whole parts, then bytes of parts,
/// then bytes.
fn shorten(target: &Target, input: &[u8]) -> Vec<u8> {
    let mut attempts = 4000;
    let mut shortest = input.to_vec();
    if let Some(parts) = target.parts {
        let head = input[..parts.head_len.min(input.len())].to_vec();
        let mut list: Vec<Vec<u8>> =
            (parts.split)(&input[head.len()..]).into_iter().map(<[u8]>::to_vec).collect();
        let join = |list: &[Vec<u8>]| [head.as_slice(), &list.concat()].concat();
        leave_out(&mut list, &mut attempts, |list| fails(target, &join(list)));
        for at in 0..list.len() {
            let mut part = list[at].clone();
            leave_out(&mut part, &mut attempts, |part| {
                let mut list = list.clone();
                list[at] = part.to_vec();
                (parts.seal)(&mut list[at]);
                fails(target, &join(&list))
            });
            (parts.seal)(&mut part);
            let before = std::mem::replace(&mut list[at], part);
            if !fails(target, &join(&list)) {
                list[at] = before;
            }
        }
        shortest = join(&list);
    }
    leave_out(&mut shortest, &mut attempts, |input| fails(target, input));
    shortest
}

/// Takes elements away as long as it still fails, first many at once, then few.
fn leave_out<T: Clone>(list: &mut Vec<T>, attempts: &mut u32, fails: impl Fn(&[T]) -> bool) {
    let mut width = list.len();
    while width > 0 {
        let mut at = 0;
        while at < list.len() && *attempts > 0 {
            *attempts -= 1;
            let mut shorter = list.clone();
            shorter.drain(at..shorter.len().min(at + width));
            if fails(&shorter) {
                *list = shorter;
            } else {
                at += width;
            }
        }
        width /= 2;
    }
}

/// Tells everything about an input that fails, and fails.
fn report(target: &Target, seed: u64, what: &str, input: &[u8]) -> ! {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let input = if seed == 0 { input.to_vec() } else { shorten(target, input) };
    panic::set_hook(hook);
    let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
    eprintln!("\n{}: {what} fails ({})", target.name, target.checks);
    eprintln!("  as text  {}", input.escape_ascii());
    eprintln!("  again    FUZZ_INPUT={hex} cargo test --test fuzz {} -- --exact", target.name);
    eprintln!("  keep it  as fuzz/corpus/{}/regression-NAME, once it is understood", target.name);
    panic!("{}: {what} fails, see above", target.name);
}

/// The most memory that this process has ever had mapped, in bytes, where the system tells.
fn memory_peak() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<usize>().ok().map(|kib| kib << 10)
}

/// Runs a target's seeds and then inputs made of them.
fn fuzz(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("every test is a target");
    if let Ok(hex) = std::env::var("FUZZ_INPUT") {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte = |pair: &[u8]| u8::from_str_radix(&String::from_utf8_lossy(pair), 16).expect("hex digits");
        return target.run(&digits.chunks(2).map(byte).collect::<Vec<u8>>());
    }
    let corpus = corpus(name);
    for (number, input) in corpus.iter().enumerate() {
        if fails(target, input) {
            report(target, 0, &format!("seed {number} of the corpus"), input);
        }
    }
    let seed = number("FUZZ_SEED", 1);
    let inputs = (number("FUZZ_INPUTS", INPUTS) / u64::from(target.cost)).max(1);
    let before = memory_peak();
    let mut mutator = Mutator::new(seed, target, &corpus);
    let (begin, mut slowest, mut input) = (Instant::now(), Duration::ZERO, Vec::new());
    for number in 0..inputs {
        mutator.next_input(&mut input);
        let started = Instant::now();
        if fails(target, &input) {
            report(target, seed.max(1), &format!("input {number} of seed {seed}"), &input);
        }
        let took = started.elapsed();
        slowest = slowest.max(took);
        if took > PATIENCE {
            report(
                target,
                0,
                &format!("input {number} of seed {seed}: it took {took:?} and therefore"),
                &input,
            );
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!("{name}: {inputs} inputs in {seconds:.1} s, the slowest {slowest:.1?}");
    if let (Some(before), Some(after)) = (before, memory_peak()) {
        assert!(after < before + MEMORY_MAX, "{name} and its neighbours took {} more bytes", after - before);
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            fuzz(stringify!($name));
        })*

        const TESTS: &[&str] = &[$(stringify!($name)),*];
    };
}

targets! {
    batch client_payload config decimal dialect glob identity line log node_client node_peer payload peer_stream replay
    snapshot
}

#[test]
fn every_target_has_a_test_a_program_and_seeds() {
    let update = std::env::var("UPDATE_CORPUS").is_ok_and(|value| value == "1");
    let manifest = include_str!("../fuzz/Cargo.toml");
    let mut total = 0;
    for target in &TARGETS {
        let name = target.name;
        assert!(TESTS.contains(&name), "{name} has no test");
        assert!(
            manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")),
            "{name} is not in fuzz/Cargo.toml"
        );
        let program = in_fuzz(&format!("fuzz_targets/{name}.rs"));
        let program = fs::read_to_string(program).expect("a program for each target");
        assert!(
            program.contains(&format!("bodies::run({name:?}, input)")),
            "the program of {name} runs another body"
        );
        if update {
            write_seeds(name);
        }
        for entry in fs::read_dir(directory(name)).expect("a directory of seeds") {
            total += entry.expect("a readable directory").metadata().expect("a file").len();
        }
    }
    assert_eq!(TESTS.len(), TARGETS.len());
    assert!(total <= CORPUS_LEN_MAX, "{total} bytes of seeds");
}

/// Replaces the seeds that come from encoders; those of old failures stay.
fn write_seeds(name: &str) {
    let directory = directory(name);
    fs::create_dir_all(&directory).expect("a directory of seeds");
    for entry in fs::read_dir(&directory).expect("a directory of seeds") {
        let path = entry.expect("a readable directory").path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("seed-")) {
            fs::remove_file(path).expect("an old seed");
        }
    }
    for (number, seed) in seeds::seeds(name).iter().enumerate() {
        fs::write(directory.join(format!("seed-{number:02}")), seed).expect("a new seed");
    }
}

/// Parts joined are the whole, and a sealed part is found again where it was.
#[test]
fn inputs_can_be_taken_apart() {
    for target in &TARGETS {
        let Some(parts) = target.parts else { continue };
        for seed in corpus(target.name) {
            let body = &seed[parts.head_len.min(seed.len())..];
            let list = (parts.split)(body);
            assert_eq!(list.concat(), body, "{}", target.name);
            assert!(list.iter().all(|part| !part.is_empty()), "{}", target.name);
        }
    }
}
