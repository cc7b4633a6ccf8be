//! The listener without TLS: it sends everyone to the other one, and says that it stands.

use std::convert::Infallible;
use std::sync::Arc;

use hearth_core::Place;
use hearth_core::framing::Violation;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;

use super::authority::authority;
use super::bodies::ResponseBody;
use super::listener::Visitor;
use super::request::HEALTH;
use super::{Door, guard, pages};

/// Answers a request that came without TLS.
pub(super) async fn handle(
    door: Arc<Door>,
    request: Request<Incoming>,
    refused: Option<Violation>,
) -> Result<Response<ResponseBody>, Infallible> {
    let Some(violation) = refused else { return Ok(answer(&door, &request)) };
    let mut response = pages::plain(guard::status(violation), violation.sentence());
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    Ok(response)
}

fn answer(door: &Door, request: &Request<Incoming>) -> Response<ResponseBody> {
    let path = request.uri().path();
    if path == HEALTH {
        return pages::plain(StatusCode::OK, "proxy ok!");
    }
    if let Some(page) = door.switches.refuse(request.extensions().get::<Visitor>(), request.headers()) {
        return page;
    }
    let host = match authority(request.uri(), request.headers(), request.version()) {
        Ok(authority) => authority.host,
        Err(error) => return pages::plain(StatusCode::BAD_REQUEST, error.sentence()),
    };
    if !request.uri().path_and_query().is_some_and(|target| target.as_str().starts_with('/')) {
        return pages::plain(StatusCode::BAD_REQUEST, "The target of the request is not a path.");
    }
    if door.table.borrow().domains().place(&host) == Place::Elsewhere {
        return pages::plain(StatusCode::NOT_FOUND, "The URL you have requested is not of this platform.");
    }
    // Only GET and HEAD may be repeated as GET, which is what 301 allows; 308 keeps the method and the body.
    let safe = matches!(*request.method(), Method::GET | Method::HEAD);
    let status = if safe { StatusCode::MOVED_PERMANENTLY } else { StatusCode::PERMANENT_REDIRECT };
    let port = if door.port == 443 { String::new() } else { format!(":{}", door.port) };
    let target = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    pages::redirect(status, &format!("https://{host}{port}{target}"))
}
