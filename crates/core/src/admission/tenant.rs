//! Whose namespace it is: read from the namespace's name and annotations, as `accounts` writes them.

use std::collections::BTreeMap;

use super::Rules;
use crate::ToolName;
use crate::names::annotation;

/// A tool, as the rules see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tenant {
    /// The tool's name; empty stands for no tool, which owns nothing.
    pub(super) tool: String,
    /// Its user and group number; 0 stands for no tool.
    pub(super) uid: i64,
    /// The path of its home.
    pub(super) home: String,
    /// The service account that its pods may run as, beside `default`; empty where there is none.
    pub(super) account: String,
}

impl Tenant {
    /// The tool of a namespace: `None` where its name is not a tool's or it carries no number of a tool.
    pub(super) fn of(rules: &Rules, namespace: &str, annotations: &BTreeMap<String, String>) -> Option<Self> {
        let tool = ToolName::of_namespace(namespace)?;
        let uid = annotations.get(annotation::UID).filter(|text| is_number(text))?.parse::<i64>().ok()?;
        if uid < i64::from(rules.first_uid) || uid > i64::from(rules.last_uid) {
            return None;
        }
        let account = annotations.get(annotation::SERVICE_ACCOUNT).cloned().unwrap_or_default();
        Some(Self { uid, home: format!("{}/{tool}", rules.homes), account, tool: tool.to_string() })
    }
}

/// Decimal digits without a leading zero, ten at most: what the policies' pattern accepts too.
fn is_number(text: &str) -> bool {
    (1..=10).contains(&text.len()) && !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit())
}
