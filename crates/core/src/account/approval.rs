//! Which requests for certificates `signer` approves: those that `accounts` itself would make for what the cluster
//! says now. It never looks anything up.

use std::collections::BTreeMap;

use k8s_openapi::api::rbac::v1::ClusterRoleBinding;

use super::admins;
use super::subject::{Epoch, Identity, Subject, SubjectError};
use crate::directory_entry::person_name::PersonName;
use crate::{ToolName, names};

/// The signer that issues certificates for clients of the Kubernetes API.
pub const SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// What a certificate may be used for, as `accounts` requests it.
pub const USAGES: [&str; 2] = ["client auth", "digital signature"];

/// A usage that may stand beside [`USAGES`]; it has no meaning for the keys that are accepted.
const HARMLESS_USAGE: &str = "key encipherment";

/// A request for a certificate, as far as its approval depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The subject inside the signed request.
    pub subject: &'a Subject,
    /// `spec.usages`.
    pub usages: &'a [String],
    /// `spec.signerName`.
    pub signer_name: &'a str,
    /// `spec.username`: who made the request, as the API server authenticated it.
    pub requestor: &'a str,
    /// `spec.expirationSeconds`.
    pub expiration_seconds: Option<i32>,
}

/// What a request is judged by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standard<'a> {
    /// The only user who may request certificates.
    pub requestor: &'a str,
    /// The longest life of a certificate, in seconds.
    pub longest_seconds: i32,
}

/// The labels and annotations of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceFacts {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

/// Why a request is not approved. Each message finishes "the request is denied: …".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another signer was asked for.
    #[error("the signer '{0}' is not '{SIGNER}'")]
    Signer(String),
    /// Somebody else asks.
    #[error("'{found}' requested it; only '{allowed}' may")]
    Requestor {
        /// Who asks.
        found: String,
        /// Who may.
        allowed: String,
    },
    /// The certificate could be used for more, or for less, than a client's.
    #[error("its usages [{0}] are not exactly 'client auth' and 'digital signature'")]
    Usages(String),
    /// The certificate would live too long.
    #[error("it asks for a life of {}; at most {longest} seconds are allowed", found.map_or("unset length".to_owned(), |s| format!("{s} seconds")))]
    Life {
        /// The seconds asked for.
        found: Option<i32>,
        /// The seconds allowed.
        longest: i32,
    },
    /// The subject is neither a tool's nor an administrator's.
    #[error(transparent)]
    Subject(#[from] SubjectError),
    /// The tool has no namespace, or a foreign one.
    #[error("the namespace tool-{0} does not exist or is not managed by {manager}", manager = names::FIELD_MANAGER)]
    Namespace(ToolName),
    /// The tool is not active.
    #[error("the tool {tool} is not active: its state is '{state}'")]
    State {
        /// The tool.
        tool: ToolName,
        /// The state that the namespace is annotated with.
        state: String,
    },
    /// The epoch is not the tool's current one.
    #[error("its epoch is not the current one of the tool {0}")]
    Epoch(ToolName),
    /// The person is no administrator, or was made one anew.
    #[error(
        "no cluster role binding {} that is managed by {} gives its group the role {}",
        admins::binding_name(_0),
        names::FIELD_MANAGER,
        names::ADMINS_ROLE
    )]
    Admin(PersonName),
}

/// Whose certificate a request asks for, where it is one that `accounts` would make. Whether the owner may have one now
/// is for [`approve_tool`] or [`approve_admin`] to say.
pub fn identity(request: &Request<'_>, standard: &Standard<'_>) -> Result<Identity, Refusal> {
    if request.signer_name != SIGNER {
        return Err(Refusal::Signer(request.signer_name.to_owned()));
    }
    if request.requestor != standard.requestor {
        return Err(Refusal::Requestor { found: request.requestor.to_owned(), allowed: standard.requestor.to_owned() });
    }
    let known = |usage: &String| USAGES.contains(&usage.as_str()) || usage == HARMLESS_USAGE;
    let complete = USAGES.iter().all(|needed| request.usages.iter().any(|usage| usage == needed));
    if !complete || !request.usages.iter().all(known) {
        return Err(Refusal::Usages(request.usages.join(", ")));
    }
    if request.expiration_seconds.is_none_or(|seconds| seconds > standard.longest_seconds) {
        return Err(Refusal::Life { found: request.expiration_seconds, longest: standard.longest_seconds });
    }
    Ok(Identity::of(request.subject)?)
}

/// Whether a tool may have a certificate of this epoch. `namespace` is the tool's, or `None` where there is none.
pub fn approve_tool(tool: &ToolName, epoch: &Epoch, namespace: Option<&NamespaceFacts>) -> Result<(), Refusal> {
    let ours = |facts: &&NamespaceFacts| {
        facts.labels.get(names::label::MANAGED_BY).is_some_and(|by| by == names::FIELD_MANAGER)
    };
    let Some(facts) = namespace.filter(ours) else { return Err(Refusal::Namespace(tool.clone())) };
    let annotation = |key: &str| facts.annotations.get(key).map_or("", String::as_str);
    if annotation(names::annotation::STATE) != "active" {
        let state = annotation(names::annotation::STATE).to_owned();
        return Err(Refusal::State { tool: tool.clone(), state });
    }
    if annotation(names::annotation::EPOCH) != epoch.as_str() {
        return Err(Refusal::Epoch(tool.clone()));
    }
    Ok(())
}

/// Whether an administrator may have a certificate of this epoch. `binding` is the one of the administrator's name, or
/// `None` where there is none.
pub fn approve_admin(person: &PersonName, epoch: &Epoch, binding: Option<&ClusterRoleBinding>) -> Result<(), Refusal> {
    match binding.and_then(|binding| admins::epoch(person, binding)) {
        Some(current) if current == *epoch => Ok(()),
        _ => Err(Refusal::Admin(person.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::owner::Owner;
    use super::*;

    const ACCOUNTS: &str = "system:serviceaccount:hearth-system:accounts";

    fn epoch(byte: u8) -> Epoch {
        Epoch::of([byte; 16])
    }

    fn facts(state: &str, epoch: &Epoch) -> NamespaceFacts {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        NamespaceFacts {
            labels: [pair(names::label::MANAGED_BY, names::FIELD_MANAGER)].into(),
            annotations: [pair(names::annotation::STATE, state), pair(names::annotation::EPOCH, epoch.as_str())].into(),
        }
    }

    fn wikibot() -> Subject {
        Identity { owner: "tool:wikibot".parse().unwrap(), epoch: epoch(7) }.subject()
    }

    /// Both judgements of a request for a tool.
    fn approve(
        request: &Request<'_>,
        standard: &Standard<'_>,
        namespace: Option<&NamespaceFacts>,
    ) -> Result<(), Refusal> {
        let Identity { owner, epoch } = identity(request, standard)?;
        match owner {
            Owner::Tool(tool) => approve_tool(&tool, &epoch, namespace),
            Owner::Admin(person) => approve_admin(&person, &epoch, None),
        }
    }

    fn subject(common_name: &str, organizations: &[&str]) -> Subject {
        Subject {
            common_name: common_name.to_owned(),
            organizations: organizations.iter().map(|&o| o.to_owned()).collect(),
        }
    }

    /// Judges a request that is right but for what `change` makes of it.
    fn check(change: impl FnOnce(&mut Request<'_>), namespace: Option<&NamespaceFacts>, expected: Result<(), &str>) {
        let good = wikibot();
        let usages = USAGES.map(str::to_owned);
        let mut request = Request {
            subject: &good,
            usages: &usages,
            signer_name: SIGNER,
            requestor: ACCOUNTS,
            expiration_seconds: Some(3600),
        };
        change(&mut request);
        let outcome = approve(&request, &Standard { requestor: ACCOUNTS, longest_seconds: 7200 }, namespace);
        assert_eq!(outcome.map_err(|e| e.to_string()), expected.map_err(str::to_owned));
    }

    #[test]
    fn what_accounts_requests_is_approved() {
        check(|_| (), Some(&facts("active", &epoch(7))), Ok(()));
        let usages = ["digital signature", "key encipherment", "client auth"].map(str::to_owned);
        let good = wikibot();
        let request = Request {
            subject: &good,
            usages: &usages,
            signer_name: SIGNER,
            requestor: ACCOUNTS,
            expiration_seconds: Some(7200),
        };
        let standard = Standard { requestor: ACCOUNTS, longest_seconds: 7200 };
        assert_eq!(approve(&request, &standard, Some(&facts("active", &epoch(7)))), Ok(()));
    }

    #[test]
    fn the_state_of_the_namespace_decides() {
        let none = "the namespace tool-wikibot does not exist or is not managed by hearth-accounts";
        check(|_| (), None, Err(none));
        check(|_| (), Some(&NamespaceFacts { labels: BTreeMap::new(), ..facts("active", &epoch(7)) }), Err(none));
        let disabled = "the tool wikibot is not active: its state is 'disabled'";
        check(|_| (), Some(&facts("disabled", &epoch(7))), Err(disabled));
        let old = "its epoch is not the current one of the tool wikibot";
        check(|_| (), Some(&facts("active", &epoch(8))), Err(old));
        check(
            |_| (),
            Some(&NamespaceFacts { annotations: BTreeMap::new(), ..facts("active", &epoch(7)) }),
            Err("the tool wikibot is not active: its state is ''"),
        );
    }

    #[test]
    fn hostile_subjects_are_refused() {
        let group = format!("hearth:tool:wikibot:{}", epoch(7));
        let other = format!("hearth:tool:other:{}", epoch(7));
        let nobody = |name: &str| {
            let rule = "neither 'tool:' and the name of a tool nor 'admin:' and the name of a person";
            format!("its common name '{name}' is {rule}")
        };
        let admin = format!("hearth:admin:jane:{}", epoch(7));
        let not_bound = "no cluster role binding jane-binding that is managed by hearth-accounts gives its group the role k8s-admin";
        let groups = |found: &str| {
            format!("its organisations [{found}] are not exactly 'toolforge' and 'hearth:tool:wikibot:<epoch>'")
        };
        let cases: Vec<(Subject, String)> = vec![
            (
                subject("admin:jane", &["admins"]),
                "its organisations [admins] are not exactly 'admins' and 'hearth:admin:jane:<epoch>'".to_owned(),
            ),
            (subject("admin:jane", &["admins", &admin]), not_bound.to_owned()),
            (subject("admin:root", &["admins", &admin]), nobody("admin:root")),
            (subject("wikibot", &["toolforge", &group]), nobody("wikibot")),
            (subject("tool:", &["toolforge", &group]), nobody("tool:")),
            (subject("tool:Wikibot", &["toolforge", &group]), nobody("tool:Wikibot")),
            (subject("system:kube-controller-manager", &[]), nobody("system:kube-controller-manager")),
            (subject("tool:wikibot", &["toolforge"]), groups("toolforge")),
            (subject("tool:wikibot", &[&group, "toolforge"]), groups(&format!("{group}, toolforge"))),
            (subject("tool:wikibot", &["toolforge", "system:masters"]), groups("toolforge, system:masters")),
            (
                subject("tool:wikibot", &["toolforge", &group, "system:masters"]),
                groups(&format!("toolforge, {group}, system:masters")),
            ),
            (subject("tool:wikibot", &["toolforge", &group, &group]), groups(&format!("toolforge, {group}, {group}"))),
            (subject("tool:wikibot", &["admins", &group]), groups(&format!("admins, {group}"))),
            (subject("tool:wikibot", &["toolforge", &other]), groups(&format!("toolforge, {other}"))),
        ];
        for (subject, expected) in &cases {
            let facts = facts("active", &epoch(7));
            let usages = USAGES.map(str::to_owned);
            let request = Request {
                subject,
                usages: &usages,
                signer_name: SIGNER,
                requestor: ACCOUNTS,
                expiration_seconds: Some(3600),
            };
            let outcome = approve(&request, &Standard { requestor: ACCOUNTS, longest_seconds: 7200 }, Some(&facts));
            assert_eq!(outcome.map_err(|e| e.to_string()), Err(expected.clone()));
        }
    }

    #[test]
    fn the_rest_of_the_request_must_be_right_too() {
        let facts = facts("active", &epoch(7));
        check(
            |r| r.signer_name = "kubernetes.io/kubelet-serving",
            Some(&facts),
            Err("the signer 'kubernetes.io/kubelet-serving' is not 'kubernetes.io/kube-apiserver-client'"),
        );
        check(
            |r| r.requestor = "tool:wikibot",
            Some(&facts),
            Err("'tool:wikibot' requested it; only 'system:serviceaccount:hearth-system:accounts' may"),
        );
        check(
            |r| r.expiration_seconds = None,
            Some(&facts),
            Err("it asks for a life of unset length; at most 7200 seconds are allowed"),
        );
        check(
            |r| r.expiration_seconds = Some(7201),
            Some(&facts),
            Err("it asks for a life of 7201 seconds; at most 7200 seconds are allowed"),
        );
        let not_exactly = "are not exactly 'client auth' and 'digital signature'";
        for (usages, text) in [
            (vec!["client auth".to_owned()], "client auth"),
            (vec![], ""),
            (
                vec!["client auth".to_owned(), "digital signature".to_owned(), "cert sign".to_owned()],
                "client auth, digital signature, cert sign",
            ),
        ] {
            let good = wikibot();
            let request = Request {
                subject: &good,
                usages: &usages,
                signer_name: SIGNER,
                requestor: ACCOUNTS,
                expiration_seconds: Some(1),
            };
            let outcome = approve(&request, &Standard { requestor: ACCOUNTS, longest_seconds: 7200 }, Some(&facts));
            assert_eq!(outcome.unwrap_err().to_string(), format!("its usages [{text}] {not_exactly}"));
        }
    }
}
