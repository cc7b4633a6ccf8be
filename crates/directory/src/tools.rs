//! Editing tools: creating, changing who maintains them, disabling and enabling.
//!
//! A tool is a group, a sudo rule and an account, written in that order: the account is what makes it a tool to
//! everyone else, so a creation that is cut off in the middle shows nothing half made, and creating it again
//! completes it. Two creations at the same time cannot get the same name or number: the directory itself
//! refuses the second.

use anyhow::{Context, Result, bail};
use hearth_core::ToolName;
use hearth_core::directory_entry::dn::{DistinguishedName, part};
use hearth_core::directory_entry::person_name::PersonName;
use hearth_core::directory_entry::snapshot::{self, ATTRIBUTES};
use hearth_core::directory_entry::{Entry, ToolState, admins, time};
use jiff::Timestamp;

use crate::session::{Added, Change, Changed, Directory};

/// The shell of an account that may not log in; it says so.
const DISABLED_SHELL: &str = "/bin/disabledtoolshell";

/// The shell of a tool's account.
const SHELL: &str = "/bin/bash";

/// How often an edit is begun again because somebody else wrote at the same time.
const ATTEMPTS: usize = 20;

/// The longest description, in characters.
const LONGEST_DESCRIPTION: usize = 300;

/// A tool to be made.
#[derive(Clone, Debug)]
pub struct NewTool {
    /// The name, checked for creation.
    pub name: ToolName,
    /// Who may act as the tool; at least one.
    pub maintainers: Vec<PersonName>,
    /// What it is for.
    pub description: Option<String>,
}

/// Who becomes a member of a group, and who is one no longer: a tool's maintainers, or the administrators.
#[derive(Clone, Debug, Default)]
pub struct MemberChange {
    /// People to add; who is one already stays one.
    pub add: Vec<PersonName>,
    /// People to remove; each must be a member.
    pub remove: Vec<PersonName>,
}

/// What disabling a tool came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disabling {
    /// Since when it is disabled.
    pub since: Timestamp,
    /// Whether it was so before.
    pub already: bool,
}

impl Directory {
    /// Makes a tool with the number after the highest there is, which is returned; a lower one where that is the last.
    pub async fn create_tool(&mut self, new: &NewTool) -> Result<u32> {
        // Checked again here: whoever calls may have got the name from elsewhere.
        ToolName::for_creation(new.name.as_str(), &self.platform.tools.reserved)?;
        if new.maintainers.is_empty() {
            bail!("the tool '{}' needs at least one maintainer", new.name);
        }
        self.create(new).await
    }

    /// Makes a tool of the platform's own. It has no maintainers, so nobody can become it, and its name may be reserved.
    pub async fn create_platform_tool(&mut self, name: &ToolName, description: &str) -> Result<u32> {
        let description = Some(description.to_owned());
        self.create(&NewTool { name: name.clone(), maintainers: Vec::new(), description }).await
    }

    async fn create(&mut self, new: &NewTool) -> Result<u32> {
        let NewTool { name, maintainers, description } = new;
        let description = description.as_deref().map(checked_description).transpose()?;
        let mut members = self.member_names(maintainers).await?;
        if members.is_empty() {
            // A group needs a member; the tool's own account stands for nobody.
            members.push(self.account_dn(name));
        }
        if self.get(&self.account_dn(name), &["uid"]).await?.is_some() {
            bail!("the tool name '{name}' is taken; choose another");
        }
        let (uid, group_is_ours) = self.make_group(name, &members).await?;
        let made = self.make_rule_and_account(name, uid, description).await;
        match made {
            Ok(Added::Done) => Ok(uid),
            // Somebody else completed a tool of this name, with the group that is there.
            Ok(Added::Exists) => bail!("the tool name '{name}' was taken just now; choose another"),
            Ok(Added::NotUnique) => {
                self.unmake(name, group_is_ours).await;
                bail!("the number {uid} was taken by another account just now; create the tool again")
            }
            Err(error) => {
                self.unmake(name, group_is_ours).await;
                Err(error)
            }
        }
    }

    /// Changes who maintains a tool, all at once.
    pub async fn change_maintainers(&mut self, name: &ToolName, change: &MemberChange) -> Result<()> {
        self.existing(name).await?;
        let group = Group {
            dn: self.group_dn(name),
            nobody: self.account_dn(name),
            role: format!("a maintainer of '{name}'"),
            missing: format!(
                "the tool '{name}' has no group {}; create it again under another name",
                self.group_dn(name)
            ),
        };
        self.change_members(&group, change).await
    }

    /// Changes who the platform's administrators are, all at once.
    pub async fn change_admins(&mut self, change: &MemberChange) -> Result<()> {
        let own = part("cn", &format!("{}.{}", self.platform.directory.project, admins::GROUP));
        let dn = format!("{own},{}", self.platform.directory.tool_groups());
        let missing = format!("the directory has no group {dn}: it is not filled");
        let group = Group { nobody: dn.clone(), dn, role: "an administrator".to_owned(), missing };
        self.change_members(&group, change).await
    }

    async fn change_members(&mut self, group: &Group, change: &MemberChange) -> Result<()> {
        let MemberChange { add, remove } = change;
        if let Some(both) = add.iter().find(|person| remove.contains(person)) {
            bail!("'{both}' cannot be added and removed at once");
        }
        let added = self.member_names(add).await?;
        for _ in 0..ATTEMPTS {
            let Some(entry) = self.get(&group.dn, ATTRIBUTES).await? else { bail!("{}", group.missing) };
            let members = Members::of(&entry);
            let removed: Vec<String> = remove
                .iter()
                .map(|person| match members.written(&self.person_dn(person)) {
                    Some(written) => Ok(written),
                    None => bail!("'{person}' is not {}", group.role),
                })
                .collect::<Result<_>>()?;
            match self.change(&group.dn, members.replaced(&removed, &added, &group.nobody)).await? {
                Changed::Done => return Ok(()),
                Changed::Gone => bail!("the group {} was removed just now", group.dn),
                Changed::Raced => {}
            }
        }
        bail!("the members of {} are being changed by somebody else all the time; try again", group.dn)
    }

    /// Disables a tool from `now` on. One that is disabled already stays so since then.
    pub async fn disable_tool(&mut self, name: &ToolName, now: Timestamp) -> Result<Disabling> {
        let account = self.existing(name).await?;
        // A state that cannot be read is replaced by one that can.
        let before = snapshot::state(&self.platform, &account).ok();
        let disabling = match before {
            Some(ToolState::Disabled { since }) => Disabling { since, already: true },
            _ => Disabling { since: now, already: false },
        };
        let policy = format!("cn=disabled,ou=ppolicies,{}", self.platform.directory.base);
        let mut changes = vec![
            Change::Set("pwdPolicySubentry", Some(policy)),
            Change::Set("loginShell", Some(DISABLED_SHELL.to_owned())),
        ];
        // The mark may be finer than what is written here; it stays as it is.
        if !disabling.already || !account.attributes.contains_key("pwdaccountlockedtime") {
            changes.push(Change::Set("pwdAccountLockedTime", Some(time::format(disabling.since))));
        }
        self.change_account(name, changes).await?;
        Ok(disabling)
    }

    /// Enables a tool; whether it was disabled before.
    pub async fn enable_tool(&mut self, name: &ToolName) -> Result<bool> {
        let account = self.existing(name).await?;
        let was_active = matches!(snapshot::state(&self.platform, &account), Ok(ToolState::Active));
        let changes = vec![
            Change::Set("loginShell", Some(SHELL.to_owned())),
            Change::Set("pwdPolicySubentry", None),
            Change::Set("pwdAccountLockedTime", None),
        ];
        self.change_account(name, changes).await?;
        Ok(!was_active)
    }

    /// Removes a tool's entries, with the account last: without it the rest would be nobody's. Only those of a tool whose
    /// days of grace are over at `now`.
    pub async fn forget_tool(&mut self, name: &ToolName, now: Timestamp) -> Result<()> {
        let account = self.existing(name).await?;
        let state = snapshot::state(&self.platform, &account);
        let state = state.with_context(|| format!("the entry {} cannot be used", account.dn))?;
        if !state.is_over(self.platform.tools.grace_days, now) {
            bail!(
                "the tool '{name}' is active, or its days of grace are not over: 'hearth tool show {name}' tells; only \
                 what can be brought back no longer is forgotten"
            );
        }
        let (group, rule, account) = (self.group_dn(name), self.rule_dn(name), account.dn);
        for dn in [rule, group] {
            self.remove(&dn).await?;
        }
        // It may be a maintainer of other tools.
        self.leave_groups(&account).await?;
        self.remove(&account).await?;
        Ok(())
    }

    /// What a tool is for, if somebody said so.
    pub async fn tool_description(&mut self, name: &ToolName) -> Result<Option<String>> {
        let account = self.get(&self.account_dn(name), &["description"]).await?;
        Ok(account.and_then(|account| account.attributes.get("description")?.first().cloned()))
    }

    async fn change_account(&mut self, name: &ToolName, changes: Vec<Change>) -> Result<()> {
        match self.change(&self.account_dn(name), changes).await? {
            Changed::Done => Ok(()),
            Changed::Gone => bail!("the tool '{name}' was removed just now"),
            Changed::Raced => bail!("the tool '{name}' was changed by somebody else at the same time; try again"),
        }
    }

    /// The account of a tool that exists.
    async fn existing(&mut self, name: &ToolName) -> Result<Entry> {
        match self.get(&self.account_dn(name), ATTRIBUTES).await? {
            Some(account) => Ok(account),
            None => bail!("there is no tool '{name}'; 'hearth tool list' shows those there are"),
        }
    }

    /// Makes the group with a free number, or takes up one that a cut-off creation left. Gives its number
    /// and whether it was made here.
    async fn make_group(&mut self, name: &ToolName, members: &[String]) -> Result<(u32, bool)> {
        let (account, group) = (name.account(&self.platform.directory.project), self.group_dn(name));
        if let Some(left) = self.get(&group, ATTRIBUTES).await? {
            let number = left.attributes.get("gidnumber").and_then(|numbers| numbers.first()?.parse().ok());
            let tools = self.platform.tools.first_uid..=self.platform.tools.last_uid;
            let Some(uid) = number.filter(|number| tools.contains(number)) else {
                bail!("the tool name '{name}' is taken: there is a group {group} that is not a tool's");
            };
            let members_of_left = Members::of(&left);
            let changes = members_of_left.replaced(&members_of_left.0, members, &self.account_dn(name));
            self.change(&group, changes).await?;
            return Ok((uid, false));
        }
        let members: Vec<&str> = members.iter().map(String::as_str).collect();
        for _ in 0..ATTEMPTS {
            let uid = self.free_number().await?;
            let number = uid.to_string();
            let attributes: &[(&str, &[&str])] = &[
                ("objectClass", &["groupOfNames", "posixGroup"]),
                ("cn", &[&account]),
                ("gidNumber", &[&number]),
                ("member", &members),
            ];
            match self.add(&group, attributes).await? {
                Added::Done => return Ok((uid, true)),
                Added::Exists => bail!("the tool name '{name}' was taken just now; choose another"),
                Added::NotUnique => {}
            }
        }
        bail!("every number that was free was taken by somebody else at the same time; try again")
    }

    async fn make_rule_and_account(&mut self, name: &ToolName, uid: u32, description: Option<&str>) -> Result<Added> {
        let account = name.account(&self.platform.directory.project);
        let (members, rule) = (format!("%{account}"), format!("runas-{account}"));
        let attributes: &[(&str, &[&str])] = &[
            ("objectClass", &["sudoRole"]),
            ("cn", &[&rule]),
            ("sudoUser", &[&members]),
            ("sudoHost", &["ALL"]),
            ("sudoRunAsUser", &[&account]),
            ("sudoCommand", &["ALL"]),
            ("sudoOption", &["!authenticate"]),
        ];
        // A rule that is there already was left by a creation that was cut off: all rules of a tool are alike.
        self.add(&self.rule_dn(name), attributes).await?;
        let (number, home) = (uid.to_string(), self.platform.homes.of(name));
        let description: Vec<&str> = description.into_iter().collect();
        let (account, number, home) = ([account.as_str()], [number.as_str()], [home.as_str()]);
        let mut attributes: Vec<(&str, &[&str])> = vec![
            ("objectClass", &["account", "posixAccount", "shadowAccount"]),
            ("cn", &account),
            ("uid", &account),
            ("uidNumber", &number),
            ("gidNumber", &number),
            ("homeDirectory", &home),
            ("loginShell", &[SHELL]),
        ];
        if !description.is_empty() {
            attributes.push(("description", &description));
        }
        self.add(&self.account_dn(name), &attributes).await
    }

    /// Takes back what a failed creation made. What cannot be taken back is taken up by the next attempt.
    async fn unmake(&mut self, name: &ToolName, group_is_ours: bool) {
        if !group_is_ours {
            return;
        }
        for dn in [self.rule_dn(name), self.group_dn(name)] {
            if let Err(error) = self.remove(&dn).await {
                tracing::warn!(error = %format!("{error:#}"), "a part of a tool that could not be made was left");
            }
        }
    }

    async fn free_number(&mut self) -> Result<u32> {
        let (accounts, groups) = self.tool_entries(&["uidNumber", "gidNumber"]).await?;
        let numbers = |entries: &[Entry], attribute: &str| -> Vec<u32> {
            let values = entries.iter().filter_map(|entry| entry.attributes.get(attribute)).flatten();
            values.filter_map(|value| value.parse().ok()).collect()
        };
        let mut taken = numbers(&accounts, "uidnumber");
        taken.extend(numbers(&accounts, "gidnumber"));
        taken.extend(numbers(&groups, "gidnumber"));
        taken.sort_unstable();
        let (first, last) = (self.platform.tools.first_uid, self.platform.tools.last_uid);
        // Files of a tool that was forgotten may be left somewhere: a number is given again when no higher one is free.
        let highest = taken.iter().copied().filter(|number| (first..=last).contains(number)).max();
        let next = highest.map_or(first, |highest| highest.saturating_add(1));
        match (next..=last).chain(first..=last).find(|number| taken.binary_search(number).is_err()) {
            Some(free) => Ok(free),
            None => bail!(
                "all numbers from {first} to {last} are taken by tools; widen tools.first_uid and tools.last_uid in platform.toml"
            ),
        }
    }

    /// The names of people's entries. All who do not exist are named at once.
    async fn member_names(&mut self, people: &[PersonName]) -> Result<Vec<String>> {
        let (mut names, mut unknown) = (Vec::new(), Vec::new());
        for person in people {
            let dn = self.person_dn(person);
            match self.get(&dn, &["uid"]).await? {
                Some(_) if names.contains(&dn) => {}
                Some(_) => names.push(dn),
                None => unknown.push(format!("'{person}'")),
            }
        }
        match unknown.as_slice() {
            [] => Ok(names),
            [one] => bail!("there is no person {one} in the directory; 'hearth person list' shows those there are"),
            several => bail!(
                "there are no people {} in the directory; 'hearth person list' shows those there are",
                several.join(", ")
            ),
        }
    }

    /// The member that stands for nobody: the tool's account in a tool's group, the group itself in another.
    pub(crate) fn nobody_in(&self, group: &Entry) -> String {
        let prefix = format!("{}.", self.platform.directory.project);
        let name = group.attributes.get("cn").and_then(|names| names.first()?.strip_prefix(&prefix)?.parse().ok());
        match name {
            Some(name) if same(&group.dn, &self.group_dn(&name)) && name.as_str() != "admin" => self.account_dn(&name),
            _ => group.dn.clone(),
        }
    }

    fn account_dn(&self, name: &ToolName) -> String {
        let own = part("uid", &name.account(&self.platform.directory.project));
        format!("{own},{}", self.platform.directory.tool_accounts())
    }

    fn group_dn(&self, name: &ToolName) -> String {
        let own = part("cn", &name.account(&self.platform.directory.project));
        format!("{own},{}", self.platform.directory.tool_groups())
    }

    fn rule_dn(&self, name: &ToolName) -> String {
        let own = part("cn", &format!("runas-{}", name.account(&self.platform.directory.project)));
        format!("{own},ou=sudoers,{}", self.platform.directory.base)
    }
}

/// A group whose members are changed.
struct Group {
    dn: String,
    /// The member that it has when it has no other.
    nobody: String,
    /// What its members are.
    role: String,
    /// What is wrong where it is not there.
    missing: String,
}

/// The members of a group, as they are written there.
pub(crate) struct Members(Vec<String>);

// === impl Members ===

impl Members {
    pub(crate) fn of(group: &Entry) -> Self {
        Self(group.attributes.get("member").cloned().unwrap_or_default())
    }

    /// How `dn` is written here, if it is a member.
    pub(crate) fn written(&self, dn: &str) -> Option<String> {
        self.0.iter().find(|written| same(written, dn)).cloned()
    }

    /// The changes after which `removed` (as written) are no members and `added` are. A group needs a member, so
    /// one that would have none gets `nobody`, and loses it with the first real one.
    pub(crate) fn replaced(&self, removed: &[String], added: &[String], nobody: &str) -> Vec<Change> {
        let stays = |written: &&String| !removed.contains(written) || added.iter().any(|dn| same(written, dn));
        let kept: Vec<&String> = self.0.iter().filter(stays).collect();
        let is_new = |dn: &&String| !kept.iter().any(|written| same(written, dn));
        let mut add: Vec<String> = added.iter().filter(is_new).cloned().collect();
        let mut remove: Vec<String> = self.0.iter().filter(|written| !kept.contains(written)).cloned().collect();
        let placeholder = kept.iter().find(|written| same(written, nobody)).map(|written| (*written).clone());
        match placeholder {
            Some(placeholder) if !add.is_empty() || kept.len() > 1 => remove.push(placeholder),
            None if add.is_empty() && kept.is_empty() => add.push(nobody.to_owned()),
            _ => {}
        }
        let add = add.into_iter().map(|dn| Change::Add("member", dn));
        add.chain(remove.into_iter().map(|dn| Change::Remove("member", dn))).collect()
    }
}

/// Whether two texts name the same entry.
fn same(a: &str, b: &str) -> bool {
    a == b || matches!((a.parse::<DistinguishedName>(), b.parse::<DistinguishedName>()), (Ok(a), Ok(b)) if a == b)
}

fn checked_description(text: &str) -> Result<&str> {
    let text = text.trim();
    let length = text.chars().count();
    if length == 0 || length > LONGEST_DESCRIPTION || text.chars().any(char::is_control) {
        bail!("a description is one line of 1 to {LONGEST_DESCRIPTION} characters");
    }
    Ok(text)
}
