//! Pods: the fields of a pod's specification, in a pod or in a template.
//!
//! A tool's processes have its own user and group number, no privilege and no way to gain one, see of the node only
//! the tool's own home and what the configuration lists, and run images of the configured registries. A field that is
//! not here is refused: among them the node's devices and claims, `nodeName`, `runtimeClassName`, `schedulingGates`,
//! raw block devices, `sysctls`, `seLinuxOptions` and every kind of volume that mounts something from outside the
//! namespace.
//!
//! Service accounts: a pod runs as the `default` account of its namespace, to which nothing is granted, so its token
//! for the API server is harmless, or as one that an operator names on the namespace; a token for another audience
//! could be taken for someone else's and is refused.

use super::super::node::{always, any, checked, each, filled};
use super::super::{Field, Listed, Node, Rule};
use super::Section;

/// A pod.
pub(super) const SECTIONS: &[Section] = &[
    Section { at: &["spec"], open: false, fields: POD },
    Section { at: &["metadata"], open: true, fields: POD_METADATA },
];

/// What stands beside it.
pub(super) const POD_METADATA: &[Field] = &[
    checked("annotations", Rule::Annotation, Node::Annotations { under: ANNOTATION_PREFIXES, keys: ANNOTATIONS }),
    checked("finalizers", Rule::Finalizer, Node::Added(FINALIZERS)),
];

/// Prefixes of annotations that nothing on a node reads. Container runtimes, networks and autoscalers take orders from
/// annotations of pods, so all others are refused.
const ANNOTATION_PREFIXES: &[&str] = &[
    "batch.kubernetes.io/",
    "checksum/",
    "kubectl.kubernetes.io/",
    "meta.helm.sh/",
    "prometheus.io/",
    "toolforge.org/",
];

const ANNOTATIONS: &[&str] = &[
    // Which of a ReplicaSet's pods end first.
    "controller.kubernetes.io/pod-deletion-cost",
    "kubernetes.io/change-cause",
    "kubernetes.io/description",
    // What the API server itself notes when it sets limits.
    "kubernetes.io/limit-ranger",
];

/// Those of the job controller and of the garbage collector. Any other would keep a pod for ever.
const FINALIZERS: &[&str] = &["batch.kubernetes.io/job-tracking", "foregroundDeletion", "orphan"];

/// For how many seconds a pod may take to end: so long does it hold up a node that is to be emptied.
const LONGEST_GRACE: i64 = 300;

/// For how many seconds a pod stays on a node that does not answer, as the API server sets it.
const LONGEST_TOLERATION: i64 = 300;

const CONTAINERS: Node = each("name", &Node::Object(CONTAINER));

/// The specification of a pod.
pub(super) const POD: &[Field] = &[
    any("activeDeadlineSeconds"),
    checked("affinity", Rule::Scheduling, Node::Object(AFFINITY)),
    any("automountServiceAccountToken"),
    checked("containers", Rule::Field, CONTAINERS),
    checked("initContainers", Rule::Field, CONTAINERS),
    checked("ephemeralContainers", Rule::Field, CONTAINERS),
    any("dnsConfig"),
    any("dnsPolicy"),
    any("enableServiceLinks"),
    any("hostAliases"),
    checked("hostIPC", Rule::Node, Node::Is(false)),
    checked("hostNetwork", Rule::Node, Node::Is(false)),
    checked("hostPID", Rule::Node, Node::Is(false)),
    checked("hostUsers", Rule::Node, Node::Is(true)),
    any("hostname"),
    any("hostnameOverride"),
    any("imagePullSecrets"),
    any("nodeSelector"),
    any("os"),
    // The API server sets both from the class, and refuses what differs from it.
    any("preemptionPolicy"),
    any("priority"),
    checked("priorityClassName", Rule::Scheduling, Node::Listed(Listed::PriorityClass)),
    any("readinessGates"),
    checked("resources", Rule::Resources, Node::Object(RESOURCES)),
    any("restartPolicy"),
    checked("schedulerName", Rule::Scheduling, Node::OneOf(&["default-scheduler"])),
    filled("securityContext", Rule::Identity, Node::Object(POD_SECURITY)),
    checked("serviceAccount", Rule::Account, Node::Listed(Listed::Account)),
    checked("serviceAccountName", Rule::Account, Node::Listed(Listed::Account)),
    any("setHostnameAsFQDN"),
    any("shareProcessNamespace"),
    any("subdomain"),
    checked("terminationGracePeriodSeconds", Rule::Scheduling, Node::AtMost(LONGEST_GRACE)),
    checked("tolerations", Rule::Scheduling, each("key", &Node::Object(TOLERATION))),
    any("topologySpreadConstraints"),
    checked("volumes", Rule::Volume, each("name", &Node::Object(VOLUME))),
];

const RUNTIME_DEFAULT: &[Field] = &[always("type", Rule::Privilege, Node::OneOf(&["RuntimeDefault"]))];

const POD_SECURITY: &[Field] = &[
    checked("appArmorProfile", Rule::Privilege, Node::Object(RUNTIME_DEFAULT)),
    filled("fsGroup", Rule::Identity, Node::Uid),
    any("fsGroupChangePolicy"),
    filled("runAsUser", Rule::Identity, Node::Uid),
    filled("runAsGroup", Rule::Identity, Node::Uid),
    checked("runAsNonRoot", Rule::Identity, Node::Is(true)),
    filled("seccompProfile", Rule::Privilege, Node::Object(RUNTIME_DEFAULT)),
    checked("supplementalGroups", Rule::Identity, each("", &Node::Uid)),
    // By default the runtime adds groups from the image's own /etc/group, where another tool's number may stand, or 0.
    filled("supplementalGroupsPolicy", Rule::Identity, Node::OneOf(&["Strict"])),
];

/// Where a pod may be beside which others. The scheduler keeps to a pod's required anti-affinity for all later pods, so
/// terms select among the namespace's own pods only: not by `namespaces` nor by `namespaceSelector`.
const AFFINITY: &[Field] = &[
    any("nodeAffinity"),
    checked("podAffinity", Rule::Scheduling, Node::Object(POD_AFFINITY)),
    checked("podAntiAffinity", Rule::Scheduling, Node::Object(POD_AFFINITY)),
];

const POD_AFFINITY: &[Field] = &[
    checked(
        "preferredDuringSchedulingIgnoredDuringExecution",
        Rule::Scheduling,
        each("", &Node::Object(WEIGHTED_TERM)),
    ),
    checked("requiredDuringSchedulingIgnoredDuringExecution", Rule::Scheduling, each("", &Node::Object(TERM))),
];

const WEIGHTED_TERM: &[Field] = &[checked("podAffinityTerm", Rule::Scheduling, Node::Object(TERM)), any("weight")];

const TERM: &[Field] = &[any("labelSelector"), any("matchLabelKeys"), any("mismatchLabelKeys"), any("topologyKey")];

/// Those that the API server itself gives to every pod, and no longer.
const TOLERATION: &[Field] = &[
    always("effect", Rule::Scheduling, Node::OneOf(&["NoExecute"])),
    always("key", Rule::Scheduling, Node::OneOf(&["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"])),
    any("operator"),
    always("tolerationSeconds", Rule::Scheduling, Node::AtMost(LONGEST_TOLERATION)),
    any("value"),
];

/// The node's devices are extended resources, by names of their own.
const RESOURCES: &[Field] = &[
    checked("limits", Rule::Resources, Node::KeysWithin(&["cpu", "memory", "ephemeral-storage"])),
    checked("requests", Rule::Resources, Node::KeysWithin(&["cpu", "memory", "ephemeral-storage"])),
];

const CONTAINER: &[Field] = &[
    any("args"),
    any("command"),
    any("env"),
    any("envFrom"),
    checked("image", Rule::Image, Node::Image),
    any("imagePullPolicy"),
    checked("lifecycle", Rule::Node, Node::Object(LIFECYCLE)),
    checked("livenessProbe", Rule::Node, Node::Object(PROBE)),
    any("name"),
    checked("ports", Rule::Node, each("name", &Node::Object(PORT))),
    checked("readinessProbe", Rule::Node, Node::Object(PROBE)),
    any("resizePolicy"),
    checked("resources", Rule::Resources, Node::Object(RESOURCES)),
    any("restartPolicy"),
    any("restartPolicyRules"),
    filled("securityContext", Rule::Privilege, Node::Object(CONTAINER_SECURITY)),
    checked("startupProbe", Rule::Node, Node::Object(PROBE)),
    any("stdin"),
    any("stdinOnce"),
    any("targetContainerName"),
    any("terminationMessagePath"),
    any("terminationMessagePolicy"),
    any("tty"),
    checked(
        "volumeMounts",
        Rule::Volume,
        each("name", &Node::All(&[Node::Object(MOUNT), Node::Listed(Listed::Mount)])),
    ),
    any("workingDir"),
];

const CONTAINER_SECURITY: &[Field] = &[
    filled("allowPrivilegeEscalation", Rule::Privilege, Node::Is(false)),
    checked("appArmorProfile", Rule::Privilege, Node::Object(RUNTIME_DEFAULT)),
    filled("capabilities", Rule::Privilege, Node::Object(&[filled("drop", Rule::Privilege, Node::Has("ALL"))])),
    checked("privileged", Rule::Privilege, Node::Is(false)),
    checked("procMount", Rule::Privilege, Node::OneOf(&["Default"])),
    any("readOnlyRootFilesystem"),
    checked("runAsGroup", Rule::Identity, Node::Uid),
    checked("runAsNonRoot", Rule::Identity, Node::Is(true)),
    checked("runAsUser", Rule::Identity, Node::Uid),
    checked("seccompProfile", Rule::Privilege, Node::Object(RUNTIME_DEFAULT)),
];

const PORT: &[Field] = &[
    any("containerPort"),
    checked("hostIP", Rule::Node, Node::OneOf(&[""])),
    checked("hostPort", Rule::Node, Node::Zero),
    any("name"),
    any("protocol"),
];

/// Probes and hooks are sent by the kubelet, from the node's own address: without a host they reach the pod only.
const PROBE: &[Field] = &[
    any("exec"),
    any("failureThreshold"),
    any("grpc"),
    checked("httpGet", Rule::Node, Node::Object(HTTP_GET)),
    any("initialDelaySeconds"),
    any("periodSeconds"),
    any("successThreshold"),
    checked("tcpSocket", Rule::Node, Node::Object(&[checked("host", Rule::Node, Node::OneOf(&[""])), any("port")])),
    checked("terminationGracePeriodSeconds", Rule::Scheduling, Node::AtMost(LONGEST_GRACE)),
    any("timeoutSeconds"),
];

const HTTP_GET: &[Field] =
    &[checked("host", Rule::Node, Node::OneOf(&[""])), any("httpHeaders"), any("path"), any("port"), any("scheme")];

const LIFECYCLE: &[Field] = &[
    checked("postStart", Rule::Node, Node::Object(HOOK)),
    checked("preStop", Rule::Node, Node::Object(HOOK)),
    any("stopSignal"),
];

const HOOK: &[Field] = &[any("exec"), checked("httpGet", Rule::Node, Node::Object(HTTP_GET)), any("sleep")];

const MOUNT: &[Field] = &[
    any("mountPath"),
    checked("mountPropagation", Rule::Volume, Node::OneOf(&["", "None"])),
    any("name"),
    any("readOnly"),
    any("recursiveReadOnly"),
    any("subPath"),
    any("subPathExpr"),
];

const VOLUME: &[Field] = &[
    any("configMap"),
    any("downwardAPI"),
    any("emptyDir"),
    checked("hostPath", Rule::Volume, Node::Object(HOST_PATH)),
    checked("image", Rule::Image, Node::Object(IMAGE_VOLUME)),
    any("name"),
    any("persistentVolumeClaim"),
    checked("projected", Rule::Volume, Node::Object(PROJECTED)),
    any("secret"),
];

/// The home and the listed paths only, and not of a kind that would make them: a path below them could be a link that
/// leads out.
const HOST_PATH: &[Field] = &[
    always("path", Rule::Volume, Node::Listed(Listed::Path)),
    checked("type", Rule::Volume, Node::OneOf(&["", "Directory"])),
];

const IMAGE_VOLUME: &[Field] = &[any("pullPolicy"), checked("reference", Rule::Image, Node::Image)];

const PROJECTED: &[Field] =
    &[any("defaultMode"), checked("sources", Rule::Volume, each("", &Node::Object(PROJECTION)))];

const PROJECTION: &[Field] = &[
    any("configMap"),
    any("downwardAPI"),
    any("secret"),
    checked(
        "serviceAccountToken",
        Rule::Account,
        Node::Object(&[checked("audience", Rule::Account, Node::OneOf(&[""])), any("expirationSeconds"), any("path")]),
    ),
];
