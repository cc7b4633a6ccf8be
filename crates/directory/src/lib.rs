//! Speaking LDAP: reading, following and editing the directory of people and tools.
//!
//! What an entry means is decided in `hearth_core::directory_entry`; here is the wire: connecting under TLS with
//! only the platform's authority trusted, reading everything in pages ([`Directory::read`]), noticing changes
//! ([`follow`]), and the edits behind `hearth tool` and `hearth person` ([`Directory::create_tool`] and others).
//!
//! A reading is whole or an error, never a part: what reads it takes a tool that is not there for deleted.
//! It never speaks without TLS, never caches, and never decides what becomes of a tool.

mod bell;
mod connection;
mod follow;
mod people;
mod read;
mod session;
mod tools;

pub use connection::Connection;
pub use follow::follow;
pub use people::NewPerson;
pub use session::Directory;
pub use tools::{Disabling, MemberChange, NewTool};
