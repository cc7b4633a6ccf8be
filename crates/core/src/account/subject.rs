//! Who a tool is to the cluster: the subject of its certificate, and when a request for one is approved.
//!
//! Tools and administrators are told apart by a prefix of the common name, and a tool's rights hang on a group
//! that carries a random epoch: replacing the epoch on the namespace revokes every older certificate at once.
//! `accounts` writes subjects and `signer` judges them, both by what stands here. It never looks anything up.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::{ToolName, names};

/// The signer that issues certificates for clients of the Kubernetes API.
pub const SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// What a tool's certificate may be used for, as `accounts` requests it.
pub const USAGES: [&str; 2] = ["client auth", "digital signature"];

/// A usage that may stand beside [`USAGES`]; it has no meaning for the keys that are accepted.
const HARMLESS_USAGE: &str = "key encipherment";

/// The alphabet of an epoch: base32 in lower case.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// A random value of 128 bits, as 26 characters of lower-case base32. Never a counter: a tool that is made again
/// under an old name gets another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(String);

/// A text that is not an epoch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an epoch: 26 characters of a-z and 2-7 are needed")]
pub struct EpochError(String);

/// The names in a certificate or in a request for one.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Subject {
    /// CN, the user to Kubernetes.
    pub common_name: String,
    /// O, the user's groups, in their order.
    pub organizations: Vec<String>,
}

/// A tool, at one epoch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// The tool.
    pub tool: ToolName,
    /// The epoch.
    pub epoch: Epoch,
}

/// Why a subject is not a tool's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// The common name is not `tool:<name>`.
    #[error("its common name '{0}' is not 'tool:' and the name of a tool")]
    CommonName(String),
    /// There are more or fewer than two organisations, or they are others.
    #[error("its organisations [{found}] are not exactly '{}' and 'hearth:tool:{tool}:<epoch>'", names::TOOLS_GROUP)]
    Organizations {
        /// What there is, separated by commas.
        found: String,
        /// The tool of the common name.
        tool: ToolName,
    },
}

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
    /// The only user who may request certificates for tools.
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
    /// The subject is not a tool's.
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
}

/// Whether a request is approved: only one that `accounts` itself would make for this namespace.
/// `namespace` is that of the tool which the subject names, or `None` where there is none.
pub fn approve(
    request: &Request<'_>,
    standard: &Standard<'_>,
    namespace: Option<&NamespaceFacts>,
) -> Result<(), Refusal> {
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
    let Identity { tool, epoch } = Identity::of(request.subject)?;
    let ours = |facts: &&NamespaceFacts| {
        facts.labels.get(names::label::MANAGED_BY).is_some_and(|by| by == names::FIELD_MANAGER)
    };
    let Some(facts) = namespace.filter(ours) else { return Err(Refusal::Namespace(tool)) };
    let annotation = |key: &str| facts.annotations.get(key).map_or("", String::as_str);
    if annotation(names::annotation::STATE) != "active" {
        return Err(Refusal::State { tool, state: annotation(names::annotation::STATE).to_owned() });
    }
    if annotation(names::annotation::EPOCH) != epoch.0 {
        return Err(Refusal::Epoch(tool));
    }
    Ok(())
}

// === impl Epoch ===

impl Epoch {
    /// The length of an epoch as text.
    const LENGTH: usize = 26;

    /// An epoch of 16 random bytes.
    pub fn of(random: [u8; 16]) -> Self {
        let mut rest = u128::from_be_bytes(random);
        let letter = |value: u128| {
            // The remainder is below 32, the length of the alphabet.
            char::from(ALPHABET.get((value % 32) as usize).copied().unwrap_or(b'a'))
        };
        let mut text = String::with_capacity(Self::LENGTH);
        for _ in 0..Self::LENGTH {
            text.push(letter(rest));
            rest /= 32;
        }
        Self(text)
    }

    /// The epoch as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Epoch {
    type Err = EpochError;

    fn from_str(text: &str) -> Result<Self, EpochError> {
        if text.len() == Self::LENGTH && text.bytes().all(|b| ALPHABET.contains(&b)) {
            Ok(Self(text.to_owned()))
        } else {
            Err(EpochError(text.to_owned()))
        }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Identity ===

impl Identity {
    /// The group to which the tool's rights are bound: `hearth:tool:<tool>:<epoch>`.
    pub fn group(&self) -> String {
        format!("hearth:tool:{}:{}", self.tool, self.epoch)
    }

    /// The subject of the tool's certificate.
    pub fn subject(&self) -> Subject {
        Subject {
            common_name: format!("tool:{}", self.tool),
            organizations: vec![names::TOOLS_GROUP.to_owned(), self.group()],
        }
    }

    /// Reads a subject; one that is not exactly a tool's is refused.
    pub fn of(subject: &Subject) -> Result<Self, SubjectError> {
        let name = subject.common_name.strip_prefix("tool:").and_then(|name| name.parse::<ToolName>().ok());
        let Some(tool) = name else { return Err(SubjectError::CommonName(subject.common_name.clone())) };
        let prefix = format!("hearth:tool:{tool}:");
        let epoch = match subject.organizations.as_slice() {
            [first, second] if first == names::TOOLS_GROUP => second.strip_prefix(&prefix),
            _ => None,
        };
        match epoch.map(str::parse::<Epoch>) {
            Some(Ok(epoch)) => Ok(Self { tool, epoch }),
            _ => Err(SubjectError::Organizations { found: subject.organizations.join(", "), tool }),
        }
    }
}

#[cfg(test)]
mod tests {
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

    fn subject(common_name: &str, organizations: &[&str]) -> Subject {
        Subject {
            common_name: common_name.to_owned(),
            organizations: organizations.iter().map(|&o| o.to_owned()).collect(),
        }
    }

    /// Judges a request that is right but for what `change` makes of it.
    fn check(change: impl FnOnce(&mut Request<'_>), namespace: Option<&NamespaceFacts>, expected: Result<(), &str>) {
        let good = Identity { tool: "wikibot".parse().unwrap(), epoch: epoch(7) }.subject();
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
    fn an_epoch_is_26_characters_and_reads_back() {
        let text = Epoch::of([0xff; 16]).to_string();
        assert_eq!((text.len(), text.parse()), (26, Ok(Epoch::of([0xff; 16]))));
        assert_ne!(epoch(1), epoch(2));
        for bad in ["", "a", "A2345672345672345672345672", "00000000000000000000000000"] {
            assert!(bad.parse::<Epoch>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_accounts_requests_is_approved() {
        check(|_| (), Some(&facts("active", &epoch(7))), Ok(()));
        let usages = ["digital signature", "key encipherment", "client auth"].map(str::to_owned);
        let good = Identity { tool: "wikibot".parse().unwrap(), epoch: epoch(7) }.subject();
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
        let not_a_tool = |name: &str| format!("its common name '{name}' is not 'tool:' and the name of a tool");
        let groups = |found: &str| {
            format!("its organisations [{found}] are not exactly 'toolforge' and 'hearth:tool:wikibot:<epoch>'")
        };
        let cases: Vec<(Subject, String)> = vec![
            (subject("admin:wikibot", &["admins"]), not_a_tool("admin:wikibot")),
            (subject("wikibot", &["toolforge", &group]), not_a_tool("wikibot")),
            (subject("tool:", &["toolforge", &group]), not_a_tool("tool:")),
            (subject("tool:Wikibot", &["toolforge", &group]), not_a_tool("tool:Wikibot")),
            (subject("system:kube-controller-manager", &[]), not_a_tool("system:kube-controller-manager")),
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
            let good = Identity { tool: "wikibot".parse().unwrap(), epoch: epoch(7) }.subject();
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
