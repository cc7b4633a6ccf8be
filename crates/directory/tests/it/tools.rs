//! Tools: made, changed, disabled and enabled; what is refused, and with which words.

use std::collections::{BTreeSet, HashSet};

use futures::future::join_all;
use hearth_core::directory_entry::{Tool, ToolState};
use hearth_directory::{Directory, MemberChange, NewTool};
use jiff::Timestamp;
use ldap3::Mod;

use crate::slapd::{BASE, Slapd};

fn tool(name: &str, maintainers: &[&str]) -> NewTool {
    let maintainers = maintainers.iter().map(|name| name.parse().unwrap()).collect();
    NewTool { name: name.parse().unwrap(), maintainers, description: None }
}

async fn found(directory: &mut Directory, name: &str) -> Tool {
    let snapshot = directory.read().await.unwrap();
    assert_eq!(snapshot.refused, []);
    snapshot.tools.get(&name.parse().unwrap()).unwrap_or_else(|| panic!("there is no {name}")).clone()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn a_tool_from_its_making_to_its_return() {
    let slapd = Slapd::start();
    let mut directory = slapd.with_people().await;
    let wikibot = "wikibot".parse().unwrap();
    let new = NewTool { description: Some(" Ein Bot für alle ".to_owned()), ..tool("wikibot", &["m1", "m2", "m1"]) };
    assert_eq!(directory.create_tool(&new).await.unwrap(), 50000);
    assert_eq!(directory.create_tool(&tool("second", &["m1"])).await.unwrap(), 50001);

    // The roles see it as the writer does.
    let mut reader = slapd.as_reader().connect().await.unwrap();
    let made = found(&mut reader, "wikibot").await;
    let expected = Tool {
        name: "wikibot".parse().unwrap(),
        uid: 50000,
        maintainers: names(&["m1", "m2"]),
        state: ToolState::Active,
    };
    assert_eq!(made, expected);
    assert_eq!(reader.tool_description(&wikibot).await.unwrap().as_deref(), Some("Ein Bot für alle"));

    let since: Timestamp = "2026-11-22T18:00:05Z".parse().unwrap();
    let later: Timestamp = "2026-11-23T18:00:05Z".parse().unwrap();
    let disabling = directory.disable_tool(&wikibot, since).await.unwrap();
    assert_eq!((disabling.since, disabling.already), (since, false));
    assert_eq!(found(&mut reader, "wikibot").await.state, ToolState::Disabled { since });
    let again = directory.disable_tool(&wikibot, later).await.unwrap();
    assert_eq!((again.since, again.already), (since, true));
    assert_eq!(found(&mut reader, "wikibot").await.state, ToolState::Disabled { since });
    assert_eq!(found(&mut reader, "second").await.state, ToolState::Active);

    assert!(directory.enable_tool(&wikibot).await.unwrap());
    assert!(!directory.enable_tool(&wikibot).await.unwrap());
    assert_eq!(found(&mut reader, "wikibot").await, made);
}

#[tokio::test]
async fn a_tool_is_forgotten_when_its_days_are_over_and_not_before() {
    let slapd = Slapd::start();
    let mut directory = slapd.with_people().await;
    let (wikibot, now): (_, Timestamp) = ("wikibot".parse().unwrap(), "2026-11-25T00:00:00Z".parse().unwrap());
    for name in ["second", "wikibot"] {
        directory.create_tool(&tool(name, &["m1"])).await.unwrap();
    }
    // It maintains another tool, as a tool may.
    let mut raw = slapd.raw("admin", "the writer's").await;
    let account = format!("uid=tools.wikibot,ou=people,ou=servicegroups,{BASE}");
    let member = vec![Mod::Add("member", [account.as_str()].into())];
    raw.modify(&format!("cn=tools.second,ou=servicegroups,{BASE}"), member).await.unwrap().success().unwrap();
    assert_eq!(found(&mut directory, "second").await.maintainers, names(&["m1", "tools.wikibot"]));

    for since in [None, Some("2026-10-25T00:00:00Z")] {
        if let Some(since) = since {
            directory.disable_tool(&wikibot, since.parse().unwrap()).await.unwrap();
        }
        let error = directory.forget_tool(&wikibot, now).await.unwrap_err().to_string();
        assert!(error.contains("is active, or its days of grace are not over"), "{error}");
    }
    let later = now + jiff::SignedDuration::from_hours(24 * 40);
    directory.forget_tool(&wikibot, later).await.unwrap();
    assert!(!directory.read().await.unwrap().tools.contains_key(&wikibot));
    assert_eq!(found(&mut directory, "second").await.maintainers, names(&["m1"]));
    let error = directory.forget_tool(&wikibot, later).await.unwrap_err().to_string();
    assert!(error.contains("there is no tool 'wikibot'"), "{error}");
    // The name is free. The number would be too, but that a higher one was never taken.
    assert_eq!(directory.create_tool(&tool("wikibot", &["m2"])).await.unwrap(), 50001);
    assert_eq!(directory.create_tool(&tool("third", &["m2"])).await.unwrap(), 50002);
    assert_eq!(found(&mut directory, "wikibot").await.maintainers, names(&["m2"]));
}

#[tokio::test]
async fn what_cannot_be_made_says_why() {
    let slapd = Slapd::start();
    let mut directory = slapd.with_people().await;
    directory.create_tool(&tool("wikibot", &["m1"])).await.unwrap();
    let before = directory.read().await.unwrap();
    let nobody = tool("other", &[]);
    let unknown = tool("other", &["m1", "m3"]);
    let unknowns = tool("other", &["m4", "m3"]);
    let untold = NewTool { description: Some("two\nlines".to_owned()), ..tool("other", &["m1"]) };
    for (new, message) in [
        (tool("wikibot", &["m2"]), "the tool name 'wikibot' is taken; choose another"),
        (tool("www", &["m1"]), "the tool name 'www' is reserved; choose another"),
        (tool("kept", &["m1"]), "the tool name 'kept' is reserved; choose another"),
        (tool("1st", &["m1"]), "the tool name '1st' must start with a letter"),
        (tool("admin", &["m1"]), "the tool name 'admin' is reserved; choose another"),
        (nobody, "the tool 'other' needs at least one maintainer"),
        (unknown, "there is no person 'm3' in the directory; 'hearth person list' shows those there are"),
        (unknowns, "there are no people 'm4', 'm3' in the directory; 'hearth person list' shows those there are"),
        (untold, "a description is one line of 1 to 300 characters"),
    ] {
        assert_eq!(directory.create_tool(&new).await.unwrap_err().to_string(), message);
    }
    let error = directory.disable_tool(&"nosuch".parse().unwrap(), Timestamp::UNIX_EPOCH).await.unwrap_err();
    assert_eq!(error.to_string(), "there is no tool 'nosuch'; 'hearth tool list' shows those there are");
    assert_eq!(directory.read().await.unwrap(), before, "nothing was left behind");

    let mut reader = slapd.as_reader().connect().await.unwrap();
    let error = reader.create_tool(&tool("other", &["m1"])).await.unwrap_err();
    assert_eq!(
        format!("{error:#}"),
        format!("cannot add cn=tools.other,ou=servicegroups,{BASE}: 'cn=reader,{BASE}' may not write in the directory")
    );
}

#[tokio::test]
async fn who_maintains_a_tool() {
    let slapd = Slapd::start();
    let mut directory = slapd.with_people().await;
    directory.create_tool(&tool("wikibot", &["m1"])).await.unwrap();
    let wikibot = "wikibot".parse().unwrap();
    for (add, remove, expected) in [
        (vec!["m2"], vec![], Ok(names(&["m1", "m2"]))),
        (vec!["m2"], vec!["m1"], Ok(names(&["m2"]))),
        (vec![], vec!["m1"], Err("'m1' is not a maintainer of 'wikibot'")),
        (vec!["m1"], vec!["m1"], Err("'m1' cannot be added and removed at once")),
        (
            vec!["m3"],
            vec![],
            Err("there is no person 'm3' in the directory; 'hearth person list' shows those there are"),
        ),
        (vec![], vec!["m2"], Ok(names(&[]))),
        (vec!["m1"], vec![], Ok(names(&["m1"]))),
        (vec!["m2"], vec!["m1"], Ok(names(&["m2"]))),
    ] {
        let people = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
        let change = MemberChange { add: people(&add), remove: people(&remove) };
        let changed = directory.change_maintainers(&wikibot, &change).await.map_err(|e| e.to_string());
        let found = found(&mut directory, "wikibot").await.maintainers;
        assert_eq!(changed.map(|()| found), expected.map_err(str::to_owned), "+{add:?} -{remove:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_made_at_the_same_time_share_nothing() {
    let slapd = Slapd::start();
    let mut directory = slapd.with_people().await;
    let make = |name: String| {
        let connection = slapd.as_writer();
        async move {
            connection.connect().await.unwrap().create_tool(&tool(&name, &["m1"])).await.map_err(|e| e.to_string())
        }
    };
    let numbers: Vec<u32> =
        join_all((0..6).map(|at| make(format!("t{at}")))).await.into_iter().collect::<Result<_, _>>().unwrap();
    assert_eq!(numbers.iter().collect::<HashSet<_>>().len(), 6, "{numbers:?}");

    let made = join_all((0..4).map(|_| make("same".to_owned()))).await;
    assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 1, "{made:?}");
    for error in made.into_iter().filter_map(Result::err) {
        assert!(error.contains("'same'") && error.contains("taken"), "{error}");
    }
    assert_eq!(found(&mut directory, "same").await.maintainers, names(&["m1"]));
    assert_eq!(directory.read().await.unwrap().tools.len(), 7);
}

#[tokio::test]
async fn a_creation_that_was_cut_off_is_completed() {
    let slapd = Slapd::start();
    let mut directory = slapd.with_people().await;
    let own = format!("uid=tools.half,ou=people,ou=servicegroups,{BASE}");
    let value = |text: &str| HashSet::from([text.to_owned()]);
    let classes = HashSet::from(["groupOfNames".to_owned(), "posixGroup".to_owned()]);
    let group = vec![
        ("objectClass".to_owned(), classes),
        ("cn".to_owned(), value("tools.half")),
        ("gidNumber".to_owned(), value("50007")),
        ("member".to_owned(), value(&own)),
    ];
    let mut raw = slapd.raw("admin", "the writer's").await;
    raw.add(&format!("cn=tools.half,ou=servicegroups,{BASE}"), group).await.unwrap().success().unwrap();

    let snapshot = directory.read().await.unwrap();
    assert!(snapshot.tools.is_empty());
    let refused: Vec<String> = snapshot.refused.iter().map(|refused| refused.reason.to_string()).collect();
    assert_eq!(refused, [format!("its account {own} does not exist")]);

    assert_eq!(directory.create_tool(&tool("half", &["m2"])).await.unwrap(), 50007);
    assert_eq!(found(&mut directory, "half").await.maintainers, names(&["m2"]));
}
