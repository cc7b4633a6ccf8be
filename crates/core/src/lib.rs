//! What Hearth decides, as functions of data.
//!
//! Everything a maintainer, an operator or a visitor can be told "no" by is decided here, and
//! everything here can be tested without a network, a clock or a cluster: the time, random
//! values and what was observed are arguments. The roles (`crates/server`) and the commands
//! (`crates/cli`) observe, call this crate, and carry out what it answers.
//!
//! It never opens a socket or a file, never reads a clock and never panics on what it is given.

pub mod account;
pub mod admission;
pub mod balancer;
pub mod block_list;
pub mod directory_entry;
pub mod framing;
pub mod host;
pub mod image;
pub mod limit;
pub mod names;
pub mod platform;
pub mod public_suffix;
pub mod registry;
pub mod route;
mod shown;
pub mod tool_name;
pub mod webservice;

pub use host::{Domains, Host, Place};
pub use platform::Platform;
pub use tool_name::ToolName;
