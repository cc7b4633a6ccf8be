//! People and their keys.

use hearth_core::directory_entry::ssh_key::SshKey;
use hearth_directory::{NewPerson, NewTool};

use crate::slapd::Slapd;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG9wpZoGrdP8TE8mOzFEZPd3pwLU8m6eA4ufqYkWAPLz m3@home";

#[tokio::test]
async fn a_person_and_the_keys() {
    let slapd = Slapd::start();
    let mut directory = slapd.with_people().await;
    let name = "m3".parse().unwrap();
    let key: SshKey = KEY.parse().unwrap();
    let full_name = Some("Dritte, Person +1".to_owned());
    let new = NewPerson { name: "m3".parse().unwrap(), full_name, keys: vec![key.clone()] };
    assert_eq!(directory.create_person(&new).await.unwrap(), 10003);
    let error = directory.create_person(&new).await.unwrap_err();
    assert_eq!(error.to_string(), "there is a person 'm3' already");

    let person = directory.person(&name).await.unwrap();
    assert_eq!((person.uid, person.gid, person.home.as_str()), (10003, 500, "/home/m3"));
    assert_eq!((person.full_name.as_str(), person.ssh_keys.as_slice()), ("Dritte, Person +1", &[KEY.to_owned()][..]));

    let error = directory.add_key(&name, &KEY.replace("m3@home", "again").parse().unwrap()).await.unwrap_err();
    assert_eq!(error.to_string(), "'m3' has this key already, with the comment 'm3@home'");
    directory.remove_key(&name, KEY).await.unwrap();
    directory.add_key(&name, &key).await.unwrap();
    assert_eq!(directory.person(&name).await.unwrap(), person);

    let (people, refused) = directory.people().await.unwrap();
    assert_eq!(people.iter().map(|person| person.name.as_str()).collect::<Vec<_>>(), ["m1", "m2", "m3"]);
    assert_eq!(refused, []);
}

#[tokio::test]
async fn who_is_removed_maintains_nothing() {
    let slapd = Slapd::start();
    let mut directory = slapd.with_people().await;
    let (m1, m2) = ("m1".parse().unwrap(), "m2".parse().unwrap());
    for (name, maintainers) in [("both", vec!["m1", "m2"]), ("alone", vec!["m1"])] {
        let maintainers = maintainers.iter().map(|name| name.parse().unwrap()).collect();
        let new = NewTool { name: name.parse().unwrap(), maintainers, description: None };
        directory.create_tool(&new).await.unwrap();
    }
    let mut groups = directory.delete_person(&m1).await.unwrap();
    groups.sort();
    assert_eq!(groups, ["tools.alone", "tools.both"]);
    let snapshot = directory.read().await.unwrap();
    let maintainers: Vec<_> = snapshot.tools.values().map(|tool| tool.maintainers.iter().collect::<Vec<_>>()).collect();
    assert_eq!(maintainers, [vec![], vec!["m2"]]);
    assert_eq!(snapshot.refused, []);

    let error = directory.delete_person(&m1).await.unwrap_err();
    assert_eq!(error.to_string(), "there is no person 'm1'; 'hearth person list' shows those there are");
    // A number is not given to the next person while a higher one is taken.
    let new = NewPerson { name: m1, full_name: None, keys: Vec::new() };
    assert_eq!(directory.create_person(&new).await.unwrap(), 10003);
    assert!(directory.delete_person(&m2).await.is_ok());
}
