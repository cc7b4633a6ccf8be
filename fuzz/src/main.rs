//! The engine, which looks for inputs that lead through new ways of the code: libFuzzer, by `fuzz/run`.
//!
//! `FUZZ_TARGET` names what is tried. It is one program for all, because the flags that it needs have everything
//! compiled anew. Nothing else is built with it, and it keeps nothing itself.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();

fuzz_target!(|input: &[u8]| {
    let target = TARGET.get_or_init(|| fuzz::target(&std::env::var("FUZZ_TARGET").unwrap_or_default()));
    target(input);
});
