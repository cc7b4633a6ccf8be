//! HAProxy's side: its configuration file, and how it is told to read it.
//!
//! A file is looked at by HAProxy itself before it takes the place of the one in use. The master is told to reload by
//! its socket, gives the listening sockets to a new worker, and lets the old one end with its last connection. What is
//! known of the servers goes along in a file, so that the new worker does not take one that is down for one that works.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::time::Instant;

/// How long HAProxy may take for an answer, and for a new worker.
const PATIENCE: Duration = Duration::from_secs(10);

/// The pause between two looks at the workers.
const LOOK: Duration = Duration::from_millis(50);

/// An HAProxy by its folder.
#[derive(Clone, Debug)]
pub struct Haproxy {
    program: PathBuf,
    folder: PathBuf,
}

impl Haproxy {
    /// The one that reads `haproxy.cfg` of this folder and has its sockets there.
    pub fn new(program: PathBuf, folder: PathBuf) -> Self {
        Self { program, folder }
    }

    /// The configuration that it is started with.
    pub fn file(&self) -> PathBuf {
        self.folder.join("haproxy.cfg")
    }

    /// Writes a first configuration where there is none, so that HAProxy can be started before the nodes are known.
    pub fn begin(&self, text: &str) -> anyhow::Result<()> {
        if self.file().exists() {
            return Ok(());
        }
        put(&self.folder.join("servers"), "")?;
        put(&self.file(), text)
    }

    /// Writes a client's certificate and key as HAProxy reads them: in one file.
    pub fn client_certificate(&self, certificate: &Path, key: &Path) -> anyhow::Result<PathBuf> {
        let read =
            |file: &Path| std::fs::read_to_string(file).with_context(|| format!("failed to read {}", file.display()));
        let both = self.folder.join("client.pem");
        put(&both, &format!("{}{}", read(certificate)?, read(key)?))?;
        Ok(both)
    }

    /// Has HAProxy use this configuration. One that does not run yet reads it when it starts.
    pub async fn apply(&self, text: &str) -> anyhow::Result<()> {
        let next = self.folder.join("haproxy.cfg.next");
        put(&next, text)?;
        self.check(&next).await?;
        std::fs::rename(&next, self.file()).context("failed to replace haproxy.cfg")?;
        let Ok(before) = self.workers().await else {
            tracing::info!("HAProxy does not run; it reads its configuration when it starts");
            return Ok(());
        };
        // A worker that has just begun may have nothing to tell, and then nothing is lost.
        if let Ok(servers) = self.tell("haproxy.sock", "show servers state").await {
            put(&self.folder.join("servers"), &servers)?;
        }
        self.tell("master.sock", "reload").await.context("failed to have HAProxy reload")?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            // While the master begins anew it does not answer.
            match self.workers().await {
                Ok(now) if !now.is_empty() && now != before => return Ok(()),
                _ if Instant::now() > deadline => {
                    bail!("HAProxy did not take the configuration; its own log says why, and the old one is in use")
                }
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    }

    async fn check(&self, file: &Path) -> anyhow::Result<()> {
        let checked = Command::new(&self.program).args(["-c", "-q", "-f"]).arg(file).kill_on_drop(true).output();
        let checked = tokio::time::timeout(PATIENCE, checked).await.context("HAProxy does not look at the file")?;
        let checked = checked.with_context(|| format!("failed to run {}", self.program.display()))?;
        let said = String::from_utf8_lossy(&checked.stderr);
        ensure!(checked.status.success(), "HAProxy finds fault with {}: {}", file.display(), said.trim());
        Ok(())
    }

    /// The processes that accept connections now, as the master has them.
    async fn workers(&self) -> anyhow::Result<Vec<String>> {
        let text = self.tell("master.sock", "show proc").await?;
        let current = text.lines().skip_while(|line| !line.starts_with("# workers")).skip(1);
        let current = current.take_while(|line| !line.starts_with('#')).filter_map(|line| line.split(' ').next());
        Ok(current.map(|first| first.trim().to_owned()).filter(|number| !number.is_empty()).collect())
    }

    /// What HAProxy answers on one of its sockets.
    async fn tell(&self, socket: &str, words: &str) -> anyhow::Result<String> {
        let path = self.folder.join(socket);
        let exchange = async {
            let mut stream = UnixStream::connect(&path).await?;
            stream.write_all(format!("{words}\n").as_bytes()).await?;
            // The master answers until nobody can ask any more.
            stream.shutdown().await?;
            let mut text = String::new();
            stream.read_to_string(&mut text).await?;
            std::io::Result::Ok(text)
        };
        let answered = tokio::time::timeout(PATIENCE, exchange).await;
        answered
            .with_context(|| format!("no answer at {}", path.display()))?
            .with_context(|| format!("failed to speak to HAProxy at {}", path.display()))
    }
}

/// Writes a file beside its place and renames it. It may hold a key.
fn put(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let beside = path.with_extension("beside");
    let written = || -> std::io::Result<()> {
        let _ = std::fs::remove_file(&beside);
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    };
    written().with_context(|| format!("failed to write {}", path.display()))
}
