//! `hearth admin`: who looks after the platform. The directory says so, and `accounts` follows it within a second.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use hearth_core::account::admins;
use hearth_core::directory_entry::person_name::PersonName;
use hearth_core::directory_entry::{Admin, Snapshot};
use hearth_directory::MemberChange;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::Client;
use kube::api::{Api, DeleteParams};
use kube::runtime::wait::await_condition;
use serde_json::json;

use crate::instance::Instance;
use crate::listing::{Output, print, print_json, refusals, refusals_json, table};
use crate::{first_tool, kubernetes};

/// Longest wait for new rights.
const PATIENCE: Duration = Duration::from_secs(60);

/// What to do with administrators.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    /// List the administrators
    List {
        /// The form of the answer
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Make people administrators
    Add {
        /// A person
        #[arg(required = true)]
        names: Vec<PersonName>,
    },
    /// Take the rights of administrators, at once
    Remove {
        /// An administrator
        #[arg(required = true)]
        names: Vec<PersonName>,
    },
    /// Make an administrator's key worthless, and give another
    Revoke {
        /// The administrator
        name: PersonName,
    },
}

/// Does what the command says, in the instance's directory; keys are the cluster's.
pub(crate) async fn run(command: Command, instance: &Instance) -> Result<()> {
    let connection = first_tool::connection(instance)?;
    let mut directory = connection.connect().await?;
    match command {
        Command::List { output } => list(&directory.read().await?, output),
        Command::Add { names } => {
            for name in &names {
                admins::can_be_admin(name).map_err(anyhow::Error::msg)?;
            }
            directory.change_admins(&MemberChange { add: names.clone(), remove: Vec::new() }).await?;
            let snapshot = directory.read().await?;
            if let Some(name) = names.iter().find(|name| !snapshot.admins.contains_key(name)) {
                let said = refusals(&snapshot.refused);
                bail!("'{name}' is in the group, but the account is locked or cannot be an administrator's\n{said}");
            }
            names.iter().try_for_each(|name| {
                let home = connection.platform.homes.of_person(name);
                print(&format!(
                    "'{name}' is an administrator: kubectl on the bastion looks into all namespaces but not at secrets, by \
                     {home}/.kube/config,\nand does the rest with --as={name} --as-group=system:masters.\n"
                ))
            })
        }
        Command::Remove { names } => {
            directory.change_admins(&MemberChange { add: Vec::new(), remove: names.clone() }).await?;
            names.iter().try_for_each(|name| {
                print(&format!("'{name}' is an administrator no longer; the key is worthless within seconds.\n"))
            })
        }
        Command::Revoke { name } => {
            if !directory.read().await?.admins.contains_key(&name) {
                bail!("'{name}' is no administrator; 'hearth admin list' shows who is");
            }
            revoke(kubernetes::client(instance).await?, &name).await?;
            let home = connection.platform.homes.of_person(&name);
            print(&format!("The old key of '{name}' opens nothing any more; {home}/.kube/config gets another.\n"))
        }
    }
}

fn list(snapshot: &Snapshot, output: Output) -> Result<()> {
    let admins = snapshot.admins.values();
    if output == Output::Json {
        let admins: Vec<_> = admins.map(|admin| json!({"name": admin.name, "uid": admin.uid})).collect();
        return print_json(&json!({"administrators": admins, "refused": refusals_json(&snapshot.refused)}));
    }
    let row = |admin: &Admin| vec![admin.name.to_string(), admin.uid.to_string()];
    let heading = ["NAME", "NUMBER"].map(str::to_owned).to_vec();
    let rows: Vec<Vec<String>> = std::iter::once(heading).chain(admins.map(row)).collect();
    let people = match rows.len() {
        1 => "There is no administrator yet; 'hearth admin add NAME' makes one.\n".to_owned(),
        _ => table(&rows),
    };
    print(&format!("{people}{}", refusals(&snapshot.refused)))
}

/// Deletes the binding that has the administrator's epoch, and waits until `accounts` made it anew with another.
async fn revoke(client: Client, name: &PersonName) -> Result<()> {
    let (bindings, binding): (Api<ClusterRoleBinding>, _) = (Api::all(client), admins::binding_name(name));
    let found = bindings.get_opt(&binding).await;
    let found = found.with_context(|| format!("failed to read the cluster role binding {binding}"))?;
    let Some(old) = found.and_then(|found| admins::epoch(name, &found)) else {
        bail!("'{name}' has no rights yet that could be revoked: no cluster role binding {binding} is the platform's");
    };
    let deleted = bindings.delete(&binding, &DeleteParams::default()).await;
    deleted.with_context(|| format!("failed to delete the cluster role binding {binding}; the old key still works"))?;
    // What is looked at by the old key goes with the other binding, which gets the same new epoch before this one.
    let renewed = |found: Option<&ClusterRoleBinding>| {
        found.and_then(|found| admins::epoch(name, found)).is_some_and(|epoch| epoch != old)
    };
    match tokio::time::timeout(PATIENCE, await_condition(bindings, &binding, renewed)).await {
        Ok(result) => {
            result.with_context(|| format!("failed to watch the cluster role binding {binding}"))?;
            Ok(())
        }
        Err(_) => bail!(
            "the old key of '{name}' acts as nobody any more, but after {} s there are no new rights; \
             `kubectl -n hearth-system logs deployment/accounts` says why",
            PATIENCE.as_secs()
        ),
    }
}
