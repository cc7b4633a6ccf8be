//! The certificates of one instance: an authority for Kubernetes, one for its aggregated APIs, one for the platform.
//!
//! Keys are ECDSA P-256. Certificates hold for a year and are made again by `up` when a third of that is left;
//! authorities hold for ten years. A key is never overwritten while its certificate is good.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use jiff::{Span, Timestamp, ToSpan};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use crate::instance::{Instance, Network, Node, service, write};

/// A certificate authority of the instance, named by its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority {
    /// Signs everything of Kubernetes, the tools' certificates included.
    Kubernetes,
    /// Signs what the API server shows to aggregated APIs.
    FrontProxy,
    /// Signs the front door, the directory, the registry and the roles' services.
    Platform,
}

/// A certificate that the instance needs.
pub struct Wanted {
    name: String,
    authority: Authority,
    common_name: String,
    organisation: Option<&'static str>,
    names: Vec<String>,
    addresses: Vec<IpAddr>,
}

/// A certificate and its key, as files.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate, PEM.
    pub cert: PathBuf,
    /// The private key, PEM.
    pub key: PathBuf,
}

impl Authority {
    fn name(self) -> &'static str {
        match self {
            Self::Kubernetes => "kubernetes-ca",
            Self::FrontProxy => "front-proxy-ca",
            Self::Platform => "platform-ca",
        }
    }

    /// The authority's files.
    pub fn pair(self, instance: &Instance) -> Pair {
        pair(instance, self.name())
    }
}

/// The files of a certificate by its name.
pub fn pair(instance: &Instance, name: &str) -> Pair {
    Pair { cert: instance.path(format!("pki/{name}.crt")), key: instance.path(format!("pki/{name}.key")) }
}

/// Makes every certificate that is missing or about to expire. Returns how many were made.
pub fn ensure(instance: &Instance, now: Timestamp) -> anyhow::Result<usize> {
    let mut made = 0;
    for authority in [Authority::Kubernetes, Authority::FrontProxy, Authority::Platform] {
        let files = authority.pair(instance);
        if !files.cert.exists() || !files.key.exists() {
            make_authority(authority, &files, now)?;
            made += 1;
        }
    }
    for wanted in wanted(instance) {
        let files = pair(instance, &wanted.name);
        if !is_good(&files.cert, &wanted.authority.pair(instance).cert, &wanted, now) {
            make(instance, &wanted, &files, now)?;
            made += 1;
        }
    }
    let service_accounts = instance.path("pki/service-accounts.key");
    if !service_accounts.exists() {
        let key = KeyPair::generate()?;
        write(&instance.path("pki/service-accounts.pub"), key.public_key_pem(), 0o644)?;
        write(&service_accounts, key.serialize_pem(), 0o600)?;
        made += 1;
    }
    let platform = std::fs::read(Authority::Platform.pair(instance).cert)?;
    write(&instance.path("ca.crt"), platform, 0o644)?;
    Ok(made)
}

fn wanted(instance: &Instance) -> Vec<Wanted> {
    let network = instance.network;
    let node = IpAddr::from(network.node());
    let platform = |name: &str, names: &[&str], addresses: &[IpAddr]| Wanted {
        name: name.to_owned(),
        authority: Authority::Platform,
        common_name: names.first().copied().unwrap_or(name).to_owned(),
        organisation: None,
        names: names.iter().map(|n| (*n).to_owned()).collect(),
        addresses: addresses.to_vec(),
    };
    let domain = instance.domain();
    let front = [domain.to_owned(), format!("*.{domain}"), format!("tools.{domain}")];
    let front: Vec<&str> = front.iter().map(String::as_str).collect();
    let address = |number| IpAddr::from(network.service(number));
    let api = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
        "api.hearth.internal",
    ];
    let mut all: Vec<Wanted> = network.all_nodes().flat_map(|node| of_node(network, node)).collect();
    all.extend([
        Wanted {
            names: api.iter().map(|n| (*n).to_owned()).collect(),
            addresses: vec![IpAddr::from([127, 0, 0, 1]), node, address(1)],
            ..kubernetes("kube-apiserver", "kube-apiserver", None)
        },
        kubernetes("kube-apiserver-to-kubelet", "kube-apiserver-to-kubelet", Some("system:masters")),
        kubernetes("kube-controller-manager", "system:kube-controller-manager", None),
        kubernetes("kube-scheduler", "system:kube-scheduler", None),
        kubernetes("kube-proxy", "system:kube-proxy", None),
        kubernetes("admin", "admin:root", Some("system:masters")),
        kubernetes("hearth-proxy", "hearth:proxy", None),
        kubernetes("hearth-balancer", "hearth:balancer", None),
        Wanted { authority: Authority::FrontProxy, ..kubernetes("aggregator", "aggregator", None) },
        platform("front-door", &front, &[]),
        platform("directory", &["ldap.hearth.internal", "localhost"], &[address(service::LDAP)]),
        platform("registry", &["registry.hearth.internal"], &[address(service::REGISTRY)]),
        platform("registry-auth", &["registry-auth.hearth.internal"], &[address(service::REGISTRY_AUTH)]),
        platform("registry-token", &["registry-token"], &[]),
        platform("admission", &["admission.hearth-system.svc"], &[]),
        platform("ingress", &["ingress.hearth.internal"], &[]),
        platform("front-proxy", &["front-proxy.hearth.internal"], &[]),
        platform("webhook-client", &["kube-apiserver"], &[]),
    ]);
    all
}

/// A client's certificate of the cluster.
fn kubernetes(name: &str, common_name: &str, organisation: Option<&'static str>) -> Wanted {
    Wanted {
        name: name.to_owned(),
        authority: Authority::Kubernetes,
        common_name: common_name.to_owned(),
        organisation,
        names: Vec::new(),
        addresses: Vec::new(),
    }
}

/// Those of a node's kubelet.
fn of_node(network: Network, node: Node) -> [Wanted; 2] {
    let (user, nodes) = (format!("system:node:{}", node.name()), Some("system:nodes"));
    let serving = Wanted {
        names: vec![node.name(), "localhost".to_owned()],
        addresses: vec![IpAddr::from(network.address_of(node)), IpAddr::from([127, 0, 0, 1])],
        ..kubernetes(&node.own("kubelet-serving"), &user, nodes)
    };
    [serving, kubernetes(&node.own("kubelet"), &user, nodes)]
}

fn make_authority(authority: Authority, files: &Pair, now: Timestamp) -> anyhow::Result<()> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(&format!("hearth {}", authority.name()), None);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    set_validity(&mut params, now, 3650)?;
    let certificate = params.self_signed(&key)?;
    write(&files.key, key.serialize_pem(), 0o600)?;
    write(&files.cert, certificate.pem(), 0o644)?;
    Ok(())
}

fn make(instance: &Instance, wanted: &Wanted, files: &Pair, now: Timestamp) -> anyhow::Result<()> {
    let authority = wanted.authority.pair(instance);
    let read =
        |path: &Path| std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()));
    let issuer = Issuer::from_ca_cert_pem(&read(&authority.cert)?, KeyPair::from_pem(&read(&authority.key)?)?)
        .with_context(|| {
            format!("{} is damaged; remove it and its key to have a new authority made", authority.cert.display())
        })?;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(wanted.names.clone())?;
    params.subject_alt_names.extend(wanted.addresses.iter().map(|a| SanType::IpAddress(*a)));
    params.distinguished_name = subject(&wanted.common_name, wanted.organisation);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if !wanted.names.is_empty() {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, now, 365)?;
    let certificate = params.signed_by(&key, &issuer)?;
    // The key first: a certificate without its key would look good.
    write(&files.key, key.serialize_pem(), 0o600)?;
    write(&files.cert, certificate.pem(), 0o644)?;
    Ok(())
}

fn subject(common_name: &str, organisation: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    if let Some(organisation) = organisation {
        name.push(DnType::OrganizationName, organisation);
    }
    name
}

fn set_validity(params: &mut CertificateParams, now: Timestamp, days: i64) -> anyhow::Result<()> {
    let date = |span: Span| -> anyhow::Result<_> {
        let at = now.checked_add(span)?.to_zoned(jiff::tz::TimeZone::UTC);
        Ok(rcgen::date_time_ymd(i32::from(at.year()), u8::try_from(at.month())?, u8::try_from(at.day())?))
    };
    // A day back, so that a machine whose clock is a little behind accepts it at once.
    params.not_before = date((-24).hours())?;
    params.not_after = date((days * 24).hours())?;
    Ok(())
}

/// Whether a certificate exists, is of this authority, names everything it should and has a third of a year left.
fn is_good(cert: &Path, authority: &Path, wanted: &Wanted, now: Timestamp) -> bool {
    let read = |path: &Path| std::fs::read(path).ok();
    let (Some(cert), Some(authority)) = (read(cert), read(authority)) else { return false };
    let (Ok((_, cert)), Ok((_, authority))) =
        (x509_parser::pem::parse_x509_pem(&cert), x509_parser::pem::parse_x509_pem(&authority))
    else {
        return false;
    };
    let (Ok(cert), Ok(authority)) = (cert.parse_x509(), authority.parse_x509()) else { return false };
    let left = cert.validity().not_after.timestamp() - now.as_second();
    let names = cert.subject_alternative_name().ok().flatten().map_or(0, |san| san.value.general_names.len());
    left > 365 * 86400 / 3
        && cert.issuer() == authority.subject()
        && cert.verify_signature(Some(authority.public_key())).is_ok()
        && names == wanted.names.len() + wanted.addresses.len()
}
