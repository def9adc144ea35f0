//! `kvclient`: the prompt, one command, or a pipe of commands; and a cluster to try them on.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use lanekv::client::local_cluster::{self, RunningNode};
use lanekv::client::print::Format;
use lanekv::client::shell::{self, Status, notice};
use lanekv::client::{Client, Options};
use lanekv::config::{Config, Member, duration};
use lanekv::wire::client::Consistency;

/// Where the cluster of `kvclient` without a file lives.
const LOCAL_DIR: &str = "kvdata";
/// No configuration is longer than that, in bytes.
const CONFIG_LEN_MAX: u64 = 1 << 20;

/// Client of a lanekv cluster.
///
/// With a command, runs it and prints the reply. Without one, shows a prompt, or runs the commands on
/// standard input, one a line, when that is not a terminal. Without a file, starts a cluster of three nodes
/// inside the process, with its data under kvdata/.
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

fn parse_consistency(text: &str) -> Result<Consistency, String> {
    match text {
        "linearizable" => Ok(Consistency::Linearizable),
        "ordered" => Ok(Consistency::Ordered),
        "local" => Ok(Consistency::Local),
        _ => Err("expected linearizable, ordered or local".to_owned()),
    }
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
        None => match local_cluster::start(Path::new(LOCAL_DIR), spawn_node) {
            Ok(cluster) => {
                cluster.moved().iter().for_each(|text| notice(text));
                notice(&format!(
                    "three nodes run in this process; data in {LOCAL_DIR}/, addresses in {}",
                    cluster.file().display()
                ));
                run(&flags, cluster.config())
            }
            Err(error) => {
                notice(&error.to_string());
                if error.is_configuration() { Status::Usage.into() } else { Status::NoNode.into() }
            }
        },
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

/// A node of the cluster inside the process.
struct Node(std::convert::Infallible);

impl RunningNode for Node {
    fn stop(self) {
        match self.0 {}
    }
}

/// Starts one node of the cluster inside the process: the only place that knows how.
fn spawn_node(_member: &Member, _config: &Config, _data_dir: &Path) -> Result<Node, &'static str> {
    Err("this build of kvclient has no node in it; give it a nodes.conf")
}
