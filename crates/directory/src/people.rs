//! Editing people: their accounts and the keys with which they log in.

use anyhow::{Context, Result, bail};
use hearth_core::directory_entry::dn::part;
use hearth_core::directory_entry::person_name::PersonName;
use hearth_core::directory_entry::snapshot::{self, ATTRIBUTES};
use hearth_core::directory_entry::ssh_key::SshKey;
use hearth_core::directory_entry::{Entry, Person};
use ldap3::{Scope, ldap_escape};

use crate::session::{Added, Change, Changed, Directory};
use crate::tools::Members;

/// The lowest number of a person.
const FIRST_UID: u32 = 10001;

/// The number of the group `members`, everybody's first.
const GID: &str = "500";

/// How often an edit is begun again because somebody else wrote at the same time.
const ATTEMPTS: usize = 20;

/// The longest full name, in characters.
const LONGEST_FULL_NAME: usize = 100;

/// A person to be made.
#[derive(Clone, Debug)]
pub struct NewPerson {
    /// The account's name.
    pub name: PersonName,
    /// The name to show; without one, the account's.
    pub full_name: Option<String>,
    /// Keys with which the person may log in.
    pub keys: Vec<SshKey>,
}

impl Directory {
    /// Makes a person's account, with the number after the highest there is, which is returned. A number is not
    /// used again while a higher one is taken: files of whoever had it may be left somewhere.
    pub async fn create_person(&mut self, new: &NewPerson) -> Result<u32> {
        let NewPerson { name, full_name, keys } = new;
        let full_name = checked_full_name(full_name.as_deref().unwrap_or(name.as_str()))?;
        let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let (own, home) = ([name.as_str()], format!("/home/{name}"));
        for _ in 0..ATTEMPTS {
            let uid = self.next_number().await?;
            let number = uid.to_string();
            let (number, home) = ([number.as_str()], [home.as_str()]);
            let mut attributes: Vec<(&str, &[&str])> = vec![
                ("objectClass", &["inetOrgPerson", "posixAccount", "ldapPublicKey"]),
                ("uid", &own),
                ("cn", std::slice::from_ref(&full_name)),
                ("sn", std::slice::from_ref(&full_name)),
                ("displayName", std::slice::from_ref(&full_name)),
                ("uidNumber", &number),
                ("gidNumber", &[GID]),
                ("homeDirectory", &home),
                ("loginShell", &["/bin/bash"]),
            ];
            if !keys.is_empty() {
                attributes.push(("sshPublicKey", &keys));
            }
            match self.add(&self.person_dn(name), &attributes).await? {
                Added::Done => return Ok(uid),
                Added::Exists => bail!("there is a person '{name}' already"),
                Added::NotUnique => {}
            }
        }
        bail!("every number that was free was taken by somebody else at the same time; try again")
    }

    /// The person of that name.
    pub async fn person(&mut self, name: &PersonName) -> Result<Person> {
        let entry = self.existing_person(name).await?;
        snapshot::person(&entry).with_context(|| format!("the entry {} cannot be used", entry.dn))
    }

    /// Removes a person, also from all tools; gives the names of the groups that had the person as a member.
    pub async fn delete_person(&mut self, name: &PersonName) -> Result<Vec<String>> {
        self.existing_person(name).await?;
        let dn = self.person_dn(name);
        let left = self.leave_groups(&dn).await?;
        match self.remove(&dn).await? {
            Changed::Gone => bail!("the person '{name}' was removed by somebody else just now"),
            _ => Ok(left),
        }
    }

    /// Takes an account out of every group; gives their names.
    pub(crate) async fn leave_groups(&mut self, dn: &str) -> Result<Vec<String>> {
        let filter = format!("(&(objectClass=groupOfNames)(member={}))", ldap_escape(dn));
        let base = self.platform.directory.base.clone();
        let mut left = Vec::new();
        for _ in 0..ATTEMPTS {
            let groups = self.search(&base, Scope::Subtree, &filter, &["cn", "member"]).await?;
            if groups.is_empty() {
                return Ok(left);
            }
            for group in groups {
                let members = Members::of(&group);
                let removed: Vec<String> = members.written(dn).into_iter().collect();
                let changes = members.replaced(&removed, &[], &self.nobody_in(&group));
                if self.change(&group.dn, changes).await? == Changed::Done {
                    left.push(group.attributes.get("cn").and_then(|names| names.first()).cloned().unwrap_or(group.dn));
                }
            }
        }
        bail!("{dn} is being added to groups by somebody else all the time; try again")
    }

    /// Adds a key to a person's account. A key that is there, whatever its comment, is refused.
    pub async fn add_key(&mut self, name: &PersonName, key: &SshKey) -> Result<()> {
        let entry = self.existing_person(name).await?;
        let same = |line: &&String| line.parse::<SshKey>().is_ok_and(|found| found.blob() == key.blob());
        if let Some(line) = keys(&entry).iter().find(same) {
            let comment = line.parse::<SshKey>().map(|found| found.comment().to_owned()).unwrap_or_default();
            bail!("'{name}' has this key already, with the comment '{comment}'");
        }
        self.change_person(name, Change::Add("sshPublicKey", key.to_string())).await
    }

    /// Removes a key from a person's account: the line as [`Person::ssh_keys`] has it.
    pub async fn remove_key(&mut self, name: &PersonName, line: &str) -> Result<()> {
        self.existing_person(name).await?;
        self.change_person(name, Change::Remove("sshPublicKey", line.to_owned())).await
    }

    /// The name of a person's entry.
    pub(crate) fn person_dn(&self, name: &PersonName) -> String {
        format!("{},{}", part("uid", name.as_str()), self.platform.directory.people())
    }

    async fn change_person(&mut self, name: &PersonName, change: Change) -> Result<()> {
        match self.change(&self.person_dn(name), vec![change]).await? {
            Changed::Done => Ok(()),
            Changed::Gone => bail!("the person '{name}' was removed by somebody else just now"),
            Changed::Raced => bail!("the keys of '{name}' were changed by somebody else just now; look at them again"),
        }
    }

    async fn existing_person(&mut self, name: &PersonName) -> Result<Entry> {
        match self.get(&self.person_dn(name), ATTRIBUTES).await? {
            Some(entry) => Ok(entry),
            None => bail!("there is no person '{name}'; 'hearth person list' shows those there are"),
        }
    }

    async fn next_number(&mut self) -> Result<u32> {
        let people = self.platform.directory.people();
        let entries = self.search(&people, Scope::OneLevel, "(objectClass=posixAccount)", &["uidNumber"]).await?;
        let numbers = entries.iter().filter_map(|entry| entry.attributes.get("uidnumber")?.first()?.parse().ok());
        let next = numbers.max().map_or(FIRST_UID, |highest: u32| highest.saturating_add(1).max(FIRST_UID));
        let first_tool = self.platform.tools.first_uid;
        if next >= first_tool {
            bail!(
                "the numbers of people, from {FIRST_UID} on, have reached those of tools, which begin at {first_tool}"
            );
        }
        Ok(next)
    }
}

fn keys(entry: &Entry) -> &[String] {
    entry.attributes.get("sshpublickey").map_or(&[], Vec::as_slice)
}

fn checked_full_name(text: &str) -> Result<&str> {
    let text = text.trim();
    let length = text.chars().count();
    if length == 0 || length > LONGEST_FULL_NAME || text.chars().any(char::is_control) {
        bail!("a full name is one line of 1 to {LONGEST_FULL_NAME} characters");
    }
    Ok(text)
}
