//! `kvnode <ID> <NODES_CONF>`: runs one node of a cluster.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};
use lanekv::config::{Config, Settings};
use lanekv::maintenance;
use lanekv::net::{self, NodeOptions};
use lanekv::node::Inspection;
use lanekv::types::NodeId;
use log::LevelFilter;

const USAGE: u8 = 2;
const DAMAGED: u8 = 4;
const DISK: u8 = 5;

fn main() -> ExitCode {
    match run(&command().get_matches()) {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, text)) => {
            eprintln!("kvnode: {text}");
            ExitCode::from(code)
        }
    }
}

fn command() -> Command {
    let command = Command::new("kvnode")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Runs one node of a lanekv cluster")
        .override_usage(
            "kvnode <ID> <NODES_CONF> [OPTIONS]\n       kvnode --check <NODES_CONF>\n       \
             kvnode --inspect <DIR>",
        )
        .after_help(
            "Exit codes: 0 stopped as asked, 1 other errors, 2 usage, configuration or address, 3 data directory \
             in use, 4 damaged data, 5 disk error, 6 not who it claims to be, 7 removed from the cluster, 8 data of a \
             newer version",
        )
        .arg(
            Arg::new("positional")
                .value_names(["ID", "NODES_CONF"])
                .help("The node's number and the configuration file")
                .num_args(1..=2)
                .required_unless_present("inspect"),
        )
        .arg(
            Arg::new("inspect")
                .long("inspect")
                .value_name("DIR")
                .value_parser(clap::value_parser!(PathBuf))
                .conflicts_with_all(["positional", "check"])
                .help("Only prints what is in a data directory, and whether it is sound (0) or damaged (4)"),
        )
        .arg(
            Arg::new("check")
                .long("check")
                .action(ArgAction::SetTrue)
                .help("Only checks the configuration file"),
        )
        .arg(
            Arg::new("data-dir")
                .long("data-dir")
                .value_name("DIR")
                .value_parser(clap::value_parser!(PathBuf))
                .help("Where the log is kept [default: kvdata/node-<ID>]"),
        )
        .arg(
            Arg::new("rebuild")
                .long("rebuild")
                .action(ArgAction::SetTrue)
                .conflicts_with_all(["inspect", "check", "restore"])
                .help("Starts with an empty data directory, and gets everything from the other nodes"),
        )
        .arg(
            Arg::new("restore")
                .long("restore")
                .value_name("FILE")
                .value_parser(clap::value_parser!(PathBuf))
                .conflicts_with_all(["inspect", "check"])
                .help("Begins a new cluster with the state of a backup; for every node of it, each once"),
        )
        .arg(
            Arg::new("log")
                .long("log")
                .value_name("LEVEL")
                .default_value("info")
                .value_parser(["off", "error", "warn", "info", "debug", "trace"])
                .help("How much is logged on standard error"),
        );
    Settings::NAMES.iter().fold(command, |command, name| {
        let help = format!("Wins over `set {name}` in the file");
        command.arg(Arg::new(*name).long(*name).value_name("VALUE").help(help))
    })
}

fn run(matches: &ArgMatches) -> Result<(), (u8, String)> {
    if let Some(directory) = matches.get_one::<PathBuf>("inspect") {
        return inspect(directory);
    }
    let words: Vec<&String> = matches.get_many("positional").into_iter().flatten().collect();
    if matches.get_flag("check") {
        let [file] = words[..] else {
            return Err((USAGE, "--check takes the configuration file and nothing else".to_owned()));
        };
        let config = read_config(file, matches)?;
        println!("{file}: ok, {} nodes", config.members().len());
        return Ok(());
    }
    let [id, file] = words[..] else {
        return Err((USAGE, "expected the node's id and the configuration file; see --help".to_owned()));
    };
    let id = id
        .parse()
        .ok()
        .and_then(NodeId::new)
        .ok_or_else(|| (USAGE, format!("found \"{id}\", expected a node id from 0 to 63")))?;
    let config = read_config(file, matches)?;
    if config.member(id).is_none() {
        return Err((USAGE, format!("{file}: there is no node {}", id.get())));
    }
    let data_dir = match matches.get_one::<PathBuf>("data-dir") {
        Some(directory) => directory.clone(),
        None => PathBuf::from(format!("kvdata/node-{}", id.get())),
    };
    start_logger(matches)?;
    let rebuild = matches.get_flag("rebuild");
    if rebuild {
        maintenance::prepare_rebuild(&config, id, &data_dir)
            .map_err(|error| (error.exit_code(), error.to_string()))?;
    }
    if let Some(backup) = matches.get_one::<PathBuf>("restore") {
        maintenance::restore_backup(&config, id, &data_dir, backup, net::new_disk_id())
            .map_err(|error| (error.exit_code(), error.to_string()))?;
    }
    net::run(NodeOptions { id, config, data_dir, rebuild })
        .map_err(|error| (error.exit_code(), error.to_string()))
}

fn inspect(directory: &Path) -> Result<(), (u8, String)> {
    if !directory.is_dir() {
        return Err((USAGE, format!("{} is no directory", directory.display())));
    }
    let inspection = Inspection::of(directory).map_err(|error| (DISK, error.to_string()))?;
    let written = std::io::stdout().lock().write_all(inspection.to_string().as_bytes());
    written.map_err(|error| (1, format!("cannot print: {error}")))?;
    match inspection.damage().first() {
        None => Ok(()),
        Some(first) => Err((DAMAGED, first.clone())),
    }
}

fn read_config(file: &str, matches: &ArgMatches) -> Result<Config, (u8, String)> {
    let bytes = std::fs::read(file).map_err(|error| (USAGE, format!("cannot read {file}: {error}")))?;
    let mut config = Config::parse_bytes(file, &bytes).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        (USAGE, lines.join("\n"))
    })?;
    for name in Settings::NAMES {
        if let Some(value) = matches.get_one::<String>(name) {
            let refuse = |fault| (USAGE, format!("--{name}: {fault}"));
            config.settings.set(name, value).map_err(refuse)?;
        }
    }
    config.settings.check().map_err(|fault| (USAGE, fault.to_string()))?;
    Ok(config)
}

fn start_logger(matches: &ArgMatches) -> Result<(), (u8, String)> {
    let level = matches.get_one::<String>("log").and_then(|level| level.parse().ok());
    simple_logger::SimpleLogger::new()
        .with_level(level.unwrap_or(LevelFilter::Info))
        .with_utc_timestamps()
        .init()
        .map_err(|error| (1, format!("cannot start logging: {error}")))
}
