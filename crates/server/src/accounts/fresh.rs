//! Random values and digests, from the one provider of cryptography.

use anyhow::anyhow;
use aws_lc_rs::{digest, rand};
use hearth_core::account::plan::{Fresh, Password};
use hearth_core::account::subject::Epoch;

/// Random values of the system, drawn ahead: a plan cannot fail, drawing can.
#[derive(Debug)]
pub(super) struct Random;

impl Fresh for Random {
    fn epoch(&mut self) -> Epoch {
        Epoch::of(bytes())
    }

    fn password(&mut self) -> Password {
        let text = Epoch::of(bytes()).to_string();
        let sha256 = sha256_hex(text.as_bytes());
        Password { text, sha256 }
    }
}

/// A random word for the end of a name, of lower-case letters and digits.
pub(super) fn suffix() -> String {
    Epoch::of(bytes()).as_str().chars().take(10).collect()
}

/// SHA-256 in lower-case hexadecimal.
pub(super) fn sha256_hex(data: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, data);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[expect(clippy::panic, reason = "without random values no epoch or password may be made, so the role must stop")]
fn bytes() -> [u8; 16] {
    let mut bytes = [0; 16];
    match rand::fill(&mut bytes).map_err(|_| anyhow!("the system has no random values")) {
        Ok(()) => bytes,
        Err(error) => panic!("{error}"),
    }
}
