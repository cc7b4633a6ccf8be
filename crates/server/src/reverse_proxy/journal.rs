//! The file in which the routes are kept: a line that says which file this is, then records, appended.
//!
//! A record is its length and its checksum, four bytes each, and what [`Index::record`] says of one tool. Of several
//! records of a tool the last one counts, so a file is compacted by writing a new one with one record for each tool and
//! putting that in its place.
//!
//! Whatever a crash leaves, what is read is what some earlier moment had written: reading ends at the first record that
//! is torn or damaged. Each file has an identity, so that a note of how far it goes is not taken for one of another file.
//!
//! It never writes into a file that another process has put in the place of its own.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use hearth_core::route::Index;

/// The version of the format is in it; a file of another one is not read.
const TITLE: &str = "hearth-routes 2 ";

/// How many hexadecimal digits an identity has.
const IDENTITY: usize = 16;

/// The bytes before the first record.
const HEAD: usize = TITLE.len() + IDENTITY + 1;

/// The bytes before each record's own.
const FRAME: usize = 8;

/// Where a file was at some moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Which file it was.
    pub(super) identity: String,
    /// How long it was.
    pub(super) length: u64,
}

/// A file that is written.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    path: PathBuf,
    /// Where it will be, while it is a draft.
    place: Option<PathBuf>,
    mark: Mark,
}

/// Records that are to be written.
#[derive(Debug, Default)]
pub(super) struct Records(Vec<u8>);

// === impl Mark ===

impl Mark {
    /// Reads `<identity> <length>`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (identity, length) = text.split_once(' ')?;
        Some(Self { identity: identity.to_owned(), length: length.parse().ok()? })
    }

    /// Whether what was known at `earlier` is all there now.
    pub(super) fn covers(&self, earlier: &Self) -> bool {
        self.identity == earlier.identity && self.length >= earlier.length
    }
}

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.identity, self.length)
    }
}

// === impl Records ===

impl Records {
    /// Adds a record. Its checksum is made when it is written, which is elsewhere.
    pub(super) fn push(&mut self, record: &[u8]) {
        let Ok(length) = u32::try_from(record.len()) else { return };
        self.0.extend_from_slice(&length.to_le_bytes());
        self.0.extend_from_slice(&[0; 4]);
        self.0.extend_from_slice(record);
    }

    /// How many bytes they have.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Makes the checksums. It does so once, for all.
    pub(super) fn seal(&mut self) {
        let mut rest = self.0.as_mut_slice();
        while let Some((length, after)) = rest.split_first_chunk_mut::<4>() {
            let Some((sum, after)) = after.split_first_chunk_mut::<4>() else { return };
            let Some((record, after)) = after.split_at_mut_checked(u32::from_le_bytes(*length) as usize) else {
                return;
            };
            *sum = checksum(*length, record).to_le_bytes();
            rest = after;
        }
    }
}

// === impl Journal ===

impl Journal {
    /// A new file beside `place`, with nothing in it. No two have the same identity.
    pub(super) fn draft(place: &Path, identity: u64) -> io::Result<Self> {
        // A predecessor that is being relieved may write at the same time.
        let path = place.with_extension(format!("new-{}", std::process::id()));
        let mut file = File::create(&path)?;
        let identity = format!("{identity:0width$x}", width = IDENTITY);
        file.write_all(format!("{TITLE}{identity}\n").as_bytes())?;
        Ok(Self { file, path, place: Some(place.to_owned()), mark: Mark { identity, length: HEAD as u64 } })
    }

    /// Puts a draft in its place.
    pub(super) fn put(mut self) -> io::Result<Self> {
        if let Some(place) = self.place.take() {
            self.file.sync_all()?;
            std::fs::rename(&self.path, &place)?;
            if let Some(folder) = place.parent() {
                File::open(folder)?.sync_all()?;
            }
            self.path = place;
        }
        Ok(self)
    }

    /// Appends records that are sealed. What was written of some is taken back when not all of them could be.
    pub(super) fn append(&mut self, records: &Records) -> io::Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let (own, there) = (self.file.metadata()?, std::fs::metadata(&self.path)?);
        if (own.dev(), own.ino()) != (there.dev(), there.ino()) {
            return Err(io::Error::other("another process keeps its routes there now"));
        }
        let written = self.file.write_all(&records.0);
        if written.is_err() {
            let _ = self.file.set_len(self.mark.length);
        }
        written?;
        self.mark.length += records.len() as u64;
        Ok(())
    }

    /// Makes what was appended last.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// How far it goes.
    pub(super) fn mark(&self) -> &Mark {
        &self.mark
    }
}

impl Drop for Journal {
    /// A draft that came to nothing is not left behind.
    fn drop(&mut self) {
        if self.place.is_some() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Reads a file into an index. Returns how far it could be read; nothing where it is not there or is none.
pub(super) fn read(path: &Path, index: &mut Index) -> Option<Mark> {
    let mut file = BufReader::new(OpenOptions::new().read(true).open(path).ok()?);
    let mut head = [0; HEAD];
    file.read_exact(&mut head).ok()?;
    let identity = std::str::from_utf8(&head).ok()?.strip_prefix(TITLE)?.strip_suffix('\n')?.to_owned();
    let mut ends = vec![HEAD as u64];
    let records = std::iter::from_fn(|| {
        let record = next(&mut file)?;
        ends.push(ends.last()? + (FRAME + record.len()) as u64);
        Some(record)
    });
    let taken = index.restore(records);
    // One that was whole but said nothing that is understood is not counted.
    Some(Mark { identity, length: *ends.get(taken)? })
}

fn next(from: &mut impl Read) -> Option<Vec<u8>> {
    let (mut length, mut sum) = ([0; 4], [0; 4]);
    from.read_exact(&mut length).ok()?;
    from.read_exact(&mut sum).ok()?;
    let promised = u32::from_le_bytes(length);
    let mut record = Vec::new();
    // Memory is taken for what is there, not for what a damaged length promises.
    from.take(promised.into()).read_to_end(&mut record).ok()?;
    let whole = record.len() == promised as usize && checksum(length, &record) == u32::from_le_bytes(sum);
    whole.then_some(record)
}

/// CRC-32 of the length and the record: zeros, which a crash may leave at the end of a file, are no record.
fn checksum(length: [u8; 4], record: &[u8]) -> u32 {
    const TABLE: [u32; 256] = table();
    let step = |sum: u32, byte: &u8| {
        let at = (sum ^ u32::from(*byte)) & 0xff;
        (sum >> 8) ^ TABLE.get(at as usize).copied().unwrap_or_default()
    };
    !length.iter().chain(record).fold(u32::MAX, step)
}

#[expect(clippy::indexing_slicing, reason = "it is made when it is compiled, and the place is below 256")]
const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        let mut sum = at as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 == 1 { (sum >> 1) ^ 0xedb8_8320 } else { sum >> 1 };
            bit += 1;
        }
        table[at] = sum;
        at += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use hearth_core::Domains;
    use hearth_core::route::{Change, Entry};
    use serde_json::json;

    use super::*;

    fn index() -> Index {
        Index::new(Domains { public: vec!["hearth.example".parse().unwrap()], legacy: "old.example".parse().unwrap() })
    }

    /// Changes of three tools, one after another, among them one that takes a tool away.
    fn history() -> Vec<Change> {
        let set = |tool: &str, fact: serde_json::Value| {
            let entry: Entry = serde_json::from_value(json!({"tool": tool, "name": "x", "fact": fact})).unwrap();
            Change::Set(entry)
        };
        let tool = |name: &str, disabled: bool| set(name, json!({"Namespace": {"disabled": disabled}}));
        let slice = |name: &str, address: &str| {
            let ports = json!([{"name": "http", "number": 8000}]);
            set(name, json!({"EndpointSlice": {"service": name, "ports": ports, "ready": [address], "draining": []}}))
        };
        vec![
            tool("a", false),
            tool("b", false),
            slice("a", "10.0.0.1"),
            slice("c", "10.0.0.2"),
            tool("b", true),
            Change::Remove(hearth_core::route::Kind::EndpointSlice, "c".parse().unwrap(), "x".to_owned()),
            slice("a", "10.0.0.3"),
        ]
    }

    fn facts(index: &Index) -> Vec<Entry> {
        index.entries().collect()
    }

    /// A file with the history in it, the length after each change, and what was known then.
    fn written(path: &Path) -> Vec<(u64, Vec<Entry>)> {
        let mut journal = Journal::draft(path, 7).unwrap().put().unwrap();
        let mut index = index();
        let mut moments = vec![(journal.mark().length, Vec::new())];
        for change in history() {
            assert!(index.apply(change));
            let mut records = Records::default();
            for tool in index.take_changed() {
                records.push(&index.record(&tool));
            }
            records.seal();
            journal.append(&records).unwrap();
            moments.push((journal.mark().length, facts(&index)));
        }
        journal.sync().unwrap();
        moments
    }

    #[test]
    fn what_is_appended_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("routes");
        let moments = written(&path);
        let mut copy = index();
        let (length, known) = moments.last().unwrap();
        let mark = read(&path, &mut copy).unwrap();
        assert_eq!((mark.length, &facts(&copy)), (*length, known));
        assert_eq!(mark, Mark::parse(&format!("{mark}")).unwrap());
        assert_eq!(std::fs::metadata(&path).unwrap().len(), *length);
    }

    #[test]
    fn a_crash_at_any_byte_leaves_an_earlier_moment() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("routes");
        let moments = written(&path);
        let whole = std::fs::read(&path).unwrap();
        for length in 0..=whole.len() {
            for tail in [&[][..], &[0; 64][..], &[0xff; 64][..]] {
                let torn = [&whole[..length], tail].concat();
                std::fs::write(&path, &torn).unwrap();
                let mut copy = index();
                let mark = read(&path, &mut copy);
                // Where what follows is what stood there, nothing was torn off.
                let same = torn.iter().zip(&whole).take_while(|(now, then)| now == then).count();
                let earlier = moments.iter().rev().find(|(at, _)| *at <= same as u64);
                assert_eq!(mark.map(|mark| mark.length), earlier.map(|(at, _)| *at), "{length}");
                let known = earlier.map(|(_, known)| known.clone()).unwrap_or_default();
                assert_eq!(facts(&copy), known, "{length} and {} more", tail.len());
            }
        }
    }

    #[test]
    fn a_damaged_byte_ends_the_reading_where_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("routes");
        let moments = written(&path);
        let whole = std::fs::read(&path).unwrap();
        for at in HEAD..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            std::fs::write(&path, &damaged).unwrap();
            let mut copy = index();
            let mark = read(&path, &mut copy).unwrap();
            let (length, known) = moments.iter().rev().find(|(end, _)| *end <= at as u64).unwrap();
            assert_eq!((mark.length, &facts(&copy)), (*length, known), "{at}");
        }
    }

    #[test]
    fn files_of_another_kind_are_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("routes");
        assert!(read(&path, &mut index()).is_none());
        for text in ["", "{\"version\":1,\"entries\":[]}", "hearth-routes 3 0000000000000007\n", "hearth-routes 2 7\n"]
        {
            std::fs::write(&path, text).unwrap();
            assert!(read(&path, &mut index()).is_none(), "{text}");
        }
    }

    #[test]
    fn a_record_that_says_nothing_is_not_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("routes");
        let mut journal = Journal::draft(&path, 7).unwrap().put().unwrap();
        let mut records = Records::default();
        records.push(b"\x01a\x00\x00");
        records.push(b"\x01b\x77");
        records.push(b"\x01c\x00\x00");
        records.seal();
        journal.append(&records).unwrap();
        let mut copy = index();
        let mark = read(&path, &mut copy).unwrap();
        assert_eq!(facts(&copy).len(), 1);
        assert_eq!(mark.length, (HEAD + FRAME + 4) as u64);
    }

    /// The device answers every write as a full disk does.
    #[test]
    fn a_full_disk_is_an_error_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("routes");
        written(&path);
        let mut journal = Journal::draft(&path, 8).unwrap();
        journal.file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let _ = std::fs::remove_file(std::mem::replace(&mut journal.path, "/dev/full".into()));
        let mut records = Records::default();
        records.push(b"\x01a\x00\x00");
        let before = journal.mark().clone();
        assert_eq!(journal.append(&records).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(*journal.mark(), before);
        // It is not the draft of anything any more.
        journal.place = None;
        assert!(read(&path, &mut index()).is_some());
    }

    #[test]
    fn whoever_lost_the_place_notices() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("routes");
        let mut old = Journal::draft(&path, 1).unwrap().put().unwrap();
        let new = Journal::draft(&path, 2).unwrap().put().unwrap();
        let mut records = Records::default();
        records.push(b"\x01a\x00\x00");
        records.seal();
        assert!(old.append(&records).is_err());
        let there = read(&path, &mut index()).unwrap();
        assert!(there.covers(new.mark()) && !there.covers(old.mark()));
    }

    #[test]
    fn a_draft_that_is_given_up_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("routes");
        drop(Journal::draft(&path, 1).unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
