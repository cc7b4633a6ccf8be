//! The rulebook as policies of the API server: the layer that enforces.
//!
//! [`policies`] writes the tables of [`super::fields`] out as `ValidatingAdmissionPolicy` objects, one for each
//! chapter of the tools' and of the platform's namespaces, or two where most objects need not be looked at in full
//! ([`usual`]); one `MutatingAdmissionPolicy` that fills in what a pod leaves out, and one that leaves the addresses of
//! Services to the cluster. Domains, registries and namespaces stand in them as literals; a tool's number and name are
//! read from the namespace of the request. Nothing here looks at objects: what the expressions mean is tried against a
//! real API server, case by case beside [`super::review`].
//!
//! The namespaces are named in the bindings, not in the policies: the API server reads a policy's selector anew for
//! each request of any kind, but a binding's only where the policy is about the kind. So a binding comes before its
//! policy, which without one applies nowhere.

mod address;
mod expression;
mod fill;
mod listed;
mod message;
mod usual;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::fields::{Book, CHAPTERS, Chapter, PLATFORM_CHAPTERS, Section, Writers};
use super::{Field, Node, Rule, Rules};
use crate::names::{annotation, label};
use expression::{list, literal};

/// The API version of all policies.
const API_VERSION: &str = "admissionregistration.k8s.io/v1";

/// Who makes them, as their label says.
const MANAGER: &str = "hearth-render";

/// All bindings and their policies, in the order in which to apply them.
pub fn policies(rules: &Rules) -> Vec<Value> {
    let mut objects: Vec<Value> = fill::policy(rules).into();
    objects.extend(address::policy(rules));
    for chapter in CHAPTERS {
        let name = format!("hearth-tool-{}", chapter.name);
        let policy = |name: &str, conditions, variables, validations| {
            let policy = Policy { name, conditions, variables, validations };
            policy.write(chapter, actions(rules, chapter), tools(rules))
        };
        match &chapter.book {
            Book::Writers(users) => {
                objects.extend(policy(&name, Vec::new(), Vec::new(), vec![writers(users, chapter.name)]));
            }
            Book::Fields { sections, filled } => {
                let Judged { variables, identity, content } = fields(rules, sections, *filled, tenant(rules));
                if identity.is_empty() {
                    objects.extend(policy(&name, Vec::new(), variables, content));
                } else {
                    objects.extend(policy(&format!("{name}-identity"), Vec::new(), variables.clone(), identity));
                    objects.extend(policy(&name, vec![usual::condition(rules, sections, *filled)], variables, content));
                }
            }
        }
    }
    for chapter in PLATFORM_CHAPTERS {
        if let Book::Fields { sections, filled } = &chapter.book {
            let Judged { variables, identity, content } = fields(rules, sections, *filled, listed::role(sections));
            let name = format!("hearth-platform-{}", chapter.name);
            let validations = identity.into_iter().chain(content).collect();
            let policy = Policy { name: &name, conditions: Vec::new(), variables, validations };
            objects.extend(policy.write(chapter, DENY, platform(rules)));
        }
    }
    objects
}

/// A policy that refuses.
struct Policy<'a> {
    name: &'a str,
    /// It looks at objects for which all of these hold.
    conditions: Vec<Value>,
    /// What its validations may use; others are left out.
    variables: Vec<Value>,
    validations: Vec<Value>,
}

impl Policy<'_> {
    /// Its binding to these namespaces, and the policy.
    fn write(self, chapter: &Chapter, actions: &[&str], namespaces: Value) -> [Value; 2] {
        let policy = json!({
            "apiVersion": API_VERSION,
            "kind": "ValidatingAdmissionPolicy",
            "metadata": metadata(self.name),
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": constraints(chapter),
                "matchConditions": self.conditions,
                "variables": used(self.variables, &self.validations),
                "validations": self.validations,
            },
        });
        let binding = json!({
            "apiVersion": API_VERSION,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": metadata(self.name),
            "spec": {
                "policyName": self.name,
                "matchResources": { "namespaceSelector": namespaces },
                "validationActions": actions,
            },
        });
        [binding, policy]
    }
}

/// The variables that validations use, by themselves or through others.
fn used(variables: Vec<Value>, validations: &[Value]) -> Vec<Value> {
    let named = |text: &str| {
        let names = text.split("variables.").skip(1);
        let end = |name: &str| name.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(name.len());
        names.filter_map(|name| name.get(..end(name)).map(str::to_owned)).collect::<Vec<_>>()
    };
    let mut wanted: BTreeSet<String> = validations
        .iter()
        .flat_map(|validation| [&validation["expression"], &validation["messageExpression"]])
        .filter_map(Value::as_str)
        .flat_map(named)
        .collect();
    let mut kept = Vec::new();
    // Each uses earlier ones only.
    for variable in variables.into_iter().rev() {
        let text = |field: &str| variable.get(field).and_then(Value::as_str);
        if text("name").is_some_and(|name| wanted.contains(name)) {
            wanted.extend(text("expression").into_iter().flat_map(named));
            kept.push(variable);
        }
    }
    kept.reverse();
    kept
}

fn metadata(name: &str) -> Value {
    json!({ "name": name, "labels": { label::MANAGED_BY: MANAGER } })
}

/// Every namespace but the platform's, by the name that the API server itself keeps as a label.
fn tools(rules: &Rules) -> Value {
    named("NotIn", &rules.namespaces.all().collect::<Vec<_>>())
}

/// The platform's namespaces but the privileged ones.
fn platform(rules: &Rules) -> Value {
    let names = &rules.namespaces.platform;
    named("In", &names.iter().map(String::as_str).collect::<Vec<_>>())
}

fn named(operator: &str, names: &[&str]) -> Value {
    let name = json!({ "key": "kubernetes.io/metadata.name", "operator": operator, "values": names });
    json!({ "matchExpressions": [name] })
}

/// What a policy does with what it finds wrong.
const DENY: &[&str] = &["Deny"];

/// What becomes of what a chapter refuses. On trial it goes through: whoever asked is warned, the audit log notes it.
fn actions(rules: &Rules, chapter: &Chapter) -> &'static [&'static str] {
    match rules.trial.iter().any(|name| name == chapter.name) {
        true => &["Warn", "Audit"],
        false => DENY,
    }
}

fn constraints(chapter: &Chapter) -> Value {
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
        "resourceRules": resources.collect::<Vec<_>>(),
    })
}

/// Who may write, and that everybody may change metadata that says nothing of the content: the counterpart of
/// `is_only_labelled`.
fn writers(writers: &Writers, kind: &str) -> Value {
    let is = |user: &&str| match user.strip_suffix('*') {
        Some(start) => format!("request.userInfo.username.startsWith({})", literal(start)),
        None => format!("request.userInfo.username == {}", literal(user)),
    };
    let users: Vec<String> = writers.users.iter().map(is).collect();
    let (new, old) = ("dyn(object)", "dyn(oldObject)");
    let labels = |of: &str, other: &str| {
        format!(
            "{of}.metadata.?labels.orValue({{}}).all(k, !k.contains(\"kubernetes.io/\") || \
             {of}.metadata.labels[?k] == {other}.metadata.?labels[?k])"
        )
    };
    let list = |of: &str, name: &str| format!("{of}.metadata.?{name}.orValue([])");
    let same = [
        "request.operation == \"UPDATE\"".to_owned(),
        format!("{new}.all(k, k == \"metadata\" || {new}[?k] == {old}[?k])"),
        format!("{old}.all(k, k in {new})"),
        labels(new, old),
        labels(old, new),
        format!("{} == {}", list(new, "ownerReferences"), list(old, "ownerReferences")),
        format!("{}.all(f, f in {})", list(new, "finalizers"), list(old, "finalizers")),
    ];
    let Writers { by, instead, rule, .. } = writers;
    message::plain(
        &format!("{} || ({})", users.join(" || "), same.join(" && ")),
        &format!("{kind} of a tool are written by {by}: {instead}"),
        *rule,
    )
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
        variable(
            "account",
            format!("namespaceObject.metadata.?annotations[?{}].orValue(\"\")", literal(annotation::SERVICE_ACCOUNT)),
        ),
        variable("home", format!("{} + variables.tool", literal(&format!("{}/", rules.homes)))),
        variable("hosts", format!("[{}].filter(h, !(h in {}))", hosts.join(", "), list(&shared))),
    ]
}

fn variable(name: &str, expression: String) -> Value {
    json!({ "name": name, "expression": expression })
}

/// What judges the fields of a kind.
struct Judged {
    /// What the validations use.
    variables: Vec<Value>,
    /// Validations that say whose the object is: that the namespace is a tool's, and the numbers that pods run as.
    identity: Vec<Value>,
    /// All others.
    content: Vec<Value>,
}

/// Writes out the chapters that judge fields; `variables` say whose they are.
fn fields(rules: &Rules, sections: &[Section], filled: bool, variables: Vec<Value>) -> Judged {
    let mut judged = Judged { variables, identity: Vec::new(), content: Vec::new() };
    judged.variables.push(variable("updating", "request.operation == \"UPDATE\"".to_owned()));
    for (index, section) in sections.iter().enumerate() {
        let whole = |outer: &Section| {
            outer.needs_tenant() && outer.at.len() < section.at.len() && section.at.starts_with(outer.at)
        };
        let (now, before) = (format!("now{index}"), format!("before{index}"));
        let old = format!("variables.updating ? {} : dyn({{}})", part("oldObject", section.at));
        judged.variables.extend([variable(&now, part("object", section.at)), variable(&before, old)]);
        let writer =
            Writer { rules, filled, section, now: format!("variables.{now}"), before: format!("variables.{before}") };
        if section.fields.iter().any(|field| field.name == "volumes") {
            judged.variables.push(listed::read_only(rules, &writer.now));
        }
        // What an outer section asks of the namespace need not be asked again.
        if section.needs_tenant() && !sections.iter().any(whole) {
            judged.identity.push(writer.known_tenant());
        }
        if !section.open {
            judged.content.push(writer.listed());
        }
        for group in groups(section.fields) {
            let name = format!("judged{index}{}", group.first().map_or("", |field| field.name));
            writer.group(group, &name, &mut judged);
        }
    }
    // Without numbers there is nothing to set apart.
    if !sections.iter().flat_map(|section| section.fields).any(is_identity) {
        judged.content.splice(0..0, judged.identity.drain(..));
    }
    judged
}

/// Whether a field of a section says as whom pods run, and is judged by one validation.
fn is_identity(field: &Field) -> bool {
    fn names_uid(node: &Node) -> bool {
        match node {
            Node::Uid => true,
            Node::Object(fields) | Node::Open(fields) => fields.iter().any(|field| names_uid(&field.node)),
            Node::Each { node, .. } => names_uid(node),
            Node::All(nodes) => nodes.iter().any(names_uid),
            _ => false,
        }
    }
    entries(&field.node).is_none() && names_uid(&field.node)
}

/// A part of an object, as a map of whatever it holds: empty where the object lacks it.
fn part(object: &str, at: &[&str]) -> String {
    match at.split_first() {
        None => format!("dyn({object})"),
        Some((first, rest)) => {
            let rest: String = rest.iter().map(|step| format!(".?{step}")).collect();
            format!("dyn(dyn({object}).?{first}{rest}.orValue({{}}))")
        }
    }
}

/// Fields that hold lists of the same things are judged together, each with its neighbours.
fn groups(fields: &'static [Field]) -> impl Iterator<Item = &'static [Field]> {
    fields.chunk_by(|a, b| match (entries(&a.node), entries(&b.node)) {
        (Some((a, _)), Some((b, _))) => std::ptr::eq(a, b),
        _ => false,
    })
}

/// The fields of the entries and whether they may have others, where a node is an unbounded list of objects.
fn entries(node: &Node) -> Option<(&'static [Field], bool)> {
    match node {
        Node::Each { node: Node::Object(fields), most: super::node::UNBOUNDED, .. } => Some((fields, false)),
        Node::Each { node: Node::Open(fields), most: super::node::UNBOUNDED, .. } => Some((fields, true)),
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
            "messageExpression": format!(
                "{} + namespaceObject.metadata.name + {}",
                literal(start),
                literal(&format!("{end} ({})", Rule::Tenant.page()))
            ),
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
        let at = match self.section.at.is_empty() {
            true => "the object".to_owned(),
            false => self.section.path(),
        };
        json!({
            "expression": format!("!{}.exists(k, {wrong})", self.now),
            "messageExpression": format!(
                "{} + {}.filter(k, {wrong}).join(\", \") + {}",
                literal(&format!("{at}: ")),
                self.now,
                literal(&format!(": not a field that tools may set, leave it out ({})", Rule::Field.page()))
            ),
            "message": format!("{at}: it holds a field that tools may not set ({})", Rule::Field.page()),
            "reason": "Forbidden",
        })
    }

    /// One validation for a field; for lists of objects, one for each field of their entries.
    fn group(&self, group: &'static [Field], name: &str, judged: &mut Judged) {
        let Some(first) = group.first() else { return };
        match entries(&first.node) {
            Some((fields, open)) => {
                let lists: Vec<String> = group.iter().map(|field| self.changed_list(field.name)).collect();
                judged.variables.push(variable(name, lists.join(" + ")));
                let list = format!("variables.{name}");
                let at: Vec<String> = group.iter().map(|field| self.section.path_of(field.name)).collect();
                if !open {
                    judged.content.push(self.entries_listed(first, fields, &list, &at.join(", ")));
                }
                self.entries(first, fields, &list, &at.join(", "), &mut judged.content);
            }
            None if is_identity(first) => judged.identity.extend(self.single(first)),
            None => judged.content.extend(self.single(first)),
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

    fn entries_listed(&self, list_of: &Field, fields: &[Field], judged: &str, at: &str) -> Value {
        let names: Vec<&str> = fields.iter().map(|field| field.name).collect();
        let known = format!("c.all(k, k in {})", list(&names));
        let told = "only fields that tools may set are allowed: ".to_owned() + &names.join(", ");
        message::offenders(judged, key(list_of), at, Rule::Field, &known, &told, None)
    }

    fn entries(&self, list_of: &Field, fields: &'static [Field], judged: &str, at: &str, validations: &mut Vec<Value>) {
        for field in fields {
            if let Some(ok) = expression::field(self.rules, field, "c", self.filled, 1) {
                let told = format!("{}: {}", field.name, message::expected(self.rules, field, self.filled));
                let shown = message::is_scalar(&field.node).then_some(field.name);
                validations.push(message::offenders(judged, key(list_of), at, field.rule, &ok, &told, shown));
            }
        }
    }

    fn single(&self, field: &Field) -> Option<Value> {
        let ok = expression::field(self.rules, field, &self.now, self.filled, 1)?;
        let at = self.section.path_of(field.name);
        let told = format!("{at}: {}", message::expected(self.rules, field, self.filled));
        Some(message::plain(&format!("{} || ({ok})", self.unchanged(field.name)), &told, field.rule))
    }
}

/// The field by which messages name the entries of a list.
fn key(list_of: &Field) -> &'static str {
    match list_of.node {
        Node::Each { key, .. } => key,
        _ => "",
    }
}
