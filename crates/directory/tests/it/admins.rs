//! Administrators: who they are by the directory, and how that is changed.

use std::time::Duration;

use futures::StreamExt;
use hearth_core::directory_entry::person_name::PersonName;
use hearth_directory::{Directory, MemberChange, follow};
use ldap3::Mod;
use tokio::time::timeout;

use crate::reading::{DEADLINE, tool};
use crate::slapd::{BASE, Slapd};

fn people(names: &[&str]) -> Vec<PersonName> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

async fn admins(directory: &mut Directory) -> Vec<String> {
    directory.read().await.unwrap().admins.keys().map(ToString::to_string).collect()
}

#[tokio::test]
async fn who_administers_the_platform() {
    let slapd = Slapd::start();
    let mut directory = slapd.with_people().await;
    assert_eq!(admins(&mut directory).await, Vec::<String>::new());
    for (add, remove, expected) in [
        (vec!["m1"], vec![], Ok(vec!["m1"])),
        (vec!["m2", "m1"], vec![], Ok(vec!["m1", "m2"])),
        (vec![], vec!["m1"], Ok(vec!["m2"])),
        (vec![], vec!["m1"], Err("'m1' is not an administrator")),
        (vec![], vec!["m2"], Ok(vec![])),
        (vec!["m1"], vec![], Ok(vec!["m1"])),
    ] {
        let change = MemberChange { add: people(&add), remove: people(&remove) };
        let changed = directory.change_admins(&change).await.map_err(|error| error.to_string());
        let found = admins(&mut directory).await;
        assert_eq!(
            changed.map(|()| found),
            expected.map(|names| names.iter().map(ToString::to_string).collect()).map_err(str::to_owned)
        );
    }
    let admin = directory.read().await.unwrap().admins.remove(&people(&["m1"])[0]).unwrap();
    let person = directory.person(&admin.name).await.unwrap();
    assert_eq!((admin.uid, admin.gid), (person.uid, person.gid));
    directory.delete_person(&admin.name).await.unwrap();
    assert_eq!(admins(&mut directory).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_locked_account_is_told_of_at_once() {
    let slapd = Slapd::start();
    let mut writer = slapd.with_people().await;
    writer.change_admins(&MemberChange { add: people(&["m1", "m2"]), remove: vec![] }).await.unwrap();
    let mut stream = follow(slapd.as_reader(), Duration::from_secs(3600));
    let first = timeout(DEADLINE, stream.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(first.admins.len(), 2);
    let mut raw = slapd.raw("admin", "the writer's").await;
    let locked = vec![Mod::Replace("pwdAccountLockedTime", ["20261125000000Z"].into())];
    raw.modify(&format!("uid=m1,ou=people,{BASE}"), locked).await.unwrap().success().unwrap();
    // Together with what is read by itself.
    writer.create_tool(&tool("a")).await.unwrap();
    let seen = timeout(DEADLINE, async {
        loop {
            let snapshot = stream.next().await.unwrap().unwrap();
            if snapshot.admins.len() == 1 {
                return snapshot;
            }
        }
    });
    let left = seen.await.unwrap().admins.into_keys().map(|name| name.to_string()).collect::<Vec<_>>();
    assert_eq!(left, ["m2"]);
}

#[tokio::test]
async fn a_group_that_hides_its_members_is_not_believed() {
    let slapd = Slapd::start();
    let mut directory = slapd.with_people().await;
    let mut raw = slapd.raw("admin", "the writer's").await;
    let group = format!("cn=tools.admin,ou=servicegroups,{BASE}");
    // A group of names must have a member; one of another class without any stands for an access rule that hides them.
    raw.delete(&group).await.unwrap().success().unwrap();
    let entry = vec![
        ("objectClass", ["device", "posixGroup"].into()),
        ("cn", ["tools.admin"].into()),
        ("gidNumber", ["501"].into()),
    ];
    raw.add(&group, entry).await.unwrap().success().unwrap();
    let error = directory.read().await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("the directory shows no member of the group {group}, so")), "{error}");
}
