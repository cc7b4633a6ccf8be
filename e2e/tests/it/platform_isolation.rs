//! What one tool cannot do to another: with its kubeconfig, on the bastion, by a pod, by the registry's login.

use serde_json::json;

use crate::platform::{Platform, platform};

/// A tool with a file that is nobody else's business, and a tool of somebody else.
fn two_tools(platform: &Platform, first: &str, second: &str) {
    platform.tool(first, "member1");
    platform.tool(second, "member2");
    platform.as_tool(first, "echo mine > ~/private").success("a file in the home");
    platform.kubectl(first, &["create", "secret", "generic", "password", "--from-literal=a=b"], "").success("a secret");
}

#[test]
fn a_tool_cannot_look_into_anothers_namespace_nor_change_it() {
    let (platform, _calm) = platform();
    two_tools(platform, "apart", "apart-other");
    platform.kubectl("apart", &["get", "secret", "password"], "").success("the tool's own secret");
    let attempts: &[&[&str]] = &[
        &["get", "secrets"],
        &["get", "secret", "password"],
        &["get", "pods"],
        &["create", "configmap", "mark"],
        &["delete", "secret", "password"],
        &["auth", "can-i", "list", "secrets"],
    ];
    for attempt in attempts {
        let words = [&["--namespace", "tool-apart"], *attempt].concat();
        let said = platform.kubectl("apart-other", &words, "");
        let refused = said.err.contains("forbidden") && said.err.contains("tool:apart-other") || said.out == "no\n";
        assert!(said.code == Some(1) && refused, "{attempt:?}: {said:?}");
    }
    let everywhere: &[&[&str]] = &[
        &["get", "secrets", "--all-namespaces"],
        &["get", "namespaces"],
        &["get", "nodes"],
        &["create", "namespace", "tool-mine"],
        &["create", "clusterrolebinding", "mine", "--clusterrole=cluster-admin", "--user=tool:apart-other"],
        &["create", "rolebinding", "mine", "--clusterrole=admin", "--user=tool:apart-other"],
        &["create", "token", "default"],
        &["get", "pods", "--as=tool:apart"],
    ];
    for attempt in everywhere {
        platform.kubectl("apart-other", attempt, "").says(1, &["forbidden", "tool:apart-other"]);
    }
    platform.kubectl("apart", &["get", "secret", "password"], "").success("the tool's own secret, still");
}

#[test]
fn a_home_is_closed_to_others() {
    let (platform, _calm) = platform();
    two_tools(platform, "closed", "closed-other");
    for attempt in ["cat /data/project/closed/private", "ls /data/project/closed", "touch /data/project/closed/mark"] {
        platform
            .ssh("member2", attempt, "")
            .says(if attempt.starts_with("ls") { 2 } else { 1 }, &["Permission denied"]);
        let said = platform.ssh("member2", &format!("become closed-other {attempt}"), "");
        assert!(said.err.contains("Permission denied"), "{attempt}: {said:?}");
    }
    platform.ssh("member2", "touch /data/project/mine", "").says(1, &["Permission denied"]);
    platform.ssh("member2", "ls /home/member1", "").says(2, &["Permission denied"]);
    let said = platform.ssh("member1", "become closed cat private", "").success("the tool's own file");
    assert_eq!(said.out, "mine\n");
}

#[test]
fn only_maintainers_become_a_tool() {
    let (platform, _calm) = platform();
    two_tools(platform, "ours", "ours-other");
    platform.ssh("member2", "become ours", "").says(1, &["you are not a maintainer of 'ours'", "member1"]);
    let said = platform.ssh("member2", "sudo -n -u tools.ours true", "");
    assert!(said.code == Some(1) && !said.err.is_empty(), "{said:?}");
    platform.ssh("member2", "become nowhere", "").says(1, &["there is no tool named 'nowhere'"]);
    let said = platform.ssh("member2", "sudo -n true", "");
    assert!(said.code == Some(1), "{said:?}");
    // Somebody who is made a maintainer can, as soon as they log in again.
    platform.hearth(&["tool", "maintainers", "ours", "--add", "member2"]).says(0, &["member1, member2"]);
    crate::platform::eventually(crate::platform::SOON, "member2 becomes ours", || {
        let said = platform.ssh("member2", "become ours cat private", "");
        if said.out == "mine\n" { Ok(()) } else { Err(format!("{said:?}")) }
    });
}

#[test]
fn a_pod_mounts_its_own_tools_home_only() {
    let (platform, _calm) = platform();
    two_tools(platform, "mounted", "mounted-other");
    for (path, name) in [("/data/project/mounted", "another's"), ("/data/project", "all"), ("/", "the node's")] {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "thief" },
            "spec": {
                "containers": [{
                    "name": "a", "image": "registry.hearth.internal/hearth/static",
                    "volumeMounts": [{ "name": "loot", "mountPath": "/loot" }],
                }],
                "volumes": [{ "name": "loot", "hostPath": { "path": path } }],
            },
        });
        let said = platform.kubectl("mounted-other", &["create", "-f", "-"], &pod.to_string());
        let reason =
            format!("spec.volumes[loot].hostPath.path is \"{path}\": it must be \"/data/project/mounted-other\"");
        assert!(said.code == Some(1) && said.err.contains(&reason), "{name}: {said:?}");
    }
}

#[test]
fn each_role_has_an_account_of_its_own_and_nothing_else_a_token() {
    let (platform, _calm) = platform();
    let template = "go-template={{range .items}}{{range .spec.containers}}{{.name}} {{end}}{{.spec.serviceAccountName}} \
                    {{range .spec.volumes}}{{if .projected}}token{{end}}{{end}}{{\"\\n\"}}{{end}}";
    let pods = |namespace: &str| {
        let said = platform.admin(&["get", "pods", "--namespace", namespace, "--output", template]);
        said.success("the pods").out
    };
    let (platforms, fourohfour) = (pods("hearth-system"), pods("tool-fourohfour"));
    for role in ["accounts", "admission", "registry-auth", "signer"] {
        assert!(platforms.lines().any(|pod| pod == format!("{role} {role} token")), "{role}: {platforms}");
    }
    let others = platforms.lines().filter(|pod| pod.contains(" default "));
    assert!(others.clone().count() >= 3 && others.clone().all(|pod| !pod.contains("token")), "{platforms}");
    assert_eq!(fourohfour.trim(), "webservice fourohfour token");
    let right = |account: &str| {
        let user = format!("--as=system:serviceaccount:tool-fourohfour:{account}");
        platform.admin(&["auth", "can-i", "list", "namespaces", &user]).out
    };
    assert_eq!([right("fourohfour"), right("default")].map(|answer| answer.trim().to_owned()), ["yes", "no"]);
}
