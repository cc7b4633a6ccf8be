//! The conditions of an A+ for TLS, by Debian's testssl.sh: TLS 1.2 and 1.3 alone, forward secrecy, no weak ciphers, HSTS
//! for at least 180 days, none of the known holes.
//!
//! The grade also wants a certificate that browsers trust, which an installation brings along. BREACH is left out, since
//! whether answers are compressed is a question of what is served and not of TLS.

#![expect(clippy::print_stderr, reason = "what testssl.sh has found is to be read in the test's output")]

use std::collections::BTreeMap;

use serde_json::Value;
use tokio::process::Command;

use crate::proxy_front::{Front, Pod};

/// What must be found, and how it must be judged or what must be said of it.
const WANTED: &[(&str, &str)] = &[
    ("SSLv2", "OK"),
    ("SSLv3", "OK"),
    ("TLS1", "not offered"),
    ("TLS1_1", "not offered"),
    ("TLS1_2", "OK"),
    ("TLS1_3", "OK"),
    ("ALPN_HTTP2", "OK"),
    ("cipherlist_NULL", "OK"),
    ("cipherlist_aNULL", "OK"),
    ("cipherlist_EXPORT", "OK"),
    ("cipherlist_LOW", "OK"),
    ("cipherlist_3DES_IDEA", "not offered"),
    ("cipherlist_AVERAGE", "not offered"),
    ("cipherlist_STRONG", "OK"),
    ("PFS", "OK"),
    ("HSTS_time", "OK"),
    ("heartbleed", "OK"),
    ("CCS", "OK"),
    ("ticketbleed", "OK"),
    ("ROBOT", "OK"),
    ("secure_renego", "OK"),
    ("secure_client_renego", "OK"),
    ("CRIME_TLS", "OK"),
    ("POODLE_SSL", "OK"),
    ("SWEET32", "OK"),
    ("FREAK", "OK"),
    ("DROWN", "OK"),
    ("LOGJAM", "OK"),
    ("BEAST", "OK"),
    ("LUCKY13", "OK"),
    ("RC4", "OK"),
];

/// What may be judged worse than information: see above, and what is about the openssl of this machine.
const LEFT_OUT: &[&str] = &["BREACH", "engine_problem"];

#[tokio::test]
async fn the_conditions_of_an_a_plus_are_met() {
    let a = Pod::echo("a").await;
    let front = Front::start(&[("a", &[a.address])]).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("found.json");
    let mut command = Command::new("testssl");
    command.args(["--quiet", "--color", "0", "--warnings", "batch", "--ip", "127.0.0.1"]);
    command.args(["--protocols", "--std", "--pfs", "--headers", "--vulnerable", "--jsonfile"]).arg(&file);
    command.arg(format!("a.hearth.example:{}", front.https.port()));
    let output = command.output().await.expect("`make test` installs Debian's testssl.sh");
    eprintln!("{}", String::from_utf8_lossy(&output.stdout));
    let found: Vec<Value> = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let text = |finding: &Value, field: &str| finding[field].as_str().unwrap_or_default().to_owned();
    let found: BTreeMap<String, (String, String)> = found
        .iter()
        .map(|finding| (text(finding, "id"), (text(finding, "severity"), text(finding, "finding"))))
        .collect();
    let mut wrong: Vec<String> = Vec::new();
    for (id, wanted) in WANTED {
        match found.get(*id) {
            Some((severity, said)) if severity == wanted || said == wanted => (),
            other => wrong.push(format!("{id}: {wanted} is wanted, and found is {other:?}")),
        }
    }
    for (id, (severity, said)) in &found {
        let is_about_pages = ["banner", "security_headers", "cookie", "HPKP"].iter().any(|word| id.contains(word));
        let is_worse = ["LOW", "MEDIUM", "HIGH", "CRITICAL", "FATAL", "WARN"].contains(&severity.as_str());
        if is_worse && !is_about_pages && !LEFT_OUT.contains(&id.as_str()) {
            wrong.push(format!("{id}: {severity}: {said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
