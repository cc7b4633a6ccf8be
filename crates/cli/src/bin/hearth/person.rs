//! `hearth person`: making accounts of people, showing them, and keeping the keys with which they log in.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use hearth_core::directory_entry::Person;
use hearth_core::directory_entry::person_name::PersonName;
use hearth_core::directory_entry::ssh_key::SshKey;
use hearth_directory::{Connection, NewPerson};
use serde_json::json;

use crate::listing::{Output, fields, print, print_json, refusals, refusals_json, table};

/// What to do with people.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    /// Make a person's account
    Create {
        /// The account's name: at most 32 lower-case letters, digits, hyphens and underscores, a letter first
        name: PersonName,
        /// A file with the person's public ssh key (….pub); may be given several times
        #[arg(long = "ssh-key", value_name = "FILE")]
        ssh_keys: Vec<PathBuf>,
        /// The name to show
        #[arg(long, value_name = "TEXT")]
        full_name: Option<String>,
    },
    /// List all people
    List {
        /// The form of the answer
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Show one person, with the keys and the tools
    Show {
        /// The person
        name: PersonName,
        /// The form of the answer
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Remove a person, also from the maintainers of all tools
    Delete {
        /// The person
        name: PersonName,
    },
    /// Add or remove the keys with which a person logs in
    #[command(subcommand)]
    Key(KeyCommand),
}

/// What to do with a person's keys.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum KeyCommand {
    /// Let a person log in with a key
    Add {
        /// The person
        name: PersonName,
        /// A file with the public key (….pub)
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Let a person log in with a key no longer
    Remove {
        /// The person
        name: PersonName,
        /// The key: its fingerprint or its comment, as 'hearth person show' writes them
        #[arg(value_name = "KEY")]
        key: String,
    },
}

/// Does what the command says, in the directory of `instance`.
pub(crate) async fn run(command: Command, instance: &Connection) -> Result<()> {
    match command {
        Command::Create { name, ssh_keys, full_name } => {
            let keys = ssh_keys.iter().map(|file| read_key(file)).collect::<Result<Vec<SshKey>>>()?;
            create(instance, NewPerson { name, full_name, keys }).await
        }
        Command::List { output } => list(instance, output).await,
        Command::Show { name, output } => show(instance, &name, output).await,
        Command::Delete { name } => {
            let groups = instance.connect().await?.delete_person(&name).await?;
            let left = match groups.is_empty() {
                true => String::new(),
                false => format!("No longer a member of {}.\n", groups.join(", ")),
            };
            print(&format!("Removed the person '{name}'. The home on the bastion stays.\n{left}"))
        }
        Command::Key(KeyCommand::Add { name, file }) => {
            let key = read_key(&file)?;
            instance.connect().await?.add_key(&name, &key).await?;
            print(&format!("'{name}' can log in with {}.\n", key_text(&key)))
        }
        Command::Key(KeyCommand::Remove { name, key }) => remove_key(instance, &name, &key).await,
    }
}

async fn create(instance: &Connection, new: NewPerson) -> Result<()> {
    let uid = instance.connect().await?.create_person(&new).await?;
    let mut rows = vec![("number", uid.to_string()), ("home", format!("/home/{}, on the bastion", new.name))];
    rows.extend(new.keys.iter().map(|key| ("key", key_text(key))));
    let next = match new.keys.is_empty() {
        true => format!("Nobody can log in yet: 'hearth person key add {} FILE' adds a public key.\n", new.name),
        false => "The person can log in on the bastion within seconds.\n".to_owned(),
    };
    print(&format!("Created the person '{}'.\n{}{next}", new.name, fields(&rows)))
}

async fn list(instance: &Connection, output: Output) -> Result<()> {
    let (people, refused) = instance.connect().await?.people().await?;
    if output == Output::Json {
        let people: Vec<_> = people.iter().map(person_json).collect();
        return print_json(&json!({"people": people, "refused": refusals_json(&refused)}));
    }
    let heading = ["NAME", "NUMBER", "KEYS", "FULL NAME"].map(str::to_owned).to_vec();
    let row = |p: &Person| vec![p.name.clone(), p.uid.to_string(), p.ssh_keys.len().to_string(), p.full_name.clone()];
    let rows: Vec<Vec<String>> = std::iter::once(heading).chain(people.iter().map(row)).collect();
    let people = match rows.len() {
        1 => "There are no people yet; 'hearth person create NAME --ssh-key FILE' makes one.\n".to_owned(),
        _ => table(&rows),
    };
    print(&format!("{people}{}", refusals(&refused)))
}

async fn show(instance: &Connection, name: &PersonName, output: Output) -> Result<()> {
    let mut directory = instance.connect().await?;
    let person = directory.person(name).await?;
    let snapshot = directory.read().await?;
    let maintained = snapshot.tools.values().filter(|tool| tool.maintainers.contains(name.as_str()));
    let tools: Vec<&str> = maintained.map(|tool| tool.name.as_str()).collect();
    let admin = snapshot.admins.contains_key(name);
    if output == Output::Json {
        let mut document = person_json(&person);
        if let Some(fields) = document.as_object_mut() {
            fields.insert("tools".to_owned(), json!(tools));
            fields.insert("admin".to_owned(), json!(admin));
        }
        return print_json(&document);
    }
    let mut rows = vec![
        ("person", person.name.clone()),
        ("full name", person.full_name.clone()),
        ("number", format!("{}, first group {}", person.uid, person.gid)),
        ("home", format!("{}, on the bastion", person.home)),
        ("tools", if tools.is_empty() { "none".to_owned() } else { tools.join(", ") }),
    ];
    if admin {
        rows.push(("rights", "administrator of the platform".to_owned()));
    }
    rows.extend(person.ssh_keys.iter().map(|line| ("key", line_text(line))));
    print(&fields(&rows))
}

async fn remove_key(instance: &Connection, name: &PersonName, wanted: &str) -> Result<()> {
    let mut directory = instance.connect().await?;
    let person = directory.person(name).await?;
    let is_wanted = |line: &&String| match line.parse::<SshKey>() {
        Ok(key) => fingerprint(&key) == wanted || (!wanted.is_empty() && key.comment() == wanted),
        Err(_) => line.as_str() == wanted,
    };
    let found: Vec<&String> = person.ssh_keys.iter().filter(is_wanted).collect();
    match found.as_slice() {
        [line] => {
            directory.remove_key(name, line).await?;
            print(&format!("'{name}' can no longer log in with {}.\n", line_text(line)))
        }
        [] => bail!("'{name}' has no key '{wanted}'; 'hearth person show {name}' shows those there are"),
        several => bail!("'{name}' has {} keys with the comment '{wanted}'; give a fingerprint", several.len()),
    }
}

fn person_json(person: &Person) -> serde_json::Value {
    let key = |line: &String| match line.parse::<SshKey>() {
        Ok(key) => json!({"type": key.kind(), "fingerprint": fingerprint(&key), "comment": key.comment()}),
        Err(error) => json!({"line": line, "problem": error.to_string()}),
    };
    json!({
        "name": person.name,
        "full_name": person.full_name,
        "uid": person.uid,
        "gid": person.gid,
        "home": person.home,
        "ssh_keys": person.ssh_keys.iter().map(key).collect::<Vec<_>>(),
    })
}

fn read_key(file: &Path) -> Result<SshKey> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read the key {}", file.display()))?;
    text.parse().with_context(|| format!("{} is not a public key that can be used", file.display()))
}

fn line_text(line: &str) -> String {
    match line.parse::<SshKey>() {
        Ok(key) => key_text(&key),
        Err(error) => format!("{line} (not usable: {error})"),
    }
}

fn key_text(key: &SshKey) -> String {
    format!("{} {} {}", fingerprint(key), key.kind(), key.comment()).trim_end().to_owned()
}

/// The fingerprint as `ssh-keygen -l` writes it.
fn fingerprint(key: &SshKey) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.blob());
    format!("SHA256:{}", STANDARD_NO_PAD.encode(digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_is_that_of_ssh_keygen() {
        let line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG9wpZoGrdP8TE8mOzFEZPd3pwLU8m6eA4ufqYkWAPLz member1@home";
        assert_eq!(line_text(line), "SHA256:Fn3BCqqucP6ie2QzqXZ7IDn4cPnodSQu9WZCOkq3jZo ssh-ed25519 member1@home");
    }
}
