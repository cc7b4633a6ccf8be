//! A page as HTML, plain text or JSON. The HTML needs nothing from elsewhere, has no script, and says so in its
//! Content-Security-Policy, in which its one style sheet is named by its hash.

use axum::body::Body;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use super::accept::Format;
use super::page::Page;

/// The style sheet.
const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1c1917;--soft:#57534e;--paper:#fafaf9;--card:#fff;--line:#e7e5e4;--fire:#c2410c}\
@media(prefers-color-scheme:dark){:root{--ink:#f5f5f4;--soft:#a8a29e;--paper:#1c1917;--card:#292524;--line:#44403c;--fire:#fb923c}}\
*{box-sizing:border-box}\
body{margin:0;min-height:100vh;display:grid;place-items:center;background:var(--paper);color:var(--ink);font:1rem/1.6 system-ui,sans-serif}\
main{width:min(40rem,100%);padding:2.5rem 1.5rem}\
.status{margin:0;color:var(--fire);font-weight:600;letter-spacing:.08em}\
h1{margin:.2rem 0 1.2rem;font-size:2rem;line-height:1.2}\
h2{margin:2rem 0 .5rem;font-size:1rem;color:var(--soft);font-weight:600}\
a{color:var(--fire)}\
ul{margin:0;padding-left:1.2rem}\
pre{margin:0;padding:.9rem 1.1rem;overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:.5rem}\
";

/// Pages in their form, with what was computed once.
pub(super) struct Renderer {
    policy: HeaderValue,
}

/// A page as JSON.
#[derive(Serialize)]
struct Json<'a> {
    status: u16,
    reason: &'static str,
    tool: Option<&'a str>,
    title: &'a str,
    message: String,
    maintainers: &'a [String],
    suggestions: Vec<&'a str>,
}

impl Renderer {
    /// Computes what all pages share.
    pub(super) fn new() -> Self {
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, STYLE.as_bytes());
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            STANDARD.encode(hash.as_ref())
        );
        let closed = HeaderValue::from_static("default-src 'none'");
        Self { policy: HeaderValue::try_from(policy).unwrap_or(closed) }
    }

    /// The page as a response.
    pub(super) fn response(&self, page: &Page, format: Format) -> Response {
        let (kind, content) = match format {
            Format::Html => ("text/html; charset=utf-8", html(page)),
            Format::Json => ("application/json", json(page)),
            Format::Text => ("text/plain; charset=utf-8", text(page)),
        };
        let mut response = Response::new(Body::from(content));
        *response.status_mut() = StatusCode::from_u16(page.status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(header::CONTENT_SECURITY_POLICY, self.policy.clone());
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::VARY, HeaderValue::from_static("accept"));
        if let Some(seconds) = page.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

fn html(page: &Page) -> String {
    let title = escape(&page.title);
    let mut body = String::new();
    if page.status != 200 {
        body.push_str(&format!("<p class=\"status\">{}</p>", page.status));
    }
    body.push_str(&format!("<h1>{title}</h1>"));
    for paragraph in &page.text {
        body.push_str(&format!("<p>{}</p>", escape(paragraph)));
    }
    if !page.suggestions.is_empty() {
        let links = page.suggestions.iter();
        let items = links.map(|(name, url)| format!("<a href=\"{}\">{}</a>", escape(url), escape(name.as_str())));
        body.push_str(&list("Did you mean", items));
    }
    if !page.maintainers.is_empty() {
        body.push_str(&list("Its maintainers", page.maintainers.iter().map(|name| escape(name))));
    }
    for advice in &page.advice {
        let lines = escape(&advice.lines.join("\n"));
        body.push_str(&format!("<h2>{}</h2><pre><code>{lines}</code></pre>", escape(advice.whom)));
    }
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><meta name=\"robots\" content=\"noindex\">\
         <style>{STYLE}</style></head><body><main>{body}</main></body></html>\n"
    )
}

fn list(heading: &str, items: impl Iterator<Item = String>) -> String {
    let items: String = items.map(|item| format!("<li>{item}</li>")).collect();
    format!("<h2>{heading}</h2><ul>{items}</ul>")
}

fn text(page: &Page) -> String {
    let mut text = format!("{}\n\n{}\n", page.title, page.text.join("\n"));
    if !page.suggestions.is_empty() {
        let names: Vec<&str> = page.suggestions.iter().map(|(name, _)| name.as_str()).collect();
        text.push_str(&format!("\nDid you mean: {}\n", names.join(", ")));
    }
    if !page.maintainers.is_empty() {
        text.push_str(&format!("\nIts maintainers: {}\n", clean(&page.maintainers.join(", "))));
    }
    for advice in &page.advice {
        text.push_str(&format!("\n{}:\n", advice.whom));
        for line in &advice.lines {
            text.push_str(&format!("    {line}\n"));
        }
    }
    text
}

fn json(page: &Page) -> String {
    let json = Json {
        status: page.status,
        reason: page.reason.as_str(),
        tool: page.tool.as_ref().map(hearth_core::ToolName::as_str),
        title: &page.title,
        message: page.text.join(" "),
        maintainers: &page.maintainers,
        suggestions: page.suggestions.iter().map(|(name, _)| name.as_str()).collect(),
    };
    // Texts and numbers always have a JSON form.
    serde_json::to_string(&json).unwrap_or_default() + "\n"
}

/// As text and in attributes with double quotes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in clean(text).chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Without what is not seen: commands to terminals, and marks that turn the direction of text and could make one name
/// look like another.
fn clean(text: &str) -> String {
    let seen = |c: char| match c {
        '\n' => c,
        '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    text.chars().map(seen).collect()
}

#[cfg(test)]
mod tests {
    use hearth_core::route::Reason;

    use super::*;

    fn page() -> Page {
        Page {
            status: 503,
            reason: Reason::NoWebService,
            tool: "wikibot".parse().ok(),
            title: "No web service".to_owned(),
            text: vec!["One.".to_owned(), "Two.".to_owned()],
            maintainers: vec!["<script>alert(1)</script>".to_owned(), "a\u{202e}b\u{1b}[31m".to_owned()],
            advice: Vec::new(),
            suggestions: vec![("wikibots".parse().unwrap(), "//wikibots.example/".to_owned())],
            retry_after: Some(60),
        }
    }

    #[test]
    fn hostile_names_are_harmless() {
        let html = html(&page());
        assert!(!html.contains("<script") && html.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
        assert!(!html.contains('\u{202e}') && !html.contains('\u{1b}'));
        assert!(html.contains("<a href=\"//wikibots.example/\">wikibots</a>"));
        assert_eq!(escape("\"'&"), "&quot;&#39;&amp;");
    }

    #[test]
    fn the_same_page_in_three_forms() {
        let json: serde_json::Value = serde_json::from_str(&json(&page())).unwrap();
        assert_eq!(json["reason"], "no-web-service");
        assert_eq!(json["message"], "One. Two.");
        assert_eq!(json["suggestions"][0], "wikibots");
        let plain = Page { maintainers: vec!["ada".to_owned()], ..page() };
        let expected = "No web service\n\nOne.\nTwo.\n\nDid you mean: wikibots\n\nIts maintainers: ada\n";
        assert_eq!(text(&plain), expected);
        let response = Renderer::new().response(&page(), Format::Html);
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], "60");
        let policy = response.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("style-src 'sha256-") && !policy.contains("unsafe"));
    }
}
