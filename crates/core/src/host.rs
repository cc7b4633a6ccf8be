//! Host names, and what a host means on this platform.
//!
//! The same types serve the admission rules and the front door, so that what is admitted is
//! what is routed. Hosts are parsed, never matched by pattern.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ToolName;

/// A host name: lower-case DNS labels without a trailing dot, 253 characters at most. Not an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Host(String);

/// Why a text is not a host name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a host name: {reason}")]
pub struct HostError {
    text: String,
    reason: &'static str,
}

/// The domains under which the platform's tools are reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domains {
    /// Parents of the tools' own hosts; the first is the one that is shown and redirected to. Never empty.
    pub public: Vec<Host>,
    /// The host whose first path segment names a tool.
    pub legacy: Host,
}

/// What a host stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// `<tool>.<domain>`.
    Tool(ToolName),
    /// The legacy host: the first segment of the path names the tool.
    Legacy,
    /// A configured domain itself, without a tool.
    Apex,
    /// A label below a configured domain that no tool can have, or a host outside of all of them.
    Elsewhere,
}

impl Host {
    /// The host name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads the host out of a `Host` field or `:authority`: case and one trailing dot do not matter,
    /// a port is dropped. Addresses and user information are refused.
    pub fn of_authority(authority: &str) -> Result<Self, HostError> {
        let error = |reason| HostError { text: authority.to_owned(), reason };
        let name = match authority.split_once(':') {
            Some((name, port)) => {
                if port.is_empty() || port.len() > 5 || !port.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(error("the port is not a number"));
                }
                name
            }
            None => authority,
        };
        name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase().parse().map_err(|e: HostError| error(e.reason))
    }
}

impl Domains {
    /// What `host` stands for. The legacy host wins over a tool of the same name, and so does every configured domain:
    /// where one of them lies below another, it is never read as a tool of the shorter one. At most one domain is left
    /// that is just one label shorter than the host.
    pub fn place(&self, host: &Host) -> Place {
        if *host == self.legacy {
            return Place::Legacy;
        }
        if self.public.contains(host) {
            return Place::Apex;
        }
        for domain in &self.public {
            let label = host.0.strip_suffix(domain.as_str()).and_then(|rest| rest.strip_suffix('.'));
            if let Some(tool) = label.and_then(|label| label.parse().ok()) {
                return Place::Tool(tool);
            }
        }
        Place::Elsewhere
    }

    /// The host under which a tool is shown: `<tool>.<public domain>`, of the first domain where that is its own.
    pub fn host_of(&self, tool: &ToolName) -> Host {
        let below = |domain: &Host| Host(format!("{tool}.{domain}"));
        self.hosts_of(tool).into_iter().next().unwrap_or_else(|| below(self.public.first().unwrap_or(&self.legacy)))
    }

    /// Every host that is the tool's own, the canonical one first: all that [`Self::place`] gives to it.
    pub fn hosts_of(&self, tool: &ToolName) -> Vec<Host> {
        let hosts = self.public.iter().map(|domain| Host(format!("{tool}.{domain}")));
        hosts.filter(|host| self.place(host) == Place::Tool(tool.clone())).collect()
    }
}

// === impl Host ===

impl FromStr for Host {
    type Err = HostError;

    /// Parses a host name exactly as written: upper case, a trailing dot, a port, a wildcard or an address are refused.
    fn from_str(text: &str) -> Result<Self, HostError> {
        let error = |reason| Err(HostError { text: text.to_owned(), reason });
        if text.is_empty() {
            return error("it is empty");
        }
        if text.len() > 253 {
            return error("it is longer than 253 characters");
        }
        for label in text.split('.') {
            if label.is_empty() {
                return error("it has an empty label");
            }
            if label.len() > 63 {
                return error("a label is longer than 63 characters");
            }
            if label.starts_with('-') || label.ends_with('-') {
                return error("a label starts or ends with a hyphen");
            }
            if !label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
                return error("only lower-case letters, digits, hyphens and dots are allowed");
            }
        }
        if text.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit())) {
            return error("it is an address, not a name");
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Host {
    type Error = HostError;

    fn try_from(text: String) -> Result<Self, HostError> {
        text.parse()
    }
}

impl From<Host> for String {
    fn from(host: Host) -> Self {
        host.0
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domains() -> Domains {
        Domains {
            public: vec!["toolforge.org".parse().unwrap(), "tools.example".parse().unwrap()],
            legacy: "tools.toolforge.org".parse().unwrap(),
        }
    }

    fn check(authority: &str, expected: Option<Place>) {
        let place = Host::of_authority(authority).ok().map(|host| domains().place(&host));
        assert_eq!(place, expected, "{authority:?}");
    }

    #[test]
    fn places() {
        let tool = |name: &str| Some(Place::Tool(name.parse().unwrap()));
        check("wikibot.toolforge.org", tool("wikibot"));
        check("WikiBot.Toolforge.ORG.:8443", tool("wikibot"));
        check("wikibot.tools.example", tool("wikibot"));
        check("tools.toolforge.org", Some(Place::Legacy));
        check("toolforge.org", Some(Place::Apex));
        check("a.b.toolforge.org", Some(Place::Elsewhere));
        check("wikibot.toolforge.org.evil.example", Some(Place::Elsewhere));
        check("wikibotxtoolforge.org", Some(Place::Elsewhere));
        for bad in [
            "",
            "*.toolforge.org",
            "a..b",
            "127.0.0.1",
            "[::1]",
            "a:b",
            "a:",
            "a:1:2",
            "u@a",
            "a_b.toolforge.org",
            "a b",
            "-a.org",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn a_domain_below_another_is_no_tool_of_it() {
        for public in [["example.org", "foo.example.org"], ["foo.example.org", "example.org"]] {
            let domains = Domains {
                public: public.map(|text| text.parse().unwrap()).to_vec(),
                legacy: "tools.example.org".parse().unwrap(),
            };
            let place = |text: &str| domains.place(&text.parse().unwrap());
            let tool = |name: &str| Place::Tool(name.parse().unwrap());
            assert_eq!(place("foo.example.org"), Place::Apex);
            assert_eq!(place("example.org"), Place::Apex);
            assert_eq!(place("foo.foo.example.org"), tool("foo"));
            assert_eq!(place("a.foo.example.org"), tool("a"));
            assert_eq!(place("a.example.org"), tool("a"));
            assert_eq!(place("a.b.example.org"), Place::Elsewhere);
            assert_eq!(place("tools.example.org"), Place::Legacy);
            let own = |name: &str| domains.hosts_of(&name.parse().unwrap());
            assert_eq!(own("foo"), ["foo.foo.example.org".parse().unwrap()]);
            assert_eq!(own("tools"), ["tools.foo.example.org".parse().unwrap()]);
            assert_eq!(own("a").len(), 2);
            assert_eq!(domains.host_of(&"foo".parse().unwrap()).as_str(), "foo.foo.example.org");
        }
    }

    #[test]
    fn written_hosts_are_exact() {
        for bad in ["Wikibot.toolforge.org", "wikibot.toolforge.org.", "wikibot.toolforge.org:80", "*.org"] {
            assert!(bad.parse::<Host>().is_err(), "{bad}");
        }
        assert_eq!(domains().host_of(&"a".parse().unwrap()).as_str(), "a.toolforge.org");
    }
}
