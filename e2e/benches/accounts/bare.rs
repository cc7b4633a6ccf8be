//! The bare client: writes the objects of as many tools as fast as the API server takes them, several at once, and
//! neither observes nor plans, nor makes homes.

use anyhow::Context;
use futures::{StreamExt, TryStreamExt, stream};
use hearth_core::ToolName;
use hearth_core::account::approval::{SIGNER, USAGES};
use hearth_core::account::objects::{self, Facts};
use hearth_core::account::quotas::Quotas;
use hearth_core::account::subject::{Epoch, Identity};
use hearth_core::directory_entry::{Tool, ToolState};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::runtime::wait::await_condition;
use kube::{Api, Client, Resource, ResourceExt};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::json;

/// How many at once, as accounts has.
const AT_ONCE: usize = 8;

const MANAGER: &str = "bare";

pub(crate) async fn run(client: &Client, tools: usize) -> anyhow::Result<()> {
    stream::iter(0..tools).map(|index| one(client, index)).buffer_unordered(AT_ONCE).try_collect().await
}

async fn one(client: &Client, index: usize) -> anyhow::Result<()> {
    let name: ToolName = format!("bare-{index:04}").parse()?;
    let maintainers = ["member1".to_owned()].into();
    let tool = Tool { name: name.clone(), uid: 59_000, maintainers, state: ToolState::Active };
    let epoch = Epoch::of(u128::try_from(index)?.to_be_bytes());
    let identity = Identity { owner: name.clone().into(), epoch: epoch.clone() };
    let facts = Facts { tool: &tool, epoch: &epoch, credential: None, stopped: false };
    // Under another name, so that the platform's roles leave them alone.
    let place = format!("bare-{index:04}");
    let mut namespace = facts.namespace(None);
    namespace.metadata.name = Some(place.clone());
    namespace.metadata.labels = None;
    let namespaces = Api::all(client.clone());
    namespaces.create(&PostParams::default(), &namespace).await?;
    apply_to(&namespaces, &namespace).await?;
    let quotas = Quotas::default();
    apply(client, &place, objects::limits(&name, &quotas)).await?;
    apply(client, &place, objects::quota(&name, &quotas)).await?;
    apply(client, &place, objects::binding(&name, &identity.epoch)).await?;
    certify(client, &place, &identity).await?;
    let credential = "0".repeat(64);
    let mut namespace = Facts { credential: Some(&credential), ..facts }.namespace(None);
    namespace.metadata.name = Some(place);
    namespace.metadata.labels = None;
    apply_to(&namespaces, &namespace).await
}

async fn apply<K>(client: &Client, place: &str, mut object: K) -> anyhow::Result<()>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    K: Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    object.meta_mut().namespace = Some(place.to_owned());
    object.meta_mut().labels = None;
    apply_to(&Api::namespaced(client.clone(), place), &object).await
}

async fn apply_to<K>(api: &Api<K>, object: &K) -> anyhow::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    api.patch(&object.name_any(), &PatchParams::apply(MANAGER), &Patch::Apply(object)).await?;
    Ok(())
}

/// Requests a certificate, approves it, waits for it and deletes the request.
async fn certify(client: &Client, place: &str, identity: &Identity) -> anyhow::Result<()> {
    let key = KeyPair::generate()?;
    let subject = identity.subject();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, subject.organizations.concat());
    params.distinguished_name.push(DnType::CommonName, format!("bare:{place}"));
    let request = params.serialize_request(&key)?.pem()?;
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    let object = serde_json::from_value(json!({
        "metadata": { "name": place },
        "spec": {
            "request": ByteString(request.into_bytes()), "signerName": SIGNER, "usages": USAGES,
            "expirationSeconds": 30 * 86_400,
        },
    }))?;
    api.create(&PostParams::default(), &object).await?;
    let approved = Patch::Merge(json!({ "status": {
        "conditions": [{ "type": "Approved", "status": "True", "reason": "Bare", "message": "" }],
    } }));
    api.patch_approval(place, &PatchParams::default(), &approved).await?;
    let signed = |request: Option<&CertificateSigningRequest>| {
        request.and_then(|request| request.status.as_ref()?.certificate.as_ref()).is_some()
    };
    await_condition(api.clone(), place, signed).await.context("no certificate")?;
    api.delete(place, &Default::default()).await?;
    Ok(())
}
