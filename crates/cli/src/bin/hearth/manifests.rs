//! Rendered manifests and the cluster: what differs is applied, what is no longer rendered is deleted.
//!
//! An object is written only if it differs from what is rendered, for writing is what costs: the API server parses and
//! compiles each of the rulebook's policies anew. It is as rendered if every rendered value stands in it, so that nobody
//! has changed one, and every field that was applied before is rendered still, so that none is to be taken out. Which
//! those are, the API server keeps for server-side apply.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use serde_json::Value;

use crate::host_command::Run;
use crate::instance::Instance;

/// How many requests are under way at once.
const AT_ONCE: usize = 8;

/// How long the API server may take to act on a policy that was applied, and the pause between two trials.
const IN_EFFECT: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(200);

/// A kind that manifests may hold.
struct Kind {
    group: &'static str,
    name: &'static str,
    plural: &'static str,
    namespaced: bool,
    /// Kinds of a lower stage are written first: what runs needs what it runs with, and a policy is for all namespaces
    /// that its binding does not leave out.
    stage: u8,
}

const fn kind(group: &'static str, name: &'static str, plural: &'static str, namespaced: bool, stage: u8) -> Kind {
    Kind { group, name, plural, namespaced, stage }
}

/// Every kind of our manifests. One that is no longer rendered stays here while instances may have objects of it.
const KINDS: &[Kind] = &[
    kind("", "Namespace", "namespaces", false, 0),
    kind("", "ConfigMap", "configmaps", true, 1),
    kind("", "Secret", "secrets", true, 1),
    kind("", "Service", "services", true, 1),
    kind("", "ServiceAccount", "serviceaccounts", true, 1),
    kind("networking.k8s.io", "IngressClass", "ingressclasses", false, 1),
    kind("networking.k8s.io", "NetworkPolicy", "networkpolicies", true, 1),
    kind("rbac.authorization.k8s.io", "ClusterRole", "clusterroles", false, 1),
    kind("rbac.authorization.k8s.io", "ClusterRoleBinding", "clusterrolebindings", false, 1),
    kind("rbac.authorization.k8s.io", "Role", "roles", true, 1),
    kind("rbac.authorization.k8s.io", "RoleBinding", "rolebindings", true, 1),
    kind("admissionregistration.k8s.io", "MutatingAdmissionPolicy", "mutatingadmissionpolicies", false, 2),
    kind("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings", false, 1),
    kind("admissionregistration.k8s.io", "ValidatingAdmissionPolicy", "validatingadmissionpolicies", false, 2),
    kind(
        "admissionregistration.k8s.io",
        "ValidatingAdmissionPolicyBinding",
        "validatingadmissionpolicybindings",
        false,
        1,
    ),
    kind("admissionregistration.k8s.io", "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", false, 3),
    kind("apps", "DaemonSet", "daemonsets", true, 3),
    kind("apps", "Deployment", "deployments", true, 3),
    kind("apps", "StatefulSet", "statefulsets", true, 3),
];

impl Kind {
    fn resource(&self) -> ApiResource {
        ApiResource {
            group: self.group.to_owned(),
            version: "v1".to_owned(),
            api_version: if self.group.is_empty() { "v1".to_owned() } else { format!("{}/v1", self.group) },
            kind: self.name.to_owned(),
            plural: self.plural.to_owned(),
        }
    }

    fn api(&self, client: &kube::Client, namespace: Option<&str>) -> Api<DynamicObject> {
        match namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &self.resource()),
            None => Api::all_with(client.clone(), &self.resource()),
        }
    }

    /// Whether objects that are no longer rendered are deleted. A namespace would take everything in it along.
    fn is_pruned(&self) -> bool {
        self.name != "Namespace"
    }
}

/// Which object: kind, namespace, name.
type Key = (usize, Option<String>, String);

/// A folder's objects, as they shall be.
pub struct Manifests {
    /// Whose fields these are; one for each folder, so that none deletes another's.
    manager: &'static str,
    objects: Vec<(Key, Value)>,
}

impl Manifests {
    /// What `kubectl apply -k` would apply.
    pub fn build(instance: &Instance, folder: &str, manager: &'static str) -> anyhow::Result<Self> {
        let text = Run::new(instance.built("kubectl")).args(["kustomize", &instance.text(folder)]).output()?;
        let objects: Vec<Value> = serde_saphyr::from_multiple(&text).context("failed to read what kustomize made")?;
        Self::of(objects, manager)
    }

    fn of(objects: Vec<Value>, manager: &'static str) -> anyhow::Result<Self> {
        let objects = objects.into_iter().map(|object| Ok((key(&object)?, unfolded(object))));
        let mut objects = objects.collect::<anyhow::Result<Vec<_>>>()?;
        objects.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(Self { manager, objects })
    }

    /// Applies what differs and deletes what this folder's manager once applied and no longer renders. Says how many.
    pub async fn apply(&self, client: &kube::Client) -> anyhow::Result<String> {
        let there = self.there(client).await?;
        let differing: Vec<_> = self
            .objects
            .iter()
            .filter(|(key, rendered)| !there.iter().any(|(at, live)| at == key && self.is_as_rendered(live, rendered)))
            .collect();
        for stage in KINDS.iter().map(|kind| kind.stage).collect::<BTreeSet<_>>() {
            let of_stage =
                differing.iter().filter(|((at, ..), _)| KINDS.get(*at).is_some_and(|kind| kind.stage == stage));
            futures::stream::iter(of_stage.map(|(key, rendered)| self.write(client, key, rendered)))
                .buffer_unordered(AT_ONCE)
                .try_collect::<Vec<()>>()
                .await?;
        }
        let mut deleted = 0;
        for (key, live) in &there {
            if self.is_left_over(key, live) {
                delete(client, key).await?;
                deleted += 1;
            }
        }
        Ok(match (differing.len(), deleted) {
            (0, 0) => String::new(),
            (applied, 0) => format!("{applied} applied"),
            (applied, deleted) => format!("{applied} applied, {deleted} no longer rendered and deleted"),
        })
    }

    /// What the cluster has where these manifests write. Namespaces, of which each tool has one, by name alone.
    async fn there(&self, client: &kube::Client) -> anyhow::Result<Vec<(Key, DynamicObject)>> {
        let namespaces: BTreeSet<&str> = self.objects.iter().filter_map(|((_, at, _), _)| at.as_deref()).collect();
        let mut places = Vec::new();
        for (index, kind) in KINDS.iter().enumerate() {
            if !kind.is_pruned() {
                let named = self.objects.iter().filter(|((of, ..), _)| *of == index);
                places.extend(named.map(|((.., name), _)| (index, None, Some(name.as_str()))));
            } else if kind.namespaced {
                places.extend(namespaces.iter().map(|namespace| (index, Some(*namespace), None)));
            } else {
                places.push((index, None, None));
            }
        }
        let reads = places.into_iter().map(|(index, namespace, name)| read(client, index, namespace, name));
        let read = futures::stream::iter(reads).buffer_unordered(AT_ONCE).try_collect::<Vec<_>>().await?;
        Ok(read.into_iter().flatten().collect())
    }

    /// Whether applying a rendered object would change nothing.
    fn is_as_rendered(&self, live: &DynamicObject, rendered: &Value) -> bool {
        let (Some(Some(applied)), Ok(live)) = (self.applied(live), serde_json::to_value(live)) else { return false };
        // The objects of a list do not say their version and kind.
        let mut told = rendered.as_object().into_iter().flatten().filter(|(f, _)| *f != "apiVersion" && *f != "kind");
        all_rendered(&applied.0, rendered)
            && told.all(|(field, value)| contains(live.get(field).unwrap_or(&Value::Null), value))
    }

    /// Whether an object was applied by this manager and is not rendered any more.
    fn is_left_over(&self, key: &Key, live: &DynamicObject) -> bool {
        KINDS.get(key.0).is_some_and(Kind::is_pruned)
            && self.applied(live).is_some()
            && !self.objects.iter().any(|(rendered, _)| rendered == key)
    }

    /// The fields of an object that this manager applied, if it did.
    fn applied<'a>(&self, live: &'a DynamicObject) -> Option<Option<&'a FieldsV1>> {
        let mut entries = live.metadata.managed_fields.iter().flatten();
        let ours = |entry: &&ManagedFieldsEntry| {
            entry.manager.as_deref() == Some(self.manager) && entry.operation.as_deref() == Some("Apply")
        };
        entries.find(ours).map(|entry| entry.fields_v1.as_ref())
    }

    async fn write(&self, client: &kube::Client, key: &Key, rendered: &Value) -> anyhow::Result<()> {
        let (index, namespace, name) = key;
        let kind = KINDS.get(*index).context("an object of no kind")?;
        let parameters = PatchParams::apply(self.manager).force();
        let (api, began) = (kind.api(client, namespace.as_deref()), Instant::now());
        loop {
            let applied = api.patch(name, &parameters, &Patch::Apply(rendered)).await;
            match applied {
                // What a policy allows since an upgrade, the API server still refuses for a moment.
                Err(error) if began.elapsed() < IN_EFFECT && is_of_our_policy(&error) => {
                    tokio::time::sleep(PAUSE).await;
                }
                applied => {
                    return applied.map(drop).with_context(|| format!("failed to apply the {} {name}", kind.name));
                }
            }
        }
    }
}

/// Whether one of our policies refused a write.
fn is_of_our_policy(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    status.message.contains("ValidatingAdmissionPolicy 'hearth-")
}

/// The objects of a kind in a namespace or, without one, in the cluster; or one of them.
async fn read(
    client: &kube::Client,
    index: usize,
    namespace: Option<&str>,
    name: Option<&str>,
) -> anyhow::Result<Vec<(Key, DynamicObject)>> {
    let kind = KINDS.get(index).context("an object of no kind")?;
    let api = kind.api(client, namespace);
    let live = match name {
        Some(name) => api.get_opt(name).await.map(Vec::from_iter),
        None => api.list(&ListParams::default()).await.map(|list| list.items),
    };
    let live = live.with_context(|| format!("failed to read the cluster's {}", kind.plural))?;
    let key =
        |live: &DynamicObject| (index, live.metadata.namespace.clone(), live.metadata.name.clone().unwrap_or_default());
    Ok(live.into_iter().map(|live| (key(&live), live)).collect())
}

async fn delete(client: &kube::Client, (index, namespace, name): &Key) -> anyhow::Result<()> {
    let kind = KINDS.get(*index).context("an object of no kind")?;
    match kind.api(client, namespace.as_deref()).delete(name, &DeleteParams::background()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error).with_context(|| format!("failed to delete the {} {name}", kind.name)),
    }
}

fn key(object: &Value) -> anyhow::Result<Key> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let (version, name) = (text("/apiVersion").unwrap_or_default(), text("/kind").unwrap_or_default());
    let index = KINDS.iter().position(|kind| kind.resource().api_version == version && kind.name == name);
    let Some(index) = index else { bail!("the manifests hold a {version} {name}, which `up` does not know") };
    let name = text("/metadata/name").with_context(|| format!("a {name} of the manifests has no name"))?.to_owned();
    let namespace = text("/metadata/namespace").map(ToOwned::to_owned);
    if namespace.is_some() != KINDS.get(index).is_some_and(|kind| kind.namespaced) {
        bail!("{name} of the manifests has a namespace where its kind has none, or none where it needs one");
    }
    Ok((index, namespace, name))
}

/// Kustomize folds the long values of a Secret into lines, which are no part of base64.
fn unfolded(mut object: Value) -> Value {
    if object.get("kind").is_some_and(|kind| kind == "Secret") {
        for value in
            object.get_mut("data").and_then(Value::as_object_mut).into_iter().flat_map(|data| data.values_mut())
        {
            if let Value::String(text) = value {
                text.retain(|c| !c.is_ascii_whitespace());
            }
        }
    }
    object
}

/// Whether all fields of a set, written as `FieldsV1`, are in a rendered value: `f:` is a field's name, `k:` the keys of a
/// list's element, which a description may leave to their defaults, and `v:` an element itself.
fn all_rendered(fields: &Value, rendered: &Value) -> bool {
    fields.as_object().into_iter().flatten().all(|(path, inner)| match path.split_once(':') {
        None => true,
        Some(("f", field)) => rendered.get(field).is_some_and(|value| all_rendered(inner, value)),
        Some(("k", keys)) => {
            let Ok(Value::Object(keys)) = serde_json::from_str(keys) else { return false };
            let has_keys = |element: &&Value| {
                keys.iter().all(|(field, wanted)| element.get(field).is_none_or(|value| value == wanted))
            };
            let mut elements = rendered.as_array().into_iter().flatten();
            elements.find(has_keys).is_some_and(|element| all_rendered(inner, element))
        }
        Some(("v", value)) => {
            let value: Result<Value, _> = serde_json::from_str(value);
            rendered.as_array().is_some_and(|all| value.is_ok_and(|value| all.contains(&value)))
        }
        Some(_) => false,
    })
}

/// Whether a value of the cluster has all that the rendered one has. The cluster adds defaults to objects, also to those
/// in lists, but no elements to lists; and it drops what is empty.
fn contains(live: &Value, rendered: &Value) -> bool {
    match (live, rendered) {
        (Value::Object(live), Value::Object(rendered)) => {
            rendered.iter().all(|(field, value)| contains(live.get(field).unwrap_or(&Value::Null), value))
        }
        (Value::Array(live), Value::Array(rendered)) => {
            live.len() == rendered.len() && live.iter().zip(rendered).all(|(live, rendered)| contains(live, rendered))
        }
        (Value::Null, Value::Object(rendered)) => rendered.is_empty(),
        (Value::Null, Value::Array(rendered)) => rendered.is_empty(),
        (live, rendered) => live == rendered,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(name: &str) -> Value {
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": name}, "spec": {"failurePolicy": "Fail", "validations": [{"expression": "true"}]}})
    }

    /// An object as the API server has it after it was applied by a manager.
    fn live(mut object: Value, manager: &str) -> DynamicObject {
        let fields = json!({"f:metadata": {"f:name": {}}, "f:spec": {"f:failurePolicy": {}, "f:validations": {}}});
        object["metadata"]["managedFields"] =
            json!([{"manager": manager, "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": fields}]);
        let told = object.as_object_mut().unwrap();
        told.remove("apiVersion");
        told.remove("kind");
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn an_object_is_as_rendered_until_a_value_or_the_description_changes() {
        let us = Manifests::of(Vec::new(), "us").unwrap();
        let is_as_rendered = |change: &dyn Fn(&mut Value)| {
            let mut object = policy("a");
            change(&mut object);
            us.is_as_rendered(&live(object, "us"), &policy("a"))
        };
        assert!(is_as_rendered(&|_| ()));
        assert!(is_as_rendered(&|o| o["spec"]["validations"][0]["reason"] = "Invalid".into()), "a default");
        assert!(!is_as_rendered(&|o| o["spec"]["failurePolicy"] = "Ignore".into()), "changed by hand");
        assert!(!is_as_rendered(&|o| o["spec"]["validations"] = json!([])), "taken out by hand");
        assert!(!is_as_rendered(&|o| o["spec"]["validations"] = json!([{"expression": "true"}, {}])), "added by hand");
        assert!(!us.is_as_rendered(&live(policy("a"), "somebody"), &policy("a")), "never applied by us");
        let mut fewer = policy("a");
        fewer["spec"].as_object_mut().unwrap().remove("failurePolicy");
        assert!(!us.is_as_rendered(&live(policy("a"), "us"), &fewer), "a field that is no longer rendered");
    }

    #[test]
    fn fields_are_found_in_lists_by_their_keys_and_values() {
        let rendered = json!({"ports": [{"port": 80, "name": "http"}], "finalizers": ["a"]});
        let all = |fields: Value| all_rendered(&fields, &rendered);
        assert!(all(json!({"f:ports": {".": {}, r#"k:{"port":80,"protocol":"TCP"}"#: {"f:name": {}}}})));
        assert!(!all(json!({"f:ports": {r#"k:{"port":80,"protocol":"TCP"}"#: {"f:targetPort": {}}}})));
        assert!(!all(json!({"f:ports": {r#"k:{"port":81,"protocol":"TCP"}"#: {}}})));
        assert!(all(json!({"f:finalizers": {r#"v:"a""#: {}}})));
        assert!(!all(json!({"f:finalizers": {r#"v:"b""#: {}}})));
    }

    #[test]
    fn only_what_this_manager_applied_and_no_longer_renders_is_left_over() {
        let manifests = Manifests::of(vec![policy("kept")], "us").unwrap();
        let is_left_over =
            |object: Value, manager| manifests.is_left_over(&key(&object).unwrap(), &live(object, manager));
        assert!(is_left_over(policy("old"), "us"));
        assert!(!is_left_over(policy("kept"), "us"));
        assert!(!is_left_over(policy("old"), "somebody"));
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "old"}});
        assert!(!is_left_over(namespace, "us"), "a namespace is never deleted");
    }

    #[test]
    fn what_up_could_not_apply_is_said() {
        let error = |object| Manifests::of(vec![object], "us").err().unwrap().to_string();
        let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a", "namespace": "b"}});
        assert_eq!(error(job), "the manifests hold a batch/v1 Job, which `up` does not know");
        let nowhere = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}});
        assert!(error(nowhere).contains("none where it needs one"));
    }
}
