//! The CEL half of the rulebook: a [`Node`] as an expression that holds where the value is right.
//!
//! Every arm here has its counterpart in `check`, and the shared cases hold them together.

use super::super::{Field, Need, Node, Rules};
use super::listed;
use crate::image::Repository;
use crate::route::path;

/// A segment of a repository's path, as the image parser reads it.
const SEGMENT: &str = "[a-z0-9]+(?:(?:[.]|_|__|-+)[a-z0-9]+)*";

/// The same without dots: a first segment that is not a registry.
const PLAIN_SEGMENT: &str = "[a-z0-9]+(?:(?:_|__|-+)[a-z0-9]+)*";

/// A tag, a digest, or both.
const TAG_AND_DIGEST: &str = "(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?";

/// Characters that end a line or steer a terminal, as CEL writes it.
const CONTROL: &str = r#""[\\x00-\\x1f\\x7f]""#;

/// A text as CEL writes it.
pub(super) fn literal(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A list of texts as CEL writes it.
pub(super) fn list(texts: &[&str]) -> String {
    format!("[{}]", texts.iter().map(|text| literal(text)).collect::<Vec<_>>().join(", "))
}

/// Whether the field of `owner` is right; nothing where it always is.
pub(super) fn field(rules: &Rules, field: &Field, owner: &str, filled: bool, depth: usize) -> Option<String> {
    let value = format!("{owner}.{}", field.name);
    let right = test(rules, &field.node, &value, filled, depth);
    let needed = field.need == Need::Always || (field.need == Need::Filled && filled);
    match (needed, right) {
        (true, Some(right)) => Some(format!("has({value}) && {right}")),
        (true, None) => Some(format!("has({value})")),
        // A required list that was left out is stored as null, which stands for an empty one.
        (false, Some(right)) if is_list(&field.node) => Some(format!("!has({value}) || {value} == null || {right}")),
        (false, Some(right)) => Some(format!("!has({value}) || {right}")),
        (false, None) => None,
    }
}

fn is_list(node: &Node) -> bool {
    match node {
        Node::Each { .. } | Node::Has(_) => true,
        Node::All(nodes) => nodes.iter().any(is_list),
        _ => false,
    }
}

/// Whether a value is right; nothing where any is. The expression can stand beside `&&` and `||`.
pub(super) fn test(rules: &Rules, node: &Node, value: &str, filled: bool, depth: usize) -> Option<String> {
    let legacy = || literal(rules.domains.legacy.as_str());
    Some(match node {
        // A validating policy sees an address that was given already: `super::address` judges those.
        Node::Any | Node::GivenAddress => return None,
        Node::OneOf(texts) => format!("{value} in {}", list(texts)),
        Node::Is(truth) => format!("{value} == {truth}"),
        Node::Zero => format!("{value} == 0"),
        Node::AtMost(most) => format!("({value} >= 0 && {value} <= {most})"),
        Node::Exactly(number) => format!("{value} == {number}"),
        Node::Uid => format!("{value} == variables.uid"),
        Node::Never => "false".to_owned(),
        Node::Listed(listed) => return listed::test(rules, *listed, value),
        Node::Image => image(rules, value),
        Node::OwnHost => format!("{value} in variables.hosts"),
        Node::OwnOrLegacyHost => format!("({value} == {} || {value} in variables.hosts)", legacy()),
        Node::LegacyPaths => legacy_paths(&legacy(), value, depth),
        Node::PlainPath => plain_path(value),
        Node::NotEmpty => format!("{value}.size() > 0"),
        Node::Added(texts) => {
            format!("{value}.all(k, k in {} || k in {}.orValue([]))", list(texts), before(value))
        }
        Node::OneLines { longest, but } => {
            let line = format!("{value}[k].size() <= {longest} && !{value}[k].matches({CONTROL})");
            format!("{value}.all(k, k == {} || ({line}))", literal(but))
        }
        Node::Has(text) => format!("{} in {value}", literal(text)),
        Node::KeysWithin(keys) => format!("{value}.all(k, k in {})", list(keys)),
        Node::Annotations { under, keys } => annotations(under, keys, value),
        Node::Object(fields) => object(rules, fields, value, filled, depth),
        Node::Open(fields) => {
            let each = fields.iter().filter_map(|entry| field(rules, entry, value, filled, depth));
            format!("({})", each.map(|right| format!("({right})")).collect::<Vec<_>>().join(" && "))
        }
        Node::Each { node, most, .. } => {
            let entry = format!("e{depth}");
            let all =
                test(rules, node, &entry, filled, depth + 1).map(|right| format!("{value}.all({entry}, {right})"));
            let few = (*most != super::super::node::UNBOUNDED).then(|| format!("{value}.size() <= {most}"));
            format!("({})", few.into_iter().chain(all).collect::<Vec<_>>().join(" && "))
        }
        Node::All(nodes) => {
            let all: Vec<String> = nodes.iter().filter_map(|node| test(rules, node, value, filled, depth)).collect();
            format!("({})", all.join(" && "))
        }
    })
}

/// Whether the keys of a map of annotations are known, or were there before with the same value.
fn annotations(under: &[&str], keys: &[&str], value: &str) -> String {
    format!("{value}.all(k, {} || {}[?k] == {value}[?k])", known_annotation(under, keys), before(value))
}

/// Whether the key `k` of an annotation is known.
pub(super) fn known_annotation(under: &[&str], keys: &[&str]) -> String {
    let known: String = under.iter().map(|start| format!("k.startsWith({}) || ", literal(start))).collect();
    format!("!(k.contains(\"/\") || k.contains(\".\")) || {known}k in {}", list(keys))
}

/// What a field of a section held before, as an optional.
fn before(value: &str) -> String {
    let (section, name) = value.rsplit_once('.').unwrap_or((value, ""));
    format!("{}[?{}]", section.replacen("variables.now", "variables.before", 1), literal(name))
}

/// The counterpart of `path::is_plain`.
fn plain_path(value: &str) -> String {
    let segment = path::PLAIN_SEGMENT;
    let pattern = literal(&format!("^/({segment}(/{segment})*/?)?$"));
    format!("({value}.size() <= {} && {value}.matches({pattern}))", path::LONGEST)
}

fn object(rules: &Rules, fields: &[Field], value: &str, filled: bool, depth: usize) -> String {
    let names: Vec<&str> = fields.iter().map(|field| field.name).collect();
    let listed = format!("{value}.all(k, k in {})", list(&names));
    let each = fields.iter().filter_map(|entry| field(rules, entry, value, filled, depth));
    let all: Vec<String> = std::iter::once(listed).chain(each.map(|right| format!("({right})"))).collect();
    format!("({})", all.join(" && "))
}

/// Where an Ingress rule's host is the legacy one, each path is the tool's, by plain segments.
fn legacy_paths(legacy: &str, rule: &str, depth: usize) -> String {
    let entry = format!("e{depth}");
    let pattern = format!("\"^/\" + variables.tool + {}", literal(&format!("(/{})*/?$", path::PLAIN_SEGMENT)));
    let (path, longest) = (format!("{entry}.?path.orValue(\"\")"), path::LONGEST);
    format!(
        "({rule}.?host.orValue(\"\") != {legacy} || (variables.known && {rule}.http.paths.all({entry}, \
         {path}.size() <= {longest} && {path}.matches({pattern}))))"
    )
}

/// Whether a text is a reference to an image of an allowed repository, by the grammar of the image parser.
fn image(rules: &Rules, value: &str) -> String {
    let written = rules.registries.iter().map(in_full).collect::<Vec<_>>();
    let short = rules.registries.iter().flat_map(in_short).collect::<Vec<_>>();
    let matches =
        |patterns: &[String]| format!("{value}.matches({})", literal(&format!("^(?:{})$", patterns.join("|"))));
    match short.is_empty() {
        true => matches(&written),
        // `localhost` is a registry without a dot.
        false => format!("({} || (!{value}.startsWith(\"localhost/\") && {}))", matches(&written), matches(&short)),
    }
}

/// The pattern of the references that name the registry.
fn in_full(allowed: &Repository) -> String {
    let text = allowed.to_string();
    let more = if text.contains('/') { '*' } else { '+' };
    format!("{}(?:/{SEGMENT}){more}{TAG_AND_DIGEST}", text.replace('.', "[.]"))
}

/// The patterns of those that do not: they are pulled from `docker.io`, and a single word from its `library`.
fn in_short(allowed: &Repository) -> Vec<String> {
    let text = allowed.to_string();
    let word = format!("{SEGMENT}{TAG_AND_DIGEST}");
    match text.split_once('/') {
        None if text == "docker.io" => vec![format!("{PLAIN_SEGMENT}(?:/{SEGMENT})+{TAG_AND_DIGEST}"), word],
        Some(("docker.io", "library")) => vec![format!("library(?:/{SEGMENT})+{TAG_AND_DIGEST}"), word],
        Some(("docker.io", path)) => {
            let (first, rest) = path.split_once('/').unwrap_or((path, ""));
            let mut patterns = Vec::new();
            if !first.contains('.') {
                let more = if rest.is_empty() { '+' } else { '*' };
                patterns.push(format!("{}(?:/{SEGMENT}){more}{TAG_AND_DIGEST}", path.replace('.', "[.]")));
            }
            if first == "library" && !rest.contains('/') {
                patterns.push(format!("{}{TAG_AND_DIGEST}", rest.replace('.', "[.]")));
            }
            patterns
        }
        _ => Vec::new(),
    }
}
