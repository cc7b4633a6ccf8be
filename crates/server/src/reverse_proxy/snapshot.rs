//! What is known of the cluster, kept on disk, so that a proxy that starts while the API server is away has routes.
//!
//! Two files in the state directory: `routes` (module `journal`), to which the tools are appended of which something
//! changed, at most once a second, and which is written anew when it has grown to a multiple of what it says; and
//! `contact` with the time at which the cluster was last heard from and how far `routes` went then. So a change costs
//! what changed. A contact is only written when the routes of that time are on disk, and it only counts for routes
//! that can be read as far as it says. Routes are as old as their contact: stale ones are loaded, but not dialled from.
//!
//! A file is written anew a piece at a time, while requests and changes go on. Whatever goes wrong, a full disk above
//! all, what is on disk stays as it is, grows old, and is written anew a little later.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use futures::FutureExt;
use hearth_core::ToolName;
use hearth_core::route::{Index, Kind};
use jiff::Timestamp;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::freshness::Freshness;
use super::journal::{self, Journal, Mark, Records};
use super::watch::Keeper;
use crate::clock;

/// The shortest time between two writes.
pub(super) const SETTLE: Duration = Duration::from_secs(1);

/// How often the contact is written while nothing changes.
const CONTACT: Duration = Duration::from_secs(5);

/// How long after a failure it is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// How large a file becomes, in parts of what it was when it was new, before it is written anew; and what it may always
/// have beyond that.
const GROWTH: u64 = 3;
const SLACK: u64 = 64 * 1024;

/// How many bytes of a file that is written anew are made at a time: some milliseconds' work.
const PIECE: usize = 1024 * 1024;

/// The state directory.
#[derive(Clone, Debug)]
pub(super) struct Store {
    directory: PathBuf,
}

/// How old what was loaded is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Loaded {
    /// When the cluster was last heard from; unknown where that cannot be said of the routes that could be read.
    contact: Option<Timestamp>,
}

impl Store {
    /// The state in `directory`, which is made if it is not there.
    pub(super) fn open(directory: PathBuf) -> anyhow::Result<Self> {
        fs::create_dir_all(&directory)
            .with_context(|| format!("failed to make the state directory {}", directory.display()))?;
        Ok(Self { directory })
    }

    /// Gives an index what is kept. A file that is not there or of another version is none.
    pub(super) fn load(&self, index: &mut Index) -> Option<Loaded> {
        let mark = journal::read(&self.routes(), index)?;
        let whole = fs::metadata(self.routes()).map(|file| file.len()).unwrap_or_default();
        if mark.length < whole {
            tracing::warn!(bytes = whole - mark.length, "the end of the kept routes is torn and left out");
        }
        // It is all from disk, and need not be written there once more.
        index.take_changed();
        let contact = fs::read_to_string(self.contact()).ok().and_then(|text| {
            let (time, reached) = text.trim().split_once(' ')?;
            Mark::parse(reached).is_some_and(|reached| mark.covers(&reached)).then(|| time.parse().ok())?
        });
        Some(Loaded { contact })
    }

    fn save_contact(&self, contact: Timestamp, reached: &Mark) -> anyhow::Result<()> {
        replace(&self.contact(), format!("{contact} {reached}\n").as_bytes())
    }

    fn routes(&self) -> PathBuf {
        self.directory.join("routes")
    }

    fn contact(&self) -> PathBuf {
        self.directory.join("contact")
    }
}

/// Keeps the state directory equal to what is known, beside the work of following.
pub(super) struct Saver {
    /// What is on disk; not here while it is written.
    disk: Option<Disk>,
    /// How far the file that is written anew has come.
    rewriting: Option<Cursor>,
    next_contact: Instant,
    /// Not before then.
    pause: Instant,
    /// How many bytes of a new file are made at a time.
    piece: usize,
    writing: Option<JoinHandle<(Disk, anyhow::Result<()>)>>,
    failing: bool,
}

/// The last tool that is in the new file.
struct Cursor(Option<ToolName>);

/// The files, and what may be written into them.
struct Disk {
    store: Store,
    journal: Option<Journal>,
    /// How long the journal was when it was new.
    base: u64,
    draft: Option<Journal>,
}

/// What is written at one time.
#[derive(Default)]
struct Batch {
    /// Into both files.
    changes: Records,
    /// Into the new file only.
    piece: Records,
    /// Whether a new file is begun, and whether it is complete with this.
    begins: bool,
    completes: bool,
    contact: Option<Timestamp>,
}

// === impl Loaded ===

impl Loaded {
    /// Gives the freshness what it was when the routes were kept.
    pub(super) fn restore(self, tools: usize, freshness: &Freshness) {
        let age = age(self.contact, clock::now());
        tracing::info!(tools, age_seconds = age.map(|age| age.as_secs()), "the last known routes are loaded");
        if let Some(contact) = age.and_then(|age| Instant::now().checked_sub(age)) {
            for kind in Kind::ALL {
                freshness.heard(kind, contact);
            }
        }
    }
}

// === impl Saver ===

impl Saver {
    /// Nothing is saved yet. What is on disk is another process's, and is left as it is until there is better.
    pub(super) fn new(store: Store) -> Self {
        let disk = Disk { store, journal: None, base: 0, draft: None };
        let now = Instant::now();
        Self {
            disk: Some(disk),
            rewriting: None,
            next_contact: now,
            pause: now,
            piece: PIECE,
            writing: None,
            failing: false,
        }
    }

    /// Begins to write what has changed since the last time, unless that is still being written. Call it once every
    /// [`SETTLE`].
    pub(super) fn save(&mut self, keeper: &mut Keeper) {
        if let Some(writing) = self.writing.as_mut() {
            let Some(written) = writing.now_or_never() else { return };
            self.writing = None;
            // It does not panic; if it did, nothing would be kept any more.
            if let Ok((disk, result)) = written {
                self.settle(disk, result);
            }
        }
        let now = Instant::now();
        let Some(disk) = self.disk.as_ref().filter(|_| now >= self.pause) else { return };
        let mut batch = Batch::default();
        // The contact is read before the facts: it must not be later than they are.
        let contact = keeper.freshness.oldest();
        let wants_new = disk.journal.as_ref().is_none_or(|own| own.mark().length > disk.base * GROWTH + SLACK);
        // Until the table is complete, what another process kept is better than it.
        if self.rewriting.is_none() && wants_new && keeper.freshness.is_ready() {
            self.rewriting = Some(Cursor(None));
            batch.begins = true;
        }
        if disk.journal.is_none() && self.rewriting.is_none() {
            return;
        }
        let changed = keeper.index.take_changed();
        // The new file will have all of them.
        for tool in changed.iter().filter(|_| disk.journal.is_some() || !batch.begins) {
            batch.changes.push(&keeper.index.record(tool));
        }
        if let Some(cursor) = &mut self.rewriting {
            batch.completes = cursor.advance(&keeper.index, &mut batch.piece, self.piece);
            if batch.completes {
                self.rewriting = None;
            }
        }
        if now >= self.next_contact || !batch.changes.is_empty() || batch.completes {
            batch.contact = contact.and_then(|at| before(clock::now(), now.saturating_duration_since(at)));
            self.next_contact = now + CONTACT;
        } else if batch.piece.is_empty() {
            return;
        }
        if let Some(mut disk) = self.disk.take() {
            self.writing = Some(tokio::task::spawn_blocking(move || {
                let result = disk.write(batch);
                (disk, result)
            }));
        }
    }

    fn settle(&mut self, mut disk: Disk, result: anyhow::Result<()>) {
        if let Err(error) = result {
            // What was not written is not known here any more, so all of it is written anew.
            (disk.journal, disk.draft, self.rewriting) = (None, None, None);
            self.pause = Instant::now() + RETRY;
            // Once for each time of trouble.
            if !std::mem::replace(&mut self.failing, true) {
                tracing::warn!(error = format!("{error:#}"), "the routes are not kept on disk");
            }
        } else if std::mem::take(&mut self.failing) {
            tracing::info!("the routes are kept on disk again");
        }
        self.disk = Some(disk);
    }
}

impl Cursor {
    /// Adds the next tools' records, some more than `most` bytes. Returns whether that was all.
    fn advance(&mut self, index: &Index, to: &mut Records, most: usize) -> bool {
        let mut last: Option<&ToolName> = None;
        let from = self.0.take();
        for tool in index.tools_after(from.as_ref()) {
            if to.len() >= most {
                self.0 = last.cloned();
                return false;
            }
            to.push(&index.record(tool));
            last = Some(tool);
        }
        true
    }
}

// === impl Disk ===

impl Disk {
    fn write(&mut self, mut batch: Batch) -> anyhow::Result<()> {
        batch.changes.seal();
        batch.piece.seal();
        let place = self.store.routes();
        let failed = || format!("failed to write {}", place.display());
        if batch.begins {
            // Two processes do not begin in the same nanosecond with the same number.
            let identity = clock::now().as_nanosecond() as u64 ^ u64::from(std::process::id()).rotate_left(40);
            self.draft = Some(Journal::draft(&place, identity).with_context(failed)?);
        }
        if let Some(mut draft) = self.draft.take() {
            // A change of a tool that is in the new file already comes after it, and of two records the last counts.
            draft.append(&batch.piece).and_then(|()| draft.append(&batch.changes)).with_context(failed)?;
            if batch.completes {
                let journal = draft.put().with_context(failed)?;
                self.base = journal.mark().length;
                self.journal = Some(journal);
                return self.confirm(batch.contact);
            }
            self.draft = Some(draft);
        }
        let Some(journal) = &mut self.journal else { return Ok(()) };
        if !batch.changes.is_empty() {
            journal.append(&batch.changes).and_then(|()| journal.sync()).with_context(failed)?;
        }
        self.confirm(batch.contact)
    }

    fn confirm(&self, contact: Option<Timestamp>) -> anyhow::Result<()> {
        match (contact, &self.journal) {
            (Some(contact), Some(journal)) => self.store.save_contact(contact, journal.mark()),
            _ => Ok(()),
        }
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
    use std::sync::Arc;

    use hearth_core::Domains;
    use hearth_core::route::{Change, Entry};
    use serde_json::json;

    use super::*;
    use crate::reverse_proxy::Metrics;

    fn domains() -> Domains {
        Domains { public: vec!["hearth.example".parse().unwrap()], legacy: "old.example".parse().unwrap() }
    }

    /// A keeper that has heard of everything a moment ago.
    fn keeper() -> Keeper {
        let freshness = Arc::new(Freshness::new(Duration::from_secs(600)));
        for kind in Kind::ALL {
            freshness.heard(kind, Instant::now());
        }
        freshness.set_complete();
        let index = Index::new(domains());
        let (table, _) = tokio::sync::watch::channel(index.table());
        Keeper { index, table, freshness, metrics: Metrics::new() }
    }

    fn set(keeper: &mut Keeper, tool: &str, disabled: bool) {
        let entry = json!({"tool": tool, "name": "x", "fact": {"Namespace": {"disabled": disabled}}});
        assert!(keeper.index.apply(Change::Set(serde_json::from_value(entry).unwrap())));
    }

    /// Saves, and waits until it is done.
    async fn save(saver: &mut Saver, keeper: &mut Keeper) -> bool {
        saver.save(keeper);
        let Some(writing) = saver.writing.take() else { return false };
        let (disk, result) = writing.await.unwrap();
        let good = result.is_ok();
        saver.settle(disk, result);
        good
    }

    fn loaded(folder: &Path) -> (Vec<Entry>, Option<Loaded>) {
        let mut index = Index::new(domains());
        let loaded = Store::open(folder.to_owned()).unwrap().load(&mut index);
        let entries = index.entries().collect();
        (entries, loaded)
    }

    fn known(keeper: &Keeper) -> Vec<Entry> {
        keeper.index.entries().collect()
    }

    #[tokio::test]
    async fn what_changes_is_appended_and_compacted() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("deep/state");
        let mut saver = Saver::new(Store::open(place.clone()).unwrap());
        let mut keeper = keeper();
        for at in 0..3000 {
            set(&mut keeper, &format!("tool-{at}"), false);
        }
        assert!(save(&mut saver, &mut keeper).await);
        assert_eq!(loaded(&place).0, known(&keeper));
        let length = || fs::metadata(place.join("routes")).unwrap().len();
        let new = length();
        set(&mut keeper, "tool-7", true);
        assert!(save(&mut saver, &mut keeper).await);
        assert!(length() - new < 30, "a change costs what changed");
        assert_eq!(loaded(&place).0, known(&keeper));
        let mut longest = 0;
        for round in 0..5 {
            for at in 0..3000 {
                set(&mut keeper, &format!("tool-{at}"), (round + u8::from(at == 7)) % 2 == 0);
            }
            assert!(save(&mut saver, &mut keeper).await);
            assert_eq!(loaded(&place).0, known(&keeper), "{round}");
            longest = longest.max(length());
        }
        assert!(longest <= new * (GROWTH + 1) + SLACK && length() < longest, "it was written anew");
        assert_eq!(fs::read_dir(&place).unwrap().count(), 2, "no draft is left behind");
    }

    #[tokio::test]
    async fn a_large_file_is_written_a_piece_at_a_time_while_things_change() {
        let folder = tempfile::tempdir().unwrap();
        let mut saver = Saver::new(Store::open(folder.path().to_owned()).unwrap());
        let mut keeper = keeper();
        saver.piece = 4096;
        for at in 0..1000 {
            set(&mut keeper, &format!("tool-{at:03}"), false);
        }
        let mut pieces = 0;
        while loaded(folder.path()).1.is_none() {
            assert!(save(&mut saver, &mut keeper).await);
            pieces += 1;
            // Before and behind the piece that is written; one is gone, one is new.
            set(&mut keeper, "tool-000", pieces % 2 == 1);
            set(&mut keeper, "tool-999", pieces % 2 == 1);
            let gone = format!("tool-{:03}", 500 + pieces);
            assert!(keeper.index.apply(Change::Remove(Kind::Namespace, gone.parse().unwrap(), String::new())));
            set(&mut keeper, &format!("tool-000-{pieces}"), false);
        }
        assert!(pieces > 2, "{pieces}");
        assert!(save(&mut saver, &mut keeper).await);
        let (entries, at) = loaded(folder.path());
        assert_eq!(entries, known(&keeper));
        assert!(at.unwrap().contact.is_some());
    }

    #[tokio::test]
    async fn an_age_is_only_known_of_what_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let mut saver = Saver::new(Store::open(folder.path().to_owned()).unwrap());
        let mut keeper = keeper();
        set(&mut keeper, "a", false);
        assert!(save(&mut saver, &mut keeper).await);
        set(&mut keeper, "b", false);
        assert!(save(&mut saver, &mut keeper).await);
        let known_age = || loaded(folder.path()).1.is_some_and(|loaded| loaded.contact.is_some());
        assert!(known_age());
        let routes = folder.path().join("routes");
        let whole = fs::read(&routes).unwrap();
        // Torn after the contact was written, which no crash does, it is not what the contact spoke of.
        fs::write(&routes, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(loaded(folder.path()).0.len(), 1);
        assert!(!known_age());
        // What was appended after the contact makes it no worse.
        fs::write(&routes, [&whole[..], b"torn"].concat()).unwrap();
        assert!(known_age() && loaded(folder.path()).0.len() == 2);
        // The contact of another file says nothing of this one.
        fs::write(&routes, &whole).unwrap();
        let mut other = Saver::new(Store::open(folder.path().join("other")).unwrap());
        assert!(save(&mut other, &mut keeper).await);
        fs::copy(folder.path().join("other/contact"), folder.path().join("contact")).unwrap();
        assert!(!known_age());
    }

    #[tokio::test]
    async fn what_could_not_be_written_is_written_later() {
        let folder = tempfile::tempdir().unwrap();
        let mut saver = Saver::new(Store::open(folder.path().to_owned()).unwrap());
        let mut keeper = keeper();
        set(&mut keeper, "a", false);
        assert!(save(&mut saver, &mut keeper).await);
        // Somebody else's file in its place, so that an append fails; and nothing can be made beside it.
        let routes = folder.path().join("routes");
        let kept = fs::read(&routes).unwrap();
        fs::remove_file(&routes).unwrap();
        fs::write(&routes, &kept).unwrap();
        let beside = routes.with_extension(format!("new-{}", std::process::id()));
        fs::create_dir(&beside).unwrap();
        set(&mut keeper, "b", false);
        assert!(!save(&mut saver, &mut keeper).await);
        assert!(!save(&mut saver, &mut keeper).await, "it waits");
        saver.pause = Instant::now();
        assert!(!save(&mut saver, &mut keeper).await, "it cannot be written anew either");
        assert_eq!(loaded(folder.path()).0.len(), 1, "what is there stays");
        fs::remove_dir(&beside).unwrap();
        set(&mut keeper, "c", false);
        saver.pause = Instant::now();
        assert!(save(&mut saver, &mut keeper).await);
        assert_eq!(loaded(folder.path()).0, known(&keeper));
    }

    #[tokio::test]
    async fn nothing_is_kept_before_the_table_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let mut saver = Saver::new(Store::open(folder.path().to_owned()).unwrap());
        let mut keeper = Keeper { freshness: Arc::new(Freshness::new(Duration::from_secs(600))), ..keeper() };
        set(&mut keeper, "a", false);
        assert!(!save(&mut saver, &mut keeper).await);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
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
