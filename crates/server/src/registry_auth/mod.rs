//! Issues the registry's tokens: who may pull and push what.
//!
//! It speaks the token protocol of the Docker registry: `GET /token?service=…&scope=repository:NAME:pull,push`, with
//! a user and password or without, is answered with a signed token that the registry accepts for five minutes. What
//! is granted is decided by `hearth_core::registry`. Tools and the digests of their passwords are watched on their
//! namespaces; nothing is looked up while a request is answered.
//!
//! It reads namespaces and nothing else, stores nothing, and never logs a password or a token.

mod accounts;
mod token;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hearth_core::names::path;
use hearth_core::registry::{Access, Identity, Scope, User, digest, grant};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use crate::http_service::{self, TlsFiles};
use crate::{clock, kubernetes};

pub use accounts::Accounts;
pub use token::Signer;

/// What the role is started with.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = path::PLATFORM)]
    platform: PathBuf,
    /// Where clients of the registry ask for tokens.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8443")]
    listen: SocketAddr,
    /// Where health and metrics are asked for.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:9100")]
    health: SocketAddr,
    #[command(flatten)]
    tls: TlsFiles,
    /// The certificate of the key that signs tokens, PEM; the registry trusts it.
    #[arg(long, value_name = "FILE", default_value = "/etc/hearth/secrets/token/tls.crt")]
    token_cert: PathBuf,
    /// The key that signs tokens, PEM.
    #[arg(long, value_name = "FILE", default_value = "/etc/hearth/secrets/token/tls.key")]
    token_key: PathBuf,
    /// The SHA-256, in hexadecimal, of the password of the user `platform`.
    #[arg(long, value_name = "FILE", default_value = "/etc/hearth/secrets/platform/sha256")]
    platform_credential: PathBuf,
    /// How to reach the Kubernetes API outside of a pod.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

/// What every request is answered from.
pub struct Shared {
    /// The registry for which tokens are made, the `service` of requests.
    pub service: String,
    /// Signs tokens.
    pub signer: Signer,
    /// The SHA-256 of the platform's password.
    pub platform_credential: [u8; 32],
    /// The tools.
    pub accounts: Accounts,
    /// What is counted.
    pub metrics: Metrics,
}

/// What is counted.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    answers: Family<Labels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    outcome: Outcome,
}

/// How a request for a token was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Outcome {
    /// With a token for all that was asked for.
    Granted,
    /// With a token for less than was asked for.
    Reduced,
    /// Refused: the password or the user is wrong.
    Unauthorized,
    /// Refused: the request cannot be understood.
    Malformed,
    /// Refused: the tools are not known yet, or a token could not be signed.
    Unavailable,
}

/// Why no token is given: what is counted, the status and what the client is told.
struct Refusal(Outcome, StatusCode, String);

/// Runs the role until it is told to stop.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let Args { platform, listen, health, tls, token_cert, token_key, platform_credential, kubeconfig } = args;
    let read =
        |file: &PathBuf| std::fs::read_to_string(file).with_context(|| format!("failed to read {}", file.display()));
    let platform = crate::configuration::read(&platform)?;
    let credential = digest(&read(&platform_credential)?)
        .with_context(|| format!("{} is not a SHA-256 in hexadecimal", platform_credential.display()))?;
    let client = kubernetes::client(kubeconfig.as_deref()).await?;
    let context = Arc::new(Shared {
        service: platform.registry.host,
        signer: Signer::new(&read(&token_cert)?, &read(&token_key)?)?,
        platform_credential: credential,
        accounts: Accounts::default(),
        metrics: Metrics::default(),
    });
    let watching = tokio::spawn(accounts::follow(client, context.clone()));
    let listener = TcpListener::bind(listen).await.with_context(|| format!("failed to listen on {listen}"))?;
    let health = TcpListener::bind(health).await.with_context(|| format!("failed to listen on {health}"))?;
    let health = http_service::serve(health, None, health_router(context.clone()), http_service::stop_signal());
    let service = http_service::serve(listener, Some(tls.into()), router(context), http_service::stop_signal());
    let result = tokio::try_join!(service, health);
    watching.abort();
    result.map(|_| ())
}

/// The service: `GET /token`.
pub fn router(context: Arc<Shared>) -> Router {
    Router::new().route("/token", get(token)).with_state(context)
}

/// `GET /healthz`, which is 503 until the tools are known, and `GET /metrics`.
pub fn health_router(context: Arc<Shared>) -> Router {
    let mut registry = Registry::with_prefix("hearth_registry_auth");
    registry.register("requests", "Requests for tokens, by how they were answered", context.metrics.answers.clone());
    let registry = Arc::new(registry);
    let metrics = move || async move {
        let mut text = String::new();
        match prometheus_client::encoding::text::encode(&mut text, &registry) {
            Ok(()) => {
                let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                ([(header::CONTENT_TYPE, kind)], text).into_response()
            }
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }
    };
    let healthz = |State(context): State<Arc<Shared>>| async move {
        match context.accounts.known() {
            true => (StatusCode::OK, "ok\n"),
            false => (StatusCode::SERVICE_UNAVAILABLE, "the tools are not known yet\n"),
        }
    };
    Router::new().route("/healthz", get(healthz)).route("/metrics", get(metrics)).with_state(context)
}

async fn token(
    State(context): State<Arc<Shared>>,
    Query(query): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Response {
    let answer = answer(&context, &query, &headers);
    let outcome = match &answer {
        Ok((outcome, _)) => *outcome,
        Err(Refusal(outcome, ..)) => *outcome,
    };
    context.metrics.answers.get_or_create(&Labels { outcome }).inc();
    match answer {
        Ok((_, body)) => ([(header::CACHE_CONTROL, "no-store")], axum::Json(body)).into_response(),
        Err(Refusal(_, status, message)) => refusal(status, &message),
    }
}

/// One request: who asks, for what, what of it is granted, and the token for that.
fn answer(
    context: &Shared,
    query: &[(String, String)],
    headers: &HeaderMap,
) -> Result<(Outcome, token::Issued), Refusal> {
    let malformed = |message: String| Refusal(Outcome::Malformed, StatusCode::BAD_REQUEST, message);
    let values = |key: &'static str| query.iter().filter(move |(k, _)| k == key).map(|(_, value)| value.as_str());
    if let Some(other) = values("service").find(|service| *service != context.service) {
        return Err(malformed(format!("tokens are made for the service {}, not for {other}", context.service)));
    }
    // Clients send several scopes as several parameters, or as one with blanks between them.
    let scopes: Result<Vec<Scope>, _> = values("scope").flat_map(str::split_whitespace).map(str::parse).collect();
    let scopes = scopes.map_err(|e| malformed(e.to_string()))?;
    let identity = identify(context, headers)?;
    let access: Vec<Access> = scopes.iter().filter_map(|scope| grant(&identity, scope)).collect();
    let complete =
        scopes.iter().zip(&access).all(|(scope, access)| scope.is_all(access)) && scopes.len() == access.len();
    tracing::debug!(user = %identity, access = ?access, complete, "token issued");
    let issued = context.signer.issue(&identity, &context.service, access, clock::now()).map_err(|error| {
        tracing::error!(error = format!("{error:#}"), "a token could not be signed");
        Refusal(Outcome::Unavailable, StatusCode::INTERNAL_SERVER_ERROR, "the token could not be signed".to_owned())
    })?;
    Ok((if complete { Outcome::Granted } else { Outcome::Reduced }, issued))
}

/// Who asks. A password that is given must be right, also where anyone would be served.
fn identify(context: &Shared, headers: &HeaderMap) -> Result<Identity, Refusal> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(Identity::Anonymous) };
    let refused = |message: String| Refusal(Outcome::Unauthorized, StatusCode::UNAUTHORIZED, message);
    let (user, password) = value
        .to_str()
        .ok()
        .and_then(basic)
        .ok_or_else(|| refused("the authorization must be Basic, with a user and a password".to_owned()))?;
    let given = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, password.as_bytes());
    let right =
        |expected: &[u8; 32]| aws_lc_rs::constant_time::verify_slices_are_equal(given.as_ref(), expected).is_ok();
    let wrong = || {
        tracing::info!(user, "a wrong password was given");
        refused(format!("the password of {user} is wrong; it stands in the tool's ~/.docker/config.json"))
    };
    match user.parse::<User>().map_err(|e| refused(e.to_string()))? {
        User::Platform if right(&context.platform_credential) => Ok(Identity::Platform),
        User::Platform => Err(wrong()),
        User::Tool(name) => {
            if !context.accounts.known() {
                let message = "the tools are not known yet; try again in a moment".to_owned();
                return Err(Refusal(Outcome::Unavailable, StatusCode::SERVICE_UNAVAILABLE, message));
            }
            match context.accounts.of(&name) {
                Some(account) if right(&account.credential) => Ok(Identity::Tool { name, disabled: account.disabled }),
                // Whether a tool exists is public, but a guess must not be cheaper where it does not.
                _ => Err(wrong()),
            }
        }
    }
}

/// User and password of a `Basic` authorization.
fn basic(value: &str) -> Option<(String, String)> {
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(BASE64_STANDARD.decode(encoded.trim()).ok()?).ok()?;
    decoded.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned()))
}

/// A refusal in the registry's format, so that clients show its message.
fn refusal(status: StatusCode, message: &str) -> Response {
    let code = match status {
        StatusCode::UNAUTHORIZED => "UNAUTHORIZED",
        StatusCode::BAD_REQUEST => "UNSUPPORTED",
        _ => "UNAVAILABLE",
    };
    let body = serde_json::json!({"errors": [{"code": code, "message": message}]});
    let challenge =
        (status == StatusCode::UNAUTHORIZED).then_some([(header::WWW_AUTHENTICATE, "Basic realm=\"hearth\"")]);
    match challenge {
        Some(challenge) => (status, challenge, axum::Json(body)).into_response(),
        None => (status, axum::Json(body)).into_response(),
    }
}
