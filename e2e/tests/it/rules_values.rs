//! Values for generated objects: right ones, nearly right ones, and ones of a schema's type.
//!
//! What is nearly right is made from what is right: another case, a letter more or less, a dot that is no dot, a number
//! one off. Numbers are random by a seed, so that every object can be made again.

use std::collections::BTreeMap;

use hearth_core::admission::{Node, Rules};
use serde_json::{Map, Value, json};

use crate::rules_oracle::UID;
use crate::rules_right::right_leaf;

/// Numbers that look random and are the same for the same seed (splitmix).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit.max(1)).unwrap()).unwrap()
    }

    /// True in so many cases of a hundred.
    pub(crate) fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of a list.
    pub(crate) fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

/// Texts that mean something to a rule, or nearly so.
const TEXTS: &[&str] = &[
    "",
    " ",
    "/",
    "..",
    "a",
    "A",
    "default",
    "Default",
    "localhost",
    "None",
    "RuntimeDefault",
    "Unconfined",
    "wikibot",
    "other",
    "tools",
    "hearth",
    "hearth.localhost",
    "tools.hearth.localhost",
    "wikibot.hearth.localhost",
    "other.hearth.localhost",
    "wikibot.tools.example",
    "*.hearth.localhost",
    "xn--wikibot-.hearth.localhost",
    "/data/project/wikibot",
    "/data/project/other",
    "/data/project",
    "/wikibot",
    "/wikibot/",
    "/wikibot/a",
    "/wikibot//a",
    "/wikibot/../other",
    "/wikibot/.",
    "/wikibot/.a",
    "/wikibot/%2e%2e",
    "/wikibot-evil",
    "/other",
    "registry.hearth.internal/a",
    "registry.hearth.internal/tool-wikibot/app:latest",
    "registry.hearth.internal:443/a",
    "registry.hearth.internal",
    "mirror.example:5000/shared",
    "mirror.example:5000/shared/a:1",
    "mirror.example:5000/sharedx",
    "docker.io/library/redis",
    "docker.io/redis",
    "index.docker.io/library/redis",
    "library/redis",
    "redis",
    "redis:7",
    "redis/a",
    "localhost/redis",
    "redis@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    "\u{212a}",
    "ſ",
    "é",
    "a\nb",
    "a\u{0}b",
];

/// Letters that separate the parts of names, hosts, paths and references, and some that do not belong there.
const LETTERS: &[&str] = &[
    "a", "A", "z", "0", "9", ".", "..", "/", "//", ":", "@", "-", "--", "_", "__", "___", "~", "%", "*", "?", "#", " ",
    "\n", "\t", "\\", "é", "ſ", "\u{200b}",
];

/// A text near another.
pub(crate) fn near(random: &mut Random, text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let at = random.below(characters.len() + 1);
    let (start, end): (String, String) = (characters[..at].iter().collect(), characters[at..].iter().collect());
    let rest: String = end.chars().skip(1).collect();
    let letter = *random.pick(LETTERS);
    match random.below(9) {
        0 => text.to_uppercase(),
        1 => start,
        2 => end,
        3 => format!("{text}{letter}"),
        4 => format!("{letter}{text}"),
        5 => format!("{start}{letter}{end}"),
        6 => format!("{start}{letter}{rest}"),
        7 => format!("{start}{rest}"),
        _ => text.replacen(['.', '-', '/'], letter, 1),
    }
}

/// A number near another.
pub(crate) fn near_number(random: &mut Random, number: i64) -> i64 {
    let own = i64::from(UID);
    let near = [number.wrapping_add(1), number.wrapping_sub(1), number.wrapping_neg(), 0, 1, -1, own, own + 1, 65_534];
    let far = [i64::from(i32::MAX), i64::from(u32::MAX), i64::from(u32::MAX) + 1 + own, i64::MAX, i64::MIN];
    if random.percent(80) { *random.pick(&near) } else { *random.pick(&far) }
}

/// A value near another, of the same type.
pub(crate) fn near_value(random: &mut Random, value: &Value) -> Value {
    match value {
        Value::Bool(truth) => json!(!truth),
        Value::Number(number) => json!(near_number(random, number.as_i64().unwrap_or_default())),
        Value::String(text) => json!(near(random, text)),
        Value::Array(list) if random.percent(50) => Value::Array(list.iter().skip(1).cloned().collect()),
        Value::Array(_) => json!([]),
        Value::Object(_) => json!({}),
        Value::Null => Value::Null,
    }
}

/// A text from the lists, or one near it.
pub(crate) fn text(random: &mut Random) -> String {
    let text = *random.pick(TEXTS);
    if random.percent(40) { near(random, text) } else { text.to_owned() }
}

/// A value that a node is about: right, or near to it.
pub(crate) fn aimed(random: &mut Random, rules: &Rules, node: &Node) -> Option<Value> {
    let value = match node {
        Node::OneOf(texts) => json!(random.pick(texts)),
        Node::KeysWithin(texts) | Node::Annotations { keys: texts, .. } => {
            let key = match node {
                Node::Annotations { under, .. } if random.percent(50) => *random.pick(under),
                _ => *random.pick(texts),
            };
            let key = if random.percent(50) { near(random, key) } else { format!("{key}{}", random.pick(&["", "a"])) };
            return Some(json!({ key: "a" }));
        }
        Node::OneLines { longest, but } => {
            let key = if random.percent(30) { but } else { &"a" };
            let lengths = [longest - 1, *longest, longest + 1];
            let long = random.pick(&lengths);
            let texts = ["a".to_owned(), "é".repeat(*long), "a".repeat(*long), "a\nb".to_owned(), text(random)];
            return Some(json!({ *key: random.pick(&texts) }));
        }
        Node::Added(texts) => {
            let own = random.pick(texts);
            let lists = [json!([]), json!([own]), json!(["example.org/kept", own]), json!([near(random, own)])];
            return Some(random.pick(&lists).clone());
        }
        Node::Has(text) => {
            let others = [json!([]), json!([near(random, text)]), json!([text, "CHOWN"]), json!(["CHOWN", text])];
            return Some(if random.percent(50) { json!([text]) } else { random.pick(&others).clone() });
        }
        Node::Image => json!(image(random, rules)),
        Node::Any | Node::Object(_) | Node::Open(_) | Node::Each { .. } | Node::All(_) => return None,
        node => right_leaf(rules, node)?,
    };
    Some(if random.percent(40) { near_value(random, &value) } else { value })
}

/// A reference to an image, put together from its parts.
fn image(random: &mut Random, rules: &Rules) -> String {
    let allowed: Vec<String> = rules.registries.iter().map(ToString::to_string).collect();
    let mut text = match random.below(4) {
        0 => (*random.pick(&["", "docker.io", "library", "quay.io", "localhost", "localhost:5000"])).to_owned(),
        1 => allowed.first().map(|first| near(random, first)).unwrap_or_default(),
        _ => random.pick(&allowed).clone(),
    };
    for _ in 0..random.below(4) {
        let segment =
            *random.pick(&["a", "a.b", "a_b", "a__b", "a-b", "a---b", "a..b", "a._b", "-a", "a-", "A", "", "redis"]);
        text = if text.is_empty() { segment.to_owned() } else { format!("{text}/{segment}") };
    }
    let long = "a".repeat(*random.pick(&[127, 128, 129]));
    let tags = ["", "", ":1", ":latest", ":v1.0_x-y", ":-a", ":.a", ":", ":a:b", ":é"];
    text += *random.pick(&tags);
    if text.ends_with(":latest") && random.percent(10) {
        text = text.replace("latest", &long);
    }
    let digest = "0123456789abcdef".repeat(4);
    let digests = [format!("@sha256:{digest}"), format!("@sha256:{}", &digest[1..]), format!("@sha512:{digest}")];
    if random.percent(25) {
        text += random.pick(&digests).as_str();
    }
    if random.percent(3) {
        text += &format!("@sha256:{}", digest.to_uppercase());
    }
    text
}

/// A namespace: its name, and its annotations.
pub(crate) fn namespace(random: &mut Random, rules: &Rules) -> (String, BTreeMap<String, String>) {
    let own = UID.to_string();
    let key = "hearth.internal/uid";
    if random.percent(75) {
        return ("tool-wikibot".to_owned(), BTreeMap::from([(key.to_owned(), own)]));
    }
    let (longest, longer) = (format!("tool-{}", "a".repeat(53)), format!("tool-{}", "a".repeat(54)));
    let mut names = vec!["tool-wikibot", "tool-other", "tool-tools", "tool-a", "tool-0", "tool-a--b", "tool-hearth"];
    names.extend(["wikibot", "tool", "tool-", "tools-wikibot", "xtool-a", "kube-systemx", &longest, &longer]);
    names.extend(rules.namespaces.all());
    // What the API server takes for a namespace's name ends in a letter or digit.
    let name = random.pick(&names).trim_end_matches('-').to_owned();
    let (first, last) = (rules.first_uid, rules.last_uid);
    let numbers = [
        own,
        first.to_string(),
        (first - 1).to_string(),
        last.to_string(),
        (last + 1).to_string(),
        format!("0{first}"),
        format!("+{first}"),
        format!(" {first}"),
        format!("{first}\n"),
        format!("{first}.0"),
        "5e4".to_owned(),
        "0".to_owned(),
        String::new(),
        "-1".to_owned(),
        "9999999999".to_owned(),
        "99999999999".to_owned(),
        "99999999999999999999".to_owned(),
        "٥٠٠٠٠".to_owned(),
    ];
    let mut annotations = BTreeMap::from([(key.to_owned(), random.pick(&numbers).clone())]);
    if random.percent(10) {
        annotations = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    }
    (name, if random.percent(5) { BTreeMap::new() } else { annotations })
}

/// A value of a schema's type, for types that hold no others.
pub(crate) fn scalar(random: &mut Random, schema: &Value) -> Value {
    if let Some(texts) = schema["enum"].as_array().filter(|texts| !texts.is_empty()) {
        let value = random.pick(texts).clone();
        return if random.percent(20) { near_value(random, &value) } else { value };
    }
    let quantity = schema["oneOf"].is_array() || schema["format"] == "quantity" || schema["format"] == "int-or-string";
    match (schema["type"].as_str(), schema["format"].as_str()) {
        _ if quantity => random.pick(&[json!(1), json!("1"), json!("100m"), json!("a")]).clone(),
        (Some("string"), Some("date-time")) => json!("2026-01-01T00:00:00Z"),
        (Some("string"), Some("byte")) => json!("aGVhcnRo"),
        (Some("string"), _) => json!(text(random)),
        (Some("boolean"), _) => json!(random.percent(50)),
        (Some("integer"), Some("int32")) => {
            let number = near_number(random, 1);
            json!(i32::try_from(number).unwrap_or(i32::MAX))
        }
        (Some("integer" | "number"), _) => json!(near_number(random, i64::from(UID))),
        (Some("array"), _) => json!([]),
        _ => Value::Object(Map::new()),
    }
}
