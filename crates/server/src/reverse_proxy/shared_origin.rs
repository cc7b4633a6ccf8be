//! What tools below the legacy host may not do, since they share its origin, as pure functions.
//!
//! To a browser everything below one host is one party. What a tool there could do to all of the host's pages with a
//! field of an answer is taken out here. What its scripts can do to the others' in a visitor's browser is not: no proxy
//! can stop that (`docs/security.md`), which is why tools are only there when an operator names them.

use hearth_core::ToolName;
use http::header::{self, Entry, HeaderMap, HeaderName, HeaderValue};

/// Fields that speak for a whole origin: the scope of service workers, the clearing of what is stored, where else the
/// origin may be found, and to whom the failures of all its pages are told.
const OF_THE_ORIGIN: [HeaderName; 5] = [
    HeaderName::from_static("service-worker-allowed"),
    HeaderName::from_static("clear-site-data"),
    header::ALT_SVC,
    HeaderName::from_static("nel"),
    HeaderName::from_static("report-to"),
];

/// Why a script is not given.
pub(super) const NO_SERVICE_WORKERS: &str =
    "Service workers are not available here, because the tools below this host share it. Use the tool's own host.";

/// Whether a browser fetches the script of a service worker. It says so in two ways, which no page can set.
pub(super) fn asks_for_service_worker(headers: &HeaderMap) -> bool {
    let is_one = |value: &HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"serviceworker");
    headers.contains_key("service-worker") || headers.get_all("sec-fetch-dest").iter().any(is_one)
}

/// Leaves of a tool's fields what concerns its own part of the host, `/<tool>`. `path` is what was asked for.
pub(super) fn confine(headers: &mut HeaderMap, tool: &ToolName, path: &str) {
    for name in &OF_THE_ORIGIN {
        headers.remove(name);
    }
    let Entry::Occupied(cookies) = headers.entry(header::SET_COOKIE) else { return };
    let kept: Vec<HeaderValue> = cookies.iter().filter_map(|cookie| own_cookie(cookie, tool, path)).collect();
    cookies.remove_entry_mult();
    for cookie in kept {
        headers.append(header::SET_COOKIE, cookie);
    }
}

/// A cookie as one for the tool's own paths of this host alone; nothing where it is for others.
fn own_cookie(cookie: &HeaderValue, tool: &ToolName, path: &str) -> Option<HeaderValue> {
    let own = format!("/{tool}");
    let is_own =
        |path: &[u8]| path.strip_prefix(own.as_bytes()).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"));
    let mut parts = cookie.as_bytes().split(|byte| *byte == b';');
    let mut kept: Vec<&[u8]> = vec![parts.next().unwrap_or_default().trim_ascii()];
    let mut has_path = false;
    for part in parts.map(<[u8]>::trim_ascii) {
        let mut sides = part.splitn(2, |byte| *byte == b'=');
        let name = sides.next().unwrap_or_default().trim_ascii();
        let value = sides.next().unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"domain") {
            // It is for this host without it; with it, for those below as well.
            continue;
        }
        if name.eq_ignore_ascii_case(b"path") {
            if !value.starts_with(b"/") {
                // It means nothing to a browser.
                continue;
            }
            if !is_own(value) {
                return None;
            }
            has_path = true;
        }
        kept.push(part);
    }
    // Without one a browser takes the folder of what it asked for: of `/<tool>` that is the whole host.
    let own_path = format!("Path={own}");
    if !has_path && path.rfind('/') == Some(0) {
        kept.push(own_path.as_bytes());
    }
    HeaderValue::from_bytes(&kept.join(&b"; "[..])).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn confined(fields: &[(&'static str, &'static str)], path: &str) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        confine(&mut headers, &"a".parse().unwrap(), path);
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
    }

    #[test]
    fn fields_of_the_whole_origin_are_taken_out() {
        let fields = [
            ("service-worker-allowed", "/"),
            ("clear-site-data", "\"cookies\""),
            ("alt-svc", "h2=\"evil.example:443\""),
            ("nel", "{}"),
            ("report-to", "{}"),
            ("content-type", "text/html"),
        ];
        assert_eq!(confined(&fields, "/a/"), ["content-type: text/html"]);
    }

    #[test]
    fn cookies_are_for_the_own_paths() {
        let cases = [
            ("/a/x", "s=1", Some("s=1")),
            ("/a/x", "s=1; Path=/a; Secure", Some("s=1; Path=/a; Secure")),
            ("/a/x", "s=1;path=/a/deep;HttpOnly", Some("s=1; path=/a/deep; HttpOnly")),
            ("/a/x", "s=1; Path=/", None),
            ("/a/x", "s=1; Path=/b", None),
            ("/a/x", "s=1; Path=/ab", None),
            ("/a/x", "s=1; Path=/a; Path=/", None),
            ("/a/x", "s=1; Path=/; Path=/a", None),
            ("/a/x", "s=1; PATH = / ", None),
            ("/a/x", "s=1; Path=; Secure", Some("s=1; Secure")),
            ("/a/x", "s=1; Domain=old.example; Path=/a/", Some("s=1; Path=/a/")),
            ("/a", "s=1", Some("s=1; Path=/a")),
            ("/a", "s=1; Path=relative", Some("s=1; Path=/a")),
            ("/a", "s=1; Path=/a/x", Some("s=1; Path=/a/x")),
        ];
        for (path, cookie, expected) in cases {
            let expected: Vec<String> = expected.iter().map(|text| format!("set-cookie: {text}")).collect();
            assert_eq!(confined(&[("set-cookie", cookie)], path), expected, "{path}: {cookie}");
        }
        let both = confined(&[("set-cookie", "s=1; Path=/"), ("set-cookie", "t=2")], "/a/x");
        assert_eq!(both, ["set-cookie: t=2"]);
    }

    #[test]
    fn scripts_of_service_workers_are_known() {
        let asks = |name: &'static str, value: &'static str| {
            asks_for_service_worker(&HeaderMap::from_iter([(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )]))
        };
        assert!(asks("service-worker", "script") && asks("sec-fetch-dest", "serviceworker"));
        assert!(!asks("sec-fetch-dest", "script") && !asks("sec-fetch-dest", "worker"));
    }
}
