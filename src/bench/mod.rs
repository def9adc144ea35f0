//! A load generator for lanekv and for what it is compared with, behind `kvbench`.
//!
//! One thread and one `mio::Poll` drive all connections, so that the generator takes little of a machine that it
//! shares with the servers. Two kinds of load:
//!
//! - **closed loop**: every connection keeps so many requests under way and sends the next when an answer has come.
//!   It finds the throughput, and its latencies are those of a system that is always full.
//! - **fixed rate**: requests fall due at even intervals whether or not earlier ones have been answered, and a
//!   latency counts from the time when the request *was due*. A server that stops for a second is charged for every
//!   request that should have been sent in it. (Gil Tene calls the opposite *coordinated omission*.)
//!
//! Latencies go into HDR histograms of three digits. A run is: connecting, filling the keys if that is wanted, a
//! warm-up, the measured window, and a short time in which what is under way may end.
//!
//! | part | is |
//! |---|---|
//! | `target` | whom to drive: `nodes.conf` or addresses |
//! | `workload`, `zipf` | which commands on which keys |
//! | `dialect`, `resp`, `binary`, `etcd` | requests to bytes, and what of the replies matters here |
//! | `connection` | a socket, its buffers, what is under way |
//! | `run`, `schedule` | the loop; what is sent when |
//! | `measure`, `cpu` | what is counted |
//! | `report` | tables, JSON, CSV |
//! | `floor` | what this machine can do at best: a loopback round trip, a synced write |
//!
//! Left out on purpose: checking the answers against a history (that is `chaos`), and more than one thread (a second
//! process does it).

mod binary;
mod connection;
mod cpu;
mod dialect;
mod error;
mod etcd;
mod floor;
mod measure;
mod report;
mod resp;
mod run;
mod schedule;
mod target;
mod workload;
mod zipf;

pub use cpu::CpuUse;
pub use dialect::DialectName;
pub use error::BenchError;
pub use floor::{Floor, FloorOptions, measure_floor};
pub use measure::{Interval, Latencies, OperationResult};
pub use report::{floor_json, floor_table, json, table, timeline_csv};
pub use run::{Options, Outcome, Progress, raise_file_limit, run};
pub use target::{Target, targets};
pub use workload::{Distribution, Mix, Operation, Workload};
