//! Administrators: rights, kubeconfigs and what becomes of both when somebody is one no longer.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use hearth_core::account::kubeconfig::{self, Found};
use hearth_core::account::owner::Owner;
use hearth_core::directory_entry::{Admin, Snapshot};
use http::Method;
use serde_json::json;

use crate::accounts::Running;
use crate::accounts_api::Api;

const BINDINGS: &str = "clusterrolebindings";

/// A directory with these administrators and no tools.
fn directory(people: &[(&str, u32)]) -> Snapshot {
    let admin = |(name, uid): &(&str, u32)| {
        let name: hearth_core::directory_entry::person_name::PersonName = name.parse().unwrap();
        (name.clone(), Admin { name, uid: *uid, gid: 500 })
    };
    Snapshot { admins: people.iter().map(admin).collect(), ..Snapshot::default() }
}

/// The group that an administrator's right to act is bound to.
fn group(api: &Api, person: &str) -> Option<String> {
    let binding = api.get(BINDINGS, "", &format!("{person}-binding"))?;
    Some(binding["subjects"][0]["name"].as_str()?.to_owned())
}

/// The certificate in a kubeconfig, PEM.
fn certificate(running: &Running, person: &str) -> Option<String> {
    let config = std::fs::read_to_string(running.people.path().join(person).join(".kube/config")).ok()?;
    let owner: Owner = format!("admin:{person}").parse().unwrap();
    match kubeconfig::find(Some(&config), &owner) {
        Found::Entry { certificate, .. } => certificate,
        _ => None,
    }
}

/// Whether certificate and key lie as files of their own in the home; they are written last, the key after the other.
fn is_copied(running: &Running, person: &str, certificate: &str) -> bool {
    let folder = running.people.path().join(person).join(".admkube");
    let copy = std::fs::read_to_string(folder.join("client.crt"));
    copy.is_ok_and(|copy| copy == certificate) && folder.join("client.key").exists()
}

/// Waits until a person's kubeconfig has another certificate than `before`, and the files beside it are written too.
async fn until_certified(running: &Running, person: &str, before: Option<&str>) -> String {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        match certificate(running, person) {
            Some(now) if Some(now.as_str()) != before && is_copied(running, person, &now) => return now,
            _ => assert!(tokio::time::Instant::now() < deadline, "{person} has no new certificate"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn an_administrator_gets_rights_and_a_kubeconfig() {
    let running = Running::start(Api::new());
    running.directory.send(directory(&[("jane", 10001)])).unwrap();
    let pem = until_certified(&running, "jane", None).await;

    let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
    let subject = block.parse_x509().unwrap().subject().to_string();
    let epoch = group(&running.api, "jane").unwrap();
    assert!(epoch.starts_with("hearth:admin:jane:"), "{epoch}");
    assert_eq!(subject, format!("O=admins, O={epoch}, CN=admin:jane"));
    let roles = ["jane-binding", "jane-view-binding"]
        .map(|name| running.api.get(BINDINGS, "", name).unwrap()["roleRef"]["name"].clone());
    assert_eq!(roles, ["k8s-admin", "view"]);
    assert_eq!(running.api.count("certificatesigningrequests"), 0, "requests are deleted when they are done");

    for (file, mode) in
        [("", 0o2700), (".kube/config", 0o600), (".admkube/client.crt", 0o400), (".admkube/client.key", 0o400)]
    {
        let metadata = std::fs::symlink_metadata(running.people.path().join("jane").join(file)).unwrap();
        let found = (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777);
        assert_eq!(found, (10001, 500, mode), "{file} {:o}", found.2);
    }
    running.stop().await;
}

#[tokio::test]
async fn whoever_is_one_no_longer_loses_the_rights_and_an_old_key_stays_worthless() {
    let running = Running::start(Api::new());
    let both = [("jane", 10001), ("joe", 10002)];
    running.directory.send(directory(&both)).unwrap();
    let before = until_certified(&running, "jane", None).await;
    let old = group(&running.api, "jane");
    running.directory.send(directory(&both[1..])).unwrap();
    let gone =
        |api: &Api| ["jane-binding", "jane-view-binding"].iter().all(|name| api.get(BINDINGS, "", name).is_none());
    running.api.until("jane has no rights", gone).await;
    assert!(group(&running.api, "joe").is_some());

    // The home is left alone, and its certificate is replaced when the person comes back.
    assert_eq!(certificate(&running, "jane").as_deref(), Some(before.as_str()));
    running.directory.send(directory(&both)).unwrap();
    until_certified(&running, "jane", Some(&before)).await;
    assert_ne!(group(&running.api, "jane"), old);
    running.stop().await;
}

#[tokio::test]
async fn a_binding_that_is_taken_away_comes_back_for_another_certificate() {
    let running = Running::start(Api::new());
    running.directory.send(directory(&[("jane", 10001)])).unwrap();
    let before = until_certified(&running, "jane", None).await;
    running.api.remove(BINDINGS, "", "jane-binding");
    until_certified(&running, "jane", Some(&before)).await;
    let names = ["jane-binding", "jane-view-binding"];
    let groups = names.map(|name| running.api.get(BINDINGS, "", name).unwrap()["subjects"].clone());
    assert_eq!(groups[0], groups[1]);
    running.stop().await;
}

#[tokio::test]
async fn what_stands_in_the_way_is_left_alone_and_holds_up_nobody() {
    let api = Api::new();
    let foreign = |name: &str, subject: &str| {
        json!({ "metadata": { "name": name }, "roleRef": { "kind": "ClusterRole", "name": "k8s-admin" },
                "subjects": [{ "kind": "User", "name": subject }] })
    };
    // Another system's binding of the name, without our label.
    api.put(BINDINGS, "", foreign("jane-binding", "jane"));
    let running = Running::start(api.clone());
    // A home that is a link into somebody else's, and one of another owner.
    let people = running.people.path().to_owned();
    std::os::unix::fs::symlink("/etc", people.join("joe")).unwrap();
    std::fs::create_dir(people.join("jill")).unwrap();
    running.directory.send(directory(&[("jane", 10001), ("jill", 10004), ("joe", 10002), ("june", 10003)])).unwrap();
    until_certified(&running, "june", None).await;
    api.until("joe and jill have rights", |api| group(api, "joe").is_some() && group(api, "jill").is_some()).await;
    assert_eq!(group(&api, "jane").as_deref(), Some("jane"), "it is another's");
    assert!(std::fs::symlink_metadata(people.join("joe")).unwrap().is_symlink());
    assert_eq!(std::fs::read_dir(people.join("jill")).unwrap().count(), 0);
    assert!(!people.join("jane").exists(), "without rights there is no certificate");
    running.stop().await;
}

#[tokio::test]
async fn an_api_that_fails_for_a_while_is_asked_again() {
    let api = Api::new();
    let left = std::sync::atomic::AtomicU32::new(6);
    api.fail(move |method, path| {
        let is_it = path.contains(BINDINGS) || (*method == Method::POST && path.contains("certificatesigningrequests"));
        let order = std::sync::atomic::Ordering::SeqCst;
        let is_left = left.fetch_update(order, order, |n| n.checked_sub(u32::from(is_it))).is_ok();
        (is_it && is_left).then_some(500)
    });
    let running = Running::start(api);
    running.directory.send(directory(&[("jane", 10001)])).unwrap();
    until_certified(&running, "jane", None).await;
    running.stop().await;
}

#[tokio::test]
async fn a_parent_that_others_may_write_to_is_not_used() {
    let running = Running::start(Api::new());
    std::fs::set_permissions(running.people.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    running.directory.send(directory(&[("jane", 10001)])).unwrap();
    running.api.until("jane has rights", |api| group(api, "jane").is_some()).await;
    std::fs::set_permissions(running.people.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    // It is tried again by itself.
    until_certified(&running, "jane", None).await;
    running.stop().await;
}

#[tokio::test]
async fn nobody_loses_rights_where_many_would() {
    let api = Api::new();
    let passes = tokio::sync::watch::Sender::new(0);
    let counted = passes.clone();
    api.fail(move |method, path| {
        counted.send_modify(|n| *n += u32::from(*method == Method::GET && path.contains(BINDINGS)));
        None
    });
    let running = Running::start(api.clone());
    let people = ["jane", "jill", "joan", "joe", "june", "july"].map(|name| (name, 10001));
    running.directory.send(directory(&people)).unwrap();
    until_certified(&running, "july", None).await;
    api.until("jane has rights", |api| group(api, "jane").is_some()).await;
    running.directory.send(directory(&[])).unwrap();
    // Each change is followed by a pass, and each pass by none before it has ended: with the third, the one that saw the
    // empty directory is over.
    for name in ["one-binding", "other-binding", "third-binding"] {
        let before = *passes.borrow();
        let mut binding = api.get(BINDINGS, "", "jane-binding").unwrap();
        binding["metadata"] = json!({ "name": name, "labels": binding["metadata"]["labels"] });
        api.put(BINDINGS, "", binding);
        passes.subscribe().wait_for(|now| *now > before).await.unwrap();
    }
    assert!(group(&api, "jane").is_some());
    for name in ["one-binding", "other-binding", "third-binding"] {
        api.remove(BINDINGS, "", name);
    }
    running.directory.send(directory(&people[1..])).unwrap();
    api.until("jane has no rights", |api| group(api, "jane").is_none()).await;
    running.stop().await;
}
