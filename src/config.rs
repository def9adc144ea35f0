//! `nodes.conf`.
