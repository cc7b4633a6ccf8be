//! The Pod Security Standards' own fixtures, judged as pods of a tool: stricter than *restricted* but for the own home.
//!
//! The fixtures are those of the Go module `k8s.io/pod-security-admission` that the oracle is built with; its package
//! `policy` says what each level makes of a pod. Before a pod is judged here it becomes a tool's, in two steps. Every
//! image becomes one of an allowed registry, since all fixtures have the same foreign one, and nothing else would be
//! seen. Then the API server's own code decodes it, defaults it and applies Hearth's filling policy, which adds what is
//! left out (`runAsUser`, `runAsGroup`, `runAsNonRoot`, `seccompProfile`; `allowPrivilegeEscalation` and
//! `capabilities.drop` of containers and init containers) and changes nothing that is there. A fixture that is refused
//! for what it leaves out may therefore be allowed: *restricted* is asked about the same filled pod.

#![expect(clippy::print_stdout, reason = "the table is what the test is run for")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use hearth_core::admission::Verdict;
use serde_json::{Value, json};

use crate::rules_oracle::{Oracle, Question, UID, cache, reviewed, rules};

/// How many fixtures the module has.
const FIXTURES: usize = 4537;

/// Where they are, below the cache of Go modules.
const TESTDATA: &str = "go/mod/k8s.io/pod-security-admission@v0.37.2/test/testdata";

/// The document that has the table.
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/security.md");

/// One fixture.
struct Fixture {
    level: String,
    version: String,
    passes: bool,
    /// Its file's name without number and ending: the check that it is about.
    about: String,
    pod: Value,
}

/// A line of the table.
#[derive(Clone, Default)]
struct Line {
    pods: usize,
    /// Refused by *restricted* as it is written; as it is filled in; by the rules of tools.
    written: usize,
    filled: usize,
    ours: usize,
    /// Refused by the rules of tools and not by *restricted*, and by which rules.
    beyond: usize,
    rules: BTreeMap<&'static str, usize>,
}

fn fixtures() -> Vec<Fixture> {
    fn files(folder: &Path, found: &mut Vec<PathBuf>) {
        let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() { files(&path, found) } else { found.push(path) }
        }
    }
    let root = cache().join(TESTDATA);
    let mut found = Vec::new();
    files(&root, &mut found);
    found.retain(|path| path.extension().is_some_and(|ending| ending == "yaml"));
    found.sort();
    let read = |path: PathBuf| {
        let parts: Vec<&str> = path.strip_prefix(&root).unwrap().iter().map(|part| part.to_str().unwrap()).collect();
        let [level, version, verdict, file] = parts[..] else { panic!("{}: not where fixtures are", path.display()) };
        Fixture {
            level: level.to_owned(),
            version: version.to_owned(),
            passes: verdict == "pass",
            about: file.trim_end_matches(".yaml").trim_end_matches(|c: char| c.is_ascii_digit()).to_owned(),
            pod: serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap(),
        }
    };
    found.into_iter().map(read).collect()
}

/// A pod as a tool would have it made.
fn question(mut pod: Value) -> Question {
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            container["image"] = json!("registry.hearth.internal/pause");
        }
    }
    Question {
        update: false,
        group: String::new(),
        version: "v1".to_owned(),
        resource: "pods".to_owned(),
        user: "tool:wikibot".to_owned(),
        namespace: "tool-wikibot".to_owned(),
        annotations: BTreeMap::from([("hearth.internal/uid".to_owned(), UID.to_string())]),
        object: pod,
        old: None,
        raw: false,
    }
}

/// The rules that a verdict counts under, each once.
fn rules_of(verdict: &Verdict) -> BTreeSet<&'static str> {
    match verdict {
        Verdict::Allow => BTreeSet::new(),
        Verdict::Refuse { violations, .. } => violations.iter().map(|violation| violation.rule.name()).collect(),
    }
}

impl Line {
    fn add(&mut self, written: bool, filled: bool, ours: &BTreeSet<&'static str>) {
        self.pods += 1;
        self.written += usize::from(written);
        self.filled += usize::from(filled);
        self.ours += usize::from(!ours.is_empty());
        if !filled && !ours.is_empty() {
            self.beyond += 1;
            ours.iter().for_each(|rule| *self.rules.entry(rule).or_default() += 1);
        }
    }

    fn text(&self, about: &str) -> String {
        let rules: Vec<String> = self.rules.iter().map(|(rule, count)| format!("{rule} {count}")).collect();
        let Self { pods, written, filled, ours, beyond, .. } = self;
        format!("| {about} | {pods} | {written} | {filled} | {ours} | {beyond} | {} |", rules.join(", "))
    }
}

fn print(lines: &BTreeMap<String, Line>, total: &Line) -> String {
    let mut text = "| about | pods | refused by *restricted* | the same, filled in | refused by Hearth | only by Hearth | by which rules |\n\
                    |---|---|---|---|---|---|---|\n"
        .to_owned();
    for (about, line) in lines {
        text += &line.text(about);
        text += "\n";
    }
    text + &total.text("all") + "\n"
}

#[test]
fn the_pod_security_standards_are_kept_but_for_the_own_home() {
    let rules = rules();
    let (mut policies, mut standards) = (Oracle::of_policies(&rules, None), Oracle::of_pod_security());
    let (mut lines, mut total, mut wrong) = (BTreeMap::<String, Line>::new(), Line::default(), Vec::new());
    let fixtures = fixtures();
    assert_eq!(fixtures.len(), FIXTURES);
    for fixture in fixtures {
        let Fixture { level, version, passes, about, pod } = fixture;
        let name = format!("{level} {version} {about}");
        let reasons = standards.pod_security(&level, &version, &pod);
        assert_eq!(reasons.is_empty(), passes, "{name}: the module says otherwise of its own fixture: {reasons:?}");
        let written = !standards.pod_security("restricted", "latest", &pod).is_empty();
        let question = question(pod);
        let answer = policies.judge(&question).unwrap_or_else(|error| panic!("{name}: {error}"));
        let verdict = reviewed(&rules, &question, &answer.object, None);
        let ours = rules_of(&verdict);
        if ours.is_empty() != answer.allowed {
            wrong.push(format!("{name}: the two layers differ: {verdict}; {}", answer.message));
        }
        let mut against = standards.pod_security("restricted", "latest", &answer.object);
        let filled = !against.is_empty();
        against.extend(standards.pod_security("restricted", &version, &answer.object));
        if ours.is_empty() && !against.is_empty() {
            wrong.push(format!("{name}: allowed, and against the standard: {against:?}\n{}", answer.object));
        }
        lines.entry(about).or_default().add(written, filled, &ours);
        total.add(written, filled, &ours);
    }
    assert!(wrong.is_empty(), "{} fixtures:\n{}", wrong.len(), wrong.join("\n"));
    let table = print(&lines, &total);
    println!("{table}");
    let document = std::fs::read_to_string(DOCUMENT).unwrap();
    assert!(document.contains(&table), "docs/security.md has another table; the right one is:\n{table}");
}

/// What *restricted* refuses and Hearth allows: the one path of the node that a tool may mount.
#[test]
fn the_own_home_is_all_that_the_standards_would_refuse() {
    let rules = rules();
    let (mut policies, mut standards) = (Oracle::of_policies(&rules, None), Oracle::of_pod_security());
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "web", "labels": { "toolforge": "tool" } },
        "spec": { "containers": [{ "name": "a" }] },
    });
    let answer = policies.judge(&question(pod)).unwrap();
    assert!(answer.allowed, "{}", answer.message);
    let home = format!("{}/wikibot", rules.homes);
    assert_eq!(answer.object["spec"]["volumes"][0]["hostPath"]["path"], json!(home));
    assert_eq!(standards.pod_security("baseline", "latest", &answer.object), ["hostPath volumes"]);
    let mut without = answer.object;
    without["spec"]["volumes"] = json!([]);
    assert_eq!(standards.pod_security("restricted", "latest", &without), [""; 0]);
}
