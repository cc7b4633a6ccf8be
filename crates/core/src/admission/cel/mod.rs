//! The rulebook as policies of the API server: the layer that enforces.
//!
//! [`policies`] writes the tables of [`super::fields`] out as `ValidatingAdmissionPolicy` objects, one for each
//! chapter, and one `MutatingAdmissionPolicy` that fills in what a pod leaves out. Domains, registries and namespaces
//! stand in them as literals; a tool's number and name are read from the namespace of the request. Nothing here looks
//! at objects: what the expressions mean is tried against a real API server, case by case beside [`super::review`].

mod expression;
mod fill;
mod message;

use serde_json::{Value, json};

use super::fields::{Book, CHAPTERS, Chapter, Section};
use super::{Field, Node, Rule, Rules};
use crate::names::{annotation, label};
use expression::{list, literal};

/// The API version of all policies.
const API_VERSION: &str = "admissionregistration.k8s.io/v1";

/// Who makes them, as their label says.
const MANAGER: &str = "hearth-render";

/// All policies and their bindings, in the order in which to apply them.
pub fn policies(rules: &Rules) -> Vec<Value> {
    let mut objects: Vec<Value> = fill::policy(rules).into();
    for chapter in CHAPTERS {
        let name = format!("hearth-tool-{}", chapter.name);
        let (variables, validations) = match &chapter.book {
            Book::Writers(users) => (json!([]), vec![writers(users)]),
            Book::Fields { sections, filled } => fields(rules, sections, *filled),
        };
        objects.push(json!({
            "apiVersion": API_VERSION,
            "kind": "ValidatingAdmissionPolicy",
            "metadata": metadata(&name),
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": constraints(rules, chapter),
                "variables": variables,
                "validations": validations,
            },
        }));
        objects.push(json!({
            "apiVersion": API_VERSION,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": metadata(&name),
            "spec": { "policyName": name, "validationActions": actions(rules, chapter) },
        }));
    }
    objects
}

fn metadata(name: &str) -> Value {
    json!({ "name": name, "labels": { label::MANAGED_BY: MANAGER } })
}

/// Every namespace but the platform's, by the name that the API server itself keeps as a label.
fn namespaces(rules: &Rules) -> Value {
    json!({
        "matchExpressions": [
            { "key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": rules.platform_namespaces },
        ],
    })
}

/// What becomes of what a chapter refuses. On trial it goes through: whoever asked is warned, the audit log notes it.
fn actions(rules: &Rules, chapter: &Chapter) -> &'static [&'static str] {
    match rules.trial.iter().any(|name| name == chapter.name) {
        true => &["Warn", "Audit"],
        false => &["Deny"],
    }
}

fn constraints(rules: &Rules, chapter: &Chapter) -> Value {
    let resources = chapter.resources.iter().map(|resource| {
        json!({
            "apiGroups": [resource.group],
            "apiVersions": [resource.version],
            "operations": ["CREATE", "UPDATE"],
            "resources": [resource.name],
            "scope": "Namespaced",
        })
    });
    json!({
        "matchPolicy": "Equivalent",
        "namespaceSelector": namespaces(rules),
        "resourceRules": resources.collect::<Vec<_>>(),
    })
}

fn writers(users: &[&str]) -> Value {
    let message = "endpoints of a tool are written by the cluster's own controllers: make a Service with a selector";
    json!({
        "expression": format!("request.userInfo.username in {}", list(users)),
        "message": message,
        "reason": "Forbidden",
    })
}

/// The tool of the request's namespace, as variables; the counterpart of `tenant`.
fn tenant(rules: &Rules) -> Vec<Value> {
    let uid = format!("namespaceObject.metadata.?annotations[?{}].orValue(\"\")", literal(annotation::UID));
    let name = "namespaceObject.metadata.name";
    let is_tool = format!("{name}.size() <= 58 && {name}.matches(\"^tool-[a-z0-9]([-a-z0-9]*[a-z0-9])?$\")");
    let (first, last) = (rules.first_uid, rules.last_uid);
    let number = format!("{uid}.matches(\"^[1-9][0-9]{{0,9}}$\") ? int({uid}) : 0");
    let hosts: Vec<String> = rules
        .domains
        .public
        .iter()
        .map(|domain| format!("variables.tool + {}", literal(&format!(".{domain}"))))
        .collect();
    let shared: Vec<&str> =
        rules.domains.public.iter().chain([&rules.domains.legacy]).map(crate::Host::as_str).collect();
    vec![
        variable("number", number),
        variable("known", format!("{is_tool} && variables.number >= {first} && variables.number <= {last}")),
        variable("uid", "variables.known ? variables.number : 0".to_owned()),
        variable("tool", format!("variables.known ? {name}.substring(5) : \"\"")),
        variable("home", format!("{} + variables.tool", literal(&format!("{}/", rules.homes)))),
        variable("hosts", format!("[{}].filter(h, !(h in {}))", hosts.join(", "), list(&shared))),
    ]
}

fn variable(name: &str, expression: String) -> Value {
    json!({ "name": name, "expression": expression })
}

/// The variables and validations of the chapters that judge fields.
fn fields(rules: &Rules, sections: &[Section], filled: bool) -> (Value, Vec<Value>) {
    let mut variables = tenant(rules);
    variables.push(variable("updating", "request.operation == \"UPDATE\"".to_owned()));
    let mut validations = Vec::new();
    for (index, section) in sections.iter().enumerate() {
        let (now, before) = (format!("now{index}"), format!("before{index}"));
        variables.push(variable(&now, part("object", section.at)));
        variables
            .push(variable(&before, format!("variables.updating ? {} : dyn({{}})", part("oldObject", section.at))));
        let writer =
            Writer { rules, filled, section, now: format!("variables.{now}"), before: format!("variables.{before}") };
        if !section.open {
            validations.push(writer.known_tenant());
            validations.push(writer.listed());
        }
        for group in groups(section.fields) {
            let judged = format!("judged{index}{}", group.first().map_or("", |field| field.name));
            writer.group(group, &judged, &mut variables, &mut validations);
        }
    }
    (Value::Array(variables), validations)
}

/// A part of an object, as a map of whatever it holds: empty where the object lacks it.
fn part(object: &str, at: &[&str]) -> String {
    let mut steps = at.iter();
    let first = steps.next().copied().unwrap_or_default();
    let rest: String = steps.map(|step| format!(".?{step}")).collect();
    format!("dyn(dyn({object}).?{first}{rest}.orValue({{}}))")
}

/// Fields that hold lists of the same things are judged together, each with its neighbours.
fn groups(fields: &'static [Field]) -> impl Iterator<Item = &'static [Field]> {
    fields.chunk_by(|a, b| match (entries(&a.node), entries(&b.node)) {
        (Some(a), Some(b)) => std::ptr::eq(a, b),
        _ => false,
    })
}

/// The fields of the entries, where a node is an unbounded list of objects.
fn entries(node: &Node) -> Option<&'static [Field]> {
    match node {
        Node::Each { node: Node::Object(fields), most: super::node::UNBOUNDED, .. } => Some(fields),
        _ => None,
    }
}

/// Writes the validations of one section.
struct Writer<'a> {
    rules: &'a Rules,
    filled: bool,
    section: &'a Section,
    /// The variable of the section as it would be, and as it is.
    now: String,
    before: String,
}

impl Writer<'_> {
    fn known_tenant(&self) -> Value {
        let message = super::Violation::tenant(self.rules, "NAMESPACE").message;
        let (start, end) = message.split_once("NAMESPACE").unwrap_or((&message, ""));
        json!({
            "expression": format!("variables.known || (variables.updating && {} == {})", self.now, self.before),
            "messageExpression": format!("{} + namespaceObject.metadata.name + {}", literal(start), literal(end)),
            "message": "the namespace is not that of a tool",
            "reason": "Forbidden",
        })
    }

    fn listed(&self) -> Value {
        let names: Vec<&str> = self.section.fields.iter().map(|field| field.name).collect();
        let wrong = format!(
            "!(k in {}) && !({before}[?k] == {now}[?k] && variables.updating)",
            list(&names),
            now = self.now,
            before = self.before
        );
        let at = self.section.path();
        json!({
            "expression": format!("!{}.exists(k, {wrong})", self.now),
            "messageExpression": format!(
                "{} + {}.filter(k, {wrong}).join(\", \") + \": not a field that tools may set, leave it out\"",
                literal(&format!("{at}: ")),
                self.now
            ),
            "message": format!("{at}: it holds a field that tools may not set"),
            "reason": "Forbidden",
        })
    }

    /// One validation for a field; for lists of objects, one for each field of their entries.
    fn group(&self, group: &'static [Field], judged: &str, variables: &mut Vec<Value>, validations: &mut Vec<Value>) {
        let Some(first) = group.first() else { return };
        match entries(&first.node) {
            Some(fields) => {
                let lists: Vec<String> = group.iter().map(|field| self.changed_list(field.name)).collect();
                variables.push(variable(judged, lists.join(" + ")));
                let judged = format!("variables.{judged}");
                let at: Vec<String> =
                    group.iter().map(|field| format!("{}.{}", self.section.path(), field.name)).collect();
                self.entries(first, fields, &judged, &at.join(", "), validations);
            }
            None => validations.extend(self.single(first)),
        }
    }

    /// The list of a field, empty where it has not changed.
    fn changed_list(&self, name: &str) -> String {
        format!("({} ? [] : {}[?\"{name}\"].orValue([]))", self.unchanged(name), self.now)
    }

    fn unchanged(&self, name: &str) -> String {
        let name = literal(name);
        format!("(variables.updating && {}[?{name}] == {}[?{name}])", self.now, self.before)
    }

    fn entries(&self, list_of: &Field, fields: &'static [Field], judged: &str, at: &str, validations: &mut Vec<Value>) {
        let names: Vec<&str> = fields.iter().map(|field| field.name).collect();
        let known = format!("c.all(k, k in {})", list(&names));
        let told = "only fields that tools may set are allowed: ".to_owned() + &names.join(", ");
        let key = match list_of.node {
            Node::Each { key, .. } => key,
            _ => "",
        };
        let mut push = |rule: Rule, ok: &str, told: &str, value: Option<&str>| {
            validations.push(message::offenders(judged, key, at, rule, ok, told, value));
        };
        push(Rule::Field, &known, &told, None);
        for field in fields {
            if let Some(ok) = expression::field(self.rules, field, "c", self.filled, 1) {
                let told = format!("{}: {}", field.name, message::expected(self.rules, field, self.filled));
                push(field.rule, &ok, &told, message::is_scalar(&field.node).then_some(field.name));
            }
        }
    }

    fn single(&self, field: &Field) -> Option<Value> {
        let ok = expression::field(self.rules, field, &self.now, self.filled, 1)?;
        let at = format!("{}.{}", self.section.path(), field.name);
        let told = format!("{at}: {}", message::expected(self.rules, field, self.filled));
        Some(message::plain(&format!("{} || ({ok})", self.unchanged(field.name)), &told))
    }
}
