//! One bound connection, and the few operations that everything else is made of.
//!
//! Results that mean "not all of it" (size, time and administrative limits, referrals) are errors here, so that
//! nothing above can mistake a part for the whole.

use std::collections::HashSet;

use anyhow::{Context, Result, bail};
use hearth_core::Platform;
use hearth_core::directory_entry::Entry;
use ldap3::controls::{Control, ControlType, PagedResults};
use ldap3::{Ldap, LdapResult, Mod, Scope, SearchEntry, SearchResult};

use crate::connection::{Connection, OPERATION_TIMEOUT};

/// How many entries the server sends at a time.
const PAGE: i32 = 500;

// Result codes of RFC 4511 that mean something here.
const SUCCESS: u32 = 0;
const TIME_LIMIT: u32 = 3;
const SIZE_LIMIT: u32 = 4;
const REFERRAL: u32 = 10;
const ADMIN_LIMIT: u32 = 11;
const NO_SUCH_ATTRIBUTE: u32 = 16;
const CONSTRAINT_VIOLATION: u32 = 19;
const VALUE_EXISTS: u32 = 20;
const NO_SUCH_OBJECT: u32 = 32;
const INSUFFICIENT_ACCESS: u32 = 50;
const ALREADY_EXISTS: u32 = 68;

/// A connection to the directory, bound.
pub struct Directory {
    pub(crate) ldap: Ldap,
    bind_dn: String,
    pub(crate) platform: Platform,
    /// The change number before the last whole reading.
    pub(crate) seen: Option<String>,
}

/// What came of adding an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Added {
    Done,
    /// An entry of that name was there before.
    Exists,
    /// Another entry has a value that must be unique.
    NotUnique,
}

/// What came of changing or removing an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Changed {
    Done,
    /// There is no such entry.
    Gone,
    /// A value to add was there before, or one to remove was not: somebody else changed the entry meanwhile.
    Raced,
}

/// A change to one attribute.
pub(crate) enum Change {
    Add(&'static str, String),
    Remove(&'static str, String),
    /// `None` removes all values.
    Set(&'static str, Option<String>),
}

// === impl Directory ===

impl Directory {
    pub(crate) fn new(ldap: Ldap, connection: &Connection) -> Self {
        Self { ldap, bind_dn: connection.bind_dn.clone(), platform: connection.platform.clone(), seen: None }
    }

    /// Every entry below `base` that `filter` matches, or an error.
    pub(crate) async fn search(
        &mut self,
        base: &str,
        scope: Scope,
        filter: &str,
        attributes: &[&str],
    ) -> Result<Vec<Entry>> {
        let what = || format!("cannot read the entries of {base}");
        match self.pages(base, scope, filter, attributes).await.with_context(what)? {
            Some(entries) => Ok(entries),
            None => bail!(
                "the directory has no {base}: it is not filled, '{}' may not see it, or directory.base names another place",
                self.bind_dn
            ),
        }
    }

    /// The entry of that name, if there is one.
    pub(crate) async fn get(&mut self, dn: &str, attributes: &[&str]) -> Result<Option<Entry>> {
        let what = || format!("cannot read {dn}");
        let found = self.pages(dn, Scope::Base, "(objectClass=*)", attributes).await.with_context(what)?;
        Ok(found.and_then(|entries| entries.into_iter().next()))
    }

    /// `None` when `base` itself is not there.
    async fn pages(
        &mut self,
        base: &str,
        scope: Scope,
        filter: &str,
        attributes: &[&str],
    ) -> Result<Option<Vec<Entry>>> {
        let mut entries = Vec::new();
        let mut cookie = Vec::new();
        loop {
            let ldap = self.ldap.with_timeout(OPERATION_TIMEOUT).with_controls(PagedResults { size: PAGE, cookie });
            let SearchResult(found, result) = ldap.search(base, scope, filter, attributes).await?;
            if result.rc == NO_SUCH_OBJECT {
                return Ok(None);
            }
            whole(&result)?;
            entries.extend(found.into_iter().map(|found| entry(SearchEntry::construct(found))));
            cookie = next_page(&result);
            if cookie.is_empty() {
                return Ok(Some(entries));
            }
        }
    }

    /// Adds an entry.
    pub(crate) async fn add(&mut self, dn: &str, attributes: &[(&str, &[&str])]) -> Result<Added> {
        let values = |values: &[&str]| values.iter().map(|v| (*v).to_owned()).collect::<HashSet<String>>();
        let attributes = attributes.iter().map(|(name, found)| ((*name).to_owned(), values(found))).collect();
        let what = || format!("cannot add {dn}");
        let result = self.ldap.with_timeout(OPERATION_TIMEOUT).add(dn, attributes).await.with_context(what)?;
        match result.rc {
            ALREADY_EXISTS => Ok(Added::Exists),
            CONSTRAINT_VIOLATION => Ok(Added::NotUnique),
            _ => self.done(result).map(|()| Added::Done).with_context(what),
        }
    }

    /// Changes an entry: all of the changes or none.
    pub(crate) async fn change(&mut self, dn: &str, changes: Vec<Change>) -> Result<Changed> {
        let changes = changes.into_iter().map(Change::into_mod).collect();
        let what = || format!("cannot change {dn}");
        let result = self.ldap.with_timeout(OPERATION_TIMEOUT).modify(dn, changes).await.with_context(what)?;
        match result.rc {
            NO_SUCH_OBJECT => Ok(Changed::Gone),
            NO_SUCH_ATTRIBUTE | VALUE_EXISTS => Ok(Changed::Raced),
            _ => self.done(result).map(|()| Changed::Done).with_context(what),
        }
    }

    /// Removes an entry.
    pub(crate) async fn remove(&mut self, dn: &str) -> Result<Changed> {
        let what = || format!("cannot remove {dn}");
        let result = self.ldap.with_timeout(OPERATION_TIMEOUT).delete(dn).await.with_context(what)?;
        match result.rc {
            NO_SUCH_OBJECT => Ok(Changed::Gone),
            _ => self.done(result).map(|()| Changed::Done).with_context(what),
        }
    }

    fn done(&self, result: LdapResult) -> Result<()> {
        match result.rc {
            INSUFFICIENT_ACCESS => bail!("'{}' may not write in the directory", self.bind_dn),
            REFERRAL => bail!("this copy of the directory does not take changes; use the one that does"),
            _ => {
                result.success()?;
                Ok(())
            }
        }
    }
}

// === impl Change ===

impl Change {
    fn into_mod(self) -> Mod<String> {
        match self {
            Self::Add(name, value) => Mod::Add(name.to_owned(), HashSet::from([value])),
            Self::Remove(name, value) => Mod::Delete(name.to_owned(), HashSet::from([value])),
            Self::Set(name, value) => Mod::Replace(name.to_owned(), value.into_iter().collect()),
        }
    }
}

/// Refuses every result that does not mean "this is all of it".
fn whole(result: &LdapResult) -> Result<()> {
    let limit = match result.rc {
        SUCCESS if result.refs.is_empty() => return Ok(()),
        SIZE_LIMIT => "size limit",
        TIME_LIMIT => "time limit",
        ADMIN_LIMIT => "administrative limit",
        SUCCESS | REFERRAL => bail!("the directory answered with a referral to another server, so not with everything"),
        _ => {
            result.clone().success()?;
            return Ok(());
        }
    };
    bail!(
        "the directory gave only a part of it, because the {limit} for this account was exceeded; a part is not used: raise the limit"
    )
}

fn next_page(result: &LdapResult) -> Vec<u8> {
    let is_page = |control: &&Control| matches!(control.0, Some(ControlType::PagedResults));
    result.ctrls.iter().find(is_page).map(|control| control.1.parse::<PagedResults>().cookie).unwrap_or_default()
}

/// The wire's entry as ours. A value that is not text becomes text with marks in it, and is refused by whoever reads it.
fn entry(found: SearchEntry) -> Entry {
    let mut entry = Entry { dn: found.dn, ..Entry::default() };
    let lossy = |value: Vec<u8>| String::from_utf8_lossy(&value).into_owned();
    let binary = found.bin_attrs.into_iter().map(|(name, values)| (name, values.into_iter().map(lossy).collect()));
    for (name, values) in found.attrs.into_iter().chain(binary) {
        let name = name.split(';').next().unwrap_or_default().to_ascii_lowercase();
        let values: Vec<String> = values;
        entry.attributes.entry(name).or_default().extend(values);
    }
    entry
}
