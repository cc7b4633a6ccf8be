//! Reading everything, and asking cheaply whether anything changed.

use anyhow::{Result, bail};
use hearth_core::directory_entry::snapshot::{self, ATTRIBUTES};
use hearth_core::directory_entry::{Entry, Person, Refused, Snapshot};
use ldap3::Scope;

use crate::session::Directory;

/// How often a reading is begun again because somebody wrote meanwhile.
const READINGS: usize = 3;

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
        let (accounts, groups) = self.tool_entries().await?;
        // The first entries have the administrators' group, so an answer without it comes from a directory that
        // hides entries from us, or from another one: to believe it would be to believe that all tools are gone.
        let admins = format!("{}.admin", self.platform.directory.project);
        let has_admins = |group: &Entry| group.attributes.get("cn").is_some_and(|names| names.contains(&admins));
        if !groups.iter().any(has_admins) {
            let place = self.platform.directory.tool_groups();
            bail!("the directory shows no group cn={admins},{place}, so what it shows is not the whole of it");
        }
        Ok(snapshot::snapshot(&self.platform, &accounts, &groups))
    }

    /// The entries directly below the places of tool accounts and of tool groups.
    pub(crate) async fn tool_entries(&mut self) -> Result<(Vec<Entry>, Vec<Entry>)> {
        let (accounts, groups) = (self.platform.directory.tool_accounts(), self.platform.directory.tool_groups());
        let accounts = self.search(&accounts, Scope::OneLevel, "(objectClass=posixAccount)", ATTRIBUTES).await?;
        let groups = self.search(&groups, Scope::OneLevel, "(objectClass=posixGroup)", ATTRIBUTES).await?;
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
