//! The roles in process, against fakes of the wire: an API server, backends, clients.

mod admission;
mod fourohfour;
mod proxy;
mod proxy_api;
