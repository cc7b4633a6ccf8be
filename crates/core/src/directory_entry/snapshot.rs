//! Entries to a snapshot.
