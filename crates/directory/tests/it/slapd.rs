//! Starts the directory's image: its root file system with its entrypoint, in namespaces of its own that end
//! with the test. Needs root, as the platform does.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hearth_core::Platform;
use hearth_directory::{Connection, Directory};
use ldap3::{Ldap, LdapConnAsync, LdapConnSettings, StdStream};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tempfile::TempDir;

use crate::image;

pub(crate) const BASE: &str = "dc=hearth,dc=internal";

const NAME: &str = "ldap.hearth.internal";

const PLATFORM: &str = r#"
    domains = { public = ["hearth.localhost"], legacy = "tools.hearth.localhost" }
    api = { server = "https://10.88.0.2:6443" }
    directory = { url = "ldaps://ldap.hearth.internal", base = "dc=hearth,dc=internal", bind_dn = "cn=reader,dc=hearth,dc=internal" }
    registry = { host = "registry.hearth.internal" }
    tools = { reserved = ["kept"] }
"#;

/// What runs in the new namespaces: the image below a layer in memory with this test's secrets, its data in a folder
/// of the test, and the processes and devices that every container is given. The shell stays as the first process, so that all end with it.
const START: &str = r#"
    rootfs=$1 work=$2 user=65534:65534
    mount -t tmpfs tmpfs "$work/mem"
    mkdir -p "$work/mem/upper/run/slapd" "$work/mem/upper/var/lib/ldap" "$work/mem/work" "$work/mem/root"
    cp -a "$work/files/." "$work/mem/upper/"
    chown -R $user "$work/mem/upper/etc/hearth/secrets" "$work/mem/upper/run/slapd" "$work/data"
    mount -t overlay overlay \
        -o "lowerdir=$rootfs,upperdir=$work/mem/upper,workdir=$work/mem/work" "$work/mem/root"
    mount --bind "$work/data" "$work/mem/root/var/lib/ldap"
    mount -t proc proc "$work/mem/root/proc"
    mount -t tmpfs tmpfs "$work/mem/root/dev"
    for device in null random urandom zero; do
        : >"$work/mem/root/dev/$device"
        mount --bind "/dev/$device" "$work/mem/root/dev/$device"
    done
    chroot --userspec=$user "$work/mem/root" /usr/local/sbin/directory-entrypoint
    exit
"#;

/// A running directory; it ends when this is dropped.
pub(crate) struct Slapd {
    work: TempDir,
    scheme: &'static str,
    environment: Vec<(String, String)>,
    address: SocketAddr,
    process: Option<Child>,
}

impl Slapd {
    /// An empty directory.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// An empty directory, with variables for its entrypoint.
    pub(crate) fn start_with(environment: &[(&str, &str)]) -> Self {
        Self::start_under("ldaps", environment)
    }

    /// An empty directory that listens without TLS, so that clients must ask for it.
    pub(crate) fn start_plain() -> Self {
        Self::start_under("ldap", &[])
    }

    fn start_under(scheme: &'static str, environment: &[(&str, &str)]) -> Self {
        let work = TempDir::with_prefix("hearth-directory-").unwrap();
        std::fs::set_permissions(work.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut slapd = Self { work, scheme, environment, address, process: None };
        for folder in ["mem", "data", "files/etc/hearth/ca"] {
            std::fs::create_dir_all(slapd.path(folder)).unwrap();
        }
        slapd.write_certificates();
        slapd.write_secret("directory-admin/password", "the writer's\n");
        slapd.write_secret("directory/password", "the reader's\n");
        slapd.run();
        slapd
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Starts it again with the same data, at the same address.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.run();
    }

    pub(crate) fn write_secret(&self, name: &str, text: &str) {
        let file = self.path("files/etc/hearth/secrets").join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }

    pub(crate) fn secret(&self, name: &str) -> PathBuf {
        self.path("files/etc/hearth/secrets").join(name)
    }

    /// How the platform's roles connect.
    pub(crate) fn as_reader(&self) -> Connection {
        let platform = Platform::from_toml(PLATFORM).unwrap();
        let (ca, password) = (self.path("files/etc/hearth/ca/ca.crt"), self.secret("directory/password"));
        let url = format!("{}://{NAME}", self.scheme);
        Connection { url, connect_address: Some(self.address), ..Connection::of_role(&platform, &ca, &password) }
    }

    /// How an operator's command connects.
    pub(crate) fn as_writer(&self) -> Connection {
        Connection {
            bind_dn: format!("cn=admin,{BASE}"),
            password_file: self.secret("directory-admin/password"),
            ..self.as_reader()
        }
    }

    /// The writer's connection, opened, with the people `m1` and `m2` made.
    pub(crate) async fn with_people(&self) -> Directory {
        let mut directory = self.as_writer().connect().await.unwrap();
        for name in ["m1", "m2"] {
            let name = name.parse().unwrap();
            let person = hearth_directory::NewPerson { name, full_name: None, keys: Vec::new() };
            directory.create_person(&person).await.unwrap();
        }
        directory
    }

    /// A connection without the crate under test, to write what it would not.
    pub(crate) async fn raw(&self, who: &str, password: &str) -> Ldap {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.path("files/etc/hearth/ca/ca.crt")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let stream = tokio::net::TcpStream::connect(self.address).await.unwrap().into_std().unwrap();
        let settings = LdapConnSettings::new()
            .set_config(Arc::new(tls.with_root_certificates(roots).with_no_client_auth()))
            .set_std_stream(StdStream::Tcp(stream));
        let (connection, mut ldap) = LdapConnAsync::with_settings(settings, &format!("ldaps://{NAME}")).await.unwrap();
        tokio::spawn(connection.drive());
        ldap.simple_bind(&format!("cn={who},{BASE}"), password).await.unwrap().success().unwrap();
        ldap
    }

    fn run(&mut self) {
        let mut logs = Vec::new();
        for _ in 0..5 {
            if self.address.port() == 0 {
                // The port is free now; another process may take it before slapd does, hence the attempts.
                let free = TcpListener::bind(self.address).unwrap().local_addr().unwrap();
                match self.try_run(free) {
                    Ok(()) => return self.address = free,
                    Err(log) => logs.push(log),
                }
            } else {
                match self.try_run(self.address) {
                    Ok(()) => return,
                    Err(log) => logs.push(log),
                }
            }
        }
        panic!("the directory does not start:\n{}", logs.join("\n"));
    }

    fn try_run(&mut self, address: SocketAddr) -> Result<(), String> {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child=KILL", "sh", "-euc", START, "sh"]);
        command.arg(image::rootfs()).arg(self.work.path());
        command.env("HEARTH_DIRECTORY_URLS", format!("{}://{address} ldapi://%2Frun%2Fslapd%2Fldapi", self.scheme));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let mut process = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut log = String::new();
        for line in lines.by_ref() {
            log.push_str(&line);
            log.push('\n');
            if line.ends_with("slapd starting") {
                // What it says later is read so that it never waits for us.
                std::thread::spawn(move || lines.for_each(drop));
                self.process = Some(process);
                return listening(address);
            }
        }
        process.wait().unwrap();
        Err(log)
    }

    fn write_certificates(&self) {
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![NAME.to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
        std::fs::write(self.path("files/etc/hearth/ca/ca.crt"), ca.pem()).unwrap();
        self.write_secret("tls/tls.crt", &certificate.pem());
        self.write_secret("tls/tls.key", &key.serialize_pem());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }
}

impl Drop for Slapd {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits until the address takes connections: slapd listens a moment after it says that it starts.
fn listening(address: SocketAddr) -> Result<(), String> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(error) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) {
        if Instant::now() > deadline {
            return Err(format!("it started but does not listen at {address}: {error}"));
        }
        std::thread::yield_now();
    }
    Ok(())
}
