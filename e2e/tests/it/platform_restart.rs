//! `up` on a running instance, `down`, `up` again, and an `up` that is interrupted.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::platform::{Platform, SOON, disturbed, eventually, said};
use crate::platform_registry::{is_pulled, push_as_tool};
use crate::platform_repair::{kill, processes};

/// Kinds that change by themselves: heartbeats, and what was noticed.
const RESTLESS: &[&str] = &["events", "events.events.k8s.io", "leases.coordination.k8s.io", "nodes"];

/// The version of every object of the cluster, by kind, namespace and name.
fn versions(platform: &Platform) -> BTreeMap<String, String> {
    let kinds = platform.admin(&["api-resources", "--verbs=list", "--output=name"]).success("kubectl api-resources");
    let kinds: Vec<&str> = kinds.out.lines().filter(|kind| !RESTLESS.contains(kind)).collect();
    assert!(kinds.len() > 30, "{kinds:?}");
    let words = ["get", &kinds.join(","), "--all-namespaces", "--output=json"];
    let said = platform.admin(&words).success("kubectl get");
    let list: Value = serde_json::from_str(&said.out).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let objects = list["items"].as_array().expect("a list").iter().map(|object| {
        let meta = &object["metadata"];
        let name = format!("{} {}/{}", text(&object["kind"]), text(&meta["namespace"]), text(&meta["name"]));
        (name, text(&meta["resourceVersion"]))
    });
    objects.collect()
}

#[test]
fn up_on_a_running_instance_changes_nothing() {
    let (platform, _alone) = disturbed();
    // What earlier tests set going comes to rest first.
    let mut before = versions(platform);
    eventually(SOON * 2, "the cluster is at rest", || {
        let now = versions(platform);
        let last = std::mem::replace(&mut before, now);
        if last == before { Ok(()) } else { Err("objects change".to_owned()) }
    });
    let running = processes(platform);
    platform.up();
    let after = versions(platform);
    let changed: Vec<_> = after.iter().filter(|(name, version)| before.get(*name) != Some(version)).collect();
    let gone: Vec<_> = before.keys().filter(|name| !after.contains_key(*name)).collect();
    assert!(changed.is_empty() && gone.is_empty(), "changed: {changed:?}\ngone: {gone:?}");
    assert_eq!(running, processes(platform));
    assert!(before.keys().any(|name| name == "Deployment hearth-system/accounts"), "{before:?}");
}

/// What the instance has put on the host, by what shows it; empty when there is nothing.
fn traces(platform: &Platform) -> Vec<String> {
    let home = format!("{}/", platform.home.display());
    let instance: Value = serde_json::from_slice(&std::fs::read(platform.path("instance.json")).unwrap()).unwrap();
    let octet = instance["octet"].to_string();
    let mut found = Vec::new();
    let listings: &[(&str, &[&str], &[&str])] = &[
        ("ip", &["-o", "link"], &[&format!(" hearth{octet}:"), &format!(" hearthv{octet}@")]),
        ("ip", &["netns"], &[&format!("hearth{octet}")]),
        ("ip", &["route"], &[&format!("10.{octet}.")]),
        ("nft", &["list", "tables"], &[&format!("hearth{octet}")]),
        ("ss", &["-Hltn"], &[&format!("{}:", platform.address), &format!("10.{octet}.")]),
    ];
    for (program, words, signs) in listings {
        let mut command = Command::new(program);
        command.args(*words);
        let said = said(command, "").success(program);
        let lines = said.out.lines().filter(|line| signs.iter().any(|sign| format!(" {line} ").contains(sign)));
        found.extend(lines.map(|line| format!("{program}: {line}")));
    }
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    found.extend(mounts.lines().filter(|line| line.contains(&home)).map(|line| format!("mount: {line}")));
    for root in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path()) {
        for group in [root.join(format!("hearth{octet}")), root.with_file_name(format!("hearth{octet}"))] {
            found.extend(group.exists().then(|| format!("cgroup: {}", group.display())));
        }
    }
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        found.extend(line.contains(&home).then(|| format!("process: {line}")));
    }
    found
}

/// What instances have noted of the kernel's settings; null where no instance is up.
fn settings_note() -> Value {
    std::fs::read("/run/hearth/sysctl-before.json").map_or(Value::Null, |text| serde_json::from_slice(&text).unwrap())
}

/// Checks that the settings are as they were before the first instance. Where another one is up, they are left to it.
fn check_settings(platform: &Platform, before: &Value) {
    let left: Vec<Value> = settings_note()["instances"].as_array().cloned().unwrap_or_default();
    assert!(!left.iter().any(|home| Path::new(home.as_str().unwrap()) == platform.home), "{left:?}");
    let settings = before["before"].as_object().expect("settings");
    assert!(settings.len() >= 6, "{before:?}");
    for (name, value) in settings.iter().filter(|_| left.is_empty()) {
        let now = std::fs::read_to_string(Path::new("/proc/sys").join(name.replace('.', "/"))).unwrap();
        assert_eq!(now.trim(), value.as_str().unwrap(), "{name}");
    }
}

#[test]
fn down_leaves_no_trace_and_up_loses_nothing() {
    let (platform, _alone) = disturbed();
    platform.tool("lasting", "member2");
    let write = "mkdir -p ~/public_html && echo stays > ~/public_html/index.html && webservice static start";
    platform.hearth(&["tool", "maintainers", "lasting", "--add", "member1"]).success("hearth tool maintainers");
    eventually(SOON, "member1 becomes lasting", || {
        let said = platform.as_tool("lasting", "true");
        if said.code == Some(0) { Ok(()) } else { Err(format!("{said:?}")) }
    });
    platform.as_tool("lasting", write).success("webservice static start");
    push_as_tool(platform, "lasting", "tool-lasting/app:1").success("a push");
    platform.ssh("member1", "echo own > ~/note", "").success("a file of a person");
    let kubeconfig = std::fs::read_to_string(platform.path("data/project/lasting/.kube/config")).unwrap();
    let tools = platform.hearth(&["tool", "list"]).success("hearth tool list").out;
    let people = platform.hearth(&["person", "list"]).success("hearth person list").out;
    assert!(!traces(platform).is_empty());
    let settings = settings_note();

    platform.hearth(&["down"]).says(0, &["Hearth is down. Its data stays in"]);
    assert_eq!(traces(platform), Vec::<String>::new());
    check_settings(platform, &settings);
    assert!(platform.try_get("https://hello.hearth.localhost/").is_err());
    platform.hearth(&["down"]).success("hearth down on what is down");
    assert_eq!(processes(platform), BTreeMap::new());

    platform.up();
    assert_eq!(platform.page("hello").status, 200);
    platform.answers("lasting", 200, "stays");
    assert_eq!(platform.hearth(&["tool", "list"]).success("hearth tool list").out, tools);
    assert_eq!(platform.hearth(&["person", "list"]).success("hearth person list").out, people);
    assert!(is_pulled(platform, "tool-lasting/app", "1"));
    assert_eq!(platform.ssh("member1", "cat ~/note", "").success("the person's file").out, "own\n");
    platform.as_tool("lasting", "cat ~/public_html/index.html").says(0, &["stays"]);
    let after = std::fs::read_to_string(platform.path("data/project/lasting/.kube/config")).unwrap();
    assert_eq!(kubeconfig, after, "the tool's certificate is still good");
    platform.kubectl("lasting", &["get", "pods"], "").success("the tool's kubeconfig");
}

/// Kills `hearth up` as soon as it has done a step.
pub(crate) fn interrupt_up_after(platform: &Platform, step: &str) {
    let mut up = platform.command(&["up"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = Vec::new();
    let mut lines = BufReader::new(up.stderr.take().expect("a pipe")).lines().map_while(Result::ok);
    let reached =
        lines.by_ref().inspect(|line| said.push(line.clone())).any(|line| line.contains(&format!(" s  {step}")));
    assert!(reached, "`hearth up` ended before '{step}': {said:#?}");
    kill(up.id());
    up.wait().unwrap();
}

#[test]
fn an_interrupted_up_is_resumed_by_the_next() {
    let (platform, _alone) = disturbed();
    platform.hearth(&["down"]).success("hearth down");
    for step in ["network and node", "etcd, Kubernetes' API and containerd", "manifests", "platform"] {
        interrupt_up_after(platform, step);
    }
    platform.up();
    assert_eq!(platform.page("hello").status, 200);
    platform.ssh("member1", "true", "").success("a login");

    // The same for what is going down.
    let mut down = platform.command(&["down"]).stderr(Stdio::null()).spawn().unwrap();
    eventually(SOON, "the front door or the kubelet is gone", || {
        let running = processes(platform);
        if running.contains_key("kubelet") { Err(format!("{running:?}")) } else { Ok(()) }
    });
    kill(down.id());
    down.wait().unwrap();
    platform.up();
    assert_eq!(platform.page("hello").status, 200);
}
