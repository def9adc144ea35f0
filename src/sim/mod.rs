//! The deterministic simulator: a whole cluster in one thread, in virtual time, with every fault drawn from a seed.
//!
//! The nodes run the code that real nodes run; disks, networks, clocks and clients are models. The same
//! seed gives the same run, event by event, so a failure is reproduced by its number. What must hold is
//! checked outside the nodes, by checkers that remember across restarts.

mod asking;
mod checker;
mod client;
mod faults;
mod machine;
mod plan;
mod random;
mod world;

pub use checker::Violation;
pub use plan::Plan;
pub(crate) use random::Random;
pub use world::{Outcome, run};
