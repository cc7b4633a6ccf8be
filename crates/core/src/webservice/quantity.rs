//! Amounts of processor and memory, as maintainers write them: digits and a suffix of Kubernetes.
//!
//! The rule is the original's, `^(\d+)([A-Za-z]{0,2})$`, with the suffix checked against the kind of amount, because
//! `512m` of memory (half a byte) and `1Gi` of processor are always mistakes.

use std::fmt;
use std::str::FromStr;

/// Processor time, in thousandths of a core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpu {
    millicores: u64,
    text: String,
}

/// Memory, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    bytes: u64,
    text: String,
}

/// Why a text is not an amount.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not an amount of {what}: {reason}")]
pub struct QuantityError {
    text: String,
    what: &'static str,
    reason: String,
}

/// The suffixes of bytes, the largest last.
const BYTES: &[(&str, u64)] = &[
    ("", 1),
    ("k", 1_000),
    ("Ki", 1 << 10),
    ("M", 1_000_000),
    ("Mi", 1 << 20),
    ("G", 1_000_000_000),
    ("Gi", 1 << 30),
    ("T", 1_000_000_000_000),
    ("Ti", 1 << 40),
];

impl Cpu {
    /// The amount of a limit when none is asked for.
    pub fn default_limit() -> Self {
        Self::of(500)
    }

    /// What a container asks for that may use this much: half, or all of it where that is under a quarter of a core.
    /// With no limit asked for it is an eighth of a core.
    pub fn request(asked: Option<&Self>) -> Self {
        match asked {
            None => Self::of(125),
            Some(limit) if limit.millicores < 250 => limit.clone(),
            Some(limit) => Self::of(limit.millicores / 2),
        }
    }

    fn of(millicores: u64) -> Self {
        Self { millicores, text: format!("{millicores}m") }
    }
}

impl Memory {
    /// The amount of a limit when none is asked for.
    pub fn default_limit() -> Self {
        Self::of(512 << 20)
    }

    /// What a container asks for that may use this much: half, or all of it where that is under 256 MiB. With no limit
    /// asked for it is 256 MiB.
    pub fn request(asked: Option<&Self>) -> Self {
        match asked {
            None => Self::of(256 << 20),
            Some(limit) if limit.bytes < 256 << 20 => limit.clone(),
            Some(limit) => Self::of(limit.bytes / 2),
        }
    }

    fn of(bytes: u64) -> Self {
        let whole = BYTES.iter().rev().find(|(_, factor)| bytes.is_multiple_of(*factor) && bytes >= *factor);
        let (suffix, factor) = whole.unwrap_or(&("", 1));
        Self { bytes, text: format!("{}{suffix}", bytes / factor) }
    }
}

// === impl FromStr and Display ===

impl FromStr for Cpu {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let error =
            |reason: &str| QuantityError { text: text.to_owned(), what: "processor", reason: reason.to_owned() };
        let rule = "write whole cores, such as 1, or thousandths of a core, such as 500m";
        let (number, suffix) = split(text).ok_or_else(|| error(rule))?;
        let factor = match suffix {
            "" => 1000,
            "m" => 1,
            _ => return Err(error(rule)),
        };
        match number.checked_mul(factor) {
            Some(0) => Err(error("it must be more than nothing")),
            Some(millicores) if millicores <= 1_000_000 => Ok(Self { millicores, text: text.to_owned() }),
            _ => Err(error("it is more than any machine has; thousandths of a core are written as 500m")),
        }
    }
}

impl FromStr for Memory {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let error = |reason: String| QuantityError { text: text.to_owned(), what: "memory", reason };
        let rule = "write a whole number and Mi or Gi, such as 512Mi";
        let (number, suffix) = split(text).ok_or_else(|| error(rule.to_owned()))?;
        if suffix == "m" {
            return Err(error(format!("m means thousandths of a byte; did you mean {number}Mi?")));
        }
        let factor = BYTES.iter().find(|(known, _)| *known == suffix).map(|(_, factor)| *factor);
        let factor = factor.ok_or_else(|| error(rule.to_owned()))?;
        match number.checked_mul(factor) {
            Some(bytes) if bytes < 1 << 20 => Err(error(format!("it is less than 1Mi; did you mean {number}Mi?"))),
            Some(bytes) if bytes <= 1 << 50 => Ok(Self { bytes, text: text.to_owned() }),
            _ => Err(error("it is more than any machine has".to_owned())),
        }
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A number and the up to two letters behind it.
fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, suffix) = text.split_at_checked(digits)?;
    let letters = suffix.len() <= 2 && suffix.bytes().all(|b| b.is_ascii_alphabetic());
    number.parse().ok().filter(|_| letters).map(|number| (number, suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(text: &str) -> Result<(String, String), String> {
        let limit: Memory = text.parse().map_err(|e: QuantityError| e.to_string())?;
        Ok((limit.to_string(), Memory::request(Some(&limit)).to_string()))
    }

    fn cpu(text: &str) -> Result<(String, String), String> {
        let limit: Cpu = text.parse().map_err(|e: QuantityError| e.to_string())?;
        Ok((limit.to_string(), Cpu::request(Some(&limit)).to_string()))
    }

    fn pair(limit: &str, request: &str) -> Result<(String, String), String> {
        Ok((limit.to_owned(), request.to_owned()))
    }

    #[test]
    fn half_is_asked_for_unless_it_is_little() {
        assert_eq!(memory("1Gi"), pair("1Gi", "512Mi"));
        assert_eq!(memory("2G"), pair("2G", "1G"));
        assert_eq!(memory("256Mi"), pair("256Mi", "128Mi"));
        assert_eq!(memory("255Mi"), pair("255Mi", "255Mi"));
        assert_eq!(cpu("1"), pair("1", "500m"));
        assert_eq!(cpu("250m"), pair("250m", "125m"));
        assert_eq!(cpu("200m"), pair("200m", "200m"));
    }

    #[test]
    fn defaults() {
        assert_eq!(Memory::default_limit().to_string(), "512Mi");
        assert_eq!(Memory::request(None).to_string(), "256Mi");
        assert_eq!(Cpu::default_limit().to_string(), "500m");
        assert_eq!(Cpu::request(None).to_string(), "125m");
    }

    #[test]
    fn mistakes_are_explained() {
        let rule = "write a whole number and Mi or Gi, such as 512Mi";
        for bad in ["", "Mi", "1.5Gi", "-1Gi", "1 Gi", "1Mib", "1K", "1mb", "é"] {
            assert_eq!(memory(bad), Err(format!("'{bad}' is not an amount of memory: {rule}")), "{bad:?}");
        }
        assert_eq!(
            memory("512m").unwrap_err(),
            "'512m' is not an amount of memory: m means thousandths of a byte; did you mean 512Mi?"
        );
        assert_eq!(
            memory("512").unwrap_err(),
            "'512' is not an amount of memory: it is less than 1Mi; did you mean 512Mi?"
        );
        assert!(memory("99999999999999999999Gi").is_err());
        assert!(memory("18446744073709551615Ti").is_err());
        let rule = "write whole cores, such as 1, or thousandths of a core, such as 500m";
        for bad in ["0.5", "1Gi", "", "1k"] {
            assert_eq!(cpu(bad), Err(format!("'{bad}' is not an amount of processor: {rule}")), "{bad:?}");
        }
        assert!(cpu("0").is_err());
        assert!(cpu("2000").is_err());
    }
}
