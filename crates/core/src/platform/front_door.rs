//! The front door: the section `[front_door]` of `platform.toml`.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::ToolName;
use crate::limit::Allowance;

/// Where the front door is to the platform's own programs, and what visitors and tools may use of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FrontDoor {
    /// Its address and port, where the name service does not lead there by the tools' hosts.
    pub address: Option<SocketAddr>,
    /// How requests get from it to pods.
    pub path: Path,
    /// Where the way through the cluster's ingress begins: addresses of balancers, or of nodes with the ingress's port.
    /// Beside the direct path it is taken while the front door does not know where pods are.
    pub balancers: Vec<SocketAddr>,
    /// What one visitor may use: an address, or the 64-bit network of an IPv6 address.
    pub visitor: Allowance,
    /// What all visitors of one tool may use together.
    pub tool: Allowance,
    /// Networks whose visitors are not limited, such as `192.0.2.0/24`.
    pub unlimited_visitors: Vec<IpNet>,
    /// Tools that are not limited.
    pub unlimited_tools: Vec<ToolName>,
}

/// How requests get from the front door to pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Path {
    /// It dials pods.
    #[default]
    Direct,
    /// It cannot, and dials a balancer, behind which the cluster's ingress does.
    Ingress,
}

impl FrontDoor {
    /// Whether the cluster's ingress is part of the installation.
    pub fn uses_ingress(&self) -> bool {
        self.path == Path::Ingress || !self.balancers.is_empty()
    }

    /// Whether a visitor from this address is limited.
    pub fn limits_visitor(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        !self.unlimited_visitors.iter().any(|network| network.contains(&address))
    }

    /// Whether a tool is limited.
    pub fn limits_tool(&self, tool: &ToolName) -> bool {
        !self.unlimited_tools.contains(tool)
    }

    pub(super) fn mistakes(&self) -> Vec<String> {
        let parts = [("visitor", self.visitor), ("tool", self.tool)];
        let wrong = parts.into_iter().filter_map(|(name, allowance)| Some((name, allowance.mistake()?)));
        let mut mistakes: Vec<String> = wrong.map(|(name, mistake)| format!("front_door.{name}: {mistake}")).collect();
        if self.path == Path::Ingress && self.balancers.is_empty() {
            mistakes
                .push("front_door.balancers: the path \"ingress\" begins at a balancer, and none is listed".to_owned());
        }
        mistakes
    }
}

impl Default for FrontDoor {
    /// A visitor's rate is the original's; a tool may be visited by a thousand at a time.
    fn default() -> Self {
        Self {
            address: None,
            path: Path::Direct,
            balancers: Vec::new(),
            visitor: Allowance { per_second: 100, burst: 100, at_once: 250 },
            tool: Allowance { per_second: 1000, burst: 2000, at_once: 1000 },
            unlimited_visitors: Vec::new(),
            unlimited_tools: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_through_the_ingress_begins_somewhere() {
        let read = |text: &str| toml::from_str::<FrontDoor>(text).unwrap();
        let direct = read("");
        assert!(direct.mistakes().is_empty() && !direct.uses_ingress());
        let beside = read("balancers = ['10.0.0.1:30000']");
        assert!(beside.mistakes().is_empty() && beside.uses_ingress() && beside.path == Path::Direct);
        let through = read("path = 'ingress'\nbalancers = ['10.0.0.1:30000', '10.0.0.2:30000']");
        assert!(through.mistakes().is_empty() && through.uses_ingress());
        let nowhere = ["front_door.balancers: the path \"ingress\" begins at a balancer, and none is listed"];
        assert_eq!(read("path = 'ingress'").mistakes(), nowhere);
        assert!(toml::from_str::<FrontDoor>("path = 'haproxy'").is_err());
    }

    #[test]
    fn who_is_not_limited_is_listed() {
        let text = "unlimited_visitors = ['192.0.2.0/24', '2001:db8::/32']\nunlimited_tools = ['wikibot']";
        let door: FrontDoor = toml::from_str(text).unwrap();
        for (address, limited) in [
            ("192.0.2.7", false),
            ("::ffff:192.0.2.7", false),
            ("192.0.3.7", true),
            ("2001:db8:1::1", false),
            ("2001:db9::1", true),
        ] {
            assert_eq!(door.limits_visitor(address.parse().unwrap()), limited, "{address}");
        }
        assert!(!door.limits_tool(&"wikibot".parse().unwrap()) && door.limits_tool(&"other".parse().unwrap()));
        assert!(toml::from_str::<FrontDoor>("unlimited_visitors = ['192.0.2.0']").is_err());
        let none: FrontDoor = toml::from_str("visitor = { per_second = 0, burst = 1, at_once = 1 }").unwrap();
        assert_eq!(none.mistakes(), ["front_door.visitor: each number must be at least 1"]);
    }
}
