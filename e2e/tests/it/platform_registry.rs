//! Who may pull and push what in the platform's registry.

use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::platform::{Platform, Said, platform, said};

/// The registry's and its token service's addresses, as the host reaches them.
fn addresses(platform: &Platform) -> [(&'static str, String); 2] {
    let instance: Value = serde_json::from_slice(&std::fs::read(platform.path("instance.json")).unwrap()).unwrap();
    let address = |number: u8| format!("10.{}.128.{number}", instance["octet"]);
    [("registry.hearth.internal", address(50)), ("registry-auth.hearth.internal", address(51))]
}

/// Pushes the smallest of the platform's images somewhere else.
fn push(platform: &Platform, to: &str, user: &str, password: &str) -> Said {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, password).unwrap();
    let mut mkimage = Command::new(platform.cache.join("bin/mkimage"));
    mkimage.args(["push", "--to", &format!("registry.hearth.internal/{to}"), "--user", user, "--password-file"]);
    mkimage.arg(&file).args(["--ca", &platform.path("ca.crt")]);
    for (name, address) in addresses(platform) {
        mkimage.args(["--resolve", &format!("{name}={address}")]);
    }
    mkimage.arg(platform.cache.join("images/pause/current/image.tar"));
    said(mkimage, "")
}

/// Asks for a URL of the registry; the status, and the body.
fn ask(platform: &Platform, url: &str, token: &str) -> (String, Value) {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "10", "--cacert", &platform.path("ca.crt")]);
    curl.args(["--write-out", "\n%{http_code}", "--header", "Accept: application/vnd.oci.image.manifest.v1+json"]);
    for (name, address) in addresses(platform) {
        curl.args(["--resolve", &format!("{name}:443:{address}")]);
    }
    if !token.is_empty() {
        curl.args(["--header", &format!("Authorization: Bearer {token}")]);
    }
    curl.arg(url);
    let said = said(curl, "").success(url);
    let (body, status) = said.out.rsplit_once('\n').unwrap();
    (status.to_owned(), serde_json::from_str(body).unwrap_or_default())
}

/// Whether a manifest is there for somebody without a login.
pub(crate) fn is_pulled(platform: &Platform, repository: &str, tag: &str) -> bool {
    let scope = format!("service=registry.hearth.internal&scope=repository:{repository}:pull");
    let (status, token) = ask(platform, &format!("https://registry-auth.hearth.internal/token?{scope}"), "");
    assert_eq!(status, "200", "{token}");
    let token = token["token"].as_str().expect("a token");
    let url = format!("https://registry.hearth.internal/v2/{repository}/manifests/{tag}");
    assert_eq!(ask(platform, &url, "").0, "401", "without a token there is nothing");
    let (status, manifest) = ask(platform, &url, token);
    status == "200" && manifest["layers"].is_array()
}

/// Pushes an image with the login that stands in the tool's home.
pub(crate) fn push_as_tool(platform: &Platform, tool: &str, to: &str) -> Said {
    let said = platform.as_tool(tool, "cat ~/.docker/config.json").success("the login");
    let login: Value = serde_json::from_str(&said.out).unwrap();
    let auth = login["auths"]["registry.hearth.internal"]["auth"].as_str().expect("a login");
    let auth = String::from_utf8(STANDARD.decode(auth).unwrap()).unwrap();
    let (user, password) = auth.split_once(':').unwrap();
    assert_eq!(user, format!("tool-{tool}"));
    push(platform, to, user, password)
}

#[test]
fn anyone_pulls() {
    let (platform, _calm) = platform();
    assert!(is_pulled(platform, "hearth/static", "latest"));
    assert!(!is_pulled(platform, "hearth/static", "no-such-tag"));
}

#[test]
fn a_tool_pushes_to_its_own_corner() {
    let (platform, _calm) = platform();
    platform.tool("pusher", "member1");
    platform.tool("pusher-other", "member1");
    push_as_tool(platform, "pusher", "tool-pusher/app:1").success("a push to the tool's own corner");
    assert!(is_pulled(platform, "tool-pusher/app", "1"));
    for elsewhere in ["hearth/static:mine", "tool-pusher-other/app:1", "app:1", "tool-pusher2/app:1"] {
        let said = push_as_tool(platform, "pusher", elsewhere);
        let denied = said.err.contains("UNAUTHORIZED") || said.err.contains("DENIED");
        assert!(said.code == Some(1) && denied, "{elsewhere}: {said:?}");
    }
    // It is an image like any other: the cluster runs it, by the tool's own hand.
    let run = ["run", "own", "--image=registry.hearth.internal/tool-pusher/app:1"];
    platform.kubectl("pusher", &run, "").success("kubectl run");
    platform.kubectl("pusher", &["wait", "--for=condition=Ready", "pod/own", "--timeout=60s"], "").success("ready");
    platform.kubectl("pusher", &["delete", "pod", "own", "--now", "--wait=false"], "").success("kubectl delete");
}

#[test]
fn a_wrong_password_is_refused() {
    let (platform, _calm) = platform();
    for user in ["tool-hello", "platform", "tool-nobody"] {
        let said = push(platform, "tool-hello/app:1", user, "guess");
        said.says(1, &[&format!("the password of {user} is wrong")]);
    }
}
