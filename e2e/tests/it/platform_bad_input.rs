//! What `hearth up` says when it cannot: one clear sentence, and nothing is started.

use std::net::TcpListener;
use std::process::Command;

use crate::platform::{Platform, Said, platform, said};

/// A place beside the suite's instance, which is not to become an instance.
fn elsewhere(name: &str) -> (tempfile::TempDir, Platform) {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join(name).display().to_string();
    (folder, Platform::at(&home, "127.0.53.2"))
}

/// One sentence, as the last line, without anything of a stack.
fn one_sentence(said: &Said, parts: &[&str]) {
    said.says(1, parts);
    let errors: Vec<&str> = said.err.lines().filter(|line| !line.starts_with("  ")).collect();
    assert!(errors.len() == 1 && errors[0].starts_with("hearth: "), "{said:#?}");
    assert!(!said.all().contains("is up"), "{said:#?}");
}

fn nothing_was_started(place: &Platform) {
    let run = std::fs::read_dir(place.home.join("run")).into_iter().flatten().flatten();
    let started: Vec<_> = run.map(|entry| entry.path()).filter(|path| path.extension().is_some()).collect();
    assert!(started.is_empty(), "{started:?}");
}

#[test]
fn a_port_in_use_is_named_with_its_holder() {
    let (_shared, _calm) = platform();
    let (_folder, place) = elsewhere("taken");
    for port in [443, 2222] {
        let _holder = TcpListener::bind(("127.0.53.2", port)).unwrap();
        let said = place.hearth(&["up"]);
        let holder = format!("(process {})", std::process::id());
        one_sentence(&said, &[&format!("127.0.53.2:{port} is in use by"), &holder, "HEARTH_ADDRESS"]);
        nothing_was_started(&place);
    }
    place.purge();
}

#[test]
fn a_damaged_instance_is_told() {
    let (_folder, place) = elsewhere("damaged");
    std::fs::create_dir(&place.home).unwrap();
    std::fs::write(place.home.join("instance.json"), "{\"octet\": ").unwrap();
    for action in ["up", "down"] {
        one_sentence(&place.hearth(&[action]), &["instance.json is damaged; write {\"octet\": N} into it"]);
    }
    nothing_was_started(&place);
}

#[test]
fn an_address_that_is_not_the_machines_own_is_refused() {
    let (folder, _) = elsewhere("far");
    let place = Platform::at(&folder.path().join("far").display().to_string(), "192.0.2.1");
    one_sentence(&place.hearth(&["up"]), &["HEARTH_ADDRESS is 192.0.2.1", "127.0.0.1"]);
    assert!(!place.home.exists());
}

#[test]
fn only_root_brings_it_up() {
    let (_folder, place) = elsewhere("nobodys");
    let program = place.command(&["up"]);
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program.get_program()).arg("up");
    command.envs(program.get_envs().filter_map(|(key, value)| Some((key, value?))));
    one_sentence(&said(command, ""), &["root's", "run this as root"]);
    assert!(!place.home.exists());
}

#[test]
fn what_is_not_there_is_not_used() {
    let (_folder, place) = elsewhere("nowhere");
    one_sentence(&place.hearth(&["tool", "list"]), &["there is no instance of Hearth in", "make up"]);
    place.hearth(&["down"]).says(0, &["There is no instance of Hearth in"]);
    assert!(!place.home.exists());
}
