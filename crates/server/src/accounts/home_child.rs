//! `hearthd home-work`: reads and writes files in homes, in each as its owner: a tool, or an administrator.
//!
//! `accounts` starts it and gives it one order after another, a line each on standard input; it answers each with a line
//! on standard output. For an order it takes on the owner's user and group ([`super::as_owner`]), so that the kernel
//! decides what it may do: whatever an owner makes of the home, nothing is done there that the owner could not do.
//! It never follows a symbolic link in the home, and replaces files whole.

use std::io::{BufRead, Read, Write};
use std::os::fd::OwnedFd;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use hearth_core::ToolName;
use hearth_core::account::owner::Owner;
use hearth_core::account::state::{Certificate, Contents, Credential, Kubeconfig};
use hearth_core::account::subject::Subject;
use hearth_core::account::{credential, kubeconfig};
use jiff::Timestamp;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::as_owner::{self, AsOwner};
use super::fresh;

/// The largest file that is read, and the longest order or answer, in bytes; a kubeconfig or a login is a few
/// kilobytes.
pub(super) const LARGEST: u64 = 1 << 20;

/// What is to be done.
#[derive(Serialize, Deserialize)]
pub(super) struct Order {
    /// The home's path.
    pub home: String,
    /// Whose it is.
    pub owner: Owner,
    /// The owner's user number.
    pub uid: u32,
    /// The owner's group number.
    pub gid: u32,
    /// The platform's registry.
    pub registry: String,
    /// The kubeconfig's entries to write.
    pub kubeconfig: Option<(kubeconfig::Server, kubeconfig::KeyPair)>,
    /// The registry's password to write.
    pub password: Option<String>,
}

/// The answer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// The order was carried out.
    Done {
        /// What is in the home now.
        contents: Contents,
        /// What went wrong and does not matter much.
        warning: Option<String>,
    },
    /// It was not.
    Failed(String),
}

/// Carries out orders until there are no more.
pub fn main() -> ExitCode {
    let worked = as_owner::give_up_the_rest().and_then(|()| work());
    match worked.or_else(|error| tell(&Answer::Failed(format!("{error:#}")))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn work() -> Result<()> {
    let mut orders = std::io::stdin().lock();
    let mut line = Vec::new();
    while (&mut orders).take(LARGEST).read_until(b'\n', &mut line).context("failed to read an order")? > 0 {
        tell(&match carry_out(&line) {
            Ok((contents, warning)) => Answer::Done { contents, warning },
            Err(error) => Answer::Failed(format!("{error:#}")),
        })?;
        line.clear();
    }
    Ok(())
}

fn tell(answer: &Answer) -> Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    let mut answers = std::io::stdout().lock();
    answers.write_all(&line).and_then(|()| answers.flush()).context("failed to answer")
}

fn carry_out(line: &[u8]) -> Result<(Contents, Option<String>)> {
    let order: Order = serde_json::from_slice(line).context("failed to read the order")?;
    let _owner = AsOwner::become_user(order.uid, order.gid)?;
    let home = Dir::open(&order.home)?;
    ensure!(rustix::fs::fstat(&home.0)?.st_uid == order.uid, "the home {} is not its owner's", order.home);
    let warning = match &order.kubeconfig {
        Some((server, pair)) => write_kubeconfig(&home, &order.owner, server, pair)?,
        None => None,
    };
    if let (Owner::Tool(tool), Some(password)) = (&order.owner, &order.password) {
        write_login(&home, tool, &order.registry, password)?;
    }
    Ok((look(&home, &order)?, warning))
}

fn write_kubeconfig(
    home: &Dir,
    owner: &Owner,
    server: &kubeconfig::Server,
    pair: &kubeconfig::KeyPair,
) -> Result<Option<String>> {
    let folder = home.open_or_make(".kube")?;
    let existing = folder.read("config").context("failed to read .kube/config")?;
    let merged = kubeconfig::merge(existing.as_deref(), owner, server, pair)
        .map_err(|problem| anyhow::anyhow!("the file .kube/config is left alone: {problem}"))?;
    folder.write("config", merged.as_bytes(), 0o600).context("failed to write .kube/config")?;
    let folder = owner.certificate_folder();
    let copies = home.open_or_make(folder).and_then(|folder| {
        folder.write("client.crt", pair.certificate.as_bytes(), 0o400)?;
        folder.write("client.key", pair.key.as_bytes(), 0o400)
    });
    // What counts is the kubeconfig: it holds both. The copies are for scripts that know the original's paths.
    Ok(copies.err().map(|error| format!("failed to write the copies in {folder}: {error:#}")))
}

fn write_login(home: &Dir, tool: &ToolName, registry: &str, password: &str) -> Result<()> {
    let folder = home.open_or_make(".docker")?;
    let existing = folder.read("config.json").context("failed to read .docker/config.json")?;
    let merged = credential::merge(existing.as_deref(), registry, tool, password)
        .map_err(|problem| anyhow::anyhow!("the file .docker/config.json is left alone: {problem}"))?;
    folder.write("config.json", merged.as_bytes(), 0o600).context("failed to write .docker/config.json")
}

/// What is in the home of what the platform writes. What an owner made of the files is a finding; a file system that does
/// not answer is an error, and is asked again.
fn look(home: &Dir, order: &Order) -> Result<Contents> {
    let kubeconfig = match home.read_in(".kube", "config") {
        Err(error) => Kubeconfig::Unusable(finding(error)?),
        Ok(text) => match kubeconfig::find(text.as_deref(), &order.owner) {
            kubeconfig::Found::Missing => Kubeconfig::Missing,
            kubeconfig::Found::Unusable(problem) => Kubeconfig::Unusable(problem),
            kubeconfig::Found::Entry { server, certificate } => {
                Kubeconfig::Present { server, certificate: certificate.and_then(|pem| read_certificate(&pem)) }
            }
        },
    };
    let credential = match &order.owner {
        Owner::Tool(tool) => look_at_login(home, tool, &order.registry)?,
        // The platform gives administrators none.
        Owner::Admin(_) => Credential::Missing,
    };
    Ok(Contents { kubeconfig, credential })
}

fn look_at_login(home: &Dir, tool: &ToolName, registry: &str) -> Result<Credential> {
    Ok(match home.read_in(".docker", "config.json") {
        Err(error) => Credential::Unusable(finding(error)?),
        Ok(text) => match credential::login(text.as_deref(), registry, tool) {
            credential::Login::Missing => Credential::Missing,
            credential::Login::Other => Credential::Other,
            credential::Login::Unusable(problem) => Credential::Unusable(problem),
            credential::Login::Own(password) => Credential::Password(fresh::sha256_hex(password.as_bytes())),
        },
    })
}

/// What is wrong with a file that could not be read, if that is the owner's doing.
fn finding(error: anyhow::Error) -> Result<String> {
    use std::io::ErrorKind::InvalidData;
    let is_answer = match (error.downcast_ref::<Errno>(), error.downcast_ref::<std::io::Error>()) {
        (Some(errno), _) => matches!(*errno, Errno::ACCESS | Errno::PERM),
        (None, Some(error)) => error.kind() == InvalidData,
        (None, None) => true,
    };
    if is_answer { Ok(format!("{error:#}")) } else { Err(error) }
}

fn read_certificate(pem: &str) -> Option<Certificate> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
    let (_, certificate) = X509Certificate::from_der(&pem.contents).ok()?;
    let texts = |attributes: Vec<&x509_parser::x509::AttributeTypeAndValue<'_>>| -> Vec<String> {
        attributes.iter().filter_map(|a| a.as_str().ok().map(str::to_owned)).collect()
    };
    let name = certificate.subject();
    Some(Certificate {
        subject: Subject {
            common_name: texts(name.iter_common_name().collect()).concat(),
            organizations: texts(name.iter_organization().collect()),
        },
        not_before: Timestamp::from_second(certificate.validity().not_before.timestamp()).ok()?,
        not_after: Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()?,
    })
}

/// An open directory; everything in it is reached by name from here, so that no link is followed.
struct Dir(OwnedFd);

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::RDONLY);

impl Dir {
    fn open(path: &str) -> Result<Self> {
        let fd = rustix::fs::open(path, DIRECTORY, Mode::empty());
        Ok(Self(fd.with_context(|| format!("failed to open the directory {path}"))?))
    }

    fn child(&self, name: &str) -> Result<Option<Self>> {
        match rustix::fs::openat(&self.0, name, DIRECTORY, Mode::empty()) {
            Ok(fd) => Ok(Some(Self(fd))),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::LOOP | Errno::NOTDIR) => bail!("{name} is a symbolic link or a file, not a directory"),
            Err(error) => Err(error).with_context(|| format!("failed to open the directory {name}")),
        }
    }

    fn open_or_make(&self, name: &str) -> Result<Self> {
        match rustix::fs::mkdirat(&self.0, name, Mode::from(0o700)) {
            Ok(()) | Err(Errno::EXIST) => (),
            Err(error) => return Err(error).with_context(|| format!("failed to make the directory {name}")),
        }
        self.child(name)?.with_context(|| format!("the directory {name} disappeared"))
    }

    fn read_in(&self, folder: &str, name: &str) -> Result<Option<String>> {
        match self.child(folder)? {
            Some(folder) => folder.read(name),
            None => Ok(None),
        }
    }

    fn read(&self, name: &str) -> Result<Option<String>> {
        // Without NONBLOCK, opening a named pipe would wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = match rustix::fs::openat(&self.0, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => bail!("it is a symbolic link"),
            Err(error) => return Err(error).context("it cannot be opened"),
        };
        let stat = rustix::fs::fstat(&fd)?;
        ensure!(rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file(), "it is not a regular file");
        let mut text = String::new();
        let length = std::fs::File::from(fd).take(LARGEST + 1).read_to_string(&mut text).context("it is not text")?;
        ensure!(length as u64 <= LARGEST, "it is larger than 1 MiB");
        Ok(Some(text))
    }

    /// Writes beside and renames, so that a reader sees the old file or the new one, whole.
    fn write(&self, name: &str, content: &[u8], mode: u32) -> Result<()> {
        let beside = format!(".{name}.{}", fresh::suffix());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.0, &beside, flags, Mode::from(mode))?;
        let mut file = std::fs::File::from(fd);
        let written = file
            .write_all(content)
            .and_then(|()| file.sync_all())
            .and_then(|()| Ok(rustix::fs::renameat(&self.0, &beside, &self.0, name)?));
        if written.is_err() {
            let _ = rustix::fs::unlinkat(&self.0, &beside, AtFlags::empty());
        }
        written.with_context(|| format!("failed to write {name}"))
    }
}
