//! What the policies say when they refuse: shorter than the webhook, but naming the field, the offenders and the rule.

use serde_json::{Value, json};

use super::super::verdict::LONGEST_NAME;
use super::super::{Field, Need, Node, Rule, Rules};
use super::expression::literal;

/// What would be right for a field, with `<tool>` standing for the tool.
pub(super) fn expected(rules: &Rules, field: &Field, filled: bool) -> String {
    needed(rules, field, filled, 0)
}

fn needed(rules: &Rules, field: &Field, filled: bool, depth: usize) -> String {
    let told = told(rules, &field.node, filled, depth);
    match field.need {
        Need::Always => format!("needed, {told}"),
        Need::Filled if filled => format!("needed, {told}"),
        _ => told,
    }
}

/// The expectation of a node and, for the outermost object, of each field that is checked: what is deeper, the page of
/// the rule tells.
fn told(rules: &Rules, node: &Node, filled: bool, depth: usize) -> String {
    match node {
        Node::Open(fields) => {
            let parts = fields.iter().map(|field| format!("{}: {}", field.name, needed(rules, field, filled, depth)));
            parts.collect::<Vec<_>>().join("; ")
        }
        Node::Object(fields) => {
            let checked = fields.iter().filter(|field| depth == 0 && !matches!(field.node, Node::Any));
            let parts: Vec<String> =
                checked.map(|field| format!("{}: {}", field.name, needed(rules, field, filled, depth + 1))).collect();
            let names: Vec<&str> = fields.iter().map(|field| field.name).collect();
            match parts.is_empty() {
                true => format!("only {} may be set", names.join(", ")),
                false => format!("only {} may be set ({})", names.join(", "), parts.join("; ")),
            }
        }
        Node::Each { node: entry, .. } => {
            format!("{}, and of each: {}", node.expected(rules, "<tool>", "<uid>"), told(rules, entry, filled, depth))
        }
        Node::All(nodes) => nodes.iter().map(|node| told(rules, node, filled, depth)).collect::<Vec<_>>().join("; "),
        _ => node.expected(rules, "<tool>", "<uid>"),
    }
}

/// Whether a value is short enough to be shown.
pub(super) fn is_scalar(node: &Node) -> bool {
    matches!(node, Node::OneOf(_) | Node::Image)
}

/// A text of the object, as a message repeats it: no longer than is needed to find it.
fn short(text: &str) -> String {
    format!("({text}.size() > {LONGEST_NAME} ? {text}.substring(0, {LONGEST_NAME}) + \"…\" : {text})")
}

/// A validation with a fixed message.
pub(super) fn plain(ok: &str, told: &str, rule: Rule) -> Value {
    json!({ "expression": ok, "message": format!("{told} ({})", rule.page()), "reason": "Forbidden" })
}

/// A validation of a list: `ok` judges the entry `c`. The message names the entries that are wrong, by `key`, and the
/// value of the field `shown`.
pub(super) fn offenders(
    judged: &str,
    key: &str,
    at: &str,
    rule: Rule,
    ok: &str,
    told: &str,
    shown: Option<&str>,
) -> Value {
    let name = match key {
        "" => "\"?\"".to_owned(),
        key => short(&format!("c.?{key}.orValue(\"?\")")),
    };
    let value = |field: &str| format!(" + \" (\" + {} + \")\"", short(&format!("c.?{field}.orValue(\"\")")));
    let value = shown.map(value).unwrap_or_default();
    let told = format!("{told} ({})", rule.page());
    let names = format!("{judged}.filter(c, !({ok})).map(c, {name}{value}).join(\", \")");
    let (start, end) = (literal(&format!("{at}: ")), literal(&format!(": {told}")));
    json!({
        "expression": format!("{judged}.all(c, {ok})"),
        "messageExpression": format!("{start} + {names} + {end}"),
        "message": format!("{at}: {told}"),
        "reason": "Forbidden",
    })
}
