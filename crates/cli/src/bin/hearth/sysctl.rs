//! Kernel settings that nodes change, and how they were before.
//!
//! The settings are the machine's, not an instance's, so all instances share one note of how they were, and the last
//! one that goes down puts them back. The note lies in `/run`, which a reboot empties as it resets the settings.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::instance::{Instance, write};

/// The note that instances share.
const NOTE: &str = "/run/hearth/sysctl-before.json";

/// How settings were before the first instance came up, and which instances are up.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    before: BTreeMap<String, String>,
    instances: BTreeSet<std::path::PathBuf>,
}

/// Settings that the kubelet changes by itself.
const KUBELET: &[&str] = &[
    "vm.overcommit_memory",
    "vm.panic_on_oom",
    "kernel.panic",
    "kernel.panic_on_oops",
    "kernel.keys.root_maxkeys",
    "kernel.keys.root_maxbytes",
];

/// Notes how the settings are that the kubelet is going to change.
pub fn remember_kubelets(instance: &Instance) -> anyhow::Result<()> {
    for name in KUBELET {
        remember(instance, name)?;
    }
    Ok(())
}

/// Changes a setting, noting how it was.
pub fn set(instance: &Instance, name: &str, value: &str) -> anyhow::Result<()> {
    // Noted even if it is right already: another instance may have set it, and take it back when it goes.
    remember(instance, name)?;
    if read(name)? == value { Ok(()) } else { put(name, value) }
}

/// Raises a setting to at least `value`, noting how it was.
pub fn raise(instance: &Instance, name: &str, value: u64) -> anyhow::Result<()> {
    if read(name)?.parse::<u64>().is_ok_and(|now| now >= value) {
        Ok(())
    } else {
        set(instance, name, &value.to_string())
    }
}

/// Puts every setting back to what it was before the first change, unless another instance is still up.
pub fn restore(instance: &Instance) -> anyhow::Result<()> {
    let mut note = read_note()?;
    note.instances.remove(&instance.place.home);
    if !note.instances.is_empty() {
        return write_note(&note);
    }
    for (name, value) in &note.before {
        if read(name)? != *value {
            put(name, value)?;
        }
    }
    if Path::new(NOTE).exists() {
        std::fs::remove_file(NOTE).with_context(|| format!("failed to remove {NOTE}"))?;
    }
    Ok(())
}

/// Whether any instance on this machine is noted as up.
pub fn an_instance_is_up() -> anyhow::Result<bool> {
    Ok(!read_note()?.instances.is_empty())
}

fn remember(instance: &Instance, name: &str) -> anyhow::Result<()> {
    let mut note = read_note()?;
    let new = note.instances.insert(instance.place.home.clone());
    if new || !note.before.contains_key(name) {
        let value = read(name)?;
        note.before.entry(name.to_owned()).or_insert(value);
        write_note(&note)?;
    }
    Ok(())
}

fn read_note() -> anyhow::Result<Note> {
    match std::fs::read(NOTE) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .with_context(|| format!("{NOTE} is damaged; remove it to keep the kernel's settings as they are now")),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Note::default()),
        Err(e) => Err(e).with_context(|| format!("failed to read {NOTE}")),
    }
}

fn write_note(note: &Note) -> anyhow::Result<()> {
    write(Path::new(NOTE), serde_json::to_string_pretty(note)?, 0o644).map(drop)
}

fn proc_path(name: &str) -> std::path::PathBuf {
    Path::new("/proc/sys").join(name.replace('.', "/"))
}

fn read(name: &str) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(proc_path(name)).with_context(|| format!("the kernel has no setting {name}"))?;
    Ok(text.trim().to_owned())
}

fn put(name: &str, value: &str) -> anyhow::Result<()> {
    std::fs::write(proc_path(name), value).with_context(|| format!("failed to set {name} to {value}"))
}
