//! Who a tool or an administrator is to the cluster: the subject of the certificate.
//!
//! Rights hang on a group that carries a random epoch: replacing the epoch on a tool's namespace, or in an
//! administrator's binding, revokes every older certificate at once. `accounts` writes subjects and `signer` judges
//! them ([`super::approval`]), both by what stands here.

use std::fmt;
use std::str::FromStr;

use super::owner::{Owner, OwnerError};

/// The alphabet of an epoch: base32 in lower case.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// A random value of 128 bits, as 26 characters of lower-case base32. Never a counter: a tool that is made again
/// under an old name gets another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(String);

/// A text that is not an epoch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an epoch: 26 characters of a-z and 2-7 are needed")]
pub struct EpochError(String);

/// The names in a certificate or in a request for one.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Subject {
    /// CN, the user to Kubernetes.
    pub common_name: String,
    /// O, the user's groups, in their order.
    pub organizations: Vec<String>,
}

/// A tool or an administrator, at one epoch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// Who.
    pub owner: Owner,
    /// The epoch.
    pub epoch: Epoch,
}

/// Why a subject is neither a tool's nor an administrator's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// The common name is no owner's.
    #[error(transparent)]
    CommonName(#[from] OwnerError),
    /// There are more or fewer than two organisations, or they are others.
    #[error("its organisations [{found}] are not exactly '{}' and 'hearth:{owner}:<epoch>'", owner.group())]
    Organizations {
        /// What there is, separated by commas.
        found: String,
        /// Who the common name says it is.
        owner: Owner,
    },
}

// === impl Epoch ===

impl Epoch {
    /// The length of an epoch as text.
    const LENGTH: usize = 26;

    /// An epoch of 16 random bytes.
    pub fn of(random: [u8; 16]) -> Self {
        let mut rest = u128::from_be_bytes(random);
        let letter = |value: u128| {
            // The remainder is below 32, the length of the alphabet.
            char::from(ALPHABET.get((value % 32) as usize).copied().unwrap_or(b'a'))
        };
        let mut text = String::with_capacity(Self::LENGTH);
        for _ in 0..Self::LENGTH {
            text.push(letter(rest));
            rest /= 32;
        }
        Self(text)
    }

    /// The epoch as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Epoch {
    type Err = EpochError;

    fn from_str(text: &str) -> Result<Self, EpochError> {
        if text.len() == Self::LENGTH && text.bytes().all(|b| ALPHABET.contains(&b)) {
            Ok(Self(text.to_owned()))
        } else {
            Err(EpochError(text.to_owned()))
        }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Identity ===

impl Identity {
    /// The group to which the owner's rights are bound: `hearth:tool:<tool>:<epoch>` or `hearth:admin:<person>:<epoch>`.
    pub fn group(&self) -> String {
        format!("hearth:{}:{}", self.owner, self.epoch)
    }

    /// The subject of the owner's certificate.
    pub fn subject(&self) -> Subject {
        Subject {
            common_name: self.owner.to_string(),
            organizations: vec![self.owner.group().to_owned(), self.group()],
        }
    }

    /// Reads a subject; one that is not exactly an owner's is refused.
    pub fn of(subject: &Subject) -> Result<Self, SubjectError> {
        let owner: Owner = subject.common_name.parse()?;
        let found = match subject.organizations.as_slice() {
            [first, second] if first == owner.group() => Self::of_group(owner.clone(), second),
            _ => None,
        };
        let organizations = || subject.organizations.join(", ");
        found.ok_or_else(|| SubjectError::Organizations { found: organizations(), owner })
    }

    /// The identity of an owner whose rights are bound to this group.
    pub fn of_group(owner: Owner, group: &str) -> Option<Self> {
        let epoch = group.strip_prefix(&format!("hearth:{owner}:"))?.parse().ok()?;
        Some(Self { owner, epoch })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_26_characters_and_reads_back() {
        let text = Epoch::of([0xff; 16]).to_string();
        assert_eq!((text.len(), text.parse()), (26, Ok(Epoch::of([0xff; 16]))));
        assert_ne!(Epoch::of([1; 16]), Epoch::of([2; 16]));
        for bad in ["", "a", "A2345672345672345672345672", "00000000000000000000000000"] {
            assert!(bad.parse::<Epoch>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_identity_reads_back() {
        for owner in ["tool:wikibot", "admin:jane"] {
            let identity = Identity { owner: owner.parse().unwrap(), epoch: Epoch::of([7; 16]) };
            assert_eq!(Identity::of(&identity.subject()), Ok(identity.clone()));
            assert_eq!(Identity::of_group(identity.owner.clone(), &identity.group()), Some(identity));
        }
    }
}
