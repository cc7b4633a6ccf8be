//! What only this instance knows: passwords and ssh keys, made once and kept in its home.

use anyhow::Context;
use aws_lc_rs::digest::{SHA256, digest};

use crate::host_command::Run;
use crate::instance::{Instance, write};

/// The people of a new instance's directory.
pub const PEOPLE: &[&str] = &["member1", "member2"];

/// Makes what is missing.
pub fn ensure(instance: &Instance) -> anyhow::Result<()> {
    for name in ["directory-admin", "directory-reader", "registry-platform"] {
        let file = instance.path(format!("secrets/{name}/password"));
        if !file.exists() {
            write(&file, hex(&random()?), 0o600)?;
        }
    }
    let password = std::fs::read(instance.path("secrets/registry-platform/password"))?;
    write(&instance.path("secrets/registry-platform/sha256"), hex(digest(&SHA256, &password).as_ref()), 0o600)?;
    ssh_key(instance, "secrets/bastion-host-keys/ssh_host_ed25519_key", "bastion")?;
    for person in PEOPLE {
        ssh_key(instance, &format!("keys/{person}"), person)?;
    }
    let host_key = std::fs::read_to_string(instance.path("secrets/bastion-host-keys/ssh_host_ed25519_key.pub"))?;
    let known = format!("[{}]:2222 {}", instance.place.address, host_key);
    write(&instance.path("keys/known_hosts"), known, 0o644).map(drop)
}

/// Random bytes of the operating system.
pub fn random() -> anyhow::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).ok().context("the operating system gave no random bytes")?;
    Ok(bytes)
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn ssh_key(instance: &Instance, relative: &str, comment: &str) -> anyhow::Result<()> {
    let file = instance.path(relative);
    if file.exists() {
        return Ok(());
    }
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    Run::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f"]).args([&file]).run()
}
