//! The first people and the first tools of a new instance, made the way everybody else makes theirs: by the
//! directory, and over ssh on the bastion.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use hearth_core::names::{FOUROHFOUR, annotation};
use hearth_core::{Platform, ToolName};
use hearth_directory::{Connection, NewPerson, NewTool};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::Api;

use crate::host_command::Run;
use crate::instance::{Instance, service};
use crate::patience::until_ok;
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
pub async fn people_and_tools(instance: &Instance, patience: Duration) -> anyhow::Result<String> {
    let connection = connection(instance)?;
    // Kubernetes may still tell of the directory's last run; only the directory itself knows that it answers.
    let mut directory = until_ok(patience, || connection.connect()).await?;
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
    if deployments.get_opt(HELLO).await?.is_none() {
        if instance.path(format!("data/project/{HELLO}/service.manifest")).exists() {
            // It was started once and then stopped by its maintainer, and `up` does not know better.
            return Ok(());
        }
        start(instance, patience).await?;
    }
    let served = || async {
        let status = answer(instance)?;
        if status == "200" { Ok(()) } else { Err(anyhow::anyhow!("it answers with status {status}")) }
    };
    until_ok(patience, served).await.with_context(|| {
        format!(
            "https://{HELLO}.{}/ does not serve its page; see {} and `kubectl -n {namespace} describe pods`",
            instance.domain(),
            instance.text("log/proxy.log")
        )
    })
}

/// What a maintainer types: become the tool, write a page, start it. Tried again until the home and the name service
/// know the new tool.
async fn start(instance: &Instance, patience: Duration) -> anyhow::Result<()> {
    let script = "mkdir -p ~/public_html && { [ -e ~/public_html/index.html ] || cat > ~/public_html/index.html; } && webservice static start";
    let ready = instance.path(format!("data/project/{HELLO}/.kube/config"));
    let written = || async { std::fs::metadata(&ready).with_context(|| format!("{} is not there", ready.display())) };
    until_ok(patience, written)
        .await
        .context("`accounts` did not finish; see `kubectl -n hearth-system logs deployment/accounts`")?;
    until_ok(patience, || async { ssh(instance, &format!("become {HELLO} true"), "") })
        .await
        .with_context(|| format!("logging in at the bastion and becoming {HELLO} does not work"))?;
    ssh(instance, &format!("become {HELLO} bash -c '{script}'"), PAGE).map(drop)
}

/// Waits until people can log in.
pub async fn bastion(instance: &Instance, patience: Duration) -> anyhow::Result<()> {
    until_ok(patience, || async { ssh(instance, "true", "") }).await.map(drop).with_context(|| {
        let log = instance.text("log/bastion-port.log");
        format!("logging in at the bastion does not work; see {log} and `kubectl -n hearth-system logs deployment/bastion --all-containers`")
    })
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
fn answer(instance: &Instance) -> anyhow::Result<String> {
    let host = format!("{HELLO}.{}", instance.domain());
    let resolve = format!("{host}:443:{}", instance.place.address);
    Run::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--max-time",
            "10",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}",
            "--cacert",
        ])
        .args([&instance.text("ca.crt"), "--resolve", &resolve, &format!("https://{host}/")])
        .output()
}
