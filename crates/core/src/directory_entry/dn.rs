//! Distinguished names, read as RFC 4514 writes them.
//!
//! Two names are equal when their attribute types and values are, whatever the case: that is how the
//! directory compares the types used here (`uid`, `cn`, `ou`, `dc`). Values keep the case in which they were
//! written, because unix accounts have one.
//!
//! It never judges whether an entry of that name exists.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// A distinguished name: its parts from the entry's own to the directory's top.
#[derive(Clone, Debug)]
pub struct DistinguishedName {
    parts: Vec<Part>,
}

/// One part of a name, such as `uid=member1`; almost always one attribute, but several may be joined by `+`.
#[derive(Clone, Debug)]
struct Part {
    attributes: Vec<(String, String)>,
}

/// Why a text is not a distinguished name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a distinguished name such as 'uid=member1,ou=people,dc=hearth,dc=internal': {problem}")]
pub struct DnError {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl DistinguishedName {
    /// The value of the first part, where that part is a single attribute of type `kind`:
    /// `uid=member1,ou=people,…` gives `member1` for `uid`.
    pub fn first(&self, kind: &str) -> Option<&str> {
        match self.parts.first()?.attributes.as_slice() {
            [(found, value)] if found.eq_ignore_ascii_case(kind) => Some(value),
            _ => None,
        }
    }

    /// Whether the entry lies directly below `parent`.
    pub fn is_child_of(&self, parent: &Self) -> bool {
        self.parts.get(1..).is_some_and(|rest| rest.iter().map(Part::key).eq(parent.parts.iter().map(Part::key)))
    }

    fn keys(&self) -> Vec<Vec<(String, String)>> {
        self.parts.iter().map(Part::key).collect()
    }
}

/// Writes the first part of a name, `kind=value`, with the value escaped.
pub fn part(kind: &str, value: &str) -> String {
    let mut text = format!("{kind}=");
    let last = value.chars().count().saturating_sub(1);
    for (at, c) in value.chars().enumerate() {
        let special = matches!(c, '"' | '+' | ',' | ';' | '<' | '>' | '\\' | '=');
        let at_edge = (c == ' ' && (at == 0 || at == last)) || (c == '#' && at == 0);
        if c == '\0' {
            text.push_str("\\00");
        } else {
            if special || at_edge {
                text.push('\\');
            }
            text.push(c);
        }
    }
    text
}

// === impl DistinguishedName ===

impl FromStr for DistinguishedName {
    type Err = DnError;

    fn from_str(text: &str) -> Result<Self, DnError> {
        let mut reader = Reader { rest: text };
        reader.name().map_err(|problem| DnError { text: text.to_owned(), problem })
    }
}

impl PartialEq for DistinguishedName {
    fn eq(&self, other: &Self) -> bool {
        self.keys() == other.keys()
    }
}

impl Eq for DistinguishedName {}

impl PartialOrd for DistinguishedName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for DistinguishedName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.keys().cmp(&other.keys())
    }
}

impl fmt::Display for DistinguishedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, own) in self.parts.iter().enumerate() {
            let separator = if at == 0 { "" } else { "," };
            let joined: Vec<String> = own.attributes.iter().map(|(kind, value)| part(kind, value)).collect();
            write!(f, "{separator}{}", joined.join("+"))?;
        }
        Ok(())
    }
}

// === impl Part ===

impl Part {
    /// What is compared: lower case, runs of spaces as one, the attributes in order.
    fn key(&self) -> Vec<(String, String)> {
        let fold = |value: &str| value.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
        let mut key: Vec<_> = self.attributes.iter().map(|(k, v)| (k.to_ascii_lowercase(), fold(v))).collect();
        key.sort();
        key
    }
}

/// Reads a name from left to right.
struct Reader<'a> {
    rest: &'a str,
}

// === impl Reader ===

impl Reader<'_> {
    fn name(&mut self) -> Result<DistinguishedName, &'static str> {
        if self.rest.trim().is_empty() {
            return Err("it is empty");
        }
        let mut parts = vec![Part { attributes: vec![self.attribute()?] }];
        while let Some(separator) = self.take() {
            let attribute = self.attribute()?;
            match parts.last_mut() {
                Some(part) if separator == '+' => part.attributes.push(attribute),
                _ => parts.push(Part { attributes: vec![attribute] }),
            }
        }
        Ok(DistinguishedName { parts })
    }

    fn attribute(&mut self) -> Result<(String, String), &'static str> {
        let Some((kind, rest)) = self.rest.split_once('=') else {
            return Err("a part has no '='");
        };
        let kind = kind.trim();
        let letters = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        if !kind.starts_with(|c: char| c.is_ascii_alphanumeric()) || !kind.chars().all(letters) {
            return Err("the text before a '=' is not the name of an attribute");
        }
        self.rest = rest.trim_start_matches(' ');
        if self.rest.starts_with('#') {
            return Err("a value in hexadecimal ('#…') names no account");
        }
        Ok((kind.to_owned(), self.value()?))
    }

    /// Reads a value up to the separator, which stays.
    fn value(&mut self) -> Result<String, &'static str> {
        let mut bytes = Vec::new();
        // Spaces at the end are not part of the value unless they were escaped.
        let mut kept = 0;
        loop {
            match self.rest.chars().next() {
                None | Some(',' | '+' | ';') => break,
                Some('\\') => {
                    self.take();
                    bytes.extend(self.escaped()?);
                    kept = bytes.len();
                }
                Some('"' | '<' | '>' | '\0') => return Err("a character is not escaped"),
                Some(c) => {
                    self.take();
                    let mut buffer = [0; 4];
                    bytes.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
                    if c != ' ' {
                        kept = bytes.len();
                    }
                }
            }
        }
        bytes.truncate(kept);
        if bytes.is_empty() {
            return Err("a value is empty");
        }
        String::from_utf8(bytes).map_err(|_| "a value is not UTF-8")
    }

    /// Reads what stands after a backslash: two hexadecimal digits, or the character itself.
    fn escaped(&mut self) -> Result<Vec<u8>, &'static str> {
        let pair = self.rest.get(..2).filter(|p| p.bytes().all(|b| b.is_ascii_hexdigit()));
        if let Some(byte) = pair.and_then(|p| u8::from_str_radix(p, 16).ok()) {
            self.take();
            self.take();
            return Ok(vec![byte]);
        }
        match self.take() {
            Some(c @ (' ' | '"' | '#' | '+' | ',' | ';' | '<' | '=' | '>' | '\\')) => Ok(vec![c as u8]),
            _ => Err("a backslash is followed by neither a special character nor two hexadecimal digits"),
        }
    }

    fn take(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let c = chars.next();
        self.rest = chars.as_str();
        c
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dn(text: &str) -> DistinguishedName {
        text.parse().unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn the_account_of_a_member() {
        let people = dn("ou=people,dc=hearth,dc=internal");
        for (text, name) in [
            ("uid=member1,ou=people,dc=hearth,dc=internal", "member1"),
            ("UID=Member1, OU=People , dc=HEARTH,dc=internal", "Member1"),
            (r"uid=a\2cb,ou=people,dc=hearth,dc=internal", "a,b"),
            (r"uid=a\,b\+c\\,ou=people,dc=hearth,dc=internal", r"a,b+c\"),
            (r"uid=L\C3\BCck,ou=people,dc=hearth,dc=internal", "Lück"),
            (r"uid=\ a\ ,ou=people,dc=hearth,dc=internal", " a "),
        ] {
            assert_eq!(dn(text).first("uid"), Some(name), "{text}");
            assert!(dn(text).is_child_of(&people), "{text}");
            assert_eq!(dn(&dn(text).to_string()), dn(text), "{text}");
        }
        assert_eq!(dn("uid=a+cn=b,dc=x").first("uid"), None);
        assert_eq!(dn("cn=a,dc=x").first("uid"), None);
        assert!(!dn("uid=a,ou=people,ou=people,dc=hearth,dc=internal").is_child_of(&people));
        assert!(!people.is_child_of(&people));
    }

    #[test]
    fn names_are_compared_without_case() {
        assert_eq!(dn("CN=Disabled,ou=PPolicies,dc=x"), dn("cn=disabled, ou=ppolicies, dc=X"));
        assert_eq!(dn("uid=a+cn=b,dc=x"), dn("cn=b+uid=a,dc=x"));
        assert_ne!(dn("cn=a,dc=x"), dn("cn=a,dc=x,dc=x"));
    }

    #[test]
    fn what_is_not_a_name() {
        for (text, problem) in [
            ("", "it is empty"),
            ("member1", "a part has no '='"),
            ("uid=a,", "a part has no '='"),
            ("uid=,dc=x", "a value is empty"),
            ("u d=a", "the text before a '=' is not the name of an attribute"),
            ("=a", "the text before a '=' is not the name of an attribute"),
            ("uid=#0403", "a value in hexadecimal ('#…') names no account"),
            ("uid=a\"b", "a character is not escaped"),
            (r"uid=\FF", "a value is not UTF-8"),
            (r"uid=a\", "a backslash is followed by neither a special character nor two hexadecimal digits"),
            (r"uid=a\é", "a backslash is followed by neither a special character nor two hexadecimal digits"),
        ] {
            assert_eq!(text.parse::<DistinguishedName>().unwrap_err().problem, problem, "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read_back(value in "\\PC{1,12}") {
            let text = part("uid", &value);
            let back = text.parse::<DistinguishedName>().unwrap();
            assert_eq!(back.first("uid"), Some(value.as_str()), "{text}");
        }

        #[test]
        fn no_text_upsets_the_reader(text in "\\PC*") {
            let _ = text.parse::<DistinguishedName>();
        }
    }
}
