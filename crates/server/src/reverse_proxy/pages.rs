//! The few pages that the front door makes itself: for requests that it refuses, and for when the role that draws the
//! pages is away. Plain, small, and the same for everyone.

use bytes::Bytes;
use hearth_core::route::Reason;
use http::{HeaderValue, Method, Response, StatusCode, header};

use super::bodies::ResponseBody;

/// The icon of a tool that has none of its own.
const FAVICON: &str = concat!(
    r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">"##,
    r##"<path fill="#c2410c" d="M8 1c1 3 5 5 5 9a5 5 0 0 1-10 0c0-2 1-3 2-4 0 2 1 3 2 3 1-3 0-5 1-8z"/></svg>"##
);

/// What robots are told about a tool that tells them nothing.
const ROBOTS: &str = "User-agent: *\nDisallow: /\n";

/// A page of plain text: one sentence.
pub(super) fn plain(status: StatusCode, text: &str) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::page(Bytes::from(format!("{text}\n"))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Another address: `location` is an absolute URL.
pub(super) fn redirect(status: StatusCode, location: &str) -> Response<ResponseBody> {
    match HeaderValue::try_from(location) {
        Ok(value) => {
            let mut response = plain(status, &format!("The page is at {location}"));
            response.headers_mut().insert(header::LOCATION, value);
            response.headers_mut().remove(header::CACHE_CONTROL);
            response
        }
        Err(_) => plain(StatusCode::BAD_REQUEST, "The path of the request has characters that no URL has."),
    }
}

/// What stands in for the pages' role while it is away.
pub(super) fn for_reason(reason: Reason, tool: Option<&str>) -> Response<ResponseBody> {
    let tool = tool.map_or_else(|| "This tool".to_owned(), |name| format!("The tool '{name}'"));
    let text = match reason {
        Reason::Apex => "This is Hearth, a platform for web tools.".to_owned(),
        Reason::UnknownHost | Reason::UnknownTool => {
            "The URL you have requested is not of any tool on this platform.".to_owned()
        }
        Reason::NoWebService => format!("{tool} has no web service at this address right now."),
        Reason::Unavailable => format!("{tool} has a web service, but none of its processes is ready."),
        Reason::Unreachable => format!("{tool} does not accept connections. The platform itself is well."),
        Reason::BrokenAnswer => format!("{tool} ended the connection without an answer. The platform itself is well."),
        Reason::NoAnswer => format!("{tool} did not answer in time. The platform itself is well."),
        Reason::NoPassage => {
            "The platform's front door does not reach its cluster. The tools are not at fault. Please try again in a \
             minute."
                .to_owned()
        }
        Reason::Stale => {
            "The platform's front door has lost contact with its cluster, so it cannot tell where tools are. \
             The tools are not at fault. Please try again in a minute."
                .to_owned()
        }
    };
    let status = StatusCode::from_u16(reason.status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let mut response = plain(status, &text);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("30"));
    }
    response
}

/// The file that stands in for one that a tool does not have: robots keep out unless a tool lets them in.
pub(super) fn default_file(method: &Method, path: &str) -> Option<Response<ResponseBody>> {
    let (content, kind) = match path {
        "/robots.txt" => (ROBOTS, "text/plain; charset=utf-8"),
        "/favicon.ico" => (FAVICON, "image/svg+xml"),
        _ => return None,
    };
    if !matches!(*method, Method::GET | Method::HEAD) {
        return None;
    }
    let mut response = Response::new(ResponseBody::page(Bytes::from_static(content.as_bytes())));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=3600"));
    Some(response)
}
