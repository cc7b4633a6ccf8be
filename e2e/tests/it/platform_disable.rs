//! Disabling a tool takes everything from it at once and loses nothing.

use crate::platform::{SOON, disturbed, eventually, platform};

#[test]
fn a_disabled_tool_stops_and_comes_back() {
    let (platform, _calm) = platform();
    platform.tool("napping", "member1");
    platform.serve("napping", "awake");
    platform.kubectl("napping", &["create", "configmap", "kept"], "").success("an object");
    assert_eq!(platform.page("napping").body, "awake\n");
    // A certificate that somebody put aside must be worth nothing either.
    let aside = tempfile::tempdir().unwrap();
    let old = aside.path().join("config");
    std::fs::copy(platform.path("data/project/napping/.kube/config"), &old).unwrap();
    let old = old.display().to_string();

    platform.hearth(&["tool", "disable", "napping"]).says(0, &["is disabled", "hearth tool enable napping"]);
    eventually(SOON, "the rights are gone", || {
        let said = platform.kubectl_with(&old, &["get", "pods"], "");
        if said.err.contains("Forbidden") { Ok(()) } else { Err(format!("{said:?}")) }
    });
    platform.answers("napping", 503, "This tool is disabled");
    eventually(SOON, "nobody becomes the tool", || {
        let said = platform.ssh("member1", "become napping true", "");
        if said.code == Some(1) { Ok(()) } else { Err(format!("{said:?}")) }
    });
    let said = platform.hearth(&["tool", "show", "napping"]).success("hearth tool show");
    assert!(said.out.contains("disabled, kept until"), "{said:?}");

    platform.hearth(&["tool", "enable", "napping"]).says(0, &["is enabled again"]);
    platform.answers("napping", 200, "awake");
    eventually(SOON, "the tool is used again", || {
        let said = platform.ssh("member1", "become napping kubectl get configmap kept", "");
        if said.code == Some(0) { Ok(()) } else { Err(format!("{said:?}")) }
    });
    platform.as_tool("napping", "webservice status").says(0, &["Your webservice of type static is"]);
}

#[test]
fn a_deleted_tool_goes_into_the_archive_and_is_forgotten() {
    let (platform, _alone) = disturbed();
    platform.tool("gone", "member1");
    platform.as_tool("gone", "echo mine > kept").success("a file");
    platform.hearth(&["tool", "delete", "gone"]).says(0, &["is marked for deletion"]);
    platform.hearth(&["tool", "forget", "gone"]).says(1, &["the tool 'gone' has its namespace still"]);

    let file = platform.path("platform.toml");
    let before = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{before}\n[tools]\ngrace_days = 0\n")).unwrap();
    platform.up();
    let namespace = ["get", "namespace", "tool-gone", "--ignore-not-found", "-o", "name"];
    eventually(SOON, "the namespace is gone", || match platform.admin(&namespace).success("the namespace").out {
        none if none.is_empty() => Ok(()),
        some => Err(some),
    });
    assert!(!std::path::Path::new(&platform.path("data/project/gone")).exists());
    let archive = std::fs::read_dir(platform.path("data/project/.archive")).unwrap().map(|entry| entry.unwrap().path());
    let its = |path: &std::path::PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("gone.");
    let home = archive.into_iter().find(its).expect("the archived home");
    assert_eq!(std::fs::read_to_string(home.join("kept")).unwrap(), "mine\n");

    platform.hearth(&["tool", "forget", "gone"]).says(0, &["The tool 'gone' is forgotten, and its name is free"]);
    platform.hearth(&["tool", "show", "gone"]).says(1, &["there is no tool 'gone'"]);
    std::fs::write(&file, before).unwrap();
    platform.up();
    platform.tool("gone", "member1");
    platform.as_tool("gone", "test ! -e kept").success("it is another tool");
}

#[test]
fn a_revoked_key_is_refused_at_once_and_another_works() {
    let (platform, _calm) = platform();
    platform.tool("leaky", "member1");
    platform.serve("leaky", "open");
    let aside = tempfile::tempdir().unwrap();
    let login = platform.path("data/project/leaky/.docker/config.json");
    let (old, old_login) = (aside.path().join("config"), std::fs::read_to_string(&login).unwrap());
    std::fs::copy(platform.path("data/project/leaky/.kube/config"), &old).unwrap();
    let old = old.display().to_string();
    platform.kubectl_with(&old, &["get", "pods"], "").success("the old key before");

    platform.hearth(&["tool", "revoke", "leaky"]).says(0, &["'leaky' open nothing any more"]);
    let said = platform.kubectl_with(&old, &["get", "pods"], "");
    assert!(said.err.contains("Forbidden"), "{said:?}");
    assert_ne!(std::fs::read_to_string(&login).unwrap(), old_login);
    platform.ssh("member1", "become leaky kubectl get pods", "").success("the new key");
    platform.answers("leaky", 200, "open");
    platform.as_tool("leaky", "webservice restart").success("webservice restart");

    platform.hearth(&["tool", "revoke", "nosuchtool"]).says(1, &["there is no usable tool 'nosuchtool'"]);
    platform.hearth(&["tool", "disable", "leaky"]).says(0, &["is disabled"]);
    platform.hearth(&["tool", "revoke", "leaky"]).says(1, &["is disabled: its key and password open nothing"]);
}
