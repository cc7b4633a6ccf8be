//! The fields that no table lists, and why: what tools may not set, and what lies beside that which is judged.
//!
//! Nothing here decides: a field is refused because no table has it. The lists are the proof that somebody looked.
//! A test holds them and the tables against the schemas of the API server itself, so that a field of a new Kubernetes
//! fails it until it is in a table or here, and so does an entry for a field that there is no more.

/// Fields of one schema, with one reason.
#[derive(Debug)]
pub struct Reviewed {
    /// The schema's name, as in the API server's `OpenAPI`.
    pub schema: &'static str,
    /// Names of its fields.
    pub fields: &'static [&'static str],
    /// Why tools may not set them, or why nobody needs to judge them.
    pub why: &'static str,
}

const fn of(schema: &'static str, fields: &'static [&'static str], why: &'static str) -> Reviewed {
    Reviewed { schema, fields, why }
}

/// Fields of objects that are judged which no table lists, and which are refused therefore.
pub const REFUSED: &[Reviewed] = &[
    of(
        "io.k8s.api.core.v1.PodSpec",
        &["evictionResponders"],
        "names programs that may hold up the emptying of a node, which is the operator's affair",
    ),
    of("io.k8s.api.core.v1.PodSpec", &["nodeName"], "goes past the scheduler to a chosen node, and past its taints"),
    of("io.k8s.api.core.v1.PodSpec", &["overhead"], "is the runtime class's, and changes what quota counts"),
    of("io.k8s.api.core.v1.PodSpec", &["resourceClaims"], "hands devices of the node into the pod"),
    of("io.k8s.api.core.v1.PodSpec", &["runtimeClassName"], "chooses another runtime, with other walls"),
    of("io.k8s.api.core.v1.PodSpec", &["schedulingGates"], "holds a pod back that quota counts already"),
    of("io.k8s.api.core.v1.PodSpec", &["schedulingGroup"], "ties the pod's life and place to another object"),
    of(
        "io.k8s.api.core.v1.PodSecurityContext",
        &["seLinuxOptions", "seLinuxChangePolicy"],
        "chooses another label than the runtime's, also for files that others use",
    ),
    of("io.k8s.api.core.v1.PodSecurityContext", &["sysctls"], "changes the kernel's settings"),
    of("io.k8s.api.core.v1.PodSecurityContext", &["windowsOptions"], "there is no node with Windows"),
    of("io.k8s.api.core.v1.SecurityContext", &["seLinuxOptions"], "chooses another label than the runtime's"),
    of("io.k8s.api.core.v1.SecurityContext", &["windowsOptions"], "there is no node with Windows"),
    of("io.k8s.api.core.v1.Capabilities", &["add"], "a tool's process has no capability"),
    of("io.k8s.api.core.v1.SeccompProfile", &["localhostProfile"], "names a file of the node"),
    of("io.k8s.api.core.v1.AppArmorProfile", &["localhostProfile"], "names a profile of the node"),
    of("io.k8s.api.core.v1.Container", &["volumeDevices"], "hands a device of the node into the container"),
    of("io.k8s.api.core.v1.EphemeralContainer", &["volumeDevices"], "hands a device of the node into the container"),
    of("io.k8s.api.core.v1.ResourceRequirements", &["claims"], "refers to devices, of which a tool has none"),
    of("io.k8s.api.core.v1.HTTPGetAction", &["protocol"], "alpha: the kubelet's probes speak what they always did"),
    of("io.k8s.api.core.v1.LifecycleHandler", &["tcpSocket"], "has a host, and no kubelet has acted on it for years"),
    of("io.k8s.api.core.v1.VolumeMount", &["bindMountOptions"], "alpha: options of mount(8), not looked at yet"),
    of(
        "io.k8s.api.core.v1.Volume",
        &[
            "awsElasticBlockStore",
            "azureDisk",
            "azureFile",
            "cephfs",
            "cinder",
            "fc",
            "flexVolume",
            "flocker",
            "gcePersistentDisk",
            "glusterfs",
            "iscsi",
            "nfs",
            "photonPersistentDisk",
            "portworxVolume",
            "quobyte",
            "rbd",
            "scaleIO",
            "storageos",
            "vsphereVolume",
        ],
        "has the node, as root, mount something that the tool names",
    ),
    of("io.k8s.api.core.v1.Volume", &["csi"], "speaks to a driver on the node with what the tool names"),
    of("io.k8s.api.core.v1.Volume", &["ephemeral"], "has a controller make a claim that the tool may not make itself"),
    of("io.k8s.api.core.v1.Volume", &["gitRepo"], "has the node, as root, run git on what the tool names"),
    of("io.k8s.api.core.v1.ProjectedVolumeSource", &["defaultUser"], "alpha: files of another owner than the tool"),
    of("io.k8s.api.core.v1.ServiceAccountTokenProjection", &["user"], "alpha: files of another owner than the tool"),
    of(
        "io.k8s.api.core.v1.VolumeProjection",
        &["clusterTrustBundle", "podCertificate"],
        "is a matter of the cluster's signers, which sign nothing for tools' pods",
    ),
    of(
        "io.k8s.api.core.v1.ServiceSpec",
        &["externalIPs", "externalName"],
        "takes addresses, or names, that are not the cluster's to give",
    ),
    of(
        "io.k8s.api.core.v1.ServiceSpec",
        &[
            "allocateLoadBalancerNodePorts",
            "healthCheckNodePort",
            "loadBalancerClass",
            "loadBalancerIP",
            "loadBalancerSourceRanges",
        ],
        "belongs to kinds of services that tools do not have",
    ),
    of("io.k8s.api.networking.v1.IngressSpec", &["defaultBackend"], "would answer for every host"),
    of("io.k8s.api.networking.v1.IngressTLS", &["secretName"], "certificates are the front door's"),
    of("io.k8s.api.networking.v1.IngressBackend", &["resource"], "the front door knows no backend but services"),
    of(
        "io.k8s.api.core.v1.PodAffinityTerm",
        &["namespaceSelector", "namespaces"],
        "reaches pods of others: a scheduler keeps those away too that a tool keeps away from",
    ),
    of(
        "io.k8s.api.apps.v1.StatefulSetSpec",
        &["volumeClaimTemplates"],
        "has a controller make claims that the tool may not make itself",
    ),
    of("io.k8s.api.batch.v1.JobSpec", &["managedBy"], "leaves the job to a controller that nobody has"),
    of(
        "io.k8s.api.batch.v1.JobSpec",
        &["backoffLimitPerIndex", "maxFailedIndexes"],
        "has the API server set the number of attempts to the highest there is",
    ),
    of("io.k8s.api.batch.v1.JobSpec", &["scheduling"], "alpha: ties the job's pods to other objects"),
    of(
        "io.k8s.api.policy.v1.PodDisruptionBudgetSpec",
        &["minAvailable"],
        "of one pod means that its node can never be emptied",
    ),
];

/// Fields of judged kinds that lie beside the parts that tables are about, and are left alone.
pub const BESIDE: &[Reviewed] = &[of(
    "io.k8s.api.core.v1.ConfigMap",
    &["binaryData", "data", "immutable"],
    "is the tool's own content; only the metadata can hold anything up",
)];
