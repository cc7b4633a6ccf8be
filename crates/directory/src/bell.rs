//! A server that tells of writes by itself: content synchronisation (RFC 4533) in the mode refreshAndPersist.
//!
//! It is used as a bell and no more. That something came is taken from the server, and what there is now is read whole,
//! as everywhere else: so an answer that is cut off, or a message that says something odd, can never make a tool look
//! deleted, and the messages' contents, which the library's parser panics on if they are malformed, are never parsed.

use std::time::Duration;

use anyhow::{Result, bail};
use ldap3::controls::{MakeCritical, RefreshMode, SyncRequest};
use ldap3::{Scope, SearchStream};
use tokio::time::timeout;

use crate::session::Directory;

/// The control's name.
const SYNC_REQUEST: &str = "1.3.6.1.4.1.4203.1.9.1.1";

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
    /// Waits until something was written, and until no more comes at once.
    pub(crate) async fn rings(&mut self) -> Result<()> {
        self.message().await?;
        let burst = async {
            while let Ok(message) = timeout(QUIET, self.message()).await {
                message?;
            }
            Ok(())
        };
        timeout(LONGEST_BURST, burst).await.unwrap_or(Ok(()))
    }

    async fn message(&mut self) -> Result<()> {
        if self.0.next().await?.is_some() {
            return Ok(());
        }
        let result = self.0.finish().await;
        bail!("the directory stopped telling of changes: {result}")
    }
}
