//! What happens to the fields of requests and responses on their way, as pure functions.
//!
//! - Fields that speak of one connection only stay on it (RFC 9110 §7.6.1).
//! - What a tool is told about the visitor's connection is made here; whatever the client itself said of it is removed.
//! - The visitor's address is told to no tool.

use hearth_core::Host;
use hearth_core::route::Reason;
use hearth_core::route::reason::{ORIGINAL_URI_FIELD, PROXY, PROXY_STATUS_FIELD, REASON_FIELD, TOOL_FIELD};
use http::header::{self, Entry, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Version};

use super::authority::Authority;

/// A year and a day: browsers come back by TLS.
static HSTS: HeaderValue = HeaderValue::from_static("max-age=31622400");

/// Tools' pages take no part in the browsers' advertising topics.
static PERMISSIONS: HeaderValue = HeaderValue::from_static("browsing-topics=()");

/// By which an answer has a browser clear what it keeps.
const CLEAR: HeaderName = HeaderName::from_static("clear-site-data");

/// What of that belongs to the host that says so, and no other.
const OF_ONE_HOST: [&str; 6] =
    ["\"cache\"", "\"clientHints\"", "\"executionContexts\"", "\"prefetchCache\"", "\"prerenderCache\"", "\"storage\""];

/// Fields of one connection, whether `Connection` names them or not. `Trailer` is not one: it announces the fields
/// after a body, which are passed on.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "http2-settings"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Fields by which a proxy speaks of the visitor. Only ours reach a tool. `Proxy` becomes `HTTP_PROXY` in CGI programs.
const OURS: [&str; 14] = [
    "forwarded",
    "proxy",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-forwarded-server",
    "x-real-ip",
    ORIGINAL_URI_FIELD,
    REASON_FIELD,
    TOOL_FIELD,
];

/// Of these, what the front door says of a visitor and the ingress passes on as it is.
const OF_THE_FRONT_DOOR: [&str; 4] = ["x-forwarded-host", "x-forwarded-port", "x-forwarded-proto", ORIGINAL_URI_FIELD];

/// Whether a field is one of [`OURS`]. Many servers hand fields to programs as variables in which a hyphen and an
/// underscore are the same, so that `X_Forwarded_Proto` would stand in for ours.
fn is_ours(name: &str) -> bool {
    let is_same = |(own, theirs): (u8, u8)| own == theirs || (own == b'-' && theirs == b'_');
    let is_alike = |own: &&str| own.len() == name.len() && own.bytes().zip(name.bytes()).all(is_same);
    name.starts_with(['f', 'p', 'x']) && OURS.iter().any(is_alike)
}

/// Removes the fields of which this holds: of most messages none, so that nothing is collected.
fn strip(headers: &mut HeaderMap, is_unwanted: impl Fn(&str) -> bool) {
    let unwanted: Vec<HeaderName> = headers.keys().filter(|name| is_unwanted(name.as_str())).cloned().collect();
    for name in &unwanted {
        headers.remove(name);
    }
}

/// Removes the fields that belong to the connection on which the message came.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let mut named: Vec<HeaderName> = Vec::new();
    for value in headers.get_all(header::CONNECTION) {
        let names = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        named.extend(names.filter_map(|name| HeaderName::from_bytes(name).ok()));
    }
    for name in &named {
        headers.remove(name);
    }
    strip(headers, is_hop_by_hop);
}

/// Whether the client asks to speak the WebSocket protocol. No other protocol is switched to: an `h2c` upgrade would
/// let requests pass that the front door never sees.
pub(super) fn asks_for_websocket(method: &Method, version: Version, headers: &HeaderMap) -> bool {
    *method == Method::GET
        && version == Version::HTTP_11
        && has_token(headers, &header::CONNECTION, "upgrade")
        && headers.get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
        && headers.get_all(header::UPGRADE).iter().count() == 1
        && !headers.contains_key(header::CONTENT_LENGTH)
        && !headers.contains_key(header::TRANSFER_ENCODING)
}

/// Whether a tool's answer switches to the WebSocket protocol.
pub(super) fn switches_to_websocket(status: StatusCode, headers: &HeaderMap) -> bool {
    status == StatusCode::SWITCHING_PROTOCOLS
        && headers.get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Puts back what [`strip_hop_by_hop`] took from a message that switches to the WebSocket protocol.
pub(super) fn set_websocket(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
}

/// How many fields are put in at most.
const ADDED: usize = 8;

/// Makes a client's fields those of a request to a tool. `uri` is the path and query as sent, `port` the one that
/// the client came to.
pub(super) fn forward(headers: &mut HeaderMap, authority: &Authority, port: u16, uri: &str) {
    for_the_next_hop(headers, is_ours);
    headers.reserve(ADDED);
    if let Ok(host) = HeaderValue::try_from(authority.to_field()) {
        headers.insert(header::HOST, host.clone());
        headers.insert("x-forwarded-host", host);
    }
    headers.insert("x-forwarded-port", HeaderValue::from(authority.port.unwrap_or(port)));
    headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
    if let Ok(uri) = HeaderValue::try_from(uri) {
        headers.insert(ORIGINAL_URI_FIELD, uri);
    }
}

/// Makes the front door's fields those of a request to a tool. What it says of the visitor is passed on as it is, for
/// nobody else can connect to the ingress.
pub(super) fn pass_on(headers: &mut HeaderMap, authority: &Authority) {
    for_the_next_hop(headers, |name| is_ours(name) && !OF_THE_FRONT_DOOR.contains(&name));
    if let Ok(host) = HeaderValue::try_from(authority.to_field()) {
        headers.insert(header::HOST, host);
    }
}

/// Takes out what was for the front door itself, and what must not be believed.
fn for_the_next_hop(headers: &mut HeaderMap, is_unwanted: impl Fn(&str) -> bool) {
    // A field of one connection; here it speaks for the next one as well, since trailers are passed on.
    let takes_trailers = has_token(headers, &header::TE, "trailers");
    strip_hop_by_hop(headers);
    if takes_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
    strip(headers, is_unwanted);
    // The front door itself answers an expectation, when it first reads the body.
    headers.remove(header::EXPECT);
    join_cookies(headers);
}

/// Makes a tool's fields those of a response to the client.
pub(super) fn respond(headers: &mut HeaderMap, host: &Host) {
    strip_hop_by_hop(headers);
    drop_others_cookies(headers, host);
    keep_others_cookies(headers);
    let secure = headers.get(header::LOCATION).and_then(|location| own_location_by_tls(location, host));
    if let Some(secure) = secure {
        headers.insert(header::LOCATION, secure);
    }
    finish(headers);
}

/// Says in the words that machines read why the answer is the front door's own (RFC 9209): so `webservice` tells a
/// tool's error from the platform's.
pub(super) fn explain(headers: &mut HeaderMap, reason: Reason) {
    let Some(error) = reason.proxy_error() else { return };
    if let Ok(value) = HeaderValue::try_from(format!("{PROXY}; error={error}; details=\"{reason}\"")) {
        headers.insert(PROXY_STATUS_FIELD, value);
    }
}

/// Adds what every response over TLS carries, a page of our own too. A tool cannot weaken it with fields of its own.
/// An answer that comes through the ingress has it already.
pub(super) fn finish(headers: &mut HeaderMap) {
    headers.insert(header::STRICT_TRANSPORT_SECURITY, HSTS.clone());
    if !headers.get_all("permissions-policy").iter().any(|value| *value == PERMISSIONS) {
        headers.append("permissions-policy", PERMISSIONS.clone());
    }
}

/// Drops the cookies that a tool sets for other hosts than its own and those below it: a cookie for the whole domain
/// would be sent to every tool, and could stand in the place of another tool's.
fn drop_others_cookies(headers: &mut HeaderMap, host: &Host) {
    let Entry::Occupied(cookies) = headers.entry(header::SET_COOKIE) else { return };
    let kept: Vec<HeaderValue> = cookies.iter().filter(|cookie| is_for(cookie.as_bytes(), host)).cloned().collect();
    if kept.len() < cookies.iter().count() {
        cookies.remove_entry_mult();
        for cookie in kept {
            headers.append(header::SET_COOKIE, cookie);
        }
    }
}

/// Whether a cookie is for this host or one below it. A browser takes the last Domain attribute; each has to be so.
fn is_for(cookie: &[u8], host: &Host) -> bool {
    let own = host.as_str().as_bytes();
    let attributes = cookie.split(|byte| *byte == b';').skip(1).map(|attribute| {
        let mut parts = attribute.splitn(2, |byte| *byte == b'=');
        (parts.next().unwrap_or_default().trim_ascii(), parts.next().unwrap_or_default().trim_ascii())
    });
    let mut domains = attributes.filter(|(name, _)| name.eq_ignore_ascii_case(b"domain")).map(|(_, value)| value);
    domains.all(|domain| {
        let domain = domain.strip_prefix(b".").unwrap_or(domain).to_ascii_lowercase();
        let is_below = || domain.strip_suffix(own).is_some_and(|rest| rest.ends_with(b"."));
        // Without a value it means nothing.
        domain.is_empty() || domain == own || is_below()
    })
}

/// Leaves of a tool's wish to clear what browsers keep what is kept for each host. Cookies are kept for the whole domain:
/// a tool that clears them logs the visitor out of all tools, and a tool that only wants to log out does so unknowingly.
fn keep_others_cookies(headers: &mut HeaderMap) {
    let Entry::Occupied(wishes) = headers.entry(CLEAR) else { return };
    let parts = wishes.iter().flat_map(|wish| wish.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    let mut kept: Vec<&[u8]> = Vec::new();
    for part in parts {
        match part {
            b"\"*\"" => kept.extend(OF_ONE_HOST.iter().map(|kind| kind.as_bytes())),
            _ if OF_ONE_HOST.iter().any(|kind| kind.as_bytes() == part) || part.starts_with(b"\"storage:") => {
                kept.push(part);
            }
            _ => (),
        }
    }
    let kept = HeaderValue::from_bytes(&kept.join(&b", "[..])).ok().filter(|kept| !kept.is_empty());
    wishes.remove_entry_mult();
    if let Some(kept) = kept {
        headers.insert(CLEAR, kept);
    }
}

/// HTTP/2 may split cookies into several fields; HTTP/1.1 knows one (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let Entry::Occupied(mut cookies) = headers.entry(header::COOKIE) else { return };
    if cookies.iter().nth(1).is_none() {
        return;
    }
    let joined = cookies.iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b"; "[..]);
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        cookies.insert(joined);
    }
}

/// A tool sees plain HTTP and may redirect to it on its own host; the visitor is spared the detour.
fn own_location_by_tls(location: &HeaderValue, host: &Host) -> Option<HeaderValue> {
    let rest = location.to_str().ok()?.strip_prefix("http://")?;
    let after = rest.strip_prefix(host.as_str())?;
    (after.is_empty() || after.starts_with(['/', '?', '#']))
        .then(|| HeaderValue::try_from(format!("https://{rest}")))?
        .ok()
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let mut values = headers.get_all(name).iter();
    values.any(|value| {
        let mut tokens = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        tokens.any(|part| part.eq_ignore_ascii_case(token.as_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        map
    }

    fn lines(headers: &HeaderMap) -> Vec<String> {
        let mut lines: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        lines
    }

    #[test]
    fn hop_by_hop_fields_stay_on_their_hop() {
        type Fields = &'static [(&'static str, &'static str)];
        let cases: [(Fields, &[&str]); 6] = [
            (&[("connection", "keep-alive"), ("keep-alive", "timeout=5"), ("a", "1")], &["a: 1"]),
            (&[("connection", "X-Mine, close"), ("x-mine", "1"), ("a", "1")], &["a: 1"]),
            (&[("connection", "x-one"), ("connection", " ,X-Two,,"), ("x-one", "1"), ("x-two", "2")], &[]),
            (&[("te", "trailers"), ("trailer", "x-sum"), ("transfer-encoding", "chunked")], &["trailer: x-sum"]),
            (&[("proxy-authorization", "x"), ("proxy-connection", "close"), ("upgrade", "h2c")], &[]),
            (&[("connection", "@, ="), ("http2-settings", "x"), ("authorization", "y")], &["authorization: y"]),
        ];
        for (given, expected) in cases {
            let mut headers = map(given);
            strip_hop_by_hop(&mut headers);
            assert_eq!(lines(&headers), expected, "{given:?}");
        }
    }

    #[test]
    fn a_tool_is_told_only_what_we_say() {
        let mut headers = map(&[
            ("host", "ignored.example"),
            ("x-forwarded-for", "203.0.113.1"),
            ("x-forwarded-proto", "http"),
            ("x_forwarded_proto", "http"),
            ("forwarded", "for=203.0.113.1"),
            ("x-real-ip", "203.0.113.1"),
            ("x-hearth-reason", "apex"),
            ("proxy", "http://evil.example"),
            ("expect", "100-continue"),
            ("connection", "x-forwarded-host, host"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("my_own", "kept"),
        ]);
        let authority = Authority { host: "a.example".parse().unwrap(), port: None };
        forward(&mut headers, &authority, 443, "/x?y");
        let expected = [
            "cookie: a=1; b=2",
            "host: a.example",
            "my_own: kept",
            "x-forwarded-host: a.example",
            "x-forwarded-port: 443",
            "x-forwarded-proto: https",
            "x-original-uri: /x?y",
        ];
        assert_eq!(lines(&headers), expected);
    }

    #[test]
    fn the_ingress_passes_on_what_the_front_door_says() {
        let mut headers = map(&[
            ("host", "A.example:8443"),
            ("x-forwarded-host", "a.example:8443"),
            ("x-forwarded-port", "8443"),
            ("x-forwarded-proto", "https"),
            ("x-original-uri", "/x?y"),
            ("x-forwarded-for", "203.0.113.1"),
            ("x_forwarded_proto", "http"),
            ("x-hearth-reason", "apex"),
            ("connection", "keep-alive"),
        ]);
        let authority = Authority { host: "a.example".parse().unwrap(), port: Some(8443) };
        pass_on(&mut headers, &authority);
        let expected = [
            "host: a.example:8443",
            "x-forwarded-host: a.example:8443",
            "x-forwarded-port: 8443",
            "x-forwarded-proto: https",
            "x-original-uri: /x?y",
        ];
        assert_eq!(lines(&headers), expected);
    }

    #[test]
    fn responses_carry_the_platforms_fields() {
        let mut headers = map(&[
            ("strict-transport-security", "max-age=0"),
            ("permissions-policy", "camera=()"),
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            ("location", "http://a.example/next?x"),
        ]);
        respond(&mut headers, &"a.example".parse().unwrap());
        let expected = [
            "location: https://a.example/next?x",
            "permissions-policy: browsing-topics=()",
            "permissions-policy: camera=()",
            "strict-transport-security: max-age=31622400",
        ];
        assert_eq!(lines(&headers), expected);
        respond(&mut headers, &"a.example".parse().unwrap());
        assert_eq!(lines(&headers), expected, "twice is the same");
    }

    #[test]
    fn locations_elsewhere_are_kept() {
        let host: Host = "a.example".parse().unwrap();
        for (location, expected) in [
            ("http://a.example", Some("https://a.example")),
            ("http://a.example.evil/", None),
            ("http://a.example:8000/", None),
            ("http://b.example/", None),
            ("/path", None),
        ] {
            let found = own_location_by_tls(&HeaderValue::from_static(location), &host);
            assert_eq!(found.as_ref().map(|value| value.to_str().unwrap()), expected, "{location}");
        }
    }

    #[test]
    fn cookies_for_other_hosts_are_dropped() {
        let host: Host = "a.hearth.example".parse().unwrap();
        let fields = [
            "own=1",
            "own=2; Path=/; Secure",
            "own=3; domain=A.Hearth.Example",
            "own=4; Domain=.a.hearth.example",
            "own=5; Domain=sub.a.hearth.example; HttpOnly",
            "own=6; Domain=",
            "Domain=7",
            "tossed=1; Domain=hearth.example",
            "tossed=2; Path=/; DOMAIN = .hearth.example ; Secure",
            "tossed=3; Domain=example",
            "tossed=4; Domain=b.hearth.example",
            "tossed=5; Domain=xa.hearth.example",
            "tossed=6; Domain=a.hearth.example; Domain=hearth.example",
            "tossed=7; Domain=hearth.example; Domain=a.hearth.example",
            "tossed=8; Domain=a.hearth.example.",
        ];
        let mut headers: HeaderMap = HeaderMap::new();
        for field in fields {
            headers.append(header::SET_COOKIE, HeaderValue::from_static(field));
        }
        respond(&mut headers, &host);
        let kept: Vec<&str> = headers.get_all(header::SET_COOKIE).iter().map(|value| value.to_str().unwrap()).collect();
        assert_eq!(kept, fields[..7]);
    }

    #[test]
    fn what_is_kept_for_the_whole_domain_is_not_cleared() {
        let all = OF_ONE_HOST.join(", ");
        for (wishes, expected) in [
            (&["\"*\""][..], Some(all.as_str())),
            (&["\"cookies\""], None),
            (&["\"cache\",\"cookies\" , \"storage\"", "\"cookies\""], Some("\"cache\", \"storage\"")),
            (&["\"cookies\"", "\"executionContexts\""], Some("\"executionContexts\"")),
            (&["\"storage:inbox\", \"Cookies\", cookies, *, \"all\""], Some("\"storage:inbox\"")),
        ] {
            let mut headers: HeaderMap = HeaderMap::new();
            for wish in wishes {
                headers.append(CLEAR, HeaderValue::from_static(wish));
            }
            for _ in 0..2 {
                respond(&mut headers, &"a.example".parse().unwrap());
                let kept: Vec<&str> = headers.get_all(CLEAR).iter().map(|value| value.to_str().unwrap()).collect();
                assert_eq!(kept, Vec::from_iter(expected), "{wishes:?}");
            }
        }
    }

    #[test]
    fn only_websockets_are_switched_to() {
        let asks = |method: &Method, version: Version, fields: &[(&'static str, &'static str)]| {
            asks_for_websocket(method, version, &map(fields))
        };
        let upgrade = [("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")];
        assert!(asks(&Method::GET, Version::HTTP_11, &upgrade));
        assert!(!asks(&Method::POST, Version::HTTP_11, &upgrade));
        assert!(!asks(&Method::GET, Version::HTTP_10, &upgrade));
        assert!(!asks(&Method::GET, Version::HTTP_11, &[upgrade[0], ("upgrade", "h2c")]));
        assert!(!asks(&Method::GET, Version::HTTP_11, &[upgrade[0], upgrade[1], ("upgrade", "h2c")]));
        assert!(!asks(&Method::GET, Version::HTTP_11, &[upgrade[1]]));
        assert!(!asks(&Method::GET, Version::HTTP_11, &[upgrade[0], upgrade[1], ("content-length", "3")]));
        assert!(switches_to_websocket(StatusCode::SWITCHING_PROTOCOLS, &map(&[("upgrade", "websocket")])));
        assert!(!switches_to_websocket(StatusCode::SWITCHING_PROTOCOLS, &map(&[("upgrade", "h2c")])));
        assert!(!switches_to_websocket(StatusCode::OK, &map(&[("upgrade", "websocket")])));
    }
}
