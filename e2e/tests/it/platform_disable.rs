//! Disabling a tool takes everything from it at once and loses nothing.

use crate::platform::{SOON, eventually, platform};

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
