//! Names that other parts, users and their scripts depend on, in one place.

/// Who writes an object, for server-side apply and for telling our objects from others'.
pub const FIELD_MANAGER: &str = "hearth-accounts";

/// The namespace of the platform's own roles.
pub const PLATFORM_NAMESPACE: &str = "hearth-system";

/// The namespace whose `ConfigMaps` everyone with an account may read.
pub const PUBLIC_NAMESPACE: &str = "hearth-public";

/// The namespace of the grid's routes, in which only the registrar writes.
pub const GRID_NAMESPACE: &str = "hearth-grid";

/// By whom a route to the grid is kept, as its slice says.
pub const REGISTRAR: &str = "registrar.hearth.internal";

/// Who the registrar is to the API server: the subject of its certificate.
pub const REGISTRAR_USER: &str = "hearth:registrar";

/// Namespaces in which anything is allowed, beside those of the configuration.
pub const PRIVILEGED_NAMESPACES: &[&str] = &["kube-system"];

/// Namespaces whose pods have no privilege but what their role is listed for, beside those of the configuration. In all
/// but the first nothing of Hearth's runs. Every other namespace is judged as a tool's.
pub const PLATFORM_NAMESPACES: &[&str] =
    &[PLATFORM_NAMESPACE, PUBLIC_NAMESPACE, GRID_NAMESPACE, "default", "kube-node-lease", "kube-public"];

/// The tool that answers for hosts and tools without a web service.
pub const FOUROHFOUR: &str = "fourohfour";

/// The `IngressClass` of the front door.
pub const INGRESS_CLASS: &str = "hearth";

/// The `Gateway` of the front door, in the platform's namespace.
pub const GATEWAY: &str = "hearth";

/// The group of every tool's certificate, and its subject's first organisation.
pub const TOOLS_GROUP: &str = "toolforge";

/// The group of administrators.
pub const ADMINS_GROUP: &str = "admins";

/// The `ClusterRole` that a tool holds in its own namespace.
pub const TOOLS_ROLE: &str = "tools-user";

/// The `ClusterRole` with which administrators act as somebody else: all their power.
pub const ADMINS_ROLE: &str = "k8s-admin";

/// The `ClusterRole` with which administrators look into all namespaces but not at secrets.
pub const VIEW_ROLE: &str = "view";

/// The port on which a web service listens, as `PORT` and `TOOL_WEB_PORT` say.
pub const WEB_PORT: u16 = 8000;

/// Annotations that `accounts` keeps on a tool's namespace: all that other parts know of a tool.
pub mod annotation {
    /// The tool's user and group number, decimal.
    pub const UID: &str = "hearth.internal/uid";
    /// The maintainers' account names, sorted, separated by commas.
    pub const MAINTAINERS: &str = "hearth.internal/maintainers";
    /// `active` or `disabled`.
    pub const STATE: &str = "hearth.internal/state";
    /// When a disabled tool was disabled, RFC 3339 in UTC; absent while active.
    pub const DISABLED_AT: &str = "hearth.internal/disabled-at";
    /// The random value that the tool's certificates carry; another value revokes them.
    pub const EPOCH: &str = "hearth.internal/epoch";
    /// SHA-256, in hexadecimal, of the tool's registry password.
    pub const REGISTRY_CREDENTIAL: &str = "hearth.internal/registry-credential-sha256";
    /// `true` once everything that a disabled tool had running is stopped, until all of it runs again.
    pub const STOPPED: &str = "hearth.internal/stopped";
    /// The service account that the tool's pods may run as, beside `default`. Set by operators, never by `accounts`.
    pub const SERVICE_ACCOUNT: &str = "hearth.internal/service-account";
    /// On a workload of a disabled tool: how many replicas it had, decimal; on a `CronJob`: `running`.
    pub const BEFORE_DISABLING: &str = "hearth.internal/before-disabling";
    /// On a route to the grid: the grid's number of the job, decimal.
    pub const JOB: &str = "hearth.internal/job";
    /// On a route to the grid: when its web service registered, RFC 3339.
    pub const REGISTERED_AT: &str = "hearth.internal/registered-at";
}

/// Labels.
pub mod label {
    /// On a tool's namespace: its own name, as the original has it.
    pub const NAME: &str = "name";
    /// On a tool's namespace: `tool`.
    pub const TENANCY: &str = "tenancy";
    /// On a pod: `tool` asks for the home to be mounted.
    pub const TOOLFORGE: &str = "toolforge";
    /// On a pod of the platform: its role.
    pub const ROLE: &str = "app.kubernetes.io/name";
    /// On a route to the grid: whose it is.
    pub const TOOL: &str = "hearth.internal/tool";
    /// Who made an object.
    pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
}

/// The file in the front door's state folder that switches the page for technical problems on, and holds what it says.
pub const MAINTENANCE: &str = "maintenance";

/// Where hearthd's roles find what they are given.
pub mod path {
    /// The configuration, a `platform.toml`.
    pub const PLATFORM: &str = "/etc/hearth/platform/platform.toml";
    /// What single tools may use beyond what all may, a `quotas.toml`.
    pub const QUOTAS: &str = "/etc/hearth/quotas/quotas.toml";
    /// The platform's certificate authority.
    pub const CA: &str = "/etc/hearth/ca/ca.crt";
    /// A folder below which each secret of a role is a folder.
    pub const SECRETS: &str = "/etc/hearth/secrets";
}
