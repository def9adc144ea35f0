#![no_main]
#[path = "../bodies/mod.rs"]
#[allow(dead_code, unused_imports, reason = "what a mutator should know is for `tests/fuzz.rs`")]
mod bodies;
libfuzzer_sys::fuzz_target!(|input: &[u8]| bodies::run("snapshot", input));
