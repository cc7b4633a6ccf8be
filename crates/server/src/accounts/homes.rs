//! Tools' homes, from outside: made as root in a root-owned parent, and worked in only by processes that become the
//! tool for it ([`super::home_child`]).
//!
//! What exists is never changed in owner or mode, and a home that is not the tool's is not entered.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use hearth_core::account::kubeconfig::{KeyPair, Server};
use hearth_core::account::state::{Contents, Credential, Foreign, Home, Kubeconfig};
use hearth_core::{Platform, ToolName, platform};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use super::fresh;
use super::home_child::{Answer, Order};
use super::workers::{PATIENCE, Workers};

/// The mode of a home: group-writable, and what is made in it is the group's.
const MODE: u32 = 0o2770;

/// Where the homes are, and how to work in them.
#[derive(Clone, Debug)]
pub struct Homes {
    /// The parent of all homes.
    root: String,
    /// The platform's registry.
    registry: String,
    workers: Workers,
}

/// What to write into a home.
#[derive(Default)]
pub struct Files {
    /// The kubeconfig's entries.
    pub kubeconfig: Option<(Server, KeyPair)>,
    /// The password for the registry.
    pub password: Option<String>,
}

impl Homes {
    /// The homes of a platform; `program` is a `hearthd`.
    pub fn new(platform: &Platform, program: PathBuf) -> Self {
        Self {
            root: platform.homes.root.clone(),
            registry: platform.registry.host.clone(),
            workers: Workers::new(program),
        }
    }

    /// Looks at a tool's home.
    pub async fn look(&self, tool: &ToolName, uid: u32) -> Result<Home> {
        match self.apart(tool, move |homes, tool| homes.outside(tool, uid)).await? {
            Some(home) => Ok(home),
            None => Ok(Home::Own(self.work(tool, uid, Files::default()).await?)),
        }
    }

    /// Makes a tool's home with `logs` in it. It appears at once, complete.
    pub async fn make(&self, tool: &ToolName, uid: u32) -> Result<Home> {
        self.apart(tool, move |homes, tool| homes.make_now(tool, uid)).await
    }

    /// Puts a tool's home into the archive, with one rename: `.archive/<tool>.<user number>.<moment>`. One that is not
    /// there, or not the tool's, is left as it is.
    pub async fn archive(&self, tool: &ToolName, uid: u32) -> Result<Home> {
        self.apart(tool, move |homes, tool| homes.archive_now(tool, uid)).await
    }

    /// Does what may wait for the file system on a thread of its own, and does not wait for it for ever: what hangs must
    /// not hold up the other tools.
    async fn apart<T: Send + 'static>(
        &self,
        tool: &ToolName,
        work: impl FnOnce(&Self, &ToolName) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (homes, its) = (self.clone(), tool.clone());
        let thread = tokio::task::spawn_blocking(move || work(&homes, &its));
        let done = tokio::time::timeout(PATIENCE, thread).await;
        done.with_context(|| format!("the home {}/{tool} did not answer within {PATIENCE:?}", self.root))??
    }

    fn make_now(&self, tool: &ToolName, uid: u32) -> Result<Home> {
        let parent = self.parent()?;
        // One name for each tool: what a making left that was cut off is found by the next.
        let beside = format!(".new-{tool}");
        let made = take_away(&parent, &beside).and_then(|()| make_at(&parent, &beside, uid)).and_then(|()| {
            match rustix::fs::renameat_with(&parent, &beside, &parent, tool.as_str(), RenameFlags::NOREPLACE) {
                // A file system that does not know the flag: nobody else writes in this directory.
                Err(Errno::INVAL) if self.outside(tool, uid).is_ok_and(|home| home == Some(Home::Missing)) => {
                    rustix::fs::renameat(&parent, &beside, &parent, tool.as_str())
                }
                result => result,
            }
            .context("failed to put it in its place")
        });
        if made.is_err() {
            let _ = take_away(&parent, &beside);
        }
        made.with_context(|| format!("failed to make the home {}/{tool}", self.root))?;
        Ok(Home::Own(Contents { kubeconfig: Kubeconfig::Missing, credential: Credential::Missing }))
    }

    fn archive_now(&self, tool: &ToolName, uid: u32) -> Result<Home> {
        if let Some(home) = self.outside(tool, uid)? {
            if let Home::Foreign(_) = home {
                tracing::warn!(%tool, "its home is another's, and is left where it is");
            }
            return Ok(home);
        }
        let parent = self.parent()?;
        let archive = match rustix::fs::mkdirat(&parent, platform::Homes::ARCHIVE, Mode::from(0o700)) {
            Ok(()) | Err(Errno::EXIST) => open_dir(&parent, platform::Homes::ARCHIVE),
            Err(error) => Err(error.into()),
        };
        let place = format!("{}/{}", self.root, platform::Homes::ARCHIVE);
        let archive = archive.with_context(|| format!("failed to make or open the directory {place}"))?;
        let stat = rustix::fs::fstat(&archive)?;
        ensure!(
            stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_mode & 0o077 == 0,
            "the archive of homes {place} must be owned by root and be open to nobody else"
        );
        let name = format!("{tool}.{uid}.{}", crate::clock::now().strftime("%Y%m%dT%H%M%SZ"));
        rustix::fs::renameat_with(&parent, tool.as_str(), &archive, &name, RenameFlags::NOREPLACE)
            .or_else(|error| match error {
                // A file system that does not know the flag: nobody else writes in this directory.
                Errno::INVAL => rustix::fs::renameat(&parent, tool.as_str(), &archive, &name),
                error => Err(error),
            })
            .with_context(|| format!("failed to put the home {}/{tool} into {place}/{name}", self.root))?;
        tracing::info!(%tool, to = format!("{place}/{name}"), "the home of a deleted tool was put into the archive");
        Ok(Home::Missing)
    }

    /// Writes files into a tool's home, as the tool; returns what is in it then.
    pub async fn work(&self, tool: &ToolName, uid: u32, files: Files) -> Result<Contents> {
        ensure!(uid != 0, "a tool's user number cannot be 0");
        let Files { kubeconfig, password } = files;
        let home = format!("{}/{tool}", self.root);
        let order = Order { home, tool: tool.clone(), uid, registry: self.registry.clone(), kubeconfig, password };
        match self.workers.carry_out(&order).await.with_context(|| format!("the home {}", order.home))? {
            Answer::Done { contents, warning } => {
                if let Some(warning) = warning {
                    tracing::warn!(%tool, warning, "a part of the home was not written");
                }
                Ok(contents)
            }
            Answer::Failed(reason) => bail!("in the home {}: {reason}", order.home),
        }
    }

    /// Lets go of what is kept for work in homes, where there has been none for a while.
    pub fn rest(&self) {
        self.workers.rest();
    }

    /// What the home is, without entering it; `None` if it is the tool's own.
    fn outside(&self, tool: &ToolName, uid: u32) -> Result<Option<Home>> {
        let stat = match rustix::fs::statat(&self.parent()?, tool.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(Some(Home::Missing)),
            Err(error) => return Err(error).with_context(|| format!("failed to look at {}/{tool}", self.root)),
        };
        Ok(if !FileType::from_raw_mode(stat.st_mode).is_dir() {
            Some(Home::Foreign(Foreign::NotADirectory))
        } else if stat.st_uid != uid {
            Some(Home::Foreign(Foreign::OwnedBy(stat.st_uid)))
        } else {
            None
        })
    }

    /// The parent of all homes. In one that others can write to, a home could be swapped for a link.
    fn parent(&self) -> Result<OwnedFd> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        let parent = rustix::fs::openat(CWD, self.root.as_str(), flags, Mode::empty())
            .with_context(|| format!("failed to open the homes' parent {}; homes.root names it", self.root))?;
        let stat = rustix::fs::fstat(&parent)?;
        ensure!(
            stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_mode & 0o022 == 0,
            "the homes' parent {} must be owned by root and be writable by nobody else; it is of user number {} with mode {:o}",
            self.root,
            stat.st_uid,
            stat.st_mode & 0o7777
        );
        Ok(parent)
    }
}

/// Takes away what is left of a home that was begun. One that was given to the tool may hold files of it already, and is
/// not ours any more: it is put aside.
fn take_away(parent: &OwnedFd, name: &str) -> Result<()> {
    let logs = rustix::fs::unlinkat(parent, format!("{name}/logs"), AtFlags::REMOVEDIR);
    match logs.and_then(|()| rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)) {
        Ok(()) => return Ok(()),
        Err(Errno::NOENT) => (),
        Err(_) => {
            let aside = format!("{name}.left-{}", fresh::suffix());
            return rustix::fs::renameat(parent, name, parent, &aside)
                .with_context(|| format!("failed to put {name} aside as {aside}"));
        }
    }
    // Without `logs` there is nothing in it, or it is not there at all.
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("failed to take away {name}, which was left there")),
    }
}

fn make_at(parent: &OwnedFd, name: &str, uid: u32) -> Result<()> {
    let home = make_dir(parent, name)?;
    let logs = make_dir(&home, "logs")?;
    // The owner comes last, the home's very last: until then nobody else can enter.
    for dir in [&logs, &home] {
        rustix::fs::fchmod(dir, Mode::from(MODE))?;
        rustix::fs::fchown(dir, Some(Uid::from_raw(uid)), Some(Gid::from_raw(uid)))
            .with_context(|| format!("failed to give it to user number {uid}"))?;
    }
    Ok(())
}

fn make_dir(parent: &OwnedFd, name: &str) -> Result<OwnedFd> {
    rustix::fs::mkdirat(parent, name, Mode::from(0o700))?;
    open_dir(parent, name)
}

fn open_dir(parent: &OwnedFd, name: &str) -> Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?)
}
