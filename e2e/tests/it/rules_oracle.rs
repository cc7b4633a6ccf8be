//! The second opinion on the rulebook: the API server's own admission plug-ins, in a program beside the tests.
//!
//! `e2e/oracle` is that program; `xtask build` makes it. It decodes and defaults an object as the API server does, has
//! the filling policy and the judging ones asked by the API server's own code, and tells what came of it. Nothing of
//! CEL is done here: this only asks, and puts the same question to `review`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use hearth_core::Platform;
use hearth_core::admission::wire::{self, API_VERSION, KIND};
use hearth_core::admission::{Rules, Verdict, cel, review_read};
use serde_json::{Value, json};

use crate::control_admission::cases;

/// A running oracle. It ends with the value.
pub(crate) struct Oracle {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// The file that the policies are read from, which goes with the value.
    policies: Option<tempfile::NamedTempFile>,
}

/// A request for admission.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    /// Whether an object is changed rather than made.
    pub(crate) update: bool,
    /// The API group, its version, and the resource with its subresource, as in the tables.
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) resource: String,
    /// Who asks.
    pub(crate) user: String,
    /// The namespace's name and annotations.
    pub(crate) namespace: String,
    pub(crate) annotations: BTreeMap<String, String>,
    /// The object, and what is stored.
    pub(crate) object: Value,
    pub(crate) old: Option<Value>,
    /// Whether fields that the API server does not know are kept, and nothing is filled in.
    pub(crate) raw: bool,
}

/// What the API server would say, and what it would be asked about.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// Whether all policies allow it.
    pub(crate) allowed: bool,
    /// The refusal.
    pub(crate) message: String,
    /// The object as webhooks and judging policies get it: decoded, defaulted, filled in.
    pub(crate) object: Value,
    /// The stored object, decoded.
    pub(crate) old: Option<Value>,
}

/// Number of the tool `wikibot`, whose objects the shared cases are.
pub(crate) const UID: u32 = cases::UID;

/// The objects of the shared cases, each with its resource.
pub(crate) fn objects_of_cases() -> Vec<(String, Value)> {
    let objects = |case: cases::Case| {
        let resource = case.resource;
        [Some(case.object), case.old].into_iter().flatten().map(move |object| (resource.clone(), object))
    };
    cases::all().into_iter().flat_map(objects).collect()
}

/// The rules that the shared cases are about.
pub(crate) fn rules() -> Rules {
    Rules::of(&Platform::from_toml(cases::PLATFORM).unwrap())
}

/// Where programs and modules are built.
pub(crate) fn cache() -> PathBuf {
    std::env::var_os("HEARTH_CACHE").map_or_else(|| PathBuf::from("/var/cache/hearth"), PathBuf::from)
}

impl Oracle {
    /// An oracle with Hearth's policies, of the API server's own version or of the one that is emulated.
    pub(crate) fn of_policies(rules: &Rules, emulated: Option<&str>) -> Self {
        Self::of(&cel::policies(rules), emulated)
    }

    /// An oracle with any policies.
    pub(crate) fn of(policies: &[Value], emulated: Option<&str>) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        serde_json::to_writer(&file, policies).unwrap();
        let mut arguments = vec!["-policies".to_owned(), file.path().display().to_string()];
        arguments.extend(emulated.map(|version| format!("-emulated-version={version}")));
        let mut oracle = Self::start(&arguments);
        oracle.policies = Some(file);
        oracle
    }

    /// An oracle of the Pod Security Standards.
    pub(crate) fn of_pod_security() -> Self {
        Self::start(&["-pod-security".to_owned()])
    }

    fn start(arguments: &[String]) -> Self {
        let program = cache().join("bin/oracle");
        assert!(program.exists(), "{} is not there: `make test` builds it", program.display());
        let mut child =
            Command::new(program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, input, output, policies: None }
    }

    /// The answer to a request, or why the API server would not decode the object.
    pub(crate) fn judge(&mut self, question: &Question) -> Result<Answer, String> {
        let (resource, subresource) = parts(&question.resource);
        let answer = self.ask(&json!({
            "operation": if question.update { "UPDATE" } else { "CREATE" },
            "group": question.group,
            "version": question.version,
            "resource": resource,
            "subresource": subresource,
            "user": question.user,
            "namespace": { "metadata": {
                "name": question.namespace,
                "labels": { "kubernetes.io/metadata.name": question.namespace },
                "annotations": question.annotations,
            }},
            "object": question.object,
            "oldObject": question.old,
            "raw": question.raw,
        }));
        if let Some(reason) = answer["undecodable"].as_str() {
            return Err(reason.to_owned());
        }
        Ok(Answer {
            allowed: answer["allowed"].as_bool().unwrap(),
            message: answer["message"].as_str().unwrap_or_default().to_owned(),
            object: answer["object"].clone(),
            old: answer.get("oldObject").cloned(),
        })
    }

    /// Why a pod is against a level of the Pod Security Standards; nothing where it is not.
    pub(crate) fn pod_security(&mut self, level: &str, version: &str, pod: &Value) -> Vec<String> {
        let answer = self.ask(&json!({ "level": level, "version": version, "pod": pod }));
        assert!(answer.get("undecodable").is_none(), "{answer}");
        let reasons = answer["reasons"].as_array().into_iter().flatten();
        let reasons: Vec<String> = reasons.map(|reason| reason.as_str().unwrap().to_owned()).collect();
        assert_eq!(answer["allowed"].as_bool(), Some(reasons.is_empty()));
        reasons
    }

    fn ask(&mut self, question: &Value) -> Value {
        let input = self.input.as_mut().expect("the oracle listens until it is dropped");
        writeln!(input, "{question}").expect("the oracle has ended: what it says stands above");
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the oracle has ended: what it says stands above");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }
}

impl Drop for Oracle {
    /// The end of its input ends it.
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

/// A resource and its subresource.
pub(crate) fn parts(resource: &str) -> (&str, &str) {
    resource.split_once('/').unwrap_or((resource, ""))
}

/// What the webhook's half says of the same request, about the object that the API server would ask it about: it is
/// read from a review as the API server writes one, and judged.
pub(crate) fn reviewed(rules: &Rules, question: &Question, object: &Value, old: Option<&Value>) -> Verdict {
    let (resource, subresource) = parts(&question.resource);
    // The order is the API server's: what is asked about comes before the object.
    let resource = json!({ "group": question.group, "resource": resource });
    let operation = if question.update { "UPDATE" } else { "CREATE" };
    let user = json!({ "username": question.user });
    let review = format!(
        r#"{{"kind":"{KIND}","apiVersion":"{API_VERSION}","request":{{"uid":"","resource":{resource},"subResource":{},
        "namespace":{},"operation":"{operation}","userInfo":{user},"object":{object},"oldObject":{}}}}}"#,
        json!(subresource),
        json!(question.namespace),
        json!(old),
    );
    let asked = wire::read(rules, review.as_bytes()).expect("a review");
    review_read(rules, &asked.request(&question.annotations))
}
