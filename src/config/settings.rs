//! The cluster-wide settings: names, defaults, ranges, and how their values are written.

use crate::types::{Millis, limits};

use super::Fault;

/// The settings of a cluster. `set NAME VALUE` in the file and `--NAME VALUE` on a command line both go
/// through [`Settings::set`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// `suspicion-timeout`: a peer silent for so long is suspected. 30 ms to 10 minutes.
    pub suspicion_timeout: Millis,
    /// `heartbeat`: a node with nothing to say says so this often. 1 ms to 1 minute.
    pub heartbeat: Millis,
    /// `client-timeout`: a command not delivered within it is answered `TIMEOUT`. 10 ms to 1 hour.
    pub client_timeout: Millis,
    /// `value-max`: longest value, in bytes. 1 to [`limits::VALUE_LEN_CEILING`].
    pub value_len_max: usize,
    /// `sync`: when the log is forced to disk.
    pub sync: SyncPolicy,
    /// `sync-interval`: how often, with `sync interval`. 1 ms to 1 minute.
    pub sync_interval: Millis,
    /// `max-clients`: most client connections of one node; more are answered `BUSY`. 1 to 1,000,000.
    pub clients_max: usize,
    /// `window`: most bytes of its clients' commands that a node has in flight. 64 KiB to 1 GiB.
    pub window_len: usize,
    /// `snapshot-log`: after so many bytes of log, and more if the last one is long, a snapshot is taken. 64 KiB to
    /// 1 TiB.
    pub snapshot_log_len: usize,
    /// `history`: most bytes of delivered commands that a node keeps in memory for others that missed them. 0 to
    /// 64 GiB.
    pub history_len: usize,
    /// `cluster-view`: whether Redis clients in cluster mode are shown a cluster whose slots the nodes share.
    pub cluster_view: bool,
}

/// When the log is forced to disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SyncPolicy {
    /// Before anything is said that rests on it.
    #[default]
    Always,
    /// Every `sync-interval`; a power cut of a majority may lose that much.
    Interval,
    /// When the operating system likes.
    Never,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            suspicion_timeout: Millis(300),
            heartbeat: Millis(50),
            client_timeout: Millis(5_000),
            value_len_max: limits::VALUE_LEN_MAX,
            sync: SyncPolicy::Always,
            sync_interval: Millis(100),
            clients_max: 10_000,
            window_len: 64 << 20,
            snapshot_log_len: 64 << 20,
            history_len: 32 << 20,
            cluster_view: false,
        }
    }
}

impl Settings {
    /// Every name that [`Settings::set`] knows.
    pub const NAMES: [&'static str; 11] = [
        "suspicion-timeout",
        "heartbeat",
        "client-timeout",
        "value-max",
        "sync",
        "sync-interval",
        "max-clients",
        "window",
        "snapshot-log",
        "history",
        "cluster-view",
    ];

    /// Gives the setting `name` the value written in `value`.
    ///
    /// # Errors
    /// An unknown name, or a value outside the setting's range; nothing changes then.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), Fault> {
        const MINUTE: u64 = 60_000;
        match name {
            "suspicion-timeout" => {
                self.suspicion_timeout = ranged_duration("suspicion-timeout", value, 30, 10 * MINUTE)?;
            }
            "heartbeat" => self.heartbeat = ranged_duration("heartbeat", value, 1, MINUTE)?,
            "client-timeout" => {
                self.client_timeout = ranged_duration("client-timeout", value, 10, 60 * MINUTE)?;
            }
            "value-max" => {
                self.value_len_max = ranged_size("value-max", value, 1, limits::VALUE_LEN_CEILING)?;
            }
            "sync" => {
                self.sync = match value {
                    "always" => SyncPolicy::Always,
                    "interval" => SyncPolicy::Interval,
                    "never" => SyncPolicy::Never,
                    _ => return Err(bad_value("sync", value, "always, interval or never".to_owned())),
                };
            }
            "sync-interval" => self.sync_interval = ranged_duration("sync-interval", value, 1, MINUTE)?,
            "max-clients" => {
                let expected = || bad_value("max-clients", value, "a number from 1 to 1000000".to_owned());
                let count = digits(value).and_then(|n| usize::try_from(n).ok()).ok_or_else(expected)?;
                self.clients_max =
                    Some(count).filter(|n| (1..=1_000_000).contains(n)).ok_or_else(expected)?;
            }
            "window" => self.window_len = ranged_size("window", value, 64 << 10, 1 << 30)?,
            "snapshot-log" => {
                self.snapshot_log_len = ranged_size("snapshot-log", value, 64 << 10, 1 << 40)?;
            }
            "history" => self.history_len = ranged_size("history", value, 0, 64 << 30)?,
            "cluster-view" => {
                self.cluster_view = match value {
                    "yes" => true,
                    "no" => false,
                    _ => return Err(bad_value("cluster-view", value, "yes or no".to_owned())),
                };
            }
            _ => return Err(Fault::UnknownSetting { found: name.to_owned() }),
        }
        Ok(())
    }

    /// Looks at settings that have to fit each other; to be called again after flags were applied.
    ///
    /// # Errors
    /// Three heartbeats do not fit into the suspicion time-out.
    pub fn check(&self) -> Result<(), Fault> {
        if self.heartbeat.times(3) > self.suspicion_timeout {
            return Err(Fault::Heartbeat { heartbeat: self.heartbeat, suspicion: self.suspicion_timeout });
        }
        Ok(())
    }
}

/// Reads a length of time: digits and one of `ms`, `s`, `m`, `h`. `None` if it is none.
pub fn duration(text: &str) -> Option<Millis> {
    let (number, unit) = split_unit(text)?;
    let factor = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(factor).map(Millis)
}

/// Reads a size in bytes: digits and nothing, `B`, `KiB`, `MiB` or `GiB`.
fn size(text: &str) -> Option<usize> {
    let (number, unit) = split_unit(text)?;
    let factor = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    usize::try_from(number.checked_mul(factor)?).ok()
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((digits(number)?, unit))
}

/// A number without sign; `str::parse` would take `+5` as well.
fn digits(text: &str) -> Option<u64> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn ranged_duration(name: &'static str, value: &str, min: u64, max: u64) -> Result<Millis, Fault> {
    match duration(value) {
        Some(length) if (min..=max).contains(&length.0) => Ok(length),
        _ => {
            let expected = format!("a duration from {min}ms to {}s, such as 300ms, 2s or 1m", max / 1_000);
            Err(bad_value(name, value, expected))
        }
    }
}

fn ranged_size(name: &'static str, value: &str, min: usize, max: usize) -> Result<usize, Fault> {
    match size(value) {
        Some(len) if (min..=max).contains(&len) => Ok(len),
        _ => {
            let expected = format!("a size from {min} to {max} bytes, such as 64MiB, 512KiB or 65536");
            Err(bad_value(name, value, expected))
        }
    }
}

fn bad_value(name: &'static str, found: &str, expected: String) -> Fault {
    Fault::Value { name, found: found.to_owned(), expected }
}
