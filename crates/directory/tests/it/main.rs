//! The crate against a real slapd, the one of the directory's image, with the image's own configuration.
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

mod admins;
mod image;
mod people;
mod reading;
mod slapd;
mod slow;
mod tools;
