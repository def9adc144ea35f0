//! Free loopback ports that stay free.
//!
//! A port from `bind(0)` lies in the range from which the kernel also takes the source ports of outgoing
//! connections, so a node that is killed might find its port taken when it comes back. The blocks here lie below that
//! range, and the first port of a block is kept bound while the block is in use, so that programs running side by
//! side keep out of each other's way.

use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// Ports in one block, the guard not counted.
pub const BLOCK_LEN: u16 = 15;
const FIRST: u16 = 11_000;
const BLOCKS: u16 = 1_200;

/// Fifteen neighbouring ports.
#[derive(Debug)]
pub struct PortBlock {
    _guard: TcpListener,
    ports: Vec<u16>,
}

impl PortBlock {
    /// A block of which no port is in use.
    ///
    /// # Errors
    /// There is none.
    pub fn take() -> io::Result<PortBlock> {
        let start = std::process::id() % u32::from(BLOCKS);
        for step in 0..u32::from(BLOCKS) {
            let block = u16::try_from((start + step) % u32::from(BLOCKS)).expect("below BLOCKS");
            let base = FIRST + block * (BLOCK_LEN + 1);
            let Ok(guard) = TcpListener::bind((Ipv4Addr::LOCALHOST, base)) else { continue };
            let ports: Vec<u16> = (base + 1..=base + BLOCK_LEN).collect();
            // Bound on all addresses: nobody has the port on any of them.
            if ports.iter().all(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok()) {
                return Ok(PortBlock { _guard: guard, ports });
            }
        }
        let text = format!("no {BLOCK_LEN} free neighbouring ports from {FIRST} on");
        Err(io::Error::new(io::ErrorKind::AddrInUse, text))
    }

    /// The port of this number within the block.
    ///
    /// # Panics
    /// The block has no more than [`BLOCK_LEN`].
    pub fn port(&self, number: usize) -> u16 {
        self.ports[number]
    }
}
