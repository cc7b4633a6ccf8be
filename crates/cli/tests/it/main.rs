//! The commands, black box: the real programs against fakes of the wire, each test with a home of its own.

mod webservice;
mod webservice_api;
