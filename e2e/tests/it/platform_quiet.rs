//! A cluster in which nothing happens: the front door must not take silence for the loss of the API server.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use crate::platform::{eventually, platform, said};

/// How often each kind must have been heard of: with watches of ten seconds that is longer than a table may be old.
const TIMES: usize = 4;

/// How long that may take.
const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn the_front_door_stays_fresh_while_nothing_changes() {
    let (platform, _calm) = platform();
    let text = std::fs::read_to_string(platform.path("instance.json")).unwrap();
    let instance: serde_json::Value = serde_json::from_str(&text).unwrap();
    let octet = instance["octet"].as_u64().unwrap();
    let ask = |what: &str| {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--max-time", "5", &format!("http://10.{octet}.0.1:9100/{what}")]);
        said(command, "").success(what).out
    };
    let mut last: BTreeMap<String, f64> = BTreeMap::new();
    let mut heard: BTreeMap<String, usize> = BTreeMap::new();
    eventually(LIMIT, "each kind of object is heard of again and again", || {
        let ready = ask("readyz");
        assert!(ready.starts_with("ready"), "after {heard:?}: {ready}");
        for line in ask("metrics").lines().filter(|line| line.starts_with("hearth_proxy_table_age_seconds{")) {
            let (kind, age) = line.rsplit_once(' ').unwrap();
            let age: f64 = age.parse().unwrap();
            if last.insert(kind.to_owned(), age).is_some_and(|before| age < before) {
                *heard.entry(kind.to_owned()).or_default() += 1;
            }
        }
        let enough = heard.len() == 4 && heard.values().all(|times| *times >= TIMES);
        if enough { Ok(()) } else { Err(format!("{heard:?}")) }
    });
}
