//! `kvbench`: puts load on lanekv, Redis or etcd and says how fast they answer.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Parser;
use lanekv::bench::{
    BenchError, DialectName, Distribution, FloorOptions, Mix, Options, Outcome, Progress, Workload,
    floor_json, floor_table, json, measure_floor, run, table, targets, timeline_csv,
};
use lanekv::wire::client::Consistency;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

const USAGE: u8 = 2;
const UNREACHABLE: u8 = 3;

/// Puts load on a cluster, or on other servers, and measures throughput and latencies.
///
/// Without --rate every connection sends its next request when an answer has come. With --rate requests fall due at
/// even intervals, and a latency counts from when its request was due.
///
/// Exit codes: 0 measured, 1 some requests failed, 2 usage, 3 a server cannot be reached or was lost.
#[derive(Parser, Debug)]
#[command(version)]
struct Flags {
    /// A nodes.conf, or host:port, or several of them; connections go round.
    #[arg(value_name = "TARGET", required_unless_present = "floor")]
    targets: Vec<String>,
    /// Only the nodes with these ids of a nodes.conf.
    #[arg(long, value_name = "ID,…", value_delimiter = ',')]
    node: Vec<u8>,
    /// resp (lanekv, Redis), binary (lanekv), or etcd (gRPC).
    #[arg(long, default_value = "resp", value_parser = dialect)]
    dialect: DialectName,
    /// Connections, all servers together.
    #[arg(short, long, default_value_t = 64)]
    connections: usize,
    /// Requests under way on each connection.
    #[arg(short = 'P', long, default_value_t = 1)]
    pipeline: usize,
    /// Requests a second [default: as many as are answered].
    #[arg(long, value_name = "PER SECOND")]
    rate: Option<f64>,
    /// How long is measured.
    #[arg(short, long, default_value_t = 10.0, value_parser = seconds)]
    seconds: f64,
    /// Load before that.
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    warmup: f64,
    /// Which commands, with weights: set=9,get=1; also incr, mset.
    #[arg(long, default_value = "set", value_parser = Mix::parse)]
    mix: Mix,
    /// How many keys.
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    /// uniform, zipf, or zipf:EXPONENT.
    #[arg(long, default_value = "uniform", value_parser = Distribution::parse)]
    distribution: Distribution,
    /// Bytes of a value.
    #[arg(long, default_value_t = 64)]
    value_len: usize,
    /// Keys of one MSET.
    #[arg(long, default_value_t = 10)]
    mset_len: usize,
    /// What commands and keys are drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Gives every key a value first, so that reads find something.
    #[arg(long)]
    fill: bool,
    /// Reads are linearizable, ordered or local [default: as the server has it].
    #[arg(long, value_parser = consistency)]
    consistency: Option<Consistency>,
    /// Redis: WAIT for so many replicas after each write.
    #[arg(long, value_name = "REPLICAS")]
    wait: Option<u32>,
    /// Makes lost connections again, and counts what failed; the exit code is 0.
    #[arg(long)]
    tolerate: bool,
    /// Processes of the servers, for the processor time of an operation.
    #[arg(long, value_name = "PID,…", value_delimiter = ',')]
    pid: Vec<u32>,
    /// Writes the result as JSON to this file, or to standard output (-) instead of the table.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes a line for each interval as CSV.
    #[arg(long, value_name = "FILE")]
    timeline: Option<PathBuf>,
    /// Milliseconds of an interval of the timeline.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    interval: u64,
    /// No line of progress.
    #[arg(short, long)]
    quiet: bool,
    /// Measures what this machine can do instead: a loopback round trip, and synced writes.
    #[arg(long, conflicts_with_all = ["targets", "timeline"])]
    floor: bool,
    /// Where --floor writes its files.
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

fn dialect(text: &str) -> Result<DialectName, String> {
    DialectName::from_name(text).ok_or_else(|| "expected resp, binary or etcd".to_owned())
}

fn consistency(text: &str) -> Result<Consistency, String> {
    Consistency::from_name(text.as_bytes())
        .ok_or_else(|| "expected linearizable, ordered or local".to_owned())
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.0..=1e6).contains(seconds));
    seconds.ok_or_else(|| "expected seconds from 0 to 1000000".to_owned())
}

fn options(flags: &Flags) -> Result<Options, BenchError> {
    Ok(Options {
        targets: targets(&flags.targets, &flags.node)?,
        dialect: flags.dialect,
        connections: flags.connections,
        pipeline: flags.pipeline,
        rate: flags.rate,
        length: Duration::from_secs_f64(flags.seconds),
        warmup: Duration::from_secs_f64(flags.warmup),
        workload: Workload {
            mix: flags.mix,
            key_count: flags.keys,
            distribution: flags.distribution,
            value_len: flags.value_len,
            mset_len: flags.mset_len,
            seed: flags.seed,
        },
        consistency: flags.consistency,
        wait: flags.wait,
        fill: flags.fill,
        tolerate: flags.tolerate,
        pids: flags.pid.clone(),
        timeline: flags.timeline.as_ref().map(|_| Duration::from_millis(flags.interval)),
    })
}

fn show(progress: &Progress) {
    let Progress { phase, seconds, per_second, latencies, errors } = progress;
    let mut line = format!("\r{phase} {seconds:.0} s  {per_second:.0} a second");
    if latencies.max > 0.0 {
        let (p50, p99, max) = (latencies.p50, latencies.p99, latencies.max);
        line.push_str(&format!("  p50 {p50:.0} p99 {p99:.0} max {max:.0} µs"));
    }
    if *errors > 0 {
        line.push_str(&format!("  {errors} errors"));
    }
    eprint!("{line:<78}");
}

/// To a file, or to standard output if that is called `-`.
fn write(path: &Path, text: &str) -> Result<(), BenchError> {
    let written = if path == Path::new("-") {
        std::io::stdout().lock().write_all(text.as_bytes())
    } else {
        std::fs::write(path, text)
    };
    written.map_err(|error| BenchError::System { what: format!("write {}", path.display()), error })
}

/// The table, and the JSON if it is wanted.
fn tell(flags: &Flags, table: &str, json: impl FnOnce() -> String) -> Result<(), BenchError> {
    if flags.json.as_deref() != Some(Path::new("-")) {
        write(Path::new("-"), table)?;
    }
    flags.json.as_deref().map_or(Ok(()), |path| write(path, &json()))
}

fn measure(flags: &Flags) -> Result<Outcome, BenchError> {
    let options = options(flags)?;
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register(signal, Arc::clone(&interrupted))
            .map_err(|error| BenchError::System { what: "catch signals".to_owned(), error })?;
    }
    let is_shown = !flags.quiet && std::io::stderr().is_terminal();
    let mut progress = |progress: &Progress| {
        if is_shown {
            show(progress);
        }
    };
    let outcome = run(&options, &interrupted, &mut progress);
    if is_shown {
        eprint!("\r{:<78}\r", "");
    }
    let outcome = outcome?;
    if outcome.results[0].operations == 0 && outcome.results[0].errors == 0 && !outcome.interrupted {
        return Err(BenchError::Silent(options.length));
    }
    tell(flags, &table(&options, &outcome), || json(&options, &outcome))?;
    if let Some(path) = &flags.timeline {
        write(path, &timeline_csv(&outcome.timeline))?;
    }
    Ok(outcome)
}

fn floor(flags: &Flags) -> Result<(), BenchError> {
    let length = Duration::from_secs_f64(flags.seconds.max(0.01));
    let floor = measure_floor(&FloorOptions { directory: flags.dir.clone(), length })?;
    tell(flags, &floor_table(&floor), || floor_json(&floor))
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let done = if flags.floor {
        floor(&flags).map(|()| true)
    } else {
        measure(&flags).map(|outcome| flags.tolerate || outcome.results[0].errors == 0)
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("kvbench: {error}");
            ExitCode::from(match error {
                BenchError::Usage(_) | BenchError::System { .. } => USAGE,
                _ => UNREACHABLE,
            })
        }
    }
}
