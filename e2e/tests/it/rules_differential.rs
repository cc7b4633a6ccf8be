//! The two layers agree: `review` and the API server's own admission plug-ins, over generated objects.
//!
//! `RULES_SEED` and `RULES_COUNT` replay: the object number n of a run is the first of a run whose seed is n higher. A
//! difference is made smaller before it is shown. `make soak` goes on for `SOAK_MINUTES`. The filling policy is part
//! of what is compared: `review` is asked about the pod that it made, as the webhook is.

#![expect(clippy::print_stdout, reason = "seeds and counts are what a failed run leaves behind")]

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hearth_core::admission::fields::{CHAPTERS, Resource};
use hearth_core::admission::{Rules, Verdict};
use hearth_core::names::annotation;
use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, Error};
use serde_json::{Value, json};

use crate::control_admission::{cases, stage};
use crate::control_plane::control_plane;
use crate::rules_generate::{Generator, put};
use crate::rules_oracle::{Answer, Oracle, Question, UID, reviewed, rules};
use crate::rules_schema::{Schemas, pointer, sections};

/// How many objects the short form compares.
const FEW: u64 = 20_000;

/// How many of them with policies as Kubernetes 1.36 would compile them.
const FEW_EMULATED: u64 = 2_000;

/// How many objects a real API server is asked about.
const SAMPLE: u64 = 600;

/// Programs that judge side by side.
const SIDE_BY_SIDE: u64 = 2;

/// Most attempts at making a difference smaller.
const ATTEMPTS: usize = 3_000;

/// What a run came by.
#[derive(Debug, Default)]
struct Counts {
    allowed: u64,
    refused: u64,
    /// Not decoded by the API server, or without a list that it requires, and so never asked about: why, in short.
    invalid: BTreeMap<String, u64>,
    /// Refused because an expression could not be evaluated, and not because it said no.
    failed: BTreeMap<String, u64>,
    resources: BTreeMap<String, [u64; 2]>,
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

fn seed() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "a seed that differs from run to run; it is printed")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = number("RULES_SEED").unwrap_or_else(|| u64::try_from(now.as_millis()).unwrap() << 20);
    println!("RULES_SEED={seed}");
    seed
}

/// What the policies say of an object that they could be asked about: one that is decoded, and has the lists that its
/// specification must have. A missing one is null then. The API server's validation, which comes before policies that
/// judge, refuses that, so they need not read it.
fn ask(oracle: &mut Oracle, question: &Question) -> Result<Answer, String> {
    let answer = oracle.judge(question)?;
    let is = |resource: &Resource| resource.group == question.group && resource.name == question.resource;
    let chapter = CHAPTERS.iter().find(|chapter| chapter.resources.iter().any(is));
    for object in [Some(&answer.object), answer.old.as_ref()].into_iter().flatten() {
        for section in chapter.map_or(&[][..], sections) {
            let fields = object.pointer(&pointer(section)).and_then(Value::as_object);
            if let Some((name, _)) = fields.into_iter().flatten().find(|(_, value)| value.is_null()) {
                return Err(format!("required: {name}"));
            }
        }
    }
    Ok(answer)
}

/// What is wrong with an answer; nothing where both layers say the same.
fn difference(rules: &Rules, question: &Question, answer: &Answer) -> Option<String> {
    let verdict = reviewed(rules, question, &answer.object, answer.old.as_ref());
    // An expression that ran out of its budget refuses whatever the object is.
    let exhausted = answer.message.contains("budget") || answer.message.contains("cost limit");
    if (verdict == Verdict::Allow) == answer.allowed && !exhausted {
        return None;
    }
    let policies = if answer.allowed { "allowed" } else { &answer.message };
    Some(format!("  rules:    {verdict}\n  policies: {policies}"))
}

/// Compares so many objects, or as many as there is time for. Ends at the first difference.
fn compare(schemas: &Schemas, emulated: Option<&str>, seed: u64, count: u64, until: Option<Instant>) -> Counts {
    let rules = rules();
    let generator = Generator::new(rules.clone(), schemas);
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let (counts, found) = (Mutex::new(Counts::default()), Mutex::new(None));
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                let mut oracle = Oracle::of_policies(&rules, emulated);
                while !stop.load(Ordering::Relaxed) {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if until.map_or(index >= count, |until| Instant::now() >= until) {
                        break;
                    }
                    let question = generator.question(seed.wrapping_add(index));
                    let answer = ask(&mut oracle, &question);
                    counts.lock().unwrap().add(&question, answer.as_ref());
                    if answer.is_ok_and(|answer| difference(&rules, &question, &answer).is_some()) {
                        stop.store(true, Ordering::Relaxed);
                        let told = explain(&rules, &mut oracle, question);
                        *found.lock().unwrap() = Some(format!("RULES_SEED={}\n{told}", seed.wrapping_add(index)));
                    }
                }
            });
        }
    });
    if let Some(found) = found.into_inner().unwrap() {
        panic!("the two layers differ; to replay, set RULES_COUNT=1 and {found}");
    }
    let counts = counts.into_inner().unwrap();
    println!("{counts:?}");
    counts
}

/// A difference, made as small as it gets.
fn explain(rules: &Rules, oracle: &mut Oracle, question: Question) -> String {
    let mut differs = |question: &Question| {
        let answer = ask(oracle, question).ok()?;
        difference(rules, question, &answer).map(|told| (told, answer))
    };
    let mut question = question;
    let mut attempts = 0;
    // What is left out of the object and of the stored one, from the root down, as long as something can be.
    let mut smaller = true;
    while smaller && attempts < ATTEMPTS {
        smaller = false;
        for of_old in [true, false] {
            let of = |question: &Question| if of_old { question.old.clone() } else { Some(question.object.clone()) };
            let Some(whole) = of(&question) else { continue };
            for pointer in pointers(&whole) {
                attempts += 1;
                let mut without = question.clone();
                let place = if of_old { without.old.as_mut() } else { Some(&mut without.object) };
                let Some(place) = place.filter(|place| place.pointer(&pointer).is_some()) else { continue };
                put(place, &pointer, Value::Null);
                if attempts < ATTEMPTS && differs(&without).is_some() {
                    (question, smaller) = (without, true);
                }
            }
        }
    }
    let (told, answer) = differs(&question).expect("it did a moment ago");
    let old = answer.old.map(|old| format!("\n  stored:   {old}")).unwrap_or_default();
    format!(
        "{} {} in {} {:?} by {}\n{told}\n  sent:     {}\n  judged:   {}{old}",
        if question.update { "UPDATE" } else { "CREATE" },
        question.resource,
        question.namespace,
        question.annotations,
        question.user,
        question.object,
        answer.object,
    )
}

/// Every place of an object but what says its kind; entries of lists from the last, so that indices stay.
fn pointers(object: &Value) -> Vec<String> {
    fn below(value: &Value, at: &str, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                for (name, value) in map.iter().filter(|(name, _)| *name != "apiVersion" && *name != "kind") {
                    let at = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
                    found.push(at.clone());
                    below(value, &at, found);
                }
            }
            Value::Array(list) => {
                for (index, value) in list.iter().enumerate().rev() {
                    let at = format!("{at}/{index}");
                    found.push(at.clone());
                    below(value, &at, found);
                }
            }
            _ => (),
        }
    }
    let mut found = Vec::new();
    below(object, "", &mut found);
    found
}

impl Counts {
    fn add(&mut self, question: &Question, answer: Result<&Answer, &String>) {
        let answer = match answer {
            Ok(answer) => answer,
            Err(reason) => {
                let end = reason.rsplit(": ").next().unwrap_or_default();
                *self.invalid.entry(end.chars().take(60).collect()).or_default() += 1;
                return;
            }
        };
        let verdicts = self.resources.entry(question.resource.clone()).or_default();
        verdicts[usize::from(!answer.allowed)] += 1;
        if answer.allowed {
            self.allowed += 1;
            return;
        }
        self.refused += 1;
        if answer.message.contains("resulted in error") || answer.message.contains("failed to evaluate") {
            let start: String = answer.message.chars().skip(answer.message.find("denied").unwrap_or(0)).collect();
            let end = start.rfind("resulted in error").map_or(start.as_str(), |at| &start[at..]);
            *self.failed.entry(end.chars().take(150).collect()).or_default() += 1;
        }
    }

    /// Prints the counts; both verdicts must have come of every resource, or the comparison says little.
    fn assert_telling(&self) {
        let total = self.allowed + self.refused;
        assert!(self.allowed * 5 >= total && self.refused * 5 >= total, "of {total}, {} were allowed", self.allowed);
        let invalid: u64 = self.invalid.values().sum();
        assert!(invalid <= total, "{invalid} were never asked about, and {total} were");
        for (resource, verdicts) in &self.resources {
            assert!(verdicts.iter().all(|count| *count > 0), "{resource}: {verdicts:?} allowed and refused");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_layers_say_the_same_of_generated_objects() {
    let schemas = Schemas::of(control_plane().await).await;
    let (seed, count) = (seed(), number("RULES_COUNT"));
    let until = number("SOAK_MINUTES").map(|minutes| Instant::now() + Duration::from_secs(60 * minutes));
    let counts = tokio::task::block_in_place(|| compare(&schemas, None, seed, count.unwrap_or(FEW), until));
    if count.is_none() {
        counts.assert_telling();
    }
}

/// Policies that are stored are compiled with everything that the API server knows, whatever version it emulates;
/// what emulation narrows is what may be written and how it is checked when it is.
#[tokio::test(flavor = "multi_thread")]
async fn both_layers_say_the_same_where_kubernetes_1_36_is_emulated() {
    let schemas = Schemas::of(control_plane().await).await;
    let count = number("RULES_COUNT").unwrap_or(FEW_EMULATED);
    let seed = seed();
    tokio::task::block_in_place(|| compare(&schemas, Some("1.36"), seed, count, None));
}

/// The program that judges says what a real API server says, and it is the same policy that refuses. Not always in the
/// same words: a real one changes some objects before policies judge them (it gives a `NodePort` its number, and reads
/// `AppArmor` annotations into fields), so that the first fault is another.
#[tokio::test(flavor = "multi_thread")]
async fn a_real_api_server_says_the_same_of_some() {
    let plane = stage().await;
    let schemas = Schemas::of(plane).await;
    let rules = rules();
    let generator = Generator::new(rules.clone(), &schemas);
    let mut oracle = Oracle::of_policies(&rules, None);
    let seed = seed();
    let (mut allowed, mut refused, mut invalid, mut wrong) = (0, 0, 0, Vec::new());
    for index in 0..number("RULES_COUNT").unwrap_or(SAMPLE) {
        let mut question = generator.question(seed.wrapping_add(index));
        // One namespace that is there, and objects that are made: what is stored would have to be right.
        question.namespace = "tool-wikibot".to_owned();
        question.annotations = BTreeMap::from([
            (annotation::UID.to_owned(), UID.to_string()),
            (annotation::SERVICE_ACCOUNT.to_owned(), cases::ACCOUNT.to_owned()),
        ]);
        if question.update || question.user.is_empty() || !question.user.chars().all(|c| c.is_ascii_graphic()) {
            continue;
        }
        question.object["metadata"] = json!({
            "name": "generated", "annotations": question.object["metadata"]["annotations"],
            "labels": question.object["metadata"]["labels"],
        });
        let Ok(answer) = tokio::task::block_in_place(|| ask(&mut oracle, &question)) else { continue };
        let client = plane.impersonating(&question.user, &["system:masters"]).await;
        let kind = question.object["kind"].as_str().unwrap_or_default();
        let gvk = GroupVersionKind::gvk(&question.group, &question.version, kind);
        let resource = ApiResource::from_gvk_with_plural(&gvk, &question.resource);
        let api: Api<DynamicObject> = Api::namespaced_with(client, &question.namespace, &resource);
        let Ok(object) = serde_json::from_value(question.object.clone()) else { continue };
        let told = api.create(&PostParams { dry_run: true, ..PostParams::default() }, &object).await;
        let same = match &told {
            Ok(stored) => {
                allowed += 1;
                // Fields of features that are off are emptied before the policies see an object.
                let object = serde_json::to_value(stored).unwrap();
                let emptied = Question { object, ..question.clone() };
                answer.allowed || tokio::task::block_in_place(|| ask(&mut oracle, &emptied)).is_ok_and(|a| a.allowed)
            }
            Err(Error::Api(status)) if status.message.contains("AdmissionPolicy 'hearth-") => {
                refused += 1;
                // Of the two policies of a kind either may be the first to say no.
                let by = |text: &str| text.split('\'').nth(1).map(|name| name.trim_end_matches("-identity").to_owned());
                !answer.allowed && by(&status.message) == by(&answer.message)
            }
            // Another plug-in, or the validation of the object, which comes first.
            Err(Error::Api(_)) => {
                invalid += 1;
                true
            }
            Err(_) => false,
        };
        let difference = difference(&rules, &question, &answer);
        if !same || difference.is_some() {
            let told = told.map(|_| "allowed").map_err(|error| error.to_string());
            wrong.push(format!("RULES_SEED={}: {told:?}\n  {}\n  {}", seed + index, answer.message, question.object));
        }
    }
    println!("{allowed} allowed, {refused} refused, {invalid} refused by something else");
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(number("RULES_COUNT").is_some() || (allowed > 10 && refused > 30), "too few to say anything");
}
