//! The roles in process, against fakes of the wire, one program for all of them.

mod admission;
mod fourohfour;
mod proxy;
mod proxy_api;
mod proxy_front;
mod proxy_watch;
