//! What most pods are: right, and without the fields that few have.
//!
//! The API server computes the text of each refusal before it looks whether there is one, so a policy with many
//! validations looks at everything twice and in great detail. One expression that asks only whether all is right costs
//! a fraction of that. It is the condition of the policies that judge what pods are made of: where it does not hold,
//! they look, and say what is wrong, if anything is. What depends on the namespace's annotations, which a condition
//! does not see, is judged by the policies of identity, which always look.
//!
//! Where an object is as usual, every validation of its policy would hold: the same is asked of the same fields. The
//! validations let through what was there before; so they look at all changes.

use serde_json::{Value, json};

use super::super::fields::Section;
use super::super::{Field, Listed, Need, Node, Rules};
use super::expression::{self, list, literal};
use super::{is_identity, listed, part};

/// Fields that few pods have, and that are not worth asking for each time.
const RARE: &[&str] = &[
    "affinity",
    "appArmorProfile",
    "ephemeralContainers",
    "hostIP",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "hostPort",
    "hostUsers",
    "lifecycle",
    "mountPropagation",
    "priorityClassName",
    "procMount",
];

/// No list of most pods is longer. What is asked of each entry adds up, and a condition may cost only so much.
const LONGEST: usize = 32;

/// How the expressions call the section that they are about.
const SECTION: &str = "s";

/// The condition of a policy that looks at what is not as usual.
pub(super) fn condition(rules: &Rules, sections: &[Section], filled: bool) -> Value {
    let writer = Writer { rules, filled };
    let sections = sections.iter().map(|section| {
        let judged: Vec<&Field> = section.fields.iter().filter(|field| !is_identity(field)).collect();
        let names = section.fields.iter().filter(|field| is_identity(field)).map(|field| field.name).collect();
        let right = writer.fields(&judged, names, section.open, SECTION, 1);
        // A name of its own costs less than the way there each time.
        format!("[{}].all({SECTION}, {})", part("object", section.at), right.unwrap_or_else(|| "true".to_owned()))
    });
    let usual = sections.collect::<Vec<_>>().join(" && ");
    json!({ "name": "not-as-usual", "expression": format!("!(request.operation == \"CREATE\" && {usual})") })
}

/// What a value is where an object is as usual.
enum Usual {
    /// Anything.
    Any,
    /// Such that this holds.
    If(String),
    /// Not there.
    Absent,
}

struct Writer<'a> {
    rules: &'a Rules,
    filled: bool,
}

impl Writer<'_> {
    /// Whether an object has, of these fields, the usual ones as they usually are, and, unless it is open, none but
    /// these and those `named`.
    fn fields(&self, fields: &[&Field], mut named: Vec<&str>, open: bool, owner: &str, depth: usize) -> Option<String> {
        let mut all = Vec::new();
        for field in fields {
            let value = format!("{owner}.{}", field.name);
            let needed = field.need == Need::Always || (field.need == Need::Filled && self.filled);
            match (self.node(&field.node, &value, depth), needed) {
                (Usual::Any, false) => (),
                (Usual::Any, true) => all.push(format!("has({value})")),
                (Usual::If(right), true) => all.push(format!("has({value}) && {right}")),
                (Usual::If(_), false) if RARE.contains(&field.name) => {
                    all.extend(open.then(|| format!("!has({value})")));
                    continue;
                }
                (Usual::If(right), false) => all.push(format!("(!has({value}) || {right})")),
                (Usual::Absent, _) => {
                    all.extend(open.then(|| format!("!has({value})")));
                    continue;
                }
            }
            named.push(field.name);
        }
        if !open {
            all.insert(0, format!("{owner}.all(k, k in {})", list(&named)));
        }
        (!all.is_empty()).then(|| all.join(" && "))
    }

    fn node(&self, node: &Node, value: &str, depth: usize) -> Usual {
        let from = |right: Option<String>| right.map_or(Usual::Any, |right| Usual::If(format!("({right})")));
        match node {
            Node::Object(fields) | Node::Open(fields) => {
                let open = matches!(node, Node::Open(_));
                from(self.fields(&fields.iter().collect::<Vec<_>>(), Vec::new(), open, value, depth))
            }
            Node::Each { node, most, .. } => {
                let entry = format!("e{depth}");
                // A required list that was left out is stored as null.
                let few = format!("({value} != null && {value}.size() <= {}", LONGEST.min(*most));
                match self.node(node, &entry, depth + 1) {
                    Usual::Any => Usual::If(format!("{few})")),
                    Usual::If(right) => Usual::If(format!("{few} && {value}.all({entry}, {right}))")),
                    Usual::Absent => Usual::Absent,
                }
            }
            Node::All(nodes) => {
                let mut all = Vec::new();
                for node in *nodes {
                    match self.node(node, value, depth) {
                        Usual::Any => (),
                        Usual::If(right) => all.push(right),
                        Usual::Absent => return Usual::Absent,
                    }
                }
                from((!all.is_empty()).then(|| all.join(" && ")))
            }
            Node::Listed(listed) => self.listed(*listed, value),
            Node::Added(texts) => Usual::If(format!("{value}.all(k, k in {})", list(texts))),
            Node::Annotations { under, keys } => {
                Usual::If(format!("{value}.all(k, {})", expression::known_annotation(under, keys)))
            }
            // The pod's own number is the tool's, or the policies of identity refuse it.
            Node::Uid => {
                let own = format!("{SECTION}.securityContext");
                Usual::If(format!("(has({own}) && has({own}.runAsUser) && {value} == {own}.runAsUser)"))
            }
            // These depend on the tool.
            Node::Never | Node::OwnHost | Node::OwnOrLegacyHost | Node::LegacyPaths => Usual::Absent,
            _ => from(expression::test(self.rules, node, value, self.filled, depth)),
        }
    }

    fn listed(&self, listed: Listed, value: &str) -> Usual {
        let paths = |read_only: bool| {
            let mounts = self.rules.mounts.iter().filter(|mount| !read_only || mount.read_only);
            list(&mounts.map(|mount| mount.path.as_str()).collect::<Vec<_>>())
        };
        match listed {
            Listed::Account => Usual::If(format!("{value} in [\"\", \"default\"]")),
            // The tool's name is the end of its namespace's, which the policies of identity see to.
            Listed::Path => Usual::If(format!(
                "({value} == {} + request.namespace.replace(\"tool-\", \"\", 1) || {value} in {})",
                literal(&format!("{}/", self.rules.homes)),
                paths(false)
            )),
            Listed::Mount if !self.rules.mounts.iter().any(|mount| mount.read_only) => Usual::Any,
            Listed::Mount => Usual::If(format!(
                "({value}.?readOnly.orValue(false) || !{SECTION}.?volumes.orValue([]).exists(v, \
                 v.?name.orValue(\"\") == {value}.?name.orValue(\"\") && v.?hostPath.?path.orValue(\"\") in {}))",
                paths(true)
            )),
            Listed::PriorityClass => match listed::test(self.rules, listed, value) {
                Some(right) => Usual::If(right),
                None => Usual::Any,
            },
            Listed::RoleCapabilities | Listed::RolePath | Listed::RoleEscalation => Usual::Absent,
        }
    }
}
