//! Objects for the comparison of the two layers, put together from the shared cases, the tables and the schemas.
//!
//! An object starts as one of the cases, as parts of several, or as one in which everything is right, and is changed in
//! a few places: a field is added (of the tables, or only of the schema), taken out, emptied, or given another value,
//! often one that is nearly right. Every object has the types that the API server's schemas ask for as far as this
//! knows them; one that the API server would not decode is left out afterwards, by the API server's own decoder.

use std::collections::BTreeMap;

use hearth_core::admission::fields::{Book, CHAPTERS, Section};
use hearth_core::admission::{Field, Node, Rules};
use serde_json::{Map, Value, json};

use crate::rules_oracle::{Question, objects_of_cases};
use crate::rules_right::right_object;
use crate::rules_schema::{Schemas, Target, names, pointer, sections};
use crate::rules_values::{Random, aimed, namespace, near, near_value, scalar};

/// How deep a value is made that nothing is known of.
const DEEPEST: usize = 5;

/// Longest list that is made.
const LONGEST: usize = 60;

/// What objects are made from.
pub(crate) struct Generator<'a> {
    rules: Rules,
    schemas: &'a Schemas,
    targets: Vec<Target>,
    /// Whole cases of each resource.
    whole: BTreeMap<String, Vec<Value>>,
    /// Sections that cases have, by the table that judges them.
    parts: BTreeMap<String, Vec<Value>>,
    /// Values that cases have, by the names of the field and of what holds it.
    values: BTreeMap<String, Vec<Value>>,
}

/// A place in an object: where, its schema, what judges it, and the key of values like it.
struct Spot<'a> {
    pointer: String,
    schema: &'a Value,
    node: Option<&'static Node>,
    key: String,
}

/// Any value: what a field is that no table looks into.
static ANY: Node = Node::Any;

impl<'a> Generator<'a> {
    pub(crate) fn new(rules: Rules, schemas: &'a Schemas) -> Self {
        let targets = schemas.targets();
        let mut generator =
            Self { rules, schemas, targets, whole: BTreeMap::new(), parts: BTreeMap::new(), values: BTreeMap::new() };
        for (resource, object) in objects_of_cases() {
            let chapter = CHAPTERS.iter().find(|chapter| chapter.resources.iter().any(|r| r.name == resource));
            for section in chapter.map_or(&[][..], sections) {
                let pointer = pointer(section);
                if let Some(part) = object.pointer(&pointer) {
                    generator.parts.entry(table(section)).or_default().push(part.clone());
                }
            }
            generator.remember(&object, "", "");
            generator.whole.entry(resource).or_default().push(object);
        }
        generator
    }

    fn remember(&mut self, value: &Value, holder: &str, name: &str) {
        self.values.entry(format!("{holder}/{name}")).or_default().push(value.clone());
        match value {
            Value::Object(map) => map.iter().for_each(|(inner, value)| self.remember(value, name, inner)),
            Value::Array(list) => list.iter().for_each(|value| self.remember(value, name, "[]")),
            _ => (),
        }
    }

    /// The request that a seed stands for.
    pub(crate) fn question(&self, seed: u64) -> Question {
        let random = &mut Random::new(seed);
        let target = self.target(random);
        let subresource = target.resource.name.contains('/');
        let update = subresource || random.percent(30);
        let object = self.object(random, target);
        let old = update.then(|| if random.percent(80) { object.clone() } else { self.object(random, target) });
        let mut question = Question {
            update,
            group: target.resource.group.to_owned(),
            version: target.resource.version.to_owned(),
            resource: target.resource.name.to_owned(),
            user: self.user(random, target),
            namespace: String::new(),
            annotations: BTreeMap::new(),
            object,
            old,
            raw: false,
        };
        (question.namespace, question.annotations) = namespace(random, &self.rules);
        // A change may change nothing.
        for _ in 0..random.below(4) {
            self.change(random, target, &mut question.object);
        }
        question
    }

    /// A chapter, pods more often than others, and a resource of it.
    fn target(&self, random: &mut Random) -> &Target {
        if random.percent(30) {
            return random.pick(&self.targets);
        }
        let chapter = &CHAPTERS[random.below(CHAPTERS.len())];
        let of: Vec<&Target> = self.targets.iter().filter(|target| target.chapter.name == chapter.name).collect();
        if of.is_empty() {
            return random.pick(&self.targets);
        }
        let target: &&Target = random.pick(&of);
        target
    }

    fn user(&self, random: &mut Random, target: &Target) -> String {
        let users = match &target.chapter.book {
            Book::Writers(writers) if random.percent(70) => writers.users,
            _ => return "tool:wikibot".to_owned(),
        };
        let user = random.pick(users).replace('*', "anyone");
        let user = user.as_str();
        if random.percent(30) { near(random, user) } else { user.to_owned() }
    }

    /// An object before it is changed.
    fn object(&self, random: &mut Random, target: &Target) -> Value {
        let whole = self.whole.get(target.resource.name).filter(|_| random.percent(40));
        if let Some(whole) = whole {
            return random.pick(whole).clone();
        }
        let mut object = right_object(&self.rules, self.schemas, target);
        if random.percent(10) {
            return object;
        }
        for section in sections(target.chapter) {
            let place = section.at.iter().fold(&mut object, |place, name| &mut place[*name]);
            let empty = vec![json!({})];
            *place = random.pick(self.parts.get(&table(section)).unwrap_or(&empty)).clone();
        }
        object
    }

    /// Changes one place in a section of an object.
    fn change(&self, random: &mut Random, target: &Target, object: &mut Value) {
        let sections = sections(target.chapter);
        if sections.is_empty() {
            return;
        }
        let section = random.pick(sections);
        let mut schema = self.schemas.named(&target.schema);
        for name in section.at {
            schema = self.schemas.resolve(&schema["properties"][*name]).1;
        }
        let pointer = pointer(section);
        if object.pointer(&pointer).is_none() {
            let place = section.at.iter().fold(&mut *object, |place, name| &mut place[*name]);
            *place = json!({});
        }
        let mut spots = Vec::new();
        let at = object.pointer(&pointer).expect("it was put there");
        self.fields(at, section.fields, schema, &pointer, section.at.last().copied().unwrap_or(""), &mut spots);
        spots.push(Spot { pointer, schema, node: None, key: String::new() });
        let table = section.fields;
        let spot = random.pick(&spots);
        let value = object.pointer(&spot.pointer).expect("it was found there").clone();
        let new = match (&value, random.below(10)) {
            (_, 0) => Value::Null,
            (Value::Object(map), 1..=7) => self.with_another(random, map, spot, table),
            (Value::Array(list), 1..=6) => self.longer(random, list, spot),
            (_, 1..=4) => self.make(random, spot.schema, spot.node.unwrap_or(&ANY), &spot.key, 0),
            (_, 5) => {
                let near = near_value(random, &value);
                near_value(random, &near)
            }
            (_, _) => near_value(random, &value),
        };
        put(object, &spot.pointer, new);
    }

    /// All places below an object that a table judges.
    fn fields(
        &self,
        object: &Value,
        fields: &'static [Field],
        schema: &'a Value,
        at: &str,
        name: &str,
        spots: &mut Vec<Spot<'a>>,
    ) {
        for (inner, value) in object.as_object().into_iter().flatten() {
            let node = fields.iter().find(|field| field.name == inner).map(|field| &field.node);
            let pointer = format!("{at}/{}", inner.replace('~', "~0").replace('/', "~1"));
            let schema = match &schema["properties"][inner] {
                Value::Null => &schema["additionalProperties"],
                schema => schema,
            };
            self.spots(value, node, schema, pointer, (name, inner), spots);
        }
    }

    fn spots(
        &self,
        value: &Value,
        node: Option<&'static Node>,
        schema: &'a Value,
        pointer: String,
        (holder, name): (&str, &str),
        spots: &mut Vec<Spot<'a>>,
    ) {
        let schema = self.schemas.resolve(schema).1;
        let key = format!("{holder}/{name}");
        match value {
            Value::Array(list) => {
                let entry = node.and_then(entry);
                for (index, value) in list.iter().enumerate() {
                    let at = format!("{pointer}/{index}");
                    self.spots(value, entry, &schema["items"], at, (name, "[]"), spots);
                }
            }
            // Inside of what no table looks into, little is worth changing.
            Value::Object(_) if spots.len() < 400 => {
                let table = node.and_then(table_of).unwrap_or(&[]);
                self.fields(value, table, schema, &pointer, name, spots);
            }
            _ => (),
        }
        spots.push(Spot { pointer, schema, node, key });
    }

    /// An object with one field more, or with another value for one.
    fn with_another(
        &self,
        random: &mut Random,
        map: &Map<String, Value>,
        spot: &Spot<'_>,
        section: &'static [Field],
    ) -> Value {
        let mut map = map.clone();
        let fields = match spot.node {
            Some(node) => table_of(node).unwrap_or(&[]),
            None if spot.key.is_empty() => section,
            None => &[],
        };
        let holder = spot.key.rsplit('/').next().unwrap_or_default();
        let holder = if spot.key.is_empty() { "spec" } else { holder };
        let properties: Vec<&String> =
            spot.schema["properties"].as_object().into_iter().flatten().map(|(n, _)| n).collect();
        let name = match (fields.is_empty(), properties.is_empty()) {
            (false, _) if random.percent(75) => random.pick(fields).name.to_owned(),
            (_, false) => (*random.pick(&properties)).clone(),
            _ => (*random.pick(&["a", "b", "toolforge"])).to_owned(),
        };
        let node = fields.iter().find(|field| field.name == name).map_or(&ANY, |field| &field.node);
        if let (Value::Object(more), Node::KeysWithin(_) | Node::Annotations { .. } | Node::OneLines { .. }) =
            (aimed(random, &self.rules, spot.node.unwrap_or(&ANY)).unwrap_or_default(), spot.node.unwrap_or(&ANY))
        {
            map.extend(more);
            return Value::Object(map);
        }
        let schema = match &spot.schema["properties"][&name] {
            Value::Null => &spot.schema["additionalProperties"],
            schema => schema,
        };
        let value = self.make(random, schema, node, &format!("{holder}/{name}"), 0);
        map.insert(name, value);
        Value::Object(map)
    }

    /// A list with one entry more, or with as many as are just allowed, or one more than those.
    fn longer(&self, random: &mut Random, list: &[Value], spot: &Spot<'_>) -> Value {
        let mut list = list.to_vec();
        if random.percent(50) || list.is_empty() {
            let entry = spot.node.and_then(entry).unwrap_or(&ANY);
            let holder = spot.key.rsplit('/').next().unwrap_or_default();
            list.push(self.make(random, &spot.schema["items"], entry, &format!("{holder}/[]"), 0));
        }
        if random.percent(30) {
            list.push(random.pick(&list).clone());
        }
        if let Some(most) = spot.node.and_then(most).filter(|most| *most < LONGEST && random.percent(30)) {
            let length = most - 1 + random.below(3);
            let from = list.clone();
            list = from.iter().cycle().take(length).cloned().collect();
        }
        Value::Array(list)
    }

    /// A new value: what the node is about, what some case has, or what the schema says.
    fn make(&self, random: &mut Random, schema: &Value, node: &'static Node, key: &str, depth: usize) -> Value {
        let schema = self.schemas.resolve(schema).1;
        if random.percent(60)
            && let Some(value) = aimed(random, &self.rules, node)
        {
            return value;
        }
        if random.percent(50)
            && let Some(values) = self.values.get(key)
        {
            let value = random.pick(values).clone();
            return if random.percent(30) { near_value(random, &value) } else { value };
        }
        let holder = key.rsplit('/').next().unwrap_or_default();
        if schema["type"] == "array" && depth < DEEPEST {
            let entry = entry(node).unwrap_or(&ANY);
            let each = (0..random.below(3))
                .map(|_| self.make(random, &schema["items"], entry, &format!("{holder}/[]"), depth + 1));
            return Value::Array(each.collect());
        }
        let Some(properties) = schema["properties"].as_object().filter(|_| depth < DEEPEST) else {
            return match &schema["additionalProperties"] {
                Value::Null => scalar(random, schema),
                values => json!({ "a": self.make(random, values, &ANY, "", depth + 1) }),
            };
        };
        let fields = table_of(node).unwrap_or(&[]);
        let names: Vec<&String> = properties.keys().collect();
        let mut map = Map::new();
        for _ in 0..=random.below(4) {
            let known = !fields.is_empty() && random.percent(85);
            let name = if known { random.pick(fields).name } else { random.pick(&names).as_str() };
            let node = fields.iter().find(|field| field.name == name).map_or(&ANY, |field| &field.node);
            if let Some(schema) = properties.get(name) {
                let value = self.make(random, schema, node, &format!("{holder}/{name}"), depth + 1);
                map.insert(name.to_owned(), value);
            }
        }
        Value::Object(map)
    }
}

/// What tells a section's table from others.
fn table(section: &Section) -> String {
    names(section.fields)
}

/// The table of an object that a node is about.
fn table_of(node: &'static Node) -> Option<&'static [Field]> {
    match node {
        Node::Object(fields) => Some(fields),
        Node::All(nodes) => nodes.iter().find_map(table_of),
        _ => None,
    }
}

/// What the entries of a list are.
fn entry(node: &'static Node) -> Option<&'static Node> {
    match node {
        Node::Each { node, .. } => Some(node),
        Node::All(nodes) => nodes.iter().find_map(entry),
        _ => None,
    }
}

/// How long a list may be.
fn most(node: &'static Node) -> Option<usize> {
    match node {
        Node::Each { most, .. } => Some(*most),
        Node::All(nodes) => nodes.iter().find_map(most),
        _ => None,
    }
}

/// Puts a value into its place; null takes it out of an object.
pub(crate) fn put(object: &mut Value, pointer: &str, value: Value) {
    let Some((parent, last)) = pointer.rsplit_once('/') else {
        // The object as a whole is never taken out.
        if value.is_object() {
            *object = value;
        }
        return;
    };
    let last = last.replace("~1", "/").replace("~0", "~");
    match object.pointer_mut(parent).expect("what holds it") {
        Value::Object(map) if value.is_null() => drop(map.remove(&last)),
        Value::Object(map) => drop(map.insert(last, value)),
        Value::Array(list) if value.is_null() => drop(list.remove(last.parse().expect("an index"))),
        Value::Array(list) => list[last.parse::<usize>().expect("an index")] = value,
        _ => panic!("nothing can be at {pointer}"),
    }
}
