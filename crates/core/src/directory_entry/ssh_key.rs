//! Public keys in OpenSSH's one-line format: `ssh-ed25519 AAAA… comment`.
//!
//! A key is checked before it is stored, because sshd passes over a line that it cannot read, and the person
//! would only find out by not getting in. Options before the key are refused: the directory's keys open a
//! whole account, and an option such as `command=` would promise a limit that nobody here keeps.

use std::fmt;
use std::str::FromStr;

/// The shortest RSA key that is taken, in bits.
const SHORTEST_RSA: usize = 2048;

const TYPES: &[&str] = &[
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "ssh-rsa",
];

/// A public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshKey {
    kind: String,
    encoded: String,
    blob: Vec<u8>,
    comment: String,
}

/// Why a text is not a public key that can be stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SshKeyError {
    /// There is nothing.
    #[error("it is empty; a public key is one line such as 'ssh-ed25519 AAAA… you@example'")]
    Empty,
    /// There is more than one line.
    #[error("it has {0} lines; give one public key at a time")]
    Lines(usize),
    /// It is the secret half.
    #[error("it is a private key, which must not leave your machine; give the file whose name ends in .pub")]
    Private,
    /// The type is unknown, or there are options in front of it.
    #[error(
        "it starts with '{0}', which is not a type of key that is taken (ssh-ed25519, ecdsa-sha2-…, sk-…, ssh-rsa)"
    )]
    Type(String),
    /// The key itself cannot be read.
    #[error("its key is damaged: {0}")]
    Damaged(&'static str),
    /// The key can be guessed too easily.
    #[error("it is an RSA key of {0} bits; at least {SHORTEST_RSA} are needed, or better an ed25519 key")]
    Short(usize),
    /// The comment has characters that a terminal would act on.
    #[error("its comment has a control character")]
    Comment,
}

impl SshKey {
    /// What the key is, without its comment: two lines with the same blob are the same key.
    pub fn blob(&self) -> &[u8] {
        &self.blob
    }

    /// The type, such as `ssh-ed25519`.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The text after the key; usually whose it is. May be empty.
    pub fn comment(&self) -> &str {
        &self.comment
    }
}

// === impl SshKey ===

impl FromStr for SshKey {
    type Err = SshKeyError;

    fn from_str(text: &str) -> Result<Self, SshKeyError> {
        if text.contains("PRIVATE KEY-----") {
            return Err(SshKeyError::Private);
        }
        let lines: Vec<&str> =
            text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        let line = match lines.as_slice() {
            [] => return Err(SshKeyError::Empty),
            [line] => *line,
            several => return Err(SshKeyError::Lines(several.len())),
        };
        let (kind, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        if !TYPES.contains(&kind) {
            return Err(SshKeyError::Type(kind.chars().filter(|c| !c.is_control()).take(40).collect()));
        }
        let (encoded, comment) = rest.trim_start().split_once([' ', '\t']).unwrap_or((rest.trim_start(), ""));
        let comment = comment.trim();
        if comment.chars().any(char::is_control) {
            return Err(SshKeyError::Comment);
        }
        let blob = decode(encoded).ok_or(SshKeyError::Damaged("it is not base64"))?;
        check(kind, &blob)?;
        Ok(Self { kind: kind.to_owned(), encoded: encoded.to_owned(), blob, comment: comment.to_owned() })
    }
}

impl fmt::Display for SshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.encoded)?;
        if self.comment.is_empty() { Ok(()) } else { write!(f, " {}", self.comment) }
    }
}

/// Whether the blob is a sequence of length-prefixed strings that begins with the type and has the lengths it should.
fn check(kind: &str, blob: &[u8]) -> Result<(), SshKeyError> {
    let mut fields = Vec::new();
    let mut rest = blob;
    while !rest.is_empty() {
        let (field, after) = field(rest).ok_or(SshKeyError::Damaged("it ends too early"))?;
        fields.push(field);
        rest = after;
    }
    let (first, rest) = fields.split_first().ok_or(SshKeyError::Damaged("it ends too early"))?;
    if *first != kind.as_bytes() {
        return Err(SshKeyError::Damaged("the type inside it is another one than the type in front of it"));
    }
    let right = match (kind, rest) {
        ("ssh-ed25519", [key]) | ("sk-ssh-ed25519@openssh.com", [key, _]) => key.len() == 32,
        ("ssh-rsa", [_, modulus]) => {
            let bits = bits(modulus);
            if bits < SHORTEST_RSA {
                return Err(SshKeyError::Short(bits));
            }
            true
        }
        ("sk-ecdsa-sha2-nistp256@openssh.com", [curve, point, _]) => *curve == b"nistp256" && point.len() == 65,
        (_, [curve, point]) => {
            let size = match *curve {
                b"nistp256" => 65,
                b"nistp384" => 97,
                b"nistp521" => 133,
                _ => 0,
            };
            kind.as_bytes().ends_with(curve) && point.len() == size
        }
        _ => false,
    };
    if right { Ok(()) } else { Err(SshKeyError::Damaged("it has not the length of its type")) }
}

fn field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

fn bits(number: &[u8]) -> usize {
    let significant = number.iter().skip_while(|b| **b == 0);
    let first = significant.clone().next().map_or(0, |b| 8 - b.leading_zeros() as usize);
    (significant.count().saturating_sub(1)) * 8 + first
}

/// Base64 with padding (RFC 4648 §4), strictly.
fn decode(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    if text.is_empty() || !text.len().is_multiple_of(4) || text.len() - digits.len() > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut buffer, mut held) = (0_u32, 0_u32);
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        buffer = (buffer << 6) | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((buffer >> held) as u8);
            buffer &= (1 << held) - 1;
        }
    }
    // Bits that are left over belong to no byte: another text would mean the same key.
    (buffer == 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG9wpZoGrdP8TE8mOzFEZPd3pwLU8m6eA4ufqYkWAPLz";

    fn encode(bytes: &[u8]) -> String {
        const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for chunk in bytes.chunks(3) {
            let word = chunk.iter().fold(0_u32, |w, b| (w << 8) | u32::from(*b)) << (8 * (3 - chunk.len()));
            for at in 0..4 {
                let digit = DIGITS[(word >> (18 - 6 * at)) as usize & 63] as char;
                text.push(if at > chunk.len() { '=' } else { digit });
            }
        }
        text
    }

    fn line(kind: &str, fields: &[&[u8]]) -> String {
        let mut blob = Vec::new();
        for field in [kind.as_bytes()].iter().chain(fields) {
            blob.extend((field.len() as u32).to_be_bytes());
            blob.extend_from_slice(field);
        }
        format!("{kind} {}", encode(&blob))
    }

    #[test]
    fn keys_of_every_type() {
        let key: SshKey = format!("# mine\n{ED25519}  me @ home \n").parse().unwrap();
        assert_eq!((key.kind(), key.comment()), ("ssh-ed25519", "me @ home"));
        assert_eq!(key.to_string(), format!("{ED25519} me @ home"));
        assert_eq!(key.blob(), ED25519.parse::<SshKey>().unwrap().blob());
        let modulus = [&[0_u8, 0x80][..], &[1; 255]].concat();
        for good in [
            line("ssh-rsa", &[&[1, 0, 1], &modulus]),
            line("ecdsa-sha2-nistp256", &[b"nistp256", &[4; 65]]),
            line("ecdsa-sha2-nistp521", &[b"nistp521", &[4; 133]]),
            line("sk-ssh-ed25519@openssh.com", &[&[1; 32], b"ssh:"]),
            line("sk-ecdsa-sha2-nistp256@openssh.com", &[b"nistp256", &[4; 65], b"ssh:"]),
        ] {
            assert_eq!(good.parse::<SshKey>().map(|k| k.to_string()), Ok(good));
        }
    }

    #[test]
    fn what_is_refused() {
        let length = SshKeyError::Damaged("it has not the length of its type");
        for (text, error) in [
            (String::new(), SshKeyError::Empty),
            (format!("{ED25519}\n{ED25519}"), SshKeyError::Lines(2)),
            ("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA".to_owned(), SshKeyError::Private),
            (format!("command=\"ls\" {ED25519}"), SshKeyError::Type("command=\"ls\"".to_owned())),
            ("ssh-dss AAAA".to_owned(), SshKeyError::Type("ssh-dss".to_owned())),
            ("ssh-ed25519".to_owned(), SshKeyError::Damaged("it is not base64")),
            ("ssh-ed25519 AA*A".to_owned(), SshKeyError::Damaged("it is not base64")),
            ("ssh-ed25519 AB==".to_owned(), SshKeyError::Damaged("it is not base64")),
            (ED25519[..ED25519.len() - 4].to_owned(), SshKeyError::Damaged("it ends too early")),
            (
                ED25519.replace("ssh-ed25519", "ssh-rsa"),
                SshKeyError::Damaged("the type inside it is another one than the type in front of it"),
            ),
            (line("ssh-ed25519", &[&[1; 31]]), length.clone()),
            (line("ecdsa-sha2-nistp256", &[b"nistp384", &[4; 97]]), length),
            (line("ssh-rsa", &[&[1, 0, 1], &[0x7f; 128]]), SshKeyError::Short(1023)),
            (format!("{ED25519} a\u{1b}[2J"), SshKeyError::Comment),
        ] {
            assert_eq!(text.parse::<SshKey>(), Err(error), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn base64_is_read_back(bytes in proptest::collection::vec(0_u8.., 1..40)) {
            assert_eq!(decode(&encode(&bytes)), Some(bytes));
        }

        #[test]
        fn no_text_upsets_the_reader(text in "(ssh-rsa |ssh-ed25519 )?[A-Za-z0-9+/=]{0,40}\\PC*") {
            let _ = text.parse::<SshKey>();
        }
    }
}
