//! Tokens: JSON Web Tokens, signed with ES256, that carry the certificate of the key that signed them.
//!
//! Debian's registry (distribution 2.8) trusts a token whose `x5c` leads to its `rootcertbundle`, wants `aud` to be
//! one text, and allows a minute of difference between clocks.

use anyhow::Context;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hearth_core::registry::{Access, ISSUER, Identity};
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde::Serialize;

/// For how many seconds a token is valid.
const LIFE: i64 = 300;

/// Signs tokens.
pub struct Signer {
    header: Header,
    key: EncodingKey,
}

/// A token, as the protocol has it.
#[derive(Debug, Serialize)]
pub struct Issued {
    token: String,
    /// The same, under the name that newer clients read.
    access_token: String,
    expires_in: i64,
    issued_at: String,
}

/// What a token says.
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: String,
    aud: &'a str,
    exp: i64,
    nbf: i64,
    iat: i64,
    jti: String,
    access: Vec<Access>,
}

impl Signer {
    /// A signer with a P-256 key (PEM, PKCS #8) and its certificate chain (PEM).
    pub fn new(certificates: &str, key: &str) -> anyhow::Result<Self> {
        let chain = CertificateDer::pem_slice_iter(certificates.as_bytes())
            .map(|certificate| certificate.map(|der| BASE64_STANDARD.encode(der)))
            .collect::<Result<Vec<String>, _>>()
            .context("failed to read the certificate of the token key")?;
        anyhow::ensure!(!chain.is_empty(), "the file of the token key's certificate holds no certificate");
        let mut header = Header::new(Algorithm::ES256);
        header.x5c = Some(chain);
        let rule = "the token key must be a P-256 key in PKCS #8, PEM";
        let key = PrivatePkcs8KeyDer::from_pem_slice(key.as_bytes()).context(rule)?;
        let key = EncodingKey::from_ec_der(key.secret_pkcs8_der());
        // The key is looked at only when it signs: better now than at the first request.
        jsonwebtoken::encode(&header, &(), &key).context(rule)?;
        Ok(Self { header, key })
    }

    /// A token that grants `access`, from now on.
    pub fn issue(
        &self,
        identity: &Identity,
        service: &str,
        access: Vec<Access>,
        now: Timestamp,
    ) -> anyhow::Result<Issued> {
        let mut random = [0; 16];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| anyhow::anyhow!("no random numbers are to be had"))?;
        let seconds = now.as_second();
        let claims = Claims {
            iss: ISSUER,
            sub: identity.to_string(),
            aud: service,
            exp: seconds + LIFE,
            nbf: seconds,
            iat: seconds,
            jti: random.iter().map(|byte| format!("{byte:02x}")).collect(),
            access,
        };
        let token = jsonwebtoken::encode(&self.header, &claims, &self.key).context("failed to sign a token")?;
        let issued_at = Timestamp::from_second(seconds)?.to_string();
        Ok(Issued { access_token: token.clone(), token, expires_in: LIFE, issued_at })
    }
}
