//! Following the cluster: one list and watch for each kind of object, all feeding one index.
//!
//! Every watch asks the API server to end it after [`WATCH`] and for bookmarks, of which one comes two seconds before
//! that end; an end in order counts as well. So each kind is heard of at least that often while the API server is well,
//! and what is left of the 30 s for which a table may be used is how long the API server may be away without anybody
//! noticing.
//!
//! A change says nothing of the table's age: a watch that goes on after an absence begins with all that was missed, and
//! the first of it is as old as the absence. A bookmark says that everything before it has been told; and where the
//! absence was so long that the table is stale, the kind is listed anew, which is current at once.
//!
//! A contact is reported on the same channel as changes and counts only when the table that holds all earlier changes
//! is in use. An error never empties the table; only a complete list replaces what is known.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use hearth_core::route::{Change, Index, Kind, Source, Table};
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::freshness::Freshness;
use super::metrics::{KindLabel, Metrics};

/// After how many seconds a watch ends and is begun anew. Short, because a bookmark comes with each end; a watch that
/// goes on where the last one ended costs the API server next to nothing.
const WATCH: u32 = 10;

/// A watch that lasted so long was ended by the API server when it was asked to. It sends no bookmark when it has
/// heard nothing new from its store, as on a quiet cluster; but it cuts watches off when it loses its store, so that
/// one that ran its full time was current to its end.
const IN_ORDER: Duration = Duration::from_millis(WATCH as u64 * 1000 - 500);

/// How long the API server may be silent on a watch before the connection is given up.
const SILENCE: Duration = Duration::from_secs(WATCH as u64 + 5);

/// How long a list or the beginning of a watch may take.
const ANSWER: Duration = Duration::from_secs(15);

/// How many objects are listed at a time.
const PAGE: u32 = 500;

/// A watch that lasted so long was a good one.
const SETTLED: Duration = Duration::from_secs(1);

/// The shortest and the longest pause after a watch that was not.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// How many messages are taken together before the table is replaced.
const BATCH: usize = 1000;

/// What a watch reports.
#[derive(Debug)]
pub(super) struct Message {
    kind: Kind,
    what: What,
}

/// What there is to report.
#[derive(Debug)]
enum What {
    /// An object in a list, or that a list begins.
    Listed(Change),
    /// A list has ended, and is of this moment.
    ListEnds(Instant),
    /// Something happened, and was read at this moment; nothing where it does not concern the front door.
    Changed(Instant, Option<Change>),
    /// All that happened until this moment has been told.
    Current(Instant),
}

/// The index of the routes while it follows the cluster.
pub(super) struct Keeper {
    pub(super) index: Index,
    pub(super) table: watch::Sender<Arc<Table>>,
    pub(super) freshness: Arc<Freshness>,
    pub(super) metrics: Arc<Metrics>,
}

/// How far a kind is known.
struct Known {
    /// The version from which to watch.
    version: String,
    /// Until when all that happened has been told.
    current: Instant,
}

/// Why a list or a watch ended.
enum End {
    /// As it should: go on from where it was.
    Over,
    /// The API server no longer knows the changes since: list again.
    Expired,
    Failed(String),
}

/// Starts following all kinds; stops when the set is dropped. What was not heard of for longer than `stale_after` is
/// listed anew.
pub(super) fn follow_all(
    client: &kube::Client,
    stale_after: Duration,
    metrics: &Arc<Metrics>,
) -> (JoinSet<()>, mpsc::Receiver<Message>) {
    let (to, messages) = mpsc::channel(BATCH);
    let mut tasks = JoinSet::new();
    tasks.spawn(follow::<Namespace>(client.clone(), stale_after, metrics.clone(), to.clone()));
    tasks.spawn(follow::<Ingress>(client.clone(), stale_after, metrics.clone(), to.clone()));
    tasks.spawn(follow::<Service>(client.clone(), stale_after, metrics.clone(), to.clone()));
    tasks.spawn(follow::<EndpointSlice>(client.clone(), stale_after, metrics.clone(), to));
    (tasks, messages)
}

// === impl Keeper ===

impl Keeper {
    /// Takes a message, and those that have come meanwhile, into the table. Returns whether there will be more.
    pub(super) async fn step(&mut self, messages: &mut mpsc::Receiver<Message>, listed: &mut Vec<Kind>) -> bool {
        let mut batch = Vec::new();
        if messages.recv_many(&mut batch, BATCH).await == 0 {
            return false;
        }
        let mut changed = false;
        let mut contacts = Vec::new();
        let mut news = Vec::new();
        for message in batch {
            let Message { kind, what } = message;
            let (change, read, current) = match what {
                What::Listed(change) => (Some(change), None, None),
                What::ListEnds(begun) => (Some(Change::ListEnds(kind)), Some(begun), Some(begun)),
                What::Changed(read, change) => (change, Some(read), None),
                What::Current(at) => (None, None, Some(at)),
            };
            if matches!(change, Some(Change::ListEnds(_))) && !listed.contains(&kind) {
                listed.push(kind);
            }
            if change.is_some_and(|change| self.index.apply(change)) {
                changed = true;
                news.extend(read);
            }
            contacts.extend(current.map(|at| (kind, at)));
        }
        if changed {
            let table = self.index.table();
            self.metrics.tools.set(i64::try_from(table.tools()).unwrap_or(i64::MAX));
            self.metrics.table_changes.inc();
            self.table.send_replace(table);
            for at in news {
                self.metrics.table_latency.observe(at.elapsed().as_secs_f64());
            }
        }
        for (kind, at) in contacts {
            self.freshness.heard(kind, at);
        }
        if listed.len() == Kind::ALL.len() {
            self.freshness.set_complete();
        }
        true
    }
}

/// Follows one kind for ever.
async fn follow<K>(client: kube::Client, stale_after: Duration, metrics: Arc<Metrics>, to: mpsc::Sender<Message>)
where
    K: Source + kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let api: Api<K> = Api::all(client);
    let mut known: Option<Known> = None;
    let mut pause = PAUSES.0;
    let mut failing = false;
    while !to.is_closed() {
        let begun = Instant::now();
        let end = match known.as_mut().filter(|known| known.current.elapsed() <= stale_after) {
            None => match list(&api, &to).await {
                Ok(version) => {
                    known = Some(Known { version, current: begun });
                    continue;
                }
                Err(end) => end,
            },
            Some(known) => watch_once(&api, known, &to).await,
        };
        match end {
            End::Over if begun.elapsed() >= SETTLED => {
                if let Some(known) = known.as_mut().filter(|_| begun.elapsed() >= IN_ORDER) {
                    known.current = Instant::now().min(last_of(begun));
                    report(&to, K::KIND, What::Current(known.current)).await;
                }
                if std::mem::take(&mut failing) {
                    tracing::info!(kind = K::KIND.as_str(), "the cluster is heard of again");
                }
                pause = PAUSES.0;
                continue;
            }
            // Ends at once, again and again, must not become a load for the API server.
            End::Over => (),
            End::Expired => known = None,
            End::Failed(error) => {
                metrics.watch_failures.get_or_create(&KindLabel { kind: K::KIND.as_str() }).inc();
                // Once for each outage; the metric counts the rest.
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(kind = K::KIND.as_str(), error, "the cluster is not heard of");
                }
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// Lists all objects of a kind. Returns the version from which to watch.
async fn list<K>(api: &Api<K>, to: &mpsc::Sender<Message>) -> Result<String, End>
where
    K: Source + Clone + DeserializeOwned + Debug,
{
    let mut params = ListParams::default().limit(PAGE);
    let begun = Instant::now();
    report(to, K::KIND, What::Listed(Change::ListBegins(K::KIND))).await;
    loop {
        let page = tokio::time::timeout(ANSWER, api.list(&params)).await.map_err(|_| too_slow())?.map_err(failed)?;
        // Each is so, now or a moment ago; what is gone is known at the end. So no list is ever held whole.
        for entry in page.items.iter().filter_map(Source::entry) {
            report(to, K::KIND, What::Listed(Change::Set(entry))).await;
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => {
                let version = page.metadata.resource_version.unwrap_or_default();
                // The list is of the moment in which it was begun.
                report(to, K::KIND, What::ListEnds(begun)).await;
                return Ok(version);
            }
        }
    }
}

/// Watches a kind until the API server ends the watch.
async fn watch_once<K>(api: &Api<K>, known: &mut Known, to: &mpsc::Sender<Message>) -> End
where
    K: Source + Clone + DeserializeOwned + Debug + 'static,
{
    let (params, begun) = (WatchParams::default().timeout(WATCH), Instant::now());
    let stream = match tokio::time::timeout(ANSWER, api.watch(&params, &known.version)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return failed(error),
        Err(_) => return too_slow(),
    };
    let mut stream = std::pin::pin!(stream);
    loop {
        let event = match tokio::time::timeout(SILENCE, stream.next()).await {
            Ok(Some(Ok(event))) => event,
            Ok(Some(Err(error))) => return failed(error),
            Ok(None) => return End::Over,
            Err(_) => return too_slow(),
        };
        // A process that was stopped meanwhile reads late what was said long ago.
        let at = Instant::now().min(last_of(begun));
        let (what, seen) = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                (What::Changed(at, set(&object)), seen(&object))
            }
            WatchEvent::Deleted(object) => (What::Changed(at, remove(&object)), seen(&object)),
            WatchEvent::Bookmark(bookmark) => {
                known.current = at;
                (What::Current(at), Some(bookmark.metadata.resource_version))
            }
            WatchEvent::Error(status) => return failed(kube::Error::Api(status)),
        };
        if let Some(seen) = seen {
            known.version = seen;
        }
        report(to, K::KIND, what).await;
    }
}

/// The last moment at which the API server says something on a watch that begins now.
fn last_of(begun: Instant) -> Instant {
    begun + Duration::from_secs(WATCH.into())
}

async fn report(to: &mpsc::Sender<Message>, kind: Kind, what: What) {
    // Nobody listens only when the proxy stops; `follow` sees it.
    let _ = to.send(Message { kind, what }).await;
}

/// An object of ours that no longer concerns the front door (another class, a forged slice) is as good as gone.
fn set<K: Source>(object: &K) -> Option<Change> {
    object.entry().map(Change::Set).or_else(|| remove(object))
}

fn remove<K: Source>(object: &K) -> Option<Change> {
    Some(Change::Remove(K::KIND, object.tool()?, object.name().into_owned()))
}

fn seen<K: Source>(object: &K) -> Option<String> {
    object.meta().resource_version.clone()
}

fn failed(error: kube::Error) -> End {
    match error {
        kube::Error::Api(status) if status.code == 410 => End::Expired,
        error => End::Failed(super::upstream::chain(&error)),
    }
}

fn too_slow() -> End {
    End::Failed("the API server did not answer in time".to_owned())
}
