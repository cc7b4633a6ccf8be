//! Kernel settings that a node changes, and how they were before.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;

use crate::instance::{Instance, write};

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
    if read(name)? != value {
        remember(instance, name)?;
        put(name, value)?;
    }
    Ok(())
}

/// Raises a setting to at least `value`, noting how it was.
pub fn raise(instance: &Instance, name: &str, value: u64) -> anyhow::Result<()> {
    if read(name)?.parse::<u64>().is_ok_and(|now| now >= value) {
        Ok(())
    } else {
        set(instance, name, &value.to_string())
    }
}

/// Puts every setting back to what it was before the first change.
pub fn restore(instance: &Instance) -> anyhow::Result<()> {
    let notes = notes(instance)?;
    for (name, value) in &notes {
        if read(name)? != *value {
            put(name, value)?;
        }
    }
    if !notes.is_empty() {
        std::fs::remove_file(file(instance))?;
    }
    Ok(())
}

/// Whether any instance on this machine is noted as up.
pub fn an_instance_is_up() -> anyhow::Result<bool> {
    Ok(!read_note()?.instances.is_empty())
}

fn remember(instance: &Instance, name: &str) -> anyhow::Result<()> {
    let mut notes = notes(instance)?;
    if !notes.contains_key(name) {
        notes.insert(name.to_owned(), read(name)?);
        write(&file(instance), serde_json::to_string_pretty(&notes)?, 0o644)?;
    }
    Ok(())
}

fn notes(instance: &Instance) -> anyhow::Result<BTreeMap<String, String>> {
    match std::fs::read(file(instance)) {
        Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| {
            format!("{} is damaged; remove it to keep the settings as they are", file(instance).display())
        }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(e) => Err(e).with_context(|| format!("failed to read {}", file(instance).display())),
    }
}

fn file(instance: &Instance) -> std::path::PathBuf {
    instance.path("run/sysctl-before.json")
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
