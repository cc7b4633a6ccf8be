//! The processes of an instance and what each is configured with: etcd, Kubernetes, containerd, the front door.

use std::net::Ipv4Addr;

use anyhow::Context;
use aws_lc_rs::digest::{SHA256, digest};
use hearth_core::platform::FrontDoor;

use crate::instance::{Instance, Node, service, write};
use crate::node::{self, in_network, inside};
use crate::pki::{self, Authority};
use crate::process::Spec;
use crate::secrets;

/// Whether a process waits for nothing.
pub fn waits_for_nothing(name: &str) -> bool {
    ["etcd", "kube-apiserver"].contains(&name) || name.starts_with("containerd")
}

/// Everything that the supervisor keeps running, in the order in which it is started.
/// `configuration` is the text of `platform.toml`, and `front_door` what it says of that.
pub fn processes(instance: &Instance, front_door: &FrontDoor, configuration: &str) -> Vec<Spec> {
    let network = |name: &str, command| spec(name, in_network(instance, Node::FIRST, command));
    let nodes = || instance.network.all_nodes();
    let mut all = vec![network("etcd", etcd(instance)), network("kube-apiserver", api_server(instance))];
    all.extend(nodes().map(|node| containerd(instance, node)));
    all.push(network("kube-controller-manager", controller_manager(instance)));
    all.push(network("kube-scheduler", scheduler(instance)));
    all.extend(nodes().map(|node| kubelet(instance, node)));
    all.extend(
        nodes().map(|node| spec(&node.own("kube-proxy"), in_network(instance, node, kube_proxy(instance, node)))),
    );
    if front_door.uses_ingress() {
        all.extend([spec("balancer", balancer(instance)), spec("haproxy", haproxy(instance))]);
    }
    for (copy, addresses) in instance.front_doors().into_iter().zip(instance.network.front_doors()).enumerate() {
        let name = if copy == 0 { "proxy".to_owned() } else { format!("proxy-{}", copy + 1) };
        let command = front_proxy(instance, &name, addresses);
        let configuration = secrets::hex(digest(&SHA256, configuration.as_bytes()).as_ref());
        all.push(Spec { hands_over: true, configuration, ..spec(&name, command) });
    }
    all.push(spec("bastion-port", bastion_port(instance)));
    all
}

/// Writes the configuration of the control plane.
pub fn configure(instance: &Instance, random: impl Fn() -> anyhow::Result<[u8; 32]>) -> anyhow::Result<()> {
    for name in ["admin", "kube-controller-manager", "kube-scheduler", "kube-proxy", "hearth-proxy", "hearth-balancer"]
    {
        let file = if name == "admin" { "admin.kubeconfig".into() } else { format!("config/{name}.kubeconfig") };
        write(&instance.path(file), kubeconfig(instance, name)?, 0o600)?;
    }
    for node in instance.network.all_nodes() {
        let file = instance.path(node.file("config/kubelet.kubeconfig"));
        write(&file, kubeconfig(instance, &node.own("kubelet"))?, 0o600)?;
    }
    let encryption = instance.path("config/encryption.json");
    if !encryption.exists() {
        use base64::Engine;
        let key = base64::engine::general_purpose::STANDARD.encode(random()?);
        let config = serde_json::json!({
            "apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration",
            "resources": [{"resources": ["secrets"], "providers": [
                {"secretbox": {"keys": [{"name": "first", "secret": key}]}}, {"identity": {}}]}]
        });
        write(&encryption, serde_json::to_string_pretty(&config)?, 0o600)?;
    }
    let audit = serde_json::json!({
        "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "None", "verbs": ["get", "list", "watch"]},
            {"level": "None", "userGroups": ["system:nodes"]},
            {"level": "None", "users": ["system:kube-controller-manager", "system:kube-scheduler", "system:kube-proxy", "system:apiserver"]},
            {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]},
            {"level": "None", "resources": [{"group": "coordination.k8s.io"}, {"group": "", "resources": ["events"]}, {"group": "events.k8s.io"}]},
            {"level": "Metadata"}
        ]
    });
    write(&instance.path("config/audit.json"), serde_json::to_string_pretty(&audit)?, 0o644)?;
    let webhook_client = pki::pair(instance, "webhook-client");
    let webhooks = serde_json::json!({
        "apiVersion": "v1", "kind": "Config",
        "users": [{"name": "*.hearth-system.svc",
                   "user": {"client-certificate": webhook_client.cert, "client-key": webhook_client.key}}]
    });
    write(&instance.path("config/webhooks.kubeconfig"), serde_json::to_string_pretty(&webhooks)?, 0o600)?;
    let admission = serde_json::json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration",
        "plugins": [
            {"name": "MutatingAdmissionWebhook", "configuration": {
                "apiVersion": "apiserver.config.k8s.io/v1", "kind": "WebhookAdmissionConfiguration",
                "kubeConfigFile": instance.path("config/webhooks.kubeconfig")}},
            {"name": "ValidatingAdmissionWebhook", "configuration": {
                "apiVersion": "apiserver.config.k8s.io/v1", "kind": "WebhookAdmissionConfiguration",
                "kubeConfigFile": instance.path("config/webhooks.kubeconfig")}}]
    });
    write(&instance.path("config/admission.json"), serde_json::to_string_pretty(&admission)?, 0o644).map(drop)
}

/// A kubeconfig for one of the instance's own certificates, everything inline.
fn kubeconfig(instance: &Instance, name: &str) -> anyhow::Result<String> {
    use base64::Engine;
    let inline = |path: &std::path::Path| -> anyhow::Result<String> {
        let bytes = std::fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
        Ok(base64::engine::general_purpose::STANDARD.encode(bytes))
    };
    let pair = pki::pair(instance, name);
    let config = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "hearth",
        "clusters": [{"name": "hearth", "cluster": {
            "server": format!("https://{}:6443", instance.network.node()), "tls-server-name": "api.hearth.internal",
            "certificate-authority-data": inline(&Authority::Kubernetes.pair(instance).cert)?}}],
        "users": [{"name": name, "user": {
            "client-certificate-data": inline(&pair.cert)?, "client-key-data": inline(&pair.key)?}}],
        "contexts": [{"name": "hearth", "context": {"cluster": "hearth", "user": name}}]
    });
    Ok(serde_json::to_string_pretty(&config)?)
}

fn spec(name: &str, command: Vec<String>) -> Spec {
    let (environment, configuration) = (Vec::new(), String::new());
    Spec { name: name.to_owned(), command, environment, hands_over: false, configuration }
}

/// A command line of the multi-call program: its name, and flags as pairs.
fn kubernetes(instance: &Instance, program: &str, flags: &[(&str, String)]) -> Vec<String> {
    let mut words = vec![instance.built("kubernetes"), program.to_owned()];
    words.extend(flags.iter().map(|(flag, value)| format!("--{flag}={value}")));
    words
}

fn etcd(instance: &Instance) -> Vec<String> {
    let client = "http://127.0.0.1:2379".to_owned();
    let peer = "http://127.0.0.1:2380".to_owned();
    kubernetes(
        instance,
        "etcd",
        &[
            ("name", Node::FIRST.name()),
            ("data-dir", instance.text("state/etcd")),
            ("listen-client-urls", client.clone()),
            ("advertise-client-urls", client),
            ("listen-peer-urls", peer.clone()),
            ("initial-advertise-peer-urls", peer.clone()),
            ("initial-cluster", format!("{}={peer}", Node::FIRST.name())),
            ("quota-backend-bytes", (8u64 << 30).to_string()),
            ("auto-compaction-mode", "periodic".to_owned()),
            ("auto-compaction-retention", "5m".to_owned()),
            // By what etcd tells of its progress the API server knows that what it serves from memory is current, and
            // tells whoever watches. The default of ten minutes would make quiet kinds look stale to the front door.
            ("watch-progress-notify-interval", "5s".to_owned()),
            ("log-level", "warn".to_owned()),
        ],
    )
}

fn api_server(instance: &Instance) -> Vec<String> {
    let path = |p: std::path::PathBuf| p.display().to_string();
    let (serving, to_kubelet) =
        (pki::pair(instance, "kube-apiserver"), pki::pair(instance, "kube-apiserver-to-kubelet"));
    let (authority, aggregator) = (Authority::Kubernetes.pair(instance), pki::pair(instance, "aggregator"));
    kubernetes(
        instance,
        "kube-apiserver",
        &[
            ("etcd-servers", "http://127.0.0.1:2379".to_owned()),
            ("secure-port", "6443".to_owned()),
            ("advertise-address", instance.network.node().to_string()),
            ("allow-privileged", "true".to_owned()),
            ("authorization-mode", "Node,RBAC".to_owned()),
            ("anonymous-auth", "false".to_owned()),
            ("enable-admission-plugins", "NodeRestriction".to_owned()),
            ("admission-control-config-file", instance.text("config/admission.json")),
            ("encryption-provider-config", instance.text("config/encryption.json")),
            ("audit-policy-file", instance.text("config/audit.json")),
            ("audit-log-path", instance.text("log/audit.log")),
            ("audit-log-maxsize", "50".to_owned()),
            ("audit-log-maxbackup", "3".to_owned()),
            ("client-ca-file", path(authority.cert.clone())),
            ("tls-cert-file", path(serving.cert)),
            ("tls-private-key-file", path(serving.key)),
            ("kubelet-client-certificate", path(to_kubelet.cert)),
            ("kubelet-client-key", path(to_kubelet.key)),
            ("kubelet-certificate-authority", path(authority.cert)),
            ("kubelet-preferred-address-types", "InternalIP".to_owned()),
            ("service-account-issuer", "https://kubernetes.default.svc.cluster.local".to_owned()),
            ("service-account-key-file", instance.text("pki/service-accounts.pub")),
            ("service-account-signing-key-file", instance.text("pki/service-accounts.key")),
            ("requestheader-client-ca-file", path(Authority::FrontProxy.pair(instance).cert)),
            ("requestheader-allowed-names", "aggregator".to_owned()),
            ("requestheader-extra-headers-prefix", "X-Remote-Extra-".to_owned()),
            ("requestheader-group-headers", "X-Remote-Group".to_owned()),
            ("requestheader-username-headers", "X-Remote-User".to_owned()),
            ("proxy-client-cert-file", path(aggregator.cert)),
            ("proxy-client-key-file", path(aggregator.key)),
            ("enable-aggregator-routing", "true".to_owned()),
            ("service-cluster-ip-range", instance.network.services()),
            ("service-node-port-range", "30000-32767".to_owned()),
            ("event-ttl", "1h".to_owned()),
            ("profiling", "false".to_owned()),
        ],
    )
}

/// Flags by which a component of the control plane knows the API, three times.
fn api_client(instance: &Instance, name: &str) -> Vec<(&'static str, String)> {
    let file = instance.text(format!("config/{name}.kubeconfig"));
    vec![
        ("kubeconfig", file.clone()),
        ("authentication-kubeconfig", file.clone()),
        ("authorization-kubeconfig", file),
        ("leader-elect", "false".to_owned()),
        ("bind-address", "127.0.0.1".to_owned()),
        ("profiling", "false".to_owned()),
        // The defaults of 20 a second make endpoints lag by minutes once thousands of tools appear.
        ("kube-api-qps", "500".to_owned()),
        ("kube-api-burst", "1000".to_owned()),
    ]
}

fn controller_manager(instance: &Instance) -> Vec<String> {
    let authority = Authority::Kubernetes.pair(instance);
    let mut flags = api_client(instance, "kube-controller-manager");
    flags.extend([
        ("cluster-signing-cert-file", authority.cert.display().to_string()),
        ("cluster-signing-key-file", authority.key.display().to_string()),
        ("root-ca-file", authority.cert.display().to_string()),
        ("service-account-private-key-file", instance.text("pki/service-accounts.key")),
        ("use-service-account-credentials", "true".to_owned()),
        ("concurrent-namespace-syncs", "50".to_owned()),
        ("concurrent-service-endpoint-syncs", "20".to_owned()),
        ("concurrent-endpoint-syncs", "20".to_owned()),
        ("concurrent-serviceaccount-token-syncs", "20".to_owned()),
        ("allocate-node-cidrs", "false".to_owned()),
        ("cluster-cidr", instance.network.pods()),
        ("service-cluster-ip-range", instance.network.services()),
        ("terminated-pod-gc-threshold", "5000".to_owned()),
    ]);
    kubernetes(instance, "kube-controller-manager", &flags)
}

fn scheduler(instance: &Instance) -> Vec<String> {
    kubernetes(instance, "kube-scheduler", &api_client(instance, "kube-scheduler"))
}

fn containerd(instance: &Instance, node: Node) -> Spec {
    let config = instance.text(node.file("config/containerd.toml"));
    let command = vec![instance.built("containerd"), "--config".into(), config];
    spec(&node.own("containerd"), inside(instance, node, command))
}

fn kubelet(instance: &Instance, node: Node) -> Spec {
    let command = kubernetes(
        instance,
        "kubelet",
        &[
            ("config", instance.text(node.file("config/kubelet.json"))),
            ("kubeconfig", instance.text(node.file("config/kubelet.kubeconfig"))),
            ("hostname-override", node.name()),
            ("node-ip", instance.network.address_of(node).to_string()),
            ("root-dir", instance.text(node.file("state/kubelet"))),
            ("cert-dir", instance.text(node.file("state/kubelet-pki"))),
        ],
    );
    let mut spec = spec(&node.own("kubelet"), inside(instance, node, command));
    spec.environment.push(("CONTAINERD_ADDRESS".to_owned(), node::containerd_socket(instance, node)));
    spec
}

fn kube_proxy(instance: &Instance, node: Node) -> Vec<String> {
    kubernetes(
        instance,
        "kube-proxy",
        &[
            ("kubeconfig", instance.text("config/kube-proxy.kubeconfig")),
            ("proxy-mode", "nftables".to_owned()),
            // In spite of its name for nftables too. By default changes are gathered for up to a second, for which the
            // address of a service waits after its pod is ready; on one machine there are few to gather.
            ("iptables-min-sync-period", "100ms".to_owned()),
            ("cluster-cidr", instance.network.pods()),
            ("hostname-override", node.name()),
            ("conntrack-max-per-core", "0".to_owned()),
            ("bind-address", "0.0.0.0".to_owned()),
            ("metrics-bind-address", "127.0.0.1:10249".to_owned()),
        ],
    )
}

/// A front door at an address of the host and one of the nodes' network: pods come to it too, for tools ask one another
/// by the URLs that everybody knows.
fn front_proxy(instance: &Instance, name: &str, (address, inside): (Ipv4Addr, Ipv4Addr)) -> Vec<String> {
    let (certificate, shown) = (pki::pair(instance, "front-door"), pki::pair(instance, "front-proxy"));
    let flags = [
        ("platform", instance.text("platform.toml")),
        ("kubeconfig", instance.text("config/hearth-proxy.kubeconfig")),
        ("tls-cert", certificate.cert.display().to_string()),
        ("tls-key", certificate.key.display().to_string()),
        ("https", format!("{address}:443")),
        ("https", format!("{inside}:443")),
        ("http", format!("{address}:80")),
        ("http", format!("{inside}:80")),
        ("health", format!("{inside}:9100")),
        ("ingress-ca", instance.text("ca.crt")),
        ("ingress-cert", shown.cert.display().to_string()),
        ("ingress-key", shown.key.display().to_string()),
        ("state", instance.text(format!("state/{name}"))),
        ("blocked", instance.text("blocked.toml")),
    ];
    let mut words = vec![instance.own_program("hearthd"), "proxy".to_owned()];
    words.extend(flags.iter().map(|(flag, value)| format!("--{flag}={value}")));
    words
}

/// The folder of HAProxy's configuration and sockets, which the balancer writes.
const HAPROXY: &str = "state/balancer";

/// What keeps HAProxy's configuration equal to the nodes. Its two ways begin on the nodes' network, which no visitor
/// reaches.
fn balancer(instance: &Instance) -> Vec<String> {
    let (inside, client) = (instance.network.host(), pki::pair(instance, "hearth-balancer"));
    let flags = [
        ("ingress", format!("{inside}:30000")),
        ("api", format!("{inside}:6443")),
        ("stats", format!("{inside}:8404")),
        ("health", format!("{inside}:9102")),
        ("kubeconfig", instance.text("config/hearth-balancer.kubeconfig")),
        ("api-ca", Authority::Kubernetes.pair(instance).cert.display().to_string()),
        ("api-cert", client.cert.display().to_string()),
        ("api-key", client.key.display().to_string()),
        ("user", "haproxy".to_owned()),
        ("state", instance.text(HAPROXY)),
    ];
    let mut words = vec![instance.own_program("hearthd"), "balancer".to_owned()];
    words.extend(flags.iter().map(|(flag, value)| format!("--{flag}={value}")));
    words
}

/// Debian's HAProxy, with the socket by which it is told to reload.
fn haproxy(instance: &Instance) -> Vec<String> {
    let socket = format!("{},mode,600", instance.text(format!("{HAPROXY}/master.sock")));
    let file = instance.text(format!("{HAPROXY}/haproxy.cfg"));
    ["/usr/sbin/haproxy", "-W", "-S", &socket, "-f", &file].map(str::to_owned).to_vec()
}

/// The bastion's ssh on the host: a plain relay, since it lives in the cluster.
fn bastion_port(instance: &Instance) -> Vec<String> {
    vec![
        "socat".to_owned(),
        format!("TCP-LISTEN:2222,bind={},fork,reuseaddr,nodelay", instance.place.address),
        format!("TCP:{}:22,nodelay,connect-timeout=10", instance.network.service(service::BASTION)),
    ]
}
