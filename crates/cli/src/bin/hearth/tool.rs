//! `hearth tool`: making tools, showing them, and changing who maintains them and whether they may run.
//!
//! All but revoking happens in the directory; the platform's roles follow it within seconds. Deleting is disabling
//! with a date: until then nothing is lost.

use anyhow::{Context, Result, bail};
use hearth_core::directory_entry::person_name::PersonName;
use hearth_core::directory_entry::{Tool, ToolState};
use hearth_core::{Platform, ToolName};
use hearth_directory::{Connection, Disabling, MemberChange, NewTool};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use serde_json::json;

use crate::adoption::Wanted;
use crate::instance::Instance;
use crate::listing::{Output, fields, print, print_json, refusals, refusals_json, table};
use crate::{adoption, clock, first_tool, kubernetes, revocation};

/// What to do with tools.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    /// Make a tool: an account, a home and a corner of the cluster
    Create {
        /// The tool's name: at most 32 lower-case letters, digits and hyphens, a letter first
        name: String,
        /// A person who may act as the tool; may be given several times
        #[arg(long = "maintainer", value_name = "PERSON", required = true)]
        maintainers: Vec<PersonName>,
        /// What the tool is for, in one line
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
    },
    /// List all tools
    List {
        /// The form of the answer
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Show one tool
    Show {
        /// The tool
        name: ToolName,
        /// The form of the answer
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Show or change who maintains a tool
    Maintainers {
        /// The tool
        name: ToolName,
        /// A person who shall maintain it; may be given several times
        #[arg(long, value_name = "PERSON")]
        add: Vec<PersonName>,
        /// A maintainer who shall be one no longer; may be given several times
        #[arg(long, value_name = "PERSON")]
        remove: Vec<PersonName>,
    },
    /// Hand namespaces that another system made for tools over to the platform; shows what that means first
    Adopt {
        /// A tool; every tool with such a namespace if there is none
        names: Vec<ToolName>,
        /// Do it
        #[arg(long)]
        yes: bool,
    },
    /// Make a tool's key and password worthless, and give it others; what runs goes on
    Revoke {
        /// The tool
        name: ToolName,
    },
    /// Stop a tool and lock its account; nothing is lost until its days of grace are over
    Disable {
        /// The tool
        name: ToolName,
    },
    /// Bring a disabled or deleted tool back
    Enable {
        /// The tool
        name: ToolName,
    },
    /// Stop a tool now and delete it when its days of grace are over; until then enabling undoes it
    Delete {
        /// The tool
        name: ToolName,
    },
    /// Remove a deleted tool from the directory too, when its days of grace are over: its name is free then
    Forget {
        /// The tool
        name: ToolName,
    },
}

/// Does what the command says, in the instance's directory; a tool's credentials are the cluster's.
pub(crate) async fn run(command: Command, place: &Instance) -> Result<()> {
    let instance = &first_tool::connection(place)?;
    match command {
        Command::Adopt { names, yes } => {
            let snapshot = instance.connect().await?.read().await?;
            let (client, wanted) = (kubernetes::client(place).await?, Wanted { names, yes });
            print(&adoption::adopt(client, &instance.platform, &snapshot, wanted).await?)
        }
        Command::Revoke { name } => {
            match instance.connect().await?.read().await?.tools.get(&name) {
                None => bail!("there is no usable tool '{name}'; 'hearth tool show {name}' says why"),
                Some(Tool { state: ToolState::Disabled { .. }, .. }) => {
                    bail!("the tool '{name}' is disabled: its key and password open nothing until it is enabled")
                }
                Some(_) => (),
            }
            print(&revocation::revoke(kubernetes::client(place).await?, &instance.platform, &name).await?)
        }
        Command::Create { name, maintainers, description } => {
            let name = ToolName::for_creation(&name, &instance.platform.tools.reserved)?;
            create(instance, NewTool { name, maintainers, description }).await
        }
        Command::List { output } => list(instance, output).await,
        Command::Show { name, output } => show(instance, &name, output).await,
        Command::Maintainers { name, add, remove } => maintainers(instance, &name, MemberChange { add, remove }).await,
        Command::Disable { name } => {
            let disabling = instance.connect().await?.disable_tool(&name, clock::now()).await?;
            print(&disabled_text(&instance.platform, &name, disabling, "disabled"))
        }
        Command::Delete { name } => {
            let disabling = instance.connect().await?.disable_tool(&name, clock::now()).await?;
            print(&disabled_text(&instance.platform, &name, disabling, "marked for deletion"))
        }
        Command::Forget { name } => {
            let namespaces: Api<Namespace> = Api::all(kubernetes::client(place).await?);
            let found = namespaces.get_opt(&name.namespace()).await;
            if found.with_context(|| format!("failed to look for the namespace {}", name.namespace()))?.is_some() {
                bail!(
                    "the tool '{name}' has its namespace still: `accounts` puts the home into the archive and removes \
                     the namespace when the days of grace are over; 'hearth check accounts' tells what it does"
                );
            }
            instance.connect().await?.forget_tool(&name, clock::now()).await?;
            let archive = instance.platform.homes.archive();
            print(&format!("The tool '{name}' is forgotten, and its name is free. Its home stays in {archive}.\n"))
        }
        Command::Enable { name } => {
            let was_disabled = instance.connect().await?.enable_tool(&name).await?;
            print(&match was_disabled {
                true => format!("The tool '{name}' is enabled again: its maintainers can use it within seconds.\n"),
                false => format!("The tool '{name}' was not disabled.\n"),
            })
        }
    }
}

async fn create(instance: &Connection, new: NewTool) -> Result<()> {
    let uid = instance.connect().await?.create_tool(&new).await?;
    let (platform, name) = (&instance.platform, &new.name);
    let account = name.account(&platform.directory.project);
    let mut people: Vec<&str> = new.maintainers.iter().map(PersonName::as_str).collect();
    people.sort_unstable();
    people.dedup();
    let rows = [
        ("account", format!("{account}, user and group number {uid}")),
        ("home", platform.homes.of(name)),
        ("maintainers", people.join(", ")),
        ("address", format!("https://{}/, once a web service runs", platform.domains.host_of(name))),
    ];
    let next = format!("Usable within seconds: on the bastion, 'become {name}', then 'webservice TYPE start'.\n");
    print(&format!("Created the tool '{name}'.\n{}{next}", fields(&rows)))
}

async fn list(instance: &Connection, output: Output) -> Result<()> {
    let snapshot = instance.connect().await?.read().await?;
    if output == Output::Json {
        let tools: Vec<_> = snapshot.tools.values().map(|tool| tool_json(&instance.platform, tool)).collect();
        return print_json(&json!({"tools": tools, "refused": refusals_json(&snapshot.refused)}));
    }
    let heading = ["NAME", "NUMBER", "STATE", "MAINTAINERS"].map(str::to_owned).to_vec();
    let rows = snapshot.tools.values().map(|tool| {
        let people: Vec<&str> = tool.maintainers.iter().map(String::as_str).collect();
        let state = state_text(&instance.platform, &tool.state);
        vec![tool.name.to_string(), tool.uid.to_string(), state, people.join(", ")]
    });
    let rows: Vec<Vec<String>> = std::iter::once(heading).chain(rows).collect();
    let tools = match rows.len() {
        1 => "There are no tools yet; 'hearth tool create NAME --maintainer PERSON' makes one.\n".to_owned(),
        _ => table(&rows),
    };
    print(&format!("{tools}{}", refusals(&snapshot.refused)))
}

async fn show(instance: &Connection, name: &ToolName, output: Output) -> Result<()> {
    let mut directory = instance.connect().await?;
    let snapshot = directory.read().await?;
    let platform = &instance.platform;
    let Some(tool) = snapshot.tools.get(name) else {
        match snapshot.refused.iter().find(|refused| refused.tool.as_ref() == Some(name)) {
            Some(refused) => bail!("the tool '{name}' cannot be used: {} ({})", refused.reason, refused.dn),
            None => bail!("there is no tool '{name}'; 'hearth tool list' shows those there are"),
        }
    };
    let description = directory.tool_description(name).await?;
    if output == Output::Json {
        let mut document = tool_json(platform, tool);
        if let Some(fields) = document.as_object_mut() {
            fields.insert("description".to_owned(), json!(description));
        }
        return print_json(&document);
    }
    let people: Vec<&str> = tool.maintainers.iter().map(String::as_str).collect();
    let mut rows = vec![
        ("tool", name.to_string()),
        ("state", state_text(platform, &tool.state)),
        ("account", format!("{}, user and group number {}", name.account(&platform.directory.project), tool.uid)),
        ("home", platform.homes.of(name)),
        ("maintainers", if people.is_empty() { "nobody".to_owned() } else { people.join(", ") }),
        ("address", format!("https://{}/", platform.domains.host_of(name))),
        ("namespace", name.namespace()),
    ];
    if let Some(description) = description {
        rows.push(("description", description));
    }
    let refused: Vec<_> = snapshot.refused.into_iter().filter(|r| r.tool.as_ref() == Some(name)).collect();
    print(&format!("{}{}", fields(&rows), refusals(&refused)))
}

async fn maintainers(instance: &Connection, name: &ToolName, change: MemberChange) -> Result<()> {
    let mut directory = instance.connect().await?;
    if !change.add.is_empty() || !change.remove.is_empty() {
        directory.change_maintainers(name, &change).await?;
    }
    let snapshot = directory.read().await?;
    let Some(tool) = snapshot.tools.get(name) else {
        bail!("there is no usable tool '{name}'; 'hearth tool show {name}' says why");
    };
    if tool.maintainers.is_empty() {
        return print(&format!("Nobody maintains '{name}'; --add PERSON makes somebody its maintainer.\n"));
    }
    let people: Vec<&str> = tool.maintainers.iter().map(String::as_str).collect();
    print(&format!("The maintainers of '{name}': {}\n", people.join(", ")))
}

fn tool_json(platform: &Platform, tool: &Tool) -> serde_json::Value {
    let (state, since) = match tool.state {
        ToolState::Active => ("active", None),
        ToolState::Disabled { since } => ("disabled", Some(since)),
    };
    json!({
        "name": tool.name,
        "uid": tool.uid,
        "account": tool.name.account(&platform.directory.project),
        "home": platform.homes.of(&tool.name),
        "namespace": tool.name.namespace(),
        "maintainers": tool.maintainers,
        "state": state,
        "disabled_at": since,
        "kept_until": since.map(|since| kept_until(platform, since)),
    })
}

fn state_text(platform: &Platform, state: &ToolState) -> String {
    match state {
        ToolState::Active => "active".to_owned(),
        ToolState::Disabled { since } => format!("disabled, kept until {}", day(kept_until(platform, *since))),
    }
}

fn disabled_text(platform: &Platform, name: &ToolName, disabling: Disabling, what: &str) -> String {
    let until = day(kept_until(platform, disabling.since));
    let first = match disabling.already {
        false => format!("The tool '{name}' is {what}: it stops, and nobody can log in as it."),
        true => format!("The tool '{name}' is {what}; it has been disabled since {}.", day(disabling.since)),
    };
    format!(
        "{first}\nUntil {until} 'hearth tool enable {name}' brings everything back. After that its namespace is removed \
         and its home put into {}, for operators; its name stays its own until 'hearth tool forget {name}'.\n",
        platform.homes.archive()
    )
}

/// When the days of grace are over.
fn kept_until(platform: &Platform, since: Timestamp) -> Timestamp {
    let grace = SignedDuration::from_hours(24 * i64::from(platform.tools.grace_days));
    since.checked_add(grace).unwrap_or(Timestamp::MAX)
}

fn day(moment: Timestamp) -> String {
    moment.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disabled_tool_says_until_when_it_can_come_back() {
        let platform = Platform::from_toml(
            r#"
            domains = { public = ["hearth.localhost"], legacy = "tools.hearth.localhost" }
            api = { server = "https://10.88.0.2:6443" }
            directory = { url = "ldaps://ldap", base = "dc=hearth,dc=internal", bind_dn = "cn=reader" }
            registry = { host = "registry.hearth.internal" }
            "#,
        )
        .unwrap();
        let (name, since) = ("wikibot".parse().unwrap(), "2026-11-22T18:00:00Z".parse().unwrap());
        let way_back = "\nUntil 2027-01-01 18:00 UTC 'hearth tool enable wikibot' brings everything back. After that its \
                        namespace is removed and its home put into /data/project/.archive, for operators; its name stays \
                        its own until 'hearth tool forget wikibot'.\n";
        let text = |already, what| disabled_text(&platform, &name, Disabling { since, already }, what);
        let now = "The tool 'wikibot' is disabled: it stops, and nobody can log in as it.";
        assert_eq!(text(false, "disabled"), format!("{now}{way_back}"));
        let before = "The tool 'wikibot' is marked for deletion; it has been disabled since 2026-11-22 18:00 UTC.";
        assert_eq!(text(true, "marked for deletion"), format!("{before}{way_back}"));
        assert_eq!(state_text(&platform, &ToolState::Active), "active");
        // The original's way to write "delete it now".
        let since = "0000-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(state_text(&platform, &ToolState::Disabled { since }), "disabled, kept until 0000-02-10 00:00 UTC");
    }
}
