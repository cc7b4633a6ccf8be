//! The roles, in process, against fakes of the wire.

mod registry_auth;
