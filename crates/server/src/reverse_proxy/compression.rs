//! Whether an answer of a tool is compressed on its way, and how: decided from fields alone.
//!
//! It is where the browser accepts it, the tool did not do it itself, and the type and the length make it worthwhile.
//! Never where somebody said no (`no-transform`), nor a part of a thing, an event stream, or what is told apart by a
//! digest. A page of another site that asks with the visitor's cookies is never answered compressed: the length of
//! what is compressed tells of secrets in it, if the one who measures can put in texts of his own (BREACH).

use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// What is shorter gains nothing: it fits into one packet.
const WORTHWHILE: u64 = 1024;

/// A way to compress. The order is the front door's own: the ratio for the time that they take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Coding {
    Gzip,
    Brotli,
    Zstd,
}

impl Coding {
    const ALL: [Self; 3] = [Self::Gzip, Self::Brotli, Self::Zstd];

    fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }
}

/// The coding that the client likes best of those that may be used for it; none where it wants none.
pub(super) fn wanted(request: &HeaderMap) -> Option<Coding> {
    // Most that do not come from browsers end here.
    let mut accepted = request.get_all(header::ACCEPT_ENCODING).iter().peekable();
    accepted.peek()?;
    if is_of_another_site(request) || forbids(request) {
        return None;
    }
    best(accepted.filter_map(|value| value.to_str().ok()))
}

/// Whether a page of another site may have asked, in the visitor's name. Other tools are other sites.
fn is_of_another_site(request: &HeaderMap) -> bool {
    let site = request.get("sec-fetch-site").map(HeaderValue::as_bytes);
    matches!(site, Some(b"cross-site" | b"same-site"))
        && (request.contains_key(header::COOKIE) || request.contains_key(header::AUTHORIZATION))
}

/// Of an `Accept-Encoding` (RFC 9110 §12.5.3) the coding with the highest weight.
fn best<'a>(values: impl Iterator<Item = &'a str>) -> Option<Coding> {
    let mut weights = [None; Coding::ALL.len()];
    let mut others = None;
    for item in values.flat_map(|value| value.split(',')) {
        let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
        // One that cannot be read is no wish.
        let Some(weight) = weight(parameters) else { continue };
        let name = name.trim();
        if name == "*" {
            others = Some(weight);
        }
        let is_named = |coding: &Coding| {
            name.eq_ignore_ascii_case(coding.as_str())
                || (*coding == Coding::Gzip && name.eq_ignore_ascii_case("x-gzip"))
        };
        if let Some(found) = Coding::ALL.iter().position(is_named).and_then(|place| weights.get_mut(place)) {
            *found = Some(weight);
        }
    }
    let weighed = Coding::ALL.into_iter().zip(weights).map(|(coding, weight)| (weight.or(others).unwrap_or(0), coding));
    weighed.filter(|(weight, _)| *weight > 0).max().map(|(_, coding)| coding)
}

/// The weight in thousandths.
fn weight(parameters: &str) -> Option<u16> {
    let parameters = parameters.trim();
    if parameters.is_empty() {
        return Some(1000);
    }
    let number = parameters.strip_prefix("q=").or_else(|| parameters.strip_prefix("Q="))?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    match whole {
        "0" => format!("{fraction:0<3}").parse().ok(),
        "1" => fraction.bytes().all(|byte| byte == b'0').then_some(1000),
        _ => None,
    }
}

/// Whether an answer is worth it. Its fields are those that the client would get.
pub(super) fn is_worthwhile(status: StatusCode, headers: &HeaderMap) -> bool {
    if status.is_informational() || matches!(status.as_u16(), 204 | 205 | 206 | 304) {
        return false;
    }
    let is_typed = headers.get(header::CONTENT_TYPE).is_some_and(|value| is_text(value.as_bytes()));
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    is_typed
        && length.is_none_or(|length| length >= WORTHWHILE)
        && !forbids(headers)
        && !UNTOUCHED.iter().any(|name| headers.contains_key(name))
}

/// What has one of these is coded, a part, or known by what its bytes are.
static UNTOUCHED: [HeaderName; 6] = [
    header::CONTENT_ENCODING,
    header::CONTENT_RANGE,
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];

/// Whether nobody on the way may change the content.
fn forbids(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CACHE_CONTROL).iter();
    let mut directives = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    directives.any(|directive| directive.trim_ascii().eq_ignore_ascii_case(b"no-transform"))
}

/// Whether a type is one of text, in the wide sense: what is not is compressed in itself, or has no redundancy.
fn is_text(kind: &[u8]) -> bool {
    let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
    if kind.starts_with(b"text/") {
        return kind != b"text/event-stream";
    }
    kind.ends_with(b"+json") || kind.ends_with(b"+xml") || TYPES.contains(&kind.as_slice())
}

const TYPES: [&[u8]; 13] = [
    b"application/javascript",
    b"application/json",
    b"application/n-triples",
    b"application/sparql-query",
    b"application/sql",
    b"application/vnd.ms-fontobject",
    b"application/wasm",
    b"application/x-javascript",
    b"application/x-ndjson",
    b"application/xml",
    b"font/otf",
    b"font/ttf",
    b"image/bmp",
];

/// Says in the fields of an answer that it is compressed.
pub(super) fn declare(headers: &mut HeaderMap, coding: Coding) {
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.as_str()));
    headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
    headers.remove(header::CONTENT_LENGTH);
    // Parts would be of the bytes that the tool has, not of those that are sent.
    headers.remove(header::ACCEPT_RANGES);
    // Other bytes for the same thing are the same in the weak sense alone (RFC 9110 §8.8.1).
    let weak = headers.get(header::ETAG).and_then(|tag| {
        let tag = tag.as_bytes();
        (!tag.starts_with(b"W/")).then(|| HeaderValue::from_bytes(&[b"W/", tag].concat()).ok())?
    });
    if let Some(weak) = weak {
        headers.insert(header::ETAG, weak);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let fields =
            fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        fields.collect()
    }

    #[test]
    fn the_client_chooses() {
        use Coding::{Brotli, Gzip, Zstd};
        for (accepted, expected) in [
            ("", None),
            ("identity", None),
            ("gzip", Some(Gzip)),
            ("x-gzip", Some(Gzip)),
            ("GZip;q=0.5", Some(Gzip)),
            ("gzip, deflate, br", Some(Brotli)),
            ("gzip, deflate, br, zstd", Some(Zstd)),
            ("zstd;q=0.1, br;q=0.2, gzip;q=0.9", Some(Gzip)),
            ("zstd;q=0, br;q=0.000, gzip", Some(Gzip)),
            ("*", Some(Zstd)),
            ("*;q=0.1, br", Some(Brotli)),
            ("*, zstd;q=0", Some(Brotli)),
            ("gzip;q=0, *;q=0", None),
            ("gzip;q=1.001, br;q=2, zstd;q=x", None),
            ("gzip ; q=1.000", Some(Gzip)),
            ("gzip;q=0.0001", None),
            ("deflate", None),
        ] {
            let request = map(&[("accept-encoding", accepted)]);
            assert_eq!(wanted(&request), expected, "{accepted}");
        }
        assert_eq!(wanted(&HeaderMap::new()), None);
        let mut request = map(&[("accept-encoding", "gzip;q=0")]);
        request.append("accept-encoding", HeaderValue::from_static("br"));
        assert_eq!(wanted(&request), Some(Brotli));
    }

    #[test]
    fn other_sites_learn_nothing_from_lengths() {
        let asks = |fields: &[(&'static str, &'static str)]| {
            let mut request = map(fields);
            request.insert("accept-encoding", HeaderValue::from_static("gzip"));
            wanted(&request).is_some()
        };
        assert!(asks(&[("cookie", "a=1")]));
        assert!(asks(&[("cookie", "a=1"), ("sec-fetch-site", "same-origin")]));
        assert!(asks(&[("cookie", "a=1"), ("sec-fetch-site", "none")]));
        assert!(asks(&[("sec-fetch-site", "cross-site")]));
        assert!(!asks(&[("cookie", "a=1"), ("sec-fetch-site", "cross-site")]));
        assert!(!asks(&[("cookie", "a=1"), ("sec-fetch-site", "same-site")]));
        assert!(!asks(&[("authorization", "Basic x"), ("sec-fetch-site", "cross-site")]));
        assert!(!asks(&[("cache-control", "no-cache, no-transform")]));
    }

    #[test]
    fn only_whole_texts_of_some_length_are_worth_it() {
        let long = ("content-length", "1024");
        let html = ("content-type", "Text/HTML; charset=utf-8");
        let ok = |fields: &[(&'static str, &'static str)]| is_worthwhile(StatusCode::OK, &map(fields));
        assert!(ok(&[html, long]) && ok(&[html]));
        assert!(!ok(&[html, ("content-length", "1023")]) && !ok(&[long]));
        for kind in ["application/json", "image/svg+xml", "application/ld+json", "application/wasm", "text/css"] {
            assert!(ok(&[("content-type", kind)]), "{kind}");
        }
        for kind in ["text/event-stream", "image/png", "application/zip", "application/grpc", "video/mp4", "", "json"] {
            assert!(!ok(&[("content-type", kind)]), "{kind}");
        }
        for other in [
            ("content-encoding", "gzip"),
            ("content-encoding", "identity"),
            ("content-range", "bytes 0-1/2"),
            ("cache-control", "public, No-Transform"),
            ("content-digest", "sha-256=:x:"),
        ] {
            assert!(!ok(&[html, long, other]), "{other:?}");
        }
        for (status, expected) in [(201, true), (404, true), (500, true), (206, false), (204, false), (304, false)] {
            assert_eq!(is_worthwhile(StatusCode::from_u16(status).unwrap(), &map(&[html, long])), expected, "{status}");
        }
    }

    #[test]
    fn the_fields_of_the_answer_say_so() {
        let fields =
            [("content-length", "9"), ("etag", "\"a\""), ("accept-ranges", "bytes"), ("vary", "cookie"), ("age", "1")];
        let mut headers = map(&fields);
        declare(&mut headers, Coding::Brotli);
        let mut lines: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        assert_eq!(lines, ["age: 1", "content-encoding: br", "etag: W/\"a\"", "vary: accept-encoding", "vary: cookie"]);
        let mut weak = map(&[("etag", "W/\"a\"")]);
        declare(&mut weak, Coding::Gzip);
        assert_eq!(weak.get("etag").unwrap(), "W/\"a\"");
    }
}
