//! One request, from its head to its answer.
//!
//! [`handle`] is the outer half: it makes one answer out of whatever happens and has it recorded. [`answer`] is the
//! inner half: the checks in their order, then the table, then the tool.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hearth_core::ToolName;
use hearth_core::framing::Violation;
use hearth_core::limit::Over;
use hearth_core::route::reason::{REASON_FIELD, TOOL_FIELD};
use hearth_core::route::{Backend, Decision, Reason};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::Door;
use super::access::{Passes, Record};
use super::allowances::{Pass, visitor};
use super::authority::{Authority, authority};
use super::bodies::{ResponseBody, Upload};
use super::guard;
use super::headers;
use super::listener::{Held, Visitor};
use super::metrics::KindLabel;
use super::pages;
use super::tunnel;
use super::upstream::{Failure, Outgoing};

/// Where load balancers ask whether the front door stands.
pub(super) const HEALTH: &str = "/.well-known/healthz";

/// How long the role that draws the pages may take.
const PAGE_PATIENCE: Duration = Duration::from_secs(5);

/// What is wrong with a request that is not passed on: a status and a sentence for the client.
#[derive(Debug)]
struct Refusal(StatusCode, &'static str);

/// Of a request, what a page needs when the rest is gone.
struct Visit {
    authority: Authority,
    method: Method,
    target: PathAndQuery,
    accept: Option<HeaderValue>,
}

/// Answers a request that came over TLS.
pub(super) async fn handle(
    door: Arc<Door>,
    request: Request<Incoming>,
    refused: Option<Violation>,
) -> Result<Response<ResponseBody>, Infallible> {
    let (method, version) = (request.method().clone(), request.version());
    let field = || request.headers().get(header::HOST).and_then(|value| value.to_str().ok());
    let host = request.uri().authority().map(http::uri::Authority::as_str).or_else(field);
    let host = host.filter(|_| refused.is_none()).unwrap_or_default();
    let mut record = Record::new(door.metrics.clone(), &method, version, host, request.uri().path());
    let answered = match refused {
        None => answer(&door, request, &mut record).await,
        Some(violation) => Err(Refusal(guard::status(violation), violation.sentence())),
    };
    let mut response = answered.unwrap_or_else(|refusal| {
        let mut response = pages::plain(refusal.0, refusal.1);
        headers::finish(response.headers_mut());
        if refusal.0 == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        } else if version < Version::HTTP_2 {
            // Whoever sends what cannot be read may have sent more of it.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    });
    record.set_status(response.status());
    if method == Method::HEAD {
        response = response.map(ResponseBody::without_content);
    }
    Ok(response.map(|body| body.recorded(record)))
}

async fn answer(
    door: &Door,
    request: Request<Incoming>,
    record: &mut Record,
) -> Result<Response<ResponseBody>, Refusal> {
    let path = request.uri().path();
    if path == HEALTH {
        return Ok(pages::plain(StatusCode::OK, "proxy ok!"));
    }
    if let Some(visitor) = request.extensions().get::<Visitor>() {
        record.hold_visitor(door.admit_visitor(*visitor)?);
    }
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        return Err(Refusal(StatusCode::METHOD_NOT_ALLOWED, "The front door does not do this method."));
    }
    let authority = match authority(request.uri(), request.headers(), request.version()) {
        Ok(authority) => authority,
        Err(error) => return Err(Refusal(StatusCode::BAD_REQUEST, error.sentence())),
    };
    // What has a query alone counts as the path `/` for some and as none for others.
    if !request.uri().path_and_query().is_some_and(|target| target.as_str().starts_with('/')) {
        return Err(Refusal(StatusCode::BAD_REQUEST, "The target of the request is not a path."));
    }
    if request.headers().get(header::USER_AGENT).is_none_or(|agent| agent.as_bytes().trim_ascii().is_empty()) {
        return Err(Refusal(StatusCode::FORBIDDEN, "Requests must have a user agent"));
    }
    if hyper::body::Body::size_hint(request.body()).lower() > door.limits.body {
        return Err(TOO_LONG);
    }
    let decision = door.table.borrow().route(&authority.host, path);
    let known = !matches!(decision, Decision::UnknownTool(_));
    if let Some(tool) = decision.tool().filter(|_| known) {
        record.set_tool(tool);
    }
    let visit = Visit {
        target: request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")),
        accept: request.headers().get(header::ACCEPT).cloned(),
        method: request.method().clone(),
        authority,
    };
    let stale = door.freshness.is_stale();
    let reason = match &decision {
        Decision::Ambiguous => {
            let text = "The path of the request can be read in two ways: it has encoded slashes or dots, or doubled \
                        slashes, at a place where they matter.";
            return Err(Refusal(StatusCode::BAD_REQUEST, text));
        }
        Decision::Redirect { host, path, .. } => return Ok(visit.moved(host.as_str(), path)),
        Decision::Apex => Reason::Apex,
        Decision::Elsewhere => Reason::UnknownHost,
        _ if stale => Reason::Stale,
        Decision::Endpoints(backend) => match forward(door, request, &visit, backend, record).await? {
            Ok(response) => return Ok(response),
            Err(reason) => reason,
        },
        Decision::NoWebService(_) => Reason::NoWebService,
        Decision::Unavailable(_) => Reason::Unavailable,
        Decision::UnknownTool(_) => Reason::UnknownTool,
    };
    record.set_reason(reason);
    Ok(page(door, &visit, &decision, reason, stale).await)
}

const TOO_LONG: Refusal = Refusal(StatusCode::PAYLOAD_TOO_LARGE, "The body of the request is too long.");

/// Has the tool answer. The inner error says what kept it from answering.
async fn forward(
    door: &Door,
    mut request: Request<Incoming>,
    visit: &Visit,
    backend: &Backend,
    record: &mut Record,
) -> Result<Result<Response<ResponseBody>, Reason>, Refusal> {
    record.hold_tool(door.admit_tool(&backend.tool)?);
    let websocket = headers::asks_for_websocket(request.method(), request.version(), request.headers());
    let client = websocket.then(|| (hyper::upgrade::on(&mut request), request.extensions_mut().remove::<Held>()));
    let (mut parts, body) = request.into_parts();
    headers::forward(&mut parts.headers, &visit.authority, door.port, visit.target.as_str());
    if websocket {
        headers::set_websocket(&mut parts.headers);
    }
    let outgoing = Outgoing {
        method: parts.method,
        path: visit.target.clone(),
        headers: parts.headers,
        upload: Upload::new(body, door.limits.body, door.limits.client_pause),
    };
    let answer = match door.upstream.send(backend, &outgoing).await {
        Ok(answer) => answer,
        Err(Failure::Tool(reason)) => return Ok(Err(reason)),
        Err(Failure::TooLong) => return Err(TOO_LONG),
        Err(Failure::TooSlow) => {
            return Err(Refusal(StatusCode::REQUEST_TIMEOUT, "The body of the request did not come in time."));
        }
        Err(Failure::Broken) => {
            return Err(Refusal(StatusCode::BAD_REQUEST, "The body of the request could not be read to its end."));
        }
    };
    door.metrics.retries.inc_by(answer.retries);
    let mut response = answer.response;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(match client {
            Some((client, held)) if headers::switches_to_websocket(response.status(), response.headers()) => {
                tunnel(door, client, hyper::upgrade::on(&mut response), (held, record.take_passes()));
                headers::respond(response.headers_mut(), &visit.authority.host);
                headers::set_websocket(response.headers_mut());
                Ok(response.map(|_| ResponseBody::page(bytes::Bytes::new())))
            }
            _ => Err(Reason::BrokenAnswer),
        });
    }
    if response.status() == StatusCode::NOT_FOUND
        && let Some(mut file) = pages::default_file(&visit.method, visit.target.path())
    {
        headers::finish(file.headers_mut());
        return Ok(Ok(file));
    }
    record.set_status(response.status());
    headers::respond(response.headers_mut(), &visit.authority.host);
    *response.version_mut() = Version::HTTP_11;
    Ok(Ok(response.map(|body| ResponseBody::of_tool(body, door.upstream.read_patience()))))
}

/// A page that says why there is no answer of a tool: from the role that draws them or, while that is away, a plain one.
async fn page(door: &Door, visit: &Visit, decision: &Decision, reason: Reason, stale: bool) -> Response<ResponseBody> {
    let fallback = door.table.borrow().fallback().cloned().filter(|_| !stale);
    if let Some(backend) = fallback {
        let outgoing = visit.asks_for_page(door.port, decision, reason);
        let answer = tokio::time::timeout(PAGE_PATIENCE, door.upstream.send(&backend, &outgoing)).await;
        if let Ok(Ok(answer)) = answer {
            let mut response = answer.response.map(|body| ResponseBody::of_tool(body, PAGE_PATIENCE));
            headers::respond(response.headers_mut(), &visit.authority.host);
            headers::explain(response.headers_mut(), reason);
            return response;
        }
    }
    let mut response = pages::for_reason(reason, decision.tool().map(hearth_core::ToolName::as_str));
    headers::finish(response.headers_mut());
    headers::explain(response.headers_mut(), reason);
    response
}

/// Carries bytes between the client and the tool until one of them ends. A door that was relieved waits for it.
fn tunnel(door: &Door, client: OnUpgrade, tool: OnUpgrade, held: (Option<Held>, Passes)) {
    let metrics = door.metrics.clone();
    tokio::spawn(async move {
        let _held = held;
        let (client, tool) = match tokio::try_join!(client, tool) {
            Ok(both) => both,
            Err(error) => return tracing::debug!(%error, "a WebSocket was not opened"),
        };
        metrics.tunnels.inc();
        let ended = tunnel::carry(TokioIo::new(client), TokioIo::new(tool)).await;
        metrics.tunnels.dec();
        if let Err(error) = ended {
            tracing::debug!(%error, "a WebSocket was cut off");
        }
    });
}

// === impl Door ===

impl Door {
    /// A request of this visitor, if one more is allowed.
    fn admit_visitor(&self, Visitor(address): Visitor) -> Result<Option<Pass<IpAddr>>, Refusal> {
        if !self.front_door.limits_visitor(address) {
            return Ok(None);
        }
        let begun = self.visitors.begin(visitor(address));
        begun.map(Some).map_err(|over| self.limited("visitor", match over {
            Over::Rate => "Too many requests came from your address. The tool and the platform are well; please slow down.",
            Over::AtOnce => "Too many requests from your address are open at a time. The tool and the platform are well.",
        }))
    }

    /// A request to this tool, if one more is allowed.
    fn admit_tool(&self, tool: &ToolName) -> Result<Option<Pass<ToolName>>, Refusal> {
        if !self.front_door.limits_tool(tool) {
            return Ok(None);
        }
        let begun = self.tools.begin(tool.clone());
        begun.map(Some).map_err(|over| {
            self.limited(
                "tool",
                match over {
                    Over::Rate => "This tool is asked for more than it may be. The platform is well; please try again.",
                    Over::AtOnce => {
                        "This tool has too many requests open at a time. The platform is well; please try again."
                    }
                },
            )
        })
    }

    fn limited(&self, kind: &'static str, sentence: &'static str) -> Refusal {
        self.metrics.limited.get_or_create(&KindLabel { kind }).inc();
        Refusal(StatusCode::TOO_MANY_REQUESTS, sentence)
    }
}

// === impl Visit ===

impl Visit {
    /// 308 to the tool's own host. The port that the visitor named is kept, and the query.
    fn moved(&self, host: &str, path: &str) -> Response<ResponseBody> {
        let port = self.authority.port.map(|port| format!(":{port}")).unwrap_or_default();
        let query = self.target.query().map(|query| format!("?{query}")).unwrap_or_default();
        let location = format!("https://{host}{port}{path}{query}");
        let mut response = pages::redirect(StatusCode::PERMANENT_REDIRECT, &location);
        headers::finish(response.headers_mut());
        response
    }

    fn asks_for_page(&self, port: u16, decision: &Decision, reason: Reason) -> Outgoing {
        let mut fields = HeaderMap::new();
        headers::forward(&mut fields, &self.authority, port, self.target.as_str());
        fields.insert(header::USER_AGENT, HeaderValue::from_static("hearth-proxy"));
        fields.insert(REASON_FIELD, HeaderValue::from_static(reason.as_str()));
        if let Some(accept) = &self.accept {
            fields.insert(header::ACCEPT, accept.clone());
        }
        if let Some(tool) = decision.tool().and_then(|tool| HeaderValue::from_str(tool.as_str()).ok()) {
            fields.insert(TOOL_FIELD, tool);
        }
        let method = if self.method == Method::HEAD { Method::HEAD } else { Method::GET };
        Outgoing { method, path: PathAndQuery::from_static("/"), headers: fields, upload: Upload::empty() }
    }
}
