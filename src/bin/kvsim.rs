//! `kvsim`: runs the deterministic simulator.

#[cfg(feature = "mutations")]
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use lanekv::protocol::{Mark, Marks};
use lanekv::sim::{Outcome, Plan, Sight, Sights, Trace, run, run_unjudged};

/// Runs whole clusters in virtual time, with faults drawn from seeds, and checks what lanekv promises.
#[derive(Parser, Debug)]
#[command(version)]
struct Flags {
    /// Run this one seed.
    #[arg(long, visible_alias = "replay", conflicts_with = "runs")]
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
    /// How many clients, instead of what the seed draws.
    #[arg(long)]
    clients: Option<usize>,
    /// Run each seed twice: both runs must be the same, event by event.
    #[arg(long)]
    twice: bool,
    /// Print how often each rare situation came up, and fail if one never did.
    #[arg(long)]
    coverage: bool,
    /// Tell what happens: faults, messages, records, answers.
    #[arg(long)]
    trace: bool,
    /// With `--trace`: the Status messages too, which come all the time.
    #[arg(long, requires = "trace")]
    status: bool,
    /// Make each deliberate mistake in turn, and count the seeds until it is found.
    #[arg(long)]
    mutations: bool,
    /// Make only this mistake.
    #[arg(long)]
    mutation: Option<String>,
    /// A file with a line `mistake seed` for each that is known to be found by this seed, which is tried first.
    #[arg(long)]
    known: Option<PathBuf>,
}

fn plan(flags: &Flags, seed: u64) -> Plan {
    let mut plan = Plan::draw(seed);
    plan.operations = flags.steps.unwrap_or(plan.operations);
    if let Some(nodes) = flags.nodes {
        plan.set_nodes(nodes);
    }
    if let Some(clients) = flags.clients {
        plan.set_clients(clients);
    }
    plan
}

/// The command that runs a seed again.
fn reproduction(flags: &Flags, seed: u64) -> String {
    let option =
        |name: &str, value: Option<String>| value.map(|v| format!(" --{name} {v}")).unwrap_or_default();
    format!(
        "kvsim --replay {seed}{}{}{} --trace",
        option("nodes", flags.nodes.map(|n| n.to_string())),
        option("steps", flags.steps.map(|n| n.to_string())),
        option("clients", flags.clients.map(|n| n.to_string())),
    )
}

fn report(outcome: &Outcome, flags: &Flags) {
    for violation in &outcome.violations {
        println!("seed {}: {violation}", outcome.plan.seed);
    }
    if !outcome.violations.is_empty() {
        println!("reproduce: {}", reproduction(flags, outcome.plan.seed));
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
                    if !quiet && done.is_multiple_of(2_000) {
                        eprintln!("{done} of {runs} seeds");
                    }
                }
            });
        }
    });
    totals
}

fn run_one(flags: &Flags, seed: u64, quiet: bool, totals: &Totals) {
    let Ok(outcome) = std::panic::catch_unwind(|| run(plan(flags, seed), Trace::Off)) else {
        if !quiet {
            println!("seed {seed}: panic");
            println!("reproduce: {}", reproduction(flags, seed));
        }
        totals.note_failure(seed, "panic (an assertion of the core)");
        return;
    };
    totals.answered.fetch_add(outcome.answered, Ordering::Relaxed);
    totals.events.fetch_add(outcome.events, Ordering::Relaxed);
    totals.unsearched.fetch_add(u64::from(outcome.unsearched), Ordering::Relaxed);
    {
        let mut coverage = totals.coverage.lock().expect("no thread panics with this lock held");
        coverage.0.add(&outcome.marks);
        coverage.1.add(&outcome.sights);
    }
    if let Some(violation) = outcome.violations.first() {
        totals.note_failure(seed, violation.invariant);
        if !quiet {
            report(&outcome, flags);
        }
    } else if flags.twice {
        let again = run_unjudged(plan(flags, seed));
        if (again.digest, again.events) != (outcome.digest, outcome.events) {
            totals.note_failure(seed, "not repeatable");
            println!("seed {seed}: not repeatable: two runs differ");
            println!("reproduce: {}", reproduction(flags, seed));
        }
    }
}

#[derive(Default)]
struct Totals {
    seeds: AtomicU64,
    answered: AtomicU64,
    events: AtomicU64,
    failed: AtomicU64,
    first_failure: Mutex<Option<(u64, String)>>,
    unsearched: AtomicU64,
    coverage: Mutex<(Marks, Sights)>,
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

/// Prints the table of rare situations; returns how many never came up.
fn print_coverage(marks: &Marks, sights: &Sights) -> usize {
    let marks = Mark::ALL.iter().map(|mark| (mark.text(), marks.count(*mark)));
    let sights = Sight::ALL.iter().map(|sight| (sight.text(), sights.count(*sight)));
    let mut never = 0;
    for (title, table) in [("protocol", marks.collect::<Vec<_>>()), ("faults", sights.collect())] {
        println!("{title}:");
        for (text, count) in table {
            println!("{count:>12}  {text}");
            never += usize::from(count == 0);
        }
    }
    println!("{never} situations never came up");
    never
}

/// By mistake: the seed that is known to find it.
#[cfg(feature = "mutations")]
fn known_seeds(flags: &Flags) -> Result<BTreeMap<String, u64>, String> {
    let Some(path) = &flags.known else { return Ok(BTreeMap::new()) };
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|(number, line)| {
            let known =
                line.split_once(' ').and_then(|(name, seed)| Some((name.to_owned(), seed.parse().ok()?)));
            known.ok_or_else(|| format!("{}:{}: not `mistake seed`: {line}", path.display(), number + 1))
        })
        .collect()
}

/// Makes each mistake in turn and counts the seeds until it is found.
#[cfg(feature = "mutations")]
fn run_mutations(flags: &Flags) -> ExitCode {
    use lanekv::protocol::{Mutation, set_mutation};
    let known = match known_seeds(flags) {
        Ok(known) => known,
        Err(error) => {
            eprintln!("kvsim: {error}");
            return ExitCode::from(2);
        }
    };
    std::panic::set_hook(Box::new(|_| {}));
    let (mut found, mut survivors) = (0, 0);
    for &mutation in Mutation::ALL {
        let name = mutation.to_string();
        if flags.mutation.as_ref().is_some_and(|wanted| *wanted != name) {
            continue;
        }
        set_mutation(Some(mutation));
        let start = Instant::now();
        let first_failure = |first, runs| {
            let totals = run_many(flags, first, runs, 1, true);
            totals.first_failure.into_inner().expect("no thread panicked with this lock held")
        };
        let at_once = known.get(&name).and_then(|&seed| first_failure(seed, 1));
        // A change of the simulator makes other runs of the same seeds.
        let is_outdated = known.contains_key(&name) && at_once.is_none();
        let failure = at_once.or_else(|| first_failure(flags.first, flags.runs));
        let seconds = start.elapsed().as_secs_f64();
        match failure {
            Some((seed, what)) => {
                found += 1;
                let note = if is_outdated { ", not by the known one any more" } else { "" };
                println!("{mutation:<26} found by seed {seed:>5} in {seconds:>5.1} s: {what}{note}");
            }
            None => {
                survivors += 1;
                println!("{mutation:<26} SURVIVED {} seeds", flags.runs);
            }
        }
    }
    println!("{found} mistakes found, {survivors} not");
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
        let trace = match (flags.trace, flags.status) {
            (false, _) => Trace::Off,
            (true, false) => Trace::Story,
            (true, true) => Trace::Everything,
        };
        let outcome = run(plan(&flags, seed), trace);
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
    let mut never = 0;
    if flags.coverage {
        let (marks, sights) = totals.coverage.into_inner().expect("no thread panicked with this lock held");
        never = print_coverage(&marks, &sights);
    }
    let seconds = start.elapsed().as_secs_f64();
    let answered = totals.answered.into_inner();
    println!(
        "{} seeds{}, {answered} operations answered, {} events, {seconds:.1} s, \
         {} histories too long to search, {failed} failed",
        totals.seeds.into_inner(),
        if flags.twice { ", each twice" } else { "" },
        totals.events.into_inner(),
        totals.unsearched.into_inner(),
    );
    if failed == 0 && never == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
