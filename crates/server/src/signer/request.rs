//! Reads the signed request inside a `CertificateSigningRequest`, and accepts no more than a tool needs.
//!
//! The cluster's signer copies the subject and any alternative names from the request into the certificate, so
//! anything in it that is not understood here is a reason to refuse it.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey, VerificationAlgorithm};
use hearth_core::account::subject::Subject;
use x509_parser::asn1_rs::{Oid, Tag, oid};
use x509_parser::prelude::{FromDer, X509CertificationRequest, X509Name};
use x509_parser::x509::X509Version;

const COMMON_NAME: Oid<'_> = oid!(2.5.4.3);
const ORGANIZATION: Oid<'_> = oid!(2.5.4.10);
const EC_PUBLIC_KEY: Oid<'_> = oid!(1.2.840.10045.2.1);
const P256: Oid<'_> = oid!(1.2.840.10045.3.1.7);
const ECDSA_WITH_SHA256: Oid<'_> = oid!(1.2.840.10045.4.3.2);
const ED25519_KEY: Oid<'_> = oid!(1.3.101.112);

/// Why a request cannot be accepted, whatever its subject. Each message finishes "the request is denied: …".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Faulty {
    /// It cannot be read.
    #[error("it is not one PEM block of a certificate request")]
    Format,
    /// It asks for alternative names or other extensions, or has other attributes.
    #[error("it asks for extensions, such as alternative names; a tool's certificate has none")]
    Attributes,
    /// Its subject has parts other than one common name and organisations.
    #[error("its subject has parts other than a common name and organisations, each on its own")]
    SubjectParts,
    /// Its key is of another kind.
    #[error("its key is neither ECDSA P-256 nor Ed25519")]
    Key,
    /// It is not signed with its own key.
    #[error("it is not signed with the key that it names")]
    Signature,
}

/// Reads a request in PEM and checks all of it but who the subject is.
pub fn read(pem: &[u8]) -> Result<Subject, Faulty> {
    let text = pem.trim_ascii_end();
    let (rest, block) = x509_parser::pem::parse_x509_pem(text).map_err(|_| Faulty::Format)?;
    if block.label != "CERTIFICATE REQUEST" || !rest.trim_ascii().is_empty() || !text.starts_with(b"-----BEGIN ") {
        return Err(Faulty::Format);
    }
    let (rest, request) = X509CertificationRequest::from_der(&block.contents).map_err(|_| Faulty::Format)?;
    let info = &request.certification_request_info;
    if !rest.is_empty() || info.version != X509Version::V1 {
        return Err(Faulty::Format);
    }
    if !info.attributes().is_empty() {
        return Err(Faulty::Attributes);
    }
    let subject = subject(&info.subject)?;
    let algorithm = algorithm(&request)?;
    let key = UnparsedPublicKey::new(algorithm, &info.subject_pki.subject_public_key.data);
    key.verify(info.raw, &request.signature_value.data).map_err(|_| Faulty::Signature)?;
    Ok(subject)
}

/// One common name and any number of organisations, each in a set of its own.
fn subject(name: &X509Name<'_>) -> Result<Subject, Faulty> {
    let (mut common_name, mut organizations) = (None, Vec::new());
    for part in name.iter_rdn() {
        let mut attributes = part.iter();
        let (Some(attribute), None) = (attributes.next(), attributes.next()) else { return Err(Faulty::SubjectParts) };
        let is_text = [Tag::Utf8String, Tag::PrintableString].contains(&attribute.attr_value().tag());
        let text = attribute.as_str().ok().filter(|_| is_text).ok_or(Faulty::SubjectParts)?.to_owned();
        if *attribute.attr_type() == ORGANIZATION {
            organizations.push(text);
        } else if *attribute.attr_type() == COMMON_NAME && common_name.is_none() {
            common_name = Some(text);
        } else {
            return Err(Faulty::SubjectParts);
        }
    }
    Ok(Subject { common_name: common_name.ok_or(Faulty::SubjectParts)?, organizations })
}

/// How the signature is verified, where key and signature are of one accepted kind.
fn algorithm(request: &X509CertificationRequest<'_>) -> Result<&'static dyn VerificationAlgorithm, Faulty> {
    let key = &request.certification_request_info.subject_pki.algorithm;
    let signature = &request.signature_algorithm.algorithm;
    let curve = key.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    if key.algorithm == EC_PUBLIC_KEY && curve == Some(P256) && *signature == ECDSA_WITH_SHA256 {
        Ok(&ECDSA_P256_SHA256_ASN1)
    } else if key.algorithm == ED25519_KEY && key.parameters.is_none() && *signature == ED25519_KEY {
        Ok(&ED25519)
    } else {
        Err(Faulty::Key)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType, SignatureAlgorithm};

    use super::*;

    const GROUP: &str = "hearth:tool:wikibot:aaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn name(parts: &[(DnType, &str)]) -> DistinguishedName {
        let mut name = DistinguishedName::new();
        for (kind, value) in parts {
            name.push(kind.clone(), *value);
        }
        name
    }

    fn good_name() -> DistinguishedName {
        name(&[
            (DnType::OrganizationName, "toolforge"),
            (DnType::CustomDnType(vec![2, 5, 4, 10]), GROUP),
            (DnType::CommonName, "tool:wikibot"),
        ])
    }

    fn signed(change: impl FnOnce(&mut CertificateParams), algorithm: &'static SignatureAlgorithm) -> String {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = good_name();
        change(&mut parameters);
        let key = KeyPair::generate_for(algorithm).unwrap();
        parameters.serialize_request(&key).unwrap().pem().unwrap()
    }

    fn check(pem: &str, expected: Result<(), Faulty>) {
        assert_eq!(read(pem.as_bytes()).map(|_| ()), expected, "{pem}");
    }

    #[test]
    fn a_tools_request_is_read() {
        let subject = Subject {
            common_name: "tool:wikibot".to_owned(),
            organizations: vec!["toolforge".to_owned(), GROUP.to_owned()],
        };
        for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ED25519] {
            assert_eq!(read(signed(|_| (), algorithm).as_bytes()), Ok(subject.clone()));
        }
    }

    #[test]
    fn whoever_the_subject_is_it_is_read_as_it_is() {
        let admin = name(&[(DnType::OrganizationName, "system:masters"), (DnType::CommonName, "admin:root")]);
        let pem = signed(|p| p.distinguished_name = admin, &rcgen::PKCS_ECDSA_P256_SHA256);
        let subject =
            Subject { common_name: "admin:root".to_owned(), organizations: vec!["system:masters".to_owned()] };
        assert_eq!(read(pem.as_bytes()), Ok(subject));
    }

    #[test]
    fn requests_for_more_are_refused() {
        let p256 = &rcgen::PKCS_ECDSA_P256_SHA256;
        let dns = |p: &mut CertificateParams| {
            p.subject_alt_names = vec![SanType::DnsName("api.hearth.internal".try_into().unwrap())];
        };
        check(&signed(dns, p256), Err(Faulty::Attributes));
        let unit = name(&[(DnType::CommonName, "tool:wikibot"), (DnType::OrganizationalUnitName, "x")]);
        check(&signed(|p| p.distinguished_name = unit, p256), Err(Faulty::SubjectParts));
        let twice = name(&[(DnType::CommonName, "tool:a"), (DnType::CustomDnType(vec![2, 5, 4, 3]), "admin:root")]);
        check(&signed(|p| p.distinguished_name = twice, p256), Err(Faulty::SubjectParts));
        check(&signed(|p| p.distinguished_name = DistinguishedName::new(), p256), Err(Faulty::SubjectParts));
        check(&signed(|_| (), &rcgen::PKCS_ECDSA_P384_SHA384), Err(Faulty::Key));
    }

    #[test]
    fn a_request_with_another_signature_is_refused() {
        let pem = signed(|_| (), &rcgen::PKCS_ECDSA_P256_SHA256);
        let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
        let mut der = block.contents.clone();
        let at = der.windows(7).position(|w| w == b"wikibot").unwrap();
        der[at] = b'v';
        let forged = k8s_openapi::ByteString(der);
        let base64 = serde_json::to_value(forged).unwrap();
        let body = base64.as_str().unwrap();
        let forged = format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n");
        check(&forged, Err(Faulty::Signature));
    }

    #[test]
    fn what_is_not_one_request_is_refused() {
        let pem = signed(|_| (), &rcgen::PKCS_ECDSA_P256_SHA256);
        check(&format!("{pem}{pem}"), Err(Faulty::Format));
        check(&format!("x\n{pem}"), Err(Faulty::Format));
        check(&pem.replace("CERTIFICATE REQUEST", "CERTIFICATE"), Err(Faulty::Format));
        check(&pem[..pem.len() / 2], Err(Faulty::Format));
        check("", Err(Faulty::Format));
    }
}
