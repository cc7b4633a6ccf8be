//! Killing any process or pod of the platform: it comes back by itself, and what can serve meanwhile serves.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::platform::{Platform, SOON, disturbed, eventually, said, url};

/// The numbers of the instance's processes that run, by name, as the pid files say.
pub(crate) fn processes(platform: &Platform) -> BTreeMap<String, u32> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(platform.path("run")).unwrap() {
        let path = entry.unwrap().path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".pid")) else { continue };
        let text = std::fs::read_to_string(&path).unwrap();
        let pid: u32 = text.split(' ').next().unwrap().parse().unwrap();
        if is_running(pid) {
            found.insert(name.to_owned(), pid);
        }
    }
    found
}

fn is_running(pid: u32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok();
    let state = state.and_then(|stat| Some(stat.rsplit_once(") ")?.1.starts_with(['Z', 'X'])));
    state == Some(false)
}

pub(crate) fn kill(pid: u32) {
    assert!(Path::new(&format!("/proc/{pid}")).exists(), "process {pid} has ended by itself");
    let mut command = Command::new("kill");
    command.args(["-KILL", &pid.to_string()]);
    said(command, "").success("kill");
}

/// Everything that people use works: pages, logins, the cluster, and making tools.
fn all_works(platform: &Platform, tool: &str) {
    platform.answers("hello", 200, "<html");
    platform.answers("nosuchtool", 404, "there is none with the name");
    eventually(SOON, "a tool is made and used", || {
        let said = platform.hearth(&["tool", "create", tool, "--maintainer", "member1"]);
        let there = said.code == Some(0) || said.err.contains("is taken");
        if there { Ok(()) } else { Err(format!("{said:?}")) }
    });
    eventually(SOON, "the tool starts a web service", || {
        let page = "mkdir -p ~/public_html && echo works > ~/public_html/index.html";
        let script = format!("{page} && (webservice static start || webservice restart)");
        let said = platform.as_tool(tool, &script);
        if said.code == Some(0) { Ok(()) } else { Err(format!("{said:?}")) }
    });
    platform.answers(tool, 200, "works");
}

/// Asks for a page again and again while `work` is done; what went wrong.
fn asking_meanwhile<T>(platform: &Platform, work: impl FnOnce() -> T) -> (T, Vec<String>) {
    use std::sync::atomic::{AtomicBool, Ordering};
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut wrong = Vec::new();
            while !done.load(Ordering::Relaxed) {
                match platform.try_get(&url("hello")) {
                    Ok(answer) if answer.status == 200 => (),
                    other => wrong.push(format!("{other:?}")),
                }
            }
            wrong
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        (result, asking.join().unwrap())
    })
}

#[test]
fn a_killed_process_is_started_again() {
    let (platform, _alone) = disturbed();
    let before = processes(platform);
    assert!(before.len() >= 10, "{before:?}");
    for (name, pid) in before.iter().filter(|(name, _)| *name != "supervisor") {
        let kill_it = || {
            kill(*pid);
            eventually(SOON, &format!("{name} runs again"), || match processes(platform).get(name) {
                Some(new) if new != pid => Ok(()),
                other => Err(format!("{other:?}")),
            });
        };
        let ((), wrong) = asking_meanwhile(platform, kill_it);
        // Only the front door is needed for a page.
        assert!(wrong.is_empty() || name == "proxy", "without {name}: {wrong:?}");
        platform.answers("hello", 200, "<html");
    }
    all_works(platform, "mended");
    platform.up();
    all_works(platform, "mended");
}

#[test]
fn a_killed_supervisor_is_replaced_and_nothing_else() {
    let (platform, _alone) = disturbed();
    let mut before = processes(platform);
    let supervisor = before.remove("supervisor").expect("a supervisor");
    let ((), wrong) = asking_meanwhile(platform, || {
        kill(supervisor);
        platform.ssh("member1", "true", "").success("a login without a supervisor");
        platform.hearth(&["tool", "list"]).success("hearth tool list without a supervisor");
        platform.up();
    });
    assert!(wrong.is_empty(), "{wrong:?}");
    let mut after = processes(platform);
    let new = after.remove("supervisor").expect("a new supervisor");
    assert_ne!(new, supervisor);
    assert_eq!(before, after);
    // The new one does its work.
    let pid = after["kube-scheduler"];
    kill(pid);
    eventually(SOON, "the scheduler runs again", || match processes(platform).get("kube-scheduler") {
        Some(new) if *new != pid => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn killed_containers_and_pods_are_replaced() {
    let (platform, _alone) = disturbed();
    // Every container at once, the holders of the pods' namespaces too.
    let mut ctr = Command::new(platform.cache.join("bin/ctr"));
    ctr.args(["--address", &platform.path("run/containerd/containerd.sock"), "--namespace", "k8s.io", "tasks", "list"]);
    let tasks = said(ctr, "").success("ctr tasks list");
    let pids: Vec<&str> = tasks.out.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert!(pids.len() > 20, "{tasks:?}");
    let mut command = Command::new("kill");
    command.arg("-KILL").args(&pids);
    said(command, "").success("killing the containers");
    all_works(platform, "mended");

    for namespace in ["hearth-system", "kube-system", "tool-fourohfour", "tool-hello"] {
        let words = ["--namespace", namespace, "delete", "pods", "--all", "--wait=false"];
        platform.admin(&words).success("deleting pods");
    }
    all_works(platform, "mended");
    platform.up();
}

#[test]
fn up_mends_what_was_changed_by_hand_deletes_what_is_left_over_and_leaves_the_rest() {
    let (platform, _alone) = disturbed();
    let versions = || {
        let query = "jsonpath={range .items[*]}{.metadata.name} {.metadata.resourceVersion}{\"\\n\"}{end}";
        let kinds = "validatingadmissionpolicies,services,serviceaccounts,clusterroles";
        let said = platform.admin(&["get", kinds, "--all-namespaces", "--output", query]).success("versions");
        let pairs = said.out.lines().filter_map(|line| line.split_once(' '));
        pairs.map(|(name, version)| (name.to_owned(), version.to_owned())).collect::<BTreeMap<_, _>>()
    };
    let left_over = |name: &str, manager: &str| {
        let policy = format!(
            "{{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingAdmissionPolicy, metadata: {{name: {name}}}, \
             spec: {{matchConstraints: {{resourceRules: [{{apiGroups: [batch], apiVersions: [v1], resources: [jobs], \
             operations: [CREATE]}}]}}, validations: [{{expression: 'true'}}]}}}}"
        );
        let words = ["apply", "--server-side", "--field-manager", manager, "--filename", "-"];
        platform.kubectl_with(&platform.path("admin.kubeconfig"), &words, &policy).success("a policy");
    };
    platform.up();
    let before = versions();
    left_over("hearth-tool-of-an-older-version", "hearth-up");
    left_over("somebodys", "somebody");
    let cut = r#"[{"op": "replace", "path": "/rules", "value": []}]"#;
    platform.admin(&["patch", "clusterrole", "tools-user", "--type", "json", "--patch", cut]).success("a patch");
    let said = platform.hearth(&["up"]).success("hearth up");
    assert!(said.err.contains("manifests: 1 applied, 1 no longer rendered and deleted"), "{said:?}");

    let mut after = versions();
    assert!(after.remove("somebodys").is_some(), "{after:?}");
    platform.admin(&["delete", "validatingadmissionpolicy", "somebodys"]).success("delete");
    assert_ne!(after.remove("tools-user"), before.get("tools-user").cloned());
    let unchanged: BTreeMap<_, _> = before.into_iter().filter(|(name, _)| name != "tools-user").collect();
    assert_eq!(after, unchanged);
    let may = platform.as_tool("hello", "kubectl auth can-i list pods").success("a tool's rights");
    assert_eq!(may.out.trim(), "yes");
}

/// As an upgrade finds it: what the policies in force refuse, and what the rendered ones allow.
#[test]
fn what_only_the_new_policies_allow_is_applied_once_they_act() {
    let (platform, _alone) = disturbed();
    let policy =
        ["get", "validatingadmissionpolicy", "hearth-platform-templates", "-o", "jsonpath={.spec.validations}"];
    let before = platform.admin(&policy).success("the policy").out;
    platform.admin(&["-n", "hearth-system", "delete", "deployment", "signer"]).success("a role is taken away");
    let never = r#"[{"op": "replace", "path": "/spec/validations", "value": [{"expression": "false"}]}]"#;
    let patch = ["patch", "validatingadmissionpolicy", "hearth-platform-templates", "--type=json", "-p", never];
    platform.admin(&patch).success("a policy that refuses everything");
    let role = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: none, namespace: hearth-system}, spec: {selector: \
                {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: a, image: a}]}}}}";
    let admin = platform.path("admin.kubeconfig");
    eventually(SOON, "the policy acts", || {
        let said = platform.kubectl_with(&admin, &["create", "--dry-run=server", "-f", "-"], role);
        if said.err.contains("failed expression: false") { Ok(()) } else { Err(format!("{said:?}")) }
    });
    platform.up();
    assert_eq!(platform.admin(&policy).success("the policy").out, before);
    platform.admin(&["-n", "hearth-system", "get", "deployment", "signer"]).success("the role is there");
}
