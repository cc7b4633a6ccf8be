//! What the directory's entries come to: which tools there are, and which entries are refused and why.

use super::*;

const BASE: &str = "dc=hearth,dc=internal";

fn platform() -> Platform {
    let text = r#"
        domains = { public = ["hearth.localhost"], legacy = "tools.hearth.localhost" }
        api = { server = "https://10.88.0.2:6443" }
        directory = { url = "ldaps://ldap", base = "dc=hearth,dc=internal", bind_dn = "cn=reader" }
        registry = { host = "registry.hearth.internal" }
    "#;
    Platform::from_toml(text).unwrap()
}

/// An entry from `attribute: value` lines.
fn entry(dn: &str, lines: &[&str]) -> Entry {
    let mut entry = Entry { dn: format!("{dn},{BASE}"), ..Entry::default() };
    for line in lines {
        let (attribute, value) = line.split_once(": ").unwrap();
        entry.attributes.entry(attribute.to_ascii_lowercase()).or_default().push(value.to_owned());
    }
    entry
}

fn account(name: &str, uid: u32) -> Entry {
    let lines = [
        format!("cn: tools.{name}"),
        format!("uid: tools.{name}"),
        format!("uidNumber: {uid}"),
        format!("gidNumber: {uid}"),
        format!("homeDirectory: /data/project/{name}"),
    ];
    entry(&format!("uid=tools.{name},ou=people,ou=servicegroups"), &lines.each_ref().map(String::as_str))
}

fn group(name: &str, gid: u32, members: &[&str]) -> Entry {
    let mut group = entry(&format!("cn=tools.{name},ou=servicegroups"), &[&format!("cn: tools.{name}")]);
    group.attributes.insert("gidnumber".to_owned(), vec![gid.to_string()]);
    let members = members.iter().map(|m| format!("{m},{BASE}")).collect();
    group.attributes.insert("member".to_owned(), members);
    group
}

/// The administrator whom most directories of these tests have, as far as one is a member.
fn root1() -> Entry {
    let lines = ["uid: root1", "uidNumber: 10001", "gidNumber: 500", "homeDirectory: /home/root1"];
    entry("uid=root1,ou=people", &lines)
}

fn snapshot(platform: &Platform, accounts: &[Entry], groups: &[Entry]) -> Snapshot {
    super::snapshot(platform, accounts, groups, &[root1()])
}

fn with(mut entry: Entry, attribute: &str, values: &[&str]) -> Entry {
    entry.attributes.insert(attribute.to_ascii_lowercase(), values.iter().map(|v| (*v).to_owned()).collect());
    entry
}

/// Reads one tool `a` beside the administrators' group, and gives what was refused.
fn check(account: Entry, group: Entry, tool: Option<&str>, refused: &[&str]) {
    let admin = self::group("admin", 501, &["uid=root1,ou=people"]);
    let snapshot = snapshot(&platform(), &[account], &[group, admin]);
    let found: Vec<String> = snapshot.refused.iter().map(|r| r.reason.to_string()).collect();
    assert_eq!(found, refused);
    let found = snapshot.tools.values().map(|t| format!("{} {} {:?}", t.name, t.uid, t.maintainers)).next();
    assert_eq!(found.as_deref(), tool);
    assert_eq!(snapshot.admins.keys().map(ToString::to_string).collect::<Vec<_>>(), ["root1"]);
    for refused in &snapshot.refused {
        assert!(refused.dn.ends_with(BASE));
    }
}

#[test]
fn a_tool_and_its_maintainers() {
    let members = ["uid=m1,ou=people", "uid=tools.b,ou=people,ou=servicegroups", "UID=m2, OU=People"];
    let all = r#"a 50000 {"m1", "m2", "tools.b"}"#;
    check(account("a", 50000), group("a", 50000, &members), Some(all), &[]);
    let nobody = Some("a 50000 {}");
    check(account("a", 50000), group("a", 50000, &["uid=tools.a,ou=people,ou=servicegroups"]), nobody, &[]);
    check(account("a", 50000), group("a", 50000, &["cn=tools.a,ou=servicegroups"]), nobody, &[]);
}

#[test]
fn a_member_that_cannot_be_read_is_refused_alone() {
    let bad = with(
        group("a", 50000, &[]),
        "member",
        &[
            "uid=m1,ou=people,dc=hearth,dc=internal",
            "m2",
            "uid=m3,dc=evil",
            "uid=x\\,y,ou=people,dc=hearth,dc=internal",
        ],
    );
    check(
        account("a", 50000),
        bad,
        Some(r#"a 50000 {"m1"}"#),
        &[
            "its member 'm2' is no distinguished name",
            "its member 'uid=m3,dc=evil' is neither below ou=people,dc=hearth,dc=internal nor a tool's account",
            "its member 'uid=x\\,y,ou=people,dc=hearth,dc=internal' is not an account that a unix system can have",
        ],
    );
}

#[test]
fn entries_that_do_not_hold_together() {
    let good = || account("a", 50000);
    for (account, reason) in [
        (with(good(), "uidNumber", &[]), "it has no uidNumber"),
        (with(good(), "uidNumber", &["0"]), "its uidNumber '0' lies outside 50000 to 59999, the numbers of tools"),
        (with(good(), "uidNumber", &["x"]), "its uidNumber 'x' is not a number from 0 to 4294967295"),
        (with(good(), "uidNumber", &["50000", "50001"]), "it has 2 values of uidNumber, where one is needed"),
        (with(good(), "gidNumber", &["50001"]), "its gidNumber '50001' differs from its uidNumber 50000"),
        (
            with(good(), "homeDirectory", &["/root"]),
            "its homeDirectory '/root' is not /data/project/a, the home that pods mount",
        ),
        (
            with(good(), "pwdAccountLockedTime", &["soon"]),
            "its pwdAccountLockedTime 'soon' is not a time such as 20261122180000Z",
        ),
        (with(good(), "cn", &["tools.a", "tools.b"]), "it has 2 values of cn, where one is needed"),
    ] {
        let admin = group("admin", 501, &[]);
        let snapshot = snapshot(&platform(), &[account], &[group("a", 50000, &[]), admin]);
        assert_eq!(snapshot.refused.first().map(|r| r.reason.to_string()).as_deref(), Some(reason));
        assert_eq!(snapshot.refused.first().and_then(|r| r.tool.as_ref()).map(ToolName::as_str), Some("a"), "{reason}");
        assert!(snapshot.tools.is_empty(), "{reason}");
    }
    check(good(), group("a", 7, &[]), None, &["its gidNumber '7' differs from its uidNumber 50000"]);
    let no_group =
        "its group cn=tools.b,ou=servicegroups,dc=hearth,dc=internal does not exist, so nobody could be its maintainer";
    let no_account = "its account uid=tools.a,ou=people,ou=servicegroups,dc=hearth,dc=internal does not exist";
    check(account("b", 50001), group("a", 50000, &[]), None, &[no_account, no_group]);
}

#[test]
fn names_that_are_not_tools_are_reported() {
    let rule = "'a_b' is not a tool name: only lower-case letters, digits and hyphens are allowed, and it starts and ends with a letter or digit";
    check(account("a_b", 50000), group("a_b", 50000, &[]), None, &[rule]);
    let other = with(account("a", 50000), "cn", &["otherproject.a"]);
    check(other, with(group("a", 50000, &[]), "cn", &["otherproject.a"]), None, &[]);
}

#[test]
fn a_shared_number_is_nobodys() {
    let accounts = [account("a", 50000), account("b", 50000), account("c", 50001)];
    let groups = [group("a", 50000, &[]), group("b", 50000, &[]), group("c", 50001, &[])];
    let snapshot = snapshot(&platform(), &accounts, &groups);
    assert_eq!(snapshot.tools.keys().map(ToolName::as_str).collect::<Vec<_>>(), ["c"]);
    let reasons: Vec<String> = snapshot.refused.iter().map(|r| r.reason.to_string()).collect();
    assert_eq!(
        reasons,
        [
            "its group cn=tools.admin,ou=servicegroups,dc=hearth,dc=internal does not exist, so nobody could be its maintainer",
            "its uidNumber 50000 is also that of uid=tools.b,ou=people,ou=servicegroups,dc=hearth,dc=internal",
            "its uidNumber 50000 is also that of uid=tools.a,ou=people,ou=servicegroups,dc=hearth,dc=internal",
        ]
    );
}

#[test]
fn two_entries_for_one_tool() {
    let twice = with(account("b", 50001), "cn", &["tools.a"]);
    let groups = [group("a", 50000, &[]), group("admin", 501, &[])];
    let snapshot = snapshot(&platform(), &[account("a", 50000), twice], &groups);
    assert_eq!(
        snapshot.refused.iter().map(|r| r.reason.to_string()).collect::<Vec<_>>(),
        ["the entry uid=tools.a,ou=people,ou=servicegroups,dc=hearth,dc=internal describes the same tool"]
    );
}

#[test]
fn a_tool_is_never_an_administrator() {
    let admin = group("admin", 501, &["uid=tools.a,ou=people,ou=servicegroups", "cn=tools.admin,ou=servicegroups"]);
    let snapshot = snapshot(&platform(), &[], &[admin]);
    assert_eq!(snapshot, Snapshot::default());
}

#[test]
fn disabled_since() {
    let state = |attributes: &[(&str, &str)]| {
        let entry = attributes.iter().fold(account("a", 50000), |e, (name, value)| with(e, name, &[value]));
        super::state(&platform(), &entry).map_err(|e| e.to_string())
    };
    let since = |text: &str| Ok(ToolState::Disabled { since: text.parse().unwrap() });
    let policy = ("pwdPolicySubentry", "CN=disabled, ou=ppolicies,dc=hearth,dc=internal");
    let changed = ("modifyTimestamp", "20260101000000Z");
    assert_eq!(state(&[changed]), Ok(ToolState::Active));
    assert_eq!(state(&[policy, ("pwdAccountLockedTime", "20261122180000Z")]), since("2026-11-22T18:00:00Z"));
    assert_eq!(state(&[("pwdAccountLockedTime", "000001010000Z"), policy]), since("0000-01-01T00:00:00Z"));
    assert_eq!(state(&[("pwdAccountLockedTime", "20261122180000Z"), changed]), since("2026-11-22T18:00:00Z"));
    assert_eq!(state(&[policy, changed]), since("2026-01-01T00:00:00Z"));
    assert_eq!(state(&[policy]), Err("it has no modifyTimestamp".to_owned()));
    let other = ("pwdPolicySubentry", "cn=default,ou=ppolicies,dc=hearth,dc=internal");
    assert_eq!(state(&[other, changed]), Ok(ToolState::Active));
    assert_eq!(state(&[("pwdPolicySubentry", "x")]), Err("its pwdPolicySubentry 'x' is no name".to_owned()));
}

#[test]
fn people() {
    let lines = ["uid: m1", "cn: Member One", "uidNumber: 10001", "gidNumber: 500", "homeDirectory: /home/m1"];
    let found = person(&with(entry("uid=m1,ou=people", &lines), "sshPublicKey", &["k1", "k2"])).unwrap();
    assert_eq!((found.name.as_str(), found.uid, found.gid), ("m1", 10001, 500));
    assert_eq!((found.full_name.as_str(), found.home.as_str(), found.ssh_keys.len()), ("Member One", "/home/m1", 2));
    assert_eq!(person(&entry("ou=servicegroups", &["ou: x"])), Err(Refusal::Missing("uid")));
}

/// What may be written of one tool: its number, its group's, whether its home is right, whether each of its entries is
/// there, and who maintains it.
type Written = (u32, u32, bool, bool, bool, usize);

fn entries_of(index: usize, written: &Written) -> (Option<Entry>, Option<Entry>) {
    let &(uid, gid, at_home, has_account, has_group, members) = written;
    let name = char::from(b'a' + u8::try_from(index).unwrap()).to_string();
    let mut own = account(&name, uid);
    if !at_home {
        own = with(own, "homeDirectory", &["/elsewhere"]);
    }
    let members = ["uid=m1,ou=people", "uid=m2,ou=people", "nobody"].get(..members).unwrap();
    (has_account.then_some(own), has_group.then(|| group(&name, gid, members)))
}

proptest::proptest! {
    /// What is read of a few tools alone comes to what reading everything would, or to nothing.
    #[test]
    fn a_renewed_snapshot_is_what_all_entries_say(
        before in proptest::array::uniform4((50000_u32..50004, 50000_u32..50004, any_mostly(), any_mostly(), any_mostly(), 0_usize..4)),
        after in proptest::array::uniform4((50000_u32..50004, 50000_u32..50004, any_mostly(), any_mostly(), any_mostly(), 0_usize..4)),
        changes in proptest::array::uniform4(proptest::bool::weighted(0.4)),
    ) {
        let platform = platform();
        let admin = group("admin", 501, &["uid=root1,ou=people"]);
        let read = |written: &[Written; 4], only: &[bool; 4]| {
            let each = written.iter().enumerate().filter(|(index, _)| only[*index]);
            let (accounts, groups): (Vec<_>, Vec<_>) = each.map(|(index, written)| entries_of(index, written)).unzip();
            (accounts.into_iter().flatten().collect::<Vec<_>>(), groups.into_iter().flatten().collect::<Vec<_>>())
        };
        let whole = |written: &[Written; 4]| {
            let (accounts, groups) = read(written, &[true; 4]);
            snapshot(&platform, &accounts, &[groups, vec![admin.clone()]].concat())
        };
        let mut now = before;
        (0..4).filter(|&index| changes[index]).for_each(|index| now[index] = after[index]);
        let names = (0..4).filter(|&index| changes[index]).map(|index| ["a", "b", "c", "d"][index].parse().unwrap());
        let (accounts, groups) = read(&now, &changes);
        if let Some(mut renewed) = renewed(&platform, &whole(&before), &names.collect(), &accounts, &groups) {
            let mut all = whole(&now);
            for snapshot in [&mut renewed, &mut all] {
                snapshot.refused.sort_by_key(|refused| format!("{refused:?}"));
            }
            proptest::prop_assert!(renewed.unusable_uids.is_superset(&all.unusable_uids));
            renewed.unusable_uids.clone_from(&all.unusable_uids);
            proptest::prop_assert_eq!(renewed, all);
        }
    }
}

fn any_mostly() -> impl proptest::strategy::Strategy<Value = bool> {
    proptest::bool::weighted(0.9)
}

#[test]
fn a_snapshot_is_renewed_where_that_tells_all() {
    let platform = platform();
    let admin = group("admin", 501, &["uid=root1,ou=people"]);
    let last = snapshot(&platform, &[account("a", 50000)], &[admin, group("a", 50000, &[])]);
    let renew = |name: &str, accounts: &[Entry], groups: &[Entry]| {
        renewed(&platform, &last, &[name.parse().unwrap()].into(), accounts, groups)
    };
    let names = |snapshot: &Snapshot| snapshot.tools.keys().map(ToString::to_string).collect::<Vec<_>>();
    let new = renew("b", &[account("b", 50001)], &[group("b", 50001, &["uid=m1,ou=people"])]).unwrap();
    assert_eq!((names(&new), new.admins.len()), (vec!["a".to_owned(), "b".to_owned()], 1));
    // Half made: it exists, and is no tool.
    let half = renew("b", &[], &[group("b", 50001, &[])]).unwrap();
    assert_eq!((names(&half), half.refused.len()), (vec!["a".to_owned()], 1));
    assert_eq!(renew("a", &[], &[]), None, "what is gone is for a whole reading");
    assert_eq!(renew("b", &[account("b", 50000)], &[group("b", 50000, &[])]), None, "a number of two bears on both");
}

/// Whatever a directory puts into a value, it makes no tool, no path and no line of its own.
#[test]
fn hostile_values_are_refused_and_told_on_one_line() {
    let long = "a".repeat(10 << 10);
    let admin = group("admin", 501, &["uid=root1,ou=people"]);
    for name in ["a\nb", "..", "../b", "a/../b", "a\0", "a b", "", "A", "a\u{202e}b", &long] {
        let snapshot = snapshot(&platform(), &[account(name, 50000)], &[group(name, 50000, &[]), admin.clone()]);
        assert!(snapshot.tools.is_empty(), "{name:?}");
        assert!(!snapshot.refused.is_empty(), "{name:?}");
        told_on_one_line(&snapshot);
    }
    for (attribute, value) in [
        ("homeDirectory", "/data/project/a/../b"),
        ("homeDirectory", "/data/project/a\n"),
        ("homeDirectory", "/data/project/a\0"),
        ("uidNumber", "50000\n"),
        ("uidNumber", "+50000"),
        ("uidNumber", "4294967296"),
        ("gidNumber", "50000\0"),
        ("pwdAccountLockedTime", "20261122180000Z\nadmin"),
        ("homeDirectory", &long),
        ("uidNumber", &long),
        ("pwdPolicySubentry", &long),
    ] {
        let own = with(account("a", 50000), attribute, &[value]);
        let snapshot = snapshot(&platform(), &[own], &[group("a", 50000, &[]), admin.clone()]);
        assert!(snapshot.tools.is_empty(), "{attribute}: {value:?}");
        told_on_one_line(&snapshot);
    }
    for member in ["uid=m1\n,ou=people", "uid=m1\0,ou=people", "uid=m,1,ou=people", &long] {
        let snapshot = snapshot(&platform(), &[account("a", 50000)], &[group("a", 50000, &[member]), admin.clone()]);
        let tool = snapshot.tools.values().next().unwrap();
        assert!(tool.maintainers.is_empty(), "{member:?}: {:?}", tool.maintainers);
        told_on_one_line(&snapshot);
    }
}

fn told_on_one_line(snapshot: &Snapshot) {
    for refused in &snapshot.refused {
        let told = refused.reason.to_string();
        assert!(!told.contains(['\n', '\0', '\u{202e}']), "{told:?}");
        assert!(told.len() < 1000, "{} bytes: {told:.200}", told.len());
    }
}
