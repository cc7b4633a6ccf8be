//! Entries to a [`Snapshot`], and one entry to a [`Person`].
//!
//! An entry that does not hold together (a number outside the tools' range, a shared number, another home
//! than the one that pods mount) is refused as a whole, because somebody's files hang on it. A member that
//! cannot be read is refused alone: the other maintainers keep their tool.

use std::collections::{BTreeMap, BTreeSet};

use super::admins;
use super::dn::{DistinguishedName, part};
use super::{Entry, Person, Refusal, Refused, Snapshot, Tool, ToolState, time};
use crate::{Platform, ToolName};

/// The attributes that [`snapshot`] and [`person`] read, operational ones included: what to ask the server for.
pub const ATTRIBUTES: &[&str] = &[
    "cn",
    "uid",
    "uidNumber",
    "gidNumber",
    "homeDirectory",
    "member",
    "displayName",
    "sshPublicKey",
    "pwdAccountLockedTime",
    "pwdPolicySubentry",
    "modifyTimestamp",
];

/// Reads everything: `accounts` are the entries directly below [`tool accounts`], `groups` those below [`tool groups`],
/// and `people` those that [`admins::wanted`] asks for.
///
/// [`tool accounts`]: crate::platform::Directory::tool_accounts
/// [`tool groups`]: crate::platform::Directory::tool_groups
pub fn snapshot(platform: &Platform, accounts: &[Entry], groups: &[Entry], people: &[Entry]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let mut groups = by_name(platform, groups, &mut snapshot.refused);
    let accounts = by_name(platform, accounts, &mut snapshot.refused);
    admins::read(platform, groups.remove(admins::GROUP), people, &mut snapshot);
    read_tools(platform, &accounts, &groups, &mut snapshot);
    snapshot
}

/// The snapshot that follows `last` when nothing was written but entries of these tools: `accounts` and `groups` are all
/// that have one of the names. Nothing where that does not tell the whole of it: a tool is gone, or what is written
/// bears on others.
pub fn renewed(
    platform: &Platform,
    last: &Snapshot,
    names: &BTreeSet<ToolName>,
    accounts: &[Entry],
    groups: &[Entry],
) -> Option<Snapshot> {
    let mut part = Snapshot::default();
    let groups = by_name(platform, groups, &mut part.refused);
    let accounts = by_name(platform, accounts, &mut part.refused);
    read_tools(platform, &accounts, &groups, &mut part);
    let is_named = |refused: &Refused| refused.tool.as_ref().is_some_and(|tool| names.contains(tool));
    let is_there = |name: &ToolName| groups.contains_key(name.as_str()) || accounts.contains_key(name.as_str());
    let others = || last.tools.values().filter(|tool| !names.contains(&tool.name));
    let numbers: BTreeSet<u32> = accounts.values().filter_map(|entry| number(entry, "uidNumber").ok()).collect();
    // Whoever shares a number with one of these may no longer do so.
    let is_shared = |refused: &Refused| matches!(refused.reason, Refusal::SharedUid { .. });
    let tells_all = names.iter().all(is_there)
        && part.tools.keys().all(|name| names.contains(name))
        && part.refused.iter().all(is_named)
        && !others().any(|tool| numbers.contains(&tool.uid))
        && numbers.is_disjoint(&last.unusable_uids)
        && !last.refused.iter().any(is_shared);
    if !tells_all {
        return None;
    }
    let tools = others().map(|tool| (tool.name.clone(), tool.clone())).chain(part.tools).collect();
    let refused = last.refused.iter().filter(|refused| !is_named(refused)).cloned().chain(part.refused).collect();
    let unusable_uids = last.unusable_uids.union(&part.unusable_uids).copied().collect();
    Some(Snapshot { tools, admins: last.admins.clone(), refused, unusable_uids })
}

fn read_tools(
    platform: &Platform,
    accounts: &BTreeMap<String, &Entry>,
    groups: &BTreeMap<String, &Entry>,
    snapshot: &mut Snapshot,
) {
    let mut uids: BTreeMap<u32, Vec<&Entry>> = BTreeMap::new();
    for entry in accounts.values() {
        if let Ok(uid) = number(entry, "uidNumber") {
            uids.entry(uid).or_default().push(entry);
        }
    }
    let names: BTreeSet<&String> = accounts.keys().chain(groups.keys()).collect();
    for text in names {
        let (account, group) = (accounts.get(text).copied(), groups.get(text).copied());
        let Some(entry) = account.or(group) else { continue };
        let name = match text.parse::<ToolName>() {
            Ok(name) => name,
            Err(e) => {
                snapshot.refused.push(Refused { dn: entry.dn.clone(), tool: None, reason: e.into() });
                continue;
            }
        };
        match tool(platform, &name, account, group, &uids) {
            Ok(mut tool) => {
                tool.maintainers =
                    group.map(|g| members(platform, &name, g, &mut snapshot.refused)).unwrap_or_default();
                snapshot.tools.insert(name, tool);
            }
            Err(reason) => snapshot.refused.push(Refused { dn: entry.dn.clone(), tool: Some(name), reason }),
        }
    }
    let used: BTreeSet<u32> = snapshot.tools.values().map(|tool| tool.uid).collect();
    snapshot.unusable_uids = uids.into_keys().filter(|uid| !used.contains(uid)).collect();
}

/// Reads a person's entry.
pub fn person(entry: &Entry) -> Result<Person, Refusal> {
    let name = one(entry, "uid")?.to_owned();
    let full_name = values(entry, "displayName").first().or(values(entry, "cn").first()).cloned();
    Ok(Person {
        uid: number(entry, "uidNumber")?,
        gid: number(entry, "gidNumber")?,
        home: one(entry, "homeDirectory")?.to_owned(),
        full_name: full_name.unwrap_or_else(|| name.clone()),
        ssh_keys: values(entry, "sshPublicKey").to_vec(),
        name,
    })
}

/// Whether an account is disabled, and since when.
pub fn state(platform: &Platform, entry: &Entry) -> Result<ToolState, Refusal> {
    let policy = match values(entry, "pwdPolicySubentry") {
        [] => false,
        _ => {
            let text = one(entry, "pwdPolicySubentry")?;
            let found: DistinguishedName = text.parse().map_err(|_| value("pwdPolicySubentry", text, "is no name"))?;
            let disabled = format!("cn=disabled,ou=ppolicies,{}", platform.directory.base);
            disabled.parse().is_ok_and(|disabled: DistinguishedName| found == disabled)
        }
    };
    let since = match values(entry, "pwdAccountLockedTime") {
        // Without its own mark, the time of the last change is the latest moment at which it can have been
        // disabled: the days of grace begin late rather than early.
        [] if policy => "modifyTimestamp",
        [] => return Ok(ToolState::Active),
        _ => "pwdAccountLockedTime",
    };
    let text = one(entry, since)?;
    let since = time::parse(text).map_err(|_| value(since, text, "is not a time such as 20261122180000Z"))?;
    Ok(ToolState::Disabled { since })
}

fn tool(
    platform: &Platform,
    name: &ToolName,
    account: Option<&Entry>,
    group: Option<&Entry>,
    uids: &BTreeMap<u32, Vec<&Entry>>,
) -> Result<Tool, Refusal> {
    let own = name.account(&platform.directory.project);
    let Some(account) = account else {
        return Err(Refusal::NoAccount(format!("{},{}", part("uid", &own), platform.directory.tool_accounts())));
    };
    let Some(group) = group else {
        return Err(Refusal::NoGroup(format!("{},{}", part("cn", &own), platform.directory.tool_groups())));
    };
    let uid = number(account, "uidNumber")?;
    let tools = &platform.tools;
    if !(tools.first_uid..=tools.last_uid).contains(&uid) {
        let range = format!("lies outside {} to {}, the numbers of tools", tools.first_uid, tools.last_uid);
        return Err(value("uidNumber", &uid.to_string(), &range));
    }
    if let Some(same) = uids.get(&uid).filter(|same| same.len() > 1) {
        let others: Vec<&str> = same.iter().map(|e| e.dn.as_str()).filter(|dn| *dn != account.dn).collect();
        return Err(Refusal::SharedUid { uid, others: others.join(", ") });
    }
    for gid in [number(account, "gidNumber")?, number(group, "gidNumber")?] {
        if gid != uid {
            return Err(value("gidNumber", &gid.to_string(), &format!("differs from its uidNumber {uid}")));
        }
    }
    let (home, expected) = (one(account, "homeDirectory")?, platform.homes.of(name));
    if home != expected {
        return Err(value("homeDirectory", home, &format!("is not {expected}, the home that pods mount")));
    }
    Ok(Tool { name: name.clone(), uid, maintainers: BTreeSet::new(), state: state(platform, account)? })
}

/// The account names of a group's members. The tool's own entries stand for "nobody" and are left out.
pub(super) fn members(
    platform: &Platform,
    name: &ToolName,
    group: &Entry,
    refused: &mut Vec<Refused>,
) -> BTreeSet<String> {
    let own = name.account(&platform.directory.project);
    let mut accounts = BTreeSet::new();
    for text in values(group, "member") {
        match member(platform, &own, text) {
            Ok(Some(account)) => {
                accounts.insert(account);
            }
            Ok(None) => {}
            Err(problem) => refused.push(Refused {
                dn: group.dn.clone(),
                tool: Some(name.clone()),
                reason: Refusal::Value { attribute: "member", value: text.clone(), problem },
            }),
        }
    }
    accounts
}

fn member(platform: &Platform, own: &str, text: &str) -> Result<Option<String>, String> {
    let dn: DistinguishedName = text.parse().map_err(|_| "is no distinguished name".to_owned())?;
    let below = |parent: String| parent.parse().is_ok_and(|parent: DistinguishedName| dn.is_child_of(&parent));
    let is_own = |kind| dn.first(kind).is_some_and(|n| n.eq_ignore_ascii_case(own));
    if below(platform.directory.tool_groups()) && is_own("cn") {
        return Ok(None);
    }
    match dn.first("uid") {
        Some(_) if below(platform.directory.tool_accounts()) && is_own("uid") => Ok(None),
        Some(uid) if below(platform.directory.people()) || below(platform.directory.tool_accounts()) => {
            // The value becomes part of a comma-separated annotation and of user names elsewhere.
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            if uid.chars().all(plain) {
                Ok(Some(uid.to_owned()))
            } else {
                Err("is not an account that a unix system can have".to_owned())
            }
        }
        _ => Err(format!("is neither below {} nor a tool's account", platform.directory.people())),
    }
}

/// The entries of the project, by the name after `<project>.`; entries of other projects and kinds are not ours.
pub(super) fn by_name<'a>(
    platform: &Platform,
    entries: &'a [Entry],
    refused: &mut Vec<Refused>,
) -> BTreeMap<String, &'a Entry> {
    let prefix = format!("{}.", platform.directory.project);
    let mut found: BTreeMap<String, &Entry> = BTreeMap::new();
    for entry in entries {
        let names: BTreeSet<&str> = values(entry, "cn").iter().filter_map(|cn| cn.strip_prefix(&prefix)).collect();
        let count = names.len();
        for name in names {
            let reason = match found.get(name) {
                _ if count > 1 => Refusal::Several { attribute: "cn", count },
                Some(other) => Refusal::Twice(other.dn.clone()),
                None => {
                    found.insert(name.to_owned(), entry);
                    continue;
                }
            };
            refused.push(Refused { dn: entry.dn.clone(), tool: name.parse().ok(), reason });
        }
    }
    found
}

pub(super) fn values<'a>(entry: &'a Entry, attribute: &str) -> &'a [String] {
    entry.attributes.get(&attribute.to_ascii_lowercase()).map_or(&[], Vec::as_slice)
}

pub(super) fn one<'a>(entry: &'a Entry, attribute: &'static str) -> Result<&'a str, Refusal> {
    match values(entry, attribute) {
        [one] => Ok(one),
        [] => Err(Refusal::Missing(attribute)),
        several => Err(Refusal::Several { attribute, count: several.len() }),
    }
}

pub(super) fn number(entry: &Entry, attribute: &'static str) -> Result<u32, Refusal> {
    let text = one(entry, attribute)?;
    let digits = Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let number = digits.and_then(|digits| digits.parse().ok());
    number.ok_or_else(|| value(attribute, text, "is not a number from 0 to 4294967295"))
}

pub(super) fn value(attribute: &'static str, value: &str, problem: &str) -> Refusal {
    Refusal::Value { attribute, value: value.to_owned(), problem: problem.to_owned() }
}

#[cfg(test)]
mod tests;
