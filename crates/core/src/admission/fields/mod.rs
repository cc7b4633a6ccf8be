//! Which objects are judged, and which of their fields: the tables of the rulebook.
//!
//! To allow a field, add it to its table; to judge another kind, add a [`Resource`]. Both layers follow.

mod ingress;
mod pod;
mod service;

use super::Field;
use super::json::{Map, Value};

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
    /// By who writes it: only these users may.
    Writers(&'static [&'static str]),
}

/// A part of an object.
#[derive(Debug)]
pub struct Section {
    /// The names that lead to it.
    pub at: &'static [&'static str],
    /// Whether fields that no table lists are left alone, as in metadata, which the API server checks by itself.
    pub open: bool,
    /// Its fields.
    pub fields: &'static [Field],
}

/// Everything that is judged.
pub const CHAPTERS: &[Chapter] = &[
    Chapter {
        name: "pods",
        resources: &[core("pods"), core("pods/ephemeralcontainers")],
        book: Book::Fields { sections: pod::SECTIONS, filled: true },
    },
    Chapter {
        name: "templates",
        resources: &[
            core("replicationcontrollers"),
            Resource { group: "apps", version: "v1", name: "daemonsets" },
            Resource { group: "apps", version: "v1", name: "deployments" },
            Resource { group: "apps", version: "v1", name: "replicasets" },
            Resource { group: "apps", version: "v1", name: "statefulsets" },
            Resource { group: "batch", version: "v1", name: "jobs" },
        ],
        book: Book::Fields { sections: pod::TEMPLATE_SECTIONS, filled: false },
    },
    Chapter {
        name: "cronjobs",
        resources: &[Resource { group: "batch", version: "v1", name: "cronjobs" }],
        book: Book::Fields { sections: pod::CRON_SECTIONS, filled: false },
    },
    Chapter {
        name: "ingresses",
        resources: &[Resource { group: "networking.k8s.io", version: "v1", name: "ingresses" }],
        book: Book::Fields { sections: ingress::SECTIONS, filled: false },
    },
    Chapter {
        name: "services",
        resources: &[core("services")],
        book: Book::Fields { sections: service::SECTIONS, filled: false },
    },
    Chapter {
        name: "endpoints",
        resources: &[core("endpoints"), Resource { group: "discovery.k8s.io", version: "v1", name: "endpointslices" }],
        book: Book::Writers(ENDPOINT_WRITERS),
    },
];

/// Who writes endpoints in a tool's namespace: the controller manager, by the accounts of its controllers or, where
/// those are not used, by its own name. A slice that a tool wrote could name another tool's pods.
const ENDPOINT_WRITERS: &[&str] = &[
    "system:kube-controller-manager",
    "system:serviceaccount:kube-system:endpoint-controller",
    "system:serviceaccount:kube-system:endpointslice-controller",
    "system:serviceaccount:kube-system:endpointslicemirroring-controller",
    "system:serviceaccount:kube-system:generic-garbage-collector",
];

const fn core(name: &'static str) -> Resource {
    Resource { group: "", version: "v1", name }
}

/// By what a resource is judged; nothing where it is not.
pub(super) fn book(group: &str, resource: &str, subresource: &str) -> Option<&'static Book> {
    let is = |known: &Resource| {
        let (name, sub) = known.name.split_once('/').unwrap_or((known.name, ""));
        known.group == group && name == resource && sub == subresource
    };
    CHAPTERS.iter().find(|chapter| chapter.resources.iter().any(is)).map(|chapter| &chapter.book)
}

// === impl Section ===

impl Section {
    /// This part of an object, where it has it.
    pub(super) fn of<'v, 'a>(&self, object: &'v Value<'a>) -> Option<&'v Map<'a>> {
        self.at.iter().try_fold(object, |value, name| value.get(name)).and_then(Value::as_object)
    }

    /// How messages begin that speak of this part.
    pub(super) fn path(&self) -> String {
        self.at.join(".")
    }
}
