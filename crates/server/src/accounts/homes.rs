//! Homes of tools and of administrators, from outside: made as root in a root-owned parent, and worked in only by
//! processes that become the owner for it ([`super::home_child`]).
//!
//! What exists is never changed in owner or mode, and a home that is another's is not entered.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use hearth_core::account::kubeconfig::{KeyPair, Server};
use hearth_core::account::owner::Owner;
use hearth_core::account::state::{Contents, Credential, Foreign, Home, Kubeconfig};
use hearth_core::directory_entry::Admin;
use hearth_core::{Platform, ToolName, platform};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use super::fresh;
use super::home_child::{Answer, Order};
use super::workers::{PATIENCE, Workers};

/// The mode of a tool's home: group-writable, and what is made in it is the group's.
const MODE: u32 = 0o2770;

/// The mode of a person's home.
const PRIVATE: u32 = 0o2700;

/// Where the homes are, and how to work in them.
#[derive(Clone, Debug)]
pub struct Homes {
    /// The parent of all tools' homes.
    root: String,
    /// The parent of all people's homes.
    people: String,
    /// The platform's registry.
    registry: String,
    workers: Workers,
}

/// Whose a home is.
#[derive(Clone, Debug)]
pub struct Resident {
    /// The tool or the administrator.
    pub owner: Owner,
    /// The owner's user number.
    pub uid: u32,
    /// The number of the owner's group.
    pub gid: u32,
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
            people: platform.homes.people.clone(),
            registry: platform.registry.host.clone(),
            workers: Workers::new(program),
        }
    }

    /// Looks at a home.
    pub async fn look(&self, resident: &Resident) -> Result<Home> {
        let of = resident.clone();
        match self.apart(&resident.owner, move |homes| homes.outside(&of.owner, of.uid)).await? {
            Some(home) => Ok(home),
            None => Ok(Home::Own(self.work(resident, Files::default()).await?)),
        }
    }

    /// Makes a home; a tool's with `logs` in it. It appears at once, complete.
    pub async fn make(&self, resident: &Resident) -> Result<Home> {
        let of = resident.clone();
        self.apart(&resident.owner, move |homes| homes.make_now(&of)).await
    }

    /// Puts a tool's home into the archive, with one rename: `.archive/<tool>.<user number>.<moment>`. One that is not
    /// there, or not the tool's, is left as it is.
    pub async fn archive(&self, tool: &ToolName, uid: u32) -> Result<Home> {
        let owner = Owner::from(tool.clone());
        let of = tool.clone();
        self.apart(&owner, move |homes| homes.archive_now(&of, uid)).await
    }

    /// Does what may wait for the file system on a thread of its own, and does not wait for it for ever: what hangs must
    /// not hold up the other tools.
    async fn apart<T: Send + 'static>(
        &self,
        owner: &Owner,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let homes = self.clone();
        let thread = tokio::task::spawn_blocking(move || work(&homes));
        let done = tokio::time::timeout(PATIENCE, thread).await;
        done.with_context(|| format!("the home {} did not answer within {PATIENCE:?}", self.of(owner)))??
    }

    /// The parent of the owner's home.
    fn parent_of(&self, owner: &Owner) -> &str {
        match owner {
            Owner::Tool(_) => &self.root,
            Owner::Admin(_) => &self.people,
        }
    }

    /// The owner's home.
    fn of(&self, owner: &Owner) -> String {
        format!("{}/{}", self.parent_of(owner), owner.name())
    }

    fn make_now(&self, resident: &Resident) -> Result<Home> {
        let Resident { owner, uid, .. } = resident;
        let (parent, name) = (open_parent(self.parent_of(owner))?, owner.name());
        // One name for each: what a making left that was cut off is found by the next.
        let beside = format!(".new-{name}");
        let made = take_away(&parent, &beside).and_then(|()| make_at(&parent, &beside, resident)).and_then(|()| {
            match rustix::fs::renameat_with(&parent, &beside, &parent, name, RenameFlags::NOREPLACE) {
                // A file system that does not know the flag: nobody else writes in this directory.
                Err(Errno::INVAL) if self.outside(owner, *uid).is_ok_and(|home| home == Some(Home::Missing)) => {
                    rustix::fs::renameat(&parent, &beside, &parent, name)
                }
                result => result,
            }
            .context("failed to put it in its place")
        });
        if made.is_err() {
            let _ = take_away(&parent, &beside);
        }
        made.map_err(|error| advised(error, &self.of(owner), resident))
            .with_context(|| format!("failed to make the home {}", self.of(owner)))?;
        Ok(Home::Own(Contents { kubeconfig: Kubeconfig::Missing, credential: Credential::Missing }))
    }

    fn archive_now(&self, tool: &ToolName, uid: u32) -> Result<Home> {
        let parent = open_parent(&self.root)?;
        match self.outside(&tool.clone().into(), uid)? {
            None => (),
            // An archiving that was cut off left it: nobody else could give it to root.
            Some(Home::Foreign(Foreign::OwnedBy(0))) if stat_in(&parent, tool)?.st_gid == uid => (),
            Some(home) => {
                if let Home::Foreign(_) = home {
                    tracing::warn!(%tool, "its home is another's, and is left where it is");
                }
                return Ok(home);
            }
        }
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
        move_to(&parent, tool, &archive, &name)
            .with_context(|| format!("failed to put the home {}/{tool} into {place}/{name}", self.root))?;
        tracing::info!(%tool, to = format!("{place}/{name}"), "the home of a deleted tool was put into the archive");
        Ok(Home::Missing)
    }

    /// Writes files into a home, as its owner; returns what is in it then.
    pub async fn work(&self, resident: &Resident, files: Files) -> Result<Contents> {
        let Resident { owner, uid, gid } = resident.clone();
        let (Files { kubeconfig, password }, home) = (files, self.of(&owner));
        let order = Order { home, owner, uid, gid, registry: self.registry.clone(), kubeconfig, password };
        match self.workers.carry_out(&order).await.with_context(|| format!("the home {}", order.home))? {
            Answer::Done { contents, warning } => {
                if let Some(warning) = warning {
                    tracing::warn!(owner = %order.owner, warning, "a part of the home was not written");
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

    /// What the home is, without entering it; `None` if it is the owner's own.
    fn outside(&self, owner: &Owner, uid: u32) -> Result<Option<Home>> {
        let parent = open_parent(self.parent_of(owner))?;
        let stat = match rustix::fs::statat(&parent, owner.name(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(Some(Home::Missing)),
            Err(error) => return Err(error).with_context(|| format!("failed to look at {}", self.of(owner))),
        };
        Ok(if !FileType::from_raw_mode(stat.st_mode).is_dir() {
            Some(Home::Foreign(Foreign::NotADirectory))
        } else if stat.st_uid != uid {
            Some(Home::Foreign(Foreign::OwnedBy(stat.st_uid)))
        } else {
            None
        })
    }
}

impl Resident {
    /// A tool: its group number is its user number.
    pub fn tool(tool: &ToolName, uid: u32) -> Self {
        Self { owner: tool.clone().into(), uid, gid: uid }
    }

    /// An administrator.
    pub fn admin(admin: &Admin) -> Self {
        Self { owner: Owner::Admin(admin.name.clone()), uid: admin.uid, gid: admin.gid }
    }
}

/// The parent of homes. In one that others can write to, a home could be swapped for a link.
fn open_parent(path: &str) -> Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
    let parent = rustix::fs::openat(CWD, path, flags, Mode::empty())
        .with_context(|| format!("failed to open the homes' parent {path}; homes.root and homes.people name them"))?;
    let stat = rustix::fs::fstat(&parent)?;
    ensure!(
        stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_mode & 0o022 == 0,
        "the homes' parent {path} must be owned by root and be writable by nobody else; it is of user number {} with mode {:o}",
        stat.st_uid,
        stat.st_mode & 0o7777
    );
    Ok(parent)
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

/// What the tool's home is, in its parent.
fn stat_in(parent: &OwnedFd, tool: &ToolName) -> Result<rustix::fs::Stat> {
    Ok(rustix::fs::statat(parent, tool.as_str(), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Moves a tool's home from one directory of root's to another, as it is. A directory that gets another parent is written
/// to, which root may not do in a tool's: the role has no right to pass over modes. So it is root's on the way.
fn move_to(parent: &OwnedFd, tool: &ToolName, archive: &OwnedFd, name: &str) -> Result<()> {
    let stat = stat_in(parent, tool)?;
    let user = Uid::from_raw(stat.st_gid);
    let own = |place: &OwnedFd, name: &str, user: Uid| {
        rustix::fs::chownat(place, name, Some(user), None, AtFlags::SYMLINK_NOFOLLOW)
    };
    own(parent, tool.as_str(), Uid::ROOT)?;
    if stat.st_mode & 0o300 != 0o300 {
        rustix::fs::chmodat(parent, tool.as_str(), Mode::from(0o770), AtFlags::empty())?;
    }
    rustix::fs::renameat_with(parent, tool.as_str(), archive, name, RenameFlags::NOREPLACE).or_else(
        |error| match error {
            // A file system that does not know the flag: nobody else writes in this directory.
            Errno::INVAL => rustix::fs::renameat(parent, tool.as_str(), archive, name),
            error => Err(error),
        },
    )?;
    Ok(own(archive, name, user)?)
}

/// Where root may not write, as on a server of files that takes it for nobody, an operator has to make homes.
fn advised(error: anyhow::Error, home: &str, resident: &Resident) -> anyhow::Error {
    let Resident { owner, uid, gid } = resident;
    let mode = if let Owner::Tool(_) = owner { MODE } else { PRIVATE };
    match error.downcast_ref::<Errno>() {
        Some(&Errno::ACCESS | &Errno::PERM | &Errno::ROFS) => error.context(format!(
            "root may not write there; make it where root may: install -d -o {uid} -g {gid} -m {mode:o} {home}"
        )),
        _ => error,
    }
}

fn make_at(parent: &OwnedFd, name: &str, resident: &Resident) -> Result<()> {
    let home = make_dir(parent, name)?;
    let (user, group) = (Uid::from_raw(resident.uid), Gid::from_raw(resident.gid));
    let give = |dir: &OwnedFd, mode: u32| -> Result<()> {
        rustix::fs::fchmod(dir, Mode::from(mode))?;
        rustix::fs::fchown(dir, Some(user), Some(group))
            .with_context(|| format!("failed to give it to user number {}", resident.uid))
    };
    // The owner comes last, the home's very last: until then nobody else can enter.
    match &resident.owner {
        Owner::Tool(_) => {
            give(&make_dir(&home, "logs")?, MODE)?;
            give(&home, MODE)
        }
        Owner::Admin(_) => give(&home, PRIVATE),
    }
}

fn make_dir(parent: &OwnedFd, name: &str) -> Result<OwnedFd> {
    rustix::fs::mkdirat(parent, name, Mode::from(0o700))?;
    open_dir(parent, name)
}

fn open_dir(parent: &OwnedFd, name: &str) -> Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?)
}
