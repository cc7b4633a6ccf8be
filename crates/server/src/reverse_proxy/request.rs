//! One request, from its head to its answer.
//!
//! [`handle`] is the outer half: it makes one answer out of whatever happens and has it recorded. [`answer`] is the
//! inner half: the checks in their order, then the table, then the tool.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hearth_core::framing::Violation;
use hearth_core::limit::Over;
use hearth_core::route::reason::{REASON_FIELD, TOOL_FIELD};
use hearth_core::route::{Backend, Decision, Reason};
use hearth_core::{Host, ToolName};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::access::{Passes, Record};
use super::allowances::{Pass, visitor};
use super::authority::{Authority, authority};
use super::bodies::{ResponseBody, ToolBody, Upload};
use super::by_tool::OfTool;
use super::compressed::Encoder;
use super::compression::{self, Coding};
use super::guard;
use super::headers;
use super::listener::{Held, Visitor};
use super::metrics::KindLabel;
use super::pages::{self, Page};
use super::shared_origin;
use super::tunnel::carry;
use super::upstream::{Failure, Outgoing};
use super::{Door, Passage, Stand};

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
    /// Whether the host is the one that tools share.
    shared: bool,
}

/// On which way a request goes.
#[derive(Clone, Copy)]
enum Way<'a> {
    /// To a pod.
    Pod(&'a Backend),
    /// Through the cluster's ingress, and to which tool, where it is known.
    Through(&'a Passage, Option<&'a ToolName>),
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
    let mut record = Record::new(door.clone(), &method, version, host, request.uri().path());
    let answered = match refused {
        None => answer(&door, request, &mut record).await,
        Some(violation) => Err(Refusal(guard::status(violation), violation.sentence())),
    };
    let mut response = answered.unwrap_or_else(|refusal| {
        let mut response = pages::plain(refusal.0, refusal.1);
        headers::finish(response.headers_mut());
        if version < Version::HTTP_2 {
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
    if let Some(page) = turned_away(door, &request, record) {
        return Ok(page);
    }
    let authority = readable(&request)?;
    if hyper::body::Body::size_hint(request.body()).lower() > door.limits.body {
        return Err(TOO_LONG);
    }
    let (decision, shared) = decide(door, &request, &authority.host)?;
    let known = !matches!(decision, Decision::UnknownTool(_));
    if let Some(tool) = decision.tool().filter(|_| known) {
        record.set_tool(tool);
    }
    let visit = Visit {
        target: request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")),
        accept: request.headers().get(header::ACCEPT).cloned(),
        method: request.method().clone(),
        authority,
        shared,
    };
    let stale = door.freshness.is_stale();
    let reason = match &decision {
        Decision::Ambiguous => {
            let text = "The path of the request can be read in two ways: it has encoded slashes or dots, or doubled \
                        slashes, at a place where they matter.";
            return Err(Refusal(StatusCode::BAD_REQUEST, text));
        }
        Decision::Redirect { host, path, .. } => return Ok(visit.moved(host.as_str(), path)),
        _ if let Some(way) = door.way(&decision, stale) => match forward(door, request, &visit, way, record).await? {
            Ok(response) => return Ok(response),
            Err(reason) => reason,
        },
        Decision::Apex => Reason::Apex,
        Decision::Elsewhere => Reason::UnknownHost,
        _ if stale => Reason::Stale,
        Decision::NoWebService(_) => Reason::NoWebService,
        Decision::Unavailable(_) | Decision::Endpoints(_) => Reason::Unavailable,
        Decision::UnknownTool(_) => Reason::UnknownTool,
    };
    record.set_reason(reason);
    Ok(page(door, &visit, &decision, reason, stale).await)
}

/// The page for whoever is not served, or not now.
fn turned_away(door: &Door, request: &Request<Incoming>, record: &mut Record) -> Option<Response<ResponseBody>> {
    let visitor = request.extensions().get::<Visitor>();
    if let Some(page) = door.switches.refuse(visitor, request.headers()) {
        return Some(page);
    }
    match door.admit_visitor(visitor?.address) {
        Ok(pass) => record.hold_visitor(pass),
        Err(sentence) => return Some(too_many(sentence, request.headers())),
    }
    None
}

/// The host of a request that can be read in one way and may come over this connection.
fn readable(request: &Request<Incoming>) -> Result<Authority, Refusal> {
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        return Err(Refusal(StatusCode::METHOD_NOT_ALLOWED, "The front door does not do this method."));
    }
    let authority = match authority(request.uri(), request.headers(), request.version()) {
        Ok(authority) => authority,
        Err(error) => return Err(Refusal(StatusCode::BAD_REQUEST, error.sentence())),
    };
    let shown = request.extensions().get::<Visitor>().and_then(|visitor| visitor.shown.as_ref());
    if shown.is_some_and(|shown| !shown.is_for(authority.host.as_str())) {
        let text =
            "This connection's certificate is not for the host of the request: ask again over another connection.";
        return Err(Refusal(StatusCode::MISDIRECTED_REQUEST, text));
    }
    // What has a query alone counts as the path `/` for some and as none for others.
    if !request.uri().path_and_query().is_some_and(|target| target.as_str().starts_with('/')) {
        return Err(Refusal(StatusCode::BAD_REQUEST, "The target of the request is not a path."));
    }
    if request.headers().get(header::USER_AGENT).is_none_or(|agent| agent.as_bytes().trim_ascii().is_empty()) {
        return Err(Refusal(StatusCode::FORBIDDEN, "Requests must have a user agent"));
    }
    Ok(authority)
}

/// What the table says, and whether the host is the one that tools share.
fn decide(door: &Door, request: &Request<Incoming>, host: &Host) -> Result<(Decision, bool), Refusal> {
    let table = door.table.borrow();
    let shared = *host == table.domains().legacy;
    if shared && shared_origin::asks_for_service_worker(request.headers()) {
        return Err(Refusal(StatusCode::FORBIDDEN, shared_origin::NO_SERVICE_WORKERS));
    }
    Ok((table.route(host, request.uri().path()), shared))
}

const TOO_LONG: Refusal = Refusal(StatusCode::PAYLOAD_TOO_LARGE, "The body of the request is too long.");

/// Has the tool answer. The inner error says what kept it from answering.
async fn forward(
    door: &Door,
    mut request: Request<Incoming>,
    visit: &Visit,
    way: Way<'_>,
    record: &mut Record,
) -> Result<Result<Response<ResponseBody>, Reason>, Refusal> {
    if let Some(tool) = way.tool() {
        match door.admit_tool(tool) {
            Ok(pass) => record.hold_tool(pass),
            Err(sentence) => return Ok(Ok(too_many(sentence, request.headers()))),
        }
    }
    // Behind the front door nothing is compressed: it does it itself.
    let coding = compression::wanted(request.headers()).filter(|_| !door.is_inside());
    let websocket = headers::asks_for_websocket(request.method(), request.version(), request.headers());
    let client = websocket.then(|| (hyper::upgrade::on(&mut request), request.extensions_mut().remove::<Held>()));
    let (mut parts, body) = request.into_parts();
    match door.stand {
        Stand::Outside(_) => headers::forward(&mut parts.headers, &visit.authority, door.port, visit.target.as_str()),
        Stand::Inside => headers::pass_on(&mut parts.headers, &visit.authority),
    }
    if websocket {
        headers::set_websocket(&mut parts.headers);
    }
    let outgoing = Outgoing {
        method: parts.method,
        path: visit.target.clone(),
        headers: parts.headers,
        upload: Upload::new(body, door.limits.body, door.limits.client_pause, record.counters()),
    };
    let sent = match way {
        Way::Pod(backend) => door.upstream.send(backend, &outgoing).await,
        Way::Through(passage, _) => passage.send(&outgoing).await,
    };
    let answer = match sent {
        Ok(answer) => answer,
        Err(failure) => return unanswered(failure).map(Err),
    };
    door.metrics.retries.inc_by(answer.retries);
    let mut response = answer.response;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(match client {
            Some((client, held)) if headers::switches_to_websocket(response.status(), response.headers()) => {
                let held = (held, record.take_passes());
                tunnel(door, client, hyper::upgrade::on(&mut response), record.counters(), held);
                visit.respond(response.headers_mut(), way.tool());
                headers::set_websocket(response.headers_mut());
                Ok(response.map(|_| ResponseBody::page(bytes::Bytes::new())))
            }
            _ => Err(Reason::BrokenAnswer),
        });
    }
    // Through the ingress comes the file that it puts in the place of a tool's, or a page that says why there is none.
    if response.status() == StatusCode::NOT_FOUND
        && matches!(way, Way::Pod(_))
        && let Some(mut file) = pages::default_file(&visit.method, visit.target.path())
    {
        headers::finish(file.headers_mut());
        return Ok(Ok(file));
    }
    record.set_status(response.status());
    visit.respond(response.headers_mut(), way.tool());
    *response.version_mut() = Version::HTTP_11;
    Ok(Ok(deliver(door, response, coding)))
}

/// Why there is no answer: what a page says, or what is wrong with the request.
fn unanswered(failure: Failure) -> Result<Reason, Refusal> {
    match failure {
        Failure::Page(reason) => Ok(reason),
        Failure::TooLong => Err(TOO_LONG),
        Failure::TooSlow => Err(Refusal(StatusCode::REQUEST_TIMEOUT, "The body of the request did not come in time.")),
        Failure::Broken => {
            Err(Refusal(StatusCode::BAD_REQUEST, "The body of the request could not be read to its end."))
        }
    }
}

/// What a visitor is told of whom too much was asked. The connection stays open for who slows down.
fn too_many(sentence: &str, request: &HeaderMap) -> Response<ResponseBody> {
    let page = Page { title: "Too many requests", sentences: &[sentence], link: None, details: "limited" };
    let mut response = page.response(StatusCode::TOO_MANY_REQUESTS, request);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// A tool's answer as it is sent: compressed where the client likes that and it is worth it.
fn deliver(door: &Door, response: Response<ToolBody>, coding: Option<Coding>) -> Response<ResponseBody> {
    let pause = door.upstream.read_patience();
    let coding = coding.filter(|_| compression::is_worthwhile(response.status(), response.headers()));
    // One of too many passes as it is.
    let memory = coding.map_or(0, Encoder::memory);
    let permit = coding.and_then(|_| door.compressing.clone().try_acquire_many_owned(memory).ok());
    let encoder = coding.filter(|_| permit.is_some()).and_then(|coding| Encoder::new(coding).ok());
    let (Some(coding), Some(by)) = (coding, encoder.zip(permit)) else {
        return response.map(|body| ResponseBody::of_tool(body, pause));
    };
    let (mut parts, body) = response.into_parts();
    compression::declare(&mut parts.headers, coding);
    Response::from_parts(parts, ResponseBody::compressed(body, by, pause))
}

/// A page that says why there is no answer of a tool: from the role that draws them or, while that is away, a plain one.
async fn page(door: &Door, visit: &Visit, decision: &Decision, reason: Reason, stale: bool) -> Response<ResponseBody> {
    let fallback = door.table.borrow().fallback().cloned().filter(|_| !stale && reason != Reason::NoPassage);
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
fn tunnel(door: &Door, client: OnUpgrade, tool: OnUpgrade, counters: Arc<OfTool>, held: (Option<Held>, Passes)) {
    let (metrics, silence) = (door.metrics.clone(), door.upstream.read_patience());
    tokio::spawn(async move {
        let _held = held;
        let (client, tool) = match tokio::try_join!(client, tool) {
            Ok(both) => both,
            Err(error) => return tracing::debug!(%error, "a WebSocket was not opened"),
        };
        metrics.tunnels.inc();
        let ended = carry(TokioIo::new(client), TokioIo::new(tool), silence, &counters).await;
        metrics.tunnels.dec();
        if let Err(error) = ended {
            tracing::debug!(%error, "a WebSocket was cut off");
        }
    });
}

// === impl Way ===

impl<'a> Way<'a> {
    fn tool(self) -> Option<&'a ToolName> {
        match self {
            Self::Pod(backend) => Some(&backend.tool),
            Self::Through(_, tool) => tool,
        }
    }
}

// === impl Door ===

impl Door {
    /// The way that a request goes: through the cluster's ingress where that is the only one or the table is stale, else
    /// to a pod that is known. None where neither is. To the grid nothing in the cluster leads.
    fn way<'a>(&'a self, decision: &'a Decision, stale: bool) -> Option<Way<'a>> {
        if let Stand::Outside(Some(passage)) = &self.stand
            && (stale || passage.is_the_only_way())
            && !decision.is_on_grid()
        {
            let known = !matches!(decision, Decision::UnknownTool(_));
            return Some(Way::Through(passage, decision.tool().filter(|_| known)));
        }
        match decision {
            _ if stale || (self.is_inside() && decision.is_on_grid()) => None,
            Decision::Endpoints(backend) => Some(Way::Pod(backend)),
            _ => None,
        }
    }

    /// Whether only the front door comes here, which looked at everything that a visitor may.
    pub(super) fn is_inside(&self) -> bool {
        matches!(self.stand, Stand::Inside)
    }

    /// A request of this visitor, if one more is allowed.
    fn admit_visitor(&self, address: IpAddr) -> Result<Option<Pass<IpAddr>>, &'static str> {
        if self.is_inside() || !self.front_door.limits_visitor(address) {
            return Ok(None);
        }
        let begun = self.visitors.begin(visitor(address));
        begun.map(Some).map_err(|over| self.limited("visitor", match over {
            Over::Rate => "Too many requests came from your address. The tool and the platform are well; please slow down.",
            Over::AtOnce => "Too many requests from your address are open at a time. The tool and the platform are well.",
        }))
    }

    /// A request to this tool, if one more is allowed.
    fn admit_tool(&self, tool: &ToolName) -> Result<Option<Pass<ToolName>>, &'static str> {
        if self.is_inside() || !self.front_door.limits_tool(tool) {
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

    fn limited(&self, kind: &'static str, sentence: &'static str) -> &'static str {
        self.metrics.limited.get_or_create(&KindLabel { kind }).inc();
        sentence
    }
}

// === impl Visit ===

impl Visit {
    /// Makes a tool's fields those of a response to the client.
    fn respond(&self, fields: &mut HeaderMap, tool: Option<&ToolName>) {
        headers::respond(fields, &self.authority.host);
        // Of a tool that is not known here the ingress has done it.
        if let Some(tool) = tool.filter(|_| self.shared) {
            shared_origin::confine(fields, tool, self.target.path());
        }
    }

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
