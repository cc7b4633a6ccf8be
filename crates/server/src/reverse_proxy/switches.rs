//! What an operator switches while the front door runs: the page for when everything is out of order, and the list of
//! those whose requests are refused. Both are files that are looked at every second.
//!
//! While neither is there, a request pays for one look at a flag. A list that cannot be used leaves the last good one in
//! use; a proxy that starts with one serves everybody, and says so.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, Guard};
use hearth_core::block_list::{BlockList, Blocked};
use http::{HeaderMap, Response, StatusCode, header};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::bodies::ResponseBody;
use super::listener::Visitor;
use super::metrics::KindLabel;
use super::pages::Page;

/// How often the files are looked at.
pub const EVERY: Duration = Duration::from_secs(1);

/// The longest word of an operator to the visitors.
const LONGEST: usize = 1000;

/// The files.
#[derive(Clone, Debug)]
pub struct SwitchFiles {
    /// While it is there, everybody is told that there is a technical problem, and what it says.
    pub maintenance: PathBuf,
    /// The block list.
    pub blocked: Option<PathBuf>,
}

/// How the switches stand.
#[derive(Debug, Default)]
pub struct Switches {
    /// Whether any is not as usual.
    is_set: AtomicBool,
    state: ArcSwap<State>,
    metrics: SwitchMetrics,
}

#[derive(Clone, Debug, Default)]
struct State {
    /// What visitors are told.
    maintenance: Option<String>,
    blocked: Arc<BlockList>,
}

/// What is counted of switches.
#[derive(Clone, Debug, Default)]
pub(super) struct SwitchMetrics {
    maintenance: Gauge,
    entries: Gauge,
    failures: Counter,
    blocked: Family<KindLabel, Counter>,
}

impl Switches {
    pub(super) fn new(metrics: SwitchMetrics) -> Arc<Self> {
        Arc::new(Self { metrics, ..Self::default() })
    }

    /// Looks at the files for ever.
    pub async fn follow(self: Arc<Self>, files: SwitchFiles, every: Duration) {
        let SwitchFiles { maintenance, blocked } = files;
        let (mut last_maintenance, mut last_blocked) = (None, None);
        loop {
            if has_changed(&maintenance, &mut last_maintenance).await {
                // One that cannot be read is there, and says nothing more.
                self.maintain(read(&maintenance).await.unwrap_or_else(|_| Some(String::new())));
            }
            if let Some(file) = &blocked
                && has_changed(file, &mut last_blocked).await
            {
                self.block(file, read(file).await);
            }
            tokio::time::sleep(every).await;
        }
    }

    /// The page for whoever is not to be served now.
    pub(super) fn refuse(&self, visitor: Option<&Visitor>, headers: &HeaderMap) -> Option<Response<ResponseBody>> {
        let state = self.set()?;
        if let Some(text) = &state.maintenance {
            return Some(out_of_order(text, headers));
        }
        let field = |name| headers.get(name).map(http::HeaderValue::as_bytes).unwrap_or_default();
        let address = visitor.map(|visitor| visitor.address);
        let blocked = state.blocked.blocks(address, field(header::USER_AGENT), field(header::REFERER))?;
        self.metrics.blocked.get_or_create(&KindLabel { kind: kind(blocked) }).inc();
        Some(refusal(blocked, &state.blocked, headers))
    }

    fn set(&self) -> Option<Guard<Arc<State>>> {
        self.is_set.load(Ordering::Relaxed).then(|| self.state.load())
    }

    fn maintain(&self, text: Option<String>) {
        let text = text.map(|text| text.trim().chars().take(LONGEST).collect());
        match &text {
            Some(_) => tracing::warn!("the page for technical problems is shown to everybody"),
            None => tracing::info!("tools are served"),
        }
        self.metrics.maintenance.set(i64::from(text.is_some()));
        self.change(|state| state.maintenance = text);
    }

    fn block(&self, file: &Path, text: std::io::Result<Option<String>>) {
        let text = text.map(Option::unwrap_or_default).map_err(|error| error.to_string());
        match text.and_then(|text| BlockList::from_toml(&text).map_err(|error| error.to_string())) {
            Ok(list) => {
                tracing::info!(file = %file.display(), entries = list.len(), "the block list is in use");
                self.metrics.entries.set(i64::try_from(list.len()).unwrap_or(i64::MAX));
                self.change(|state| state.blocked = Arc::new(list));
            }
            Err(error) => {
                self.metrics.failures.inc();
                tracing::warn!(file = %file.display(), error, "the block list is not usable; the last good one stays");
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = State::clone(&self.state.load());
        change(&mut state);
        let is_set = state.maintenance.is_some() || !state.blocked.is_empty();
        self.state.store(Arc::new(state));
        self.is_set.store(is_set, Ordering::Release);
    }
}

/// Whether a file is another than at the last look, or came or went. At the first look it is, if it is there.
async fn has_changed(file: &Path, last: &mut Option<(SystemTime, u64)>) -> bool {
    let found = tokio::fs::metadata(file).await.ok();
    let now = found.map(|found| (found.modified().unwrap_or(SystemTime::UNIX_EPOCH), found.len()));
    std::mem::replace(last, now) != now
}

/// What a file says; nothing if it is not there.
async fn read(file: &Path) -> std::io::Result<Option<String>> {
    match tokio::fs::read(file).await {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn out_of_order(text: &str, headers: &HeaderMap) -> Response<ResponseBody> {
    let mut sentences = vec!["The platform has a technical problem or is being worked on. The tools are not at fault."];
    if !text.is_empty() {
        sentences.push(text);
    }
    let page = Page { title: "Technical problem", sentences: &sentences, link: None, details: "maintenance" };
    let mut response = page.response(StatusCode::SERVICE_UNAVAILABLE, headers);
    response.headers_mut().insert(header::RETRY_AFTER, http::HeaderValue::from_static("60"));
    response
}

/// The words of the original, for whom they are known to.
fn refusal(blocked: Blocked, list: &BlockList, headers: &HeaderMap) -> Response<ResponseBody> {
    let (title, sentence, link) = match blocked {
        Blocked::Address => (
            "Your address is blocked",
            "Requests from your network are refused, because too many or harmful ones came from it. The tool and the \
             platform are well.",
            list.explanation(),
        ),
        Blocked::UserAgent => {
            ("Blocked user agent", "This program is not served. The tool and the platform are well.", None)
        }
        Blocked::Referer => (
            "Blocked referer",
            "Links from the page that you come from are not served. The tool and the platform are well.",
            None,
        ),
    };
    Page { title, sentences: &[sentence], link, details: kind(blocked) }.response(StatusCode::FORBIDDEN, headers)
}

fn kind(blocked: Blocked) -> &'static str {
    match blocked {
        Blocked::Address => "blocked-address",
        Blocked::UserAgent => "blocked-user-agent",
        Blocked::Referer => "blocked-referer",
    }
}

// === impl SwitchMetrics ===

impl SwitchMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let Self { maintenance, entries, failures, blocked } = self;
        registry.register("maintenance", "1 while everybody gets the page for technical problems", maintenance.clone());
        registry.register("block_list_entries", "Entries of the block list in use", entries.clone());
        registry.register("block_list_failures", "Block lists that could not be used", failures.clone());
        registry.register("blocked", "Requests refused by the block list", blocked.clone());
    }
}
