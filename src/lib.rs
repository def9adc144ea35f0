//! lanekv: a replicated key-value store in which any node takes any write.
//!
//! Writes are put into one total order by Lamport timestamps, a priority queue and a majority
//! vote (total-order multicast), and are durable on a majority of nodes before they are
//! acknowledged. There is no leader. `docs/protocol.md` is the design, `docs/architecture.md`
//! the map of this source.
//!
//! The modules stand on each other in this order; a module uses only those above it:
//!
//! | module | is |
//! |---|---|
//! | [`types`] | the nouns: ids, timestamps, positions, entries, replies, limits |
//! | [`linearizability`] | the checker for histories of clients |
//! | [`wire`] | frames, checked cursors, batches |
//! | [`config`] | `nodes.conf` |
//! | [`protocol`] | the replication core, pure and deterministic |
//! | [`store`] | the key-value state machine |
//! | [`dialect`] | text, RESP and binary: bytes to requests, replies to bytes |
//! | [`storage`] | the log on disk and the data directory |
//! | [`node`] | one turn of a node: core, log, store and clients, without sockets |
//! | [`net`] | the event loop: the only clock, sockets and threads |
//! | [`client`] | the client library behind `kvclient` |
//! | [`maintenance`] | what an operator does with a data directory: rebuild, restore |
//! | [`sim`] | the deterministic simulator around [`node`] |
//! | [`chaos`] | real processes, broken on purpose, and the checks of what their clients saw |
//! | [`bench`] | load on lanekv and on what it is compared with, measured |
//!
//! [`bench`]: mod@bench

pub mod bench;
pub mod chaos;
pub mod client;
pub mod config;
pub mod dialect;
pub mod linearizability;
pub mod maintenance;
pub mod net;
pub mod node;
pub mod protocol;
pub mod sim;
pub mod storage;
pub mod store;
pub mod types;
pub mod wire;
