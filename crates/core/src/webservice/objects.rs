//! The objects of a web service: a Deployment, a Service and an Ingress, complete.
//!
//! Nothing is left for admission to fill in, so what `kubectl get` shows is what was asked for. Names and labels are
//! the original's newest; the probes and the rolling strategy are what it lacked.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::networking::v1 as net;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{CONTAINER, Cpu, MANAGER, Memory, RUNNER, STARTED_AT, Settings};
use crate::image::ImageRef;
use crate::names::{INGRESS_CLASS, WEB_PORT, label};
use crate::{Platform, ToolName};

/// The label that says what part of a tool an object is, `web` here.
const COMPONENT: &str = "app.kubernetes.io/component";

/// For how many seconds a starting program may keep from answering on its port before it is started again.
const STARTUP_SECONDS: i32 = 120;

/// For how many seconds a program may finish what it is answering.
const STOP_SECONDS: i64 = 10;

/// Who a tool is, as its pods need to know.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// The tool.
    pub tool: &'a ToolName,
    /// Its user number, and its group number likewise.
    pub uid: u32,
    /// The installation.
    pub platform: &'a Platform,
}

/// What `webservice start` makes.
#[derive(Clone, Debug, PartialEq)]
pub struct Objects {
    /// Keeps the pods.
    pub deployment: Deployment,
    /// Names the pods that answer.
    pub service: core::Service,
    /// Gives them the tool's own hosts.
    pub ingress: net::Ingress,
}

impl Objects {
    /// The objects of a web service with these settings. Another `started_at` starts new pods, one after the other.
    pub fn new(owner: Owner<'_>, settings: &Settings, image: &ImageRef, started_at: Timestamp) -> Self {
        Self {
            deployment: deployment(owner, settings, image, started_at),
            service: service(owner),
            ingress: ingress(owner),
        }
    }
}

/// The name of a tool's Ingress.
pub fn ingress_name(tool: &ToolName) -> String {
    format!("{tool}-subdomain")
}

/// The labels of all objects of a tool's web service, and of its pods.
pub fn labels(tool: &ToolName) -> BTreeMap<String, String> {
    map([(COMPONENT, "web"), (label::MANAGED_BY, MANAGER), (label::TOOLFORGE, "tool"), (label::NAME, tool.as_str())])
}

/// The labels, as a selector in a request.
pub fn selector(tool: &ToolName) -> String {
    labels(tool).iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// Whether an object was made by this command, and not by hand or by another program. Objects of the original carry
/// `tools.wmflabs.org/webservice`.
pub fn is_ours(meta: &ObjectMeta) -> bool {
    let labels = meta.labels.as_ref();
    let has = |key: &str, value: &str| labels.and_then(|l| l.get(key)).is_some_and(|v| v == value);
    has(label::MANAGED_BY, MANAGER) || has("tools.wmflabs.org/webservice", "true")
}

/// The type of a running web service, read from its container's command.
pub fn kind(deployment: &Deployment) -> Option<&str> {
    let pod = deployment.spec.template.spec.as_ref()?;
    let command = pod.containers.iter().find(|c| c.name == CONTAINER)?.command.as_ref()?;
    let mut words = command.iter().map(String::as_str);
    words.find(|word| *word == "--type")?;
    words.next()
}

// === the three objects ===

fn deployment(owner: Owner<'_>, settings: &Settings, image: &ImageRef, started_at: Timestamp) -> Deployment {
    let labels = labels(owner.tool);
    Deployment {
        metadata: meta(owner.tool, owner.tool.as_str()),
        spec: DeploymentSpec {
            replicas: i32::try_from(settings.replicas).ok(),
            selector: LabelSelector { match_labels: Some(labels.clone()), match_expressions: None },
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(1)),
                    max_unavailable: Some(IntOrString::Int(0)),
                }),
            }),
            template: core::PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels),
                    annotations: Some(map([(STARTED_AT, started_at.to_string().as_str())])),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod(owner, settings, image)),
            },
            ..DeploymentSpec::default()
        },
        status: None,
    }
}

fn service(owner: Owner<'_>) -> core::Service {
    core::Service {
        metadata: meta(owner.tool, owner.tool.as_str()),
        spec: Some(core::ServiceSpec {
            selector: Some(map([(label::NAME, owner.tool.as_str())])),
            ports: Some(vec![core::ServicePort {
                name: Some("http".to_owned()),
                port: i32::from(WEB_PORT),
                protocol: Some("TCP".to_owned()),
                target_port: Some(IntOrString::Int(i32::from(WEB_PORT))),
                ..core::ServicePort::default()
            }]),
            type_: Some("ClusterIP".to_owned()),
            ..core::ServiceSpec::default()
        }),
        status: None,
    }
}

fn ingress(owner: Owner<'_>) -> net::Ingress {
    let backend = net::IngressBackend {
        service: Some(net::IngressServiceBackend {
            name: owner.tool.to_string(),
            port: Some(net::ServiceBackendPort { name: None, number: Some(i32::from(WEB_PORT)) }),
        }),
        resource: None,
    };
    let path = net::HTTPIngressPath { path: Some("/".to_owned()), path_type: "Prefix".to_owned(), backend };
    let rule = |host: crate::Host| net::IngressRule {
        host: Some(host.to_string()),
        http: Some(net::HTTPIngressRuleValue { paths: vec![path.clone()] }),
    };
    net::Ingress {
        metadata: meta(owner.tool, &ingress_name(owner.tool)),
        spec: Some(net::IngressSpec {
            ingress_class_name: Some(INGRESS_CLASS.to_owned()),
            rules: Some(owner.platform.domains.hosts_of(owner.tool).into_iter().map(rule).collect()),
            ..net::IngressSpec::default()
        }),
        status: None,
    }
}

// === the pod ===

fn pod(owner: Owner<'_>, settings: &Settings, image: &ImageRef) -> core::PodSpec {
    let id = Some(i64::from(owner.uid));
    let on_node = |name: String, path: String, kind: Option<&str>| core::Volume {
        name,
        host_path: Some(core::HostPathVolumeSource { path, type_: kind.map(str::to_owned) }),
        ..core::Volume::default()
    };
    let home = on_node("home".to_owned(), owner.platform.homes.of(owner.tool), Some("Directory"));
    let tmp = core::Volume {
        name: "tmp".to_owned(),
        empty_dir: Some(core::EmptyDirVolumeSource::default()),
        ..core::Volume::default()
    };
    let listed = owner.platform.mounts.iter().enumerate();
    let listed = listed.map(|(index, mount)| on_node(mount.volume(index), mount.path.clone(), None));
    core::PodSpec {
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        containers: vec![container(owner, settings, image)],
        security_context: Some(core::PodSecurityContext {
            run_as_user: id,
            run_as_group: id,
            fs_group: id,
            run_as_non_root: Some(true),
            supplemental_groups_policy: Some("Strict".to_owned()),
            seccomp_profile: Some(seccomp()),
            ..core::PodSecurityContext::default()
        }),
        termination_grace_period_seconds: Some(STOP_SECONDS),
        volumes: Some([home, tmp].into_iter().chain(listed).collect()),
        ..core::PodSpec::default()
    }
}

fn container(owner: Owner<'_>, settings: &Settings, image: &ImageRef) -> core::Container {
    let home = owner.platform.homes.of(owner.tool);
    let port = WEB_PORT.to_string();
    let id = Some(i64::from(owner.uid));
    let command = [RUNNER, "--type", &settings.kind, "--port", &port].map(str::to_owned);
    let env = [("HOME", &home), ("TOOL_DATA_DIR", &home), ("PORT", &port), ("TOOL_WEB_PORT", &port)];
    let mount = |name: &str, path: &str| core::VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        ..core::VolumeMount::default()
    };
    let listed = owner.platform.mounts.iter().enumerate().map(|(index, listed)| core::VolumeMount {
        read_only: listed.read_only.then_some(true),
        ..mount(&listed.volume(index), &listed.path)
    });
    core::Container {
        name: CONTAINER.to_owned(),
        image: Some(image.to_string()),
        image_pull_policy: Some(if image.digest().is_some() { "IfNotPresent" } else { "Always" }.to_owned()),
        command: Some(command.into_iter().chain(settings.extra_args.iter().cloned()).collect()),
        env: Some(
            env.map(|(name, value)| core::EnvVar {
                name: name.to_owned(),
                value: Some(value.clone()),
                ..core::EnvVar::default()
            })
            .to_vec(),
        ),
        ports: Some(vec![core::ContainerPort {
            name: Some("http".to_owned()),
            container_port: i32::from(WEB_PORT),
            protocol: Some("TCP".to_owned()),
            ..core::ContainerPort::default()
        }]),
        readiness_probe: Some(probe(3)),
        startup_probe: Some(probe(STARTUP_SECONDS)),
        resources: Some(resources(settings)),
        security_context: Some(core::SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(core::Capabilities { add: None, drop: Some(vec!["ALL".to_owned()]) }),
            privileged: Some(false),
            read_only_root_filesystem: Some(true),
            run_as_user: id,
            run_as_group: id,
            run_as_non_root: Some(true),
            seccomp_profile: Some(seccomp()),
            ..core::SecurityContext::default()
        }),
        volume_mounts: Some([mount("home", &home), mount("tmp", "/tmp")].into_iter().chain(listed).collect()),
        working_dir: Some(home.clone()),
        ..core::Container::default()
    }
}

/// Whether something accepts connections on the port, asked every second.
fn probe(failures: i32) -> core::Probe {
    core::Probe {
        tcp_socket: Some(core::TCPSocketAction { host: None, port: IntOrString::Int(i32::from(WEB_PORT)) }),
        period_seconds: Some(1),
        timeout_seconds: Some(1),
        success_threshold: Some(1),
        failure_threshold: Some(failures),
        ..core::Probe::default()
    }
}

fn resources(settings: &Settings) -> core::ResourceRequirements {
    let amounts = |cpu: Cpu, memory: Memory| {
        BTreeMap::from([
            ("cpu".to_owned(), Quantity(cpu.to_string())),
            ("memory".to_owned(), Quantity(memory.to_string())),
        ])
    };
    let limit = (
        settings.cpu.clone().unwrap_or_else(Cpu::default_limit),
        settings.memory.clone().unwrap_or_else(Memory::default_limit),
    );
    let request = (Cpu::request(settings.cpu.as_ref()), Memory::request(settings.memory.as_ref()));
    core::ResourceRequirements {
        limits: Some(amounts(limit.0, limit.1)),
        requests: Some(amounts(request.0, request.1)),
        ..core::ResourceRequirements::default()
    }
}

fn seccomp() -> core::SeccompProfile {
    core::SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }
}

fn meta(tool: &ToolName, name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(tool.namespace()),
        labels: Some(labels(tool)),
        ..ObjectMeta::default()
    }
}

fn map<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PLATFORM: &str = r#"
        [domains]
        public = ["hearth.localhost", "tools.example"]
        legacy = "tools.hearth.localhost"
        [api]
        server = "https://10.88.0.2:6443"
        [directory]
        url = "ldaps://ldap.hearth.internal"
        base = "dc=hearth,dc=internal"
        bind_dn = "cn=reader,dc=hearth,dc=internal"
        [registry]
        host = "registry.hearth.internal"
    "#;

    fn objects(settings: &Settings) -> Objects {
        let platform = Platform::from_toml(PLATFORM).unwrap();
        let tool: ToolName = "wikibot".parse().unwrap();
        let owner = Owner { tool: &tool, uid: 50001, platform: &platform };
        let image = "registry.hearth.internal/hearth/static".parse().unwrap();
        Objects::new(owner, settings, &image, "2026-11-22T18:00:00.25Z".parse().unwrap())
    }

    fn settings() -> Settings {
        Settings { kind: "static".to_owned(), cpu: None, memory: None, replicas: 1, extra_args: vec![] }
    }

    fn labels() -> serde_json::Value {
        json!({
            "app.kubernetes.io/component": "web", "app.kubernetes.io/managed-by": "webservice",
            "name": "wikibot", "toolforge": "tool",
        })
    }

    fn container() -> serde_json::Value {
        let probe = |failures: i32| {
            json!({
                "tcpSocket": {"port": 8000}, "periodSeconds": 1, "timeoutSeconds": 1,
                "successThreshold": 1, "failureThreshold": failures,
            })
        };
        json!({
            "name": "webservice",
            "image": "registry.hearth.internal/hearth/static",
            "imagePullPolicy": "Always",
            "command": ["/usr/bin/webservice-runner", "--type", "static", "--port", "8000"],
            "workingDir": "/data/project/wikibot",
            "env": [
                {"name": "HOME", "value": "/data/project/wikibot"},
                {"name": "TOOL_DATA_DIR", "value": "/data/project/wikibot"},
                {"name": "PORT", "value": "8000"},
                {"name": "TOOL_WEB_PORT", "value": "8000"},
            ],
            "ports": [{"name": "http", "containerPort": 8000, "protocol": "TCP"}],
            "readinessProbe": probe(3),
            "startupProbe": probe(120),
            "resources": {
                "limits": {"cpu": "500m", "memory": "512Mi"},
                "requests": {"cpu": "125m", "memory": "256Mi"},
            },
            "securityContext": {
                "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "privileged": false,
                "readOnlyRootFilesystem": true, "runAsUser": 50001, "runAsGroup": 50001, "runAsNonRoot": true,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "volumeMounts": [
                {"name": "home", "mountPath": "/data/project/wikibot"}, {"name": "tmp", "mountPath": "/tmp"},
            ],
        })
    }

    #[test]
    fn the_deployment_is_complete() {
        let made = serde_json::to_value(objects(&settings()).deployment).unwrap();
        let pod = json!({
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "securityContext": {
                "runAsUser": 50001, "runAsGroup": 50001, "fsGroup": 50001, "runAsNonRoot": true,
                "supplementalGroupsPolicy": "Strict", "seccompProfile": {"type": "RuntimeDefault"},
            },
            "terminationGracePeriodSeconds": 10,
            "volumes": [
                {"name": "home", "hostPath": {"path": "/data/project/wikibot", "type": "Directory"}},
                {"name": "tmp", "emptyDir": {}},
            ],
            "containers": [container()],
        });
        let annotations = json!({"toolforge.org/started-at": "2026-11-22T18:00:00.25Z"});
        let expected = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "wikibot", "namespace": "tool-wikibot", "labels": labels()},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": labels()},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
                "template": {"metadata": {"labels": labels(), "annotations": annotations}, "spec": pod},
            },
        });
        assert_eq!(made, expected, "made:\n{made:#}");
    }

    #[test]
    fn listed_mounts_are_in_the_pod() {
        let mounts = "[[mounts]]\npath = \"/public/dumps\"\n[[mounts]]\npath = \"/data/scratch\"\nread_only = false";
        let platform = Platform::from_toml(&format!("{PLATFORM}\n{mounts}")).unwrap();
        let tool: ToolName = "wikibot".parse().unwrap();
        let owner = Owner { tool: &tool, uid: 50001, platform: &platform };
        let image = "registry.hearth.internal/hearth/static".parse().unwrap();
        let made = serde_json::to_value(pod(owner, &settings(), &image)).unwrap();
        assert_eq!(made["volumes"][2], json!({"name": "mount-0-public-dumps", "hostPath": {"path": "/public/dumps"}}));
        assert_eq!(
            made["containers"][0]["volumeMounts"].as_array().unwrap()[2..],
            [
                json!({"name": "mount-0-public-dumps", "mountPath": "/public/dumps", "readOnly": true}),
                json!({"name": "mount-1-data-scratch", "mountPath": "/data/scratch"}),
            ]
        );
    }

    #[test]
    fn service_and_ingress_lead_to_the_pods() {
        let objects = objects(&settings());
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "wikibot", "namespace": "tool-wikibot", "labels": labels()},
            "spec": {
                "type": "ClusterIP", "selector": {"name": "wikibot"},
                "ports": [{"name": "http", "port": 8000, "protocol": "TCP", "targetPort": 8000}],
            },
        });
        assert_eq!(serde_json::to_value(&objects.service).unwrap(), service);
        let rule = |host: &str| {
            let backend = json!({"service": {"name": "wikibot", "port": {"number": 8000}}});
            json!({"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}})
        };
        let ingress = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {"name": "wikibot-subdomain", "namespace": "tool-wikibot", "labels": labels()},
            "spec": {
                "ingressClassName": "hearth",
                "rules": [rule("wikibot.hearth.localhost"), rule("wikibot.tools.example")],
            },
        });
        assert_eq!(serde_json::to_value(&objects.ingress).unwrap(), ingress);
    }

    #[test]
    fn what_was_asked_for_is_in_the_container() {
        let settings = Settings {
            cpu: Some("1".parse().unwrap()),
            memory: Some("1Gi".parse().unwrap()),
            replicas: 2,
            extra_args: vec!["--index".to_owned()],
            ..settings()
        };
        let deployment = objects(&settings).deployment;
        assert_eq!(kind(&deployment), Some("static"));
        let made = serde_json::to_value(deployment).unwrap();
        let container = &made["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(made["spec"]["replicas"], 2);
        assert_eq!(container["command"][5], "--index");
        assert_eq!(
            container["resources"],
            json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "512Mi"}})
        );
    }

    #[test]
    fn objects_of_others_are_told_apart() {
        let tool: ToolName = "wikibot".parse().unwrap();
        let with =
            |labels: &[(&str, &str)]| ObjectMeta { labels: Some(map(labels.iter().copied())), ..ObjectMeta::default() };
        assert!(is_ours(&meta(&tool, "wikibot")));
        assert!(is_ours(&with(&[("tools.wmflabs.org/webservice", "true")])));
        assert!(!is_ours(&with(&[("app.kubernetes.io/managed-by", "toolforge-jobs-framework")])));
        assert!(!is_ours(&ObjectMeta::default()));
    }
}
