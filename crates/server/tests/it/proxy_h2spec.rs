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

/// How often what failed is tried again. h2spec can ask for no tool, so that what it asks for is refused at once; where the
/// answer is complete before the fault of a case comes, there is nothing left for the fault to break, and the case fails.
const AGAIN: usize = 20;

#[tokio::test]
async fn every_case_of_h2spec_passes() {
    let a = Pod::echo("a").await;
    let front = Front::start(&[("a", &[a.address])]).await;
    let port = front.https.port().to_string();
    // It waits so many seconds for what has to come; on a busy machine that may take a while.
    let (_, told) = h2spec(&port, "10", &[]).await;
    assert!(told.contains(&format!("{CASES} tests, ")), "not all cases were run: {told}");
    let mut failed = failures(&told);
    assert_eq!(told.contains(" 0 failed"), failed.is_empty(), "{told}");
    for _ in 0..AGAIN {
        if failed.is_empty() {
            return;
        }
        let (passed, told) = h2spec(&port, "2", &failed).await;
        failed = if passed { Vec::new() } else { failures(&told) };
        assert!(passed || !failed.is_empty(), "{told}");
    }
    panic!("these cases of h2spec never pass: {failed:?}");
}

/// Runs these cases, or all. Returns whether all passed, and what it printed.
async fn h2spec(port: &str, timeout: &str, cases: &[String]) -> (bool, String) {
    let cache = std::env::var_os("HEARTH_CACHE").map_or_else(|| PathBuf::from("/var/cache/hearth"), PathBuf::from);
    let program = cache.join("bin/h2spec");
    assert!(program.exists(), "{} is missing; `make test` builds it", program.display());
    let fixed = ["--host", "127.0.0.1", "--tls", "--insecure", "--strict", "--port", port, "--timeout", timeout];
    let output = Command::new(program).args(fixed).args(cases).output().await.unwrap();
    let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    eprintln!("{told}");
    (output.status.success(), told)
}

/// The cases that failed, as h2spec is asked for them: `http2/5.1/9`.
fn failures(told: &str) -> Vec<String> {
    let (mut group, mut section, mut failed) = ("generic", String::new(), Vec::new());
    for line in told.split("Failures:").nth(1).unwrap_or_default().lines().map(str::trim) {
        match line.split_once(' ') {
            _ if line.starts_with("Hypertext") => group = "http2",
            _ if line.starts_with("HPACK") => group = "hpack",
            Some(("×", case)) => {
                let number = case.split(':').next().unwrap_or_default();
                failed.push(format!("{group}/{section}/{number}"));
            }
            Some((number, _)) if number.ends_with('.') && number.starts_with(|c: char| c.is_ascii_digit()) => {
                section = number.trim_end_matches('.').to_owned();
            }
            _ => (),
        }
    }
    failed
}
