//! The platform's container images: found in the cache, put on the node, pushed to the registry.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, bail};

use crate::host_command::Run;
use crate::instance::{Instance, Node, service};
use crate::node;

/// Where the platform's images live in the registry.
pub const REPOSITORY: &str = "registry.hearth.internal/hearth";

/// The image that holds a pod's namespaces, by the name that containerd is configured with.
pub const PAUSE: &str = "registry.hearth.internal/hearth/pause:latest";

/// Images that must be on the node before there is a registry.
const ON_THE_NODE: &[&str] = &["bastion", "coredns", "directory", "hearthd", "pause", "registry"];

/// Every image of the platform.
pub const ALL: &[&str] = &["bastion", "coredns", "directory", "hearthd", "pause", "python3.11", "registry", "static"];

/// An image in the cache.
#[derive(Clone, Debug)]
pub struct Image {
    /// `sha256:…`, the digest of its manifest.
    pub digest: String,
    archive: PathBuf,
}

/// The images that were built, by name.
pub fn built(instance: &Instance) -> anyhow::Result<BTreeMap<&'static str, Image>> {
    let find = |name: &&'static str| {
        let folder = instance.place.cache.join("images").join(name).join("current");
        let digest = std::fs::read_to_string(folder.join("digest"))
            .with_context(|| format!("the image {name} is not built; `make up` builds it"))?;
        Ok((*name, Image { digest: digest.trim().to_owned(), archive: folder.join("image.tar") }))
    };
    ALL.iter().map(find).collect()
}

/// Puts those images on the nodes that they need before there is a registry. Says how many were missing.
pub fn import(instance: &Instance, images: &BTreeMap<&'static str, Image>) -> anyhow::Result<String> {
    // Any node may be given any of the platform's pods, the registry's too.
    let imported = std::thread::scope(|scope| {
        let nodes: Vec<_> =
            instance.network.all_nodes().map(|node| scope.spawn(move || import_to(instance, node, images))).collect();
        nodes.into_iter().try_fold(0, |sum, node| match node.join() {
            Ok(imported) => imported.map(|imported| sum + imported),
            Err(_) => bail!("importing images stopped unexpectedly"),
        })
    })?;
    Ok(if imported == 0 { String::new() } else { format!("{imported} new") })
}

fn import_to(instance: &Instance, node: Node, images: &BTreeMap<&'static str, Image>) -> anyhow::Result<usize> {
    let ctr = |words: &[&str]| {
        Run::new(instance.built("ctr"))
            .args(["--address", &node::containerd_socket(instance, node), "--namespace", "k8s.io"])
            .args(words)
    };
    let there = ctr(&["images", "list", "--quiet"]).output()?;
    let mut imported = 0;
    for name in ON_THE_NODE {
        let image = images.get(name).with_context(|| format!("the image {name} is not built"))?;
        let reference = format!("{REPOSITORY}/{name}@{}", image.digest);
        if there.lines().any(|line| line == reference) {
            continue;
        }
        let archive = image.archive.display().to_string();
        ctr(&["images", "import", "--local", "--digests", "--base-name", &format!("{REPOSITORY}/{name}"), &archive])
            .run()?;
        if !ctr(&["images", "list", "--quiet"]).output()?.lines().any(|line| line == reference) {
            bail!(
                "{archive} was imported, but {reference} is not on the node: the archive is not what its digest says"
            );
        }
        imported += 1;
    }
    Ok(imported)
}

/// Pushes every image to the registry, those that are there already costing one request each.
pub fn push(instance: &Instance, images: &BTreeMap<&'static str, Image>) -> anyhow::Result<()> {
    let resolve = |name: &str, number| format!("{name}={}", instance.network.service(number));
    std::thread::scope(|scope| {
        let pushes: Vec<_> = images
            .iter()
            .map(|(name, image)| {
                let run = Run::new(instance.built("mkimage"))
                    .args(["push", "--to", &format!("{REPOSITORY}/{name}:latest"), "--user", "platform"])
                    .args(["--password-file", &instance.text("secrets/registry-platform/password")])
                    .args(["--ca", &instance.text("ca.crt")])
                    .args(["--resolve", &resolve("registry.hearth.internal", service::REGISTRY)])
                    .args(["--resolve", &resolve("registry-auth.hearth.internal", service::REGISTRY_AUTH)])
                    .args([&image.archive]);
                scope.spawn(move || run.output())
            })
            .collect();
        pushes.into_iter().try_for_each(|push| match push.join() {
            Ok(result) => result.map(drop),
            Err(_) => bail!("pushing an image stopped unexpectedly"),
        })
    })
}
