//! No field is overlooked: the rulebook's tables against the schemas of the API server itself.
//!
//! Every field of every judged kind is in a table, or in the reviewed lists of `refused.rs`; what is in either exists;
//! and a field that nobody has ever heard of is refused by both layers, at every level. (Tools cannot even get that
//! far: the API server drops unknown fields when it decodes an object, before admission. What it knows and the tables
//! do not is what arrives.)
//!
//! The schemas are those of Kubernetes 1.37, also for 1.36: an API server that is started with
//! `--emulated-version=1.36` makes its schemas from the same Go types. Emulation switches features off, so that fields
//! which are new in 1.37 are emptied when an object is stored, but it takes none out of a schema; and it says nothing
//! of a field that 1.36 had and 1.37 has not, which only an API server of 1.36 could show.

use std::collections::{BTreeMap, BTreeSet};

use hearth_core::admission::fields::refused::{BESIDE, REFUSED, Reviewed};
use hearth_core::admission::fields::{Book, CHAPTERS, Chapter, Resource, Section};
use hearth_core::admission::{Field, Node, Verdict};
use serde_json::{Map, Value, json};

use crate::control_plane::{ControlPlane, control_plane};
use crate::rules_oracle::{Oracle, Question, UID, parts, reviewed, rules};
use crate::rules_right::right_object;

/// Groups that are not the API server's own but come with custom resources, whose schemas are not served here.
const INSTALLED_APART: &[&str] = &["gateway.networking.k8s.io"];

/// What every object has and no table is about: its kind, what the API server keeps itself, and its state, which
/// cannot be written together with the object.
const EVERY_OBJECT: &[&str] = &["apiVersion", "kind", "metadata", "status"];

/// The schemas of the API server, by name.
pub(crate) struct Schemas {
    components: Map<String, Value>,
    paths: Map<String, Value>,
}

/// A resource that the rulebook judges, as the API server knows it.
pub(crate) struct Target {
    pub(crate) chapter: &'static Chapter,
    pub(crate) resource: &'static Resource,
    pub(crate) kind: String,
    /// The version of its objects, with the group: a scale has another than what it scales.
    pub(crate) api_version: String,
    /// The name of its schema.
    pub(crate) schema: String,
}

impl Schemas {
    /// Reads the schemas of the groups that are judged.
    pub(crate) async fn of(plane: &ControlPlane) -> Self {
        let client = plane.admin().await;
        let mut schemas = Self { components: Map::new(), paths: Map::new() };
        for resource in CHAPTERS.iter().flat_map(|chapter| chapter.resources) {
            if INSTALLED_APART.contains(&resource.group) {
                continue;
            }
            let request = http::Request::get(format!("/openapi/v3{}", root(resource))).body(Vec::new()).unwrap();
            let mut document: Value = client.request(request).await.unwrap();
            let Value::Object(components) = document["components"]["schemas"].take() else { panic!("no schemas") };
            let Value::Object(paths) = document["paths"].take() else { panic!("no paths") };
            schemas.components.extend(components);
            schemas.paths.extend(paths);
        }
        schemas
    }

    /// A schema by its name.
    pub(crate) fn named(&self, name: &str) -> &Value {
        self.components.get(name).unwrap_or_else(|| panic!("the API server has no schema {name}"))
    }

    /// Follows a reference: the name of what it leads to, where it is one, and the schema.
    pub(crate) fn resolve<'a>(&'a self, schema: &'a Value) -> (Option<&'a str>, &'a Value) {
        let reference = schema["$ref"].as_str().or_else(|| schema["allOf"][0]["$ref"].as_str());
        match reference.and_then(|text| text.strip_prefix("#/components/schemas/")) {
            Some(name) => (Some(name), self.named(name)),
            None => (None, schema),
        }
    }

    /// Every judged resource that this API server has.
    pub(crate) fn targets(&self) -> Vec<Target> {
        let all = CHAPTERS.iter().flat_map(|chapter| chapter.resources.iter().map(move |r| (chapter, r)));
        all.filter(|(_, resource)| !INSTALLED_APART.contains(&resource.group))
            .map(|(chapter, resource)| {
                let kind = self.kind(resource);
                let is = |schema: &Value| {
                    let kinds = schema["x-kubernetes-group-version-kind"].as_array();
                    kinds.is_some_and(|kinds| kinds.contains(kind))
                };
                let schema = self.components.iter().find(|(_, schema)| is(schema)).expect("a kind has a schema").0;
                let text = |name: &str| kind[name].as_str().expect("a group, a version and a kind").to_owned();
                let api_version = match text("group").as_str() {
                    "" => text("version"),
                    group => format!("{group}/{}", text("version")),
                };
                Target { chapter, resource, kind: text("kind"), api_version, schema: schema.clone() }
            })
            .collect()
    }

    /// Group, version and kind of a resource's objects.
    fn kind(&self, resource: &Resource) -> &Value {
        let path = match parts(resource.name) {
            (name, "") => format!("{}/namespaces/{{namespace}}/{name}", root(resource)),
            (name, sub) => format!("{}/namespaces/{{namespace}}/{name}/{{name}}/{sub}", root(resource)),
        };
        let methods = self.paths.get(&path).unwrap_or_else(|| panic!("the API server does not serve {path}"));
        let method = ["post", "put"].iter().find_map(|method| methods.get(method)).expect("it can be written");
        &method["x-kubernetes-group-version-kind"]
    }
}

fn root(resource: &Resource) -> String {
    match resource.group {
        "" => format!("/api/{}", resource.version),
        group => format!("/apis/{group}/{}", resource.version),
    }
}

/// The sections of a chapter; none where it is judged by who writes.
pub(crate) fn sections(chapter: &Chapter) -> &'static [Section] {
    match &chapter.book {
        Book::Fields { sections, .. } => sections,
        Book::Writers(_) => &[],
    }
}

/// Where a section lies in an object, as a JSON pointer.
pub(crate) fn pointer(section: &Section) -> String {
    section.at.iter().map(|name| format!("/{name}")).collect()
}

/// The names of a table's fields, which tell it from others; where it is in memory need not.
pub(crate) fn names(fields: &[Field]) -> String {
    fields.iter().map(|field| field.name).collect::<Vec<_>>().join(" ")
}

/// A walk along tables and schemas.
struct Walk<'a> {
    schemas: &'a Schemas,
    /// Entries of the lists that stand for a field which is there and in no table.
    needed: BTreeSet<(&'static str, &'static str)>,
    /// For each table, by its names, its fields, and which of them some schema has.
    tables: BTreeMap<String, (BTreeSet<&'static str>, BTreeSet<&'static str>, String)>,
    /// How many objects of tables were come by.
    objects: usize,
    wrong: Vec<String>,
}

impl Walk<'_> {
    /// Looks for the fields of a schema in the table and in the list of refused ones.
    fn table(&mut self, fields: &'static [Field], open: bool, schema: &Value, at: &str) {
        let (name, schema) = self.schemas.resolve(schema);
        let name = name.unwrap_or(at).to_owned();
        let Some(properties) = schema["properties"].as_object() else {
            return self.wrong.push(format!("{at}: a table judges it as an object, and {name} has no fields"));
        };
        let entry = self.tables.entry(names(fields)).or_default();
        entry.0.extend(fields.iter().map(|field| field.name));
        entry.1.extend(fields.iter().map(|field| field.name).filter(|name| properties.contains_key(*name)));
        entry.2 = format!("{at}, {name}");
        for property in properties.keys().filter(|_| !open) {
            if fields.iter().any(|field| field.name == property) {
                continue;
            }
            match listed(REFUSED, &name, property) {
                Some(entry) => {
                    self.needed.insert(entry);
                }
                None => self.wrong.push(format!(
                    "nobody has classified the field {property} of {name} ({at}.{property}): put it into its table in \
                     crates/core/src/admission/fields, or into the list REFUSED beside them, with the reason"
                )),
            }
        }
        for field in fields {
            if let Some(property) = properties.get(field.name) {
                self.node(&field.node, property, &format!("{at}.{}", field.name));
            }
        }
    }

    fn node(&mut self, node: &'static Node, schema: &Value, at: &str) {
        match node {
            Node::Object(fields) => {
                self.objects += 1;
                self.table(fields, false, schema, at);
            }
            Node::Open(fields) => self.table(fields, true, schema, at),
            Node::Each { node, .. } => {
                let items = self.schemas.resolve(schema).1["items"].clone();
                self.node(node, &items, &format!("{at}[]"));
            }
            Node::All(nodes) => nodes.iter().for_each(|node| self.node(node, schema, at)),
            _ => (),
        }
    }

    /// Goes from an object to its sections; what lies beside the way must be in its list.
    fn descend(&mut self, sections: &'static [Section], depth: usize, schema: &Value, at: &str) {
        for section in sections.iter().filter(|section| section.at.len() == depth) {
            self.table(section.fields, section.open, schema, at);
        }
        // A section of the whole has looked at what lies beside the way.
        let whole = sections.iter().any(|section| section.at.len() == depth && !section.open);
        let below = |name: &str| sections.iter().filter(|s| s.at.get(depth) == Some(&name)).count() > 0;
        if !sections.iter().any(|section| section.at.len() > depth) {
            return;
        }
        let (name, schema) = self.schemas.resolve(schema);
        let name = name.unwrap_or(at).to_owned();
        for (property, schema) in schema["properties"].as_object().into_iter().flatten() {
            let at = format!("{at}.{property}");
            if below(property) {
                let on = sections.iter().filter(|section| section.at.get(depth) == Some(&property.as_str()));
                // Sections that go on from here are neighbours in their chapter.
                let first = sections.iter().position(|s| s.at.get(depth) == Some(&property.as_str())).unwrap_or(0);
                let on = &sections[first..first + on.count()];
                self.descend(on, depth + 1, schema, &at);
            } else if !(whole || depth == 0 && EVERY_OBJECT.contains(&property.as_str())) {
                match listed(BESIDE, &name, property) {
                    Some(entry) => {
                        self.needed.insert(entry);
                    }
                    None => self.wrong.push(format!(
                        "nobody has classified the field {property} of {name} ({at}): judge it by a section, or put it \
                         into the list BESIDE in crates/core/src/admission/fields/refused.rs, with the reason"
                    )),
                }
            }
        }
    }
}

/// The entry of a list for a field.
fn listed(list: &'static [Reviewed], schema: &str, field: &str) -> Option<(&'static str, &'static str)> {
    let mut entries = list.iter().filter(|entry| entry.schema == schema);
    entries.find_map(|entry| Some((entry.schema, *entry.fields.iter().find(|name| **name == field)?)))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_is_classified() {
    let schemas = Schemas::of(control_plane().await).await;
    let mut walk =
        Walk { schemas: &schemas, needed: BTreeSet::new(), tables: BTreeMap::new(), objects: 0, wrong: Vec::new() };
    let mut written = 0;
    for target in schemas.targets() {
        let sections = sections(target.chapter);
        walk.descend(sections, 0, &json!({ "$ref": format!("#/components/schemas/{}", target.schema) }), &target.kind);
        // The tables as they print: no kind of node hides objects from the walk.
        written += format!("{sections:?}").matches("Object([").count();
    }
    for (fields, known, place) in walk.tables.values() {
        for field in fields.difference(known) {
            walk.wrong.push(format!("the table of {place} lists {field}, which no schema that it judges has"));
        }
    }
    for entry in REFUSED.iter().chain(BESIDE) {
        for field in entry.fields.iter().filter(|field| !walk.needed.contains(&(entry.schema, **field))) {
            walk.wrong.push(format!(
                "crates/core/src/admission/fields/refused.rs lists {field} of {}, which a table has too, or no judged \
                 schema has",
                entry.schema
            ));
        }
    }
    assert!(walk.wrong.is_empty(), "{} fields:\n{}", walk.wrong.len(), walk.wrong.join("\n"));
    assert_eq!(walk.objects, written, "the walk does not come by every object of the tables: it misses a kind of node");
}

/// The name of a field that no Kubernetes has.
const MADE_UP: &str = "hearthsMadeUpField";

/// Every place where a table judges an object, as JSON pointers into an object that is right.
fn levels(sections: &[Section], object: &Value) -> Vec<String> {
    fn below(fields: &[Field], object: &Value, at: &str, found: &mut Vec<String>) {
        found.push(at.to_owned());
        for field in fields {
            if let Some(value) = object.get(field.name) {
                node(&field.node, value, &format!("{at}/{}", field.name), found);
            }
        }
    }
    fn node(node_: &Node, value: &Value, at: &str, found: &mut Vec<String>) {
        match node_ {
            Node::Object(fields) => below(fields, value, at, found),
            Node::Each { node: entry, .. } => {
                for (index, value) in value.as_array().into_iter().flatten().enumerate() {
                    node(entry, value, &format!("{at}/{index}"), found);
                }
            }
            Node::All(nodes) => nodes.iter().for_each(|entry| node(entry, value, at, found)),
            _ => (),
        }
    }
    let mut found = Vec::new();
    for section in sections.iter().filter(|section| !section.open) {
        let at = pointer(section);
        below(section.fields, object.pointer(&at).unwrap_or(&Value::Null), &at, &mut found);
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_nobody_knows_is_refused_at_every_level() {
    let schemas = Schemas::of(control_plane().await).await;
    let rules = rules();
    let mut oracle = Oracle::of_policies(&rules, None);
    for target in schemas.targets() {
        let sections = sections(target.chapter);
        if sections.is_empty() {
            continue;
        }
        let mut question = Question {
            update: false,
            group: target.resource.group.to_owned(),
            version: target.resource.version.to_owned(),
            resource: target.resource.name.to_owned(),
            user: "tool:wikibot".to_owned(),
            namespace: "tool-wikibot".to_owned(),
            annotations: BTreeMap::from([("hearth.internal/uid".to_owned(), UID.to_string())]),
            object: right_object(&rules, &schemas, &target),
            old: None,
            raw: true,
        };
        let right = question.object.clone();
        let verdict = reviewed(&rules, &question, &right, None);
        assert_eq!(verdict, Verdict::Allow, "{}: {verdict}\n{right:#}", target.resource.name);
        let answer = oracle.judge(&question).expect("raw objects are not decoded");
        assert!(answer.allowed, "{}: {}\n{right:#}", target.resource.name, answer.message);
        let levels = levels(sections, &right);
        let objects = format!("{:?}", sections.iter().filter(|section| !section.open).collect::<Vec<_>>());
        let open = sections.iter().filter(|section| !section.open).count();
        assert_eq!(levels.len(), objects.matches("Object([").count() + open, "{}: {levels:#?}", target.kind);
        for level in levels {
            question.object = right.clone();
            question.object.pointer_mut(&level).expect("the level")[MADE_UP] = json!(1);
            let told = reviewed(&rules, &question, &question.object, None).to_string();
            assert!(told.contains(&format!("{MADE_UP} is not a field that tools may set")), "{level}: {told}");
            let answer = oracle.judge(&question).expect("raw objects are not decoded");
            assert!(!answer.allowed, "{}: {level}.{MADE_UP} passes the policies", target.resource.name);
        }
    }
}
