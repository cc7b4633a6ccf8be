//! Which objects are judged, and which of their fields: the tables of the rulebook.
//!
//! To allow a field, add it to its table; to judge another kind, add a [`Resource`]. Both layers follow.

mod ingress;
mod metadata;
mod platform;
mod pod;
mod policy;
pub mod refused;
mod route;
mod secret;
mod service;
mod workload;

use super::json::{Map, Value};
use super::{Field, Rule};
use crate::platform::Kind;

pub use platform::{ROLES, Role};

/// A kind of object that is judged.
#[derive(Debug)]
pub struct Resource {
    /// Its API group, empty for the core group.
    pub group: &'static str,
    /// The version that the rules are written for.
    pub version: &'static str,
    /// The resource in the plural, with its subresource if it is one that is judged.
    pub name: &'static str,
}

/// Resources with one set of rules: a policy of its own in the API server.
#[derive(Debug)]
pub struct Chapter {
    /// The end of the policy's name.
    pub name: &'static str,
    /// What it judges.
    pub resources: &'static [Resource],
    /// By what.
    pub book: Book,
}

/// How a kind of object is judged.
#[derive(Debug)]
pub enum Book {
    /// By its fields.
    Fields {
        /// The parts of the object that are looked at.
        sections: &'static [Section],
        /// Whether the filling policy has gone over it.
        filled: bool,
    },
    /// By who writes it. Everybody may change the metadata that says nothing of the content.
    Writers(&'static Writers),
}

/// The users who may write a kind of object in a tool's namespace.
#[derive(Debug)]
pub struct Writers {
    /// Their names; one that ends in `*` stands for all that begin so.
    pub users: &'static [&'static str],
    /// Which rule a refusal is counted under.
    pub rule: Rule,
    /// Who they are, for people.
    pub by: &'static str,
    /// What to do instead.
    pub instead: &'static str,
}

/// A part of an object.
#[derive(Debug)]
pub struct Section {
    /// The names that lead to it; none for the object as a whole.
    pub at: &'static [&'static str],
    /// Whether fields that no table lists are left alone, as in metadata, which the API server checks by itself.
    pub open: bool,
    /// Its fields.
    pub fields: &'static [Field],
}

/// Everything that is judged in tools' namespaces.
pub const CHAPTERS: &[Chapter] = &[
    Chapter {
        name: "pods",
        resources: &[core("pods"), core("pods/ephemeralcontainers")],
        book: Book::Fields { sections: pod::SECTIONS, filled: true },
    },
    Chapter {
        name: "deployments",
        resources: &[Resource { group: "apps", version: "v1", name: "deployments" }],
        book: Book::Fields { sections: workload::DEPLOYMENT, filled: false },
    },
    Chapter {
        name: "replicasets",
        resources: &[Resource { group: "apps", version: "v1", name: "replicasets" }],
        book: Book::Fields { sections: workload::REPLICA_SET, filled: false },
    },
    Chapter {
        name: "statefulsets",
        resources: &[Resource { group: "apps", version: "v1", name: "statefulsets" }],
        book: Book::Fields { sections: workload::STATEFUL_SET, filled: false },
    },
    Chapter {
        name: "daemonsets",
        resources: &[Resource { group: "apps", version: "v1", name: "daemonsets" }],
        book: Book::Fields { sections: workload::DAEMON_SET, filled: false },
    },
    Chapter {
        name: "replicationcontrollers",
        resources: &[core("replicationcontrollers")],
        book: Book::Fields { sections: workload::REPLICATION_CONTROLLER, filled: false },
    },
    Chapter {
        name: "jobs",
        resources: &[Resource { group: "batch", version: "v1", name: "jobs" }],
        book: Book::Fields { sections: workload::JOB, filled: false },
    },
    Chapter {
        name: "cronjobs",
        resources: &[Resource { group: "batch", version: "v1", name: "cronjobs" }],
        book: Book::Fields { sections: workload::CRON_JOB, filled: false },
    },
    Chapter {
        name: "scales",
        resources: &[
            Resource { group: "apps", version: "v1", name: "deployments/scale" },
            Resource { group: "apps", version: "v1", name: "replicasets/scale" },
            Resource { group: "apps", version: "v1", name: "statefulsets/scale" },
            core("replicationcontrollers/scale"),
        ],
        book: Book::Fields { sections: workload::SCALE, filled: false },
    },
    Chapter {
        name: "ingresses",
        resources: &[Resource { group: "networking.k8s.io", version: "v1", name: "ingresses" }],
        book: Book::Fields { sections: ingress::SECTIONS, filled: false },
    },
    Chapter {
        name: "httproutes",
        resources: &[Resource { group: "gateway.networking.k8s.io", version: "v1", name: "httproutes" }],
        book: Book::Fields { sections: route::SECTIONS, filled: false },
    },
    Chapter {
        name: "services",
        resources: &[core("services")],
        book: Book::Fields { sections: service::SECTIONS, filled: false },
    },
    Chapter {
        name: "endpoints",
        resources: &[core("endpoints"), Resource { group: "discovery.k8s.io", version: "v1", name: "endpointslices" }],
        book: Book::Writers(policy::ENDPOINTS),
    },
    Chapter {
        name: "secrets",
        resources: &[core("secrets")],
        book: Book::Fields { sections: secret::SECTIONS, filled: false },
    },
    Chapter {
        name: "configmaps",
        resources: &[core("configmaps")],
        book: Book::Fields { sections: metadata::SECTIONS, filled: false },
    },
    Chapter {
        name: "poddisruptionbudgets",
        resources: &[Resource { group: "policy", version: "v1", name: "poddisruptionbudgets" }],
        book: Book::Fields { sections: policy::DISRUPTION_BUDGET, filled: false },
    },
    Chapter {
        name: "networkpolicies",
        resources: &[Resource { group: "networking.k8s.io", version: "v1", name: "networkpolicies" }],
        book: Book::Writers(policy::NETWORK_POLICY),
    },
];

/// Everything that is judged in the platform's own namespaces.
pub const PLATFORM_CHAPTERS: &[Chapter] = &[
    Chapter {
        name: "pods",
        resources: &[core("pods"), core("pods/ephemeralcontainers")],
        book: Book::Fields { sections: platform::SECTIONS, filled: true },
    },
    Chapter {
        name: "templates",
        resources: TEMPLATES,
        book: Book::Fields { sections: platform::TEMPLATE_SECTIONS, filled: false },
    },
    Chapter {
        name: "cronjobs",
        resources: &[Resource { group: "batch", version: "v1", name: "cronjobs" }],
        book: Book::Fields { sections: platform::CRON_SECTIONS, filled: false },
    },
];

/// What makes pods from a template at `spec.template`.
const TEMPLATES: &[Resource] = &[
    core("replicationcontrollers"),
    Resource { group: "apps", version: "v1", name: "daemonsets" },
    Resource { group: "apps", version: "v1", name: "deployments" },
    Resource { group: "apps", version: "v1", name: "replicasets" },
    Resource { group: "apps", version: "v1", name: "statefulsets" },
    Resource { group: "batch", version: "v1", name: "jobs" },
];

const fn core(name: &'static str) -> Resource {
    Resource { group: "", version: "v1", name }
}

/// By what a resource is judged in a namespace of this kind; nothing where it is not.
pub(super) fn book(kind: Kind, group: &str, resource: &str, subresource: &str) -> Option<&'static Book> {
    let chapters = match kind {
        Kind::Tool => CHAPTERS,
        Kind::Platform => PLATFORM_CHAPTERS,
        Kind::Privileged => &[],
    };
    let judges = |chapter: &&Chapter| chapter.resources.iter().any(|known| known.is(group, resource, subresource));
    chapters.iter().find(judges).map(|chapter| &chapter.book)
}

/// The name of the chapter by which a resource of a tool is judged; nothing where it is not.
pub(super) fn chapter(group: &str, resource: &str, subresource: &str) -> Option<&'static str> {
    let judges = |chapter: &&Chapter| chapter.resources.iter().any(|known| known.is(group, resource, subresource));
    CHAPTERS.iter().find(judges).map(|chapter| chapter.name)
}

/// The field of this name. Every field of every object is looked for, so the cheap questions come first: a function is
/// called only for names that are as long and begin alike.
pub(super) fn find<'f>(fields: &'f [Field], name: &str) -> Option<&'f Field> {
    let first = name.as_bytes().first();
    fields
        .iter()
        .find(|field| field.name.len() == name.len() && field.name.as_bytes().first() == first && field.name == name)
}

// === impl Resource ===

impl Resource {
    /// Whether it is this one. An empty subresource stands for the resource itself.
    pub fn is(&self, group: &str, resource: &str, subresource: &str) -> bool {
        let rest = match subresource {
            "" => 0,
            subresource => subresource.len() + 1,
        };
        // Lengths first: this is asked of every known resource, for every review.
        self.name.len() == resource.len() + rest
            && self.name.starts_with(resource)
            && self.name.ends_with(subresource)
            && (rest == 0 || self.name.as_bytes().get(resource.len()) == Some(&b'/'))
            && self.group == group
    }
}

// === impl Writers ===

impl Writers {
    /// Whether a user is among them.
    pub(super) fn has(&self, user: &str) -> bool {
        self.users.iter().any(|known| match known.strip_suffix('*') {
            Some(start) => user.starts_with(start),
            None => user == *known,
        })
    }
}

// === impl Section ===

impl Section {
    /// This part of an object, where it has it.
    pub(super) fn of<'v, 'a>(&self, object: &'v Value<'a>) -> Option<&'v Map<'a>> {
        self.at.iter().try_fold(object, |value, name| value.get(name)).and_then(Value::as_object)
    }

    /// The names that lead to the metadata beside this part.
    pub(super) fn metadata(&self) -> Vec<&'static str> {
        let above = self.at.split_last().map_or(&[][..], |(_, above)| above);
        above.iter().copied().chain(["metadata"]).collect()
    }

    /// A label of the object whose specification this part is: it stands in the metadata beside it.
    pub(super) fn label<'v>(&self, object: &'v Value<'_>, label: &str) -> &'v str {
        let metadata = self.metadata().into_iter().try_fold(object, |value, name| value.get(name));
        metadata.and_then(|metadata| metadata.get("labels")?.get(label)?.as_str()).unwrap_or_default()
    }

    /// How messages begin that speak of this part; nothing for the object as a whole.
    pub(super) fn path(&self) -> String {
        self.at.join(".")
    }

    /// A field of this part, as messages call it.
    pub(super) fn path_of(&self, field: &str) -> String {
        self.at.iter().copied().chain([field]).collect::<Vec<_>>().join(".")
    }

    /// Whether it may only be written where the namespace is a tool's. The object as a whole holds metadata too, which
    /// must be changeable wherever it is.
    pub(super) fn needs_tenant(&self) -> bool {
        !self.open && !self.at.is_empty()
    }
}
