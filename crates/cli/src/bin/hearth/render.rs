//! `hearth render`: from `platform.toml` to what `kubectl apply -k` takes.
//!
//! The manifests of `deploy/base` are part of this program; what differs between installations is written as an
//! overlay beside a copy of them: images by digest, the configuration, certificates and secrets, and the rulebook's
//! policies with the platform's domains and registries in them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use aws_lc_rs::digest::{SHA256, digest};
use hearth_core::Platform;
use hearth_core::account::quotas::Quotas;
use hearth_core::admission::{Rules, cel};
use serde_json::{Value, json};

use crate::instance::write;
use crate::node::hosts_lines;

/// The manifests, by file name.
const BASE: &[(&str, &str)] = &[
    ("accounts.yaml", include_str!("../../../../../deploy/base/accounts.yaml")),
    ("admission.yaml", include_str!("../../../../../deploy/base/admission.yaml")),
    ("bastion.yaml", include_str!("../../../../../deploy/base/bastion.yaml")),
    ("coredns.yaml", include_str!("../../../../../deploy/base/coredns.yaml")),
    ("directory.yaml", include_str!("../../../../../deploy/base/directory.yaml")),
    ("grid.yaml", include_str!("../../../../../deploy/base/grid.yaml")),
    ("image-config.yaml", include_str!("../../../../../deploy/base/image-config.yaml")),
    ("ingress-class.yaml", include_str!("../../../../../deploy/base/ingress-class.yaml")),
    ("kustomization.yaml", include_str!("../../../../../deploy/base/kustomization.yaml")),
    ("namespaces.yaml", include_str!("../../../../../deploy/base/namespaces.yaml")),
    ("proxy.yaml", include_str!("../../../../../deploy/base/proxy.yaml")),
    ("registry-auth.yaml", include_str!("../../../../../deploy/base/registry-auth.yaml")),
    ("registry.yaml", include_str!("../../../../../deploy/base/registry.yaml")),
    ("signer.yaml", include_str!("../../../../../deploy/base/signer.yaml")),
    ("tools-user.yaml", include_str!("../../../../../deploy/base/tools-user.yaml")),
];

/// The pages for names that serve nothing; applied once `accounts` has made their tool.
const FOUROHFOUR: &[(&str, &str)] = &[
    ("fourohfour.yaml", include_str!("../../../../../deploy/fourohfour/fourohfour.yaml")),
    ("kustomization.yaml", include_str!("../../../../../deploy/fourohfour/kustomization.yaml")),
];

/// The ingress, for installations whose front door goes through it.
const INGRESS: &[(&str, &str)] = &[
    ("balancer.yaml", include_str!("../../../../../deploy/ingress/balancer.yaml")),
    ("ingress.yaml", include_str!("../../../../../deploy/ingress/ingress.yaml")),
    ("kustomization.yaml", include_str!("../../../../../deploy/ingress/kustomization.yaml")),
];

/// The secret of the ingress, which nobody else needs.
const INGRESS_SECRET: &str = "ingress-tls";

/// What an overlay is made of beside the manifests.
pub struct Overlay {
    /// The configuration's text, which the roles read as it is.
    pub platform_toml: String,
    /// What single tools may use beyond what all may, as a text.
    pub quotas_toml: String,
    /// Digests of images by the name that manifests call them, such as `hearthd`.
    pub images: BTreeMap<String, String>,
    /// The platform's certificate authority, PEM.
    pub ca: String,
    /// Secrets of `hearth-system` by name: the files of each.
    pub secrets: BTreeMap<String, BTreeMap<String, PathBuf>>,
    /// Fixed addresses of services: namespace, name, address.
    pub addresses: Vec<(&'static str, &'static str, String)>,
    /// The platform's internal names, which no DNS but the cluster's own knows.
    pub internal_hosts: Vec<(Ipv4Addr, &'static str)>,
    /// Where pods find the front doors, where no DNS knows the tools' hosts.
    pub front_doors: Vec<Ipv4Addr>,
}

impl Overlay {
    /// Writes the overlay into `folder`; returns the parsed configuration.
    pub fn write(&self, folder: &Path) -> anyhow::Result<Platform> {
        let platform = Platform::from_toml(&self.platform_toml)?;
        Quotas::from_toml(&self.quotas_toml).context("failed to use quotas.toml")?;
        for (name, text) in BASE {
            let text =
                if *name == "image-config.yaml" { self.with_images(text, &platform) } else { (*text).to_owned() };
            write(&folder.join("base").join(name), text, 0o644)?;
        }
        for (name, text) in FOUROHFOUR {
            write(&folder.join("fourohfour/base").join(name), text, 0o644)?;
        }
        if platform.front_door.uses_ingress() {
            for (name, text) in INGRESS {
                write(&folder.join("ingress").join(name), text, 0o644)?;
            }
        }
        let list = json!({"apiVersion": "v1", "kind": "List", "items": cel::policies(&Rules::of(&platform))});
        write(&folder.join("policies.json"), serde_json::to_string_pretty(&list)?, 0o644)?;
        write(&folder.join("platform.toml"), &self.platform_toml, 0o644)?;
        write(&folder.join("quotas.toml"), &self.quotas_toml, 0o644)?;
        write(&folder.join("ca.crt"), &self.ca, 0o644)?;
        write(
            &folder.join("kustomization.yaml"),
            serde_json::to_string_pretty(&self.kustomization(folder, &platform)?)?,
            0o644,
        )?;
        let fourohfour = json!({
            "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
            "resources": ["base"], "images": self.image_names(&platform),
        });
        write(&folder.join("fourohfour/kustomization.yaml"), serde_json::to_string_pretty(&fourohfour)?, 0o644)?;
        Ok(platform)
    }

    fn kustomization(&self, folder: &Path, platform: &Platform) -> anyhow::Result<Value> {
        let fixed = json!({"disableNameSuffixHash": true});
        let mut generators = Vec::new();
        let mut fingerprint = format!("{}{}", self.platform_toml, self.ca).into_bytes();
        let uses_ingress = platform.front_door.uses_ingress();
        for (name, files) in self.secrets.iter().filter(|(name, _)| uses_ingress || *name != INGRESS_SECRET) {
            let mut listed = Vec::new();
            for (key, source) in files {
                let content = std::fs::read(source).with_context(|| format!("failed to read {}", source.display()))?;
                write(&folder.join("secrets").join(name).join(key), &content, 0o600)?;
                fingerprint.extend_from_slice(&content);
                listed.push(format!("{key}=secrets/{name}/{key}"));
            }
            let kind = if files.contains_key("tls.crt") { "kubernetes.io/tls" } else { "Opaque" };
            generators.push(
                json!({"name": name, "namespace": "hearth-system", "type": kind, "files": listed, "options": fixed}),
            );
        }
        let fingerprint: String =
            digest(&SHA256, &fingerprint).as_ref().iter().take(8).map(|b| format!("{b:02x}")).collect();
        let mut patches = ["DaemonSet", "Deployment", "StatefulSet"].map(|kind| self.pods(kind, &fingerprint)).to_vec();
        for (namespace, name, address) in &self.addresses {
            let patch = json!([{"op": "add", "path": "/spec/clusterIP", "value": address}]).to_string();
            patches.push(json!({"target": {"kind": "Service", "namespace": namespace, "name": name}, "patch": patch}));
        }
        let values = |values: &[(&str, &str)]| {
            let set =
                values.iter().map(|(key, value)| json!({"op": "add", "path": format!("/data/{key}"), "value": value}));
            Value::from_iter(set).to_string()
        };
        let (tools, zone) = self.tool_hosts(platform);
        let hosts = hosts_lines(&self.internal_hosts);
        patches.push(json!({
            "target": {"kind": "ConfigMap", "namespace": "kube-system", "name": "coredns"},
            "patch": values(&[("hosts", &hosts), ("tools", &tools), ("tools.zone", &zone)])
        }));
        let directory = &platform.directory;
        patches.push(json!({
            "target": {"kind": "ConfigMap", "namespace": "hearth-system", "name": "bastion"},
            "patch": values(&[("LDAP_URI", &directory.url), ("LDAP_BASE", &directory.base), ("LDAP_BINDDN", &directory.bind_dn)])
        }));
        patches.push(self.webhook(platform));
        let mut resources = vec!["base", "policies.json"];
        if uses_ingress {
            resources.push("ingress");
        }
        let config = |name: &str, namespace: &str, files: &[&str]| json!({"name": name, "namespace": namespace, "files": files, "options": fixed});
        Ok(json!({
            "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
            "resources": resources,
            "sortOptions": {"order": "legacy"},
            "images": self.image_names(platform),
            "configMapGenerator": [
                config("platform", "hearth-system", &["platform.toml"]),
                config("platform-ca", "hearth-system", &["ca.crt"]),
                // Another name with another content: `accounts`, which alone reads it, then starts anew.
                json!({"name": "quotas", "namespace": "hearth-system", "files": ["quotas.toml"]}),
            ],
            "secretGenerator": generators,
            "patches": patches,
        }))
    }

    /// What the platform's own pods have in common. They read configuration and secrets when they start, so another
    /// fingerprint makes them start anew. Internal names they know by themselves: they neither wait for the cluster's
    /// DNS when all starts at once, nor stop when it is away.
    fn pods(&self, kind: &str, fingerprint: &str) -> Value {
        let annotations = json!({"hearth.internal/configuration": fingerprint});
        let aliases = self.internal_hosts.iter().map(|(address, name)| json!({"ip": address, "hostnames": [name]}));
        // Of an empty list the cluster keeps nothing, so that it would differ from what is rendered for ever.
        let spec = match self.internal_hosts.is_empty() {
            true => json!({}),
            false => json!({"hostAliases": Value::from_iter(aliases)}),
        };
        let patch = json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "each"}, "spec": {"template": {
            "metadata": {"annotations": annotations}, "spec": spec}}});
        json!({"target": {"kind": kind, "namespace": "hearth-system"}, "patch": patch.to_string()})
    }

    /// The webhook's registration: whom it may trust, and which namespaces are no tool's.
    fn webhook(&self, platform: &Platform) -> Value {
        use base64::Engine;
        let bundle = base64::engine::general_purpose::STANDARD.encode(&self.ca);
        let namespaces: Vec<&str> = platform.namespaces.all().collect();
        let selector = "/webhooks/0/namespaceSelector/matchExpressions/0/values";
        let patch = json!([
            {"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": bundle},
            {"op": "replace", "path": selector, "value": namespaces},
        ]);
        json!({"target": {"kind": "MutatingWebhookConfiguration"}, "patch": patch.to_string()})
    }

    /// How the cluster's DNS answers for every host of a tool: lines for its configuration, and the zone (RFC 1035
    /// §5.1, with a wildcard as in RFC 4592).
    fn tool_hosts(&self, platform: &Platform) -> (String, String) {
        if self.front_doors.is_empty() {
            return Default::default();
        }
        let domains = platform.domains.public.iter().chain(std::iter::once(&platform.domains.legacy));
        let zones: Vec<String> = domains.map(ToString::to_string).collect();
        let addresses = self.front_doors.iter();
        let lines: String = addresses.map(|at| format!("@ 60 IN A {at}\n* 60 IN A {at}\n")).collect();
        let zone = format!("@ 60 IN SOA @ @ 1 3600 600 86400 60\n@ 60 IN NS @\n{lines}");
        (format!("file /etc/coredns/tools.zone {}\n", zones.join(" ")), zone)
    }

    fn image_names(&self, platform: &Platform) -> Vec<Value> {
        let host = &platform.registry.host;
        self.images
            .iter()
            .map(|(name, digest)| json!({"name": format!("hearth/{name}"), "newName": format!("{host}/hearth/{name}"), "digest": digest}))
            .collect()
    }

    /// The list of web service types is a text in a `ConfigMap`, where kustomize does not look for images.
    fn with_images(&self, text: &str, platform: &Platform) -> String {
        self.images.iter().fold(text.to_owned(), |text, (name, digest)| {
            let whole = format!("image: {}/hearth/{name}@{digest}\n", platform.registry.host);
            text.replace(&format!("image: registry.hearth.internal/hearth/{name}\n"), &whole)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLATFORM: &str = "[domains]\npublic = [\"tools.example\"]\nlegacy = \"old.example\"\n[api]\nserver = \"https://10.0.0.1:6443\"\n\
        [directory]\nurl = \"ldaps://ldap.example\"\nbase = \"dc=example\"\nbind_dn = \"cn=reader,dc=example\"\n\
        [registry]\nhost = \"registry.example\"\n";

    fn overlay(folder: &Path) -> Overlay {
        let password = folder.join("password");
        std::fs::write(&password, "secret").unwrap();
        Overlay {
            platform_toml: PLATFORM.to_owned(),
            quotas_toml: String::new(),
            images: crate::images::ALL
                .iter()
                .map(|name| ((*name).to_owned(), format!("sha256:{}", "a".repeat(64))))
                .collect(),
            ca: "a certificate".to_owned(),
            secrets: BTreeMap::from([(
                "directory-admin".to_owned(),
                BTreeMap::from([("password".to_owned(), password)]),
            )]),
            addresses: vec![("hearth-system", "ldap", "10.0.0.2".to_owned())],
            internal_hosts: vec![(Ipv4Addr::new(10, 0, 0, 2), "ldap.example")],
            front_doors: vec![Ipv4Addr::new(10, 0, 0, 9)],
        }
    }

    #[test]
    fn every_image_of_a_manifest_is_one_that_is_built() {
        for (file, text) in BASE.iter().chain(FOUROHFOUR).chain(INGRESS) {
            for line in text.lines().filter(|line| line.trim_start().starts_with("image:")) {
                let name = line.rsplit('/').next().unwrap_or_default();
                assert!(crate::images::ALL.contains(&name), "{file}: {line}");
            }
        }
    }

    #[test]
    fn the_ingress_is_rendered_for_the_paths_through_it() {
        for (front_door, rendered) in [
            ("", false),
            ("[front_door]\nbalancers = ['10.0.0.1:30000']\n", true),
            ("[front_door]\npath = 'ingress'\nbalancers = ['10.0.0.1:30000']\n", true),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let mut made = overlay(folder.path());
            made.platform_toml.push_str(front_door);
            let key = folder.path().join("password");
            made.secrets.insert(INGRESS_SECRET.to_owned(), BTreeMap::from([("tls.crt".to_owned(), key)]));
            made.write(folder.path()).unwrap();
            let text = std::fs::read_to_string(folder.path().join("kustomization.yaml")).unwrap();
            let kustomization: Value = serde_json::from_str(&text).unwrap();
            let listed = kustomization["resources"].as_array().unwrap().contains(&json!("ingress"));
            let secret = text.contains(INGRESS_SECRET) && folder.path().join("secrets/ingress-tls/tls.crt").exists();
            let manifest = folder.path().join("ingress/ingress.yaml").exists();
            assert_eq!([listed, secret, manifest], [rendered; 3], "{front_door}");
        }
    }

    #[test]
    fn an_overlay_says_what_differs_and_changes_only_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let made = overlay(folder.path());
        made.write(folder.path()).unwrap();
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        let first = read("kustomization.yaml");
        assert!(first.contains("\"newName\": \"registry.example/hearth/hearthd\""), "{first}");
        assert!(read("base/image-config.yaml").contains("image: registry.example/hearth/static@sha256:aaa"));
        assert!(read("policies.json").contains("tools.example"));
        assert!(
            first.contains(r#"\"hearth-public\",\"hearth-grid\",\"default\""#),
            "the webhook's namespaces: {first}"
        );
        assert!(first.contains("file /etc/coredns/tools.zone tools.example old.example"), "{first}");
        assert!(first.contains("* 60 IN A 10.0.0.9"), "{first}");
        assert!(
            first.contains(r#"\"hostAliases\":[{\"hostnames\":[\"ldap.example\"],\"ip\":\"10.0.0.2\"}]"#),
            "{first}"
        );
        made.write(folder.path()).unwrap();
        assert_eq!(read("kustomization.yaml"), first);
        std::fs::write(folder.path().join("password"), "another").unwrap();
        made.write(folder.path()).unwrap();
        assert_ne!(read("kustomization.yaml"), first, "another password restarts the pods that read it");
    }
}
