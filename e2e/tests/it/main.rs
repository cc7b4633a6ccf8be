//! Tests from outside: `control_*` against a real control plane, `platform_*` against a whole platform.
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

mod control_admission;
mod control_plane;
mod control_role;
mod control_webhook;
mod control_webhook_lost;
mod platform;
mod platform_admission;
mod platform_bad_input;
mod platform_beside;
mod platform_disable;
mod platform_isolation;
mod platform_names;
mod platform_newcomer;
mod platform_quiet;
mod platform_registry;
mod platform_repair;
mod platform_restart;
mod platform_soak;
