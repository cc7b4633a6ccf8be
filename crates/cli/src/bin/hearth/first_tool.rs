//! The first people and the first tools of a new instance, made the way everybody else makes theirs: by the
//! directory, and over ssh on the bastion.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use hearth_core::names::{FOUROHFOUR, annotation};
use hearth_core::{Platform, ToolName};
use hearth_directory::{Connection, NewPerson, NewTool};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::Api;

use crate::host_command::Run;
use crate::instance::{Instance, service};
use crate::{kubernetes, secrets};

/// The tool that shows that everything works.
const HELLO: &str = "hello";

/// Its page.
const PAGE: &str = include_str!("hello.html");

/// The instance's directory, with the right to write. Its name is not one that the host can resolve.
pub fn connection(instance: &Instance) -> anyhow::Result<Connection> {
    let file = instance.path("platform.toml");
    let text = std::fs::read_to_string(&file)
        .with_context(|| format!("failed to read {}; `make up` writes it", file.display()))?;
    let platform = Platform::from_toml(&text).with_context(|| format!("failed to read {}", file.display()))?;
    Ok(Connection {
        url: platform.directory.url.clone(),
        ca_file: instance.path("ca.crt"),
        bind_dn: format!("cn=admin,{}", platform.directory.base),
        password_file: instance.path("secrets/directory-admin/password"),
        connect_address: Some(SocketAddr::from((instance.network.service(service::LDAP), 636))),
        platform,
    })
}

/// Makes the first people and tools that are missing; says which.
pub async fn people_and_tools(instance: &Instance) -> anyhow::Result<String> {
    let mut directory = connection(instance)?.connect().await?;
    let mut made = Vec::new();
    let (people, _) = directory.people().await?;
    for person in secrets::PEOPLE {
        if people.iter().any(|p| p.name.as_str() == *person) {
            continue;
        }
        let key = std::fs::read_to_string(instance.path(format!("keys/{person}.pub")))?;
        directory
            .create_person(&NewPerson { name: person.parse()?, full_name: None, keys: vec![key.trim().parse()?] })
            .await?;
        made.push(*person);
    }
    let tools = directory.read().await?.tools;
    let fourohfour: ToolName = FOUROHFOUR.parse()?;
    if !tools.contains_key(&fourohfour) {
        directory.create_platform_tool(&fourohfour, "Answers for names that serve nothing").await?;
        made.push(FOUROHFOUR);
    }
    let hello: ToolName = HELLO.parse()?;
    if !tools.contains_key(&hello) {
        let maintainers = secrets::PEOPLE.first().map(|p| p.parse()).transpose()?.into_iter().collect();
        directory
            .create_tool(&NewTool { name: hello, maintainers, description: Some("A first tool".to_owned()) })
            .await?;
        made.push(HELLO);
    }
    Ok(if made.is_empty() { String::new() } else { format!("made {}", made.join(", ")) })
}

/// Starts the first tool if it was never started, and waits until its page is served at the front door.
pub async fn serve(instance: &Instance, patience: Duration) -> anyhow::Result<()> {
    let client = kubernetes::client(instance).await?;
    let namespace = format!("tool-{HELLO}");
    kubernetes::namespace_annotated(&client, &namespace, annotation::UID, patience).await?;
    let deployments: Api<Deployment> = Api::namespaced(client, &namespace);
    if deployments.get_opt(HELLO).await?.is_none() && !was_stopped(instance) {
        start(instance, patience).await?;
    } else if was_stopped(instance) && deployments.get_opt(HELLO).await?.is_none() {
        // Its maintainer stopped it, and `up` does not know better.
        return Ok(());
    }
    let answered = until(patience, || answer(instance).is_some_and(|status| status == "200")).await;
    if !answered {
        let last = answer(instance).unwrap_or_else(|| "no answer".to_owned());
        bail!(
            "https://{HELLO}.{}/ does not serve its page ({last}); see {} and `kubectl -n {namespace} describe pods`",
            instance.domain(),
            instance.text("log/proxy.log")
        );
    }
    Ok(())
}

/// Whether the tool was started once, as its state file in the home tells.
fn was_stopped(instance: &Instance) -> bool {
    instance.path(format!("data/project/{HELLO}/service.manifest")).exists()
}

/// What a maintainer types: become the tool, write a page, start it. Tried again until the home and the name service
/// know the new tool.
async fn start(instance: &Instance, patience: Duration) -> anyhow::Result<()> {
    let script = "mkdir -p ~/public_html && { [ -e ~/public_html/index.html ] || cat > ~/public_html/index.html; } && webservice static start";
    let ready = instance.path(format!("data/project/{HELLO}/.kube/config"));
    if !until(patience, || ready.exists()).await {
        bail!("`accounts` did not write {}; see `kubectl -n hearth-system logs deployment/accounts`", ready.display());
    }
    let mut last = String::new();
    let logged_in = until(patience, || match ssh(instance, &format!("become {HELLO} true"), "") {
        Ok(_) => true,
        Err(error) => {
            last = format!("{error:#}");
            false
        }
    });
    if !logged_in.await {
        bail!("logging in at the bastion and becoming {HELLO} does not work: {last}");
    }
    ssh(instance, &format!("become {HELLO} bash -c '{script}'"), PAGE).map(drop)
}

/// Runs a command on the bastion as the first person.
fn ssh(instance: &Instance, command: &str, input: &str) -> anyhow::Result<String> {
    let person = secrets::PEOPLE.first().context("there is no first person")?;
    let known_hosts = format!("UserKnownHostsFile={}", instance.text("keys/known_hosts"));
    Run::new("ssh")
        .args(["-p", "2222", "-i", &instance.text(format!("keys/{person}"))])
        .args(["-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "-o", "IdentitiesOnly=yes", "-o", &known_hosts])
        .args([&format!("{person}@{}", instance.place.address), command])
        .input(input)
        .output()
}

/// The status with which the front door answers for the first tool.
fn answer(instance: &Instance) -> Option<String> {
    let host = format!("{HELLO}.{}", instance.domain());
    let resolve = format!("{host}:443:{}", instance.place.address);
    Run::new("curl")
        .args(["--silent", "--max-time", "10", "--output", "/dev/null", "--write-out", "%{http_code}", "--cacert"])
        .args([&instance.text("ca.crt"), "--resolve", &resolve, &format!("https://{host}/")])
        .output()
        .ok()
}

/// Tries until it succeeds or patience is at its end; whether it did.
async fn until(patience: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let trial = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(patience, trial).await.is_ok()
}
