//! Which host a request is for, when it says so only once and clearly.
//!
//! Proxies that disagree about the host of a request are how one tenant's requests end at another's, so a request
//! that names two hosts, or none, is refused (RFC 9112 §3.2, RFC 9113 §8.3.1) and never repaired.

use hearth_core::Host;
use http::header::HOST;
use http::{HeaderMap, Uri, Version};

/// The host that a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Authority {
    /// The host, normalised: this is what is routed and what the tool is told.
    pub(super) host: Host,
    /// The port, where the client named one.
    pub(super) port: Option<u16>,
}

/// Why a request has no one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AuthorityError {
    Missing,
    Several,
    Disagreeing,
    NotAName,
}

impl AuthorityError {
    /// What the client is told.
    pub(super) fn sentence(self) -> &'static str {
        match self {
            Self::Missing => "The request names no host: a Host field is needed.",
            Self::Several => "The request has more than one Host field.",
            Self::Disagreeing => "The request names two hosts, one in its target and another in its Host field.",
            Self::NotAName => "The host of the request is not a host name.",
        }
    }
}

impl Authority {
    /// As a `Host` field.
    pub(super) fn to_field(&self) -> String {
        match self.port {
            Some(port) => format!("{}:{port}", self.host),
            None => self.host.as_str().to_owned(),
        }
    }

    fn parse(text: &str) -> Result<Self, AuthorityError> {
        let host = Host::of_authority(text).map_err(|_| AuthorityError::NotAName)?;
        let port = match text.split_once(':') {
            Some((_, port)) => Some(port.parse().map_err(|_| AuthorityError::NotAName)?),
            None => None,
        };
        Ok(Self { host, port })
    }
}

/// The host of a request from its target and its fields.
pub(super) fn authority(uri: &Uri, headers: &HeaderMap, version: Version) -> Result<Authority, AuthorityError> {
    let mut fields = headers.get_all(HOST).iter();
    let field = fields.next();
    if fields.next().is_some() {
        return Err(AuthorityError::Several);
    }
    let field = match field {
        Some(value) => Some(Authority::parse(value.to_str().map_err(|_| AuthorityError::NotAName)?)?),
        None => None,
    };
    let target = match uri.authority() {
        Some(authority) => Some(Authority::parse(authority.as_str())?),
        None => None,
    };
    match (target, field) {
        (Some(target), Some(field)) if target == field => Ok(target),
        (Some(_), Some(_)) => Err(AuthorityError::Disagreeing),
        // In HTTP/2 `:authority` stands for the Host field; HTTP/1.1 needs the field also beside an absolute target.
        (Some(target), None) if version == Version::HTTP_2 => Ok(target),
        (None, Some(field)) => Ok(field),
        (_, None) => Err(AuthorityError::Missing),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn check(uri: &str, hosts: &[&'static str], version: Version, expected: Result<&str, AuthorityError>) {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_static(host));
        }
        let found = authority(&uri.parse().unwrap(), &headers, version).map(|found| found.to_field());
        assert_eq!(found, expected.map(str::to_owned), "{uri} {hosts:?} {version:?}");
    }

    #[test]
    fn one_host_or_none() {
        use AuthorityError::{Disagreeing, Missing, NotAName, Several};
        let (h1, h2) = (Version::HTTP_11, Version::HTTP_2);
        check("/x", &["a.example"], h1, Ok("a.example"));
        check("/x", &["A.Example.:8443"], h1, Ok("a.example:8443"));
        check("http://a.example/x", &["a.example"], h1, Ok("a.example"));
        check("http://a.example/x", &["b.example"], h1, Err(Disagreeing));
        check("http://a.example/x", &["a.example:81"], h1, Err(Disagreeing));
        check("http://a.example/x", &[], h1, Err(Missing));
        check("/x", &[], h1, Err(Missing));
        check("/x", &[], Version::HTTP_10, Err(Missing));
        check("/x", &["a.example", "a.example"], h1, Err(Several));
        check("/x", &["a.example", "b.example"], h1, Err(Several));
        check("https://a.example/x", &[], h2, Ok("a.example"));
        check("https://a.example/x", &["a.example"], h2, Ok("a.example"));
        check("https://a.example/x", &["b.example"], h2, Err(Disagreeing));
        check("/x", &["b.example"], h2, Ok("b.example"));
        for bad in ["", "a.example, b.example", "u@a.example", "127.0.0.1", "[::1]", "a.example:", "a.example:99999"] {
            check("/x", &[bad], h1, Err(NotAName));
        }
        check("http://u@a.example/x", &["a.example"], h1, Err(NotAName));
    }
}
