//! A server that tells of writes by itself: content synchronisation (RFC 4533) in the mode refreshAndPersist.
//!
//! It is used as a bell and no more. That something came is taken from the server, and what there is now is read, as
//! everywhere else: so an answer that is cut off, or a message that says something odd, can never make a tool look
//! deleted. Of the messages, whose contents the library's parser panics on if they are malformed, one thing is looked at:
//! whether they tell of nothing but entries that were written. Whatever else they say, everything is read.

use std::time::Duration;

use anyhow::{Result, bail};
use ldap3::controls::{MakeCritical, RefreshMode, SyncRequest};
use ldap3::{ResultEntry, Scope, SearchStream};
use tokio::time::timeout;

use crate::session::Directory;

/// The control's name.
const SYNC_REQUEST: &str = "1.3.6.1.4.1.4203.1.9.1.1";

/// The control beside each entry, and the states in it that say that the entry was added or modified (RFC 4533 §2.2).
const SYNC_STATE: &str = "1.3.6.1.4.1.4203.1.9.1.2";
const ADDED: u8 = 1;
const MODIFIED: u8 = 2;

/// No attributes (RFC 4511 §4.5.1.8): which entries there are is more than enough.
const NO_ATTRIBUTES: &[&str] = &["1.1"];

/// How long nothing must come for a burst of writes to be over, and how long it is waited for.
const QUIET: Duration = Duration::from_millis(20);
const LONGEST_BURST: Duration = Duration::from_millis(200);

/// Rings when the directory was written to.
pub(crate) struct Bell(SearchStream<'static, &'static str, &'static [&'static str]>);

impl Directory {
    /// A bell that rings from now on, if the server offers one. It also rings once at first.
    pub(crate) async fn bell(&mut self) -> Result<Option<Bell>> {
        let root = self.get("", &["supportedControl"]).await?;
        let controls = root.and_then(|mut root| root.attributes.remove("supportedcontrol")).unwrap_or_default();
        if !controls.iter().any(|control| control == SYNC_REQUEST) {
            return Ok(None);
        }
        let request = SyncRequest { mode: RefreshMode::RefreshAndPersist, ..SyncRequest::default() };
        let base = self.platform.directory.base.clone();
        let ldap = self.ldap.with_controls(request.critical());
        let stream = ldap.streaming_search(&base, Scope::Subtree, "(objectClass=*)", NO_ATTRIBUTES).await?;
        Ok(Some(Bell(stream)))
    }
}

impl Bell {
    /// Waits until something was written, and until no more comes at once. Whether nothing came but entries that were
    /// added or modified.
    pub(crate) async fn rings(&mut self) -> Result<bool> {
        let mut only_written = self.message().await?;
        let burst = async {
            while let Ok(message) = timeout(QUIET, self.message()).await {
                only_written &= message?;
            }
            anyhow::Ok(())
        };
        timeout(LONGEST_BURST, burst).await.unwrap_or(Ok(()))?;
        Ok(only_written)
    }

    async fn message(&mut self) -> Result<bool> {
        if let Some(message) = self.0.next().await? {
            return Ok(is_written(&message));
        }
        let result = self.0.finish().await;
        bail!("the directory stopped telling of changes: {result}")
    }
}

/// Whether a message shows an entry that was added or modified.
fn is_written(message: &ResultEntry) -> bool {
    let mut controls = message.1.iter().map(|control| &control.1);
    let state = controls.find(|control| control.ctype == SYNC_STATE).and_then(|control| control.val.as_deref());
    !message.is_ref() && !message.is_intermediate() && state.is_some_and(says_written)
}

/// Whether the control's value has one of the two states: in BER a sequence, its length, an enumeration of one byte.
fn says_written(state: &[u8]) -> bool {
    matches!(state, [0x30, _, 0x0a, 0x01, ADDED | MODIFIED, ..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_says_that_it_was_written_was() {
        for (state, expected) in [
            (&[0x30, 0x05, 0x0a, 0x01, 0x01, 0x04, 0x00][..], true),
            (&[0x30, 0x05, 0x0a, 0x01, 0x02, 0x04, 0x00], true),
            (&[0x30, 0x05, 0x0a, 0x01, 0x03, 0x04, 0x00], false),
            (&[0x30, 0x05, 0x0a, 0x01, 0x00, 0x04, 0x00], false),
            (&[0x30, 0x06, 0x0a, 0x02, 0x01, 0x01, 0x04, 0x00], false),
            (&[0x30], false),
            (&[], false),
        ] {
            assert_eq!(says_written(state), expected, "{state:?}");
        }
    }
}
