//! The table of routes: from a host and a path to the addresses of a web service.
//!
//! [`facts`] keeps of each Namespace, Ingress, Service and `EndpointSlice` what routing needs; the [`Index`] takes
//! their changes and keeps one sub-table for each tool; a [`Table`] is an immutable view of all of them that is
//! cheap to make, so that readers swap it whole. [`Table::route`] is the only place that decides where a request goes.
//!
//! What holds:
//! - A route leads to the tool whose host it is. Only objects of namespace `tool-<t>` shape the sub-table of `<t>`,
//!   and an Ingress counts for the hosts that [`Domains::place`](crate::Domains::place) gives to `<t>`, the same
//!   function that admission calls. An Ingress in `tool-a` for the host of `b` routes nothing.
//! - Only addresses from `EndpointSlice`s that the endpoint controllers wrote are ever candidates, or the registrar in
//!   the namespace where nobody else may ([`grid`]).
//! - A grid webservice that has registered goes first, with all hosts and paths of its tool; then its Ingresses.
//! - A change costs what changed: the sub-table of one tool, and the list of the tools that share its shard.
//!
//! What Ingress v1 leaves open is decided so: `ImplementationSpecific` is `Prefix`; a rule without a host, one with a
//! wildcard and a `defaultBackend` route nothing, because admission refuses them; several Ingresses of a tool are read
//! in the order of their creation, then of their names, and the first of two equal paths wins. The table in
//! `tests/ingress.rs` has a row for everything that the API's documentation says.
//!
//! It never reads a clock, never dials, and never keeps an object whole.

pub mod facts;
pub mod grid;
mod index;
mod known;
pub mod path;
pub mod reason;
mod record;
mod table;

pub use facts::{Entry, Kind, Protocol, Source};
pub use index::{Change, Index};
pub use reason::Reason;
pub use table::{Addresses, Backend, Decision, Served, Table};

#[cfg(test)]
mod tests;
