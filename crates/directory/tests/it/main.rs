//! The crate against a real slapd, the one of the directory's image, with the image's own configuration.
mod people;
mod reading;
mod slapd;
mod tools;
