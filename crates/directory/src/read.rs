//! Reading everything, and asking cheaply whether anything changed.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use hearth_core::ToolName;
use hearth_core::directory_entry::snapshot::{self, ATTRIBUTES};
use hearth_core::directory_entry::{Entry, Person, Refused, Snapshot, admins};
use ldap3::Scope;

use crate::session::Directory;

/// How often a reading is begun again because somebody wrote meanwhile.
const READINGS: usize = 3;

/// Of how many tools what was written is read by itself.
const MOST_NAMES: usize = 16;

impl Directory {
    /// Reads all tools and administrators, or fails; a part is never given out.
    pub async fn read(&mut self) -> Result<Snapshot> {
        let mut before = self.change_number().await?;
        for reading in 1.. {
            let snapshot = self.read_once().await?;
            let after = self.change_number().await?;
            // Accounts and groups are read one after the other: what was made in between is half in it. Under a
            // steady stream of writes the last reading stands; whatever looks half made in it is only refused.
            if before == after || reading == READINGS {
                self.seen = before;
                return Ok(snapshot);
            }
            before = after;
        }
        bail!("the directory was not read")
    }

    /// What follows `last`, the snapshot that was given out last, where all that was written since is in the entries of
    /// a few tools. Nothing where it is not, or where that cannot be told: then everything has to be read. An entry that
    /// is gone leaves no trace here, so everything has to be read from time to time all the same.
    pub async fn read_since(&mut self, last: &Snapshot) -> Result<Option<Snapshot>> {
        // Several numbers are those of several writers, of which each counts for itself.
        let Some(since) = self.seen.clone().filter(|seen| !seen.contains(' ')) else { return Ok(None) };
        let now = self.change_number().await?;
        let (accounts, groups) = (self.platform.directory.tool_accounts(), self.platform.directory.tool_groups());
        let written = format!("(&(|(objectClass=posixAccount)(objectClass=posixGroup))(entryCSN>={since}))");
        let people = self.platform.directory.people();
        if !self.search(&people, Scope::OneLevel, &written, &["1.1"]).await?.is_empty() {
            // It may be an administrator, and who is one is not told by names alone.
            return Ok(None);
        }
        let mut entries = self.search(&accounts, Scope::OneLevel, &written, &["cn"]).await?;
        entries.extend(self.search(&groups, Scope::OneLevel, &written, &["cn"]).await?);
        let project = format!("{}.", self.platform.directory.project);
        let common_names = entries.iter().filter_map(|entry| entry.attributes.get("cn")).flatten();
        let texts: BTreeSet<&str> = common_names.filter_map(|name| name.strip_prefix(&project)).collect();
        let names: BTreeSet<ToolName> = texts.iter().filter_map(|text| text.parse().ok()).collect();
        if names.is_empty() || names.len() != texts.len() || names.len() > MOST_NAMES || texts.contains(admins::GROUP) {
            return Ok(None);
        }
        // Names of tools have no characters that mean something in a filter.
        let named: String = names.iter().map(|name| format!("(cn={project}{name})")).collect();
        let of = |class: &str| format!("(&(objectClass={class})(|{named}))");
        let accounts = self.search(&accounts, Scope::OneLevel, &of("posixAccount"), ATTRIBUTES).await?;
        let groups = self.search(&groups, Scope::OneLevel, &of("posixGroup"), ATTRIBUTES).await?;
        let renewed = snapshot::renewed(&self.platform, last, &names, &accounts, &groups);
        if renewed.is_some() {
            self.seen = now;
        }
        Ok(renewed)
    }

    /// Whether anything was written since the last [`Self::read`]. A server that does not say counts as changed.
    pub async fn changed(&mut self) -> Result<bool> {
        let now = self.change_number().await?;
        Ok(now.is_none() || now != self.seen)
    }

    /// Whether the server says when it was written to.
    pub(crate) fn tells_changes(&self) -> bool {
        self.seen.is_some()
    }

    /// All people, and the entries among them that could not be used.
    pub async fn people(&mut self) -> Result<(Vec<Person>, Vec<Refused>)> {
        let base = self.platform.directory.people();
        let entries = self.search(&base, Scope::OneLevel, "(objectClass=posixAccount)", ATTRIBUTES).await?;
        let (mut people, mut refused) = (Vec::new(), Vec::new());
        for entry in entries {
            match snapshot::person(&entry) {
                Ok(person) => people.push(person),
                Err(reason) => refused.push(Refused { dn: entry.dn, tool: None, reason }),
            }
        }
        people.sort_by(|a, b| a.name.cmp(&b.name));
        Ok((people, refused))
    }

    async fn read_once(&mut self) -> Result<Snapshot> {
        let (accounts, groups) = self.tool_entries(ATTRIBUTES).await?;
        // The first entries have the administrators' group, so an answer without it comes from a directory that
        // hides entries from us, or from another one: to believe it would be to believe that all tools are gone.
        let admins = format!("{}.{}", self.platform.directory.project, admins::GROUP);
        let is_theirs = |group: &&Entry| group.attributes.get("cn").is_some_and(|names| names.contains(&admins));
        let (place, whole) = (self.platform.directory.tool_groups(), "so what it shows is not the whole of it");
        match groups.iter().find(is_theirs) {
            None => bail!("the directory shows no group cn={admins},{place}, {whole}"),
            // One without administrators has itself for a member: a group cannot be without.
            Some(group) if group.attributes.get("member").is_none_or(Vec::is_empty) => {
                bail!("the directory shows no member of the group cn={admins},{place}, {whole}")
            }
            Some(_) => (),
        }
        let people = self.administrators(&groups).await?;
        Ok(snapshot::snapshot(&self.platform, &accounts, &groups, &people))
    }

    /// The entries of the administrators, and of whoever has a user number of theirs.
    async fn administrators(&mut self, groups: &[Entry]) -> Result<Vec<Entry>> {
        // Names of people have no characters that mean something in a filter.
        let names = admins::wanted(&self.platform, groups);
        let named: String = names.iter().map(|name| format!("(uid={name})")).collect();
        if named.is_empty() {
            return Ok(Vec::new());
        }
        let (people, of) =
            (self.platform.directory.people(), |any: &str| format!("(&(objectClass=posixAccount)(|{any}))"));
        let mut entries = self.search(&people, Scope::OneLevel, &of(&named), ATTRIBUTES).await?;
        let numbers = entries.iter().filter_map(|entry| entry.attributes.get("uidnumber")).flatten();
        let numbers: BTreeSet<u32> = numbers.filter_map(|number| number.parse().ok()).collect();
        let numbered: String = numbers.iter().map(|number| format!("(uidNumber={number})")).collect();
        if !numbered.is_empty() {
            let same = self.search(&people, Scope::OneLevel, &of(&numbered), ATTRIBUTES).await?;
            let is_new = |found: &Entry| !entries.iter().any(|entry| entry.dn == found.dn);
            let others: Vec<Entry> = same.into_iter().filter(is_new).collect();
            entries.extend(others);
        }
        Ok(entries)
    }

    /// The entries directly below the places of tool accounts and of tool groups.
    pub(crate) async fn tool_entries(&mut self, attributes: &[&str]) -> Result<(Vec<Entry>, Vec<Entry>)> {
        let (accounts, groups) = (self.platform.directory.tool_accounts(), self.platform.directory.tool_groups());
        let accounts = self.search(&accounts, Scope::OneLevel, "(objectClass=posixAccount)", attributes).await?;
        let groups = self.search(&groups, Scope::OneLevel, "(objectClass=posixGroup)", attributes).await?;
        Ok((accounts, groups))
    }

    /// The number of the last write, as the sync provider keeps it on the topmost entry; `None` without one.
    async fn change_number(&mut self) -> Result<Option<String>> {
        let base = self.platform.directory.base.clone();
        let Some(top) = self.get(&base, &["contextCSN"]).await? else {
            bail!("the directory has no {base}: it is not filled, or directory.base names another place");
        };
        // Of several writers each has a value of its own; together they are one number.
        let mut numbers = top.attributes.get("contextcsn").cloned().unwrap_or_default();
        numbers.sort();
        Ok((!numbers.is_empty()).then(|| numbers.join(" ")))
    }
}
