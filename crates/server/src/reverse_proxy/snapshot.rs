//! What is known of the cluster, kept on disk, so that a proxy that starts while the API server is away has routes.
//!
//! Two files in the state directory: `routes.json` with the facts of the index, written beside and renamed when
//! something changed, at most once a second; and `contact` with the time at which the cluster was last heard from,
//! written more often. A contact is only written when the routes of that time are. A snapshot is as old as its
//! contact: one that is stale is loaded, but not dialled from.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use futures::FutureExt;
use hearth_core::route::{Change, Entry, Index, Kind};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::freshness::Freshness;
use super::watch::Keeper;
use crate::clock;

/// The shortest time between two snapshots.
pub(super) const SETTLE: Duration = Duration::from_secs(1);

/// How often the contact is written while nothing changes.
pub(super) const CONTACT: Duration = Duration::from_secs(5);

/// The version of the format; a file of another one is not read.
const VERSION: u32 = 1;

/// The state directory.
#[derive(Clone, Debug)]
pub(super) struct Store {
    directory: PathBuf,
}

/// What a snapshot held.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) entries: Vec<Entry>,
    /// When the cluster was last heard from; unknown when the file with it is not readable.
    pub(super) contact: Option<Timestamp>,
}

#[derive(Debug, Serialize, Deserialize)]
struct File {
    version: u32,
    entries: Vec<Entry>,
}

impl Store {
    /// The state in `directory`, which is made if it is not there.
    pub(super) fn open(directory: PathBuf) -> anyhow::Result<Self> {
        fs::create_dir_all(&directory)
            .with_context(|| format!("failed to make the state directory {}", directory.display()))?;
        Ok(Self { directory })
    }

    /// Reads the snapshot. One that is not there, damaged or of another version is none.
    pub(super) fn load(&self) -> Option<Snapshot> {
        let text = fs::read(self.routes()).ok()?;
        let file: File = match serde_json::from_slice(&text) {
            Ok(file) => file,
            Err(error) => {
                tracing::warn!(%error, file = %self.routes().display(), "the snapshot is damaged and not used");
                return None;
            }
        };
        if file.version != VERSION {
            return None;
        }
        let contact = fs::read_to_string(self.contact()).ok().and_then(|text| text.trim().parse().ok());
        Some(Snapshot { entries: file.entries, contact })
    }

    /// Writes the facts.
    pub(super) fn save(&self, entries: Vec<Entry>) -> anyhow::Result<()> {
        let text = serde_json::to_vec(&File { version: VERSION, entries })?;
        replace(&self.routes(), &text)
    }

    /// Writes when the cluster was last heard from. Call it only when the facts of that time are written.
    pub(super) fn save_contact(&self, contact: Timestamp) -> anyhow::Result<()> {
        replace(&self.contact(), format!("{contact}\n").as_bytes())
    }

    fn routes(&self) -> PathBuf {
        self.directory.join("routes.json")
    }

    fn contact(&self) -> PathBuf {
        self.directory.join("contact")
    }
}

/// Keeps the state directory equal to what is known, beside the work of following.
pub(super) struct Saver {
    store: Store,
    /// How often the index had changed when it was saved last.
    saved: u64,
    next_contact: Instant,
    writing: Option<JoinHandle<anyhow::Result<u64>>>,
}

// === impl Snapshot ===

impl Snapshot {
    /// Gives an index and its freshness what they were when the snapshot was made.
    pub(super) fn restore(self, index: &mut Index, freshness: &Freshness) {
        let age = age(self.contact, clock::now());
        tracing::info!(
            objects = self.entries.len(),
            age_seconds = age.map(|age| age.as_secs()),
            "the last known routes are loaded"
        );
        let mut entries = self.entries;
        for kind in Kind::ALL {
            let (of_kind, others) = entries.into_iter().partition(|entry| entry.fact.kind() == kind);
            entries = others;
            index.apply(Change::Replace(kind, of_kind));
            if let Some(contact) = age.and_then(|age| Instant::now().checked_sub(age)) {
                freshness.heard(kind, contact);
            }
        }
    }
}

// === impl Saver ===

impl Saver {
    /// Nothing is saved yet.
    pub(super) fn new(store: Store) -> Self {
        Self { store, saved: 0, next_contact: Instant::now(), writing: None }
    }

    /// Begins to write what has changed since the last time, unless that is still being written. Call it once every
    /// [`SETTLE`].
    pub(super) fn save(&mut self, keeper: &Keeper) {
        match &mut self.writing {
            Some(writing) if !writing.is_finished() => return,
            Some(writing) => {
                match writing.now_or_never() {
                    Some(Ok(Ok(saved))) => self.saved = saved,
                    Some(Ok(Err(error))) => {
                        tracing::warn!(error = format!("{error:#}"), "the routes are not kept on disk");
                    }
                    Some(Err(_)) | None => (),
                }
                self.writing = None;
            }
            None => (),
        }
        let (changes, now) = (keeper.changes, Instant::now());
        if changes == self.saved && now < self.next_contact {
            return;
        }
        // The contact is read before the facts: it must not be later than they are.
        let contact = keeper.freshness.oldest().and_then(|at| before(clock::now(), now.saturating_duration_since(at)));
        let entries = (changes != self.saved).then(|| keeper.index.entries().collect::<Vec<_>>());
        self.next_contact = now + CONTACT;
        let store = self.store.clone();
        self.writing = Some(tokio::task::spawn_blocking(move || {
            if let Some(entries) = entries {
                store.save(entries)?;
            }
            if let Some(contact) = contact {
                store.save_contact(contact)?;
            }
            Ok(changes)
        }));
    }
}

fn before(now: Timestamp, age: Duration) -> Option<Timestamp> {
    now.checked_sub(age).ok()
}

/// How old a contact is at `now`. A contact in the future says that a clock was set: its age is not known.
pub(super) fn age(contact: Option<Timestamp>, now: Timestamp) -> Option<Duration> {
    Duration::try_from(now.duration_since(contact?)).ok()
}

fn replace(file: &Path, content: &[u8]) -> anyhow::Result<()> {
    // A predecessor that is being relieved may write at the same time.
    let beside = file.with_extension(format!("new-{}", std::process::id()));
    let write = || -> std::io::Result<()> {
        let mut new = fs::File::create(&beside)?;
        new.write_all(content)?;
        new.sync_data()?;
        fs::rename(&beside, file)
    };
    write().with_context(|| format!("failed to write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("deep/state")).unwrap();
        assert!(store.load().is_none());
        let entries: Vec<Entry> = serde_json::from_value(serde_json::json!([
            {"tool": "a", "name": "tool-a", "fact": {"Namespace": {"disabled": false}}},
        ]))
        .unwrap();
        store.save(entries.clone()).unwrap();
        let loaded = store.load().unwrap();
        assert_eq!((loaded.entries, loaded.contact), (entries, None));
        let contact: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        store.save_contact(contact).unwrap();
        assert_eq!(store.load().unwrap().contact, Some(contact));
    }

    #[test]
    fn a_damaged_snapshot_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().to_owned()).unwrap();
        for text in ["", "{\"version\":1,\"entr", "{\"version\":2,\"entries\":[]}"] {
            fs::write(store.routes(), text).unwrap();
            assert!(store.load().is_none(), "{text}");
        }
    }

    #[test]
    fn ages() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let before = "2026-01-02T03:04:00Z".parse().unwrap();
        assert_eq!(age(Some(before), now), Some(Duration::from_secs(5)));
        assert_eq!(age(Some(now), before), None);
        assert_eq!(age(None, now), None);
    }
}
