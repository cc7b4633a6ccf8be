//! Why a visitor gets a page of the platform instead of a tool's: the words in which the front door tells the role
//! that draws the pages.

use std::fmt;
use std::str::FromStr;

/// The request field that carries a [`Reason`] to the pages' role.
pub const REASON_FIELD: &str = "x-hearth-reason";

/// The request field that names the tool that the reason is about, where there is one.
pub const TOOL_FIELD: &str = "x-hearth-tool";

/// The request field with the path and query that the visitor asked for.
pub const ORIGINAL_URI_FIELD: &str = "x-original-uri";

/// The response field in which proxies say why they answer themselves (RFC 9209 §2).
pub const PROXY_STATUS_FIELD: &str = "proxy-status";

/// How the front door names itself in it.
pub const PROXY: &str = "hearth";

/// Why a visitor gets a page of the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The platform's own domain was asked for.
    Apex,
    /// Nothing of the platform can have this address.
    UnknownHost,
    /// No tool has this name.
    UnknownTool,
    /// The tool serves nothing here, or is disabled.
    NoWebService,
    /// The tool has a web service, and none of its pods is ready.
    Unavailable,
    /// No pod of the tool accepted a connection.
    Unreachable,
    /// The tool's pod ended the connection instead of answering, or its answer was not HTTP.
    BrokenAnswer,
    /// The tool's pod did not answer in time.
    NoAnswer,
    /// The front door has not heard from the cluster for too long to know where tools are.
    Stale,
    /// The front door goes through the cluster's ingress, and neither a balancer nor the ingress answered.
    NoPassage,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 10] = [
        Self::Apex,
        Self::UnknownHost,
        Self::UnknownTool,
        Self::NoWebService,
        Self::Unavailable,
        Self::Unreachable,
        Self::BrokenAnswer,
        Self::NoAnswer,
        Self::Stale,
        Self::NoPassage,
    ];

    /// The word for it, in the request field, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Apex => "apex",
            Self::UnknownHost => "unknown-host",
            Self::UnknownTool => "unknown-tool",
            Self::NoWebService => "no-web-service",
            Self::Unavailable => "unavailable",
            Self::Unreachable => "unreachable",
            Self::BrokenAnswer => "broken-answer",
            Self::NoAnswer => "no-answer",
            Self::Stale => "stale",
            Self::NoPassage => "no-passage",
        }
    }

    /// The type of error by which a proxy tells a machine why it made the answer itself (RFC 9209 §2.3); none where
    /// nothing is wrong.
    pub fn proxy_error(self) -> Option<&'static str> {
        match self {
            Self::Apex => None,
            Self::UnknownHost | Self::UnknownTool => Some("destination_not_found"),
            Self::NoWebService | Self::Unavailable => Some("destination_unavailable"),
            Self::Unreachable => Some("connection_refused"),
            Self::BrokenAnswer => Some("http_protocol_error"),
            Self::NoAnswer => Some("http_response_timeout"),
            Self::Stale | Self::NoPassage => Some("proxy_internal_error"),
        }
    }

    /// The status of the page.
    pub fn status(self) -> u16 {
        match self {
            Self::Apex => 200,
            Self::UnknownHost | Self::UnknownTool => 404,
            Self::Unreachable | Self::BrokenAnswer => 502,
            Self::NoWebService | Self::Unavailable | Self::Stale | Self::NoPassage => 503,
            Self::NoAnswer => 504,
        }
    }
}

// === impl Reason ===

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text is not the word for a reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a reason that the front door gives")]
pub struct ReasonError(String);

impl FromStr for Reason {
    type Err = ReasonError;

    fn from_str(text: &str) -> Result<Self, ReasonError> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text).ok_or_else(|| ReasonError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_back() {
        for reason in Reason::ALL {
            assert_eq!(reason.as_str().parse(), Ok(reason));
        }
        assert!("".parse::<Reason>().is_err());
    }
}
