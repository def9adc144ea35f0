//! `kvclient`: the prompt, one command, or a pipe of commands; and a cluster to try them on.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, IsTerminal, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use clap::Parser;
use log::LevelFilter;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use lanekv::client::local_cluster::{self, LocalCluster};
use lanekv::client::log_file;
use lanekv::client::print::Format;
use lanekv::client::shell::{self, Status, notice};
use lanekv::client::{Client, Options};
use lanekv::config::{Config, duration};
use lanekv::wire::client::Consistency;

/// Where the cluster of `kvclient` without a file lives.
const LOCAL_DIR: &str = "kvdata/local";
/// How long to wait for the nodes of that cluster before the prompt comes.
const READY_TIMEOUT: Duration = Duration::from_secs(10);
/// No configuration is longer than that, in bytes.
const CONFIG_LEN_MAX: u64 = 1 << 20;

/// Client of a lanekv cluster.
///
/// With a command, runs it and prints the reply. Without one, shows a prompt, or runs the commands on
/// standard input, one a line, when that is not a terminal. Without a file, starts a cluster of three nodes
/// inside the process, with its data under kvdata/local/.
#[derive(Parser, Debug)]
#[command(
    version,
    after_help = "\
Exit codes: 0 all commands succeeded (a missing key is success), 1 a command got an error,
2 usage, 3 no node could be reached."
)]
struct Flags {
    /// The cluster's configuration
    nodes_conf: Option<PathBuf>,

    /// A command and its arguments, such as GET name
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,

    /// How replies are printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    /// How long to try before giving a command up, such as 500ms or 30s [default: 10s, or more if the
    /// cluster's client-timeout is longer]
    #[arg(long, value_name = "DURATION", value_parser = parse_timeout)]
    timeout: Option<Duration>,

    /// How fresh reads have to be: linearizable, ordered or local
    #[arg(long, value_name = "LEVEL", value_parser = parse_consistency, default_value = "linearizable")]
    consistency: Consistency,
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    match duration(text) {
        Some(length) if length.0 > 0 => Ok(Duration::from_millis(length.0)),
        _ => Err("expected a duration such as 500ms, 30s or 1m".to_owned()),
    }
}

fn parse_consistency(text: &str) -> Result<Consistency, &'static str> {
    Consistency::from_name(text.as_bytes()).ok_or("expected linearizable, ordered or local")
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    match &flags.nodes_conf {
        Some(path) => match read_config(path) {
            Ok(config) => run(&flags, &config),
            Err(errors) => {
                errors.iter().for_each(|error| notice(error));
                Status::Usage.into()
            }
        },
        None => run_local(&flags),
    }
}

/// Runs what the flags ask for on a cluster of its own.
fn run_local(flags: &Flags) -> ExitCode {
    let dir = Path::new(LOCAL_DIR);
    // Signals are caught before there is a node, so that each that has started is also stopped.
    let stopping = Arc::new(AtomicBool::new(false));
    let signals = match catch_signals(&stopping) {
        Ok(signals) => signals,
        Err(error) => {
            notice(&format!("cannot catch signals: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let log = dir.join("kvclient.log");
    let logs = fs::create_dir_all(dir).and_then(|()| log_file::start(&log, LevelFilter::Info));
    if let Err(error) = logs {
        notice(&format!("no log: {}: {error}", log.display()));
    }
    let cluster = match local_cluster::start(dir) {
        Ok(cluster) => cluster,
        Err(error) => {
            notice(&error.to_string());
            return if error.is_configuration() { Status::Usage.into() } else { Status::NoNode.into() };
        }
    };
    cluster.moved().iter().for_each(|text| notice(text));
    notice(&format!(
        "three nodes run in this process; data in {LOCAL_DIR}/, addresses in {}",
        cluster.file().display()
    ));
    for id in cluster.wait_ready(READY_TIMEOUT) {
        notice(&format!("node {} does not serve yet; {} may say why", id.get(), log.display()));
    }
    let config = cluster.config().clone();
    let cluster = Arc::new(Mutex::new(Some(cluster)));
    let held = Arc::clone(&cluster);
    let terminal = tcgetattr(io::stdin()).ok();
    thread::spawn(move || stop_on_signal(signals, terminal, &held));
    let status = run(flags, &config);
    stop(&cluster);
    status
}

/// From now on the first signal is only noted; the second one ends the process at once, should stopping hang.
fn catch_signals(stopping: &Arc<AtomicBool>) -> io::Result<Signals> {
    const CAUGHT: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];
    for signal in CAUGHT {
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(stopping))?;
        flag::register(signal, Arc::clone(stopping))?;
    }
    Signals::new(CAUGHT)
}

/// Waits for a signal, stops the cluster and ends the process as a shell expects it after that signal.
fn stop_on_signal(mut signals: Signals, terminal: Option<Termios>, cluster: &Mutex<Option<LocalCluster>>) {
    if let Some(signal) = signals.forever().next() {
        // The line editor may be in the middle of a line, with the terminal set to its needs.
        if let Some(terminal) = terminal {
            let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &terminal);
        }
        stop(cluster);
        process::exit(128 + signal);
    }
}

/// Stops the cluster; whoever comes second waits until it has.
fn stop(cluster: &Mutex<Option<LocalCluster>>) {
    let mut cluster = cluster.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(cluster) = cluster.take() {
        cluster.stop().iter().for_each(|text| notice(text));
    }
}

/// Runs what the flags ask for.
fn run(flags: &Flags, config: &Config) -> ExitCode {
    let mut options = Options { consistency: flags.consistency, ..Options::from_settings(&config.settings) };
    if let Some(timeout) = flags.timeout {
        options.deadline = timeout;
    }
    let addresses = config.members().iter().map(|member| member.address.clone());
    let mut client = Client::new(addresses, options);
    let mut out = io::stdout();
    let stdin = io::stdin();
    let status = if !flags.command.is_empty() {
        let command: Vec<Vec<u8>> = flags.command.iter().map(|word| word.clone().into_vec()).collect();
        shell::one_shot(&mut client, flags.format, &command, &mut out)
    } else if stdin.is_terminal() {
        notice(&format!("{} nodes; HELP lists the commands, EXIT leaves", config.members().len()));
        shell::interactive(&mut client, flags.format, &mut out)
    } else {
        shell::piped(&mut client, flags.format, stdin.lock(), &mut out)
    };
    status.into()
}

/// Reads the configuration file; the errors are complete sentences for the user.
fn read_config(path: &Path) -> Result<Config, Vec<String>> {
    let name = path.display().to_string();
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(CONFIG_LEN_MAX + 1).read_to_end(&mut bytes));
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(vec![format!("{name}: {error}; the first argument is the cluster's nodes.conf")])
        }
        Err(error) => Err(vec![format!("{name}: {error}")]),
        Ok(len) if len as u64 > CONFIG_LEN_MAX => {
            Err(vec![format!("{name}: longer than {CONFIG_LEN_MAX} bytes, expected a nodes.conf")])
        }
        Ok(_) => Config::parse_bytes(&name, &bytes)
            .map_err(|errors| errors.iter().map(ToString::to_string).collect()),
    }
}
