//! Whom to drive.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;

use crate::config::{Address, Config};

use super::BenchError;
use super::error::system;

/// One server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// As it was given.
    pub name: String,
    /// Where it is.
    pub address: SocketAddr,
}

/// The servers that the words of a command line name: each is `host:port`, or a file with the members of a cluster,
/// of which `only` leaves those with the listed ids.
///
/// # Errors
/// A word that is neither, an id that no file has, a name that cannot be resolved.
pub fn targets(words: &[String], only: &[u8]) -> Result<Vec<Target>, BenchError> {
    let mut found = Vec::new();
    let mut seen = Vec::new();
    for word in words {
        if !Path::new(word).exists() {
            let address = Address::parse(word).map_err(|fault| {
                BenchError::Usage(format!("{word} is neither a file nor an address: {fault}"))
            })?;
            found.push(resolve(&address)?);
            continue;
        }
        let bytes = std::fs::read(word).map_err(system(format!("read {word}")))?;
        let config = Config::parse_bytes(word, &bytes).map_err(|errors| {
            let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
            BenchError::Usage(lines.join("\n"))
        })?;
        for member in config.members() {
            seen.push(member.id.get());
            if only.is_empty() || only.contains(&member.id.get()) {
                found.push(resolve(&member.address)?);
            }
        }
    }
    if let Some(missing) = only.iter().find(|id| !seen.contains(id)) {
        return Err(BenchError::Usage(format!("--node: no file has a node {missing}")));
    }
    if found.is_empty() {
        return Err(BenchError::Usage("expected a nodes.conf or host:port".to_owned()));
    }
    Ok(found)
}

fn resolve(address: &Address) -> Result<Target, BenchError> {
    let name = address.to_string();
    let mut resolved = (address.host(), address.port())
        .to_socket_addrs()
        .map_err(|error| BenchError::Unreachable { address: name.clone(), error })?;
    let Some(address) = resolved.next() else {
        return Err(BenchError::Usage(format!("{name} has no address")));
    };
    Ok(Target { name, address })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_addresses_may_be_mixed() {
        let conf = concat!(env!("CARGO_MANIFEST_DIR"), "/nodes.conf").to_owned();
        let found = targets(&[conf.clone(), "127.0.0.1:9".to_owned()], &[]).expect("both exist");
        let names: Vec<&str> = found.iter().map(|target| target.name.as_str()).collect();
        assert_eq!(names, ["127.0.0.1:7100", "127.0.0.1:7101", "127.0.0.1:7102", "127.0.0.1:9"]);
        let one = targets(std::slice::from_ref(&conf), &[2]).expect("node 2 exists");
        assert_eq!(one[0].name, "127.0.0.1:7102");
        for (words, only) in [(vec![conf], vec![7]), (vec!["nowhere".to_owned()], vec![]), (vec![], vec![])] {
            assert!(matches!(targets(&words, &only), Err(BenchError::Usage(_))), "{words:?}");
        }
    }
}
