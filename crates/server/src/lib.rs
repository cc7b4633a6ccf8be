//! `hearthd`: the platform's roles in one program, one role a module. Roles do not use each other.

pub mod accounts;
pub mod admission;
pub mod balancer;
pub mod clock;
pub mod configuration;
pub mod fourohfour;
pub mod http_service;
pub mod ingress;
pub mod kubernetes;
pub mod lease;
pub mod proxy;
pub mod registry_auth;
pub mod reverse_proxy;
pub mod signer;
pub mod telemetry;
