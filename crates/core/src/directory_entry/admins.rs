//! Who the administrators are: the members of the group `<project>.admin`, which is no tool, as their own entries have
//! them. One whose account is locked is none, and neither is one whose entry does not hold together: an administrator's
//! key lies in the home, so that it matters whose that is.

use std::collections::BTreeSet;

use super::dn::part;
use super::person_name::PersonName;
use super::snapshot::{by_name, members, number, one, state, value, values};
use super::{Admin, Entry, Refusal, Refused, Snapshot, ToolState};
use crate::account::admins::can_be_admin;
use crate::{Platform, ToolName};

/// The group, after the project's name.
pub const GROUP: &str = "admin";

/// The lowest number of a person: lower ones are those of a machine's own accounts.
const FIRST_UID: u32 = 1000;

/// Whose entries are needed beside the tools' groups: the account names of the members, in lower case. A name that
/// nobody can have is not among them.
pub fn wanted(platform: &Platform, groups: &[Entry]) -> BTreeSet<PersonName> {
    let groups = by_name(platform, groups, &mut Vec::new());
    let names = groups.get(GROUP).map(|group| people_of(platform, group, &mut Vec::new())).unwrap_or_default();
    names.iter().filter_map(|name| name.parse().ok()).collect()
}

/// Reads the administrators into the snapshot. `people` are the entries of the [`wanted`], and all that have the same
/// user numbers.
pub(super) fn read(platform: &Platform, group: Option<&Entry>, people: &[Entry], snapshot: &mut Snapshot) {
    let Some(group) = group else {
        let own = part("cn", &format!("{}.{GROUP}", platform.directory.project));
        let dn = format!("{own},{}", platform.directory.tool_groups());
        snapshot.refused.push(Refused { dn: dn.clone(), tool: None, reason: Refusal::NoGroup(dn) });
        return;
    };
    for name in people_of(platform, group, &mut snapshot.refused) {
        let is_its = |entry: &&Entry| values(entry, "uid").iter().any(|uid| uid.eq_ignore_ascii_case(&name));
        let found = people.iter().find(is_its);
        match found.map(|entry| admin(platform, &name, entry, people)) {
            Some(Ok(Some(admin))) => drop(snapshot.admins.insert(admin.name.clone(), admin)),
            Some(Ok(None)) => (),
            Some(Err(reason)) => {
                let dn = found.map_or_else(|| group.dn.clone(), |entry| entry.dn.clone());
                snapshot.refused.push(Refused { dn, tool: None, reason });
            }
            None => {
                let problem = format!("has no entry below {} that could be used", platform.directory.people());
                let reason = value("member", &name, &problem);
                snapshot.refused.push(Refused { dn: group.dn.clone(), tool: None, reason });
            }
        }
    }
}

/// The people among the group's members. An account of a tool is no person: a tool must never be an administrator.
fn people_of(platform: &Platform, group: &Entry, refused: &mut Vec<Refused>) -> BTreeSet<String> {
    let Ok(name) = GROUP.parse::<ToolName>() else { return BTreeSet::new() };
    let service_account = format!("{}.", platform.directory.project);
    let members = members(platform, &name, group, refused).into_iter().map(|name| name.to_ascii_lowercase());
    members.filter(|name| !name.starts_with(&service_account)).collect()
}

/// An administrator; nothing where the account is locked.
fn admin(platform: &Platform, name: &str, entry: &Entry, people: &[Entry]) -> Result<Option<Admin>, Refusal> {
    let refuse = |problem: String| Refusal::Value { attribute: "uid", value: name.to_owned(), problem };
    let name: PersonName = name.parse().map_err(|_| refuse("is no name that an administrator may have".to_owned()))?;
    can_be_admin(&name)
        .map_err(|_| refuse("is no name that an administrator may have: it ends in -view".to_owned()))?;
    let (uid, gid) = (number(entry, "uidNumber")?, number(entry, "gidNumber")?);
    let tools = &platform.tools;
    if uid < FIRST_UID || (tools.first_uid..=tools.last_uid).contains(&uid) {
        let problem =
            format!("is not a person's: below {FIRST_UID}, or from {} to {}", tools.first_uid, tools.last_uid);
        return Err(value("uidNumber", &uid.to_string(), &problem));
    }
    if gid == 0 {
        return Err(value("gidNumber", "0", "is that of root's group"));
    }
    let same = |other: &&Entry| other.dn != entry.dn && number(other, "uidNumber").is_ok_and(|number| number == uid);
    let others: Vec<&str> = people.iter().filter(same).map(|other| other.dn.as_str()).collect();
    if !others.is_empty() {
        return Err(Refusal::SharedUid { uid, others: others.join(", ") });
    }
    let (home, expected) = (one(entry, "homeDirectory")?, platform.homes.of_person(&name));
    if home != expected {
        return Err(value("homeDirectory", home, &format!("is not {expected}, where homes.people has it")));
    }
    Ok(match state(platform, entry)? {
        ToolState::Active => Some(Admin { name, uid, gid }),
        ToolState::Disabled { .. } => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory_entry::snapshot::snapshot;

    const PEOPLE: &str = "ou=people,dc=hearth";

    fn platform() -> Platform {
        let text = r#"
            domains = { public = ["hearth.localhost"], legacy = "tools.hearth.localhost" }
            api = { server = "https://10.88.0.2:6443" }
            directory = { url = "ldaps://ldap", base = "dc=hearth", bind_dn = "cn=reader" }
            registry = { host = "registry.example" }
        "#;
        Platform::from_toml(text).unwrap()
    }

    fn entry(dn: &str, attributes: &[(&str, &str)]) -> Entry {
        let mut entry = Entry { dn: dn.to_owned(), ..Entry::default() };
        for (name, value) in attributes {
            entry.attributes.entry((*name).to_ascii_lowercase()).or_default().push((*value).to_owned());
        }
        entry
    }

    fn group(members: &[&str]) -> Entry {
        let members = members.iter().map(|&member| ("member", member));
        let attributes: Vec<(&str, &str)> =
            [("cn", "tools.admin"), ("gidNumber", "501")].into_iter().chain(members).collect();
        entry("cn=tools.admin,ou=servicegroups,dc=hearth", &attributes)
    }

    fn person(name: &str, uid: &str) -> Entry {
        let home = format!("/home/{name}");
        let attributes = [("uid", name), ("uidNumber", uid), ("gidNumber", "500"), ("homeDirectory", home.as_str())];
        entry(&format!("uid={name},{PEOPLE}"), &attributes)
    }

    /// The administrators' names, and what is refused.
    fn read(members: &[&str], people: &[Entry]) -> (Vec<String>, Vec<String>) {
        let members: Vec<String> = members.iter().map(|name| format!("uid={name},{PEOPLE}")).collect();
        let members: Vec<&str> = members.iter().map(String::as_str).collect();
        let snapshot = snapshot(&platform(), &[], &[group(&members)], people);
        let names = snapshot.admins.keys().map(ToString::to_string).collect();
        (names, snapshot.refused.iter().map(|refused| format!("{}: {}", refused.dn, refused.reason)).collect())
    }

    #[test]
    fn members_with_entries_are_administrators() {
        let (names, refused) =
            read(&["jane", "JOE"], &[person("jane", "10001"), person("joe", "10002"), person("x", "10003")]);
        assert_eq!((names, refused), (vec!["jane".to_owned(), "joe".to_owned()], vec![]));
        let members = [format!("uid=Jane,{PEOPLE}"), "uid=tools.a,ou=people,ou=servicegroups,dc=hearth".to_owned()];
        let members: Vec<&str> = members.iter().map(String::as_str).collect();
        assert_eq!(wanted(&platform(), &[group(&members)]), BTreeSet::from(["jane".parse().unwrap()]));
    }

    #[test]
    fn a_locked_account_is_no_administrators() {
        let mut locked = person("jane", "10001");
        locked.attributes.insert("pwdaccountlockedtime".to_owned(), vec!["20261125000000Z".to_owned()]);
        assert_eq!(read(&["jane"], &[locked]), (vec![], vec![]));
    }

    #[test]
    fn what_does_not_hold_together_is_refused() {
        let mut elsewhere = person("jane", "10001");
        elsewhere.attributes.insert("homedirectory".to_owned(), vec!["/data/project/wikibot".to_owned()]);
        let mut root_group = person("jane", "10001");
        root_group.attributes.insert("gidnumber".to_owned(), vec!["0".to_owned()]);
        let cases = [
            (vec![], "its member 'jane' has no entry below ou=people,dc=hearth"),
            (vec![person("jane", "0")], "its uidNumber '0' is not a person's"),
            (vec![person("jane", "50001")], "its uidNumber '50001' is not a person's"),
            (vec![person("jane", "10001"), person("joe", "10001")], "10001 is also that of uid=joe,ou=people"),
            (vec![elsewhere], "its homeDirectory '/data/project/wikibot' is not /home/jane"),
            (vec![root_group], "its gidNumber '0' is that of root's group"),
        ];
        for (people, expected) in cases {
            let (names, refused) = read(&["jane"], &people);
            assert!(names.is_empty() && refused.len() == 1 && refused[0].contains(expected), "{refused:?} {expected}");
        }
        for name in ["root", "jane-view"] {
            let (names, refused) = read(&[name], &[person(name, "10001")]);
            assert!(names.is_empty() && refused[0].contains("no name that an administrator may have"), "{refused:?}");
        }
    }
}
