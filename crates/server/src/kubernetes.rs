//! The client of the Kubernetes API, made in one place.

use std::path::Path;

use anyhow::Context;
use kube::config::{KubeConfigOptions, Kubeconfig};

/// A client from a kubeconfig file or, without one, from the pod's own service account.
pub async fn client(kubeconfig: Option<&Path>) -> anyhow::Result<kube::Client> {
    install_crypto();
    let config = match kubeconfig {
        Some(file) => {
            let kubeconfig =
                Kubeconfig::read_from(file).with_context(|| format!("failed to read {}", file.display()))?;
            kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?
        }
        None => kube::Config::incluster()
            .context("failed to read the pod's service account; outside a pod use --kubeconfig")?,
    };
    kube::Client::try_from(config).context("failed to make a client of the Kubernetes API")
}

/// Chooses the one provider of cryptography. Calling it again does nothing.
pub fn install_crypto() {
    // The only error is that a provider is installed already, which is what is wanted.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
