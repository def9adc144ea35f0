//! `kvsim`: runs the deterministic simulator.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
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
    /// Make each deliberate mistake in turn, and count the seeds until it is found.
    #[arg(long)]
    mutations: bool,
    /// Make only this mistake.
    #[arg(long)]
    mutation: Option<String>,
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

/// Runs seeds on all cores until they are done or `failures_max` have failed. Returns what they did together.
fn run_many(flags: &Flags, first: u64, runs: u64, failures_max: u64, quiet: bool) -> Totals {
    let totals = Totals::default();
    let next = AtomicU64::new(first);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while totals.failed.load(Ordering::Relaxed) < failures_max {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + runs {
                        break;
                    }
                    run_one(flags, seed, quiet, &totals);
                    let done = totals.seeds.fetch_add(1, Ordering::Relaxed) + 1;
                    if !quiet && done.is_multiple_of(500) {
                        eprintln!("{done} of {runs} seeds");
                    }
                }
            });
        }
    });
    totals
}

fn run_one(flags: &Flags, seed: u64, quiet: bool, totals: &Totals) {
    let Ok(outcome) = std::panic::catch_unwind(|| run(plan(flags, seed), false)) else {
        if !quiet {
            println!("seed {seed}: panic");
            println!("reproduce: kvsim --seed {seed} --trace");
        }
        totals.note_failure(seed, "panic (an assertion of the core)");
        return;
    };
    totals.answered.fetch_add(outcome.answered, Ordering::Relaxed);
    totals.events.fetch_add(outcome.events, Ordering::Relaxed);
    if let Some(violation) = outcome.violations.first() {
        totals.note_failure(seed, violation.invariant);
        if !quiet {
            report(&outcome, flags);
        }
    }
}

#[derive(Default)]
struct Totals {
    seeds: AtomicU64,
    answered: AtomicU64,
    events: AtomicU64,
    failed: AtomicU64,
    first_failure: std::sync::Mutex<Option<(u64, String)>>,
}

impl Totals {
    fn note_failure(&self, seed: u64, what: &str) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let mut first = self.first_failure.lock().expect("no thread panics with this lock held");
        if first.as_ref().is_none_or(|(s, _)| seed < *s) {
            *first = Some((seed, what.to_owned()));
        }
    }
}

/// Makes each mistake in turn and counts the seeds until it is found.
#[cfg(feature = "mutations")]
fn run_mutations(flags: &Flags) -> ExitCode {
    use lanekv::protocol::{Mutation, set_mutation};
    std::panic::set_hook(Box::new(|_| {}));
    let mut survivors = 0;
    for &mutation in Mutation::ALL {
        if flags.mutation.as_ref().is_some_and(|name| *name != mutation.to_string()) {
            continue;
        }
        set_mutation(Some(mutation));
        let start = Instant::now();
        let totals = run_many(flags, flags.first, flags.runs, 1, true);
        let seconds = start.elapsed().as_secs_f64();
        match totals.first_failure.into_inner().expect("no thread panicked with this lock held") {
            Some((seed, what)) => {
                println!("{mutation:<26} found by seed {seed:>5} in {seconds:>5.1} s: {what}");
            }
            None => {
                survivors += 1;
                println!("{mutation:<26} SURVIVED {} seeds", flags.runs);
            }
        }
    }
    println!("{} mutations, {survivors} survived", Mutation::ALL.len());
    if survivors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(not(feature = "mutations"))]
fn run_mutations(_: &Flags) -> ExitCode {
    eprintln!("kvsim: --mutations needs a build with `--features mutations`");
    ExitCode::from(2)
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    if flags.mutations || flags.mutation.is_some() {
        return run_mutations(&flags);
    }
    if let Some(seed) = flags.seed {
        let outcome = run(plan(&flags, seed), flags.trace);
        report(&outcome, &flags);
        println!(
            "seed {seed}: {} nodes, {} operations answered, {} views, {} events, digest {:016x}",
            outcome.plan.nodes, outcome.answered, outcome.views, outcome.events, outcome.digest
        );
        return if outcome.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let start = Instant::now();
    let totals = run_many(&flags, flags.first, flags.runs, 10, false);
    let failed = totals.failed.into_inner();
    println!(
        "{} seeds, {} operations answered, {} events, {:.1} s, {failed} failed",
        totals.seeds.into_inner(),
        totals.answered.into_inner(),
        totals.events.into_inner(),
        start.elapsed().as_secs_f64()
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
