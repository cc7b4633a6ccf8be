//! A front door that answers what a test tells it to, over TLS, one request a connection.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// The answer of a tool.
pub(crate) const PAGE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";

/// The fake; it answers until the test's process ends.
pub(crate) struct Door {
    pub(crate) address: SocketAddr,
    /// The certificate that it shows, PEM; it has signed itself.
    pub(crate) certificate: String,
    answers: Arc<Mutex<Vec<String>>>,
    heads: Arc<Mutex<Vec<String>>>,
}

/// A page that the front door makes itself.
pub(crate) fn own_page(error: &str, reason: &str) -> String {
    format!(
        "HTTP/1.1 503 Service Unavailable\r\nproxy-status: hearth; error={error}; details=\"{reason}\"\r\ncontent-length: 0\r\n\r\n"
    )
}

impl Door {
    /// A door for one host. It answers as the tool would, unless it is told otherwise.
    pub(crate) fn new(host: &str) -> Self {
        let pair = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(pair.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![pair.cert.der().clone()], key).unwrap();
        let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0").unwrap());
        let address = listener.local_addr().unwrap();
        let (answers, heads) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (for_answers, for_heads) = (answers.clone(), heads.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that does not trust the door goes away in the middle.
                serve(stream.unwrap(), config.clone(), &for_answers, &for_heads).ok();
            }
        });
        Self { address, certificate: pair.cert.pem(), answers, heads }
    }

    /// Gives this answer to the next requests, before the tool's page.
    pub(crate) fn answer(&self, times: usize, answer: &str) {
        self.answers.lock().unwrap().extend(std::iter::repeat_n(answer.to_owned(), times));
    }

    /// The heads of all requests, in lower case.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

fn serve(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    answers: &Mutex<Vec<String>>,
    heads: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let connection = ServerConnection::new(config).unwrap();
    let mut reader = BufReader::new(StreamOwned::new(connection, stream));
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    heads.lock().unwrap().push(head.to_ascii_lowercase());
    let answer = answers.lock().unwrap().pop().unwrap_or_else(|| PAGE.to_owned());
    let mut stream = reader.into_inner();
    stream.write_all(answer.as_bytes())?;
    stream.conn.send_close_notify();
    stream.flush()
}
