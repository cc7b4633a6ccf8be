//! What admission refuses and fills in on a running platform, by both of its layers.

use serde_json::{Value, json};

use crate::platform::{Platform, SOON, disturbed, eventually, platform};

/// An object that is refused, and what each layer says in its own way.
struct Offence {
    object: Value,
    /// Parts of the webhook's refusal.
    webhook: &'static [&'static str],
    /// Parts of the policies', which cannot name the tool.
    policies: &'static [&'static str],
}

fn pod(spec: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "offence" }, "spec": spec })
}

/// A pod whose container has this security context.
fn secured(context: Value) -> Value {
    pod(json!({ "containers": [{
        "name": "a", "image": "registry.hearth.internal/hearth/static", "securityContext": context,
    }] }))
}

fn offences() -> Vec<Offence> {
    let image = "registry.hearth.internal/hearth/static";
    let ingress = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": { "name": "offence" },
        "spec": { "rules": [{ "host": "hello.hearth.localhost", "http": { "paths": [{
            "path": "/", "pathType": "Prefix", "backend": { "service": { "name": "a", "port": { "number": 8000 } } },
        }] } }] },
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "offence" },
        "spec": { "type": "NodePort", "ports": [{ "port": 8000 }] },
    });
    let host_path = pod(json!({
        "containers": [{ "name": "a", "image": image }],
        "volumes": [{ "name": "node", "hostPath": { "path": "/etc" } }],
    }));
    let escalating = secured(json!({ "privileged": true, "allowPrivilegeEscalation": true }));
    vec![
        Offence {
            object: ingress,
            webhook: &["spec.rules[hello.hearth.localhost].host is \"hello.hearth.localhost\": it must be offender."],
            policies: &["spec.rules", "host: needed, it must be <tool>.hearth.localhost"],
        },
        Offence {
            object: pod(json!({ "containers": [{ "name": "a", "image": "docker.io/library/nginx" }] })),
            webhook: &["spec.containers[a].image is \"docker.io/library/nginx\": images come from registry.hearth."],
            policies: &["a (docker.io/library/nginx)", "images come from registry.hearth.internal"],
        },
        Offence {
            object: escalating,
            webhook: &["spec.containers[a].securityContext.privileged is true: it must be false"],
            policies: &["privileged: it must be false"],
        },
        Offence {
            object: host_path,
            webhook: &["spec.volumes[node].hostPath.path is \"/etc\": it must be \"/data/project/offender\""],
            policies: &["spec.volumes: node: hostPath: ", "\"/data/project/<tool>\", the tool's own home"],
        },
        Offence {
            object: secured(json!({ "runAsUser": 0 })),
            webhook: &["spec.containers[a].securityContext.runAsUser is 0: it must be 5", "the tool's own number"],
            policies: &["runAsUser: it must be", "the tool's own number"],
        },
        Offence {
            object: service,
            webhook: &["spec.type is \"NodePort\": it must be \"ClusterIP\""],
            policies: &["spec.ports: ", "nodePort: it must be left out"],
        },
    ]
}

/// Has the tool `offender` make each object; whether the webhook is there to speak first.
fn all_are_refused(platform: &Platform, webhook_speaks: bool) {
    for Offence { object, webhook, policies } in offences() {
        let said = platform.kubectl("offender", &["create", "-f", "-"], &object.to_string());
        if webhook_speaks {
            said.says(1, &["admission webhook \"admission.hearth.internal\" denied the request"]);
            said.says(1, webhook);
        } else {
            said.says(1, &["ValidatingAdmissionPolicy 'hearth-tool-"]);
            said.says(1, policies);
        }
    }
    // What nobody may write at all is not even asked about.
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": { "name": "offence" },
        "addressType": "IPv4", "endpoints": [{ "addresses": ["127.0.0.1"] }],
    });
    let said = platform.kubectl("offender", &["create", "-f", "-"], &slice.to_string());
    said.says(1, &["Forbidden", "cannot create resource \"endpointslices\""]);
}

#[test]
fn offences_are_refused_with_the_reason_also_with_the_webhook_dead() {
    let (platform, _alone) = disturbed();
    platform.tool("offender", "member1");
    all_are_refused(platform, true);

    let scale = |count: &str| {
        let replicas = format!("--replicas={count}");
        let words = ["--namespace", "hearth-system", "scale", "deployment", "admission", &replicas];
        platform.admin(&words).success("scaling the webhook");
    };
    scale("0");
    eventually(SOON, "the webhook is gone", || {
        let words = ["--namespace", "hearth-system", "get", "pods", "--selector", "app.kubernetes.io/name=admission"];
        let said = platform.admin(&words);
        if said.err.contains("No resources found") { Ok(()) } else { Err(format!("{said:?}")) }
    });
    all_are_refused(platform, false);
    // And what is right is still let in.
    platform.serve("offender", "alive");
    assert_eq!(platform.page("offender").body, "alive\n");
    scale("1");
    eventually(SOON, "the webhook speaks again", || {
        let object = secured(json!({ "runAsUser": 0 })).to_string();
        let said = platform.kubectl("offender", &["create", "-f", "-"], &object);
        if said.err.contains("admission webhook") { Ok(()) } else { Err(format!("{said:?}")) }
    });
}

#[test]
fn a_plain_pod_runs_as_its_tool() {
    let (platform, _calm) = platform();
    platform.tool("plain", "member1");
    let image = "--image=registry.hearth.internal/hearth/static:latest";
    let run = ["run", "bare", image, "--labels=toolforge=tool", "--command", "--", "sleep", "infinity"];
    platform.kubectl("plain", &run, "").success("kubectl run");
    platform.kubectl("plain", &["wait", "--for=condition=Ready", "pod/bare", "--timeout=60s"], "").success("ready");
    let inside = "id -u; id -g; echo $HOME; touch ~/from-the-pod; grep -c Seccomp:.2 /proc/self/status; \
                  grep CapEff /proc/self/status; grep NoNewPrivs /proc/self/status";
    let said = platform.kubectl("plain", &["exec", "bare", "--", "sh", "-c", inside], "").success("kubectl exec");
    let on_bastion = platform.as_tool("plain", "id -u; id -g; echo ~; ls ~").success("id on the bastion");
    let (ids, home) = (said.out.lines().collect::<Vec<_>>(), on_bastion.out.lines().collect::<Vec<_>>());
    assert_eq!(ids[..3], home[..3], "{said:?} {on_bastion:?}");
    assert!(home.contains(&"from-the-pod"), "{on_bastion:?}");
    assert_eq!(ids[3..], ["1", "CapEff:\t0000000000000000", "NoNewPrivs:\t1"], "{said:?}");
    platform.kubectl("plain", &["delete", "pod", "bare", "--now", "--wait=false"], "").success("kubectl delete");
}
