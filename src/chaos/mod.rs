//! Chaos: real `kvnode` processes, broken on purpose, and the checks of what their clients saw.
//!
//! The simulator breaks more things, more often, and repeats itself exactly, but everything below a node is a model
//! there. Here nothing is: the programs as they are shipped, sockets, signals, files and the scheduler of this
//! machine. A run is this:
//!
//! 1. A cluster is founded on loopback, with a proxy in every link ([`cluster`](self), [`Proxy`]).
//! 2. Clients of every dialect ask whatever can be checked, at every node, and write down what they saw.
//! 3. A nemesis carries out the plan that was drawn from the seed ([`plan`]). The storm ends when its time is
//!    over, or as soon as something has happened that must not.
//! 4. Everything is healed. Every node has to serve again in bounded time; all have to come to one state.
//! 5. All keys are read back from every node; all nodes are killed at once and started again, and all keys are read
//!    back once more. The nodes are asked to leave, and must do so without an error.
//! 6. What was seen is judged: linearizable, nothing acknowledged lost, everything once, all nodes equal; and writes
//!    never went without an answer for long while a majority was connected.
//!
//! The same seed draws the same plan and the same clients. How the processes interleave with it differs each time, so a
//! seed that failed may have to be run several times; the nodes' logs, their data, the events and the
//! operations in question are kept.
//!
//! Left out on purpose: power cuts, failing disks and clocks, which take a machine of their own or a simulator.

mod check;
mod clients;
mod cluster;
mod dialects;
mod keys;
mod nemesis;
pub mod plan;
mod ports;
mod proxy;
mod run;
mod summary;
mod timeline;

pub use cluster::NODES_MAX;
pub use plan::Fault;
pub use ports::{BLOCK_LEN, PortBlock};
pub use proxy::{Flips, Mode, Proxy};
pub use run::{Options, run};
pub use summary::Summary;
