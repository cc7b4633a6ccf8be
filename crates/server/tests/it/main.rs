//! The roles in process, against fakes of the wire, one program for all of them.
#![expect(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod accounts;
mod accounts_admins;
mod accounts_api;
mod accounts_faults;
mod admission;
mod admission_bad_input;
mod admission_tls;
mod fourohfour;
mod proxy;
mod proxy_allowances;
mod proxy_api;
mod proxy_framing;
mod proxy_front;
mod proxy_guard;
mod proxy_handover;
mod proxy_live;
mod proxy_shuffle;
mod proxy_steady;
mod proxy_watch;
mod registry_auth;
mod signer;
