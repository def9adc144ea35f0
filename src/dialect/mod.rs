//! Client dialects.
