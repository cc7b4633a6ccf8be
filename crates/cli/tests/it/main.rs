//! The commands, black box: the real programs against fakes of the wire, each test with a home of its own.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod webservice;
mod webservice_api;
mod webservice_door;
