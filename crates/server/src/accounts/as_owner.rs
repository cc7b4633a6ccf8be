//! Being a home's owner for a while: what a process may do in files is then what the owner may do.
//!
//! Only the *effective* user and group become the owner's, and with them those that files are opened and made with. The
//! real and saved ones stay root's, so that the process can go back, and so that nobody can send it a signal or look
//! into it: for both the kernel asks for all three. Ids belong to threads: the process must have only one.

use anyhow::{Context, Result, ensure};
use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// An owner's user and group, taken on until this is dropped.
pub(super) struct AsOwner(());

/// Gives up for ever what being one owner after another does not need.
pub(super) fn give_up_the_rest() -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "it must be started as root: it becomes one owner after another");
    rustix::thread::set_thread_groups(&[]).context("failed to leave all groups")?;
    let needed = CapabilitySet::SETUID | CapabilitySet::SETGID;
    let sets = CapabilitySets { effective: needed, permitted: needed, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).context("failed to give up capabilities")?;
    rustix::thread::set_no_new_privs(true).context("failed to give up gaining privileges")
}

impl AsOwner {
    /// Takes them on. Fails where the kernel leaves the process anything that the owner has not.
    pub(super) fn become_user(uid: u32, gid: u32) -> Result<Self> {
        for number in [uid, gid] {
            ensure!(number != 0 && number != u32::MAX, "the number of a home's owner cannot be {number}");
        }
        let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
        rustix::thread::set_thread_res_gid(Gid::ROOT, group, Gid::ROOT)
            .with_context(|| format!("failed to take on the group number {gid}"))?;
        // From here on the process goes back when this is dropped.
        let taken = Self(());
        rustix::thread::set_thread_res_uid(Uid::ROOT, user, Uid::ROOT)
            .with_context(|| format!("failed to take on the user number {uid}"))?;
        let groups = rustix::process::getgroups().context("failed to look at the groups")?;
        let capabilities = rustix::thread::capabilities(None).context("failed to look at the capabilities")?;
        ensure!(
            rustix::process::geteuid() == user
                && rustix::process::getegid() == group
                && groups.is_empty()
                && capabilities.effective.is_empty(),
            "the process did not become the user number {uid} alone"
        );
        Ok(taken)
    }
}

impl Drop for AsOwner {
    /// Goes back to being root. A process that cannot must not go on as whoever it is.
    fn drop(&mut self) {
        let back = rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)
            .and_then(|()| rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT));
        if back.is_err() {
            std::process::abort();
        }
    }
}
