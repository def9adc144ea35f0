//! One turn of a node.
