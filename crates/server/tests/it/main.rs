//! The roles in process, against fakes of the wire, one program for all of them.
#![expect(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod accounts;
mod accounts_admins;
mod accounts_api;
mod accounts_faults;
mod admission;
mod admission_bad_input;
mod admission_tls;
mod balancer;
mod fourohfour;
mod ingress;
mod ingress_passage;
mod proxy;
mod proxy_allowances;
mod proxy_api;
mod proxy_certificates;
mod proxy_client;
mod proxy_compression;
mod proxy_framing;
mod proxy_front;
mod proxy_guard;
mod proxy_h2_ambiguous;
mod proxy_h2_attacks;
mod proxy_h2c;
mod proxy_h2spec;
mod proxy_handover;
mod proxy_legacy;
mod proxy_slow;
mod proxy_streams;
mod proxy_switches;
mod proxy_testssl;
mod proxy_watch;
mod proxy_websocket;
mod proxy_wire;
mod registry_auth;
mod signer;
