//! `kvchaos`: breaks a cluster of real processes and checks what its clients saw.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;
use lanekv::chaos::{Fault, NODES_MAX, Options, run};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

const USAGE: u8 = 2;
/// One mistake may break a promise a thousand times.
const SHOWN_MAX: usize = 5;

/// Runs real kvnode processes on loopback, kills, pauses and partitions them, and checks that their clients saw
/// nothing that lanekv promises not to happen.
///
/// Exit codes: 0 all was well, 1 a promise was broken, 2 usage, or the run could not be made.
#[derive(Parser, Debug)]
#[command(version)]
struct Flags {
    /// How long things are broken.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    seconds: u64,
    /// How many nodes.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// How many clients.
    #[arg(long, default_value_t = 12)]
    clients: usize,
    /// What faults and clients are drawn from [default: from the clock].
    #[arg(long)]
    seed: Option<u64>,
    /// An empty or new directory for data, logs and events, which stay there.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Only these kinds of faults: kill, storm, killall, alone, term, pause, cut, silence, halves, isolate, delay,
    /// slow, tear, reset, flip, or none.
    #[arg(long, value_name = "KIND,…", value_delimiter = ',')]
    faults: Vec<String>,
    /// Where the program kvnode is [default: beside this one].
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
}

/// What the flags ask for, or what is wrong with them.
fn options(flags: &Flags, seed: u64) -> Result<Options, String> {
    if !(1..=NODES_MAX).contains(&flags.nodes) {
        return Err(format!("--nodes: found {}, expected 1 to {NODES_MAX}", flags.nodes));
    }
    if !(1..=1_000).contains(&flags.clients) {
        return Err(format!("--clients: found {}, expected 1 to 1000", flags.clients));
    }
    let faults = match flags.faults.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => Fault::ALL.to_vec(),
        ["none"] => Vec::new(),
        ref names => names
            .iter()
            .map(|name| {
                Fault::from_name(name).ok_or_else(|| format!("--faults: there is no fault \"{name}\""))
            })
            .collect::<Result<Vec<_>, String>>()?,
    };
    let bin_dir = match &flags.bin_dir {
        Some(dir) => dir.clone(),
        None => {
            let own =
                std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
            own.parent().map(PathBuf::from).unwrap_or_default()
        }
    };
    let kvnode = bin_dir.join("kvnode");
    if !kvnode.is_file() {
        return Err(format!("there is no {}", kvnode.display()));
    }
    Ok(Options {
        length: Duration::from_secs(flags.seconds),
        nodes: flags.nodes,
        clients: flags.clients,
        seed,
        faults,
        kvnode,
        keep: flags.keep.clone(),
    })
}

/// The command line that runs the same again.
fn command(flags: &Flags, seed: u64) -> String {
    let Flags { seconds, nodes, clients, .. } = flags;
    let faults = match flags.faults.as_slice() {
        [] => String::new(),
        faults => format!(" --faults {}", faults.join(",")),
    };
    let bin_dir =
        flags.bin_dir.as_ref().map(|dir| format!(" --bin-dir {}", dir.display())).unwrap_or_default();
    format!("kvchaos --seed {seed} --seconds {seconds} --nodes {nodes} --clients {clients}{faults}{bin_dir}")
}

fn interrupt_flag() -> std::io::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register(signal, Arc::clone(&interrupted))?;
    }
    Ok(interrupted)
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let of_clock = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().subsec_nanos();
    let seed = flags.seed.unwrap_or_else(|| u64::from(of_clock()));
    let options = match options(&flags, seed) {
        Ok(options) => options,
        Err(text) => {
            eprintln!("kvchaos: {text}");
            return ExitCode::from(USAGE);
        }
    };
    eprintln!("{}", command(&flags, seed));
    let summary = match interrupt_flag().and_then(|interrupted| run(&options, &interrupted)) {
        Ok(summary) => summary,
        Err(error) => {
            eprintln!("kvchaos: {error}");
            return ExitCode::from(USAGE);
        }
    };
    print!("{summary}");
    if summary.interrupted {
        println!("interrupted before its time");
    }
    for violation in summary.violations.iter().take(SHOWN_MAX) {
        println!("VIOLATION {violation}");
    }
    if let Some(kept) = &summary.kept {
        println!("logs, data and events are in {}", kept.display());
    }
    if summary.violations.is_empty() {
        println!("seed {seed}: ok");
        return ExitCode::SUCCESS;
    }
    println!("seed {seed}: {} violations; to run it again:", summary.violations.len());
    println!("{}", command(&flags, seed));
    ExitCode::FAILURE
}
