//! Tests from outside: `control_*` against a real control plane, `platform_*` against a whole platform.

mod control_admission;
mod control_plane;
mod control_webhook;
mod platform;
mod platform_newcomer;
