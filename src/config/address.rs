//! `host:port` as it stands in the configuration.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Fault;

/// A host name or IP address with a port; nothing has been resolved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address {
    host: String,
    port: u16,
}

impl Address {
    /// Reads `name:port`, `1.2.3.4:port` or `[v6]:port`.
    ///
    /// # Errors
    /// No such form, a host that nobody could connect to, a port outside 1 to 65535.
    pub fn parse(text: &str) -> Result<Address, Fault> {
        let malformed = || Fault::Address { found: text.to_owned() };
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']').ok_or_else(malformed)?;
            let port = rest.strip_prefix(':').ok_or_else(malformed)?;
            check_v6(host)?;
            (host, port)
        } else {
            let (host, port) = text.split_once(':').ok_or_else(malformed)?;
            // More than one colon: an IPv6 address without its brackets.
            if host.is_empty() || port.contains(':') {
                return Err(malformed());
            }
            check_name_or_v4(host)?;
            (host, port)
        };
        let digits = !port.starts_with('0') && port.bytes().all(|b| b.is_ascii_digit());
        match port.parse::<u16>() {
            Ok(port) if digits => Ok(Address { host: host.to_owned(), port }),
            _ => Err(Fault::Port { found: port.to_owned() }),
        }
    }

    /// The host as given, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// One spelling for all spellings of the same address: names in lower case and without the final dot,
    /// IPv6 shortened.
    pub fn canonical(&self) -> String {
        let host = match self.host.parse::<IpAddr>() {
            Ok(ip) => ip.to_string(),
            Err(_) => self.host.trim_end_matches('.').to_ascii_lowercase(),
        };
        Address { host, port: self.port }.to_string()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

fn check_v6(host: &str) -> Result<(), Fault> {
    let fault = |expected| Err(Fault::Host { found: host.to_owned(), expected });
    match host.parse::<Ipv6Addr>() {
        Err(_) => fault("an IPv6 address between the brackets"),
        Ok(ip) if ip.is_unspecified() || ip.is_multicast() => fault("an address that others can connect to"),
        Ok(_) => Ok(()),
    }
}

fn check_name_or_v4(host: &str) -> Result<(), Fault> {
    let fault = |expected| Err(Fault::Host { found: host.to_owned(), expected });
    // A name whose last part is a number would be taken for an address by every resolver.
    let name = host.strip_suffix('.').unwrap_or(host);
    if name.rsplit('.').next().is_some_and(|part| part.bytes().all(|b| b.is_ascii_digit())) {
        return match host.parse::<Ipv4Addr>() {
            Err(_) => fault("an IPv4 address such as 192.0.2.1, or a host name"),
            Ok(ip) if ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast() => {
                fault("an address that others can connect to")
            }
            Ok(_) => Ok(()),
        };
    }
    let label = |part: &str| {
        (1..=63).contains(&part.len())
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    if name.len() <= 253 && name.split('.').all(label) {
        return Ok(());
    }
    fault("a host name of letters, digits, hyphens and dots")
}
