//! Accounts: from the directory to the cluster. A pure plan of what to change.
//!
//! `accounts` observes the directory, the cluster and the homes ([`state`]), asks [`plan::plan`] what is to be done,
//! and does it. Applying a plan and planning again gives an empty plan. What is written is in [`objects`],
//! [`kubeconfig`] and [`credential`]; what single tools may use beyond others in [`quotas`]; how a disabled tool is
//! stopped in [`workload`]. Administrators are planned for apart from tools, in [`admins`]. Who somebody is to the
//! cluster stands in [`owner`] and [`subject`], and which certificate requests `signer` approves in [`approval`].
//!
//! Nothing here touches an object or a home that is not the platform's, and no plan deletes or disables more than
//! a set share of all tools ([`plan`]).

pub mod admins;
pub mod approval;
pub mod credential;
pub mod kubeconfig;
pub mod objects;
pub mod owner;
pub mod plan;
pub mod quotas;
mod refused;
mod removals;
pub mod state;
pub mod subject;
pub mod workload;

#[cfg(test)]
mod admins_tests;
#[cfg(test)]
mod plan_tests;
