//! When the API server asks the webhook: after what a pod leaves out is filled in, and before the policies refuse.
//! On that order rests that the webhook's message is the one that people read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hearth_core::names::annotation;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::control_admission::{register, run, stage};

/// How long the API server may take to act on a new webhook.
const EFFECT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn the_webhook_sees_filled_pods_and_speaks_first() {
    let plane = stage().await;
    plane.namespace("tool-asked", &[(annotation::UID, "50131")]).await.unwrap();
    let (listener, certificate, acceptor) = tls().await;
    let url = format!("https://{}/review", listener.local_addr().unwrap());
    tokio::spawn(serve(listener, acceptor));
    register(plane, "tool-asked", json!({ "url": url, "caBundle": STANDARD.encode(certificate) })).await;

    let deadline = Instant::now() + EFFECT;
    loop {
        let pod = json!({ "containers": [{ "name": "a", "image": "elsewhere.example/a" }] });
        let refusal = run(plane, "tool-asked", pod).await.unwrap_err().to_string();
        if refusal.contains("admission webhook") {
            assert!(refusal.contains("the webhook saw runAsUser 50131"), "{refusal}");
            assert!(!refusal.contains("ValidatingAdmissionPolicy"), "{refusal}");
            break;
        }
        assert!(Instant::now() < deadline, "the webhook is not asked: {refusal}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn tls() -> (TcpListener, String, TlsAcceptor) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (listener, certificate.pem(), TlsAcceptor::from(Arc::new(config)))
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor) {
    while let Ok((stream, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = hyper::service::service_fn(refuse);
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Refuses whatever it is asked, saying what it saw.
async fn refuse(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    let review: Value = serde_json::from_slice(&body).unwrap_or_default();
    let user = &review["request"]["object"]["spec"]["securityContext"]["runAsUser"];
    let answer = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": {
            "uid": review["request"]["uid"],
            "allowed": false,
            "status": { "message": format!("the webhook saw runAsUser {user}") },
        },
    });
    Ok(Response::new(Full::new(Bytes::from(answer.to_string()))))
}
