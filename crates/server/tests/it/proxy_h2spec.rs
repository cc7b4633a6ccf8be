//! h2spec's cases for HTTP/2 and HPACK, all of them, against the front door over TLS.
//!
//! What h2spec asks for has no user agent and names an address, so it is the front door that answers; the cases are
//! about frames, windows, states and fields, not about tools.

#![expect(clippy::print_stderr, reason = "what h2spec has found is to be read in the test's output")]

use std::path::PathBuf;

use tokio::process::Command;

use crate::proxy_front::{Front, Pod};

/// How many cases there are: fewer would mean that some were not run.
const CASES: usize = 146;

#[tokio::test]
async fn every_case_of_h2spec_passes() {
    let cache = std::env::var_os("HEARTH_CACHE").map_or_else(|| PathBuf::from("/var/cache/hearth"), PathBuf::from);
    let program = cache.join("bin/h2spec");
    assert!(program.exists(), "{} is missing; `make test` builds it", program.display());
    let a = Pod::echo("a").await;
    let front = Front::start(&[("a", &[a.address])]).await;
    let port = front.https.port().to_string();
    // It waits so many seconds for what has to come; on a busy machine that may take a while.
    let fixed = ["--host", "127.0.0.1", "--tls", "--insecure", "--strict", "--timeout", "10", "--port"];
    let output = Command::new(program).args(fixed).arg(port).output().await.unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    eprintln!("{told}{}", String::from_utf8_lossy(&output.stderr));
    let sum = format!("{CASES} tests, {CASES} passed, 0 skipped, 0 failed");
    assert!(output.status.success() && told.contains(&sum), "not all cases of h2spec pass: {sum} was expected");
}
