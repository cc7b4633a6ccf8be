//! The table of routes: from a host and a path to the addresses of a web service.
