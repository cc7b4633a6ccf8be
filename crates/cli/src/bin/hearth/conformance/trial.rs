//! Tries attempts with a tenant's credentials, by dry run.
//!
//! All that is really made is one pod and one Deployment without replicas, which attempts at changing something need;
//! [`Tenant::remove_real`] takes them away again. Nothing else is stored, and nothing of anybody else is touched.

use anyhow::Context;
use http::Request;
use kube::{Client, Error};
use serde_json::{Value, json};

use super::attempt::{Ask, Attempt, Missing, Place, Values, holds, put, take};
use super::bases::{self, Base, NAME, base};
use super::outcome::{By, Outcome};

/// The bases of which one is really made.
const REAL: [&str; 2] = ["pod", "deployment"];

/// What is really made carries it; the pods of the Deployment, which has none, would too.
const LABEL: &str = "app.kubernetes.io/managed-by=hearth-conformance";

/// The tenant, and what was found out about the cluster.
#[derive(Clone)]
pub struct Tenant {
    /// With the tenant's credentials.
    pub client: Client,
    /// What attempts are filled in with.
    pub values: Values,
    /// What became of each legal object, by its base.
    pub legal: Vec<(&'static str, Outcome)>,
    /// Whether anything may really have been made.
    pub made: bool,
}

impl Tenant {
    /// Sends a request; the answer as JSON, or as a text where it is none.
    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> Result<Value, Error> {
        let mut request = Request::builder().method(method).uri(path);
        let is = |name: &str| headers.iter().any(|(header, _)| header.eq_ignore_ascii_case(name));
        if !is("content-type") {
            let patch = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
            request = request.header("content-type", patch);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let text = self.client.request_text(request.body(bytes).map_err(Error::HttpError)?).await?;
        Ok(serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// The namespace of a place; nothing for the whole cluster.
    fn namespace(&self, place: Place) -> Option<&str> {
        let name = match place {
            Place::Own => "namespace",
            Place::Other => "other",
            Place::Cluster => return None,
        };
        self.values.0.get(name).map(String::as_str)
    }

    fn path(&self, api: &str, plural: &str, place: Place) -> String {
        match self.namespace(place) {
            Some(namespace) => format!("{api}/namespaces/{namespace}/{plural}"),
            None => format!("{api}/{plural}"),
        }
    }

    /// Tries every legal object.
    pub async fn try_legal(&mut self) {
        for name in bases::NAMES {
            let outcome = match base(name, &self.values) {
                Some(base) => {
                    let (stored, outcome) = self.create(&base, &base.object, None).await;
                    if let Some(address) = stored.pointer("/spec/clusterIP").and_then(Value::as_str) {
                        self.values.0.insert("cluster-ip", in_range(address));
                    }
                    outcome
                }
                None => Outcome::Inconclusive("the tenant's own host is not known, give it by --host".to_owned()),
            };
            self.legal.push((name, outcome));
        }
    }

    /// Creates an object by dry run: what would be stored, and what that says.
    async fn create(&self, base: &Base, object: &Value, attempt: Option<&Attempt>) -> (Value, Outcome) {
        let path = self.path(base.api, base.plural, attempt.map(|attempt| attempt.place).unwrap_or_default());
        match self.send("POST", &format!("{path}?dryRun=All&fieldValidation=Strict"), &[], object).await {
            Ok(stored) => (stored, Outcome::Possible),
            Err(error) => (Value::Null, Outcome::of_error(&error, attempt.is_some_and(|attempt| attempt.quota))),
        }
    }

    /// What becomes of an attempt.
    pub async fn attempt(&self, attempt: &Attempt) -> Outcome {
        let outcome = match self.way(attempt).await {
            Ok(outcome) => outcome,
            Err(Missing(name)) => Outcome::Inconclusive(match name.as_str() {
                "pod" | "deployment" => format!("no {name} could be made to try it on"),
                "label" | "domain" | "domain-undotted" => "it needs --host".to_owned(),
                "home" | "homes" => "it needs --node-path".to_owned(),
                "other-home" => "it needs --other-node-path".to_owned(),
                "other-uid" => "it needs --uid".to_owned(),
                "cluster-ip" => "no service could be made to try it with".to_owned(),
                _ => format!("it needs --{name}"),
            }),
        };
        match (&outcome, &attempt.vague) {
            (Outcome::Refused { message, .. }, Some(vague)) if message.contains(vague.as_str()) => {
                Outcome::Inconclusive(format!("what it needs is not there: {message}"))
            }
            _ => outcome,
        }
    }

    async fn way(&self, attempt: &Attempt) -> Result<Outcome, Missing> {
        if let Some(name) = &attempt.create {
            return self.changed(name, attempt).await;
        }
        if let (Some(object), Some(plural)) = (&attempt.object, &attempt.resource) {
            return self.whole(self.values.value(object)?, plural, attempt).await;
        }
        if let Some(resource) = &attempt.read {
            let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
            let path = format!("{}?limit=1", self.path(&group_path(group), plural, attempt.place));
            let answer = self.send("GET", &path, &[], &Value::Null).await;
            return Ok(answer.map_or_else(|error| Outcome::of_error(&error, false), |_| Outcome::Possible));
        }
        if let Some(right) = &attempt.may {
            return Ok(self.may(right, attempt.place).await);
        }
        match &attempt.ask {
            Some(ask) => self.ask(ask, attempt).await,
            None => Ok(Outcome::Inconclusive("it says no way to try it".to_owned())),
        }
    }

    /// A legal object with a change.
    async fn changed(&self, name: &str, attempt: &Attempt) -> Result<Outcome, Missing> {
        let Some(base) = base(name, &self.values) else { return Err(Missing("host".to_owned())) };
        let mut object = base.object.clone();
        attempt.remove.iter().for_each(|pointer| take(&mut object, pointer));
        let mut set = Vec::new();
        for (pointer, value) in &attempt.set {
            let value = self.values.value(value)?;
            if let Err(error) = put(&mut object, pointer, value.clone()) {
                return Ok(Outcome::Inconclusive(format!("it cannot be put together: {error:#}")));
            }
            set.push((pointer.clone(), value));
        }
        let (stored, outcome) = self.create(&base, &object, Some(attempt)).await;
        let touched = || set.iter().map(|(pointer, _)| pointer).chain(&attempt.remove);
        match outcome {
            Outcome::Possible => {
                let made = verified(&stored, &set, attempt);
                let inside =
                    base.template.filter(|at| touched().next().is_some() && touched().all(|p| p.starts_with(at)));
                match (made, inside) {
                    (Outcome::Possible, Some(at)) => Ok(self.pod_of(&object, at, &set, attempt).await),
                    (made, _) => Ok(made),
                }
            }
            outcome => Ok(self.unless_the_legal_one_is_refused_too(name, touched().next().is_some(), outcome)),
        }
    }

    /// What makes pods may be stored though its pods are refused: so the pod is tried as well.
    async fn pod_of(&self, object: &Value, at: &str, set: &[(String, Value)], attempt: &Attempt) -> Outcome {
        let mut pod = object.pointer(at).cloned().unwrap_or_default();
        for (pointer, value) in [("/apiVersion", "v1"), ("/kind", "Pod"), ("/metadata/name", NAME)] {
            if put(&mut pod, pointer, value.into()).is_err() {
                return Outcome::Inconclusive("its template is no object".to_owned());
            }
        }
        let base = Base { api: "/api/v1", plural: "pods", object: Value::Null, template: None };
        let (stored, outcome) = self.create(&base, &pod, Some(attempt)).await;
        let inner: Vec<(String, Value)> = set
            .iter()
            .filter_map(|(pointer, value)| Some((pointer.strip_prefix(at)?.to_owned(), value.clone())))
            .collect();
        match outcome {
            Outcome::Possible => verified(&stored, &inner, attempt),
            Outcome::Refused { by, message } => {
                Outcome::Refused { by, message: format!("it may be stored, but no pod comes of it: {message}") }
            }
            unclear => unclear,
        }
    }

    /// A refusal tells nothing where the unchanged object is refused as well, but for a right that is not there.
    fn unless_the_legal_one_is_refused_too(&self, name: &str, changed: bool, outcome: Outcome) -> Outcome {
        let legal = self.legal.iter().find(|(base, _)| *base == name).map(|(_, legal)| legal);
        match (&outcome, legal) {
            (Outcome::Refused { by: By::Admission(_) | By::Schema, .. }, Some(legal))
                if changed && *legal != Outcome::Possible =>
            {
                Outcome::Inconclusive(format!("a legal {name} is not possible either ({})", legal.because()))
            }
            _ => outcome,
        }
    }

    async fn whole(&self, mut object: Value, plural: &str, attempt: &Attempt) -> Result<Outcome, Missing> {
        let api = match object.get("apiVersion").and_then(Value::as_str) {
            Some(version) if version.contains('/') => format!("/apis/{version}"),
            _ => "/api/v1".to_owned(),
        };
        let metadata = object.get("metadata").is_some_and(|metadata| metadata.get("name").is_some());
        if !metadata && put(&mut object, "/metadata/name", NAME.into()).is_err() {
            return Ok(Outcome::Inconclusive("it is no object".to_owned()));
        }
        let path = format!("{}?dryRun=All&fieldValidation=Strict", self.path(&api, plural, attempt.place));
        Ok(match self.send("POST", &path, &[], &object).await {
            Ok(stored) => self.kept(&stored, attempt)?,
            Err(error) => Outcome::of_error(&error, attempt.quota),
        })
    }

    /// Asks the API server whether the tenant has a right.
    async fn may(&self, right: &str, place: Place) -> Outcome {
        let (verb, resource) = right.split_once(' ').unwrap_or((right, ""));
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
        let asked = json!({
            "verb": verb, "group": group, "resource": plural, "subresource": subresource,
            "namespace": self.namespace(place).unwrap_or_default(),
        });
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": { "resourceAttributes": asked },
        });
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        match self.send("POST", path, &[], &review).await {
            Ok(answer) => match answer.pointer("/status/allowed").and_then(Value::as_bool) {
                Some(true) => Outcome::Possible,
                Some(false) => Outcome::Refused { by: By::Authorization, message: format!("no right to {right}") },
                None => Outcome::Inconclusive("the API server does not say what the tenant may do".to_owned()),
            },
            Err(error) => Outcome::Inconclusive(format!("the tenant may not ask what it may do: {error}")),
        }
    }

    async fn ask(&self, ask: &Ask, attempt: &Attempt) -> Result<Outcome, Missing> {
        let mut path = self.values.text(&ask.path)?;
        if ask.method != "GET" {
            path.push_str(if path.contains('?') { "&dryRun=All" } else { "?dryRun=All" });
        }
        let headers: Vec<(&str, String)> = ask
            .headers
            .iter()
            .map(|(name, value)| Ok((name.as_str(), self.values.text(value)?)))
            .collect::<Result<_, Missing>>()?;
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = match self.send(&ask.method, &path, &headers, &self.values.value(&ask.body)?).await {
            Ok(answer) => answer,
            Err(error) => return Ok(Outcome::of_error(&error, attempt.quota)),
        };
        match self.kept(&answer, attempt)? {
            Outcome::Possible if answer.get("kind").and_then(Value::as_str) == Some("Deployment") => {
                Ok(self.pod_of(&answer, "/spec/template", &[], attempt).await)
            }
            outcome => Ok(outcome),
        }
    }

    /// Whether the answer holds what the attempt says it must.
    fn kept(&self, answer: &Value, attempt: &Attempt) -> Result<Outcome, Missing> {
        let keeps = attempt.keeps.iter().map(|(pointer, value)| Ok((pointer.clone(), self.values.value(value)?)));
        Ok(verified(answer, &keeps.collect::<Result<Vec<_>, Missing>>()?, attempt))
    }

    /// Makes the pod and the Deployment that attempts at changing something need. What cannot be made is left out,
    /// and what needs it is inconclusive.
    pub async fn make_real(&mut self) {
        self.made = true;
        for name in REAL {
            let Some(base) = base(name, &self.values) else { continue };
            let mut object = base.object.clone();
            take(&mut object, "/metadata/name");
            let start = put(&mut object, "/metadata/generateName", format!("{NAME}-").into());
            let still = if name == "deployment" { put(&mut object, "/spec/replicas", 0.into()) } else { Ok(()) };
            if start.is_err() || still.is_err() {
                continue;
            }
            let path = self.path(base.api, base.plural, Place::Own);
            if let Ok(made) = self.send("POST", &path, &[], &object).await
                && let Some(made) = made.pointer("/metadata/name").and_then(Value::as_str)
            {
                self.values.0.insert(name, made.to_owned());
            }
        }
    }

    /// Removes what was really made, by its label, so that what an earlier run left goes too.
    pub async fn remove_real(&self) -> anyhow::Result<()> {
        let at_once = json!({
            "apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "propagationPolicy": "Background",
        });
        for name in REAL.into_iter().filter(|_| self.made) {
            let Some(base) = base(name, &self.values) else { continue };
            let path = self.path(base.api, base.plural, Place::Own);
            let listed = self.send("GET", &format!("{path}?labelSelector={LABEL}"), &[], &Value::Null).await;
            let listed = listed.with_context(|| format!("{path} cannot be listed; remove what has {LABEL}"))?;
            let names = listed.get("items").and_then(Value::as_array).into_iter().flatten();
            for name in names.filter_map(|item| item.pointer("/metadata/name").and_then(Value::as_str)) {
                match self.send("DELETE", &format!("{path}/{name}"), &[], &at_once).await {
                    Err(Error::Api(status)) if status.code == 404 => (),
                    answer => drop(answer.with_context(|| format!("{path}/{name} could not be removed; delete it"))?),
                }
            }
        }
        Ok(())
    }
}

/// What was accepted is possible if it is still there, and `unless` is not.
fn verified(stored: &Value, set: &[(String, Value)], attempt: &Attempt) -> Outcome {
    let corrected = |what: String| Outcome::Refused { by: By::Correction, message: what };
    if let Some((pointer, _)) = set.iter().find(|(pointer, value)| !holds(stored, pointer, value)) {
        return corrected(format!("it was accepted without what is at {pointer}"));
    }
    let cured = |(pointer, value): &(&String, &Value)| match value {
        Value::Null => stored.pointer(pointer).is_some_and(|found| !found.is_null()),
        value => holds(stored, pointer, value),
    };
    match attempt.unless.iter().find(cured) {
        Some((pointer, _)) => corrected(format!("it was accepted with another value at {pointer}")),
        None => Outcome::Possible,
    }
}

/// Another address of the cluster's range: a dry run is given the range's first one, which cannot be chosen.
fn in_range(address: &str) -> String {
    match address.rsplit_once('.') {
        Some((network, _)) => format!("{network}.213"),
        None => format!("{address}d5"),
    }
}

fn group_path(group: &str) -> String {
    match group {
        "" => "/api/v1".to_owned(),
        "metrics.k8s.io" => "/apis/metrics.k8s.io/v1beta1".to_owned(),
        group => format!("/apis/{group}/v1"),
    }
}
