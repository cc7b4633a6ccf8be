//! The roles in process, against fakes of the wire.

mod accounts;
mod accounts_api;
mod signer;
