//! Whether a visitor's browser keeps tools apart: in Debian's Chromium, one tool tries what it can against another.
//!
//! Each attempt is a row of a table: what a script does in a page of one tool, and what comes of it. What only the Public
//! Suffix List can stop is tried under a domain that is on it and under one that is not, so that an exception is known
//! for what it is, and we hear of it when it changes. Where an attempt fails, the same one on the tool itself succeeds
//! in the row before, so that none fails for another reason. `docs/security.md` says what the outcomes mean.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hearth_core::Domains;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::proxy_chromium::{Chromium, Page, Shown, front};
use crate::proxy_front::{Front, Pod, Tools, full, table_of};

/// A domain that the Public Suffix List does not have.
const UNLISTED: &str = "hearth.example";

/// One that it has, as every browser knows: Toolforge's own. Nothing here goes to the real one.
const LISTED: &str = "toolforge.org";

/// What the scripts of all attempts have at hand.
const PRELUDE: &str = r#"
// An address whose answer has these fields and this body: a tool answers what it likes.
const answer = (fields, body = "", path = "/x") => path + "?" + btoa(JSON.stringify({fields, body}));
const read = async (address, options) => {
    try { return await (await fetch(address, options)).text() } catch (error) { return error.name }
};
const set = (...cookies) => read(answer(cookies.map(cookie => ["set-cookie", cookie])));
// The cookies that a server is sent, or what else a function finds, or why it does not.
const cookies = () => read("/echo");
const found = look => { try { return String(look()) } catch (error) { return error.name } };
const framed = address => new Promise(loaded => {
    const frame = document.createElement("iframe");
    frame.onload = () => loaded(frame);
    frame.src = address;
    document.body.append(frame);
});
const until = async look => { while (!await look()) await new Promise(next => setTimeout(next, 10)) };
// Cookies that a script sets are stored in their order, and a little later.
const stored = () => { document.cookie = "last=1"; return until(() => cookieStore.get("last")) };
const served = () => fetch("/echo").then(answer => String(answer.ok), () => "false");
"#;

/// Something that a page does, and the text that comes of it.
struct Step {
    /// Where: `A` is the attacker's own host and `B` the other tool's; at `A?consents` is a page that may take part in the
    /// whole domain, as its answer says.
    at: &'static str,
    script: &'static str,
    /// What comes of it under an unlisted domain, and under a listed one.
    outcomes: [&'static str; 2],
}

/// One whose outcome does not depend on the domain.
const fn step(at: &'static str, script: &'static str, outcome: &'static str) -> Step {
    Step { at, script, outcomes: [outcome, outcome] }
}

/// One that shows an exception: `without` the Public Suffix List it succeeds.
const fn exception(at: &'static str, script: &'static str, without: &'static str, listed: &'static str) -> Step {
    Step { at, script, outcomes: [without, listed] }
}

/// What is tried, by a visitor who was never there before.
struct Attempt(&'static str, &'static [Step]);

const COOKIES: &[Attempt] = &[
    Attempt(
        "a tool's answer sets a cookie for the whole domain, or for another tool",
        &[
            step("A/", "await set(`own=1; Domain=a.${DOMAIN}`); return cookies()", "own=1"),
            step(
                "A/",
                "for (const domain of [DOMAIN, '.' + DOMAIN, DOMAIN.toUpperCase(), `b.${DOMAIN}`, `a.${DOMAIN}; Domain=${DOMAIN}`])
                     await set(`tossed=1; Secure; Domain=${domain}`);
                 return cookies()",
                "own=1",
            ),
            step("B/", "return cookies()", ""),
        ],
    ),
    Attempt(
        "a tool's script sets a cookie for the whole domain, which comes before the other tool's own",
        &[
            step("B/", "await set('session=own; HttpOnly; Secure'); return cookies()", "session=own"),
            step("A/", "document.cookie = `session=tossed; Domain=${DOMAIN}; Path=/echo`; await stored(); return ''", ""),
            exception("B/", "return cookies()", "session=tossed; session=own", "session=own"),
        ],
    ),
    Attempt(
        "a tool's script sets a cookie whose name begins with __Host-",
        &[
            step("B/", "await set('__Host-session=own; Path=/; Secure'); return cookies()", "__Host-session=own"),
            step(
                "A/",
                "for (const more of ['', `; Domain=${DOMAIN}`, `; Domain=${DOMAIN}; Path=/echo`, `; Domain=b.${DOMAIN}`])
                     document.cookie = `__Host-session=tossed; Path=/; Secure${more}`;
                 await stored(); return cookies()",
                "__Host-session=tossed; last=1",
            ),
            step("B/", "return cookies()", "__Host-session=own"),
        ],
    ),
    Attempt(
        "a tool's script has the browser throw the other's cookies away, by setting more of its own than are kept",
        &[
            step("B/", "await set('__Host-session=own; Path=/; Secure'); return cookies()", "__Host-session=own"),
            step(
                "A/",
                "for (let n = 0; n < 400; n++) document.cookie = `n${n}=1; Secure`;
                 await stored(); return String(document.cookie.split('; ').length > 50)",
                "true",
            ),
            exception("B/", "return cookies()", "", "__Host-session=own"),
        ],
    ),
    Attempt(
        "a tool's script sets so many cookies for the whole domain that requests become too long",
        &[
            step("B/", "return served()", "true"),
            step(
                "A/",
                "for (let n = 0; n < 40; n++) document.cookie = `n${n}=${'x'.repeat(4000)}; Domain=${DOMAIN}`;
                 await stored(); return ''",
                "",
            ),
            exception("B/", "return served()", "false", "true"),
        ],
    ),
    Attempt(
        "a tool's answer clears what is stored",
        &[
            step("B/", "await set('session=own'); localStorage.x = 'own'; return cookies()", "session=own"),
            step("B/", "await read(CACHED); return read('/seen/cached')", "1 GET same-origin session=own"),
            step(
                "A/",
                "localStorage.x = 'own';
                 for (const what of ['\"*\"', '\"cookies\"', '\"cache\", \"storage\"'])
                     await read(answer([['clear-site-data', what]]));
                 await until(() => !localStorage.x); return 'cleared'",
                "cleared",
            ),
            step("B/", "return await cookies() + ' ' + localStorage.x", "session=own own"),
            step("B/", "await read(CACHED); return read('/seen/cached')", "1 GET same-origin session=own"),
        ],
    ),
];

const REQUESTS: &[Attempt] = &[
    Attempt(
        "a tool's script reads the other's answers",
        &[
            step("A/", "return read('/page')", "page of a"),
            step("A/", "return read(B + answer([['access-control-allow-origin', '*']], 'open'))", "open"),
            step("B/", "await set('l=1; SameSite=Lax', 's=1; SameSite=Strict'); return cookies()", "l=1; s=1"),
            step("A/", "return read(B + '/page', {credentials: 'include'})", "TypeError"),
            // It is asked all the same, and told by whom.
            exception("B/", "return read('/seen/page')", "1 GET same-site l=1; s=1", "1 GET cross-site"),
            step("A/", "return read(B + '/page', {mode: 'no-cors', credentials: 'include'})", ""),
        ],
    ),
    Attempt(
        "a tool's script sends what a form could, and what it could not",
        &[
            step("B/", "await set('l=1; SameSite=Lax', 's=1; SameSite=Strict'); return cookies()", "l=1; s=1"),
            step(
                "B/",
                "await read('/form', {method: 'POST'}); return read('/seen/form')",
                "1 POST same-origin l=1; s=1",
            ),
            step(
                "A/",
                "return read(B + '/form', {method: 'POST', mode: 'no-cors', credentials: 'include', body: 'x'})",
                "",
            ),
            exception("B/", "return read('/seen/form')", "2 POST same-site l=1; s=1", "2 POST cross-site"),
            step(
                "A/",
                "return read(B + '/json', {method: 'POST', credentials: 'include', body: '{}',
                     headers: {'content-type': 'application/json'}})",
                "TypeError",
            ),
            exception("B/", "return read('/seen/json')", "1 OPTIONS same-site", "1 OPTIONS cross-site"),
        ],
    ),
    Attempt(
        "a tool's script looks into frames and windows of the other",
        &[
            step("A/", "return (await framed('/page')).contentDocument.body.textContent", "page of a"),
            step(
                "A/",
                "const {contentDocument, contentWindow} = await framed(B + '/page');
                 return found(() => contentDocument) + ' ' + found(() => contentWindow.document)",
                "null SecurityError",
            ),
            step("A/", "return opened('/page')", "page of a"),
            step("A/", "return opened(B + '/page')", "SecurityError"),
        ],
    ),
    Attempt(
        "a tool's script gives itself the whole domain as its own",
        &[
            exception("A?consents", "return found(() => document.domain = DOMAIN)", "hearth.example", "SecurityError"),
            step(
                "A?consents",
                "const frame = await framed(B + '/page');
                 return found(() => frame.contentWindow.document.body.textContent)",
                "SecurityError",
            ),
        ],
    ),
    Attempt(
        "two tools' scripts give themselves the whole domain as their own, which both have to want in all their answers",
        &[exception(
            "A?consents",
            "found(() => document.domain = DOMAIN);
                 const frame = await framed(B + answer([['origin-agent-cluster', '?0'], ['content-type', 'text/html']],
                     `<body>consents<script>document.domain = '${DOMAIN}'</script>`));
                 return found(() => frame.contentWindow.document.body.firstChild.textContent)",
            "consents",
            "SecurityError",
        )],
    ),
    Attempt(
        "a tool's script finds what the other keeps in the browser",
        &[
            step(
                "B/",
                "localStorage.x = 'kept'; await caches.open('kept'); await new Promise((done, failed) => {
                     Object.assign(indexedDB.open('kept'), {onsuccess: done, onerror: failed}) });
                 return 'kept'",
                "kept",
            ),
            step("B/", KEPT, "kept kept kept"),
            step("A/", KEPT, "undefined  "),
        ],
    ),
    Attempt(
        "a tool's script learns from the browser's cache which of the other's pages were visited",
        &[
            step("B/", "await read(VISITED); return read('/seen/visited')", "1 GET same-origin"),
            step("A/", "return read(B + VISITED, {mode: 'no-cors', credentials: 'include'})", ""),
            // From the cache, it is not asked again.
            exception("B/", "return read('/seen/visited')", "1 GET same-origin", "2 GET cross-site"),
        ],
    ),
    Attempt(
        "a tool's service worker answers for the other",
        &[
            step("A/", "await worker('/sw.js', '/'); return read('/page')", "by the worker of a"),
            step("A/", "return read(B + answer([['access-control-allow-origin', '*']], 'open'))", "by the worker of a"),
            step("A/", "return worker(B + '/sw.js', '/')", "SecurityError"),
            step("A/", "return worker('/sw.js', B + '/')", "SecurityError"),
            step("B/", "return read('/page')", "page of b"),
        ],
    ),
];

/// What is kept, by name.
const KEPT: &str =
    "return localStorage.x + ' ' + await caches.keys() + ' ' + (await indexedDB.databases()).map(base => base.name)";

/// Further words for some attempts.
const WORDS: &str = r#"
const [CACHED, VISITED] = ["/cached", "/visited"].map(path => answer([["cache-control", "max-age=600"]], "kept", path));
// Of a window what can be read when something is there.
const opened = address => new Promise(done => {
    const other = open(address);
    const look = () => {
        const text = found(() => other.location.href != "about:blank" && other.document.readyState == "complete"
            ? other.document.body.textContent : "");
        text ? done(text) : setTimeout(look, 10);
    };
    look();
});
// Registers a service worker, and waits until it answers for this page.
const worker = async (script, scope) => {
    try { await navigator.serviceWorker.register(script, {scope}) } catch (error) { return error.name }
    await until(() => navigator.serviceWorker.controller);
    return "registered";
};
"#;

/// The shared host, below which the tools `old-a` and `old-b` are served. `A` and `B` are their parts of it here, `OWN`
/// the first one's own host.
const SHARED: &[Attempt] = &[
    Attempt(
        "a tool's script registers a service worker for the shared host",
        &[
            step("OWN/", "return worker('/deep/sw.js', '/')", "registered"),
            step("OWN/", "return read('/seen/sw.js')", "by the worker of old-a"),
            step(
                "A/",
                "const outcomes = [];
                 for (const scope of ['/', '/old-b/', '/old-a/']) outcomes.push(await worker('/old-a/sw.js', scope));
                 return outcomes.join(' ')",
                "TypeError TypeError TypeError",
            ),
            step("B/", "return read('/old-b/page')", "page of old-b"),
        ],
    ),
    Attempt(
        "a tool's script reads one that is not served there, through the shared host",
        &[
            step("A/", "return read('/old-a/page')", "page of old-a"),
            step("A/", "return read(answer([['access-control-allow-origin', '*']], 'open', '/b/x'))", "open"),
            step("A/", "return read('/b/page', {credentials: 'include'})", "TypeError"),
            step("A/", "return String((await framed('/b/page')).contentDocument)", "null"),
            step("OWN/", "return read(LEGACY + '/b/page', {credentials: 'include'})", "TypeError"),
            step("OWN/", "return read(LEGACY + '/old-b/page', {credentials: 'include'})", "TypeError"),
        ],
    ),
    Attempt(
        "a tool's answer sets cookies for the shared host",
        &[
            step(
                "A/",
                "await read(answer([['set-cookie', 'own=1; Path=/old-a; Domain=old.example'], ['set-cookie', 'wide=1; Path=/'],
                     ['set-cookie', 'b=1; Path=/old-b']], '', '/old-a/x'));
                 return read('/old-a/echo')",
                "own=1",
            ),
            step("B/", "return read('/old-b/echo')", ""),
        ],
    ),
    Attempt(
        "a tool's answer clears what is stored for the shared host",
        &[
            step("OWN/", "localStorage.x = 'own'; await read(CLEAR); await until(() => !localStorage.x); return 'cleared'", "cleared"),
            step("A/", "localStorage.x = 'own'; await read('/old-a' + CLEAR); return found(() => localStorage.x)", "own"),
        ],
    ),
    // What follows are exceptions: these tools are one origin.
    Attempt(
        "a tool's script reads another's pages, storage and cookies there, and sets cookies",
        &[
            step(
                "B/",
                "localStorage.x = 'of b';
                 await read(answer([['set-cookie', 'seen=1'], ['set-cookie', 'hidden=1; HttpOnly']], '', '/old-b/x'));
                 return read('/old-b/echo')",
                "seen=1; hidden=1",
            ),
            step("A/", "return read('/old-b/page')", "page of old-b"),
            step("A/", "await until(() => localStorage.x); return localStorage.x", "of b"),
            step("A/", "return (await framed('/old-b/page')).contentDocument.cookie", "seen=1"),
            step("A/", "document.cookie = 'seen=2; Path=/old-b'; await stored(); return read('/old-b/echo')", "hidden=1; seen=2"),
            step("A/", "return read('/old-b/echo', {credentials: 'omit'})", ""),
        ],
    ),
];

/// The web server of a tool: it answers what an address says, or with the text `page of <tool>`, and tells what it was
/// asked.
async fn site(tool: &'static str) -> Pod {
    let seen: Arc<Mutex<HashMap<String, (usize, String)>>> = Arc::default();
    Pod::start(move |request| {
        let seen = seen.clone();
        async move { respond(tool, &seen, &request) }
    })
    .await
}

fn field(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
}

fn respond(
    tool: &str,
    seen: &Mutex<HashMap<String, (usize, String)>>,
    request: &Request<Incoming>,
) -> Response<BoxBody<Bytes, Infallible>> {
    let (before, last) = request.uri().path().rsplit_once('/').unwrap();
    let mut seen = seen.lock().unwrap();
    let plain = |text: String| Response::builder().header("cache-control", "no-store").body(full(text)).unwrap();
    if before.ends_with("/seen") {
        return plain(seen.get(last).map(|(times, what)| format!("{times} {what}")).unwrap_or_default());
    }
    let cookies = field(request.headers(), "cookie");
    let what = format!("{} {} {cookies}", request.method(), field(request.headers(), "sec-fetch-site"));
    let entry = seen.entry(last.to_owned()).or_default();
    *entry = (entry.0 + 1, what.trim_end().to_owned());
    if let Some(plan) = request.uri().query().and_then(|query| STANDARD.decode(query).ok()) {
        let plan: Value = serde_json::from_slice(&plan).unwrap();
        let mut answer = Response::builder();
        for field in plan["fields"].as_array().unwrap() {
            answer = answer.header(field[0].as_str().unwrap(), field[1].as_str().unwrap());
        }
        return answer.body(full(plan["body"].as_str().unwrap().to_owned())).unwrap();
    }
    match last {
        "echo" => plain(cookies),
        "misdirected" if entry.0 == 1 => Response::builder().status(421).body(full("")).unwrap(),
        "sw.js" => {
            let script = format!(
                "onactivate = event => event.waitUntil(clients.claim());
                 onfetch = event => event.respondWith(new Response('by the worker of {tool}'))"
            );
            let script = Response::builder().header("content-type", "text/javascript").body(full(script));
            let mut script = script.unwrap();
            script.headers_mut().insert("service-worker-allowed", http::HeaderValue::from_static("/"));
            script
        }
        _ => {
            let page = format!("<!doctype html><body>page of {tool}</body>");
            let mut answer = plain(if last == "page" { format!("page of {tool}") } else { page });
            answer.headers_mut().insert("content-type", http::HeaderValue::from_static("text/html"));
            answer
        }
    }
}

/// Where attempts take place.
struct Scene {
    /// The addresses for which the words stand that steps name.
    places: Vec<(&'static str, String)>,
    prelude: String,
    /// Which of a step's outcomes counts.
    outcome: usize,
}

impl Scene {
    fn new(places: &[(&'static str, &str)], domain: &str, outcome: usize) -> Self {
        let consents =
            json!({"fields": [["origin-agent-cluster", "?0"], ["content-type", "text/html"]], "body": "<body>"});
        let consents = format!("/x?{}", STANDARD.encode(consents.to_string()));
        let mut all: Vec<(&'static str, String)> = Vec::new();
        let mut prelude = format!("const DOMAIN = {domain:?}, LEGACY = 'https://old.example';\n{PRELUDE}{WORDS}");
        prelude.push_str("const CLEAR = answer([['clear-site-data', '\"*\"']]);\n");
        for (word, address) in places {
            prelude.push_str(&format!("const {word} = {address:?};\n"));
            all.push((word, (*address).to_owned()));
        }
        if let Some(own) = places.iter().find(|(word, _)| *word == "A") {
            all.push(("A?consents", format!("{}{consents}", own.1)));
        }
        Self { places: all, prelude, outcome }
    }

    fn address(&self, at: &str) -> String {
        let word = at.trim_end_matches('/');
        let (_, address) = self.places.iter().find(|(known, _)| *known == word).unwrap();
        if at.ends_with('/') { format!("{address}/") } else { address.clone() }
    }

    /// Tries all of these, and tells what came out otherwise.
    async fn play(&self, chromium: &Chromium, attempts: &[Attempt]) -> Vec<String> {
        let mut wrong = Vec::new();
        for Attempt(name, steps) in attempts {
            let profile = chromium.profile().await;
            let mut pages: HashMap<&str, Page<'_>> = HashMap::new();
            for step in *steps {
                if !pages.contains_key(step.at) {
                    pages.insert(step.at, profile.open(&self.address(step.at)).await);
                }
                let outcome = pages[step.at].run(&format!("{}{}", self.prelude, step.script)).await;
                let expected = step.outcomes[self.outcome];
                if outcome != expected {
                    wrong
                        .push(format!("{name}\n  at {}: {}\n  is {outcome:?}, not {expected:?}", step.at, step.script));
                }
            }
            profile.forget().await;
        }
        wrong
    }
}

/// Everything that one tool tries on another which has a host of its own below the same domain.
async fn try_under(domain: &str, outcome: usize) {
    let (a, b) = (site("a").await, site("b").await);
    let tools: Tools<'_> = &[("a", &[a.address]), ("b", &[b.address])];
    let shown = [Shown::of(&[domain, &format!("*.{domain}"), "old.example"])];
    let front = front(tools, &shown).await;
    front.put(table_of(
        Domains { public: vec![domain.parse().unwrap()], legacy: "old.example".parse().unwrap() },
        tools,
    ));
    let chromium = Chromium::start(&front, &shown).await;
    let [a, b] = ["a", "b"].map(|tool| format!("https://{tool}.{domain}"));
    let scene = Scene::new(&[("A", &a), ("B", &b)], domain, outcome);
    let mut wrong = scene.play(&chromium, COOKIES).await;
    wrong.extend(scene.play(&chromium, REQUESTS).await);
    chromium.close().await;
    front.stop().await;
    assert!(wrong.is_empty(), "{domain}:\n{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_are_apart_but_for_the_exceptions_of_a_domain_that_is_not_listed() {
    try_under(UNLISTED, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_are_apart_under_a_listed_domain() {
    try_under(LISTED, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn below_the_shared_host_tools_are_one_origin_and_no_more() {
    let [a, b, other] = [site("old-a").await, site("old-b").await, site("b").await];
    let shown = [Shown::of(&[UNLISTED, "*.hearth.example", "old.example"])];
    let tools: Tools<'_> = &[("old-a", &[a.address]), ("old-b", &[b.address]), ("b", &[other.address])];
    let front = front(tools, &shown).await;
    let chromium = Chromium::start(&front, &shown).await;
    let places = [
        ("A", "https://old.example/old-a"),
        ("B", "https://old.example/old-b"),
        ("OWN", "https://old-a.hearth.example"),
    ];
    let wrong = Scene::new(&places, UNLISTED, 0).play(&chromium, SHARED).await;
    chromium.close().await;
    front.stop().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Forty answers of two tools at once, of which one lets the other read them: whether each is the right one.
const MIXED: &str = r#"
const open = answer([["access-control-allow-origin", A], ["access-control-allow-credentials", "true"]], "open by b", "/open");
const outcomes = await Promise.all(Array.from({length: 20}, () => [
    read("/page"), read(B + open, {credentials: "include"})]).flat());
const right = outcomes.every((outcome, at) => outcome == ["page of a", "open by b"][at % 2]);
return right ? "right" : outcomes.join();
"#;

/// Has `check` look at a page of A, which came over the connection with this number.
async fn connected(shown: &[Shown], check: impl AsyncFn(&Scene, &mut Page<'_>, u64, &Front)) {
    let [a, b] = [site("a").await, site("b").await];
    let front = front(&[("a", &[a.address]), ("b", &[b.address])], shown).await;
    let chromium = Chromium::start(&front, shown).await;
    let scene = Scene::new(&[("A", "https://a.hearth.example"), ("B", "https://b.hearth.example")], UNLISTED, 0);
    let profile = chromium.profile().await;
    let mut page = profile.open("https://a.hearth.example/").await;
    let (first, protocol, status) = page.answer_from("https://a.hearth.example/").await;
    assert_eq!((protocol.as_str(), status), ("h2", 200));
    check(&scene, &mut page, first, &front).await;
    profile.forget().await;
    chromium.close().await;
    front.stop().await;
}

/// How the address begins from which `MIXED` reads what B has.
const OPEN: &str = "https://b.hearth.example/open";

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_for_two_tools_gives_each_its_own_answers() {
    let shown = [Shown::of(&["*.hearth.example"])];
    connected(&shown, async |scene, page, first, _| {
        assert_eq!(page.run(&format!("{}{MIXED}", scene.prelude)).await, "right");
        let (shared, protocol, _) = page.answer_from(OPEN).await;
        assert_eq!((shared, protocol.as_str()), (first, "h2"), "both come over one connection");
        // A tool that answers 421 there is asked once more, over another.
        let script = "return read(B + '/misdirected', {mode: 'no-cors', credentials: 'include'})";
        assert_eq!(page.run(&format!("{}{script}", scene.prelude)).await, "");
        let (other, protocol, status) = page.answer_from("https://b.hearth.example/misdirected").await;
        assert_eq!((protocol.as_str(), status), ("h2", 200));
        assert_ne!(other, first);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_their_own_give_tools_connections_of_their_own() {
    let shown = [Shown::of(&["a.hearth.example"]), Shown::of(&["b.hearth.example"])];
    connected(&shown, async |scene, page, first, _| {
        assert_eq!(page.run(&format!("{}{MIXED}", scene.prelude)).await, "right");
        let (other, protocol, _) = page.answer_from(OPEN).await;
        assert_eq!(protocol, "h2");
        assert_ne!(other, first);
    })
    .await;
}

/// The first certificate names B in a way that the browser takes for its name, and the front door does not: so the browser
/// sends what is for B over a connection to A that does not vouch for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_does_not_vouch_for_a_tool_leads_to_it_over_another() {
    let shown = [Shown::of(&["a.hearth.example", "b.hearth.example."]), Shown::of(&["b.hearth.example"])];
    connected(&shown, async |scene, page, first, front| {
        assert_eq!(page.run(&format!("{}{MIXED}", scene.prelude)).await, "right");
        let (last, protocol, status) = page.answer_from(OPEN).await;
        assert_eq!((protocol.as_str(), status), ("h2", 200));
        assert_ne!(last, first);
        // It was asked over the wrong one, and said so: otherwise this has shown nothing.
        let counted = front.metrics().await;
        let refused = "hearth_proxy_requests_total{tool=\"\",class=\"4xx\"} ";
        assert!(counted.lines().any(|line| line.starts_with(refused)), "{counted}");
    })
    .await;
}
