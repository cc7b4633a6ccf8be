//! Objects in which everything is right: each field of the tables, with a value that its table allows.

use hearth_core::admission::fields::Section;
use hearth_core::admission::{Field, Listed, Node, Rules};
use serde_json::{Map, Value, json};

use crate::rules_oracle::UID;
use crate::rules_schema::{Schemas, Target, sections};

/// An object of a kind that the tool `wikibot` may make, with every field that its tables list.
pub(crate) fn right_object(rules: &Rules, schemas: &Schemas, target: &Target) -> Value {
    let mut object = json!({ "apiVersion": target.api_version, "kind": target.kind, "metadata": { "name": "right" } });
    // What holds others is made before them.
    let mut outer_first: Vec<&Section> = sections(target.chapter).iter().collect();
    outer_first.sort_by_key(|section| section.at.len());
    for section in outer_first {
        let mut place = &mut object;
        let mut schema = schemas.named(&target.schema);
        for name in section.at {
            place = &mut place[*name];
            schema = schemas.resolve(&schema["properties"][*name]).1;
        }
        let Value::Object(fields) = right_fields(rules, schemas, section.fields, schema) else { continue };
        match place {
            Value::Object(map) => map.extend(fields),
            place => *place = Value::Object(fields),
        }
    }
    object
}

/// A value that is right for a node which looks at nothing below; nothing where this does not know the node.
pub(crate) fn right_leaf(rules: &Rules, node: &Node) -> Option<Value> {
    Some(match node {
        Node::OneOf(texts) => json!(texts.first()?),
        Node::Is(value) => json!(value),
        Node::Zero => json!(0),
        Node::Uid => json!(UID),
        Node::AtMost(most) => json!(most),
        Node::Exactly(number) => json!(number),
        Node::Listed(Listed::Account) => json!("default"),
        Node::Listed(Listed::Path) => json!(format!("{}/wikibot", rules.homes)),
        Node::Listed(Listed::PriorityClass) => json!(rules.priority_classes.first()?),
        Node::PlainPath => json!("/wikibot/a"),
        Node::GivenAddress => json!("None"),
        Node::Added(texts) => json!([texts.first()?]),
        Node::Image => json!(format!("{}/a/b:1", rules.registries.first()?)),
        Node::OwnHost | Node::OwnOrLegacyHost => json!(format!("wikibot.{}", rules.domains.public.first()?)),
        Node::Has(text) => json!([text]),
        Node::KeysWithin(keys) => json!({ *keys.first()?: "any" }),
        Node::Annotations { keys, .. } => json!({ *keys.first()?: "any" }),
        Node::OneLines { .. } => json!({ "any": "any" }),
        _ => return None,
    })
}

fn right(rules: &Rules, schemas: &Schemas, node: &Node, schema: &Value) -> Option<Value> {
    let schema = schemas.resolve(schema).1;
    match node {
        Node::Any => Some(typical(schema)),
        Node::Object(fields) | Node::Open(fields) => Some(right_fields(rules, schemas, fields, schema)),
        Node::Each { node, .. } => Some(json!([right(rules, schemas, node, &schema["items"])?])),
        // An object comes first where one is among them; what else is said of it holds of every right one.
        Node::All(nodes) => nodes.iter().find_map(|node| right(rules, schemas, node, schema)),
        leaf => right_leaf(rules, leaf),
    }
}

fn right_fields(rules: &Rules, schemas: &Schemas, fields: &[Field], schema: &Value) -> Value {
    let each = fields.iter().filter_map(|field| {
        let schema = &schema["properties"][field.name];
        Some((field.name.to_owned(), right(rules, schemas, &field.node, schema)?))
    });
    Value::Object(each.collect::<Map<_, _>>())
}

/// A value of a schema's type, small and of no meaning.
fn typical(schema: &Value) -> Value {
    match schema["type"].as_str() {
        _ if schema["oneOf"].is_array() => json!(1),
        Some("string") => schema["enum"].get(0).cloned().unwrap_or(json!("a")),
        Some("boolean") => json!(true),
        Some("integer" | "number") => json!(1),
        Some("array") => json!([]),
        _ => json!({}),
    }
}
