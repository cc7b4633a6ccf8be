//! A small Kubernetes API: objects in memory, lists, watches, server-side apply as replacement, and logs.
//!
//! It speaks plain HTTP/1.1, a thread a connection, and keeps what it was asked. What a cluster would do by itself,
//! such as starting pods, a test does in a hook that runs once the command watches.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

const COLLECTIONS: &[&str] = &["deployments", "pods", "services", "ingresses", "events", "endpointslices"];

/// The fake; it answers until the test's process ends.
pub(crate) struct Api {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

/// What a cluster does by itself.
type Hook = Box<dyn FnOnce(&mut World) + Send>;

#[derive(Default)]
struct Shared {
    world: Mutex<World>,
    changed: Condvar,
}

/// Everything that the fake knows.
#[derive(Default)]
pub(crate) struct World {
    objects: BTreeMap<String, Value>,
    history: Vec<(String, &'static str, Value)>,
    requests: Vec<String>,
    refusals: Vec<(&'static str, u16, String)>,
    log: String,
    on_watch: Option<Hook>,
}

struct Request {
    method: String,
    path: String,
    query: String,
    body: Vec<u8>,
}

impl Api {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let for_thread = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = for_thread.clone();
                // A client that goes away in the middle of a watch is no matter.
                std::thread::spawn(move || shared.serve(stream.unwrap()).ok());
            }
        });
        Self { address, shared }
    }

    /// Changes or reads what there is.
    pub(crate) fn world<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        let result = act(&mut self.shared.world.lock().unwrap());
        self.shared.changed.notify_all();
        result
    }

    /// The requests so far, as `METHOD path`, that contain a text.
    pub(crate) fn requests(&self, containing: &str) -> Vec<String> {
        self.world(|world| world.requests.iter().filter(|r| r.contains(containing)).cloned().collect())
    }

    /// An object, where there is one.
    pub(crate) fn object(&self, path: &str) -> Option<Value> {
        self.world(|world| world.objects.get(path).cloned())
    }
}

impl World {
    /// Puts an object in place; its path ends in its name.
    pub(crate) fn put(&mut self, path: &str, mut object: Value) {
        let kind = if self.objects.contains_key(path) { "MODIFIED" } else { "ADDED" };
        let version = self.history.len() + 1;
        let (_, name) = path.rsplit_once('/').unwrap();
        object["metadata"]["name"] = json!(name);
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(format!("uid-of-{name}"));
        }
        self.objects.insert(path.to_owned(), object.clone());
        self.history.push((path.to_owned(), kind, object));
    }

    /// Changes an object that there is.
    pub(crate) fn change(&mut self, path: &str, change: impl FnOnce(&mut Value)) {
        let mut object = self.objects[path].clone();
        change(&mut object);
        self.put(path, object);
    }

    /// Refuses every writing request whose path contains a text; with code 401, reading ones too.
    pub(crate) fn refuse(&mut self, containing: &'static str, code: u16, message: &str) {
        self.refusals.push((containing, code, message.to_owned()));
    }

    /// What the programs of all pods have said.
    pub(crate) fn says(&mut self, log: &str) {
        log.clone_into(&mut self.log);
    }

    /// What the cluster does once the command watches Deployments.
    pub(crate) fn once_watched(&mut self, hook: impl FnOnce(&mut World) + Send + 'static) {
        self.on_watch = Some(Box::new(hook));
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut stream = stream;
        while let Some(request) = read(&mut reader)? {
            let collection = request.path.rsplit('/').next().is_some_and(|last| COLLECTIONS.contains(&last));
            if collection && request.query.contains("watch=true") {
                return self.watch(&mut stream, &request);
            }
            let (code, body) = self.answer(&request, collection);
            let head = format!(
                "HTTP/1.1 {code} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(head.as_bytes())?;
            stream.write_all(body.as_bytes())?;
        }
        Ok(())
    }

    fn answer(&self, request: &Request, collection: bool) -> (u16, String) {
        let mut world = self.world.lock().unwrap();
        let Request { method, path, query, body } = request;
        world.requests.push(format!("{method} {path}?{query}"));
        let refused = |(part, code, _): &&(&str, u16, String)| path.contains(part) && (method != "GET" || *code == 401);
        if let Some((_, code, message)) = world.refusals.iter().find(refused) {
            return (*code, failure(*code, message));
        }
        let answer = match method.as_str() {
            "GET" if path.ends_with("/log") => return (200, world.log.clone()),
            "GET" if collection => {
                let prefix = format!("{path}/");
                let items: Vec<&Value> =
                    world.objects.iter().filter(|(p, _)| p.starts_with(&prefix)).map(|(_, o)| o).collect();
                let version = world.history.len().to_string();
                Some(
                    json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items}),
                )
            }
            "PATCH" => {
                assert!(query.contains("fieldManager=webservice") && query.contains("force=true"), "{query}");
                let mut object: Value = serde_json::from_slice(body).unwrap();
                let before = world.objects.get(path).cloned().unwrap_or_default();
                let generation = before["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
                object["metadata"]["generation"] = json!(generation);
                if !before["status"].is_null() {
                    object["status"] = before["status"].clone();
                }
                world.put(path, object);
                world.objects.get(path).cloned()
            }
            "DELETE" => world.objects.remove(path).inspect(|object| {
                world.history.push((path.clone(), "DELETED", object.clone()));
            }),
            _ => world.objects.get(path).cloned(),
        };
        self.changed.notify_all();
        match answer {
            Some(answer) => (200, answer.to_string()),
            None => (404, failure(404, &format!("{path} not found"))),
        }
    }

    fn watch(&self, stream: &mut TcpStream, request: &Request) -> std::io::Result<()> {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n")?;
        let prefix = format!("{}/", request.path);
        let version = request.query.split('&').find_map(|part| part.strip_prefix("resourceVersion="));
        let mut next: usize = version.and_then(|v| v.parse().ok()).unwrap_or(0);
        let mut world = self.world.lock().unwrap();
        world.requests.push(format!("WATCH {}", request.path));
        if request.path.ends_with("/deployments")
            && let Some(hook) = world.on_watch.take()
        {
            hook(&mut world);
            self.changed.notify_all();
        }
        loop {
            for (path, kind, object) in &world.history[next..] {
                if path.starts_with(&prefix) {
                    writeln!(stream, "{}", json!({"type": kind, "object": object}))?;
                }
            }
            next = world.history.len();
            world = self.changed.wait_timeout(world, Duration::from_secs(1)).unwrap().0;
        }
    }
}

fn failure(code: u16, message: &str) -> String {
    let reason = if code == 404 { "NotFound" } else { "" };
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": reason, "code": code})
        .to_string()
}

/// The next request of a connection; none when it ends.
fn read(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split(' ');
    let method = words.next().unwrap().to_owned();
    let target = words.next().unwrap().to_owned();
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end().to_ascii_lowercase().split_once(": ") {
            Some(("content-length", value)) => length = value.parse().unwrap(),
            Some(_) => (),
            None => break,
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    Ok(Some(Request { method, path: path.to_owned(), query: query.to_owned(), body }))
}
