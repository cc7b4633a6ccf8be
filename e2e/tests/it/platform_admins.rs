//! Administrators as the community meets them: somebody is made one, looks and acts on the bastion, and is one no longer.

use crate::platform::{Platform, SOON, disturbed, eventually};

/// What kubectl on the bastion says to member2.
fn kubectl(platform: &Platform, arguments: &str) -> Result<String, String> {
    let said = platform.ssh("member2", &format!("kubectl {arguments}"), "");
    if said.code == Some(0) { Ok(said.out) } else { Err(said.err) }
}

#[test]
fn an_administrator_looks_acts_and_is_one_no_longer() {
    let (platform, _alone) = disturbed();
    platform.hearth(&["admin", "add", "nobody-knows"]).says(1, &["there is no person 'nobody-knows'"]);
    platform.hearth(&["admin", "revoke", "member2"]).says(1, &["'member2' is no administrator"]);
    platform
        .hearth(&["admin", "add", "member2"])
        .says(0, &["'member2' is an administrator", "--as-group=system:masters"]);
    platform.hearth(&["admin", "list"]).says(0, &["member2"]);
    eventually(SOON, "member2 looks at the cluster", || kubectl(platform, "get pods -n hearth-system -o name"));

    let refused = kubectl(platform, "get secrets -n hearth-system").unwrap_err();
    assert!(refused.contains("\"admin:member2\" cannot list resource \"secrets\""), "{refused}");
    let acting = "--as=member2 --as-group=system:masters";
    let secrets = kubectl(platform, &format!("{acting} get secrets -n hearth-system -o name")).unwrap();
    assert!(secrets.contains("secret/directory-admin"), "{secrets}");
    let private = platform.ssh("member2", "stat -c %a,%U . .kube/config .admkube/client.key", "").success("stat").out;
    assert_eq!(private, "2700,member2\n600,member2\n400,member2\n");
    // Whoever administers the platform is no tool for that.
    assert!(platform.ssh("member2", "become fourohfour true", "").code != Some(0));

    // Another key: the old one opens nothing.
    platform.ssh("member2", "cp .kube/config old", "").success("a copy");
    platform.hearth(&["admin", "revoke", "member2"]).says(0, &["The old key of 'member2' opens nothing any more"]);
    let old = kubectl(platform, "--kubeconfig=old get pods -n hearth-system").unwrap_err();
    assert!(old.contains("cannot list resource"), "{old}");
    let old = kubectl(platform, &format!("--kubeconfig=old {acting} get pods -n hearth-system")).unwrap_err();
    assert!(old.contains("cannot impersonate resource"), "{old}");
    eventually(SOON, "the new key works", || kubectl(platform, "get pods -n hearth-system -o name"));

    platform.hearth(&["admin", "remove", "member2"]).says(0, &["'member2' is an administrator no longer"]);
    eventually(SOON, "the rights are gone", || match kubectl(platform, "get pods -n hearth-system -o name") {
        Ok(pods) => Err(pods),
        Err(said) => Ok(said),
    });
    platform.hearth(&["check", "accounts"]).says(0, &["and 0 administrators; something is to be done for 0"]);
}
