//! `quotas.toml`: what single tools may use beyond what all tools may, in one file that people review.
//!
//! A table for each tool. What it does not name stays as it is for all:
//!
//! ```
//! # use hearth_core::account::quotas::Quotas;
//! let quotas = Quotas::from_toml(r#"
//! [wikibot]
//! why = "reads whole dumps, agreed on 2026-11-23"
//! quota = { "requests.memory" = "12Gi", "limits.memory" = "16Gi", pods = "20" }
//! container = { memory = "8Gi" }
//! "#)?;
//! # assert!(quotas.of(&"wikibot".parse()?).is_some());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use super::objects::QUOTA;
use crate::ToolName;

/// What a container may be given more of.
const CONTAINER: [&str; 3] = ["cpu", "ephemeral-storage", "memory"];

/// What single tools may use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quotas(BTreeMap<ToolName, Own>);

/// What one tool may use, where that differs from the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// Keys of the tool's `ResourceQuota`.
    pub quota: BTreeMap<String, Amount>,
    /// The most that one container may ask for, by resource.
    pub container: BTreeMap<String, Amount>,
}

/// An amount, written as the API server writes it: an object that it returns then equals the one that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Amount(String);

/// A mistake in `quotas.toml`: everything that is wrong, a line each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the tools' own quotas are not usable:\n{}", .0.join("\n"))]
pub struct QuotasError(pub Vec<String>);

/// Why a text is no amount.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an amount: digits, and one of m, k, M, G, T, Ki, Mi, Gi and Ti or nothing")]
pub struct AmountError(String);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnFile {
    /// For those who review the file.
    why: String,
    #[serde(default)]
    quota: BTreeMap<String, String>,
    #[serde(default)]
    container: BTreeMap<String, String>,
}

impl Quotas {
    /// Reads a `quotas.toml`. All mistakes that can be seen are reported at once.
    pub fn from_toml(text: &str) -> Result<Self, QuotasError> {
        let file: BTreeMap<String, OwnFile> =
            toml::from_str(text).map_err(|e| QuotasError(vec![e.to_string().trim_end().to_owned()]))?;
        let mut mistakes = Vec::new();
        let mut quotas = BTreeMap::new();
        for (name, own) in file {
            let mut amounts = |table: &str, texts: &BTreeMap<String, String>, known: &[&str]| {
                let mut amounts = BTreeMap::new();
                for (key, text) in texts {
                    match text.parse::<Amount>() {
                        _ if !known.contains(&key.as_str()) => {
                            mistakes
                                .push(format!("{name}.{table}: there is no '{key}'; there are {}", known.join(", ")));
                        }
                        Ok(amount) => drop(amounts.insert(key.clone(), amount)),
                        Err(error) => mistakes.push(format!("{name}.{table}.{key}: {error}")),
                    }
                }
                amounts
            };
            let keys: Vec<&str> = QUOTA.iter().map(|(key, _)| *key).collect();
            let (quota, container) =
                (amounts("quota", &own.quota, &keys), amounts("container", &own.container, &CONTAINER));
            if own.why.trim().is_empty() {
                mistakes.push(format!("{name}.why: it says nothing; whoever reviews this file later will ask"));
            }
            match name.parse() {
                Ok(tool) => drop(quotas.insert(tool, Own { quota, container })),
                Err(error) => mistakes.push(format!("{name}: {error}")),
            }
        }
        if mistakes.is_empty() { Ok(Self(quotas)) } else { Err(QuotasError(mistakes)) }
    }

    /// What this tool may use that others may not.
    pub fn of(&self, tool: &ToolName) -> Option<&Own> {
        self.0.get(tool)
    }
}

impl FromStr for Amount {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || AmountError(text.to_owned());
        let (digits, suffix) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        let mut value: u64 = digits.parse().map_err(|_| error())?;
        // The greatest suffix with which no part of the number is lost, as Kubernetes writes quantities.
        let (steps, step): (&[&str], u64) = match suffix {
            "Ki" | "Mi" | "Gi" | "Ti" => (&["Ki", "Mi", "Gi", "Ti"], 1024),
            "m" | "" | "k" | "M" | "G" | "T" => (&["m", "", "k", "M", "G", "T"], 1000),
            _ => return Err(error()),
        };
        let mut steps = steps.iter().skip_while(|known| **known != suffix);
        let mut suffix = steps.next().ok_or_else(error)?;
        if value == 0 {
            return Ok(Self("0".to_owned()));
        }
        for next in steps {
            if !value.is_multiple_of(step) {
                break;
            }
            (value, suffix) = (value / step, next);
        }
        Ok(Self(format!("{value}{suffix}")))
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::objects;

    #[test]
    fn a_tool_may_use_more_and_the_others_do_not_notice() {
        let text = "[big]\nwhy = \"dumps\"\nquota = { pods = \"2000\", \"limits.memory\" = \"16384Mi\" }\n\
                    container = { memory = \"8Gi\" }\n";
        let quotas = Quotas::from_toml(text).unwrap();
        let (big, other) = ("big".parse().unwrap(), "other".parse().unwrap());
        let none = Quotas::default();
        let hard = |tool, quotas| objects::quota(tool, quotas).spec.unwrap().hard.unwrap();
        let (mine, usual) = (hard(&big, &quotas), hard(&big, &none));
        assert_eq!((mine["pods"].0.as_str(), mine["limits.memory"].0.as_str()), ("2k", "16Gi"));
        let differ: Vec<&String> = mine.keys().filter(|key| mine[*key] != usual[*key]).collect();
        assert_eq!(differ, ["limits.memory", "pods"]);
        let max = objects::limits(&big, &quotas).spec.unwrap().limits[0].max.clone().unwrap();
        assert_eq!((max["memory"].0.as_str(), max["cpu"].0.as_str()), ("8Gi", "1"));
        assert_eq!(objects::quota(&other, &quotas), objects::quota(&other, &none));
        assert_eq!(objects::limits(&other, &quotas), objects::limits(&other, &none));
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let text = "[UPPER]\nwhy = \"x\"\n[big]\nwhy = \" \"\nquota = { nodes = \"1\", pods = \"many\" }\n\
                    container = { memory = \"1.5Gi\" }\n";
        let QuotasError(mistakes) = Quotas::from_toml(text).unwrap_err();
        assert_eq!(mistakes.len(), 5, "{mistakes:#?}");
        assert!(Quotas::from_toml("[big]\nquota = {}").unwrap_err().to_string().contains("why"));
        assert!(Quotas::from_toml("[big]\nwhy = \"x\"\nlimit = 1").unwrap_err().to_string().contains("unknown field"));
    }

    /// What the API server answers for each.
    #[test]
    fn amounts_are_written_as_the_api_server_writes_them() {
        for (text, written) in [
            ("0", "0"),
            ("0Gi", "0"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("2000", "2k"),
            ("2001", "2001"),
            ("1024Mi", "1Gi"),
            ("1536Mi", "1536Mi"),
            ("007", "7"),
            ("2048Ki", "2Mi"),
            ("1000000k", "1G"),
        ] {
            assert_eq!(text.parse::<Amount>().unwrap().to_string(), written, "{text}");
        }
        for text in ["", "Gi", "-1", "1.5", "1e3", "1 Gi", "1gi", "99999999999999999999", "1Pi"] {
            assert!(text.parse::<Amount>().is_err(), "{text}");
        }
    }
}
