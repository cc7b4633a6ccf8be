//! What holds of every input to the front door's parsers: the guard on framing, hosts, paths, the table of routes.
//!
//! Each target is a function of bytes that fails where something does not hold. libFuzzer looks for inputs (`fuzz/run`,
//! a part of `make soak`); those that led through new ways of the code are kept in `fuzz/corpus`, and every test run
//! tries them again. It is no part of what ships.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a target fails where something does not hold"
)]

mod framing;
mod host;
mod path;
mod table;

use hearth_core::Domains;

/// Fails where something does not hold of an input.
pub type Target = fn(&[u8]);

/// What can be tried, by name.
pub const TARGETS: [(&str, Target); 4] =
    [("framing", framing::target), ("host", host::target), ("path", path::target), ("table", table::target)];

/// The target of this name.
pub fn target(name: &str) -> Target {
    TARGETS.iter().find(|(found, _)| *found == name).expect("FUZZ_TARGET names none of the targets").1
}

/// Two domains, of which one lies below the other, and a legacy host below both.
fn domains() -> Domains {
    let public = ["hearth.example", "inner.hearth.example"].map(|domain| domain.parse().unwrap()).to_vec();
    Domains { public, legacy: "old.inner.hearth.example".parse().unwrap() }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::TARGETS;

    /// Fewer inputs than this are not all that were kept.
    const FEWEST: usize = 20;

    #[test]
    fn what_was_found_before_holds() {
        for (name, target) in TARGETS {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
            let inputs: Vec<Vec<u8>> =
                folder.read_dir().unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect();
            assert!(inputs.len() >= FEWEST, "{name} has {} inputs", inputs.len());
            for input in &inputs {
                target(input);
                // What is cut off must hold as well, and so must two of them in a row.
                for length in 0..input.len().min(64) {
                    target(&input[..length]);
                }
                target(&[input.as_slice(), &inputs[0]].concat());
            }
        }
    }
}
