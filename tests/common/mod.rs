//! What the process tests share: clusters of real `kvnode` processes on loopback, clients of all three
//! dialects, writers that remember what was acknowledged, and small tools.
//!
//! Every test crate compiles this module for itself and uses a part of it.
#![allow(dead_code, unused_imports, reason = "each test crate uses a part of the harness")]

mod cluster;
mod load;
mod process;
mod resp;
mod text;
mod tools;

pub(crate) use cluster::{Cluster, Layout, own_hosts_work};
pub(crate) use lanekv::chaos::{PortBlock, Proxy};
pub(crate) use load::{Load, Outcome, longest_gap, median};
pub(crate) use process::{Finished, Running, kvclient, kvnode, program};
pub(crate) use resp::{Resp, RespClient, encode_command};
pub(crate) use text::TextClient;
pub(crate) use tools::{Random, TempDir, seed, until};

use std::time::Duration;

/// How long anything may take that normally takes milliseconds. Only a failing test waits so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
