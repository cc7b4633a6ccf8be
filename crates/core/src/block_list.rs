//! Whose requests the front door refuses: a file of the operator's, and what it says of a request.
//!
//! Texts are looked for as they are, without regard to case: no expression can be so intricate that a request waits.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;

/// The file as it is written, and as it is used once [`BlockList::from_toml`] has read it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BlockList {
    /// Networks, such as `192.0.2.0/24`.
    addresses: Vec<IpNet>,
    /// Whoever has one of these anywhere in the `User-Agent`.
    user_agents: Vec<String>,
    /// Whoever comes from a page whose URL begins so, as the `Referer` says.
    referers: Vec<String>,
    /// Where people read why their address is blocked, and whom to ask: a URL.
    explanation: Option<String>,
}

/// What of a request is blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// The visitor's address.
    Address,
    /// The program.
    UserAgent,
    /// The page that leads here.
    Referer,
}

/// Everything that is wrong with a list, a line each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the block list is not usable: {}", .0.join("; "))]
pub struct BlockListError(Vec<String>);

impl BlockList {
    /// Reads a list.
    ///
    /// # Errors
    /// It is not such a file, or an entry would block everybody or nobody.
    pub fn from_toml(text: &str) -> Result<Self, BlockListError> {
        let mut list: Self =
            toml::from_str(text).map_err(|e| BlockListError(vec![e.to_string().trim_end().to_owned()]))?;
        let mut mistakes = Vec::new();
        for (name, texts) in [("user_agents", &mut list.user_agents), ("referers", &mut list.referers)] {
            for text in texts.iter_mut() {
                *text = text.trim().to_ascii_lowercase();
            }
            if texts.iter().any(String::is_empty) {
                mistakes.push(format!("{name}: an empty text is in everything"));
            }
        }
        if list.addresses.iter().any(|network| network.prefix_len() == 0) {
            mistakes.push("addresses: a network of length 0 is everybody".to_owned());
        }
        let is_url =
            |text: &str| text.starts_with("https://") && !text.contains(|c: char| "\"'<>&".contains(c) || c <= ' ');
        if list.explanation.as_ref().is_some_and(|url| !is_url(url)) {
            mistakes.push("explanation: it is not a URL with https://".to_owned());
        }
        if mistakes.is_empty() { Ok(list) } else { Err(BlockListError(mistakes)) }
    }

    /// Whether it blocks nothing.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.user_agents.is_empty() && self.referers.is_empty()
    }

    /// How many entries it has.
    pub fn len(&self) -> usize {
        self.addresses.len() + self.user_agents.len() + self.referers.len()
    }

    /// Where people read why.
    pub fn explanation(&self) -> Option<&str> {
        self.explanation.as_deref()
    }

    /// What of a request is blocked, if anything.
    pub fn blocks(&self, address: Option<IpAddr>, agent: &[u8], referer: &[u8]) -> Option<Blocked> {
        let address = address.map(|address| address.to_canonical());
        if address.is_some_and(|address| self.addresses.iter().any(|network| network.contains(&address))) {
            return Some(Blocked::Address);
        }
        if !self.user_agents.is_empty() {
            let agent = agent.to_ascii_lowercase();
            if self.user_agents.iter().any(|text| memchr::memmem::find(&agent, text.as_bytes()).is_some()) {
                return Some(Blocked::UserAgent);
            }
        }
        let begins = |text: &String| {
            referer.get(..text.len()).is_some_and(|beginning| beginning.eq_ignore_ascii_case(text.as_bytes()))
        };
        self.referers.iter().any(begins).then_some(Blocked::Referer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"
        addresses = ["192.0.2.0/24", "2001:db8::/32"]
        user_agents = ["BadBot/", "scraper"]
        referers = ["https://spam.example/"]
        explanation = "https://wiki.example/Banned"
    "#;

    #[test]
    fn a_request_is_judged_by_three_things() {
        let list = BlockList::from_toml(LIST).unwrap();
        for (address, agent, referer, expected) in [
            ("198.51.100.1", "Mozilla/5.0", "", None),
            ("192.0.2.9", "Mozilla/5.0", "", Some(Blocked::Address)),
            ("::ffff:192.0.2.9", "Mozilla/5.0", "", Some(Blocked::Address)),
            ("2001:db8::1", "Mozilla/5.0", "", Some(Blocked::Address)),
            ("198.51.100.1", "Mozilla/5.0 (compatible; badbot/1.0)", "", Some(Blocked::UserAgent)),
            ("198.51.100.1", "MyScraper", "", Some(Blocked::UserAgent)),
            ("198.51.100.1", "badbot", "", None),
            ("198.51.100.1", "Mozilla/5.0", "HTTPS://Spam.example/page", Some(Blocked::Referer)),
            ("198.51.100.1", "Mozilla/5.0", "https://other.example/?https://spam.example/", None),
            ("198.51.100.1", "Mozilla/5.0", "https://spam.example", None),
        ] {
            let found = list.blocks(Some(address.parse().unwrap()), agent.as_bytes(), referer.as_bytes());
            assert_eq!(found, expected, "{address} {agent} {referer}");
        }
        assert_eq!((list.len(), list.explanation()), (5, Some("https://wiki.example/Banned")));
        let none = BlockList::from_toml("").unwrap();
        assert!(none.is_empty() && none.blocks(None, b"", b"").is_none());
    }

    #[test]
    fn what_would_block_everybody_is_a_mistake() {
        for bad in [
            "addresses = ['192.0.2.0']",
            "addresses = ['0.0.0.0/0']",
            "user_agents = [' ']",
            "referers = ['']",
            "agents = []",
            "explanation = 'javascript:alert(1)'",
            "explanation = 'https://a.example/\"><script>'",
        ] {
            assert!(BlockList::from_toml(bad).is_err(), "{bad}");
        }
    }
}
