//! `kvsim`: runs the deterministic simulator.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use lanekv::sim::{Outcome, Plan, run};

/// Runs whole clusters in virtual time, with faults drawn from seeds, and checks what lanekv promises.
#[derive(Parser, Debug)]
#[command(version)]
struct Flags {
    /// Run this one seed.
    #[arg(long, conflicts_with = "runs")]
    seed: Option<u64>,
    /// How many nodes, instead of what the seed draws.
    #[arg(long)]
    nodes: Option<u8>,
    /// How many operations, instead of what the seed draws.
    #[arg(long)]
    steps: Option<u64>,
    /// Run so many seeds, on all cores.
    #[arg(long, default_value_t = 100)]
    runs: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Tell what happens, event by event.
    #[arg(long)]
    trace: bool,
}

fn plan(flags: &Flags, seed: u64) -> Plan {
    let mut plan = Plan::draw(seed);
    plan.nodes = flags.nodes.unwrap_or(plan.nodes);
    plan.operations = flags.steps.unwrap_or(plan.operations);
    plan
}

fn report(outcome: &Outcome, flags: &Flags) {
    for violation in &outcome.violations {
        println!("seed {}: {violation}", outcome.plan.seed);
    }
    if !outcome.violations.is_empty() {
        let nodes = flags.nodes.map(|n| format!(" --nodes {n}")).unwrap_or_default();
        let steps = flags.steps.map(|n| format!(" --steps {n}")).unwrap_or_default();
        println!("reproduce: kvsim --seed {}{nodes}{steps} --trace", outcome.plan.seed);
    }
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    if let Some(seed) = flags.seed {
        let outcome = run(plan(&flags, seed), flags.trace);
        report(&outcome, &flags);
        println!(
            "seed {seed}: {} nodes, {} operations answered, {} views, {} events, digest {:016x}",
            outcome.plan.nodes, outcome.answered, outcome.views, outcome.events, outcome.digest
        );
        return if outcome.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let next = AtomicU64::new(flags.first);
    let end = flags.first + flags.runs;
    let (answered, events, failed) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let stop = AtomicBool::new(false);
    let start = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        break;
                    }
                    let outcome = match std::panic::catch_unwind(|| run(plan(&flags, seed), false)) {
                        Ok(outcome) => outcome,
                        Err(_) => {
                            println!("seed {seed}: panic; reproduce: kvsim --seed {seed} --trace");
                            failed.fetch_add(1, Ordering::Relaxed);
                            continue;
                        }
                    };
                    report(&outcome, &flags);
                    answered.fetch_add(outcome.answered, Ordering::Relaxed);
                    events.fetch_add(outcome.events, Ordering::Relaxed);
                    if !outcome.violations.is_empty() && failed.fetch_add(1, Ordering::Relaxed) >= 9 {
                        stop.store(true, Ordering::Relaxed);
                    }
                    let done = seed + 1 - flags.first;
                    if done.is_multiple_of(500) {
                        eprintln!("{done} of {} seeds", flags.runs);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    println!(
        "{} seeds, {} operations answered, {} events, {:.1} s, {failed} failed",
        flags.runs,
        answered.into_inner(),
        events.into_inner(),
        start.elapsed().as_secs_f64()
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
