//! Whether a domain is on the Public Suffix List, by which browsers tell where one site ends and the next begins.
//!
//! The list is text that an operator or the machine has; it is read line by line for one domain, so that no index is
//! kept. Rules: <https://github.com/publicsuffix/list/wiki/Format>.

use crate::Host;

/// What browsers take a domain for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Each name before it is a site of its own.
    Suffix,
    /// All names before it are one site together with this one, which is the domain itself or one above it.
    Within(String),
}

/// What browsers that go by `list` take `domain` for.
pub fn standing(list: &str, domain: &Host) -> Standing {
    let labels: Vec<&str> = domain.as_str().split('.').collect();
    // Without any rule the last label is the suffix.
    let mut longest = 1;
    for line in list.lines() {
        let rule = line.split_whitespace().next().unwrap_or_default();
        if rule.is_empty() || rule.starts_with("//") {
            continue;
        }
        let (rule, is_exception) = rule.strip_prefix('!').map_or((rule, false), |rule| (rule, true));
        if let Some(matched) = matched(rule, &labels) {
            if is_exception {
                // It wins over all others, and its suffix is one label shorter.
                longest = matched - 1;
                break;
            }
            longest = longest.max(matched);
        }
    }
    match labels.len().checked_sub(longest + 1) {
        None => Standing::Suffix,
        Some(first) => Standing::Within(labels.get(first..).unwrap_or_default().join(".")),
    }
}

/// How many labels of the domain's end a rule matches, if it does.
fn matched(rule: &str, labels: &[&str]) -> Option<usize> {
    let mut count = 0;
    let mut rest = labels.iter().rev();
    for part in rule.rsplit('.') {
        let label = rest.next()?;
        if part != "*" && !part.eq_ignore_ascii_case(label) {
            return None;
        }
        count += 1;
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "// ===BEGIN ICANN DOMAINS===\ncom\nuk\nco.uk\n*.ck\n!www.ck\norg\n\n\
        // ===BEGIN PRIVATE DOMAINS===\n// Wikimedia : https://www.wikimedia.org\ntoolforge.org   \nwmcloud.org\n";

    #[test]
    fn sites_end_where_the_list_says() {
        let within = |site: &str| Standing::Within(site.to_owned());
        for (domain, expected) in [
            ("toolforge.org", Standing::Suffix),
            ("org", Standing::Suffix),
            ("example.org", within("example.org")),
            ("tools.example.org", within("example.org")),
            ("a.toolforge.org", within("a.toolforge.org")),
            ("example.co.uk", within("example.co.uk")),
            ("co.uk", Standing::Suffix),
            ("anything.ck", Standing::Suffix),
            ("a.anything.ck", within("a.anything.ck")),
            ("www.ck", within("www.ck")),
            ("a.www.ck", within("www.ck")),
            ("hearth.localhost", within("hearth.localhost")),
            ("localhost", Standing::Suffix),
        ] {
            assert_eq!(standing(LIST, &domain.parse().unwrap()), expected, "{domain}");
        }
    }
}
