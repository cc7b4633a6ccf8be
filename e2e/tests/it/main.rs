//! Tests from outside: `control_*` against a real control plane, `platform_*` against a whole platform, and `rules_*`
//! against the API server's own admission code.
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

mod control_accounts;
mod control_admission;
mod control_certificates;
mod control_conformance;
mod control_escalation;
mod control_gateway;
mod control_grid;
mod control_plane;
mod control_pods;
mod control_quota;
mod control_rbac;
mod control_role;
mod control_trial;
mod control_webhook;
mod control_webhook_lost;
mod platform;
mod platform_accounts;
mod platform_admins;
mod platform_admission;
mod platform_bad_input;
mod platform_beside;
mod platform_disable;
mod platform_handover;
mod platform_isolation;
mod platform_names;
mod platform_newcomer;
mod platform_quiet;
mod platform_registry;
mod platform_repair;
mod platform_restart;
mod platform_soak;
mod platform_topologies;
mod rules_differential;
mod rules_generate;
mod rules_oracle;
mod rules_right;
mod rules_schema;
mod rules_standards;
mod rules_usual;
mod rules_values;
