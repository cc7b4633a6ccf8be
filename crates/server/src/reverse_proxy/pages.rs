//! The few pages that the front door makes itself: for requests that it refuses, and for when the role that draws the
//! pages is away. Plain, small, and the same for everyone.

use bytes::Bytes;
use hearth_core::route::Reason;
use hearth_core::route::reason::{PROXY, PROXY_STATUS_FIELD};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

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

/// A page that says what is wrong and whose fault it is, to a person or a program.
pub(super) struct Page<'a> {
    pub(super) title: &'a str,
    pub(super) sentences: &'a [&'a str],
    /// Where more can be read: a URL.
    pub(super) link: Option<&'a str>,
    /// The word for it, for machines.
    pub(super) details: &'static str,
}

impl Page<'_> {
    /// The page, as HTML for who reads that.
    pub(super) fn response(&self, status: StatusCode, request: &HeaderMap) -> Response<ResponseBody> {
        let accept = request.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let mut response = if accept.contains("text/html") {
            let mut response = plain(status, &self.html(status));
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
            headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'"));
            headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            response
        } else {
            let link = self.link.map(|link| format!(" See {link}")).unwrap_or_default();
            plain(status, &format!("{}. {}{link}", self.title, self.sentences.join(" ")))
        };
        let headers = response.headers_mut();
        headers.insert(header::VARY, HeaderValue::from_static("accept"));
        if let Ok(value) =
            HeaderValue::try_from(format!("{PROXY}; error=http_request_denied; details=\"{}\"", self.details))
        {
            headers.insert(PROXY_STATUS_FIELD, value);
        }
        super::headers::finish(headers);
        response
    }

    fn html(&self, status: StatusCode) -> String {
        let title = escaped(self.title);
        let sentences: String = self.sentences.iter().map(|sentence| format!("<p>{}</p>", escaped(sentence))).collect();
        let link =
            self.link.map(escaped).map(|link| format!("<p><a href=\"{link}\">{link}</a></p>")).unwrap_or_default();
        format!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
             <meta name=\"viewport\" content=\"width=device-width\"><meta name=\"robots\" content=\"noindex\"></head>\
             <body><p>{}</p><h1>{title}</h1>{sentences}{link}</body></html>",
            status.as_u16()
        )
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
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
        Reason::NoWebService => {
            format!("{tool} has no web service at this address right now. The platform itself is well.")
        }
        Reason::Unavailable => {
            format!("{tool} has a web service, but none of its processes is ready. The platform itself is well.")
        }
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

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn each_page_says_whose_fault_it_is() {
        for reason in Reason::ALL {
            let response = for_reason(reason, Some("wikibot"));
            let status = response.status();
            let text = response.into_body().collect().await.unwrap().to_bytes();
            let text = String::from_utf8(text.to_vec()).unwrap();
            match status.as_u16() {
                200 => (),
                404 => assert!(text.contains("not of any tool on this platform"), "{reason}: {text}"),
                _ if matches!(reason, Reason::Stale | Reason::NoPassage) => {
                    assert!(text.contains("The tools are not at fault."), "{reason}: {text}")
                }
                _ => {
                    assert!(text.contains("The tool 'wikibot'"), "{reason}: {text}");
                    assert!(text.contains("The platform itself is well."), "{reason}: {text}");
                }
            }
        }
    }

    #[tokio::test]
    async fn a_page_is_text_or_html_and_holds_no_markup_of_others() {
        let page = Page { title: "A & B", sentences: &["<script>"], link: Some("https://a.example/?b"), details: "x" };
        let body = async |accept: &'static str| {
            let request = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]);
            let response = page.response(StatusCode::FORBIDDEN, &request);
            assert_eq!(response.headers()[PROXY_STATUS_FIELD], "hearth; error=http_request_denied; details=\"x\"");
            String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
        };
        assert_eq!(body("*/*").await, "A & B. <script> See https://a.example/?b\n");
        let html = body("text/html,*/*;q=0.8").await;
        assert!(html.contains("<h1>A &amp; B</h1>") && html.contains("&lt;script&gt;"), "{html}");
        assert!(html.contains("<a href=\"https://a.example/?b\">") && !html.contains("<script>"), "{html}");
    }
}
