//! The deterministic simulator: a whole cluster in one thread, in virtual time, with every fault drawn from a seed.
//!
//! The nodes run the code that real nodes run; disks, networks, clocks and clients are models. The same
//! seed gives the same run, event by event, so a failure is reproduced by its number. What must hold is
//! checked outside the nodes, by checkers that remember across restarts. `docs/testing.md` has the faults
//! and the figures.
//!
//! | part | is |
//! |---|---|
//! | `plan` | what a seed draws: the cluster, the load, which faults are on |
//! | `world`, `queue` | virtual time, the run's three parts, when it is over |
//! | `host`, `machine` | processes and disks |
//! | `network` | byte streams between nodes |
//! | `faults` | the storm, and the calm after it |
//! | `client`, `clients`, `history` | what clients ask, when, and what they were answered |
//! | `checker`, `invariants` | what must hold |
//! | `sights` | which faults struck, counted |

mod checker;
mod client;
mod clients;
mod faults;
mod history;
mod host;
mod invariants;
mod machine;
mod network;
mod plan;
mod queue;
mod random;
mod sights;
mod slow;
mod world;

pub use checker::Violation;
pub use plan::{Damage, Faults, Plan, Workload};
pub(crate) use random::Random;
pub use sights::{Sight, Sights};
pub use world::{Outcome, Trace, run, run_unjudged};
