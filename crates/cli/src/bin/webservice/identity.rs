//! Who runs the command: a tool, by its account.
//!
//! This is for clear messages only. What the command may do is decided by the API server, from the certificate in
//! the tool's kubeconfig, and by admission, from the namespace; a wrong name or number here gains nothing.

use std::path::{Path, PathBuf};

use hearth_core::{Platform, ToolName};

use crate::exit::{Failure, Outcome};

/// Overrides the account's name, for a shell whose environment lacks it and for tests: the tool's bare name.
const TOOL_VARIABLE: &str = "HEARTH_TOOL";

/// Where environments keep the account's name; `become` sets both.
const ACCOUNT_VARIABLES: [&str; 2] = ["LOGNAME", "USER"];

/// The tool that runs the command.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) tool: ToolName,
    pub(crate) uid: u32,
    pub(crate) home: PathBuf,
    pub(crate) platform: Platform,
}

/// Finds out who runs the command.
pub(crate) fn resolve(platform_file: &Path) -> Outcome<Identity> {
    let text = std::fs::read_to_string(platform_file).map_err(|e| {
        let file = platform_file.display();
        Failure::environment(format!(
            "failed to read the platform's configuration {file}: {e}; webservice runs on the platform's bastion"
        ))
    })?;
    let platform =
        Platform::from_toml(&text).map_err(|e| Failure::environment(format!("{}: {e}", platform_file.display())))?;
    let uid = rustix::process::geteuid().as_raw();
    if uid < platform.tools.first_uid {
        return Err(Failure::environment(
            "webservice is run by a tool, not by a person; run `become TOOL` first, then webservice again",
        ));
    }
    let tool = tool(&platform.directory.project)?;
    let home = PathBuf::from(platform.homes.of(&tool));
    if !home.is_dir() {
        return Err(Failure::environment(format!(
            "the tool's home {} is not there; if the tool was made just now, wait a few seconds, or else tell the platform's operators",
            home.display()
        )));
    }
    Ok(Identity { tool, uid, home, platform })
}

/// The tool's name, from the account's.
fn tool(project: &str) -> Outcome<ToolName> {
    let parse = |name: &str| {
        name.parse::<ToolName>().map_err(|e| {
            Failure::environment(format!(
                "web services are not available for this tool: {e}; ask the platform's operators for a tool of another name"
            ))
        })
    };
    if let Ok(name) = std::env::var(TOOL_VARIABLE) {
        return parse(&name);
    }
    let of_account = |account: &str| account.strip_prefix(project)?.strip_prefix('.').map(str::to_owned);
    let from_environment = ACCOUNT_VARIABLES.iter().filter_map(|name| std::env::var(name).ok());
    match from_environment.chain(account_of_process()).find_map(|account| of_account(&account)) {
        Some(name) => parse(&name),
        None => Err(Failure::environment(format!(
            "this account is not a tool's: tools' accounts are named {project}.TOOL; run `become TOOL` first, then webservice again"
        ))),
    }
}

/// The account's name as the system knows it. A program of its own is asked, because the name service needs dynamic
/// libraries, which this static program has not.
fn account_of_process() -> impl Iterator<Item = String> {
    std::iter::once_with(|| {
        let output = std::process::Command::new("/usr/bin/id").arg("-un").output().ok()?;
        String::from_utf8(output.stdout).ok().map(|name| name.trim().to_owned())
    })
    .flatten()
}
