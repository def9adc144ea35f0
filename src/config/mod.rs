//! `nodes.conf`: who the members are, and the settings they share.
//!
//! The same file is given to every node and to the client. A member has one line, a setting has one
//! line, `#` begins a comment:
//!
//! ```text
//! # id   address            options
//! 0      127.0.0.1:7100
//! 1      127.0.0.1:7101     http=127.0.0.1:8101
//! 2      [::1]:7102         peer=[::1]:9102 cluster=[::1]:6102
//!
//! set suspicion-timeout 300ms
//! ```
//!
//! [`Config::parse`] is a pure function of the text. It reads the whole file before it answers, so that
//! all mistakes are reported at once, each with its line, what was found there and what was expected.
//! Nothing is resolved: a host name stays a name, and two names of one machine count as two addresses.
//!
//! Left out on purpose: reading the file (the programs do that), and any notion of which member is
//! oneself (`kvnode` is told its id).

mod address;
mod error;
mod settings;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use xxhash_rust::xxh3::Xxh3;

use crate::types::NodeId;

pub use address::Address;
pub use error::{ConfigError, Fault};
pub use settings::{Settings, SyncPolicy, duration};

/// A parsed `nodes.conf`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    members: Vec<Member>,
    /// The cluster-wide settings; a command-line flag of the same name wins, by [`Settings::set`].
    pub settings: Settings,
}

/// One node's line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its number.
    pub id: NodeId,
    /// Where clients of every dialect reach it, and peers too unless `peer` says otherwise.
    pub address: Address,
    /// A listener for peers alone; `None`: peers use `address`.
    pub peer: Option<Address>,
    /// The read-only page and the metrics; `None`: not served.
    pub http: Option<Address>,
    /// A listener for Redis clients in cluster mode; `None`: there is none but `address`.
    pub cluster: Option<Address>,
}

impl Member {
    /// Where the other nodes reach it.
    pub fn peer_address(&self) -> &Address {
        self.peer.as_ref().unwrap_or(&self.address)
    }
}

impl Config {
    /// Reads the text of the file called `name`; the name only appears in errors.
    ///
    /// # Errors
    /// Every mistake of the file, in the order of its lines.
    pub fn parse(name: &str, text: &str) -> Result<Config, Vec<ConfigError>> {
        let mut parser = Parser::default();
        let mut line_number = 0;
        // Editors of some systems put a byte order mark in front.
        for line in text.strip_prefix('\u{feff}').unwrap_or(text).lines() {
            line_number += 1;
            parser.line(line_number, line);
        }
        let mut faults = parser.faults;
        if parser.members.is_empty() && faults.is_empty() {
            faults.push((line_number.max(1), Fault::NoMembers));
        }
        // Blamed on the later of the two lines, unless one of them is in error by itself.
        let pair = ["heartbeat", "suspicion-timeout"].map(|name| parser.setting_lines.get(name).copied());
        if let Some(line) = pair[0].max(pair[1])
            && !faults.iter().any(|(faulty, _)| pair.contains(&Some(*faulty)))
            && let Err(fault) = parser.settings.check()
        {
            faults.push((line, fault));
        }
        if faults.is_empty() {
            let members = parser.members.into_values().map(|(_, member)| member).collect();
            return Ok(Config { members, settings: parser.settings });
        }
        faults.sort_by_key(|(line, _)| *line);
        let error = |(line, fault)| ConfigError { file: name.to_owned(), line, fault };
        Err(faults.into_iter().map(error).collect())
    }

    /// Reads the bytes of the file called `name`.
    ///
    /// # Errors
    /// As [`Config::parse`]; bytes that are no UTF-8 are reported with their line.
    pub fn parse_bytes(name: &str, bytes: &[u8]) -> Result<Config, Vec<ConfigError>> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Config::parse(name, text),
            Err(error) => {
                let good = &bytes[..error.valid_up_to()];
                let line =
                    1 + u32::try_from(good.iter().filter(|b| **b == b'\n').count()).unwrap_or(u32::MAX - 1);
                let fault = Fault::NotUtf8 { found: bytes[error.valid_up_to()] };
                Err(vec![ConfigError { file: name.to_owned(), line, fault }])
            }
        }
    }

    /// The members by rising id; never empty.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The member with this id.
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    /// A fingerprint of the ids and addresses. Peers compare it before the cluster is founded, so that two
    /// nodes with different files do not found two different clusters. Settings, options, comments and the
    /// order of the lines do not change it.
    pub fn member_hash(&self) -> u64 {
        let mut hash = Xxh3::new();
        for member in &self.members {
            let address = member.address.canonical();
            hash.update(&[member.id.get()]);
            hash.update(&(address.len() as u64).to_le_bytes());
            hash.update(address.as_bytes());
        }
        hash.digest()
    }
}

/// What has been read so far.
#[derive(Default)]
struct Parser {
    members: BTreeMap<NodeId, (u32, Member)>,
    /// Every address in use, in canonical form, with the line of its first use.
    addresses: BTreeMap<String, u32>,
    settings: Settings,
    setting_lines: BTreeMap<String, u32>,
    faults: Vec<(u32, Fault)>,
}

impl Parser {
    fn line(&mut self, number: u32, line: &str) {
        let content = line.split('#').next().unwrap_or("");
        let mut words = content.split_ascii_whitespace();
        let result = match words.next() {
            None => return,
            Some("set") => self.setting(number, words),
            Some(id) => self.member(number, id, words),
        };
        if let Err(fault) = result {
            self.faults.push((number, fault));
        }
    }

    fn setting<'a>(&mut self, number: u32, mut words: impl Iterator<Item = &'a str>) -> Result<(), Fault> {
        let name = words.next().ok_or(Fault::Missing { expected: "the name of a setting" })?;
        if !Settings::NAMES.contains(&name) {
            return Err(Fault::UnknownSetting { found: name.to_owned() });
        }
        if let Some(first) = self.setting_lines.get(name) {
            return Err(Fault::DuplicateSetting { found: name.to_owned(), first: *first });
        }
        self.setting_lines.insert(name.to_owned(), number);
        let value = words.next().ok_or(Fault::Missing { expected: "the value of the setting" })?;
        if let Some(found) = words.next() {
            return Err(Fault::Trailing { found: found.to_owned() });
        }
        self.settings.set(name, value)
    }

    fn member<'a>(
        &mut self,
        number: u32,
        id: &str,
        mut words: impl Iterator<Item = &'a str>,
    ) -> Result<(), Fault> {
        let id = node_id(id)?;
        if let Some((first, _)) = self.members.get(&id) {
            return Err(Fault::DuplicateId { found: id, first: *first });
        }
        let address = words.next().ok_or(Fault::Missing { expected: "the node's host:port" })?;
        let address = self.address(number, address)?;
        let mut member = Member { id, address, peer: None, http: None, cluster: None };
        for word in words {
            let Some((name, value)) = word.split_once('=') else {
                return Err(Fault::Trailing { found: word.to_owned() });
            };
            let slot = match name {
                "peer" => &mut member.peer,
                "http" => &mut member.http,
                "cluster" => &mut member.cluster,
                _ => return Err(Fault::UnknownOption { found: name.to_owned() }),
            };
            if slot.is_some() {
                return Err(Fault::DuplicateOption { found: name.to_owned() });
            }
            *slot = Some(self.address(number, value)?);
        }
        self.members.insert(id, (number, member));
        Ok(())
    }

    /// Reads an address and takes it: no two listeners of a cluster may have the same.
    fn address(&mut self, number: u32, text: &str) -> Result<Address, Fault> {
        let address = Address::parse(text)?;
        if let Some(first) = self.addresses.get(&address.canonical()) {
            return Err(Fault::DuplicateAddress { found: text.to_owned(), first: *first });
        }
        self.addresses.insert(address.canonical(), number);
        Ok(address)
    }
}

fn node_id(text: &str) -> Result<NodeId, Fault> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    let id = if plain { text.parse().ok().and_then(NodeId::new) } else { None };
    id.ok_or_else(|| Fault::NodeId { found: text.to_owned() })
}
