//! `hearth tool adopt`: hands namespaces that another system made for tools over to `accounts`.
//!
//! A namespace that does not carry our label is never touched by `accounts`. Adopting sets that label, on the namespace
//! and on the objects in it that have the names of ours; then `accounts` makes of them what the directory says. What
//! else is in the namespace stays; what of it gives somebody rights there is shown, since it outlives the adoption.

use std::fmt::Write as _;

use anyhow::{Context, Result, bail, ensure};
use hearth_core::account::objects;
use hearth_core::account::state::Corner;
use hearth_core::directory_entry::{Snapshot, Tool};
use hearth_core::names::{self, annotation};
use hearth_core::{Platform, ToolName};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{LimitRange, Namespace, ResourceQuota};
use k8s_openapi::api::rbac::v1::RoleBinding;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::listing::printable;

/// A namespace that may be handed over, and what in it.
struct Candidate<'a> {
    tool: &'a Tool,
    namespace: PartialObjectMeta<Namespace>,
    has_quota: bool,
    has_limits: bool,
    has_binding: bool,
    /// Role bindings that stay, and whom they give what.
    others: Vec<String>,
}

/// Which tools to adopt.
pub struct Wanted {
    /// These, or all that can be if there are none.
    pub names: Vec<ToolName>,
    /// Do it, after showing it.
    pub yes: bool,
}

/// Shows what adopting would hand over, and does it where that is wanted.
pub async fn adopt(client: Client, platform: &Platform, snapshot: &Snapshot, wanted: Wanted) -> Result<String> {
    let Wanted { names, yes } = wanted;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let listed = namespaces.list_metadata(&ListParams::default()).await.context("failed to list namespaces")?;
    let mut candidates = Vec::new();
    for namespace in listed.items {
        let Some(name) = ToolName::of_namespace(&namespace.name_any()) else { continue };
        if !names.is_empty() && !names.contains(&name) {
            continue;
        }
        match snapshot.tools.get(&name) {
            Some(tool) if !is_ours(&namespace.metadata) => candidates.push(look(&client, tool, namespace).await?),
            Some(_) if names.contains(&name) => bail!("the namespace {} is the platform's already", name.namespace()),
            None if names.contains(&name) => {
                bail!("there is no usable tool '{name}' in the directory; 'hearth tool show {name}' says why")
            }
            _ => (),
        }
    }
    let is_found = |name: &&ToolName| candidates.iter().any(|candidate| candidate.tool.name == **name);
    if let Some(missing) = names.iter().find(|name| !is_found(name)) {
        bail!("there is no namespace {} to adopt; a tool without one gets its own", missing.namespace());
    }
    if candidates.is_empty() {
        return Ok("There is nothing to adopt: every tool's namespace is the platform's.\n".to_owned());
    }
    let mut text = String::new();
    for candidate in &candidates {
        candidate.show(platform, &mut text)?;
    }
    if !yes {
        text.push_str("Nothing was changed. With --yes this is done.\n");
        return Ok(text);
    }
    for candidate in &candidates {
        candidate.hand_over(&client).await?;
    }
    writeln!(text, "Handed over {}; `hearth check accounts` tells what is left to do.", candidates.len())?;
    Ok(text)
}

async fn look<'a>(client: &Client, tool: &'a Tool, namespace: PartialObjectMeta<Namespace>) -> Result<Candidate<'a>> {
    let place = namespace.name_any();
    if let Some(uid) = namespace.annotations().get(annotation::UID) {
        ensure!(
            *uid == tool.uid.to_string(),
            "the namespace {place} is of user number {uid}, the directory says {}: it is another tool's",
            tool.uid
        );
    }
    ensure!(namespace.metadata.deletion_timestamp.is_none(), "the namespace {place} is being deleted");
    let bindings: Api<RoleBinding> = Api::namespaced(client.clone(), &place);
    let bindings = bindings.list(&ListParams::default()).await;
    let bindings = bindings.with_context(|| format!("failed to list role bindings in {place}"))?.items;
    let own = objects::binding_name(&tool.name);
    let (ours, others): (Vec<_>, Vec<_>) = bindings.into_iter().partition(|binding| binding.name_any() == own);
    let others = others.iter().map(|binding| {
        let subjects = binding.subjects.iter().flatten();
        let whom: Vec<String> = subjects.map(|subject| format!("{} {}", subject.kind, subject.name)).collect();
        let RoleBinding { role_ref, .. } = binding;
        format!("{} gives {} {} to {}", binding.name_any(), role_ref.kind, role_ref.name, whom.join(", "))
    });
    Ok(Candidate {
        tool,
        has_quota: exists::<ResourceQuota>(client, &place, &place).await?,
        has_limits: exists::<LimitRange>(client, &place, &place).await?,
        has_binding: !ours.is_empty(),
        others: others.collect(),
        namespace,
    })
}

async fn exists<K>(client: &Client, place: &str, name: &str) -> Result<bool>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let found = Api::<K>::namespaced(client.clone(), place).get_metadata_opt(name).await;
    Ok(found.with_context(|| format!("failed to read the {} {place}/{name}", K::kind(&())))?.is_some())
}

fn is_ours(metadata: &ObjectMeta) -> bool {
    Corner { labels: metadata.labels.clone().unwrap_or_default().into(), ..Corner::default() }.is_ours()
}

// === impl Candidate ===

impl Candidate<'_> {
    fn show(&self, platform: &Platform, text: &mut String) -> std::fmt::Result {
        let Self { tool, has_quota, has_limits, has_binding, others, .. } = self;
        let name = &tool.name;
        let mut taken = vec![format!("namespace {}", name.namespace())];
        for (is_there, what) in [
            (has_quota, format!("ResourceQuota {}", name.namespace())),
            (has_limits, format!("LimitRange {}", name.namespace())),
            (has_binding, format!("RoleBinding {}", objects::binding_name(name))),
        ] {
            if *is_there {
                taken.push(what);
            }
        }
        writeln!(text, "{name}: handed over and made as the directory says: {}", taken.join(", "))?;
        writeln!(text, "  its home {} is used if user number {} owns it", platform.homes.of(name), tool.uid)?;
        for other in others {
            writeln!(text, "  stays, and goes on giving rights: RoleBinding {}", printable(other))?;
        }
        Ok(())
    }

    /// The objects first: from the moment that the namespace is ours, `accounts` writes to them.
    async fn hand_over(&self, client: &Client) -> Result<()> {
        let place = self.tool.name.namespace();
        if self.has_quota {
            label::<ResourceQuota>(client, &place, &place).await?;
        }
        if self.has_limits {
            label::<LimitRange>(client, &place, &place).await?;
        }
        if self.has_binding {
            label::<RoleBinding>(client, &place, &objects::binding_name(&self.tool.name)).await?;
        }
        let patch = json!({ "metadata": {
            "uid": self.namespace.metadata.uid,
            "labels": { names::label::MANAGED_BY: names::FIELD_MANAGER },
            "annotations": { annotation::UID: self.tool.uid.to_string() },
        } });
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let patched = namespaces.patch(&place, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.with_context(|| format!("failed to hand over the namespace {place}")).map(drop)
    }
}

async fn label<K>(client: &Client, place: &str, name: &str) -> Result<()>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let patch = json!({ "metadata": { "labels": { names::label::MANAGED_BY: names::FIELD_MANAGER } } });
    let api: Api<K> = Api::namespaced(client.clone(), place);
    let patched = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
    patched.with_context(|| format!("failed to hand over the {} {place}/{name}", K::kind(&()))).map(drop)
}
