//! Debian's Chromium, without a window, whose every connection ends at a front door in process.
//!
//! It is spoken to by its own protocol for developers over two pipes: that opens pages and evaluates scripts in them as
//! if they were the page's own, with no more rights than those have, and tells over which connection an answer came. No
//! name is looked up and nothing but the front door is connected to: what the browser asks its makers finds no address.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails where its set-up fails")]

use std::collections::HashMap;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hearth_server::reverse_proxy::{Pair, Tls};
use rcgen::PublicKeyData;
use rustix::process::{Pid, Signal, kill_process_group};
use rustls::RootCertStore;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{mpsc, oneshot};

use crate::proxy_front::{Front, Tools, soon};

/// What it is told beside where to connect to. Nothing of it concerns how pages are kept apart, but for the sandbox of
/// its processes, which root cannot have.
const FLAGS: &[&str] = &[
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-breakpad",
    "--no-first-run",
    "--no-default-browser-check",
    "--remote-debugging-pipe",
];

/// A certificate for these hosts, as the front door shows it and as the browser knows it.
pub(crate) struct Shown {
    names: Vec<String>,
    pair: Arc<Pair>,
    /// The digest of its key.
    pin: String,
}

impl Shown {
    pub(crate) fn of(names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names.clone()).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let pair = Arc::new(Pair::new(vec![made.cert.der().clone()], key).unwrap());
        let info = made.signing_key.subject_public_key_info();
        let pin = STANDARD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &info));
        Self { names, pair, pin }
    }
}

/// A front door that shows these certificates; the first to whoever says a name that none is for.
pub(crate) async fn front(tools: Tools<'_>, shown: &[Shown]) -> Front {
    let pairs: Vec<Arc<Pair>> = shown.iter().map(|shown| shown.pair.clone()).collect();
    Front::showing(tools, Tls::new(pairs[0].clone(), &pairs[1..]), RootCertStore::empty()).await
}

/// A running browser.
pub(crate) struct Chromium {
    child: Child,
    group: Pid,
    input: tokio::sync::Mutex<ChildStdin>,
    heard: Arc<Mutex<Heard>>,
    calls: AtomicU64,
    folder: tempfile::TempDir,
}

/// Who waits for what it says.
#[derive(Default)]
struct Heard {
    answers: HashMap<u64, oneshot::Sender<Value>>,
    events: HashMap<String, mpsc::UnboundedSender<Value>>,
}

/// What is stored together: cookies, caches, connections. Each is as new as a visitor's first visit.
pub(crate) struct Profile<'a> {
    chromium: &'a Chromium,
    id: String,
}

/// A page that was loaded.
pub(crate) struct Page<'a> {
    chromium: &'a Chromium,
    session: String,
    events: mpsc::UnboundedReceiver<Value>,
    /// What came and was not asked for yet.
    kept: Vec<Value>,
}

impl Chromium {
    /// One to which `front` is the whole network, which has the hosts of these certificates alone; they are good.
    pub(crate) async fn start(front: &Front, shown: &[Shown]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pins: Vec<&str> = shown.iter().map(|shown| shown.pin.as_str()).collect();
        let mut command = Command::new("sh");
        // Its protocol is spoken on the descriptors 3 and 4.
        command.args(["-c", "exec chromium \"$@\" 3<&0 4>&1 </dev/null >&2", "sh"]).args(FLAGS);
        command.arg(format!("--ignore-certificate-errors-spki-list={}", pins.join(",")));
        let names = shown.iter().flat_map(|shown| &shown.names).map(|name| name.trim_end_matches('.'));
        let rules = names.map(|name| format!("MAP {name}:443 {}, MAP {name}:80 {}", front.https, front.http));
        let rules = rules.chain(["MAP * ~NOTFOUND".to_owned()]).collect::<Vec<_>>().join(", ");
        command.arg(format!("--host-resolver-rules={rules}"));
        command.arg(format!("--user-data-dir={}", folder.path().join("profile").display())).arg("about:blank");
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        command.env("HOME", folder.path()).env_remove("XDG_CONFIG_HOME").env_remove("XDG_CACHE_HOME");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).process_group(0).kill_on_drop(true);
        let mut child = command.spawn().expect("`make test` installs Debian's chromium");
        let group = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let heard = Arc::new(Mutex::new(Heard::default()));
        tokio::spawn(listen(output, heard.clone()));
        Self { child, group, input: tokio::sync::Mutex::new(input), heard, calls: AtomicU64::new(1), folder }
    }

    /// Has it do something, for a page or for itself, and waits for the answer.
    async fn call(&self, session: Option<&str>, method: &str, params: Value) -> Value {
        let id = self.calls.fetch_add(1, Ordering::SeqCst);
        let mut message = json!({"id": id, "method": method, "params": params});
        if let Some(session) = session {
            message["sessionId"] = json!(session);
        }
        let (sender, answer) = oneshot::channel();
        self.heard.lock().unwrap().answers.insert(id, sender);
        let bytes = [message.to_string().as_bytes(), b"\0"].concat();
        // Where it has gone, the answer does not come either.
        let _ = soon(self.input.lock().await.write_all(&bytes)).await;
        let mut answer = soon(answer).await.unwrap_or_else(|_| {
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            panic!("Chromium has gone at {method}:\n{log}")
        });
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].take()
    }

    pub(crate) async fn profile(&self) -> Profile<'_> {
        let made = self.call(None, "Target.createBrowserContext", json!({})).await;
        Profile { chromium: self, id: text(&made["browserContextId"]) }
    }

    /// Ends it, and waits for that.
    pub(crate) async fn close(mut self) {
        self.call(None, "Browser.close", json!({})).await;
        soon(self.child.wait()).await.unwrap();
    }
}

impl Drop for Chromium {
    /// Of its processes none is left, whatever happened.
    fn drop(&mut self) {
        let _ = kill_process_group(self.group, Signal::KILL);
    }
}

/// Gives what it says to who waits for it, until it ends.
async fn listen(output: ChildStdout, heard: Arc<Mutex<Heard>>) {
    let (mut output, mut bytes) = (BufReader::new(output), Vec::new());
    while output.read_until(0, &mut bytes).await.is_ok_and(|read| read > 0) {
        let message: Value = serde_json::from_slice(bytes.strip_suffix(b"\0").unwrap_or(&bytes)).unwrap();
        bytes.clear();
        let mut heard = heard.lock().unwrap();
        if let Some(answer) = message["id"].as_u64().and_then(|id| heard.answers.remove(&id)) {
            let _ = answer.send(message);
        } else if let Some(events) = message["sessionId"].as_str().and_then(|session| heard.events.get(session)) {
            let _ = events.send(message);
        }
    }
    *heard.lock().unwrap() = Heard::default();
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

impl<'a> Profile<'a> {
    /// Goes to an address and waits until what is there has loaded.
    pub(crate) async fn open(&self, address: &str) -> Page<'a> {
        let chromium = self.chromium;
        let blank = json!({"url": "about:blank", "browserContextId": self.id});
        let target = text(&chromium.call(None, "Target.createTarget", blank).await["targetId"]);
        let attach = json!({"targetId": target, "flatten": true});
        let session = text(&chromium.call(None, "Target.attachToTarget", attach).await["sessionId"]);
        let (sender, events) = mpsc::unbounded_channel();
        chromium.heard.lock().unwrap().events.insert(session.clone(), sender);
        let mut page = Page { chromium, session, events, kept: Vec::new() };
        for domain in ["Page.enable", "Network.enable"] {
            page.call(domain, json!({})).await;
        }
        let gone = page.call("Page.navigate", json!({"url": address})).await;
        assert!(gone.get("errorText").is_none(), "{address}: {gone}");
        page.event(|event| event["method"] == "Page.loadEventFired").await;
        page
    }

    /// Closes its pages and forgets what was stored.
    pub(crate) async fn forget(self) {
        self.chromium.call(None, "Target.disposeBrowserContext", json!({"browserContextId": self.id})).await;
    }
}

impl Page<'_> {
    async fn call(&self, method: &str, params: Value) -> Value {
        self.chromium.call(Some(&self.session), method, params).await
    }

    /// The first event for which `is_it` holds, of those that were not asked for yet.
    async fn event(&mut self, is_it: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.kept.iter().position(&is_it) {
            return self.kept.remove(at);
        }
        soon(async {
            loop {
                let event = self.events.recv().await.expect("Chromium has gone");
                if is_it(&event) {
                    return event;
                }
                self.kept.push(event);
            }
        })
        .await
    }

    /// What the body of an asynchronous function returns in this page, as if the visitor had just clicked there.
    pub(crate) async fn run(&self, script: &str) -> String {
        let expression = format!("(async () => {{\n{script}\n}})()");
        let params = json!({"expression": expression, "awaitPromise": true, "returnByValue": true,
            "userGesture": true});
        let done = self.call("Runtime.evaluate", params).await;
        match &done["result"]["value"] {
            Value::String(value) if done.get("exceptionDetails").is_none() => value.clone(),
            _ => format!("no text: {done}"),
        }
    }

    /// Over which connection an answer came from an address that begins so, by which protocol, and with which status.
    pub(crate) async fn answer_from(&mut self, address: &str) -> (u64, String, u64) {
        let is_it = |event: &Value| {
            let url = event["params"]["response"]["url"].as_str();
            event["method"] == "Network.responseReceived" && url.is_some_and(|url| url.starts_with(address))
        };
        let mut event = self.event(is_it).await;
        let response = event["params"]["response"].take();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it writes whole numbers as 7.0")]
        let connection = response["connectionId"].as_f64().expect("a number") as u64;
        (connection, text(&response["protocol"]), response["status"].as_u64().unwrap())
    }
}
