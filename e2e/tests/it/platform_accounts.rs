//! Accounts as operators meet it: what it would do, several copies of it, and quotas for single tools.

use std::path::Path;
use std::process::Command;

use crate::platform::{Platform, SOON, disturbed, eventually, said};

/// The pod whose copy acts.
fn holder(platform: &Platform) -> String {
    let lease = ["-n", "hearth-system", "get", "lease", "accounts", "-o", "jsonpath={.spec.holderIdentity}"];
    platform.admin(&lease).success("the lease").out
}

/// The number of the role's process in a pod.
fn process_of(platform: &Platform, pod: &str) -> u32 {
    let uid = ["-n", "hearth-system", "get", "pod", pod, "-o", "jsonpath={.metadata.uid}"];
    let uid = platform.admin(&uid).success("the pod").out;
    let is_its = |process: &Path| {
        let read = |name: &str| std::fs::read_to_string(process.join(name)).unwrap_or_default();
        read("cgroup").contains(&uid) && read("cmdline").contains("hearthd\0accounts")
    };
    let processes = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let found = processes.into_iter().find(|process| is_its(process)).expect("the role's process");
    found.file_name().unwrap().to_str().unwrap().parse().unwrap()
}

fn signal(pid: u32, what: &str) {
    let mut command = Command::new("kill");
    command.args([what, &pid.to_string()]);
    said(command, "").success("kill");
}

fn scale(platform: &Platform, copies: &str) {
    let scale = ["-n", "hearth-system", "scale", "deployment/accounts", &format!("--replicas={copies}")];
    platform.admin(&scale).success("scaling");
    let wait = ["-n", "hearth-system", "rollout", "status", "deployment/accounts", "--timeout=60s"];
    platform.admin(&wait).success("the copies run");
}

#[test]
fn another_copy_takes_over_from_one_that_hangs() {
    let (platform, _alone) = disturbed();
    scale(platform, "2");
    let first = holder(platform);
    let hung = process_of(platform, &first);
    signal(hung, "-STOP");
    let second = eventually(SOON, "another copy acts", || {
        let now = holder(platform);
        if now != first && !now.is_empty() { Ok(now) } else { Err(format!("{first} still does")) }
    });
    platform.tool("successor", "member1");
    // The first wakes and still believes that it acts, until it asks.
    signal(hung, "-CONT");
    eventually(SOON, "the first has noticed", || {
        let said = platform.admin(&["-n", "hearth-system", "logs", &first]);
        if said.out.contains("this copy acts no longer") { Ok(()) } else { Err(said.out) }
    });
    assert_eq!(holder(platform), second);
    platform.tool("successor2", "member1");
    scale(platform, "1");
    eventually(SOON, "the copy that is left acts", || {
        let pods = ["-n", "hearth-system", "get", "pods", "-l", "app.kubernetes.io/name=accounts", "-o", "name"];
        let (pods, now) = (platform.admin(&pods).success("the pods").out, holder(platform));
        if !now.is_empty() && pods.contains(&now) { Ok(()) } else { Err(format!("{now:?} of {pods}")) }
    });
}

#[test]
fn a_quota_of_its_own_is_applied_and_what_would_be_done_is_told() {
    let (platform, _alone) = disturbed();
    platform.tool("hungry", "member1");
    let is_clean = || {
        let said = platform.hearth(&["check", "accounts"]);
        if said.code == Some(0) { Ok(said.out) } else { Err(format!("{said:?}")) }
    };
    let told = eventually(SOON, "nothing is to be done", is_clean);
    assert!(told.contains("something is to be done for 0, and 0 things are left alone"), "{told}");
    let pods = || {
        let quota = ["-n", "tool-hungry", "get", "resourcequota", "tool-hungry", "-o", "jsonpath={.spec.hard.pods}"];
        platform.admin(&quota).success("the quota").out
    };
    assert_eq!(pods(), "10");

    let file = platform.path("quotas.toml");
    let before = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{before}\n[hungry]\nwhy = \"a test\"\nquota = {{ pods = \"20\" }}\n")).unwrap();
    platform.up();
    eventually(SOON, "the quota is applied", || if pods() == "20" { Ok(()) } else { Err(pods()) });
    std::fs::write(&file, "[hungry]\nquota = {}\n").unwrap();
    platform.hearth(&["up"]).says(1, &["the tools' own quotas are not usable", "why"]);
    std::fs::write(&file, before).unwrap();
    platform.up();
    eventually(SOON, "the quota is as for all", || if pods() == "10" { Ok(()) } else { Err(pods()) });

    // What is not ours is told of.
    platform.admin(&["create", "namespace", "tool-foreign"]).success("a namespace of somebody's");
    platform.hearth(&["tool", "create", "foreign", "--maintainer", "member1"]).success("an entry");
    platform.hearth(&["check", "accounts"]).says(1, &["foreign is left alone: the namespace tool-foreign exists"]);
    platform.admin(&["delete", "namespace", "tool-foreign"]).success("it goes away");
    eventually(SOON, "nothing is to be done", is_clean);
}

#[test]
fn a_namespace_that_another_system_made_is_handed_over_with_what_is_in_it() {
    let (platform, _alone) = disturbed();
    let object = |kind: &str, rest: &str| format!("---\nkind: {kind}\n{rest}\n");
    let objects = [
        object("Namespace", "apiVersion: v1\nmetadata: {name: tool-inherited, labels: {tenancy: tool}}"),
        object(
            "ResourceQuota",
            "apiVersion: v1\nmetadata: {name: tool-inherited, namespace: tool-inherited}\nspec: {hard: {pods: '4'}}",
        ),
        object("ConfigMap", "apiVersion: v1\nmetadata: {name: kept, namespace: tool-inherited}\ndata: {a: b}"),
        object(
            "RoleBinding",
            "apiVersion: rbac.authorization.k8s.io/v1\nmetadata: {name: inherited-tool-binding, namespace: tool-inherited}\n\
             roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: tools-user}\n\
             subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: inherited}]",
        ),
        object(
            "RoleBinding",
            "apiVersion: rbac.authorization.k8s.io/v1\nmetadata: {name: old, namespace: tool-inherited}\n\
             roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}\n\
             subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: inherited}]",
        ),
    ];
    let admin = platform.path("admin.kubeconfig");
    platform.kubectl_with(&admin, &["create", "-f", "-"], &objects.concat()).success("another system's objects");
    platform.hearth(&["tool", "create", "inherited", "--maintainer", "member1"]).success("an entry");
    eventually(SOON, "it is left alone", || {
        let said = platform.hearth(&["check", "accounts"]);
        if said.out.contains("inherited is left alone") { Ok(()) } else { Err(format!("{said:?}")) }
    });
    let shown = ["inherited-tool-binding", "stays, and goes on giving rights: RoleBinding old gives ClusterRole view"];
    platform.hearth(&["tool", "adopt"]).says(0, &[shown[0], shown[1], "Nothing was changed"]);
    platform.hearth(&["tool", "adopt", "hello"]).says(1, &["the namespace tool-hello is the platform's already"]);
    platform.hearth(&["tool", "adopt", "inherited", "--yes"]).says(0, &[shown[0], shown[1], "Handed over 1"]);
    eventually(SOON, "its maintainer uses what was there", || {
        let said = platform.ssh("member1", "become inherited kubectl get configmap kept", "");
        if said.code == Some(0) { Ok(()) } else { Err(format!("{said:?}")) }
    });
    let quota = ["-n", "tool-inherited", "get", "resourcequota", "tool-inherited", "-o", "jsonpath={.spec.hard.pods}"];
    assert_eq!(platform.admin(&quota).success("the quota").out, "10");
    platform.hearth(&["tool", "adopt"]).says(0, &["There is nothing to adopt"]);
}
