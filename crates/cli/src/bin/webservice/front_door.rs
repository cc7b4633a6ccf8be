//! The front door, asked the way a visitor asks: a web service is up when its page is, not when its pods are.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hearth_core::Host;
use hearth_core::route::Reason;
use hearth_core::route::reason::{PROXY, PROXY_STATUS_FIELD};
use http::{HeaderMap, Request, Uri, header};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::net::lookup_host;
use tokio::time::Instant;

use crate::progress::Progress;

/// How long the front door may be away or know nothing of pods that are ready; it follows the cluster in milliseconds.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long until it is asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// How long it may take to connect.
const CONNECT: Duration = Duration::from_secs(5);

/// Where the front door is, and whose certificate it may have.
pub(crate) struct Door<'a> {
    /// Its address and port; otherwise the name service is asked.
    pub(crate) address: Option<SocketAddr>,
    /// The platform's own certificate authority, PEM.
    pub(crate) ca: &'a Path,
}

/// Waits until the tool itself answers at its own host, with whatever status. The error says what a visitor sees
/// instead.
pub(crate) async fn until_answered(
    door: &Door<'_>,
    host: &Host,
    deadline: Instant,
    progress: &mut Progress,
) -> Result<(), String> {
    let visitor = visitor(door)?;
    let uri: Uri = format!("https://{host}/").parse().map_err(|e| format!("'{host}' makes no URL: {e}"))?;
    let mut failing: Option<(Instant, String)> = None;
    loop {
        let request = Request::get(uri.clone())
            .header(header::USER_AGENT, concat!("webservice/", env!("CARGO_PKG_VERSION")))
            .body(String::new())
            .map_err(|e| e.to_string())?;
        let problem = match tokio::time::timeout_at(deadline, visitor.request(request)).await {
            Ok(Ok(response)) => match own_page(response.headers()) {
                None => return Ok(()),
                Some(problem) => problem,
            },
            Ok(Err(error)) => format!("the front door cannot be asked: {}", crate::cluster::innermost(&error)),
            // What was seen before tells more.
            Err(_) => return Err(failing.map_or("no answer came in time".to_owned(), |(_, problem)| problem)),
        };
        let now = Instant::now();
        let since = failing.map_or(now, |(since, _)| since);
        if now + PAUSE >= deadline.min(since + PATIENCE) {
            return Err(problem);
        }
        failing = Some((since, problem));
        progress.show(&format!("waiting for {uri}"));
        tokio::time::sleep(PAUSE).await;
    }
}

/// A client that trusts whom the platform trusts, and whom the machine does: a front door may have a certificate of
/// either.
fn visitor(door: &Door<'_>) -> Result<Client<impl Connect + Clone + Send + Sync + 'static, String>, String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let own: Vec<CertificateDer<'_>> = CertificateDer::pem_file_iter(door.ca)
        .and_then(Iterator::collect)
        .map_err(|e| format!("the platform's certificate authority {} cannot be read: {e}", door.ca.display()))?;
    roots.add_parsable_certificates(own);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let address = door.address;
    let resolver = tower::service_fn(move |name: Name| async move {
        match address {
            Some(address) => Ok(vec![address].into_iter()),
            None => lookup_host((name.as_str(), 0)).await.map(|found| found.collect::<Vec<_>>().into_iter()),
        }
    });
    let mut tcp = HttpConnector::new_with_resolver(resolver);
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(CONNECT));
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().wrap_connector(tcp);
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}

/// What the front door's own page is about; none where the tool answered.
fn own_page(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(PROXY_STATUS_FIELD)?.to_str().ok()?;
    let mut parts = value.split(';').map(str::trim);
    if parts.next() != Some(PROXY) {
        return None;
    }
    let word = parts.find_map(|part| part.strip_prefix("details=\"")?.strip_suffix('"'))?;
    Some(match word.parse() {
        Ok(Reason::Unreachable) => "visitors see that its program accepts no connection on its port".to_owned(),
        Ok(Reason::BrokenAnswer) => "visitors see that its program gives no HTTP answer".to_owned(),
        Ok(Reason::NoAnswer) => "visitors see that its program does not answer in time".to_owned(),
        _ => format!("visitors see a page of the platform instead ({word}); tell the platform's operators"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_the_front_door_is_not_an_answer_of_the_tool() {
        let page = |value: &'static str| {
            own_page(&HeaderMap::from_iter([(
                header::HeaderName::from_static(PROXY_STATUS_FIELD),
                header::HeaderValue::from_static(value),
            )]))
        };
        let unreachable = page("hearth; error=connection_refused; details=\"unreachable\"").unwrap();
        assert!(unreachable.contains("accepts no connection"), "{unreachable}");
        let unknown = page("hearth; error=destination_not_found; details=\"unknown-tool\"").unwrap();
        assert!(unknown.contains("(unknown-tool); tell"), "{unknown}");
        // Another proxy behind the tool, or what the tool itself says.
        assert_eq!(page("varnish; error=connection_refused; details=\"unreachable\""), None);
        assert_eq!(own_page(&HeaderMap::new()), None);
    }
}
