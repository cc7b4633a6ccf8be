//! A tool's or an administrator's certificate: a key, a request for a certificate, and the wait until it is signed.
//!
//! The request is made here and approved by the role `signer`; the cluster's own signer signs it. The wait is a
//! watch on this one request, which is deleted at the end, whatever came of it.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::TryStreamExt;
use hearth_core::account::approval::{SIGNER, USAGES};
use hearth_core::account::kubeconfig::KeyPair;
use hearth_core::account::subject::{Identity, Subject};
use hearth_core::names;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{DeleteParams, PostParams, WatchEvent, WatchParams};
use rcgen::{CertificateParams, DistinguishedName, DnType, PKCS_ECDSA_P256_SHA256};

use super::fresh;

/// X.520 organizationName. The library keeps one value for each kind of attribute; by its number the second
/// organisation counts as another kind, and is written the same.
const ORGANIZATION: [u64; 4] = [2, 5, 4, 10];

/// Gets a certificate that is valid for `days`, within this time.
pub(super) async fn issue(
    client: &kube::Client,
    identity: &Identity,
    days: u32,
    patience: Duration,
) -> Result<KeyPair> {
    let (request, key) = request(&identity.subject())?;
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    let name = format!("{}-{}", identity.owner.to_string().replace([':', '_'], "-"), fresh::suffix());
    let object = CertificateSigningRequest {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            labels: Some([(names::label::MANAGED_BY.to_owned(), names::FIELD_MANAGER.to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: CertificateSigningRequestSpec {
            request: ByteString(request.into_bytes()),
            signer_name: SIGNER.to_owned(),
            usages: Some(USAGES.map(str::to_owned).to_vec()),
            expiration_seconds: Some(i32::try_from(u64::from(days) * 86_400).unwrap_or(i32::MAX)),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    };
    let parameters = PostParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PostParams::default() };
    let created = api.create(&parameters, &object).await.context("failed to request a certificate")?;
    let outcome = tokio::time::timeout(patience, signed(&api, &name, created)).await;
    if let Err(error) = api.delete(&name, &DeleteParams::default()).await {
        tracing::warn!(request = name, %error, "a certificate request could not be deleted");
    }
    let certificate = outcome.with_context(|| {
        format!("no certificate was issued within {patience:?}: is the role signer running, and the cluster's signer?")
    })??;
    Ok(KeyPair { certificate, key })
}

/// Waits until the request has a certificate or is refused. A watch that ends is begun again.
async fn signed(
    api: &Api<CertificateSigningRequest>,
    name: &str,
    created: CertificateSigningRequest,
) -> Result<String> {
    let parameters = WatchParams::default().fields(&format!("metadata.name={name}")).timeout(60);
    let mut request = created;
    loop {
        if let Some(certificate) = settled(&request)? {
            return Ok(certificate);
        }
        let version = request.metadata.resource_version.clone().unwrap_or_default();
        let mut events = Box::pin(api.watch(&parameters, &version).await.context("failed to watch the request")?);
        while let Ok(Some(event)) = events.try_next().await {
            match event {
                WatchEvent::Added(seen) | WatchEvent::Modified(seen) => {
                    if let Some(certificate) = settled(&seen)? {
                        return Ok(certificate);
                    }
                }
                WatchEvent::Deleted(_) => bail!("the certificate request {name} was deleted by somebody"),
                WatchEvent::Bookmark(_) => (),
                WatchEvent::Error(_) => break,
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        request = api.get(name).await.context("failed to read the request")?;
    }
}

/// The certificate, once there is one; an error once there will be none.
fn settled(request: &CertificateSigningRequest) -> Result<Option<String>> {
    let Some(status) = &request.status else { return Ok(None) };
    for condition in status.conditions.iter().flatten() {
        if condition.type_ == "Denied" || condition.type_ == "Failed" {
            bail!(
                "the certificate request was refused ({}): {}",
                condition.reason.as_deref().unwrap_or(&condition.type_),
                condition.message.as_deref().unwrap_or("no reason was given")
            );
        }
    }
    match &status.certificate {
        Some(ByteString(pem)) if !pem.is_empty() => {
            Ok(Some(String::from_utf8(pem.clone()).context("the certificate is not PEM")?))
        }
        _ => Ok(None),
    }
}

/// A signed request for a subject and its key, both PEM.
fn request(subject: &Subject) -> Result<(String, String)> {
    let key = rcgen::KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("failed to make a key")?;
    let mut name = DistinguishedName::new();
    let [first, second] = subject.organizations.as_slice() else { bail!("a tool has two organisations") };
    name.push(DnType::OrganizationName, first.as_str());
    name.push(DnType::CustomDnType(ORGANIZATION.to_vec()), second.as_str());
    name.push(DnType::CommonName, subject.common_name.as_str());
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = name;
    let request = parameters.serialize_request(&key).context("failed to sign the request")?;
    Ok((request.pem().context("failed to encode the request")?, key.serialize_pem()))
}
