//! Reading and following: all or an error, each change noticed, outages survived.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use hearth_core::ToolName;
use hearth_core::directory_entry::Snapshot;
use hearth_directory::{Connection, NewTool, follow};
use ldap3::{Scope, SearchEntry};
use tokio::time::timeout;

use crate::slapd::{BASE, Slapd};

/// Far longer than anything here takes; only a test that fails waits for it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) fn tool(name: &str) -> NewTool {
    NewTool { name: name.parse().unwrap(), maintainers: vec!["m1".parse().unwrap()], description: None }
}

async fn refused(connection: &Connection) -> String {
    match connection.connect().await {
        Ok(_) => panic!("the connection was accepted"),
        Err(error) => format!("{error:#}"),
    }
}

#[tokio::test]
async fn a_limit_gives_an_error_and_never_fewer_tools() {
    let slapd = Slapd::start_with(&[("HEARTH_DIRECTORY_READER_SIZELIMIT", "2")]);
    let mut writer = slapd.with_people().await;
    let mut reader = slapd.as_reader().connect().await.unwrap();
    writer.create_tool(&tool("a")).await.unwrap();
    // Two groups, the administrators' and the tool's: as many as the limit allows.
    assert_eq!(reader.read().await.unwrap().tools.len(), 1);
    writer.create_tool(&tool("b")).await.unwrap();
    assert_eq!(
        format!("{:#}", reader.read().await.unwrap_err()),
        format!(
            "cannot read the entries of ou=servicegroups,{BASE}: the directory gave only a part of it, because the \
             size limit for this account was exceeded; a part is not used: raise the limit"
        )
    );
}

#[tokio::test]
async fn more_than_a_page_is_read_whole() {
    let slapd = Slapd::start();
    let mut writer = slapd.with_people().await;
    let mut raw = slapd.raw("admin", "the writer's").await;
    let value = |text: &str| std::iter::once(text.to_owned()).collect();
    for number in 50000..50510 {
        let name = format!("tools.t{number}");
        let account = format!("uid={name},ou=people,ou=servicegroups,{BASE}");
        let number_text = number.to_string();
        let entry = vec![
            ("objectClass".to_owned(), ["account".to_owned(), "posixAccount".to_owned()].into_iter().collect()),
            ("cn".to_owned(), value(&name)),
            ("uidNumber".to_owned(), value(&number_text)),
            ("gidNumber".to_owned(), value(&number_text)),
            ("homeDirectory".to_owned(), value(&format!("/data/project/t{number}"))),
        ];
        raw.add(&account, entry).await.unwrap().success().unwrap();
    }
    assert_eq!(writer.read().await.unwrap().refused.len(), 510, "each lacks its group");
    assert_eq!(writer.create_tool(&tool("next")).await.unwrap(), 50510);
}

#[tokio::test]
async fn a_directory_that_hides_entries_is_not_believed() {
    let slapd = Slapd::start();
    let mut writer = slapd.with_people().await;
    writer.create_tool(&tool("a")).await.unwrap();
    let mut raw = slapd.raw("admin", "the writer's").await;
    raw.delete(&format!("cn=tools.admin,ou=servicegroups,{BASE}")).await.unwrap().success().unwrap();
    assert_eq!(
        writer.read().await.unwrap_err().to_string(),
        format!(
            "the directory shows no group cn=tools.admin,ou=servicegroups,{BASE}, so what it shows is not the whole of it"
        )
    );
    let mut elsewhere = slapd.as_reader();
    elsewhere.platform.directory.base = "dc=elsewhere".to_owned();
    let error = elsewhere.connect().await.unwrap().read().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the directory has no dc=elsewhere: it is not filled, or directory.base names another place"
    );
}

#[tokio::test]
async fn nobody_is_trusted_without_reason() {
    let slapd = Slapd::start();
    let good = slapd.as_reader();
    let place = |url: &str| format!("{url} (at {})", good.connect_address.unwrap());

    let other_name = Connection { url: "ldaps://ldap.example".to_owned(), ..good.clone() };
    let error = refused(&other_name).await;
    assert!(error.starts_with(&format!("cannot connect to the directory at {}: ", place("ldaps://ldap.example"))));
    assert!(error.contains("certificate not valid for name"), "{error}");

    let other_ca = Slapd::start();
    let strangers = Connection { ca_file: other_ca.as_reader().ca_file, ..good.clone() };
    let error = refused(&strangers).await;
    assert!(error.contains("invalid peer certificate"), "{error}");

    slapd.write_secret("wrong", "wrong\n");
    let wrong = Connection { password_file: slapd.secret("wrong"), ..good.clone() };
    let file = slapd.secret("wrong").display().to_string();
    let expected =
        format!("the directory at {} refuses 'cn=reader,{BASE}' with the password in {file}", place(&good.url));
    assert_eq!(refused(&wrong).await, expected);
    slapd.write_secret("wrong", "\n");
    assert_eq!(refused(&wrong).await, format!("the password file {file} is empty"));

    // The reader sees everything but passwords, and changes nothing.
    let mut raw = slapd.raw("reader", "the reader's").await;
    let (found, _) = raw.search(BASE, Scope::Subtree, "(objectClass=*)", vec!["*"]).await.unwrap().success().unwrap();
    assert!(found.len() > 8);
    for entry in found.into_iter().map(SearchEntry::construct) {
        assert!(!entry.attrs.contains_key("userPassword") && !entry.bin_attrs.contains_key("userPassword"));
    }
    assert_eq!(raw.delete(&format!("ou=groups,{BASE}")).await.unwrap().rc, 50);
}

#[tokio::test]
async fn a_plain_connection_is_upgraded_before_anything_is_said() {
    let slapd = Slapd::start_plain();
    let connection = slapd.as_reader();
    assert_eq!(connection.url, "ldap://ldap.hearth.internal");
    assert!(connection.connect().await.unwrap().read().await.unwrap().tools.is_empty());
    let other_name = Connection { url: "ldap://ldap.example".to_owned(), ..connection };
    assert!(refused(&other_name).await.contains("certificate not valid for name"));
}

/// The next snapshot that has the tool; everything before it must be a snapshot too.
async fn until(stream: &mut BoxStream<'static, anyhow::Result<Snapshot>>, name: &str) -> Snapshot {
    let name: ToolName = name.parse().unwrap();
    timeout(DEADLINE, async {
        loop {
            let snapshot = stream.next().await.expect("the stream never ends").expect("a snapshot");
            if snapshot.tools.contains_key(&name) {
                return snapshot;
            }
        }
    })
    .await
    .unwrap_or_else(|_| panic!("'{name}' was not seen"))
}

#[tokio::test]
async fn each_change_is_noticed_and_outages_are_survived() {
    let mut slapd = Slapd::start();
    let mut writer = slapd.with_people().await;
    let mut stream = follow(slapd.as_reader(), Duration::from_millis(20));
    let first = timeout(DEADLINE, stream.next()).await.unwrap().unwrap().unwrap();
    assert!(first.tools.is_empty());
    writer.create_tool(&tool("a")).await.unwrap();
    until(&mut stream, "a").await;

    let mut reader = slapd.as_reader().connect().await.unwrap();
    reader.read().await.unwrap();
    assert!(!reader.changed().await.unwrap());
    writer.enable_tool(&"a".parse().unwrap()).await.unwrap();
    assert!(reader.changed().await.unwrap());

    // Killed in the middle of everything: what was answered is there again, and the reader's new password holds.
    slapd.kill();
    let error = timeout(DEADLINE, async {
        loop {
            if let Err(error) = stream.next().await.unwrap() {
                return error;
            }
        }
    });
    assert!(!error.await.unwrap().to_string().is_empty());
    slapd.write_secret("directory/password", "another\n");
    slapd.restart();
    let mut writer = slapd.as_writer().connect().await.unwrap();
    writer.create_tool(&tool("b")).await.unwrap();
    let back = timeout(DEADLINE, async {
        loop {
            if let Ok(snapshot) = stream.next().await.unwrap() {
                return snapshot;
            }
        }
    });
    assert!(back.await.unwrap().tools.contains_key(&"a".parse().unwrap()));
    writer.create_tool(&tool("c")).await.unwrap();
    until(&mut stream, "c").await;
}

#[tokio::test]
async fn what_was_written_is_read_by_itself_and_what_is_gone_is_noticed() {
    let slapd = Slapd::start();
    let mut writer = slapd.with_people().await;
    let mut reader = slapd.as_reader().connect().await.unwrap();
    writer.create_tool(&tool("a")).await.unwrap();
    let first = reader.read().await.unwrap();
    writer.create_tool(&tool("b")).await.unwrap();
    writer.disable_tool(&"a".parse().unwrap(), "2026-11-25T00:00:00Z".parse().unwrap()).await.unwrap();
    let second = reader.read_since(&first).await.unwrap().expect("only entries of tools were written");
    assert_eq!(second, reader.read().await.unwrap());
    assert_ne!(second, first);

    let mut stream = follow(slapd.as_reader(), NEVER);
    until(&mut stream, "b").await;
    let mut raw = slapd.raw("admin", "the writer's").await;
    for dn in ["uid=tools.b,ou=people,ou=servicegroups", "cn=tools.b,ou=servicegroups"] {
        raw.delete(&format!("{dn},{BASE}")).await.unwrap().success().unwrap();
    }
    // What is written at the same time does not hide it.
    writer.create_tool(&tool("c")).await.unwrap();
    let gone = timeout(DEADLINE, async {
        loop {
            let snapshot = stream.next().await.unwrap().unwrap();
            if !snapshot.tools.contains_key(&"b".parse().unwrap()) {
                return snapshot;
            }
        }
    });
    let names: Vec<String> = gone.await.unwrap().tools.keys().map(ToString::to_string).collect();
    assert!(names.contains(&"a".to_owned()), "{names:?}");
}

/// So seldom that a change which is seen was not asked for.
const NEVER: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn the_directory_tells_of_changes_by_itself() {
    let slapd = Slapd::start();
    let mut writer = slapd.with_people().await;
    let mut stream = follow(slapd.as_reader(), NEVER);
    timeout(DEADLINE, stream.next()).await.unwrap().unwrap().unwrap();
    for name in ["a", "b"] {
        writer.create_tool(&tool(name)).await.unwrap();
        until(&mut stream, name).await;
    }
}

#[tokio::test]
async fn a_directory_that_stops_telling_of_changes_is_asked() {
    // Enough for the tools, and not for every entry that there is.
    let slapd = Slapd::start_with(&[("HEARTH_DIRECTORY_READER_SIZELIMIT", "6")]);
    let mut writer = slapd.with_people().await;
    let mut stream = follow(slapd.as_reader(), Duration::from_millis(20));
    timeout(DEADLINE, stream.next()).await.unwrap().unwrap().unwrap();
    for name in ["a", "b"] {
        writer.create_tool(&tool(name)).await.unwrap();
        until(&mut stream, name).await;
    }
}
